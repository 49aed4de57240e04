//! Makes the `:authority` of HTTP/2 requests harmless before hyper sees it.
//!
//! Go's etcd clients of the 3.4 and 3.5 lines send authorities that are none: `http://10.0.0.1:2379`
//! (3.4, calls to one endpoint), `#initially=[https://…]` (3.5.0 to 3.5.9; etcd issue 13192). Go's server does
//! not look; the `h2` crate resets the stream. Nobody here needs the authority, so its text is replaced
//! by as many `x`. The length must stay: a header table entry's size is part of the state that client
//! and server keep in step (RFC 7541 §4.1).

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hpack;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length (24 bits), type, flags, stream id.
const FRAME_HEADER_BYTES: usize = 9;
const HEADERS: u8 = 0x1;
const FLAG_END_HEADERS: u8 = 0x4;
const FLAG_PADDED: u8 = 0x8;
const FLAG_PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;
/// Largest frame that we announce (the default); a longer one is hyper's to refuse.
const FRAME_BYTES_MAX: usize = 16_384;
const READ_BYTES: usize = 16 << 10;

/// Where in the stream the next byte belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    /// In the connection preface, so many bytes of it seen.
    Preface(usize),
    /// In a frame's payload that is passed as it is, so many bytes to go; 0: at a frame's start.
    Payload(usize),
    /// Not HTTP/2: everything is passed.
    Other,
}

/// A connection whose inbound header blocks are rewritten where needed; all else passes uncopied.
#[derive(Debug)]
pub struct AnyAuthority<S> {
    stream: S,
    at: At,
    /// Inbound bytes from the start of a frame that is not complete or is to be rewritten.
    stash: BytesMut,
    /// Done, to be handed out first.
    ready: BytesMut,
}

impl<S> AnyAuthority<S> {
    pub fn new(stream: S) -> Self {
        let (stash, ready) = (BytesMut::new(), BytesMut::new());
        Self { stream, at: At::Preface(0), stash, ready }
    }

    /// How many of the first bytes may pass; stops before a frame that must wait or be rewritten.
    fn pass(at: &mut At, bytes: &[u8]) -> usize {
        let mut passed = 0;
        while passed < bytes.len() {
            let rest = &bytes[passed..];
            match at {
                At::Other => return bytes.len(),
                At::Preface(seen) => {
                    let expected = &PREFACE[*seen..];
                    let len = expected.len().min(rest.len());
                    if rest[..len] != expected[..len] {
                        *at = At::Other;
                        return bytes.len();
                    }
                    passed += len;
                    *at = if len == expected.len() {
                        At::Payload(0)
                    } else {
                        At::Preface(*seen + len)
                    };
                }
                At::Payload(0) => match frame_len(rest) {
                    Some(len) if !needs_a_look(rest, len) => *at = At::Payload(len),
                    Some(len) if rest.len() >= len && rewrite(&rest[..len]).is_none() => {
                        *at = At::Payload(len);
                    }
                    _ => return passed,
                },
                At::Payload(left) => {
                    let len = (*left).min(rest.len());
                    *left -= len;
                    passed += len;
                }
            }
        }
        passed
    }

    /// Moves what can be decided from the stash to `ready`.
    fn settle(&mut self) {
        while !self.stash.is_empty() {
            let passed = Self::pass(&mut self.at, &self.stash);
            self.ready.extend_from_slice(&self.stash[..passed]);
            self.stash.advance(passed);
            let Some(len) = frame_len(&self.stash).filter(|len| self.stash.len() >= *len) else {
                return;
            };
            let frame = self.stash.split_to(len);
            let rewritten = rewrite(&frame);
            self.ready.extend_from_slice(rewritten.as_deref().unwrap_or(&frame));
        }
    }
}

/// Length of the frame that starts here, its header included; `None` until the header is complete.
fn frame_len(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    let payload = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    Some(FRAME_HEADER_BYTES + payload)
}

/// Whole header blocks only; one that goes on in CONTINUATION frames is none of the clients' in question.
fn needs_a_look(frame: &[u8], len: usize) -> bool {
    frame[3] == HEADERS
        && frame[4] & FLAG_END_HEADERS != 0
        && len <= FRAME_HEADER_BYTES + FRAME_BYTES_MAX
}

/// A whole HEADERS frame with another authority; `None` if it has none in clear, or is malformed.
fn rewrite(frame: &[u8]) -> Option<Vec<u8>> {
    let (header, payload) = frame.split_at_checked(FRAME_HEADER_BYTES)?;
    let flags = header[4];
    let mut start = 0;
    let mut end = payload.len();
    if flags & FLAG_PADDED != 0 {
        start += 1;
        end = end.checked_sub(usize::from(*payload.first()?))?;
    }
    if flags & FLAG_PRIORITY != 0 {
        start += PRIORITY_BYTES;
    }
    let block = payload.get(start..end)?;
    let authority = hpack::find_authority(block)?;
    let mut new = Vec::with_capacity(frame.len() + authority.chars);
    new.extend_from_slice(header);
    new.extend_from_slice(&payload[..start]);
    new.extend_from_slice(&block[..authority.value.start]);
    hpack::put_plain_string(&vec![b'x'; authority.chars], &mut new);
    new.extend_from_slice(&block[authority.value.end..]);
    new.extend_from_slice(&payload[end..]);
    let payload_len = new.len() - FRAME_HEADER_BYTES;
    if payload_len > FRAME_BYTES_MAX {
        return None;
    }
    let len = u32::try_from(payload_len).expect("at most 16,384").to_be_bytes();
    new[..3].copy_from_slice(&len[1..]);
    Some(new)
}

impl<S: AsyncRead + Unpin> AsyncRead for AnyAuthority<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            if !this.ready.is_empty() {
                let len = this.ready.len().min(buf.remaining());
                buf.put_slice(&this.ready[..len]);
                this.ready.advance(len);
                return Poll::Ready(Ok(()));
            }
            if this.stash.is_empty() {
                ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
                let new = &buf.filled()[before..];
                let passed = Self::pass(&mut this.at, new);
                if passed == new.len() {
                    return Poll::Ready(Ok(()));
                }
                this.stash.extend_from_slice(&new[passed..]);
                buf.set_filled(before + passed);
            } else {
                let mut chunk = [0; READ_BYTES];
                let mut chunk = ReadBuf::new(&mut chunk);
                ready!(Pin::new(&mut this.stream).poll_read(cx, &mut chunk))?;
                if chunk.filled().is_empty() {
                    // The end, within a frame: hyper is to see it as it is.
                    this.at = At::Other;
                }
                this.stash.extend_from_slice(chunk.filled());
            }
            this.settle();
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for AnyAuthority<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// GET, https, /, and a literal authority with indexing.
    fn block(authority: &[u8]) -> Vec<u8> {
        let len = u8::try_from(authority.len()).expect("short");
        [&[0x82, 0x87, 0x84, 0x41, len], authority].concat()
    }

    /// A connection with frames of all sorts, and what is to come out of it.
    fn connection() -> (Vec<u8>, Vec<u8>) {
        let bad = b"#initially=[http://h:1]";
        let good = vec![b'x'; bad.len()];
        let padded = |authority: &[u8]| [&[3], &block(authority)[..], &[0, 0, 0]].concat();
        let prioritised = |authority: &[u8]| [&[0; 5], &block(authority)[..]].concat();
        let all = |authority: &[u8]| {
            [
                PREFACE.to_vec(),
                frame(4, 0, &[]),
                frame(HEADERS, FLAG_END_HEADERS, &block(authority)),
                frame(0, 1, &[7; 40_000]),
                frame(HEADERS, FLAG_END_HEADERS, &[0x82, 0x87, 0x84, 0xbe]),
                frame(HEADERS, FLAG_END_HEADERS | FLAG_PADDED, &padded(authority)),
                frame(HEADERS, FLAG_END_HEADERS | FLAG_PRIORITY, &prioritised(authority)),
                frame(6, 0, &[0; 8]),
            ]
            .concat()
        };
        (all(bad), all(&good))
    }

    async fn through(input: Vec<u8>, piece: usize) -> Vec<u8> {
        let (mut near, far) = tokio::io::duplex(piece);
        let writer = tokio::spawn(async move { near.write_all(&input).await });
        let mut output = Vec::new();
        AnyAuthority::new(far).read_to_end(&mut output).await.expect("no error of its own");
        writer.await.expect("no panic").expect("written");
        output
    }

    #[tokio::test]
    async fn authorities_are_replaced_and_all_else_passes_however_the_bytes_arrive() {
        let (input, expected) = connection();
        for piece in [1, 2, 7, 24, 33, 100, 4096, 1 << 20] {
            assert!(through(input.clone(), piece).await == expected, "in pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn other_protocols_and_broken_frames_pass_as_they_are() {
        let http1 = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n".to_vec();
        let almost = b"PRI * HTTP/1.0\r\n\r\n".to_vec();
        let cut_off = [PREFACE, &frame(HEADERS, FLAG_END_HEADERS, &block(b"h:1"))[..14]].concat();
        let all_padding = [PREFACE, &frame(HEADERS, 0xc, &[200, 0x41, 1, b'h'])].concat();
        let no_block = [PREFACE, &frame(HEADERS, FLAG_END_HEADERS | FLAG_PRIORITY, &[1])].concat();
        let bad_string = [PREFACE, &frame(HEADERS, FLAG_END_HEADERS, &[0x41, 0x7f, 0xff])].concat();
        for input in [http1, almost, cut_off, all_padding, no_block, bad_string] {
            for piece in [1, 1 << 20] {
                assert_eq!(through(input.clone(), piece).await, input);
            }
        }
    }
}
