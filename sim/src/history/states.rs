//! States of the members at equal applied indexes, compared while the run goes on.
//!
//! Members apply in batches that end at different indexes; those that end at the same one are compared. Of each
//! index the first state is remembered, until a newer index takes its slot: members that are further apart
//! than that meet again when they have caught up.

use std::collections::BTreeSet;

use detkv_core::{Instant, MemberId};

/// Remembered indexes: as far apart as members may be and still be compared.
const SLOTS: usize = 1 << 10;

/// What a member held when it had applied everything up to an index, and nothing after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    pub member: MemberId,
    pub applied_index: u64,
    pub hash: u64,
}

#[derive(Clone, Default, Debug)]
pub struct States {
    /// `slots[i]`: the first sample of the newest index that is `i` modulo their number.
    slots: Vec<Option<Sample>>,
    members: BTreeSet<MemberId>,
    compared: u64,
    /// The first two that differ: when, and the later one behind the earlier.
    differing: Option<(Instant, Sample, Sample)>,
}

impl States {
    pub fn sample(&mut self, at: Instant, sample: Sample) {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let slot = &mut self.slots[sample.applied_index as usize % SLOTS];
        match slot {
            Some(first) if first.applied_index == sample.applied_index => {
                // A member meets itself after a restart: it must come to the same state, but proves less.
                self.compared += u64::from(first.member != sample.member);
                if first.hash != sample.hash {
                    self.differing.get_or_insert((at, *first, sample));
                }
            }
            Some(newer) if newer.applied_index > sample.applied_index => {}
            _ => *slot = Some(sample),
        }
        self.members.insert(sample.member);
    }

    /// How many times two members were at the same index.
    pub fn compared(&self) -> u64 {
        self.compared
    }

    /// Members that had applied anything.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// The first two samples of one index that differ, and when that was seen.
    pub fn differing(&self) -> Option<(Instant, Sample, Sample)> {
        self.differing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(states: &mut States, member: u64, applied_index: u64, hash: u64) {
        let member = MemberId(member);
        states.sample(Instant::ZERO, Sample { member, applied_index, hash });
    }

    #[test]
    fn equal_indexes_are_compared_as_far_apart_as_there_are_slots() {
        let mut states = States::default();
        let far = SLOTS as u64;
        for index in 1..=far {
            sample(&mut states, 1, index, 7);
        }
        sample(&mut states, 2, 1, 7);
        assert_eq!((states.compared(), states.members()), (1, 2));
        // A newer index takes the slot, and an older one does not take it back.
        sample(&mut states, 1, far + 1, 8);
        sample(&mut states, 2, 1, 9);
        sample(&mut states, 2, far + 1, 8);
        assert_eq!((states.compared(), states.differing()), (2, None));
    }

    #[test]
    fn a_member_that_meets_itself_counts_only_when_it_differs() {
        let mut states = States::default();
        sample(&mut states, 1, 5, 7);
        sample(&mut states, 1, 5, 7);
        assert_eq!((states.compared(), states.differing()), (0, None));
        sample(&mut states, 1, 5, 8);
        assert!(states.differing().is_some());
    }
}
