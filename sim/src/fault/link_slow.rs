//! Links are slow: every message takes longer.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::links::{self, CLIENTS, Choice, DIRECTION, NODES, PEERS};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::duration;
use crate::net::Disturbance;
use crate::rng::Distribution;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkSlow {
    #[serde(default)]
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub peers: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    pub clients: Vec<u32>,
    #[serde(with = "crate::duration")]
    pub by: Duration,
    #[serde(with = "crate::duration", default)]
    pub spread: Duration,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for LinkSlow {
    const NAME: &'static str = "link-slow";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str =
        "every message takes longer; what a connection carries stays in order";
    const PARAMETERS: &'static [Parameter] = &[
        NODES,
        PEERS,
        DIRECTION,
        CLIENTS,
        Parameter::required("by", "duration", "how much longer, one way"),
        Parameter::optional(
            "spread",
            "duration",
            "\"0ns\"",
            "and up to so much more, drawn for each message",
        ),
        DURATION,
    ];
    const EXAMPLE: &'static str =
        "nodes = [\"leader\"], by = \"20ms\", spread = \"5ms\", duration = \"10s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { nodes, peers, direction, clients, duration, .. } = self;
        let choice = Choice { nodes, peers, direction: *direction, clients };
        let disturbance = Disturbance {
            slower: Some(Distribution::Uniform { min: self.by, max: self.by + self.spread }),
            ..Disturbance::default()
        };
        let what = format!("are slower by {}", duration::format(self.by));
        choice.disturb(world, &disturbance, *duration, what)
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let (nodes, peers, direction) = links::draw_ends(draw);
        Some(Self {
            nodes,
            peers,
            direction,
            clients: draw.some_clients(),
            by: draw.millis(1, 300),
            spread: draw.millis(1, 100),
            duration: draw.millis(500, 10_000),
        })
    }
}
