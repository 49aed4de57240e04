//! Where the numbers come from: CPU, memory, kernel, file system, disk, and what one small sync costs there.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use detkv_reports::bench::{FsyncProbe, Machine};

/// File systems that keep nothing on a disk (`statfs(2)`).
const TMPFS_MAGIC: i64 = 0x0102_1994;
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// Writes of the probe: enough for a p99, under a second on an SSD.
const PROBE_WRITES: u64 = 400;
const PROBE_BYTES: usize = 4096;

/// Reads the facts; what cannot be found out reads `unknown`, never guessed.
pub fn facts(data_root: &Path) -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let canonical = data_root.canonicalize().unwrap_or_else(|_| data_root.to_owned());
    let (filesystem, source) = mount_of(&mounts, &canonical).unwrap_or_default();
    Machine {
        cpu: cpu_model(&cpuinfo).unwrap_or_else(unknown),
        cores: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory_bytes: total_memory_bytes(&meminfo).unwrap_or(0),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
        filesystem: if filesystem.is_empty() { unknown() } else { filesystem },
        disk: disk(&source, &canonical),
        load_average: load_average(),
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// Load average over one minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn total_memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// File system and source of the mount that holds `path`: the longest mount point that is a prefix of it.
///
/// Source: proc_pid_mountinfo(5); fields up to a lone `-`, then type and source.
fn mount_of(mountinfo: &str, path: &Path) -> Option<(String, String)> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let point = left.split(' ').nth(4)?.replace("\\040", " ");
            let mut right = right.split(' ');
            let (kind, source) = (right.next()?.to_owned(), right.next()?.to_owned());
            path.starts_with(&point).then_some((point.len(), kind, source))
        })
        // Of equal ones the last mounted hides the others.
        .max_by_key(|(length, _, _)| *length)
        .map(|(_, kind, source)| (kind, source))
}

/// `/dev/vda (virtio, rotational 0)`: the device as the kernel knows it.
fn disk(source: &str, path: &Path) -> String {
    let Ok(metadata) = fs::metadata(path) else {
        return unknown();
    };
    let device = metadata.dev();
    let (major, minor) = (libc::major(device), libc::minor(device));
    let mut block = Path::new("/sys/dev/block").join(format!("{major}:{minor}"));
    if !block.join("queue").exists() {
        // A partition: its disk is the directory above.
        block =
            block.canonicalize().ok().and_then(|p| Some(p.parent()?.to_owned())).unwrap_or(block);
    }
    let read =
        |name: &str| fs::read_to_string(block.join(name)).ok().map(|text| text.trim().to_owned());
    let mut facts = Vec::new();
    facts.extend(read("device/model").filter(|model| !model.is_empty()));
    facts.extend(
        read("queue/rotational")
            .map(|r| if r == "0" { "not rotational".to_owned() } else { "rotational".to_owned() }),
    );
    facts.extend(read("queue/write_cache"));
    let source = if source.is_empty() { "unknown" } else { source };
    if facts.is_empty() { source.to_owned() } else { format!("{source} ({})", facts.join(", ")) }
}

/// Refuses a directory in memory: a sync there costs nothing, and the table would be a lie.
pub fn refuse_memory_filesystem(dir: &Path) -> Result<()> {
    let path = CString::new(dir.as_os_str().as_bytes()).context("the data root has a zero byte")?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` is a valid C string and `stat` is large enough for what statfs writes.
    let result = unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        return Err(error).with_context(|| format!("statfs of {}", dir.display()));
    }
    // SAFETY: statfs returned 0, so it filled `stat`.
    let kind = unsafe { stat.assume_init() }.f_type;
    if kind == TMPFS_MAGIC || kind == RAMFS_MAGIC {
        bail!(
            "{} is in memory (tmpfs): fsync costs nothing there. Choose a directory on a disk with --data-root, \
             or say --allow-tmpfs",
            dir.display()
        );
    }
    Ok(())
}

/// Writes 4 KiB and syncs, one at a time, into blocks that are already allocated, as a WAL does.
pub fn probe_fsync(dir: &Path) -> Result<FsyncProbe> {
    let path = dir.join("fsync-probe");
    let result = probe_file(&path).with_context(|| format!("fsync probe in {}", dir.display()));
    // The probe's numbers stand even if its file cannot be removed; the whole directory goes later.
    let _ = fs::remove_file(&path);
    result
}

fn probe_file(path: &Path) -> Result<FsyncProbe> {
    let file: File = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    let block = [0x5a; PROBE_BYTES];
    for i in 0..PROBE_WRITES {
        file.write_all_at(&block, i * PROBE_BYTES as u64)?;
    }
    file.sync_all()?;
    let mut latency = crate::stats::latency_histogram();
    for i in 0..PROBE_WRITES {
        let start = Instant::now();
        file.write_all_at(&block, i * PROBE_BYTES as u64)?;
        file.sync_data()?;
        latency.saturating_record(start.elapsed().as_micros() as u64);
    }
    Ok(FsyncProbe {
        writes: PROBE_WRITES,
        p50_us: latency.value_at_quantile(0.50),
        p99_us: latency.value_at_quantile(0.99),
        max_us: latency.max(),
    })
}

/// The day in UTC, `2026-11-22`.
pub fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let (year, month, day) = civil_date(since.map_or(0, |d| d.as_secs() / 86_400) as i64);
    format!("{year}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970-01-01, by counting in 400-year eras from 0000-03-01.
fn civil_date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_from_proc_texts() {
        assert_eq!(
            cpu_model("processor : 0\nmodel name\t: Some CPU @ 2.1GHz\n").as_deref(),
            Some("Some CPU @ 2.1GHz")
        );
        assert_eq!(total_memory_bytes("MemTotal:       1024 kB\nMemFree: 1 kB"), Some(1 << 20));
        assert_eq!(cpu_model(""), None);
        assert_eq!(total_memory_bytes("MemTotal: many"), None);
    }

    #[test]
    fn the_longest_mount_point_wins() {
        let mounts = "22 1 254:0 / / rw - ext4 /dev/vda rw\n\
                      30 22 0:26 / /tmp rw shared:3 - tmpfs tmpfs rw\n\
                      31 22 8:1 / /srv/my\\040data rw - xfs /dev/sda1 rw\n\
                      garbage";
        let of = |path| mount_of(mounts, Path::new(path)).map(|(kind, _)| kind);
        assert_eq!(of("/home/x").as_deref(), Some("ext4"));
        assert_eq!(of("/tmp/x").as_deref(), Some("tmpfs"));
        assert_eq!(of("/tmpx").as_deref(), Some("ext4"));
        assert_eq!(of("/srv/my data/y").as_deref(), Some("xfs"));
        assert_eq!(mount_of("", Path::new("/")), None);
    }

    #[test]
    fn the_date_is_right_around_leap_days() {
        assert_eq!(civil_date(0), (1970, 1, 1));
        assert_eq!(civil_date(11_016), (2000, 2, 29));
        assert_eq!(civil_date(11_017), (2000, 3, 1));
        assert_eq!(civil_date(20_779), (2026, 11, 22));
    }

    #[test]
    fn the_probe_measures_and_leaves_nothing_behind() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let probe = probe_fsync(dir.path()).expect("the probe runs");
        assert!(probe.p50_us <= probe.p99_us && probe.p99_us <= probe.max_us);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
    }
}
