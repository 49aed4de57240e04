//! Drawn disks and networks.

use std::time::Duration;

use detkv_sim_world::disk::{CrashModel, DiskModel, Episodes};
use detkv_sim_world::empirical::Clustering;
use detkv_sim_world::fault::Draw;
use detkv_sim_world::net::{LinkModel, NetModel};
use detkv_sim_world::rng::{Bucket, Distribution};
use toml::Value;

use super::draw::value;

const fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// A distribution with most of its mass between the two.
fn distribution(draw: &mut Draw, low: Duration, high: Duration) -> Distribution {
    let (a, b) = (draw.duration(low, high), draw.duration(low, high));
    let (min, max) = (a.min(b), a.max(b));
    match draw.uniform(0, 3) {
        0 => Distribution::Constant(max),
        1 => Distribution::Uniform { min, max },
        2 => Distribution::Exponential { min, mean: max },
        // One in a hundred takes thirty times as long.
        _ => Distribution::Histogram(vec![
            Bucket { upper: max, count: 99 },
            Bucket { upper: max * 30, count: 1 },
        ]),
    }
}

/// Disks of real clusters, each with a bound above which little lies.
const INCIDENTS: [(&str, Duration); 5] = [
    ("etcd-7312", micros(64_000)),
    ("etcd-9407", micros(128_000)),
    ("etcd-9544", micros(64_000)),
    ("etcd-10273-hdd", micros(64_000)),
    ("etcd-12405-slow-member", micros(32_000)),
];

/// A disk and its class.
pub(super) fn disk(draw: &mut Draw) -> (&'static str, Value) {
    let (kind, low, high) = draw.pick(&[
        ("usual", micros(0), micros(0)),
        ("fast", micros(1), micros(200)),
        ("middling", micros(500), micros(8_000)),
        ("slow", micros(5_000), micros(60_000)),
        ("real", micros(0), micros(0)),
    ]);
    let mut model = DiskModel::default();
    if kind == "real" {
        let (name, above) = draw.pick(&INCIDENTS);
        model.model = Some(format!("incidents/{name}.prom"));
        let run = draw.uniform(2, 30) as u32;
        model.clustering = draw.chance(50).then_some(Clustering { above, run });
    } else if kind != "usual" {
        model.sync = distribution(draw, low, high);
        model.parallelism = draw.uniform(1, 4) as u32;
        model.bytes_per_sec = draw.chance(70).then(|| draw.number(5_000_000, 2_000_000_000));
        model.call = draw.duration(micros(1), micros(50));
        model.memory_bytes_per_sec = draw.number(500_000_000, 8_000_000_000);
        model.read_bytes_per_sec = draw.number(50_000_000, 2_000_000_000);
    }
    let keep_percent = draw.uniform(0, 100) as u32;
    let lose_percent = draw.uniform(0, 100 - u64::from(keep_percent)) as u32;
    let tear_bytes = draw.pick(&[512, 4096]);
    model.crash = CrashModel { keep_percent, lose_percent, tear_bytes };
    if draw.chance(25) {
        let (good, bad) = (draw.millis(500, 20_000), draw.millis(20, 3_000));
        let stall = draw.chance(50);
        let slower = draw.number(2, 50) as u32;
        model.episodes = Some(Episodes { good, bad, stall, slower });
    }
    (kind, value(model))
}

fn link(draw: &mut Draw, low: Duration, high: Duration) -> LinkModel {
    LinkModel {
        latency: distribution(draw, low, high),
        bytes_per_sec: draw.chance(70).then(|| draw.number(1_000_000, 2_000_000_000)),
        burst_bytes: if draw.chance(30) { draw.number(1_000, 1_000_000) } else { 0 },
        loss_ppm: if draw.chance(40) { draw.number(10, 20_000) as u32 } else { 0 },
    }
}

/// A network and its class.
pub(super) fn net(draw: &mut Draw) -> (&'static str, Value) {
    let (kind, low, high) = draw.pick(&[
        ("usual", micros(0), micros(0)),
        ("room", micros(10), micros(200)),
        ("city", micros(300), micros(3_000)),
        ("country", micros(3_000), micros(20_000)),
    ]);
    let mut model = NetModel::default();
    if kind != "usual" {
        model.peer = link(draw, low, high);
        model.client = link(draw, micros(50), high);
        model.redial = draw.millis(10, 500);
        model.timeout = draw.millis(500, 10_000);
        model.peer_queue_frames = draw.number(64, 4_096) as usize;
        model.stream_window_bytes = draw.number(4 << 10, 1 << 20);
        if draw.chance(30) && draw.members() > 1 {
            let (from, to) = (draw.member().0, draw.member().0);
            model.links.push((from, to, link(draw, low, high * 3)));
        }
    }
    (kind, value(model))
}
