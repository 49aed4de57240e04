//! What a run is made of.

use std::rc::Rc;

use detkv_core::{MemberId, Profile};

use crate::history::History;

/// Changes a member's configuration before it is opened.
pub type Tune = Rc<dyn Fn(MemberId, &mut detkv_core::Config)>;

/// Everything a run depends on. Equal configurations and scripts give equal runs.
#[derive(Clone)]
pub struct SimConfig {
    /// Root of every random stream.
    pub seed: u64,
    /// Members of the initial cluster; their ids are 1, 2, 3…
    pub members: u64,
    pub profile: Profile,
    /// Overrides of core's configuration, per member.
    pub tune: Option<Tune>,
    /// A state sample is recorded when a member's applied index passes a multiple of this.
    pub sample_every: u64,
}

impl SimConfig {
    /// Three members on fast disks and a fast network.
    pub fn new(seed: u64) -> Self {
        Self { seed, members: 3, profile: Profile::default(), tune: None, sample_every: 100 }
    }
}

/// What a run leaves behind.
#[derive(Debug)]
pub struct RunOutcome {
    pub event_hash: u128,
    pub virtual_ns: u64,
    pub history: History,
}
