//! What a run records: every call and return, every watch message, and facts about the world.
//!
//! Clients and the world hand in [`Event`]s; [`History`] keeps them small (keys, values and rows are
//! interned) because a run of a million operations and its checkers must fit in 1 GB.
//! Start at [`History::record`] (writing) and [`Operation`], [`WatchRecord`], [`Fact`] (reading).

mod call;
mod intern;
mod raft;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::Request;
use detkv_core::member::{AppliedChange, Role};
use detkv_core::pb::{etcdserverpb as pb, mvccpb};
use detkv_core::{ApiError, Instant, MemberId};

pub use call::{
    Answer, Call, CompareCall, DeleteCall, Deleted, End, HashAnswer, KeyRange, Op, PutCall,
    RangeCall, Rows, Target, TxnAnswer, TxnCall,
};
pub use intern::{Interner, Value};
pub use raft::{AlarmEntry, Entry, EntryId, LeaseEntry, RaftStep, RaftTrace, Rare};

use crate::handle::Reply;

/// A client of a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ClientId(pub u32);

/// An operation: its place in [`History::operations`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OpId(pub u32);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op {}", self.0)
    }
}

/// One watch on one connection: its place in [`History::watches`]. A watcher that reconnects opens another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub u32);

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyId(pub u32);
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ValueId(pub u32);
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KvId(pub u32);

/// A `KeyValue` as a response showed it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Kv {
    pub key: KeyId,
    pub value: ValueId,
    pub create_revision: i64,
    pub mod_revision: i64,
    pub version: i64,
    pub lease: i64,
}

/// How a call ended without an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum Failure {
    Api(ApiError),
    /// The request never left the client: it has no effect.
    NotSent,
    /// Timeout or lost connection: the request may take effect at any later time.
    Unknown,
}

/// One thing to record; its time is given beside it.
#[derive(Clone, Debug)]
pub enum Event {
    /// `op` is the next free number: operations are numbered in the order of their calls.
    Call {
        client: ClientId,
        op: OpId,
        member: MemberId,
        request: Request,
    },
    Return {
        op: OpId,
        result: Result<Reply, Failure>,
    },
    /// `watch` is the next free number.
    WatchOpened {
        client: ClientId,
        watch: WatchId,
        member: MemberId,
        request: pb::WatchCreateRequest,
    },
    /// Every message on the stream of `watch` after the request was sent.
    WatchResponse {
        watch: WatchId,
        response: pb::WatchResponse,
    },
    /// The connection went away.
    WatchLost {
        watch: WatchId,
    },
    /// The client closed it.
    WatchClosed {
        watch: WatchId,
    },
    /// From now on the client drains its watches slowly, on purpose.
    ClientIsSlow {
        client: ClientId,
    },
    Fact(Fact),
}

/// Something about the world that no client sees.
#[derive(Clone, PartialEq, Debug)]
pub enum Fact {
    /// The process started and reads its data directory.
    Recovering {
        member: MemberId,
    },
    /// Open: it takes part.
    Up {
        member: MemberId,
    },
    Down {
        member: MemberId,
        how: DownHow,
    },
    Paused {
        member: MemberId,
    },
    Resumed {
        member: MemberId,
    },
    /// The member's view changed.
    Role {
        member: MemberId,
        role: Role,
        term: u64,
        leader: Option<MemberId>,
    },
    /// `fault` numbers the faults of a run; `what` reads as a line of the story.
    FaultBegan {
        fault: u32,
        what: String,
        member: Option<MemberId>,
    },
    FaultEnded {
        fault: u32,
    },
    /// `Member::state_hash` at `applied_index`.
    StateHash {
        member: MemberId,
        applied_index: u64,
        hash: u64,
    },
    /// HashKV of the member, asked when everything was over.
    KvHash {
        member: MemberId,
        revision: i64,
        compact_revision: i64,
        hash: u32,
    },
    /// A counter or gauge of the member, read at this time.
    Metric {
        member: MemberId,
        name: &'static str,
        value: u64,
    },
    /// The member's clock jumped forward (or back, if negative).
    ClockStepped {
        member: MemberId,
        ns: i64,
    },
    /// The member applied a change of the configuration.
    Membership {
        member: MemberId,
        change: AppliedChange,
    },
    /// The script reached a phase of the run.
    Phase(Phase),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DownHow {
    Killed,
    PowerLoss,
    /// A planned stop.
    Stopped,
    /// The member gave up: a failed disk, removal.
    Halted(String),
    /// The data directory could not be opened.
    OpenFailed(String),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// A leader is elected and the workload runs: figures count from here.
    WarmedUp,
    /// No fault from here on: the cluster must converge.
    FaultsOver,
    /// The workload is over; what follows reads everything back.
    Readout,
}

/// One call with its return.
#[derive(Clone, Debug)]
pub struct Operation {
    pub client: ClientId,
    pub member: MemberId,
    pub called: Instant,
    /// `Instant::FAR` while the outcome is open or unknown: it may take effect at any later time.
    pub returned: Instant,
    /// When the client stopped waiting, with or without an answer; `Instant::FAR` while it waits.
    pub ended: Instant,
    pub call: Call,
    pub outcome: Outcome,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// No answer came: took effect at some time after the call, or never.
    Unknown,
    /// Had no effect.
    Failed(Box<ApiError>),
    /// Had no effect: it was not sent.
    NotSent,
    Done {
        /// Of the response's header.
        revision: i64,
        answer: Answer,
    },
}

/// One watch on one connection.
#[derive(Clone, Debug)]
pub struct WatchRecord {
    pub client: ClientId,
    pub member: MemberId,
    pub opened: Instant,
    pub keys: KeyRange,
    pub start_revision: i64,
    pub prev_kv: bool,
    pub progress_notify: bool,
    pub fragment: bool,
    pub no_put: bool,
    pub no_delete: bool,
    /// When the `created` answer came, and its header's revision.
    pub created: Option<(Instant, i64)>,
    pub batches: Vec<Batch>,
    pub events: Vec<WatchEvent>,
    pub end: Option<(Instant, WatchEnd)>,
}

/// One response with events, or a progress notice (no events).
#[derive(Clone, Debug)]
pub struct Batch {
    pub at: Instant,
    /// Of the response's header.
    pub revision: i64,
    /// More of the same revision follows.
    pub fragment: bool,
    /// In [`WatchRecord::events`].
    pub events: Range<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchEvent {
    pub is_delete: bool,
    pub kv: KvId,
    pub prev: Option<KvId>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WatchEnd {
    /// The connection broke.
    Lost,
    /// The client closed it.
    Closed,
    Canceled {
        compact_revision: i64,
        reason: String,
    },
}

/// Everything that was recorded, in the order of time.
#[derive(Clone, Default, Debug)]
pub struct History {
    keys: Interner<Bytes>,
    values: Interner<Value>,
    kvs: Interner<Kv>,
    operations: Vec<Operation>,
    watches: Vec<WatchRecord>,
    facts: Vec<(Instant, Fact)>,
    raft: RaftTrace,
    settings: Settings,
    /// Errors after which a request may still take effect: the client's view of what is `Unknown`.
    errors: BTreeMap<OpId, ApiError>,
    /// Clients that are slow on purpose: nobody waits for them.
    slow: BTreeSet<ClientId>,
    /// 32-bit FNV-1a of every value, when histories are to be written for others.
    value_hashes: Option<Vec<u32>>,
}

/// What the members were told at open, where a promise depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub election: Duration,
    /// Least TTL of a lease, whole seconds.
    pub lease_ttl_secs_min: i64,
    /// How far any member's clock runs fast or slow, parts per million.
    pub drift_ppm: u32,
    /// Byte credit of a watch stream.
    pub watch_stream_bytes: u64,
}

impl Settings {
    /// What a member may hold for a stream when it adds another message: its credit, and twice that because
    /// answers to requests need none.
    pub fn watch_held_bytes_max(&self) -> u64 {
        self.watch_stream_bytes.saturating_mul(2)
    }
}

impl Default for Settings {
    /// etcd's defaults, on true clocks.
    fn default() -> Self {
        Self {
            election: Duration::from_secs(1),
            lease_ttl_secs_min: 2,
            drift_ppm: 0,
            watch_stream_bytes: detkv_core::limits::WATCH_STREAM_BYTES_MAX,
        }
    }
}

impl History {
    pub fn new() -> Self {
        Self::default()
    }

    /// Invariant: `at` never decreases from call to call.
    pub fn record(&mut self, at: Instant, event: Event) {
        match event {
            Event::Call { client, op, member, request } => {
                assert_eq!(op.0 as usize, self.operations.len(), "ops are numbered by their calls");
                let call = self.call(&request);
                self.operations.push(Operation {
                    client,
                    member,
                    called: at,
                    returned: Instant::FAR,
                    ended: Instant::FAR,
                    call,
                    outcome: Outcome::Unknown,
                });
            }
            Event::Return { op, result } => self.on_return(at, op, result),
            Event::WatchOpened { client, watch, member, request } => {
                assert_eq!(watch.0 as usize, self.watches.len(), "watches are numbered by opening");
                self.on_watch_opened(at, client, member, &request);
            }
            Event::WatchResponse { watch, response } => self.on_watch_response(at, watch, response),
            Event::WatchLost { watch } => self.on_watch_end(at, watch, WatchEnd::Lost),
            Event::WatchClosed { watch } => self.on_watch_end(at, watch, WatchEnd::Closed),
            Event::ClientIsSlow { client } => {
                self.slow.insert(client);
            }
            Event::Fact(fact) => self.facts.push((at, fact)),
        }
    }

    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    pub fn operation(&self, op: OpId) -> &Operation {
        &self.operations[op.0 as usize]
    }

    /// An operation in words: `op 12 (put of client 3)`.
    pub fn show(&self, op: OpId) -> String {
        let operation = self.operation(op);
        format!("{op} ({} of client {})", operation.call.kind(), operation.client.0)
    }

    /// The operations with their names.
    pub fn operations_with_ids(&self) -> impl Iterator<Item = (OpId, &Operation)> {
        self.operations.iter().enumerate().map(|(i, op)| (OpId(i as u32), op))
    }

    pub fn watches(&self) -> &[WatchRecord] {
        &self.watches
    }

    pub fn facts(&self) -> &[(Instant, Fact)] {
        &self.facts
    }

    /// What the members' Raft logs held.
    pub fn raft(&self) -> &RaftTrace {
        &self.raft
    }

    pub fn raft_mut(&mut self) -> &mut RaftTrace {
        &mut self.raft
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Some clock runs by so much fast or slow, now or for a while.
    pub fn note_drift(&mut self, ppm: u32) {
        self.settings.drift_ppm = self.settings.drift_ppm.max(ppm);
    }

    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Numbers of the members in the order in which they first started: of the first ones their ids.
    pub fn numbers(&self) -> BTreeMap<MemberId, u64> {
        let mut numbers = BTreeMap::new();
        for (_, fact) in self.facts() {
            if let Fact::Recovering { member } = fact {
                let next = numbers.len() as u64 + 1;
                numbers.entry(*member).or_insert(next);
            }
        }
        numbers
    }

    /// The error of an operation, whether or not it may have taken effect.
    pub fn error(&self, op: OpId) -> Option<&ApiError> {
        match &self.operation(op).outcome {
            Outcome::Failed(error) => Some(error),
            Outcome::Unknown => self.errors.get(&op),
            _ => None,
        }
    }

    /// Whether the client takes its time on purpose.
    pub fn is_slow(&self, client: ClientId) -> bool {
        self.slow.contains(&client)
    }

    /// When a phase was reached.
    pub fn phase(&self, phase: Phase) -> Option<Instant> {
        self.facts.iter().find(|(_, fact)| *fact == Fact::Phase(phase)).map(|(at, _)| *at)
    }

    /// Every key mentioned anywhere, by its id.
    pub fn keys(&self) -> &[Bytes] {
        self.keys.items()
    }

    pub fn key(&self, key: KeyId) -> &Bytes {
        self.keys.item(key.0)
    }

    pub fn value(&self, value: ValueId) -> &Value {
        self.values.item(value.0)
    }

    /// Keeps the hash of every value from here on.
    pub(crate) fn keep_value_hashes(&mut self) {
        assert!(self.values.items().is_empty(), "hashes are kept from the first value on");
        self.value_hashes = Some(Vec::new());
    }

    /// [`fnv32a`] of a value; `None` when the hashes were not kept.
    pub fn value_hash(&self, value: ValueId) -> Option<u32> {
        self.value_hashes.as_ref()?.get(value.0 as usize).copied()
    }

    /// The id of the empty value, if any response or request showed one.
    pub fn empty_value(&self) -> Option<ValueId> {
        self.values.find(&Value::EMPTY).map(ValueId)
    }

    pub fn kv(&self, kv: KvId) -> &Kv {
        self.kvs.item(kv.0)
    }

    /// Every row that any response showed.
    pub fn kvs(&self) -> &[Kv] {
        self.kvs.items()
    }

    pub(crate) fn intern_key(&mut self, key: &Bytes) -> KeyId {
        KeyId(self.keys.intern(key.clone()))
    }

    pub(crate) fn intern_value(&mut self, value: &[u8]) -> ValueId {
        let id = self.values.intern(Value::new(value));
        if let Some(hashes) = &mut self.value_hashes
            && hashes.len() == id as usize
        {
            hashes.push(fnv32a(value));
        }
        ValueId(id)
    }

    pub(crate) fn intern_kv(&mut self, kv: &mvccpb::KeyValue) -> KvId {
        let kv = Kv {
            key: self.intern_key(&kv.key),
            value: self.intern_value(&kv.value),
            create_revision: kv.create_revision,
            mod_revision: kv.mod_revision,
            version: kv.version,
            lease: kv.lease,
        };
        KvId(self.kvs.intern(kv))
    }

    fn on_return(&mut self, at: Instant, op: OpId, result: Result<Reply, Failure>) {
        let outcome = match result {
            Ok(reply) => self.outcome(&reply),
            Err(Failure::Api(error)) if may_have_effect(&error) => {
                self.errors.insert(op, error);
                Outcome::Unknown
            }
            Err(Failure::Api(error)) => Outcome::Failed(Box::new(error)),
            Err(Failure::NotSent) => Outcome::NotSent,
            Err(Failure::Unknown) => Outcome::Unknown,
        };
        let operation = &mut self.operations[op.0 as usize];
        assert_eq!(operation.outcome, Outcome::Unknown, "{op} returns once");
        if outcome != Outcome::Unknown {
            operation.returned = at;
        }
        operation.ended = at;
        operation.outcome = outcome;
    }

    fn on_watch_opened(
        &mut self,
        at: Instant,
        client: ClientId,
        member: MemberId,
        request: &pb::WatchCreateRequest,
    ) {
        use pb::watch_create_request::FilterType;
        // Surface spec §4.1: an empty key watches from the lowest one.
        let lowest = Bytes::from_static(b"\0");
        let key = if request.key.is_empty() { &lowest } else { &request.key };
        let keys = self.key_range(key, &request.range_end);
        let has = |filter: FilterType| request.filters.contains(&(filter as i32));
        self.watches.push(WatchRecord {
            client,
            member,
            opened: at,
            keys,
            start_revision: request.start_revision,
            prev_kv: request.prev_kv,
            progress_notify: request.progress_notify,
            fragment: request.fragment,
            no_put: has(FilterType::Noput),
            no_delete: has(FilterType::Nodelete),
            created: None,
            batches: Vec::new(),
            events: Vec::new(),
            end: None,
        });
    }

    fn on_watch_response(&mut self, at: Instant, watch: WatchId, response: pb::WatchResponse) {
        let revision = response.header.as_ref().map_or(0, |header| header.revision);
        // An event without a row is recorded as one about the empty key, which no filter allows.
        let none = mvccpb::KeyValue::default();
        let mut events = Vec::with_capacity(response.events.len());
        for event in &response.events {
            events.push(WatchEvent {
                is_delete: event.r#type == mvccpb::event::EventType::Delete as i32,
                kv: self.intern_kv(event.kv.as_ref().unwrap_or(&none)),
                prev: event.prev_kv.as_ref().map(|prev| self.intern_kv(prev)),
            });
        }
        let record = &mut self.watches[watch.0 as usize];
        if response.created {
            record.created = Some((at, revision));
        }
        if !events.is_empty() || !(response.created || response.canceled) {
            let from = record.events.len() as u32;
            record.events.append(&mut events);
            let events = from..record.events.len() as u32;
            record.batches.push(Batch { at, revision, fragment: response.fragment, events });
        }
        if response.canceled {
            let end = WatchEnd::Canceled {
                compact_revision: response.compact_revision,
                reason: response.cancel_reason,
            };
            self.on_watch_end(at, watch, end);
        }
    }

    fn on_watch_end(&mut self, at: Instant, watch: WatchId, end: WatchEnd) {
        let record = &mut self.watches[watch.0 as usize];
        record.end.get_or_insert((at, end));
    }
}

/// FNV-1a with 32 bits, by which etcd's robustness tests name long values.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// Whether a request that got this error may take effect, or may have.
///
/// Besides what may come later: a write that meets the quota on its way through apply takes effect
/// although its caller is refused (surface spec §16.6, check 2).
fn may_have_effect(error: &ApiError) -> bool {
    may_take_effect_later(error) || *error == ApiError::NoSpace
}

/// Whether a request that got this error may still take effect later (surface spec §10.3).
///
/// All others are answers to a request that was looked at and refused.
pub fn may_take_effect_later(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::Timeout
            | ApiError::TimeoutLeaderFailure
            | ApiError::TimeoutConnectionLost
            | ApiError::TimeoutApplied
            | ApiError::DeadlineExceeded
            | ApiError::ProposalDropped
            | ApiError::LeaderChanged
            | ApiError::NoLeader
            | ApiError::NotLeader
            | ApiError::Stopped
            | ApiError::TimeoutLeaderTransfer
    )
}
