//! Keys and values of the `meta` bucket (surface spec §17.4).

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Consistent;
use super::backend::{FileError, FileView};
use super::rows::{Revision, RowKey, parse_row_key};
use super::{Bucket, batch::BucketOp};
use crate::pb::raftpb::ConfState;

pub(crate) const CONSISTENT_INDEX: &[u8] = b"consistent_index";
pub(crate) const TERM: &[u8] = b"term";
pub(crate) const CONF_STATE: &[u8] = b"confState";
const SCHEDULED_COMPACTION: &[u8] = b"scheduledCompactRev";
const FINISHED_COMPACTION: &[u8] = b"finishedCompactRev";

/// raftpb.ConfState as Go's JSON writes it.
#[derive(Serialize, Deserialize)]
struct ConfStateJson {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    #[serde(default)]
    auto_leave: bool,
}

pub(crate) fn encode_conf_state(conf_state: &ConfState) -> Vec<u8> {
    let conf_state = conf_state.clone();
    let json = ConfStateJson {
        voters: conf_state.voters,
        learners: conf_state.learners,
        voters_outgoing: conf_state.voters_outgoing,
        learners_next: conf_state.learners_next,
        auto_leave: conf_state.auto_leave,
    };
    serde_json::to_vec(&json).expect("lists of numbers have a JSON form")
}

fn decode_conf_state(bytes: &[u8]) -> Result<ConfState, FileError> {
    let json: ConfStateJson = serde_json::from_slice(bytes)
        .map_err(|error| FileError(format!("confState is damaged: {error}")))?;
    Ok(ConfState {
        voters: json.voters,
        learners: json.learners,
        voters_outgoing: json.voters_outgoing,
        learners_next: json.learners_next,
        auto_leave: json.auto_leave,
    })
}

/// How far the log has been applied, and the configuration if it changed.
pub(crate) fn consistent(index: u64, term: u64, conf_state: Option<&ConfState>) -> Vec<BucketOp> {
    let op = |key: &'static [u8], value: Vec<u8>| BucketOp {
        bucket: Bucket::Meta,
        key: Bytes::from_static(key),
        value: Some(value.into()),
    };
    let mut ops = vec![
        op(CONSISTENT_INDEX, index.to_be_bytes().to_vec()),
        op(TERM, term.to_be_bytes().to_vec()),
    ];
    ops.extend(conf_state.map(|state| op(CONF_STATE, encode_conf_state(state))));
    ops
}

/// A compaction is scheduled in the batch of its entry, and finished in its last slice.
pub(crate) fn scheduled_compaction(revision: i64) -> BucketOp {
    compaction_op(SCHEDULED_COMPACTION, revision)
}

pub(crate) fn finished_compaction(revision: i64) -> BucketOp {
    compaction_op(FINISHED_COMPACTION, revision)
}

fn compaction_op(key: &'static [u8], revision: i64) -> BucketOp {
    let value = RowKey::new(Revision { main: revision, sub: 0 }, false);
    BucketOp {
        bucket: Bucket::Meta,
        key: Bytes::from_static(key),
        value: Some(Bytes::copy_from_slice(value.as_bytes())),
    }
}

/// What `meta` says.
#[derive(Debug)]
pub(crate) struct Meta {
    pub consistent: Consistent,
    /// −1 when absent.
    pub scheduled_compaction: i64,
    pub finished_compaction: i64,
}

impl Meta {
    pub fn read(view: &FileView) -> Result<Self, FileError> {
        let conf_state = view.value(Bucket::Meta, CONF_STATE)?;
        Ok(Self {
            consistent: Consistent {
                index: read_u64(view, CONSISTENT_INDEX)?,
                term: read_u64(view, TERM)?,
                conf_state: conf_state.map(|b| decode_conf_state(&b)).transpose()?,
            },
            scheduled_compaction: read_revision(view, SCHEDULED_COMPACTION)?,
            finished_compaction: read_revision(view, FINISHED_COMPACTION)?,
        })
    }
}

fn damaged(key: &[u8]) -> FileError {
    FileError(format!("meta {} is damaged", String::from_utf8_lossy(key)))
}

fn read_u64(view: &FileView, key: &[u8]) -> Result<u64, FileError> {
    let Some(value) = view.value(Bucket::Meta, key)? else { return Ok(0) };
    let bytes: [u8; 8] = value[..].try_into().map_err(|_| damaged(key))?;
    Ok(u64::from_be_bytes(bytes))
}

fn read_revision(view: &FileView, key: &[u8]) -> Result<i64, FileError> {
    let Some(value) = view.value(Bucket::Meta, key)? else { return Ok(-1) };
    let (revision, _) = parse_row_key(&value).ok_or_else(|| damaged(key))?;
    Ok(revision.main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conf_state_is_json_as_go_writes_it() {
        let conf_state = ConfState { voters: vec![u64::MAX, 2], ..Default::default() };
        let json = encode_conf_state(&conf_state);
        assert_eq!(json, br#"{"voters":[18446744073709551615,2],"auto_leave":false}"#);
        assert_eq!(decode_conf_state(&json), Ok(conf_state));
        assert!(decode_conf_state(b"{").is_err());
    }
}
