//! Raft messages are overtaken by what was sent after them, as where a peer has several connections.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::at_most_a_million;
use super::links::{self, CLIENTS, Choice, DIRECTION, NODES, PEERS};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::net::Disturbance;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkReorder {
    #[serde(default)]
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub peers: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    pub clients: Vec<u32>,
    pub ppm: u32,
    #[serde(with = "crate::duration", default = "a_while")]
    pub later: Duration,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

fn a_while() -> Duration {
    Duration::from_millis(20)
}

impl FaultKind for LinkReorder {
    const NAME: &'static str = "link-reorder";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "Raft messages (no other frames) are overtaken by later ones";
    const PARAMETERS: &'static [Parameter] = &[
        NODES,
        PEERS,
        DIRECTION,
        CLIENTS,
        Parameter::required(
            "ppm",
            "number, parts in a million",
            "how many messages leave the order",
        ),
        Parameter::optional("later", "duration", "\"20ms\"", "they come later by up to this"),
        DURATION,
    ];
    const EXAMPLE: &'static str = "ppm = 100000, later = \"50ms\", duration = \"10s\"";

    fn check(&self) -> Result<(), String> {
        at_most_a_million("ppm", self.ppm)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { nodes, peers, direction, clients, duration, .. } = self;
        let choice = Choice { nodes, peers, direction: *direction, clients };
        let disturbance =
            Disturbance { reorder_ppm: self.ppm, later: self.later, ..Disturbance::default() };
        let what = format!("reorder {} Raft messages in a million", self.ppm);
        choice.disturb(world, &disturbance, *duration, what)
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let (nodes, peers, direction) = links::draw_ends(draw);
        Some(Self {
            nodes,
            peers,
            direction,
            clients: draw.some_clients(),
            ppm: draw.number(1_000, 500_000) as u32,
            later: draw.millis(1, 500),
            duration: draw.millis(500, 10_000),
        })
    }
}
