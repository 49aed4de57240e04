//! `table`, `baseline` and `incidents`: figures of many runs, beside each other or beside what they were.

use std::ops::Range;
use std::path::Path;

use super::{End, Failure, job, this_binary, write_file, write_json};
use crate::library::{self, Source};
use crate::{baseline, incidents, table};

pub fn table(
    named: &[String],
    seeds: Range<u64>,
    parallel: usize,
    page: &Path,
    json: Option<&Path>,
) -> Result<End, Failure> {
    let failure_modes = table::FAILURE_MODES.map(str::to_owned);
    let scenarios = if named.is_empty() { &failure_modes } else { named };
    let sources: anyhow::Result<Vec<Source>> =
        scenarios.iter().map(|name| library::find(name, &[])).collect();
    let sources = sources.map_err(Failure::Usage)?;
    let names: String = named.iter().map(|name| format!(" {name}")).collect();
    let Range { start, end } = seeds;
    let again =
        format!("cargo run --release --bin detkv-sim -- table{names} --seeds {start}..{end}");
    let report = table::run(&this_binary()?, &sources, seeds, parallel, job, again);
    table::lines(&report).iter().for_each(|line| println!("{line}"));
    write_file(page, detkv_reports::table::table_page(&report).as_bytes())?;
    println!("page {}", page.display());
    if let Some(path) = json {
        write_json(path, &report)?;
        println!("figures {}", path.display());
    }
    println!("{} runs failed, {} s of wall time", report.failed(), report.wall_ms / 1000);
    println!("again: {}", report.reproduce);
    Ok(if report.failed() == 0 { End::Pass } else { End::Fail })
}

pub fn baseline(folder: &Path, update: bool, parallel: usize) -> anyhow::Result<End> {
    let compared = baseline::run(&this_binary()?, folder, update, parallel, job)?;
    let mut moved = 0;
    for one in &compared {
        println!("{}: {} figures, {} moved", one.scenario, one.figures, one.differences.len());
        one.differences.iter().for_each(|line| println!("  {line}"));
        moved += one.differences.len();
    }
    if moved > 0 && !update {
        println!("if that is meant: cargo run --release --bin detkv-sim -- baseline --update");
        return Ok(End::Fail);
    }
    Ok(End::Pass)
}

pub fn incidents(
    hours: u64,
    parallel: usize,
    page: &Path,
    json: Option<&Path>,
) -> anyhow::Result<End> {
    println!("{hours} virtual hours each, {parallel} processes at a time");
    let again = format!("cargo run --release --bin detkv-sim -- incidents --hours {hours}");
    let report = incidents::run(&this_binary()?, hours, parallel, job, again)?;
    incidents::table(&report).iter().for_each(|line| println!("{line}"));
    write_file(page, detkv_reports::incidents::incidents_page(&report).as_bytes())?;
    println!("page {}", page.display());
    if let Some(path) = json {
        write_json(path, &report)?;
        println!("figures {}", path.display());
    }
    println!("again: {}", report.reproduce);
    Ok(if report.rows.iter().all(|row| row.failures.is_empty()) { End::Pass } else { End::Fail })
}
