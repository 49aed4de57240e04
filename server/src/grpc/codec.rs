//! Messages to and from HTTP/2 frames. Answers that core holds encoded already are written as they are.

use std::marker::PhantomData;
use std::sync::atomic::Ordering::Relaxed;

use bytes::{Buf, BufMut};
use detkv_core::api::{RangeRows, WatchEvents, WatchMessage};
use prost::Message;
use prost::encoding::{self, WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::metrics::CLIENT_TRAFFIC;

/// Something that knows its bytes on the wire.
pub trait WireEncode {
    fn wire_len(&self) -> usize;
    /// Invariant: appends exactly `wire_len` bytes.
    fn encode_wire(&self, buf: &mut impl BufMut);
}

impl<M: Message> WireEncode for M {
    fn wire_len(&self) -> usize {
        self.encoded_len()
    }

    fn encode_wire(&self, buf: &mut impl BufMut) {
        self.encode_raw(buf);
    }
}

/// A `RangeResponse` whose rows stay encoded.
#[derive(Debug)]
pub struct RangeReply(pub RangeRows);

const RANGE_HEADER: u32 = 1;
const RANGE_KVS: u32 = 2;
const RANGE_MORE: u32 = 3;
const RANGE_COUNT: u32 = 4;

impl WireEncode for RangeReply {
    fn wire_len(&self) -> usize {
        let RangeRows { header, kvs, more, count } = &self.0;
        let row =
            |kv: &bytes::Bytes| key_len(RANGE_KVS) + encoded_len_varint(kv.len() as u64) + kv.len();
        let mut len = encoding::message::encoded_len(RANGE_HEADER, header);
        len += kvs.iter().map(row).sum::<usize>();
        if *more {
            len += encoding::bool::encoded_len(RANGE_MORE, more);
        }
        if *count != 0 {
            len += encoding::int64::encoded_len(RANGE_COUNT, count);
        }
        len
    }

    fn encode_wire(&self, buf: &mut impl BufMut) {
        let RangeRows { header, kvs, more, count } = &self.0;
        encoding::message::encode(RANGE_HEADER, header, buf);
        for kv in kvs {
            encode_key(RANGE_KVS, WireType::LengthDelimited, buf);
            encode_varint(kv.len() as u64, buf);
            buf.put_slice(kv);
        }
        if *more {
            encoding::bool::encode(RANGE_MORE, more, buf);
        }
        if *count != 0 {
            encoding::int64::encode(RANGE_COUNT, count, buf);
        }
    }
}

/// A `WatchResponse` whose events may be shared with other watchers, encoded once.
#[derive(Debug)]
pub struct WatchReply(pub WatchMessage);

const WATCH_EVENTS: u32 = 11;

impl WireEncode for WatchReply {
    fn wire_len(&self) -> usize {
        let events = match &self.0.events {
            WatchEvents::None => 0,
            WatchEvents::Shared(events) => events.encoded().len(),
            WatchEvents::Own(events) => {
                encoding::message::encoded_len_repeated(WATCH_EVENTS, events)
            }
        };
        self.0.head.encoded_len() + events
    }

    fn encode_wire(&self, buf: &mut impl BufMut) {
        // Every field of the head has a number below that of the events.
        self.0.head.encode_raw(buf);
        match &self.0.events {
            WatchEvents::None => {}
            WatchEvents::Shared(events) => buf.put_slice(events.encoded()),
            WatchEvents::Own(events) => {
                encoding::message::encode_repeated(WATCH_EVENTS, events, buf);
            }
        }
    }
}

/// tonic's codec over `WireEncode` and prost.
#[derive(Debug)]
pub struct WireCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for WireCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for WireCodec<T, U>
where
    T: WireEncode + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = WireEncoder<T>;
    type Decoder = WireDecoder<U>;

    fn encoder(&mut self) -> WireEncoder<T> {
        WireEncoder(PhantomData)
    }

    fn decoder(&mut self) -> WireDecoder<U> {
        WireDecoder(PhantomData)
    }
}

#[derive(Debug)]
pub struct WireEncoder<T>(PhantomData<T>);

impl<T: WireEncode> Encoder for WireEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let len = item.wire_len();
        // One allocation, however large the answer.
        buf.reserve(len);
        item.encode_wire(buf);
        CLIENT_TRAFFIC.sent_bytes.fetch_add(len as u64, Relaxed);
        Ok(())
    }
}

#[derive(Debug)]
pub struct WireDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for WireDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        CLIENT_TRAFFIC.received_bytes.fetch_add(buf.remaining() as u64, Relaxed);
        let bad = |e| Status::internal(format!("grpc: error unmarshalling request: {e}"));
        U::decode(buf).map(Some).map_err(bad)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detkv_core::api::RevisionEvents;
    use detkv_core::pb::etcdserverpb::{RangeResponse, ResponseHeader, WatchResponse};
    use detkv_core::pb::mvccpb::{Event, KeyValue};
    use std::sync::Arc;

    fn header() -> ResponseHeader {
        ResponseHeader { cluster_id: 1, member_id: u64::MAX, revision: 300, raft_term: 2 }
    }

    fn kv(n: u8) -> KeyValue {
        KeyValue {
            key: vec![n; 3].into(),
            value: vec![n; 200].into(),
            mod_revision: 5,
            ..KeyValue::default()
        }
    }

    fn bytes_of(item: &impl WireEncode) -> Vec<u8> {
        let mut buf = Vec::new();
        item.encode_wire(&mut buf);
        assert_eq!(buf.len(), item.wire_len());
        buf
    }

    #[test]
    fn a_range_reply_is_the_response_message() {
        for (rows, more, count) in [(0, false, 0), (3, true, 77), (1, false, 1)] {
            let kvs: Vec<KeyValue> = (0..rows).map(kv).collect();
            let encoded = kvs.iter().map(|kv| kv.encode_to_vec().into()).collect();
            let reply = RangeReply(RangeRows { header: header(), kvs: encoded, more, count });
            let message = RangeResponse { header: Some(header()), kvs, more, count };
            assert_eq!(bytes_of(&reply), message.encode_to_vec());
        }
    }

    #[test]
    fn a_watch_reply_is_the_response_message_however_its_events_are_held() {
        let events: Vec<Event> =
            (1..4).map(|n| Event { kv: Some(kv(n)), ..Event::default() }).collect();
        let head = WatchResponse { header: Some(header()), watch_id: -1, ..Default::default() };
        let shared = Arc::new(RevisionEvents::new(5, events.clone()));
        for events in [WatchEvents::None, WatchEvents::Own(events), WatchEvents::Shared(shared)] {
            let message = WatchMessage { head: head.clone(), events, bytes: 0 };
            let expected = message.to_response().encode_to_vec();
            assert_eq!(bytes_of(&WatchReply(message)), expected);
        }
    }
}
