//! Bits that flip on the disk.

use super::{Node, ROOT, State};
use crate::disk::dir::Inode;
use crate::disk::path_matches;
use crate::rng::uniform;

impl State {
    pub fn rot(&mut self, fault: u64, path: &str, bits: u32, at_once: bool) -> Vec<(String, u64)> {
        let fits = |path_of: &str| path.is_empty() || path_matches(path, path_of);
        let mut files = self.files();
        files.retain(|(name, inode)| fits(name) && self.file(*inode).written() > 0);
        let mut places = Vec::new();
        let Some(last) = files.len().checked_sub(1) else { return places };
        for _ in 0..bits {
            let (name, inode) = &files[uniform(&mut self.trouble_rng, 0, last as u64) as usize];
            let written = self.file(*inode).written();
            let offset = uniform(&mut self.trouble_rng, 0, written - 1);
            let bit = uniform(&mut self.trouble_rng, 0, 7) as u8;
            let file = self.file_mut(*inode);
            file.flip(fault, offset, bit);
            if at_once {
                file.show_rot();
            }
            places.push((name.clone(), offset));
        }
        places
    }

    pub fn unrot(&mut self, fault: u64) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.flip_back(fault);
            }
        }
    }

    /// Every file that a name leads to, with its path, in the order of the names.
    fn files(&self) -> Vec<(String, Inode)> {
        let mut found = Vec::new();
        let mut open = vec![(String::new(), ROOT)];
        while let Some((path, inode)) = open.pop() {
            match &self.nodes[&inode] {
                Node::File(_) => found.push((path, inode)),
                Node::Dir(dir) => open.extend(dir.entries().map(|(name, inode)| {
                    let slash = if path.is_empty() { "" } else { "/" };
                    (format!("{path}{slash}{name}"), inode)
                })),
            }
        }
        found.sort();
        found
    }
}
