//! The rows of the table: which load, by how many clients, over how many connections.

/// Bytes of every value.
pub const VALUE_BYTES: usize = 256;

/// Keys that exist before any row runs; `get` picks among them, `range` reads them all.
pub const PRELOADED_KEYS: u64 = 1000;

/// What one client does over and over, waiting for each answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A put of a key that was not there before.
    Put,
    /// A get of one of the preloaded keys.
    Get { serializable: bool },
    /// A linearizable range over all preloaded keys.
    Range,
    /// One more watcher of one key on the client's stream, until `created` comes back.
    WatchCreate,
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub operation: Operation,
    pub clients: usize,
    /// Spread evenly over the members; a lone one goes to the leader.
    pub connections: usize,
}

/// Connections of concurrent rows: three to each member. One HTTP/2 connection is one task on either side and
/// would be the bottleneck.
const CONNECTIONS: usize = 9;

/// All rows in the order in which they run. Watchers come last: they stay until the members are stopped.
pub const ROWS: [Row; 7] = [
    Row { operation: Operation::Put, clients: 1, connections: 1 },
    Row { operation: Operation::Put, clients: 64, connections: CONNECTIONS },
    Row { operation: Operation::Put, clients: 256, connections: CONNECTIONS },
    Row {
        operation: Operation::Get { serializable: false },
        clients: 64,
        connections: CONNECTIONS,
    },
    Row { operation: Operation::Get { serializable: true }, clients: 64, connections: CONNECTIONS },
    Row { operation: Operation::Range, clients: 16, connections: CONNECTIONS },
    Row { operation: Operation::WatchCreate, clients: 64, connections: CONNECTIONS },
];

impl Row {
    /// `put/members=3 clients=64 value_bytes=256`.
    pub fn name(&self) -> String {
        let clients = self.clients;
        let (verb, more) = match self.operation {
            Operation::Put => ("put", format!("value_bytes={VALUE_BYTES}")),
            Operation::Get { serializable: false } => ("get", "read=linearizable".to_owned()),
            Operation::Get { serializable: true } => ("get", "read=serializable".to_owned()),
            Operation::Range => {
                ("range", format!("keys={PRELOADED_KEYS} value_bytes={VALUE_BYTES}"))
            }
            Operation::WatchCreate => ("watch-create", "keys=1".to_owned()),
        };
        format!("{verb}/members={} clients={clients} {more}", crate::peers::MEMBERS)
    }

    /// For a person.
    pub fn title(&self) -> String {
        match (self.operation, self.clients) {
            (Operation::Put, 1) => format!("sequential {VALUE_BYTES} B put"),
            (Operation::Put, clients) => format!("{VALUE_BYTES} B put, {clients} clients"),
            (Operation::Get { serializable: false }, _) => "single-key get linearizable".to_owned(),
            (Operation::Get { serializable: true }, _) => "single-key get serializable".to_owned(),
            (Operation::Range, _) => format!("range get {PRELOADED_KEYS} keys"),
            (Operation::WatchCreate, _) => "watch creation".to_owned(),
        }
    }

    /// Bytes of key and value that one operation stores.
    pub fn payload_bytes(&self) -> u64 {
        match self.operation {
            Operation::Put => (put_key(0).len() + VALUE_BYTES) as u64,
            _ => 0,
        }
    }

    /// Whether one of the comma-separated parts of `filter` occurs in the name or the title.
    pub fn matches(&self, filter: &str) -> bool {
        let (name, title) = (self.name(), self.title());
        let parts = filter.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.into_iter().any(|part| name.contains(part) || title.contains(part))
    }
}

/// Key of the n-th put: always of one length.
pub fn put_key(n: u64) -> String {
    format!("put/{n:012}")
}

/// Key of a preloaded value.
pub fn preloaded_key(n: u64) -> String {
    format!("get/{n:06}")
}

/// The range that holds all preloaded keys and nothing else: from `get/` to before `get0`.
pub const PRELOADED_RANGE: (&str, &str) = ("get/", "get0");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_members_and_clients() {
        let names: std::collections::BTreeSet<String> = ROWS.iter().map(Row::name).collect();
        assert_eq!(names.len(), ROWS.len());
        assert!(names.contains("put/members=3 clients=64 value_bytes=256"));
    }

    #[test]
    fn a_filter_is_any_of_its_parts() {
        let chosen = |filter| ROWS.iter().filter(|row| row.matches(filter)).count();
        assert_eq!(chosen("put/"), 3);
        assert_eq!(chosen("clients=256, watch"), 2);
        assert_eq!(chosen("linearizable"), 1);
        assert_eq!(chosen(" , "), 0);
    }

    #[test]
    fn preloaded_keys_lie_in_their_range_and_puts_do_not() {
        let (from, to) = PRELOADED_RANGE;
        let inside = |key: &str| (from..to).contains(&key);
        assert!(inside(&preloaded_key(0)) && inside(&preloaded_key(PRELOADED_KEYS - 1)));
        assert!(!inside(&put_key(0)));
    }
}
