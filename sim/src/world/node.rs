//! One node: a process on a machine with a disk, a clock and a CPU.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use detkv_core::buggify;
use detkv_core::event::{Input, Outputs};
use detkv_core::limits::{BURST_BYTES_MAX, BURST_INPUTS_MAX};
use detkv_core::member::Metrics;
use detkv_core::{BootMember, Config, Member, MemberId, Recovery, Role};

use super::observe::WATCHED;
use super::raft_facts::RaftSeen;
use super::sites::Passed;
use super::{Event, World};
use crate::clock::NodeClock;
use crate::config::SimConfig;
use crate::cpu::{CpuModel, Readers, Slowdowns};
use crate::disk::SimDisk;
use crate::fault::Passing;
use crate::handle::NodeStatus;
use crate::history::{DownHow, Fact};
use crate::trace::Kind;

/// The process.
pub(super) enum Process {
    Down,
    Recovering(Box<Recovery>),
    Up(Box<Member>),
}

/// What was last recorded of a member.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct View {
    pub role: Role,
    pub term: u64,
    pub leader: Option<MemberId>,
}

pub struct Node {
    pub id: MemberId,
    pub disk: SimDisk,
    pub clock: NodeClock,
    pub(super) config: Config,
    pub(super) process: Process,
    /// Number of the process: every start and every end gives a new one.
    pub(super) epoch: u32,
    /// The machine has power: it answers unknown connections with a reset.
    pub(super) powered: bool,
    /// Pauses under way: the process goes on when the last of them is over.
    pub(super) pauses: u32,
    /// Its next step came due while it was paused.
    pub(super) held: bool,
    /// Inputs with their payload bytes.
    pub(super) inbox: VecDeque<(Input, u32)>,
    /// A burst is being worked on.
    pub(super) busy: bool,
    /// Boxed: it is taken out and put back for every burst.
    pub(super) out: Box<Outputs>,
    /// True time of the deadline event that counts.
    pub(super) deadline_at: Option<u64>,
    /// When each lane has done what it was given: log, backend, snapshot.
    pub(super) lane_free_at: [u64; 3],
    /// Lanes that are over since an action of theirs failed: nobody knows what the disk holds then.
    pub(super) lane_failed: [bool; 3],
    /// The process ended by itself: it found something wrong.
    pub(super) gave_up: bool,
    pub(super) cpu: CpuModel,
    pub(super) slowdowns: Slowdowns,
    /// When the burst under way is done, as things stand.
    pub(super) burst_done_at: u64,
    pub(super) readers: Readers,
    /// Places of the nodes it wants connections to.
    pub(super) peers: Vec<u32>,
    pub(super) view: View,
    /// Counters and gauges of the process, shared with it.
    pub(super) gauges: Arc<Metrics>,
    /// Metrics as last recorded, in the order of `observe::WATCHED`.
    pub(super) metrics: [u64; WATCHED.len()],
    pub(super) applied: u64,
    pub(super) sampled: u64,
    /// Applied index at which its state was compared last.
    pub(super) compared: u64,
    pub(super) raft: RaftSeen,
    /// Number in its address: that of the member whose place it took.
    pub(super) machine: u64,
    /// Its disk took back what had been durable.
    pub(super) is_damaged: bool,
    /// Removed from the cluster, its disk is gone, or it found that out itself: it never starts again.
    pub(crate) retired: bool,
    /// Everybody it wants connections to; some may not be there yet.
    pub(super) wanted: Vec<MemberId>,
    /// Ids that it refuses as removed.
    pub(super) refuses: BTreeSet<MemberId>,
}

impl Node {
    /// `number`: of the machine's disk, clock and address; of a member that was added, its own.
    pub(super) fn new(
        config: &SimConfig,
        number: u64,
        id: MemberId,
        cluster: u64,
        boot: &[BootMember],
    ) -> Self {
        let mut core = Config::new(id, cluster, boot.to_vec());
        core.profile = config.profile;
        core.client_urls = vec![format!("http://10.0.0.{number}:2379")];
        if let Some(tune) = &config.tune {
            tune(id, &mut core);
        }
        if let Some(version) = config.versions.get(&number) {
            version.apply(&mut core);
        }
        let disk = config.disks.get(&number).unwrap_or(&config.disk).clone();
        let cpu = *config.cpus.get(&number).unwrap_or(&config.cpu);
        let clock = config.clocks.get(&number).copied().unwrap_or_default();
        Self {
            id,
            disk: SimDisk::new(config.seed, number, disk, config.trace.draws),
            clock: NodeClock::new(clock),
            config: core,
            process: Process::Down,
            epoch: 0,
            powered: true,
            pauses: 0,
            held: false,
            inbox: VecDeque::new(),
            busy: false,
            out: Box::default(),
            deadline_at: None,
            lane_free_at: [0; 3],
            lane_failed: [false; 3],
            gave_up: false,
            cpu,
            slowdowns: Slowdowns::default(),
            burst_done_at: 0,
            readers: Readers::new(cpu.readers),
            peers: Vec::new(),
            view: View::default(),
            gauges: Arc::default(),
            metrics: [0; WATCHED.len()],
            applied: 0,
            sampled: 0,
            compared: 0,
            raft: RaftSeen::default(),
            machine: number,
            is_damaged: false,
            retired: false,
            wanted: Vec::new(),
            refuses: BTreeSet::new(),
        }
    }

    /// Number in its address.
    pub(crate) fn machine(&self) -> u64 {
        self.machine
    }

    /// From its next start on it has the present version.
    pub(crate) fn upgrade(&mut self) {
        self.config.version = detkv_core::config::VERSION.to_owned();
        self.config.wire_version = detkv_core::config::WIRE_VERSION;
    }

    /// The member, if it is up (paused or not).
    pub fn member(&self) -> Option<&Member> {
        match &self.process {
            Process::Up(member) => Some(member),
            _ => None,
        }
    }

    /// Stopped as by SIGSTOP.
    pub(crate) fn is_paused(&self) -> bool {
        self.pauses > 0
    }

    pub fn status(&self) -> NodeStatus {
        match &self.process {
            Process::Down => NodeStatus::Down,
            Process::Recovering(_) => NodeStatus::Recovering,
            Process::Up(member) if self.is_paused() => NodeStatus::Paused(member.status()),
            Process::Up(member) => NodeStatus::Up(member.status()),
        }
    }

    /// A connection to it can be made: the process listens, or the kernel does for a paused one.
    pub(super) fn listens(&self) -> bool {
        matches!(self.process, Process::Up(_))
    }
}

/// Outcome of running the member's code.
enum Burst {
    Done { cost_ns: u64 },
    Panicked(String),
}

impl World {
    /// Gives an input to a node that is up.
    pub(super) fn give(&mut self, node: u32, input: Input, bytes: u32) {
        let n = self.node_mut(node);
        if matches!(n.process, Process::Up(_)) {
            n.inbox.push_back((input, bytes));
            self.kick(node);
        }
    }

    /// Starts a burst if the member is free and something waits.
    pub(super) fn kick(&mut self, node: u32) {
        let n = self.node(node);
        let free = !n.busy && !n.is_paused() && !n.inbox.is_empty();
        if !free || !matches!(n.process, Process::Up(_)) {
            return;
        }
        let now = self.now_ns();
        match self.run_burst(node) {
            Burst::Done { cost_ns } => {
                let n = self.node_mut(node);
                n.busy = true;
                let epoch = n.epoch;
                let at = now + cost_ns;
                n.burst_done_at = at;
                self.schedule(at, Event::BurstDone { node, epoch });
            }
            Burst::Panicked(message) => self.on_panic(node, message),
        }
    }

    fn run_burst(&mut self, node: u32) -> Burst {
        let now = self.kernel.now();
        self.probes.enter(self.node(node).id.0);
        let n = self.node_mut(node);
        let (local, cpu) = (n.clock.local(now), n.cpu);
        let Process::Up(member) = &mut n.process else {
            unreachable!("only a member that is up is kicked");
        };
        n.disk.begin(now.ns, now.ns);
        let (mut cost_ns, mut inputs, mut bytes) = (0, 0, 0);
        let (inbox, out) = (&mut n.inbox, &mut n.out);
        let run = AssertUnwindSafe(|| {
            while inputs < BURST_INPUTS_MAX
                && bytes < BURST_BYTES_MAX
                && let Some((input, size)) = inbox.pop_front()
            {
                cost_ns += cpu.input(&input);
                inputs += 1;
                bytes += size as usize;
                member.handle(local, input);
            }
            member.poll(local, out);
        });
        if let Err(panic) = catch_unwind(run) {
            return Burst::Panicked(panic_text(&*panic));
        }
        let applied = n.gauges.proposals_applied_total.load();
        cost_ns += cpu.outputs(out, applied.saturating_sub(n.applied));
        n.applied = applied;
        cost_ns *= n.slowdowns.factor();
        // Reads of core's own from the file are waited for (rules 13).
        cost_ns += n.disk.end() - now.ns;
        Burst::Done { cost_ns }
    }

    pub(super) fn on_burst_done(&mut self, node: u32, epoch: u32) {
        let n = self.node(node);
        // The CPU may have become slower or faster meanwhile: then another event stands for the burst.
        if n.epoch != epoch || n.burst_done_at != self.now_ns() {
            return;
        }
        if n.is_paused() {
            // A stopped process performs nothing: it does when it goes on.
            self.node_mut(node).held = true;
            return;
        }
        // Busy until all is performed: what comes back at once (a drained stream) must not start a burst whose
        // outputs this one would overwrite.
        let passed = self.pass_at_once(node, Passing::Burst);
        if passed == Passed::Ended {
            return;
        }
        self.perform(node);
        self.end_after(node, passed);
        if self.node(node).epoch != epoch {
            return;
        }
        self.node_mut(node).busy = false;
        self.probes.enter(self.node(node).id.0);
        if buggify!("driver.spurious-deadline") {
            self.give(node, Input::Deadline, 0);
        }
        self.observe(node);
        self.arm_deadline(node);
        self.kick(node);
    }

    /// Schedules the next deadline event, unless an earlier one is scheduled: that one looks again.
    pub(super) fn arm_deadline(&mut self, node: u32) {
        let now = self.now_ns();
        let n = self.node(node);
        let Some(deadline) = n.member().and_then(|member| member.next_deadline()) else {
            return;
        };
        let at = n.clock.true_time(deadline).ns.max(now);
        if n.deadline_at.is_some_and(|armed| armed <= at) {
            return;
        }
        let epoch = n.epoch;
        self.node_mut(node).deadline_at = Some(at);
        self.schedule(at, Event::Deadline { node, epoch });
    }

    pub(super) fn on_deadline(&mut self, node: u32, epoch: u32) {
        let now = self.kernel.now();
        let n = self.node_mut(node);
        if n.epoch != epoch || n.deadline_at != Some(now.ns) {
            return;
        }
        n.deadline_at = None;
        let local = n.clock.local(now);
        let due = n.member().and_then(|member| member.next_deadline()).is_some_and(|d| d <= local);
        if due {
            let id = n.id.0;
            self.fold(Kind::Timer, id, |_| {});
            self.give(node, Input::Deadline, 0);
        } else {
            self.arm_deadline(node);
        }
    }

    /// An assertion of core failed: the process is over, and so is the run's good name.
    pub(super) fn on_panic(&mut self, node: u32, message: String) {
        let member = self.node(node).id;
        let at = self.now().ns;
        self.panics.push(format!("member {member} at {at} ns: {message}"));
        self.end_process(node, DownHow::Halted(format!("panic: {message}")));
    }
}

pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

/// The fact of a member's view.
pub(super) fn role_fact(member: MemberId, view: &View) -> Fact {
    Fact::Role { member, role: view.role, term: view.term, leader: view.leader }
}
