//! Puts a fingerprint of the simulator's sources into the binary.
//!
//! `check-determinism` compares runs of two builds; only builds of the same sources can be compared, and
//! a stale binary in `target/` looks exactly like nondeterminism.

use std::fs;
use std::path::{Path, PathBuf};

/// Everything a run's outcome depends on.
const SOURCES: [&str; 6] =
    ["../core/src", "../core/proto", "../sim/src", "../Cargo.lock", "src", "Cargo.toml"];

fn main() {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
        collect(&root.join(source), &mut files);
    }
    files.sort();
    // FNV-1a, 64 bits.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for file in &files {
        let text = fs::read(file).expect("our own sources are readable");
        for byte in text {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    println!("cargo:rustc-env=DETKV_SOURCES={hash:016x}");
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    if path.is_file() {
        files.push(path.to_owned());
    } else if let Ok(entries) = fs::read_dir(path) {
        entries.flatten().for_each(|entry| collect(&entry.path(), files));
    }
}
