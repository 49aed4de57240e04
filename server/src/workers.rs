//! Threads for client connections: a single-threaded runtime each.
//!
//! A connection stays where it was put, so its tasks wake nobody else.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// More do not help: past this the member's thread is what is busy.
const WORKERS_MAX: usize = 8;

/// They end when this is dropped.
#[derive(Debug)]
pub struct Workers {
    runtimes: Vec<Handle>,
    next: AtomicUsize,
    _alive: watch::Sender<()>,
}

impl Workers {
    /// One for each CPU that the process may use.
    pub fn start() -> std::io::Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let (alive, _) = watch::channel(());
        let start = |n: usize| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let mut ended = alive.subscribe();
            // An error is the sender's end, and that of this thread.
            let run = move || drop(runtime.block_on(ended.changed()));
            std::thread::Builder::new().name(format!("net-{n}")).spawn(run)?;
            Ok(handle)
        };
        let runtimes = (0..cpus.min(WORKERS_MAX)).map(start).collect::<std::io::Result<_>>()?;
        Ok(Self { runtimes, next: AtomicUsize::new(0), _alive: alive })
    }

    /// The runtime for a new connection, in turn.
    pub fn pick(&self) -> &Handle {
        &self.runtimes[self.next.fetch_add(1, Relaxed) % self.runtimes.len()]
    }
}
