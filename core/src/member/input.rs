//! What came in, told apart: inputs, frames of peers, results of backend jobs.

use super::Member;
use crate::api::Response;
use crate::error::{ApiError, Halt};
use crate::event::{Input, Lane, Level, MemberId};
use crate::mvcc::StoreEvent;
use crate::pb::etcdserverpb as pb;
use crate::pb::peer::{Frame, frame::Body};
use crate::raft::message_from_pb;

impl Member {
    pub(crate) fn take(&mut self, input: Input) {
        match input {
            Input::Deadline => {}
            Input::Peer { from, frame } => self.handle_frame(from, frame),
            Input::PeerVersion { peer, wire, version } => {
                self.peer_versions.insert(peer, (wire, version));
                self.lead.introduced = false;
            }
            Input::Remote { peer } => self.handle_remote(peer),
            Input::RefusedAsRemoved { peer } => self.handle_refused_as_removed(peer),
            Input::PeerUp { peer } => {
                self.peers_up.entry(peer).or_insert(self.now);
                self.lead.introduced = false;
                self.node.on_peer_up();
                self.lead.dispatch = true;
                self.ask_hash(peer);
            }
            Input::PeerDown { peer } => {
                self.peers_up.remove(&peer);
                self.node.report_unreachable(peer);
                self.leases.on_peer_down(peer);
                self.on_receiver_gone(peer);
            }
            Input::PeerQueueFull { peer } => self.node.report_unreachable(peer),
            Input::Request { id, request } => self.handle_request(id, request),
            // The result is dropped by the driver, which has forgotten the id.
            Input::Cancel { .. } => {}
            Input::StreamOpen { stream } if self.is_learner() => {
                let refused = (stream, ApiError::NotSupportedForLearner);
                self.refused_streams.push(refused);
            }
            Input::StreamOpen { stream } => self.watches.open_stream(self.now, stream),
            Input::StreamRequest { stream, request } => {
                self.watches.handle(self.now, stream, request, &self.reader);
            }
            Input::StreamDrained { stream, bytes } => {
                self.watches.on_drained(self.now, stream, bytes);
            }
            Input::StreamClosed { stream } => self.watches.close_stream(stream),
            Input::Synced { lane: Lane::Log, up_to } => {
                self.node.on_synced(up_to);
                self.on_log_synced(up_to);
            }
            Input::Synced { lane: Lane::Snapshot, up_to } => self.on_snapshot_lane_synced(up_to),
            Input::Synced { lane: Lane::Backend, .. } => {}
            Input::JobDone { done, .. } => self.handle_job_done(done),
            Input::DiskFailed { lane, error } => {
                self.halt = Some(Halt::DiskFailed { lane, error });
            }
            Input::Stop => self.handle_stop(),
        }
    }

    fn handle_frame(&mut self, from: MemberId, frame: Frame) {
        match frame.body {
            Some(Body::Raft(m)) => {
                if m.from != from.0 || m.to != self.config.id.0 {
                    return self
                        .warn("dropped a Raft message with a wrong sender or receiver", from);
                }
                match message_from_pb(m) {
                    // raft-rs would panic: a leader names no commit that it has not seen us acknowledge.
                    Some(m) if self.node.is_past_our_log(&m) => {
                        let why = "a leader knows log entries that this member has lost";
                        self.halt = Some(Halt::Backend(why.to_owned()));
                    }
                    Some(m) => self.node.step(m),
                    None => self.warn("dropped a malformed Raft message", from),
                }
            }
            Some(Body::Forward(f)) => self.handle_forward(from, f),
            Some(Body::ForwardRefused(f)) => self.handle_forward_refused(from, f),
            Some(Body::LeaseForward(f)) => self.handle_lease_forward(from, f),
            Some(Body::LeaseReply(r)) => self.handle_lease_reply(from, r),
            Some(Body::SnapshotHeader(h)) => self.handle_snapshot_header(from, h),
            Some(Body::SnapshotChunk(c)) => self.handle_snapshot_chunk(from, c),
            Some(Body::SnapshotEnd(e)) => self.handle_snapshot_end(from, e),
            Some(Body::SnapshotAck(a)) => self.handle_snapshot_ack(from, a),
            Some(Body::HashAsk(ask)) => self.handle_hash_ask(from, ask),
            Some(Body::HashReply(reply)) => self.handle_hash_reply(from, reply),
            // The drivers' business.
            Some(Body::Ping(_) | Body::Pong(_)) => {}
            None => self.warn("dropped an empty frame", from),
        }
    }

    fn handle_job_done(&mut self, done: crate::mvcc::JobDone) {
        self.jobs_under_way = self.jobs_under_way.saturating_sub(1);
        match self.store.handle_done(self.now, done) {
            Ok(events) => events.into_iter().for_each(|e| self.on_store_event(e)),
            Err(halt) => self.halt = Some(halt),
        }
        self.answer_hashing();
    }

    /// Clients of compactions whose rows are gone.
    pub(crate) fn answer_physical(&mut self) {
        let (header, finished) = (self.header(), self.store.finished_compaction());
        for (_, client) in self.physical.extract_if(.., |(r, _)| *r <= finished) {
            let response = pb::CompactionResponse { header: Some(header) };
            self.replies.push((client, Ok(Response::Compact(response))));
        }
    }

    pub(super) fn on_store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Durable { index } => self.maybe_save_snapshot(index),
            StoreEvent::CompactionFinished { revision } => {
                self.answer_physical();
                let fields = vec![("compact-revision", revision.to_string())];
                self.log(Level::Info, "finished scheduled compaction", fields);
            }
            StoreEvent::ReceivedChunk { path } => self.on_received_chunk(&path),
            StoreEvent::ReceivedAll { path, holds } => self.on_received_all(&path, &holds),
            StoreEvent::Loaded => self.finish_install(),
            StoreEvent::Copied { path } => self.on_copied(path),
            StoreEvent::CopyFailed { path, error } => self.on_copy_failed(path, &error),
            StoreEvent::Hashed { id, result } => self.on_hashed(id, &result),
            StoreEvent::HashStored(hash) => {
                let fields = vec![
                    ("hash", hash.hash.to_string()),
                    ("revision", hash.revision.to_string()),
                    ("compact-revision", hash.compact_revision.to_string()),
                ];
                self.log(Level::Info, "storing new hash", fields);
            }
        }
    }
}
