//! Situations: faults and loads that reach a rare path only together, each aimed at one.
//!
//! Faults drawn one by one meet in the right order once in thousands of runs. Here the order is given and all else is
//! drawn: times, sizes, who is struck, and everything around it.

use detkv_sim_world::fault::Draw;
use toml::{Table, Value};

/// Name of a situation and what it adds to the drawn file.
pub(super) type Situation = (&'static str, fn(&mut Draw) -> String);

/// All of them need a member that can be done without.
pub(super) const SITUATIONS: [Situation; 8] = [
    ("handover-twice", handover_twice),
    ("install-cut", install_cut),
    ("transfers-meet", transfers_meet),
    ("term-torn", term_torn),
    ("stalled-disks", stalled_disks),
    // Twice: only where hashes go in small steps (an in-code fault) can it come to what it is for.
    ("hash-race", hash_race),
    ("hash-race", hash_race),
    ("defrag-cut", defrag_cut),
];

/// What it adds, merged into `file`: lists grow, tables take its values in place of their own.
pub(super) fn add(file: &mut Table, text: &str) {
    let added: Table = text.parse().expect("situations are TOML");
    for (name, value) in added {
        match (file.get_mut(&name), value) {
            (Some(Value::Array(list)), Value::Array(more)) => list.extend(more),
            (Some(Value::Table(table)), Value::Table(more)) => table.extend(more),
            (_, value) => _ = file.insert(name, value),
        }
    }
}

fn puts(per_sec: u64, value_bytes: u64, keys: u64) -> String {
    format!(
        "[[workload]]\nkind = \"put-load\"\nclients = 3\nputs_per_sec = {per_sec}\npinned = false\nkeys = {keys}\nvalue_bytes = {value_bytes}\n"
    )
}

/// The lead goes round and the order to take it comes twice: the second one finds entries that are not synced.
fn handover_twice(draw: &mut Draw) -> String {
    let (later, every) = (draw.number(5, 400), draw.number(300, 900));
    let load = puts(draw.number(50, 400), draw.number(10, 2_000), 50);
    format!(
        r#"duration = "8s"
[[fault]]
at = "0s"
kind = "link-duplicate"
ppm = 600000
later = "{later}ms"
duration = "8s"
[[fault]]
at = "500ms"
every = "{every}ms"
times = 8
kind = "move-leader"
node = "follower"
{load}"#
    )
}

/// A member ends in the middle of a snapshot's installation, twice: what it was sent is in one of many states.
fn install_cut(draw: &mut Draw) -> String {
    let member = draw.member().0;
    let site = draw.pick(&[
        "before rename *.snap.db",
        "before rename *.snap.db",
        "before rename *.snap.db",
        "after rename *.snap.db",
        "during sync-dir member/snap",
        "after frame snapshot-chunk",
        "after frame snapshot-end",
        "after rename receiving-*",
    ]);
    let (count, keep) = (draw.number(5, 30), draw.number(1, 5));
    let (power, down) = (draw.chance(50), draw.number(50, 800));
    let load = puts(150, draw.number(50, 4_000), 300);
    let at = draw.number(200, 900);
    format!(
        r#"duration = "8s"
[member]
snapshot_count = {count}
snapshot_catchup_entries = {keep}
[[fault]]
at = "{at}ms"
every = "3200ms"
times = 2
kind = "partition"
nodes = ["m{member}"]
duration = "1500ms"
[[fault]]
at = "{at}ms"
kind = "kill-at"
node = "m{member}"
site = "{site}"
repeats = 2
power = {power}
down = "{down}ms"
duration = "7s"
{load}"#
    )
}

/// A second transfer comes while the first is under way, or being installed: the sender has given it up, or there is
/// another one.
fn transfers_meet(draw: &mut Draw) -> String {
    let member = draw.member().0;
    let rate = draw.number(200_000, 4_000_000);
    let (stall, stalled) = (draw.uniform(2_500, 4_500), draw.number(500, 3_000));
    let (cut, cut_for) = (draw.uniform(2_600, 4_500), draw.uniform(400, 800));
    let moves = if draw.chance(50) {
        let every = draw.number(300, 900);
        format!(
            "[[fault]]\nat = \"2700ms\"\nevery = \"{every}ms\"\ntimes = 6\nkind = \"move-leader\"\nnode = \"follower\"\n"
        )
    } else {
        String::new()
    };
    let load = puts(150, draw.number(200, 4_000), 500);
    format!(
        r#"duration = "9s"
[member]
snapshot_count = {count}
snapshot_catchup_entries = 2
[net]
timeout = "300ms"
redial = "20ms"
[[fault]]
at = "0s"
kind = "link-bandwidth"
nodes = ["m{member}"]
bytes_per_sec = {rate}
duration = "9s"
[[fault]]
at = "0s"
kind = "link-duplicate"
nodes = ["m{member}"]
direction = "outgoing"
ppm = 900000
later = "2s"
duration = "9s"
[[fault]]
at = "500ms"
kind = "partition"
nodes = ["m{member}"]
duration = "2s"
[[fault]]
at = "{stall}ms"
kind = "disk-stall"
node = "m{member}"
duration = "{stalled}ms"
[[fault]]
at = "{cut}ms"
every = "950ms"
times = 4
kind = "partition"
nodes = ["m{member}"]
direction = "incoming"
duration = "{cut_for}ms"
{moves}{load}"#,
        count = draw.number(10, 60)
    )
}

/// Power goes while a member syncs the first entry of a new term together with the term itself. The two come at once to
/// whoever is paused while the others elect: what has waited for it is one burst. The end of a sector must lie between
/// them, so again and again.
fn term_torn(draw: &mut Draw) -> String {
    let member = draw.member().0;
    let heartbeat = draw.uniform(1, 2) * 10;
    let election = heartbeat * 10;
    let (paused, every) = (election * 3, election * 3 + 300);
    // What the old leader has sent comes before the pause.
    let (at, after) = (draw.uniform(500, 900), draw.uniform(20, 60));
    let back = draw.number(20, 150);
    let site = draw.pick(&["during sync *.wal", "before sync *.wal"]);
    let load = puts(draw.number(5, 60), draw.number(10, 700), 50);
    format!(
        r#"duration = "{duration}ms"
[member]
heartbeat = "{heartbeat}ms"
election = "{election}ms"
[disk]
crash = {{ keep_percent = 0, lose_percent = 0, tear_bytes = 512 }}
[[fault]]
at = "{at}ms"
every = "{every}ms"
times = 12
kind = "kill"
node = "leader"
restart_after = "{back}ms"
[[fault]]
at = "{then}ms"
every = "{every}ms"
times = 12
kind = "pause"
node = "m{member}"
duration = "{paused}ms"
[[fault]]
at = "{then}ms"
every = "{every}ms"
times = 12
kind = "kill-at"
node = "m{member}"
site = "{site}"
power = true
down = "20ms"
duration = "{armed_for}ms"
{load}"#,
        duration = at + 12 * every,
        then = at + after,
        armed_for = paused + 150,
    )
}

/// A leader's disk stalls for many election timeouts; then a follower's, and its leader dies.
fn stalled_disks(draw: &mut Draw) -> String {
    let election = draw.uniform(5, 15) * 20;
    let stall = draw.number(10, 20) * election + 500;
    let load = puts(draw.number(20, 200), draw.number(10, 2_000), 100);
    format!(
        r#"duration = "{duration}ms"
[member]
heartbeat = "20ms"
election = "{election}ms"
[[fault]]
at = "500ms"
kind = "disk-stall"
node = "leader"
duration = "{stall}ms"
[[fault]]
at = "{second}ms"
kind = "disk-stall"
node = "follower"
duration = "2500ms"
[[fault]]
at = "{death}ms"
kind = "kill"
node = "leader"
restart_after = "2s"
{load}"#,
        duration = stall + 4_500,
        second = stall + 1_000,
        death = stall + 1_200,
    )
}

/// Compactions overtake hashes that members take to compare them: every row takes its time, and other work comes
/// between two steps.
fn hash_race(draw: &mut Draw) -> String {
    let every = draw.number(100, 400);
    let load = puts(draw.number(50, 150), draw.number(10, 300), 200);
    let row_ns = draw.number(500_000, 2_000_000);
    let (often, check) = (draw.number(20, 150), draw.number(50, 500));
    format!(
        r#"duration = "6s"
buggify = true
[member]
corrupt_check_interval = "{check}ms"
[cpu]
backend_row_ns = {row_ns}
[[workload]]
kind = "maintainer"
every = "{every}ms"
timeout = "5s"
[[workload]]
kind = "compactor"
every = "{often}ms"
keep = 1
timeout = "1s"
{load}"#
    )
}

/// A member stops in the middle of its defragmentation, again and again.
fn defrag_cut(draw: &mut Draw) -> String {
    let member = draw.member().0;
    let (every, again) = (draw.number(200, 600), draw.uniform(900, 1_500));
    let load = puts(200, draw.number(500, 2_000), 300);
    format!(
        r#"duration = "8s"
buggify = true
[disks.m{member}]
sync = {{ constant = "{sync}ms" }}
bytes_per_sec = {rate}
[[workload]]
kind = "maintainer"
every = "{every}ms"
timeout = "5s"
[[fault]]
at = "1500ms"
every = "{again}ms"
times = 4
jitter = "300ms"
kind = "stop"
node = "m{member}"
[[fault]]
at = "1900ms"
every = "{again}ms"
times = 4
jitter = "300ms"
kind = "restart"
node = "m{member}"
{load}"#,
        sync = draw.uniform(5, 40),
        rate = draw.number(2_000_000, 20_000_000)
    )
}

#[cfg(test)]
mod tests {
    use detkv_core::MemberId;
    use detkv_sim_world::rng::stream;

    use super::*;
    use crate::library::read_incident;
    use crate::scenario::Scenario;

    #[test]
    fn every_situation_is_a_right_scenario_by_itself() {
        for (name, make) in SITUATIONS {
            for seed in 0..30 {
                let rng = stream(seed, 0, "test");
                let mut file: Table =
                    "about = \"\"\nprofiles = [\"coupled\"]\n".parse().expect("it is TOML");
                add(&mut file, &make(&mut Draw::new(rng, 3, 3, vec![MemberId(1)])));
                let text = toml::to_string(&file).expect("it is TOML");
                let read = Scenario::parse(name, name, &text, &read_incident);
                assert!(read.is_ok(), "{name}: {:?}\n{text}", read.err());
            }
        }
    }

    #[test]
    fn lists_grow_and_tables_take_the_new_values() {
        let mut file: Table = "[member]\na = 1\nb = 1\n[[fault]]\nn = 1\n".parse().expect("TOML");
        add(&mut file, "c = 3\n[member]\nb = 2\n[[fault]]\nn = 2\n");
        let expected: Table = "c = 3\n[member]\na = 1\nb = 2\n[[fault]]\nn = 1\n[[fault]]\nn = 2\n"
            .parse()
            .expect("TOML");
        assert_eq!(file, expected);
    }
}
