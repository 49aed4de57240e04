//! Whom faults and loads name: members and clients that there are, or may be.

use detkv_core::MemberId;
use detkv_sim_world::Fault;
use detkv_sim_world::fault::Target;
use toml::{Table, Value};

use super::{FaultPlan, Workload};

/// Who there is in a scenario.
#[derive(Clone, Copy, Debug)]
pub struct Cast {
    /// Members that there may be, those included that faults and loads add.
    members: u64,
    /// Clients of all loads; their numbers begin with 0.
    clients: u32,
}

/// Keys of faults and loads whose values name members.
const MEMBERS: [&str; 3] = ["node", "nodes", "peers"];

impl Cast {
    pub fn new(members: u64, workloads: &[Workload], faults: &[FaultPlan]) -> Self {
        let clients = workloads.iter().map(|workload| workload.clients(members));
        let adds = faults.iter().map(|plan| match plan.fault {
            // Each on a new machine, which has the next number.
            Fault::AddMember(_) | Fault::ReplaceDisk(_) | Fault::WipeDisk(_) => {
                u64::from(plan.times)
            }
            _ => 0,
        });
        let grows = workloads
            .iter()
            .any(|workload| matches!(workload, Workload::MemberChanges(w) if w.weights.add > 0));
        let most = if grows { u64::MAX } else { members + adds.sum::<u64>() };
        Self { members: most, clients: clients.sum() }
    }

    /// Errors: a number that no member has.
    pub fn check_member(&self, number: u64) -> Result<(), String> {
        self.check_target(Target::Member(MemberId(number)))
    }

    /// Errors: the entry names a member or client that is never there.
    pub fn check(&self, entry: &Table) -> Result<(), String> {
        for key in MEMBERS {
            let names = entry.get(key).into_iter().flat_map(|value| match value {
                Value::Array(names) => names.iter().collect(),
                one => vec![one],
            });
            let mut targets = names.filter_map(|name| name.as_str()?.parse::<Target>().ok());
            targets
                .try_for_each(|target| self.check_target(target))
                .map_err(|what| format!("`{key}`: {what}"))?;
        }
        let clients = entry.get("clients").and_then(Value::as_array).into_iter().flatten();
        let unknown = clients.filter_map(Value::as_integer).find(|n| *n >= i64::from(self.clients));
        match (unknown, self.clients) {
            (None, _) => Ok(()),
            (Some(n), 0) => Err(format!("`clients`: there is no client {n}: no load has any")),
            (Some(n), all) => {
                Err(format!("`clients`: there is no client {n}: expected 0 to {}", all - 1))
            }
        }
    }

    fn check_target(&self, target: Target) -> Result<(), String> {
        let members = self.members;
        let is_there = match target {
            Target::Leader => true,
            Target::Member(id) => id.0 <= members,
            Target::Follower(n) => n < members,
        };
        match (is_there, members) {
            (true, _) => Ok(()),
            (false, 1) => Err(format!("{target} is no member: expected leader or m1")),
            (false, _) => Err(format!(
                "{target} is no member: expected leader, m1 to m{members}, follower to follower{}",
                members - 1
            )),
        }
    }
}
