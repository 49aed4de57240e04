//! An operator removes a member from the cluster, for good.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::{Task, World};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveMember {
    pub node: Target,
}

impl FaultKind for RemoveMember {
    const NAME: &'static str = "remove-member";
    const FAMILY: Family = Family::Cluster;
    const WHAT: &'static str = "the member is removed and stops; a leader hands over first";
    const PARAMETERS: &'static [Parameter] = &[NODE];
    const EXAMPLE: &'static str = "node = \"leader\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        // The last three go only in a run that says so by asking for fewer members.
        if world.voters().len() <= 2 {
            return Err(format!("there are {} voters only", world.voters().len()));
        }
        world.operate(vec![Task::Remove(member)], false);
        Ok(Effect::at_once(member, format!("m{} is being removed", member.0)))
    }

    /// Only where a majority is left when another member is down.
    fn draw(draw: &mut Draw) -> Option<Self> {
        let node = draw.expendable()?;
        Some(Self { node })
    }
}
