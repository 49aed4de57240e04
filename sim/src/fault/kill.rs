//! The process ends between two events, as by SIGKILL: what it wrote stays in the page cache.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kill {
    pub node: Target,
}

impl FaultKind for Kill {
    const NAME: &'static str = "kill";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str = "the process ends; its memory is lost, what it wrote is not";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"follower\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        world.kill(node);
        Ok(Effect::at_once(member, format!("m{} is killed", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node() })
    }
}
