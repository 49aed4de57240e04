//! The disk lanes: one thread each, in order inside a lane, independent between lanes.

use std::collections::HashMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use detkv_core::{BackendJob, DiskAction, DiskOp, Input, Lane, Ticket};
use prometheus::Histogram;
use rustix::fs::FallocateFlags;

use crate::inbox::{Event, Inbox};
use crate::logs;
use crate::metrics::DriverMetrics;

/// etcd warns about a WAL fdatasync that takes longer.
const SLOW_SYNC: Duration = Duration::from_secs(1);
/// File handles a lane keeps open.
const OPEN_FILES_MAX: usize = 8;

/// Performs the actions of one lane.
#[derive(Debug)]
pub struct Performer {
    root: PathBuf,
    open: HashMap<String, File>,
    times: Option<Times>,
}

/// How long this lane's writes and syncs take.
#[derive(Debug)]
pub struct Times {
    pub write: Option<Histogram>,
    pub sync: Histogram,
}

impl Performer {
    /// Paths of actions are relative to `root`.
    pub fn new(root: PathBuf, times: Option<Times>) -> Self {
        Self { root, open: HashMap::new(), times }
    }

    /// Errors: what failed on which path. After one the lane is over: nobody knows what the disk holds.
    pub fn perform(&mut self, action: &DiskAction) -> Result<(), String> {
        self.try_perform(action).map_err(|e| format!("{}: {e}", describe(action)))
    }

    fn try_perform(&mut self, action: &DiskAction) -> io::Result<()> {
        match action {
            DiskAction::CreateDir { path } => {
                DirBuilder::new().recursive(true).mode(0o700).create(self.root.join(path))
            }
            DiskAction::Create { path } => self.create(path),
            DiskAction::Allocate { path, len } => allocate(self.file(path)?, *len),
            DiskAction::WriteAt { path, offset, data } => {
                let started = Instant::now();
                self.file(path)?.write_all_at(data, *offset)?;
                if let Some(Times { write: Some(seconds), .. }) = &self.times {
                    seconds.observe(started.elapsed().as_secs_f64());
                }
                Ok(())
            }
            DiskAction::Truncate { path, len } => self.file(path)?.set_len(*len),
            DiskAction::SyncData { path } => self.sync_data(path),
            DiskAction::Rename { from, to } => {
                self.open.remove(from);
                self.open.remove(to);
                std::fs::rename(self.root.join(from), self.root.join(to))
            }
            DiskAction::SyncDir { path } => File::open(self.root.join(path))?.sync_all(),
            DiskAction::Remove { path } => {
                self.open.remove(path);
                match std::fs::remove_file(self.root.join(path)) {
                    Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                    _ => Ok(()),
                }
            }
        }
    }

    fn create(&mut self, path: &str) -> io::Result<()> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.root.join(path))?;
        self.keep(path, file);
        Ok(())
    }

    fn sync_data(&mut self, path: &str) -> io::Result<()> {
        let started = Instant::now();
        self.file(path)?.sync_data()?;
        let took = started.elapsed();
        if let Some(times) = &self.times {
            times.sync.observe(took.as_secs_f64());
        }
        if took > SLOW_SYNC {
            let fields =
                [("took", format!("{took:?}")), ("expected-duration", format!("{SLOW_SYNC:?}"))];
            logs::warn("slow fdatasync", &fields);
        }
        Ok(())
    }

    fn file(&mut self, path: &str) -> io::Result<&File> {
        if !self.open.contains_key(path) {
            let file = OpenOptions::new().read(true).write(true).open(self.root.join(path))?;
            self.keep(path, file);
        }
        Ok(&self.open[path])
    }

    fn keep(&mut self, path: &str, file: File) {
        if self.open.len() >= OPEN_FILES_MAX {
            // All of them can be opened again; which go does not matter at this rate of change.
            self.open.clear();
        }
        self.open.insert(path.to_owned(), file);
    }
}

/// The length becomes at least `len`; new bytes read as zero.
fn allocate(file: &File, len: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        // The file system cannot reserve space: a sparse file behaves the same until the disk is full.
        Err(rustix::io::Errno::OPNOTSUPP) => {
            if file.metadata()?.len() < len {
                file.set_len(len)?;
            }
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

fn describe(action: &DiskAction) -> String {
    match action {
        DiskAction::CreateDir { path } => format!("create directory {path}"),
        DiskAction::Create { path } => format!("create {path}"),
        DiskAction::Allocate { path, len } => format!("allocate {len} bytes of {path}"),
        DiskAction::WriteAt { path, offset, data } => {
            format!("write {} bytes at {offset} of {path}", data.len())
        }
        DiskAction::Truncate { path, len } => format!("truncate {path} to {len} bytes"),
        DiskAction::SyncData { path } => format!("fdatasync {path}"),
        DiskAction::Rename { from, to } => format!("rename {from} to {to}"),
        DiskAction::SyncDir { path } => format!("fsync directory {path}"),
        DiskAction::Remove { path } => format!("remove {path}"),
    }
}

/// The three lane threads. They end when this value is dropped and their work is done.
///
/// The channels have no bound of their own: core bounds what it has under way (rules 2, 15).
#[derive(Debug)]
pub struct Lanes {
    log: mpsc::Sender<Vec<DiskOp>>,
    snapshot: mpsc::Sender<Vec<DiskOp>>,
    backend: mpsc::Sender<(Ticket, BackendJob)>,
}

impl Lanes {
    pub fn start(root: PathBuf, inbox: &Arc<Inbox>, metrics: &DriverMetrics) -> io::Result<Self> {
        let write = Some(metrics.wal_write_seconds.clone());
        let log = Times { write, sync: metrics.wal_fsync_seconds.clone() };
        let log = Performer::new(root.clone(), Some(log));
        let snapshot = Times { write: None, sync: metrics.snap_fsync_seconds.clone() };
        let snapshot = Performer::new(root, Some(snapshot));
        Ok(Self {
            log: start_lane(Lane::Log, log, inbox.clone())?,
            snapshot: start_lane(Lane::Snapshot, snapshot, inbox.clone())?,
            backend: start_backend(inbox.clone(), metrics.backend_commit_seconds.clone())?,
        })
    }

    /// Queues actions; the lane reports `Synced` once when all of them are done.
    ///
    /// A lane that failed is gone; the `DiskFailed` it left in the inbox ends the member.
    pub fn perform(&self, lane: Lane, ops: Vec<DiskOp>) {
        if ops.is_empty() {
            return;
        }
        let _ = match lane {
            Lane::Log => self.log.send(ops),
            Lane::Snapshot => self.snapshot.send(ops),
            Lane::Backend => unreachable!("work of the backend lane comes as jobs"),
        };
    }

    pub fn run(&self, ticket: Ticket, job: BackendJob) {
        let _ = self.backend.send((ticket, job));
    }
}

fn start_lane(
    lane: Lane,
    mut performer: Performer,
    inbox: Arc<Inbox>,
) -> io::Result<mpsc::Sender<Vec<DiskOp>>> {
    let (sender, receiver) = mpsc::channel::<Vec<DiskOp>>();
    std::thread::Builder::new().name(format!("disk-{lane}")).spawn(move || {
        for ops in receiver {
            let Some(up_to) = ops.last().map(|op| op.ticket) else { continue };
            let done = ops.iter().try_for_each(|op| performer.perform(&op.action));
            let input = match done {
                Ok(()) => Input::Synced { lane, up_to },
                Err(error) => Input::DiskFailed { lane, error },
            };
            let failed = matches!(input, Input::DiskFailed { .. });
            if inbox.push(Event::Input(input)).is_err() || failed {
                return;
            }
        }
    })?;
    Ok(sender)
}

fn start_backend(
    inbox: Arc<Inbox>,
    commit_seconds: Histogram,
) -> io::Result<mpsc::Sender<(Ticket, BackendJob)>> {
    let (sender, receiver) = mpsc::channel::<(Ticket, BackendJob)>();
    std::thread::Builder::new().name("disk-backend".to_owned()).spawn(move || {
        for (ticket, job) in receiver {
            let commits = matches!(job.kind(), "commit" | "sync");
            let started = Instant::now();
            let done = job.run();
            if commits {
                commit_seconds.observe(started.elapsed().as_secs_f64());
            }
            if inbox.push(Event::Input(Input::JobDone { ticket, done })).is_err() {
                return;
            }
        }
    })?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn perform(performer: &mut Performer, action: DiskAction) {
        performer.perform(&action).expect("a working disk");
    }

    #[test]
    fn actions_do_to_files_what_they_say() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut p = Performer::new(dir.path().to_owned(), None);
        let path = || "a/b/f".to_owned();
        perform(&mut p, DiskAction::CreateDir { path: "a/b".into() });
        perform(&mut p, DiskAction::Create { path: path() });
        perform(&mut p, DiskAction::Allocate { path: path(), len: 8192 });
        let data = Bytes::from_static(b"hello");
        perform(&mut p, DiskAction::WriteAt { path: path(), offset: 4096, data });
        perform(&mut p, DiskAction::SyncData { path: path() });
        let bytes = std::fs::read(dir.path().join("a/b/f")).expect("written");
        assert_eq!((bytes.len(), &bytes[4096..4101]), (8192, &b"hello"[..]));
        assert!(bytes[..4096].iter().all(|b| *b == 0), "allocated bytes read as zero");

        perform(&mut p, DiskAction::Truncate { path: path(), len: 4098 });
        perform(&mut p, DiskAction::Rename { from: path(), to: "a/b/g".into() });
        perform(&mut p, DiskAction::SyncDir { path: "a/b".into() });
        assert_eq!(std::fs::metadata(dir.path().join("a/b/g")).expect("renamed").len(), 4098);
        perform(&mut p, DiskAction::Remove { path: "a/b/g".into() });
        perform(&mut p, DiskAction::Remove { path: "a/b/g".into() });
        assert!(!dir.path().join("a/b/g").exists());
    }

    #[test]
    fn a_failure_names_the_action_and_the_path() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let mut p = Performer::new(dir.path().to_owned(), None);
        let error = p.perform(&DiskAction::SyncData { path: "wal/none".into() });
        let error = error.expect_err("no such file");
        assert!(error.starts_with("fdatasync wal/none: No such file"), "{error}");
    }
}
