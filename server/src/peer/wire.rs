//! Bytes between members: a u32 little-endian length, then one encoded message.
//!
//! ```text
//! | length: u32 LE | Hello or Frame: `length` bytes | length | …
//! ```

use bytes::{Buf, BytesMut};
use detkv_core::pb::peer::{Frame, Hello};
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest frame: an append of the largest request that flags allow, and a snapshot chunk, fit many times over.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
const HELLO_BYTES_MAX: usize = 4 << 10;
const PREFIX_BYTES: usize = 4;
/// Free space asked for before each read.
const READ_BYTES: usize = 64 << 10;

/// Why a connection ends; the text goes into the log.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("frame of {0} bytes is over the limit")]
    TooLong(usize),
    #[error("bad frame: {0}")]
    Bad(#[from] prost::DecodeError),
    #[error("closed by the peer")]
    Closed,
}

/// Appends `frame` with its length to `buf`.
pub fn put_frame(frame: &Frame, buf: &mut BytesMut) {
    let len = frame.encoded_len();
    buf.reserve(PREFIX_BYTES + len);
    let prefix = u32::try_from(len).expect("a frame is far below 4 GiB: core bounds it");
    buf.extend_from_slice(&prefix.to_le_bytes());
    frame.encode(buf).expect("a BytesMut grows");
}

pub async fn write_hello<W: AsyncWrite + Unpin>(
    stream: &mut W,
    hello: &Hello,
) -> Result<(), WireError> {
    let body = hello.encode_to_vec();
    let prefix = u32::try_from(body.len()).expect("a Hello is short");
    stream.write_all(&[&prefix.to_le_bytes()[..], &body[..]].concat()).await?;
    Ok(())
}

/// Reads exactly the bytes of one `Hello`, nothing of what follows.
pub async fn read_hello<R: AsyncRead + Unpin>(stream: &mut R) -> Result<Hello, WireError> {
    let len = stream.read_u32_le().await? as usize;
    if len > HELLO_BYTES_MAX {
        return Err(WireError::TooLong(len));
    }
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await?;
    Ok(Hello::decode(&body[..])?)
}

/// Cuts frames out of a byte stream. Memory grows with what has arrived, not with what a prefix claims.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    buf: BytesMut,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, buf: BytesMut::new() }
    }

    /// The next frame and its length in bytes.
    ///
    /// Errors: end of the stream, a length over the limit, bytes that are no frame. All end the connection.
    pub async fn next(&mut self) -> Result<(Frame, usize), WireError> {
        loop {
            if let Some(len) = self.buffered_frame()? {
                self.buf.advance(PREFIX_BYTES);
                let body = self.buf.split_to(len).freeze();
                return Ok((Frame::decode(body)?, len));
            }
            self.buf.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buf).await? == 0 {
                return Err(WireError::Closed);
            }
        }
    }

    /// Length of the first frame if all of it is here.
    fn buffered_frame(&self) -> Result<Option<usize>, WireError> {
        let Some(prefix) = self.buf.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len > FRAME_BYTES_MAX {
            return Err(WireError::TooLong(len));
        }
        Ok((self.buf.len() >= PREFIX_BYTES + len).then_some(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use detkv_core::pb::peer::{Forward, RaftMessage, frame::Body};

    fn frames() -> Vec<Frame> {
        let forward =
            Forward { request_id: 7, request: vec![9; 200_000].into(), ..Forward::default() };
        let raft = RaftMessage { term: 3, ..RaftMessage::default() };
        vec![
            Frame { body: Some(Body::Raft(raft)) },
            Frame { body: Some(Body::Forward(forward)) },
            Frame { body: None },
        ]
    }

    #[tokio::test]
    async fn frames_come_out_as_they_went_in_however_the_bytes_are_split() {
        let mut bytes = BytesMut::new();
        frames().iter().for_each(|frame| put_frame(frame, &mut bytes));
        let (mut near, far) = tokio::io::duplex(1000);
        let writer = tokio::spawn(async move { near.write_all(&bytes).await });
        let mut reader = FrameReader::new(far);
        for expected in frames() {
            assert_eq!(reader.next().await.expect("a whole frame").0, expected);
        }
        assert!(matches!(reader.next().await, Err(WireError::Closed)));
        writer.await.expect("no panic").expect("written");
    }

    #[tokio::test]
    async fn a_bad_length_or_body_ends_the_connection() {
        let mut too_long = FrameReader::new(&[0xff, 0xff, 0xff, 0xff, 1][..]);
        assert!(matches!(too_long.next().await, Err(WireError::TooLong(0xffff_ffff))));
        let mut garbage = FrameReader::new(&[3, 0, 0, 0, 0xff, 0xff, 0xff][..]);
        assert!(matches!(garbage.next().await, Err(WireError::Bad(_))));
        let mut cut_off = FrameReader::new(&[200, 0, 0, 0, 1, 2][..]);
        assert!(matches!(cut_off.next().await, Err(WireError::Closed)));
    }

    #[tokio::test]
    async fn a_hello_takes_its_own_bytes_only() {
        let hello = Hello { version: 1, from: 1, to: 2, ..Hello::default() };
        let mut bytes = Vec::new();
        write_hello(&mut bytes, &hello).await.expect("a Vec takes all");
        bytes.push(42);
        let mut rest = &bytes[..];
        assert_eq!(read_hello(&mut rest).await.expect("a whole Hello"), hello);
        assert_eq!(rest, [42]);
        let mut long = &[0, 0, 1, 0][..];
        assert!(matches!(read_hello(&mut long).await, Err(WireError::TooLong(65536))));
    }
}
