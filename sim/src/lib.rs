//! The simulated world.

pub mod check;
pub mod clock;
pub mod config;
pub mod cpu;
pub mod disk;
pub mod duration;
pub mod fault;
pub mod handle;
pub mod history;
pub mod kernel;
pub mod net;
pub mod rng;
pub mod trace;

use std::future::Future;

pub use config::{RunOutcome, SimConfig};
pub use handle::{CallError, Handle, NodeStatus, Reply, WatchConn};
pub use history::ClientId;

/// A run.
pub struct Sim;

impl Sim {
    /// Runs `script` in a fresh world until it ends.
    pub fn run<F, Fut>(_config: SimConfig, _script: F) -> RunOutcome
    where
        F: FnOnce(Handle) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        unimplemented!()
    }
}
