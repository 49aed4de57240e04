//! Clients reach the node, its peers do not.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::links::{self, Choice};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IsolatePeers {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for IsolatePeers {
    const NAME: &'static str = "isolate-peers";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "every client reaches the node, no other member does";
    const PARAMETERS: &'static [Parameter] = &[NODE, DURATION];
    const EXAMPLE: &'static str = "node = \"leader\", duration = \"10s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let nodes = [self.node];
        let choice = Choice { nodes: &nodes, peers: &[], direction: Direction::Both, clients: &[] };
        let (links, member) = (choice.resolve(world)?, choice.member(world));
        let name = choice.describe(world).replace("links of ", "");
        let what = format!("{name} is reached by clients and by no peer");
        Ok(links::cut(world, links, member, self.duration, what))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        (draw.members() > 1).then(|| Self { node: draw.node(), duration: draw.millis(100, 8_000) })
    }
}
