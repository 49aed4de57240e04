//! A scenario file: what it may say, and reading it with errors that point at the place.
//!
//! `scenarios/README.md` is the vocabulary for people; this is the same for the compiler.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use detkv_sim_world::MemberVersion;
use detkv_sim_world::client::{
    Bursts, Compactor, KeepAlive, Kubernetes, Maintainer, MemberChanges, Mixed, OneByOne, PutLoad,
    Robustness, Script, SlowWatcher, Watcher,
};
use detkv_sim_world::clock::ClockModel;
use detkv_sim_world::cpu::CpuModel;
use detkv_sim_world::disk::DiskModel;
use detkv_sim_world::fault::Fault;
use detkv_sim_world::net::NetModel;
use detkv_sim_world::prometheus::ParseError;
use serde::{Deserialize, Serialize};
use toml::{Spanned, Table};

use crate::expect::Expect;
use crate::figures;
use crate::options::MembersOptions;
use crate::place::{ScenarioError, error_at, find_cause};

/// How the Raft loop waits for the disk (`raft_loop`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Coupled,
    Decoupled,
}

impl Profile {
    pub fn core(self) -> detkv_core::Profile {
        match self {
            Profile::Coupled => detkv_core::Profile::Coupled,
            Profile::Decoupled => detkv_core::Profile::Decoupled,
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Coupled => "coupled",
            Profile::Decoupled => "decoupled",
        })
    }
}

/// A scenario, read and checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The file's name without `.toml`.
    pub name: String,
    pub about: String,
    pub members: u64,
    pub profiles: Vec<Profile>,
    /// Load before anything is measured or broken.
    pub warm_up: Duration,
    /// Load after the warm-up.
    pub duration: Duration,
    /// Virtual time in which the cluster must be whole again after the last fault.
    pub converge: Duration,
    pub member: MembersOptions,
    pub disk: DiskModel,
    pub disks: BTreeMap<u64, DiskModel>,
    pub net: NetModel,
    pub cpu: CpuModel,
    pub cpus: BTreeMap<u64, CpuModel>,
    pub clocks: BTreeMap<u64, ClockModel>,
    pub versions: BTreeMap<u64, MemberVersion>,
    /// In-code faults happen.
    pub buggify: bool,
    pub workloads: Vec<Workload>,
    pub faults: Vec<FaultPlan>,
    pub expect: Expect,
    /// The figures that tell the story, for tables.
    pub show: Vec<&'static str>,
    /// The files it names, with their text: a child process opens none.
    pub files: BTreeMap<String, String>,
}

/// Gives the text of a file that a scenario names.
pub type ReadFile<'r> = &'r dyn Fn(&str) -> Result<String, String>;

/// Load of one kind.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Workload {
    PutLoad(PutLoad),
    Mixed(Mixed),
    Robustness(Robustness),
    Kubernetes(Kubernetes),
    KeepAlive(KeepAlive),
    Bursts(Bursts),
    OneByOne(OneByOne),
    Script(Script),
    Watcher(Watcher),
    SlowWatcher(SlowWatcher),
    Compactor(Compactor),
    Maintainer(Maintainer),
    MemberChanges(MemberChanges),
}

/// A fault with its times.
#[derive(Clone, PartialEq, Debug)]
pub struct FaultPlan {
    /// After the warm-up.
    pub at: Duration,
    /// Between repetitions.
    pub every: Duration,
    pub times: u32,
    /// Each time is moved by up to this, drawn from the seed.
    pub jitter: Duration,
    /// For a kill or power loss: when the node starts again.
    pub restart_after: Option<Duration>,
    pub fault: Fault,
}

/// The file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    #[serde(default = "three")]
    members: Spanned<u64>,
    profiles: Spanned<Vec<Profile>>,
    #[serde(with = "detkv_sim_world::duration", default = "one_second")]
    warm_up: Duration,
    #[serde(with = "detkv_sim_world::duration")]
    duration: Duration,
    #[serde(with = "detkv_sim_world::duration", default = "half_a_minute")]
    converge: Duration,
    member: Option<Spanned<Table>>,
    #[serde(default)]
    disk: DiskModel,
    #[serde(default)]
    disks: BTreeMap<String, DiskModel>,
    #[serde(default)]
    net: NetModel,
    #[serde(default)]
    cpu: CpuModel,
    #[serde(default)]
    cpus: BTreeMap<String, CpuModel>,
    #[serde(default)]
    clocks: BTreeMap<String, ClockModel>,
    #[serde(default)]
    versions: BTreeMap<String, MemberVersion>,
    #[serde(default)]
    buggify: bool,
    #[serde(default)]
    workload: Vec<Spanned<Table>>,
    #[serde(default)]
    fault: Vec<Spanned<Table>>,
    #[serde(default)]
    expect: Expect,
    show: Option<Vec<Spanned<String>>>,
    /// Other scenarios of the same file: see `variant`.
    #[serde(default, rename = "variant")]
    _variants: BTreeMap<String, Table>,
}

/// The keys of a `[[fault]]` that are not the fault's own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultTimes {
    #[serde(with = "detkv_sim_world::duration")]
    at: Duration,
    #[serde(default, deserialize_with = "optional_duration")]
    every: Option<Duration>,
    #[serde(default = "once")]
    times: u32,
    #[serde(default, deserialize_with = "optional_duration")]
    jitter: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    restart_after: Option<Duration>,
}

pub const FAULT_TIMES: [&str; 5] = ["at", "every", "times", "jitter", "restart_after"];

fn three() -> Spanned<u64> {
    Spanned::new(0..0, 3)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

fn once() -> u32 {
    1
}

pub fn optional_duration<'de, D: serde::Deserializer<'de>>(
    d: D,
) -> Result<Option<Duration>, D::Error> {
    detkv_sim_world::duration::deserialize(d).map(Some)
}

impl Scenario {
    /// Reads the text of a file. `path` is what errors call it.
    pub fn parse(
        name: &str,
        path: &str,
        text: &str,
        read: ReadFile<'_>,
    ) -> Result<Self, ScenarioError> {
        let at = |span: Range<usize>, message: String| error_at(path, text, span, message);
        let file: File = toml::from_str(text).map_err(|error| {
            at(error.span().unwrap_or(0..0), error.message().trim_end().to_owned())
        })?;
        if !matches!(file.members.get_ref(), 1 | 3 | 5 | 7) {
            return Err(at(file.members.span(), "expected 1, 3, 5 or 7 members".to_owned()));
        }
        if file.profiles.get_ref().is_empty() {
            let message = "expected at least one of \"coupled\", \"decoupled\"".to_owned();
            return Err(at(file.profiles.span(), message));
        }
        let workload = |entry: &Spanned<Table>| {
            let workload = from_entry(entry.get_ref().clone())
                .and_then(|workload| check_workload(&workload).map(|()| workload));
            workload.map_err(|message| at(find_cause(text, entry.span(), &message), message))
        };
        let fault = |entry: &Spanned<Table>| {
            fault_plan(entry.get_ref().clone())
                .map_err(|message| at(find_cause(text, entry.span(), &message), message))
        };
        let members = *file.members.get_ref();
        let by_member = |name: &str| {
            let number = name.strip_prefix('m').and_then(|digits| digits.parse::<u64>().ok());
            number.filter(|number| (1..=members).contains(number)).ok_or_else(|| {
                let message = format!("{name:?} is no member: expected \"m1\" to \"m{members}\"");
                at(find_cause(text, 0..text.len(), &message), message)
            })
        };
        let mut files = BTreeMap::new();
        let mut resolve = |mut disk: DiskModel| {
            resolve_model(&mut disk, read, &mut files).map_err(|error| match error {
                ModelError::Mention(message) => {
                    at(find_cause(text, 0..text.len(), &message), message)
                }
                ModelError::In(path, error) => {
                    ScenarioError { path, line: error.line, column: 1, message: error.message }
                }
            })?;
            Ok(disk)
        };
        let disk = resolve(file.disk)?;
        let disks =
            file.disks.into_iter().map(|(name, disk)| Ok((by_member(&name)?, resolve(disk)?)));
        let disks = disks.collect::<Result<_, _>>()?;
        let member = file.member.map_or(Ok(MembersOptions::default()), |table| {
            MembersOptions::read(table.get_ref().clone()).map_err(|message| {
                at(find_cause(text, table.span().start..text.len(), &message), message)
            })
        });
        let show = file.show.map(|names| {
            let named = names.iter().map(|name| {
                figures::find(name.get_ref()).map_err(|message| at(name.span(), message))
            });
            named.collect::<Result<Vec<_>, _>>()
        });
        let cpus = file.cpus.into_iter().map(|(name, cpu)| Ok((by_member(&name)?, cpu)));
        let versions = file.versions.into_iter().map(|(name, v)| Ok((by_member(&name)?, v)));
        let clocks = file.clocks.into_iter().map(|(name, clock)| Ok((by_member(&name)?, clock)));
        Ok(Self {
            name: name.to_owned(),
            about: file.about,
            members,
            profiles: file.profiles.into_inner(),
            warm_up: file.warm_up,
            duration: file.duration,
            converge: file.converge,
            member: member?,
            disk,
            disks,
            net: file.net,
            cpu: file.cpu,
            cpus: cpus.collect::<Result<_, _>>()?,
            clocks: clocks.collect::<Result<_, _>>()?,
            versions: versions.collect::<Result<_, _>>()?,
            buggify: file.buggify,
            workloads: file.workload.iter().map(workload).collect::<Result<_, _>>()?,
            faults: file.fault.iter().map(fault).collect::<Result<_, _>>()?,
            show: show.transpose()?.unwrap_or_else(|| file.expect.named()),
            expect: file.expect,
            files,
        })
    }
}

/// What is wrong with a disk's `model`.
enum ModelError {
    /// In the scenario file, at the word that the message names.
    Mention(String),
    /// In the file with this path.
    In(String, ParseError),
}

/// Puts the histogram of the file that `model` names into the disk.
fn resolve_model(
    disk: &mut DiskModel,
    read: ReadFile<'_>,
    files: &mut BTreeMap<String, String>,
) -> Result<(), ModelError> {
    let Some(path) = disk.model.clone() else {
        return match disk.clustering {
            None => Ok(()),
            Some(_) => {
                Err(ModelError::Mention("`clustering` needs `model`, a histogram's file".into()))
            }
        };
    };
    let text = read(&path).map_err(|why| {
        ModelError::Mention(format!(
            "{path:?}: {why}: expected a Prometheus text file or an HdrHistogram log"
        ))
    })?;
    disk.resolve(&text).map_err(|error| match error.line {
        0 => ModelError::Mention(format!("`clustering`: {}", error.message)),
        _ => ModelError::In(path.clone(), error),
    })?;
    files.insert(path, text);
    Ok(())
}

pub fn from_entry<'de, T: Deserialize<'de>>(entry: Table) -> Result<T, String> {
    T::deserialize(toml::Value::Table(entry)).map_err(|error| error.message().trim_end().to_owned())
}

/// What would make a workload panic or do nothing.
fn check_workload(workload: &Workload) -> Result<(), String> {
    let (clients, rate, keys, in_flight) = match workload {
        Workload::PutLoad(w) => (w.clients, w.puts_per_sec, w.keys, w.in_flight),
        Workload::Mixed(w) => (w.clients, w.calls_per_sec, w.keys, w.in_flight),
        Workload::Robustness(w) => (1, 1, w.keys, 1),
        Workload::Kubernetes(w) => (w.writers, w.writes_per_sec, w.objects, w.readers),
        Workload::KeepAlive(w) => (w.clients, w.leases, w.ttl_secs, w.renewals),
        Workload::Bursts(w) => (1, w.puts, w.keys, u32::from(!w.every.is_zero())),
        Workload::Script(w) => (w.steps.len() as u32, 1, 1, 1),
        Workload::OneByOne(w) => (w.clients, 1, w.keys, 1),
        Workload::Watcher(w) => (w.clients, 1, 1, 1),
        Workload::SlowWatcher(w) => (w.clients, 1, 1, 1),
        Workload::Compactor(w) => (1, 1, 1, u32::from(!w.every.is_zero())),
        Workload::Maintainer(w) => (1, 1, 1, u32::from(!w.every.is_zero())),
        Workload::MemberChanges(w) => (1, 1, 1, u32::from(!w.every.is_zero())),
    };
    for (value, name) in [
        (clients, "clients`, `steps` or `writers"),
        (rate, "puts_per_sec`, `calls_per_sec`, `writes_per_sec`, `leases` or `puts"),
        (keys, "keys`, `objects` or `ttl_secs"),
        (in_flight, "in_flight`, `every`, `readers` or `renewals"),
    ] {
        if value == 0 {
            return Err(format!("`{name}` is 0, expected at least 1"));
        }
    }
    let has_calls = |w: &Mixed| serde_json::to_value(w.weights).is_ok_and(|w| sum(&w) > 0);
    let none = || Err("`weights` are all 0, expected at least one call".to_owned());
    match workload {
        Workload::Mixed(mixed) if !has_calls(mixed) => none(),
        Workload::Robustness(mix) if !mix.has_requests() => none(),
        Workload::MemberChanges(changes) if !changes.has_changes() => none(),
        _ => Ok(()),
    }
}

fn sum(weights: &serde_json::Value) -> u64 {
    weights.as_object().map_or(0, |w| w.values().filter_map(serde_json::Value::as_u64).sum())
}

/// Names of a kind's own parameters: one that is called as a key of the schedule is the fault's.
pub fn own_keys(kind: &str) -> Vec<&'static str> {
    let kinds = Fault::KINDS.iter().filter(|info| info.name == kind);
    kinds.flat_map(|info| info.parameters).map(|parameter| parameter.name).collect()
}

fn fault_plan(mut entry: Table) -> Result<FaultPlan, String> {
    let own = own_keys(entry.get("kind").and_then(toml::Value::as_str).unwrap_or_default());
    let keys = FAULT_TIMES.iter().filter(|key| !own.contains(key));
    let times: Table = keys.filter_map(|key| entry.remove_entry(*key)).collect();
    let times: FaultTimes = from_entry(times)?;
    let fault: Fault = from_entry(entry)?;
    fault.check()?;
    if times.times == 0 {
        return Err("`times` is 0, expected at least 1".to_owned());
    }
    if times.times > 1 && times.every.is_none_or(|every| every.is_zero()) {
        return Err("`times` needs `every`, the time between repetitions".to_owned());
    }
    if times.restart_after.is_some() && !matches!(fault, Fault::Kill(_) | Fault::PowerLoss(_)) {
        return Err("`restart_after` goes with `kill` and `power-loss` only".to_owned());
    }
    Ok(FaultPlan {
        at: times.at,
        every: times.every.unwrap_or_default(),
        times: times.times,
        jitter: times.jitter.unwrap_or_default(),
        restart_after: times.restart_after,
        fault,
    })
}

#[cfg(test)]
mod tests {
    use detkv_sim_world::rng::Distribution;

    use super::*;

    const HEAD: &str = "about = \"a test\"\nprofiles = [\"coupled\"]\nduration = \"5s\"\n";

    fn parse(text: &str) -> Result<Scenario, ScenarioError> {
        let histogram = "x_seconds_bucket{le=\"1\"} 5\nx_seconds_bucket{le=\"+Inf\"} 5\n";
        Scenario::parse("t", "t.toml", text, &|path| match path {
            "good.prom" => Ok(histogram.to_owned()),
            "bad.prom" => Ok(format!("{histogram}x_seconds_sum -3\n")),
            _ => Err("no such file".to_owned()),
        })
    }

    /// Line, column and message of the error in `HEAD` and `rest`.
    fn error(rest: &str) -> (usize, usize, String) {
        let error = parse(&format!("{HEAD}{rest}")).expect_err("the file is wrong");
        (error.line, error.column, error.message)
    }

    #[test]
    fn defaults_are_three_members_on_fast_disks() {
        let scenario = parse(HEAD).expect("the file is right");
        assert_eq!((scenario.members, scenario.warm_up), (3, Duration::from_secs(1)));
        assert_eq!(scenario.disk, DiskModel::default());
    }

    #[test]
    fn a_fault_keeps_its_times_and_its_parameters() {
        let text = format!(
            "{HEAD}[[fault]]\nat = \"3s\"\nkind = \"disk-stall\"\nnode = \"leader\"\nduration = \"4s\"\n"
        );
        let scenario = parse(&text).expect("the file is right");
        assert_eq!(scenario.faults[0].at, Duration::from_secs(3));
        assert!(matches!(scenario.faults[0].fault, Fault::DiskStall(_)));
    }

    #[test]
    fn errors_name_line_column_and_what_was_expected() {
        let (line, column, message) = error("membres = 3\n");
        assert_eq!((line, column), (4, 1));
        assert!(message.contains("unknown field `membres`"), "{message}");
        assert_eq!(error("members = 4\n").0, 4);

        let (line, column, message) = error("[[fault]]\nat = \"3s\"\nkind = \"disk-stal\"\n");
        assert_eq!((line, column), (6, 9));
        assert!(message.contains("disk-stall"), "{message}");

        let (line, _, message) = error("\n[[workload]]\nkind = \"put-load\"\n\nclient = 6\n");
        assert_eq!(line, 8);
        assert!(message.contains("expected one of `clients`"), "{message}");

        let (line, column, message) = error("[expect.coupled]\nleader_changes = \"some\"\n");
        assert_eq!((line, column), (5, 18));
        assert!(message.contains("min"), "{message}");

        let (line, _, message) =
            error("[[fault]]\nat = \"soon\"\nkind = \"kill\"\nnode = \"m1\"\n");
        assert_eq!(line, 5);
        assert!(message.contains("expected such as"), "{message}");
    }

    #[test]
    fn a_load_without_clients_is_refused() {
        let (line, _, message) = error("[[workload]]\nkind = \"mixed\"\nclients = 0\n");
        assert_eq!(line, 6, "{message}");
    }

    #[test]
    fn a_misspelt_figure_option_or_profile_is_named_at_its_place() {
        let (line, column, message) = error("[expect.both]\nterms = 3\nleader_change = 1\n");
        assert_eq!((line, column), (6, 1), "{message}");
        assert!(message.contains("`leader_change`, expected one of leader_changes"), "{message}");

        let (line, column, message) = error("[member]\n[member.coupled]\npre_voting = false\n");
        assert_eq!((line, column), (6, 1), "{message}");
        assert!(message.contains("pre_vote"), "{message}");

        let (line, column, message) = error("show = [\"terms\", \"tems\"]\n");
        assert_eq!((line, column), (4, 18), "{message}");
        assert_eq!(error("[expect.hardened]\nterms = 3\n").0, 4);
    }

    #[test]
    fn a_disk_that_is_a_file_is_read_and_its_mistakes_are_placed_in_it() {
        let good = format!("{HEAD}disk.model = \"good.prom\"\n");
        let scenario = parse(&good).expect("the file is right");
        assert!(matches!(scenario.disk.sync, Distribution::Empirical(_)));
        assert!(scenario.files.contains_key("good.prom"));

        let (line, column, message) = error("\n[disk]\nmodel = \"none.prom\"\n");
        assert_eq!((line, column), (6, 10), "{message}");
        assert!(message.contains("expected a Prometheus text file"), "{message}");

        let error = parse(&good.replace("good", "bad")).expect_err("its sum is negative");
        assert_eq!((error.path.as_str(), error.line), ("bad.prom", 3), "{error}");
    }

    #[test]
    fn clustering_needs_a_model_and_a_bound_of_it() {
        let (line, _, message) = error("[disk]\nclustering = { above = \"1s\", run = 3 }\n");
        assert_eq!(line, 5, "{message}");
        let (line, _, message) =
            error("[disk]\nmodel = \"good.prom\"\nclustering = { above = \"2ms\", run = 3 }\n");
        assert_eq!(line, 6, "{message}");
        assert!(message.contains("bounds"), "{message}");
    }
}
