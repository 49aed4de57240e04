//! Interning: a key, value or row that is mentioned many times is stored once and named by a number.

use std::fmt;
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use rustc_hash::{FxHashMap, FxHasher};
use xxhash_rust::xxh3::xxh3_64;

/// Values up to this many bytes are kept whole.
const WHOLE_BYTES_MAX: usize = 30;

/// Distinct items, numbered in order of first mention.
///
/// Equal ids mean equal items. The hash table holds ids only, so an item costs its own size plus about 24 bytes.
#[derive(Clone, Debug)]
pub struct Interner<T> {
    items: Vec<T>,
    /// `chain[i]`: the next item with the same hash, or `NONE`.
    chain: Vec<u32>,
    heads: FxHashMap<u64, u32>,
}

const NONE: u32 = u32::MAX;

impl<T> Default for Interner<T> {
    fn default() -> Self {
        Self { items: Vec::new(), chain: Vec::new(), heads: FxHashMap::default() }
    }
}

impl<T: Hash + Eq> Interner<T> {
    pub fn intern(&mut self, item: T) -> u32 {
        let hash = hash_of(&item);
        if let Some(id) = self.find_in_chain(hash, &item) {
            return id;
        }
        let id = u32::try_from(self.items.len()).expect("a history has fewer than 2^32 items");
        let head = self.heads.insert(hash, id).unwrap_or(NONE);
        self.items.push(item);
        self.chain.push(head);
        id
    }

    pub fn find(&self, item: &T) -> Option<u32> {
        self.find_in_chain(hash_of(item), item)
    }

    fn find_in_chain(&self, hash: u64, item: &T) -> Option<u32> {
        let mut at = *self.heads.get(&hash)?;
        while at != NONE {
            if self.items[at as usize] == *item {
                return Some(at);
            }
            at = self.chain[at as usize];
        }
        None
    }

    pub fn item(&self, id: u32) -> &T {
        &self.items[id as usize]
    }

    /// In order of their ids.
    pub fn items(&self) -> &[T] {
        &self.items
    }
}

fn hash_of(item: &impl Hash) -> u64 {
    let mut hasher = FxHasher::default();
    item.hash(&mut hasher);
    hasher.finish()
}

/// A value as the history keeps it: whole when short, else its length, its first bytes and a hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Value {
    Whole { len: u8, bytes: [u8; WHOLE_BYTES_MAX] },
    Digest { len: u32, head: [u8; 8], hash: u64 },
}

impl Value {
    pub const EMPTY: Value = Value::Whole { len: 0, bytes: [0; WHOLE_BYTES_MAX] };

    pub fn new(value: &[u8]) -> Self {
        if value.len() <= WHOLE_BYTES_MAX {
            let mut bytes = [0; WHOLE_BYTES_MAX];
            bytes[..value.len()].copy_from_slice(value);
            return Value::Whole { len: value.len() as u8, bytes };
        }
        let mut head = [0; 8];
        head.copy_from_slice(&value[..8]);
        let len = u32::try_from(value.len()).expect("a request is far below 4 GiB");
        Value::Digest { len, head, hash: xxh3_64(value) }
    }

    /// Bytes of the value itself.
    pub fn len(&self) -> usize {
        match self {
            Value::Whole { len, .. } => usize::from(*len),
            Value::Digest { len, .. } => *len as usize,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of a value that is kept whole.
    pub fn whole(&self) -> Option<&[u8]> {
        matches!(self, Value::Whole { .. }).then(|| self.kept())
    }

    /// What is left of the bytes: all of a short value, the first 8 of a long one.
    fn kept(&self) -> &[u8] {
        match self {
            Value::Whole { len, bytes } => &bytes[..usize::from(*len)],
            Value::Digest { head, .. } => head,
        }
    }

    /// The first 8 bytes, fewer of a shorter value.
    pub fn head(&self) -> &[u8] {
        let kept = self.kept();
        &kept[..kept.len().min(8)]
    }

    /// Bytewise order, or `None` when two long values agree in the bytes that were kept.
    pub fn order(&self, other: &Value) -> Option<std::cmp::Ordering> {
        use std::cmp::Ordering::Equal;
        if self == other {
            return Some(Equal);
        }
        let (a, b) = (self.kept(), other.kept());
        let common = a.len().min(b.len());
        match a[..common].cmp(&b[..common]) {
            Equal => match (self, other) {
                (Value::Whole { .. }, Value::Whole { .. }) => Some(a.cmp(b)),
                // A whole value that ended is a prefix of the long one.
                (Value::Whole { .. }, Value::Digest { .. }) if a.len() <= common => {
                    Some(std::cmp::Ordering::Less)
                }
                (Value::Digest { .. }, Value::Whole { .. }) if b.len() <= common => {
                    Some(std::cmp::Ordering::Greater)
                }
                _ => None,
            },
            decided => Some(decided),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Bytes::copy_from_slice(self.kept());
        match self {
            Value::Whole { .. } => write!(f, "{text:?}"),
            Value::Digest { len, .. } => write!(f, "{text:?}…({len} bytes)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;

    use super::*;

    #[test]
    fn equal_items_get_equal_ids() {
        let mut interner = Interner::default();
        let ids: Vec<u32> = ["a", "b", "a", "c", "b"].map(|s| interner.intern(s)).to_vec();
        assert_eq!(ids, [0, 1, 0, 2, 1]);
        assert_eq!(interner.find(&"c"), Some(2));
        assert_eq!(interner.find(&"d"), None);
        assert_eq!(interner.item(1), &"b");
    }

    #[test]
    fn order_is_bytewise_where_it_is_known() {
        let long = |head: &str| Value::new(format!("{head}{}", "x".repeat(40)).as_bytes());
        assert_eq!(Value::new(b"a").order(&Value::new(b"ab")), Some(Ordering::Less));
        assert_eq!(Value::new(b"b").order(&long("a")), Some(Ordering::Greater));
        assert_eq!(Value::new(b"xx").order(&long("xx")), Some(Ordering::Less));
        assert_eq!(long("a").order(&long("a")), Some(Ordering::Equal));
        assert_eq!(long("12345678a").order(&long("12345678b")), None);
        assert_eq!(size_of::<Value>(), 32);
    }
}
