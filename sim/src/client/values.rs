//! Keys and values that a history can be read back from: no two puts of a run write the same value.

use std::cell::Cell;

use bytes::Bytes;

use crate::history::ClientId;

/// `prefix` and a number of equal width, so that key order is number order.
pub fn key(prefix: &str, number: u64) -> Bytes {
    Bytes::from(format!("{prefix}/{number:05}"))
}

/// The values of one client, `c3-000017xxxx…`.
#[derive(Debug)]
pub struct Values {
    name: String,
    len: usize,
    next: Cell<u64>,
}

impl Values {
    /// `len`: bytes of each value; a shorter one cannot be unique.
    pub fn new(client: ClientId, len: usize) -> Self {
        Self::named(format!("c{}", client.0), len)
    }

    /// A second kind of the same client's.
    pub fn large(client: ClientId, len: usize) -> Self {
        Self::named(format!("c{}L", client.0), len)
    }

    /// One of several of the same client's, as short as they can be.
    pub fn in_slot(client: ClientId, slot: u32) -> Self {
        Self::named(format!("c{}.{slot}", client.0), 0)
    }

    fn named(name: String, len: usize) -> Self {
        Self { name, len, next: Cell::new(0) }
    }

    pub fn next(&self) -> Bytes {
        let number = self.next.replace(self.next.get() + 1);
        let mut value = format!("{}-{number:06}", self.name).into_bytes();
        if value.len() < self.len {
            value.resize(self.len, b'x');
        }
        Bytes::from(value)
    }
}
