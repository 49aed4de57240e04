//! The node's CPU is slow, as on a machine that others load: everything costs a multiple.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::at_least_one;
use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CpuSlow {
    pub node: Target,
    pub factor: u32,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for CpuSlow {
    const NAME: &'static str = "cpu-slow";
    const FAMILY: Family = Family::Cpu;
    const WHAT: &'static str = "whatever the node's CPU does takes a multiple of its time";
    const PARAMETERS: &'static [Parameter] =
        &[NODE, Parameter::required("factor", "number", "so many times as long"), DURATION];
    const EXAMPLE: &'static str = "node = \"leader\", factor = 20, duration = \"5s\"";

    fn check(&self) -> Result<(), String> {
        at_least_one("factor", u64::from(self.factor))
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let factor = u64::from(self.factor);
        let member = world.node(node).id;
        let until = (world.now() + self.duration).ns;
        if !world.slow_cpu(node, factor, until) {
            return Err(format!("the CPU of m{} does next to nothing already", member.0));
        }
        let what = format!("CPU of m{} is {factor} times as slow", member.0);
        Ok(Effect::lasting(Some(member), what, self.duration, move |world| {
            world.unslow_cpu(node, factor, until);
        }))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let factor = draw.number(2, 500) as u32;
        Some(Self { node: draw.node(), factor, duration: draw.millis(200, 6_000) })
    }
}
