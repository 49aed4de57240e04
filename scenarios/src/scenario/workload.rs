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

/// What would make a workload panic or do nothing.
pub(super) fn check_workload(workload: &Workload) -> Result<(), String> {
    let (clients, rate, keys, in_flight) = match workload {
        Workload::PutLoad(w) => (w.clients, w.puts_per_sec, w.keys, w.in_flight),
        Workload::Mixed(w) => (w.clients, w.calls_per_sec, w.keys, w.in_flight),
        Workload::Robustness(w) => (1, 1, w.keys, 1),
        Workload::Kubernetes(w) => (w.writers, w.writes_per_sec, w.objects, w.readers),
        Workload::KeepAlive(w) => (w.clients, w.leases, w.ttl_secs, w.renewals),
        Workload::Bursts(w) => (1, w.puts, w.keys, u32::from(!w.every.is_zero())),
        Workload::Script(w) => (w.steps.len() as u32, 1, 1, 1),
        Workload::OneByOne(w) => (w.clients, 1, w.keys, 1),
        Workload::Watcher(w) => (w.clients, 1, 1, 1),
        Workload::SlowWatcher(w) => (w.clients, 1, 1, 1),
        Workload::Compactor(w) => (1, 1, 1, u32::from(!w.every.is_zero())),
        Workload::Maintainer(w) => (1, 1, 1, u32::from(!w.every.is_zero())),
        Workload::MemberChanges(w) => (1, 1, 1, u32::from(!w.every.is_zero())),
    };
    for (value, name) in [
        (clients, "clients`, `steps` or `writers"),
        (rate, "puts_per_sec`, `calls_per_sec`, `writes_per_sec`, `leases` or `puts"),
        (keys, "keys`, `objects` or `ttl_secs"),
        (in_flight, "in_flight`, `every`, `readers` or `renewals"),
    ] {
        if value == 0 {
            return Err(format!("`{name}` is 0, expected at least 1"));
        }
    }
    let has_calls = |w: &Mixed| serde_json::to_value(w.weights).is_ok_and(|w| sum(&w) > 0);
    let none = || Err("`weights` are all 0, expected at least one call".to_owned());
    match workload {
        Workload::Mixed(mixed) if !has_calls(mixed) => none(),
        Workload::Robustness(mix) if !mix.has_requests() => none(),
        Workload::MemberChanges(changes) if !changes.has_changes() => none(),
        _ => Ok(()),
    }
}

fn sum(weights: &serde_json::Value) -> u64 {
    weights.as_object().map_or(0, |w| w.values().filter_map(serde_json::Value::as_u64).sum())
}
