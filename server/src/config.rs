//! From flags to what the process runs with: the checks of surface spec §12.1.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use detkv_core::config::{cluster_id, member_id};
use detkv_core::{AutoCompaction, BootMember, Config, Profile};

use crate::flags::{Flags, Parsed, parse_bool, parse_duration};
use crate::logs;
use crate::url::Url;

/// etcd's default quota.
const QUOTA_DEFAULT: u64 = 2 << 30;
/// Above these etcd warns.
const QUOTA_SUGGESTED_MAX: u64 = 8 << 30;
const REQUEST_BYTES_SUGGESTED_MAX: usize = 10 << 20;
/// Longest election timeout etcd takes.
const ELECTION_MAX: Duration = Duration::from_millis(50_000);
/// Feature gates of etcd's that can only be off here.
const GATES_OFF: &[&str] = &[
    "AllAlpha",
    "AllBeta",
    "LeaseCheckpoint",
    "LeaseCheckpointPersist",
    "SetMemberLocalAddr",
    "StopGRPCServiceOnDefrag",
    "TxnModeWriteWithSharedBuffer",
];
const WATCH_PROGRESS_MIN: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct ServerConfig {
    pub core: Config,
    pub data_dir: PathBuf,
    pub listen_clients: Vec<SocketAddr>,
    pub listen_peers: Vec<SocketAddr>,
    /// The flags say who we are; otherwise an existing data directory may.
    pub identity_given: bool,
    pub log: logs::Options,
    pub warning_apply_duration: Duration,
    /// To be logged once logging is up.
    pub warnings: Vec<String>,
}

/// Errors: one line for the operator.
pub fn validate(parsed: &Parsed) -> Result<ServerConfig, String> {
    let flags = &parsed.flags;
    if parsed.is_given("listen-client-urls") && !parsed.is_given("advertise-client-urls") {
        return Err("--advertise-client-urls is required when --listen-client-urls is set \
                    explicitly"
            .to_owned());
    }
    let (heartbeat, election) = timing(flags)?;
    let advertised_peers = urls("initial-advertise-peer-urls", &flags.initial_advertise_peer_urls)?;
    let members = initial_cluster(flags, &advertised_peers)?;
    let own = members
        .iter()
        .find(|member| member.name == flags.name)
        .expect("initial_cluster checked that our name is in it");
    let ids: Vec<_> = members.iter().map(|member| member.id).collect();
    let mut core = Config::new(own.id, cluster_id(&ids), members.clone());
    core.client_urls = urls("advertise-client-urls", &flags.advertise_client_urls)?;
    core.join = match flags.initial_cluster_state.as_str() {
        "new" => false,
        "existing" => true,
        other => return Err(format!("--initial-cluster-state: unexpected state {other:?}")),
    };
    core.profile = match flags.raft_loop.as_str() {
        "coupled" => Profile::Coupled,
        "decoupled" => Profile::Decoupled,
        other => return Err(format!("--raft-loop: {other:?} is neither coupled nor decoupled")),
    };
    (core.heartbeat, core.election) = (heartbeat, election);
    core.pre_vote = flags.pre_vote;
    core.strict_reconfig_check = flags.strict_reconfig_check;
    core.learners_max = flags.max_learners as usize;
    limits(flags, &mut core)?;
    core.auto_compaction = auto_compaction(flags)?;
    corruption_checks(flags, &mut core)?;
    let data_dir = flags.data_dir.clone().unwrap_or_else(|| format!("{}.etcd", flags.name));
    let identity_flags =
        ["initial-cluster", "initial-advertise-peer-urls", "initial-cluster-token"];
    Ok(ServerConfig {
        warnings: warnings(&core),
        core,
        data_dir: data_dir.into(),
        listen_clients: listen("listen-client-urls", &flags.listen_client_urls)?,
        listen_peers: listen("listen-peer-urls", &flags.listen_peer_urls)?,
        identity_given: identity_flags.iter().any(|flag| parsed.is_given(flag)),
        log: log_options(flags)?,
        warning_apply_duration: flags.warning_apply_duration,
    })
}

/// Heartbeat and election timeout; the latter is cut to whole ticks.
fn timing(flags: &Flags) -> Result<(Duration, Duration), String> {
    let heartbeat = Duration::from_millis(flags.heartbeat_interval);
    let election = Duration::from_millis(flags.election_timeout);
    if heartbeat.is_zero() {
        return Err("--heartbeat-interval must be >0 (set to 0ms)".to_owned());
    }
    if election < heartbeat * 5 {
        return Err(format!(
            "--election-timeout[{}ms] should be at least as 5 times as --heartbeat-interval[{}ms]",
            flags.election_timeout, flags.heartbeat_interval
        ));
    }
    if election > ELECTION_MAX {
        return Err(format!(
            "--election-timeout[{}ms] is too long, and should be set less than {}ms",
            flags.election_timeout,
            ELECTION_MAX.as_millis()
        ));
    }
    let ticks = election.as_millis() / heartbeat.as_millis();
    let ticks = u32::try_from(ticks).expect("at most 50,000 ticks");
    Ok((heartbeat, heartbeat * ticks))
}

fn limits(flags: &Flags, core: &mut Config) -> Result<(), String> {
    if flags.snapshot_count == 0 {
        return Err("--snapshot-count must be >0 (set to 0)".to_owned());
    }
    core.snapshot_count = flags.snapshot_count;
    core.snapshot_catchup_entries = flags.snapshot_catchup_entries;
    core.quota_bytes = match u64::try_from(flags.quota_backend_bytes) {
        Ok(0) => Some(QUOTA_DEFAULT),
        Ok(bytes) => Some(bytes),
        Err(_) => None,
    };
    core.request_bytes_max = flags.max_request_bytes as usize;
    core.txn_ops_max = flags.max_txn_ops as usize;
    if !flags.backend_batch_interval.is_zero() {
        core.backend_batch_interval = flags.backend_batch_interval;
        core.backend_quiet_interval = flags.backend_batch_interval;
    }
    if flags.backend_batch_limit != 0 {
        core.backend_batch_ops = flags.backend_batch_limit as usize;
    }
    if flags.watch_progress_notify_interval < WATCH_PROGRESS_MIN {
        return Err(format!(
            "--watch-progress-notify-interval must be at least {}ms",
            WATCH_PROGRESS_MIN.as_millis()
        ));
    }
    core.watch_progress_interval = flags.watch_progress_notify_interval;
    Ok(())
}

/// `None`: off, for a retention of 0.
fn auto_compaction(flags: &Flags) -> Result<Option<AutoCompaction>, String> {
    let text = flags.auto_compaction_retention.as_str();
    let bad = || format!("error parsing CompactionRetention: time: invalid duration {text:?}");
    let number = text.parse::<u32>().ok();
    match flags.auto_compaction_mode.as_str() {
        "periodic" => {
            // A bare number is hours.
            let hours = number.map(|hours| Duration::from_secs(3600) * hours);
            let retention = hours.map_or_else(|| parse_duration(text).map_err(|_| bad()), Ok)?;
            Ok((!retention.is_zero()).then_some(AutoCompaction::Periodic(retention)))
        }
        "revision" => {
            let revisions = i64::from(number.ok_or_else(bad)?);
            Ok((revisions > 0).then_some(AutoCompaction::Revision(revisions)))
        }
        other => Err(format!("unknown auto-compaction-mode {other:?}")),
    }
}

fn corruption_checks(flags: &Flags, core: &mut Config) -> Result<(), String> {
    let mut compact_hash_check = flags.experimental_compact_hash_check_enabled;
    core.initial_corrupt_check = flags.experimental_initial_corrupt_check;
    for gate in flags.feature_gates.split(',').filter(|gate| !gate.trim().is_empty()) {
        let bad = || format!("--feature-gates: expected Name=true or Name=false, found {gate:?}");
        let (name, value) = gate.trim().split_once('=').ok_or_else(bad)?;
        let value = parse_bool(value).map_err(|_| bad())?;
        match name {
            "CompactHashCheck" => compact_hash_check = value,
            "InitialCorruptCheck" => core.initial_corrupt_check = value,
            _ if GATES_OFF.contains(&name) && !value => {}
            _ if GATES_OFF.contains(&name) => {
                return Err(format!("--feature-gates: {name} is not yet supported"));
            }
            _ => return Err(format!("--feature-gates: unrecognized feature gate: {name}")),
        }
    }
    let checks = |every: Duration, is_on: bool| (is_on && !every.is_zero()).then_some(every);
    core.corrupt_check_interval = checks(flags.corrupt_check_time, true);
    core.compact_hash_check_interval = checks(flags.compact_hash_check_time, compact_hash_check);
    Ok(())
}

fn warnings(core: &Config) -> Vec<String> {
    let mut warnings = Vec::new();
    if core.quota_bytes.is_some_and(|bytes| bytes > QUOTA_SUGGESTED_MAX) {
        warnings.push("quota exceeds the maximum suggested value of 8 GiB".to_owned());
    }
    if core.request_bytes_max > REQUEST_BYTES_SUGGESTED_MAX {
        warnings.push("exceeded recommended request limit of 10 MiB".to_owned());
    }
    warnings
}

/// URLs of a flag as texts, checked.
fn urls(flag: &str, text: &str) -> Result<Vec<String>, String> {
    let urls = Url::parse_list(text).map_err(|e| format!("--{flag}: {e}"))?;
    Ok(urls.iter().map(ToString::to_string).collect())
}

fn listen(flag: &str, text: &str) -> Result<Vec<SocketAddr>, String> {
    let urls = Url::parse_list(text).map_err(|e| format!("--{flag}: {e}"))?;
    urls.iter().map(|url| url.listen_address().map_err(|e| format!("--{flag}: {e}"))).collect()
}

/// The members of `--initial-cluster` with their ids.
///
/// Errors: a bad entry, our name missing or with other URLs than we advertise, a URL of two members.
fn initial_cluster(flags: &Flags, advertised: &[String]) -> Result<Vec<BootMember>, String> {
    let own_default = || {
        advertised.iter().map(|url| format!("{}={url}", flags.name)).collect::<Vec<_>>().join(",")
    };
    let text = flags.initial_cluster.clone().unwrap_or_else(own_default);
    let mut urls_by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for entry in text.split(',') {
        let bad = || format!("--initial-cluster: expected name=url, found {entry:?}");
        let (name, url) = entry.trim().split_once('=').ok_or_else(bad)?;
        if name.is_empty() {
            return Err(bad());
        }
        let url = Url::parse(url).map_err(|e| format!("--initial-cluster: {e}"))?;
        urls_by_name.entry(name).or_default().push(url.to_string());
    }
    let mut own = urls_by_name
        .get(flags.name.as_str())
        .ok_or_else(|| {
            format!(
                "couldn't find local name \"{}\" in the initial cluster configuration",
                flags.name
            )
        })?
        .clone();
    let mut advertised = advertised.to_vec();
    own.sort();
    advertised.sort();
    if own != advertised {
        return Err(format!(
            "--initial-cluster has {} for {:?}, but --initial-advertise-peer-urls is {}",
            own.join(","),
            flags.name,
            advertised.join(",")
        ));
    }
    let mut all: Vec<&String> = urls_by_name.values().flatten().collect();
    all.sort();
    if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("--initial-cluster has {} twice", pair[0]));
    }
    let token = &flags.initial_cluster_token;
    Ok(urls_by_name
        .into_iter()
        .map(|(name, peer_urls)| BootMember {
            id: member_id(&peer_urls, token),
            name: name.to_owned(),
            peer_urls,
        })
        .collect())
}

fn log_options(flags: &Flags) -> Result<logs::Options, String> {
    if flags.logger != "zap" {
        return Err(format!("--logger: unknown logger {:?}", flags.logger));
    }
    let lowest = match flags.log_level.as_str() {
        "debug" => logs::Severity::Debug,
        "info" => logs::Severity::Info,
        "warn" => logs::Severity::Warn,
        "error" => logs::Severity::Error,
        "panic" | "fatal" => logs::Severity::Fatal,
        other => return Err(format!("--log-level: unrecognized level {other:?}")),
    };
    let format = match flags.log_format.as_str() {
        "json" => logs::Format::Json,
        "console" => logs::Format::Console,
        other => return Err(format!("--log-format: unknown format {other:?}")),
    };
    let outputs = flags.log_outputs.split(',').map(|output| match output.trim() {
        "" => Err("--log-outputs: needs at least one output".to_owned()),
        "default" | "stderr" => Ok(logs::Output::Stderr),
        "stdout" => Ok(logs::Output::Stdout),
        path => Ok(logs::Output::File(path.into())),
    });
    Ok(logs::Options { format, lowest, outputs: outputs.collect::<Result<_, _>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(line: &str) -> Result<ServerConfig, String> {
        let args = line.split_whitespace().map(str::to_owned);
        let parsed = crate::flags::parse(args, []).map_err(|e| format!("{e:?}"))?;
        validate(&parsed)
    }

    #[test]
    fn without_flags_it_is_etcds_well_known_member() {
        let config = config("").expect("valid");
        assert_eq!(config.core.id.to_string(), "8e9e05c52164694d");
        assert_eq!(format!("{:x}", config.core.cluster_id), "cdf818194e3a8c32");
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.core.quota_bytes, Some(QUOTA_DEFAULT));
        assert_eq!(config.core.backend_batch_interval, Duration::from_secs(1));
        assert!(!config.identity_given);
    }

    #[test]
    fn values_reach_core() {
        let config = config(
            "--name b --initial-cluster a=http://10.0.0.1:1,b=http://10.0.0.2:1,b=http://10.0.0.2:2 \
             --initial-advertise-peer-urls http://10.0.0.2:2,http://10.0.0.2:1 --quota-backend-bytes -1 \
             --heartbeat-interval 30 --election-timeout 200 --raft-loop coupled --pre-vote=false \
             --backend-batch-limit 7 --backend-batch-interval 5ms --snapshot-count 3 --max-txn-ops 9",
        )
        .expect("valid");
        let core = &config.core;
        assert_eq!(core.initial_cluster.len(), 2);
        assert_eq!(core.initial_cluster[1].id, core.id);
        assert_eq!((core.profile, core.pre_vote), (Profile::Coupled, false));
        assert_eq!(core.election, Duration::from_millis(180), "whole ticks");
        assert_eq!((core.quota_bytes, core.backend_batch_ops), (None, 7));
        assert_eq!(core.backend_batch_interval, Duration::from_millis(5));
        assert_eq!((core.snapshot_count, core.txn_ops_max), (3, 9));
        assert!(config.identity_given);
    }

    #[test]
    fn what_watches_over_the_data_reaches_core() {
        let core = |line: &str| config(line).expect(line).core;
        let hours = |n: u64| Some(AutoCompaction::Periodic(Duration::from_secs(3600 * n)));
        assert_eq!(core("").auto_compaction, None);
        assert_eq!(core("--auto-compaction-retention 5").auto_compaction, hours(5));
        assert_eq!(core("--auto-compaction-retention 60m").auto_compaction, hours(1));
        let line = "--auto-compaction-mode revision --auto-compaction-retention 1000";
        assert_eq!(core(line).auto_compaction, Some(AutoCompaction::Revision(1000)));
        let off = core("");
        assert!(!off.initial_corrupt_check && off.corrupt_check_interval.is_none());
        assert_eq!(off.compact_hash_check_interval, None);
        let on = core(
            "--feature-gates=CompactHashCheck=true,InitialCorruptCheck=true \
             --experimental-corrupt-check-time 7s",
        );
        assert!(on.initial_corrupt_check);
        assert_eq!(on.corrupt_check_interval, Some(Duration::from_secs(7)));
        assert_eq!(on.compact_hash_check_interval, Some(Duration::from_secs(60)));
        let old = core(
            "--experimental-initial-corrupt-check \
             --experimental-compact-hash-check-enabled=true --compact-hash-check-time 2s",
        );
        assert!(old.initial_corrupt_check);
        assert_eq!(old.compact_hash_check_interval, Some(Duration::from_secs(2)));
    }

    #[test]
    fn contradictions_are_one_line() {
        for (line, complaint) in [
            ("--listen-client-urls http://127.0.0.1:1", "--advertise-client-urls is required"),
            (
                "--heartbeat-interval 500",
                "--election-timeout[1000ms] should be at least as 5 times",
            ),
            ("--election-timeout 60000", "is too long"),
            ("--heartbeat-interval 0", "--heartbeat-interval must be >0"),
            ("--name a --initial-cluster b=http://h:1", "couldn't find local name \"a\""),
            ("--initial-cluster default=http://h:1", "but --initial-advertise-peer-urls is"),
            ("--initial-cluster nonsense", "expected name=url"),
            ("--initial-cluster default=http://localhost:2380,b=http://localhost:2380", "twice"),
            ("--initial-cluster-state old", "unexpected state \"old\""),
            ("--listen-peer-urls http://example.com:1", "expected IP in URL for binding"),
            ("--listen-peer-urls https://127.0.0.1:1", "scheme https is not yet supported"),
            ("--raft-loop x", "neither coupled nor decoupled"),
            ("--auto-compaction-mode x", "unknown auto-compaction-mode \"x\""),
            (
                "--auto-compaction-retention x",
                "error parsing CompactionRetention: time: invalid duration \"x\"",
            ),
            (
                "--auto-compaction-mode revision --auto-compaction-retention 5m",
                "error parsing CompactionRetention",
            ),
            ("--feature-gates LeaseCheckpoint=true", "LeaseCheckpoint is not yet supported"),
            ("--feature-gates Nonsense=true", "unrecognized feature gate"),
            ("--log-level loud", "unrecognized level"),
            ("--snapshot-count 0", "--snapshot-count must be >0"),
            ("--watch-progress-notify-interval 1ms", "must be at least 100ms"),
        ] {
            let error = config(line).expect_err(line);
            assert!(error.contains(complaint), "{line}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
