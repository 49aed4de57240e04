//! A reflector: lists in pages, watches on from the list's revision, resumes from what it was shown last
//! (events and bookmarks), and lists again when that is compacted.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use detkv_core::ApiError;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::event::EventType;

use super::{Cache, Kubernetes, OBJECTS};
use crate::client::stream::{Next, OpenWatch};
use crate::client::watcher::{prefix_range, shown_up_to};
use crate::client::{BACK_OFF_MIN, Client, Clients, WatchProgress};
use crate::handle::Reply;
use crate::history::Failure;

/// Silence after which it asks for a bookmark.
const IDLE: Duration = Duration::from_millis(500);
const LIST_TRIES: u32 = 4;

pub(super) fn start(
    options: &Kubernetes,
    clients: &Clients,
    progress: &WatchProgress,
    n: usize,
    cache: Cache,
) {
    let reader = Reader {
        number: progress.join(),
        progress: progress.clone(),
        client: clients.roaming(n, options.timeout),
        page: i64::from(options.page.max(1)),
        cache,
        shown: 0,
    };
    clients.handle().spawn(reader.run());
}

struct Reader {
    number: usize,
    progress: WatchProgress,
    client: Client,
    page: i64,
    cache: Cache,
    /// Everything up to this revision was shown.
    shown: i64,
}

/// Why a watch is over.
enum Ended {
    Lost,
    /// Its revision is compacted: list again.
    Compacted,
}

impl Reader {
    async fn run(mut self) {
        let mut back_off = BACK_OFF_MIN;
        let mut has_listed = false;
        loop {
            if !has_listed {
                match self.list().await {
                    Some((rows, revision)) => {
                        self.cache.replace(rows);
                        self.show(revision);
                        has_listed = true;
                    }
                    None => {
                        self.client.pause(&mut back_off).await;
                        continue;
                    }
                }
            }
            match OpenWatch::open(&self.client, &self.create_request()).await {
                Some(watch) => {
                    let before = self.shown;
                    has_listed = matches!(self.watch(watch).await, Ended::Lost);
                    if self.shown > before {
                        back_off = BACK_OFF_MIN;
                    } else {
                        self.client.rotate();
                    }
                }
                None => self.client.rotate(),
            }
            self.client.pause(&mut back_off).await;
        }
    }

    fn show(&mut self, revision: i64) {
        self.shown = self.shown.max(revision);
        self.progress.advance(self.number, revision);
    }

    fn create_request(&self) -> pb::WatchCreateRequest {
        let (key, range_end) = prefix_range(OBJECTS);
        pb::WatchCreateRequest {
            key,
            range_end,
            start_revision: self.shown + 1,
            prev_kv: true,
            progress_notify: true,
            ..Default::default()
        }
    }

    /// Every object at one revision: the first page is linearizable and names it, the others are read at it.
    ///
    /// `None` when a page could not be had; a compaction may have overtaken the list.
    async fn list(&self) -> Option<(BTreeMap<Bytes, i64>, i64)> {
        let (mut key, range_end) = prefix_range(OBJECTS);
        let (mut rows, mut revision) = (BTreeMap::new(), 0);
        loop {
            let range = pb::RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: self.page,
                revision,
                ..Default::default()
            };
            let page = match self.client.read(Request::Range(range), LIST_TRIES).await {
                Ok(Reply::Range(page)) => page,
                Err(Failure::Api(ApiError::Compacted)) => {
                    return None;
                }
                _ => return None,
            };
            if revision == 0 {
                revision = page.header.as_ref()?.revision;
            }
            let last = page.kvs.last().map(|kv| kv.key.clone());
            rows.extend(page.kvs.into_iter().map(|kv| (kv.key, kv.mod_revision)));
            match last {
                // The next page begins just behind.
                Some(last) if page.more => key = [last.as_ref(), b"\0"].concat().into(),
                _ => return Some((rows, revision)),
            }
        }
    }

    async fn watch(&mut self, mut watch: OpenWatch) -> Ended {
        loop {
            match watch.next(IDLE).await {
                Next::Response(response) if response.canceled => return Ended::Compacted,
                Next::Response(response) => self.take(&response),
                Next::Idle => watch.ask_progress(),
                Next::Lost => return Ended::Lost,
            }
        }
    }

    fn take(&mut self, response: &pb::WatchResponse) {
        for event in &response.events {
            let Some(kv) = &event.kv else { continue };
            if event.r#type == EventType::Delete as i32 {
                self.cache.remove(&kv.key);
            } else {
                self.cache.put(kv.key.clone(), kv.mod_revision);
            }
        }
        if let Some(shown) = shown_up_to(response) {
            self.show(shown);
        }
    }
}
