//! Compiles `proto/` with protox (pure Rust): no `protoc` on the machine.

use std::path::PathBuf;

fn main() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let (etcd, detkv) = (root.join("proto/etcd"), root.join("proto/detkv"));
    println!("cargo:rerun-if-changed=proto");
    let files = [
        "internal.proto",
        "rpc.proto",
        "lease.proto",
        "wal.proto",
        "snap.proto",
        "metadata.proto",
        "peer.proto",
    ];
    let descriptors = protox::compile(files, [etcd, detkv]).expect("our .proto files compile");
    prost_build::Config::new()
        .bytes(["."])
        .compile_fds(descriptors)
        .expect("prost generates from our descriptors");
}
