//! Process, CPU and clock: ends at named points, an older disk, a slow CPU, a clock that drifts.

use std::collections::BTreeSet;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{PutRequest, RangeRequest};
use detkv_core::{Instant, MemberId};
use detkv_sim::client::{Clients, PutLoad};
use detkv_sim::fault::{
    ClockDrift, CpuSlow, DiskStall, EmptyDisk, Fault, IsolatePeers, KillAt, Partition, Pause,
    SwapDisk, Target,
};
use detkv_sim::history::{DownHow, Fact};
use detkv_sim::{ClientId, RunOutcome, Sim, SimConfig};

use super::{SECOND, config, downs, judged, m, ms, until_leader};

fn kill_at(node: Target, site: &str, nth: u32, power: bool) -> Fault {
    let site = site.parse().expect("a site");
    let (repeats, down, duration) = (2, ms(300), 20 * SECOND);
    KillAt { node, site, nth, repeats, power, down, duration }.into()
}

fn ends(outcome: &RunOutcome) -> usize {
    let is_end = |how: &DownHow| matches!(how, DownHow::Killed | DownHow::PowerLoss);
    downs(outcome).iter().filter(|(_, how)| is_end(how)).count()
}

#[test]
fn a_process_may_end_at_every_named_point_and_comes_back_whole() {
    let sites = [
        "before write *.wal",
        "during sync *.wal",
        "after sync *.wal",
        "after allocate *.wal.tmp",
        "before rename *.wal.tmp",
        "after rename *.wal.tmp",
        "after sync-dir member/wal",
        "during sync *.snap.tmp",
        "after rename *.snap.tmp",
        "during job sync",
        "during job compact",
        "before burst",
        "after burst",
        "after frame append-response",
    ];
    for (seed, site) in (40..).zip(sites) {
        let nth = if site.contains("burst") || site.contains("frame") { 300 } else { 2 };
        let fault = kill_at(Target::Leader, site, nth, seed % 2 == 0);
        let outcome = judged(config(seed), 4 * SECOND, vec![(ms(200), fault)]);
        assert!((1..=2).contains(&ends(&outcome)), "{site}: {:?}", downs(&outcome));
    }
}

#[test]
fn a_process_may_end_in_the_middle_of_recovery_and_of_an_install() {
    let restart: Fault = kill_at(m(3), "after burst", 200, false);
    let again = kill_at(m(3), "after recovery", 2, true);
    let outcome = judged(config(60), 4 * SECOND, vec![(ms(200), restart), (ms(201), again)]);
    assert!(ends(&outcome) >= 3, "{:?}", downs(&outcome));

    for (seed, site) in (61..).zip([
        "before frame snapshot-chunk",
        "after frame snapshot-end",
        "after job receive",
        "during sync member/snap/*",
    ]) {
        // Far behind: its entries are gone when it is back.
        let (nodes, duration) = (vec![m(3)], 3 * SECOND);
        let cut = Partition { nodes, direction: Default::default(), duration, clients: vec![] };
        let faults =
            vec![(ms(200), cut.into()), (3 * SECOND, kill_at(m(3), site, 1, seed % 2 == 0))];
        let outcome = judged(config(seed), 6 * SECOND, faults);
        assert!(ends(&outcome) >= 1, "{site}: {:?}", downs(&outcome));
    }
}

/// How a follower ends that booted from another disk than it had.
fn ends_on(seed: u64, disk: Fault) -> (Vec<String>, RunOutcome) {
    let outcome = Sim::run(config(seed), |world| async move {
        until_leader(&world).await;
        let clients = Clients::new(world.clone());
        PutLoad::default().start(&clients, world.now() + 6 * SECOND);
        world.sleep(SECOND).await;
        world.inject(disk);
        world.sleep(8 * SECOND).await;
    });
    let reasons = downs(&outcome).into_iter().filter_map(|(_, how)| match how {
        DownHow::Halted(why) | DownHow::OpenFailed(why) => Some(why),
        _ => None,
    });
    (reasons.collect(), outcome)
}

#[test]
fn a_member_on_an_older_or_an_empty_disk_stops_and_says_that_its_log_lost_entries() {
    let node = Target::Follower(1);
    let older = |seed| (seed, Fault::from(SwapDisk { node, age: 2 * SECOND }));
    let empty = |seed| (seed, Fault::from(EmptyDisk { node }));
    for (seed, disk) in (70..73).map(older).chain((73..76).map(empty)) {
        let (reasons, outcome) = ends_on(seed, disk);
        assert!(reasons[0].contains("entries that this member has lost"), "{seed}: {reasons:?}");
        assert_eq!(outcome.panics, Vec::<String>::new());
    }
}

/// How long a leader takes for a read, and how long for `reads` at once.
fn reads(config: SimConfig, fault: Option<Fault>) -> (Duration, Duration) {
    let times = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
    let told = times.clone();
    Sim::run(config, |world| async move {
        let leader = until_leader(&world).await;
        let read = || {
            let (key, serializable) = ("a".into(), true);
            let request = Request::Range(RangeRequest { key, serializable, ..Default::default() });
            let world = world.clone();
            async move {
                let answer = world.call(ClientId(1), leader, request, SECOND).await;
                assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
            }
        };
        read().await;
        fault.into_iter().for_each(|fault| world.inject(fault));
        let before = world.now();
        read().await;
        told.borrow_mut().push(world.now().since(before));
        let (before, done) = (world.now(), std::rc::Rc::new(std::cell::Cell::new(0)));
        for _ in 0..100 {
            let (read, done) = (read(), done.clone());
            world.spawn(async move {
                read.await;
                done.set(done.get() + 1);
            });
        }
        while done.get() < 100 {
            world.sleep(Duration::from_micros(10)).await;
        }
        told.borrow_mut().push(world.now().since(before));
    });
    let times = times.borrow();
    (times[0], times[1])
}

#[test]
fn work_queues_for_the_cpu_and_a_slow_one_takes_a_multiple() {
    let (one, hundred) = reads(SimConfig::new(3), None);
    assert!(one < ms(1) && hundred > one, "{one:?} {hundred:?}");
    let slow = CpuSlow { node: Target::Leader, factor: 100, duration: 10 * SECOND };
    let (slow_one, slow_hundred) = reads(SimConfig::new(3), Some(slow.into()));
    assert!(slow_one > one + ms(0) + Duration::from_micros(500), "{slow_one:?}");
    // A hundred reads of 3 µs, a hundred times as slow, on one core for reads.
    assert!((ms(30)..ms(120)).contains(&slow_hundred), "{slow_hundred:?}");
    let mut config = SimConfig::new(3);
    let four = detkv_sim::cpu::CpuModel { readers: 4, ..Default::default() };
    config.cpus = (1..=3).map(|id| (id, four)).collect();
    let (_, with_four) = reads(
        config,
        Some(CpuSlow { node: Target::Leader, factor: 100, duration: 10 * SECOND }.into()),
    );
    assert!(with_four < slow_hundred, "{with_four:?} with four cores, {slow_hundred:?} with one");
}

/// Until when after the first of them a put to a lone member waits that is begun when all `faults` last.
fn put_waits(faults: Vec<(Duration, Fault)>) -> Duration {
    let answered = std::rc::Rc::new(std::cell::Cell::new(Duration::ZERO));
    let told = answered.clone();
    let config = SimConfig { members: 1, ..SimConfig::new(5) };
    Sim::run(config, |world| async move {
        let leader = until_leader(&world).await;
        world.sleep(ms(500)).await;
        let start = world.now();
        for (at, fault) in faults {
            world.sleep_until(start + at).await;
            world.inject(fault);
        }
        world.sleep_until(start + ms(100)).await;
        let put = PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        let answer = world.call(ClientId(1), leader, Request::Put(put), 5 * SECOND).await;
        assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
        told.set(world.now().since(start));
    });
    answered.get()
}

#[test]
fn of_two_faults_that_overlap_the_end_of_one_is_not_the_end_of_the_other() {
    let node = m(1);
    let stall = |duration| -> Fault { DiskStall { node, duration }.into() };
    let pause = |duration| -> Fault { Pause { node, duration }.into() };
    for fault in [&stall as &dyn Fn(Duration) -> Fault, &pause] {
        let waited = put_waits(vec![(ms(0), fault(ms(200))), (ms(50), fault(SECOND))]);
        assert!((ms(1050)..ms(1070)).contains(&waited), "the short one first: {waited:?}");
        let waited = put_waits(vec![(ms(0), fault(SECOND)), (ms(50), fault(ms(100)))]);
        assert!((ms(1000)..ms(1020)).contains(&waited), "the long one first: {waited:?}");
    }
}

/// A member's own CPU is meant for all it does, not for its reads alone: here a request costs 5 ms.
#[test]
fn a_members_own_cpu_is_what_its_bursts_cost() {
    let mut config = SimConfig::new(3);
    let slow = detkv_sim::cpu::CpuModel { request_ns: 5_000_000, ..Default::default() };
    config.cpus = (1..=3).map(|id| (id, slow)).collect();
    let (one, _) = reads(config, None);
    assert!((ms(5)..ms(7)).contains(&one), "{one:?}");
}

#[test]
fn an_overloaded_leader_answers_late_and_loses_nothing() {
    let slow = CpuSlow { node: Target::Leader, factor: 300, duration: 3 * SECOND };
    judged(config(80), 5 * SECOND, vec![(SECOND, slow.into())]);
}

/// How long after it was cut off an old leader steps down.
fn steps_down_after(drift: Option<ClockDrift>) -> Duration {
    let outcome = Sim::run(SimConfig::new(6), |world| async move {
        until_leader(&world).await;
        drift.into_iter().for_each(|drift| world.inject(drift.into()));
        world.sleep(SECOND).await;
        world.inject(IsolatePeers { node: Target::Leader, duration: 10 * SECOND }.into());
        world.sleep(10 * SECOND).await;
    });
    let facts = outcome.history.facts();
    let at = |is: &dyn Fn(&Fact) -> bool| -> Instant {
        facts.iter().rev().find(|(_, fact)| is(fact)).expect("it happened").0
    };
    let cut = at(&|fact| matches!(fact, Fact::FaultBegan { what, .. } if what.contains("no peer")));
    let old = facts.iter().find_map(|(_, fact)| match fact {
        Fact::Role { member, role: detkv_core::Role::Leader, .. } => Some(*member),
        _ => None,
    });
    let old: MemberId = old.expect("there was a leader");
    let down = facts.iter().find(|(at, fact)| {
        *at > cut
            && matches!(fact, Fact::Role { member, role, .. } if *member == old && *role != detkv_core::Role::Leader)
    });
    down.expect("check-quorum takes the lead away").0.since(cut)
}

#[test]
fn a_fast_clock_sees_its_deadlines_come_early() {
    let drift = |ppm| ClockDrift { node: Target::Leader, ppm, duration: 60 * SECOND };
    let (plain, fast, slow) = (
        steps_down_after(None),
        steps_down_after(Some(drift(100_000))),
        steps_down_after(Some(drift(-100_000))),
    );
    assert_eq!(BTreeSet::from([plain, fast, slow]).len(), 3, "{plain:?} {fast:?} {slow:?}");
    judged(config(81), 4 * SECOND, vec![(ms(500), drift(20_000).into())]);
}
