//! One run of a scenario in this process: the script that starts the load, performs the faults at their
//! times, and reads everything back.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use detkv_core::{Instant, MemberId};
use detkv_sim_world::client::{Clients, Readout, WatchProgress, resolve};
use detkv_sim_world::fault::{Fault, Kill, PowerLoss, Restart, Target};
use detkv_sim_world::history::{Event, Fact, Phase};
use detkv_sim_world::{Counters, Handle, NodeStatus, RunOutcome, Sim, SimConfig, TraceOptions};
use rand_core::Rng as _;

use crate::scenario::{FaultPlan, Profile, Scenario, Workload};
use crate::zoo::{self, Leak};

/// Virtual time in which a fresh cluster must elect its first leader.
const FIRST_LEADER: Duration = Duration::from_secs(30);
/// Virtual time in which open calls end after the load; longer than any client's timeout.
const LAST_CALLS: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);

/// A run that ended, and why it did not come to its proper end.
pub struct Finished {
    pub outcome: RunOutcome,
    /// Which clients belong to which workload, by its place.
    pub groups: Vec<(Range<u32>, usize)>,
    /// What disks and links had done when the warm-up ended, and when the load did.
    pub counters: Option<(Counters, Counters)>,
    /// The most that any member held for watchers that had not taken it.
    pub watch_buffered_bytes: u64,
    /// What did not converge.
    pub stuck: Option<String>,
}

/// Runs `scenario` once, with a leak planted in it or none.
pub fn run(
    scenario: &Scenario,
    seed: u64,
    profile: Profile,
    trace: TraceOptions,
    leak: Option<&'static Leak>,
) -> Finished {
    let notes: Rc<RefCell<Notes>> = Rc::default();
    let config = config(scenario, seed, profile, trace);
    let outcome = Sim::run(config, {
        let (scenario, notes) = (scenario.clone(), notes.clone());
        |handle| async move {
            if let Err(what) = script(&scenario, handle.clone(), notes.clone(), leak).await {
                let why = handle.explain().join("\n      ");
                notes.borrow_mut().stuck = Some(format!("{what}\n      {why}"));
            }
        }
    });
    let Notes { stuck, groups, counters, watch_buffered_bytes } = notes.take();
    let counters = <[Counters; 2]>::try_from(counters).ok().map(|[warm, end]| (warm, end));
    Finished { outcome, groups, counters, watch_buffered_bytes, stuck }
}

/// What the script notes down on its way.
#[derive(Default)]
struct Notes {
    stuck: Option<String>,
    groups: Vec<(Range<u32>, usize)>,
    counters: Vec<Counters>,
    watch_buffered_bytes: u64,
}

fn config(scenario: &Scenario, seed: u64, profile: Profile, trace: TraceOptions) -> SimConfig {
    let options = scenario.member.of(profile).clone();
    SimConfig {
        members: scenario.members,
        profile: profile.core(),
        tune: Some(Rc::new(move |_, config: &mut detkv_core::Config| options.apply(config))),
        disk: scenario.disk.clone(),
        disks: scenario.disks.clone(),
        net: scenario.net.clone(),
        cpu: scenario.cpu,
        cpus: scenario.cpus.clone(),
        clocks: scenario.clocks.clone(),
        versions: scenario.versions.clone(),
        buggify: scenario.buggify,
        log_level: Some(detkv_core::Level::Warn),
        trace,
        ..SimConfig::new(seed)
    }
}

async fn script(
    scenario: &Scenario,
    handle: Handle,
    notes: Rc<RefCell<Notes>>,
    leak: Option<&'static Leak>,
) -> Result<(), String> {
    wait_until(&handle, FIRST_LEADER, || handle.leader().is_some())
        .await
        .map_err(|()| format!("no leader within {FIRST_LEADER:?} of the start"))?;
    let clients = Clients::new(handle.clone());
    let progress = WatchProgress::default();
    if let Some(leak) = leak {
        zoo::plant(leak, &clients);
    }
    let warm = handle.now() + scenario.warm_up;
    let end = warm + scenario.duration;
    for (place, workload) in scenario.workloads.iter().enumerate() {
        let first = clients.next_number();
        match workload {
            Workload::PutLoad(load) => load.start(&clients, end),
            Workload::Mixed(load) => load.start(&clients, end),
            Workload::Robustness(load) => load.start(&clients, end),
            Workload::Kubernetes(load) => load.start(&clients, &progress, end),
            Workload::KeepAlive(load) => load.start(&clients, end),
            Workload::Bursts(load) => load.start(&clients, end),
            Workload::Script(script) => script.start(&clients, end),
            Workload::OneByOne(load) => load.start(&clients, end),
            Workload::Watcher(watcher) => watcher.start(&clients, &progress),
            Workload::SlowWatcher(watcher) => watcher.start(&clients, &progress, end),
            Workload::Compactor(compactor) => compactor.start(&clients, end),
            Workload::Maintainer(maintainer) => maintainer.start(&clients, end),
            Workload::MemberChanges(changes) => changes.start(&clients, end),
        }
        let made = clients.next_number() - first;
        assert_eq!(made, workload.clients(scenario.members), "faults name clients by number");
        notes.borrow_mut().groups.push((first..clients.next_number(), place));
    }
    handle.spawn(sample_buffers(handle.clone(), notes.clone(), end));
    handle.sleep_until(warm).await;
    notes.borrow_mut().counters.push(handle.counters());
    handle.record(Event::Fact(Fact::Phase(Phase::WarmedUp)));
    let are_over = Rc::new(Cell::new(false));
    for (number, plan) in scenario.faults.iter().enumerate() {
        let faults = Faults { handle: handle.clone(), are_over: are_over.clone() };
        handle.spawn(faults.perform(number as u64, plan.clone(), warm));
    }
    handle.sleep_until(end).await;
    notes.borrow_mut().counters.push(handle.counters());
    are_over.set(true);
    handle.heal_all();
    handle.record(Event::Fact(Fact::Phase(Phase::FaultsOver)));
    wait_until(&handle, LAST_CALLS, || clients.are_done())
        .await
        .map_err(|()| format!("a client's call did not end within {LAST_CALLS:?}"))?;
    let readout = Readout { limit: scenario.converge };
    readout
        .run(&clients, &progress)
        .await
        .map_err(|error| format!("{error} within {:?} after the last fault", scenario.converge))
}

/// Looks at what members hold for their watchers, now and then. Looking changes nothing.
async fn sample_buffers(handle: Handle, notes: Rc<RefCell<Notes>>, end: Instant) {
    while handle.now() < end {
        for member in handle.members() {
            let held = handle.metrics(member).map_or(0, |m| m.watch_buffered_bytes.load());
            let mut notes = notes.borrow_mut();
            notes.watch_buffered_bytes = notes.watch_buffered_bytes.max(held);
        }
        handle.sleep(LOOK).await;
    }
}

async fn wait_until(handle: &Handle, limit: Duration, is_so: impl Fn() -> bool) -> Result<(), ()> {
    let deadline = handle.now() + limit;
    while !is_so() {
        if handle.now() >= deadline {
            return Err(());
        }
        handle.sleep(LOOK).await;
    }
    Ok(())
}

/// Performs one entry of the schedule.
struct Faults {
    handle: Handle,
    are_over: Rc<Cell<bool>>,
}

impl Faults {
    async fn perform(self, number: u64, plan: FaultPlan, warm: Instant) {
        // Drawn at once: what happens in between moves no time.
        let mut rng = self.handle.rng(number, "fault times");
        let jitter_ns = plan.jitter.as_nanos() as u64;
        let times: Vec<Instant> = (0..plan.times)
            .map(|n| {
                let jitter = Duration::from_nanos(rng.next_u64() % jitter_ns.max(1));
                warm + plan.at + plan.every * n + jitter
            })
            .collect();
        for at in times {
            self.handle.sleep_until(at).await;
            if self.are_over.get() {
                return;
            }
            match (plan.restart_after, node_of(&plan.fault)) {
                (Some(after), Some(target)) => self.crash(&plan.fault, target, after).await,
                _ => self.handle.inject(plan.fault.clone()),
            }
        }
    }

    /// Kills a node that is alive and starts the same one again later, whatever role it has then.
    async fn crash(&self, fault: &Fault, target: Target, after: Duration) {
        let Some(member) = resolve(&self.handle, target) else { return };
        if self.is_down(member) {
            return;
        }
        let node = Target::Member(member);
        self.handle.inject(match fault {
            Fault::PowerLoss(_) => Fault::PowerLoss(PowerLoss { node }),
            _ => Fault::Kill(Kill { node }),
        });
        let restart = {
            let (handle, are_over) = (self.handle.clone(), self.are_over.clone());
            async move {
                handle.sleep(after).await;
                let faults = Self { handle, are_over };
                if !faults.are_over.get() && faults.is_down(member) {
                    faults.handle.inject(Fault::Restart(Restart { node }));
                }
            }
        };
        self.handle.spawn(restart);
    }

    fn is_down(&self, member: MemberId) -> bool {
        self.handle.node_status(member) == NodeStatus::Down
    }
}

fn node_of(fault: &Fault) -> Option<Target> {
    match fault {
        Fault::Kill(Kill { node }) | Fault::PowerLoss(PowerLoss { node }) => Some(*node),
        _ => None,
    }
}
