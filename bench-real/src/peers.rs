//! Three real members of a store as child processes on loopback, and what `/proc` says of them.
//!
//! The processes are ours alone: killed by their pid when [`Peers`] is dropped (also by a panic or Ctrl-C,
//! which unwind to it), and by the kernel should the bench itself be killed.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::client::Connection;
use crate::pb::etcdserverpb::{PutRequest, StatusRequest};

pub const MEMBERS: usize = 3;

/// Time for three members to elect a leader and answer: etcd needs 2 s, a slow disk more.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Time for a clean stop after SIGTERM before SIGKILL.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Lines of a member's log shown when it fails.
const LOG_TAIL_LINES: usize = 12;

/// A program that takes etcd's flags.
#[derive(Debug, Clone)]
pub struct Program {
    pub path: PathBuf,
    /// `detkv`, `etcd 3.4.23`: for tables.
    pub label: String,
    /// As the program calls itself.
    pub version: String,
}

impl Program {
    /// Asks the binary for its version; a missing one is an error that says what to do.
    pub fn find(path: &Path, hint: &str) -> Result<Self> {
        if !path.exists() {
            bail!("{} does not exist: {hint}", path.display());
        }
        let output = Command::new(path)
            .arg("--version")
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot run {} --version", path.display()))?;
        if !output.status.success() {
            bail!("{} --version ended with {}", path.display(), output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let (label, version) = identity(path, &text);
        Ok(Self { path: path.to_owned(), label, version })
    }
}

/// Label and version line from what `--version` prints.
///
/// detkv prints the etcd version it is compatible with first and its own after it.
fn identity(path: &Path, text: &str) -> (String, String) {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let number = |name: &str| {
        lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(" Version:"))
    };
    if let Some(number) = number("detkv") {
        return ("detkv".to_owned(), format!("detkv {}", number.trim()));
    }
    if let Some(number) = number("etcd") {
        let label = format!("etcd {}", number.trim());
        return (label.clone(), label);
    }
    let name = path.file_name().map_or("store".into(), |name| name.to_string_lossy().into_owned());
    (name, (*lines.first().unwrap_or(&"unknown version")).to_owned())
}

/// CPU time and disk writes of the three processes since they started.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    pub cpu_secs: f64,
    /// Bytes sent to the storage layer; `None` where `/proc/<pid>/io` may not be read.
    pub written_bytes: Option<u64>,
}

struct Member {
    child: Child,
    name: String,
    client_addr: String,
    log: PathBuf,
}

/// A running cluster; dropping it stops the processes and removes their files.
pub struct Peers {
    members: Vec<Member>,
    dir: PathBuf,
}

impl Peers {
    /// Starts the members with fresh data under `dir` and waits until all of them know the same leader.
    ///
    /// Errors: a member that cannot be started or ends early, with the tail of its log; no leader in 30 s.
    pub async fn start(program: &Program, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let mut peers = Self { members: Vec::new(), dir: dir.to_owned() };
        peers.spawn(program)?;
        peers.wait_ready().await?;
        Ok(peers)
    }

    fn spawn(&mut self, program: &Program) -> Result<()> {
        let ports = free_ports(2 * MEMBERS)?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let initial_cluster: Vec<String> =
            (0..MEMBERS).map(|i| format!("m{i}={}", url(ports[MEMBERS + i]))).collect();
        for i in 0..MEMBERS {
            let name = format!("m{i}");
            let (client, peer) = (url(ports[i]), url(ports[MEMBERS + i]));
            let log = self.dir.join(format!("{name}.log"));
            let output =
                File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
            let mut command = Command::new(&program.path);
            command
                .args(["--name", &name])
                .arg("--data-dir")
                .arg(self.dir.join(&name))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &initial_cluster.join(",")])
                .args(["--initial-cluster-state", "new", "--initial-cluster-token", "detkv-bench"])
                // ETCD_* variables of the caller must not change one store and not the other.
                .env_clear()
                .stdin(Stdio::null())
                .stdout(output.try_clone()?)
                .stderr(output);
            die_with_us(&mut command);
            let child = command
                .spawn()
                .with_context(|| format!("cannot start {}", program.path.display()))?;
            let client_addr = format!("127.0.0.1:{}", ports[i]);
            self.members.push(Member { child, name, client_addr, log });
        }
        Ok(())
    }

    /// Client addresses, `127.0.0.1:port`.
    pub fn client_addrs(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_addr.clone()).collect()
    }

    async fn wait_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.check_alive()?;
            let problem =
                match self.leader().await.and_then(|leader| leader.context("no leader yet")) {
                    Ok(leader) => match self.first_put(leader).await {
                        Ok(()) => return Ok(()),
                        Err(error) => error,
                    },
                    Err(error) => error,
                };
            if Instant::now() > deadline {
                let tail = self.members.first().map_or(String::new(), |member| tail(&member.log));
                bail!("the members were not ready within {READY_WITHIN:?}: {problem:#}\n{tail}");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Fails with the end of the log of a member that has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        for member in &mut self.members {
            if let Some(status) = member.child.try_wait()? {
                bail!(
                    "member {} ended with {status}; its log ends:\n{}",
                    member.name,
                    tail(&member.log)
                );
            }
        }
        Ok(())
    }

    /// Place of the leader among the members, if all agree on one.
    pub async fn leader(&self) -> Result<Option<usize>> {
        let mut ids = Vec::new();
        let mut leaders = Vec::new();
        for member in &self.members {
            let connection = Connection::open(&member.client_addr).await?;
            let status = connection.maintenance().status(StatusRequest {}).await?.into_inner();
            ids.push(status.header.context("a status without a header")?.member_id);
            leaders.push(status.leader);
        }
        let first = leaders[0];
        if first == 0 || leaders.iter().any(|leader| *leader != first) {
            return Ok(None);
        }
        Ok(ids.iter().position(|id| *id == first))
    }

    async fn first_put(&self, leader: usize) -> Result<()> {
        let connection = Connection::open(&self.members[leader].client_addr).await?;
        let put =
            PutRequest { key: "ready".into(), value: "ready".into(), ..PutRequest::default() };
        connection.kv().put(put).await?;
        Ok(())
    }

    /// What the processes have used since their start.
    pub fn usage(&self) -> Result<Usage> {
        let mut total = Usage { cpu_secs: 0.0, written_bytes: Some(0) };
        for member in &self.members {
            let proc = PathBuf::from(format!("/proc/{}", member.child.id()));
            let stat = fs::read_to_string(proc.join("stat"))
                .with_context(|| format!("member {} is gone", member.name))?;
            total.cpu_secs += cpu_secs(&stat).context("/proc/<pid>/stat has an unknown form")?;
            let io = fs::read_to_string(proc.join("io")).ok();
            total.written_bytes = total
                .written_bytes
                .zip(io.as_deref().and_then(written_bytes))
                .map(|(sum, bytes)| sum + bytes);
        }
        Ok(total)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        for member in &self.members {
            // SAFETY: the pid is of our own child that was not waited for, so it cannot name another process.
            unsafe { libc::kill(member.child.id() as libc::pid_t, libc::SIGTERM) };
        }
        let deadline = Instant::now() + STOP_WITHIN;
        for member in &mut self.members {
            while matches!(member.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            // Both fail only if the child has ended already, which is what is wanted.
            let _ = member.child.kill();
            let _ = member.child.wait();
        }
        if let Err(error) = fs::remove_dir_all(&self.dir) {
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// Asks the kernel to kill the child when the thread that starts it ends, so that nothing outlives a killed bench.
fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid, _exit by the error.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // The parent may have died before the call above.
            if libc::getppid() as u32 != parent {
                return Err(std::io::ErrorKind::BrokenPipe.into());
            }
            Ok(())
        });
    }
}

/// Ports that were free a moment ago. All are held until all are known, so they differ.
///
/// Not from the ephemeral range, where a member that dials may take another's port before that one listens.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let start = 10_000 + (std::process::id() % 20_000) as u16;
    let listeners: Vec<TcpListener> = (start..32_000)
        .filter_map(|port| TcpListener::bind(("127.0.0.1", port)).ok())
        .take(count)
        .collect();
    anyhow::ensure!(listeners.len() == count, "no free ports on 127.0.0.1");
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}

/// User and system time from `/proc/<pid>/stat`: fields 14 and 15, counted after the name in parentheses.
fn cpu_secs(stat: &str) -> Option<f64> {
    let after_name = stat.rsplit_once(") ")?.1;
    let mut fields = after_name.split(' ');
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    // SAFETY: sysconf only reads a constant of the system.
    let per_sec = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    (per_sec > 0).then(|| (user + system) as f64 / per_sec as f64)
}

/// `write_bytes` less what was cancelled by truncation before it reached the disk.
fn written_bytes(io: &str) -> Option<u64> {
    let field = |name: &str| {
        io.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    Some(field("write_bytes:")?.saturating_sub(field("cancelled_write_bytes:").unwrap_or(0)))
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_a_name_with_blanks_and_parentheses() {
        let fields = "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0";
        let secs = cpu_secs(&format!("42 (a) b) {fields}")).expect("a known form");
        assert!((secs - 2.0).abs() < 1e-9, "{secs}: 200 ticks at 100 per second");
        assert_eq!(cpu_secs("42 (a"), None);
        assert_eq!(cpu_secs("42 (a) S 1 2"), None);
    }

    #[test]
    fn written_bytes_are_those_that_reach_the_disk() {
        let io = "rchar: 1\nwchar: 9\nwrite_bytes: 8192\ncancelled_write_bytes: 4096\n";
        assert_eq!(written_bytes(io), Some(4096));
        assert_eq!(written_bytes("rchar: 1\n"), None);
    }

    #[test]
    fn a_store_is_called_by_its_name_and_version() {
        let of = |path: &str, text: &str| identity(Path::new(path), text);
        assert_eq!(of("/usr/bin/etcd", "etcd Version: 3.4.23\nGit SHA: x\n").0, "etcd 3.4.23");
        let (label, version) = of("/x/detkv", "etcd Version: 3.6.0\ndetkv Version: 0.1.0\n");
        assert_eq!((label.as_str(), version.as_str()), ("detkv", "detkv 0.1.0"));
        assert_eq!(of("/x/other", "").0, "other");
    }

    #[test]
    fn a_missing_binary_is_named_with_what_to_do() {
        let error = Program::find(Path::new("/no/such/detkv"), "build it").expect_err("not there");
        assert_eq!(error.to_string(), "/no/such/detkv does not exist: build it");
    }

    #[test]
    fn free_ports_differ() {
        let mut ports = free_ports(6).expect("loopback has ports");
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 6);
    }
}
