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
    client: ClientId,
    len: usize,
    next: Cell<u64>,
}

impl Values {
    /// `len`: bytes of each value; a shorter one cannot be unique.
    pub fn new(client: ClientId, len: usize) -> Self {
        Self { client, len, next: Cell::new(0) }
    }

    pub fn next(&self) -> Bytes {
        let number = self.next.replace(self.next.get() + 1);
        let mut value = format!("c{}-{number:06}", self.client.0);
        while value.len() < self.len {
            value.push('x');
        }
        Bytes::from(value)
    }
}
