//! Writers that go on whatever happens to the members, and what must be there afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::support::{Cluster, KvClient, Member, eventually, get_prefix, put};

const WRITERS: usize = 4;

/// Puts one new key after another, through whoever answers, until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
    writers: Vec<JoinHandle<Vec<(String, String)>>>,
}

impl Load {
    pub fn start(cluster: &Cluster) -> Self {
        let urls: Vec<String> = cluster.members.iter().map(Member::url).collect();
        let (stop, count) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let write = |writer| write(writer, urls.clone(), stop.clone(), count.clone());
        let writers = (0..WRITERS).map(|writer| tokio::spawn(write(writer))).collect();
        Self { stop, count, writers }
    }

    /// Waits until `puts` more have been acknowledged.
    pub async fn goes_on(&self, puts: usize) {
        let until = self.count.load(Relaxed) + puts;
        eventually("puts go on", async || self.count.load(Relaxed) >= until).await;
    }

    /// Ends it; everything that was acknowledged is on every one of `members`.
    pub async fn check(self, members: &[&Member]) {
        self.goes_on(100).await;
        self.stop.store(true, Relaxed);
        let mut acknowledged = BTreeMap::new();
        for writer in self.writers {
            acknowledged.extend(writer.await.expect("no panic"));
        }
        for member in members {
            let rows = member.kv().await.range(get_prefix("w")).await.expect("get").into_inner();
            let found: BTreeMap<Vec<u8>, Vec<u8>> =
                rows.kvs.into_iter().map(|kv| (kv.key.to_vec(), kv.value.to_vec())).collect();
            for (key, value) in &acknowledged {
                let value = Some(value.as_bytes());
                let name = &member.name;
                assert_eq!(found.get(key.as_bytes()).map(Vec::as_slice), value, "{key} on {name}");
            }
        }
    }
}

/// The keys and values that were acknowledged.
async fn write(
    writer: usize,
    urls: Vec<String>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> Vec<(String, String)> {
    let connect = |url: &String| {
        let endpoint = Endpoint::from_shared(url.clone()).expect("a valid URL");
        KvClient::new(endpoint.timeout(Duration::from_secs(2)).connect_lazy())
    };
    let mut clients: Vec<KvClient<Channel>> = urls.iter().map(connect).collect();
    let mut acknowledged = Vec::new();
    for n in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let (key, value) = (format!("w{writer}/{n:06}"), format!("value {n} of {writer}"));
        let turn = (writer + n) % clients.len();
        match clients[turn].put(put(key.clone(), value.clone())).await {
            Ok(_) => {
                count.fetch_add(1, Relaxed);
                acknowledged.push((key, value));
            }
            // Unknown whether it took effect: never asserted on.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    acknowledged
}
