//! Faults: one file per kind.
//!
//! A kind is a struct with its parameters and an implementation of [`FaultKind`]; the list at
//! `faults!` below is the registry. To add one: a file, a line there. `draw` gives it to the swarm.
//!
//! In a scenario file or trace a fault is a table: `{ kind = "disk-stall", node = "leader", duration = "4s" }`.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

mod add_member;
mod bit_rot;
mod bridge;
mod clock_drift;
mod clock_step;
mod connect_hang;
mod cpu_slow;
mod delay_reads;
mod disk_error;
mod disk_full;
mod disk_rule;
mod disk_stall;
mod draw;
mod empty_disk;
mod fsync_fails_clean;
mod isolate_peers;
mod kill;
mod kill_at;
mod kind;
mod link_bandwidth;
mod link_duplicate;
mod link_flap;
mod link_loss;
mod link_reorder;
mod link_slow;
mod links;
mod lost_write;
mod misdirected_write;
mod move_leader;
mod partial_partition;
mod partition;
mod pause;
mod power_loss;
mod promote_member;
mod read_error;
mod remove_member;
mod replace_disk;
mod restart;
mod ring;
mod site;
mod stop;
mod swap_disk;
mod target;
mod torn_write;

pub use bit_rot::BitRot;
mod upgrade;
mod wipe_disk;

pub use add_member::AddMember;
pub use bridge::Bridge;
pub use clock_drift::ClockDrift;
pub use clock_step::ClockStep;
pub use connect_hang::ConnectHang;
pub use cpu_slow::CpuSlow;
pub use delay_reads::DelayReads;
pub use disk_error::DiskError;
pub use disk_full::DiskFull;
pub use disk_stall::DiskStall;
pub use draw::Draw;
pub use empty_disk::EmptyDisk;
pub use fsync_fails_clean::FsyncFailsClean;
pub use isolate_peers::IsolatePeers;
pub use kill::Kill;
pub use kill_at::KillAt;
use kind::{DURATION, NODE, Step, Undo};
pub use kind::{Effect, Family, FaultKind, KindInfo, Parameter};
pub use link_bandwidth::LinkBandwidth;
pub use link_duplicate::LinkDuplicate;
pub use link_flap::LinkFlap;
pub use link_loss::LinkLoss;
pub use link_reorder::LinkReorder;
pub use link_slow::LinkSlow;
pub use lost_write::LostWrite;
pub use misdirected_write::MisdirectedWrite;
pub use move_leader::MoveLeader;
pub use partial_partition::PartialPartition;
pub use partition::{Direction, Partition};
pub use pause::Pause;
pub use power_loss::PowerLoss;
pub use promote_member::PromoteMember;
pub use read_error::ReadError;
pub use remove_member::RemoveMember;
pub use replace_disk::ReplaceDisk;
pub use restart::Restart;
pub use ring::Ring;
pub use site::{Passing, Site, What, When};
pub use stop::Stop;
pub use swap_disk::SwapDisk;
pub use target::Target;
pub use torn_write::TornWrite;
pub use upgrade::Upgrade;
pub use wipe_disk::WipeDisk;

use crate::history::{Event, Fact};
use crate::rng::stream;
use crate::trace::Decision;
use crate::world::{self, World};

/// A fault that lasts.
pub struct Active {
    number: u32,
    undo: Undo,
    step: Option<Step>,
}

macro_rules! faults {
    ($($kind:ident),* $(,)?) => {
        /// One fault with its parameters.
        #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "kebab-case")]
        pub enum Fault {
            $($kind($kind),)*
        }

        impl Fault {
            /// Every kind there is.
            pub const KINDS: &'static [KindInfo] = &[$(KindInfo {
                name: $kind::NAME,
                family: $kind::FAMILY,
                what: $kind::WHAT,
                parameters: $kind::PARAMETERS,
                example: $kind::EXAMPLE,
                survivable: $kind::IS_SURVIVABLE,
            },)*];

            pub fn name(&self) -> &'static str {
                match self {
                    $(Fault::$kind(_) => $kind::NAME,)*
                }
            }

            /// Whether the parameters make sense together.
            ///
            /// Errors: which one does not, in backquotes, and what was expected.
            pub fn check(&self) -> Result<(), String> {
                match self {
                    $(Fault::$kind(kind) => kind.check(),)*
                }
            }

            /// False where the disk lies about what is durable: no store keeps its promises then.
            pub fn is_survivable(&self) -> bool {
                match self {
                    $(Fault::$kind(_) => $kind::IS_SURVIVABLE,)*
                }
            }

            /// A fault of the named kind with drawn parameters.
            pub fn draw(kind: &str, draw: &mut Draw) -> Option<Self> {
                match kind {
                    $($kind::NAME => $kind::draw(draw).map(Fault::$kind),)*
                    _ => None,
                }
            }

            fn begin(&self, world: &mut World) -> Result<Effect, String> {
                match self {
                    $(Fault::$kind(kind) => kind.begin(world),)*
                }
            }
        }

        $(impl From<$kind> for Fault {
            fn from(kind: $kind) -> Self {
                Fault::$kind(kind)
            }
        })*
    };
}

faults! {
    // Disk
    DiskStall, DiskFull, DiskError, ReadError, FsyncFailsClean, BitRot, LostWrite, TornWrite, MisdirectedWrite,
    // Network
    Partition, PartialPartition, IsolatePeers, Bridge, Ring,
    LinkSlow, LinkLoss, LinkDuplicate, LinkReorder, LinkBandwidth, LinkFlap, ConnectHang, DelayReads,
    // Process
    Kill, KillAt, PowerLoss, Restart, Stop, Pause, SwapDisk, EmptyDisk,
    // CPU
    CpuSlow,
    // Clock
    ClockStep, ClockDrift,
    // Cluster
    AddMember, PromoteMember, RemoveMember, ReplaceDisk, WipeDisk, MoveLeader, Upgrade,
}

impl World {
    /// A stream for what the fault that begins now draws.
    fn fault_rng(&self, kind: &str) -> ChaCha8Rng {
        stream(self.config.seed, u64::from(self.next_fault), &format!("fault {kind}"))
    }

    /// Performs a fault now. One that cannot be performed is recorded as skipped.
    pub fn inject(&mut self, fault: Fault) {
        let number = self.next_fault;
        self.next_fault += 1;
        let at_ns = self.now().ns;
        let effect = match fault.begin(self) {
            Ok(effect) => effect,
            Err(why) => {
                let what = format!("{} skipped: {why}", fault.name());
                self.decide(|| Decision::Fault { at_ns, fault, target: None });
                return self.record_begin(number, what, None);
            }
        };
        let Effect { member, what, lasts, undo, steps } = effect;
        let target = member.map(|id| self.number(id));
        self.decide(|| Decision::Fault { at_ns, fault, target });
        self.record_begin(number, what, member);
        let (first, step) = steps.unzip();
        if undo.is_some() || step.is_some() {
            let undo = undo.unwrap_or_else(|| Box::new(|_| {}));
            self.active_faults.push(Active { number, undo, step });
        }
        if let Some(first) = first {
            let at = (self.now() + first).ns;
            self.schedule(at, world::Event::FaultStep { fault: number });
        }
        if let Some(lasts) = lasts {
            let at = (self.now() + lasts).ns;
            self.schedule(at, world::Event::FaultEnd { fault: number });
        }
    }

    fn record_begin(&mut self, fault: u32, what: String, member: Option<detkv_core::MemberId>) {
        let what = self.with_numbers(what);
        self.record(Event::Fact(Fact::FaultBegan { fault, what, member }));
    }

    /// Members that were added are known by their number too: `m4`, not `m8371…`.
    pub(crate) fn with_numbers(&self, what: String) -> String {
        let added =
            self.nodes.iter().enumerate().filter(|(place, node)| node.id.0 != *place as u64 + 1);
        added.fold(what, |what, (place, node)| {
            let number = format!("m{}", place + 1);
            what.replace(&format!("m{}", node.id.0), &number)
                .replace(&format!("m{}", node.id), &number)
        })
    }

    /// A fault's time is over, unless it was healed before.
    pub(crate) fn on_fault_end(&mut self, number: u32) {
        if let Some(place) = self.active_faults.iter().position(|fault| fault.number == number) {
            let Active { undo, .. } = self.active_faults.remove(place);
            undo(self);
            self.record(Event::Fact(Fact::FaultEnded { fault: number }));
        }
    }

    /// The next step of a fault is due, unless it is over.
    pub(crate) fn on_fault_step(&mut self, number: u32) {
        let Some(place) = self.active_faults.iter().position(|fault| fault.number == number) else {
            return;
        };
        let Some(mut step) = self.active_faults[place].step.take() else { return };
        let Some(again) = step(self) else { return };
        // A step may end faults: look it up again.
        if let Some(fault) = self.active_faults.iter_mut().find(|fault| fault.number == number) {
            fault.step = Some(step);
            let at = (self.now() + again).ns;
            self.schedule(at, world::Event::FaultStep { fault: number });
        }
    }

    /// Ends every fault, those in the code too, and every bad period of a disk, and starts every node that is down.
    /// From here on a supervisor starts what ends later for a reason of before: a planned stop that was under way, a
    /// disk error that comes to light.
    pub fn heal_all(&mut self) {
        self.is_healed = true;
        detkv_core::probe::end_faults();
        let at_ns = self.now().ns;
        self.decide(|| Decision::HealAll { at_ns });
        self.hold_operators();
        while let Some(Active { number, undo, .. }) = self.active_faults.pop() {
            undo(self);
            self.record(Event::Fact(Fact::FaultEnded { fault: number }));
        }
        for node in 0..self.nodes.len() as u32 {
            self.node(node).disk.calm();
            self.start(node);
        }
    }
}
