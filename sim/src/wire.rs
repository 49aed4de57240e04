//! Sizes and bytes of what crosses a link, without moving it through an encoder.
//!
//! Messages travel as values; their encoded length is what the bandwidth sees, their encoding what
//! the event hash sees.

use detkv_core::ApiError;
use detkv_core::api::{Request, Response, WatchMessage};
use detkv_core::mvcc::ReadResult;
use prost::Message;

use crate::history::Reply;

/// Headers of TCP, TLS and HTTP/2 or of our own framing, per message.
pub const OVERHEAD_BYTES: u64 = 64;

macro_rules! for_each {
    ($value:expr, $enum:ident, [$($variant:ident),*], $message:ident => $body:expr $(, $other:pat => $else:expr)?) => {
        match $value {
            $($enum::$variant($message) => $body,)*
            $($other => $else,)?
        }
    };
}

macro_rules! request {
    ($value:expr, $message:ident => $body:expr) => {
        for_each!($value, Request, [Range, Put, DeleteRange, Txn, Compact, LeaseGrant, LeaseRevoke,
            LeaseKeepAlive, LeaseTimeToLive, LeaseLeases, Status, MemberList, Alarm, HashKv, MoveLeader],
            $message => $body)
    };
}

macro_rules! response {
    ($value:expr, $message:ident => $body:expr) => {
        for_each!($value, Response, [Put, DeleteRange, Txn, Compact, LeaseGrant, LeaseRevoke,
            LeaseKeepAlive, LeaseTimeToLive, LeaseLeases, Status, MemberList, Alarm, HashKv, MoveLeader],
            $message => $body,
            Response::ReadReady(_) => panic!("a read is served before its answer leaves the member"))
    };
}

pub fn request_bytes(request: &Request) -> u64 {
    request!(request, message => message.encoded_len()) as u64 + OVERHEAD_BYTES
}

pub fn encode_request(request: &Request, out: &mut Vec<u8>) {
    out.push(tag(request));
    request!(request, message => message.encode(out).expect("a Vec grows"));
}

/// The protobuf of a request in hex, for the decision trace.
pub fn request_hex(request: &Request) -> String {
    let bytes = request!(request, message => message.encode_to_vec());
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
        Request::Alarm(_) => "Alarm",
        Request::HashKv(_) => "HashKV",
        Request::MoveLeader(_) => "MoveLeader",
    }
}

fn tag(request: &Request) -> u8 {
    // The name's first and last letter and length tell all of them apart.
    let name = request_name(request).as_bytes();
    name[0] ^ name[name.len() - 1].rotate_left(3) ^ (name.len() as u8).rotate_left(5)
}

pub fn answer_bytes(answer: &Result<Reply, ApiError>) -> u64 {
    let body = match answer {
        Ok(Reply::Read(ReadResult::Range(rows))) => {
            rows.kvs.iter().map(|kv| kv.len() + 4).sum::<usize>() + 32
        }
        Ok(Reply::Read(ReadResult::Txn(txn))) => txn.encoded_len(),
        Ok(Reply::Response(response)) => response!(response, message => message.encoded_len()),
        Err(_) => 64,
    };
    body as u64 + OVERHEAD_BYTES
}

pub fn encode_answer(answer: &Result<Reply, ApiError>, out: &mut Vec<u8>) {
    match answer {
        Ok(Reply::Read(ReadResult::Range(rows))) => {
            out.push(0);
            rows.header.encode_length_delimited(out).expect("a Vec grows");
            out.extend_from_slice(&rows.count.to_le_bytes());
            out.push(rows.more.into());
            for kv in &rows.kvs {
                out.extend_from_slice(&(kv.len() as u64).to_le_bytes());
                out.extend_from_slice(kv);
            }
        }
        Ok(Reply::Read(ReadResult::Txn(txn))) => {
            out.push(1);
            txn.encode(out).expect("a Vec grows");
        }
        Ok(Reply::Response(response)) => {
            out.push(2);
            response!(response, message => message.encode(out).expect("a Vec grows"));
        }
        Err(error) => {
            out.push(3);
            out.extend_from_slice(error.to_string().as_bytes());
        }
    }
}

/// Bytes of a watch message on the wire.
pub fn watch_bytes(message: &WatchMessage) -> u64 {
    let events: usize = message.events.as_slice().iter().map(|e| e.encoded_len() + 4).sum();
    (message.head.encoded_len() + events) as u64 + OVERHEAD_BYTES
}
