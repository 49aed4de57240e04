//! Three members as child processes.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Killed when dropped.
pub struct Members {
    children: Vec<Child>,
    pub endpoints: Vec<String>,
    _dir: TempDir,
}

/// `DETKV_BIN`, or the workspace's debug build.
fn binary() -> PathBuf {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../target/debug/detkv");
    std::env::var_os("DETKV_BIN").map_or_else(|| default.into(), PathBuf::from)
}

impl Members {
    pub fn start(count: usize) -> Self {
        // Not from the ephemeral range: there a member that dials may take another's port before that
        // one listens.
        let start = 10_000 + std::process::id() % 20_000;
        let free = (start..32_000).filter_map(|n| {
            let port = u16::try_from(n).ok()?;
            TcpListener::bind(("127.0.0.1", port)).ok()
        });
        let listeners: Vec<TcpListener> = free.take(2 * count).collect();
        assert_eq!(listeners.len(), 2 * count, "no free ports");
        let url = |l: &TcpListener| format!("http://{}", l.local_addr().expect("bound"));
        let urls: Vec<String> = listeners.iter().map(url).collect();
        drop(listeners);
        let (clients, peers) = urls.split_at(count);
        let cluster: Vec<String> =
            peers.iter().enumerate().map(|(n, peer)| format!("m{n}={peer}")).collect();
        let dir = tempfile::tempdir().expect("temporary directory");
        let binary = binary();
        let start = |n: usize| {
            Command::new(&binary)
                .args(["--name", &format!("m{n}")])
                .arg("--data-dir")
                .arg(dir.path().join(format!("m{n}")))
                .args(["--listen-client-urls", &clients[n]])
                .args(["--advertise-client-urls", &clients[n]])
                .args(["--listen-peer-urls", &peers[n]])
                .args(["--initial-advertise-peer-urls", &peers[n]])
                .args(["--initial-cluster", &cluster.join(",")])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|e| panic!("{}: {e} (set DETKV_BIN)", binary.display()))
        };
        let children = (0..count).map(start).collect();
        println!("started {count} members of {}", binary.display());
        Self { children, endpoints: clients.to_vec(), _dir: dir }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
