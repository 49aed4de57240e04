//! Watches, leases and transactions through tonic's clients.

use std::time::{Duration, Instant};

use detkv_core::pb::etcdserverpb as pb;
use pb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::support::{
    Cluster, LeaseClient, Member, PATIENCE, WatchClient, eventually, get, prefix_end, put,
};

/// A watch stream: send requests, take responses.
pub struct WatchStream {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: Streaming<pb::WatchResponse>,
}

impl WatchStream {
    pub async fn open(member: &Member) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let mut client = WatchClient::new(member.channel().await);
        let responses = client.watch(ReceiverStream::new(receiver)).await.expect("stream");
        Self { requests, responses: responses.into_inner() }
    }

    pub async fn create(&self, create: pb::WatchCreateRequest) {
        let request_union = Some(RequestUnion::CreateRequest(create));
        self.requests.send(pb::WatchRequest { request_union }).await.expect("open stream");
    }

    pub async fn next(&mut self) -> pb::WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.next()).await;
        next.expect("in time").expect("an open stream").expect("no error")
    }
}

pub fn watch_prefix(prefix: &str) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: prefix.to_owned().into(),
        range_end: prefix_end(prefix).into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_watch_sees_history_and_news_in_order() {
    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut kv = member.kv().await;
    for n in 0..3 {
        kv.put(put("w/a", n.to_string())).await.expect("put");
    }
    let mut stream = WatchStream::open(member).await;
    let create = pb::WatchCreateRequest { start_revision: 3, prev_kv: true, ..watch_prefix("w/") };
    stream.create(create).await;
    let created = stream.next().await;
    assert!(created.created && !created.canceled && created.events.is_empty());

    let mut values = Vec::new();
    while values.len() < 2 {
        let response = stream.next().await;
        for event in response.events {
            let previous = event.prev_kv.expect("asked for").value;
            values.push((previous.to_vec(), event.kv.expect("always").value.to_vec()));
        }
    }
    let expected = [("0", "1"), ("1", "2")].map(|(a, b)| (a.into(), b.into()));
    assert_eq!(values, expected, "from revision 3 on, with what was before");

    kv.put(put("w/b", "new")).await.expect("put");
    kv.put(put("x", "not watched")).await.expect("put");
    let delete = pb::DeleteRangeRequest { key: "w/b".into(), ..Default::default() };
    kv.delete_range(delete).await.expect("delete");
    let news = stream.next().await;
    assert_eq!(&news.events[0].kv.as_ref().expect("always").key[..], b"w/b");
    assert_eq!(news.header.expect("header").revision, 5);
    let deleted = stream.next().await;
    assert_eq!(deleted.events[0].r#type, 1);
    let kv_of_delete = deleted.events[0].kv.as_ref().expect("always");
    assert_eq!((kv_of_delete.mod_revision, kv_of_delete.value.len()), (7, 0));
}

#[tokio::test]
async fn a_half_close_does_not_end_a_watch() {
    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut stream = WatchStream::open(member).await;
    stream.create(watch_prefix("w/")).await;
    assert!(stream.next().await.created);
    let (closed, _) = mpsc::channel(1);
    stream.requests = closed;
    member.kv().await.put(put("w/a", "1")).await.expect("put");
    assert_eq!(stream.next().await.events.len(), 1);
}

#[tokio::test]
async fn a_stopping_member_ends_its_streams_with_a_reason() {
    let mut cluster = Cluster::start(1, &[]);
    let mut stream = WatchStream::open(&cluster.members[0]).await;
    stream.create(watch_prefix("w/")).await;
    assert!(stream.next().await.created);
    assert!(cluster.members[0].terminate().success());
    let end = tokio::time::timeout(PATIENCE, stream.responses.next()).await.expect("in time");
    let error = end.expect("an end with a reason").expect_err("an error");
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert_eq!(error.message(), "etcdserver: server stopped");
}

#[tokio::test]
async fn many_events_reach_a_watcher_that_reads_late() {
    let cluster = Cluster::start(1, &[]);
    let member = &cluster.members[0];
    let mut stream = WatchStream::open(member).await;
    stream.create(watch_prefix("w/")).await;
    assert!(stream.next().await.created);
    // Several times the credit of a stream.
    let mut kv = member.kv().await;
    for n in 0..200 {
        kv.put(put(format!("w/{n:03}"), "x".repeat(30_000))).await.expect("put");
    }
    let mut keys = Vec::new();
    while keys.len() < 200 {
        let response = stream.next().await;
        keys.extend(response.events.into_iter().map(|e| e.kv.expect("always").key.to_vec()));
    }
    let expected: Vec<Vec<u8>> = (0..200).map(|n| format!("w/{n:03}").into_bytes()).collect();
    assert_eq!(keys, expected);
}

/// Longer than a loaded machine stands still.
const TTL_SECS: i64 = 5;

#[tokio::test]
async fn a_lease_lives_while_it_is_kept_alive_and_takes_its_keys_with_it() {
    let cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    // On a follower, so that keep-alives are forwarded.
    let member = &cluster.members[(leader + 1) % 3];
    let mut leases = LeaseClient::new(member.channel().await);
    let grant = pb::LeaseGrantRequest { ttl: TTL_SECS, id: 0 };
    let granted = leases.lease_grant(grant).await.expect("grant").into_inner();
    assert!(granted.id > 0 && granted.ttl == TTL_SECS);
    let mut kv = member.kv().await;
    kv.put(pb::PutRequest { lease: granted.id, ..put("l", "1") }).await.expect("put");

    let (requests, receiver) = mpsc::channel(4);
    let answers = leases.lease_keep_alive(ReceiverStream::new(receiver)).await.expect("stream");
    let mut answers = answers.into_inner();
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2 * TTL_SECS as u64) {
        requests.send(pb::LeaseKeepAliveRequest { id: granted.id }).await.expect("open");
        let answer = answers.next().await.expect("an answer").expect("no error");
        assert_eq!((answer.id, answer.ttl), (granted.id, TTL_SECS));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let count = kv.range(get("l")).await.expect("get").into_inner().count;
    assert_eq!(count, 1, "kept alive for twice its time");

    let ask = pb::LeaseTimeToLiveRequest { id: granted.id, keys: true };
    let left = leases.lease_time_to_live(ask).await.expect("time to live").into_inner();
    assert_eq!((left.granted_ttl, left.keys.len()), (TTL_SECS, 1));
    eventually("the lease expires and its key is gone", async || {
        kv.range(get("l")).await.expect("get").into_inner().count == 0
    })
    .await;
    requests.send(pb::LeaseKeepAliveRequest { id: granted.id }).await.expect("open");
    let answer = answers.next().await.expect("an answer").expect("no error");
    assert_eq!(answer.ttl, 0, "an expired lease is not revived");
}

#[tokio::test]
async fn a_stream_that_wants_a_leader_ends_when_there_is_none() {
    let mut cluster = Cluster::start(3, &[]);
    let leader = cluster.leader().await;
    let alone = (leader + 1) % 3;
    let mut client = WatchClient::new(cluster.members[alone].channel().await);
    let (_requests, receiver) = mpsc::channel::<pb::WatchRequest>(1);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("hasleader", "true".parse().expect("ASCII"));
    let mut responses = client.watch(request).await.expect("there is a leader").into_inner();
    for n in 0..3 {
        if n != alone {
            cluster.members[n].kill();
        }
    }
    let end = tokio::time::timeout(PATIENCE, responses.next()).await.expect("in time");
    let error = end.expect("an end with a reason").expect_err("an error");
    assert_eq!(error.code(), tonic::Code::Unavailable);
    assert_eq!(error.message(), "etcdserver: no leader");

    let mut request = tonic::Request::new(get("a"));
    request.metadata_mut().insert("hasleader", "true".parse().expect("ASCII"));
    let error = cluster.members[alone].kv().await.range(request).await.expect_err("no leader");
    assert_eq!(error.message(), "etcdserver: no leader");
    // Without the wish a serializable read works.
    let serializable = pb::RangeRequest { serializable: true, ..get("a") };
    cluster.members[alone].kv().await.range(serializable).await.expect("a local read");
}
