//! One watch on one connection, every message recorded.

use std::time::Duration;

use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::etcdserverpb::watch_request::RequestUnion;

use super::Client;
use super::timeout::Limit;
use crate::handle::WatchConn;
use crate::history::{Event, WatchId};

/// An open watch. Dropping it closes the connection.
pub(super) struct OpenWatch {
    client: Client,
    connection: WatchConn,
    id: WatchId,
    idle: Limit,
}

/// What comes next on a watch.
pub(super) enum Next {
    Response(Box<pb::WatchResponse>),
    /// Nothing came for the time asked.
    Idle,
    Lost,
}

impl OpenWatch {
    /// Connects to the client's endpoint and asks for the watch. `None` when it cannot be reached.
    pub async fn open(client: &Client, create: &pb::WatchCreateRequest) -> Option<Self> {
        let connection = client.handle().watch(client.id, client.endpoint()).await.ok()?;
        let id = client.next_watch();
        client.handle().record(Event::WatchOpened {
            client: client.id,
            watch: id,
            member: client.endpoint(),
            request: create.clone(),
        });
        let this = Self { client: client.clone(), connection, id, idle: Limit::default() };
        this.send(RequestUnion::CreateRequest(create.clone()));
        Some(this)
    }

    pub async fn next(&mut self, idle: Duration) -> Next {
        let (handle, watch) = (self.client.handle().clone(), self.id);
        match self.idle.within(&handle, idle, self.connection.recv()).await {
            Some(Some(response)) => {
                handle.record(Event::WatchResponse { watch, response: response.clone() });
                Next::Response(Box::new(response))
            }
            Some(None) => {
                handle.record(Event::WatchLost { watch });
                Next::Lost
            }
            None => Next::Idle,
        }
    }

    /// Asks for a progress notice.
    pub fn ask_progress(&self) {
        self.send(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
    }

    fn send(&self, request: RequestUnion) {
        self.connection.send(pb::WatchRequest { request_union: Some(request) });
    }
}
