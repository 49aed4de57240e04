//! The history of a run, written in the form of etcd's robustness reports and read back by a small parser and model
//! that share nothing with ours: every read, write and watch event is what a replay of the log gives.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use common::detkv_sim_in;
use serde_json::Value;

const SCENARIO: &str = r#"
about = "what the format can say, with faults"
profiles = ["decoupled"]
duration = "12s"

[member]
snapshot_count = 200
snapshot_catchup_entries = 20

[[workload]]
kind = "robustness"

[[workload]]
kind = "kubernetes"
writes_per_sec = 40
event_ttl_secs = 3

[[workload]]
kind = "watcher"
progress_notify = true

[[fault]]
at = "2s"
kind = "kill"
node = "leader"
restart_after = "1s"

[[fault]]
at = "6s"
kind = "partition"
nodes = ["leader"]
duration = "2s"
"#;

/// JSON objects one after the other.
fn objects(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).expect("the file was written");
    let all = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    all.collect::<Result<_, _>>().expect("the file holds JSON objects")
}

fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("a number, not {value}"))
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("a string, not {value}")).to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[derive(Clone, PartialEq, Debug)]
struct Row {
    value: Value,
    mod_revision: i64,
    version: i64,
    lease: i64,
}

type Rows = BTreeMap<String, Row>;

/// Key, and value if it is no delete.
type Change = (String, Option<Value>);

struct Replay {
    /// `states[r]`: the rows at revision `r`.
    states: Vec<Rows>,
    /// `changes[r]`.
    changes: Vec<Vec<Change>>,
    leases: BTreeSet<i64>,
}

impl Replay {
    fn of(requests: &[Value]) -> Self {
        let mut this = Self {
            states: vec![Rows::new(), Rows::new()],
            changes: vec![Vec::new(), Vec::new()],
            leases: BTreeSet::new(),
        };
        requests.iter().for_each(|request| this.apply(request));
        this
    }

    fn apply(&mut self, request: &Value) {
        let mut rows = self.states.last().expect("it is never empty").clone();
        let mut changes = Vec::new();
        match request["Type"].as_str().expect("a request has a type") {
            "txn" => self.txn(&request["Txn"], &mut rows, &mut changes),
            "leaseGrant" => drop(self.leases.insert(int(&request["LeaseGrant"]["LeaseID"]))),
            "leaseRevoke" => {
                let lease = int(&request["LeaseRevoke"]["LeaseID"]);
                let is_own = |row: &Row| self.leases.contains(&lease) && row.lease == lease;
                let own: Vec<String> = rows
                    .iter()
                    .filter(|(_, row)| is_own(row))
                    .map(|(key, _)| key.clone())
                    .collect();
                self.leases.remove(&lease);
                for key in own {
                    rows.remove(&key);
                    changes.push((key, None));
                }
            }
            "compact" => {}
            other => panic!("a log has no {other}"),
        }
        if !changes.is_empty() {
            self.states.push(rows);
            self.changes.push(changes);
        }
    }

    fn txn(&self, txn: &Value, rows: &mut Rows, changes: &mut Vec<Change>) {
        let before = rows.clone();
        let holds = list(&txn["Conditions"]).iter().all(|condition| {
            let row = before.get(&string(&condition["Key"]));
            match int(&condition["ExpectedVersion"]) {
                0 => row.map_or(0, |row| row.mod_revision) == int(&condition["ExpectedRevision"]),
                version => row.map_or(0, |row| row.version) == version,
            }
        });
        let branch = if holds { "OperationsOnSuccess" } else { "OperationsOnFailure" };
        let revision = self.states.len() as i64;
        let leased = |op: &Value| op["Put"]["LeaseID"].as_i64().unwrap_or(0);
        let known = |op: &Value| leased(op) == 0 || self.leases.contains(&leased(op));
        if !list(&txn[branch]).iter().all(known) {
            return; // refused: no such lease
        }
        for op in list(&txn[branch]) {
            match op["Type"].as_str().expect("an operation has a type") {
                "put-operation" => {
                    let key = string(&op["Put"]["Key"]);
                    let row = Row {
                        value: op["Put"]["Value"].clone(),
                        mod_revision: revision,
                        version: rows.get(&key).map_or(0, |row| row.version) + 1,
                        lease: leased(op),
                    };
                    changes.push((key.clone(), Some(row.value.clone())));
                    rows.insert(key, row);
                }
                "delete-operation" => {
                    let key = string(&op["Delete"]["Key"]);
                    if rows.remove(&key).is_some() {
                        changes.push((key, None));
                    }
                }
                _ => {}
            }
        }
    }

    fn check_range(&self, range: &Value, revision: i64, got: &Value) {
        let asked = int(&range["Revision"]);
        let at = if asked > 0 { asked } else { revision };
        let (start, end) = (string(&range["Start"]), string(&range["End"]));
        let found: Vec<(&String, &Row)> = self.states[at as usize]
            .iter()
            .filter(|(key, _)| match end.as_str() {
                "" => **key == start,
                "\0" => **key >= start,
                _ => **key >= start && **key < end,
            })
            .collect();
        assert_eq!(int(&got["Count"]), found.len() as i64, "{range} at {at}");
        let limit = usize::try_from(int(&range["Limit"])).expect("limits are not negative");
        let shown = if limit == 0 { found.len() } else { limit.min(found.len()) };
        let kvs = list(&got["KVs"]);
        assert_eq!(kvs.len(), shown, "{range} at {at}");
        for (kv, (key, row)) in kvs.iter().zip(found) {
            assert_eq!((&string(&kv["Key"]), &kv["Value"]), (key, &row.value));
            let numbers = (int(&kv["ModRevision"]), int(&kv["Version"]));
            assert_eq!(numbers, (row.mod_revision, row.version));
        }
    }

    /// Writes that succeeded are where they say.
    fn check_txn(&self, txn: &Value, revision: i64, got: &Value) {
        let failed = got["Failure"].as_bool().expect("a txn says which branch it took");
        let ops = list(&txn[if failed { "OperationsOnFailure" } else { "OperationsOnSuccess" }]);
        for (op, result) in ops.iter().zip(list(&got["Results"])) {
            let change = match op["Type"].as_str() {
                Some("put-operation") => {
                    (string(&op["Put"]["Key"]), Some(op["Put"]["Value"].clone()))
                }
                Some("delete-operation") if int(&result["Deleted"]) > 0 => {
                    (string(&op["Delete"]["Key"]), None)
                }
                _ => continue,
            };
            assert!(self.changes[revision as usize].contains(&change), "{op} at {revision}");
        }
    }

    /// Everything from the start on that the watch wants, in order and without a gap, each revision whole.
    fn check_watch(&self, watch: &Value) -> usize {
        let request = &watch["Request"];
        let (key, start) = (string(&request["Key"]), int(&request["Revision"]));
        let with_prefix = request["WithPrefix"].as_bool().expect("it says so");
        let wants = |other: &str| if with_prefix { other.starts_with(&key) } else { other == key };
        let responses = list(&watch["Responses"]);
        let mut shown: Vec<(i64, Change)> = Vec::new();
        for response in responses {
            for event in list(&response["Events"]) {
                let is_put = event["Type"] == "put-operation";
                let change = (string(&event["Key"]), is_put.then(|| event["Value"].clone()));
                let revision = int(&event["Revision"]);
                let before = self.states[revision as usize - 1].get(&change.0);
                assert_eq!(event["IsCreate"], is_put && before.is_none());
                if let Some(prev) = event.get("PrevValue") {
                    assert_eq!(Some(&prev["Value"]), before.map(|row| &row.value));
                }
                shown.push((revision, change));
            }
            if response["IsProgressNotify"] == true && int(&response["Revision"]) > 0 {
                let after = shown.last().map_or(0, |(revision, _)| *revision);
                assert!(after <= int(&response["Revision"]), "a bookmark lies behind its events");
            }
        }
        let Some((last, _)) = shown.last() else { return 0 };
        assert!(start > 0, "the workloads of this test watch from a revision on");
        let expected: Vec<(i64, Change)> = (start..=*last)
            .flat_map(|revision| {
                self.changes[revision as usize].iter().map(move |change| (revision, change.clone()))
            })
            .filter(|(_, (key, _))| wants(key))
            .collect();
        assert_eq!(shown, expected);
        shown.len()
    }
}

#[test]
fn a_history_reads_back_as_what_the_log_replays_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("told.toml"), SCENARIO).expect("it is writable");
    let ended =
        detkv_sim_in(folder.path(), &["run", "told.toml", "--seed", "4", "--history", "history"]);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
    let history = folder.path().join("history");
    let persisted = objects(&history.join("persisted-requests.json"));
    let replay = Replay::of(list(&persisted[0]));

    let mut last_return: BTreeMap<i64, i64> = BTreeMap::new();
    let (mut reads, mut writes, mut open, mut events) = (0, 0, 0, 0);
    let mut clients: Vec<_> = fs::read_dir(&history)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.is_dir())
        .collect();
    clients.sort();
    for client in clients {
        for operation in objects(&client.join("operations.json")) {
            let (called, returned) = (int(&operation["Call"]), int(&operation["Return"]));
            let before = last_return.insert(int(&operation["ClientID"]), returned).unwrap_or(-1);
            assert!(before < called && called < returned, "a stream has one call at a time");
            let (input, output) = (&operation["Input"], &operation["Output"]);
            if output.get("Error").is_some() {
                open += 1;
                continue;
            }
            let revision = int(&output["Revision"]);
            match input["Type"].as_str().expect("an input has a type") {
                "range" => {
                    replay.check_range(&input["Range"], revision, &output["Range"]);
                    reads += 1;
                }
                "txn" => {
                    replay.check_txn(&input["Txn"], revision, &output["Txn"]);
                    writes += 1;
                }
                "compact" => assert_eq!(revision, -1),
                _ => {}
            }
        }
        let watches = objects(&client.join("watch.json"));
        events += watches.iter().map(|watch| replay.check_watch(watch)).sum::<usize>();
    }
    assert!(
        reads > 300 && writes > 300 && open > 0 && events > 1000,
        "{reads} {writes} {open} {events}"
    );

    let left_out = &objects(&history.join("left-out.json"))[0];
    assert_eq!(left_out["writes_left_out"], serde_json::json!({}), "{left_out}");
    assert_eq!(left_out["persisted_requests_left_out"], serde_json::json!({}), "{left_out}");
    // Events end with their leases, which etcd's model does not know: said so.
    assert!(int(&left_out["leases_that_ended_by_themselves"]) > 0, "{left_out}");
    assert_eq!(left_out["is_exact"], false, "{left_out}");
}
