//! What the kinds share that act on links: which links they mean, and how a disturbance ends.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::{Direction, Draw, Effect, Parameter, Target};
use crate::net::{Disturbance, Endpoint};
use crate::world::World;

pub const NODES: Parameter = Parameter::optional(
    "nodes",
    "list of nodes",
    "[]: all members",
    "one end of the links, such as [\"leader\"]",
);
pub const PEERS: Parameter = Parameter::optional(
    "peers",
    "list of nodes",
    "[]: all other members",
    "the other end of the links",
);
pub const DIRECTION: Parameter = Parameter::optional(
    "direction",
    "\"both\", \"outgoing\", \"incoming\"",
    "\"both\"",
    "seen from the nodes",
);
pub const CLIENTS: Parameter = Parameter::optional(
    "clients",
    "list of numbers",
    "[]",
    "clients whose links with the nodes are meant too",
);

/// One direction of a link.
pub type OneWay = (Endpoint, Endpoint);

/// Which links a fault is about, as its parameters say.
pub struct Choice<'a> {
    pub nodes: &'a [Target],
    pub peers: &'a [Target],
    pub direction: Direction,
    pub clients: &'a [u32],
}

impl Choice<'_> {
    /// Every direction once, in a fixed order.
    ///
    /// Errors: a node that there is not; nothing at all is meant.
    pub fn resolve(&self, world: &World) -> Result<Vec<OneWay>, String> {
        let all = |targets: &[Target]| -> Result<Vec<u32>, String> {
            if targets.is_empty() {
                return Ok((0..world.nodes.len() as u32).collect());
            }
            targets.iter().map(|target| target.resolve(world)).collect()
        };
        let (nodes, peers) = (all(self.nodes)?, all(self.peers)?);
        let mut links = BTreeSet::new();
        for node in &nodes {
            let others =
                peers.iter().filter(|peer| *peer != node).map(|peer| Endpoint::Node(*peer));
            let clients = self.clients.iter().map(|client| Endpoint::Client(*client));
            for other in others.chain(clients) {
                if self.direction != Direction::Incoming {
                    links.insert((Endpoint::Node(*node), other));
                }
                if self.direction != Direction::Outgoing {
                    links.insert((other, Endpoint::Node(*node)));
                }
            }
        }
        if links.is_empty() {
            return Err("there is no such link".to_owned());
        }
        Ok(links.into_iter().collect())
    }

    /// How a story calls the links.
    pub fn describe(&self, world: &World) -> String {
        let names = |targets: &[Target]| -> String {
            let names = targets.iter().map(|target| match target.resolve(world) {
                Ok(node) => format!("m{}", world.node(node).id.0),
                Err(_) => target.to_string(),
            });
            names.collect::<Vec<_>>().join(", ")
        };
        let mut text = match (self.nodes.is_empty(), self.peers.is_empty()) {
            (true, true) => "links between all members".to_owned(),
            (false, true) => format!("links of {}", names(self.nodes)),
            (true, false) => format!("links of {}", names(self.peers)),
            (false, false) => {
                format!("links between {} and {}", names(self.nodes), names(self.peers))
            }
        };
        match self.direction {
            Direction::Both => {}
            Direction::Outgoing => text += " (outgoing)",
            Direction::Incoming => text += " (incoming)",
        }
        if !self.clients.is_empty() {
            text += &format!(" and of {} clients", self.clients.len());
        }
        text
    }

    /// The member that it is about, if it is one.
    pub fn member(&self, world: &World) -> Option<detkv_core::MemberId> {
        let [node] = self.nodes else { return None };
        node.resolve(world).ok().map(|node| world.node(node).id)
    }

    /// Disturbs the links for a while.
    pub fn disturb(
        &self,
        world: &mut World,
        disturbance: &Disturbance,
        duration: Duration,
        what: impl fmt::Display,
    ) -> Result<Effect, String> {
        let links = self.resolve(world)?;
        let what = format!("{} {what}", self.describe(world));
        let member = self.member(world);
        let in_force: Vec<_> = links
            .into_iter()
            .map(|(from, to)| (from, to, world.net.disturb(from, to, disturbance.clone())))
            .collect();
        Ok(Effect::lasting(member, what, duration, move |world| {
            for (from, to, id) in in_force {
                world.net.calm(from, to, id);
            }
        }))
    }
}

/// Nodes whose members have not been removed for good, by number.
pub fn present(world: &World) -> Vec<u32> {
    let nodes = world.nodes.iter().zip(0..);
    nodes.filter(|(node, _)| !node.retired).map(|(_, place)| place).collect()
}

/// Cuts these directions of links for a while.
pub fn cut(
    world: &mut World,
    links: Vec<OneWay>,
    member: Option<detkv_core::MemberId>,
    duration: Duration,
    what: impl fmt::Display,
) -> Effect {
    links.iter().for_each(|(from, to)| world.cut(*from, *to));
    Effect::lasting(member, what, duration, move |world| {
        links.iter().for_each(|(from, to)| world.mend(*from, *to));
    })
}

/// All links, those of one node, or those between two, in a drawn direction.
pub fn draw_ends(draw: &mut Draw) -> (Vec<Target>, Vec<Target>, Direction) {
    let nodes = if draw.chance(30) { Vec::new() } else { vec![draw.node()] };
    let peers = if nodes.is_empty() || draw.chance(60) {
        Vec::new()
    } else {
        vec![Target::Member(draw.member())]
    };
    let direction = draw.pick(&[Direction::Both, Direction::Outgoing, Direction::Incoming]);
    (nodes, peers, direction)
}
