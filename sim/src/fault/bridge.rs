//! The members fall into two halves that do not reach each other; one member reaches both.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::links::{self, OneWay};
use super::{DURATION, Draw, Effect, Family, FaultKind, Parameter, Target};
use crate::net::Endpoint;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for Bridge {
    const NAME: &'static str = "bridge";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "the other members, by id, fall into two halves that reach each other only through the node";
    const PARAMETERS: &'static [Parameter] =
        &[Parameter::required("node", "node", "the one that reaches both halves"), DURATION];
    const EXAMPLE: &'static str = "node = \"follower\", duration = \"10s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        let mut others = links::present(world);
        others.retain(|other| *other != node);
        if others.len() < 2 {
            return Err("there is nothing to bridge".to_owned());
        }
        let (left, right) = others.split_at(others.len() / 2);
        let pairs = left.iter().flat_map(|a| right.iter().map(|b| (*a, *b)));
        let links: Vec<OneWay> = pairs
            .map(|(a, b)| (Endpoint::Node(a), Endpoint::Node(b)))
            .flat_map(|(a, b)| [(a, b), (b, a)])
            .collect();
        let what = format!("m{} is the only bridge between two halves", member.0);
        Ok(links::cut(world, links, Some(member), self.duration, what))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        (draw.members() > 2).then(|| Self { node: draw.node(), duration: draw.millis(500, 10_000) })
    }
}
