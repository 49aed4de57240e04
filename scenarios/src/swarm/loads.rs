//! Drawn workloads.

use std::time::Duration;

use detkv_sim_world::client::{
    Bursts, Call, Compactor, KeepAlive, Kubernetes, Maintainer, MemberChanges, Mixed, OneByOne,
    PutLoad, Robustness, SlowWatcher, Watcher,
};
use detkv_sim_world::duration;
use detkv_sim_world::fault::Draw;
use toml::{Table, Value};

use super::draw::value;

/// One load, as a scenario file has it.
pub(super) struct Load {
    pub kind: &'static str,
    pub table: Value,
    /// So many of its clients may be cut off by a fault.
    pub clients: u32,
}

impl Load {
    fn new(kind: &'static str, clients: u32, options: Value) -> Self {
        let mut table = Table::from_iter([("kind".to_owned(), kind.into())]);
        table.extend(options.as_table().expect("a workload is a table").clone());
        Self { kind, table: table.into(), clients }
    }
}

/// One to three that write, some that watch, one that compacts or none.
pub(super) fn loads(draw: &mut Draw) -> Vec<Load> {
    let mut list = Vec::new();
    if draw.chance(65) {
        list.push(mixed(draw));
    }
    for (percent, kind) in
        [(10, "robustness"), (10, "kubernetes"), (15, "keep-alive"), (10, "bursts")]
    {
        if draw.chance(percent) && list.len() < 3 {
            list.push(usual_but_for(draw, kind));
        }
    }
    if list.is_empty() || (list.len() < 3 && draw.chance(30)) {
        list.push(put_load(draw));
    }
    // One that sees every change, unless compaction is faster: the work of lost requests is known from it.
    let whole = Watcher {
        clients: 1,
        prev_kv: draw.chance(50),
        progress_notify: draw.chance(50),
        pinned: false,
        ..Watcher::default()
    };
    list.push(Load::new("watcher", 1, value(whole)));
    for _ in 0..draw.pick(&[0, 0, 1, 1, 2]) {
        let watcher = Watcher {
            clients: draw.uniform(1, 4) as u32,
            prefix: draw.pick(&["", "", "mix", "mix1"]).to_owned(),
            prev_kv: draw.chance(50),
            progress_notify: draw.chance(50),
            fragment: draw.chance(50),
            pinned: draw.chance(50),
        };
        list.push(Load::new("watcher", watcher.clients, value(watcher)));
    }
    if draw.chance(10) {
        list.push(usual_but_for(draw, "slow-watcher"));
    }
    if draw.chance(60) {
        let compactor = Compactor {
            every: draw.millis(200, 5_000),
            keep: draw.number(1, 1_000) as u32,
            timeout: draw.millis(100, 2_000),
        };
        list.push(Load::new("compactor", 0, value(compactor)));
    }
    if draw.chance(15) {
        list.push(one_by_one(draw));
    }
    if draw.chance(30) {
        let maintainer = Maintainer {
            every: draw.millis(500, 10_000),
            prefix: draw.pick(&["", "mix/"]).to_owned(),
            timeout: draw.millis(1_000, 10_000),
        };
        list.push(Load::new("maintainer", 0, value(maintainer)));
    }
    list
}

/// Beside the others, and from a stream of its own: it came later than they did.
pub(super) fn member_changes(draw: &mut Draw) -> Option<Load> {
    if !draw.chance(8) {
        return None;
    }
    let mut changes = MemberChanges {
        every: draw.millis(100, 2_000),
        members_max: draw.uniform(4, 9) as u32,
        timeout: draw.millis(500, 8_000),
        ..MemberChanges::default()
    };
    let weights = &mut changes.weights;
    for weight in
        [&mut weights.add, &mut weights.promote, &mut weights.remove, &mut weights.move_leader]
    {
        *weight = draw.number(1, 8) as u32;
    }
    Some(Load::new("member-changes", 0, value(changes)))
}

fn one_by_one(draw: &mut Draw) -> Load {
    let load = OneByOne {
        clients: draw.uniform(1, 3) as u32,
        call: draw.pick(&[Call::Put, Call::Get, Call::StaleGet]),
        node: None,
        keys: draw.number(1, 100) as u32,
        value_bytes: draw.number(1, 1 << 10) as usize,
        timeout: draw.millis(100, 2_000),
        pause: draw.millis(5, 100),
    };
    Load::new("one-by-one", load.clients, value(load))
}

fn mixed(draw: &mut Draw) -> Load {
    let mut load = Mixed {
        clients: draw.uniform(1, 8) as u32,
        calls_per_sec: draw.number(20, 400) as u32,
        keys: draw.number(1, 200) as u32,
        value_bytes: draw.number(1, 4 << 10) as usize,
        timeout: draw.millis(100, 2_000),
        in_flight: draw.number(1, 16) as u32,
        ..Mixed::default()
    };
    load.weights = weights(draw, value(load.weights)).try_into().expect("every weight is a number");
    Load::new("mixed", load.clients, value(load))
}

fn put_load(draw: &mut Draw) -> Load {
    let load = PutLoad {
        clients: draw.uniform(1, 6) as u32,
        puts_per_sec: draw.number(10, 300) as u32,
        pinned: draw.chance(50),
        keys: draw.number(1, 1_000) as u32,
        value_bytes: draw.number(1, 8 << 10) as usize,
        timeout: draw.millis(100, 2_000),
        in_flight: draw.number(1, 64) as u32,
    };
    Load::new("put-load", load.clients, value(load))
}

/// Each call is off in a third of the runs; puts never are, so that there is something to read.
fn weights(draw: &mut Draw, mut weights: Value) -> Value {
    for (name, weight) in weights.as_table_mut().expect("weights are a table") {
        let drawn = if draw.chance(67) { draw.number(1, 40) } else { u64::from(name == "put") };
        *weight = (drawn as i64).into();
    }
    weights
}

/// A load whose numbers and times are each a quarter of what is usual to twice as much.
fn usual_but_for(draw: &mut Draw, kind: &'static str) -> Load {
    let usual = match kind {
        "robustness" => value(Robustness::default()),
        "kubernetes" => value(Kubernetes::default()),
        "keep-alive" => value(KeepAlive::default()),
        "bursts" => value(Bursts::default()),
        _ => value(SlowWatcher::default()),
    };
    let clients = usual.get("clients").and_then(Value::as_integer).unwrap_or(0) as u32;
    let mut options = usual.as_table().expect("a workload is a table").clone();
    for (name, option) in &mut options {
        *option = match option.clone() {
            // The clients' numbers are given out in order: fewer must not be cut off than there are.
            Value::Integer(n) if n > 0 && name != "clients" => {
                (draw.number((n as u64 / 4).max(1), n as u64 * 2) as i64).into()
            }
            Value::Boolean(_) => draw.chance(50).into(),
            Value::String(text) => around(draw, &text).unwrap_or(text).into(),
            Value::Table(_) if name == "weights" => weights(draw, option.clone()),
            other => other,
        };
    }
    Load::new(kind, clients, options.into())
}

fn around(draw: &mut Draw, text: &str) -> Option<String> {
    let usual: Duration = duration::parse(text).ok()?;
    Some(duration::format(draw.duration(usual / 4, usual * 2)))
}
