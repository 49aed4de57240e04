//! Links come and go: cut for a while, whole for a while.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::an_interval;
use super::links::{self, CLIENTS, Choice, DIRECTION, NODES, OneWay, PEERS};
use super::{DURATION, Direction, Draw, Effect, Family, FaultKind, Parameter, Step, Target};
use crate::rng::uniform;
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFlap {
    #[serde(default)]
    pub nodes: Vec<Target>,
    #[serde(default)]
    pub peers: Vec<Target>,
    #[serde(default)]
    pub direction: Direction,
    #[serde(default)]
    pub clients: Vec<u32>,
    #[serde(with = "crate::duration")]
    pub down: Duration,
    #[serde(with = "crate::duration")]
    pub up: Duration,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for LinkFlap {
    const NAME: &'static str = "link-flap";
    const FAMILY: Family = Family::Network;
    const WHAT: &'static str = "links are cut and whole in turn, beginning with cut";
    const PARAMETERS: &'static [Parameter] = &[
        NODES,
        PEERS,
        DIRECTION,
        CLIENTS,
        Parameter::required("down", "duration", "cut for so long each time, ±50 %, drawn"),
        Parameter::required("up", "duration", "whole for so long each time, ±50 %, drawn"),
        DURATION,
    ];
    const EXAMPLE: &'static str =
        "nodes = [\"leader\"], down = \"800ms\", up = \"400ms\", duration = \"20s\"";

    fn check(&self) -> Result<(), String> {
        an_interval("down", self.down)?;
        an_interval("up", self.up)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { nodes, peers, direction, clients, down, up, duration } = self.clone();
        let choice = Choice { nodes: &nodes, peers: &peers, direction, clients: &clients };
        let links = choice.resolve(world)?;
        let (member, what) = (choice.member(world), choice.describe(world));
        let mut rng = world.fault_rng(Self::NAME);
        let mut around = move |mean: Duration| {
            let ns = mean.as_nanos() as u64;
            Duration::from_nanos(uniform(&mut rng, ns - ns / 2, ns + ns / 2).max(1))
        };
        set(world, &links, true);
        let is_cut = Rc::new(Cell::new(true));
        let first = around(down);
        let (links_again, was_cut) = (links.clone(), is_cut.clone());
        let step: Step = Box::new(move |world| {
            is_cut.set(!is_cut.get());
            set(world, &links, is_cut.get());
            Some(around(if is_cut.get() { down } else { up }))
        });
        let undo = move |world: &mut World| {
            if was_cut.get() {
                set(world, &links_again, false);
            }
        };
        let effect = Effect::lasting(member, format!("{what} flap"), duration, undo);
        Ok(Effect { steps: Some((first, step)), ..effect })
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let (nodes, peers, direction) = links::draw_ends(draw);
        Some(Self {
            nodes,
            peers,
            direction,
            clients: draw.some_clients(),
            down: draw.millis(20, 3_000),
            up: draw.millis(20, 3_000),
            duration: draw.millis(1_000, 15_000),
        })
    }
}

fn set(world: &mut World, links: &[OneWay], cut: bool) {
    for (from, to) in links {
        if cut {
            world.cut(*from, *to);
        } else {
            world.mend(*from, *to);
        }
    }
}
