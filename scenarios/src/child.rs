//! One OS process per seed: the runner starts itself again as a child, with everything that could leak into
//! a run nailed down, or on the contrary shaken (rules 25).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use detkv_sim_world::TraceOptions;
use detkv_sim_world::trace::write_json_lines;
use serde::{Deserialize, Serialize};

use crate::history_files;
use crate::report::{ChildReport, report};
use crate::run::run;
use crate::scenario::{Profile, Scenario};
use crate::zoo;

/// The hidden subcommand of a child: it reads a [`Job`] in JSON from standard input. (An argument of a process
/// is at most 128 KiB long, a file of syncs may be longer.)
pub const SUBCOMMAND: &str = "child";

/// One run, as the parent orders it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// As the user named the scenario.
    pub scenario: String,
    /// The file's path for errors, and its text: a child opens no scenario file.
    pub path: String,
    pub text: String,
    /// The scenario's name, and the files that it names, with their text.
    pub name: String,
    pub files: BTreeMap<String, String>,
    pub seed: u64,
    pub profile: Profile,
    /// Send the timeline too.
    pub with_timeline: bool,
    /// Where to write the decision trace.
    pub trace_file: Option<PathBuf>,
    /// Where to write the history for outside validators.
    #[serde(default)]
    pub history_dir: Option<PathBuf>,
    /// Numbers of the events to record in full.
    pub full: Range<u64>,
    pub surroundings: Surroundings,
    /// The child is ended when it takes longer; 0 is no limit.
    pub wall_secs_max: u32,
    /// A leak planted in the run, by name (`zoo`).
    pub leak: Option<String>,
}

/// What is around a child process.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Surroundings {
    /// For replay: no address randomisation, empty environment, working directory `/`.
    Plain,
    /// To find leaks: randomisation on, a large environment, a shifted heap, another working directory, and
    /// another run before it in the same process.
    Shaken,
}

impl Job {
    /// The line that repeats this run.
    pub fn reproduce(&self) -> String {
        let Self { scenario, seed, profile, .. } = self;
        format!(
            "cargo run --release --bin detkv-sim -- run {scenario} --seed {seed} --profile {profile}"
        )
    }

    pub fn is_randomised(&self) -> bool {
        // SAFETY: asks for the current personality and changes nothing.
        let personality = unsafe { libc::personality(0xffff_ffff) };
        personality & libc::ADDR_NO_RANDOMIZE == 0
    }
}

/// Runs a job in a child process of `binary`.
///
/// Errors: the child did not come to a report; says how it ended.
pub fn spawn(binary: &Path, job: &Job) -> anyhow::Result<ChildReport> {
    let mut command = Command::new(binary);
    command.arg(SUBCOMMAND);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_clear().env("TZ", "UTC");
    // Pages given back to the system come back zeroed: a tenth of a run's time. It ends soon.
    command.env("MIMALLOC_PURGE_DELAY", "-1");
    match job.surroundings {
        Surroundings::Plain => {
            command.current_dir("/");
            let fix_addresses = || {
                // A refusal (some containers) is reported by the child, not an error.
                // SAFETY: one system call, allowed between fork and exec.
                unsafe { libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) };
                Ok(())
            };
            // SAFETY: the closure does nothing but that system call.
            unsafe { command.pre_exec(fix_addresses) };
        }
        Surroundings::Shaken => {
            let free_addresses = || {
                // This process may itself have been started without randomisation.
                // SAFETY: one system call, allowed between fork and exec.
                unsafe { libc::personality(0) };
                Ok(())
            };
            // SAFETY: the closure does nothing but that system call.
            unsafe { command.pre_exec(free_addresses) };
            command.current_dir(std::env::temp_dir());
            for n in 0..64 {
                command.env(format!("DETKV_SHAKE_{n}"), "x".repeat(100 + 7 * n));
            }
        }
    }
    let mut child =
        command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
    let mut stdin = child.stdin.take().expect("it is piped");
    // It reads all of it before it says anything. One that has ended says why in its status.
    let _ = stdin.write_all(&serde_json::to_vec(job)?);
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let how = match (output.status.code(), output.status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("signal {signal}"),
            (None, None) => "no status".to_owned(),
        };
        bail!("seed {} crashed with {how}: {}\n  {}", job.seed, said.trim(), job.reproduce());
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| anyhow!("seed {}: the child's report is cut off: {error}", job.seed))
}

/// The child's side: runs the job on standard input and prints its report.
pub fn child_main() -> anyhow::Result<()> {
    let job: Job =
        serde_json::from_reader(std::io::stdin().lock()).context("the job of a child")?;
    // SAFETY: only sets a timer; its signal ends the process.
    unsafe { libc::alarm(job.wall_secs_max) };
    let is_shaken = job.surroundings == Surroundings::Shaken;
    let _shift = is_shaken.then(shift_heap);
    let read = |file: &str| job.files.get(file).cloned().ok_or_else(|| "not handed on".to_owned());
    let scenario = Scenario::parse(&job.name, &job.path, &job.text, &read)?;
    let leak = match &job.leak {
        Some(name) => Some(zoo::find(name).with_context(|| format!("no leak {name}"))?),
        None => None,
    };
    if is_shaken {
        earlier_run(&scenario, &job, leak);
    }
    let costs = scenario
        .show
        .iter()
        .any(|name| name.starts_with("wal_fsyncs") || name.starts_with("leader_syncs"));
    let trace = TraceOptions {
        full: job.full.clone(),
        decisions: job.trace_file.is_some(),
        draws: job.trace_file.is_some(),
        syncs: job.with_timeline || costs,
        requests: job.history_dir.is_some(),
        ..TraceOptions::default()
    };
    let started = Instant::now();
    let finished = run(&scenario, job.seed, job.profile, trace, leak);
    let wall = started.elapsed();
    if let Some(path) = &job.trace_file {
        let file = fs::File::create(path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = BufWriter::new(file);
        write_json_lines(&finished.outcome.decisions, &mut out)?;
        out.flush()?;
    }
    if let Some(folder) = &job.history_dir {
        history_files::write(&finished.outcome.history, folder)?;
    }
    let report = report(&scenario, &job, &finished, wall);
    let mut out = BufWriter::new(std::io::stdout().lock());
    serde_json::to_writer(&mut out, &report)?;
    out.flush()?;
    Ok(())
}

/// Another run of the process before the one that counts: what it leaves in statics and thread-locals must not
/// matter.
fn earlier_run(scenario: &Scenario, job: &Job, leak: Option<&'static zoo::Leak>) {
    let short = Scenario {
        warm_up: Duration::ZERO,
        duration: Duration::from_millis(300),
        faults: Vec::new(),
        ..scenario.clone()
    };
    run(&short, job.seed ^ 1, job.profile, TraceOptions::default(), leak);
}

/// Blocks of odd sizes that stay allocated: later allocations lie elsewhere.
fn shift_heap() -> Vec<Vec<u8>> {
    (0..257).map(|n| vec![0; 1 + n * 37]).collect()
}

/// `slow-disk` of `slow-disk` and of `some/where/slow-disk.toml`.
pub fn scenario_name(scenario: &str) -> String {
    let stem = Path::new(scenario).file_stem().and_then(|stem| stem.to_str());
    stem.filter(|_| scenario.ends_with(".toml")).unwrap_or(scenario).to_owned()
}
