//! raft-rs logs through slog; its lines become [`LogLine`]s of the member.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use slog::{Drain, KV, Key, OwnedKVList, Record, Serializer};

use crate::event::{Level, LogLine};

/// Lines raft-rs wrote since the last `take`; bounded, oldest kept.
#[derive(Clone, Default, Debug)]
pub struct RaftLog(Arc<Shared>);

#[derive(Default, Debug)]
struct Shared {
    /// Looked at in every burst, without the lock.
    has_lines: AtomicBool,
    lines: Mutex<Vec<LogLine>>,
}

const LINES_MAX: usize = 1_000;

impl RaftLog {
    pub fn logger(&self, id: u64) -> slog::Logger {
        let drain = Lines { lines: self.clone(), id };
        slog::Logger::root(drain.filter_level(slog::Level::Info).fuse(), slog::o!())
    }

    /// The std mutex: slog asks for unwind safety. No code under it can panic half-way.
    fn lock(&self) -> MutexGuard<'_, Vec<LogLine>> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn take(&self, into: &mut Vec<LogLine>) {
        // Written and taken by the member's thread.
        if self.0.has_lines.load(Relaxed) {
            self.0.has_lines.store(false, Relaxed);
            into.append(&mut self.lock());
        }
    }
}

struct Lines {
    lines: RaftLog,
    id: u64,
}

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        let mut lines = self.lines.lock();
        if lines.len() >= LINES_MAX {
            return Ok(());
        }
        let level = match record.level() {
            slog::Level::Critical | slog::Level::Error => Level::Error,
            slog::Level::Warning => Level::Warn,
            slog::Level::Info => Level::Info,
            _ => Level::Debug,
        };
        let mut fields = Fields(Vec::new());
        // Our serializer has no error to give.
        let _ = record.kv().serialize(record, &mut fields);
        let msg = format!("{:x} {}", self.id, record.msg());
        lines.push(LogLine { level, msg, fields: fields.0 });
        self.lines.0.has_lines.store(true, Relaxed);
        Ok(())
    }
}

struct Fields(Vec<(&'static str, String)>);

impl Serializer for Fields {
    fn emit_arguments(&mut self, key: Key, val: &std::fmt::Arguments<'_>) -> slog::Result {
        let mut text = String::new();
        write!(text, "{val}")?;
        self.0.push((key, text));
        Ok(())
    }
}
