//! Real processes of `detkv` on loopback, with real clients, disks and signals.
//!
//! `support` starts and ends members; the rest are the tests by subject.

mod etcdctl;
mod http;
mod membership;
mod one_member;
mod refusals;
mod space;
mod streams;
mod support;
mod three_members;
