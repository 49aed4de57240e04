//! How much of the file is used.
//!
//! redb knows the exact numbers only after a walk over the whole tree. So a job walks when a good
//! part of the file has changed since the last walk, and in between the bytes of rows tell.

use redb::{Database, ReadableTableMetadata, WriteTransaction};

use super::backend::FileError;
use super::rows::ROW_OVERHEAD_BYTES;
use super::{Bucket, Sizes};

/// No walk before this many bytes of rows have changed.
const WALK_BYTES_MIN: u64 = 8 << 20;
/// Part of the file (1/n) that has to change before the next walk.
const WALK_FRACTION: u64 = 2;
/// The same at the end of a compaction, when a guess from the rows would be furthest off.
const WALK_FRACTION_COMPACTED: u64 = 8;

#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Usage {
    /// Rows of all buckets, and their keys and values in bytes, with `ROW_OVERHEAD_BYTES` each.
    rows: u64,
    row_bytes: u64,
    /// Row bytes written or deleted since the walk.
    changed_bytes: u64,
    walked: Walked,
}

/// What the last walk found.
#[derive(Clone, Copy, Default, Debug)]
struct Walked {
    row_bytes: u64,
    total_bytes: u64,
    in_use_bytes: u64,
}

impl Usage {
    /// Walks a file that was just opened.
    pub fn measure(db: &Database) -> Result<Self, FileError> {
        let txn = db.begin_write()?;
        let mut usage = Usage::default();
        for bucket in Bucket::ALL {
            let names: Vec<_> = txn.list_tables()?.collect();
            if names.iter().any(|t| redb::TableHandle::name(t) == bucket.name()) {
                let table = txn.open_table(bucket.table())?;
                usage.rows += table.len()?;
                usage.row_bytes += table.stats()?.stored_bytes();
            }
        }
        usage.row_bytes += usage.rows * ROW_OVERHEAD_BYTES;
        usage.walk(&txn)?;
        txn.abort()?;
        Ok(usage)
    }

    pub fn added(&mut self, key_bytes: usize, value_bytes: usize) {
        let bytes = (key_bytes + value_bytes) as u64 + ROW_OVERHEAD_BYTES;
        self.rows += 1;
        self.row_bytes += bytes;
        self.changed_bytes += bytes;
    }

    pub fn removed(&mut self, key_bytes: usize, value_bytes: usize) {
        let bytes = (key_bytes + value_bytes) as u64 + ROW_OVERHEAD_BYTES;
        self.rows = self.rows.saturating_sub(1);
        self.row_bytes = self.row_bytes.saturating_sub(bytes);
        self.changed_bytes += bytes;
    }

    /// (rows, bytes) of everything a snapshot would send.
    pub fn row_totals(&self) -> (u64, u64) {
        (self.rows, self.row_bytes)
    }

    pub fn is_walk_due(&self, is_compacted: bool) -> bool {
        let (min, fraction) = match is_compacted {
            true => (0, WALK_FRACTION_COMPACTED),
            false => (WALK_BYTES_MIN, WALK_FRACTION),
        };
        self.changed_bytes >= (self.walked.total_bytes / fraction).max(min)
    }

    /// Reads redb's own numbers. Tables of `txn` must be closed.
    pub fn walk(&mut self, txn: &WriteTransaction) -> Result<(), FileError> {
        let stats = txn.stats()?;
        let total_bytes = stats.allocated_pages() * stats.page_size() as u64;
        let in_use_bytes = (stats.stored_bytes() + stats.metadata_bytes()).min(total_bytes);
        self.walked = Walked { row_bytes: self.row_bytes, total_bytes, in_use_bytes };
        self.changed_bytes = 0;
        Ok(())
    }

    /// The walk's numbers, moved by what was written and deleted since.
    pub fn sizes(&self, keys: u64) -> Sizes {
        let moved = |bytes: u64| (bytes + self.row_bytes).saturating_sub(self.walked.row_bytes);
        let total_bytes = moved(self.walked.total_bytes);
        let in_use_bytes = moved(self.walked.in_use_bytes).min(total_bytes);
        Sizes { total_bytes, in_use_bytes, unwritten_bytes: 0, keys }
    }
}
