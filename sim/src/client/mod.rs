//! Clients of a run: async tasks on the [`Handle`], with endpoints, a timeout and a retry policy, as real
//! clients have them. Every call and return goes into the history.
//!
//! Start at [`Client::call`]. A workload is a struct with its parameters and a `start` that spawns its tasks;
//! [`Clients::are_done`] tells when all of them have ended.
//!
//! | File | Workload |
//! |---|---|
//! | `put_load` | puts in an open loop, each client pinned to a member |
//! | `one_by_one` | the same call again and again, each after the answer to the last |
//! | `mixed` | puts, gets, stale gets, deletes, guarded txns, leases |
//! | `robustness` | the mix of etcd's robustness tests, sequential clients on few keys |
//! | `kubernetes` | list-then-watch readers, guarded writers, events with leases, compaction |
//! | `keep_alive` | leases with keys: kept alive, let go, revoked |
//! | `bursts` | many puts at once, then nothing |
//! | `script` | steps one after the other: fill, compact, defragment, disarm |
//! | `watcher` | watches that resume after the last revision they were shown |
//! | `slow_watcher` | watches that are read slowly, with stops |
//! | `compactor` | compacts now and then, some revisions behind |
//! | `maintainer` | defragments, asks for hashes, makes room and disarms |
//! | `member_changes` | adds learners, promotes, removes members, moves the leader |
//! | `readout` | reads everything back at the end of a run |

mod bursts;
mod compactor;
mod keep_alive;
mod kubernetes;
mod maintainer;
mod member_changes;
mod mixed;
mod one_by_one;
mod pace;
mod put_load;
mod readout;
mod requests;
mod robustness;
mod script;
mod slow_watcher;
mod stream;
mod timeout;
mod values;
mod watcher;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::{ApiError, MemberId};
use rand_chacha::ChaCha8Rng;
use rand_core::Rng as _;

pub use bursts::Bursts;
pub use compactor::Compactor;
pub use keep_alive::KeepAlive;
pub use kubernetes::Kubernetes;
pub use maintainer::Maintainer;
pub use member_changes::{ChangeWeights, MemberChanges};
pub use mixed::Mixed;
pub use one_by_one::{Call, OneByOne, resolve};
pub use pace::Pace;
pub use put_load::PutLoad;
pub use readout::{Readout, ReadoutError};
pub use robustness::{Robustness, RobustnessWeights, Traffic};
pub use script::{Action, Script, Step};
pub use slow_watcher::SlowWatcher;
pub use watcher::{WatchProgress, Watcher};

use crate::handle::{CallError, Handle, Reply};
use crate::history::{ClientId, Event, Failure, OpId, WatchId, may_take_effect_later};

/// First pause of a client that retries; it doubles up to [`BACK_OFF_MAX`], each with jitter.
const BACK_OFF_MIN: Duration = Duration::from_millis(25);
const BACK_OFF_MAX: Duration = Duration::from_millis(1600);

/// All clients of a run: gives out their numbers and those of their operations.
#[derive(Clone)]
pub struct Clients {
    handle: Handle,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    next_client: Cell<u32>,
    next_op: Cell<u32>,
    next_watch: Cell<u32>,
    /// Tasks that have not ended.
    running: Cell<usize>,
}

fn take_next(next: &Cell<u32>) -> u32 {
    next.replace(next.get() + 1)
}

impl Clients {
    pub fn new(handle: Handle) -> Self {
        Self { handle, shared: Rc::default() }
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// A client that talks to `endpoints` in turn: the first until it fails.
    pub fn client(&self, endpoints: Vec<MemberId>, timeout: Duration) -> Client {
        assert!(!endpoints.is_empty(), "a client has somebody to talk to");
        let id = ClientId(take_next(&self.shared.next_client));
        let rng = self.handle.rng(u64::from(id.0), "client");
        Client {
            id,
            timeout,
            handle: self.handle.clone(),
            shared: self.shared.clone(),
            endpoints: Rc::new(RefCell::new(endpoints)),
            follows: false,
            current: Rc::default(),
            rng: Rc::new(RefCell::new(rng)),
        }
    }

    /// The number that the next client gets.
    pub fn next_number(&self) -> u32 {
        self.shared.next_client.get()
    }

    /// A client that talks to one member only.
    pub fn pinned(&self, member: MemberId, timeout: Duration) -> Client {
        self.client(vec![member], timeout)
    }

    /// A client that starts at the `n`-th member and moves on when that fails.
    pub fn roaming(&self, n: usize, timeout: Duration) -> Client {
        let mut endpoints = self.handle.members();
        let start = n % endpoints.len();
        endpoints.rotate_left(start);
        Client { follows: true, ..self.client(endpoints, timeout) }
    }

    /// Runs a task that [`Clients::are_done`] waits for.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let shared = self.shared.clone();
        shared.running.set(shared.running.get() + 1);
        self.handle.spawn(async move {
            task.await;
            shared.running.set(shared.running.get() - 1);
        });
    }

    pub fn are_done(&self) -> bool {
        self.shared.running.get() == 0
    }
}

/// One client. Clones are the same client: its concurrent calls.
#[derive(Clone)]
pub struct Client {
    pub id: ClientId,
    pub timeout: Duration,
    handle: Handle,
    shared: Rc<Shared>,
    endpoints: Rc<RefCell<Vec<MemberId>>>,
    /// It keeps its endpoints in step with the cluster, as etcd's client can.
    follows: bool,
    /// Place in `endpoints`.
    current: Rc<Cell<usize>>,
    rng: Rc<RefCell<ChaCha8Rng>>,
}

impl Client {
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The member it talks to now.
    pub fn endpoint(&self) -> MemberId {
        self.endpoints.borrow()[self.current.get()]
    }

    /// Moves on to the next endpoint, if there is another one.
    pub fn rotate(&self) {
        // Nobody stays pinned to a member that is gone for good.
        let members = self.handle.members();
        let is_lost = !self.endpoints.borrow().iter().any(|id| members.contains(id));
        if self.follows || is_lost {
            self.follow(&members);
        }
        self.current.set((self.current.get() + 1) % self.endpoints.borrow().len());
    }

    /// Members that are gone leave the endpoints, new ones come last.
    fn follow(&self, members: &[MemberId]) {
        let mut endpoints = self.endpoints.borrow_mut();
        let present = self.current.get();
        let is_gone = |id: &MemberId| !members.contains(id);
        let gone_before = endpoints[..=present].iter().filter(|id| is_gone(id)).count();
        endpoints.retain(|id| members.contains(id));
        let new: Vec<MemberId> =
            members.iter().copied().filter(|id| !endpoints.contains(id)).collect();
        endpoints.extend(new);
        // One before the next in turn.
        self.current.set((present + endpoints.len() - gone_before) % endpoints.len());
    }

    /// A number below `n`, from the client's own stream.
    pub fn below(&self, n: u64) -> u64 {
        self.rng.borrow_mut().next_u64() % n.max(1)
    }

    /// One request, sent once. A write that gets no answer has an unknown outcome: it is never sent again.
    ///
    /// After a failure that another member may not have, the client moves on to its next endpoint.
    pub async fn call(&self, request: Request) -> Result<Reply, Failure> {
        let op = OpId(take_next(&self.shared.next_op));
        let member = self.endpoint();
        self.handle.record(Event::Call { client: self.id, op, member, request: request.clone() });
        let answer = self.handle.call(self.id, member, request, self.timeout).await;
        let result = match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => Err(Failure::Api(error)),
            Err(CallError::Unavailable) => Err(Failure::NotSent),
            Err(CallError::Timeout | CallError::ConnectionLost) => Err(Failure::Unknown),
        };
        self.handle.record(Event::Return { op, result: result.clone() });
        if result.as_ref().is_err_and(is_worth_another_endpoint) && self.endpoint() == member {
            self.rotate();
        }
        result
    }

    /// A read, sent again after failures that may pass, with jittered back-off; `tries` calls at most.
    ///
    /// Every try is an operation of its own in the history.
    pub async fn read(&self, request: Request, tries: u32) -> Result<Reply, Failure> {
        let mut back_off = BACK_OFF_MIN;
        for _ in 1..tries {
            match self.call(request.clone()).await {
                Err(failure) if is_worth_another_endpoint(&failure) => {}
                done => return done,
            }
            self.pause(&mut back_off).await;
        }
        self.call(request).await
    }

    /// Sleeps `back_off` ± 25 %, then doubles it.
    pub async fn pause(&self, back_off: &mut Duration) {
        let quarter = back_off.as_nanos() as u64 / 4;
        let jitter = Duration::from_nanos(self.below(2 * quarter));
        self.handle.sleep(*back_off - Duration::from_nanos(quarter) + jitter).await;
        *back_off = (*back_off * 2).min(BACK_OFF_MAX);
    }

    fn next_watch(&self) -> WatchId {
        WatchId(take_next(&self.shared.next_watch))
    }
}

/// Whether the failure says more about the member than about the request.
fn is_worth_another_endpoint(failure: &Failure) -> bool {
    match failure {
        Failure::Unknown | Failure::NotSent => true,
        Failure::Api(error) => {
            may_take_effect_later(error)
                || matches!(
                    error,
                    ApiError::TooManyRequests
                        | ApiError::Unhealthy
                        | ApiError::NotSupportedForLearner
                )
        }
    }
}
