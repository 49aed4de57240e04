//! Evaluation of a Range request on a key space at a revision (surface spec §3.2, steps 4 to 10).

use std::cmp::Reverse;

use bytes::Bytes;

use super::index::KeyRange;
use super::rows::{decode_kv, encode_kv};
use crate::error::ApiError;
use crate::pb::etcdserverpb::RangeRequest;
use crate::pb::etcdserverpb::range_request::{SortOrder, SortTarget};
use crate::pb::mvccpb::KeyValue;

/// Keys as of any revision: the writer sees its own changes, a reader what it has pinned.
pub(crate) trait KeySpace {
    /// Number of keys in the interval at `revision`, and the first `want` encoded KeyValues.
    fn collect(
        &self,
        range: &KeyRange<'_>,
        revision: i64,
        want: usize,
    ) -> Result<(i64, Vec<Bytes>), ApiError>;

    /// The newest main revision.
    fn revision(&self) -> i64;

    fn compact_revision(&self) -> i64;

    /// The KeyValue of one key.
    fn lookup(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, ApiError> {
        let (_, kvs) = self.collect(&KeyRange::One(key), revision, 1)?;
        Ok(kvs.first().map(decode_kv))
    }
}

/// What a range selects.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Selection {
    /// Encoded KeyValues.
    pub kvs: Vec<Bytes>,
    pub more: bool,
    pub count: i64,
}

/// The revision a plain Range means: 0 and below is the current one.
///
/// Errors: `FutureRevision`, `Compacted`. The compact revision itself is readable.
pub(crate) fn resolve_revision(
    asked: i64,
    current: i64,
    compact_revision: i64,
) -> Result<i64, ApiError> {
    match asked {
        ..=0 => Ok(current),
        _ if asked > current => Err(ApiError::FutureRevision),
        _ if asked < compact_revision => Err(ApiError::Compacted),
        _ => Ok(asked),
    }
}

/// Evaluates `req`, already validated, at `revision`.
pub(crate) fn evaluate(
    space: &impl KeySpace,
    req: &RangeRequest,
    revision: i64,
) -> Result<Selection, ApiError> {
    let range = KeyRange::new(&req.key, &req.range_end);
    if req.count_only {
        let (count, _) = space.collect(&range, revision, 0)?;
        return Ok(Selection { kvs: Vec::new(), more: false, count });
    }
    let limit = usize::try_from(req.limit).ok().filter(|limit| *limit > 0);
    let is_filtered = has_filter(req);
    // The fetch is limited by the *given* sort order: with NONE and a target other than KEY the
    // limit applies in key order and only that slice is sorted (surface spec §3.2, quirk of step 8).
    let want = match limit {
        Some(limit) if req.sort_order() == SortOrder::None && !is_filtered => {
            limit.saturating_add(1)
        }
        _ => usize::MAX,
    };
    let (count, mut kvs) = space.collect(&range, revision, want)?;
    if is_filtered {
        kvs.retain(|kv| passes(req, &decode_kv(kv)));
    }
    sort(req, &mut kvs);
    let more = limit.is_some_and(|limit| kvs.len() > limit);
    kvs.truncate(limit.unwrap_or(usize::MAX));
    if req.keys_only {
        for kv in &mut kvs {
            *kv = encode_kv(&KeyValue { value: Bytes::new(), ..decode_kv(kv) });
        }
    }
    Ok(Selection { kvs, more, count })
}

fn has_filter(req: &RangeRequest) -> bool {
    [req.min_mod_revision, req.max_mod_revision, req.min_create_revision, req.max_create_revision]
        != [0; 4]
}

fn passes(req: &RangeRequest, kv: &KeyValue) -> bool {
    let at_least = |min: i64, value: i64| min == 0 || value >= min;
    let at_most = |max: i64, value: i64| max == 0 || value <= max;
    at_most(req.max_mod_revision, kv.mod_revision)
        && at_least(req.min_mod_revision, kv.mod_revision)
        && at_most(req.max_create_revision, kv.create_revision)
        && at_least(req.min_create_revision, kv.create_revision)
}

/// Sorts what is in key order. Equal ones stay in key order when ascending.
fn sort(req: &RangeRequest, kvs: &mut [Bytes]) {
    let target = req.sort_target();
    let order = match (req.sort_order(), target) {
        (SortOrder::None, SortTarget::Key) => return,
        (SortOrder::None, _) => SortOrder::Ascend,
        (order, _) => order,
    };
    let descend = order == SortOrder::Descend;
    match target {
        SortTarget::Key if descend => kvs.reverse(),
        SortTarget::Key => {}
        SortTarget::Value => sort_by(kvs, descend, |kv| kv.value),
        SortTarget::Version => sort_by(kvs, descend, |kv| kv.version),
        SortTarget::Create => sort_by(kvs, descend, |kv| kv.create_revision),
        SortTarget::Mod => sort_by(kvs, descend, |kv| kv.mod_revision),
    }
}

fn sort_by<K: Ord>(kvs: &mut [Bytes], descend: bool, key: impl Fn(KeyValue) -> K) {
    if descend {
        kvs.sort_by_cached_key(|kv| Reverse(key(decode_kv(kv))));
    } else {
        kvs.sort_by_cached_key(|kv| key(decode_kv(kv)));
    }
}
