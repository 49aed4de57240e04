//! One HTTP/2 connection to a member, with tonic's generated clients on top of it.
//!
//! The clients sit on hyper's connection directly: tonic's own channel adds a buffer task, a reconnect layer
//! and a user-agent layer to each call, CPU that a bench on a shared machine takes from the servers.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::body::Body;

use crate::pb::etcdserverpb::kv_client::KvClient;
use crate::pb::etcdserverpb::maintenance_client::MaintenanceClient;
use crate::pb::etcdserverpb::watch_client::WatchClient;

/// Flow-control windows: a range answer of 1000 keys must not wait for window updates.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Largest answer: 1000 keys of any sensible size.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A connection; clones share it.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Body>,
    origin: Uri,
}

impl Connection {
    /// Connects to `addr` (`127.0.0.1:port`); its I/O runs as a task of the current runtime.
    pub async fn open(addr: &str) -> Result<Self> {
        tokio::time::timeout(CONNECT_WITHIN, Self::handshake(addr))
            .await
            .with_context(|| format!("{addr} does not answer within {CONNECT_WITHIN:?}"))?
            .with_context(|| format!("cannot connect to {addr}"))
    }

    async fn handshake(addr: &str) -> Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        // It ends with the last clone of `send`; its error reaches whoever waits for an answer.
        tokio::spawn(connection);
        let origin = Uri::builder().scheme("http").authority(addr).path_and_query("/").build()?;
        Ok(Self { send, origin })
    }

    pub fn kv(&self) -> KvClient<Self> {
        KvClient::with_origin(self.clone(), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub fn watch(&self) -> WatchClient<Self> {
        WatchClient::with_origin(self.clone(), self.origin.clone())
    }

    pub fn maintenance(&self) -> MaintenanceClient<Self> {
        MaintenanceClient::with_origin(self.clone(), self.origin.clone())
    }

    /// For calls with message types of our own.
    pub fn grpc(&self) -> tonic::client::Grpc<Self> {
        tonic::client::Grpc::with_origin(self.clone(), self.origin.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

impl tower::Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.send.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.send.send_request(request))
    }
}

/// A range answer whose rows are left encoded: the client counts them and does not build 1000 key-values.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeRows {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub kvs: Vec<Bytes>,
    #[prost(int64, tag = "4")]
    pub count: i64,
}
