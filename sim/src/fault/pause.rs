//! The process is stopped for a while, as by SIGSTOP: disk and network go on without it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pause {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for Pause {
    const NAME: &'static str = "pause";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str = "the process does nothing for a while; what comes in waits";
    const PARAMETERS: &'static [Parameter] = &[NODE, DURATION];
    const EXAMPLE: &'static str = "node = \"leader\", duration = \"2s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        let pausing = world.pause(node).ok_or_else(|| format!("m{} is down", member.0))?;
        let what = format!("m{} is paused", member.0);
        let undo = move |world: &mut World| world.end_pause(pausing);
        Ok(Effect::lasting(Some(member), what, self.duration, undo))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node(), duration: draw.millis(20, 4_000) })
    }
}
