//! Requests and answers as the history keeps them: the messages with keys, values and rows interned.

use bytes::Bytes;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;

use super::{History, KeyId, KvId, Outcome, ValueId};
use crate::handle::Reply;

/// Keys from `key` to `end` (surface spec §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyRange {
    pub key: KeyId,
    pub end: End,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Exactly `key`.
    Single,
    /// Every key from `key` on.
    Open,
    /// Up to, without, this one. Not above `key`: an empty range.
    Before(KeyId),
}

#[derive(Clone, PartialEq, Debug)]
pub enum Call {
    Range(Box<RangeCall>),
    Put(PutCall),
    Delete(DeleteCall),
    Txn(Box<TxnCall>),
    Compact {
        revision: i64,
    },
    LeaseGrant {
        id: i64,
        ttl_secs: i64,
    },
    LeaseRevoke {
        id: i64,
    },
    LeaseKeepAlive {
        id: i64,
    },
    LeaseTimeToLive {
        id: i64,
    },
    /// Wire numbers of etcd's `AlarmAction` and `AlarmType`.
    Alarm {
        action: i32,
        alarm: i32,
        of: u64,
    },
    HashKv {
        revision: i64,
    },
    /// Changes nothing that a client can read.
    Defragment,
    /// Changes no key and shows none.
    Other(&'static str),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RangeCall {
    pub keys: KeyRange,
    pub limit: i64,
    /// As asked: 0 or less is the current one.
    pub revision: i64,
    pub sort_order: i32,
    pub sort_target: i32,
    pub serializable: bool,
    pub keys_only: bool,
    pub count_only: bool,
    pub min_mod_revision: i64,
    pub max_mod_revision: i64,
    pub min_create_revision: i64,
    pub max_create_revision: i64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PutCall {
    pub key: KeyId,
    pub value: ValueId,
    pub lease: i64,
    pub prev_kv: bool,
    pub ignore_value: bool,
    pub ignore_lease: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DeleteCall {
    pub keys: KeyRange,
    pub prev_kv: bool,
}

#[derive(Clone, PartialEq, Debug)]
pub struct TxnCall {
    pub compares: Vec<CompareCall>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// One operation of a txn's branch.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    Range(RangeCall),
    Put(PutCall),
    Delete(DeleteCall),
    Txn(TxnCall),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CompareCall {
    pub keys: KeyRange,
    /// `CompareResult` on the wire.
    pub result: i32,
    pub target: Target,
}

/// What is compared, with what. An operand that does not fit its target counts as zero (surface spec §3.5).
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Target {
    Version(i64),
    Create(i64),
    Mod(i64),
    Value(ValueId),
    Lease(i64),
    /// An unknown number: the operands count as equal.
    Unknown,
}

/// What an answer says beside its header's revision.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    Nothing,
    Put {
        prev: Option<KvId>,
    },
    Deleted(Box<Deleted>),
    Rows(Box<Rows>),
    Txn(Box<TxnAnswer>),
    Lease {
        id: i64,
        ttl_secs: i64,
    },
    /// `ttl_secs` is −1 where there is no such lease.
    TimeToLive {
        ttl_secs: i64,
        granted_ttl_secs: i64,
    },
    /// Member and type of each.
    Alarms(Box<Vec<(u64, i32)>>),
    Hash(Box<HashAnswer>),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HashAnswer {
    pub hash: u32,
    pub compact_revision: i64,
    pub hash_revision: i64,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Deleted {
    pub deleted: i64,
    pub prev: Vec<KvId>,
}

#[derive(Clone, PartialEq, Debug)]
pub struct Rows {
    pub kvs: Vec<KvId>,
    pub more: bool,
    pub count: i64,
}

#[derive(Clone, PartialEq, Debug)]
pub struct TxnAnswer {
    pub succeeded: bool,
    pub answers: Vec<Answer>,
}

impl Call {
    /// In a word or two.
    pub fn kind(&self) -> &'static str {
        match self {
            Call::Range(range) if range.serializable => "serializable range",
            Call::Range(_) => "range",
            Call::Put(_) => "put",
            Call::Delete(_) => "delete",
            Call::Txn(_) => "txn",
            Call::Compact { .. } => "compaction",
            Call::LeaseGrant { .. } => "lease grant",
            Call::LeaseRevoke { .. } => "lease revoke",
            Call::LeaseKeepAlive { .. } => "lease keep-alive",
            Call::LeaseTimeToLive { .. } => "lease time to live",
            Call::Alarm { .. } => "alarm",
            Call::HashKv { .. } => "hash kv",
            Call::Defragment => "defragment",
            Call::Other(kind) => kind,
        }
    }

    /// Whether it may change keys: a txn with a write in either branch may.
    pub fn may_write(&self) -> bool {
        match self {
            Call::Put(_) | Call::Delete(_) | Call::LeaseRevoke { .. } => true,
            Call::Txn(txn) => txn.may_write(),
            _ => false,
        }
    }

    /// A read that may be answered from local state: a serializable range, or a txn without any
    /// other operation (surface spec §3.5, read-only fast path).
    pub fn is_serializable(&self) -> bool {
        match self {
            Call::Range(range) => range.serializable,
            Call::Txn(txn) => txn
                .success
                .iter()
                .chain(&txn.failure)
                .all(|op| matches!(op, Op::Range(range) if range.serializable)),
            _ => false,
        }
    }
}

impl TxnCall {
    pub fn may_write(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|op| match op {
            Op::Range(_) => false,
            Op::Put(_) | Op::Delete(_) => true,
            Op::Txn(txn) => txn.may_write(),
        })
    }
}

impl History {
    pub(super) fn key_range(&mut self, key: &Bytes, range_end: &Bytes) -> KeyRange {
        let end = match range_end.as_ref() {
            [] => End::Single,
            [0] => End::Open,
            _ => End::Before(self.intern_key(range_end)),
        };
        KeyRange { key: self.intern_key(key), end }
    }

    pub(super) fn call(&mut self, request: &Request) -> Call {
        match request {
            Request::Range(range) => Call::Range(Box::new(self.range_call(range))),
            Request::Put(put) => Call::Put(self.put_call(put)),
            Request::DeleteRange(delete) => Call::Delete(self.delete_call(delete)),
            Request::Txn(txn) => Call::Txn(Box::new(self.txn_call(txn))),
            Request::Compact(compact) => Call::Compact { revision: compact.revision },
            Request::LeaseGrant(grant) => Call::LeaseGrant { id: grant.id, ttl_secs: grant.ttl },
            Request::LeaseRevoke(revoke) => Call::LeaseRevoke { id: revoke.id },
            Request::LeaseKeepAlive(keep) => Call::LeaseKeepAlive { id: keep.id },
            Request::LeaseTimeToLive(ask) => Call::LeaseTimeToLive { id: ask.id },
            Request::LeaseLeases(_) => Call::Other("lease list"),
            Request::Status(_) => Call::Other("status"),
            Request::MemberList(_) => Call::Other("member list"),
            Request::MemberAdd(_) => Call::Other("member add"),
            Request::MemberRemove(_) => Call::Other("member remove"),
            Request::MemberUpdate(_) => Call::Other("member update"),
            Request::MemberPromote(_) => Call::Other("member promote"),
            Request::Alarm(r) => Call::Alarm { action: r.action, alarm: r.alarm, of: r.member_id },
            Request::Defragment(_) => Call::Defragment,
            Request::Hash(_) => Call::Other("hash"),
            Request::HashKv(ask) => Call::HashKv { revision: ask.revision },
            Request::MoveLeader(_) => Call::Other("move leader"),
        }
    }

    fn range_call(&mut self, range: &pb::RangeRequest) -> RangeCall {
        RangeCall {
            keys: self.key_range(&range.key, &range.range_end),
            limit: range.limit,
            revision: range.revision,
            sort_order: range.sort_order,
            sort_target: range.sort_target,
            serializable: range.serializable,
            keys_only: range.keys_only,
            count_only: range.count_only,
            min_mod_revision: range.min_mod_revision,
            max_mod_revision: range.max_mod_revision,
            min_create_revision: range.min_create_revision,
            max_create_revision: range.max_create_revision,
        }
    }

    fn put_call(&mut self, put: &pb::PutRequest) -> PutCall {
        PutCall {
            key: self.intern_key(&put.key),
            value: self.intern_value(&put.value),
            lease: put.lease,
            prev_kv: put.prev_kv,
            ignore_value: put.ignore_value,
            ignore_lease: put.ignore_lease,
        }
    }

    fn delete_call(&mut self, delete: &pb::DeleteRangeRequest) -> DeleteCall {
        DeleteCall { keys: self.key_range(&delete.key, &delete.range_end), prev_kv: delete.prev_kv }
    }

    fn txn_call(&mut self, txn: &pb::TxnRequest) -> TxnCall {
        TxnCall {
            compares: txn.compare.iter().map(|compare| self.compare_call(compare)).collect(),
            success: txn.success.iter().filter_map(|op| self.op(op)).collect(),
            failure: txn.failure.iter().filter_map(|op| self.op(op)).collect(),
        }
    }

    /// `None` for an op without a request, which the store refuses.
    fn op(&mut self, op: &pb::RequestOp) -> Option<Op> {
        use pb::request_op::Request::{RequestDeleteRange, RequestPut, RequestRange, RequestTxn};
        Some(match op.request.as_ref()? {
            RequestRange(range) => Op::Range(self.range_call(range)),
            RequestPut(put) => Op::Put(self.put_call(put)),
            RequestDeleteRange(delete) => Op::Delete(self.delete_call(delete)),
            RequestTxn(txn) => Op::Txn(self.txn_call(txn)),
        })
    }

    fn compare_call(&mut self, compare: &pb::Compare) -> CompareCall {
        use pb::compare::{CompareTarget, TargetUnion as U};
        let operand = &compare.target_union;
        let number = |fits: fn(&U) -> Option<i64>| operand.as_ref().and_then(fits).unwrap_or(0);
        let target = match CompareTarget::try_from(compare.target) {
            Ok(CompareTarget::Version) => Target::Version(number(|u| match u {
                U::Version(n) => Some(*n),
                _ => None,
            })),
            Ok(CompareTarget::Create) => Target::Create(number(|u| match u {
                U::CreateRevision(n) => Some(*n),
                _ => None,
            })),
            Ok(CompareTarget::Mod) => Target::Mod(number(|u| match u {
                U::ModRevision(n) => Some(*n),
                _ => None,
            })),
            Ok(CompareTarget::Lease) => Target::Lease(number(|u| match u {
                U::Lease(n) => Some(*n),
                _ => None,
            })),
            Ok(CompareTarget::Value) => Target::Value(match operand {
                Some(U::Value(value)) => self.intern_value(value),
                _ => self.intern_value(b""),
            }),
            Err(_) => Target::Unknown,
        };
        let keys = self.key_range(&compare.key, &compare.range_end);
        CompareCall { keys, result: compare.result, target }
    }

    pub(super) fn outcome(&mut self, reply: &Reply) -> Outcome {
        let (header, answer) = match reply {
            Reply::Range(r) => (&r.header, self.rows_answer(r)),
            Reply::Put(r) => (&r.header, self.put_answer(r)),
            Reply::DeleteRange(r) => (&r.header, self.delete_answer(r)),
            Reply::Txn(r) => (&r.header, self.txn_answer(r)),
            Reply::LeaseGrant(r) => (&r.header, Answer::Lease { id: r.id, ttl_secs: r.ttl }),
            Reply::LeaseKeepAlive(r) => (&r.header, Answer::Lease { id: r.id, ttl_secs: r.ttl }),
            Reply::Compact(r) => (&r.header, Answer::Nothing),
            Reply::LeaseRevoke(r) => (&r.header, Answer::Nothing),
            Reply::LeaseTimeToLive(r) => {
                let (ttl_secs, granted_ttl_secs) = (r.ttl, r.granted_ttl);
                (&r.header, Answer::TimeToLive { ttl_secs, granted_ttl_secs })
            }
            Reply::LeaseLeases(r) => (&r.header, Answer::Nothing),
            Reply::Status(r) => (&r.header, Answer::Nothing),
            Reply::MemberList(r) => (&r.header, Answer::Nothing),
            Reply::MemberAdd(r) => (&r.header, Answer::Nothing),
            Reply::MemberRemove(r) => (&r.header, Answer::Nothing),
            Reply::MemberUpdate(r) => (&r.header, Answer::Nothing),
            Reply::MemberPromote(r) => (&r.header, Answer::Nothing),
            Reply::Alarm(r) => {
                let alarms = r.alarms.iter().map(|alarm| (alarm.member_id, alarm.alarm));
                (&r.header, Answer::Alarms(Box::new(alarms.collect())))
            }
            Reply::Defragment(r) => (&r.header, Answer::Nothing),
            Reply::Hash(r) => (&r.header, Answer::Nothing),
            Reply::HashKv(r) => {
                let (hash, compact_revision, hash_revision) =
                    (r.hash, r.compact_revision, r.hash_revision);
                let answer = HashAnswer { hash, compact_revision, hash_revision };
                (&r.header, Answer::Hash(Box::new(answer)))
            }
            Reply::MoveLeader(r) => (&r.header, Answer::Nothing),
        };
        Outcome::Done { revision: header.as_ref().map_or(0, |header| header.revision), answer }
    }

    fn rows_answer(&mut self, range: &pb::RangeResponse) -> Answer {
        let kvs = range.kvs.iter().map(|kv| self.intern_kv(kv)).collect();
        Answer::Rows(Box::new(Rows { kvs, more: range.more, count: range.count }))
    }

    fn put_answer(&mut self, put: &pb::PutResponse) -> Answer {
        Answer::Put { prev: put.prev_kv.as_ref().map(|kv| self.intern_kv(kv)) }
    }

    fn delete_answer(&mut self, delete: &pb::DeleteRangeResponse) -> Answer {
        let prev = delete.prev_kvs.iter().map(|kv| self.intern_kv(kv)).collect();
        Answer::Deleted(Box::new(Deleted { deleted: delete.deleted, prev }))
    }

    fn txn_answer(&mut self, txn: &pb::TxnResponse) -> Answer {
        use pb::response_op::Response::{
            ResponseDeleteRange, ResponsePut, ResponseRange, ResponseTxn,
        };
        let answers = txn.responses.iter().map(|op| match &op.response {
            Some(ResponseRange(range)) => self.rows_answer(range),
            Some(ResponsePut(put)) => self.put_answer(put),
            Some(ResponseDeleteRange(delete)) => self.delete_answer(delete),
            Some(ResponseTxn(txn)) => self.txn_answer(txn),
            None => Answer::Nothing,
        });
        let answers = answers.collect();
        Answer::Txn(Box::new(TxnAnswer { succeeded: txn.succeeded, answers }))
    }
}
