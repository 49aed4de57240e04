//! The load generator: closed-loop clients on a few single-threaded runtimes.
//!
//! Each thread owns its runtime, its connections and one histogram; nothing is shared while a row runs. Every
//! client waits for its answer before it sends the next operation. An operation counts if it began and ended
//! within the measured window.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::client::{Connection, RangeRows};
use crate::pb::etcdserverpb::kv_client::KvClient;
use crate::pb::etcdserverpb::watch_request::RequestUnion;
use crate::pb::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::rows::{
    Operation, PRELOADED_KEYS, PRELOADED_RANGE, Row, VALUE_BYTES, preloaded_key, put_key,
};

/// An operation without an answer this long after the window is given up and counts as an error.
const GRACE: Duration = Duration::from_secs(10);

/// Wait after a failed operation, so that a store that refuses everything is not hammered.
const AFTER_ERROR: Duration = Duration::from_millis(5);

/// Numbers the keys of all puts of the process, so that every put is of a new key.
static NEXT_PUT: AtomicU64 = AtomicU64::new(0);

/// Keys that a client takes from [`NEXT_PUT`] at a time.
const PUT_KEYS_BLOCK: u64 = 1024;

/// When a row is measured: set once all clients are connected.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Instant,
    pub until: Instant,
}

impl Window {
    /// Begins now: warm-up, then the measured time.
    pub fn begin(warm_up: Duration, measured: Duration) -> Self {
        let start = Instant::now();
        Self { from: start + warm_up, until: start + warm_up + measured }
    }
}

/// What one thread, or all of them together, measured.
#[derive(Debug)]
pub struct Measured {
    /// Microseconds.
    pub latency: Histogram<u64>,
    pub errors: u64,
    pub error_example: Option<String>,
}

impl Measured {
    pub fn new() -> Self {
        Self { latency: crate::stats::latency_histogram(), errors: 0, error_example: None }
    }

    fn failed(&mut self, error: &anyhow::Error) {
        self.errors += 1;
        if self.error_example.is_none() {
            self.error_example = Some(format!("{error:#}"));
        }
    }

    pub fn add(&mut self, other: &Measured) {
        self.latency.add(&other.latency).expect("all histograms have equal bounds");
        self.errors += other.errors;
        self.error_example = self.error_example.take().or_else(|| other.error_example.clone());
    }
}

thread_local! {
    /// The clients of a thread take turns, so one recorder without a lock serves them all.
    static RECORDER: RefCell<Measured> = RefCell::new(Measured::new());
}

/// One thread's share of a row.
pub struct Share {
    pub operation: Operation,
    /// Address and number of clients of each connection.
    pub connections: Vec<(String, usize)>,
}

/// Splits a row over `threads` threads. `addrs` are the members, `leader` the place of the leader among them.
pub fn shares(row: &Row, addrs: &[String], leader: usize, threads: usize) -> Vec<Share> {
    let threads = threads.clamp(1, row.connections);
    let mut shares: Vec<Share> =
        (0..threads).map(|_| Share { operation: row.operation, connections: Vec::new() }).collect();
    for i in 0..row.connections {
        let addr = &addrs[(leader + i) % addrs.len()];
        let clients =
            row.clients / row.connections + usize::from(i < row.clients % row.connections);
        shares[i % threads].connections.push((addr.clone(), clients));
    }
    shares
}

/// Runs a share on the current thread to its end.
///
/// `connected` is called once, after connecting or failing to; then `window` must get its value soon.
pub fn run_share(
    share: &Share,
    connected: impl FnOnce(),
    window: &Arc<OnceLock<Window>>,
) -> Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime for a load thread")?;
    runtime.block_on(async {
        let connections = connect(share).await;
        connected();
        let connections = connections?;
        let deadline = Instant::now() + GRACE;
        let window = loop {
            if let Some(window) = window.get() {
                break *window;
            }
            if Instant::now() > deadline {
                bail!("the row was called off while this thread connected");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        RECORDER.with(|recorder| *recorder.borrow_mut() = Measured::new());
        let mut clients = JoinSet::new();
        for (connection, count) in &connections {
            for _ in 0..*count {
                clients.spawn(client(connection.clone(), share.operation, window));
            }
        }
        let end = tokio::time::Instant::from_std(window.until + GRACE);
        let all = async { while clients.join_next().await.is_some() {} };
        if tokio::time::timeout_at(end, all).await.is_err() {
            let stuck = clients.len();
            RECORDER.with(|recorder| {
                let mut recorder = recorder.borrow_mut();
                recorder.failed(&anyhow!("{stuck} clients without an answer for {GRACE:?}"));
                recorder.errors += stuck as u64 - 1;
            });
        }
        Ok(RECORDER
            .with(|recorder| std::mem::replace(&mut *recorder.borrow_mut(), Measured::new())))
    })
}

async fn connect(share: &Share) -> Result<Vec<(Connection, usize)>> {
    let mut connections = Vec::new();
    for (addr, clients) in &share.connections {
        connections.push((Connection::open(addr).await?, *clients));
    }
    Ok(connections)
}

/// One client: operation after operation until the window ends.
async fn client(connection: Connection, operation: Operation, window: Window) {
    let mut worker = match Worker::open(&connection, operation).await {
        Ok(worker) => worker,
        Err(error) => {
            RECORDER.with(|recorder| recorder.borrow_mut().failed(&error));
            return;
        }
    };
    let mut begun = Instant::now();
    while begun < window.until {
        let result = worker.once().await;
        let ended = Instant::now();
        let counts = begun >= window.from && ended <= window.until;
        match result {
            Ok(()) if counts => RECORDER.with(|recorder| {
                let latency_us = (ended - begun).as_micros() as u64;
                recorder.borrow_mut().latency.saturating_record(latency_us);
            }),
            Ok(()) => {}
            Err(error) => {
                // An error in the warm-up is an error of the row too: nothing is hidden.
                RECORDER.with(|recorder| recorder.borrow_mut().failed(&error));
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
        begun = Instant::now();
    }
}

/// State that a client keeps between its operations.
enum Worker {
    Put { kv: KvClient<Connection>, keys: std::ops::Range<u64>, value: Bytes },
    Get { kv: KvClient<Connection>, serializable: bool, next: u64 },
    Range { connection: Connection },
    Watch { requests: mpsc::Sender<WatchRequest>, answers: Streaming<WatchResponse>, next: u64 },
}

impl Worker {
    async fn open(connection: &Connection, operation: Operation) -> Result<Self> {
        Ok(match operation {
            Operation::Put => Worker::Put {
                kv: connection.kv(),
                keys: 0..0,
                value: Bytes::from(vec![b'v'; VALUE_BYTES]),
            },
            // Each client begins elsewhere, so that they do not march in step over the keys.
            Operation::Get { serializable } => Worker::Get {
                kv: connection.kv(),
                serializable,
                next: NEXT_PUT.fetch_add(1, Ordering::Relaxed).wrapping_mul(7919),
            },
            Operation::Range => Worker::Range { connection: connection.clone() },
            Operation::WatchCreate => {
                let (requests, stream) = mpsc::channel(1);
                // The answer's headers come with the first message: it must be on its way before.
                requests.send(create_watcher(0)).await.context("our own stream is closed")?;
                let answers = connection.watch().watch(ReceiverStream::new(stream)).await?;
                let mut answers = answers.into_inner();
                created(answers.message().await?)?;
                Worker::Watch { requests, answers, next: 1 }
            }
        })
    }

    async fn once(&mut self) -> Result<()> {
        match self {
            Worker::Put { kv, keys, value } => {
                if keys.is_empty() {
                    let first = NEXT_PUT.fetch_add(PUT_KEYS_BLOCK, Ordering::Relaxed);
                    *keys = first..first + PUT_KEYS_BLOCK;
                }
                let n = keys.next().context("the block of keys was just filled")?;
                let key = put_key(n).into();
                kv.put(PutRequest { key, value: value.clone(), ..PutRequest::default() }).await?;
            }
            Worker::Get { kv, serializable, next } => {
                *next = next.wrapping_add(1);
                let key = preloaded_key(*next % PRELOADED_KEYS).into();
                let get =
                    RangeRequest { key, serializable: *serializable, ..RangeRequest::default() };
                let found = kv.range(get).await?.into_inner().kvs;
                if found.len() != 1 || found[0].value.len() != VALUE_BYTES {
                    bail!("a get of a preloaded key found {} keys", found.len());
                }
            }
            Worker::Range { connection } => range(connection).await?,
            Worker::Watch { requests, answers, next } => {
                let request = create_watcher(*next);
                *next += 1;
                requests.send(request).await.context("the watch stream is closed")?;
                created(answers.message().await?)?;
            }
        }
        Ok(())
    }
}

async fn range(connection: &Connection) -> Result<()> {
    let (from, to) = PRELOADED_RANGE;
    let request =
        RangeRequest { key: from.into(), range_end: to.into(), ..RangeRequest::default() };
    let mut grpc = connection.grpc();
    grpc.ready().await?;
    let codec: ProstCodec<RangeRequest, RangeRows> = ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Range");
    let rows = grpc.unary(Request::new(request), path, codec).await?.into_inner();
    if rows.kvs.len() as u64 != PRELOADED_KEYS || rows.count as u64 != PRELOADED_KEYS {
        bail!(
            "the range has {} rows and count {}, not {PRELOADED_KEYS}",
            rows.kvs.len(),
            rows.count
        );
    }
    Ok(())
}

fn create_watcher(n: u64) -> WatchRequest {
    let create =
        WatchCreateRequest { key: format!("watch/{n:08}").into(), ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

fn created(answer: Option<WatchResponse>) -> Result<()> {
    let answer = answer.context("the watch stream ended")?;
    if !answer.created || answer.canceled {
        bail!("a watcher was not created: {}", answer.cancel_reason);
    }
    Ok(())
}

/// Puts the keys that reads need, several at a time.
pub async fn preload(addr: &str) -> Result<()> {
    const AT_ONCE: u64 = 32;
    let connection = Connection::open(addr).await?;
    let mut puts = JoinSet::new();
    for first in 0..AT_ONCE {
        let mut kv = connection.kv();
        puts.spawn(async move {
            for n in (first..PRELOADED_KEYS).step_by(AT_ONCE as usize) {
                let (key, value) = (preloaded_key(n).into(), vec![b'v'; VALUE_BYTES].into());
                kv.put(PutRequest { key, value, ..PutRequest::default() }).await?;
            }
            Ok::<_, tonic::Status>(())
        });
    }
    while let Some(result) = puts.join_next().await {
        result.context("a preloading task ended early")?.context("preloading failed")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;

    #[test]
    fn every_client_and_connection_is_in_exactly_one_share() {
        let addrs: Vec<String> = (0..3).map(|i| format!("a{i}")).collect();
        for row in &ROWS {
            let shares = shares(row, &addrs, 1, 2);
            let all: Vec<_> = shares.iter().flat_map(|share| &share.connections).collect();
            assert_eq!(all.len(), row.connections, "{}", row.name());
            assert_eq!(all.iter().map(|(_, clients)| clients).sum::<usize>(), row.clients);
        }
    }

    #[test]
    fn a_lone_client_talks_to_the_leader_and_many_to_all_members_alike() {
        let addrs: Vec<String> = (0..3).map(|i| format!("a{i}")).collect();
        let lone = shares(&ROWS[0], &addrs, 2, 2);
        assert_eq!(lone.len(), 1);
        assert_eq!(lone[0].connections, [("a2".to_owned(), 1)]);
        let many = shares(&ROWS[1], &addrs, 2, 2);
        for addr in &addrs {
            let count =
                many.iter().flat_map(|share| &share.connections).filter(|(a, _)| a == addr).count();
            assert_eq!(count, 3);
        }
    }

    #[test]
    fn measurements_of_threads_add_up() {
        let (mut a, mut b) = (Measured::new(), Measured::new());
        a.latency.saturating_record(10);
        b.latency.saturating_record(30);
        b.failed(&anyhow!("refused"));
        a.add(&b);
        assert_eq!((a.latency.len(), a.latency.max(), a.errors), (2, 30, 1));
        assert_eq!(a.error_example.as_deref(), Some("refused"));
    }
}
