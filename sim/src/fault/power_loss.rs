//! The machine loses power: un-synced writes are kept, lost or torn; its connections stay half open.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PowerLoss {
    pub node: Target,
}

impl FaultKind for PowerLoss {
    const NAME: &'static str = "power-loss";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str =
        "the machine goes dark; un-synced writes and names are kept, lost or torn";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"leader\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        let report = world.power_loss(node);
        let what = format!(
            "m{} loses power: un-synced writes {} kept, {} lost, {} torn, {} names lost",
            member.0, report.kept, report.lost, report.torn, report.names_lost
        );
        Ok(Effect::at_once(member, what))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node() })
    }
}
