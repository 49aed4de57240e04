//! Reading a histogram from Prometheus' text format, as a server's `/metrics` shows it.
//!
//! ```text
//! etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} 17
//! etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} 19
//! etcd_disk_wal_fsync_duration_seconds_sum 0.031
//! etcd_disk_wal_fsync_duration_seconds_count 19
//! ```
//! A whole `/metrics` page will do: other metrics are passed over.

use std::fmt;

/// What is looked for among several histograms.
const WAL_FSYNC: &str = "etcd_disk_wal_fsync_duration_seconds";

/// Observed durations, in nanoseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Histogram {
    /// By rising bound; the last one is open. Invariant: at least one observation.
    pub buckets: Vec<Bucket>,
    /// Sum of all observations; not every record has it.
    pub sum_ns: Option<u128>,
}

/// Observations above the bound before and at most `upper_ns`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bucket {
    /// `None`: `+Inf`.
    pub upper_ns: Option<u64>,
    pub count: u64,
}

/// A mistake in a file, by its line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

impl std::error::Error for ParseError {}

/// One line of the file.
struct Sample<'t> {
    line: usize,
    /// Without `_bucket`, `_sum` or `_count`.
    metric: &'t str,
    part: Part<'t>,
    value: f64,
}

enum Part<'t> {
    Bucket { le: &'t str },
    Sum,
    Count,
}

impl Histogram {
    /// Reads `etcd_disk_wal_fsync_duration_seconds`, or the only histogram there is.
    ///
    /// Errors: no histogram, another unit than seconds, counts that cannot be.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut samples = Vec::new();
        for (number, line) in text.lines().enumerate() {
            samples.extend(sample(number + 1, line.trim())?);
        }
        let metric = choose(&samples, text)?;
        let own = || samples.iter().filter(|sample| sample.metric == metric);
        let buckets = buckets(own())?;
        let mut histogram = Self { buckets, sum_ns: None };
        for sample in own() {
            match sample.part {
                Part::Sum => histogram.sum_ns = Some((sample.value * 1e9) as u128),
                Part::Count if sample.value != histogram.count() as f64 => {
                    let inf = histogram.count();
                    let message =
                        format!("`_count` is {}, expected {inf} as in +Inf", sample.value);
                    return Err(ParseError { line: sample.line, message });
                }
                _ => {}
            }
        }
        if histogram.count() == 0 {
            let line = own().map(|sample| sample.line).max().unwrap_or(1);
            return Err(ParseError { line, message: "expected at least one observation".into() });
        }
        Ok(histogram)
    }

    /// All observations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }
}

/// Reads a line; nothing when it belongs to no histogram.
fn sample(line: usize, text: &str) -> Result<Option<Sample<'_>>, ParseError> {
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let wrong = |what: &str| ParseError { line, message: format!("{what}: {text:?}") };
    let (name, labels, rest) = split(text)
        .ok_or_else(|| wrong("expected a sample such as name_bucket{le=\"0.001\"} 17"))?;
    let number = rest.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
    let value = number.ok_or_else(|| wrong("expected a number after the name"))?;
    let (metric, part) = if let Some(metric) = name.strip_suffix("_bucket") {
        let le = label(labels, "le");
        (
            metric,
            Part::Bucket { le: le.ok_or_else(|| wrong("expected a bucket's bound le=\"..\""))? },
        )
    } else if let Some(metric) = name.strip_suffix("_sum") {
        (metric, Part::Sum)
    } else if let Some(metric) = name.strip_suffix("_count") {
        (metric, Part::Count)
    } else {
        return Ok(None);
    };
    if !value.is_finite() || value < 0.0 {
        return Err(wrong("expected a number of 0 or more"));
    }
    Ok(Some(Sample { line, metric, part, value }))
}

/// Name, labels without their braces, and what follows.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}').map(|(labels, rest)| (name, labels, rest)),
        None => rest.starts_with([' ', '\t']).then_some((name, "", rest)),
    }
}

fn label<'t>(labels: &'t str, name: &str) -> Option<&'t str> {
    labels.split(',').find_map(|label| {
        let (key, value) = label.trim().split_once('=')?;
        (key.trim() == name).then(|| value.trim().trim_matches('"'))
    })
}

/// Which histogram to read.
fn choose<'t>(samples: &[Sample<'t>], text: &str) -> Result<&'t str, ParseError> {
    let end = text.lines().count().max(1);
    let mut found: Vec<(&str, usize)> = Vec::new();
    for sample in samples.iter().filter(|s| matches!(s.part, Part::Bucket { .. })) {
        if !found.iter().any(|(metric, _)| *metric == sample.metric) {
            found.push((sample.metric, sample.line));
        }
    }
    let metric = found.iter().find(|(metric, _)| *metric == WAL_FSYNC).or(found.first());
    match metric {
        None => {
            let message = format!("expected a histogram such as {WAL_FSYNC}_bucket");
            Err(ParseError { line: end, message })
        }
        Some((metric, line)) if !metric.ends_with("_seconds") => {
            let message = format!("expected a histogram in seconds (.._seconds), found `{metric}`");
            Err(ParseError { line: *line, message })
        }
        Some((metric, _)) if *metric != WAL_FSYNC && found.len() > 1 => {
            let (other, line) = found[1];
            let message =
                format!("expected one histogram or {WAL_FSYNC}, found `{metric}` and `{other}`");
            Err(ParseError { line, message })
        }
        Some((metric, _)) => Ok(metric),
    }
}

/// Cumulative counts as counts of their own.
fn buckets<'s, 't: 's>(
    samples: impl Iterator<Item = &'s Sample<'t>>,
) -> Result<Vec<Bucket>, ParseError> {
    let mut buckets: Vec<Bucket> = Vec::new();
    let (mut below, mut bound) = (0, Some(0));
    let mut last_line = 1;
    for sample in samples {
        let Part::Bucket { le } = sample.part else { continue };
        last_line = sample.line;
        let wrong = |message: String| ParseError { line: sample.line, message };
        let upper_ns = match (le, le.parse::<f64>()) {
            ("+Inf" | "Inf", _) => None,
            (_, Ok(secs)) if secs > 0.0 && secs < 1e6 => Some((secs * 1e9).round() as u64),
            _ => return Err(wrong(format!("le={le:?}: expected seconds above 0, or \"+Inf\""))),
        };
        let rises = bound.is_some_and(|bound| upper_ns.is_none_or(|upper| upper > bound));
        if !rises {
            return Err(wrong(format!("le={le:?}: expected bounds that rise, one set of labels")));
        }
        let count = sample.value as u64;
        if count as f64 != sample.value || count < below || count > 1 << 30 {
            let value = sample.value;
            return Err(wrong(format!(
                "the count is {value}, expected a whole number from {below} (counts add up) to 2^30"
            )));
        }
        buckets.push(Bucket { upper_ns, count: count - below });
        (below, bound) = (count, upper_ns);
    }
    if bound.is_some() {
        let message = "expected a last bucket with le=\"+Inf\"".to_owned();
        return Err(ParseError { line: last_line, message });
    }
    if buckets.len() < 2 {
        let message = "expected a bucket below +Inf".to_owned();
        return Err(ParseError { line: last_line, message });
    }
    Ok(buckets)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# a source\n\
        x_seconds_bucket{le=\"0.001\"} 3\n\
        x_seconds_bucket{le=\"0.5\"} 3\n\
        x_seconds_bucket{le=\"+Inf\"} 5\n\
        x_seconds_sum 1.25\n\
        x_seconds_count 5\n";

    #[test]
    fn counts_are_those_of_each_bucket_and_times_are_nanoseconds() {
        let histogram = Histogram::parse(GOOD).expect("it is right");
        let bucket = |upper_ns, count| Bucket { upper_ns, count };
        let buckets = [bucket(Some(1_000_000), 3), bucket(Some(500_000_000), 0), bucket(None, 2)];
        assert_eq!(histogram.buckets, buckets);
        assert_eq!((histogram.sum_ns, histogram.count()), (Some(1_250_000_000), 5));
    }

    #[test]
    fn a_whole_metrics_page_is_searched_for_the_wal() {
        let page = format!(
            "go_goroutines 7\nrpc_seconds_bucket{{code=\"0\",le=\"+Inf\"}} 5 1542650713000\n{}",
            GOOD.replace("x_seconds", WAL_FSYNC)
        );
        assert_eq!(Histogram::parse(&page).expect("it is right").count(), 5);
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_what_was_expected() {
        for (from, to, line, named) in [
            ("x_seconds_bucket{le=\"0.5\"} 3", "x_seconds_bucket{le=\"0.5\"} 2", 3, "from 3"),
            ("le=\"0.5\"", "le=\"0.0005\"", 3, "bounds that rise"),
            ("le=\"0.5\"", "le=\"-1\"", 3, "seconds above 0"),
            ("le=\"0.5\"", "code=\"7\"", 3, "bound le="),
            ("{le=\"0.5\"} 3", "{le=\"0.5\"} many", 3, "a number"),
            ("x_seconds_bucket{le=\"0.5\"} 3", "hello", 3, "a sample such as"),
            ("x_seconds", "x_milliseconds", 2, "in seconds"),
            ("x_seconds_bucket{le=\"+Inf\"} 5", "", 3, "+Inf"),
            ("x_seconds_count 5", "x_seconds_count 6", 6, "expected 5"),
            ("_sum 1.25", "_sum -1", 5, "0 or more"),
        ] {
            let error = Histogram::parse(&GOOD.replace(from, to)).expect_err(to);
            assert_eq!(error.line, line, "{to}: {error}");
            assert!(error.message.contains(named), "{to}: {error}");
        }
        assert!(Histogram::parse("").expect_err("empty").message.contains("expected a histogram"));
    }
}
