//! Generates etcd's gRPC services with protox (pure Rust): no `protoc` on the machine.
//!
//! The messages are `detkv_core::pb`'s, not generated twice. Two answers are replaced by our own types
//! that are written to the wire without being decoded first: `RangeResponse` and `WatchResponse`.

use std::path::PathBuf;

fn main() {
    let proto = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"))
        .join("../core/proto/etcd");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("set by cargo"));
    println!("cargo:rerun-if-changed={}", proto.display());
    let descriptors =
        protox::compile(["rpc.proto", "health.proto"], [proto]).expect("our .proto files compile");

    let service_dir = out.join("service");
    std::fs::create_dir_all(&service_dir).expect("OUT_DIR is writable");
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(service_dir)
        .codec_path("crate::grpc::codec::WireCodec")
        .extern_path(".etcdserverpb", "::detkv_core::pb::etcdserverpb")
        .extern_path(".etcdserverpb.RangeResponse", "crate::grpc::codec::RangeReply")
        .extern_path(".etcdserverpb.WatchResponse", "crate::grpc::codec::WatchReply")
        .extern_path(".mvccpb", "::detkv_core::pb::mvccpb")
        .extern_path(".authpb", "::detkv_core::pb::authpb")
        .compile_fds(descriptors.clone())
        .expect("tonic generates from our descriptors");

    // The clients are for `tests/`, which include them from here.
    let client_dir = out.join("client");
    std::fs::create_dir_all(&client_dir).expect("OUT_DIR is writable");
    tonic_prost_build::configure()
        .build_server(false)
        .out_dir(client_dir)
        .extern_path(".etcdserverpb", "::detkv_core::pb::etcdserverpb")
        .extern_path(".mvccpb", "::detkv_core::pb::mvccpb")
        .extern_path(".authpb", "::detkv_core::pb::authpb")
        .compile_fds(descriptors)
        .expect("tonic generates from our descriptors");
}
