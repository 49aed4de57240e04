//! Driving raft-rs: what it leaves to the application, and the traps around it (rules 1–12).
//!
//! Start at [`RaftNode`]: it owns raft-rs' `RawNode`, takes its `Ready`s, holds back what must wait
//! for the WAL, and says how far entries may be applied.
//!
//! | File | What |
//! |---|---|
//! | `node` | ticks, steps, proposals, `Ready`s, the persistence pipeline of both profiles |
//! | `storage` | the in-memory tail of the log that raft-rs reads |
//! | `reads` | one ReadIndex round for all waiting reads |
//! | `convert` | raft-rs' messages to and from our own wire messages |
//! | `logger` | raft-rs' log lines as ours |

mod convert;
mod logger;
mod node;
mod reads;
mod storage;

pub use convert::{conf_change_v2, conf_state_from_pb, conf_state_to_pb, message_from_pb};
pub(crate) use node::mix;
pub use node::{RaftNode, RaftOutput, Restart};
pub use reads::ReadRounds;
