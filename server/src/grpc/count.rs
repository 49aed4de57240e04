//! Counting whole messages as they pass, and requests by their client's version.
//!
//! ```text
//! | compressed: u8 | length: u32 BE | message | compressed | …      (gRPC's framing of a body)
//! ```

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::RwLock;
use prometheus::{IntCounter, IntCounterVec};

const PREFIX_BYTES: usize = 5;

/// Where in a body its bytes so far end.
#[derive(Default, Debug)]
struct Position {
    prefix: [u8; PREFIX_BYTES],
    prefix_len: usize,
    /// Bytes of the message that are still to come.
    missing: usize,
}

impl Position {
    /// Goes on over `data`; how many messages ended in it.
    fn advance(&mut self, mut data: &[u8]) -> u64 {
        let mut ended = 0;
        while !data.is_empty() {
            if self.missing == 0 {
                let take = data.len().min(PREFIX_BYTES - self.prefix_len);
                self.prefix[self.prefix_len..][..take].copy_from_slice(&data[..take]);
                self.prefix_len += take;
                data = &data[take..];
                if self.prefix_len < PREFIX_BYTES {
                    break;
                }
                let [_, length @ ..] = self.prefix;
                self.prefix_len = 0;
                self.missing = u32::from_be_bytes(length) as usize;
                ended += u64::from(self.missing == 0);
                continue;
            }
            let take = data.len().min(self.missing);
            self.missing -= take;
            data = &data[take..];
            ended += u64::from(self.missing == 0);
        }
        ended
    }
}

/// A body whose messages are counted as they pass.
#[derive(Debug)]
pub struct Counted<B> {
    body: B,
    position: Position,
    messages: IntCounter,
}

impl<B> Counted<B> {
    pub fn new(body: B, messages: IntCounter) -> Self {
        Self { body, position: Position::default(), messages }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let ended = self.position.advance(data);
            self.messages.inc_by(ended);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A client names its version, and each name is a row on the page: so many, and no longer.
const VERSIONS_MAX: usize = 64;
const VERSION_BYTES_MAX: usize = 32;
/// etcd's word for a client that says none.
const UNKNOWN: &str = "unknown";

/// Requests by the version in their metadata.
#[derive(Debug)]
pub struct ClientRequests {
    requests: IntCounterVec,
    /// Unary requests, streams.
    known: RwLock<BTreeMap<String, [IntCounter; 2]>>,
}

impl ClientRequests {
    pub fn new(requests: IntCounterVec) -> Self {
        Self { requests, known: RwLock::default() }
    }

    pub fn count(&self, headers: &HeaderMap, is_stream: bool) {
        let version = headers.get("client-api-version").map_or(UNKNOWN, name);
        if let Some(counters) = self.known.read().get(version) {
            return counters[usize::from(is_stream)].inc();
        }
        let mut known = self.known.write();
        let version = if known.len() < VERSIONS_MAX { version } else { UNKNOWN };
        let kind = |kind| self.requests.with_label_values(&[kind, version]);
        let counters =
            known.entry(version.to_owned()).or_insert_with(|| [kind("unary"), kind("stream")]);
        counters[usize::from(is_stream)].inc();
    }
}

/// What is no version is unknown too.
fn name(value: &HeaderValue) -> &str {
    let short = value.to_str().ok().filter(|v| !v.is_empty() && v.len() <= VERSION_BYTES_MAX);
    short.unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Opts;

    #[test]
    fn messages_are_counted_however_the_bytes_are_split() {
        let mut body = Vec::new();
        for len in [3_u32, 0, 300] {
            body.push(0);
            body.extend(len.to_be_bytes());
            body.extend(vec![1; len as usize]);
        }
        for piece in [1, 2, 5, 7, body.len()] {
            let mut position = Position::default();
            let ended: u64 = body.chunks(piece).map(|data| position.advance(data)).sum();
            assert_eq!(ended, 3, "in pieces of {piece}");
        }
        let mut cut_off = Position::default();
        assert_eq!(cut_off.advance(&body[..body.len() - 1]), 2);
    }

    #[test]
    fn clients_cannot_make_rows_without_end() {
        let opts = Opts::new("requests", "requests");
        let vec = IntCounterVec::new(opts, &["type", "version"]).expect("valid");
        let requests = ClientRequests::new(vec.clone());
        let count = |version: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("client-api-version", version.parse().expect("a value"));
            requests.count(&headers, true);
        };
        requests.count(&HeaderMap::new(), false);
        count("3.4");
        count(&"9".repeat(33));
        let of = |kind, version| vec.with_label_values(&[kind, version]).get();
        assert_eq!([of("unary", "unknown"), of("stream", "3.4"), of("stream", "unknown")], [1; 3]);
        for n in 0..1_000 {
            count(&n.to_string());
        }
        assert_eq!(requests.known.read().len(), VERSIONS_MAX);
        assert_eq!(of("stream", "unknown"), 1 + 1_000 - (VERSIONS_MAX as u64 - 2));
    }
}
