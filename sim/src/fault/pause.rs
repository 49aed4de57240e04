//! The process is stopped for a while, as by SIGSTOP: disk and network go on without it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, FaultKind, Parameter, Target};
use crate::duration;
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
    const WHAT: &'static str = "the process does nothing for a while; what comes in waits";
    const PARAMETERS: &'static [Parameter] =
        &[("node", "which process"), ("duration", "how long, such as \"2s\"")];

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        world.pause(node);
        Ok(Effect {
            member: Some(member),
            what: format!("m{} is paused for {}", member.0, duration::format(self.duration)),
            lasts: Some(self.duration),
            undo: Some(Box::new(move |world| world.resume(node))),
        })
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.node(), duration: draw.millis(20, 4_000) })
    }
}
