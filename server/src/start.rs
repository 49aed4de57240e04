//! From a valid configuration to a running member, and to its end.
//!
//! Ports are taken before the data directory is touched, the directory is locked before it is read, and
//! nothing is served before it has been read to its end.

use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use detkv_core::api::{Request, Response};
use detkv_core::pb::etcdserverpb::{RangeRequest, StatusRequest};
use detkv_core::wal::WAL_DIR;
use detkv_core::{Halt, Input, Member, OpenError, Recovery, RecoveryStep, SharedFiles};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::client::{Client, monitor_leader};
use crate::clock::Clock;
use crate::config::ServerConfig;
use crate::disk::{Lanes, Performer};
use crate::driver::Driver;
use crate::files::DataDir;
use crate::grpc::Router;
use crate::http::Endpoints;
use crate::inbox::{Event, Inbox};
use crate::join;
use crate::logs;
use crate::metrics::DriverMetrics;
use crate::peer::{Peers, Shared, accept_peers};
use crate::serve::{Connections, Site, serve_clients};
use crate::slow::SlowApplies;
use crate::workers::Workers;

/// How long connections may take to finish what they have after the member has stopped.
const CONNECTIONS_STOP_MAX: Duration = Duration::from_millis(500);
/// Pause between looks whether the member serves yet.
const READY_RETRY: Duration = Duration::from_millis(20);

/// Runs the member to its end. 0: stopped or removed; 1: it could not start or had to halt.
pub fn run(config: ServerConfig) -> ExitCode {
    match start(config) {
        Ok(Halt::Stopped) => {
            logs::info("closed etcd server", &[]);
            ExitCode::SUCCESS
        }
        Ok(halt @ Halt::Removed) => {
            logs::error(&halt.to_string(), &[]);
            ExitCode::SUCCESS
        }
        Ok(halt) => {
            logs::fatal("the member had to halt", &[("error", halt.to_string())]);
            ExitCode::FAILURE
        }
        Err(error) => {
            logs::fatal("failed to start", &[("error", error)]);
            ExitCode::FAILURE
        }
    }
}

fn start(mut config: ServerConfig) -> Result<Halt, String> {
    let client_listeners = listen(&config.listen_clients)?;
    let peer_listeners = listen(&config.listen_peers)?;
    let data_dir = Arc::new(DataDir::open(&config.data_dir)?);
    let root = data_dir.root().to_owned();
    let clock = Clock::start();
    let member = recover(&mut config, data_dir, clock)?;

    let core = &config.core;
    let quota = core.quota_bytes.unwrap_or(0);
    let metrics = DriverMetrics::new(&core.id.to_string(), &core.version, quota, clock);
    metrics.show_features(&[
        ("CompactHashCheck", core.compact_hash_check_interval.is_some()),
        ("InitialCorruptCheck", core.initial_corrupt_check),
    ]);
    let slow = SlowApplies {
        limit: config.warning_apply_duration,
        count: metrics.slow_applies.clone(),
        range_seconds: metrics.range_seconds.clone(),
    };
    let inbox = Arc::new(Inbox::new());
    let no_threads = |e| format!("cannot start threads: {e}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(no_threads)?;
    let workers = Arc::new(Workers::start().map_err(no_threads)?);
    let shared = Shared::new(core, inbox.clone(), metrics.clone());
    let lanes = Lanes::start(root, &inbox, &metrics).map_err(no_threads)?;
    let (lost, leader_lost) = watch::channel(false);
    let core_metrics = member.metrics();
    runtime.spawn(monitor_leader(core_metrics.clone(), core.election, lost));
    let client =
        Client::new(inbox.clone(), member.reader(), core_metrics, leader_lost, slow.clone());
    let client = Arc::new(client);
    let site = Arc::new(Site {
        grpc: Router::new(client.clone(), core.request_bytes_max, &metrics),
        http: Endpoints::new(client.clone(), metrics.clone(), core.version.clone()),
    });

    let peers = Peers::new(shared.clone(), runtime.handle().clone());
    let driver =
        Driver::new(member, clock, inbox.clone(), lanes, peers, slow, metrics.watch_events);
    runtime
        .block_on(async {
            // Signals are caught before anything runs that a stop would have to end.
            let signals = Signals::catch().map_err(|e| format!("cannot catch signals: {e}"))?;
            for listener in from_std(peer_listeners)? {
                tokio::spawn(accept_peers(listener, shared.clone(), client.clone()));
            }
            let halted = run_driver(driver)?;
            let (stop, connections) = watch::channel(false);
            let (alive, all_closed) = mpsc::channel(1);
            let connections = Connections { stop: connections, alive };
            for listener in from_std(client_listeners)? {
                tokio::spawn(serve_clients(
                    listener,
                    site.clone(),
                    connections.clone(),
                    workers.clone(),
                ));
            }
            drop(connections);
            tokio::spawn(announce_ready(client, config.listen_clients.clone()));
            let halt = signals.wait(&inbox, halted).await;
            close_connections(stop, all_closed).await;
            halt
        })
        .inspect(|_| shut_down(runtime))
}

/// Binds all addresses. Errors: one line, as Go words it.
fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, String> {
    let bind = |address: &SocketAddr| {
        let listener = TcpListener::bind(address).map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("listen tcp {address}: bind: address already in use")
            }
            _ => format!("listen tcp {address}: bind: {e}"),
        })?;
        listener.set_nonblocking(true).map_err(|e| format!("listen tcp {address}: {e}"))?;
        Ok(listener)
    };
    addresses.iter().map(bind).collect()
}

fn from_std(listeners: Vec<TcpListener>) -> Result<Vec<tokio::net::TcpListener>, String> {
    let register = |listener| tokio::net::TcpListener::from_std(listener);
    listeners.into_iter().map(register).collect::<Result<_, _>>().map_err(|e| e.to_string())
}

/// Reads the data directory, or makes a new one. Errors: the one line an operator sees.
fn recover(
    config: &mut ServerConfig,
    data_dir: Arc<DataDir>,
    clock: Clock,
) -> Result<Member, String> {
    let fresh = detkv_core::Files::list(&*data_dir, WAL_DIR).map_err(|e| e.to_string())?.is_empty();
    if fresh && config.core.join {
        join::join(&mut config.core)?;
    } else if fresh {
        join::check_not_bootstrapped(&config.core)?;
    }
    match try_recover(config, data_dir.clone(), clock) {
        // The flags say nothing about the cluster: the directory knows whose it is.
        // Nor do they after a join: the id was given by MemberAdd.
        Err(OpenError::OtherCluster { found, found_member, .. })
            if !config.identity_given || config.core.join =>
        {
            config.core.cluster_id = found;
            config.core.id = detkv_core::MemberId(found_member);
            config.core.join = true;
            try_recover(config, data_dir, clock)
        }
        other => other,
    }
    .map_err(|e| e.to_string())
}

fn try_recover(
    config: &ServerConfig,
    data_dir: Arc<DataDir>,
    clock: Clock,
) -> Result<Member, OpenError> {
    let io = |path: &str, error: String| OpenError::Io { path: path.to_owned(), error };
    let seed = random_seed().map_err(|e| io("/dev/urandom", e.to_string()))?;
    let mut performer = Performer::new(data_dir.root().to_owned(), None);
    let files: SharedFiles = data_dir;
    let mut recovery = Recovery::new(config.core.clone(), files, seed)?;
    loop {
        match recovery.step(clock.now())? {
            RecoveryStep::Read { .. } => {}
            RecoveryStep::Perform(ops) => {
                for op in ops {
                    let shown = config.data_dir.display().to_string();
                    performer.perform(&op.action).map_err(|e| io(&shown, e))?;
                }
            }
            RecoveryStep::Ready(member) => return Ok(*member),
        }
    }
}

fn random_seed() -> std::io::Result<u64> {
    use std::io::Read as _;
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Starts the member's thread; the receiver brings how it ended.
fn run_driver(driver: Driver) -> Result<oneshot::Receiver<Halt>, String> {
    let (sender, halted) = oneshot::channel();
    std::thread::Builder::new()
        .name("member".to_owned())
        .spawn(move || sender.send(driver.run()))
        .map_err(|e| format!("cannot start threads: {e}"))?;
    Ok(halted)
}

/// Writes the line that etcd's own test framework waits for, once a linearizable read has worked.
async fn announce_ready(client: Arc<Client>, addresses: Vec<SocketAddr>) {
    let range = RangeRequest { key: "health".into(), count_only: true, ..RangeRequest::default() };
    while client.call_and_read(Request::Range(range.clone())).await.is_err() {
        if client.is_learner() && learns(&client).await {
            break;
        }
        tokio::time::sleep(READY_RETRY).await;
    }
    logs::info("ready to serve client requests", &[]);
    for address in addresses {
        let message = "serving client traffic insecurely; this is strongly discouraged!";
        logs::info(message, &[("address", address.to_string())]);
    }
}

/// A learner serves no linearizable read: it is ready once it has something to show.
async fn learns(client: &Client) -> bool {
    let status = client.call(Request::Status(StatusRequest::default())).await;
    matches!(status, Ok(Response::Status(s)) if s.is_learner && s.raft_applied_index > 0)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "terminated",
            _ = self.interrupt.recv() => "interrupt",
        }
    }

    /// Waits for the member's end. The first signal asks for it, the second does not wait for it.
    async fn wait(
        mut self,
        inbox: &Inbox,
        mut halted: oneshot::Receiver<Halt>,
    ) -> Result<Halt, String> {
        let gone = |_| "the member's thread ended without a word".to_owned();
        tokio::select! {
            halt = &mut halted => return halt.map_err(gone),
            name = self.next() => {
                logs::info("received signal; shutting down", &[("signal", name.to_owned())]);
            }
        }
        // A closed inbox: the member has just ended by itself, which `halted` will say.
        let _ = inbox.push(Event::Input(Input::Stop));
        tokio::select! {
            halt = halted => halt.map_err(gone),
            name = self.next() => Err(format!("received a second signal: {name}")),
        }
    }
}

/// Lets the answers that the end has caused reach their clients.
async fn close_connections(
    stop: watch::Sender<bool>,
    mut all_closed: mpsc::Receiver<std::convert::Infallible>,
) {
    let _ = stop.send(true);
    let _ = tokio::time::timeout(CONNECTIONS_STOP_MAX, all_closed.recv()).await;
}

fn shut_down(runtime: Runtime) {
    // Reads on blocking threads may still run; nobody waits for them.
    runtime.shutdown_background();
}
