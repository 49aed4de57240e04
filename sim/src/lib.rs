//! The simulated world: real members on simulated disks, links, clocks and CPUs, in virtual time.
//!
//! ```no_run
//! use detkv_sim::{ClientId, Sim, SimConfig};
//! # use detkv_core::{MemberId, api::Request, pb::etcdserverpb as pb};
//! # use std::time::Duration;
//! let outcome = Sim::run(SimConfig::new(7), |world| async move {
//!     while world.leader().is_none() {
//!         world.sleep(Duration::from_millis(10)).await;
//!     }
//!     let put = pb::PutRequest { key: "a".into(), value: "1".into(), ..Default::default() };
//!     let to = MemberId(1);
//!     let answer = world.call(ClientId(1), to, Request::Put(put), Duration::from_secs(1)).await;
//!     println!("{answer:?} at {:?}", world.now());
//! });
//! println!("{:032x}", outcome.event_hash);
//! ```
//!
//! A run is a function of its [`SimConfig`] and script: equal ones give equal event hashes, in any
//! process. One thread, one heap of events; nothing waits for the real clock.
//!
//! | Module | What |
//! |---|---|
//! | `kernel` | events in order of virtual time |
//! | `world` | nodes and connections: the driver's loop around each member |
//! | `disk`, `net`, `clock`, `cpu` | the models |
//! | `bounds` | what a value of a model may be |
//! | `fault` | one file per kind of fault |
//! | `handle`, `exec` | the async side: scripts and clients |
//! | `shell` | madsim around the run; the only file that names it |
//! | `rng` | named random streams, integer sampling |
//! | `empirical`, `prometheus`, `hdr` | durations as a real machine had them |
//! | `trace` | event hash, decision trace |
//! | `probe` | in-code faults and marks |
//! | `client`, `history`, `check` | workloads, what they saw, what it must obey |

pub mod bounds;
pub mod check;
pub mod client;
pub mod clock;
pub mod config;
pub mod cpu;
pub mod disk;
pub mod duration;
pub mod empirical;
mod exec;
pub mod fault;
pub mod handle;
pub mod hdr;
pub mod history;
pub mod kernel;
pub mod net;
pub mod probe;
pub mod prometheus;
pub mod rng;
mod shell;
pub mod trace;
mod wire;
mod world;

use std::future::Future;

pub use config::{
    Counters, LogRecord, MemberVersion, RunOutcome, SimConfig, SyncRecord, TraceOptions, Tune,
};
pub use fault::Fault;
pub use handle::{CallError, Handle, NodeStatus, Reply, WatchConn};
pub use history::ClientId;

/// A run.
pub struct Sim;

impl Sim {
    /// Runs `script` in a fresh world until it ends.
    ///
    /// Panics when nothing is left that could wake the script, and when the script itself panics.
    pub fn run<F, Fut>(config: SimConfig, script: F) -> RunOutcome
    where
        F: FnOnce(Handle) -> Fut,
        Fut: Future<Output = ()> + 'static,
    {
        let seed = config.seed;
        let handle = Handle::new(world::World::new(config));
        handle.run(seed, script(handle.clone()))
    }
}
