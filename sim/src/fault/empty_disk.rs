//! A member is started again under its old id on an empty disk, as when its volume was lost and somebody did not
//! remove it from the cluster first.
//!
//! Raft cannot survive this in general, as with an older image (`swap-disk`), and what is promised is the same: while
//! a leader remembers what the member had acknowledged, the member stops and says why. The right way is
//! `replace-disk`: removed, and a new member in its place.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::disk::DiskImage;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmptyDisk {
    pub node: Target,
}

impl FaultKind for EmptyDisk {
    const NAME: &'static str = "empty-disk";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str =
        "the member is killed, its disk is emptied, and it is started as if nothing had been";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"follower\"";
    const IS_SURVIVABLE: bool = false;

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        world.kill(node);
        world.node(node).disk.restore(DiskImage::empty());
        world.note_disk_damage(node);
        world.start(node);
        Ok(Effect::at_once(member, format!("m{} starts on an empty disk", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.expendable()? })
    }
}
