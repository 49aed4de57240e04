//! Bits of what is durable flip. A process that runs reads its page cache: it shows when the files are read again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk_rule::PATH;
use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::bounds::within;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BitRot {
    pub node: Target,
    #[serde(default)]
    pub path: String,
    #[serde(default = "one")]
    pub bits: u32,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

fn one() -> u32 {
    1
}

/// More would take the whole file.
const BITS_MAX: u32 = 10_000;

impl FaultKind for BitRot {
    const NAME: &'static str = "bit-rot";
    const FAMILY: Family = Family::Disk;
    const WHAT: &'static str = "bits of durable bytes are flipped; it shows when the process has ended and reads them again";
    const PARAMETERS: &'static [Parameter] = &[
        NODE,
        PATH,
        Parameter::optional(
            "bits",
            "number",
            "1",
            "how many, each at a drawn place of a drawn file",
        ),
        Parameter::required(
            "duration",
            "duration",
            "then what was not overwritten is as before, as from a copy, and a member that gave up is started",
        ),
    ];
    const EXAMPLE: &'static str =
        "node = \"follower\", path = \"*.wal\", bits = 3, duration = \"10s\"";

    fn check(&self) -> Result<(), String> {
        within("bits", self.bits, 1..=BITS_MAX)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        let (fault, at_once) = (u64::from(world.next_fault), !world.is_running(node));
        let places = world.node(node).disk.rot(fault, &self.path, self.bits, at_once);
        let Some((path, offset)) = places.first() else {
            return Err(format!("m{} has no such file that holds anything", member.0));
        };
        let more = if places.len() > 1 { " and elsewhere" } else { "" };
        let what = format!("disk of m{} rots: {path} at byte {offset}{more}", member.0);
        Ok(Effect::lasting(Some(member), what, self.duration, move |world| {
            world.node(node).disk.unrot(fault);
            world.start_if_it_gave_up(node);
        }))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let path = draw.pick(&["", "", "*.wal", "*.snap", "db"]).to_owned();
        let bits = draw.number(1, 8) as u32;
        Some(Self { node: draw.expendable()?, path, bits, duration: draw.millis(500, 10_000) })
    }
}
