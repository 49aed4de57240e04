//! One member: it keeps what it acknowledged, and stops when asked.

use detkv_core::pb::etcdserverpb as pb;

use crate::support::{Cluster, get, put};

#[tokio::test]
async fn a_member_answers_and_remembers_across_a_restart() {
    let mut cluster = Cluster::start(1, &[]);
    let member = &mut cluster.members[0];
    let mut kv = member.kv().await;
    let header = kv.put(put("a", "1")).await.expect("put").into_inner().header.expect("header");
    assert_eq!(header.revision, 2, "the first change of a fresh store");
    kv.put(put("a", "2")).await.expect("put");

    let status = member.terminate();
    assert!(status.success(), "SIGTERM ends cleanly: {status}");
    member.start();
    member.wait_ready();

    let mut kv = member.kv().await;
    let answer = kv.range(get("a")).await.expect("get").into_inner();
    let header = answer.header.expect("header");
    assert_eq!((answer.count, header.revision), (1, 3));
    assert_eq!(&answer.kvs[0].value[..], b"2");
    assert_eq!((answer.kvs[0].create_revision, answer.kvs[0].version), (2, 2));
    let old = pb::RangeRequest { revision: 2, ..get("a") };
    let old = kv.range(old).await.expect("an old revision").into_inner();
    assert_eq!(&old.kvs[0].value[..], b"1");
}

#[tokio::test]
async fn kill_dash_nine_of_a_lone_member_loses_nothing() {
    let mut cluster = Cluster::start(1, &[]);
    let member = &mut cluster.members[0];
    let mut kv = member.kv().await;
    for n in 0..50 {
        kv.put(put(format!("k{n}"), format!("v{n}"))).await.expect("put");
    }
    member.kill();
    member.start();
    member.wait_ready();
    let mut kv = member.kv().await;
    for n in 0..50 {
        let answer = kv.range(get(&format!("k{n}"))).await.expect("get").into_inner();
        assert_eq!(&answer.kvs[0].value[..], format!("v{n}").as_bytes());
    }
}

#[tokio::test]
async fn errors_have_etcds_codes_and_texts() {
    let cluster = Cluster::start(1, &[]);
    let mut kv = cluster.members[0].kv().await;
    let error = kv.put(put("", "x")).await.expect_err("no key");
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert_eq!(error.message(), "etcdserver: key is not provided");

    let future = pb::RangeRequest { revision: 99, ..get("a") };
    let error = kv.range(future).await.expect_err("a future revision");
    assert_eq!(error.code(), tonic::Code::OutOfRange);
    assert_eq!(error.message(), "etcdserver: mvcc: required revision is a future revision");

    let large = put("a", "x".repeat(1_600_000));
    let error = kv.put(large).await.expect_err("over max-request-bytes");
    assert_eq!(error.code(), tonic::Code::InvalidArgument);
    assert_eq!(error.message(), "etcdserver: request is too large");

    let larger = put("a", "x".repeat(3_000_000));
    let error = kv.put(larger).await.expect_err("over gRPC's limit");
    assert_eq!(error.code(), tonic::Code::ResourceExhausted);
    assert!(error.message().starts_with("grpc: received message larger than max ("), "{error}");
    assert!(error.message().ends_with(" vs. 2097152)"), "{error}");

    let mut api = crate::support::MaintenanceClient::new(cluster.members[0].channel().await);
    let error = api.downgrade(pb::DowngradeRequest::default()).await;
    let error = error.expect_err("not in this version");
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    assert_eq!(error.message(), "detkv: Maintenance.Downgrade is not yet supported");
}

#[tokio::test]
async fn garbage_on_its_ports_does_not_hurt_it() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let lying_length = [preface.clone(), vec![0xff; 64]].concat();
    // A peer frame that claims 4 GiB; a Hello that is none; silence after half a prefix.
    let peer = [vec![0xff; 16], vec![8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], vec![4, 0]];
    let client = [vec![0; 100], lying_length, b"GET / HTTP/9\r\n\r\n".to_vec()];
    let port_of = |n: usize| if n < peer.len() { member.peer_port } else { member.client_port };
    for (n, bytes) in peer.iter().chain(&client).enumerate() {
        let mut stream =
            tokio::net::TcpStream::connect(("127.0.0.1", port_of(n))).await.expect("listening");
        stream.write_all(bytes).await.expect("written");
        stream.shutdown().await.expect("half closed");
        // However it answers, it ends the connection.
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(crate::support::PATIENCE, stream.read_to_end(&mut answer))
            .await
            .expect("closed in time");
    }
    member.kv().await.put(put("a", "1")).await.expect("it serves on");
}

#[tokio::test]
async fn the_directory_knows_its_member_when_the_flags_do_not_say() {
    let mut cluster = Cluster::start(1, &["--initial-cluster-token", "mine"]);
    let member = &mut cluster.members[0];
    member.kv().await.put(put("a", "1")).await.expect("put");
    let id = member.status().await.header.expect("header").member_id;
    assert!(member.terminate().success());

    // As an operator restarts a member: the --initial-* flags are for the first start.
    let mut args = member.args();
    for flag in ["--initial-cluster", "--initial-advertise-peer-urls", "--initial-cluster-token"] {
        let at = args.iter().position(|arg| arg == flag).expect("given above");
        args.drain(at..at + 2);
    }
    member.set_args(args);
    member.start();
    member.wait_ready();
    assert_eq!(member.status().await.header.expect("header").member_id, id);
    let answer = member.kv().await.range(get("a")).await.expect("get").into_inner();
    assert_eq!(answer.count, 1);
}
