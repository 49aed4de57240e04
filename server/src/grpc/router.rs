//! Finds the service of a request by its path, counts, and translates what tonic says differently.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming};
use prometheus::IntCounter;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service as _;

use super::count::{ClientRequests, Counted};
use super::methods::{Method, Methods, Service, unknown};
use super::service::etcd::cluster_server::ClusterServer;
use super::service::etcd::kv_server::KvServer;
use super::service::etcd::lease_server::LeaseServer;
use super::service::etcd::maintenance_server::MaintenanceServer;
use super::service::etcd::watch_server::WatchServer;
use super::service::health::health_server::HealthServer;
use super::status::translate_too_large;
use super::{Api, StreamFailures};
use crate::client::Client;
use crate::metrics::DriverMetrics;

/// gRPC messages may be this much longer than the largest request (etcd's value).
const OVERHEAD_BYTES: usize = 512 << 10;
const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// All services.
#[derive(Debug)]
pub struct Router {
    kv: KvServer<Api>,
    watch: WatchServer<Api>,
    lease: LeaseServer<Api>,
    cluster: ClusterServer<Api>,
    maintenance: MaintenanceServer<Api>,
    health: HealthServer<Api>,
    methods: Methods,
    clients: ClientRequests,
}

/// A service with its limits.
macro_rules! limited {
    ($server:ident, $api:expr, $receive:expr) => {
        $server::from_arc($api.clone())
            .max_decoding_message_size($receive)
            .max_encoding_message_size(SEND_BYTES_MAX)
    };
}

/// A service is a handle on shared state: each request calls a clone of it.
macro_rules! call {
    ($server:expr, $request:expr) => {
        match $server.clone().call($request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    };
}

impl Router {
    pub fn new(client: Arc<Client>, request_bytes_max: usize, metrics: &DriverMetrics) -> Self {
        let (seconds, watch_events) = (metrics.maintenance.clone(), metrics.watch_events.clone());
        let stream_failures = StreamFailures::new(metrics);
        let api = Arc::new(Api { client, seconds, watch_events, stream_failures });
        let receive = request_bytes_max + OVERHEAD_BYTES;
        Self {
            kv: limited!(KvServer, api, receive),
            watch: limited!(WatchServer, api, receive),
            lease: limited!(LeaseServer, api, receive),
            cluster: limited!(ClusterServer, api, receive),
            maintenance: limited!(MaintenanceServer, api, receive),
            health: limited!(HealthServer, api, receive),
            methods: Methods::new(metrics),
            clients: ClientRequests::new(metrics.client_requests.clone()),
        }
    }

    pub async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let Some(method) = self.methods.find(request.uri().path()) else {
            return Status::unimplemented(unknown(request.uri().path())).into_http();
        };
        method.started.inc();
        self.clients.count(request.headers(), method.is_stream);
        let request = request.map(|body| Counted::new(body, method.received.clone()));
        let response = self.dispatch(method.service, request).await;
        // A status in the headers is that of a call that failed before its first message.
        if let Some(status) = Status::from_header_map(response.headers()) {
            let status = translate_too_large(status);
            method.handled(status.code()).inc();
            return status.into_http();
        }
        if method.is_stream {
            return response.map(|body| Body::new(CountedStream::new(body, method)));
        }
        method.sent.inc();
        method.handled(Code::Ok).inc();
        response
    }

    async fn dispatch(
        &self,
        service: Service,
        request: Request<Counted<Incoming>>,
    ) -> Response<Body> {
        match service {
            Service::Kv => call!(self.kv, request),
            Service::Watch => call!(self.watch, request),
            Service::Lease => call!(self.lease, request),
            Service::Cluster => call!(self.cluster, request),
            Service::Maintenance => call!(self.maintenance, request),
            Service::Health => call!(self.health, request),
        }
    }
}

/// The body of a stream. Its messages are counted, and the stream itself as handled when it ends, with the code of its trailers, or as
/// cancelled when it is dropped before.
struct CountedStream {
    body: Counted<Body>,
    /// Counters by code; `None` once counted.
    handled: Option<Vec<IntCounter>>,
}

impl CountedStream {
    fn new(body: Body, method: &Method) -> Self {
        let body = Counted::new(body, method.sent.clone());
        Self { body, handled: Some(method.handled_by_code().to_vec()) }
    }

    fn end(&mut self, code: Code) {
        if let Some(handled) = self.handled.take() {
            handled[code as usize].inc();
        }
    }
}

impl HttpBody for CountedStream {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
            && let Some(status) = Status::from_header_map(trailers)
        {
            self.end(status.code());
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

impl Drop for CountedStream {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}
