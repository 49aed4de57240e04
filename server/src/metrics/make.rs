//! Making metrics under their names. What etcd's help texts say is mostly their name over again.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, core::Collector,
};

pub fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registry.register(Box::new(collector.clone())).expect("every name is registered once");
    collector
}

/// A histogram with etcd's buckets for disk latencies: 1 ms, 2 ms … 8.192 s.
pub fn disk_histogram(registry: &Registry, name: &str, help: &str) -> Histogram {
    histogram(registry, name, help, (0.001, 14))
}

/// `buckets`: the first bound in seconds, each the double of the one before, and how many.
pub fn histogram(registry: &Registry, name: &str, help: &str, buckets: (f64, usize)) -> Histogram {
    let buckets = prometheus::exponential_buckets(buckets.0, 2.0, buckets.1);
    let opts = HistogramOpts::new(name, help).buckets(buckets.expect("growing buckets"));
    register(registry, Histogram::with_opts(opts).expect("a valid histogram name"))
}

/// As `histogram`, one for each value of `label`.
pub fn histograms(
    registry: &Registry,
    name: &str,
    label: &str,
    buckets: (f64, usize),
) -> HistogramVec {
    let buckets = prometheus::exponential_buckets(buckets.0, 2.0, buckets.1);
    let opts = HistogramOpts::new(name, help(name)).buckets(buckets.expect("growing buckets"));
    register(registry, HistogramVec::new(opts, &[label]).expect("a valid histogram name"))
}

pub fn counter(registry: &Registry, name: &str) -> IntCounter {
    register(registry, IntCounter::new(name, help(name)).expect("a valid counter name"))
}

pub fn counters(registry: &Registry, name: &str, labels: &[&str]) -> IntCounterVec {
    let vec = IntCounterVec::new(Opts::new(name, help(name)), labels);
    register(registry, vec.expect("a valid counter name"))
}

pub fn gauges(registry: &Registry, name: &str, labels: &[&str]) -> IntGaugeVec {
    let vec = IntGaugeVec::new(Opts::new(name, help(name)), labels);
    register(registry, vec.expect("a valid gauge name"))
}

pub fn gauge(name: &str, value: u64) -> IntGauge {
    let gauge = IntGauge::new(name, help(name)).expect("a valid gauge name");
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    gauge
}

/// A metric's name, read as words.
pub fn help(name: &str) -> String {
    name.replace('_', " ")
}
