//! Keys and values that a history can be read back from: no two puts of a run write the same value.

use std::cell::Cell;

use bytes::Bytes;

use crate::history::ClientId;

/// `prefix` and a number of equal width, so that key order is number order.
pub fn key(prefix: &str, number: u64) -> Bytes {
    let mut key = Vec::with_capacity(prefix.len() + 8);
    key.extend_from_slice(prefix.as_bytes());
    key.push(b'/');
    push_number(&mut key, number, 5);
    Bytes::from(key)
}

/// Appends a number with at least so many digits. A formatter takes ten times as long, for every call of a run.
fn push_number(out: &mut Vec<u8>, number: u64, digits: usize) {
    let from = out.len();
    let mut rest = number;
    while rest > 0 || out.len() < from + digits {
        out.push(b'0' + (rest % 10) as u8);
        rest /= 10;
    }
    out[from..].reverse();
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
        let mut value = Vec::with_capacity(self.len.max(self.name.len() + 8));
        value.extend_from_slice(self.name.as_bytes());
        value.push(b'-');
        push_number(&mut value, number, 6);
        if value.len() < self.len {
            value.resize(self.len, b'x');
        }
        Bytes::from(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_as_a_formatter_writes_them() {
        for number in [0, 7, 99_999, 100_000, 1_234_567, u64::MAX] {
            assert_eq!(key("put", number), format!("put/{number:05}"));
            let values = Values::new(ClientId(3), 40);
            values.next.set(number.saturating_sub(1));
            let text = format!("c3-{:06}", number.saturating_sub(1));
            assert_eq!(values.next(), format!("{text:x<40}"));
        }
    }
}
