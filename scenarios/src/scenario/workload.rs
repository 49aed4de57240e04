//! A `[[workload]]`: load of one kind.

use detkv_sim_world::client::{
    Bursts, Compactor, KeepAlive, Kubernetes, Maintainer, MemberChanges, Mixed, OneByOne, PutLoad,
    Robustness, Script, SlowWatcher, Watcher,
};
use serde::Deserialize;

/// Load of one kind.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Workload {
    PutLoad(PutLoad),
    Mixed(Mixed),
    Robustness(Robustness),
    Kubernetes(Kubernetes),
    KeepAlive(KeepAlive),
    Bursts(Bursts),
    OneByOne(OneByOne),
    Script(Script),
    Watcher(Watcher),
    SlowWatcher(SlowWatcher),
    Compactor(Compactor),
    Maintainer(Maintainer),
    MemberChanges(MemberChanges),
}

/// Calls what every workload has by this name.
macro_rules! each {
    ($workload:expr, $own:ident => $call:expr) => {
        match $workload {
            Workload::PutLoad($own) => $call,
            Workload::Mixed($own) => $call,
            Workload::Robustness($own) => $call,
            Workload::Kubernetes($own) => $call,
            Workload::KeepAlive($own) => $call,
            Workload::Bursts($own) => $call,
            Workload::OneByOne($own) => $call,
            Workload::Script($own) => $call,
            Workload::Watcher($own) => $call,
            Workload::SlowWatcher($own) => $call,
            Workload::Compactor($own) => $call,
            Workload::Maintainer($own) => $call,
            Workload::MemberChanges($own) => $call,
        }
    };
}

impl Workload {
    /// Errors: what is wrong, and what was expected.
    pub fn check(&self) -> Result<(), String> {
        each!(self, own => own.check())
    }

    /// Clients that it makes in a cluster of so many members.
    pub fn clients(&self, members: u64) -> u32 {
        each!(self, own => own.clients(members))
    }
}
