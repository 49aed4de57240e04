//! New connections hang: the handshake is not answered. Those that are up go on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::links::{self, CLIENTS, Choice, DIRECTION, NODES, PEERS};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectHang {
    #[serde(default)]
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub peers: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    pub clients: Vec<u32>,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for ConnectHang {
    const NAME: &'static str = "connect-hang";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "new connections are not answered; those that are up go on";
    const PARAMETERS: &'static [Parameter] = &[NODES, PEERS, DIRECTION, CLIENTS, DURATION];
    const EXAMPLE: &'static str =
        "nodes = [\"m1\"], direction = \"incoming\", clients = [0, 1], duration = \"10s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { nodes, peers, direction, clients, duration } = self;
        let choice = Choice { nodes, peers, direction: *direction, clients };
        let links = choice.resolve(world)?;
        let what = format!("new connections hang on {}", choice.describe(world));
        let member = choice.member(world);
        links.iter().for_each(|(from, to)| world.net.hang(*from, *to));
        Ok(Effect::lasting(member, what, *duration, move |world| {
            links.iter().for_each(|(from, to)| world.net.unhang(*from, *to));
        }))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let (nodes, peers, direction) = links::draw_ends(draw);
        let clients = draw.some_clients();
        Some(Self { nodes, peers, direction, clients, duration: draw.millis(500, 8_000) })
    }
}
