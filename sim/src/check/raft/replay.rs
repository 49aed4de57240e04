//! The members' logs, replayed step by step. One pass; memory as the logs themselves.

use std::collections::BTreeMap;

use detkv_core::MemberId;
use rustc_hash::FxHashMap;

use super::Violation;
use crate::history::{Entry, EntryId, History, RaftStep, RaftTrace, Rare};

/// What came of the logs.
#[derive(Debug)]
pub struct RaftReplay {
    /// By index: what was committed there, as entry id + 1; 0 while unknown.
    committed: Vec<u32>,
    /// The first promise that was broken.
    pub broken: Option<Violation>,
    /// The first thing that a member had acknowledged and did not have after a restart.
    pub lost: Option<Violation>,
}

impl RaftReplay {
    /// Whether anybody committed the entry. `trace`: the one this was made of.
    pub fn is_committed(&self, trace: &RaftTrace, id: EntryId) -> bool {
        self.committed_at(trace.entry(id).index) == Some(id)
    }

    pub fn committed_at(&self, index: u64) -> Option<EntryId> {
        self.committed.get(index as usize)?.checked_sub(1).map(EntryId)
    }

    /// What was committed, in log order; indexes that were only seen inside a snapshot are left out.
    pub fn committed(&self) -> impl Iterator<Item = EntryId> {
        self.committed.iter().filter_map(|id| id.checked_sub(1).map(EntryId))
    }
}

pub fn replay(history: &History) -> RaftReplay {
    let trace = history.raft();
    let mut replayer = Replayer {
        trace,
        members: BTreeMap::new(),
        committed: Vec::new(),
        commit_terms: Vec::new(),
        votes: BTreeMap::new(),
        leaderships: Vec::new(),
        lost: None,
    };
    let broken = replayer.run().err();
    let Replayer { committed, lost, .. } = replayer;
    RaftReplay { committed, broken, lost }
}

/// One member's log. Index `offset + 1 + i` is `log[i]`.
#[derive(Default, Debug)]
struct Log {
    is_open: bool,
    term: u64,
    leads: bool,
    offset: u64,
    log: Vec<EntryId>,
    commit: u64,
    /// Of the life before, until the log of this one is known: what it had acknowledged.
    before: Option<Before>,
    /// (term, candidate) it told of last.
    voted: Option<(u64, MemberId)>,
}

#[derive(Debug)]
struct Before {
    offset: u64,
    log: Vec<EntryId>,
    acknowledged: u64,
}

impl Log {
    fn last(&self) -> u64 {
        self.offset + self.log.len() as u64
    }

    fn at(&self, index: u64) -> Option<EntryId> {
        let place = index.checked_sub(self.offset + 1)?;
        self.log.get(place as usize).copied()
    }
}

/// A leadership, and the part of its log that was not known to be committed when it began.
#[derive(Debug)]
struct Leadership {
    member: MemberId,
    term: u64,
    /// Index before the first of `tail`.
    from: u64,
    tail: Vec<EntryId>,
}

struct Replayer<'h> {
    trace: &'h RaftTrace,
    members: BTreeMap<MemberId, Log>,
    /// By index, as entry id + 1.
    committed: Vec<u32>,
    /// By index: the least term in which a member was seen to know it committed.
    commit_terms: Vec<u64>,
    /// (member, term): the candidate it told that it has its vote.
    votes: BTreeMap<(MemberId, u64), MemberId>,
    leaderships: Vec<Leadership>,
    lost: Option<Violation>,
}

impl<'h> Replayer<'h> {
    fn run(&mut self) -> Result<(), Violation> {
        log_matching(self.trace)?;
        for step in self.trace.steps() {
            match step {
                RaftStep::Appended { member, from, entries } => {
                    self.appended(member, from, entries)?;
                }
                RaftStep::Committed { member, index } => self.commit(member, index)?,
                RaftStep::Rare { member, what, .. } => self.rare(member, what)?,
            }
        }
        self.late_commits()
    }

    fn rare(&mut self, member: MemberId, what: &Rare) -> Result<(), Violation> {
        let log = self.members.entry(member).or_default();
        match what {
            Rare::Term { term } => log.term = *term,
            Rare::Follows { .. } => log.leads = false,
            Rare::Leads { term } => {
                log.leads = true;
                return self.lead(member, *term);
            }
            Rare::Voted { term, candidate } => {
                log.voted = Some((*term, *candidate));
                let first = *self.votes.entry((member, *term)).or_insert(*candidate);
                if first != *candidate {
                    let message = format!(
                        "member {member} voted for {first} and for {candidate} in term {term}"
                    );
                    return Err(broken("one vote per term", message));
                }
            }
            Rare::Installed { index, .. } => {
                (log.offset, log.commit) = (*index, log.commit.max(*index));
                log.log.clear();
            }
            Rare::Opened { term, vote, offset, .. } => {
                let before = log.before.take();
                let voted = log.voted;
                *log =
                    Log { is_open: true, term: *term, offset: *offset, before, ..Log::default() };
                log.voted = voted;
                return remembers_vote(member, log, *vote);
            }
            Rare::DiskDamaged => (log.before, log.voted) = (None, None),
            Rare::Ended { acknowledged } => {
                let before = Before {
                    offset: log.offset,
                    log: std::mem::take(&mut log.log),
                    acknowledged: *acknowledged,
                };
                (log.is_open, log.leads, log.before) = (false, false, Some(before));
            }
        }
        Ok(())
    }

    fn appended(
        &mut self,
        member: MemberId,
        from: u64,
        entries: &[EntryId],
    ) -> Result<(), Violation> {
        let log = self.members.entry(member).or_default();
        let last = log.last();
        if from > last + 1 {
            // The world lost sight of it: begin anew.
            (log.offset, log.log) = (from - 1, Vec::new());
        }
        if log.leads && from <= last {
            let message = format!(
                "member {member} leads term {} and replaced its log from index {from} of {last}",
                log.term
            );
            return Err(broken("leader append-only", message));
        }
        if from <= log.commit {
            let is_same = entries
                .iter()
                .zip(from..=log.commit)
                .all(|(id, index)| log.at(index).is_none_or(|old| old == *id));
            if !is_same || from + (entries.len() as u64) <= log.commit {
                let message =
                    format!("member {member} cut its log at {from}, committed was {}", log.commit);
                return Err(broken("committed never changes", message));
            }
        }
        log.log.truncate(from.saturating_sub(log.offset + 1) as usize);
        log.log.extend_from_slice(entries);
        if let Some(before) = log.before.take()
            && let Err(lost) = still_there(self.trace, member, log, &before)
        {
            self.lost.get_or_insert(lost);
        }
        Ok(())
    }

    fn commit(&mut self, member: MemberId, index: u64) -> Result<(), Violation> {
        let log = self.members.entry(member).or_default();
        let index = index.min(log.last());
        if self.committed.len() <= index as usize {
            self.committed.resize(index as usize + 1, 0);
            self.commit_terms.resize(index as usize + 1, u64::MAX);
        }
        for i in (log.commit.max(log.offset) + 1)..=index {
            let Some(id) = log.at(i) else { continue };
            let committed = &mut self.committed[i as usize];
            if *committed != 0 && *committed != id.0 + 1 {
                let other = self.trace.entry(EntryId(*committed - 1));
                let this = self.trace.entry(id);
                let message = format!(
                    "member {member} committed at index {i} an entry of term {}, another member one of term {}",
                    this.term, other.term
                );
                return Err(broken("committed never changes", message));
            }
            *committed = id.0 + 1;
            let term = &mut self.commit_terms[i as usize];
            *term = log.term.min(*term);
        }
        if log.leads
            && index > log.commit
            && let Some(last) = log.at(index)
            && self.trace.entry(last).term != log.term
        {
            let message = format!(
                "leader {member} of term {} committed index {index}, an entry of term {}",
                log.term,
                self.trace.entry(last).term
            );
            return Err(broken("committed by counting", message));
        }
        log.commit = log.commit.max(index);
        Ok(())
    }

    fn lead(&mut self, member: MemberId, term: u64) -> Result<(), Violation> {
        let log = &self.members[&member];
        // Terms of commits never fall along the log.
        let end = self.commit_terms.partition_point(|commit| *commit < term || *commit == u64::MAX);
        let is_earlier = |i: &usize| self.committed[*i] != 0 && self.commit_terms[*i] < term;
        let newest = (0..end).rev().find(is_earlier);
        if let Some(index) = newest {
            let committed = EntryId(self.committed[index] - 1);
            has_committed(self.trace, member, term, log, index as u64, committed)?;
        }
        let from = log.commit.max(log.offset);
        let tail = log.log[(from - log.offset) as usize..].to_vec();
        self.leaderships.push(Leadership { member, term, from, tail });
        Ok(())
    }

    /// Commits of earlier terms that were seen only after a leadership had begun.
    fn late_commits(&self) -> Result<(), Violation> {
        for leadership in &self.leaderships {
            let Leadership { member, term, from, tail } = leadership;
            let log = Log { offset: *from, log: tail.clone(), ..Log::default() };
            for index in (*from as usize + 1)..self.committed.len() {
                if self.committed[index] != 0 && self.commit_terms[index] >= *term {
                    break;
                }
                if let Some(id) = self.committed[index].checked_sub(1) {
                    let committed = EntryId(id);
                    has_committed(self.trace, *member, *term, &log, index as u64, committed)?;
                }
            }
        }
        Ok(())
    }
}

fn broken(promise: &'static str, message: String) -> Violation {
    Violation::new(promise, message, Vec::new())
}

fn has_committed(
    trace: &RaftTrace,
    member: MemberId,
    term: u64,
    log: &Log,
    index: u64,
    committed: EntryId,
) -> Result<(), Violation> {
    // What lies in its snapshot was committed before.
    if index <= log.offset || log.at(index) == Some(committed) {
        return Ok(());
    }
    let has = match log.at(index) {
        Some(other) => format!("holds one of term {} there", trace.entry(other).term),
        None => format!("its log ends at {}", log.last()),
    };
    let message = format!(
        "member {member} leads term {term} without the committed entry {index} of term {}: {has}",
        trace.entry(committed).term
    );
    Err(broken("leader completeness", message))
}

/// An index and a term name one entry and, by induction, everything before it.
fn log_matching(trace: &RaftTrace) -> Result<(), Violation> {
    // Most indexes have one entry only: a table of all of them would be the size of the log again.
    let mut first_at: Vec<u32> = Vec::new();
    let mut by_name: FxHashMap<(u64, u64), u32> = FxHashMap::default();
    for (id, entry) in trace.entries().iter().enumerate() {
        let place = entry.index as usize;
        if place >= first_at.len() {
            first_at.resize(place + 1, 0);
        }
        let Some(first) = first_at[place].checked_sub(1) else {
            first_at[place] = id as u32 + 1;
            continue;
        };
        let first_term = trace.entries()[first as usize].term;
        let other = if first_term == entry.term {
            Some(first)
        } else {
            by_name.insert((entry.index, entry.term), id as u32)
        };
        if let Some(other) = other {
            return Err(mismatch(entry, &trace.entries()[other as usize]));
        }
    }
    Ok(())
}

fn mismatch(a: &Entry, b: &Entry) -> Violation {
    let what = if a.hash != b.hash { "their bytes differ" } else { "other entries come before" };
    let message = format!("two entries of index {} and term {}: {what}", a.index, a.term);
    broken("log matching", message)
}

fn remembers_vote(member: MemberId, log: &Log, vote: Option<MemberId>) -> Result<(), Violation> {
    let Some((term, candidate)) = log.voted else { return Ok(()) };
    if log.term > term || (log.term == term && vote == Some(candidate)) {
        return Ok(());
    }
    let now = vote.map_or("nobody".to_owned(), |vote| vote.to_string());
    let message = format!(
        "member {member} had told of its vote for {candidate} in term {term}; restarted, it stands in term {} with a vote for {now}",
        log.term
    );
    Err(broken("a vote was forgotten", message))
}

/// Everything that a member had told a leader to be durable is there after a restart.
fn still_there(
    trace: &RaftTrace,
    member: MemberId,
    log: &Log,
    before: &Before,
) -> Result<(), Violation> {
    let first = before.offset.max(log.offset) + 1;
    let known = before.offset + before.log.len() as u64;
    for index in first..=before.acknowledged.min(known) {
        let old = before.log[(index - before.offset - 1) as usize];
        if log.at(index) == Some(old) {
            continue;
        }
        let now = match log.at(index) {
            Some(other) => format!("an entry of term {} stands there", trace.entry(other).term),
            None => format!("its log ends at {}", log.last()),
        };
        let message = format!(
            "member {member} had acknowledged index {index} of term {}; restarted, {now}",
            trace.entry(old).term
        );
        return Err(broken("an acknowledged entry is lost", message));
    }
    Ok(())
}
