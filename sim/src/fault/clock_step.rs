//! A node's clock is stepped, forward or back.

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::bounds::within;
use crate::duration::LONGEST;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockStep {
    pub node: Target,
    pub milliseconds: i64,
}

/// As far as any duration: every tick that a clock jumps over is one that the member makes up for.
const FARTHEST_MS: i64 = LONGEST.as_millis() as i64;

impl FaultKind for ClockStep {
    const NAME: &'static str = "clock-step";
    const FAMILY: Family = Family::Clock;
    const WHAT: &'static str = "the node's clock jumps";
    const PARAMETERS: &'static [Parameter] =
        &[NODE, Parameter::required("milliseconds", "number", "how far; negative is back")];
    const EXAMPLE: &'static str = "node = \"m2\", milliseconds = -500";

    fn check(&self) -> Result<(), String> {
        within("milliseconds", self.milliseconds, -FARTHEST_MS..=FARTHEST_MS)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let ns = self.milliseconds.checked_mul(1_000_000).ok_or("too far")?;
        world.step_clock(node, ns);
        let member = world.node(node).id;
        let what = format!("clock of m{} jumps by {} ms", member.0, self.milliseconds);
        Ok(Effect::at_once(member, what))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let far = draw.number(1, 5_000) as i64;
        let milliseconds = if draw.chance(50) { far } else { -far };
        Some(Self { node: draw.node(), milliseconds })
    }
}
