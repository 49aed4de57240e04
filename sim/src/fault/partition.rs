//! Cuts links between members, in one or both directions, and takes clients to one side.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::at_least_one;
use super::{DURATION, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::net::Endpoint;
use crate::world::World;

/// `nodes` are one side; all other members are the other.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Partition {
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
    /// Clients that are on the side of `nodes`: they reach only these. All others reach every member.
    #[serde(default)]
    pub clients: Vec<u32>,
}

/// Which way a partition cuts.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    Both,
    /// What the nodes send is held up.
    Outgoing,
    /// What is sent to the nodes is held up.
    Incoming,
}

impl FaultKind for Partition {
    const NAME: &'static str = "partition";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "the network between the nodes and all other members is cut";
    const PARAMETERS: &'static [Parameter] = &[
        Parameter::required("nodes", "list of nodes", "one side, such as [\"leader\"]"),
        Parameter::optional(
            "direction",
            "\"both\", \"outgoing\", \"incoming\"",
            "\"both\"",
            "seen from the nodes",
        ),
        DURATION,
        Parameter::optional(
            "clients",
            "list of numbers",
            "[]",
            "the clients that reach only these nodes; all others reach every member",
        ),
    ];
    const EXAMPLE: &'static str =
        "nodes = [\"leader\"], duration = \"10s\", direction = \"outgoing\"";

    fn check(&self) -> Result<(), String> {
        at_least_one("nodes", self.nodes.len() as u64)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let inside: Vec<u32> =
            self.nodes.iter().map(|node| node.resolve(world)).collect::<Result<_, _>>()?;
        let all = 0..world.nodes.len() as u32;
        let outside: Vec<u32> = all.filter(|node| !inside.contains(node)).collect();
        let mut cuts = Vec::new();
        for (a, b) in inside.iter().flat_map(|a| outside.iter().map(move |b| (*a, *b))) {
            let (a, b) = (Endpoint::Node(a), Endpoint::Node(b));
            if self.direction != Direction::Incoming {
                cuts.push((a, b));
            }
            if self.direction != Direction::Outgoing {
                cuts.push((b, a));
            }
        }
        for (client, node) in
            self.clients.iter().flat_map(|c| outside.iter().map(move |n| (*c, *n)))
        {
            let (client, node) = (Endpoint::Client(client), Endpoint::Node(node));
            cuts.extend([(client, node), (node, client)]);
        }
        cuts.iter().for_each(|(from, to)| world.cut(*from, *to));
        let names: Vec<String> =
            inside.iter().map(|node| format!("m{}", world.node(*node).id.0)).collect();
        let member = (inside.len() == 1).then(|| world.node(inside[0]).id);
        let what = format!("network of {} is cut ({:?})", names.join(", "), self.direction);
        Ok(Effect::lasting(member, what, self.duration, move |world| {
            cuts.iter().for_each(|(from, to)| world.mend(*from, *to));
        }))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let directions =
            [Direction::Both, Direction::Both, Direction::Outgoing, Direction::Incoming];
        let nodes = if draw.members() > 1 && draw.chance(40) {
            vec![Target::Leader]
        } else {
            draw.some_members()?
        };
        let direction = draw.pick(&directions);
        let duration = draw.millis(100, 6_000);
        Some(Self { nodes, direction, duration, clients: draw.some_clients() })
    }
}
