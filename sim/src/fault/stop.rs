//! A planned stop, as by SIGTERM: the member hands leadership over and makes everything durable.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stop {
    pub node: Target,
}

impl FaultKind for Stop {
    const NAME: &'static str = "stop";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str = "the process is asked to stop and ends when everything is durable";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"leader\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        world.stop(node);
        Ok(Effect::at_once(member, format!("m{} is asked to stop", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node() })
    }
}
