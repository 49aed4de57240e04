//! What is to go wrong on a disk: rules that every operation is held against.

use std::fmt;

use detkv_core::DiskAction;
use serde::{Deserialize, Serialize};

/// An operation on a file or directory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskOp {
    CreateDir,
    Create,
    /// Preallocation.
    Allocate,
    Write,
    Truncate,
    Sync,
    Rename,
    SyncDir,
    Remove,
    /// The backend's file becomes longer (or shorter).
    Grow,
    Read,
}

impl fmt::Display for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskOp::CreateDir => "create-dir",
            DiskOp::Create => "create",
            DiskOp::Allocate => "allocate",
            DiskOp::Write => "write",
            DiskOp::Truncate => "truncate",
            DiskOp::Sync => "sync",
            DiskOp::Rename => "rename",
            DiskOp::SyncDir => "sync-dir",
            DiskOp::Remove => "remove",
            DiskOp::Grow => "grow",
            DiskOp::Read => "read",
        })
    }
}

impl DiskOp {
    /// What an action does, and to which path (of a rename: the old name).
    pub fn of(action: &DiskAction) -> (DiskOp, &str) {
        match action {
            DiskAction::CreateDir { path } => (DiskOp::CreateDir, path),
            DiskAction::Create { path } => (DiskOp::Create, path),
            DiskAction::Allocate { path, .. } => (DiskOp::Allocate, path),
            DiskAction::WriteAt { path, .. } => (DiskOp::Write, path),
            DiskAction::Truncate { path, .. } => (DiskOp::Truncate, path),
            DiskAction::SyncData { path } => (DiskOp::Sync, path),
            DiskAction::Rename { from, .. } => (DiskOp::Rename, from),
            DiskAction::SyncDir { path } => (DiskOp::SyncDir, path),
            DiskAction::Remove { path } => (DiskOp::Remove, path),
        }
    }
}

/// Whose files: by the place where they lie, so that it holds during recovery too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskLane {
    /// The WAL.
    Log,
    /// What redb holds open: the store, and a snapshot that is being received.
    Backend,
    /// Snap files, and the directory that they share with the store.
    Snapshot,
}

impl DiskLane {
    fn of(path: &str, by_redb: bool) -> Self {
        if by_redb {
            DiskLane::Backend
        } else if path.starts_with(detkv_core::wal::WAL_DIR) {
            DiskLane::Log
        } else {
            DiskLane::Snapshot
        }
    }
}

/// Which operations a rule is about.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scope {
    /// Empty: all.
    pub ops: Vec<DiskOp>,
    pub lane: Option<DiskLane>,
    /// See [`path_matches`]; empty: all.
    pub path: String,
    /// So many matching operations go well first.
    pub after: u32,
    /// And so many are struck; `None`: all that follow.
    pub times: Option<u32>,
}

/// What happens to an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// ENOSPC. A write may have written its first sectors.
    NoSpace,
    /// EIO. Nothing is done; what was dirty stays dirty.
    Io,
    /// A sync fails with EIO and leaves the pages clean: what it was to write goes with the page cache.
    SyncFailsClean,
    /// A sync says that it is done and writes nothing: it shows when the machine loses power.
    SyncLies,
    /// A sync says that it is done and of each write has written some sectors only.
    SyncTears,
    /// A write goes to another place of the same file; the page cache has it where it belongs.
    Misdirected,
}

impl Trouble {
    /// The operation fails.
    pub(super) fn is_error(self) -> bool {
        matches!(self, Trouble::NoSpace | Trouble::Io | Trouble::SyncFailsClean)
    }

    pub(super) fn what(self) -> &'static str {
        match self {
            Trouble::NoSpace => "no space left on device",
            _ => "input/output error",
        }
    }
}

/// Name of a rule, to take it away again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RuleId(u64);

#[derive(Debug)]
struct Rule {
    id: RuleId,
    scope: Scope,
    trouble: Trouble,
}

/// The rules of one disk, oldest first.
#[derive(Default, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    next: u64,
}

impl Rules {
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub fn add(&mut self, scope: Scope, trouble: Trouble) -> RuleId {
        let id = RuleId(self.next);
        self.next += 1;
        self.rules.push(Rule { id, scope, trouble });
        id
    }

    pub fn remove(&mut self, id: RuleId) {
        self.rules.retain(|rule| rule.id != id);
    }

    /// What happens to an operation: the first rule that is about it counts it and decides.
    pub fn strike(&mut self, op: DiskOp, path: &str, by_redb: bool) -> Option<Trouble> {
        let lane = DiskLane::of(path, by_redb);
        let rule = self.rules.iter_mut().find(|rule| rule.scope.is_about(op, lane, path))?;
        if rule.scope.after > 0 {
            rule.scope.after -= 1;
            return None;
        }
        if let Some(times) = &mut rule.scope.times {
            *times -= 1;
        }
        Some(rule.trouble)
    }
}

impl Scope {
    fn is_about(&self, op: DiskOp, lane: DiskLane, path: &str) -> bool {
        self.times != Some(0)
            && (self.ops.is_empty() || self.ops.contains(&op))
            && self.lane.is_none_or(|wanted| wanted == lane)
            && (self.path.is_empty() || path_matches(&self.path, path))
    }
}

/// Whether a path fits a pattern, in which `*` stands for any run of characters.
///
/// A pattern without `/` is about the last part of the path alone.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    fits(pattern.as_bytes(), if pattern.contains('/') { path } else { name }.as_bytes())
}

fn fits(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on after the last star: one character more for it.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_and_paths() {
        for (pattern, path, expected) in [
            ("*.wal", "member/wal/0-1.wal", true),
            ("*.wal", "member/wal/0-1.wal.tmp", false),
            ("*.wal*", "member/wal/0-1.wal.tmp", true),
            ("db", "member/snap/db", true),
            ("db", "member/snap/dbx", false),
            ("member/snap/*", "member/snap/db", true),
            ("snap/*", "member/snap/db", false),
            ("*/snap/*a*b", "x/snap/aab", true),
            ("*", "", true),
        ] {
            assert_eq!(path_matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_rule_lets_some_pass_and_strikes_so_many() {
        let mut rules = Rules::default();
        let ops = vec![DiskOp::Sync];
        let scope = Scope { ops, after: 1, times: Some(2), ..Scope::default() };
        let id = rules.add(scope, Trouble::Io);
        assert_eq!(rules.strike(DiskOp::Write, "a", false), None);
        let struck: Vec<bool> =
            (0..5).map(|_| rules.strike(DiskOp::Sync, "a", false).is_some()).collect();
        assert_eq!(struck, [false, true, true, false, false]);
        rules.remove(id);
        assert!(rules.rules.is_empty());
    }

    #[test]
    fn lanes_are_told_by_place_and_user() {
        assert_eq!(DiskLane::of("member/wal/0.wal", false), DiskLane::Log);
        assert_eq!(DiskLane::of("member/snap/db", true), DiskLane::Backend);
        assert_eq!(DiskLane::of("member/snap/1-2.snap", false), DiskLane::Snapshot);
    }
}
