//! The process is killed, or its machine loses power, at a named point.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kind::{an_interval, at_least_one};
use super::site::{Site, What, When};
use super::{DURATION, Draw, Effect, Family, FaultKind, NODE, Parameter, Target};
use crate::bounds::within;
use crate::disk::DiskOp;
use crate::rng::uniform;
use crate::world::{ArmedSite, World};

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillAt {
    pub node: Target,
    pub site: Site,
    #[serde(default = "one")]
    pub nth: u32,
    #[serde(default = "one")]
    pub repeats: u32,
    #[serde(default)]
    pub power: bool,
    #[serde(with = "crate::duration", default = "one_second")]
    pub down: Duration,
    #[serde(with = "crate::duration")]
    pub duration: Duration,
}

fn one() -> u32 {
    1
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

/// Each is a start of the process.
const REPEATS_MAX: u32 = 10_000;

impl FaultKind for KillAt {
    const NAME: &'static str = "kill-at";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str = "the process ends at a named point: a disk action, a job, a frame, a burst, a step of recovery";
    const PARAMETERS: &'static [Parameter] = &[
        NODE,
        Parameter::required(
            "site",
            "site",
            "before, during or after: \"before write *.wal\", \"after rename *.snap.tmp\", \"during job compact\", \"after frame snapshot-chunk\", \"before burst\", \"after recovery\"",
        ),
        Parameter::optional("nth", "number", "1", "the so-manieth time that it comes there"),
        Parameter::optional("repeats", "number", "1", "again, counted anew, so many times in all"),
        Parameter::optional("power", "true or false", "false", "a power loss instead of a kill"),
        Parameter::optional("down", "duration", "\"1s\"", "then it is started again"),
        DURATION,
    ];
    const EXAMPLE: &'static str =
        "node = \"leader\", site = \"after rename *.snap.tmp\", power = true, duration = \"30s\"";

    fn check(&self) -> Result<(), String> {
        at_least_one("nth", u64::from(self.nth))?;
        within("repeats", self.repeats, 1..=REPEATS_MAX)?;
        an_interval("down", self.down)
    }

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        let mut rng = world.fault_rng(Self::NAME);
        let name = world.arm(ArmedSite {
            node,
            site: self.site.clone(),
            nth: self.nth,
            times: self.repeats,
            power: self.power,
            down: self.down,
            left: self.nth,
            // Where in between: the same point each time, another in each run.
            point_ppm: uniform(&mut rng, 0, 1_000_000),
        });
        let dies = if self.power { "loses power" } else { "is killed" };
        let what = format!("m{} {dies} {}, time {}: armed", member.0, self.site, self.nth);
        Ok(Effect::lasting(Some(member), what, self.duration, move |world| world.disarm(name)))
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        let what = match draw.uniform(0, 5) {
            0 => What::Burst,
            1 => What::Recovery,
            2 => What::Job(draw.pick(&["commit", "sync", "compact", "receive"]).to_owned()),
            3 => {
                let frames = ["append", "snapshot-header", "snapshot-chunk", "snapshot-end"];
                What::Frame(draw.pick(&frames).to_owned())
            }
            _ => {
                let ops = [
                    DiskOp::Create,
                    DiskOp::Allocate,
                    DiskOp::Write,
                    DiskOp::Sync,
                    DiskOp::Rename,
                    DiskOp::SyncDir,
                    DiskOp::Remove,
                    DiskOp::Truncate,
                ];
                What::Disk(draw.pick(&ops), draw.pick(&["", "*.wal*", "member/snap/*"]).to_owned())
            }
        };
        Some(Self {
            node: draw.node(),
            site: Site { when: draw.pick(&[When::Before, When::During, When::After]), what },
            nth: draw.number(1, 100) as u32,
            repeats: draw.number(1, 4) as u32,
            power: draw.chance(50),
            down: draw.millis(1, 3_000),
            duration: draw.millis(1_000, 20_000),
        })
    }
}
