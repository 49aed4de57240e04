//! The calls of the `etcd-client` crate for KV, txn, watch and lease against three members.
//!
//! Prints what it did; any answer that etcd would not give is a panic and a non-zero exit.

mod members;

use std::time::{Duration, Instant};

use etcd_client::{
    Client, CompactionOptions, Compare, CompareOp, DeleteOptions, Error, EventType, GetOptions,
    PutOptions, SortOrder, SortTarget, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use members::Members;

type Done = Result<(), Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Done {
    let members = Members::start(3);
    let mut client = connect(&members).await;
    kv(&mut client).await?;
    txn(&mut client).await?;
    watch(&mut client).await?;
    lease(&mut client).await?;
    maintenance(&mut client).await?;
    println!("all calls answered as etcd answers them");
    Ok(())
}

/// Waits until the members have a leader.
async fn connect(members: &Members) -> Client {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(mut client) = Client::connect(&members.endpoints, None).await
            && client.get("ready", None).await.is_ok()
        {
            return client;
        }
        assert!(Instant::now() < deadline, "the members do not serve");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn kv(client: &mut Client) -> Done {
    let first = client.put("kv/a", "1", None).await?;
    let revision = first.header().expect("header").revision();
    let again = client.put("kv/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(again.prev_key().expect("asked for").value(), b"1");
    client.put("kv/b", "3", None).await?;

    let got = client.get("kv/a", None).await?;
    assert_eq!((got.count(), got.kvs()[0].value(), got.kvs()[0].version()), (1, &b"2"[..], 2));
    let old = client.get("kv/a", Some(GetOptions::new().with_revision(revision))).await?;
    assert_eq!(old.kvs()[0].value(), b"1");
    let options = GetOptions::new().with_prefix().with_sort(SortTarget::Key, SortOrder::Descend);
    let all = client.get("kv/", Some(options.with_limit(1))).await?;
    assert_eq!((all.count(), all.more(), all.kvs()[0].key()), (2, true, &b"kv/b"[..]));
    let local =
        client.get("kv/", Some(GetOptions::new().with_prefix().with_serializable())).await?;
    assert!(local.count() <= 2);
    println!("kv: put, prev_kv, get, get at revision {revision}, prefix, sort, limit");

    let options = DeleteOptions::new().with_prefix().with_prev_key();
    let deleted = client.delete("kv/", Some(options)).await?;
    assert_eq!((deleted.deleted(), deleted.prev_kvs().len()), (2, 2));
    let compacted = deleted.header().expect("header").revision() - 1;
    client.compact(compacted, Some(CompactionOptions::new().with_physical())).await?;
    let error = client.get("kv/a", Some(GetOptions::new().with_revision(revision))).await;
    let text = error.expect_err("compacted").to_string();
    assert!(text.contains("etcdserver: mvcc: required revision has been compacted"), "{text}");
    println!("kv: delete by prefix, compact to {compacted}, a compacted read is refused");
    Ok(())
}

async fn txn(client: &mut Client) -> Done {
    client.put("txn/a", "1", None).await?;
    let transaction = |expected: &str| {
        Txn::new()
            .when([Compare::value("txn/a", CompareOp::Equal, expected)])
            .and_then([
                TxnOp::put("txn/a", "2", None),
                TxnOp::get("txn/a", None),
                TxnOp::txn(Txn::new().and_then([TxnOp::put("txn/nested", "x", None)])),
            ])
            .or_else([TxnOp::get("txn/a", None)])
    };
    let taken = client.txn(transaction("1")).await?;
    assert!(taken.succeeded());
    let responses = taken.op_responses();
    assert_eq!(responses.len(), 3);
    let TxnOpResponse::Get(seen) = &responses[1] else { panic!("{:?}", responses[1]) };
    assert_eq!(seen.kvs()[0].value(), b"2", "an operation sees those before it");
    assert_eq!(client.get("txn/nested", None).await?.count(), 1);
    let refused = client.txn(transaction("1")).await?;
    assert!(!refused.succeeded());
    let create = [Compare::create_revision("txn/new", CompareOp::Equal, 0)];
    let create = Txn::new().when(create).and_then([TxnOp::put("txn/new", "x", None)]);
    assert!(client.txn(create.clone()).await?.succeeded());
    assert!(!client.txn(create).await?.succeeded());
    println!("txn: compare value and create revision, both branches, nested");
    Ok(())
}

async fn watch(client: &mut Client) -> Done {
    let from = client.put("watch/a", "1", None).await?.header().expect("header").revision();
    client.put("watch/a", "2", None).await?;
    let options = WatchOptions::new().with_prefix().with_start_revision(from).with_prev_key();
    let mut stream = client.watch("watch/", Some(options)).await?;
    client.put("watch/b", "3", None).await?;
    client.delete("watch/a", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let response = stream.message().await?.expect("an open stream");
        for event in response.events() {
            let kv = event.kv().expect("always");
            let before = event.prev_kv().map(|kv| kv.value_str().expect("text").to_owned());
            let kind = if event.event_type() == EventType::Put { "put" } else { "delete" };
            let key = kv.key_str().expect("text").to_owned();
            seen.push((kind, key, kv.value_str().expect("text").to_owned(), before));
        }
    }
    let expected = [
        ("put", "watch/a", "1", None),
        ("put", "watch/a", "2", Some("1")),
        ("put", "watch/b", "3", None),
        ("delete", "watch/a", "", Some("2")),
    ];
    let expected: Vec<_> = expected
        .map(|(kind, key, value, before)| {
            (kind, key.to_owned(), value.to_owned(), before.map(str::to_owned))
        })
        .into();
    assert_eq!(seen, expected);
    stream.request_progress().await?;
    let progress = stream.message().await?.expect("an open stream");
    assert!(progress.events().is_empty() && progress.header().expect("header").revision() > from);
    stream.cancel(0).await?;
    let cancelled = stream.message().await?.expect("an open stream");
    assert!(cancelled.canceled());
    println!("watch: history from revision {from} and news with prev_kv, progress, cancel");
    Ok(())
}

/// Longer than a loaded machine stands still.
const TTL_SECS: i64 = 5;

async fn lease(client: &mut Client) -> Done {
    let id = client.lease_grant(TTL_SECS, None).await?.id();
    client.put("lease/a", "1", Some(PutOptions::new().with_lease(id))).await?;
    let (mut keeper, mut answers) = client.lease_keep_alive(id).await?;
    // For longer than its time.
    for _ in 0..10 {
        keeper.keep_alive().await?;
        let answer = answers.message().await?.expect("an open stream");
        assert_eq!((answer.id(), answer.ttl()), (id, TTL_SECS));
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    assert_eq!(client.get("lease/a", None).await?.count(), 1);
    let left = client
        .lease_time_to_live(id, Some(etcd_client::LeaseTimeToLiveOptions::new().with_keys()))
        .await?;
    assert_eq!((left.granted_ttl(), left.keys().len()), (TTL_SECS, 1));
    assert!(client.leases().await?.leases().iter().any(|lease| lease.id() == id));
    let started = Instant::now();
    while client.get("lease/a", None).await?.count() == 1 {
        assert!(started.elapsed() < Duration::from_secs(60), "the lease does not expire");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!(
        "lease: grant, put, keep-alive, time-to-live, list; expired {:?} after the last",
        started.elapsed()
    );
    let id = client.lease_grant(60, None).await?.id();
    client.put("lease/b", "1", Some(PutOptions::new().with_lease(id))).await?;
    client.lease_revoke(id).await?;
    assert_eq!(client.get("lease/b", None).await?.count(), 0);
    let text = client.lease_revoke(id).await.expect_err("gone").to_string();
    assert!(text.contains("etcdserver: requested lease not found"), "{text}");
    println!("lease: revoke takes the key along");
    Ok(())
}

async fn maintenance(client: &mut Client) -> Done {
    let status = client.status().await?;
    assert_ne!(status.leader(), 0);
    let members = client.member_list().await?;
    assert_eq!(members.members().len(), 3);
    println!("status: version {}, {} bytes; member list: 3", status.version(), status.db_size());
    Ok(())
}
