//! The redb file: opening it, reading it, and the fence that keeps writes inside backend jobs.

use std::fmt;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use redb::{
    BackendError, Builder, Database, ReadOnlyTable, ReadTransaction, ReadableDatabase,
    StorageBackend, TableDefinition, TableError,
};

use super::Bucket;
use super::rows::{Revision, RowKey};
use super::usage::Usage;
use crate::event::SharedFiles;
use crate::metrics::Value;

/// Page cache of the file, bytes. Current values live in memory, so this serves history,
/// snapshots and the inner pages of the tree.
const CACHE_BYTES: usize = 128 << 20;

/// What went wrong with the file, as text for an operator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct FileError(pub String);

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! file_error_from {
    ($($error:ty),*) => {
        $(impl From<$error> for FileError {
            fn from(error: $error) -> Self {
                FileError(error.to_string())
            }
        })*
    };
}

file_error_from!(
    std::io::Error,
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);

/// Runs code that may meet damaged pages: redb trusts what it wrote and asserts on it, so bit rot
/// below a running store can surface as a panic. It must end in `Halt`, not in an abort.
pub(crate) fn guarded<T>(f: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        Err(FileError(format!("a page makes no sense: {text}")))
    })
}

pub(crate) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;
type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

impl Bucket {
    pub(crate) const ALL: [Bucket; 10] = [
        Bucket::Key,
        Bucket::Meta,
        Bucket::Lease,
        Bucket::Alarm,
        Bucket::Members,
        Bucket::MembersRemoved,
        Bucket::Cluster,
        Bucket::Auth,
        Bucket::AuthUsers,
        Bucket::AuthRoles,
    ];

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }

    /// etcd's name of the bucket, and the table's.
    pub fn name(self) -> &'static str {
        match self {
            Bucket::Key => "key",
            Bucket::Meta => "meta",
            Bucket::Lease => "lease",
            Bucket::Alarm => "alarm",
            Bucket::Members => "members",
            Bucket::MembersRemoved => "members_removed",
            Bucket::Cluster => "cluster",
            Bucket::Auth => "auth",
            Bucket::AuthUsers => "authUsers",
            Bucket::AuthRoles => "authRoles",
        }
    }

    pub(crate) fn table(self) -> Table {
        TableDefinition::new(self.name())
    }
}

/// Lets writes through only while a job runs (or the file is being opened).
///
/// redb commits once more when a `Database` is dropped. A store that is dropped has crashed as
/// far as its file is concerned (a planned stop has already written everything), so that write
/// must not happen: `kill -9` and a drop leave the same bytes.
#[derive(Debug)]
struct Fenced {
    inner: Box<dyn StorageBackend>,
    writable: Arc<AtomicBool>,
}

impl Fenced {
    fn check(&self) -> std::io::Result<()> {
        if self.writable.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(std::io::Error::other("write outside a backend job"))
        }
    }
}

impl StorageBackend for Fenced {
    fn len(&self) -> std::io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.check()?;
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.check()?;
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.check()?;
        self.inner.write(offset, data)
    }

    fn close(&self) -> std::io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

/// Keeps the fence open; closes it when dropped.
pub(crate) struct FenceOpen(Arc<AtomicBool>);

impl FenceOpen {
    fn new(writable: &Arc<AtomicBool>) -> Self {
        writable.store(true, Ordering::Release);
        Self(writable.clone())
    }
}

impl Drop for FenceOpen {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// An open file. Shared by the store, its readers, jobs and snapshot pins.
pub(crate) struct Backend {
    pub db: Database,
    writable: Arc<AtomicBool>,
    pub usage: Mutex<Usage>,
    pub open_views: Value,
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("usage", &self.usage.lock()).finish_non_exhaustive()
    }
}

impl Backend {
    /// Opens or creates the file. Checks the checksum of every page: a damaged file is an error.
    pub fn open(files: &SharedFiles, path: &str) -> Result<Self, FileError> {
        let inner = files.backend(path)?;
        discard_unfinished_creation(inner.as_ref())?;
        Self::open_inner(inner)
    }

    /// Empties the file at `path` and opens it.
    pub fn create(files: &SharedFiles, path: &str) -> Result<Self, FileError> {
        let inner = files.backend(path)?;
        inner.set_len(0)?;
        Self::open_inner(inner)
    }

    fn open_inner(inner: Box<dyn StorageBackend>) -> Result<Self, FileError> {
        let writable = Arc::new(AtomicBool::new(false));
        let _open = FenceOpen::new(&writable);
        let fenced = Fenced { inner, writable: writable.clone() };
        guarded(|| {
            let mut builder = Builder::new();
            builder.set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true);
            let db = builder.create_with_backend(fenced)?;
            let usage = Usage::measure(&db)?;
            let (writable, usage) = (writable.clone(), Mutex::new(usage));
            Ok(Backend { db, writable, usage, open_views: Value::default() })
        })
    }

    /// Writes are possible until the result is dropped. Only a job calls this.
    pub fn open_fence(&self) -> FenceOpen {
        FenceOpen::new(&self.writable)
    }

    pub fn view(self: &Arc<Self>) -> Result<FileView, FileError> {
        let txn = self.db.begin_read()?;
        self.open_views.add_shared(1);
        Ok(FileView { txn, backend: self.clone() })
    }
}

/// redb's header is smaller than this; nothing else lies in the first page.
const FIRST_PAGE_BYTES: u64 = 4096;
const MAGIC_BYTES: usize = 9;
/// A file that redb has just created is about 1 MiB long.
const CREATED_BYTES_MAX: u64 = 4 << 20;

/// A crash while redb creates a file leaves one without its magic number, in which no page was
/// ever written. That is not damage: nothing had been stored. Anything else is left to redb.
fn discard_unfinished_creation(inner: &dyn StorageBackend) -> std::io::Result<()> {
    let len = inner.len()?;
    if len == 0 || len > CREATED_BYTES_MAX {
        return Ok(());
    }
    let mut bytes = vec![0; len as usize];
    inner.read(0, &mut bytes)?;
    let has_magic = bytes.iter().take(MAGIC_BYTES).any(|b| *b != 0);
    let has_page = bytes.iter().skip(FIRST_PAGE_BYTES as usize).any(|b| *b != 0);
    if has_magic || has_page { Ok(()) } else { inner.set_len(0) }
}

/// A consistent view of the file: what was committed when it was taken.
pub(crate) struct FileView {
    // Field order: the transaction goes before the database it reads.
    txn: ReadTransaction,
    /// redb closes a database under its readers; `install` must not.
    backend: Arc<Backend>,
}

impl Drop for FileView {
    fn drop(&mut self) {
        self.backend.open_views.sub_one_shared();
    }
}

impl FileView {
    pub fn row(&self, revision: Revision) -> Result<Option<Bytes>, FileError> {
        guarded(|| {
            let Some(table) = self.table(Bucket::Key)? else { return Ok(None) };
            let row = table.get(RowKey::new(revision, false).as_bytes())?;
            Ok(row.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    pub fn value(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Bytes>, FileError> {
        guarded(|| {
            let Some(table) = self.table(bucket)? else { return Ok(None) };
            Ok(table.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
        })
    }

    /// Calls `f` with the rows of a bucket after `after` in key order until it returns false.
    ///
    /// Returns false when `f` ended the walk.
    pub fn for_each(
        &self,
        bucket: Bucket,
        after: Bound<&[u8]>,
        mut f: impl FnMut(&[u8], &[u8]) -> Result<bool, FileError>,
    ) -> Result<bool, FileError> {
        guarded(|| {
            let Some(table) = self.table(bucket)? else { return Ok(true) };
            for row in table.range::<&[u8]>((after, Bound::Unbounded))? {
                let (key, value) = row?;
                if !f(key.value(), value.value())? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
    }

    /// `None` when nothing was ever written to the bucket.
    fn table(&self, bucket: Bucket) -> Result<Option<ReadTable>, FileError> {
        match self.txn.open_table(bucket.table()) {
            Ok(table) => Ok(Some(table)),
            Err(TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
