//! A run's history in the form of etcd's robustness reports, for validators that are not ours.
//!
//! ```text
//! DIR/client-N/operations.json   what client N called, one JSON object after the other
//! DIR/client-N/watch.json        its watches, likewise
//! DIR/persisted-requests.json    what the log committed, in its order: a JSON list
//! DIR/left-out.json              what the format cannot say, counted; and what a validator assumes
//! ```
//! The format knows single-key deletes, compares of mod revision and version for equality, and no sort, filter or
//! nested txn. What it cannot say is left out and counted. A read that is left out costs nothing; with a write
//! left out (`writes` above 0), or a lease that ended by itself, a validator's model lacks a change and its
//! verdict means nothing: `is_exact` is false then.

mod operations;
mod requests;
mod watches;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use detkv_sim_world::check::Case;
use detkv_sim_world::history::{Call, End, History, KeyId, KeyRange, Outcome, ValueId, fnv32a};
use serde_json::{Value, json};

/// Values of so many bytes and more are named by their hash, as etcd's recorder does.
const HASHED_FROM: usize = 20;

/// What was left out, by reason.
#[derive(Default, Debug)]
struct LeftOut {
    reads: BTreeMap<&'static str, u64>,
    writes: BTreeMap<&'static str, u64>,
    watches: BTreeMap<&'static str, u64>,
    requests: BTreeMap<&'static str, u64>,
}

fn count(reasons: &mut BTreeMap<&'static str, u64>, reason: &'static str) {
    *reasons.entry(reason).or_default() += 1;
}

/// Writes the folder; what is in it already is replaced file by file.
///
/// Errors: a file that cannot be written, with its path.
pub fn write(history: &History, folder: &Path) -> anyhow::Result<()> {
    let mut left_out = LeftOut::default();
    let operations = operations::of(history, &mut left_out);
    let watches = watches::of(history, &mut left_out);
    let clients = operations.keys().chain(watches.keys()).copied();
    let clients: std::collections::BTreeSet<u32> = clients.collect();
    for client in clients {
        let own = folder.join(format!("client-{client}"));
        fs::create_dir_all(&own).with_context(|| format!("cannot make {}", own.display()))?;
        let lines = |of: &BTreeMap<u32, Vec<Value>>| -> String {
            of.get(&client).into_iter().flatten().map(|line| format!("{line}\n")).collect()
        };
        write_file(&own.join("operations.json"), &lines(&operations))?;
        write_file(&own.join("watch.json"), &lines(&watches))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let case = Case::new(history);
    let persisted = requests::persisted(&case, &mut left_out);
    let lines: Vec<String> = persisted.iter().map(Value::to_string).collect();
    write_file(&folder.join("persisted-requests.json"), &format!("[{}]\n", lines.join(",\n")))?;
    let summary = summary(history, &left_out, persisted.len());
    write_file(&folder.join("left-out.json"), &format!("{summary:#}\n"))
}

fn summary(history: &History, left_out: &LeftOut, persisted: usize) -> Value {
    let done = history.operations().iter().filter_map(|op| match &op.outcome {
        Outcome::Done { revision, .. } => Some((&op.call, *revision)),
        _ => None,
    });
    let saw_start =
        done.into_iter().any(|(call, revision)| revision == 1 && matches!(call, Call::Range(_)));
    let revoked = history.raft().leases().iter().filter(|entry| entry.granted_ttl_secs.is_none());
    let asked = |lease: i64| {
        history.operations().iter().any(|op| op.call == Call::LeaseRevoke { id: lease })
    };
    let expired = revoked.filter(|entry| !asked(entry.lease)).count();
    let is_exact = left_out.writes.is_empty() && left_out.requests.is_empty() && expired == 0;
    json!({
        "is_exact": is_exact,
        "a_read_saw_revision_1": saw_start,
        "leases_that_ended_by_themselves": expired,
        "persisted_requests": persisted,
        "reads_left_out": left_out.reads,
        "writes_left_out": left_out.writes,
        "watches_left_out": left_out.watches,
        "persisted_requests_left_out": left_out.requests,
    })
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn key(history: &History, key: KeyId) -> String {
    text(history.key(key))
}

/// `End` of a range: empty for a single key.
fn range_end(history: &History, keys: KeyRange) -> String {
    match keys.end {
        End::Single => String::new(),
        End::Open => "\0".to_owned(),
        End::Before(end) => key(history, end),
    }
}

fn value_bytes(value: &[u8]) -> Value {
    if value.len() < HASHED_FROM {
        json!({ "Value": text(value) })
    } else {
        json!({ "Hash": fnv32a(value) })
    }
}

fn value(history: &History, id: ValueId) -> Value {
    let value = history.value(id);
    match value.whole() {
        Some(whole) => value_bytes(whole),
        None => json!({ "Hash": history.value_hash(id).expect("the run kept its values' hashes") }),
    }
}
