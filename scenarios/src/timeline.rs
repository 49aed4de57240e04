//! The timeline of a run for the report page, from the facts of its history.

use std::collections::{BTreeMap, BTreeSet};

use detkv_core::member::{ChangeKind, Role as CoreRole};
use detkv_core::{Instant, MemberId};
use detkv_reports::run::{FaultSpan, FsyncSample, LogEvent, MemberName, Role, RoleSpan, Timeline};
use detkv_sim_world::history::{DownHow, Fact, History, Phase};
use detkv_sim_world::{LogRecord, RunOutcome, SyncRecord};

use crate::figures::{Leaders, Puts, ms};
use crate::scenario::Scenario;

/// Log lines kept for the page; a run that logs more has its first ones shown.
const LOG_LINES_MAX: usize = 500;

pub fn timeline(
    scenario: &Scenario,
    outcome: &RunOutcome,
    puts: Puts,
    leaders: &Leaders,
    election_timeout_ms: u64,
) -> Timeline {
    let history = &outcome.history;
    let end_ms = outcome.virtual_ns / 1_000_000;
    let numbers = history.numbers();
    let members = scenario.members.max(numbers.len() as u64);
    let mut timeline = Timeline {
        members: (1..=members).map(|id| MemberName { id, name: format!("m{id}") }).collect(),
        election_timeout_ms,
        warm_up_ms: history.phase(Phase::WarmedUp).map_or(0, ms),
        roles: roles(history, end_ms),
        faults: faults(history),
        puts: puts.samples,
        put_gaps: puts.gaps,
        fsyncs: outcome.syncs.iter().map(fsync).collect(),
        events: events(history, leaders, &outcome.log),
    };
    renumber(&mut timeline, &numbers);
    timeline
}

/// Members that were added are told of by their number: nobody reads an id.
fn renumber(timeline: &mut Timeline, numbers: &BTreeMap<MemberId, u64>) {
    let number = |id: &mut u64| *id = numbers.get(&MemberId(*id)).copied().unwrap_or(*id);
    timeline.roles.iter_mut().for_each(|span| number(&mut span.member));
    timeline.fsyncs.iter_mut().for_each(|sample| number(&mut sample.member));
    timeline.faults.iter_mut().filter_map(|span| span.member.as_mut()).for_each(number);
    timeline.events.iter_mut().filter_map(|event| event.member.as_mut()).for_each(number);
}

fn fsync(sync: &SyncRecord) -> FsyncSample {
    FsyncSample {
        member: sync.member.0,
        time_ms: ms(sync.at),
        latency_us: sync.done.since(sync.at).as_micros() as u64,
    }
}

/// What a member is and since when.
struct Current {
    since_ms: u64,
    role: Role,
    term: u64,
    /// What it goes back to when it is resumed.
    before_pause: Option<(Role, u64)>,
}

/// Every member's life as spans without gaps.
fn roles(history: &History, end_ms: u64) -> Vec<RoleSpan> {
    let mut now: BTreeMap<MemberId, Current> = BTreeMap::new();
    let mut spans = Vec::new();
    for (at, fact) in history.facts() {
        let (member, role, term) = match fact {
            Fact::Recovering { member } => (*member, Role::Recovering, 0),
            Fact::Up { member } => (*member, Role::Follower, 0),
            Fact::Down { member, .. } => (*member, Role::Down, 0),
            Fact::Role { member, role, term, .. } => (*member, role_of(*role), *term),
            Fact::Paused { member } => {
                let before = now.get(member).map(|current| (current.role, current.term));
                change(&mut now, &mut spans, *member, *at, Role::Paused, before.map_or(0, |b| b.1));
                if let Some(current) = now.get_mut(member) {
                    current.before_pause = before;
                }
                continue;
            }
            Fact::Resumed { member } => {
                let before = now.get_mut(member).and_then(|current| current.before_pause.take());
                let (role, term) = before.unwrap_or((Role::Follower, 0));
                (*member, role, term)
            }
            _ => continue,
        };
        change(&mut now, &mut spans, member, *at, role, term);
    }
    for (member, current) in now {
        push_span(&mut spans, member, &current, end_ms);
    }
    spans.sort_by_key(|span| (span.from_ms, span.member));
    spans
}

fn change(
    now: &mut BTreeMap<MemberId, Current>,
    spans: &mut Vec<RoleSpan>,
    member: MemberId,
    at: Instant,
    role: Role,
    term: u64,
) {
    let since_ms = ms(at);
    let next = Current { since_ms, role, term, before_pause: None };
    if let Some(current) = now.insert(member, next) {
        push_span(spans, member, &current, since_ms);
    }
}

fn push_span(spans: &mut Vec<RoleSpan>, member: MemberId, current: &Current, to_ms: u64) {
    if to_ms > current.since_ms {
        let (from_ms, role, term) = (current.since_ms, current.role, current.term);
        spans.push(RoleSpan { member: member.0, from_ms, to_ms, role, term });
    }
}

fn role_of(role: CoreRole) -> Role {
    match role {
        CoreRole::Leader => Role::Leader,
        CoreRole::Follower => Role::Follower,
        CoreRole::PreCandidate => Role::PreCandidate,
        CoreRole::Candidate => Role::Candidate,
    }
}

fn faults(history: &History) -> Vec<FaultSpan> {
    let mut spans: BTreeMap<u32, FaultSpan> = BTreeMap::new();
    for (at, fact) in history.facts() {
        match fact {
            Fact::FaultBegan { fault, what, member } => {
                let span = FaultSpan {
                    name: what.clone(),
                    // `what` names it.
                    target: String::new(),
                    member: member.map(|member| member.0),
                    from_ms: ms(*at),
                    // Momentary, unless its end is recorded.
                    to_ms: ms(*at),
                    parameters: String::new(),
                };
                spans.insert(*fault, span);
            }
            Fact::FaultEnded { fault } => {
                if let Some(span) = spans.get_mut(fault) {
                    span.to_ms = ms(*at);
                }
            }
            _ => {}
        }
    }
    spans.into_values().collect()
}

/// The story: who led when, what broke, what the members warned of.
fn events(history: &History, leaders: &Leaders, log: &[LogRecord]) -> Vec<LogEvent> {
    let mut events: Vec<(Instant, LogEvent)> = Vec::new();
    let mut tell = |at: Instant, member: Option<MemberId>, text: String| {
        let member = member.map(|member| member.0);
        events.push((at, LogEvent { time_ms: ms(at), member, text }));
    };
    for (at, member, term) in &leaders.began {
        tell(*at, Some(*member), format!("leads term {term}"));
    }
    let numbers = history.numbers();
    let mut changes = BTreeSet::new();
    for (at, fact) in history.facts() {
        match fact {
            Fact::Membership { change, .. } if changes.insert(change.index) => {
                let number = numbers.get(&change.member).copied();
                let what = match change.kind {
                    ChangeKind::AddVoter => "joins the voters",
                    ChangeKind::AddLearner => "joins as a learner",
                    ChangeKind::Promote => "gets a vote",
                    ChangeKind::Remove => "is removed",
                    ChangeKind::Update => "has other URLs",
                };
                let voters = change.voters.len();
                let who = number.map(MemberId).or(Some(change.member));
                tell(*at, who, format!("{what}: {voters} voters"));
            }
            Fact::FaultBegan { what, member, .. } => tell(*at, *member, what.clone()),
            // The fault that did it is told already.
            Fact::Down { how: DownHow::Killed | DownHow::PowerLoss, .. } => {}
            Fact::Down { member, how } => tell(*at, Some(*member), down(how)),
            Fact::Up { member } => tell(*at, Some(*member), "is up".to_owned()),
            Fact::DiskDamaged { member } => {
                let what = "has a disk that took back what was durable";
                tell(*at, Some(*member), what.to_owned());
            }
            Fact::Phase(Phase::WarmedUp) => tell(*at, None, "warmed up".to_owned()),
            Fact::Phase(Phase::FaultsOver) => tell(*at, None, "the faults are over".to_owned()),
            Fact::Phase(Phase::Readout) => tell(*at, None, "everything is read back".to_owned()),
            Fact::Metric { member, name: "slow_disk_alarm", value } => {
                let text = if *value > 0 { "slow-disk alarm" } else { "slow-disk alarm is over" };
                tell(*at, Some(*member), text.to_owned());
            }
            Fact::Metric { member, name: "planned_transfers_total", value: 1.. } => {
                tell(*at, Some(*member), "hands its leadership over".to_owned());
            }
            _ => {}
        }
    }
    for record in log.iter().take(LOG_LINES_MAX) {
        let fields = record.line.fields.iter().map(|(name, value)| format!(" {name}={value}"));
        let text = record.line.msg.clone() + &fields.collect::<String>();
        tell(record.at, Some(record.member), text);
    }
    events.sort_by_key(|(at, _)| *at);
    events.into_iter().map(|(_, event)| event).collect()
}

fn down(how: &DownHow) -> String {
    match how {
        DownHow::Killed => "is killed".to_owned(),
        DownHow::PowerLoss => "loses power".to_owned(),
        DownHow::Stopped => "has stopped".to_owned(),
        DownHow::Halted(why) => format!("halts: {why}"),
        DownHow::OpenFailed(why) => format!("cannot open its data directory: {why}"),
    }
}
