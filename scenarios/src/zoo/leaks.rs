//! The ten leaks. Each takes a number from the machine, as a careless line of code would.

use std::collections::HashMap;
use std::future::{Future as _, ready};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{SystemTime, UNIX_EPOCH};

use rand_08::Rng as _;
use rustc_hash::FxHashMap;

use super::Fate;

/// One leak.
#[derive(Debug)]
pub struct Leak {
    pub name: &'static str,
    pub what: &'static str,
    /// What becomes of it.
    pub fate: Fate,
    /// The clippy ban that keeps it out of core and sim, if it has a name that can be banned.
    pub ban: Option<&'static str>,
    /// The number in a given round.
    pub number: fn(u64) -> u64,
}

pub const LEAKS: [Leak; 10] = [
    Leak {
        name: "hash-order",
        what: "first key of a std HashMap",
        fate: Fate::Reported,
        ban: Some("std::collections::HashMap"),
        number: |_| {
            let map: HashMap<u64, ()> = (0..64).map(|n| (n, ())).collect();
            map.into_keys().next().unwrap_or_default()
        },
    },
    Leak {
        name: "address-order",
        what: "order of a map keyed by addresses",
        fate: Fate::Reported,
        ban: None,
        number: |_| {
            let boxes: Vec<Box<u64>> = (0..64).map(Box::new).collect();
            let map: FxHashMap<usize, u64> =
                boxes.iter().map(|n| (std::ptr::from_ref::<u64>(n) as usize, **n)).collect();
            map.into_values().fold(0, |sum, n| sum.wrapping_mul(31).wrapping_add(n))
        },
    },
    Leak {
        name: "wall-clock",
        what: "microseconds of SystemTime",
        fate: Fate::Neutralised,
        ban: Some("std::time::SystemTime"),
        number: |_| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.as_micros() as u64)
        },
    },
    Leak {
        name: "unbiased-select",
        what: "which of two ready branches tokio::select! takes",
        fate: Fate::Reported,
        ban: None,
        number: |_| (0..16).fold(0, |bits, _| bits << 1 | chosen_branch()),
    },
    Leak {
        name: "thread",
        what: "a thread is started inside the run",
        fate: Fate::Refused,
        ban: Some("std::thread::spawn"),
        number: |round| std::thread::spawn(move || round).join().unwrap_or(0),
    },
    Leak {
        name: "thread-rng",
        what: "rand 0.8's thread_rng, as inside raft-rs",
        fate: Fate::Reported,
        ban: None,
        number: |_| rand_08::thread_rng().r#gen(),
    },
    Leak {
        name: "environment",
        what: "number of environment variables",
        fate: Fate::Reported,
        ban: Some("std::env::vars"),
        number: |_| std::env::vars().count() as u64,
    },
    Leak {
        name: "working-directory",
        what: "length of the working directory's path",
        fate: Fate::Reported,
        ban: Some("std::env::current_dir"),
        number: |_| std::env::current_dir().map_or(0, |path| path.as_os_str().len() as u64),
    },
    Leak {
        name: "process-id",
        what: "the process id",
        fate: Fate::Reported,
        ban: Some("std::process::id"),
        number: |_| u64::from(std::process::id()),
    },
    Leak {
        name: "static-state",
        what: "a static counter that an earlier run of the process has moved",
        fate: Fate::Reported,
        ban: None,
        number: |_| {
            static COUNTER: AtomicU64 = AtomicU64::new(0);
            COUNTER.fetch_add(1, Ordering::Relaxed)
        },
    },
];

fn chosen_branch() -> u64 {
    let mut choice = pin!(async {
        tokio_select::select! {
            () = ready(()) => 0,
            () = ready(()) => 1,
        }
    });
    match choice.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(branch) => branch,
        Poll::Pending => unreachable!("both branches are ready"),
    }
}
