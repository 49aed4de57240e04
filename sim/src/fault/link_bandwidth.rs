//! Links have little bandwidth; a snapshot and the messages beside it share it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::at_least_one;
use super::links::{self, CLIENTS, Choice, DIRECTION, NODES, PEERS};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::net::Disturbance;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkBandwidth {
    #[serde(default)]
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub peers: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    pub clients: Vec<u32>,
    pub bytes_per_sec: u64,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for LinkBandwidth {
    const NAME: &'static str = "link-bandwidth";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str =
        "links carry so many bytes a second, snapshots and messages together";
    const PARAMETERS: &'static [Parameter] = &[
        NODES,
        PEERS,
        DIRECTION,
        CLIENTS,
        Parameter::required("bytes_per_sec", "number, bytes", "what one direction carries"),
        DURATION,
    ];
    const EXAMPLE: &'static str =
        "nodes = [\"follower\"], bytes_per_sec = 1250000, duration = \"30s\"";

    fn check(&self) -> Result<(), String> {
        at_least_one("bytes_per_sec", self.bytes_per_sec)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { nodes, peers, direction, clients, duration, .. } = self;
        let choice = Choice { nodes, peers, direction: *direction, clients };
        let disturbance =
            Disturbance { bytes_per_sec: Some(self.bytes_per_sec), ..Disturbance::default() };
        let what = format!("carry {} bytes/s", self.bytes_per_sec);
        choice.disturb(world, &disturbance, *duration, what)
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let (nodes, peers, direction) = links::draw_ends(draw);
        Some(Self {
            nodes,
            peers,
            direction,
            clients: draw.some_clients(),
            bytes_per_sec: draw.number(20_000, 20_000_000),
            duration: draw.millis(500, 10_000),
        })
    }
}
