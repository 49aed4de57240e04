//! The disk of a node completes no sync for a while: syncs issued meanwhile complete after it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskStall {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for DiskStall {
    const NAME: &'static str = "disk-stall";
    const FAMILY: Family = Family::Disk;
    const WHAT: &'static str =
        "syncs issued during the stall complete after it; reads and writes go on";
    const PARAMETERS: &'static [Parameter] = &[NODE, DURATION];
    const EXAMPLE: &'static str = "node = \"leader\", duration = \"4s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let now = world.now().ns;
        let until = (world.now() + self.duration).ns;
        // The disk, not the node: that may have another one by then.
        let disk = world.node(node).disk.clone();
        let stall = disk.stall(now, until);
        let member = world.node(node).id;
        let what = format!("disk of m{} stalls", member.0);
        // A stall that ends by itself is over already; one that is healed early ends here.
        Ok(Effect::lasting(Some(member), what, self.duration, move |world| {
            disk.end_stall(stall, world.now().ns);
        }))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node(), duration: draw.millis(20, 4_000) })
    }
}
