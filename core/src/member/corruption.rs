//! Comparison with the peers (surface spec §16.7): before the first client, from time to time over the
//! whole key space, and of the hashes taken at compactions.
//!
//! ```text
//! own hash at R (in slices, beside everything) ─► every peer is asked for its hash at R ─► all have
//! answered or timed out ─► whole key space: a ReadIndex round ─► judged ─► CORRUPT alarm
//! ```
//! Hashes are compared under equal compact revisions only. Who differs from a majority is the culprit; if
//! there is no majority, the alarm names member 0.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Member;
use super::requests::{ReadWaiter, ReadWhat};
use crate::config::Config;
use crate::error::{ApiError, Halt};
use crate::event::{Input, Level, MemberId};
use crate::limits;
use crate::mvcc::{HashId, KvHash};
use crate::pb::etcdserverpb::{AlarmMember, AlarmType};
use crate::pb::peer::{self, Frame, frame::Body};
use crate::time::Instant;

#[derive(Debug)]
pub struct Corruption {
    last_hash: HashId,
    last_ask: u64,
    /// Hashes being taken for peers: who asked, under which request id.
    for_peers: BTreeMap<HashId, (MemberId, u64)>,
    check: Option<Check>,
    periodic: Option<Timer>,
    compactions: Option<Timer>,
    /// Newest compaction whose hash was found the same on all members.
    checked_revision: i64,
    /// Clients wait for the check before the first of them: what they sent.
    held: Option<Vec<Input>>,
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    every: Duration,
    next_at: Instant,
}

impl Timer {
    fn new(every: Duration, now: Instant) -> Self {
        Self { every, next_at: now + every }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next_at <= now
    }

    fn restart(&mut self, now: Instant) {
        self.next_at = now + self.every;
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Initial,
    Periodic,
    Compaction,
}

/// A comparison under way.
#[derive(Debug)]
struct Check {
    kind: Kind,
    deadline: Instant,
    stage: Stage,
    /// Peers asked and not heard of.
    waiting: BTreeMap<MemberId, u64>,
    answers: BTreeMap<MemberId, peer::HashReply>,
    /// Hashes of older compactions, to be compared if this one says too little.
    older: Vec<KvHash>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// This member's own hash is being taken.
    Own(HashId),
    Peers(KvHash),
    /// All that will answer have; a ReadIndex round shows that this member leads still.
    Confirming(KvHash),
}

impl Corruption {
    pub fn new(config: &Config, now: Instant) -> Self {
        let timer = |every: Option<Duration>| {
            every.filter(|every| !every.is_zero()).map(|every| Timer::new(every, now))
        };
        Self {
            last_hash: HashId(0),
            last_ask: 0,
            for_peers: BTreeMap::new(),
            check: None,
            periodic: timer(config.corrupt_check_interval),
            compactions: timer(config.compact_hash_check_interval),
            checked_revision: 0,
            held: config.initial_corrupt_check.then(Vec::new),
        }
    }

    fn next_hash(&mut self) -> HashId {
        self.last_hash.0 += 1;
        self.last_hash
    }

    /// While a check is under way the timers wait for its end.
    pub fn next_deadline(&self) -> Option<Instant> {
        if let Some(check) = &self.check {
            return Some(check.deadline).filter(|at| *at < Instant::FAR);
        }
        [self.periodic, self.compactions].into_iter().flatten().map(|timer| timer.next_at).min()
    }

    /// A check is due and none is under way.
    pub fn is_due(&self, now: Instant) -> bool {
        let mut timers = [self.periodic, self.compactions].into_iter().flatten();
        self.check.is_none() && timers.any(|timer| timer.is_due(now))
    }

    /// What has been due for longest, so that none of two frequent checks starves the other.
    fn take_due(&mut self, now: Instant) -> Option<Kind> {
        let timers =
            [(Kind::Periodic, &mut self.periodic), (Kind::Compaction, &mut self.compactions)];
        let timers = timers.into_iter().filter_map(|(kind, timer)| Some((kind, timer.as_mut()?)));
        let due = timers.filter(|(_, timer)| timer.is_due(now));
        let (kind, timer) = due.min_by_key(|(_, timer)| timer.next_at)?;
        timer.restart(now);
        Some(kind)
    }
}

impl Member {
    /// Before the initial check is over, clients wait.
    pub(super) fn is_holding_back(&self) -> bool {
        self.corruption.held.is_some()
    }

    /// Returns what may be handled now.
    pub(super) fn hold_back(&mut self, input: Input) -> Option<Input> {
        let Some(held) = &mut self.corruption.held else { return Some(input) };
        match input {
            Input::Request { id, .. } if held.len() >= limits::PENDING_REQUESTS_MAX => {
                self.replies.push((id, Err(ApiError::TooManyRequests)));
                None
            }
            Input::Request { .. }
            | Input::StreamOpen { .. }
            | Input::StreamRequest { .. }
            | Input::StreamDrained { .. }
            | Input::StreamClosed { .. } => {
                held.push(input);
                None
            }
            Input::Stop => {
                self.release_held();
                Some(input)
            }
            _ => Some(input),
        }
    }

    fn release_held(&mut self) {
        for input in self.corruption.held.take().unwrap_or_default() {
            self.take(input);
        }
    }

    /// Starts what is due, gives up on what takes too long.
    pub(super) fn check_corruption(&mut self) {
        let now = self.now;
        if self.corruption.held.is_some() && self.corruption.check.is_none() {
            self.begin_check(Kind::Initial, Vec::new());
        }
        if self.corruption.check.as_ref().is_some_and(|check| check.deadline <= now) {
            match self.corruption.check.as_ref().map(|check| check.stage) {
                Some(Stage::Peers(_)) => self.on_peers_heard(),
                _ => self.abandon_check("it took too long"),
            }
        }
        let leads = self.node.is_leader() && self.lead.term_started;
        let may_begin = leads && self.lead.stopping.is_none();
        // What comes due during a check is due still when that is over.
        while self.corruption.check.is_none()
            && let Some(kind) = self.corruption.take_due(now)
        {
            match kind {
                _ if !may_begin => {}
                Kind::Compaction => {
                    let checked = self.corruption.checked_revision;
                    let mut hashes = self.reader.compaction_hashes();
                    hashes.retain(|hash| hash.revision > checked);
                    if !hashes.is_empty() {
                        self.begin_check(Kind::Compaction, hashes);
                    }
                }
                kind => self.begin_check(kind, Vec::new()),
            }
        }
    }

    /// `hashes`: of compactions, oldest first; otherwise the key space as it is now is hashed.
    fn begin_check(&mut self, kind: Kind, mut hashes: Vec<KvHash>) {
        let deadline = self.now + self.config.request_timeout();
        let known = hashes.pop();
        let id = self.corruption.next_hash();
        self.corruption.check = Some(Check {
            kind,
            deadline,
            stage: Stage::Own(id),
            waiting: BTreeMap::new(),
            answers: BTreeMap::new(),
            older: hashes,
        });
        match known.map_or_else(|| self.store.begin_hash(id, 0), |hash| Ok(Some(hash))) {
            Ok(Some(hash)) => self.on_own_hash(hash),
            // Large stores take a while: as long as they take.
            Ok(None) => self.corruption.check.as_mut().expect("just begun").deadline = Instant::FAR,
            Err(error) => self.abandon_check(&error.to_string()),
        }
    }

    pub(super) fn on_hashed(&mut self, id: HashId, result: &Result<KvHash, ApiError>) {
        if let Some((peer, request_id)) = self.corruption.for_peers.remove(&id) {
            return self.answer_hash(peer, request_id, result);
        }
        if self.corruption.check.as_ref().is_none_or(|check| check.stage != Stage::Own(id)) {
            return;
        }
        match result {
            Ok(hash) => self.on_own_hash(*hash),
            Err(error) => self.abandon_check(&error.to_string()),
        }
    }

    fn on_own_hash(&mut self, own: KvHash) {
        let peers: Vec<MemberId> = self.cluster.members().map(|m| MemberId(m.id)).collect();
        let deadline = self.now + self.config.request_timeout();
        let Some(check) = &mut self.corruption.check else { return };
        check.stage = Stage::Peers(own);
        check.deadline = deadline;
        for peer in peers.into_iter().filter(|peer| *peer != self.config.id) {
            self.corruption.last_ask += 1;
            check.waiting.insert(peer, self.corruption.last_ask);
        }
        for peer in check.waiting.keys().copied().collect::<Vec<_>>() {
            self.ask_hash(peer);
        }
        self.maybe_all_heard();
    }

    /// Asks a peer that is connected; the others when they come up.
    pub(super) fn ask_hash(&mut self, peer: MemberId) {
        let Some(check) = &self.corruption.check else { return };
        let Stage::Peers(own) = check.stage else { return };
        let Some(request_id) = check.waiting.get(&peer).copied() else { return };
        if self.peers_up.contains_key(&peer) {
            let ask = peer::HashAsk { request_id, revision: own.revision };
            self.frames.push((peer, Frame { body: Some(Body::HashAsk(ask)) }));
        }
    }

    pub(super) fn handle_hash_ask(&mut self, from: MemberId, ask: peer::HashAsk) {
        // A peer that asks again has given the first question up.
        self.corruption.for_peers.retain(|_, (peer, _)| *peer != from);
        let id = self.corruption.next_hash();
        let result = match self.store.begin_hash(id, ask.revision) {
            Ok(None) => {
                self.corruption.for_peers.insert(id, (from, ask.request_id));
                return;
            }
            Ok(Some(hash)) => Ok(hash),
            Err(error) => Err(error),
        };
        self.answer_hash(from, ask.request_id, &result);
    }

    fn answer_hash(&mut self, to: MemberId, request_id: u64, result: &Result<KvHash, ApiError>) {
        let revision = self.store.revision();
        let reply = match result {
            Ok(hash) => peer::HashReply {
                request_id,
                hash: hash.hash,
                compact_revision: hash.compact_revision,
                hash_revision: hash.revision,
                revision,
                ..Default::default()
            },
            Err(error) => {
                peer::HashReply { request_id, error: error.to_string(), ..Default::default() }
            }
        };
        self.frames.push((to, Frame { body: Some(Body::HashReply(reply)) }));
    }

    pub(super) fn handle_hash_reply(&mut self, from: MemberId, reply: peer::HashReply) {
        let Some(check) = &mut self.corruption.check else { return };
        if check.waiting.get(&from) != Some(&reply.request_id) {
            return;
        }
        check.waiting.remove(&from);
        if reply.error.is_empty() {
            check.answers.insert(from, reply);
        } else {
            let fields = vec![("remote-peer-id", from.to_string()), ("error", reply.error)];
            self.log(Level::Warn, "failed hash kv request", fields);
        }
        self.maybe_all_heard();
    }

    fn maybe_all_heard(&mut self) {
        if self.corruption.check.as_ref().is_some_and(|check| check.waiting.is_empty()) {
            self.on_peers_heard();
        }
    }

    /// All have answered, or will not.
    fn on_peers_heard(&mut self) {
        let deadline = self.now + self.config.request_timeout();
        let Some(check) = &mut self.corruption.check else { return };
        let Stage::Peers(own) = check.stage else { return };
        match check.kind {
            Kind::Initial => self.judge_initial(own),
            Kind::Compaction => self.judge_compaction(own),
            Kind::Periodic => {
                check.stage = Stage::Confirming(own);
                check.deadline = deadline;
                let what = ReadWhat::CorruptionCheck;
                self.reads.push(ReadWaiter { started: self.now, what });
            }
        }
    }

    pub(super) fn abandon_check(&mut self, why: &str) {
        let Some(check) = self.corruption.check.take() else { return };
        let fields = vec![("error", why.to_owned())];
        self.log(Level::Warn, "gave up a corruption check", fields);
        if check.kind == Kind::Initial {
            self.release_held();
        }
    }

    /// A received snapshot took the store's place: the hashes under way have no result.
    pub(crate) fn on_hashes_lost(&mut self) {
        self.corruption.for_peers.clear();
        if matches!(&self.corruption.check, Some(Check { stage: Stage::Own(_), .. })) {
            self.abandon_check("the store was replaced by a snapshot");
        }
    }

    // -- what comes of it

    /// Members by what they hold, of those that answered under our compact revision; and whether all
    /// peers are among them.
    fn group(&self, own: KvHash, check: &Check) -> (BTreeMap<u32, Vec<MemberId>>, bool) {
        let mut groups = BTreeMap::from([(own.hash, vec![self.config.id])]);
        let mut compared = 1;
        for (peer, answer) in &check.answers {
            let is_same = answer.compact_revision == own.compact_revision;
            if is_same && answer.hash_revision == own.revision {
                compared += 1;
                groups.entry(answer.hash).or_default().push(*peer);
            }
        }
        (groups, compared == self.cluster.members().count())
    }

    fn judge_initial(&mut self, own: KvHash) {
        let check = self.corruption.check.take().expect("a check is judged once");
        let (groups, _) = self.group(own, &check);
        let others: Vec<String> = groups
            .iter()
            .filter(|(hash, _)| **hash != own.hash)
            .flat_map(|(hash, members)| members.iter().map(move |m| format!("{m} has {hash}")))
            .collect();
        if !others.is_empty() {
            let what = format!(
                "at revision {} {}, this member {}",
                own.revision,
                others.join(", "),
                own.hash
            );
            self.halt = Some(Halt::Corrupt(what));
            return;
        }
        self.log(Level::Info, "initial corruption checking passed; no corruption", Vec::new());
        self.release_held();
    }

    /// The whole key space: this member led after everybody had answered, so nobody is ahead of it.
    pub(super) fn on_check_confirmed(&mut self) {
        let Some(Check { stage: Stage::Confirming(own), kind: Kind::Periodic, .. }) =
            self.corruption.check
        else {
            return;
        };
        let check = self.corruption.check.take().expect("looked at above");
        let (revision, compact_revision) = (self.store.revision(), self.store.compact_revision());
        let is_ahead = |answer: &peer::HashReply| {
            answer.revision > revision || answer.compact_revision > compact_revision
        };
        let ahead: Vec<MemberId> =
            check.answers.iter().filter(|(_, a)| is_ahead(a)).map(|(peer, _)| *peer).collect();
        for peer in &ahead {
            self.raise_corrupt(*peer, "it is ahead of its leader");
        }
        let (groups, _) = self.group(own, &check);
        self.judge_groups(own, &groups);
        let fields = vec![("number-of-peers-checked", check.answers.len().to_string())];
        self.log(Level::Info, "finished peer corruption check", fields);
    }

    fn judge_compaction(&mut self, own: KvHash) {
        let mut check = self.corruption.check.take().expect("a check is judged once");
        let (groups, is_complete) = self.group(own, &check);
        let is_over = self.judge_groups(own, &groups) || is_complete;
        if is_complete && groups.len() == 1 {
            self.corruption.checked_revision = own.revision;
        }
        // An older one may be known to those that did not know this one.
        match check.older.pop().filter(|_| !is_over) {
            Some(older) => {
                check.older.push(older);
                self.begin_check(Kind::Compaction, check.older);
            }
            None => {
                let fields = vec![
                    ("revision", own.revision.to_string()),
                    ("number-of-peers-checked", check.answers.len().to_string()),
                ];
                self.log(Level::Info, "finished compaction hash check", fields);
            }
        }
    }

    /// Raises the alarm for whoever differs from a majority. Returns whether anybody differs.
    fn judge_groups(&mut self, own: KvHash, groups: &BTreeMap<u32, Vec<MemberId>>) -> bool {
        if groups.len() == 1 {
            return false;
        }
        let members = self.cluster.members().count();
        let majority =
            groups.iter().find(|(_, ids)| ids.len() > members / 2).map(|(hash, _)| *hash);
        let Some(majority) = majority else {
            self.raise_corrupt(MemberId(0), "hashes differ and none has a majority");
            return true;
        };
        let why = format!("another hash than the majority's at revision {}", own.revision);
        for id in groups.iter().filter(|(hash, _)| **hash != majority).flat_map(|(_, ids)| ids) {
            self.raise_corrupt(*id, &why);
        }
        true
    }

    fn raise_corrupt(&mut self, member: MemberId, why: &str) {
        let alarm = AlarmMember { member_id: member.0, alarm: AlarmType::Corrupt.into() };
        let fields = vec![("remote-peer-id", member.to_string()), ("error", why.to_owned())];
        self.log(Level::Error, "found different hash values from remote peer", fields);
        if !self.cluster.alarms().any(|active| active == alarm) {
            // Refused under load: the next check finds it again.
            let _ = self.propose_alarm(alarm);
        }
    }
}
