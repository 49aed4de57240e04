//! Reads fail with EIO: an unreadable sector.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk_rule::{self, AFTER, COUNT, LANE, PATH};
use super::kind::at_least_one;
use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::disk::{DiskLane, DiskOp, Scope, Trouble};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadError {
    pub node: Target,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<DiskLane>,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub after: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

impl FaultKind for ReadError {
    const NAME: &'static str = "read-error";
    const FAMILY: Family = Family::Disk;
    const WHAT: &'static str =
        "reads fail with EIO: at recovery, and where redb reads what it does not have in memory";
    const PARAMETERS: &'static [Parameter] = &[NODE, LANE, PATH, AFTER, COUNT, DURATION];
    const EXAMPLE: &'static str = "node = \"m2\", path = \"db\", duration = \"5s\"";

    fn check(&self) -> Result<(), String> {
        at_least_one("count", u64::from(self.count.unwrap_or(1)))
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { node, lane, path, after, count, duration } = self.clone();
        let scope = Scope { ops: vec![DiskOp::Read], lane, path, after, times: count };
        disk_rule::lay(world, node, scope, Trouble::Io, duration, "fails")
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self {
            node: draw.node(),
            lane: disk_rule::draw_lane(draw),
            path: String::new(),
            after: draw.number(1, 100) as u32 - 1,
            count: draw.chance(50).then_some(1),
            duration: draw.millis(200, 8_000),
        })
    }
}
