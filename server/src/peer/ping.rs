//! Round trips to a peer: one small frame there and one back, answered by its driver.
//!
//! On the connection for messages, behind what is queued there: what a heartbeat meets too.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use detkv_core::pb::peer::{Frame, Ping, frame::Body};
use parking_lot::Mutex;
use prometheus::Histogram;

use super::{Outgoing, Sent};

/// Between two pings (etcd's value).
const INTERVAL: Duration = Duration::from_secs(4);

/// Pings on one connection, one at a time.
#[derive(Debug)]
pub struct Pings {
    seconds: Histogram,
    /// Id and time of the one that is not answered yet.
    under_way: Mutex<Option<(u64, Instant)>>,
}

fn frame(body: Body) -> Frame {
    Frame { body: Some(body) }
}

impl Pings {
    pub fn new(seconds: Histogram) -> Self {
        Self { seconds, under_way: Mutex::default() }
    }

    /// Sends them until the connection ends, the first at once.
    pub async fn send(&self, outgoing: &Outgoing) -> Infallible {
        for id in 1.. {
            while self.under_way.lock().is_some() {
                tokio::time::sleep(INTERVAL).await;
            }
            *self.under_way.lock() = Some((id, Instant::now()));
            if outgoing.send(frame(Body::Ping(Ping { id }))) != Sent::Queued {
                *self.under_way.lock() = None;
            }
            tokio::time::sleep(INTERVAL).await;
        }
        unreachable!("2^64 pings take longer than any connection lasts")
    }

    /// Takes what belongs to pings; gives other frames back.
    pub fn take(&self, frame_in: Frame, outgoing: &Outgoing) -> Option<Frame> {
        match frame_in.body {
            Some(Body::Ping(ping)) => {
                // Without an answer the peer measures nothing, which is true as well.
                let _ = outgoing.send(frame(Body::Pong(ping)));
                None
            }
            Some(Body::Pong(pong)) => {
                let answered = self.under_way.lock().take_if(|(id, _)| *id == pong.id);
                if let Some((_, sent)) = answered {
                    self.seconds.observe(sent.elapsed().as_secs_f64());
                }
                None
            }
            _ => Some(frame_in),
        }
    }
}
