//! A file as redb's storage: live at once, stamped one after the other, gone with its process.

use std::io;

use redb::StorageBackend;

use super::SimDisk;
use super::dir::Inode;

#[derive(Debug)]
pub struct Backend {
    disk: SimDisk,
    generation: u64,
    inode: Inode,
}

impl Backend {
    pub fn new(disk: SimDisk, generation: u64, inode: Inode) -> Self {
        Self { disk, generation, inode }
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.check(self.generation)?;
        Ok(state.file(self.inode).len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(self.generation)?;
        state.backend_read(self.inode, offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(self.generation)?;
        state.backend_set_len(self.inode, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(self.generation)?;
        state.backend_sync(self.inode)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(self.generation)?;
        state.backend_write(self.inode, offset, data)
    }

    fn close(&self) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.check(self.generation)?;
        state.close(self.inode);
        Ok(())
    }
}
