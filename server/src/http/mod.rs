//! What a client port answers besides gRPC: /health, /livez, /readyz, /version, /metrics (surface spec §13.1).

mod health;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tonic::body::Body;

use crate::client::Client;
use crate::metrics::DriverMetrics;

/// The HTTP endpoints.
#[derive(Debug)]
pub struct Endpoints {
    client: Arc<Client>,
    metrics: DriverMetrics,
    /// `X.Y.Z`.
    version: String,
}

impl Endpoints {
    pub fn new(client: Arc<Client>, metrics: DriverMetrics, version: String) -> Self {
        Self { client, metrics, version }
    }

    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        if !matches!(path.as_str(), "/health" | "/version" | "/metrics")
            && health::find(&path).is_none()
        {
            return text(StatusCode::NOT_FOUND, "404 page not found\n");
        }
        if request.method() != Method::GET {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        match path.as_str() {
            "/health" => self.health(&query).await,
            "/version" => self.version(),
            "/metrics" => {
                let page = self.metrics.render(self.client.metrics(), self.client.open_views());
                answer(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", page)
            }
            checks => self.checks(checks, &query).await,
        }
    }

    fn version(&self) -> Response<Body> {
        // The cluster's version is the lowest minor of its members; every member that exists has ours.
        let mut parts = self.version.split('.');
        let minor = [parts.next().unwrap_or("0"), parts.next().unwrap_or("0"), "0"].join(".");
        let cluster = if self.client.has_leader() { minor.as_str() } else { "not_decided" };
        let body = serde_json::json!({
            "etcdserver": self.version, "etcdcluster": cluster, "storage": minor,
        });
        json(StatusCode::OK, &body)
    }
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    answer(status, "application/json", value.to_string().into_bytes())
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body.as_bytes().to_vec())
}

fn answer(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Values of a query parameter, in order. What we look for needs no percent-decoding.
fn values<'a>(query: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let name = name.to_owned();
    query.split('&').filter_map(move |pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_parameters_may_repeat_and_need_no_value() {
        let query = "exclude=NOSPACE&verbose&exclude=CORRUPT";
        assert_eq!(values(query, "exclude").collect::<Vec<_>>(), ["NOSPACE", "CORRUPT"]);
        assert_eq!(values(query, "verbose").collect::<Vec<_>>(), [""]);
        assert_eq!(values("", "exclude").count(), 0);
    }
}
