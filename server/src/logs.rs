//! One line per event: JSON as etcd writes it (surface spec §15), or text with `--log-format=console`.
//!
//! A line is written whole, with one call, under a lock. A log that cannot be written is dropped:
//! it must not take the member down.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::panic::Location;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use detkv_core::{Level, LogLine};
use parking_lot::Mutex;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    Json,
    Console,
}

/// Lines below this are not written. `fatal` lines always are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        }
    }
}

impl From<Level> for Severity {
    fn from(level: Level) -> Self {
        match level {
            Level::Debug => Severity::Debug,
            Level::Info => Severity::Info,
            Level::Warn => Severity::Warn,
            Level::Error => Severity::Error,
        }
    }
}

/// Where lines go, from `--log-outputs`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    Stderr,
    Stdout,
    File(std::path::PathBuf),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    pub format: Format,
    pub lowest: Severity,
    pub outputs: Vec<Output>,
}

enum Sink {
    Stderr,
    Stdout,
    File(File),
}

struct Logger {
    format: Format,
    lowest: Severity,
    sinks: Mutex<Vec<Sink>>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Opens the outputs. Lines before this go to stderr as JSON. Call once.
///
/// Errors: a log file that cannot be opened.
pub fn init(options: &Options) -> Result<(), String> {
    let mut sinks = Vec::new();
    for output in &options.outputs {
        sinks.push(match output {
            Output::Stderr => Sink::Stderr,
            Output::Stdout => Sink::Stdout,
            Output::File(path) => Sink::File(
                OpenOptions::new()
                    .create(true)
                    .append(true)
                    .open(path)
                    .map_err(|e| format!("--log-outputs: {}: {e}", path.display()))?,
            ),
        });
    }
    let logger =
        Logger { format: options.format, lowest: options.lowest, sinks: Mutex::new(sinks) };
    assert!(LOGGER.set(logger).is_ok(), "logging is set up once");
    Ok(())
}

/// Name and value of a field; values are written as strings.
pub type Field<'a> = (&'a str, String);

#[track_caller]
pub fn debug(msg: &str, fields: &[Field<'_>]) {
    write(Severity::Debug, &caller(Location::caller()), msg, fields);
}

#[track_caller]
pub fn info(msg: &str, fields: &[Field<'_>]) {
    write(Severity::Info, &caller(Location::caller()), msg, fields);
}

#[track_caller]
pub fn warn(msg: &str, fields: &[Field<'_>]) {
    write(Severity::Warn, &caller(Location::caller()), msg, fields);
}

#[track_caller]
pub fn error(msg: &str, fields: &[Field<'_>]) {
    write(Severity::Error, &caller(Location::caller()), msg, fields);
}

/// The process is about to end because of this. Always written.
#[track_caller]
pub fn fatal(msg: &str, fields: &[Field<'_>]) {
    write(Severity::Fatal, &caller(Location::caller()), msg, fields);
}

/// A line of core's, as it is.
pub fn core_line(line: &LogLine) {
    write(line.level.into(), "core/member.rs", &line.msg, &line.fields);
}

/// `server/src/driver.rs` line 7 is written `server/driver.rs:7`, as etcd shortens paths.
fn caller(location: &Location<'_>) -> String {
    format!("{}:{}", location.file().replace("/src/", "/"), location.line())
}

fn write(severity: Severity, caller: &str, msg: &str, fields: &[Field<'_>]) {
    let logger = LOGGER.get();
    let (format, lowest) =
        logger.map_or((Format::Json, Severity::Info), |logger| (logger.format, logger.lowest));
    if severity < lowest {
        return;
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ts = timestamp(since_epoch.as_secs(), since_epoch.subsec_micros());
    let line = match format {
        Format::Json => json_line(severity, &ts, caller, msg, fields),
        Format::Console => console_line(severity, &ts, caller, msg, fields),
    };
    match logger {
        None => drop(std::io::stderr().write_all(line.as_bytes())),
        Some(logger) => {
            for sink in logger.sinks.lock().iter_mut() {
                let _ = match sink {
                    Sink::Stderr => std::io::stderr().write_all(line.as_bytes()),
                    Sink::Stdout => std::io::stdout().write_all(line.as_bytes()),
                    Sink::File(file) => file.write_all(line.as_bytes()),
                };
            }
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

fn json_line(
    severity: Severity,
    ts: &str,
    caller: &str,
    msg: &str,
    fields: &[Field<'_>],
) -> String {
    let mut line = format!(
        r#"{{"level":"{}","ts":"{ts}","caller":{},"msg":{}"#,
        severity.name(),
        quoted(caller),
        quoted(msg)
    );
    for (name, value) in fields {
        let _ = write!(line, ",{}:{}", quoted(name), quoted(value));
    }
    line.push_str("}\n");
    line
}

fn console_line(
    severity: Severity,
    ts: &str,
    caller: &str,
    msg: &str,
    fields: &[Field<'_>],
) -> String {
    let mut line = format!("{ts}\t{}\t{caller}\t{msg}", severity.name());
    for (n, (name, value)) in fields.iter().enumerate() {
        let separator = if n == 0 { "\t{" } else { ", " };
        let _ = write!(line, "{separator}{}: {}", quoted(name), quoted(value));
    }
    if !fields.is_empty() {
        line.push('}');
    }
    line.push('\n');
    line
}

/// `2006-01-02T15:04:05.000000Z`, in UTC.
fn timestamp(unix_secs: u64, micros: u32) -> String {
    let (days, secs) = (unix_secs / 86_400, unix_secs % 86_400);
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Gregorian year, month, day of a day counted from 1970-01-01.
///
/// Counts from 1 March of year 0, so that a leap day is the last of its year; an era is 400 years.
fn civil_from_days(days_since_1970: u64) -> (u64, u64, u64) {
    const DAYS_TO_1970_FROM_MARCH_0: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days_since_1970 + DAYS_TO_1970_FROM_MARCH_0;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_utc_with_six_decimals() {
        assert_eq!(timestamp(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(951_782_400, 1), "2000-02-29T00:00:00.000001Z");
        assert_eq!(timestamp(1_709_251_199, 999_999), "2024-02-29T23:59:59.999999Z");
        assert_eq!(timestamp(4_107_542_400, 5), "2100-03-01T00:00:00.000005Z");
    }

    #[test]
    fn a_json_line_survives_any_text() {
        let line =
            json_line(Severity::Warn, "T", "f.rs:1", "a \"b\"\n", &[("k", "\u{1}é".to_owned())]);
        let value: serde_json::Value = serde_json::from_str(&line).expect("valid JSON");
        assert_eq!(value["level"], "warn");
        assert_eq!(value["msg"], "a \"b\"\n");
        assert_eq!(value["k"], "\u{1}é");
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_console_line_has_its_fields_in_braces() {
        let fields = [("a", "1".to_owned()), ("b", "2".to_owned())];
        assert_eq!(
            console_line(Severity::Info, "T", "f.rs:1", "hello", &fields),
            "T\tinfo\tf.rs:1\thello\t{\"a\": \"1\", \"b\": \"2\"}\n"
        );
    }
}
