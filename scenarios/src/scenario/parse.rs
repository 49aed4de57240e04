//! The text of a file becomes a scenario, or an error that points at the place.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use detkv_sim_world::MemberVersion;
use detkv_sim_world::clock::ClockModel;
use detkv_sim_world::cpu::CpuModel;
use detkv_sim_world::disk::DiskModel;
use detkv_sim_world::net::NetModel;
use detkv_sim_world::prometheus::ParseError;
use serde::Deserialize;
use toml::{Spanned, Table};

use super::fault::fault_plan;
use super::workload::check_workload;
use super::{Profile, ReadFile, Scenario, from_entry};
use crate::expect::Expect;
use crate::figures;
use crate::options::MembersOptions;
use crate::place::{ScenarioError, error_at, find_cause};

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
