//! Starts a node that is down; a node that runs is killed first.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    pub node: Target,
}

impl FaultKind for Restart {
    const NAME: &'static str = "restart";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str = "the process is started; one that runs is killed first";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"m1\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        world.kill(node);
        world.start(node);
        Ok(Effect::at_once(member, format!("m{} is started", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node() })
    }
}
