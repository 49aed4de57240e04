//! What an operator does to the cluster while it runs: adds, promotes, replaces and removes members,
//! moves the leader. Each operation is a list of things to do, asked of the members over client
//! connections like any request, again and again until they are done or time is up.
//!
//! ```text
//! look at the member list ─► done already? next : ask for the change ─► answered? next : pause, look again
//! ```
//!
//! A change whose answer was lost may have been made: nobody walks away from one. A cluster of one that has got a
//! second voter can answer nothing until that voter runs, so who has asked for it looks at the list as the members
//! have it and starts what is in it.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{ApiError, BootMember, Instant, MemberId};

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
/// An operation that has not got to its first change by then is given up.
const PATIENCE: Duration = Duration::from_secs(120);
/// A change that was queued somewhere is dropped by then: a member's own limit, 5 s and two election timeouts.
const SETTLED: Duration = Duration::from_secs(15);

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
    /// The last look at the list got no answer.
    is_unanswered: bool,
    /// What the last request met.
    last_answer: String,
    /// Since when, after the faults, there is no place for a further learner.
    refused_since: Option<Instant>,
    /// When to give up; never, once a change has been asked for or the faults are over.
    until_ns: Option<u64>,
    /// Somebody's disk was taken: until it is over no other may be.
    takes_a_disk: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    List,
    /// The list as one member has it: what is in it was added, what is not may have been.
    LocalList,
    Change,
}

impl World {
    /// Begins an operation of fault number `self.next_fault`.
    pub(crate) fn operate(&mut self, todo: Vec<Task>, takes_a_disk: bool) {
        // The fault that begins now has its number already.
        let fault = self.next_fault - 1;
        let until_ns = Some((self.now() + PATIENCE).ns);
        let operation = Operation {
            fault,
            todo: todo.into(),
            asked: None,
            added: None,
            goal: 0,
            turn: fault as usize,
            is_unanswered: false,
            last_answer: "nothing was asked".to_owned(),
            refused_since: None,
            until_ns,
            takes_a_disk,
        };
        self.operations.insert(fault, operation);
        self.schedule(self.now().ns, Event::Operate { operation: fault });
    }

    /// The faults are over: what was begun is brought to its end, and the cluster is not whole before.
    pub(crate) fn hold_operators(&mut self) {
        for operation in self.operations.values_mut() {
            operation.until_ns = None;
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
        let is_late = operation.until_ns.is_some_and(|until_ns| self.now().ns >= until_ns);
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
                let added = operation.added.and_then(|id| self.nodes.iter().find(|n| n.id == id));
                let status = added.and_then(|node| Some(node.member()?.status()));
                let has_all = status.is_some_and(|s| s.persisted_index >= operation.goal);
                // Somebody else may have removed it meanwhile.
                if has_all || added.is_none_or(|node| node.retired) {
                    operation.todo.pop_front();
                }
            }
            // Its disk was found damaged meanwhile: it never starts again.
            Task::MoveLeader(to)
                if self.place(*to).is_some_and(|place| self.node(place).retired) =>
            {
                operation.todo.pop_front();
            }
            Task::Add { .. } if operation.is_unanswered && operation.until_ns.is_none() => {
                self.ask(operation, Asked::LocalList, None);
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
        if change.is_some() {
            operation.until_ns = None;
        }
        let list = pb::MemberListRequest { linearizable: asked != Asked::LocalList };
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
        operation.is_unanswered = asked == Asked::List && !matches!(result, Ok(Ok(_)));
        operation.last_answer = match &result {
            Ok(Ok(_)) => "ok".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("{error:?}"),
        };
        match (asked, result) {
            (Asked::LocalList, Ok(Ok(Reply::MemberList(list)))) => {
                operation.turn += 1;
                self.start_if_added(operation, &list.members);
                RETRY
            }
            (Asked::Change, Ok(Ok(Reply::MemberAdd(added)))) => {
                self.start_if_added(operation, &added.members);
                LOOK
            }
            (Asked::List, Ok(Ok(Reply::MemberList(list)))) => {
                if self.start_if_added(operation, &list.members) {
                    return LOOK;
                }
                match decide_on(operation, &list.members) {
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
            (Asked::Change, Ok(Err(ApiError::TooManyLearners))) if self.is_healed => {
                self.on_no_place(operation);
                RETRY
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

    /// Another learner stays for good, and one is all that there may be. In place of a voter that is lost comes
    /// another at once; a learner more than that is not added.
    fn on_no_place(&mut self, operation: &mut Operation) {
        let since = *operation.refused_since.get_or_insert(self.now());
        match operation.todo.front_mut() {
            Some(Task::Add { is_learner, .. }) if operation.takes_a_disk => *is_learner = false,
            _ if self.now() >= since + SETTLED => operation.todo.clear(),
            _ => {}
        }
    }

    /// What operators are still about, a line each.
    pub(super) fn explain_operations(&self) -> Vec<String> {
        let line = |operation: &Operation| {
            let Operation { fault, todo, last_answer, .. } = operation;
            format!(
                "the operator of fault {fault} has still to do {todo:?}; the last answer: {last_answer}"
            )
        };
        self.operations.values().map(line).collect()
    }

    /// Adding comes first: whether the member is in the list. It is started then, and that task is done.
    fn start_if_added(&mut self, operation: &mut Operation, list: &[pb::Member]) -> bool {
        let Some(&Task::Add { machine, .. }) = operation.todo.front() else { return false };
        let leader = self.leader().and_then(|id| self.member_status(id));
        operation.goal = leader.map_or(0, |status| status.commit_index);
        operation.added = self.start_listed(machine, list);
        if operation.added.is_some() {
            operation.todo.pop_front();
        }
        operation.added.is_some()
    }

    /// Starts the member that the list has on that machine, unless it runs. `None`: there is no such member.
    pub(crate) fn start_listed(&mut self, machine: u64, list: &[pb::Member]) -> Option<MemberId> {
        let url = peer_url(machine);
        // A list of before may have who was at the address then.
        let is_gone = |id: u64| self.nodes.iter().any(|node| node.id.0 == id && node.retired);
        let mut at_url = list.iter().filter(|member| member.peer_ur_ls.contains(&url));
        let id = at_url.find(|member| !is_gone(member.id)).map(|member| MemberId(member.id))?;
        self.start_joiner(id, machine, list);
        Some(id)
    }

    /// A new node with an empty disk, told the member list as it is.
    fn start_joiner(&mut self, id: MemberId, machine: u64, list: &[pb::Member]) {
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
        node.config.join = true;
        node.config.name = format!("m{number}");
        node.machine = machine;
        if self.is_healed {
            node.disk.calm();
        }
        self.nodes.push(node);
        let place = number as u32 - 1;
        self.start(place);
        // Whoever waits for it can dial it now.
        for other in 0..place {
            self.dial_wanted(other);
        }
    }

    /// The machine that a further member gets.
    pub(crate) fn next_machine(&mut self) -> u64 {
        self.last_machine += 1;
        self.last_machine
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

/// With the member list at hand: the request to send, or `None` when the task is done.
fn decide_on(operation: &Operation, list: &[pb::Member]) -> Option<Request> {
    match operation.todo.front()?.clone() {
        Task::Add { machine, is_learner } => {
            let peer_ur_ls = vec![peer_url(machine)];
            Some(Request::MemberAdd(pb::MemberAddRequest { peer_ur_ls, is_learner }))
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
            // Others went meanwhile: the last voter stays.
            let is_last = list.iter().all(|member| member.is_learner || member.id == id.0);
            let request = pb::MemberRemoveRequest { id: id.0 };
            (is_there && !is_last).then_some(Request::MemberRemove(request))
        }
        Task::MoveLeader(to) => {
            let target_id = to.0;
            Some(Request::MoveLeader(pb::MoveLeaderRequest { target_id }))
        }
        Task::CatchUp => None,
    }
}

/// Where the members on a machine are found, one after another.
pub(crate) fn peer_url(machine: u64) -> String {
    format!("http://10.0.0.{machine}:2380")
}
