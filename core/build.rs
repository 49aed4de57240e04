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
    // A log entry is one of these, and what it may hold beside the usual requests is moved with it.
    let unusual = ["range", "lease_checkpoint", "auth_", "authenticate"];
    let request = descriptors
        .file
        .iter()
        .flat_map(|file| &file.message_type)
        .find(|message| message.name() == "InternalRaftRequest")
        .expect("internal.proto has it");
    let is_unusual = |name: &str| unusual.iter().any(|start| name.starts_with(start));
    let mut config = prost_build::Config::new();
    for field in request.field.iter().filter(|field| is_unusual(field.name())) {
        config.boxed(format!(".etcdserverpb.InternalRaftRequest.{}", field.name()));
    }
    config.bytes(["."]).compile_fds(descriptors).expect("prost generates from our descriptors");
}
