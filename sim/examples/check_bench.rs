//! Time and memory of the checkers on a history of a million operations.
//!
//! `cargo run --release -p detkv-sim --example check_bench [operations]`
//!
//! Goal: linearizability of 1 M operations in < 10 s and < 1 GB, the recorded history included.
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench measures real time and memory"
)]

#[path = "../tests/check_support/mod.rs"]
mod check_support;

use std::time::Instant;

use check_support::random::{Shape, good_history};
use detkv_sim::check::{Case, all};
use detkv_sim::history::History;

fn main() {
    let ops = std::env::args().nth(1).map_or(1_000_000, |n| n.parse().expect("a number"));
    let shape = Shape {
        ops,
        clients: 16,
        keys: 100,
        watchers: 3,
        value_bytes: 256,
        lost_per_mille: 5,
        ..Shape::default()
    };
    let started = Instant::now();
    let history = make(shape);
    println!(
        "history: {} operations, {} watches with {} events, {} distinct rows, made in {:.1} s",
        history.operations().len(),
        history.watches().len(),
        history.watches().iter().map(|watch| watch.events.len()).sum::<usize>(),
        history.kvs().len(),
        started.elapsed().as_secs_f64()
    );
    println!("memory: {} MB for the history", rss("VmRSS"));
    // The peak starts again from what is held now.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let case = Case::new(&history);
    let mut total = 0.0;
    for checker in all() {
        let started = Instant::now();
        let verdict =
            checker.check(&case).map_or_else(|violation| violation.to_string(), |()| "ok".into());
        total += started.elapsed().as_secs_f64();
        println!("{:<16} {:>6.2} s  {verdict}", checker.name(), started.elapsed().as_secs_f64());
    }
    println!("all: {total:.2} s, {} MB at most, history included", rss("VmHWM"));
}

/// The history alone: what made it is given back to the system.
fn make(shape: Shape) -> History {
    // The copy lies together; the original lies between the pieces of what made it.
    let history = good_history(7, shape).history.clone();
    // SAFETY: gives free memory back; nothing points into it.
    unsafe { libc::malloc_trim(0) };
    history
}

/// A line of /proc/self/status, in MB.
fn rss(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field));
    let kb = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kb.unwrap_or(0) / 1024
}
