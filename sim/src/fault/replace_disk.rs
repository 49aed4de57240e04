//! A machine's disk is exchanged: the member is removed and a new one is added at its address.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::{Task, World};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceDisk {
    pub node: Target,
}

impl FaultKind for ReplaceDisk {
    const NAME: &'static str = "replace-disk";
    const FAMILY: Family = Family::Cluster;
    const WHAT: &'static str =
        "the disk is lost; the member is removed and one with a new id added at its address";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"follower\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        world.may_take_disk(node)?;
        let (member, machine) = (world.node(node).id, world.node(node).machine());
        world.take_disk(node);
        let add = Task::Add { machine, is_learner: false };
        world.operate(vec![Task::Remove(member), add, Task::CatchUp], true);
        Ok(Effect::at_once(member, format!("m{} loses its disk and is replaced", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let node = draw.expendable()?;
        Some(Self { node })
    }
}
