//! The async face of the world: what clients and scenario scripts hold.
//!
//! Everything here runs on the run's one thread, in virtual time: a task runs at exactly the time of
//! the event that woke it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use detkv_core::api::{Request, StreamId};
use detkv_core::member::{MemberStatus, Metrics};
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{ApiError, Instant, MemberId};
use rand_chacha::ChaCha8Rng;

use crate::config::{Counters, RunOutcome};
use crate::exec::Executor;
use crate::fault::Fault;
use crate::history::{self, ClientId};
use crate::rng::stream;
use crate::shell;
use crate::world::{CallId, Event, World};

/// What a node is doing.
#[derive(Clone, PartialEq, Debug)]
pub enum NodeStatus {
    Up(MemberStatus),
    Paused(MemberStatus),
    Recovering,
    Down,
}

/// Why a call has no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallError {
    /// The client's own timeout passed: the outcome of a write is unknown.
    Timeout,
    /// Nothing listened: the request was not delivered.
    Unavailable,
    /// The connection broke while the request was under way: the outcome of a write is unknown.
    ConnectionLost,
}

/// The answer to a request, reads already served by the member's reader.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    Range(pb::RangeResponse),
    Put(pb::PutResponse),
    DeleteRange(pb::DeleteRangeResponse),
    Txn(pb::TxnResponse),
    Compact(pb::CompactionResponse),
    LeaseGrant(pb::LeaseGrantResponse),
    LeaseRevoke(pb::LeaseRevokeResponse),
    LeaseKeepAlive(pb::LeaseKeepAliveResponse),
    LeaseTimeToLive(pb::LeaseTimeToLiveResponse),
    LeaseLeases(pb::LeaseLeasesResponse),
    Status(pb::StatusResponse),
    MemberList(pb::MemberListResponse),
    MemberAdd(pb::MemberAddResponse),
    MemberRemove(pb::MemberRemoveResponse),
    MemberUpdate(pb::MemberUpdateResponse),
    MemberPromote(pb::MemberPromoteResponse),
    Alarm(pb::AlarmResponse),
    Defragment(pb::DefragmentResponse),
    Hash(pb::HashResponse),
    HashKv(pb::HashKvResponse),
    MoveLeader(pb::MoveLeaderResponse),
}

struct Shared {
    world: RefCell<World>,
    tasks: Executor,
    /// The script has ended.
    over: RefCell<bool>,
}

/// A handle to the running world. Cheap to clone; single-threaded.
#[derive(Clone)]
pub struct Handle {
    shared: Rc<Shared>,
}

impl Handle {
    pub(crate) fn new(world: World) -> Self {
        let (world, over) = (RefCell::new(world), RefCell::new(false));
        Self { shared: Rc::new(Shared { world, tasks: Executor::default(), over }) }
    }

    /// Runs `script` to its end and takes the run's outcome.
    pub(crate) fn run(&self, seed: u64, script: impl Future<Output = ()> + 'static) -> RunOutcome {
        let this = Rc::downgrade(&self.shared);
        self.spawn(async move {
            script.await;
            if let Some(shared) = this.upgrade() {
                *shared.over.borrow_mut() = true;
            }
        });
        shell::host(seed, self);
        let outcome = self.world(World::finish);
        // Tasks hold handles: dropping them here breaks the circle.
        self.shared.tasks.clear();
        outcome
    }

    fn world<R>(&self, look: impl FnOnce(&mut World) -> R) -> R {
        look(&mut self.shared.world.borrow_mut())
    }

    /// True time of the world; members' own clocks may differ.
    pub fn now(&self) -> Instant {
        self.shared.world.borrow().now()
    }

    pub async fn sleep_until(&self, at: Instant) {
        let mut armed: Option<Waker> = None;
        poll_fn(|context| {
            if self.now() >= at {
                return Poll::Ready(());
            }
            if !armed.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                armed = Some(context.waker().clone());
                self.wake_at(at, context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Wakes a task at `at`, now or later.
    pub(crate) fn wake_at(&self, at: Instant, sleeper: Waker) {
        self.world(|world| world.kernel.schedule(at, Event::Wake { sleeper }));
    }

    pub async fn sleep(&self, d: Duration) {
        self.sleep_until(self.now() + d).await;
    }

    /// Starts a task that lives as long as it likes, at most as long as the run.
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.shared.tasks.spawn(task);
    }

    /// A random stream of its own: draws from it move no other stream.
    pub fn rng(&self, node: u64, purpose: &str) -> ChaCha8Rng {
        stream(self.shared.world.borrow().config.seed, node, purpose)
    }

    /// Everybody who is not gone for good.
    pub fn members(&self) -> Vec<MemberId> {
        let world = self.shared.world.borrow();
        world.nodes.iter().filter(|node| !node.retired).map(|node| node.id).collect()
    }

    /// A member that the world does not have is down.
    pub fn node_status(&self, node: MemberId) -> NodeStatus {
        let world = self.shared.world.borrow();
        world.place(node).map_or(NodeStatus::Down, |place| world.node(place).status())
    }

    /// The node that is up and leads with the highest term.
    pub fn leader(&self) -> Option<MemberId> {
        self.shared.world.borrow().leader()
    }

    /// Sends one request over the client's connection to `to` and waits for the answer.
    pub async fn call(
        &self,
        client: ClientId,
        to: MemberId,
        request: Request,
        timeout: Duration,
    ) -> Result<Result<Reply, ApiError>, CallError> {
        let id = self.world(|world| {
            let node = world.place(to).ok_or(CallError::Unavailable)?;
            Ok(world.start_call(client, node, request, timeout))
        })?;
        let mut open = OpenCall { handle: self.clone(), id: Some(id) };
        poll_fn(|context| {
            let result = self.world(|world| world.poll_call(id, context.waker()));
            result.map_or(Poll::Pending, |result| {
                open.id = None;
                Poll::Ready(result)
            })
        })
        .await
    }

    /// Opens a watch stream.
    pub async fn watch(&self, client: ClientId, to: MemberId) -> Result<WatchConn, CallError> {
        let stream = self.world(|world| {
            let node = world.place(to).ok_or(CallError::Unavailable)?;
            Ok(world.open_stream(client, node))
        })?;
        let conn = WatchConn { handle: self.clone(), stream };
        poll_fn(|context| {
            let opened = self.world(|world| world.poll_open(stream, context.waker()));
            opened.map_or(Poll::Pending, Poll::Ready)
        })
        .await?;
        Ok(conn)
    }

    /// By its own word.
    pub fn is_learner(&self, node: MemberId) -> bool {
        match self.node_status(node) {
            NodeStatus::Up(status) => !status.voters.contains(&status.id),
            _ => false,
        }
    }

    /// Operators are changing the cluster.
    pub fn is_operated(&self) -> bool {
        self.shared.world.borrow().is_operated()
    }

    /// The number of a machine that nobody has yet.
    pub fn next_machine(&self) -> u64 {
        self.world(World::next_machine)
    }

    /// Starts the member that `list` has on that machine, with an empty disk. Returns whether there is one.
    pub fn start_member(&self, machine: u64, list: &[pb::Member]) -> bool {
        self.world(|world| world.start_listed(machine, list)).is_some()
    }

    /// Performs a fault now.
    pub fn inject(&self, fault: Fault) {
        self.world(|world| world.inject(fault));
    }

    /// Adds to the run's history, and so to the event hash.
    pub fn record(&self, event: history::Event) {
        self.world(|world| world.record(event));
    }

    /// Why the cluster is not whole: which entry, vote or snapshot is missing, and where the only copy lies.
    pub fn explain(&self) -> Vec<String> {
        self.shared.world.borrow().explain()
    }

    /// Ends every fault: links heal, disks run, paused nodes resume, dead nodes start.
    pub fn heal_all(&self) {
        self.world(World::heal_all);
    }

    /// What disks and links did until now. Looking changes nothing.
    pub fn counters(&self) -> Counters {
        self.shared.world.borrow().counters()
    }

    /// The metrics of a member that is up. Looking changes nothing.
    pub fn metrics(&self, node: MemberId) -> Option<Arc<Metrics>> {
        let world = self.shared.world.borrow();
        Some(world.node(world.place(node)?).member()?.metrics())
    }

    /// Asks a member to stop as SIGTERM does.
    pub fn stop(&self, node: MemberId) {
        self.world(|world| {
            if let Some(place) = world.place(node) {
                world.stop(place);
            }
        });
    }
}

impl shell::World for Handle {
    fn run_tasks(&self) -> bool {
        self.shared.tasks.run_ready();
        !*self.shared.over.borrow()
    }

    fn has_ready_tasks(&self) -> bool {
        self.shared.tasks.has_ready()
    }

    fn wake_on_ready(&self, waker: &Waker) {
        self.shared.tasks.wake_on_ready(waker);
    }

    fn next_at(&self) -> Option<Instant> {
        self.shared.world.borrow().kernel.next_at()
    }

    fn step(&self) {
        self.world(World::step);
    }
}

/// Cancels a call whose future is dropped.
struct OpenCall {
    handle: Handle,
    id: Option<CallId>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.handle.world(|world| world.drop_call(id));
        }
    }
}

/// An open watch stream; dropping it closes it.
pub struct WatchConn {
    handle: Handle,
    stream: StreamId,
}

impl WatchConn {
    pub fn send(&self, request: pb::WatchRequest) {
        self.handle.world(|world| world.send_stream(self.stream, request));
    }

    /// The next response in order; `None` once the connection is lost.
    ///
    /// What is not taken fills the stream's window: the member then sees a slow watcher.
    pub async fn recv(&mut self) -> Option<pb::WatchResponse> {
        poll_fn(|context| {
            let next = self.handle.world(|world| world.poll_stream(self.stream, context.waker()));
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

impl Drop for WatchConn {
    fn drop(&mut self) {
        self.handle.world(|world| world.drop_stream(self.stream));
    }
}
