//! Files in memory that keep what is live and what is durable apart, for tests of the store.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use detkv_core::event::Files;
use detkv_core::mvcc::{DB_PATH, JobDone, Store, StoreEvent, StoreOptions};
use detkv_core::time::Instant;
use parking_lot::Mutex;

/// A disk writes a sector whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Debug)]
enum Unsynced {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Unsynced {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Unsynced::SetLen(len) => bytes.resize(*len, 0),
            Unsynced::Write { offset, data } => {
                if bytes.len() < offset + data.len() {
                    bytes.resize(offset + data.len(), 0);
                }
                bytes[*offset..offset + data.len()].copy_from_slice(data);
            }
        }
    }
}

#[derive(Clone, Default, Debug)]
struct FileBytes {
    live: Vec<u8>,
    durable: Vec<u8>,
    unsynced: Vec<Unsynced>,
    writes: u64,
}

/// What a power loss leaves of un-synced writes.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// The process died, the machine did not: everything written is there.
    Nothing,
    /// Nothing un-synced is there.
    Everything,
    /// Each sector of each un-synced write is kept or lost, by a hash with this seed.
    Torn(u64),
}

#[derive(Debug)]
pub struct MemFiles {
    files: Mutex<BTreeMap<String, Arc<Mutex<FileBytes>>>>,
    failing: Arc<AtomicBool>,
    /// Writes, set_lens and syncs that still succeed.
    budget: Arc<AtomicU64>,
}

impl Default for MemFiles {
    fn default() -> Self {
        Self {
            files: Mutex::default(),
            failing: Arc::default(),
            budget: Arc::new(AtomicU64::new(u64::MAX)),
        }
    }
}

impl MemFiles {
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    fn file(&self, path: &str) -> Arc<Mutex<FileBytes>> {
        self.files.lock().entry(path.to_owned()).or_default().clone()
    }

    /// From now on (or no longer) every operation fails.
    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// After `n` more writes, set_lens and syncs each of them fails.
    pub fn fail_after(&self, n: u64) {
        self.budget.store(n, Ordering::SeqCst);
    }

    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.file(path).lock().live.clone()
    }

    /// Writes, set_lens and syncs so far.
    pub fn writes(&self, path: &str) -> u64 {
        self.file(path).lock().writes
    }

    /// New files as a crash leaves these; old handles go on with the old ones.
    pub fn crash(&self, loss: Loss) -> Arc<Self> {
        let survivors = MemFiles::new();
        for (path, file) in self.files.lock().iter() {
            let file = file.lock();
            let bytes = match loss {
                Loss::Nothing => file.live.clone(),
                Loss::Everything => file.durable.clone(),
                Loss::Torn(seed) => torn(&file, seed),
            };
            let file = FileBytes { live: bytes.clone(), durable: bytes, ..FileBytes::default() };
            survivors.files.lock().insert(path.clone(), Arc::new(Mutex::new(file)));
        }
        survivors
    }

    /// Changes bytes behind the store's back.
    pub fn damage(&self, path: &str, f: impl FnOnce(&mut Vec<u8>)) {
        let file = self.file(path);
        let mut file = file.lock();
        f(&mut file.live);
        file.durable = file.live.clone();
    }

    pub fn rename(&self, from: &str, to: &str) {
        let mut files = self.files.lock();
        let file = files.remove(from).expect("the file to rename exists");
        files.insert(to.to_owned(), file);
    }
}

fn torn(file: &FileBytes, seed: u64) -> Vec<u8> {
    let mut bytes = file.durable.clone();
    for (i, op) in file.unsynced.iter().enumerate() {
        match op {
            Unsynced::SetLen(_) if is_kept(seed, i, 0) => op.apply(&mut bytes),
            Unsynced::SetLen(_) => {}
            Unsynced::Write { offset, data } => {
                let mut at = 0;
                while at < data.len() {
                    let sector_end = (offset + at) / SECTOR_BYTES * SECTOR_BYTES + SECTOR_BYTES;
                    let end = (sector_end - offset).min(data.len());
                    if is_kept(seed, i, at) {
                        let piece =
                            Unsynced::Write { offset: offset + at, data: data[at..end].to_vec() };
                        piece.apply(&mut bytes);
                    }
                    at = end;
                }
            }
        }
    }
    bytes
}

fn is_kept(seed: u64, op: usize, at: usize) -> bool {
    let mut x = seed ^ (op as u64) << 32 ^ at as u64;
    for _ in 0..2 {
        x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    x >> 62 != 0
}

#[derive(Debug)]
struct MemBackend {
    file: Arc<Mutex<FileBytes>>,
    failing: Arc<AtomicBool>,
    budget: Arc<AtomicU64>,
}

impl MemBackend {
    fn check(&self) -> io::Result<()> {
        let failing = self.failing.load(Ordering::SeqCst);
        if failing { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    /// Before anything that changes the file or makes it durable.
    fn spend(&self) -> io::Result<()> {
        self.check()?;
        let left = self.budget.load(Ordering::SeqCst);
        self.budget.store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 0 { Err(io::Error::other("injected")) } else { Ok(()) }
    }

    fn push(&self, op: Unsynced) {
        let mut file = self.file.lock();
        file.writes += 1;
        op.apply(&mut file.live);
        file.unsynced.push(op);
    }
}

impl redb::StorageBackend for MemBackend {
    fn len(&self) -> io::Result<u64> {
        self.check()?;
        Ok(self.file.lock().live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.check()?;
        let file = self.file.lock();
        let start = offset as usize;
        let Some(bytes) = file.live.get(start..start.saturating_add(out.len())) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        self.push(Unsynced::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.spend()?;
        let mut file = self.file.lock();
        file.writes += 1;
        let unsynced = std::mem::take(&mut file.unsynced);
        for op in &unsynced {
            op.apply(&mut file.durable);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.spend()?;
        self.push(Unsynced::Write { offset: offset as usize, data: data.to_vec() });
        Ok(())
    }
}

impl Files for MemFiles {
    fn list(&self, _dir: &str) -> io::Result<Vec<String>> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        Ok(self.files.lock().get(path).map(|file| file.lock().live.len() as u64))
    }

    fn read(&self, path: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let bytes = self.bytes(path);
        let start = (offset as usize).min(bytes.len());
        let end = (start + len).min(bytes.len());
        Ok(Bytes::copy_from_slice(&bytes[start..end]))
    }

    fn backend(&self, path: &str) -> io::Result<Box<dyn redb::StorageBackend>> {
        let (failing, budget) = (self.failing.clone(), self.budget.clone());
        Ok(Box::new(MemBackend { file: self.file(path), failing, budget }))
    }
}

pub fn options() -> StoreOptions {
    StoreOptions {
        batch_interval: std::time::Duration::from_millis(100),
        batch_ops: 10_000,
        quiet_ops: 0,
        quiet_interval: std::time::Duration::ZERO,
        sync_interval: std::time::Duration::from_secs(1),
        resident_bytes_max: None,
    }
}

pub fn open(files: &Arc<MemFiles>) -> Store {
    Store::open(files.clone(), DB_PATH, options()).expect("the file opens")
}

/// Runs jobs as their deadlines come until `until`; all events.
pub fn run_jobs(
    store: &mut Store,
    now: &mut Instant,
    until: Instant,
    persisted_index: u64,
) -> Vec<StoreEvent> {
    let mut events = Vec::new();
    loop {
        while let Some(job) = store.poll(*now, persisted_index) {
            let done: JobDone = job.run();
            events.extend(store.handle_done(*now, done).expect("the job succeeds"));
        }
        match store.next_deadline() {
            Some(at) if at <= until => *now = at.max(*now),
            _ => break,
        }
    }
    *now = until;
    events
}

/// Writes everything that may be written, durably.
pub fn flush(store: &mut Store, now: &mut Instant) -> Vec<StoreEvent> {
    let until = *now + std::time::Duration::from_secs(60);
    run_jobs(store, now, until, u64::MAX)
}
