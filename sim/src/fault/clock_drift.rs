//! A node's clock runs fast or slow for a while; what it has gained or lost by then stays.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::bounds::within;
use crate::clock::DRIFT_PPM_MAX as PPM_MAX;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockDrift {
    pub node: Target,
    pub ppm: i32,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for ClockDrift {
    const NAME: &'static str = "clock-drift";
    const FAMILY: Family = Family::Clock;
    const WHAT: &'static str = "the node's clock runs fast or slow on top of its own drift";
    const PARAMETERS: &'static [Parameter] = &[
        NODE,
        Parameter::required("ppm", "number, parts in a million", "how much fast; negative is slow"),
        DURATION,
    ];
    const EXAMPLE: &'static str = "node = \"leader\", ppm = -500, duration = \"30s\"";

    fn check(&self) -> Result<(), String> {
        within("ppm", self.ppm, -PPM_MAX..=PPM_MAX)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let (member, ppm) = (world.node(node).id, self.ppm);
        // Several at once must not make it stand still.
        if world.node(node).clock.drift_ppm() + ppm.unsigned_abs() > 5 * PPM_MAX.unsigned_abs() {
            return Err(format!("the clock of m{} runs wildly already", member.0));
        }
        world.drift_clock(node, ppm);
        let what = format!("clock of m{} runs by {ppm} ppm faster", member.0);
        Ok(Effect::lasting(Some(member), what, self.duration, move |world| {
            world.drift_clock(node, -ppm);
        }))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let ppm = draw.number(10, 20_000) as i32;
        let ppm = if draw.chance(50) { ppm } else { -ppm };
        Some(Self { node: draw.node(), ppm, duration: draw.millis(500, 15_000) })
    }
}
