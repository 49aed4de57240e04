//! Wire and file messages, generated from `core/proto` (etcd's packages and field numbers).
#![allow(clippy::all, missing_docs, reason = "generated code")]

pub mod mvccpb {
    include!(concat!(env!("OUT_DIR"), "/mvccpb.rs"));
}
pub mod authpb {
    include!(concat!(env!("OUT_DIR"), "/authpb.rs"));
}
pub mod etcdserverpb {
    include!(concat!(env!("OUT_DIR"), "/etcdserverpb.rs"));
}
pub mod membershippb {
    include!(concat!(env!("OUT_DIR"), "/membershippb.rs"));
}
pub mod leasepb {
    include!(concat!(env!("OUT_DIR"), "/leasepb.rs"));
}
pub mod raftpb {
    include!(concat!(env!("OUT_DIR"), "/raftpb.rs"));
}
pub mod walpb {
    include!(concat!(env!("OUT_DIR"), "/walpb.rs"));
}
pub mod snappb {
    include!(concat!(env!("OUT_DIR"), "/snappb.rs"));
}
pub mod walmeta {
    include!(concat!(env!("OUT_DIR"), "/walmeta.rs"));
}
/// The peer wire, our own.
pub mod peer {
    include!(concat!(env!("OUT_DIR"), "/detkv.peer.v1.rs"));
}
