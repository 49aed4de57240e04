//! The plainest store that answers as surface spec §3 says: every change that ever happened in one
//! list, every question answered by going through it.

use std::collections::BTreeMap;

use bytes::Bytes;
use detkv_core::error::ApiError;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::request_op::Request as Op;
use detkv_core::pb::etcdserverpb::response_op::Response as OpResponse;
use detkv_core::pb::mvccpb::{Event, KeyValue};
use prost::Message;

/// One change; `kv` is `None` for a delete.
#[derive(Clone, Debug)]
struct Change {
    main: i64,
    sub: i64,
    key: Bytes,
    kv: Option<KeyValue>,
}

#[derive(Clone, Debug)]
pub struct Plain {
    pub revision: i64,
    pub compact_revision: i64,
    changes: Vec<Change>,
}

pub type Keys = BTreeMap<Bytes, KeyValue>;

fn in_range(key: &[u8], start: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

fn select<'a>(keys: &'a Keys, start: &[u8], end: &[u8]) -> Vec<&'a KeyValue> {
    keys.values().filter(|kv| in_range(&kv.key, start, end)).collect()
}

fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

impl Plain {
    pub fn new() -> Self {
        Self { revision: 1, compact_revision: -1, changes: Vec::new() }
    }

    /// The keys at a main revision.
    pub fn at(&self, revision: i64) -> Keys {
        let mut keys = Keys::new();
        for change in self.changes.iter().filter(|c| c.main <= revision) {
            match &change.kv {
                Some(kv) => keys.insert(change.key.clone(), kv.clone()),
                None => keys.remove(&change.key),
            };
        }
        keys
    }

    /// The keys now, changes of the txn under way included.
    fn newest(&self) -> Keys {
        self.at(i64::MAX)
    }

    fn is_changing(&self) -> bool {
        self.changes.last().is_some_and(|c| c.main > self.revision)
    }

    fn visible_revision(&self) -> i64 {
        self.revision + i64::from(self.is_changing())
    }

    fn push(&mut self, key: Bytes, kv: Option<KeyValue>) {
        let main = self.revision + 1;
        let sub = self.changes.iter().filter(|c| c.main == main).count() as i64;
        self.changes.push(Change { main, sub, key, kv });
    }

    fn finish(&mut self) -> Option<pb::ResponseHeader> {
        self.revision = self.visible_revision();
        header(self.revision)
    }

    pub fn put(
        &mut self,
        req: &pb::PutRequest,
        lease_exists: &dyn Fn(i64) -> bool,
    ) -> Result<pb::PutResponse, ApiError> {
        if req.lease != 0 && !lease_exists(req.lease) {
            return Err(ApiError::LeaseNotFound);
        }
        self.check_put_key(req)?;
        let response = self.run_put(req);
        self.finish();
        Ok(response)
    }

    fn check_put_key(&self, req: &pb::PutRequest) -> Result<(), ApiError> {
        let needs_key = req.ignore_value || req.ignore_lease;
        if needs_key && !self.newest().contains_key(&req.key) {
            return Err(ApiError::KeyNotFound);
        }
        Ok(())
    }

    fn run_put(&mut self, req: &pb::PutRequest) -> pb::PutResponse {
        let previous = self.newest().get(&req.key).cloned();
        let main = self.revision + 1;
        let old = previous.clone().unwrap_or_default();
        let kv = KeyValue {
            key: req.key.clone(),
            create_revision: if old.version == 0 { main } else { old.create_revision },
            mod_revision: main,
            version: old.version + 1,
            value: if req.ignore_value { old.value } else { req.value.clone() },
            lease: if req.ignore_lease { old.lease } else { req.lease },
        };
        self.push(req.key.clone(), Some(kv));
        pb::PutResponse { header: header(main), prev_kv: previous.filter(|_| req.prev_kv) }
    }

    pub fn delete_range(&mut self, req: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let response = self.run_delete(req);
        self.finish();
        response
    }

    fn run_delete(&mut self, req: &pb::DeleteRangeRequest) -> pb::DeleteRangeResponse {
        let keys = self.newest();
        let deleted: Vec<KeyValue> =
            select(&keys, &req.key, &req.range_end).into_iter().cloned().collect();
        for kv in &deleted {
            self.push(kv.key.clone(), None);
        }
        pb::DeleteRangeResponse {
            header: header(self.visible_revision()),
            deleted: deleted.len() as i64,
            prev_kvs: if req.prev_kv { deleted } else { Vec::new() },
        }
    }

    pub fn compact(&mut self, revision: i64) -> Result<(), ApiError> {
        if revision <= self.compact_revision {
            return Err(ApiError::Compacted);
        }
        if revision > self.revision {
            return Err(ApiError::FutureRevision);
        }
        self.compact_revision = revision;
        Ok(())
    }

    fn check_revision(&self, revision: i64) -> Result<i64, ApiError> {
        if revision <= 0 {
            Ok(self.visible_revision())
        } else if revision > self.visible_revision() {
            Err(ApiError::FutureRevision)
        } else if revision < self.compact_revision {
            Err(ApiError::Compacted)
        } else {
            Ok(revision)
        }
    }

    pub fn key_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, ApiError> {
        Ok(self.at(self.check_revision(revision)?).get(key).cloned())
    }

    pub fn range(&self, req: &pb::RangeRequest) -> Result<pb::RangeResponse, ApiError> {
        let keys = self.at(self.check_revision(req.revision)?);
        let matching = select(&keys, &req.key, &req.range_end);
        let mut response = pb::RangeResponse {
            header: header(self.visible_revision()),
            count: matching.len() as i64,
            ..Default::default()
        };
        if req.count_only {
            return Ok(response);
        }
        let filters = [
            req.min_mod_revision,
            req.max_mod_revision,
            req.min_create_revision,
            req.max_create_revision,
        ];
        let mut kvs: Vec<KeyValue> = matching.into_iter().cloned().collect();
        if req.limit > 0 && req.sort_order == 0 && filters == [0; 4] {
            kvs.truncate(req.limit as usize + 1);
        }
        kvs.retain(|kv| {
            (filters[0] == 0 || kv.mod_revision >= filters[0])
                && (filters[1] == 0 || kv.mod_revision <= filters[1])
                && (filters[2] == 0 || kv.create_revision >= filters[2])
                && (filters[3] == 0 || kv.create_revision <= filters[3])
        });
        let by = |a: &KeyValue, b: &KeyValue| match req.sort_target {
            0 => a.key.cmp(&b.key),
            1 => a.version.cmp(&b.version),
            2 => a.create_revision.cmp(&b.create_revision),
            3 => a.mod_revision.cmp(&b.mod_revision),
            _ => a.value.cmp(&b.value),
        };
        if req.sort_order == 2 {
            kvs.sort_by(|a, b| by(b, a));
        } else {
            kvs.sort_by(by);
        }
        if req.limit > 0 && kvs.len() > req.limit as usize {
            kvs.truncate(req.limit as usize);
            response.more = true;
        }
        if req.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        response.kvs = kvs;
        Ok(response)
    }

    fn compare(&self, compare: &pb::Compare) -> bool {
        use pb::compare::TargetUnion as U;
        let keys = self.newest();
        let matching = select(&keys, &compare.key, &compare.range_end);
        let zero = KeyValue::default();
        let operands = match (matching.is_empty(), compare.target) {
            (true, 3) => return false,
            (true, _) => vec![&zero],
            (false, _) => matching,
        };
        let number =
            |of: fn(&U) -> Option<i64>| compare.target_union.as_ref().and_then(of).unwrap_or(0);
        operands.into_iter().all(|kv| {
            let ordering = match compare.target {
                0 => kv.version.cmp(&number(|u| match u {
                    U::Version(v) => Some(*v),
                    _ => None,
                })),
                1 => kv.create_revision.cmp(&number(|u| match u {
                    U::CreateRevision(v) => Some(*v),
                    _ => None,
                })),
                2 => kv.mod_revision.cmp(&number(|u| match u {
                    U::ModRevision(v) => Some(*v),
                    _ => None,
                })),
                3 => match &compare.target_union {
                    Some(U::Value(v)) => kv.value.cmp(v),
                    _ => kv.value.cmp(&Bytes::new()),
                },
                4 => kv.lease.cmp(&number(|u| match u {
                    U::Lease(v) => Some(*v),
                    _ => None,
                })),
                _ => std::cmp::Ordering::Equal,
            };
            match compare.result {
                0 => ordering.is_eq(),
                1 => ordering.is_gt(),
                2 => ordering.is_lt(),
                3 => ordering.is_ne(),
                _ => true,
            }
        })
    }

    /// The operations that will run, with markers where a nested txn begins and ends.
    fn plan(&self, req: &pb::TxnRequest, plan: &mut Vec<Planned>) {
        let succeeded = req.compare.iter().all(|compare| self.compare(compare));
        plan.push(Planned::Begin(succeeded));
        for op in if succeeded { &req.success } else { &req.failure } {
            match op.request.clone().expect("validated") {
                Op::RequestTxn(nested) => self.plan(&nested, plan),
                op => plan.push(Planned::Op(op)),
            }
        }
        plan.push(Planned::End);
    }

    pub fn txn(
        &mut self,
        req: &pb::TxnRequest,
        lease_exists: &dyn Fn(i64) -> bool,
    ) -> Result<pb::TxnResponse, ApiError> {
        let mut plan = Vec::new();
        self.plan(req, &mut plan);
        for planned in &plan {
            if let Planned::Op(Op::RequestPut(put)) = planned {
                self.check_put_key(put)?;
                if put.lease != 0 && !lease_exists(put.lease) {
                    return Err(ApiError::LeaseNotFound);
                }
            }
        }
        for planned in &plan {
            if let Planned::Op(Op::RequestRange(range)) = planned {
                if range.revision > self.revision {
                    return Err(ApiError::FutureRevision);
                }
                if range.revision != 0 && range.revision < self.compact_revision {
                    return Err(ApiError::Compacted);
                }
            }
        }
        let mut open: Vec<pb::TxnResponse> = Vec::new();
        for planned in plan {
            let response = match planned {
                Planned::Begin(succeeded) => {
                    let header = Some(pb::ResponseHeader::default());
                    open.push(pb::TxnResponse { header, succeeded, responses: vec![] });
                    continue;
                }
                Planned::End => {
                    let ended = open.pop().expect("begun");
                    if open.is_empty() {
                        return Ok(pb::TxnResponse { header: self.finish(), ..ended });
                    }
                    OpResponse::ResponseTxn(ended)
                }
                Planned::Op(Op::RequestPut(put)) => OpResponse::ResponsePut(self.run_put(&put)),
                Planned::Op(Op::RequestDeleteRange(delete)) => {
                    OpResponse::ResponseDeleteRange(self.run_delete(&delete))
                }
                Planned::Op(Op::RequestRange(range)) => {
                    OpResponse::ResponseRange(self.range(&range).expect("checked"))
                }
                Planned::Op(Op::RequestTxn(_)) => unreachable!("flattened"),
            };
            let open = open.last_mut().expect("begun");
            open.responses.push(pb::ResponseOp { response: Some(response) });
        }
        unreachable!("a plan ends")
    }

    /// (revision, events) from `from` on.
    #[allow(clippy::type_complexity, reason = "a test's return value")]
    pub fn changes(
        &self,
        from: i64,
        key: &[u8],
        end: &[u8],
    ) -> Result<Vec<(i64, Vec<Event>)>, ApiError> {
        if from < self.compact_revision {
            return Err(ApiError::Compacted);
        }
        let mut revisions: BTreeMap<i64, Vec<Event>> = BTreeMap::new();
        for change in self.changes.iter().filter(|c| c.main >= from && in_range(&c.key, key, end)) {
            // At the compact revision only the last change of a key is sure to be there.
            if change.main == self.compact_revision && !self.is_last_of_revision(change) {
                continue;
            }
            let deleted = || KeyValue {
                key: change.key.clone(),
                mod_revision: change.main,
                ..Default::default()
            };
            let kv = change.kv.clone().unwrap_or_else(deleted);
            let r#type = i32::from(change.kv.is_none());
            let event = Event { r#type, kv: Some(kv), prev_kv: None };
            revisions.entry(change.main).or_default().push(event);
        }
        Ok(revisions.into_iter().collect())
    }

    fn is_last_of_revision(&self, change: &Change) -> bool {
        !self
            .changes
            .iter()
            .any(|c| c.main == change.main && c.key == change.key && c.sub > change.sub)
    }

    /// (hash, compact revision) as surface spec §17.6 defines them.
    pub fn hash_kv(&self, revision: i64) -> Result<(u32, i64), ApiError> {
        let revision = self.check_revision(revision)?;
        let mut visible = self.at(revision);
        if visible.is_empty() {
            // etcd's set of rows to keep is empty then, and keeps everything.
            visible = self.at(self.compact_revision);
        }
        let mut bytes = b"key".to_vec();
        for change in self.changes.iter().filter(|c| c.main <= revision) {
            let is_kept = change.kv.is_some() && visible.get(&change.key) == change.kv.as_ref();
            if change.main <= self.compact_revision && !is_kept {
                continue;
            }
            bytes.extend(change.main.to_be_bytes());
            bytes.push(b'_');
            bytes.extend(change.sub.to_be_bytes());
            match &change.kv {
                Some(kv) => bytes.extend(kv.encode_to_vec()),
                None => {
                    bytes.push(b't');
                    let kv = KeyValue { key: change.key.clone(), ..Default::default() };
                    bytes.extend(kv.encode_to_vec());
                }
            }
        }
        Ok((crc32c::crc32c(&bytes), self.compact_revision))
    }
}

enum Planned {
    Begin(bool),
    Op(Op),
    End,
}
