//! An operator adds a member on a new machine: a voter at once, or a learner.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, Parameter};
use crate::world::{Task, World};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddMember {
    #[serde(default)]
    pub learner: bool,
}

impl FaultKind for AddMember {
    const NAME: &'static str = "add-member";
    const FAMILY: Family = Family::Cluster;
    const WHAT: &'static str = "a member is added and started with an empty disk on a new machine";
    const PARAMETERS: &'static [Parameter] =
        &[Parameter::optional("learner", "true or false", "false", "added without a vote")];
    const EXAMPLE: &'static str = "learner = true";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let (machine, is_learner) = (world.next_machine(), self.learner);
        world.operate(vec![Task::Add { machine, is_learner }, Task::CatchUp], false);
        let what = if is_learner { "a learner" } else { "a member" };
        Ok(Effect { what: format!("{what} is being added"), ..Effect::default() })
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { learner: draw.chance(50) })
    }
}
