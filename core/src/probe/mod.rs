//! In-code faults and marks: what a simulator cannot do or see from outside.
//!
//! `buggify!("site")` is true when the run wants an in-code fault there: always legal behaviour, at an
//! unlikely moment (a batch of one, a refusal, a snapshot now). `sometimes!("mark")` notes that a rare path
//! was taken: a run of many seeds that never takes it does not test it.
//!
//! Both ask the [`Probes`] of the thread, which the simulator installs; without one nothing happens. With
//! the feature `probes` off, as in the shipped server, both are nothing at all (`false`, `()`): a build of
//! the whole workspace unifies features, so ship what `cargo build -p detkv-server` makes.
//!
//! Every name is in [`SITES`] or [`MARKS`]; one that is not does not compile.

mod list;

pub use list::{MARKS, SITES, VERY_RARE};

/// Name and meaning of a site or mark.
pub type Named = (&'static str, &'static str);

/// What a run does at its sites and marks.
#[cfg(feature = "probes")]
pub trait Probes {
    /// Whether the in-code fault of this site happens here and now.
    fn buggify(&mut self, site: &'static str) -> bool;
    /// A rare path was taken.
    fn mark(&mut self, name: &'static str);
}

/// Whether this build has in-code faults and marks.
pub const COMPILED_IN: bool = cfg!(feature = "probes");

#[cfg(feature = "probes")]
mod installed {
    use std::cell::{Cell, RefCell};

    use super::Probes;

    thread_local! {
        /// Looked at first: one predictable branch where nothing is installed.
        static HAS_PROBES: Cell<bool> = const { Cell::new(false) };
        static HAS_FAULTS: Cell<bool> = const { Cell::new(false) };
        static PROBES: RefCell<Option<Box<dyn Probes>>> = const { RefCell::new(None) };
    }

    /// Installs the probes of this thread's run; `None` takes them away. Without `faults` its marks are
    /// counted and no site is asked.
    pub fn install(probes: Option<Box<dyn Probes>>, faults: bool) {
        HAS_PROBES.set(probes.is_some());
        HAS_FAULTS.set(probes.is_some() && faults);
        PROBES.set(probes);
    }

    /// The faults are over: no site is asked any more. One that stays as it was chosen at open asks
    /// [`has_faults`] whether it still may. Marks are counted on.
    pub fn end_faults() {
        HAS_FAULTS.set(false);
    }

    /// Whether sites are asked.
    pub fn has_faults() -> bool {
        HAS_FAULTS.get()
    }

    #[doc(hidden)]
    pub fn is_wanted(site: &'static str) -> bool {
        let ask = |probes: &mut Box<dyn Probes>| probes.buggify(site);
        HAS_FAULTS.get() && PROBES.with_borrow_mut(|probes| probes.as_mut().is_some_and(ask))
    }

    #[doc(hidden)]
    pub fn mark(name: &'static str) {
        if HAS_PROBES.get() {
            PROBES.with_borrow_mut(|probes| {
                if let Some(probes) = probes {
                    probes.mark(name);
                }
            });
        }
    }
}

#[cfg(feature = "probes")]
pub use installed::{end_faults, has_faults, install, is_wanted, mark};

/// Whether sites are asked: never in this build.
#[cfg(not(feature = "probes"))]
pub const fn has_faults() -> bool {
    false
}

/// For the macros: a name that nobody described is a mistake of spelling.
#[doc(hidden)]
pub const fn is_listed(list: &[Named], name: &str) -> bool {
    let mut place = 0;
    while place < list.len() {
        if is_equal(list[place].0.as_bytes(), name.as_bytes()) {
            return true;
        }
        place += 1;
    }
    false
}

const fn is_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut place = 0;
    while place < a.len() {
        if a[place] != b[place] {
            return false;
        }
        place += 1;
    }
    true
}

/// True when the run wants the in-code fault of this site now. Costs nothing without the feature `probes`.
#[macro_export]
macro_rules! buggify {
    ($site:literal) => {{
        const _: () = assert!(
            $crate::probe::is_listed($crate::probe::SITES, $site),
            "the site is not in probe::SITES"
        );
        $crate::buggify_now!($site)
    }};
}

/// Notes that a rare path was taken; with a condition, only where it holds.
#[macro_export]
macro_rules! sometimes {
    ($mark:literal) => {{
        const _: () = assert!(
            $crate::probe::is_listed($crate::probe::MARKS, $mark),
            "the mark is not in probe::MARKS"
        );
        $crate::mark_now!($mark);
    }};
    ($condition:expr, $mark:literal) => {
        if $condition {
            $crate::sometimes!($mark);
        }
    };
}

#[cfg(feature = "probes")]
#[doc(hidden)]
#[macro_export]
macro_rules! buggify_now {
    ($site:literal) => {
        $crate::probe::is_wanted($site)
    };
}

#[cfg(not(feature = "probes"))]
#[doc(hidden)]
#[macro_export]
macro_rules! buggify_now {
    ($site:literal) => {
        false
    };
}

#[cfg(feature = "probes")]
#[doc(hidden)]
#[macro_export]
macro_rules! mark_now {
    ($mark:literal) => {
        $crate::probe::mark($mark)
    };
}

#[cfg(not(feature = "probes"))]
#[doc(hidden)]
#[macro_export]
macro_rules! mark_now {
    ($mark:literal) => {
        ()
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> = SITES.iter().chain(MARKS).map(|(name, _)| *name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_very_rare_is_a_mark() {
        assert!(VERY_RARE.iter().all(|name| is_listed(MARKS, name)));
    }

    #[test]
    fn nothing_happens_where_nothing_is_installed() {
        assert!(!crate::buggify!("wal.cut-early"));
        crate::sometimes!(true, "wal.segment-cut");
    }

    #[test]
    fn a_name_is_found_by_all_its_letters() {
        let list: &[Named] = &[("wal.cut", ""), ("wal.cut-early", "")];
        assert!(is_listed(list, "wal.cut-early") && is_listed(list, "wal.cut"));
        assert!(!is_listed(list, "wal.cu") && !is_listed(list, "wal.cuts"));
    }
}
