//! The table on the terminal.

use detkv_reports::bench::{BenchReport, BenchRow, Ratio, Stat, StoreResult};

/// Machine, probe and stores: printed before anything is measured.
pub fn head(report: &BenchReport) -> String {
    let machine = &report.machine;
    let probe = &report.fsync_probe;
    let mut out = format!(
        "cpu      {} · {} cores · {:.1} GiB · kernel {} · load {:.2}\n\
         disk     {} on {}\n\
         fsync    write 4 KiB + fdatasync: p50 {} p99 {} worst {} ({} writes)\n",
        machine.cpu,
        machine.cores,
        machine.memory_bytes as f64 / 1_073_741_824.0,
        machine.kernel,
        machine.load_average,
        machine.filesystem,
        machine.disk,
        micros(probe.p50_us as f64),
        micros(probe.p99_us as f64),
        micros(probe.max_us as f64),
        probe.writes,
    );
    for store in &report.stores {
        out.push_str(&format!("store    {}: {} ({})\n", store.label, store.version, store.path));
    }
    out.push_str(&format!(
        "method   {} visits to each store in turn, {} s per row after {} s of warm-up, {} client threads\n",
        report.repeats, report.seconds, report.warm_up_seconds, report.client_threads
    ));
    out
}

/// One block per row: a line per store, a line per ratio.
pub fn rows(report: &BenchReport) -> String {
    let width = report.stores.iter().map(|store| store.label.chars().count()).max().unwrap_or(0);
    let width = width.max("row".len());
    let mut out = format!(
        "\n{:width$}  {:>18}  {:>18}  {:>18}  {:>11}  {:>11}  {:>10}\n",
        "", "op/s", "p50", "p99", "server CPU", "client CPU", "disk bytes"
    );
    out.push_str(&format!(
        "{:width$}  {:>18}  {:>18}  {:>18}  {:>11}  {:>11}  {:>10}\n",
        "", "", "", "", "s/1000 op", "s/1000 op", "/payload"
    ));
    for row in &report.rows {
        out.push_str(&format!("\n{}   [{}]\n", row.title, row.name));
        for (store, result) in report.stores.iter().zip(&row.results) {
            out.push_str(&line(&store.label, width, result));
        }
        out.push_str(&ratio_lines(report, row));
    }
    out
}

fn line(label: &str, width: usize, result: &StoreResult) -> String {
    let mut out = format!(
        "{label:width$}  {:>18}  {:>18}  {:>18}  {:>11.4}  {:>11.4}  {:>10}\n",
        spread(result.ops_per_sec, count),
        spread(result.p50_us, micros),
        spread(result.p99_us, micros),
        result.server_cpu_secs_per_1000.median,
        result.client_cpu_secs_per_1000.median,
        result.write_amplification.map_or("–".into(), |stat| format!("{:.1}", stat.median)),
    );
    if result.errors > 0 {
        let example = result.error_example.as_deref().unwrap_or("no message");
        out.push_str(&format!("{:width$}  ! {} operations failed: {example}\n", "", result.errors));
    }
    out
}

fn ratio_lines(report: &BenchReport, row: &BenchRow) -> String {
    let ours = report.stores.first().map_or("", |store| store.label.as_str());
    row.ratios
        .iter()
        .map(|ratios| {
            let bytes = ratios
                .write_amplification
                .map_or(String::new(), |ratio| format!(", disk bytes {}", times(ratio)));
            format!(
                "  {ours} / {}: throughput {}, p50 {}, p99 {}, server CPU {}{bytes}\n",
                ratios.against,
                times(ratios.ops_per_sec),
                times(ratios.p50_us),
                times(ratios.p99_us),
                times(ratios.server_cpu)
            )
        })
        .collect()
}

fn times(ratio: Ratio) -> String {
    match ratio.spread {
        Some(spread) => format!("{:.2} ± {spread:.2}", ratio.value),
        None => format!("{:.2}", ratio.value),
    }
}

/// Median ± standard deviation, both in the unit that `show` gives the median.
fn spread(stat: Stat, show: fn(f64) -> String) -> String {
    match stat.sd {
        Some(sd) => format!("{} ± {}", show(stat.median), show(sd)),
        None => show(stat.median),
    }
}

fn count(value: f64) -> String {
    match value {
        v if v >= 10_000.0 => format!("{:.1}k", v / 1e3),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}

fn micros(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0}µs"),
        us if us < 100_000.0 => format!("{:.2}ms", us / 1e3),
        us => format!("{:.0}ms", us / 1e3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_or_so() {
        assert_eq!(count(11_340.0), "11.3k");
        assert_eq!(count(842.4), "842");
        assert_eq!(micros(950.0), "950µs");
        assert_eq!(micros(1420.0), "1.42ms");
        assert_eq!(micros(1_420_000.0), "1420ms");
        let stat = Stat { median: 2000.0, min: 0.0, max: 0.0, sd: Some(10.0) };
        assert_eq!(spread(stat, micros), "2.00ms ± 10µs");
    }
}
