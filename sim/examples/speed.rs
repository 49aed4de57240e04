//! Simulated seconds per second of CPU: three members, puts of 256 bytes at a fixed rate.
//!
//! CPU time, not wall time: the figure does not depend on what else the machine does.
//!
//! `cargo run --release -p detkv-sim --example speed -- [seconds [puts per second…]]`

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use detkv_core::MemberId;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::PutRequest;
use detkv_sim::{ClientId, Handle, RunOutcome, Sim, SimConfig};

/// A fifth of the time goes into allocation otherwise; addresses decide nothing.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Puts `rate` times a second in all, from six clients, two at each member, in open loop.
async fn load(world: Handle, rate: u64, seconds: u64, done: Rc<Cell<u64>>) {
    while world.leader().is_none() {
        world.sleep(Duration::from_millis(10)).await;
    }
    if rate == 0 {
        return world.sleep(Duration::from_secs(seconds)).await;
    }
    const WORKERS: u64 = 60;
    let start = world.now();
    let pause = Duration::from_nanos(WORKERS * 1_000_000_000 / rate);
    let end = start + Duration::from_secs(seconds);
    for worker in 0..WORKERS {
        let (handle, done) = (world.clone(), done.clone());
        let client = ClientId((worker % 6) as u32);
        let member = MemberId(worker % 3 + 1);
        world.spawn(async move {
            let mut at = start + Duration::from_nanos(worker * 1_000_000_000 / rate);
            for n in 0.. {
                handle.sleep_until(at).await;
                at = at + pause;
                let key = format!("key-{:06}", (worker * 7919 + n * 31) % 1000);
                let put = PutRequest {
                    key: key.into(),
                    value: vec![7; 256].into(),
                    ..Default::default()
                };
                let put = Request::Put(put);
                if let Ok(Ok(_)) = handle.call(client, member, put, Duration::from_secs(1)).await {
                    done.set(done.get() + 1);
                }
            }
        });
    }
    world.sleep_until(end).await;
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    // SAFETY: `usage` is a valid place for the result, and zeros are a valid value of it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(
            libc::getrusage(libc::RUSAGE_SELF, &mut usage),
            0,
            "getrusage knows this process"
        );
        usage
    };
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    of(usage.ru_utime) + of(usage.ru_stime)
}

fn measure(rate: u64, seconds: u64) -> (RunOutcome, u64, Duration) {
    let done = Rc::new(Cell::new(0));
    let started = cpu_time();
    let counter = done.clone();
    let outcome = Sim::run(SimConfig::new(1), move |world| load(world, rate, seconds, counter));
    (outcome, done.get(), cpu_time() - started)
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|s| s.parse().ok());
    let seconds = numbers.next().unwrap_or(60);
    let rates: Vec<u64> = numbers.collect();
    for rate in if rates.is_empty() { vec![0, 100, 1000] } else { rates } {
        let (outcome, puts, cpu) = measure(rate, seconds);
        let cpu_ns = cpu.as_nanos() as u64;
        println!(
            "{rate:5} puts/s: {:8.1}x real time, {puts} puts acknowledged, {:.1} us of CPU per put, \
             {} kernel events, {} hashed events, hash {:032x}",
            outcome.virtual_ns as f64 / cpu_ns as f64,
            cpu_ns as f64 / 1000.0 / puts.max(1) as f64,
            outcome.kernel_events,
            outcome.trace.events,
            outcome.event_hash,
        );
        assert!(outcome.panics.is_empty(), "{:?}", outcome.panics);
    }
}
