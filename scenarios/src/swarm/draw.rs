//! One run of the swarm: every option drawn from the seed, "off" and "as usual" included.
//!
//! The outcome is the text of a scenario file, so that a run can be kept, edited and replayed when the
//! draws have changed. Each section has a random stream of its own: a new option moves no other.

use std::time::Duration;

use detkv_core::MemberId;
use detkv_sim_world::Fault;
use detkv_sim_world::clock::ClockModel;
use detkv_sim_world::cpu::CpuModel;
use detkv_sim_world::duration::format;
use detkv_sim_world::fault::Draw;
use detkv_sim_world::rng::stream;
use serde::Serialize;
use toml::{Table, Value};

use crate::scenario::own_keys;

use super::loads::{loads, member_changes};
use super::models::{disk, net};
use super::situations::{self, SITUATIONS};

/// A drawn run.
#[derive(Clone, PartialEq, Debug)]
pub struct Drawn {
    /// A scenario file.
    pub text: String,
    /// What was drawn, in classes that a histogram can count: `members` → `3`.
    pub options: Vec<(String, String)>,
}

/// Shortest and longest load after the warm-up, in milliseconds.
const LOAD_MS: (u64, u64) = (1_500, 12_000);

/// Draws run number `seed`.
pub fn draw(seed: u64) -> Drawn {
    let mut swarm = Swarm { seed, members: 3, ..Swarm::default() };
    swarm.cluster();
    swarm.member();
    swarm.world();
    swarm.workloads();
    swarm.faults();
    swarm.in_code();
    swarm.quota();
    swarm.corruption_checks();
    swarm.compactions();
    swarm.own_cpus();
    swarm.situation();
    swarm.versions();
    swarm.lying_disk();
    let text = toml::to_string(&swarm.file).expect("tables of plain values are TOML");
    Drawn { text, options: swarm.options }
}

#[derive(Default)]
struct Swarm {
    seed: u64,
    members: u64,
    clients: u32,
    load: Duration,
    file: Table,
    options: Vec<(String, String)>,
}

/// A value as a scenario file has it.
pub(super) fn value(of: impl Serialize) -> Value {
    Value::try_from(of).expect("models are tables of plain values")
}

fn millis(d: Duration) -> Value {
    Value::String(format(d))
}

impl Swarm {
    /// The stream of one section.
    fn section(&self, name: &str) -> Draw {
        let rng = stream(self.seed, 0, &format!("swarm {name}"));
        // A minority, so that no run loses what a quorum has promised to keep.
        let expendable = (0..(self.members - 1) / 2).map(|n| {
            let first = self.seed % self.members;
            MemberId((first + n) % self.members + 1)
        });
        Draw::new(rng, self.members, self.clients, expendable.collect())
    }

    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.file.insert(key.to_owned(), value.into());
    }

    fn option(&mut self, name: &str, value: impl ToString) {
        self.options.push((name.to_owned(), value.to_string()));
    }

    fn cluster(&mut self) {
        let mut draw = self.section("cluster");
        self.members = draw.pick(&[1, 3, 3, 3, 3, 3, 5, 5, 5, 7]);
        let profile = draw.pick(&["coupled", "decoupled"]);
        self.load = draw.millis(LOAD_MS.0, LOAD_MS.1);
        let warm_up = draw.pick(&["0ms", "200ms", "1s"]);
        self.set("about", format!("swarm run {}", self.seed));
        self.set("members", self.members as i64);
        self.set("profiles", vec![profile]);
        self.set("warm_up", warm_up);
        self.set("duration", format(self.load));
        self.set("converge", "60s");
        self.option("members", self.members);
        self.option("profile", profile);
    }

    /// The members' configuration: each option is drawn, or left as etcd has it.
    fn member(&mut self) {
        let mut draw = self.section("member");
        let mut member = Table::new();
        if draw.chance(50) {
            let heartbeat = draw.pick(&[20, 50, 100, 200]);
            let election = heartbeat * draw.pick(&[5, 10, 20]);
            member.insert("heartbeat".into(), millis(Duration::from_millis(heartbeat)));
            member.insert("election".into(), millis(Duration::from_millis(election)));
        }
        if draw.chance(20) {
            member.insert("pre_vote".into(), false.into());
        }
        // Small numbers bring snapshots, cut segments and released files into a short run.
        for (name, low, high) in [
            ("snapshot_count", 5, 2_000),
            ("snapshot_catchup_entries", 1, 500),
            ("wal_segment_bytes", 16 << 10, 4 << 20),
            ("watch_stream_bytes", 4 << 10, 4 << 20),
        ] {
            if draw.chance(60) {
                member.insert(name.into(), (draw.number(low, high) as i64).into());
            }
        }
        if draw.chance(20) {
            member.insert("quota_bytes".into(), (draw.number(1 << 30, 8 << 30) as i64).into());
        }
        for name in ["election", "pre_vote", "snapshot_count", "wal_segment_bytes"] {
            let is_drawn = member.contains_key(name);
            self.option(name, if is_drawn { "drawn" } else { "usual" });
        }
        self.set("member", member);
    }

    /// Disks, network, CPU and clocks.
    fn world(&mut self) {
        let mut draw = self.section("disk");
        let (kind, model) = disk(&mut draw);
        self.option("disk", kind);
        self.set("disk", model);
        if draw.chance(30) {
            let (_, other) = disk(&mut draw);
            let disks = Table::from_iter([(format!("m{}", draw.member().0), other)]);
            self.set("disks", disks);
        }
        let mut draw = self.section("net");
        let (kind, model) = net(&mut draw);
        self.option("net", kind);
        self.set("net", model);

        let mut draw = self.section("cpu");
        let speed = draw.pick(&["free", "usual", "usual", "slow"]);
        self.option("cpu", speed);
        match speed {
            "free" => self.set("cpu", value(CpuModel::free())),
            "slow" => self.set("cpu", slow_cpu(draw.number(2, 40), draw.uniform(1, 4))),
            _ => {}
        }

        let mut draw = self.section("clocks");
        let mut clocks = Table::new();
        for id in 1..=self.members {
            if draw.chance(25) {
                let drift_ppm = draw.uniform(0, 1_000) as i32 - 500;
                let model = ClockModel { offset: draw.millis(1, 3_600_000), drift_ppm };
                clocks.insert(format!("m{id}"), value(model));
            }
        }
        self.option("clocks", if clocks.is_empty() { "true" } else { "off" });
        if !clocks.is_empty() {
            self.set("clocks", clocks);
        }
    }

    fn workloads(&mut self) {
        let mut draw = self.section("workloads");
        let mut list = loads(&mut draw);
        list.extend(member_changes(&mut self.section("member changes")));
        let mut named: Vec<&str> = list.iter().map(|load| load.kind).collect();
        named.sort_unstable();
        named.dedup();
        for kind in named {
            self.option("workload", kind);
        }
        self.clients = list.iter().map(|load| load.clients).sum();
        self.set("workload", list.into_iter().map(|load| load.table).collect::<Vec<Value>>());
    }

    /// Which kinds there are is drawn first: a run with few kinds goes deep in them.
    fn faults(&mut self) {
        let mut draw = self.section("faults");
        let usual = draw.pick(&[0, 15, 30, 60, 100]);
        let kinds: Vec<&str> = Fault::KINDS
            .iter()
            .filter(|kind| kind.survivable)
            .map(|kind| kind.name)
            .filter(|_| draw.chance(usual))
            .collect();
        let mut list: Vec<Value> = Vec::new();
        if !kinds.is_empty() {
            for _ in 0..draw.number(1, 10) {
                let kind = draw.pick(&kinds);
                list.extend(self.fault(kind, &mut draw));
            }
        }
        let mut named: Vec<String> = Vec::new();
        for fault in &list {
            let kind = fault.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
            if !named.contains(&kind) {
                named.push(kind);
            }
        }
        if named.is_empty() {
            self.option("fault", "none");
        }
        named.iter().for_each(|kind| self.option("fault", kind));
        if !list.is_empty() {
            self.set("fault", list);
        }
    }

    /// One entry of the schedule, with the restart that a planned stop needs.
    fn fault(&self, kind: &str, draw: &mut Draw) -> Vec<Value> {
        let Some(fault) = Fault::draw(kind, draw) else { return Vec::new() };
        let load_ms = self.load.as_millis() as u64;
        let at = draw.uniform(0, load_ms);
        let mut table = value(&fault).as_table().expect("a fault is a table").clone();
        table.insert("at".into(), millis(Duration::from_millis(at)));
        let own = own_keys(kind);
        if draw.chance(30) && !own.contains(&"times") && !own.contains(&"every") {
            table.insert("times".into(), (draw.number(2, 6) as i64).into());
            table.insert("every".into(), millis(draw.millis(100, 4_000)));
        }
        if draw.chance(50) && !own.contains(&"jitter") {
            table.insert("jitter".into(), millis(draw.millis(1, 1_000)));
        }
        let mut entries = Vec::new();
        match &fault {
            Fault::Kill(_) | Fault::PowerLoss(_) if draw.chance(85) => {
                table.insert("restart_after".into(), millis(draw.millis(1, 3_000)));
            }
            Fault::Stop(stop) => {
                let again = Duration::from_millis(at) + draw.millis(100, 3_000);
                let mut restart =
                    value(Fault::Restart(detkv_sim_world::fault::Restart { node: stop.node }));
                let entry = restart.as_table_mut().expect("a fault is a table");
                entry.insert("at".into(), millis(again));
                entries.push(restart);
            }
            _ => {}
        }
        entries.insert(0, table.into());
        entries
    }

    fn in_code(&mut self) {
        let is_on = self.section("in-code faults").chance(60);
        self.option("buggify", if is_on { "on" } else { "off" });
        self.set("buggify", is_on);
    }

    /// A quota that the puts of a short run reach, and as a rule somebody who makes room.
    fn quota(&mut self) {
        let mut draw = self.section("quota");
        let is_small = draw.chance(10);
        self.option("quota", if is_small { "small" } else { "not reached" });
        if !is_small {
            return;
        }
        let bytes = draw.number(8 << 10, 512 << 10);
        let mut text = format!("[member]\nquota_bytes = {bytes}\n");
        if draw.chance(70) {
            let (every, prefix) = (draw.number(500, 4_000), draw.pick(&["", "put/", "mix/"]));
            text += &format!(
                "[[workload]]\nkind = \"maintainer\"\nevery = \"{every}ms\"\nprefix = \"{prefix}\"\n"
            );
        }
        situations::add(&mut self.file, &text);
    }

    /// Members that compare what they hold, at their start and now and then.
    fn corruption_checks(&mut self) {
        let mut draw = self.section("corruption checks");
        let is_on = draw.chance(30);
        self.option("corruption checks", if is_on { "drawn" } else { "usual" });
        if is_on {
            let is_initial = draw.chance(50);
            let (whole, compactions) = (draw.number(100, 5_000), draw.number(100, 5_000));
            let text = format!(
                "[member]\ninitial_corrupt_check = {is_initial}\ncorrupt_check_interval = \"{whole}ms\"\ncompact_hash_check_interval = \"{compactions}ms\"\n"
            );
            situations::add(&mut self.file, &text);
        }
    }

    /// Members that compact by themselves. By revision they look every five minutes: too rarely for a run.
    fn compactions(&mut self) {
        let mut draw = self.section("auto-compaction");
        let is_on = draw.chance(15);
        self.option("auto-compaction", if is_on { "periodic" } else { "off" });
        if is_on {
            let retention = draw.number(50, 4_000);
            let text = format!("[member]\nauto_compaction = {{ periodic = \"{retention}ms\" }}\n");
            situations::add(&mut self.file, &text);
        }
        if draw.chance(15) {
            let (is_strict, learners) = (draw.chance(50), draw.number(1, 3));
            let text = format!(
                "[member]\nstrict_reconfig_check = {is_strict}\nlearners_max = {learners}\n"
            );
            situations::add(&mut self.file, &text);
        }
    }

    /// A member whose work costs something else.
    fn own_cpus(&mut self) {
        let mut draw = self.section("own cpus");
        if draw.chance(20) {
            let slow = slow_cpu(draw.number(2, 40), draw.uniform(1, 4));
            let own = Table::from_iter([(format!("m{}", draw.member().0), slow)]);
            self.set("cpus", own);
        }
        self.option("own cpus", if self.file.contains_key("cpus") { "drawn" } else { "off" });
    }

    /// Members of an older version, which pass no membership change on where none is drawn.
    fn versions(&mut self) {
        let mut draw = self.section("versions");
        let is_on = draw.chance(15);
        self.option("versions", if is_on { "mixed" } else { "one" });
        if !is_on {
            return;
        }
        let wire = if self.changes_members() { 2 } else { 1 };
        let count = draw.number(1, self.members);
        let old = (0..count).map(|_| {
            let model = format!("version = \"3.5.0\"\nwire = {wire}");
            let model: Table = model.parse().expect("it is TOML");
            (format!("m{}", draw.member().0), Value::from(model))
        });
        let old = old.collect::<Table>();
        self.set("versions", old);
    }

    /// A disk that takes back what it called durable, of one member of a minority that nothing else takes away.
    fn lying_disk(&mut self) {
        let mut draw = self.section("lying disk");
        let is_on = draw.chance(8) && self.members >= 3 && !self.changes_members();
        let lies: Vec<&str> =
            Fault::KINDS.iter().filter(|k| !k.survivable).map(|k| k.name).collect();
        let kind = if is_on { draw.pick(&lies) } else { "off" };
        self.option("lying disk", kind);
        if !is_on {
            return;
        }
        let mut list = self.fault(kind, &mut draw);
        let load_ms = self.load.as_millis() as u64;
        let lies_at = draw.uniform(0, load_ms / 2);
        let lie = list.first_mut().and_then(Value::as_table_mut);
        let node = lie.and_then(|lie| {
            lie.insert("at".to_owned(), millis(Duration::from_millis(lies_at)));
            lie.get("node").cloned()
        });
        // A sync that lied shows when the machine loses power.
        if let Some(node) = node.filter(|_| !["swap-disk", "empty-disk"].contains(&kind)) {
            let dark = Table::from_iter([
                ("kind".to_owned(), "power-loss".into()),
                ("node".to_owned(), node),
                ("at".to_owned(), millis(draw.millis(lies_at + 1, load_ms - 1))),
                ("restart_after".to_owned(), millis(draw.millis(1, 1_500))),
            ]);
            list.push(dark.into());
        }
        let faults = self.file.entry("fault").or_insert_with(|| Value::Array(Vec::new()));
        faults.as_array_mut().expect("faults are a list").extend(list);
    }

    /// Some fault or client changes who is a member, or takes a disk away for good.
    fn changes_members(&self) -> bool {
        let text = toml::to_string(&self.file).expect("tables of plain values are TOML");
        ["-member\"", "member-changes", "replace-disk", "wipe-disk"]
            .iter()
            .any(|kind| text.contains(kind))
    }

    fn situation(&mut self) {
        let mut draw = self.section("situation");
        // Each takes a member away for a while: two others are left.
        if self.members < 3 || !draw.chance(40) {
            return self.option("situation", "none");
        }
        let (name, make) = draw.pick(&SITUATIONS);
        self.option("situation", name);
        situations::add(&mut self.file, &make(&mut draw));
    }
}

/// Everything takes `times` as long; `readers` cores serve reads.
fn slow_cpu(times: u64, readers: u64) -> Value {
    let mut cpu = value(CpuModel::default());
    for (name, cost) in cpu.as_table_mut().expect("a model is a table") {
        *cost = match cost.as_integer() {
            _ if name == "readers" => (readers as i64).into(),
            Some(ns) => (ns * times as i64).into(),
            None => continue,
        };
    }
    cpu
}
