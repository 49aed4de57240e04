//! The disk lies: a sync is acknowledged and nothing was written. It shows at a power loss.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk_rule::{self, AFTER, COUNT, LANE, PATH};
use super::kind::at_least_one;
use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::disk::{DiskLane, DiskOp, Scope, Trouble};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LostWrite {
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

impl FaultKind for LostWrite {
    const NAME: &'static str = "lost-write";
    const FAMILY: Family = Family::Disk;
    const WHAT: &'static str =
        "syncs are acknowledged and write nothing; it shows when the machine loses power";
    const PARAMETERS: &'static [Parameter] = &[NODE, LANE, PATH, AFTER, COUNT, DURATION];
    const EXAMPLE: &'static str = "node = \"m2\", lane = \"log\", duration = \"5s\"";
    const IS_SURVIVABLE: bool = false;

    fn check(&self) -> Result<(), String> {
        at_least_one("count", u64::from(self.count.unwrap_or(1)))
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { node, lane, path, after, count, duration } = self.clone();
        let scope = Scope { ops: vec![DiskOp::Sync], lane, path, after, times: count };
        disk_rule::lay(world, node, scope, Trouble::SyncLies, duration, "lies")
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self {
            node: draw.expendable()?,
            lane: disk_rule::draw_lane(draw),
            path: String::new(),
            after: draw.number(1, 200) as u32 - 1,
            count: draw.chance(70).then_some(1),
            duration: draw.millis(200, 8_000),
        })
    }
}
