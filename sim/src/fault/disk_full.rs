//! The file system has no room left: operations that need room fail with ENOSPC.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::disk_rule::{self, AFTER, LANE, PATH};
use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::disk::{DiskLane, DiskOp, Scope, Trouble};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskFull {
    pub node: Target,
    /// Empty: every operation that may need room.
    #[serde(default)]
    pub ops: Vec<DiskOp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<DiskLane>,
    #[serde(default)]
    pub path: String,
    #[serde(default)]
    pub after: u32,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

/// What may need room: a rename needs it for its directory, a sync for what was not yet allocated.
pub const NEEDS_ROOM: [DiskOp; 7] = [
    DiskOp::CreateDir,
    DiskOp::Create,
    DiskOp::Allocate,
    DiskOp::Write,
    DiskOp::Sync,
    DiskOp::Rename,
    DiskOp::Grow,
];

impl FaultKind for DiskFull {
    const NAME: &'static str = "disk-full";
    const FAMILY: Family = Family::Disk;
    const WHAT: &'static str =
        "what needs room fails with ENOSPC; a write may have written its first sectors";
    const PARAMETERS: &'static [Parameter] = &[
        NODE,
        Parameter::optional(
            "ops",
            "list of \"create-dir\", \"create\", \"allocate\", \"write\", \"sync\", \"rename\", \"grow\"",
            "all of them",
            "which operations; grow is the backend file's",
        ),
        LANE,
        PATH,
        AFTER,
        DURATION,
    ];
    const EXAMPLE: &'static str =
        "node = \"follower\", ops = [\"allocate\", \"write\"], lane = \"log\", duration = \"10s\"";

    fn check(&self) -> Result<(), String> {
        match self.ops.iter().find(|op| !NEEDS_ROOM.contains(op)) {
            Some(op) => Err(format!("`{op}` needs no room: expected create, allocate, write, …")),
            None => Ok(()),
        }
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let ops = if self.ops.is_empty() { NEEDS_ROOM.to_vec() } else { self.ops.clone() };
        let scope =
            Scope { ops, lane: self.lane, path: self.path.clone(), after: self.after, times: None };
        let mut effect =
            disk_rule::lay(world, self.node, scope, Trouble::NoSpace, self.duration, "is full")?;
        if self.ops.is_empty() {
            // Seven names of operations say no more than "full" does.
            let all: Vec<String> = NEEDS_ROOM.iter().map(ToString::to_string).collect();
            effect.what = effect.what.replace(&format!(" at {}", all.join(", ")), "");
        }
        Ok(effect)
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let ops = if draw.chance(50) { Vec::new() } else { vec![draw.pick(&NEEDS_ROOM)] };
        Some(Self {
            node: draw.node(),
            ops,
            lane: disk_rule::draw_lane(draw),
            path: String::new(),
            after: draw.number(1, 100) as u32 - 1,
            duration: draw.millis(200, 8_000),
        })
    }
}
