//! One connection to one peer, over and over: connect (or be connected to), hand frames both ways, lose it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use detkv_core::pb::peer::{Frame, Hello, LaneKind};
use detkv_core::{Input, Peer};
use prost::Message;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};

use super::ping::Pings;
use super::wire::{self, FrameReader, WireError};
use super::{Greeted, Outgoing, QUEUE_FRAMES, Queue, Shared};
use crate::inbox::Event;
use crate::logs;

/// Pauses between attempts to dial: doubled from the first to the last.
const BACK_OFF_MIN: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(500);
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Both `Hello`s.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection whose data is not acknowledged for so long is dead.
const HALF_OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that should have dialed us by now is asked why it has not.
const PROBE_AFTER: Duration = Duration::from_secs(3);
/// Bytes of frames from one connection that may wait in the inbox; its reader stops at the bound.
const CREDIT_BYTES: usize = 16 << 20;
/// Frames encoded into one write.
const WRITE_BATCH_FRAMES: usize = 256;
const WRITE_BATCH_BYTES: usize = 1 << 20;

/// Settings of every peer socket: no delay, and a dead peer is noticed.
pub fn configure(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(HALF_OPEN_TIMEOUT)
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(HALF_OPEN_TIMEOUT))
}

pub struct Link {
    shared: Arc<Shared>,
    peer: Peer,
    lane: LaneKind,
    outgoing: Arc<Outgoing>,
    credit: Arc<Semaphore>,
}

impl Link {
    pub fn new(shared: Arc<Shared>, peer: Peer, lane: LaneKind, outgoing: Arc<Outgoing>) -> Self {
        let credit = Arc::new(Semaphore::new(CREDIT_BYTES));
        Self { shared, peer, lane, outgoing, credit }
    }

    /// Runs until the task is aborted. `accepted` brings connections that the peer dialed.
    pub async fn run(self, mut accepted: mpsc::Receiver<Greeted>) {
        let dials = self.shared.identity.member < self.peer.id;
        let mut next = None;
        loop {
            let greeted = match next.take() {
                Some(greeted) => greeted,
                None if dials => self.dial().await,
                None => match tokio::time::timeout(PROBE_AFTER, accepted.recv()).await {
                    Ok(Some(greeted)) => greeted,
                    Ok(None) => return,
                    Err(_) => {
                        self.probe().await;
                        continue;
                    }
                },
            };
            // A newer connection from the peer replaces this one: the peer knows that the old one is dead.
            let (up, since) = (self.up(&greeted), Instant::now());
            let lost = tokio::select! {
                error = self.exchange(greeted, up) => error,
                newer = accepted.recv() => {
                    next = newer;
                    WireError::Closed
                }
            };
            self.down(&lost);
            if dials && next.is_none() && since.elapsed() < BACK_OFF_MAX {
                // A peer that is about to end takes a connection and drops it, again and again.
                tokio::time::sleep(BACK_OFF_MIN).await;
            }
        }
    }

    /// Makes the queue of a new connection and tells the member.
    fn up(&self, greeted: &Greeted) -> (mpsc::Receiver<Frame>, Arc<AtomicUsize>) {
        if self.lane == LaneKind::Messages {
            let (peer, version) = (self.peer.id, greeted.version.clone());
            self.push(Input::PeerVersion { peer, wire: greeted.wire, version });
        }
        let (frames, receiver) = mpsc::channel(QUEUE_FRAMES);
        let bytes = Arc::new(AtomicUsize::new(0));
        *self.outgoing.connection.lock() = Some(Queue { frames, bytes: bytes.clone() });
        self.tell(true);
        let message = "established TCP streaming connection with remote peer";
        logs::info(message, &self.fields());
        (receiver, bytes)
    }

    fn down(&self, why: &WireError) {
        *self.outgoing.connection.lock() = None;
        self.tell(false);
        let mut fields = self.fields();
        fields.push(("error", why.to_string()));
        logs::warn("lost TCP streaming connection with remote peer", &fields);
    }

    fn tell(&self, up: bool) {
        if self.lane != LaneKind::Messages {
            return;
        }
        let local = self.shared.identity.member.to_string();
        let remote = self.peer.id.to_string();
        let gauge = self.shared.metrics.active_peers.with_label_values(&[&local, &remote]);
        gauge.set(i64::from(up));
        if !up {
            self.shared.metrics.disconnected_peers.with_label_values(&[&local, &remote]).inc();
        }
        let peer = self.peer.id;
        let input = if up { Input::PeerUp { peer } } else { Input::PeerDown { peer } };
        self.push(input);
    }

    fn push(&self, input: Input) {
        // A closed inbox means that the process is ending, and this task with it.
        let _ = self.shared.inbox.push(Event::Input(input));
    }

    /// The peer should have dialed us long ago: it may have dropped us because we were removed.
    async fn probe(&self) {
        if self.lane != LaneKind::Messages {
            return;
        }
        for url in &self.peer.urls {
            let attempt = self.dial_once(url, true);
            // What comes of it is told by `dial_once`; anything else is as before.
            let _ = tokio::time::timeout(DIAL_TIMEOUT + HANDSHAKE_TIMEOUT, attempt).await;
        }
    }

    fn fields(&self) -> Vec<logs::Field<'static>> {
        let lane = match self.lane {
            LaneKind::Messages => "messages",
            LaneKind::Snapshot => "snapshot",
        };
        vec![("remote-peer-id", self.peer.id.to_string()), ("stream", lane.to_owned())]
    }

    /// Dials until it works. Logs the first failure of a row and then only another reason.
    async fn dial(&self) -> Greeted {
        let mut pause = BACK_OFF_MIN;
        let mut last_error = String::new();
        loop {
            for url in &self.peer.urls {
                let attempt = self.dial_once(url, false);
                match tokio::time::timeout(DIAL_TIMEOUT + HANDSHAKE_TIMEOUT, attempt).await {
                    Ok(Ok(stream)) => return stream,
                    Ok(Err(error)) => self.log_dial_error(url, error, &mut last_error),
                    Err(_) => {
                        self.log_dial_error(url, "timed out".to_owned(), &mut last_error);
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(BACK_OFF_MAX);
        }
    }

    fn log_dial_error(&self, url: &str, error: String, last: &mut String) {
        let id = self.peer.id.to_string();
        self.shared.metrics.peer_sent_failures.with_label_values(&[&id]).inc();
        if error != *last {
            let mut fields = self.fields();
            fields.extend([("remote-url", url.to_owned()), ("error", error.clone())]);
            logs::warn("failed to dial remote peer", &fields);
            *last = error;
        }
    }

    /// `probe`: only asks whether the peer would talk to us.
    async fn dial_once(&self, url: &str, probe: bool) -> Result<Greeted, String> {
        let address = crate::url::Url::parse(url).map_err(|e| e.to_string())?.address();
        let mut stream = tokio::time::timeout(DIAL_TIMEOUT, TcpStream::connect(&address))
            .await
            .map_err(|_| format!("dial {address}: timed out"))?
            .map_err(|e| format!("dial {address}: {e}"))?;
        configure(&stream).map_err(|e| format!("dial {address}: {e}"))?;
        let (us, them) = (self.shared.identity, self.peer.id);
        let hello = Hello { probe, ..self.shared.hello(them.0, self.lane.into()) };
        let handshake = async {
            wire::write_hello(&mut stream, &hello).await?;
            wire::read_hello(&mut stream).await
        };
        let answer = handshake.await.map_err(|e| format!("handshake with {address}: {e}"))?;
        if answer.removed && answer.cluster_id == us.cluster_id && answer.from == them.0 {
            self.push(Input::RefusedAsRemoved { peer: them });
        }
        if !answer.refused.is_empty() {
            return Err(format!("refused by {address}: {}", answer.refused));
        }
        if answer.cluster_id != us.cluster_id || answer.from != them.0 {
            let (cluster, member) = (answer.cluster_id, answer.from);
            return Err(format!("{address} is member {member:x} of cluster {cluster:x}"));
        }
        let wire = answer.version.min(self.shared.wire_version);
        let (version, answers_pings) = (answer.server_version, answer.answers_pings);
        Ok(Greeted { stream, wire, version, answers_pings })
    }

    /// Moves frames both ways until either direction fails; says why.
    async fn exchange(
        &self,
        greeted: Greeted,
        (queue, queued_bytes): (mpsc::Receiver<Frame>, Arc<AtomicUsize>),
    ) -> WireError {
        let (reader, writer) = greeted.stream.into_split();
        let seconds = &self.shared.metrics.peer_round_trip_seconds;
        let pings = Pings::new(seconds.with_label_values(&[&self.peer.id.to_string()]));
        let measures = greeted.answers_pings && self.lane == LaneKind::Messages;
        let result = tokio::select! {
            never = pings.send(&self.outgoing), if measures => match never {},
            result = self.read_frames(FrameReader::new(reader), &pings) => result,
            result = self.write_frames(writer, queue, &queued_bytes) => result,
        };
        result.err().unwrap_or(WireError::Closed)
    }

    /// Frames of the peer go to the member, under this connection's credit.
    async fn read_frames<R: tokio::io::AsyncRead + Unpin>(
        &self,
        mut reader: FrameReader<R>,
        pings: &Pings,
    ) -> Result<(), WireError> {
        let from = self.peer.id;
        let label = from.to_string();
        let received = self.shared.metrics.peer_received_bytes.with_label_values(&[&label]);
        loop {
            let (frame, len) = reader.next().await.inspect_err(|error| {
                // The end of a connection is no failure of what came on it.
                if !matches!(error, WireError::Closed) {
                    let failures = &self.shared.metrics.peer_received_failures;
                    failures.with_label_values(&[&label]).inc();
                }
            })?;
            received.inc_by(len as u64);
            let Some(frame) = pings.take(frame, &self.outgoing) else { continue };
            let share = u32::try_from(len.clamp(1, CREDIT_BYTES)).expect("CREDIT_BYTES fits u32");
            let Ok(credit) = self.credit.clone().acquire_many_owned(share).await else {
                return Ok(());
            };
            if self.shared.inbox.push(Event::Peer { from, frame, credit }).is_err() {
                return Ok(());
            }
        }
    }

    /// Writes what is in the queue, as many frames at once as are there.
    async fn write_frames<W: AsyncWrite + Unpin>(
        &self,
        mut writer: W,
        mut queue: mpsc::Receiver<Frame>,
        queued_bytes: &AtomicUsize,
    ) -> Result<(), WireError> {
        let label = self.peer.id.to_string();
        let sent = self.shared.metrics.peer_sent_bytes.with_label_values(&[&label]);
        let mut buf = BytesMut::new();
        while let Some(first) = queue.recv().await {
            let mut frame = Some(first);
            let mut frames = 0;
            while let Some(one) = frame {
                wire::put_frame(&one, &mut buf);
                queued_bytes.fetch_sub(one.encoded_len(), Relaxed);
                frames += 1;
                let more = frames < WRITE_BATCH_FRAMES && buf.len() < WRITE_BATCH_BYTES;
                frame = if more { queue.try_recv().ok() } else { None };
            }
            writer.write_all(&buf).await?;
            sent.inc_by(buf.len() as u64);
            buf.clear();
        }
        Ok(())
    }
}
