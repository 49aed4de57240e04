//! /health, /livez and /readyz.

use detkv_core::ApiError;
use detkv_core::api::{Request as Ask, Response as Answered};
use detkv_core::pb::etcdserverpb as pb;
use http::{Response, StatusCode};
use tonic::body::Body;

use super::{Endpoints, json, text, values};
use crate::logs;

/// One check of /livez or /readyz.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Check {
    SerializableRead,
    DataCorruption,
    LinearizableRead,
    NonLearner,
}

const LIVEZ: &[Check] = &[Check::SerializableRead];
const READYZ: &[Check] =
    &[Check::DataCorruption, Check::SerializableRead, Check::LinearizableRead, Check::NonLearner];

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::SerializableRead => "serializable_read",
            Check::DataCorruption => "data_corruption",
            Check::LinearizableRead => "linearizable_read",
            Check::NonLearner => "non_learner",
        }
    }
}

/// The checks behind a path such as `/readyz` or `/readyz/non_learner`.
pub fn find(path: &str) -> Option<Vec<Check>> {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let all = match parts.next()? {
        "livez" => LIVEZ,
        "readyz" => READYZ,
        _ => return None,
    };
    match parts.next() {
        None => Some(all.to_vec()),
        Some(one) => all.iter().find(|check| check.name() == one).map(|check| vec![*check]),
    }
}

impl Endpoints {
    /// Alarms, then the leader, then a read; the first that fails is the reason.
    pub(super) async fn health(&self, query: &str) -> Response<Body> {
        let excluded: Vec<&str> = values(query, "exclude").collect();
        let serializable = values(query, "serializable").any(|value| value == "true");
        let (status, reason) = match self.first_ill(&excluded, serializable).await {
            None => {
                self.metrics.health_success.inc();
                (StatusCode::OK, String::new())
            }
            Some(reason) => {
                self.metrics.health_failures.inc();
                logs::warn("serving /health false", &[("reason", reason.clone())]);
                (StatusCode::SERVICE_UNAVAILABLE, reason)
            }
        };
        let health = if status == StatusCode::OK { "true" } else { "false" };
        json(status, &serde_json::json!({ "health": health, "reason": reason }))
    }

    async fn first_ill(&self, excluded: &[&str], serializable: bool) -> Option<String> {
        for alarm in self.alarms().await {
            if !excluded.contains(&alarm) {
                return Some(format!("ALARM {alarm}"));
            }
        }
        if !serializable && !self.client.has_leader() {
            return Some("RAFT NO LEADER".to_owned());
        }
        self.read(serializable).await.err().map(|e| format!("RANGE ERROR:{e}"))
    }

    /// Names of the active alarms. A local look that works without a quorum.
    async fn alarms(&self) -> Vec<&'static str> {
        let answer = self.client.call(Ask::Status(pb::StatusRequest {})).await;
        let Ok(Answered::Status(status)) = answer else { return Vec::new() };
        let alarms = status.errors.iter().filter_map(|text| text.split("alarm:").nth(1));
        alarms
            .map(|alarm| match alarm.trim() {
                "NOSPACE" => "NOSPACE",
                "CORRUPT" => "CORRUPT",
                _ => "UNKNOWN",
            })
            .collect()
    }

    /// A range of one key; core bounds its time.
    async fn read(&self, serializable: bool) -> Result<(), ApiError> {
        let range = pb::RangeRequest {
            key: "health".into(),
            serializable,
            count_only: true,
            ..Default::default()
        };
        self.client.call_and_read(Ask::Range(range)).await.map(drop)
    }

    pub(super) async fn checks(&self, path: &str, query: &str) -> Response<Body> {
        let checks = find(path).unwrap_or_default();
        let (mut report, mut failed) = (String::new(), false);
        for check in checks {
            if values(query, "exclude").any(|name| name == check.name()) {
                continue;
            }
            let result = self.check(check).await;
            self.count_check(path, check, result.is_ok());
            match result {
                Ok(()) => report.push_str(&format!("[+]{} ok\n", check.name())),
                Err(reason) => {
                    failed = true;
                    report.push_str(&format!("[-]{} failed: {reason}\n", check.name()));
                }
            }
        }
        if failed {
            return text(StatusCode::SERVICE_UNAVAILABLE, &report);
        }
        let verbose = values(query, "verbose").next().is_some();
        let report = if verbose { report + "ok\n" } else { "ok\n".to_owned() };
        text(StatusCode::OK, &report)
    }

    /// `path`: of the request, such as `/readyz/non_learner`.
    fn count_check(&self, path: &str, check: Check, is_ok: bool) {
        let kind = path.split('/').nth(1).unwrap_or_default();
        let status = if is_ok { "success" } else { "error" };
        let (last, all) = (&self.metrics.health_check, &self.metrics.health_checks);
        last.with_label_values(&[kind, check.name()]).set(i64::from(is_ok));
        all.with_label_values(&[kind, check.name(), status]).inc();
    }

    async fn check(&self, check: Check) -> Result<(), String> {
        match check {
            Check::SerializableRead => self.read(true).await.map_err(|e| e.to_string()),
            Check::LinearizableRead => self.read(false).await.map_err(|e| e.to_string()),
            Check::DataCorruption => match self.alarms().await.contains(&"CORRUPT") {
                true => Err("alarm activated: CORRUPT".to_owned()),
                false => Ok(()),
            },
            Check::NonLearner => match self.client.is_learner() {
                true => Err("member is a learner".to_owned()),
                false => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_all_checks_or_one() {
        assert_eq!(find("/livez"), Some(LIVEZ.to_vec()));
        assert_eq!(find("/readyz/non_learner"), Some(vec![Check::NonLearner]));
        assert_eq!(find("/livez/non_learner"), None);
        assert_eq!(find("/health"), None);
    }
}
