//! Real processes of `detkv` on loopback, with real clients, disks and signals.
//!
//! `support` starts and ends members (`ports` theirs), `load` writes beside everything, `ctl` calls etcdctl;
//! the rest are the tests by subject.
//!
//! Nothing is synchronised by time: a test waits for what it needs, up to `PATIENCE`.

mod compaction;
mod corruption;
mod ctl;
mod etcdctl;
mod http;
mod load;
mod membership;
mod metrics;
mod metrics_peers;
mod one_member;
mod peers;
mod ports;
mod refusals;
mod space;
mod streams;
mod support;
mod three_members;
