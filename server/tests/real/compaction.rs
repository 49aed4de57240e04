//! Auto-compaction by real members.

use std::path::{Path, PathBuf};
use std::process::Command;

use detkv_core::pb::etcdserverpb as pb;

use crate::metrics::metric;
use crate::support::{Cluster, eventually, get, put};

/// Beyond the five minutes after which the mode `revision` looks again (etcd's value, and fixed).
const JUMP_SECS: u32 = 301;

/// Builds what makes a process' clock jump; see there.
fn clock_jump(dir: &Path) -> PathBuf {
    let library = dir.join("clock_jump.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/real/clock_jump.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", source, "-ldl", "-o"]).arg(&library);
    let built = cc.arg(format!("-DJUMP_SECS={JUMP_SECS}")).status();
    assert!(built.expect("a C compiler, as for the build").success(), "{source}");
    library
}

#[tokio::test]
async fn auto_compaction_keeps_the_history_short() {
    let flags = ["--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s"];
    let cluster = Cluster::start(1, &flags);
    let mut kv = cluster.members[0].kv().await;
    let mut n = 0;
    eventually("the first revisions are compacted", async || {
        kv.put(put("k", n.to_string())).await.expect("put");
        n += 1;
        let old = pb::RangeRequest { revision: 2, ..get("k") };
        let error = kv.range(old).await.err();
        error.is_some_and(|e| e.message().ends_with("required revision has been compacted"))
    })
    .await;
    assert!(cluster.members[0].log().contains("completed auto periodic compaction"));
}

#[tokio::test]
async fn auto_compaction_keeps_so_many_revisions() {
    const REVISION: &str = "etcd_debugging_mvcc_compact_revision";
    const ROWS: &str = "etcd_debugging_mvcc_db_compaction_keys_total";
    let flags = ["--auto-compaction-mode", "revision", "--auto-compaction-retention", "10"];
    let mut cluster = Cluster::new(1, &flags);
    let jump = cluster.dir.path().join("jump");
    let library = clock_jump(cluster.dir.path());
    let member = &mut cluster.members[0];
    member.start_with(&[("LD_PRELOAD", &library), ("CLOCK_JUMP", &jump)]);
    member.wait_ready();
    let mut kv = member.kv().await;
    for n in 0..30 {
        kv.put(put("k", n.to_string())).await.expect("put");
    }
    assert_eq!(metric(member, REVISION).await, Some(0.0), "not before its time");

    std::fs::write(jump, "").expect("written");
    // 30 puts end at revision 31; ten of them are kept beside the one that is readable at 21.
    eventually("the clock's jump is seen", async || metric(member, REVISION).await == Some(21.0))
        .await;
    eventually("the rows are gone", async || metric(member, ROWS).await == Some(19.0)).await;
    let at = |revision| pb::RangeRequest { revision, ..get("k") };
    let error = kv.range(at(20)).await.expect_err("compacted");
    assert_eq!(error.message(), "etcdserver: mvcc: required revision has been compacted");
    let kept = kv.range(at(21)).await.expect("readable").into_inner();
    assert_eq!(kept.kvs[0].value, "19");
    assert!(member.log().contains("completed auto revision compaction"));
}
