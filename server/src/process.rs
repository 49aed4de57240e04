//! What dashboards draw about the process itself, under the names of Prometheus' Go client: from /proc,
//! absent where that does not say.

use prometheus::core::Collector as _;
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

use crate::metrics::{gauge, help};

/// USER_HZ: fixed by Linux' interface, whatever the kernel's own tick is.
const TICKS_PER_SEC: f64 = 100.0;

pub fn families() -> Vec<MetricFamily> {
    let mut families = Vec::new();
    let mut add = |name: &str, value: Option<u64>| {
        families.extend(value.into_iter().flat_map(|value| gauge(name, value).collect()));
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let status = read("/proc/self/status");
    add("process_resident_memory_bytes", kib(&status, "VmRSS:"));
    add("process_virtual_memory_bytes", kib(&status, "VmSize:"));
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
    let limit = files_max(&read("/proc/self/limits"));
    add("process_open_fds", open);
    add("os_fd_used", open);
    add("process_max_fds", limit);
    add("os_fd_limit", limit);
    let stat = read("/proc/self/stat");
    if let Some((cpu_secs, started_secs)) = times(&stat, &read("/proc/stat")) {
        let cpu = Counter::new("process_cpu_seconds_total", help("process_cpu_seconds_total"));
        let cpu = cpu.expect("a valid counter name");
        cpu.inc_by(cpu_secs);
        families.extend(cpu.collect());
        let started = Gauge::new("process_start_time_seconds", help("process_start_time_seconds"));
        let started = started.expect("a valid gauge name");
        started.set(started_secs);
        families.extend(started.collect());
    }
    families
}

/// A line of /proc/self/status, in bytes.
fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The soft limit of /proc/self/limits.
fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// CPU time used, and when the process began, since 1970; both in seconds.
fn times(own: &str, system: &str) -> Option<(f64, f64)> {
    // The second field is a name in parentheses that may hold blanks; utime is the 14th.
    let fields: Vec<&str> = own.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |n: usize| fields.get(n - 3)?.parse::<u64>().ok();
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    let cpu_ticks = ticks(14)? + ticks(15)?;
    Some((cpu_ticks as f64 / TICKS_PER_SEC, boot as f64 + ticks(22)? as f64 / TICKS_PER_SEC))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procs_files_are_read() {
        assert_eq!(kib("VmSize:\t  20 kB\nVmRSS:\t    12 kB\n", "VmRSS:"), Some(12 << 10));
        let limits = "Max processes             5   5   processes\n\
                      Max open files            1024                 4096                 files\n";
        assert_eq!(files_max(limits), Some(1024));
        let own = "7 (a b) c) S 1 7 7 0 -1 4 9 0 0 0 150 50 0 0 20 0 5 0 3000 9 9";
        assert_eq!(times(own, "cpu 1\nbtime 1000\n"), Some((2.0, 1030.0)));
        assert_eq!(times("", ""), None);
    }
}
