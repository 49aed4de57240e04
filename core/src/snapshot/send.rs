//! The sending end: a pinned read snapshot, streamed in chunks under the receiver's credit.

use raft::eraftpb;

use super::PATIENCE;
use crate::event::{Level, MemberId};
use crate::limits;
use crate::member::Member;
use crate::mvcc::SnapshotPin;
use crate::pb::peer::{self, Frame, frame::Body};
use crate::pb::raftpb;
use crate::raft::conf_state_from_pb;
use crate::time::Instant;
use crate::{buggify, sometimes};

/// A read snapshot that raft-rs may turn into a MsgSnapshot.
#[derive(Debug)]
pub struct Pinned {
    pin: SnapshotPin,
    pub since: Instant,
}

/// A transfer under way.
#[derive(Debug)]
pub struct Sending {
    id: u64,
    pin: SnapshotPin,
    header: Option<peer::SnapshotHeader>,
    sent: u64,
    acked: u64,
    crc: u32,
    ended: bool,
    /// When what is sent was pinned.
    since: Instant,
    pub last_progress: Instant,
}

impl Pinned {
    pub fn index(&self) -> u64 {
        self.pin.consistent().index
    }
}

impl Sending {
    pub fn index(&self) -> u64 {
        self.pin.consistent().index
    }
}

/// CRC-32C over buckets, keys and values of the rows, in order.
pub fn rows_crc(rows: &[peer::SnapshotRow]) -> u32 {
    rows.iter().fold(0, |crc, row| {
        let crc = crc32c::crc32c_append(crc, &row.bucket.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &row.key);
        crc32c::crc32c_append(crc, &row.value)
    })
}

/// The running hash over chunk CRCs.
pub fn chain_crc(hash: u32, crc: u32) -> u32 {
    crc32c::crc32c_append(hash, &crc.to_le_bytes())
}

impl Member {
    /// Pins read snapshots for the peers that raft-rs wants to send one to.
    fn pin_wanted(&mut self) {
        if !self.node.store().has_wanted() {
            return;
        }
        for (peer, least) in self.node.store().take_wanted() {
            let peer = MemberId(peer);
            if self.snapshots.sending.contains_key(&peer) {
                continue;
            }
            let Ok(pin) = self.store.pin_snapshot() else { continue };
            let at = pin.consistent().clone();
            // Whoever is not in the configuration of a snapshot would not take it.
            let knows = |state: &raftpb::ConfState| {
                state.voters.contains(&peer.0) || state.learners.contains(&peer.0)
            };
            let fits =
                |state: &raftpb::ConfState| at.index >= least && at.index > 0 && knows(state);
            let Some(conf_state) = at.conf_state.filter(fits) else {
                continue; // the file will have caught up when raft-rs asks again
            };
            let mut snapshot = eraftpb::Snapshot::default();
            let meta = snapshot.mut_metadata();
            meta.index = at.index;
            meta.term = at.term;
            meta.set_conf_state(conf_state_from_pb(&conf_state));
            self.node.store().offer_snapshot(peer.0, snapshot);
            self.snapshots.pinned.insert(peer, Pinned { pin, since: self.now });
        }
    }

    /// raft-rs sent a MsgSnapshot: withheld, its store is streamed first.
    pub(crate) fn start_snapshot(&mut self, m: eraftpb::Message) {
        let peer = MemberId(m.to);
        let Some(Pinned { pin, since }) = self.snapshots.pinned.remove(&peer) else {
            return self.node.report_snapshot(peer, false);
        };
        self.node.store().withdraw_snapshot(peer.0);
        let at = pin.consistent().clone();
        let conf_state = at.conf_state.unwrap_or_default();
        let (rows, bytes) = pin.size_hint();
        let message = peer::RaftMessage {
            msg_type: m.msg_type as u32,
            to: m.to,
            from: m.from,
            term: m.term,
            ..Default::default()
        };
        self.snapshots.next_id += 1;
        let id = self.snapshots.next_id;
        let header = peer::SnapshotHeader {
            snapshot_id: id,
            message: Some(message),
            index: at.index,
            term: at.term,
            conf_state: Some(peer::ConfState {
                voters: conf_state.voters,
                learners: conf_state.learners,
            }),
            rows,
            bytes,
        };
        let fields = vec![("to", peer.to_string()), ("snapshot-index", at.index.to_string())];
        self.log(Level::Info, "sending merged snapshot", fields);
        self.metrics.add(&self.metrics.snapshots_started_total);
        let sending = Sending {
            id,
            pin,
            header: Some(header),
            sent: 0,
            acked: 0,
            crc: 0,
            ended: false,
            since,
            last_progress: self.now,
        };
        self.snapshots.sending.insert(peer, sending);
        self.metrics.snapshot_sends.on_begin(peer);
    }

    /// Fills the window of every transfer.
    pub(crate) fn send_snapshots(&mut self, out: &mut Vec<(MemberId, Frame)>) {
        self.pin_wanted();
        let mut push = |to, body| out.push((to, Frame { body: Some(body) }));
        for (peer, s) in &mut self.snapshots.sending {
            if let Some(header) = s.header.take() {
                push(*peer, Body::SnapshotHeader(header));
            }
            let (window, bytes) = if buggify!("snapshot.one-chunk") {
                (1, 1)
            } else {
                (limits::SNAPSHOT_WINDOW_CHUNKS, limits::SNAPSHOT_CHUNK_BYTES)
            };
            while !s.ended && s.sent < s.acked + window {
                let rows = match s.pin.next_rows(bytes) {
                    Ok(rows) => rows,
                    Err(halt) => {
                        self.halt = Some(halt);
                        return;
                    }
                };
                if rows.is_empty() {
                    let end = peer::SnapshotEnd { snapshot_id: s.id, chunks: s.sent, hash: s.crc };
                    push(*peer, Body::SnapshotEnd(end));
                    s.ended = true;
                    break;
                }
                let crc = rows_crc(&rows);
                s.crc = chain_crc(s.crc, crc);
                let chunk = peer::SnapshotChunk { snapshot_id: s.id, sequence: s.sent, rows, crc };
                push(*peer, Body::SnapshotChunk(chunk));
                s.sent += 1;
            }
        }
    }

    pub(crate) fn handle_snapshot_ack(&mut self, from: MemberId, ack: peer::SnapshotAck) {
        let now = self.now;
        let Some(s) = self.snapshots.sending.get_mut(&from).filter(|s| s.id == ack.snapshot_id)
        else {
            return;
        };
        s.acked = s.acked.max(ack.received.min(s.sent));
        s.last_progress = now;
        if ack.done || !ack.error.is_empty() {
            self.finish_send(from, &ack.error);
        }
    }

    fn finish_send(&mut self, peer: MemberId, error: &str) {
        if let Some(sent) = self.snapshots.sending.remove(&peer) {
            let took = self.now.since(sent.since);
            self.metrics.backend_snapshot_duration.observe(took);
            self.metrics.snapshot_sends.on_end(peer, error.is_empty().then_some(took));
            if error.is_empty() {
                self.snapshots.sent.insert(peer, (sent.index(), self.now));
            }
        }
        self.node.report_snapshot(peer, error.is_empty());
        let to = ("to", peer.to_string());
        if error.is_empty() {
            sometimes!("snapshot.sent");
            self.metrics.add(&self.metrics.snapshots_sent_total);
            self.log(Level::Info, "sent merged snapshot", vec![to]);
        } else {
            sometimes!("snapshot.send-failed");
            let fields = vec![to, ("error", error.to_owned())];
            self.log(Level::Warn, "failed to send merged snapshot", fields);
        }
    }

    /// Its end of the transfer is gone with the connection.
    pub(crate) fn on_receiver_gone(&mut self, peer: MemberId) {
        if self.snapshots.sending.contains_key(&peer) {
            self.finish_send(peer, "disconnected");
        }
    }

    /// No longer the leader: what is under way is of no use.
    pub(crate) fn abort_sends(&mut self) {
        for peer in std::mem::take(&mut self.snapshots.pinned).into_keys() {
            self.node.store().withdraw_snapshot(peer.0);
        }
        for peer in self.snapshots.sending.keys().copied().collect::<Vec<_>>() {
            sometimes!("snapshot.aborted-by-demotion");
            self.finish_send(peer, "no longer the leader");
        }
        self.snapshots.sent.clear();
    }

    /// Gives up on transfers without progress; a pin holds old pages, so its life is bounded.
    pub(crate) fn expire_snapshots(&mut self) {
        if self.snapshots.next_deadline().is_none_or(|at| self.now < at) {
            return;
        }
        let old = self.now - PATIENCE;
        for (peer, _) in self.snapshots.pinned.extract_if(.., |_, p| p.since <= old) {
            self.node.store().withdraw_snapshot(peer.0);
        }
        let stuck: Vec<MemberId> = self
            .snapshots
            .sending
            .iter()
            .filter(|(_, s)| s.last_progress <= old)
            .map(|(peer, _)| *peer)
            .collect();
        for peer in stuck {
            self.finish_send(peer, "no progress for 30 s");
        }
        self.expire_receiving(old);
    }
}
