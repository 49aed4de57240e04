//! A machine comes back with an empty disk. It must not be the member it was: it joins under a new
//! id, as a learner first, and gets a vote when it has caught up.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::{Task, World};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WipeDisk {
    pub node: Target,
}

impl FaultKind for WipeDisk {
    const NAME: &'static str = "wipe-disk";
    const FAMILY: Family = Family::Cluster;
    const WHAT: &'static str =
        "power and disk are lost; it restarts empty under a new id, first as a learner";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"follower\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        world.may_take_disk(node)?;
        let (member, machine) = (world.node(node).id, world.node(node).machine());
        world.power_loss(node);
        world.take_disk(node);
        let add = Task::Add { machine, is_learner: true };
        let todo = vec![Task::Remove(member), add, Task::CatchUp, Task::Promote(None)];
        world.operate(todo, true);
        Ok(Effect::at_once(member, format!("m{} loses power and disk and joins anew", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let node = draw.expendable()?;
        Some(Self { node })
    }
}
