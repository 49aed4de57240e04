//! The client port: HTTP/1 and HTTP/2 on one listener, gRPC by content type, the rest to the endpoints.

mod authority;
mod hpack;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tonic::body::Body;

use self::authority::AnyAuthority;
use crate::grpc::Router;
use crate::http::Endpoints;
use crate::logs;
use crate::workers::Workers;

const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// etcd's values: a ping to a silent client, and how long its answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(2 * 3600);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// Streams that a client opened and reset before we took them; past it the connection is closed.
const RESET_STREAMS_MAX: usize = 1024;
/// Pause after an `accept` that failed (as a rule: no file descriptor left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Everything the client port answers.
#[derive(Debug)]
pub struct Site {
    pub grpc: Router,
    pub http: Endpoints,
}

impl Site {
    async fn handle(&self, request: Request<Incoming>) -> Response<Body> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        if content_type.is_some_and(is_grpc) {
            self.grpc.handle(request).await
        } else {
            self.http.handle(request).await
        }
    }
}

fn is_grpc(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(b"application/grpc")
}

/// Told to every connection when the process stops.
#[derive(Clone, Debug)]
pub struct Connections {
    pub stop: watch::Receiver<bool>,
    /// Held by each connection: all are gone when the receiver says that no sender is left.
    pub alive: mpsc::Sender<Infallible>,
}

/// Accepts clients until told to stop; connections then finish what they have.
pub async fn serve_clients(
    listener: TcpListener,
    site: Arc<Site>,
    connections: Connections,
    workers: Arc<Workers>,
) {
    let mut stop = connections.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = told_to(&mut stop) => return,
        };
        // The socket goes to the runtime that will wait for it.
        let accepted = accepted.and_then(|(stream, from)| Ok((stream.into_std()?, from)));
        match accepted {
            Ok((stream, from)) => {
                let connection = serve_connection(stream, from, site.clone(), connections.clone());
                workers.pick().spawn(connection);
            }
            Err(error) => {
                logs::warn("accept failed on client endpoint", &[("error", error.to_string())]);
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn serve_connection(
    stream: std::net::TcpStream,
    from: SocketAddr,
    site: Arc<Site>,
    connections: Connections,
) {
    let Connections { mut stop, alive: _alive } = connections;
    let rejected = |error: String| {
        let fields = [("remote-addr", from.to_string()), ("error", error)];
        logs::debug("rejected connection on client endpoint", &fields);
    };
    let stream = stream.set_nodelay(true).and_then(|()| TcpStream::from_std(stream));
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => return rejected(error.to_string()),
    };
    let service = service_fn(|request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.handle(request).await) }
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(u32::MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(AnyAuthority::new(stream)), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        rejected(error.to_string());
    }
}

/// Comes back when the process stops.
async fn told_to(stop: &mut watch::Receiver<bool>) {
    // An error means that the other end is gone, which is a stop too.
    let _ = stop.wait_for(|stop| *stop).await;
}
