//! Ports that stay a test's own, however many test processes run beside it.
//!
//! Not from the kernel's ephemeral range: there the port of a member that is down, or not yet up, may
//! become the local port of any outgoing connection. A locked file per port keeps other test processes
//! away; the kernel gives the lock up with the process.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::ops::Range;
use std::sync::Mutex;

/// Below Linux' ephemeral ports (32768..61000), above what is usually served.
const RANGE: Range<u16> = 10_000..32_000;

/// Locks of the ports handed out so far; none is handed out twice.
static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// `count` ports that nobody else uses until this process ends.
pub fn free_ports(count: usize) -> Vec<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let len = usize::from(RANGE.end - RANGE.start);
    // Processes begin at different places, so they rarely meet.
    let start = std::process::id() as usize * 251 + taken.len();
    let candidates = (0..len).map(|n| RANGE.start + ((start + n) % len) as u16);
    let mut ports = Vec::new();
    for port in candidates {
        if ports.len() == count {
            break;
        }
        if let Some(lock) = lock(port)
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
        {
            taken.push(lock);
            ports.push(port);
        }
    }
    assert_eq!(ports.len(), count, "no free ports on 127.0.0.1");
    ports
}

fn lock(port: u16) -> Option<File> {
    let dir = std::env::temp_dir().join("detkv-test-ports");
    std::fs::create_dir_all(&dir).expect("a directory for temporary files");
    let path = dir.join(port.to_string());
    let file = OpenOptions::new().create(true).append(true).open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

#[test]
fn no_port_is_handed_out_twice() {
    let (first, second) = (free_ports(6), free_ports(6));
    let distinct: std::collections::BTreeSet<u16> = first.into_iter().chain(second).collect();
    assert_eq!(distinct.len(), 12);
}
