//! What was applied and is not in a job yet, with the position of every log index in it.
//!
//! ```text
//! rows      r r r r r r r r r r          (in State::pending, where readers find them)
//! ops       o   o o                      small buckets and meta
//! marks         ^5    ^6  ^7    ^8       log index, end of its rows, end of its ops
//!                         persisted_index = 7: rows and ops up to mark 7 may go into a job
//! ```

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::Bucket;
use crate::pb::raftpb::ConfState;

/// A row of a small bucket or of `meta` that was written or (`None`) deleted.
#[derive(Clone, Debug)]
pub(crate) struct BucketOp {
    pub bucket: Bucket,
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// An applied entry.
#[derive(Clone, Debug)]
struct Mark {
    index: u64,
    term: u64,
    /// The configuration, when this entry changed it.
    conf_state: Option<Arc<ConfState>>,
    /// The revision, when this entry scheduled a compaction.
    compaction: Option<i64>,
    /// Rows and ops appended since the store was opened, up to and including this entry's.
    rows_end: u64,
    ops_end: u64,
}

impl Mark {
    /// The rows of a compaction, and a snapshot that knows the configuration, wait for the file.
    fn is_urgent(&self) -> bool {
        self.compaction.is_some() || self.conf_state.is_some()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Batch {
    ops: VecDeque<BucketOp>,
    marks: VecDeque<Mark>,
    /// Rows and ops handed to jobs since the store was opened.
    rows_cut: u64,
    ops_cut: u64,
    /// Goes into the next mark.
    conf_state: Option<Arc<ConfState>>,
    compaction: Option<i64>,
    /// Marks with a compaction or a configuration, which are waited for: the batch is due at once.
    pub urgent: usize,
}

/// The part of the batch that a job takes.
#[derive(Debug)]
pub(crate) struct Cut {
    pub index: u64,
    pub term: u64,
    pub conf_state: Option<Arc<ConfState>>,
    pub compaction: Option<i64>,
    /// Number of rows to take from the front of `State::pending`.
    pub rows: usize,
    pub ops: Vec<BucketOp>,
}

impl Batch {
    pub fn push_op(&mut self, op: BucketOp) {
        self.ops.push_back(op);
    }

    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = Some(Arc::new(conf_state));
    }

    pub fn set_compaction(&mut self, revision: i64) {
        self.compaction = Some(revision);
    }

    /// Ends an entry: everything since the last call belongs to `index`.
    pub fn mark(&mut self, index: u64, term: u64, pending_rows: usize) {
        let mark = Mark {
            index,
            term,
            conf_state: self.conf_state.take(),
            compaction: self.compaction.take(),
            rows_end: self.rows_cut + pending_rows as u64,
            ops_end: self.ops_cut + self.ops.len() as u64,
        };
        self.urgent += usize::from(mark.is_urgent());
        self.marks.push_back(mark);
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty() && self.ops.is_empty()
    }

    /// Rows and operations that wait.
    pub fn len(&self) -> usize {
        let rows_end = self.marks.back().map_or(self.rows_cut, |mark| mark.rows_end);
        (rows_end - self.rows_cut) as usize + self.ops.len()
    }

    /// Whether an entry up to `persisted_index` is waiting.
    pub fn has_up_to(&self, persisted_index: u64) -> bool {
        self.marks.front().is_some_and(|mark| mark.index <= persisted_index)
    }

    /// Takes everything up to `persisted_index`.
    pub fn cut(&mut self, persisted_index: u64) -> Option<Cut> {
        let (mut conf_state, mut compaction) = (None, None);
        let mut last = None;
        while let Some(mark) = self.marks.pop_front_if(|mark| mark.index <= persisted_index) {
            conf_state = mark.conf_state.clone().or(conf_state);
            self.urgent -= usize::from(mark.is_urgent());
            compaction = mark.compaction.or(compaction);
            last = Some(mark);
        }
        let last = last?;
        let rows = (last.rows_end - self.rows_cut) as usize;
        let ops = self.ops.drain(..(last.ops_end - self.ops_cut) as usize).collect();
        self.rows_cut = last.rows_end;
        self.ops_cut = last.ops_end;
        Some(Cut { index: last.index, term: last.term, conf_state, compaction, rows, ops })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(n: u8) -> BucketOp {
        BucketOp { bucket: Bucket::Lease, key: Bytes::copy_from_slice(&[n]), value: None }
    }

    #[test]
    fn nothing_past_the_persisted_index_is_cut() {
        let mut batch = Batch::default();
        batch.push_op(op(1));
        batch.mark(5, 1, 2);
        batch.push_op(op(2));
        batch.set_conf_state(ConfState { voters: vec![1], ..Default::default() });
        batch.mark(6, 1, 5);
        batch.mark(7, 2, 6);
        assert!(batch.cut(4).is_none());

        let cut = batch.cut(5).expect("index 5 is persisted");
        assert_eq!((cut.index, cut.term, cut.rows, cut.ops.len()), (5, 1, 2, 1));
        assert_eq!(cut.conf_state, None);

        let cut = batch.cut(9).expect("index 7 is persisted");
        assert_eq!((cut.index, cut.term, cut.rows, cut.ops.len()), (7, 2, 4, 1));
        assert_eq!(cut.conf_state.expect("of index 6").voters, [1]);
        assert!(batch.is_empty());
    }

    #[test]
    fn a_waiting_compaction_is_counted_until_it_is_cut() {
        let mut batch = Batch::default();
        batch.set_compaction(3);
        batch.mark(5, 1, 0);
        batch.set_compaction(4);
        batch.mark(6, 1, 0);
        assert_eq!(batch.urgent, 2);
        assert_eq!(batch.cut(6).expect("both").compaction, Some(4));
        assert_eq!(batch.urgent, 0);
    }
}
