//! The rows that a Range shows of the keys it found: filters, sort, limit (surface spec §3.2).

use std::cmp::Ordering;

use super::model::{Mismatch, Model};
use crate::history::{Kv, RangeCall, Rows};

const DESCEND: i32 = 2;
/// `SortTarget` on the wire.
const BY_KEY: i32 = 0;
const BY_VALUE: i32 = 4;

/// Compares the answer `got` with `found`, the keys of the range in key order.
pub fn compare(
    model: &Model,
    range: &RangeCall,
    mut found: Vec<Kv>,
    got: &Rows,
) -> Result<(), Mismatch> {
    if got.count != found.len() as i64 {
        return Err(format!("count {}, the store held {} keys", got.count, found.len()));
    }
    let limit = usize::try_from(range.limit).ok().filter(|limit| *limit > 0);
    if range.count_only {
        found.clear();
    }
    // With neither order nor filter only limit + 1 keys are fetched, in key order, before any sort.
    if range.sort_order == 0 && !has_filter(range) {
        found.truncate(limit.map_or(usize::MAX, |limit| limit + 1));
    }
    found.retain(|kv| passes(range, kv));
    let is_sorted_by_key = range.sort_target == BY_KEY && range.sort_order != DESCEND;
    if !is_sorted_by_key {
        found.sort_by(|a, b| order(model, range, a, b));
    }
    let more = limit.is_some_and(|limit| found.len() > limit);
    if got.more != more {
        return Err(format!("more={}, expected {more}", got.more));
    }
    let cut = limit.map_or(found.len(), |limit| limit.min(found.len()));
    compare_rows(model, range, &found, cut, got, is_sorted_by_key)
}

fn compare_rows(
    model: &Model,
    range: &RangeCall,
    found: &[Kv],
    cut: usize,
    got: &Rows,
    is_sorted_by_key: bool,
) -> Result<(), Mismatch> {
    let shown: Vec<Kv> = got.kvs.iter().map(|kv| *model.history.kv(*kv)).collect();
    if shown.len() != cut {
        return Err(format!("{} rows, expected {cut}", shown.len()));
    }
    let expected = |kv: &Kv| {
        let empty = model.history.empty_value();
        match empty {
            Some(empty) if range.keys_only => Kv { value: empty, ..*kv },
            _ => *kv,
        }
    };
    let first_wrong = shown.iter().zip(found).position(|(got, kv)| *got != expected(kv));
    let Some(at) = first_wrong else { return Ok(()) };
    if !is_sorted_by_key && is_another_order(model, range, found, cut, &shown, expected) {
        return Ok(());
    }
    Err(format!("expected {}, got {}", model.show(&expected(&found[at])), model.show(&shown[at])))
}

/// The sort is not stable by contract: rows with equal sort keys may stand in any order, and the limit may
/// keep any of them. True when `shown` is such an order.
fn is_another_order(
    model: &Model,
    range: &RangeCall,
    found: &[Kv],
    cut: usize,
    shown: &[Kv],
    expected: impl Fn(&Kv) -> Kv,
) -> bool {
    let mut by_key: Vec<(Kv, &Kv)> = found.iter().map(|kv| (expected(kv), kv)).collect();
    by_key.sort_by_key(|(kv, _)| kv.key);
    let mut used = vec![false; by_key.len()];
    for (i, row) in shown.iter().enumerate() {
        let Ok(place) = by_key.binary_search_by_key(&row.key, |(kv, _)| kv.key) else {
            return false;
        };
        let (kv, stored) = by_key[place];
        let is_tie = order(model, range, stored, &found[i]).is_eq();
        if kv != *row || used[place] || !is_tie {
            return false;
        }
        used[place] = true;
    }
    shown.len() == cut
}

fn has_filter(range: &RangeCall) -> bool {
    range.min_mod_revision != 0
        || range.max_mod_revision != 0
        || range.min_create_revision != 0
        || range.max_create_revision != 0
}

fn passes(range: &RangeCall, kv: &Kv) -> bool {
    let below = |value: i64, max: i64| max == 0 || value <= max;
    let above = |value: i64, min: i64| min == 0 || value >= min;
    below(kv.mod_revision, range.max_mod_revision)
        && above(kv.mod_revision, range.min_mod_revision)
        && below(kv.create_revision, range.max_create_revision)
        && above(kv.create_revision, range.min_create_revision)
}

/// Values are compared by their first bytes, which every value keeps: longer agreement counts as a tie.
fn order(model: &Model, range: &RangeCall, a: &Kv, b: &Kv) -> Ordering {
    let order = match range.sort_target {
        1 => a.version.cmp(&b.version),
        2 => a.create_revision.cmp(&b.create_revision),
        3 => a.mod_revision.cmp(&b.mod_revision),
        BY_VALUE => model.history.value(a.value).head().cmp(model.history.value(b.value).head()),
        _ => model.rank(a.key).cmp(&model.rank(b.key)),
    };
    if range.sort_order == DESCEND { order.reverse() } else { order }
}
