//! The models beside the real world (rules 29): the same scripts on the simulated disk and on a file system, on the
//! simulated network and on TCP sockets. Every outcome seen for real is one that the model allows.
//!
//! A power loss cannot be had for real here: it is held against a written list of allowed states instead.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "one side of each comparison is the real world"
)]

mod disk;
mod net;
mod power_loss;

/// Set in a child process of these tests: what it is to do.
const CHILD: &str = "DETKV_REAL_CHILD";
