//! The text of a file becomes a scenario, or an error that points at the place.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use detkv_sim_world::MemberVersion;
use detkv_sim_world::bounds::{SHORTEST, inside, time_within};
use detkv_sim_world::clock::ClockModel;
use detkv_sim_world::cpu::CpuModel;
use detkv_sim_world::disk::DiskModel;
use detkv_sim_world::duration::LONGEST;
use detkv_sim_world::net::NetModel;
use detkv_sim_world::prometheus::ParseError;
use serde::Deserialize;
use toml::{Spanned, Table};

use super::fault::fault_plan;
use super::names::Cast;
use super::{FaultPlan, Profile, ReadFile, Scenario, Workload, from_entry};
use crate::expect::Expect;
use crate::figures;
use crate::options::MembersOptions;
use crate::place::{ScenarioError, Step, error_at, find_cause, find_key};

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

fn three() -> Spanned<u64> {
    Spanned::new(0..0, 3)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn half_a_minute() -> Duration {
    Duration::from_secs(30)
}

/// A week of load would be simulated in days.
const LOADS: RangeInclusive<Duration> = SHORTEST..=LONGEST;

impl Scenario {
    /// Reads the text of a file. `path` is what errors call it.
    pub fn parse(
        name: &str,
        path: &str,
        text: &str,
        read: ReadFile<'_>,
    ) -> Result<Self, ScenarioError> {
        let source = Source { path, text };
        let file: File = toml::from_str(text).map_err(|error| {
            source.error(error.span().unwrap_or(0..0), error.message().trim_end().to_owned())
        })?;
        source.check_cluster(&file)?;
        source.check_models(&file)?;
        let workloads = file.workload.iter().enumerate();
        let workloads: Vec<Workload> = workloads
            .map(|(place, entry)| source.workload(place, entry))
            .collect::<Result<_, _>>()?;
        let faults = file.fault.iter().enumerate();
        let faults: Vec<FaultPlan> =
            faults.map(|(place, entry)| source.fault(place, entry)).collect::<Result<_, _>>()?;
        let members = *file.members.get_ref();
        source.check_names(&file, Cast::new(members, &workloads, &faults))?;
        let mut files = BTreeMap::new();
        let mut resolve =
            |disk, section: &[Step<'_>]| source.resolve(disk, section, read, &mut files);
        let disk = resolve(file.disk, &[Step::Key("disk")])?;
        let disks = file.disks.into_iter().map(|(name, disk)| {
            let member = source.member(&name, members)?;
            Ok((member, resolve(disk, &[Step::Key("disks"), Step::Key(&name)])?))
        });
        let disks = disks.collect::<Result<_, _>>()?;
        let show = file.show.map(|names| {
            let named = names.iter().map(|name| {
                figures::find(name.get_ref()).map_err(|message| source.error(name.span(), message))
            });
            named.collect::<Result<Vec<_>, _>>()
        });
        Ok(Self {
            name: name.to_owned(),
            about: file.about,
            members,
            profiles: file.profiles.into_inner(),
            warm_up: file.warm_up,
            duration: file.duration,
            converge: file.converge,
            member: source.member_options(file.member)?,
            disk,
            disks,
            net: file.net,
            cpu: file.cpu,
            cpus: source.by_member(file.cpus, members)?,
            clocks: source.by_member(file.clocks, members)?,
            versions: source.by_member(file.versions, members)?,
            buggify: file.buggify,
            workloads,
            faults,
            show: show.transpose()?.unwrap_or_else(|| file.expect.named()),
            expect: file.expect,
            files,
        })
    }
}

/// The text that is read, and what errors call it.
#[derive(Clone, Copy)]
struct Source<'t> {
    path: &'t str,
    text: &'t str,
}

impl Source<'_> {
    fn error(self, span: Range<usize>, message: String) -> ScenarioError {
        error_at(self.path, self.text, span, message)
    }

    /// What a check of the part of the file at `section` said, at the key that it names.
    fn checked(
        self,
        section: &[Step<'_>],
        checked: Result<(), String>,
    ) -> Result<(), ScenarioError> {
        checked.map_err(|message| {
            let span = find_key(self.text, section, &message).unwrap_or(0..0);
            self.error(span, message)
        })
    }

    fn check_cluster(self, file: &File) -> Result<(), ScenarioError> {
        if !matches!(file.members.get_ref(), 1 | 3 | 5 | 7) {
            return Err(self.error(file.members.span(), "expected 1, 3, 5 or 7 members".to_owned()));
        }
        let profiles = file.profiles.get_ref();
        if profiles.is_empty() || profiles.len() > BTreeSet::from_iter(profiles).len() {
            let message = "expected \"coupled\", \"decoupled\" or both, each once".to_owned();
            return Err(self.error(file.profiles.span(), message));
        }
        self.checked(&[], time_within("duration", file.duration, LOADS))?;
        self.checked(&[], time_within("converge", file.converge, LOADS))
    }

    fn check_models(self, file: &File) -> Result<(), ScenarioError> {
        use Step::Key;
        self.checked(&[Key("net")], file.net.check())?;
        self.checked(&[Key("disk")], file.disk.check())?;
        self.checked(&[Key("cpu")], file.cpu.check())?;
        for (name, disk) in &file.disks {
            self.checked(&[Key("disks"), Key(name)], disk.check())?;
        }
        for (name, cpu) in &file.cpus {
            self.checked(&[Key("cpus"), Key(name)], cpu.check())?;
        }
        for (name, clock) in &file.clocks {
            self.checked(&[Key("clocks"), Key(name)], clock.check())?;
        }
        for (name, version) in &file.versions {
            self.checked(&[Key("versions"), Key(name)], version.check())?;
        }
        Ok(())
    }

    /// Members and clients that are named are there.
    fn check_names(self, file: &File, cast: Cast) -> Result<(), ScenarioError> {
        use Step::{Entry, Key};
        for (place, entry) in file.workload.iter().enumerate() {
            // `clients` of a load are how many there are.
            let mut entry = entry.get_ref().clone();
            entry.remove("clients");
            self.checked(&[Key("workload"), Entry(place)], cast.check(&entry))?;
        }
        for (place, entry) in file.fault.iter().enumerate() {
            self.checked(&[Key("fault"), Entry(place)], cast.check(entry.get_ref()))?;
        }
        for (place, (from, to, _)) in file.net.links.iter().enumerate() {
            let checked = cast.check_member(*from).and_then(|()| cast.check_member(*to));
            self.checked(&[Key("net")], inside(&format!("links[{place}]"), checked))?;
        }
        Ok(())
    }

    fn workload(self, place: usize, entry: &Spanned<Table>) -> Result<Workload, ScenarioError> {
        let workload: Workload = from_entry(entry.get_ref().clone()).map_err(|message| {
            self.error(find_cause(self.text, entry.span(), &message), message)
        })?;
        self.checked(&[Step::Key("workload"), Step::Entry(place)], workload.check())?;
        Ok(workload)
    }

    fn fault(self, place: usize, entry: &Spanned<Table>) -> Result<FaultPlan, ScenarioError> {
        let plan = fault_plan(entry.get_ref().clone()).map_err(|message| {
            self.error(find_cause(self.text, entry.span(), &message), message)
        })?;
        self.checked(&[Step::Key("fault"), Step::Entry(place)], plan.check())?;
        Ok(plan)
    }

    fn member(self, name: &str, members: u64) -> Result<u64, ScenarioError> {
        let number = name.strip_prefix('m').and_then(|digits| digits.parse::<u64>().ok());
        number.filter(|number| (1..=members).contains(number)).ok_or_else(|| {
            let message = format!("{name:?} is no member: expected \"m1\" to \"m{members}\"");
            self.error(find_cause(self.text, 0..self.text.len(), &message), message)
        })
    }

    fn by_member<T>(
        self,
        named: BTreeMap<String, T>,
        members: u64,
    ) -> Result<BTreeMap<u64, T>, ScenarioError> {
        named.into_iter().map(|(name, of)| Ok((self.member(&name, members)?, of))).collect()
    }

    fn member_options(
        self,
        table: Option<Spanned<Table>>,
    ) -> Result<MembersOptions, ScenarioError> {
        let Some(table) = table else { return Ok(MembersOptions::default()) };
        let options = MembersOptions::read(table.get_ref().clone()).map_err(|message| {
            let span = table.span().start..self.text.len();
            self.error(find_cause(self.text, span, &message), message)
        })?;
        options.check().map_err(|(profile, message)| {
            let name = profile.to_string();
            let own = table.get_ref().get(&name).and_then(toml::Value::as_table);
            // What a profile says otherwise stands for it.
            let is_own = own.is_some_and(|own| own.keys().any(|key| message.contains(key)));
            let section = [Step::Key("member"), Step::Key(&name)];
            let section = if is_own { &section[..] } else { &section[..1] };
            let span = find_key(self.text, section, &message).unwrap_or(0..0);
            self.error(span, message)
        })?;
        Ok(options)
    }

    /// The disk with the histogram of the file that it names.
    fn resolve(
        self,
        mut disk: DiskModel,
        section: &[Step<'_>],
        read: ReadFile<'_>,
        files: &mut BTreeMap<String, String>,
    ) -> Result<DiskModel, ScenarioError> {
        resolve_model(&mut disk, read, files).map_err(|error| match error {
            ModelError::Mention(message) => {
                let span = find_key(self.text, section, &message).unwrap_or(0..0);
                self.error(span, message)
            }
            ModelError::In(path, error) => {
                ScenarioError { path, line: error.line, column: 1, message: error.message }
            }
        })?;
        Ok(disk)
    }
}

/// What is wrong with a disk's `model`.
enum ModelError {
    /// In the scenario file, at the key or word that the message names.
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
