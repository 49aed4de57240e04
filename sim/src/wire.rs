//! Sizes and bytes of what crosses a link, without moving it through an encoder.
//!
//! Messages travel as values; their encoded length is what the bandwidth sees, their encoding what
//! the event hash sees.

use detkv_core::ApiError;
use detkv_core::api::{Request, Response, WatchMessage};
use detkv_core::mvcc::ReadResult;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::{Event, KeyValue};
use detkv_core::pb::peer::{Forward, Frame, RaftMessage, frame::Body};
use prost::Message;

use crate::handle::Reply;

/// Headers of TCP, TLS and HTTP/2 or of our own framing, per message.
pub const OVERHEAD_BYTES: u64 = 64;

macro_rules! with_message {
    ($enum:ident, $value:expr, $message:ident => $body:expr) => {
        match $value {
            $enum::Range($message) => $body,
            $enum::Put($message) => $body,
            $enum::DeleteRange($message) => $body,
            $enum::Txn($message) => $body,
            $enum::Compact($message) => $body,
            $enum::LeaseGrant($message) => $body,
            $enum::LeaseRevoke($message) => $body,
            $enum::LeaseKeepAlive($message) => $body,
            $enum::LeaseTimeToLive($message) => $body,
            $enum::LeaseLeases($message) => $body,
            $enum::Status($message) => $body,
            $enum::MemberList($message) => $body,
            $enum::MemberAdd($message) => $body,
            $enum::MemberRemove($message) => $body,
            $enum::MemberUpdate($message) => $body,
            $enum::MemberPromote($message) => $body,
            $enum::Alarm($message) => $body,
            $enum::Defragment($message) => $body,
            $enum::Hash($message) => $body,
            $enum::HashKv($message) => $body,
            $enum::MoveLeader($message) => $body,
        }
    };
}

pub fn request_bytes(request: &Request) -> u64 {
    with_message!(Request, request, message => message.encoded_len()) as u64 + OVERHEAD_BYTES
}

pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    out.extend_from_slice(request_name(request).as_bytes());
    with_message!(Request, request, message => message.encode(out).expect("a Vec grows"));
}

/// The protobuf of a request in hex, for the decision trace.
pub fn request_hex(request: &Request) -> String {
    let bytes = with_message!(Request, request, message => message.encode_to_vec());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The rpc's name.
pub fn request_name(request: &Request) -> &'static str {
    match request {
        Request::Range(_) => "Range",
        Request::Put(_) => "Put",
        Request::DeleteRange(_) => "DeleteRange",
        Request::Txn(_) => "Txn",
        Request::Compact(_) => "Compact",
        Request::LeaseGrant(_) => "LeaseGrant",
        Request::LeaseRevoke(_) => "LeaseRevoke",
        Request::LeaseKeepAlive(_) => "LeaseKeepAlive",
        Request::LeaseTimeToLive(_) => "LeaseTimeToLive",
        Request::LeaseLeases(_) => "LeaseLeases",
        Request::Status(_) => "Status",
        Request::MemberList(_) => "MemberList",
        Request::MemberAdd(_) => "MemberAdd",
        Request::MemberRemove(_) => "MemberRemove",
        Request::MemberUpdate(_) => "MemberUpdate",
        Request::MemberPromote(_) => "MemberPromote",
        Request::Alarm(_) => "Alarm",
        Request::Defragment(_) => "Defragment",
        Request::Hash(_) => "Hash",
        Request::HashKv(_) => "HashKV",
        Request::MoveLeader(_) => "MoveLeader",
    }
}

/// A member's response as a client sees it. A read must have been served.
pub fn reply(response: Response) -> Reply {
    match response {
        Response::ReadReady(_) => panic!("a read is served before its answer leaves the member"),
        Response::Put(r) => Reply::Put(r),
        Response::DeleteRange(r) => Reply::DeleteRange(r),
        Response::Txn(r) => Reply::Txn(r),
        Response::Compact(r) => Reply::Compact(r),
        Response::LeaseGrant(r) => Reply::LeaseGrant(r),
        Response::LeaseRevoke(r) => Reply::LeaseRevoke(r),
        Response::LeaseKeepAlive(r) => Reply::LeaseKeepAlive(r),
        Response::LeaseTimeToLive(r) => Reply::LeaseTimeToLive(r),
        Response::LeaseLeases(r) => Reply::LeaseLeases(r),
        Response::Status(r) => Reply::Status(r),
        Response::MemberList(r) => Reply::MemberList(r),
        Response::MemberAdd(r) => Reply::MemberAdd(r),
        Response::MemberRemove(r) => Reply::MemberRemove(r),
        Response::MemberUpdate(r) => Reply::MemberUpdate(r),
        Response::MemberPromote(r) => Reply::MemberPromote(r),
        Response::Alarm(r) => Reply::Alarm(r),
        Response::Defragment(r) => Reply::Defragment(r),
        Response::MoveLeader(r) => Reply::MoveLeader(r),
    }
}

/// Rows that a reader looked at, or nearly so: what its time is charged by.
pub fn rows_read(result: &ReadResult) -> u64 {
    match result {
        ReadResult::Range(rows) => rows.kvs.len() as u64,
        ReadResult::Txn(txn) => txn.responses.len() as u64,
        ReadResult::Hash(hashed) => hashed.rows,
        ReadResult::HashKv(hashed) => hashed.rows,
    }
}

/// What a reader served, rows decoded.
pub fn read_reply(result: ReadResult) -> Reply {
    match result {
        ReadResult::Txn(txn) => Reply::Txn(txn),
        ReadResult::Hash(hashed) => Reply::Hash(hashed.response),
        ReadResult::HashKv(hashed) => Reply::HashKv(hashed.response),
        ReadResult::Range(rows) => Reply::Range(pb::RangeResponse {
            header: Some(rows.header),
            kvs: rows
                .kvs
                .into_iter()
                .map(|row| KeyValue::decode(row).expect("the store's own rows decode"))
                .collect(),
            more: rows.more,
            count: rows.count,
        }),
    }
}

pub fn answer_bytes(answer: &Result<Reply, ApiError>) -> u64 {
    let body = match answer {
        Ok(reply) => with_message!(Reply, reply, message => message.encoded_len()),
        // A status with its text in the trailers.
        Err(_) => 64,
    };
    body as u64 + OVERHEAD_BYTES
}

pub fn encode_answer(answer: &Result<Reply, ApiError>, out: &mut Vec<u8>) {
    match answer {
        Ok(Reply::Put(put)) => {
            out.push(2);
            fold_header(put.header.as_ref(), out);
            fold_row(put.prev_kv.as_ref(), out);
        }
        Ok(reply) => {
            out.push(0);
            with_message!(Reply, reply, message => message.encode(out).expect("a Vec grows"));
        }
        Err(error) => {
            out.push(1);
            out.extend_from_slice(error.to_string().as_bytes());
        }
    }
}

/// Scalars of a Raft message, and of an entry beside its data, once encoded: a round number.
const RAFT_MESSAGE_BYTES: u64 = 32;
const ENTRY_BYTES: u64 = 16;

/// Bytes of a frame on the wire. Raft messages are most of them: theirs are counted, not encoded.
pub fn frame_bytes(frame: &Frame) -> u64 {
    match &frame.body {
        Some(Body::Raft(m)) => {
            let entries = m.entries.iter().map(|e| e.data.len() as u64 + ENTRY_BYTES);
            RAFT_MESSAGE_BYTES + m.context.len() as u64 + entries.sum::<u64>()
        }
        _ => frame.encoded_len() as u64,
    }
}

/// Bytes that tell a frame from every other.
pub fn fold_frame(frame: &Frame, out: &mut Vec<u8>) {
    match &frame.body {
        Some(Body::Raft(m)) => fold_raft_message(m, out),
        Some(Body::Forward(Forward { request_id, request, conf_change })) => {
            // No Raft message begins like this.
            fold_numbers(&[u64::MAX, *request_id, u64::from(*conf_change)], out);
            fold_bytes(request, out);
        }
        _ => frame.encode(out).expect("a Vec grows"),
    }
}

/// At once: a vector's bounds are looked at for every piece that is appended.
fn fold_numbers<const N: usize>(numbers: &[u64; N], out: &mut Vec<u8>) {
    out.extend_from_slice(numbers.map(u64::to_le_bytes).as_flattened());
}

fn fold_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn fold_header(header: Option<&pb::ResponseHeader>, out: &mut Vec<u8>) {
    match header {
        None => out.push(0),
        Some(pb::ResponseHeader { cluster_id, member_id, revision, raft_term }) => {
            out.push(1);
            let numbers = [*cluster_id, *member_id, revision.cast_unsigned(), *raft_term];
            fold_numbers(&numbers, out);
        }
    }
}

fn fold_row(row: Option<&KeyValue>, out: &mut Vec<u8>) {
    match row {
        None => out.push(0),
        Some(KeyValue { key, create_revision, mod_revision, version, value, lease }) => {
            out.push(1);
            let numbers = [*create_revision, *mod_revision, *version, *lease];
            fold_numbers(&numbers.map(i64::cast_unsigned), out);
            fold_bytes(key, out);
            fold_bytes(value, out);
        }
    }
}

/// Bytes that tell a watch message from every other.
pub fn fold_watch(message: &WatchMessage, out: &mut Vec<u8>) {
    let WatchMessage { head, events, bytes: _ } = message;
    let pb::WatchResponse {
        header,
        watch_id,
        created,
        canceled,
        compact_revision,
        cancel_reason,
        fragment,
        events: none,
    } = head;
    debug_assert!(none.is_empty(), "the head has no events");
    fold_header(header.as_ref(), out);
    let flags = u64::from(*created) | u64::from(*canceled) << 1 | u64::from(*fragment) << 2;
    let events = events.as_slice();
    let numbers = [flags, watch_id.cast_unsigned(), compact_revision.cast_unsigned()];
    fold_numbers(&numbers, out);
    fold_bytes(cancel_reason.as_bytes(), out);
    fold_numbers(&[events.len() as u64], out);
    for Event { r#type, kv, prev_kv } in events {
        fold_numbers(&[u64::from(r#type.cast_unsigned())], out);
        fold_row(kv.as_ref(), out);
        fold_row(prev_kv.as_ref(), out);
    }
}

/// Every field, in fixed width: a third of an encoder's work.
fn fold_raft_message(m: &RaftMessage, out: &mut Vec<u8>) {
    let RaftMessage {
        msg_type,
        to,
        from,
        term,
        log_term,
        index,
        entries,
        commit,
        commit_term,
        reject,
        reject_hint,
        context,
        request_snapshot,
        priority,
    } = m;
    let numbers = [
        u64::from(*msg_type) << 1 | u64::from(*reject),
        *to,
        *from,
        *term,
        *log_term,
        *index,
        *commit,
        *commit_term,
        *reject_hint,
        *request_snapshot,
        priority.cast_unsigned(),
        entries.len() as u64,
        context.len() as u64,
    ];
    fold_numbers(&numbers, out);
    out.extend_from_slice(context);
    for entry in entries {
        fold_numbers(&[u64::from(entry.entry_type), entry.term, entry.index], out);
        fold_bytes(&entry.data, out);
    }
}

/// Bytes of a watch message on the wire.
pub fn watch_bytes(message: &WatchMessage) -> u64 {
    let events: usize = message.events.as_slice().iter().map(|e| e.encoded_len() + 4).sum();
    (message.head.encoded_len() + events) as u64 + OVERHEAD_BYTES
}
