//! Debian's etcdctl against three members. Says so and passes when it is not installed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use crate::ctl;
use crate::support::{Cluster, eventually};

/// A command on the first member.
fn etcdctl(cluster: &Cluster, args: &[&str]) -> Command {
    ctl::etcdctl(&cluster.members[0].url(), args)
}

/// Runs it; what it printed.
fn run(cluster: &Cluster, args: &[&str]) -> String {
    ctl::run(&cluster.members[0].url(), args)
}

fn run_with_stdin(cluster: &Cluster, args: &[&str], input: &str) -> String {
    let mut command = etcdctl(cluster, args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("etcdctl runs");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("etcdctl reads");
    drop(stdin);
    let output = child.wait_with_output().expect("etcdctl ends");
    assert!(output.status.success(), "etcdctl {args:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The number after a revision in etcdctl's JSON.
fn revision(json: &str) -> i64 {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    value["header"]["revision"].as_i64().expect("a revision")
}

#[tokio::test]
async fn etcdctl_does_its_work() {
    if !ctl::is_installed() {
        return;
    }
    let cluster = Cluster::start(3, &[]);
    keys_and_txns(&cluster);
    watches(&cluster);
    leases(&cluster).await;
    compaction(&cluster);
    endpoints(&cluster);
}

fn keys_and_txns(cluster: &Cluster) {
    assert_eq!(run(cluster, &["put", "dir/a", "one"]), "OK\n");
    let first = revision(&run(cluster, &["get", "dir/a", "-w", "json"]));
    assert_eq!(run(cluster, &["put", "dir/a", "two", "--prev-kv"]), "OK\ndir/a\none\n");
    run(cluster, &["put", "dir/b", "three"]);
    assert_eq!(run(cluster, &["get", "dir/a", "--rev", &first.to_string()]), "dir/a\none\n");
    assert_eq!(run(cluster, &["get", "--prefix", "dir/"]), "dir/a\ntwo\ndir/b\nthree\n");
    assert_eq!(
        run(cluster, &["get", "--prefix", "dir/", "--order=DESCEND", "--sort-by=KEY", "--limit=1"]),
        "dir/b\nthree\n"
    );
    assert_eq!(
        run(cluster, &["get", "--prefix", "dir/", "--keys-only", "--consistency=s"]).trim(),
        "dir/a\n\ndir/b"
    );
    let txn = "value(\"dir/a\") = \"two\"\n\nput dir/a yes\nget dir/a\n\nput dir/a no\n\n";
    assert_eq!(run_with_stdin(cluster, &["txn"], txn), "SUCCESS\n\nOK\n\ndir/a\nyes\n");
    assert_eq!(run_with_stdin(cluster, &["txn"], txn), "FAILURE\n\nOK\n");
    assert_eq!(run(cluster, &["get", "dir/a", "--print-value-only"]), "no\n");
    assert_eq!(run(cluster, &["del", "dir/b"]), "1\n");
}

fn watches(cluster: &Cluster) {
    let from = revision(&run(cluster, &["put", "w", "1", "-w", "json"]));
    run(cluster, &["put", "w", "2"]);
    run(cluster, &["del", "w"]);
    let rev = from.to_string();
    let args = ["watch", "w", "--prev-kv", "--rev", &rev];
    let mut command = ctl::etcdctl(&cluster.members[1].url(), &args);
    let mut watch = command.stdout(Stdio::piped()).spawn().expect("etcdctl runs");
    let lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let expected = ["PUT", "w", "1", "PUT", "w", "1", "w", "2", "DELETE", "w", "2", "w", ""];
    let printed: Vec<String> = lines.take(expected.len()).map(|line| line.expect("text")).collect();
    watch.kill().expect("our child");
    watch.wait().expect("our child");
    assert_eq!(printed, expected);
}

async fn leases(cluster: &Cluster) {
    let granted = run(cluster, &["lease", "grant", "600"]);
    let id = granted.split_whitespace().nth(1).expect("lease <id> granted").to_owned();
    assert!(granted.ends_with("granted with TTL(600s)\n"), "{granted}");
    run(cluster, &["put", "leased", "x", "--lease", &id]);
    let kept = run(cluster, &["lease", "keep-alive", "--once", &id]);
    assert_eq!(kept, format!("lease {id} keepalived with TTL(600)\n"));
    let left = run(cluster, &["lease", "timetolive", "--keys", &id]);
    assert!(left.contains("granted with TTL(600s)") && left.contains("[leased]"), "{left}");
    assert_eq!(run(cluster, &["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(run(cluster, &["get", "leased"]), "");

    let granted = run(cluster, &["lease", "grant", "10"]);
    let id = granted.split_whitespace().nth(1).expect("lease <id> granted");
    run(cluster, &["put", "expires", "x", "--lease", id]);
    eventually("the key of an expired lease is gone", async || {
        run(cluster, &["get", "expires"]).is_empty()
    })
    .await;
}

fn compaction(cluster: &Cluster) {
    let now = revision(&run(cluster, &["put", "c", "1", "-w", "json"]));
    run(cluster, &["put", "c", "2"]);
    let at = (now + 1).to_string();
    assert_eq!(run(cluster, &["compaction", &at]), format!("compacted revision {at}\n"));
    let old = ctl::try_run(&cluster.members[0].url(), &["get", "c", "--rev", &now.to_string()]);
    let stderr = old.expect_err("compacted");
    assert!(stderr.contains("required revision has been compacted"), "{stderr}");
}

fn endpoints(cluster: &Cluster) {
    let all = cluster.endpoints();
    let status = ctl::run(&all, &["endpoint", "status", "-w", "json"]);
    let rows: serde_json::Value = serde_json::from_str(&status).expect("JSON");
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 3);
    let leaders: Vec<_> = rows.iter().map(|row| row["Status"]["leader"].clone()).collect();
    assert!(leaders.iter().all(|leader| *leader == leaders[0]), "{leaders:?}");
    assert!(rows.iter().all(|row| row["Status"]["version"] == "3.6.0"), "{rows:?}");
    let health = run(cluster, &["endpoint", "health"]);
    assert!(health.contains("is healthy"), "{health}");
    assert_eq!(run(cluster, &["member", "list"]).lines().count(), 3);
}
