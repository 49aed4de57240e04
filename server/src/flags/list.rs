//! The flags, with their defaults.

use clap::{ArgAction, Parser};

use super::values::{parse_bool, parse_duration};

/// A member of an etcd-compatible store.
#[derive(Parser, Clone, Debug)]
#[command(name = "detkv", args_override_self = true, disable_version_flag = true)]
pub struct Flags {
    /// Human-readable name of this member.
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Data directory [default: <name>.etcd].
    #[arg(long)]
    pub data_dir: Option<String>,
    /// URLs to listen on for clients.
    #[arg(long, default_value = "http://localhost:2379")]
    pub listen_client_urls: String,
    /// URLs to listen on for peers.
    #[arg(long, default_value = "http://localhost:2380")]
    pub listen_peer_urls: String,
    /// Client URLs told to the cluster.
    #[arg(long, default_value = "http://localhost:2379")]
    pub advertise_client_urls: String,
    /// Peer URLs told to the cluster.
    #[arg(long, default_value = "http://localhost:2380")]
    pub initial_advertise_peer_urls: String,
    /// The initial cluster, name=url,… [default: <name>=<initial-advertise-peer-urls>].
    #[arg(long)]
    pub initial_cluster: Option<String>,
    /// `new` or `existing`.
    #[arg(long, default_value = "new")]
    pub initial_cluster_state: String,
    /// Goes into member and cluster ids.
    #[arg(long, default_value = "etcd-cluster")]
    pub initial_cluster_token: String,
    /// Time between heartbeats, in milliseconds.
    #[arg(long, default_value_t = 100)]
    pub heartbeat_interval: u64,
    /// Election timeout, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    pub election_timeout: u64,
    /// Committed entries between Raft snapshots.
    #[arg(long, default_value_t = 10_000)]
    pub snapshot_count: u64,
    /// Entries kept for slow followers after a snapshot.
    #[arg(long, default_value_t = 5_000)]
    pub snapshot_catchup_entries: u64,
    /// Backend size limit in bytes; 0: 2 GiB, negative: none.
    #[arg(long, default_value_t = 0, allow_hyphen_values = true)]
    pub quota_backend_bytes: i64,
    /// Largest request, in bytes.
    #[arg(long, default_value_t = 1_572_864)]
    pub max_request_bytes: u32,
    /// Most operations in a txn.
    #[arg(long, default_value_t = 128)]
    pub max_txn_ops: u32,
    /// Ask for votes before an election.
    #[arg(long, default_value = "true", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = parse_bool)]
    pub pre_vote: bool,
    /// Refuse membership changes that endanger the quorum.
    #[arg(long, default_value = "true", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = parse_bool)]
    pub strict_reconfig_check: bool,
    /// Most learners in the cluster.
    #[arg(long, default_value_t = 1)]
    pub max_learners: u32,
    /// Time between progress notices to watchers that asked for them.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    pub watch_progress_notify_interval: std::time::Duration,
    /// `periodic` or `revision`.
    #[arg(long, default_value = "periodic")]
    pub auto_compaction_mode: String,
    /// History to keep: hours or a duration (periodic), revisions (revision); 0: all.
    #[arg(long, default_value = "0")]
    pub auto_compaction_retention: String,
    /// Time between comparisons of all keys with the peers; 0: never.
    #[arg(long, alias = "experimental-corrupt-check-time", default_value = "0",
          value_parser = parse_duration)]
    pub corrupt_check_time: std::time::Duration,
    /// Time between comparisons of the hashes taken at compactions (feature CompactHashCheck).
    #[arg(long, alias = "experimental-compact-hash-check-time", default_value = "1m",
          value_parser = parse_duration)]
    pub compact_hash_check_time: std::time::Duration,
    /// Deprecated: the feature CompactHashCheck.
    #[arg(long, default_value = "false", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = parse_bool)]
    pub experimental_compact_hash_check_enabled: bool,
    /// Deprecated: the feature InitialCorruptCheck.
    #[arg(long, default_value = "false", default_missing_value = "true", num_args = 0..=1,
          require_equals = true, action = ArgAction::Set, value_parser = parse_bool)]
    pub experimental_initial_corrupt_check: bool,
    /// Features to switch on or off, Name=true,…: CompactHashCheck, InitialCorruptCheck.
    #[arg(long, default_value = "")]
    pub feature_gates: String,
    /// Applies and reads that take longer are logged and counted.
    #[arg(long, alias = "experimental-warning-apply-duration", default_value = "100ms",
          value_parser = parse_duration)]
    pub warning_apply_duration: std::time::Duration,
    /// Longest time between backend commits; 0: 1s, each of them durable.
    #[arg(long, default_value = "0", value_parser = parse_duration)]
    pub backend_batch_interval: std::time::Duration,
    /// Most operations between backend commits; 0: 10000.
    #[arg(long, default_value_t = 0)]
    pub backend_batch_limit: u32,
    /// `zap`, etcd's only one.
    #[arg(long, default_value = "zap")]
    pub logger: String,
    /// debug, info, warn, error or fatal.
    #[arg(long, default_value = "info")]
    pub log_level: String,
    /// json or console.
    #[arg(long, default_value = "json")]
    pub log_format: String,
    /// default, stderr, stdout or paths of files.
    #[arg(long, default_value = "default")]
    pub log_outputs: String,
    /// decoupled: heartbeats and commits go on during a WAL sync; coupled: as in etcd.
    #[arg(long, default_value = "decoupled")]
    pub raft_loop: String,
    /// Print the version and exit.
    #[arg(long)]
    pub version: bool,
}
