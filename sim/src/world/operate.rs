//! What an operator does to the cluster while it runs: adds, promotes, replaces and removes members,
//! moves the leader. Each operation is a list of things to do, asked of the members over client
//! connections like any request, again and again until they are done or time is up.
//!
//! ```text
//! look at the member list ─► done already? next : ask for the change ─► answered? next : pause, look again
//! ```

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{ApiError, BootMember, MemberId};

use super::calls::CallResult;
use super::node::Node;
use super::{CallId, Event, World};
use crate::handle::{NodeStatus, Reply};
use crate::history::{self, ClientId, Fact};

/// Operators are clients too; their numbers lie above those of the workload.
const FIRST_OPERATOR: u32 = 1 << 16;
/// Pause between two looks at what became of a request, and between two tries.
const LOOK: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_millis(300);
/// Timeout of one request: longer than a member's own.
const CALL: Duration = Duration::from_secs(8);
/// An operation that is not done by then is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// And one that is not done so long after the faults, too.
const LAST_CHANCE: Duration = Duration::from_secs(20);

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Task {
    /// MemberAdd at the address of machine `machine`, then start it with an empty disk.
    Add {
        machine: u64,
        is_learner: bool,
    },
    /// The member that was added, or the one that is a learner.
    Promote(Option<MemberId>),
    Remove(MemberId),
    MoveLeader(MemberId),
    /// Until the member that was added has everything that was committed when it was started.
    CatchUp,
}

/// What an operator is about.
pub struct Operation {
    fault: u32,
    todo: VecDeque<Task>,
    asked: Option<(CallId, Asked)>,
    /// The member that it has added.
    added: Option<MemberId>,
    /// Commit index to catch up with.
    goal: u64,
    /// Which member to ask: moves on after each failure.
    turn: usize,
    until_ns: u64,
    /// Somebody's disk was taken: until it is over no other may be.
    takes_a_disk: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    List,
    Change,
}

impl World {
    /// Begins an operation of fault number `self.next_fault`.
    pub(crate) fn operate(&mut self, todo: Vec<Task>, takes_a_disk: bool) {
        // The fault that begins now has its number already.
        let fault = self.next_fault - 1;
        let until_ns = (self.now() + PATIENCE).ns;
        let operation = Operation {
            fault,
            todo: todo.into(),
            asked: None,
            added: None,
            goal: 0,
            turn: fault as usize,
            until_ns,
            takes_a_disk,
        };
        self.operations.insert(fault, operation);
        self.schedule(self.now().ns, Event::Operate { operation: fault });
    }

    /// The faults are over: what is not done soon is left as it is.
    pub(crate) fn hurry_operators(&mut self) {
        let until_ns = (self.now() + LAST_CHANCE).ns;
        for operation in self.operations.values_mut() {
            operation.until_ns = operation.until_ns.min(until_ns);
        }
    }

    /// Whether operators are at work: the cluster has not come to rest.
    pub(crate) fn is_operated(&self) -> bool {
        !self.operations.is_empty()
    }

    /// Whether the disk of `node` may be taken with every committed entry left on a majority.
    ///
    /// Errors: why not.
    pub(crate) fn may_take_disk(&self, node: u32) -> Result<(), String> {
        if !self.operations.is_empty() {
            return Err("another change of the cluster is under way".to_owned());
        }
        if self.disk_was_lost {
            return Err("the last disk that was taken was not replaced".to_owned());
        }
        let leader = self.leader().and_then(|id| self.member_status(id)).ok_or("no leader")?;
        if leader.voters.len() < 3 {
            return Err(format!("there are {} voters only", leader.voters.len()));
        }
        let target = self.node(node).id;
        let is_safe = |voter: &MemberId| {
            let status = self.member_status(*voter);
            status.is_some_and(|s| s.persisted_index >= self.settled_index && !s.voters.is_empty())
        };
        match leader.voters.iter().find(|voter| **voter != target && !is_safe(voter)) {
            Some(voter) => Err(format!("m{} is not up to date", self.number(*voter))),
            None => Ok(()),
        }
    }

    /// The machine's disk is gone for good, and with it the member.
    pub(crate) fn take_disk(&mut self, node: u32) {
        self.kill(node);
        self.node_mut(node).retired = true;
    }

    pub(super) fn on_operate(&mut self, number: u32) {
        let Some(mut operation) = self.operations.remove(&number) else { return };
        let pause = self.advance(&mut operation);
        let is_late = self.now().ns >= operation.until_ns;
        match pause {
            Some(pause) if !is_late || operation.asked.is_some() => {
                self.operations.insert(number, operation);
                let at = (self.now() + pause).ns;
                self.schedule(at, Event::Operate { operation: number });
            }
            gave_up => {
                self.disk_was_lost |= operation.takes_a_disk && gave_up.is_some();
                let commits = self.nodes.iter().filter_map(|n| Some(n.member()?.status()));
                let commit = commits.map(|status| status.commit_index).max().unwrap_or(0);
                self.settled_index = self.settled_index.max(commit);
                let fault = operation.fault;
                self.record(history::Event::Fact(Fact::FaultEnded { fault }));
            }
        }
    }

    /// Goes on with an operation. Returns when to look again; `None` when all is done.
    fn advance(&mut self, operation: &mut Operation) -> Option<Duration> {
        if let Some((call, asked)) = operation.asked {
            let Some(result) = self.poll_call(call, Waker::noop()) else { return Some(LOOK) };
            operation.asked = None;
            return Some(self.on_operator_answer(operation, asked, result));
        }
        match operation.todo.front()? {
            Task::CatchUp => {
                let status = operation.added.and_then(|id| self.member_status(id));
                let has_all = status.is_some_and(|s| s.persisted_index >= operation.goal);
                if has_all {
                    operation.todo.pop_front();
                }
            }
            _ => self.ask(operation, Asked::List, None),
        }
        Some(LOOK)
    }

    fn ask(&mut self, operation: &mut Operation, asked: Asked, change: Option<Request>) {
        let is_move = matches!(change, Some(Request::MoveLeader(_)));
        let leader = self.leader().and_then(|id| self.place(id)).filter(|_| is_move);
        let serving: Vec<u32> =
            (0..self.nodes.len() as u32).filter(|place| self.serves(*place)).collect();
        let turn = serving.get(operation.turn % serving.len().max(1)).copied();
        let Some(node) = leader.or(turn) else { return };
        let list = pb::MemberListRequest { linearizable: true };
        let request = change.unwrap_or(Request::MemberList(list));
        let client = ClientId(FIRST_OPERATOR + operation.fault);
        operation.asked = Some((self.start_call(client, node, request, CALL), asked));
    }

    /// A voter that is up, as far as it knows.
    fn serves(&self, place: u32) -> bool {
        match self.node(place).status() {
            NodeStatus::Up(status) => status.voters.contains(&status.id),
            _ => false,
        }
    }

    fn on_operator_answer(
        &mut self,
        operation: &mut Operation,
        asked: Asked,
        result: CallResult,
    ) -> Duration {
        match (asked, result) {
            (Asked::List, Ok(Ok(Reply::MemberList(list)))) => {
                match self.decide_on(operation, &list.members) {
                    Some(request) => self.ask(operation, Asked::Change, Some(request)),
                    None => {
                        operation.todo.pop_front();
                    }
                }
                LOOK
            }
            // Whatever it changed, the next look at the list says.
            (Asked::Change, Ok(Ok(reply))) => {
                if let Reply::MoveLeader(_) = reply {
                    operation.todo.pop_front();
                }
                LOOK
            }
            (_, Ok(Err(ApiError::BadLeaderTransferee))) => {
                operation.todo.pop_front();
                LOOK
            }
            _ => {
                operation.turn += 1;
                RETRY
            }
        }
    }

    /// With the member list at hand: the request to send, or `None` when the task is done.
    fn decide_on(&mut self, operation: &mut Operation, list: &[pb::Member]) -> Option<Request> {
        match operation.todo.front()?.clone() {
            Task::Add { machine, is_learner } => {
                let url = peer_url(machine);
                match list.iter().find(|member| member.peer_ur_ls.contains(&url)) {
                    Some(member) => {
                        let id = MemberId(member.id);
                        operation.added = Some(id);
                        self.start_joiner(operation, id, machine, list);
                        None
                    }
                    None => {
                        let peer_ur_ls = vec![url];
                        Some(Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls, is_learner }))
                    }
                }
            }
            Task::Promote(member) => {
                let id = member.or(operation.added).map(|id| id.0);
                let learners = list.iter().filter(|member| member.is_learner);
                let mut learner = learners.filter(|member| id.is_none_or(|id| member.id == id));
                let id = learner.next()?.id;
                Some(Request::MemberPromote(pb::MemberPromoteRequest { id }))
            }
            Task::Remove(id) => {
                let is_there = list.iter().any(|member| member.id == id.0);
                let request = pb::MemberRemoveRequest { id: id.0 };
                is_there.then_some(Request::MemberRemove(request))
            }
            Task::MoveLeader(to) => {
                let target_id = to.0;
                Some(Request::MoveLeader(pb::MoveLeaderRequest { target_id }))
            }
            Task::CatchUp => None,
        }
    }

    /// A new node with an empty disk, told the member list as it is.
    fn start_joiner(
        &mut self,
        operation: &mut Operation,
        id: MemberId,
        machine: u64,
        list: &[pb::Member],
    ) {
        if self.nodes.iter().any(|node| node.id == id) {
            return;
        }
        let boot: Vec<BootMember> = list
            .iter()
            .map(|member| BootMember {
                id: MemberId(member.id),
                name: member.name.clone(),
                peer_urls: member.peer_ur_ls.clone(),
            })
            .collect();
        let number = self.nodes.len() as u64 + 1;
        let cluster = self.nodes[0].config.cluster_id;
        let mut node = Node::new(&self.config, number, id, cluster, &boot);
        if self.is_healed {
            node.disk.end_episodes();
        }
        node.config.join = true;
        node.config.name = format!("m{number}");
        node.machine = machine;
        self.nodes.push(node);
        let place = number as u32 - 1;
        operation.goal =
            self.leader().and_then(|id| self.member_status(id)).map_or(0, |s| s.commit_index);
        self.start(place);
        // Whoever waits for it can dial it now.
        for other in 0..place {
            self.dial_wanted(other);
        }
    }

    /// The machine that a further member gets.
    pub(crate) fn next_machine(&self) -> u64 {
        let present = self.nodes.iter().map(|node| node.machine).max().unwrap_or(0);
        let wanted = self.operations.values().flat_map(|operation| &operation.todo);
        let wanted = wanted.filter_map(|task| match task {
            Task::Add { machine, .. } => Some(*machine),
            _ => None,
        });
        wanted.max().unwrap_or(0).max(present) + 1
    }

    /// `m4` is the fourth node of the world, whatever its id.
    pub(crate) fn number(&self, member: MemberId) -> u64 {
        self.place(member).map_or(member.0, |place| u64::from(place) + 1)
    }

    /// Voters as the leader has them.
    pub(crate) fn voters(&self) -> Vec<MemberId> {
        let leader = self.leader().and_then(|id| self.member_status(id));
        leader.map(|status| status.voters).unwrap_or_default()
    }
}

/// Where the members on a machine are found, one after another.
pub(super) fn peer_url(machine: u64) -> String {
    format!("http://10.0.0.{machine}:2380")
}
