//! What goes through `Files` and redb's storage: it takes its time one operation after the other, at the cursor.

use std::io;

use bytes::Bytes;

use super::{Node, State, failed};
use crate::disk::dir::Inode;
use crate::disk::{DiskOp, Trouble, transfer_ns};

fn io_error(path: &str, trouble: Trouble) -> io::Error {
    let kind = match trouble {
        Trouble::NoSpace => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, failed(path, trouble.what()))
}

impl State {
    pub fn list(&mut self, dir: &str) -> Vec<String> {
        self.cursor += self.model.call.as_nanos() as u64;
        let Ok(inode) = self.lookup_dir(dir) else {
            return Vec::new();
        };
        let Some(Node::Dir(dir)) = self.nodes.get(&inode) else {
            return Vec::new();
        };
        dir.entries()
            .filter(|(_, inode)| matches!(self.nodes[inode], Node::File(_)))
            .map(|(name, _)| name.to_owned())
            .collect()
    }

    pub fn len(&mut self, path: &str) -> Option<u64> {
        self.cursor += self.model.call.as_nanos() as u64;
        self.lookup_file(path).ok().map(|inode| self.file(inode).len())
    }

    pub fn read(&mut self, path: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let inode = self
            .lookup_file(path)
            .map_err(|error| io::Error::new(io::ErrorKind::NotFound, error.to_string()))?;
        self.hold_against_rules(DiskOp::Read, path, false)?;
        let left = self.file(inode).len().saturating_sub(offset);
        let out = self.file(inode).to_bytes(offset, (len as u64).min(left) as usize);
        self.charge_read(out.len(), self.model.read_bytes_per_sec);
        Ok(out)
    }

    fn hold_against_rules(
        &mut self,
        op: DiskOp,
        path: &str,
        by_redb: bool,
    ) -> io::Result<Option<Trouble>> {
        match self.rules.strike(op, path, by_redb) {
            Some(trouble) if trouble.is_error() => Err(io_error(path, trouble)),
            trouble => Ok(trouble),
        }
    }

    /// The same for an operation of redb's.
    fn hold_open_file_against_rules(
        &mut self,
        op: DiskOp,
        inode: Inode,
    ) -> io::Result<Option<Trouble>> {
        if self.rules.is_empty() {
            return Ok(None);
        }
        let path = self.open_path(inode);
        self.hold_against_rules(op, &path, true)
    }

    fn open_path(&self, inode: Inode) -> String {
        self.open.get(&inode).map_or_else(String::new, |(_, path)| path.clone())
    }

    /// Opens or creates a file for redb.
    pub fn open(&mut self, path: &str) -> io::Result<Inode> {
        let inode = match self.lookup_file(path) {
            Ok(inode) => inode,
            Err(_) => {
                let stamp = self.call();
                self.hold_against_rules(DiskOp::Create, path, true)?;
                self.create(stamp, path).map_err(|error| io::Error::other(error.to_string()))?
            }
        };
        self.open.entry(inode).or_insert_with(|| (0, path.to_owned())).0 += 1;
        Ok(inode)
    }

    pub fn close(&mut self, inode: Inode) {
        if let Some((count, _)) = self.open.get_mut(&inode) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&inode);
            }
        }
    }

    /// Moves the cursor past one system call.
    fn call(&mut self) -> u64 {
        self.cursor += self.model.call.as_nanos() as u64;
        self.cursor
    }

    fn charge_read(&mut self, bytes: usize, bytes_per_sec: u64) {
        self.counters.reads += 1;
        self.counters.read_bytes += bytes as u64;
        self.call();
        self.cursor += transfer_ns(bytes as u64, bytes_per_sec);
    }

    pub fn backend_read(&mut self, inode: Inode, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.file(inode);
        if offset + out.len() as u64 > file.len() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "read past the end"));
        }
        self.hold_open_file_against_rules(DiskOp::Read, inode)?;
        let file = self.file(inode);
        file.read(offset, out);
        self.charge_read(out.len(), self.model.memory_bytes_per_sec);
        Ok(())
    }

    pub fn backend_write(&mut self, inode: Inode, offset: u64, data: &[u8]) -> io::Result<()> {
        let trouble = match self.hold_open_file_against_rules(DiskOp::Write, inode) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                let stamp = self.call();
                self.write_what_fits(stamp, inode, offset, data);
                return Err(error);
            }
            trouble => trouble?,
        };
        self.count_write(data.len());
        let begun = self.call();
        let stamp = begun + transfer_ns(data.len() as u64, self.model.memory_bytes_per_sec);
        self.cursor = stamp;
        self.file_mut(inode).write(begun, stamp, offset, data);
        self.misdirect(trouble, inode, offset, data.len());
        Ok(())
    }

    pub fn backend_set_len(&mut self, inode: Inode, len: u64) -> io::Result<()> {
        self.hold_open_file_against_rules(DiskOp::Grow, inode)?;
        let stamp = self.call();
        self.file_mut(inode).set_len(stamp, len);
        Ok(())
    }

    pub fn backend_sync(&mut self, inode: Inode) -> io::Result<()> {
        let trouble = match self.rules.is_empty() {
            true => None,
            false => self.rules.strike(DiskOp::Sync, &self.open_path(inode), true),
        };
        let at = self.call();
        if let Some(trouble) = trouble.filter(|trouble| trouble.is_error()) {
            if trouble == Trouble::SyncFailsClean {
                self.file_mut(inode).fail_sync_clean();
            }
            return Err(io_error(&self.open_path(inode), trouble));
        }
        self.lie(trouble, inode);
        self.cursor = self.sync(at, inode);
        Ok(())
    }
}
