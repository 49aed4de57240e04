//! Debian's etcdctl against three members. Says so and passes when it is not installed.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Cluster, eventually};

const ETCDCTL: &str = "/usr/bin/etcdctl";

/// A command on the first member.
fn etcdctl(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new(ETCDCTL);
    command.env("ETCDCTL_API", "3").arg("--endpoints").arg(cluster.members[0].url()).args(args);
    command
}

/// Runs it; what it printed.
fn run(cluster: &Cluster, args: &[&str]) -> String {
    let output = etcdctl(cluster, args).output().expect("etcdctl runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "etcdctl {args:?}: {stderr}");
    String::from_utf8(output.stdout).expect("text")
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
    if !std::path::Path::new(ETCDCTL).exists() {
        println!("skipped: {ETCDCTL} is not installed");
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
    let mut command = Command::new("timeout");
    command.env("ETCDCTL_API", "3").args(["3", ETCDCTL, "--endpoints", &cluster.members[1].url()]);
    command.args(["watch", "w", "--prev-kv", "--rev", &rev]);
    let output = command.output().expect("timeout runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text, "PUT\nw\n1\nPUT\nw\n1\nw\n2\nDELETE\nw\n2\nw\n\n");
}

async fn leases(cluster: &Cluster) {
    let granted = run(cluster, &["lease", "grant", "2"]);
    let id = granted.split_whitespace().nth(1).expect("lease <id> granted").to_owned();
    assert!(granted.ends_with("granted with TTL(2s)\n"), "{granted}");
    run(cluster, &["put", "leased", "x", "--lease", &id]);
    let kept = run(cluster, &["lease", "keep-alive", "--once", &id]);
    assert_eq!(kept, format!("lease {id} keepalived with TTL(2)\n"));
    let left = run(cluster, &["lease", "timetolive", "--keys", &id]);
    assert!(left.contains("granted with TTL(2s)") && left.contains("[leased]"), "{left}");
    eventually("the leased key is gone", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        run(cluster, &["get", "leased"]).is_empty()
    })
    .await;
}

fn compaction(cluster: &Cluster) {
    let now = revision(&run(cluster, &["put", "c", "1", "-w", "json"]));
    run(cluster, &["put", "c", "2"]);
    let at = (now + 1).to_string();
    assert_eq!(run(cluster, &["compaction", &at]), format!("compacted revision {at}\n"));
    let old = etcdctl(cluster, &["get", "c", "--rev", &now.to_string()]).output().expect("runs");
    assert!(!old.status.success());
    let stderr = String::from_utf8_lossy(&old.stderr).into_owned();
    assert!(stderr.contains("required revision has been compacted"), "{stderr}");
}

fn endpoints(cluster: &Cluster) {
    let all = cluster.endpoints();
    let mut command = Command::new(ETCDCTL);
    command.env("ETCDCTL_API", "3").args(["--endpoints", &all, "endpoint", "status", "-w", "json"]);
    let output = command.output().expect("etcdctl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let rows: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 3);
    let leaders: Vec<_> = rows.iter().map(|row| row["Status"]["leader"].clone()).collect();
    assert!(leaders.iter().all(|leader| *leader == leaders[0]), "{leaders:?}");
    assert!(rows.iter().all(|row| row["Status"]["version"] == "3.6.0"), "{rows:?}");
    let health = run(cluster, &["endpoint", "health"]);
    assert!(health.is_empty() || health.contains("is healthy"), "{health}");
    assert_eq!(run(cluster, &["member", "list"]).lines().count(), 3);
}
