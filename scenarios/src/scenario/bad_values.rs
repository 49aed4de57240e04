//! One value per key that would panic, hang, exhaust the memory or make no sense: each is refused at its place.

use std::collections::BTreeSet;

use super::tests::{HEAD, parse};

/// What follows `HEAD`, the text at the error's place, and what is said there.
type Bad = (&'static str, &'static str, &'static str);

const CLUSTER: &[Bad] = &[
    ("members = 0", "0", "expected 1, 3, 5 or 7 members"),
    ("members = 1000", "1000", "expected 1, 3, 5 or 7 members"),
    ("warm_up = \"10001m\"", "\"10001m\"", "\"10001m\" is too long: expected at most \"10000m\""),
    ("converge = \"0s\"", "converge", "`converge` is 0ns, expected 1ms to 10000m"),
    (
        "[versions.m2]\nversion = \"abc\"\nwire = 1",
        "version =",
        "`version` is \"abc\", expected three numbers such as \"3.5.0\"",
    ),
    ("versions.m2 = { version = \"3.5.0\", wire = 9 }", "wire", "`wire` is 9, expected 1 to 2"),
    (
        "clocks.m2.drift_ppm = -2000000",
        "drift_ppm",
        "`drift_ppm` is -2000000, expected -100000 to 100000",
    ),
    (
        "[clocks.m1]\noffset = \"99999999999999s\"",
        "\"99999999999999s\"",
        "\"99999999999999s\" is too long: expected at most \"10000m\"",
    ),
];

const MEMBER: &[Bad] = &[
    ("member.heartbeat = \"0s\"", "heartbeat", "`heartbeat` is 0ns, expected 1ms to 50s"),
    (
        "[member]\npre_vote = true\nelection = \"150ms\"",
        "election",
        "`election` is 150ms, expected a multiple of `heartbeat`, 100ms, and at least 5 of it",
    ),
    (
        "[member]\nheartbeat = \"300ms\"",
        "heartbeat",
        "`election` is 1s, expected a multiple of `heartbeat`, 300ms, and at least 5 of it",
    ),
    (
        "[member]\nelection = \"1s\"\n[member.decoupled]\nelection = \"400ms\"",
        "election = \"400ms\"",
        "`election` is 400ms, expected a multiple of `heartbeat`, 100ms, and at least 5 of it",
    ),
    (
        "[member]\nelection = \"90s\"\n[member.coupled]\npre_vote = false",
        "election = \"90s\"",
        "`election` is 90s, expected 1ms to 50s",
    ),
    (
        "member.snapshot_count = 0",
        "snapshot_count",
        "`snapshot_count` is 0, expected 1 to 1000000000",
    ),
    (
        "member.snapshot_catchup_entries = 0",
        "snapshot_catchup_entries",
        "`snapshot_catchup_entries` is 0, expected 1 to 1000000000",
    ),
    (
        "member = { wal_segment_bytes = 0 }",
        "wal_segment_bytes",
        "`wal_segment_bytes` is 0, expected 4096 to 1073741824",
    ),
    ("member.quota_bytes = 0", "quota_bytes", "`quota_bytes` is 0, expected at least 1"),
    (
        "member.watch_stream_bytes = 0",
        "watch_stream_bytes",
        "`watch_stream_bytes` is 0, expected at least 1",
    ),
    (
        "member.corrupt_check_interval = \"0s\"",
        "corrupt_check_interval",
        "`corrupt_check_interval` is 0ns, expected 10ms to 10000m",
    ),
    (
        "member.auto_compaction.periodic = \"1ns\"",
        "periodic",
        "`periodic` is 1ns, expected 10ms to 10000m",
    ),
    (
        "member.auto_compaction.revision = 0",
        "revision",
        "`revision` is 0, expected 1 to 1000000000",
    ),
    ("member.learners_max = 101", "learners_max", "`learners_max` is 101, expected 0 to 100"),
    (
        "member.compact_hash_check_interval = \"1ns\"",
        "compact_hash_check_interval",
        "`compact_hash_check_interval` is 1ns, expected 10ms to 10000m",
    ),
];

const DISK: &[Bad] = &[
    (
        "disk.sync = { histogram = [] }",
        "histogram",
        "`sync`: `histogram`: `count` adds up to 0, expected 1 to 1073741824",
    ),
    (
        "[disk]\nsync = { histogram = [{ upper = \"2ms\", count = 1 }, { upper = \"1ms\", count = 1 }] }",
        "upper = \"1ms\"",
        "`sync`: `histogram[1]`: `upper` is 1ms, expected more than the one before, 2ms",
    ),
    (
        "[disks.m2.sync.uniform]\nmin = \"2ms\"\nmax = \"1ms\"",
        "min",
        "`sync`: `uniform`: `min` is 2ms, expected at most `max`, 1ms",
    ),
    (
        "disk.sync = { exponential = { min = \"2ms\", mean = \"1ms\" } }",
        "min",
        "`sync`: `exponential`: `min` is 2ms, expected at most `mean`, 1ms",
    ),
    ("disk.sync.constant = \"61m\"", "constant", "`sync`: `constant` is 61m, expected 0ns to 60m"),
    (
        "disk.sync = { histogram = [{ upper = \"90m\", count = 1 }] }",
        "upper",
        "`sync`: `histogram[0]`: `upper` is 90m, expected 0ns to 60m",
    ),
    (
        "disk.model = \"none.prom\"",
        "none.prom",
        "\"none.prom\": no such file: expected a Prometheus text file or an HdrHistogram log",
    ),
    (
        "disk = { model = \"good.prom\", clustering = { above = \"1s\", run = 0 } }",
        "above",
        "`clustering`: `above` is 1s, expected one of the histogram's bounds",
    ),
    (
        "[disks.m1]\nmodel = \"good.prom\"\n[disks.m2]\nmodel = \"good.prom\"\nclustering = { above = \"1s\", run = 0 }",
        "above",
        "`clustering`: `above` is 1s, expected one of the histogram's bounds",
    ),
    (
        "[disks.m1]\nmodel = \"good.prom\"\n[disks.m2]\nmodel = \"none.prom\"",
        "none.prom",
        "\"none.prom\": no such file: expected a Prometheus text file or an HdrHistogram log",
    ),
    (
        "disk.bytes_per_sec = 0",
        "bytes_per_sec",
        "`bytes_per_sec` is 0, expected 1000 to 1000000000000",
    ),
    (
        "disk.parallelism = 4294967295",
        "parallelism",
        "`parallelism` is 4294967295, expected 1 to 1024",
    ),
    ("disk.call = \"1m\"", "call", "`call` is 1m, expected 0ns to 1s"),
    (
        "disk.memory_bytes_per_sec = 0",
        "memory_bytes_per_sec",
        "`memory_bytes_per_sec` is 0, expected 1000 to 1000000000000",
    ),
    (
        "disk.read_bytes_per_sec = 7",
        "read_bytes_per_sec",
        "`read_bytes_per_sec` is 7, expected 1000 to 1000000000000",
    ),
    (
        "disk.crash = { keep_percent = 90, lose_percent = 90 }",
        "keep_percent",
        "`crash`: `keep_percent` and `lose_percent` add up to 180, expected at most 100",
    ),
    (
        "disk.crash.lose_percent = 4294967295",
        "lose_percent",
        "`crash`: `lose_percent` is 4294967295, expected 0 to 100",
    ),
    (
        "[disks.m3.crash]\ntear_bytes = 7",
        "tear_bytes",
        "`crash`: `tear_bytes` is 7, expected 512 or 4096",
    ),
    (
        "disk.episodes = { good = \"0s\", bad = \"1s\" }",
        "good",
        "`episodes`: `good` is 0ns, expected 1ms to 10000m",
    ),
    (
        "disk.episodes = { good = \"1s\", bad = \"0s\" }",
        "bad",
        "`episodes`: `bad` is 0ns, expected 1ms to 10000m",
    ),
    (
        "disk.episodes = { good = \"1s\", bad = \"1s\", slower = 4294967295 }",
        "slower",
        "`episodes`: `slower` is 4294967295, expected 1 to 1000",
    ),
];

const NET: &[Bad] = &[
    (
        "net.peer.loss_ppm = 1000000",
        "loss_ppm",
        "`peer`: `loss_ppm` is 1000000, expected 0 to 500000",
    ),
    (
        "[net]\npeer = { loss_ppm = 0 }\nclient = { loss_ppm = 999999 }",
        "loss_ppm = 999999",
        "`client`: `loss_ppm` is 999999, expected 0 to 500000",
    ),
    (
        "net.peer.bytes_per_sec = 0",
        "bytes_per_sec",
        "`peer`: `bytes_per_sec` is 0, expected 1 to 1000000000000",
    ),
    (
        "net.client.burst_bytes = 9000000000000000000",
        "burst_bytes",
        "`client`: `burst_bytes` is 9000000000000000000, expected 0 to 1000000000",
    ),
    (
        "net.peer.latency.uniform = { min = \"2ms\", max = \"1ms\" }",
        "min",
        "`peer`: `latency`: `uniform`: `min` is 2ms, expected at most `max`, 1ms",
    ),
    (
        "[net]\nlinks = [\n  [1, 2, {}],\n  [99, 2, {}],\n]",
        "[99, 2",
        "`links[1]`: m99 is no member: expected leader, m1 to m3, follower to follower2",
    ),
    (
        "[net]\nlinks = [\n  [1, 2, {}],\n  [1, 3, { loss_ppm = 1000000 }],\n]",
        "loss_ppm",
        "`links[1]`: `loss_ppm` is 1000000, expected 0 to 500000",
    ),
    ("net.redial = \"0s\"", "redial", "`redial` is 0ns, expected 1ms to 10000m"),
    ("net.timeout = \"0s\"", "timeout", "`timeout` is 0ns, expected 1ms to 10000m"),
    (
        "net.peer_queue_frames = 0",
        "peer_queue_frames",
        "`peer_queue_frames` is 0, expected 1 to 1048576",
    ),
    (
        "net.stream_window_bytes = 0",
        "stream_window_bytes",
        "`stream_window_bytes` is 0, expected 1 to 1099511627776",
    ),
];

/// A workload, a key of it with a bad value, and what is said there.
const WORKLOADS: &[(&str, &str, &str)] = &[
    ("put-load", "clients = 0", "`clients` is 0, expected 1 to 1000"),
    ("put-load", "puts_per_sec = 4000000000", "`puts_per_sec` is 4000000000, expected 1 to 100000"),
    ("put-load", "keys = 0", "`keys` is 0, expected 1 to 1000000"),
    (
        "put-load",
        "value_bytes = 9000000000000",
        "`value_bytes` is 9000000000000, expected 0 to 2097152",
    ),
    ("put-load", "timeout = \"31s\"", "`timeout` is 31s, expected 1ms to 10s"),
    ("put-load", "in_flight = 0", "`in_flight` is 0, expected at least 1"),
    (
        "put-load",
        "in_flight = 4294967295",
        "`in_flight` makes 25769803770 tasks of all clients, expected at most 100000",
    ),
    (
        "put-load",
        "value_bytes = 2097152\nin_flight = 1000",
        "`value_bytes` makes 12582912000 bytes of 6000 calls at once or in a second, expected at most 1073741824",
    ),
    ("mixed", "calls_per_sec = 0", "`calls_per_sec` is 0, expected 1 to 100000"),
    (
        "mixed",
        "weights = { put = 4294967295 }",
        "`weights`: `put` is 4294967295, expected 0 to 1000000",
    ),
    ("robustness", "traffic = \"highest\"", "unknown variant `highest`, expected `low` or `high`"),
    (
        "robustness",
        "large_put_bytes = 2097153",
        "`large_put_bytes` is 2097153, expected 0 to 2097152",
    ),
    ("kubernetes", "readers = 1001", "`readers` is 1001, expected 1 to 1000"),
    ("kubernetes", "writers = 0", "`writers` is 0, expected 1 to 1000"),
    ("kubernetes", "writes_per_sec = 100001", "`writes_per_sec` is 100001, expected 1 to 100000"),
    ("kubernetes", "objects = 0", "`objects` is 0, expected 1 to 1000000"),
    ("kubernetes", "page = 0", "`page` is 0, expected at least 1"),
    ("kubernetes", "event_ttl_secs = 0", "`event_ttl_secs` is 0, expected 1 to 1000000"),
    ("kubernetes", "compact_every = \"1ns\"", "`compact_every` is 1ns, expected 1ms to 10000m"),
    ("keep-alive", "leases = 0", "`leases` is 0, expected 1 to 4000"),
    ("keep-alive", "ttl_secs = 4294967295", "`ttl_secs` is 4294967295, expected 1 to 1000000"),
    ("keep-alive", "keys = 4294967295", "`keys` is 4294967295, expected 0 to 10000"),
    ("keep-alive", "renewals = 0", "`renewals` is 0, expected at least 1"),
    ("bursts", "every = \"0s\"", "`every` is 0ns, expected 1ms to 10000m"),
    (
        "bursts",
        "puts = 4000000000",
        "`puts` makes 4000000000 tasks of all clients, expected at most 100000",
    ),
    (
        "one-by-one",
        "call = \"putt\"",
        "unknown variant `putt`, expected one of `put`, `get`, `stale-get`",
    ),
    (
        "one-by-one",
        "node = \"m9\"",
        "`node`: m9 is no member: expected leader, m1 to m3, follower to follower2",
    ),
    ("one-by-one", "pause = \"10001m\"", "\"10001m\" is too long: expected at most \"10000m\""),
    ("script", "steps = []", "`steps` is empty, expected at least 1"),
    (
        "script",
        "steps = [{ do = \"put\", times = 4000000000 }]",
        "`steps[0]`: `times` is 4000000000, expected 1 to 100000",
    ),
    ("watcher", "clients = 100000", "`clients` is 100000, expected 1 to 1000"),
    ("slow-watcher", "stop = \"10001m\"", "\"10001m\" is too long: expected at most \"10000m\""),
    ("compactor", "every = \"0s\"", "`every` is 0ns, expected 1ms to 10000m"),
    ("maintainer", "every = \"0s\"", "`every` is 0ns, expected 1ms to 10000m"),
    ("member-changes", "every = \"0s\"", "`every` is 0ns, expected 1ms to 10000m"),
    ("member-changes", "members_max = 4294967295", "`members_max` is 4294967295, expected 1 to 50"),
];

/// A fault but for `at`, with a bad value behind `!`, and what is said there.
const FAULTS: &[(&str, &str)] = &[
    (
        "kind = \"clock-step\"\nnode = \"m1\"\n!milliseconds = 1000000000000",
        "`milliseconds` is 1000000000000, expected -600000000 to 600000000",
    ),
    (
        "kind = \"kill\"\nnode = \"m1\"\nevery = \"1s\"\n!times = 4000000000",
        "`times` is 4000000000, expected 1 to 10000",
    ),
    (
        "kind = \"kill\"\nnode = \"m1\"\n!times = 2",
        "`times` needs `every`, the time between repetitions",
    ),
    (
        "kind = \"kill\"\nnode = \"m1\"\njitter = !\"10001m\"",
        "\"10001m\" is too long: expected at most \"10000m\"",
    ),
    (
        "kind = \"kill\"\n!node = \"m9\"",
        "`node`: m9 is no member: expected leader, m1 to m3, follower to follower2",
    ),
    (
        "kind = \"kill\"\n!node = \"follower3\"",
        "`node`: follower3 is no member: expected leader, m1 to m3, follower to follower2",
    ),
    (
        "kind = \"partial-partition\"\nnodes = [\"m1\"]\nduration = \"1s\"\n!peers = [\"m2\", \"m4\"]",
        "`peers`: m4 is no member: expected leader, m1 to m3, follower to follower2",
    ),
    ("kind = \"partition\"\nduration = \"1s\"\n!nodes = []", "`nodes` is 0, expected at least 1"),
    (
        "kind = \"partition\"\nnodes = [\"m1\"]\nduration = \"1s\"\n!clients = [0, 77]",
        "`clients`: there is no client 77: expected 0 to 5",
    ),
    (
        "kind = \"kill-at\"\nnode = \"m1\"\nduration = \"1s\"\nsite = \"!during job compct\"",
        "\"during job compct\" is no site: compct is no job, expected one of commit, sync, compact, receive, defrag, hash, load, fail",
    ),
    (
        "kind = \"kill-at\"\nnode = \"m1\"\nduration = \"1s\"\nsite = \"before burst\"\n!down = \"0s\"",
        "`down` is 0ns, expected 1ms to 10000m",
    ),
    (
        "kind = \"kill-at\"\nnode = \"m1\"\nduration = \"1s\"\nsite = \"before burst\"\n!repeats = 4000000000",
        "`repeats` is 4000000000, expected 1 to 10000",
    ),
    (
        "kind = \"link-flap\"\nup = \"1s\"\nduration = \"1s\"\n!down = \"1ns\"",
        "`down` is 1ns, expected 1ms to 10000m",
    ),
    (
        "kind = \"bit-rot\"\nnode = \"m1\"\nduration = \"1s\"\n!bits = 4000000000",
        "`bits` is 4000000000, expected 1 to 10000",
    ),
];

/// Refused with exactly this message, at this place.
fn refused(rest: &str, at: &str, message: &str) {
    let text = format!("{HEAD}{rest}\n");
    let Err(error) = parse(&text) else { panic!("this is accepted:\n{rest}") };
    let line = text.lines().nth(error.line - 1).expect("the line is in the file");
    assert_eq!(error.message, message, "{rest}");
    assert!(line[error.column - 1..].starts_with(at), "{rest}\n{error}");
}

#[test]
fn a_bad_value_of_every_key_is_refused_at_its_place() {
    for (rest, at, message) in [CLUSTER, MEMBER, DISK, NET].into_iter().flatten() {
        refused(rest, at, message);
    }
    for key in COSTS {
        let message = format!("`{key}` is 9000000000000000000, expected 0 to 1000000000");
        refused(&format!("[cpus.m2]\n{key} = 9000000000000000000"), key, &message);
    }
    let readers = "`readers` is 4294967295, expected 1 to 1024";
    refused("cpu.readers = 4294967295", "readers", readers);
    for (duration, at, message) in [
        ("\"0s\"", "duration", "`duration` is 0ns, expected 1ms to 10000m"),
        ("\"1y\"", "\"1y\"", "\"1y\" is not a duration: expected such as \"4s\" or \"250ms\""),
    ] {
        let text = HEAD.replace("\"5s\"", duration);
        let error = parse(&text).expect_err("it is no duration of a load");
        assert_eq!((error.line, error.message.as_str()), (3, message));
        let line = text.lines().nth(2).expect("three lines");
        assert!(line[error.column - 1..].starts_with(at), "{error}");
    }
    let twice = HEAD.replace("[\"coupled\"]", "[\"coupled\", \"coupled\"]");
    let error = parse(&twice).expect_err("a profile twice");
    assert_eq!((error.line, error.column), (2, 12));
    assert_eq!(error.message, "expected \"coupled\", \"decoupled\" or both, each once");
}

const COSTS: [&str; 13] = [
    "burst_ns",
    "frame_in_ns",
    "entry_ns",
    "request_ns",
    "input_ns",
    "apply_ns",
    "frame_out_ns",
    "output_ns",
    "watch_ns",
    "watch_event_ns",
    "read_ns",
    "read_row_ns",
    "backend_row_ns",
];

#[test]
fn a_bad_value_of_a_load_or_a_fault_is_refused_at_its_place() {
    for (kind, bad, message) in WORKLOADS {
        let usual = "[[workload]]\nkind = \"put-load\"\n[[workload]]\n";
        let (key, value) = bad.split_once(" = ").expect("a key and a value");
        // What a key cannot be at all is told at the value; what it should not be, at the key.
        let is_value = message.starts_with("unknown variant") || message.starts_with('"');
        let inner = message.split_once("`: `").and_then(|(_, inner)| inner.split('`').next());
        let at = if is_value { value.trim_matches('"') } else { inner.unwrap_or(key) };
        let error = format!("{usual}kind = \"{kind}\"\n{bad}\n");
        refused(&error, at, message);
    }
    for (fault, message) in FAULTS {
        let (before, bad) = fault.split_once('!').expect("something is bad");
        let load = "[[workload]]\nkind = \"put-load\"\n[[fault]]\nat = \"1s\"\n";
        let at = bad.strip_prefix('"').unwrap_or(bad);
        refused(&format!("{load}{before}{bad}"), at, message);
    }
}

#[test]
fn members_that_may_be_added_may_be_named() {
    let kill = "[[fault]]\nat = \"1s\"\nkind = \"kill\"\nnode = \"m5\"\n";
    let add = |times| {
        format!("[[fault]]\nat = \"1s\"\nevery = \"1s\"\ntimes = {times}\nkind = \"add-member\"\n")
    };
    assert!(parse(&format!("{HEAD}{kill}{}", add(1))).is_err());
    assert!(parse(&format!("{HEAD}{kill}{}", add(2))).is_ok());
    assert!(parse(&format!("{HEAD}{kill}[[workload]]\nkind = \"member-changes\"\n")).is_ok());
    let never = "[[workload]]\nkind = \"member-changes\"\nweights.add = 0\n";
    assert!(parse(&format!("{HEAD}{kill}{never}")).is_err());
}

/// Keys of a section: what the error of a wrong one says.
fn keys(section: &str) -> Vec<String> {
    let error = parse(&format!("{HEAD}{section}.no = 1\n")).expect_err("a wrong key").message;
    let (_, expected) = error.split_once("expected").expect("it says what was expected");
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn no_key_of_a_model_is_left_out() {
    // True or false.
    let any = ["pre_vote", "initial_corrupt_check", "strict_reconfig_check"];
    let all = [CLUSTER, MEMBER, DISK, NET].into_iter().flatten();
    let named: BTreeSet<&str> = all
        .flat_map(|(rest, ..)| rest.split(|c: char| !c.is_alphanumeric() && c != '_'))
        .chain(COSTS)
        .chain(["readers"])
        .collect();
    for section in ["member", "disk", "net", "net.peer", "cpu", "clocks.m1", "versions.m1"] {
        for key in keys(section) {
            assert!(named.contains(&*key) || any.contains(&&*key), "{key} of {section}");
        }
    }
}
