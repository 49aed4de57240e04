//! A member of an older version (`[versions]`) is restarted with the present one.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upgrade {
    pub node: Target,
}

impl FaultKind for Upgrade {
    const NAME: &'static str = "upgrade";
    const FAMILY: Family = Family::Cluster;
    const WHAT: &'static str = "the process is killed and started with the present version";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"m2\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        world.kill(node);
        world.node_mut(node).upgrade();
        world.start(node);
        Ok(Effect::at_once(member, format!("m{} is upgraded", member.0)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node() })
    }
}
