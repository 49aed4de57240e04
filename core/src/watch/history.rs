//! What the hub reads from a store.

use crate::api::RevisionEvents;
use crate::error::ApiError;
use crate::mvcc::StoreReader;
use crate::pb::mvccpb::KeyValue;

/// A store as watches see it. In the member a [`StoreReader`]; in tests a plain list.
pub trait History {
    /// The newest applied revision.
    fn revision(&self) -> i64;

    /// The oldest revision a watch may start at is this one.
    fn compact_revision(&self) -> i64;

    /// As [`StoreReader::changes`].
    fn changes(
        &self,
        from: i64,
        to: i64,
        key: &[u8],
        range_end: &[u8],
        max_revisions: usize,
    ) -> Result<(Vec<RevisionEvents>, i64), ApiError>;

    /// The key as of `revision` (≥ 1).
    fn key_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, ApiError>;
}

impl History for StoreReader {
    fn revision(&self) -> i64 {
        self.revision()
    }

    fn compact_revision(&self) -> i64 {
        self.compact_revision()
    }

    fn changes(
        &self,
        from: i64,
        to: i64,
        key: &[u8],
        range_end: &[u8],
        max_revisions: usize,
    ) -> Result<(Vec<RevisionEvents>, i64), ApiError> {
        self.changes(from, to, key, range_end, max_revisions)
    }

    fn key_at(&self, key: &[u8], revision: i64) -> Result<Option<KeyValue>, ApiError> {
        self.key_at(key, revision)
    }
}
