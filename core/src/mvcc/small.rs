//! The small buckets: leases, alarms, members, cluster version, auth. Kept whole in memory.

use std::collections::BTreeMap;

use bytes::Bytes;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::Bucket;

impl Bucket {
    /// Held in memory by [`SmallBuckets`]: all but `Key` and `Meta`.
    pub(crate) fn is_small(self) -> bool {
        !matches!(self, Bucket::Key | Bucket::Meta)
    }
}

#[derive(Debug, Default)]
pub(crate) struct SmallBuckets {
    rows: BTreeMap<Bucket, BTreeMap<Bytes, Bytes>>,
    /// Sum of the hashes of all rows.
    hash: u64,
}

impl SmallBuckets {
    pub fn put(&mut self, bucket: Bucket, key: Bytes, value: Bytes) {
        self.hash = self.hash.wrapping_add(hash_row(bucket, &key, &value));
        let replaced = self.rows.entry(bucket).or_default().insert(key.clone(), value);
        if let Some(replaced) = replaced {
            self.hash = self.hash.wrapping_sub(hash_row(bucket, &key, &replaced));
        }
    }

    /// False when there is no such row.
    pub fn delete(&mut self, bucket: Bucket, key: &[u8]) -> bool {
        let Some(removed) = self.rows.get_mut(&bucket).and_then(|rows| rows.remove(key)) else {
            return false;
        };
        self.hash = self.hash.wrapping_sub(hash_row(bucket, key, &removed));
        true
    }

    pub fn rows(&self, bucket: Bucket) -> Vec<(Bytes, Bytes)> {
        let rows = self.rows.get(&bucket).into_iter().flatten();
        rows.map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The same for equal rows, whatever the order of changes.
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

fn hash_row(bucket: Bucket, key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, xxh3_64(bucket.name().as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_depends_on_the_rows_and_not_on_the_way_to_them() {
        let (a, b) = (Bytes::from_static(b"a"), Bytes::from_static(b"b"));
        let mut direct = SmallBuckets::default();
        direct.put(Bucket::Lease, a.clone(), b.clone());
        let mut detour = SmallBuckets::default();
        detour.put(Bucket::Alarm, b.clone(), a.clone());
        detour.put(Bucket::Lease, a.clone(), a.clone());
        detour.put(Bucket::Lease, a.clone(), b.clone());
        assert_ne!(direct.hash(), detour.hash());
        assert!(detour.delete(Bucket::Alarm, &b));
        assert!(!detour.delete(Bucket::Alarm, &b));
        assert_eq!(direct.hash(), detour.hash());
        let mut other_bucket = SmallBuckets::default();
        other_bucket.put(Bucket::Auth, a, b);
        assert_ne!(direct.hash(), other_bucket.hash());
    }
}
