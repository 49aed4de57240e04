//! Links lose packets: a lost one is sent again after a timeout, and what follows waits behind it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::at_most_a_million;
use super::links::{self, CLIENTS, Choice, DIRECTION, NODES, PEERS};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::net::Disturbance;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkLoss {
    #[serde(default)]
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub peers: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    pub clients: Vec<u32>,
    pub ppm: u32,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for LinkLoss {
    const NAME: &'static str = "link-loss";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str =
        "packets are lost: each is sent again after 200 ms, 400 ms, … and what follows waits";
    const PARAMETERS: &'static [Parameter] = &[
        NODES,
        PEERS,
        DIRECTION,
        CLIENTS,
        Parameter::required("ppm", "number, parts in a million", "how many packets are lost"),
        DURATION,
    ];
    const EXAMPLE: &'static str = "ppm = 10000, duration = \"10s\"";

    fn check(&self) -> Result<(), String> {
        at_most_a_million("ppm", self.ppm)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { nodes, peers, direction, clients, duration, .. } = self;
        let choice = Choice { nodes, peers, direction: *direction, clients };
        let disturbance = Disturbance { loss_ppm: self.ppm, ..Disturbance::default() };
        let what = format!("lose {} packets in a million", self.ppm);
        choice.disturb(world, &disturbance, *duration, what)
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let (nodes, peers, direction) = links::draw_ends(draw);
        Some(Self {
            nodes,
            peers,
            direction,
            clients: draw.some_clients(),
            ppm: draw.number(100, 200_000) as u32,
            duration: draw.millis(500, 10_000),
        })
    }
}
