//! A member boots from an older image of its own disk, as when somebody rolls a virtual machine back.
//!
//! Raft cannot survive this in general: the member has forgotten votes and entries that others counted on. What is
//! promised: while a leader remembers what the member had acknowledged, the member stops and says why; if nobody
//! does, committed entries can be lost, and no store could tell.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Draw, Effect, Family, FaultKind, NODE, Parameter, Step, Target};
use crate::world::World;

#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SwapDisk {
    pub node: Target,
    #[serde(with = "crate::duration")]
    pub age: Duration,
}

/// After the swap, before the fault is over.
const MOMENT: Duration = Duration::from_millis(1);

impl FaultKind for SwapDisk {
    const NAME: &'static str = "swap-disk";
    const FAMILY: Family = Family::Process;
    const WHAT: &'static str = "an image of the disk is taken, as of a machine that loses power; the member is killed and boots from it";
    const PARAMETERS: &'static [Parameter] =
        &[NODE, Parameter::required("age", "duration", "the swap comes so long after the image")];
    const EXAMPLE: &'static str = "node = \"follower\", age = \"3s\"";
    const IS_SURVIVABLE: bool = false;

    fn begin(&self, world: &mut World) -> Result<Effect, String> {
        let node = self.node.resolve(world)?;
        let member = world.node(node).id;
        let now = world.now().ns;
        let mut rng = world.fault_rng(Self::NAME);
        let mut image = Some(world.node(node).disk.image(now, &mut rng));
        let step: Step = Box::new(move |world| {
            world.kill(node);
            if let Some(image) = image.take() {
                world.node(node).disk.restore(image);
            }
            world.note_disk_damage(node);
            world.start(node);
            None
        });
        let what = format!("disk of m{} is remembered, and swapped back in after", member.0);
        let lasts = self.age + MOMENT;
        let effect = Effect::lasting(Some(member), what, lasts, |_| {});
        Ok(Effect { steps: Some((self.age, step)), ..effect })
    }

    fn draw(draw: &mut Draw) -> Option<Self> {
        Some(Self { node: draw.expendable()?, age: draw.millis(100, 5_000) })
    }
}
