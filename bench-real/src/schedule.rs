//! The order of a bench: each store in turn, visit after visit (A B A B), every row at every visit.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use detkv_reports::bench::{BenchRow, Repeat};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use crate::load::{self, Measured, Window};
use crate::peers::{Peers, Program};
use crate::rows::{Operation, Row};
use crate::stats;

/// Wait between rows, so that one row's backend writes and garbage do not fall into the next one.
const SETTLE: Duration = Duration::from_millis(500);

/// What to run and how long.
#[derive(Debug, Clone)]
pub struct Plan {
    pub programs: Vec<Program>,
    pub rows: Vec<Row>,
    pub repeats: usize,
    pub warm_up: Duration,
    pub measured: Duration,
    pub threads: usize,
    /// Below it each visit has a directory of its own, removed when the visit ends.
    pub data_dir: PathBuf,
}

/// Measurements of one row on one store.
#[derive(Debug, Default)]
struct Cell {
    repeats: Vec<Repeat>,
    error_example: Option<String>,
}

/// Runs the plan. Errors: a store that does not start or dies; a row in which nothing succeeded is no error,
/// its errors are in its result.
pub async fn run(plan: &Plan) -> Result<Vec<BenchRow>> {
    let mut cells: Vec<Vec<Cell>> =
        plan.rows.iter().map(|_| plan.programs.iter().map(|_| Cell::default()).collect()).collect();
    let bar = progress_bar((plan.repeats * plan.programs.len() * plan.rows.len()) as u64);
    for repeat in 0..plan.repeats {
        for (store, program) in plan.programs.iter().enumerate() {
            bar.set_message(format!("{}: starting three members", program.label));
            let dir = plan.data_dir.join(format!("visit{repeat}-store{store}"));
            let mut peers = Peers::start(program, &dir)
                .await
                .with_context(|| format!("{} does not start", program.label))?;
            load::preload(&peers.client_addrs()[0]).await?;
            for (row, cells) in plan.rows.iter().zip(&mut cells) {
                bar.set_message(format!("{}: {}", program.label, row.title()));
                tokio::time::sleep(SETTLE).await;
                let (repeat, error) = visit(plan, row, &mut peers)
                    .await
                    .with_context(|| format!("{}, row {}", program.label, row.name()))?;
                cells[store].repeats.push(repeat);
                cells[store].error_example = cells[store].error_example.take().or(error);
                bar.inc(1);
            }
        }
    }
    bar.finish_and_clear();
    Ok(plan.rows.iter().zip(cells).map(|(row, cells)| summarise(plan, row, cells)).collect())
}

fn progress_bar(steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed}<{eta} {msg}")
        .expect("the template is a valid constant");
    let bar = ProgressBar::new(steps).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

/// One row on one running store.
async fn visit(plan: &Plan, row: &Row, peers: &mut Peers) -> Result<(Repeat, Option<String>)> {
    let leader = peers.leader().await?.context("the members disagree about their leader")?;
    let shares = load::shares(row, &peers.client_addrs(), leader, plan.threads);
    let window = Arc::new(OnceLock::new());
    let (connected, mut all_connected) = mpsc::unbounded_channel();
    let count = shares.len();
    let threads: Vec<_> = shares
        .into_iter()
        .map(|share| {
            let (window, connected) = (window.clone(), connected.clone());
            let ready = move || {
                // Nobody listens any more when the bench was interrupted; then nothing waits for this either.
                let _ = connected.send(());
            };
            tokio::task::spawn_blocking(move || load::run_share(&share, ready, &window))
        })
        .collect();
    for _ in 0..count {
        all_connected.recv().await;
    }
    let times = Window::begin(plan.warm_up, plan.measured);
    window.set(times).expect("only this function sets it");

    tokio::time::sleep_until(times.from.into()).await;
    let (before, own_before) = (peers.usage()?, own_cpu_secs());
    tokio::time::sleep_until(times.until.into()).await;
    let (after, own_after) = (peers.usage()?, own_cpu_secs());

    let mut total = Measured::new();
    for thread in threads {
        total.add(&thread.await.context("a load thread panicked")??);
    }
    peers.check_alive()?;
    let written = after.written_bytes.zip(before.written_bytes).map(|(a, b)| a.saturating_sub(b));
    let latency = &total.latency;
    let repeat = Repeat {
        ops: latency.len(),
        errors: total.errors,
        seconds: plan.measured.as_secs_f64(),
        p50_us: latency.value_at_quantile(0.50),
        p99_us: latency.value_at_quantile(0.99),
        p999_us: latency.value_at_quantile(0.999),
        max_us: latency.max(),
        server_cpu_secs: after.cpu_secs - before.cpu_secs,
        client_cpu_secs: own_after - own_before,
        written_bytes: written.filter(|_| row.operation == Operation::Put),
    };
    Ok((repeat, total.error_example))
}

/// User and system time of this process.
fn own_cpu_secs() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: getrusage fills the struct it is given; it cannot fail for RUSAGE_SELF and a valid pointer.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let secs = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    secs(usage.ru_utime) + secs(usage.ru_stime)
}

fn summarise(plan: &Plan, row: &Row, cells: Vec<Cell>) -> BenchRow {
    let payload_bytes = row.payload_bytes();
    let ratios = cells
        .iter()
        .zip(&plan.programs)
        .skip(1)
        .filter_map(|(theirs, program)| {
            stats::ratios(&cells[0].repeats, &theirs.repeats, &program.label, payload_bytes)
        })
        .collect();
    BenchRow {
        name: row.name(),
        title: row.title(),
        clients: row.clients as u64,
        connections: row.connections as u64,
        payload_bytes,
        ratios,
        results: cells
            .into_iter()
            .map(|cell| stats::store_result(cell.repeats, payload_bytes, cell.error_example))
            .collect(),
    }
}

/// A directory for one run of the bench below `root`; removed when dropped, with whatever is left in it.
pub struct DataDir(PathBuf);

impl DataDir {
    pub fn create(root: &Path) -> Result<Self> {
        let dir = root.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&dir)
            .with_context(|| format!("cannot create {}", dir.display()))?;
        Ok(Self(dir))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
