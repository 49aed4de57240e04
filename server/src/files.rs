//! The data directory: its lock, and what core reads and redb writes in it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use detkv_core::Files;
use redb::StorageBackend;

/// A locked data directory. The lock lives as long as this value (or the process).
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory (0700) if it is missing and locks it.
    ///
    /// Errors: one line for the operator; above all when another process holds the lock.
    pub fn open(root: &Path) -> Result<Self, String> {
        let shown = root.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| format!("{shown}: cannot create the data directory: {e}"))?;
        let lock = File::open(root).map_err(|e| format!("{shown}: {e}"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root: root.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(format!("{shown}: data directory is in use by another process"))
            }
            Err(TryLockError::Error(e)) => Err(format!("{shown}: cannot lock: {e}")),
        }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Files for DataDir {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.root.join(dir)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        match std::fs::metadata(self.root.join(path)) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn read(&self, path: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let file = File::open(self.root.join(path))?;
        let available = file.metadata()?.len().saturating_sub(offset);
        let len = len.min(usize::try_from(available).unwrap_or(usize::MAX));
        let mut buf = vec![0; len];
        file.read_exact_at(&mut buf, offset)?;
        Ok(buf.into())
    }

    fn backend(&self, path: &str) -> io::Result<Box<dyn StorageBackend>> {
        let path = self.root.join(path);
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
        }
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        Ok(Box::new(FileBackend { file }))
    }
}

/// redb's storage over a file. The data directory's lock keeps other processes out.
#[derive(Debug)]
struct FileBackend {
    file: File,
}

impl StorageBackend for FileBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_opener_is_told_that_the_directory_is_in_use() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let root = dir.path().join("data");
        let first = DataDir::open(&root).expect("free directory");
        let second = DataDir::open(&root).expect_err("locked directory");
        assert!(second.ends_with("data directory is in use by another process"), "{second}");
        drop(first);
        DataDir::open(&root).expect("free again");
    }

    #[test]
    fn reads_stop_at_the_end_of_the_file_and_missing_things_are_empty() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let files = DataDir::open(dir.path()).expect("free directory");
        std::fs::write(dir.path().join("f"), b"abcdef").expect("writable");
        assert_eq!(files.read("f", 2, 100).expect("readable"), &b"cdef"[..]);
        assert_eq!(files.read("f", 2, 3).expect("readable"), &b"cde"[..]);
        assert_eq!(files.read("f", 60, 3).expect("readable"), &b""[..]);
        assert_eq!(Files::len(&files, "f").expect("readable"), Some(6));
        assert_eq!(Files::len(&files, "g").expect("missing is no error"), None);
        assert!(files.list("no/such/dir").expect("missing is no error").is_empty());
    }
}
