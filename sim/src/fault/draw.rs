//! Where a swarm run gets a fault's parameters from: a random stream, and the cluster it is for.

use std::time::Duration;

use detkv_core::MemberId;
use rand_chacha::ChaCha8Rng;

use super::Target;
use crate::rng::uniform;

/// Draws parameters of faults.
///
/// Numbers are drawn log-uniformly, so that short and long ones are equally likely.
#[derive(Debug)]
pub struct Draw {
    rng: ChaCha8Rng,
    members: u64,
    clients: u32,
    expendable: Vec<MemberId>,
}

impl Draw {
    /// For a cluster of members 1 to `members` with clients 0 to `clients` − 1.
    ///
    /// `expendable`: members whose durable bytes may be taken. A run that claims durability gives a minority.
    pub fn new(rng: ChaCha8Rng, members: u64, clients: u32, expendable: Vec<MemberId>) -> Self {
        assert!(members > 0, "a cluster has members");
        Self { rng, members, clients, expendable }
    }

    pub fn members(&self) -> u64 {
        self.members
    }

    /// `low..=high`, every number as likely as every other.
    pub fn uniform(&mut self, low: u64, high: u64) -> u64 {
        uniform(&mut self.rng, low, high)
    }

    /// `low..=high`, small ones more often.
    pub fn number(&mut self, low: u64, high: u64) -> u64 {
        let steps = (high / low.max(1)).max(1).ilog2();
        let step = self.uniform(0, u64::from(steps));
        let (from, to) = (low.max(1) << step, low.max(1) << (step + 1));
        self.uniform(from, to).clamp(low, high)
    }

    /// A duration of whole milliseconds.
    pub fn millis(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.number(low, high))
    }

    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.number(micros(low), micros(high)))
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.uniform(0, 99) < percent
    }

    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        let last = choices.len().checked_sub(1).expect("there is something to choose from");
        choices[self.uniform(0, last as u64) as usize].clone()
    }

    /// A member by its number.
    pub fn member(&mut self) -> MemberId {
        MemberId(self.uniform(1, self.members))
    }

    /// The leader, a follower, or a member by its number. A fault at it takes nothing that was durable.
    pub fn node(&mut self) -> Target {
        match self.uniform(0, 3) {
            0 => Target::Leader,
            1 if self.members > 1 => Target::Follower(self.uniform(1, self.members - 1)),
            _ => Target::Member(self.member()),
        }
    }

    /// A member whose durable bytes may be taken; `None` when every copy counts.
    pub fn expendable(&mut self) -> Option<Target> {
        let choices = self.expendable.clone();
        (!choices.is_empty()).then(|| Target::Member(self.pick(&choices)))
    }

    /// One to all but one of the members, each once; `None` in a cluster of one.
    pub fn some_members(&mut self) -> Option<Vec<Target>> {
        if self.members < 2 {
            return None;
        }
        let mut all: Vec<u64> = (1..=self.members).collect();
        let count = self.uniform(1, self.members - 1);
        let chosen = (0..count).map(|_| {
            let place = uniform(&mut self.rng, 0, all.len() as u64 - 1);
            Target::Member(MemberId(all.swap_remove(place as usize)))
        });
        Some(chosen.collect())
    }

    /// Some of the clients, often none.
    pub fn some_clients(&mut self) -> Vec<u32> {
        (0..self.clients).filter(|_| uniform(&mut self.rng, 0, 3) == 0).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Fault;
    use crate::rng::stream;

    fn draw(members: u64, expendable: &[u64]) -> Draw {
        let expendable = expendable.iter().map(|id| MemberId(*id)).collect();
        Draw::new(stream(1, members, "test"), members, 3, expendable)
    }

    #[test]
    fn every_kind_of_fault_can_be_drawn_for_three_members() {
        let mut draw = draw(3, &[2]);
        for kind in Fault::KINDS {
            let drawn = (0..20).filter_map(|_| Fault::draw(kind.name, &mut draw)).count();
            assert!(drawn > 0, "{} is never drawn", kind.name);
        }
    }

    #[test]
    fn drawn_faults_read_back_from_their_tables() {
        let mut draw = draw(5, &[2, 4]);
        for kind in Fault::KINDS {
            for fault in (0..50).filter_map(|_| Fault::draw(kind.name, &mut draw)) {
                assert_eq!(fault.name(), kind.name);
                let table = serde_json::to_value(&fault).expect("a fault is a table");
                assert_eq!(serde_json::from_value::<Fault>(table).ok(), Some(fault));
            }
        }
    }

    #[test]
    fn numbers_stay_in_their_range_and_reach_both_halves() {
        let mut draw = draw(3, &[]);
        let drawn: Vec<u64> = (0..1000).map(|_| draw.number(10, 1000)).collect();
        assert!(drawn.iter().all(|n| (10..=1000).contains(n)));
        let small = drawn.iter().filter(|n| **n <= 100).count();
        assert!((350..650).contains(&small), "{small}");
        assert!(draw.expendable().is_none());
    }
}
