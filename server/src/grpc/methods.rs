//! The methods we answer, each with its counters. A closed table: a client cannot make labels.

use prometheus::{IntCounter, IntCounterVec};
use rustc_hash::FxHashMap;
use tonic::Code;

use crate::metrics::DriverMetrics;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    Kv,
    Watch,
    Lease,
    Cluster,
    Maintenance,
    Health,
}

const UNARY: &str = "unary";
const SERVER_STREAM: &str = "server_stream";
const BIDI_STREAM: &str = "bidi_stream";

/// Name and kind of a method.
type Named = (&'static str, &'static str);

const SERVICES: &[(Service, &str, &[Named])] = &[
    (
        Service::Kv,
        "etcdserverpb.KV",
        &[
            ("Range", UNARY),
            ("Put", UNARY),
            ("DeleteRange", UNARY),
            ("Txn", UNARY),
            ("Compact", UNARY),
        ],
    ),
    (Service::Watch, "etcdserverpb.Watch", &[("Watch", BIDI_STREAM)]),
    (
        Service::Lease,
        "etcdserverpb.Lease",
        &[
            ("LeaseGrant", UNARY),
            ("LeaseRevoke", UNARY),
            ("LeaseKeepAlive", BIDI_STREAM),
            ("LeaseTimeToLive", UNARY),
            ("LeaseLeases", UNARY),
        ],
    ),
    (
        Service::Cluster,
        "etcdserverpb.Cluster",
        &[
            ("MemberAdd", UNARY),
            ("MemberRemove", UNARY),
            ("MemberUpdate", UNARY),
            ("MemberList", UNARY),
            ("MemberPromote", UNARY),
        ],
    ),
    (
        Service::Maintenance,
        "etcdserverpb.Maintenance",
        &[
            ("Alarm", UNARY),
            ("Status", UNARY),
            ("Defragment", UNARY),
            ("Hash", UNARY),
            ("HashKV", UNARY),
            ("Snapshot", SERVER_STREAM),
            ("MoveLeader", UNARY),
            ("Downgrade", UNARY),
        ],
    ),
    (Service::Health, "grpc.health.v1.Health", &[("Check", UNARY), ("Watch", SERVER_STREAM)]),
];

/// gRPC's codes are 0 to 16; their names as Go prints them.
const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

#[derive(Debug)]
pub struct Method {
    pub service: Service,
    pub is_stream: bool,
    pub started: IntCounter,
    /// Messages from clients, and to them.
    pub received: IntCounter,
    pub sent: IntCounter,
    /// By code.
    handled: [IntCounter; CODE_NAMES.len()],
}

impl Method {
    pub fn handled(&self, code: Code) -> &IntCounter {
        &self.handled[code as usize]
    }

    pub fn handled_by_code(&self) -> &[IntCounter] {
        &self.handled
    }
}

/// Methods by their path, `/package.Service/Method`.
#[derive(Debug)]
pub struct Methods(FxHashMap<String, Method>);

impl Methods {
    /// Registers every method with every code at 0, as etcd does.
    pub fn new(metrics: &DriverMetrics) -> Self {
        let mut methods = FxHashMap::default();
        for (service, service_name, names) in SERVICES {
            for (name, kind) in *names {
                let counter =
                    |vec: &IntCounterVec| vec.with_label_values(&[name, service_name, kind]);
                let handled = CODE_NAMES.map(|code| {
                    let labels = [code, name, service_name, kind];
                    metrics.grpc_handled.with_label_values(&labels)
                });
                let method = Method {
                    service: *service,
                    is_stream: *kind != UNARY,
                    started: counter(&metrics.grpc_started),
                    received: counter(&metrics.grpc_received),
                    sent: counter(&metrics.grpc_sent),
                    handled,
                };
                methods.insert(format!("/{service_name}/{name}"), method);
            }
        }
        Self(methods)
    }

    pub fn find(&self, path: &str) -> Option<&Method> {
        self.0.get(path)
    }
}

/// Go's words for a path that is not in the table.
pub fn unknown(path: &str) -> String {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    if SERVICES.iter().any(|(_, name, _)| *name == service) {
        format!("unknown method {method} for service {service}")
    } else {
        format!("unknown service {service}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn paths_find_their_method_and_others_are_named() {
        let methods = Methods::new(&DriverMetrics::new("1", "3.6.0", 0, Clock::start()));
        let put = methods.find("/etcdserverpb.KV/Put").expect("in the table");
        assert_eq!((put.service, put.is_stream), (Service::Kv, false));
        assert!(methods.find("/etcdserverpb.Watch/Watch").expect("in the table").is_stream);
        assert!(methods.find("/etcdserverpb.KV/RangeStream").is_none());
        assert_eq!(
            unknown("/etcdserverpb.KV/RangeStream"),
            "unknown method RangeStream for service etcdserverpb.KV"
        );
        assert_eq!(unknown("/a.B/C"), "unknown service a.B");
        put.handled(Code::Unavailable).inc();
        assert_eq!(put.handled(Code::Unavailable).get(), 1);
        assert_eq!(put.handled(Code::Ok).get(), 0);
    }
}
