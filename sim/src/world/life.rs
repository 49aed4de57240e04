//! Life of a process: start, recovery, kill, power loss, pause, planned stop.

use std::panic::{AssertUnwindSafe, catch_unwind};

use detkv_core::event::Input;
use detkv_core::{Halt, OpenError, Recovery, RecoveryStep};
use rand_core::Rng;

use super::node::{Process, View, panic_text};
use super::{Event, World};
use crate::disk::CrashReport;
use crate::fault::Passing;
use crate::history::{self, ClientId, DownHow, Fact};
use crate::net::Endpoint;
use crate::rng::stream;
use crate::trace::Kind;

/// After the faults: pause before a process that ended is started again.
const SUPERVISOR_NS: u64 = 1_000_000_000;

/// A burst of milliseconds then takes hours: no more makes sense, and sums of costs stay far from overflow.
const CPU_FACTOR_MAX: u64 = 1_000_000;

/// A pause under way.
#[derive(Clone, Copy, Debug)]
pub struct Pausing {
    node: u32,
    epoch: u32,
}

impl World {
    /// Starts the process of a node that is down. Does nothing to one that runs.
    pub fn start(&mut self, node: u32) {
        let seed = self.config.seed;
        let n = self.node_mut(node);
        if !matches!(n.process, Process::Down) || n.retired {
            return;
        }
        n.epoch += 1;
        n.powered = true;
        n.gave_up = false;
        let member = n.id;
        // Each process has random numbers of its own, as a real one has.
        let mut names = stream(seed, member.0, "process");
        let member_seed = (0..n.epoch).map(|_| names.next_u64()).last().expect("epochs begin at 1");
        match Recovery::new(n.config.clone(), n.disk.files(), member_seed) {
            Ok(recovery) => {
                n.process = Process::Recovering(Box::new(recovery));
                let (epoch, now) = (n.epoch, self.now_ns());
                self.schedule(now, Event::Recover { node, epoch });
                self.fact(Fact::Recovering { member });
            }
            Err(error) => self.end_process(node, DownHow::OpenFailed(error.to_string())),
        }
    }

    fn fact(&mut self, fact: Fact) {
        self.record(history::Event::Fact(fact));
    }

    /// One step of recovery; the next one comes when its work is done.
    pub(super) fn on_recover(&mut self, node: u32, epoch: u32) {
        let now = self.kernel.now();
        self.probes.enter(self.node(node).id.0);
        let n = self.node_mut(node);
        if n.epoch != epoch {
            return;
        }
        if n.is_paused() {
            n.held = true;
            return;
        }
        let Process::Recovering(recovery) = &mut n.process else {
            return;
        };
        let local = n.clock.local(now);
        n.disk.begin(now.ns, now.ns);
        let step = catch_unwind(AssertUnwindSafe(|| recovery.step(local)));
        let done_at = n.disk.end();
        match step {
            Ok(step) => self.on_recovery_step(node, step, done_at),
            Err(panic) => self.on_panic(node, panic_text(&*panic)),
        }
    }

    fn on_recovery_step(&mut self, node: u32, step: Result<RecoveryStep, OpenError>, done_at: u64) {
        let now = self.now_ns();
        let (id, epoch) = (self.node(node).id.0, self.node(node).epoch);
        self.fold(Kind::Recovery, id, |out| out.extend_from_slice(&done_at.to_le_bytes()));
        self.pass(node, Passing::Recovery, now, done_at);
        match step {
            Ok(RecoveryStep::Perform(ops)) => {
                let mut at = done_at;
                for op in &ops {
                    match self.node(node).disk.perform(now, at, &op.action) {
                        Ok(done) => {
                            self.pass_action(node, &op.action, at, done);
                            at = done;
                        }
                        Err(error) => {
                            return self.end_process(node, DownHow::OpenFailed(error.to_string()));
                        }
                    }
                }
                self.schedule(at, Event::Recover { node, epoch });
            }
            Ok(RecoveryStep::Read { .. }) => self.schedule(done_at, Event::Recover { node, epoch }),
            Ok(RecoveryStep::Ready(member)) => {
                let n = self.node_mut(node);
                n.gauges = member.metrics();
                n.process = Process::Up(member);
                n.lane_free_at = [done_at; 3];
                n.busy = false;
                let member = n.id;
                self.fact(Fact::Up { member });
                self.observe_raft(node);
                self.give(node, Input::Deadline, 0);
            }
            Err(error) => self.end_process(node, DownHow::OpenFailed(error.to_string())),
        }
    }

    /// Whether there is a process, in whatever state.
    pub fn is_running(&self, node: u32) -> bool {
        !matches!(self.node(node).process, Process::Down)
    }

    /// Starts a node whose process stopped because it found something wrong, as a supervisor does.
    pub fn start_if_it_gave_up(&mut self, node: u32) {
        if self.node(node).gave_up {
            self.start(node);
        }
    }

    /// The process ends between two events: what it wrote stays in the page cache.
    pub fn kill(&mut self, node: u32) {
        if !matches!(self.node(node).process, Process::Down) {
            self.end_process(node, DownHow::Killed);
        }
    }

    /// The machine loses power. A machine whose process is down may lose it too.
    pub fn power_loss(&mut self, node: u32) -> CrashReport {
        let now = self.now_ns();
        self.node_mut(node).powered = false;
        if !matches!(self.node(node).process, Process::Down) {
            self.end_process(node, DownHow::PowerLoss);
        }
        let report = self.node(node).disk.power_loss(now);
        if report.lied > 0 {
            self.note_disk_damage(node);
        }
        let id = self.node(node).id.0;
        self.fold(Kind::Disk, id, |out| {
            for n in [report.kept, report.lost, report.torn, report.names_lost] {
                out.extend_from_slice(&n.to_le_bytes());
            }
        });
        report
    }

    /// Stops the process as SIGSTOP does: the disk and the network go on. `None`, and nothing is done, where there is
    /// none.
    pub fn pause(&mut self, node: u32) -> Option<Pausing> {
        let n = self.node_mut(node);
        if matches!(n.process, Process::Down) {
            return None;
        }
        n.pauses += 1;
        let (member, epoch, is_first) = (n.id, n.epoch, n.pauses == 1);
        if is_first {
            self.fact(Fact::Paused { member });
        }
        Some(Pausing { node, epoch })
    }

    /// One pause is over, unless the process is; it goes on when no other lasts.
    pub fn end_pause(&mut self, Pausing { node, epoch }: Pausing) {
        let n = self.node_mut(node);
        if n.epoch != epoch {
            return;
        }
        n.pauses -= 1;
        if n.is_paused() {
            return;
        }
        let (member, epoch) = (n.id, n.epoch);
        let held = std::mem::take(&mut n.held);
        let recovering = matches!(n.process, Process::Recovering(_));
        self.fact(Fact::Resumed { member });
        let now = self.now_ns();
        if held {
            self.node_mut(node).burst_done_at = now;
            let recover = Event::Recover { node, epoch };
            let done = Event::BurstDone { node, epoch };
            self.schedule(now, if recovering { recover } else { done });
        }
        self.kick(node);
    }

    /// Asks the member to stop as SIGTERM does.
    pub fn stop(&mut self, node: u32) {
        self.give(node, Input::Stop, 0);
    }

    /// Moves a node's clock; its deadlines are looked at again.
    pub fn step_clock(&mut self, node: u32, ns: i64) {
        let now = self.now();
        let n = self.node_mut(node);
        n.clock.step(now, ns);
        n.deadline_at = None;
        let member = n.id;
        self.fact(Fact::ClockStepped { member, ns });
        self.arm_deadline(node);
    }

    /// Makes a node's clock run faster by so much on top of how it runs.
    pub fn drift_clock(&mut self, node: u32, ppm: i32) {
        let now = self.now();
        let n = self.node_mut(node);
        n.clock.drift(now, ppm);
        n.deadline_at = None;
        let drift_ppm = n.clock.drift_ppm();
        self.history.note_drift(drift_ppm);
        self.arm_deadline(node);
    }

    /// Makes everything on a node's CPU cost so many times as much until then. Returns false, and does nothing, where
    /// several at once would come to more than [`CPU_FACTOR_MAX`].
    pub fn slow_cpu(&mut self, node: u32, factor: u64, until: u64) -> bool {
        let n = self.node_mut(node);
        if n.slowdowns.factor().saturating_mul(factor) > CPU_FACTOR_MAX {
            return false;
        }
        n.slowdowns.push(factor, until);
        self.stretch_burst(node, factor, 1);
        true
    }

    /// Ends one slowdown. A backend job that began meanwhile keeps its time: redb has run already.
    pub fn unslow_cpu(&mut self, node: u32, factor: u64, until: u64) {
        self.node_mut(node).slowdowns.remove(factor, until);
        self.stretch_burst(node, 1, factor);
    }

    /// What is left of the burst under way takes `times` / `of` as long.
    fn stretch_burst(&mut self, node: u32, times: u64, of: u64) {
        let now = self.now_ns();
        let n = self.node_mut(node);
        if n.busy && n.burst_done_at > now {
            n.burst_done_at = now + (n.burst_done_at - now) * times / of;
            let (at, epoch) = (n.burst_done_at, n.epoch);
            self.schedule(at, Event::BurstDone { node, epoch });
        }
    }

    /// Cuts one direction of a link.
    pub fn cut(&mut self, from: Endpoint, to: Endpoint) {
        let now = self.now_ns();
        self.net.cut(now, from, to);
    }

    /// Ends one cut; what was held up goes on its way.
    pub fn mend(&mut self, from: Endpoint, to: Endpoint) {
        let now = self.now_ns();
        if let Some((link, at)) = self.net.mend(now, from, to) {
            self.schedule(at, Event::Serve(link));
        }
        if self.net.is_cut(from, to) {
            return;
        }
        match (from, to) {
            (Endpoint::Node(a), Endpoint::Node(b)) => self.trust(a, b),
            (Endpoint::Client(client), Endpoint::Node(node))
            | (Endpoint::Node(node), Endpoint::Client(client)) => {
                self.trust_client(ClientId(client), node);
            }
            (Endpoint::Client(_), Endpoint::Client(_)) => {}
        }
    }

    pub(super) fn on_halt(&mut self, node: u32, halt: Halt) {
        match halt {
            // Core made everything durable first, so what closing the file would write is not needed.
            Halt::Stopped => self.end_process(node, DownHow::Stopped),
            Halt::Removed => {
                self.node_mut(node).retired = true;
                self.end_process(node, DownHow::Halted(Halt::Removed.to_string()));
            }
            halt => self.end_process(node, DownHow::Halted(halt.to_string())),
        }
    }

    /// Whatever the reason: the process is gone, with its memory, connections and un-done writes.
    pub(super) fn end_process(&mut self, node: u32, how: DownHow) {
        let again = self.is_healed && !matches!(how, DownHow::Killed | DownHow::PowerLoss);
        self.observe_end(node);
        let now = self.now_ns();
        let n = self.node_mut(node);
        n.disk.kill(now);
        n.epoch += 1;
        // After the disk has turned away from it: nothing that a drop writes gets through.
        n.process = Process::Down;
        n.inbox.clear();
        *n.out = Default::default();
        (n.busy, n.pauses, n.held, n.deadline_at) = (false, 0, false, None);
        n.lane_free_at = [now; 3];
        n.lane_failed = [false; 3];
        n.gave_up = matches!(how, DownHow::Halted(_) | DownHow::OpenFailed(_));
        // No fault is left that it could mean: its disk is not what it was, and no operator starts it again and again.
        n.retired |= again && n.gave_up && n.is_damaged;
        n.peers.clear();
        n.wanted.clear();
        n.refuses.clear();
        n.view = View::default();
        n.metrics = Default::default();
        (n.applied, n.sampled, n.compared) = (0, 0, 0);
        let member = n.id;
        self.drop_peer_conns(node);
        self.drop_client_conns(node);
        self.fact(Fact::Down { member, how });
        if again {
            let (at, epoch) = (now + SUPERVISOR_NS, self.node(node).epoch);
            self.schedule(at, Event::Start { node, epoch });
        }
    }
}
