//! Every kind of fault has its effect, and members and checkers react as they should.

mod disk;
mod net;
mod process;

use std::rc::Rc;
use std::time::Duration;

use detkv_core::{Level, MemberId};
use detkv_sim::check::{Case, all};
use detkv_sim::client::{Clients, Compactor, Mixed, Readout, WatchProgress, Watcher};
use detkv_sim::fault::{Fault, Target};
use detkv_sim::history::{DownHow, Fact};
use detkv_sim::{Handle, RunOutcome, Sim, SimConfig};

pub const SECOND: Duration = Duration::from_secs(1);

pub fn m(id: u64) -> Target {
    Target::Member(MemberId(id))
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Members that cut segments and save snapshots within seconds.
pub fn config(seed: u64) -> SimConfig {
    let mut config = SimConfig::new(seed);
    config.log_level = Some(Level::Warn);
    config.tune = Some(Rc::new(|_, core| {
        (core.snapshot_count, core.snapshot_catchup_entries) = (100, 50);
        core.wal_segment_bytes = 64 << 10;
    }));
    config
}

pub async fn until_leader(world: &Handle) -> MemberId {
    while world.leader().is_none() {
        world.sleep(ms(10)).await;
    }
    world.leader().expect("looked at just now")
}

/// A mixed load for `lasts` with `faults` at their times; then the cluster is healed, must become whole,
/// everything is read back and every checker must agree.
pub fn judged(config: SimConfig, lasts: Duration, faults: Vec<(Duration, Fault)>) -> RunOutcome {
    let outcome = Sim::run(config, move |world| async move {
        until_leader(&world).await;
        let clients = Clients::new(world.clone());
        let progress = WatchProgress::default();
        let (start, end) = (world.now(), world.now() + lasts);
        Mixed { calls_per_sec: 200, value_bytes: 400, ..Mixed::default() }.start(&clients, end);
        Watcher::default().start(&clients, &progress);
        let compactor = Compactor { every: SECOND, keep: 50, ..Compactor::default() };
        compactor.start(&clients, end);
        for (at, fault) in faults {
            world.sleep_until(start + at).await;
            world.inject(fault);
        }
        world.sleep_until(end).await;
        world.heal_all();
        while !clients.are_done() {
            world.sleep(ms(50)).await;
        }
        let readout = Readout { limit: 30 * SECOND };
        readout.run(&clients, &progress).await.expect("the cluster becomes whole");
    });
    assert_eq!(outcome.panics, Vec::<String>::new());
    for checker in all() {
        let verdict = checker.check(&Case::new(&outcome.history));
        assert_eq!(verdict, Ok(()), "{}", checker.name());
    }
    outcome
}

/// How members went down, in order.
pub fn downs(outcome: &RunOutcome) -> Vec<(MemberId, DownHow)> {
    let facts = outcome.history.facts().iter();
    let downs = facts.filter_map(|(_, fact)| match fact {
        Fact::Down { member, how } => Some((*member, how.clone())),
        _ => None,
    });
    downs.collect()
}

/// What faults said they did, in order.
pub fn told(outcome: &RunOutcome) -> Vec<String> {
    let facts = outcome.history.facts().iter();
    let told = facts.filter_map(|(_, fact)| match fact {
        Fact::FaultBegan { what, .. } => Some(what.clone()),
        _ => None,
    });
    told.collect()
}

/// The reason of the only stop of a member that gave up.
pub fn reason(outcome: &RunOutcome, member: u64) -> String {
    let reasons: Vec<String> = downs(outcome)
        .into_iter()
        .filter(|(id, _)| *id == MemberId(member))
        .filter_map(|(_, how)| match how {
            DownHow::Halted(why) | DownHow::OpenFailed(why) => Some(why),
            _ => None,
        })
        .collect();
    let [reason] = &reasons[..] else { panic!("m{member} stopped once: {reasons:?}") };
    reason.clone()
}
