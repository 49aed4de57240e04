//! Compiles etcd's messages and client stubs from core's `.proto` files, with protox: no `protoc` needed.

use std::path::PathBuf;

fn main() {
    let here = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let protos = here.join("../core/proto/etcd");
    println!("cargo:rerun-if-changed={}", protos.display());
    let descriptors =
        protox::compile(["rpc.proto"], [protos]).expect("core's .proto files compile");
    tonic_prost_build::configure()
        .build_server(false)
        .bytes(".")
        .include_file("pb.rs")
        .compile_fds(descriptors)
        .expect("tonic generates from our descriptors");
}
