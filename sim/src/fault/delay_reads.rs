//! The answers to ReadIndex rounds come late: the leader's to a follower, the heartbeat responses with which
//! followers confirm a round to the leader.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DURATION, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::duration;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayReads {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub by: Duration,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for DelayReads {
    const NAME: &'static str = "delay-reads";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str =
        "answers to the node's ReadIndex rounds come late, and all else overtakes them";
    const PARAMETERS: &'static [Parameter] = &[
        Parameter::required("node", "node", "the one that waits for the answers"),
        Parameter::required("by", "duration", "how late they come"),
        DURATION,
    ];
    const EXAMPLE: &'static str = "node = \"leader\", by = \"700ms\", duration = \"10s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        let name = world.read_delays.add(node, self.by);
        let by = duration::format(self.by);
        let what = format!("answers to ReadIndex rounds of m{} come {by} late", member.0);
        Ok(Effect::lasting(Some(member), what, self.duration, move |world| {
            world.read_delays.remove(name);
        }))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let (by, duration) = (draw.millis(10, 3_000), draw.millis(500, 10_000));
        Some(Self { node: draw.node(), by, duration })
    }
}
