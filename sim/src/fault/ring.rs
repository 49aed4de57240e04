//! Each member reaches its neighbours by id alone, in one direction if so asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::links::{self, OneWay};
use super::{DURATION, Draw, Effect, Family, FaultKind, Parameter};
use crate::net::Endpoint;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ring {
    #[serde(default)]
    pub one_way: bool,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for Ring {
    const NAME: &'static str = "ring";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "each member reaches the next and the one before by id, no other";
    const PARAMETERS: &'static [Parameter] = &[
        Parameter::optional(
            "one_way",
            "true or false",
            "false",
            "each member's messages reach the next one alone; three members make a ring only so",
        ),
        DURATION,
    ];
    const EXAMPLE: &'static str = "one_way = true, duration = \"10s\"";

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let members = links::present(world);
        let count = members.len();
        // Of places in the ring.
        let reaches = |a: usize, b: usize| {
            let next = (a + 1) % count == b;
            next || (!self.one_way && (b + 1) % count == a)
        };
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let links: Vec<OneWay> = pairs
            .filter(|(a, b)| a != b && !reaches(*a, *b))
            .map(|(a, b)| (Endpoint::Node(members[a]), Endpoint::Node(members[b])))
            .collect();
        if links.is_empty() {
            return Err(format!("{count} members reach each other in a ring"));
        }
        let way = if self.one_way { "the next one" } else { "its neighbours" };
        Ok(links::cut(world, links, None, self.duration, format!("each member reaches {way} only")))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let one_way = draw.members() == 3 || draw.chance(50);
        (draw.members() > 2).then(|| Self { one_way, duration: draw.millis(500, 10_000) })
    }
}
