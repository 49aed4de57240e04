//! What a run records: every call and return, every watch message, and facts about the world.
//!
//! Clients and the world hand in [`Event`]s; [`History`] keeps them small (keys, values and rows are
//! interned) because a run of a million operations and its checkers must fit in 1 GB.
//! Start at [`History::record`] (writing) and [`Operation`], [`WatchRecord`], [`Fact`] (reading).

mod call;
mod event;
mod intern;
mod raft;
mod settings;
mod states;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;
use detkv_core::pb::mvccpb;
use detkv_core::{ApiError, Instant, MemberId};

pub use call::{
    Answer, Call, CompareCall, DeleteCall, Deleted, End, HashAnswer, KeyRange, Op, PutCall,
    RangeCall, Rows, Target, TxnAnswer, TxnCall,
};
pub use event::{DownHow, Event, Fact, Failure, Phase, may_take_effect_later};
pub use intern::{Interner, Value};
pub use raft::{AlarmEntry, Entry, EntryId, LeaseEntry, RaftStep, RaftTrace, Rare};
pub use settings::Settings;
pub use states::{Sample, States};
pub use watch::{Batch, WatchEnd, WatchEvent, WatchRecord};

use crate::handle::Reply;
use event::may_have_effect;

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
    states: States,
    settings: Settings,
    /// Voters of the cluster when it began.
    first_voters: Vec<MemberId>,
    /// Errors after which a request may still take effect: the client's view of what is `Unknown`.
    errors: BTreeMap<OpId, ApiError>,
    /// Clients that are slow on purpose: nobody waits for them.
    slow: BTreeSet<ClientId>,
    /// 32-bit FNV-1a of every value, when histories are to be written for others.
    value_hashes: Option<Vec<u32>>,
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

    /// States of the members, compared wherever they met.
    pub fn states(&self) -> &States {
        &self.states
    }

    pub fn states_mut(&mut self) -> &mut States {
        &mut self.states
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

    /// Voters of the cluster when it began; empty when nobody said.
    pub fn first_voters(&self) -> &[MemberId] {
        &self.first_voters
    }

    pub fn set_first_voters(&mut self, voters: Vec<MemberId>) {
        self.first_voters = voters;
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
}

/// FNV-1a with 32 bits, by which etcd's robustness tests name long values.
pub fn fnv32a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
