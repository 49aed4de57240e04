//! madsim as the shell of a run: the only file that names it.
//!
//! Inside a madsim runtime the C library's clock and randomness answer with virtual time and seeded
//! numbers, so nothing in a dependency can leak the machine. One madsim task, the pump, drives the
//! kernel: it moves madsim's clock to the next event, performs the event, runs the tasks it woke.
//!
//! | madsim | here |
//! |---|---|
//! | `sleep` never lasts less than 1 ms | `Sleep::reset` to the event's time, and only for gaps of a millisecond or more; shorter ones `advance`, before a task runs |
//! | 50–100 ns pass with every poll | the kernel's time is the truth; madsim's clock follows it, at most 1 ms behind while no task runs |
//! | timers of madsim's own, in users' scripts | fire at most 1 ms late |
//! | network, files, nodes, spawn | not used |

#[cfg(not(madsim))]
compile_error!(
    "detkv-sim needs `--cfg madsim`: the workspace's .cargo/config.toml sets it, but RUSTFLAGS in the \
     environment replaces it. Unset RUSTFLAGS or add `--cfg madsim` to it."
);

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use detkv_core::Instant;
use madsim::Config;
use madsim::runtime::Runtime;
use madsim::time::{self, TimeHandle};

/// What the pump drives.
pub trait World {
    /// Runs every task that can run. Returns false when the run is over.
    fn run_tasks(&self) -> bool;
    /// A task can run.
    fn has_ready_tasks(&self) -> bool;
    /// Wakes the pump when a task can run for a reason of madsim's.
    fn wake_on_ready(&self, waker: &std::task::Waker);
    fn next_at(&self) -> Option<Instant>;
    /// Performs the next event.
    fn step(&self);
}

/// Gaps from this length on are slept, so that madsim's own timers fire in them.
const SLEEP_FROM: Duration = Duration::from_millis(1);

/// Runs a world to its end on a fresh madsim runtime.
pub fn host(seed: u64, world: &impl World) {
    let runtime = Runtime::with_seed_and_config(seed, Config::default());
    runtime.block_on(pump(world));
}

async fn pump(world: &impl World) {
    let clock = TimeHandle::current();
    let mut sleep = pin!(time::sleep(Duration::ZERO));
    let origin = clock.now_instant() - clock.elapsed();
    // What madsim's clock shows, and when the last event was.
    let (mut shown, mut last) = (clock.elapsed(), Duration::ZERO);
    let mut goes_on = world.run_tasks();
    while goes_on {
        let Some(at) = world.next_at() else {
            panic!("no event is left and the script waits: it would wait for ever");
        };
        let at = Duration::from_nanos(at.ns);
        if at.saturating_sub(shown) >= SLEEP_FROM {
            if at.saturating_sub(last) >= SLEEP_FROM {
                sleep.as_mut().reset(origin + at);
                poll_fn(|context| {
                    if world.has_ready_tasks() {
                        return Poll::Ready(());
                    }
                    world.wake_on_ready(context.waker());
                    sleep.as_mut().poll(context)
                })
                .await;
            } else {
                clock.advance(at - shown);
            }
            shown = clock.elapsed();
            if world.has_ready_tasks() {
                goes_on = world.run_tasks();
                continue;
            }
        }
        world.step();
        last = at;
        if world.has_ready_tasks() {
            // They may look at madsim's clock.
            clock.advance(at.saturating_sub(shown));
            goes_on = world.run_tasks();
            shown = clock.elapsed();
        }
    }
}
