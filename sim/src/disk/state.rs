//! All files and directories of one disk, and the operations on them.

mod lent;
mod rot;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use detkv_core::DiskAction;
use rand_chacha::ChaCha8Rng;
use rand_core::Rng;

use super::device::{Device, DiskModel, transfer_ns};
use super::dir::{Dir, Inode};
use super::file::{Fate, File};
use super::rules::{DiskOp, Rules, Trouble};
use super::{CrashReport, DiskCounters, DiskError, SECTOR};
use crate::rng::{Draws, stream, uniform};

const ROOT: Inode = 0;
const NO_DIR: &str = "no such directory";

#[derive(Clone, Debug)]
enum Node {
    File(File),
    Dir(Dir),
}

/// What a disk held at one time, as a power loss would have left it.
#[derive(Clone, Debug)]
pub struct DiskImage {
    nodes: BTreeMap<Inode, Node>,
}

impl DiskImage {
    /// Of a disk that was never written to.
    pub fn empty() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]) }
    }
}

#[derive(Debug)]
pub struct State {
    model: DiskModel,
    seed: u64,
    node: u64,
    nodes: BTreeMap<Inode, Node>,
    /// The file that was named last: a WAL writes and syncs one file for a long time.
    named: Option<(String, Inode)>,
    next_inode: Inode,
    /// Files that redb holds open: how often, and by which path.
    open: BTreeMap<Inode, (u32, String)>,
    pub device: Device,
    pub draws: Draws,
    /// Number of the process that may use the files.
    generation: u64,
    crashes: u64,
    /// The kernel's time at the last `begin` or `perform`.
    now: u64,
    /// When the work that goes through `Files` has come so far.
    cursor: u64,
    pub counters: DiskCounters,
    pub rules: Rules,
    /// What rules draw: no other draw moves with it.
    trouble_rng: ChaCha8Rng,
}

fn failed(path: &str, what: &'static str) -> DiskError {
    DiskError { path: path.to_owned(), what }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

impl State {
    pub fn new(seed: u64, node: u64, model: DiskModel, keep_draws: bool) -> Self {
        Self {
            device: Device::new(seed, node, &model),
            model,
            seed,
            node,
            nodes: DiskImage::empty().nodes,
            named: None,
            next_inode: ROOT + 1,
            open: BTreeMap::new(),
            draws: Draws::new(seed, node, "disk", keep_draws),
            generation: 1,
            crashes: 0,
            now: 0,
            cursor: 0,
            counters: DiskCounters::default(),
            rules: Rules::default(),
            trouble_rng: stream(seed, node, "disk trouble"),
        }
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Errors: the process that asks has ended.
    pub fn check(&self, generation: u64) -> io::Result<()> {
        if generation == self.generation {
            return Ok(());
        }
        Err(io::Error::other("the process that opened this file has ended"))
    }

    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    pub fn begin(&mut self, now: u64, at: u64) {
        (self.now, self.cursor) = (now, at);
    }

    pub fn allocated(&self) -> u64 {
        self.nodes.values().map(|n| if let Node::File(f) = n { f.allocated() } else { 0 }).sum()
    }

    // -- names

    fn dir(&mut self, inode: Inode) -> &mut Dir {
        match self.nodes.get_mut(&inode) {
            Some(Node::Dir(dir)) => dir,
            _ => panic!("inode {inode} is a directory"),
        }
    }

    pub fn file(&self, inode: Inode) -> &File {
        match self.nodes.get(&inode) {
            Some(Node::File(file)) => file,
            _ => panic!("inode {inode} is a file"),
        }
    }

    fn file_mut(&mut self, inode: Inode) -> &mut File {
        match self.nodes.get_mut(&inode) {
            Some(Node::File(file)) => file,
            _ => panic!("inode {inode} is a file"),
        }
    }

    fn lookup(&self, path: &str) -> Option<Inode> {
        let mut at = ROOT;
        for part in components(path) {
            match self.nodes.get(&at) {
                Some(Node::Dir(dir)) => at = dir.lookup(part)?,
                _ => return None,
            }
        }
        Some(at)
    }

    fn lookup_file(&self, path: &str) -> Result<Inode, DiskError> {
        let inode = self.lookup(path).ok_or_else(|| failed(path, "no such file"))?;
        match self.nodes.get(&inode) {
            Some(Node::File(_)) => Ok(inode),
            _ => Err(failed(path, "is a directory")),
        }
    }

    /// As `lookup_file`, remembered until a name changes its meaning.
    fn named_file(&mut self, path: &str) -> Result<Inode, DiskError> {
        if let Some((name, inode)) = &self.named
            && name == path
        {
            return Ok(*inode);
        }
        let inode = self.lookup_file(path)?;
        self.named = Some((path.to_owned(), inode));
        Ok(inode)
    }

    fn lookup_dir(&self, path: &str) -> Result<Inode, DiskError> {
        let inode = self.lookup(path).ok_or_else(|| failed(path, NO_DIR))?;
        match self.nodes.get(&inode) {
            Some(Node::Dir(_)) => Ok(inode),
            _ => Err(failed(path, "is not a directory")),
        }
    }

    /// The directory that holds `path`, and the last part of it.
    fn parent<'p>(&self, path: &'p str) -> Result<(Inode, &'p str), DiskError> {
        let path = path.trim_end_matches('/');
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        if name.is_empty() || name == "." {
            return Err(failed(path, "has no name"));
        }
        Ok((self.lookup_dir(dir)?, name))
    }

    fn add(&mut self, node: Node) -> Inode {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.nodes.insert(inode, node);
        inode
    }

    // -- actions

    pub fn perform(&mut self, now: u64, at: u64, action: &DiskAction) -> Result<u64, DiskError> {
        self.now = now;
        let mut stamp = at + self.model.call.as_nanos() as u64;
        let (op, path) = DiskOp::of(action);
        let trouble = self.rules.strike(op, path, false);
        if let Some(trouble) = trouble.filter(|trouble| trouble.is_error()) {
            if let Ok(inode) = self.lookup_file(path) {
                match (trouble, action) {
                    (Trouble::NoSpace, DiskAction::WriteAt { offset, data, .. }) => {
                        self.write_what_fits(stamp, inode, *offset, data);
                    }
                    (Trouble::SyncFailsClean, _) => self.file_mut(inode).fail_sync_clean(),
                    _ => {}
                }
            }
            return Err(failed(path, trouble.what()));
        }
        match action {
            DiskAction::CreateDir { path } => stamp = self.create_dir(stamp, path)?,
            DiskAction::Create { path } => {
                self.create(stamp, path)?;
            }
            DiskAction::Allocate { path, len } => {
                let inode = self.lookup_file(path)?;
                let len = self.file(inode).len().max(*len);
                self.file_mut(inode).set_len(stamp, len);
            }
            DiskAction::WriteAt { path, offset, data } => {
                let inode = self.named_file(path)?;
                stamp += transfer_ns(data.len() as u64, self.model.memory_bytes_per_sec);
                self.count_write(data.len());
                self.file_mut(inode).write(at, stamp, *offset, data);
                self.misdirect(trouble, inode, *offset, data.len());
            }
            DiskAction::Truncate { path, len } => {
                let inode = self.lookup_file(path)?;
                self.file_mut(inode).set_len(stamp, *len);
            }
            DiskAction::SyncData { path } => {
                let inode = self.named_file(path)?;
                self.lie(trouble, inode);
                stamp = self.sync(stamp, inode);
            }
            DiskAction::Rename { from, to } => self.rename(stamp, from, to)?,
            // The driver opens it to sync it, whatever it is.
            DiskAction::SyncDir { path } => match self.lookup_file(path) {
                Ok(inode) => stamp = self.sync(stamp, inode),
                Err(_) => stamp = self.sync_dir(stamp, path)?,
            },
            DiskAction::Remove { path } => self.remove(stamp, path)?,
        }
        Ok(stamp)
    }

    /// The first sectors of a write that meets the end of the space, often none. Space is given by blocks of
    /// the file: what fits ends where a sector of the file does, wherever the write began.
    fn write_what_fits(&mut self, stamp: u64, inode: Inode, offset: u64, data: &[u8]) {
        let before = offset as usize % SECTOR;
        let sectors = ((before + data.len()) / SECTOR) as u64;
        let fits = uniform(&mut self.trouble_rng, 0, sectors * 2).saturating_sub(sectors);
        if fits > 0 {
            let bytes = fits as usize * SECTOR - before;
            self.file_mut(inode).write(stamp, stamp, offset, &data[..bytes]);
        }
    }

    /// One directory after the other; returns when the last one is there.
    fn create_dir(&mut self, mut stamp: u64, path: &str) -> Result<u64, DiskError> {
        let mut at = ROOT;
        for part in components(path) {
            let found = match &self.nodes[&at] {
                Node::Dir(dir) => dir.lookup(part),
                Node::File(_) => return Err(failed(path, "a file is in the way")),
            };
            at = match found {
                Some(inode) => inode,
                None => {
                    let inode = self.add(Node::Dir(Dir::default()));
                    stamp += self.model.call.as_nanos() as u64;
                    self.dir(at).set(stamp, part, inode);
                    inode
                }
            };
        }
        match &self.nodes[&at] {
            Node::Dir(_) => Ok(stamp),
            Node::File(_) => Err(failed(path, "a file is in the way")),
        }
    }

    fn create(&mut self, stamp: u64, path: &str) -> Result<Inode, DiskError> {
        if self.lookup(path).is_some() {
            let inode = self.lookup_file(path)?;
            self.file_mut(inode).set_len(stamp, 0);
            return Ok(inode);
        }
        let (dir, name) = self.parent(path)?;
        let inode = self.add(Node::File(File::default()));
        self.dir(dir).set(stamp, name, inode);
        Ok(inode)
    }

    fn rename(&mut self, stamp: u64, from: &str, to: &str) -> Result<(), DiskError> {
        self.named = None;
        let inode = self.lookup(from).ok_or_else(|| failed(from, "no such file"))?;
        self.check_rename(inode, from, to)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        if from_dir == to_dir {
            self.dir(from_dir).rename(stamp, from_name, to_name);
        } else {
            self.dir(to_dir).set(stamp, to_name, inode);
            self.dir(from_dir).remove(stamp, from_name);
        }
        Ok(())
    }

    /// What rename(2) refuses.
    fn check_rename(&self, inode: Inode, from: &str, to: &str) -> Result<(), DiskError> {
        let is_dir = |inode: &Inode| matches!(self.nodes[inode], Node::Dir(_));
        if is_dir(&inode) && to.starts_with(&format!("{from}/")) {
            return Err(failed(to, "lies inside of what is renamed"));
        }
        let Some(old) = self.lookup(to).filter(|old| *old != inode) else { return Ok(()) };
        match (&self.nodes[&old], is_dir(&inode)) {
            (Node::Dir(_), false) => Err(failed(to, "is a directory")),
            (Node::File(_), true) => Err(failed(to, "is not a directory")),
            (Node::Dir(dir), true) if dir.entries().next().is_some() => {
                Err(failed(to, "is not empty"))
            }
            _ => Ok(()),
        }
    }

    /// Removing what is not there is fine, and so is where there is no directory for it.
    fn remove(&mut self, stamp: u64, path: &str) -> Result<(), DiskError> {
        self.named = None;
        let (dir, name) = match self.parent(path) {
            Ok(found) => found,
            Err(error) if error.what == NO_DIR => return Ok(()),
            Err(error) => return Err(error),
        };
        match self.dir(dir).lookup(name).map(|inode| &self.nodes[&inode]) {
            Some(Node::Dir(_)) => return Err(failed(path, "is a directory")),
            Some(Node::File(_)) => self.dir(dir).remove(stamp, name),
            None => {}
        }
        Ok(())
    }

    fn sync(&mut self, at: u64, inode: Inode) -> u64 {
        let now = self.now;
        let dirty = self.file(inode).dirty();
        let end = self.device.sync(at, dirty, &self.model, &mut self.draws);
        let file = self.file_mut(inode);
        file.settle(now);
        file.sync(end);
        self.count_sync(end - at);
        end
    }

    fn sync_dir(&mut self, at: u64, path: &str) -> Result<u64, DiskError> {
        let inode = self.lookup_dir(path)?;
        let end = self.device.sync(at, Some(0), &self.model, &mut self.draws);
        let now = self.now;
        let dir = self.dir(inode);
        dir.settle(now);
        dir.sync(at, end);
        self.count_sync(end - at);
        self.collect();
        Ok(end)
    }

    fn count_write(&mut self, bytes: usize) {
        self.counters.writes += 1;
        self.counters.write_bytes += bytes as u64;
    }

    fn count_sync(&mut self, ns: u64) {
        self.counters.syncs += 1;
        self.counters.sync_ns += ns;
    }

    // -- lies

    /// What befalls a sync that is about to be issued, although it will say that all went well.
    fn lie(&mut self, trouble: Option<Trouble>, inode: Inode) {
        let fate = match trouble {
            Some(Trouble::SyncLies) => Fate::Lost,
            Some(Trouble::SyncTears) => Fate::Torn,
            _ => return,
        };
        self.file_mut(inode).give_fate_to_unsynced(fate);
    }

    /// Sends the write that was just made to another sector that is in use.
    fn misdirect(&mut self, trouble: Option<Trouble>, inode: Inode, offset: u64, len: usize) {
        let sector = SECTOR as u64;
        let sectors = (self.file(inode).written().saturating_sub(len as u64)) / sector;
        if trouble != Some(Trouble::Misdirected) || sectors == 0 {
            return;
        }
        let to = uniform(&mut self.trouble_rng, 0, sectors - 1) * sector + offset % sector;
        let to = if to == offset { to + sector } else { to };
        self.file_mut(inode).misdirect_last(to);
    }

    // -- crashes

    pub fn kill(&mut self, now: u64) {
        self.end_process();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.kill(now),
                Node::Dir(dir) => dir.kill(now),
            }
        }
        self.collect();
    }

    pub fn power_loss(&mut self, now: u64) -> CrashReport {
        self.end_process();
        self.crashes += 1;
        let mut rng = stream(self.seed, self.node, &format!("power-loss {}", self.crashes));
        let mut report = CrashReport::default();
        let crash = self.model.crash;
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => file.power_loss(now, &crash, &mut rng, &mut report),
                Node::Dir(dir) => dir.power_loss(now, &mut rng, &mut report),
            }
        }
        self.collect();
        self.device.power_loss(now);
        report
    }

    /// What would be on the disk if power were lost at `now`.
    pub fn image(&self, now: u64, rng: &mut impl Rng) -> DiskImage {
        let (crash, mut report) = (self.model.crash, CrashReport::default());
        let mut nodes = self.nodes.clone();
        for node in nodes.values_mut() {
            match node {
                Node::File(file) => file.power_loss(now, &crash, rng, &mut report),
                Node::Dir(dir) => dir.power_loss(now, rng, &mut report),
            }
        }
        DiskImage { nodes }
    }

    /// Puts an image in the place of everything.
    pub fn restore(&mut self, image: DiskImage) {
        self.end_process();
        self.nodes = image.nodes;
        self.collect();
    }

    fn end_process(&mut self) {
        self.generation += 1;
        self.named = None;
        self.open.clear();
    }

    /// Forgets files and directories that nothing leads to any more.
    fn collect(&mut self) {
        let mut reached: Vec<Inode> = vec![ROOT];
        reached.extend(self.open.keys());
        let mut seen = BTreeSet::new();
        while let Some(inode) = reached.pop() {
            if seen.insert(inode)
                && let Some(Node::Dir(dir)) = self.nodes.get(&inode)
            {
                reached.extend(dir.reachable());
            }
        }
        self.nodes.retain(|inode, _| seen.contains(inode));
    }
}
