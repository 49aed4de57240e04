//! Reading a histogram from an HdrHistogram interval log (`.hlog`), as load generators write it.
//!
//! ```text
//! #[StartTime: 1441812279.474 (seconds since epoch)]
//! "StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"
//! 0.127,1.007,2.769,HISTFAAAAEV42pNpmSzMwMCgyAABTBDKT4GBgdnNYMcCBvsPEBEJISEuATEZMQ4uASkhIR4nrxg9v2lMaxhv...
//! ```
//! Values are nanoseconds, as HdrHistogram's loggers record them. All intervals are added up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

use crate::prometheus::{Bucket, Histogram, ParseError};

/// More would overflow the weights of a table that is drawn from.
const OBSERVATIONS_MAX: u64 = 1 << 30;
/// A log of another unit gives itself away: no sync takes an hour, and not all take less than a microsecond.
const LONGEST_NS: u64 = 3_600_000_000_000;
const SHORTEST_NS: u64 = 1_000;

/// Whether a text is an interval log rather than Prometheus' format: the two share no line that counts.
pub fn is_interval_log(text: &str) -> bool {
    let is_interval = |line: &str| line.rsplit(',').next().is_some_and(|h| h.starts_with("HIST"));
    text.lines().any(|line| is_interval(line.trim()))
}

/// Reads every interval of the log.
///
/// Errors: no interval, one that cannot be decoded, several tags, values that are no nanoseconds.
pub fn parse(text: &str) -> Result<Histogram, ParseError> {
    let mut all: Option<hdrhistogram::Histogram<u64>> = None;
    let mut first_tag: Option<Option<String>> = None;
    let mut last_line = 1;
    for (number, line) in text.lines().enumerate() {
        let wrong = |message: String| ParseError { line: number + 1, message };
        let Some((tag, encoded)) = interval(line).map_err(wrong)? else { continue };
        last_line = number + 1;
        let first = first_tag.get_or_insert_with(|| tag.clone());
        if *first != tag {
            let shown = |tag: &Option<String>| tag.clone().unwrap_or_else(|| "none".to_owned());
            let (first, tag) = (shown(first), shown(&tag));
            return Err(wrong(format!("the tag is {tag}, expected {first} as before: one series")));
        }
        let part = decode(&encoded).map_err(wrong)?;
        match &mut all {
            None => all = Some(part),
            Some(all) => {
                all.auto(true);
                all.add(&part).map_err(|error| wrong(format!("cannot be added up: {error}")))?;
            }
        }
    }
    let wrong = |message: &str| ParseError { line: last_line, message: message.to_owned() };
    let all = all.ok_or_else(|| wrong("expected an interval with a histogram (HIST..)"))?;
    match all.len() {
        0 => return Err(wrong("expected at least one observation")),
        1..=OBSERVATIONS_MAX => {}
        _ => return Err(wrong("expected at most 2^30 observations")),
    }
    if all.max() > LONGEST_NS || all.max() < SHORTEST_NS {
        let message =
            format!("the longest value is {}: expected nanoseconds, 1 µs to 1 hour", all.max());
        return Err(wrong(&message));
    }
    Ok(Histogram { buckets: buckets(&all), sum_ns: None })
}

/// Tag and histogram of a line; nothing when the line has none.
fn interval(line: &str) -> Result<Option<(Option<String>, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with(['#', '"']) {
        return Ok(None);
    }
    let with_end = format!("{line}\n");
    match IntervalLogIterator::new(with_end.as_bytes()).next() {
        Some(Ok(LogEntry::Interval(found))) => {
            let tag = found.tag().map(|tag| tag.as_str().to_owned());
            Ok(Some((tag, found.encoded_histogram().to_owned())))
        }
        Some(Ok(_)) | None => Ok(None),
        Some(Err(_)) => {
            Err("expected an interval such as 0.127,1.007,2.769,HIST.. of an HdrHistogram log"
                .into())
        }
    }
}

fn decode(encoded: &str) -> Result<hdrhistogram::Histogram<u64>, String> {
    let bytes = STANDARD.decode(encoded).map_err(|error| format!("no base64: {error}"))?;
    let decoded = Deserializer::new().deserialize(&mut bytes.as_slice());
    decoded.map_err(|error| format!("no HdrHistogram: {error}"))
}

/// What was recorded, each count between the bounds that its value stands for.
fn buckets(all: &hdrhistogram::Histogram<u64>) -> Vec<Bucket> {
    let mut buckets = Vec::new();
    let mut bound = 0;
    for value in all.iter_recorded() {
        let below = all.lowest_equivalent(value.value_iterated_to()).saturating_sub(1);
        if below > bound {
            buckets.push(Bucket { upper_ns: Some(below), count: 0 });
        }
        let upper = all.highest_equivalent(value.value_iterated_to()).max(1);
        buckets.push(Bucket { upper_ns: Some(upper), count: value.count_at_value() });
        bound = upper;
    }
    buckets
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::V2DeflateSerializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

    use super::*;
    use crate::empirical::Empirical;
    use crate::rng::stream;

    /// A log as the library writes it: one interval for each list of values.
    fn log(intervals: &[&[u64]], tags: &[Option<&str>]) -> String {
        let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
        let builder = IntervalLogWriterBuilder::new();
        let mut writer = builder.begin_log_with(&mut out, &mut serializer).expect("a Vec grows");
        for (n, values) in intervals.iter().enumerate() {
            let mut histogram = hdrhistogram::Histogram::<u64>::new(3).expect("3 digits");
            values.iter().for_each(|ns| histogram.record(*ns).expect("it resizes"));
            let second = std::time::Duration::from_secs(1);
            let tag = tags.get(n).copied().flatten().and_then(Tag::new);
            writer.write_histogram(&histogram, second * n as u32, second, tag).expect("it writes");
        }
        String::from_utf8(out).expect("a log is text")
    }

    #[test]
    fn intervals_are_added_up_and_drawn_within_their_precision() {
        let text = log(&[&[700_000, 2_000_000, 700_000], &[700_000, 5_000_000_000]], &[]);
        assert!(is_interval_log(&text));
        let histogram = parse(&text).expect("it is right");
        assert_eq!(histogram.count(), 5);
        let table = Empirical::new(&histogram).expect("a table");
        let (mut rng, mut in_run) = (stream(1, 0, "test"), false);
        let mut short = 0;
        for _ in 0..10_000 {
            let ns = table.sample(&mut rng, &mut in_run);
            let known = [700_000_u64, 2_000_000, 5_000_000_000];
            let near = known.iter().any(|known| ns.abs_diff(*known) <= known / 500);
            assert!(near, "{ns} was never observed");
            short += u64::from(ns < 1_000_000);
        }
        assert!((5_700..6_300).contains(&short), "three of five: {short}");
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        let good = log(&[&[700_000], &[800_000]], &[]);
        let last = good.lines().count();
        for (text, line, named) in [
            (good.replace("HIST", "HISS"), last - 1, "no HdrHistogram"),
            (format!("{good}hello\n"), last + 1, "an interval such as"),
            (log(&[&[1], &[2]], &[]), last, "expected nanoseconds"),
            (log(&[&[700_000], &[800_000]], &[Some("a"), Some("b")]), last, "one series"),
            (log(&[&[]], &[]), last - 1, "at least one observation"),
            (String::new(), 1, "expected an interval"),
        ] {
            let error = parse(&text).expect_err(named);
            assert!(error.message.contains(named), "{error}");
            assert_eq!(error.line, line, "{error}");
        }
        assert!(!is_interval_log("x_seconds_bucket{le=\"1\"} 5\n"));
    }
}
