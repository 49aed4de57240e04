//! Two groups of members do not reach each other; everybody else reaches both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::at_least_one;
use super::links::{self, Choice, DIRECTION};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartialPartition {
    pub nodes: Vec<Target>,
    pub peers: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for PartialPartition {
    const NAME: &'static str = "partial-partition";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "only the links between two groups are cut; all others reach both";
    const PARAMETERS: &'static [Parameter] = &[
        Parameter::required("nodes", "list of nodes", "one group, such as [\"leader\"]"),
        Parameter::required("peers", "list of nodes", "the other group, such as [\"follower\"]"),
        DIRECTION,
        DURATION,
    ];
    const EXAMPLE: &'static str =
        "nodes = [\"leader\"], peers = [\"follower\"], duration = \"10s\"";

    fn check(&self) -> Result<(), String> {
        at_least_one("nodes", self.nodes.len() as u64)?;
        at_least_one("peers", self.peers.len() as u64)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { nodes, peers, direction, duration } = self;
        let choice = Choice { nodes, peers, direction: *direction, clients: &[] };
        let (links, member) = (choice.resolve(world)?, choice.member(world));
        let what = format!("{} are cut", choice.describe(world));
        Ok(links::cut(world, links, member, *duration, what))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        if draw.members() < 3 {
            return None;
        }
        let (node, by) = (draw.member().0, draw.uniform(1, draw.members() - 1));
        let other = (node - 1 + by) % draw.members() + 1;
        let member = |id| Target::Member(detkv_core::MemberId(id));
        Some(Self {
            nodes: vec![member(node)],
            peers: vec![member(other)],
            direction: draw.pick(&[Direction::Both, Direction::Both, Direction::Outgoing]),
            duration: draw.millis(500, 10_000),
        })
    }
}
