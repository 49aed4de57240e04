//! A small disk for WAL tests: what is live and what a crash leaves are kept apart.
//!
//! A write that no sync has covered is kept, lost or torn at a crash, each of its sectors on its own;
//! a create, rename or remove survives surely only after a sync of its directory.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use detkv_core::{DiskAction, Files};

const SECTOR: usize = 512;

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Vec<u8>,
    /// As of the last sync.
    durable: Vec<u8>,
    /// Since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Grow(usize),
    Cut(usize),
    Write(usize, Bytes),
}

#[derive(Clone, Debug)]
enum DirChange {
    Link { path: String, inode: usize },
    Unlink { path: String },
    Rename { from: String, to: String },
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    live: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    pending: Vec<DirChange>,
}

/// The disk. `perform` does what a driver does.
#[derive(Debug, Default)]
pub struct SimDisk {
    state: Mutex<State>,
}

fn apply_dir(names: &mut BTreeMap<String, usize>, change: &DirChange) {
    match change {
        DirChange::Link { path, inode } => {
            names.insert(path.clone(), *inode);
        }
        DirChange::Unlink { path } => {
            names.remove(path);
        }
        DirChange::Rename { from, to } => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl DirChange {
    fn dir(&self) -> &str {
        match self {
            DirChange::Link { path, .. } | DirChange::Unlink { path } => dir_of(path),
            DirChange::Rename { to, .. } => dir_of(to),
        }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change, mut keep_sector: impl FnMut() -> bool) {
    match change {
        Change::Grow(len) if keep_sector() => bytes.resize(bytes.len().max(*len), 0),
        Change::Cut(len) if keep_sector() => bytes.resize(*len, 0),
        Change::Grow(_) | Change::Cut(_) => {}
        Change::Write(offset, data) => {
            let mut at = *offset;
            let end = offset + data.len();
            while at < end {
                let next = ((at / SECTOR + 1) * SECTOR).min(end);
                if keep_sector() {
                    bytes.resize(bytes.len().max(next), 0);
                    bytes[at..next].copy_from_slice(&data[at - offset..next - offset]);
                }
                at = next;
            }
        }
    }
}

impl SimDisk {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test thread panics while it holds the lock")
    }

    pub fn perform(&self, action: &DiskAction) {
        let mut state = self.lock();
        match action {
            DiskAction::CreateDir { .. } => {}
            DiskAction::Create { path } => {
                let inode = state.inodes.len();
                state.inodes.push(Inode::default());
                state.dir_change(DirChange::Link { path: path.clone(), inode });
            }
            DiskAction::Allocate { path, len } => state.change(path, Change::Grow(*len as usize)),
            DiskAction::Truncate { path, len } => state.change(path, Change::Cut(*len as usize)),
            DiskAction::WriteAt { path, offset, data } => {
                state.change(path, Change::Write(*offset as usize, data.clone()));
            }
            DiskAction::SyncData { path } => {
                let inode = state.inode(path);
                inode.durable = inode.live.clone();
                inode.pending.clear();
            }
            DiskAction::Rename { from, to } => {
                assert!(state.live.contains_key(from), "rename of {from}, which is not there");
                state.dir_change(DirChange::Rename { from: from.clone(), to: to.clone() });
            }
            DiskAction::SyncDir { path } => {
                let State { durable, pending, .. } = &mut *state;
                pending.retain(|change| {
                    let here = change.dir() == path;
                    if here {
                        apply_dir(durable, change);
                    }
                    !here
                });
            }
            DiskAction::Remove { path } => {
                state.dir_change(DirChange::Unlink { path: path.clone() });
            }
        }
    }

    /// Power is lost: `keep` decides for each sector and each directory change.
    pub fn crash(&self, mut keep: impl FnMut() -> bool) {
        let state = &mut *self.lock();
        for inode in &mut state.inodes {
            for change in std::mem::take(&mut inode.pending) {
                apply(&mut inode.durable, &change, &mut keep);
            }
            inode.live = inode.durable.clone();
        }
        for change in std::mem::take(&mut state.pending) {
            if keep() {
                apply_dir(&mut state.durable, &change);
            }
        }
        state.live = state.durable.clone();
    }

    pub fn paths(&self) -> Vec<String> {
        self.lock().live.keys().cloned().collect()
    }

    pub fn content(&self, path: &str) -> Vec<u8> {
        self.lock().inode(path).live.clone()
    }

    /// Puts a file there, durably.
    pub fn put(&self, path: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let inode = state.inodes.len();
        state.inodes.push(Inode { live: bytes.clone(), durable: bytes, pending: Vec::new() });
        state.live.insert(path.to_owned(), inode);
        state.durable.insert(path.to_owned(), inode);
    }
}

impl State {
    fn inode(&mut self, path: &str) -> &mut Inode {
        let inode = *self.live.get(path).unwrap_or_else(|| panic!("no such file: {path}"));
        &mut self.inodes[inode]
    }

    fn change(&mut self, path: &str, change: Change) {
        let inode = self.inode(path);
        apply(&mut inode.live, &change, || true);
        inode.pending.push(change);
    }

    fn dir_change(&mut self, change: DirChange) {
        apply_dir(&mut self.live, &change);
        self.pending.push(change);
    }
}

impl Files for SimDisk {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{dir}/");
        let state = self.lock();
        let names = state.live.keys().filter_map(|path| path.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        let state = self.lock();
        Ok(state.live.get(path).map(|inode| state.inodes[*inode].live.len() as u64))
    }

    fn read(&self, path: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut state = self.lock();
        if !state.live.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let bytes = &state.inode(path).live;
        let from = (offset as usize).min(bytes.len());
        let to = (from + len).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[from..to]))
    }

    fn backend(&self, _: &str) -> io::Result<Box<dyn redb::StorageBackend>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
