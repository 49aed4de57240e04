//! What must not start, or not go on: each says why in one line and ends with a non-zero code.

use std::net::TcpListener;

use crate::support::{Cluster, Member, detkv, last_segment, put, read, run_to_end};

/// Starts a member that cannot start. Its exit code and the one line that says why.
fn refusal(cluster: &Cluster, args: &[String], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = detkv(args);
    command.envs(variables.iter().copied());
    let (status, stderr) = run_to_end(command, cluster.dir.path());
    let why: Vec<&str> = stderr
        .lines()
        .filter(|line| line.starts_with("detkv: ") || line.contains(r#""level":"fatal""#))
        .collect();
    assert_eq!(why.len(), 1, "one clear line in:\n{stderr}");
    (status.code().expect("not by a signal"), why[0].to_owned())
}

fn with(member: &Member, flags: &[&str]) -> Vec<String> {
    let mut args = member.args();
    args.extend(flags.iter().map(|flag| (*flag).to_owned()));
    args
}

#[test]
fn a_bad_flag_is_a_usage_error() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (status, stderr) = run_to_end(detkv(&["--no-such-flag".to_owned()]), dir.path());
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("--no-such-flag") && stderr.contains("Usage:"), "{stderr}");
}

#[test]
fn a_flag_of_a_missing_feature_is_refused_not_ignored() {
    let cluster = Cluster::new(1, &[]);
    let args = with(&cluster.members[0], &["--auto-tls"]);
    let (code, line) = refusal(&cluster, &args, &[]);
    assert_eq!((code, line.as_str()), (2, "detkv: --auto-tls: not yet supported"));
}

#[test]
fn a_bad_value_is_one_line() {
    let cluster = Cluster::new(1, &[]);
    let args = with(&cluster.members[0], &["--election-timeout", "200"]);
    let (code, line) = refusal(&cluster, &args, &[]);
    assert_eq!(code, 1);
    assert!(line.contains("should be at least as 5 times as --heartbeat-interval"), "{line}");
    assert!(!cluster.members[0].data_dir.exists(), "nothing was touched");
}

#[test]
fn an_option_set_by_flag_and_variable_is_a_conflict() {
    let cluster = Cluster::new(1, &[]);
    let args = cluster.members[0].args();
    let (code, line) = refusal(&cluster, &args, &[("ETCD_NAME", "other")]);
    assert_eq!(code, 1);
    assert!(line.contains("conflicting environment variable is shadowed"), "{line}");
}

#[test]
fn a_busy_port_is_noticed_before_data_is_touched() {
    let cluster = Cluster::new(1, &[]);
    let member = &cluster.members[0];
    let _taken = TcpListener::bind(("127.0.0.1", member.client_port)).expect("a free port");
    let (code, line) = refusal(&cluster, &member.args(), &[]);
    assert_eq!(code, 1);
    let expected =
        format!("listen tcp 127.0.0.1:{}: bind: address already in use", member.client_port);
    assert!(line.contains(&expected), "{line}");
    assert!(!member.data_dir.exists(), "nothing was touched");
}

#[tokio::test]
async fn a_data_directory_of_another_cluster_is_refused() {
    let mut cluster = Cluster::start(1, &[]);
    let member = &mut cluster.members[0];
    member.kv().await.put(put("a", "1")).await.expect("put");
    assert!(member.terminate().success());
    let args = with(&cluster.members[0], &["--initial-cluster-token", "another"]);
    let (code, line) = refusal(&cluster, &args, &[]);
    assert_eq!(code, 1);
    assert!(line.contains("data directory belongs to cluster"), "{line}");
}

#[tokio::test]
async fn a_data_directory_in_use_is_refused() {
    let cluster = Cluster::start(1, &[]);
    let other = Cluster::new(1, &[]);
    let data_dir = cluster.members[0].data_dir.display().to_string();
    let args = with(&other.members[0], &["--data-dir", &data_dir]);
    let (code, line) = refusal(&other, &args, &[]);
    assert_eq!(code, 1);
    assert!(line.contains("data directory is in use by another process"), "{line}");
}

#[tokio::test]
async fn a_damaged_wal_is_refused_and_left_as_it_is() {
    let mut cluster = Cluster::start(1, &[]);
    let member = &mut cluster.members[0];
    let mut kv = member.kv().await;
    for n in 0..20 {
        kv.put(put(format!("key{n}"), "some value")).await.expect("put");
    }
    assert!(member.terminate().success());

    let segment = last_segment(&member.data_dir);
    let mut bytes = read(&segment);
    // Inside the data of an entry in the middle of the log.
    let at = bytes.windows(5).position(|window| window == b"key10").expect("in the log");
    bytes[at] ^= 0x20;
    std::fs::write(&segment, &bytes).expect("writable");

    let (code, line) = refusal(&cluster, &cluster.members[0].args(), &[]);
    assert_eq!(code, 1);
    assert!(line.contains("the WAL is damaged and was not changed"), "{line}");
    assert!(read(&segment) == bytes, "the damaged file is as it was");
}

#[tokio::test]
async fn a_member_whose_disk_fails_halts_and_loses_nothing() {
    let mut cluster = Cluster::new(1, &[]);
    let member = &mut cluster.members[0];
    // Room for a WAL segment (64,000,000 bytes), not for a backend of 70 MB.
    member.start_with_file_limit(64 << 20);
    member.wait_ready();
    let mut kv = member.kv().await;
    let mut acknowledged = 0;
    while kv.put(put(format!("k{acknowledged:03}"), "x".repeat(1_400_000))).await.is_ok() {
        acknowledged += 1;
        assert!(acknowledged < 300, "the limit does not bite");
    }
    let status = member.wait_end();
    assert_eq!(status.code(), Some(1));
    let fatal: Vec<String> = member
        .log()
        .lines()
        .filter(|line| line.contains(r#""level":"fatal""#))
        .map(str::to_owned)
        .collect();
    assert_eq!(fatal.len(), 1, "{fatal:?}");
    assert!(fatal[0].contains("the member had to halt"), "{}", fatal[0]);

    member.start();
    member.wait_ready();
    let keys = crate::support::get_prefix("k");
    let keys = detkv_core::pb::etcdserverpb::RangeRequest { count_only: true, ..keys };
    let found = member.kv().await.range(keys).await.expect("get").into_inner().count;
    assert!(found >= acknowledged, "{found} of {acknowledged} acknowledged puts are there");
}
