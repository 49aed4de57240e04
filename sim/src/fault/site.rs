//! Named points in a process's life at which it may be killed. Core knows nothing of them: they are what it asks
//! of the disk, the jobs it hands out, the frames it takes and the steps of the driver's loop.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use detkv_core::BackendJob;

use crate::disk::{DiskOp, path_matches};
use crate::world::FRAMES;

/// In files: `"before write *.wal"`, `"after rename *.snap.tmp"`, `"during job compact"`, `"after frame snapshot-chunk"`,
/// `"before burst"`, `"after recovery"`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Site {
    pub when: When,
    pub what: What,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// It has not happened at all.
    Before,
    /// At a drawn point between its begin and its end; of what happens at once: before it.
    During,
    /// It has happened, and nothing after it.
    After,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// A disk action on a path that fits the pattern; an empty one fits all. Of a rename: the old name.
    Disk(DiskOp, String),
    /// A backend job: one of [`BackendJob::KINDS`].
    Job(String),
    /// A frame of a peer: one of [`FRAMES`].
    Frame(String),
    /// The outputs of a burst: messages, disk actions, answers.
    Burst,
    /// A step of recovery.
    Recovery,
}

/// What a process is about to do or does, to be compared with sites.
#[derive(Clone, Copy, Debug)]
pub enum Passing<'a> {
    Disk(DiskOp, &'a str),
    Job(&'a str),
    Frame(&'a str),
    Burst,
    Recovery,
}

impl What {
    pub fn is(&self, passing: Passing<'_>) -> bool {
        match (self, passing) {
            (What::Disk(op, pattern), Passing::Disk(other, path)) => {
                *op == other && (pattern.is_empty() || path_matches(pattern, path))
            }
            (What::Job(kind), Passing::Job(other)) => {
                assert!(BackendJob::KINDS.contains(&other), "{other} is a kind of job");
                kind == other
            }
            (What::Frame(name), Passing::Frame(other)) => name == other,
            (What::Burst, Passing::Burst) | (What::Recovery, Passing::Recovery) => true,
            _ => false,
        }
    }
}

/// Operations that are actions of core's; redb's own are inside a job.
const ACTIONS: [DiskOp; 9] = [
    DiskOp::CreateDir,
    DiskOp::Create,
    DiskOp::Allocate,
    DiskOp::Write,
    DiskOp::Truncate,
    DiskOp::Sync,
    DiskOp::Rename,
    DiskOp::SyncDir,
    DiskOp::Remove,
];

impl FromStr for Site {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || {
            let ops: Vec<String> = ACTIONS.iter().map(ToString::to_string).collect();
            format!(
                "{text:?} is no site: expected before, during or after, then one of {} with a path such as *.wal, or job <kind>, frame <name>, burst, recovery",
                ops.join(", ")
            )
        };
        let mut words = text.split_whitespace();
        let when = match words.next() {
            Some("before") => When::Before,
            Some("during") => When::During,
            Some("after") => When::After,
            _ => return Err(expected()),
        };
        let (what, object) = (words.next().ok_or_else(expected)?, words.next());
        let one_of = |names: &[&str]| match object {
            Some(name) if names.contains(&name) => Ok(name.to_owned()),
            Some(name) => Err(format!(
                "{text:?} is no site: {name} is no {what}, expected one of {}",
                names.join(", ")
            )),
            None => Err(expected()),
        };
        let what = match what {
            "job" => What::Job(one_of(&BackendJob::KINDS)?),
            "frame" => What::Frame(one_of(&FRAMES)?),
            "burst" if object.is_none() => What::Burst,
            "recovery" if object.is_none() => What::Recovery,
            op => {
                let op = ACTIONS.iter().find(|action| action.to_string() == op);
                What::Disk(*op.ok_or_else(expected)?, object.unwrap_or_default().to_owned())
            }
        };
        if words.next().is_some() {
            return Err(expected());
        }
        Ok(Self { when, what })
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let when = match self.when {
            When::Before => "before",
            When::During => "during",
            When::After => "after",
        };
        match &self.what {
            What::Disk(op, path) if path.is_empty() => write!(f, "{when} {op}"),
            What::Disk(op, path) => write!(f, "{when} {op} {path}"),
            What::Job(kind) => write!(f, "{when} job {kind}"),
            What::Frame(name) => write!(f, "{when} frame {name}"),
            What::Burst => write!(f, "{when} burst"),
            What::Recovery => write!(f, "{when} recovery"),
        }
    }
}

impl Serialize for Site {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Site {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_read_back_as_written() {
        for text in [
            "before write *.wal",
            "during sync member/wal/*",
            "after sync-dir",
            "during job compact",
            "before frame snapshot-end",
            "after burst",
            "after recovery",
        ] {
            assert_eq!(text.parse::<Site>().map(|site| site.to_string()), Ok(text.to_owned()));
        }
        for text in
            ["", "write", "before", "before read", "after job", "after burst x", "before write a b"]
        {
            assert!(text.parse::<Site>().expect_err("no site").contains("expected"), "{text}");
        }
        for (text, expected) in [
            ("during job compct", "compct is no job, expected one of commit, sync, compact,"),
            ("after frame apend", "apend is no frame, expected one of append, append-response,"),
        ] {
            assert!(text.parse::<Site>().expect_err("no site").contains(expected), "{text}");
        }
    }
}
