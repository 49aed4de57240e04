//! Members as child processes: ephemeral ports, temporary directories, captured logs.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use detkv_core::pb::etcdserverpb as pb;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Generated clients.
#[allow(clippy::all, dead_code, reason = "generated code, more than the tests call")]
pub mod api {
    include!(concat!(env!("OUT_DIR"), "/client/etcdserverpb.rs"));
}

pub use api::cluster_client::ClusterClient;
pub use api::kv_client::KvClient;
pub use api::lease_client::LeaseClient;
pub use api::maintenance_client::MaintenanceClient;
pub use api::watch_client::WatchClient;

use crate::ports::free_ports;

/// Longest wait for anything a member does; far above what it takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub const BINARY: &str = env!("CARGO_BIN_EXE_detkv");

/// A command without the `ETCD_*` variables of whoever runs the tests.
pub fn detkv(args: &[String]) -> Command {
    let mut command = Command::new(BINARY);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("ETCD_")) {
        command.env_remove(name);
    }
    command.args(args);
    die_with_us(&mut command);
    command
}

/// The kernel kills the child when the test's thread ends, however it ends.
fn die_with_us(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
}

/// One member; its process is killed when this is dropped.
pub struct Member {
    pub name: String,
    pub client_port: u16,
    pub peer_port: u16,
    pub data_dir: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
    starts: usize,
}

impl Member {
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.client_port)
    }

    pub fn args(&self) -> Vec<String> {
        self.args.clone()
    }

    /// For the next start.
    pub fn set_args(&mut self, args: Vec<String>) {
        self.args = args;
    }

    /// Starts the process and does not wait.
    pub fn start(&mut self) {
        let command = detkv(&self.args);
        self.start_as(command);
    }

    /// Starts it with variables whose values are paths.
    pub fn start_with(&mut self, variables: &[(&str, &Path)]) {
        let mut command = detkv(&self.args);
        command.envs(variables.iter().copied());
        self.start_as(command);
    }

    /// Starts it so that no file of its can grow past `bytes`: a disk that fails.
    pub fn start_with_file_limit(&mut self, bytes: u64) {
        // In blocks of 512 bytes; the signal that comes with the error is ignored, as on a full disk.
        let script = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", bytes / 512);
        let mut command = Command::new("sh");
        command.args(["-c", &script, BINARY]).args(&self.args);
        die_with_us(&mut command);
        self.start_as(command);
    }

    fn start_as(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(&self.log).expect("log file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.child = Some(child.expect("the binary starts"));
        self.starts += 1;
    }

    /// Waits for `ready to serve client requests` of the latest start.
    pub fn wait_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.log().matches("\"ready to serve client requests\"").count() < self.starts {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().expect("our child")
            {
                panic!("{} ended with {status}:\n{}", self.name, self.log());
            }
            assert!(Instant::now() < deadline, "{} is not ready:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("running");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// SIGTERM, and how the process ended.
    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("running");
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        wait_exit(&mut child)
    }

    /// Waits for the process to end by itself.
    pub fn wait_end(&mut self) -> ExitStatus {
        wait_exit(&mut self.child.take().expect("running"))
    }

    pub async fn channel(&self) -> Channel {
        channel(&self.url()).await
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    pub async fn status(&self) -> pb::StatusResponse {
        let mut client = MaintenanceClient::new(self.channel().await);
        client.status(pb::StatusRequest {}).await.expect("status is local").into_inner()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            eprintln!("--- end of the log of {}\n{tail}", self.name);
        }
    }
}

pub fn wait_exit(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("our child") {
            return status;
        }
        assert!(Instant::now() < deadline, "the process does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Connects, waiting for the port to be there.
pub async fn channel(url: &str) -> Channel {
    let endpoint = Endpoint::from_shared(url.to_owned()).expect("a valid URL");
    let endpoint = endpoint.timeout(PATIENCE).tcp_nodelay(true);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(e) if Instant::now() > deadline => panic!("{url}: {e}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Members of one cluster, with their directories.
pub struct Cluster {
    pub members: Vec<Member>,
    pub dir: TempDir,
}

impl Cluster {
    /// Lays out `count` members with further flags, not started.
    pub fn new(count: usize, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let ports = free_ports(2 * count);
        let peer_url = |n: usize| format!("http://127.0.0.1:{}", ports[count + n]);
        let initial_cluster =
            (0..count).map(|n| format!("m{n}={}", peer_url(n))).collect::<Vec<_>>().join(",");
        let member = |n: usize| {
            let name = format!("m{n}");
            let client_url = format!("http://127.0.0.1:{}", ports[n]);
            let data_dir = dir.path().join(&name);
            let mut args: Vec<String> = [
                ("--name", name.clone()),
                ("--data-dir", data_dir.display().to_string()),
                ("--listen-client-urls", client_url.clone()),
                ("--advertise-client-urls", client_url),
                ("--listen-peer-urls", peer_url(n)),
                ("--initial-advertise-peer-urls", peer_url(n)),
                ("--initial-cluster", initial_cluster.clone()),
            ]
            .into_iter()
            .flat_map(|(flag, value)| [flag.to_owned(), value])
            .collect();
            args.extend(flags.iter().map(|flag| (*flag).to_owned()));
            let log = dir.path().join(format!("{name}.log"));
            let (client_port, peer_port) = (ports[n], ports[count + n]);
            Member { name, client_port, peer_port, data_dir, args, log, child: None, starts: 0 }
        };
        Self { members: (0..count).map(member).collect(), dir }
    }

    /// Lays out a further member that joins those in `members`, not started.
    pub fn lay_out_joiner(&mut self, name: &str, client_port: u16, peer_port: u16) -> &mut Member {
        let data_dir = self.dir.path().join(name);
        let client_url = format!("http://127.0.0.1:{client_port}");
        let peer_url = format!("http://127.0.0.1:{peer_port}");
        let args = [
            ("--name", name.to_owned()),
            ("--data-dir", data_dir.display().to_string()),
            ("--listen-client-urls", client_url.clone()),
            ("--advertise-client-urls", client_url),
            ("--listen-peer-urls", peer_url.clone()),
            ("--initial-advertise-peer-urls", peer_url),
            ("--initial-cluster-state", "existing".to_owned()),
            ("--initial-cluster", String::new()),
        ];
        let args = args.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect();
        let log = self.dir.path().join(format!("{name}.log"));
        let name = name.to_owned();
        let member =
            Member { name, client_port, peer_port, data_dir, args, log, child: None, starts: 0 };
        self.members.push(member);
        let list: Vec<String> = self
            .members
            .iter()
            .map(|m| format!("{}=http://127.0.0.1:{}", m.name, m.peer_port))
            .collect();
        let joiner = self.members.last_mut().expect("pushed above");
        *joiner.args.last_mut().expect("the flag's value") = list.join(",");
        joiner
    }

    /// Lays out, starts all, waits until all are ready.
    pub fn start(count: usize, flags: &[&str]) -> Self {
        let mut cluster = Self::new(count, flags);
        cluster.members.iter_mut().for_each(Member::start);
        cluster.members.iter_mut().for_each(Member::wait_ready);
        cluster
    }

    pub fn endpoints(&self) -> String {
        self.members.iter().map(Member::url).collect::<Vec<_>>().join(",")
    }

    /// Position of the member that leads, by its own word.
    pub async fn leader(&self) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (n, member) in self.members.iter().enumerate().filter(|(_, m)| m.child.is_some()) {
                let status = member.status().await;
                let id = status.header.expect("a status has a header").member_id;
                if status.leader == id {
                    return n;
                }
            }
            assert!(Instant::now() < deadline, "no leader");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

pub fn put(key: impl Into<String>, value: impl Into<String>) -> pb::PutRequest {
    let (key, value) = (key.into().into(), value.into().into());
    pb::PutRequest { key, value, ..Default::default() }
}

pub fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

/// All keys that start with `prefix`, which must not end in 0xff.
pub fn get_prefix(prefix: &str) -> pb::RangeRequest {
    pb::RangeRequest { range_end: prefix_end(prefix).into(), ..get(prefix) }
}

pub fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("not empty") += 1;
    end
}

/// The newest segment of a WAL.
pub fn last_segment(data_dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(data_dir.join("member/wal")).expect("a WAL");
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.filter(|path| path.extension().is_some_and(|e| e == "wal")).max().expect("a segment")
}

pub fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("readable")
}

/// Waits until `done` says so.
pub async fn eventually(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "it never came to this: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Runs a command to its end; what it wrote to stderr.
pub fn run_to_end(mut command: Command, dir: &Path) -> (ExitStatus, String) {
    let path = dir.join("stderr");
    let stderr = File::create(&path).expect("log file");
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("starts");
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().expect("our child") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("still running: {}", std::fs::read_to_string(&path).unwrap_or_default());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    (status, std::fs::read_to_string(path).expect("readable"))
}
