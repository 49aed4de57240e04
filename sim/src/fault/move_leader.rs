//! An operator moves the leadership to a member.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::{Task, World};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MoveLeader {
    pub node: Target,
}

impl FaultKind for MoveLeader {
    const NAME: &'static str = "move-leader";
    const FAMILY: Family = Family::Cluster;
    const WHAT: &'static str = "the leader is asked to hand over to the node";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"follower\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        world.operate(vec![Task::MoveLeader(member)], false);
        Ok(Effect::at_once(member, format!("leadership is being moved to m{}", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node() })
    }
}
