//! What the kinds share that lay a rule on a disk: their parameters, and how the rule ends.

use std::fmt;
use std::time::Duration;

use super::{Draw, Effect, Parameter, Target};
use crate::disk::{DiskLane, Scope, Trouble};
use crate::world::World;

pub const LANE: Parameter = Parameter::optional(
    "lane",
    "\"log\", \"backend\", \"snapshot\"",
    "any",
    "whose files: the WAL's, redb's, the snap files'",
);
pub const PATH: Parameter = Parameter::optional(
    "path",
    "pattern",
    "\"\": any",
    "of file names, or with a / of paths; * stands for anything, such as \"*.wal\"",
);
pub const AFTER: Parameter =
    Parameter::optional("after", "number", "0", "so many such operations go well first");
pub const COUNT: Parameter =
    Parameter::optional("count", "number", "all that follow", "and so many are struck");

/// Lays a rule for a while. At its end a member that gave up because of it is started, as a supervisor does
/// when an operator has made room or changed the disk.
pub fn lay(
    world: &mut World,
    node: Target,
    scope: Scope,
    trouble: Trouble,
    duration: Duration,
    what: impl fmt::Display,
) -> Result<Effect, String> {
    let node = node.resolve(world)?;
    let member = world.node(node).id;
    let about = describe(&scope);
    let rule = world.node(node).disk.add_rule(scope, trouble);
    let what = format!("disk of m{} {what}{about}", member.0);
    Ok(Effect::lasting(Some(member), what, duration, move |world| {
        world.node(node).disk.remove_rule(rule);
        world.start_if_it_gave_up(node);
    }))
}

/// Any lane, or one of them.
pub fn draw_lane(draw: &mut Draw) -> Option<DiskLane> {
    draw.pick(&[None, Some(DiskLane::Log), Some(DiskLane::Backend), Some(DiskLane::Snapshot)])
}

fn describe(scope: &Scope) -> String {
    let mut text = String::new();
    if !scope.ops.is_empty() {
        let ops: Vec<String> = scope.ops.iter().map(ToString::to_string).collect();
        text += &format!(" at {}", ops.join(", "));
    }
    if let Some(lane) = scope.lane {
        text += &format!(" of the {} lane", format!("{lane:?}").to_lowercase());
    }
    if !scope.path.is_empty() {
        text += &format!(" of {}", scope.path);
    }
    text
}
