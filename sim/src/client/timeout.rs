//! Waiting for one thing, but not for ever.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use detkv_core::Instant;

use crate::handle::Handle;

/// A limit that is set anew for each wait of a task, mostly long before it is reached.
///
/// A wake-up that is under way for an earlier wait serves the next ones: it comes too early, and is then set again.
#[derive(Default)]
pub struct Limit {
    wakes: Option<(Instant, Waker)>,
}

impl Limit {
    /// What `future` gives, or `None` when `limit` has passed first. At a tie the future wins.
    pub async fn within<T>(
        &mut self,
        handle: &Handle,
        limit: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let mut future = pin!(future);
        let deadline = handle.now() + limit;
        poll_fn(|context| {
            if let Poll::Ready(value) = future.as_mut().poll(context) {
                return Poll::Ready(Some(value));
            }
            let now = handle.now();
            if now >= deadline {
                return Poll::Ready(None);
            }
            let serves = |(at, waker): &(Instant, Waker)| {
                (now < *at && *at <= deadline) && waker.will_wake(context.waker())
            };
            if !self.wakes.as_ref().is_some_and(serves) {
                handle.wake_at(deadline, context.waker().clone());
                self.wakes = Some((deadline, context.waker().clone()));
            }
            Poll::Pending
        })
        .await
    }
}
