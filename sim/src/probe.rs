//! In-code faults and marks of a run: which sites are active, when they fire, what was marked.
//!
//! A quarter of the sites is active in a run, and an active one fires a quarter of the time: two rare
//! things then meet often enough. Both are drawn from streams named by seed, node and site, so that a
//! site that is asked once more moves no other.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use detkv_core::probe;
use rand_chacha::ChaCha8Rng;
use rustc_hash::FxHashMap;

use crate::rng::{stream, uniform};

/// Of the sites, and of the times an active one is asked.
const ONE_IN: u64 = 4;

/// What a run did at its sites and marks.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ProbeCounts {
    /// Active sites: how often each fired.
    pub sites: BTreeMap<&'static str, u64>,
    /// Marks that were passed: how often.
    pub marks: BTreeMap<&'static str, u64>,
}

/// The probes of one run, shared by the world and what is installed on the thread.
#[derive(Clone, Debug)]
pub struct RunProbes {
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    /// Whose code runs now.
    node: Cell<u64>,
    sites: RefCell<BTreeMap<&'static str, Site>>,
    // Only looked up; copied in order at the end.
    marks: RefCell<FxHashMap<&'static str, u64>>,
}

#[derive(Debug)]
struct Site {
    is_active: bool,
    fired: u64,
    /// By node.
    streams: BTreeMap<u64, ChaCha8Rng>,
}

impl RunProbes {
    /// Installs the probes of a run on this thread, in place of those of an earlier one.
    pub fn install(seed: u64, faults: bool) -> Self {
        let shared = Shared {
            seed,
            node: Cell::new(0),
            sites: RefCell::default(),
            marks: RefCell::default(),
        };
        let probes = Self { shared: Rc::new(shared) };
        probe::install(Some(Box::new(probes.clone())), faults);
        probes
    }

    /// From here on it is this node's code that runs.
    pub fn enter(&self, node: u64) {
        self.shared.node.set(node);
    }

    /// Takes the counts, and the probes off the thread.
    pub fn finish(&self) -> ProbeCounts {
        probe::install(None, false);
        let sites = self.shared.sites.borrow();
        let active = sites.iter().filter(|(_, site)| site.is_active);
        ProbeCounts {
            sites: active.map(|(name, site)| (*name, site.fired)).collect(),
            marks: self.shared.marks.borrow().iter().map(|(name, n)| (*name, *n)).collect(),
        }
    }
}

impl probe::Probes for RunProbes {
    fn buggify(&mut self, name: &'static str) -> bool {
        let (seed, node) = (self.shared.seed, self.shared.node.get());
        let mut sites = self.shared.sites.borrow_mut();
        let site = sites.entry(name).or_insert_with(|| {
            let mut draw = stream(seed, 0, &format!("is site {name} active"));
            let is_active = uniform(&mut draw, 1, ONE_IN) == 1;
            Site { is_active, fired: 0, streams: BTreeMap::new() }
        });
        if !site.is_active {
            return false;
        }
        let new = || stream(seed, node, &format!("site {name}"));
        let fires = uniform(site.streams.entry(node).or_insert_with(new), 1, ONE_IN) == 1;
        site.fired += u64::from(fires);
        fires
    }

    fn mark(&mut self, name: &'static str) {
        *self.shared.marks.borrow_mut().entry(name).or_insert(0) += 1;
    }
}

#[cfg(test)]
mod tests {
    use detkv_core::probe::Probes as _;

    use super::*;

    #[test]
    fn a_quarter_of_the_sites_is_active_and_fires_a_quarter_of_the_time() {
        let (mut active, mut fired) = (0, 0);
        for seed in 0..200 {
            let mut probes = RunProbes::install(seed, true);
            for (site, _) in probe::SITES {
                (0..40).for_each(|_| _ = probes.buggify(site));
            }
            let counts = probes.finish();
            active += counts.sites.len();
            fired += counts.sites.values().sum::<u64>();
        }
        let asked = 200 * probe::SITES.len();
        assert!((asked / 5..asked * 3 / 10).contains(&active), "{active} of {asked}");
        let (all, fired) = (active * 40, fired as usize);
        assert!((all / 5..all * 3 / 10).contains(&fired), "{fired} of {all}");
    }

    #[test]
    fn no_site_fires_once_the_faults_are_over_and_marks_are_counted_on() {
        let probes = RunProbes::install(3, true);
        let sites = || probe::SITES.iter().flat_map(|(site, _)| [site; 40]);
        let asked = || sites().filter(|site| probe::is_wanted(site)).count();
        assert!(probe::has_faults() && asked() > 0);
        probe::end_faults();
        assert!(!probe::has_faults());
        assert_eq!(asked(), 0);
        probe::mark("wal.segment-cut");
        assert_eq!(probes.finish().marks["wal.segment-cut"], 1);
    }

    #[test]
    fn a_site_that_is_asked_more_often_moves_no_other() {
        let answers = |more: usize| {
            let mut probes = RunProbes::install(3, true);
            probes.enter(1);
            let all = probe::SITES.iter().map(|(site, _)| {
                (0..more).for_each(|_| _ = probes.buggify("reads.retry-now"));
                (0..20).map(|_| probes.buggify(site)).collect::<Vec<bool>>()
            });
            let all: Vec<_> = all.collect();
            let mut others = probe::SITES.iter().zip(all);
            others
                .by_ref()
                .filter(|(site, _)| site.0 != "reads.retry-now")
                .map(|(_, a)| a)
                .collect::<Vec<_>>()
        };
        assert_eq!(answers(0), answers(3));
    }
}
