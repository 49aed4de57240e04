//! What a scenario chose, in a few lines: what is as usual is left out.
//!
//! ```text
//! members=5 profiles=[decoupled] duration=8s member{election=500ms heartbeat=50ms} disk.crash.keep_percent=94 cpu=free
//! put-load{clients=3 puts_per_sec=90} disk-stall@1200ms{node=leader duration=400ms}
//! ```

use detkv_sim_world::client::{
    Bursts, Compactor, KeepAlive, Kubernetes, Maintainer, MemberChanges, Mixed, OneByOne, PutLoad,
    Robustness, Script, SlowWatcher, Watcher,
};
use detkv_sim_world::cpu::CpuModel;
use detkv_sim_world::disk::DiskModel;
use detkv_sim_world::net::NetModel;
use serde::Serialize;
use toml::{Table, Value};

/// Width of a line.
const WIDTH: usize = 150;
/// What is no choice of the run's: words about it, and what is expected of it.
const SAID: [&str; 4] = ["about", "expect", "show", "variant"];

/// The choices in the text of a scenario file that parses, in lines without an indent.
pub fn lines(text: &str) -> Vec<String> {
    let mut file: Table = text.parse().expect("the file was read before");
    SAID.iter().for_each(|key| drop(file.remove(*key)));
    let entries = |file: &mut Table, key: &str| match file.remove(key) {
        Some(Value::Array(entries)) => entries,
        _ => Vec::new(),
    };
    let (loads, faults) = (entries(&mut file, "workload"), entries(&mut file, "fault"));
    for (key, usual) in [("disk", value(DiskModel::default())), ("net", value(NetModel::default()))]
    {
        leave_out(&mut file, key, &usual);
    }
    each(&mut file, "disks", |disk| without(disk, &value(DiskModel::default())));
    file.get_mut("cpu").into_iter().for_each(cpu);
    each(&mut file, "cpus", cpu);
    let is_table = |value: &&Value| value.is_table();
    let (tables, plain): (Vec<_>, Vec<_>) = file.iter().partition(|(_, value)| is_table(value));
    let mut words: Vec<String> =
        plain.into_iter().chain(tables).filter_map(|(key, value)| word(key, value)).collect();
    words.extend(loads.into_iter().filter_map(load));
    words.extend(faults.into_iter().filter_map(fault));
    wrap(&words)
}

fn value(model: impl Serialize) -> Value {
    Value::try_from(model).expect("models are tables of plain values")
}

/// Takes out of the table at `key` what is as in `usual`.
fn leave_out(file: &mut Table, key: &str, usual: &Value) {
    if let Some(own) = file.get_mut(key) {
        without(own, usual);
    }
}

fn each(file: &mut Table, key: &str, change: impl Fn(&mut Value)) {
    if let Some(Value::Table(own)) = file.get_mut(key) {
        own.iter_mut().for_each(|(_, own)| change(own));
    }
}

fn without(own: &mut Value, usual: &Value) {
    let (Value::Table(own), Value::Table(usual)) = (own, usual) else { return };
    for (key, usual) in usual {
        match own.get_mut(key) {
            Some(same) if same == usual => drop(own.remove(key)),
            Some(other) => without(other, usual),
            None => {}
        }
    }
}

/// A CPU on which everything is free, or takes so many times as long.
fn cpu(own: &mut Value) {
    let usual = value(CpuModel::default());
    let times = |times: i64| {
        own.as_table().is_some_and(|own| {
            let costs = usual.as_table().into_iter().flatten().filter(|(key, _)| *key != "readers");
            costs.into_iter().all(|(key, cost)| {
                let cost = cost.as_integer().map(|cost| cost * times);
                own.get(key).and_then(Value::as_integer) == cost
            })
        })
    };
    let readers = own.get("readers").cloned();
    let burst_ns = CpuModel::default().burst_ns as i64;
    let factor = own.get("burst_ns").and_then(Value::as_integer).map(|cost| cost / burst_ns);
    match factor.filter(|factor| times(*factor)) {
        Some(0) => *own = Value::String("free".to_owned()),
        Some(factor) => {
            let readers = readers.map(|readers| ("readers".to_owned(), readers));
            let times = ("times".to_owned(), Value::Integer(factor));
            *own = Value::Table(readers.into_iter().chain([times]).collect());
        }
        None => without(own, &usual),
    }
}

/// `put-load{clients=3}`.
fn load(mut load: Value) -> Option<String> {
    let kind = load.as_table_mut()?.remove("kind")?;
    let usual = match kind.as_str()? {
        "put-load" => value(PutLoad::default()),
        "mixed" => value(Mixed::default()),
        "robustness" => value(Robustness::default()),
        "kubernetes" => value(Kubernetes::default()),
        "keep-alive" => value(KeepAlive::default()),
        "bursts" => value(Bursts::default()),
        "one-by-one" => value(OneByOne::default()),
        "script" => value(Script::default()),
        "watcher" => value(Watcher::default()),
        "slow-watcher" => value(SlowWatcher::default()),
        "compactor" => value(Compactor::default()),
        "maintainer" => value(Maintainer::default()),
        "member-changes" => value(MemberChanges::default()),
        other => panic!("{other} is no kind of load that was read before"),
    };
    without(&mut load, &usual);
    Some(braced(kind.as_str()?, load.as_table()?))
}

/// `kill@3s{node=leader}`.
fn fault(mut fault: Value) -> Option<String> {
    let own = fault.as_table_mut()?;
    let (kind, at) = (own.remove("kind")?, own.remove("at")?);
    Some(braced(&format!("{}@{}", kind.as_str()?, at.as_str()?), own))
}

fn braced(name: &str, of: &Table) -> String {
    let words: Vec<String> = of.iter().filter_map(|(key, value)| word(key, value)).collect();
    if words.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", words.join(" ")) }
}

/// `key=value`, or `key.inner=value` of a table with one key; nothing of what is empty.
fn word(key: &str, value: &Value) -> Option<String> {
    match value {
        Value::Table(table) => {
            let words: Vec<String> =
                table.iter().filter_map(|(key, value)| word(key, value)).collect();
            match &words[..] {
                [] => None,
                [one] => Some(format!("{key}.{one}")),
                _ => Some(format!("{key}{{{}}}", words.join(" "))),
            }
        }
        Value::Array(list) if list.is_empty() => None,
        Value::String(text) if text.is_empty() => None,
        value => Some(format!("{key}={}", plain(value))),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) if text.contains(char::is_whitespace) => format!("{text:?}"),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let all: Vec<String> = list.iter().map(plain).collect();
            format!("[{}]", all.join(","))
        }
        Value::Table(table) => braced("", table),
        other => other.to_string(),
    }
}

fn wrap(words: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    // Long words break at their blanks: none is ever torn.
    for word in words.iter().flat_map(|word| word.split(' ')) {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::swarm;

    #[test]
    fn what_is_as_usual_is_left_out_and_all_else_is_there() {
        let text = r#"
            about = "a test"
            profiles = ["decoupled"]
            members = 5
            member = { heartbeat = "50ms", election = "500ms" }
            disk = { parallelism = 2, crash = { keep_percent = 30, lose_percent = 2 } }
            clocks.m2.drift_ppm = -7
            cpu = { readers = 3 }
            net.peer.latency.constant = "1ms"
            workload = [{ kind = "put-load", clients = 6, keys = 9 }, { kind = "watcher" }]
            fault = [{ kind = "kill", at = "3s", node = "m1" }, { kind = "ring", at = "5s", duration = "1s" }]
            expect.both = { terms = 1 }
        "#;
        assert_eq!(
            lines(text),
            [
                "members=5 profiles=[decoupled] clocks.m2.drift_ppm=-7 cpu.readers=3 \
                 disk.crash.lose_percent=2 member{election=500ms heartbeat=50ms}",
                "net.peer.latency.constant=1ms put-load{keys=9} watcher kill@3s{node=m1} ring@5s{duration=1s}",
            ]
        );
    }

    #[test]
    fn a_cpu_is_told_by_its_speed() {
        let cpu = |model: CpuModel| {
            let file = Table::from_iter([("cpu".to_owned(), value(model))]);
            lines(&file.to_string())
        };
        assert_eq!(cpu(CpuModel::default()), ["cpu{readers=1 times=1}"]);
        assert_eq!(cpu(CpuModel::free()), ["cpu=free"]);
        assert_eq!(cpu(CpuModel { read_ns: 7, ..CpuModel::default() }), ["cpu.read_ns=7"]);
    }

    #[test]
    fn every_drawn_fault_load_and_option_is_told_in_few_lines() {
        for seed in 0..200 {
            let drawn = swarm::draw(seed);
            let told = lines(&drawn.text);
            assert!(told.len() <= 40, "seed {seed}: {} lines", told.len());
            let told = told.join(" ");
            for (name, value) in &drawn.options {
                let is_kind = ["fault", "workload"].contains(&name.as_str()) && value != "none";
                assert!(!is_kind || told.contains(value.as_str()), "seed {seed}: {name} {value}");
                let is_member = ["election", "snapshot_count"].contains(&name.as_str());
                let word = format!("{name}=");
                assert!(!is_member || value != "drawn" || told.contains(&word), "{seed} {name}");
            }
            let scenario = swarm::source(seed).expect("it is right").scenario;
            let Scenario { faults, clocks, .. } = scenario;
            let kinds = |text: &str| text.matches('@').count();
            assert_eq!(kinds(&told), faults.len(), "seed {seed}");
            assert!(clocks.keys().all(|member| told.contains(&format!("m{member}"))));
        }
    }
}
