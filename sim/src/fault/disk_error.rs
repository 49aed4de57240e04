//! The disk reports an error: EIO at writes, syncs or names.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk_rule::{self, AFTER, COUNT, LANE, PATH};
use super::kind::at_least_one;
use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::disk::{DiskLane, DiskOp, Scope, Trouble};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskError {
    pub node: Target,
    #[serde(default = "write_and_sync")]
    pub ops: Vec<DiskOp>,
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

fn write_and_sync() -> Vec<DiskOp> {
    vec![DiskOp::Write, DiskOp::Sync]
}

impl FaultKind for DiskError {
    const NAME: &'static str = "disk-error";
    const FAMILY: Family = Family::Disk;
    const WHAT: &'static str =
        "operations fail with EIO and do nothing; a member that meets it stops";
    const PARAMETERS: &'static [Parameter] = &[
        NODE,
        Parameter::optional(
            "ops",
            "list of operations",
            "[\"write\", \"sync\"]",
            "also \"create\", \"create-dir\", \"allocate\", \"truncate\", \"rename\", \"sync-dir\", \"remove\", \"grow\", \"read\"",
        ),
        LANE,
        PATH,
        AFTER,
        COUNT,
        DURATION,
    ];
    const EXAMPLE: &'static str =
        "node = \"leader\", ops = [\"sync\"], lane = \"log\", count = 1, duration = \"5s\"";

    fn check(&self) -> Result<(), String> {
        at_least_one("count", u64::from(self.count.unwrap_or(1)))?;
        at_least_one("ops", self.ops.len() as u64)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let Self { node, ops, lane, path, after, count, duration } = self.clone();
        let scope = Scope { ops, lane, path, after, times: count };
        disk_rule::lay(world, node, scope, Trouble::Io, duration, "fails")
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let ops = [
            DiskOp::Write,
            DiskOp::Sync,
            DiskOp::Sync,
            DiskOp::Create,
            DiskOp::Allocate,
            DiskOp::Rename,
            DiskOp::SyncDir,
            DiskOp::Remove,
            DiskOp::Grow,
        ];
        Some(Self {
            node: draw.node(),
            ops: vec![draw.pick(&ops)],
            lane: disk_rule::draw_lane(draw),
            path: String::new(),
            after: draw.number(1, 200) as u32 - 1,
            count: draw.chance(70).then_some(1),
            duration: draw.millis(200, 8_000),
        })
    }
}
