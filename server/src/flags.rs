//! The command line and the environment: etcd's flags and `ETCD_*` variables (surface spec §12).
//!
//! Parsing only; what the values must satisfy together is in `config.rs`.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser};

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

/// Flags of etcd's that this version does not have (rules 28): refused, never ignored.
const NOT_YET_SUPPORTED: &[&str] = &[
    "auth-token",
    "auth-token-ttl",
    "auto-tls",
    "backend-bbolt-freelist-type",
    "bcrypt-cost",
    "bootstrap-defrag-threshold-megabytes",
    "cert-file",
    "cipher-suites",
    "client-cert-allowed-hostname",
    "client-cert-auth",
    "client-cert-file",
    "client-crl-file",
    "client-key-file",
    "compaction-batch-limit",
    "compaction-sleep-interval",
    "config-file",
    "cors",
    "discovery",
    "discovery-endpoints",
    "discovery-srv",
    "discovery-token",
    "distributed-tracing-address",
    "distributed-tracing-instance-id",
    "distributed-tracing-sampling-rate",
    "distributed-tracing-service-name",
    "downgrade-check-time",
    "enable-distributed-tracing",
    "enable-grpc-gateway",
    "enable-log-rotation",
    "enable-pprof",
    "force-new-cluster",
    "grpc-keepalive-interval",
    "grpc-keepalive-min-time",
    "grpc-keepalive-timeout",
    "host-whitelist",
    "initial-election-tick-advance",
    "key-file",
    "listen-client-http-urls",
    "listen-metrics-urls",
    "log-rotation-config-json",
    "max-concurrent-streams",
    "max-snapshots",
    "max-wals",
    "memory-mlock",
    "metrics",
    "peer-auto-tls",
    "peer-cert-allowed-cn",
    "peer-cert-allowed-hostname",
    "peer-cert-file",
    "peer-client-cert-auth",
    "peer-client-cert-file",
    "peer-client-key-file",
    "peer-crl-file",
    "peer-key-file",
    "peer-skip-client-san-verification",
    "peer-trusted-ca-file",
    "raft-read-timeout",
    "raft-write-timeout",
    "self-signed-cert-validity",
    "socket-reuse-address",
    "socket-reuse-port",
    "tls-max-version",
    "tls-min-version",
    "trusted-ca-file",
    "unsafe-no-fsync",
    "v2-deprecation",
    "wal-dir",
    "warning-unary-request-duration",
];

/// What the process was told, and what to log about it.
#[derive(Debug)]
pub struct Parsed {
    pub flags: Flags,
    /// Flags that were given, by command line or environment.
    given: Vec<String>,
    /// Variables that were used.
    pub used_variables: Vec<String>,
    /// `ETCD_*` variables that mean nothing to us.
    pub unknown_variables: Vec<String>,
}

impl Parsed {
    /// Whether `--flag` was given, or its variable set.
    pub fn is_given(&self, flag: &str) -> bool {
        self.given.iter().any(|given| given == flag)
    }
}

/// The process ends before it starts.
#[derive(PartialEq, Eq, Debug)]
pub enum Exit {
    /// Print to stdout, exit 0.
    Help(String),
    /// Print to stderr, exit 2: the command line is wrong.
    Usage(String),
    /// One line to stderr, exit 1: a value is wrong.
    Value(String),
}

/// Reads arguments (without the program's name) and environment variables.
pub fn parse(
    args: impl IntoIterator<Item = String>,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Parsed, Exit> {
    let args: Vec<String> = args.into_iter().map(double_dash).collect();
    for arg in &args {
        let name = arg.strip_prefix("--").map(|a| a.split('=').next().unwrap_or(a));
        if let Some(name) = name.filter(|name| NOT_YET_SUPPORTED.contains(name)) {
            return Err(Exit::Usage(format!("detkv: --{name}: not yet supported")));
        }
    }
    let from_line = matches(&args)?;
    let environment = read_environment(&from_line, variables)?;
    let all = matches(&[args, environment.args].concat())?;
    let flags = Flags::from_arg_matches(&all).map_err(|e| exit_of(&e))?;
    Ok(Parsed {
        given: given_flags(&all),
        flags,
        used_variables: environment.used,
        unknown_variables: environment.unknown,
    })
}

/// Go's flag package takes `-name` for `--name`.
fn double_dash(arg: String) -> String {
    let bytes = arg.as_bytes();
    let single = bytes.len() > 2 && bytes[0] == b'-' && bytes[1].is_ascii_alphabetic();
    if single { format!("-{arg}") } else { arg }
}

fn matches(args: &[String]) -> Result<ArgMatches, Exit> {
    let line = std::iter::once("detkv".to_owned()).chain(args.iter().cloned());
    Flags::command().try_get_matches_from(line).map_err(|e| exit_of(&e))
}

fn exit_of(error: &clap::Error) -> Exit {
    let text = error.render().to_string();
    match error.kind() {
        ErrorKind::DisplayHelp => Exit::Help(text),
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let line = text.lines().next().unwrap_or_default();
            Exit::Value(line.strip_prefix("error: ").unwrap_or(line).to_owned())
        }
        _ => Exit::Usage(format!("{text}\n{}", Flags::command().render_usage())),
    }
}

fn given_flags(matches: &ArgMatches) -> Vec<String> {
    let command = Flags::command();
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    command
        .get_arguments()
        .filter(|arg| given(arg.get_id().as_str()))
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .collect()
}

#[derive(Default)]
struct Environment {
    /// As if they had been on the command line.
    args: Vec<String>,
    used: Vec<String>,
    unknown: Vec<String>,
}

fn variable_of(flag: &str) -> String {
    format!("ETCD_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

fn read_environment(
    from_line: &ArgMatches,
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Environment, Exit> {
    let mut environment = Environment::default();
    let given = given_flags(from_line);
    let command = Flags::command();
    let flags: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    let mut variables: Vec<(String, String)> =
        variables.into_iter().filter(|(name, _)| name.starts_with("ETCD_")).collect();
    variables.sort();
    for (name, value) in variables {
        if NOT_YET_SUPPORTED.iter().any(|flag| variable_of(flag) == name) && !value.is_empty() {
            return Err(Exit::Usage(format!("detkv: {name}: not yet supported")));
        }
        let Some(flag) = flags.iter().find(|flag| variable_of(flag) == name) else {
            environment.unknown.push(name);
            continue;
        };
        if given.iter().any(|given| given == flag) {
            return Err(Exit::Value(format!(
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag): {name}={value}"
            )));
        }
        if value.is_empty() {
            continue;
        }
        match (*flag, parse_bool(&value)) {
            // A flag without a value on the command line.
            ("version", Ok(true)) => environment.args.push("--version".to_owned()),
            ("version", _) => {}
            _ => environment.args.push(format!("--{flag}={value}")),
        }
        environment.used.push(name);
    }
    Ok(environment)
}

/// Go's spellings of a boolean.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// Go's durations without a sign: `0`, `100ms`, `1m30s`, `1.5h`.
pub fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    let bad = || format!("invalid duration {text:?}: expected for example 100ms, 5s or 1m30s");
    if text == "0" {
        return Ok(std::time::Duration::ZERO);
    }
    let mut rest = text;
    let mut secs = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c.is_ascii_alphabetic() || c == 'µ').ok_or_else(bad)?;
        let (number, tail) = rest.split_at(unit_at);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit_secs = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(bad()),
        };
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return Err(bad());
        }
        secs += number.parse::<f64>().map_err(|_| bad())? * unit_secs;
        rest = next;
    }
    if text.is_empty() {
        return Err(bad());
    }
    std::time::Duration::try_from_secs_f64(secs).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parse_line(line: &str, variables: &[(&str, &str)]) -> Result<Parsed, Exit> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        parse(line.split_whitespace().map(str::to_owned), variables)
    }

    #[test]
    fn flags_and_variables_mean_the_same() {
        let variables = [("ETCD_ELECTION_TIMEOUT", "500"), ("ETCD_NAME", ""), ("HOME", "/")];
        let parsed = parse_line("-data-dir x --pre-vote=false --name=a --name=b", &variables[..1])
            .expect("valid");
        let flags = &parsed.flags;
        assert_eq!(flags.data_dir.as_deref(), Some("x"));
        assert_eq!(
            (flags.name.as_str(), flags.pre_vote, flags.election_timeout),
            ("b", false, 500)
        );
        assert!(parsed.is_given("election-timeout") && parsed.is_given("data-dir"));
        assert!(!parsed.is_given("heartbeat-interval"));
        assert_eq!(parsed.used_variables, ["ETCD_ELECTION_TIMEOUT"]);
        let parsed = parse_line("--pre-vote --quota-backend-bytes -1", &variables).expect("valid");
        assert!(parsed.flags.pre_vote);
        assert_eq!(parsed.flags.quota_backend_bytes, -1);
    }

    #[test]
    fn an_option_set_twice_is_a_conflict() {
        let error = parse_line("--name a", &[("ETCD_NAME", "b")]).expect_err("conflict");
        let Exit::Value(line) = error else { panic!("{error:?}") };
        assert!(line.starts_with("conflicting environment variable is shadowed"), "{line}");
        assert!(line.ends_with("ETCD_NAME=b"), "{line}");
    }

    #[test]
    fn unknown_variables_are_collected_and_unknown_flags_refused() {
        let parsed = parse_line("", &[("ETCD_FOO", "1")]).expect("a warning only");
        assert_eq!(parsed.unknown_variables, ["ETCD_FOO"]);
        assert!(
            matches!(parse_line("--foo", &[]), Err(Exit::Usage(text)) if text.contains("Usage:"))
        );
        assert!(matches!(parse_line("stray", &[]), Err(Exit::Usage(_))));
        assert!(matches!(parse_line("--help", &[]), Err(Exit::Help(_))));
        let unsupported = Exit::Usage("detkv: --cert-file: not yet supported".to_owned());
        assert_eq!(parse_line("--cert-file=x", &[]).expect_err("unsupported"), unsupported);
        let unsupported = Exit::Usage("detkv: ETCD_METRICS: not yet supported".to_owned());
        let variables = [("ETCD_METRICS", "basic")];
        assert_eq!(parse_line("", &variables).expect_err("unsupported"), unsupported);
    }

    #[test]
    fn a_bad_value_is_one_line() {
        for line in ["--election-timeout=x", "--pre-vote=maybe", "--backend-batch-interval=5"] {
            let error = parse_line(line, &[]).expect_err(line);
            let Exit::Value(text) = error else { panic!("{error:?}") };
            assert_eq!(text.lines().count(), 1, "{text}");
        }
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("1.5h"), Ok(Duration::from_secs(5400)));
        for bad in ["", "5", "s", "1x", "-1s", "1e400s", "1..5s", "ms5"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
