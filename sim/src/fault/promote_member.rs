//! An operator makes the learner a voter, as soon as the cluster lets them.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, Parameter};
use crate::world::{Task, World};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromoteMember {}

impl FaultKind for PromoteMember {
    const NAME: &'static str = "promote-member";
    const FAMILY: Family = Family::Cluster;
    const WHAT: &'static str =
        "the learner, if there is one, becomes a voter once it has caught up";
    const PARAMETERS: &'static [Parameter] = &[];
    const EXAMPLE: &'static str = "";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        world.operate(vec![Task::Promote(None)], false);
        Ok(Effect { what: "the learner is being promoted".to_owned(), ..Effect::default() })
    }

    fn draw(_: &mut Draw) -> Option<Self> {
        Some(Self {})
    }
}
