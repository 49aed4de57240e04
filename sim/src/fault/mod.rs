//! Faults: one file per kind.
//!
//! A kind is a struct with its parameters and an implementation of [`FaultKind`]; the list at
//! `faults!` below is the registry. To add one: a file, a line there. `draw` gives it to the swarm.
//!
//! In a scenario file or trace a fault is a table: `{ kind = "disk-stall", node = "leader", duration = "4s" }`.

use std::time::Duration;

use detkv_core::MemberId;
use serde::{Deserialize, Serialize};

mod clock_step;
mod disk_stall;
mod draw;
mod kill;
mod partition;
mod pause;
mod power_loss;
mod restart;
mod stop;
mod target;

pub use clock_step::ClockStep;
pub use disk_stall::DiskStall;
pub use draw::Draw;
pub use kill::Kill;
pub use partition::{Direction, Partition};
pub use pause::Pause;
pub use power_loss::PowerLoss;
pub use restart::Restart;
pub use stop::Stop;
pub use target::Target;

use crate::history::{Event, Fact};
use crate::trace::Decision;
use crate::world::{self, World};

/// Name and meaning of a parameter.
pub type Parameter = (&'static str, &'static str);

/// One kind of fault.
pub trait FaultKind {
    const NAME: &'static str;
    /// One line: what happens.
    const WHAT: &'static str;
    const PARAMETERS: &'static [Parameter];

    /// Takes effect. Errors: why it cannot (no such node, no leader): the fault is then skipped.
    fn begin(&self, world: &mut World) -> Result<Effect, String>;

    /// Parameters for a swarm run; `None` where it makes no sense, as a partition of one member.
    ///
    /// One that takes bytes that were durable goes to [`Draw::expendable`] only: a run that lost the
    /// copies of a quorum could claim nothing any more.
    fn draw(draw: &mut Draw) -> Option<Self>
    where
        Self: Sized;
}

/// Takes a fault back.
type Undo = Box<dyn FnOnce(&mut World)>;

/// What a fault did.
#[derive(Default)]
pub struct Effect {
    /// The member that it is about, if it is one.
    pub member: Option<MemberId>,
    /// Reads as a line of the story.
    pub what: String,
    /// How long it lasts; nothing for what happens at once.
    pub lasts: Option<Duration>,
    /// Takes it back.
    pub undo: Option<Undo>,
}

impl Effect {
    /// Something that happened at once to a member.
    fn at_once(member: MemberId, what: impl Into<String>) -> Self {
        Self { member: Some(member), what: what.into(), ..Self::default() }
    }
}

/// A fault that lasts.
pub struct Active {
    number: u32,
    undo: Undo,
}

/// A line of the registry.
#[derive(Clone, Copy, Debug)]
pub struct KindInfo {
    pub name: &'static str,
    pub what: &'static str,
    pub parameters: &'static [Parameter],
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
                what: $kind::WHAT,
                parameters: $kind::PARAMETERS,
            },)*];

            pub fn name(&self) -> &'static str {
                match self {
                    $(Fault::$kind(_) => $kind::NAME,)*
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

faults!(DiskStall, Kill, PowerLoss, Restart, Stop, Pause, Partition, ClockStep);

impl World {
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
        let Effect { member, what, lasts, undo } = effect;
        self.decide(|| Decision::Fault { at_ns, fault, target: member.map(|id| id.0) });
        self.record_begin(number, what, member);
        if let Some(undo) = undo {
            self.active_faults.push(Active { number, undo });
        }
        if let Some(lasts) = lasts {
            let at = (self.now() + lasts).ns;
            self.schedule(at, world::Event::FaultEnd { fault: number });
        }
    }

    fn record_begin(&mut self, fault: u32, what: String, member: Option<MemberId>) {
        self.record(Event::Fact(Fact::FaultBegan { fault, what, member }));
    }

    /// A fault's time is over, unless it was healed before.
    pub(crate) fn on_fault_end(&mut self, number: u32) {
        if let Some(place) = self.active_faults.iter().position(|fault| fault.number == number) {
            let Active { undo, .. } = self.active_faults.remove(place);
            undo(self);
            self.record(Event::Fact(Fact::FaultEnded { fault: number }));
        }
    }

    /// Ends every fault and starts every node that is down.
    pub fn heal_all(&mut self) {
        let at_ns = self.now().ns;
        self.decide(|| Decision::HealAll { at_ns });
        while let Some(Active { number, undo }) = self.active_faults.pop() {
            undo(self);
            self.record(Event::Fact(Fact::FaultEnded { fault: number }));
        }
        for node in 0..self.nodes.len() as u32 {
            self.resume(node);
            self.start(node);
        }
    }
}
