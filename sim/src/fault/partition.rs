//! Cuts links between members, in one or both directions, and takes clients to one side.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, FaultKind, Parameter, Target};
use crate::duration;
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
    const WHAT: &'static str = "the network between the nodes and all other members is cut";
    const PARAMETERS: &'static [Parameter] = &[
        ("nodes", "one side, such as [\"leader\"]"),
        ("direction", "\"both\", \"outgoing\" or \"incoming\", seen from the nodes"),
        ("duration", "how long, such as \"10s\""),
        ("clients", "numbers of the clients that reach only these nodes"),
    ];

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
        Ok(Effect {
            member: (inside.len() == 1).then(|| world.node(inside[0]).id),
            what: format!(
                "network of {} is cut ({:?}) for {}",
                names.join(", "),
                self.direction,
                duration::format(self.duration)
            ),
            lasts: Some(self.duration),
            undo: Some(Box::new(move |world| {
                cuts.iter().for_each(|(from, to)| world.mend(*from, *to));
            })),
        })
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
