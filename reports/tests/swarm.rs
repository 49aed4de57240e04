//! The swarm page: complete, self-contained, and safe from what it shows.

use std::path::Path;

use detkv_reports::swarm::{
    OptionValue, Probe, SwarmFailure, SwarmOption, SwarmReport, SwarmRun, swarm_page,
};

/// Keeps the page where a person can open it: `target/tmp/<name>.html`.
fn keep(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("html");
    std::fs::write(path, page).expect("target/tmp is writable");
}

fn probe(name: &str, runs: u64, times: u64) -> Probe {
    Probe { name: name.into(), what: format!("what {name} means"), runs, times }
}

fn value(value: &str, runs: u64, failed: u64) -> OptionValue {
    OptionValue { value: value.into(), runs, failed }
}

/// 400 runs, every hundredth of which failed.
fn swarm() -> SwarmReport {
    let runs = (0..400).map(|seed| SwarmRun {
        seed,
        wall_ms: 3 + seed * seed % 997,
        virtual_ms: 1_500 + seed * 37 % 60_000,
        puts: seed * 7,
        failed: seed % 100 == 99,
    });
    let option = |name: &str, values| SwarmOption { name: name.into(), values };
    SwarmReport {
        wall_ms: 61_000,
        runs: runs.collect(),
        options: vec![
            option("fault", vec![value("kill", 40, 3), value("none", 100, 0)]),
            option("members", vec![value("1", 40, 0), value("3", 240, 4), value("5", 120, 0)]),
        ],
        marks: vec![probe("snapshot.sent", 90, 240), probe("snapshot.replaced", 0, 0)],
        sites: vec![probe("wal.cut-early", 57, 22_872)],
        failures: vec![SwarmFailure {
            signature: "state: hashes differ".into(),
            seeds: (0..4).map(|n| n * 100 + 99).collect(),
            message: "state: hashes differ: at index 12".into(),
            reproduce: "detkv-sim run swarm --seed 99 --profile coupled".into(),
        }],
        reproduce: "detkv-sim swarm --seeds 0..400".into(),
    }
}

#[test]
fn the_page_shows_every_run_option_mark_and_failure() {
    let page = swarm_page(&swarm());
    keep("swarm", &page);
    assert_eq!(page.matches("class=\"run-dot\"").count(), 396);
    assert_eq!(page.matches("class=\"cross\"").count(), 4);
    for part in [
        "seeds 0 to 399",
        "✗ 4 failed",
        "seeds 99, 199, 299, 399",
        "run swarm --seed 99 --profile coupled",
        "swarm --seeds 0..400",
        "kill: 40 runs, 3 failed",
        "✗ never",
        "1 of 2",
        "57 · 22,872 ×",
        "median",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(page.len() < 400_000, "{} bytes", page.len());
}

#[test]
fn what_is_rare_comes_first() {
    let page = swarm_page(&swarm());
    let place = |name| page.find(name).expect("it is shown");
    assert!(place("snapshot.replaced") < place("snapshot.sent"));
}

#[test]
fn an_empty_swarm_has_a_page_too() {
    let page = swarm_page(&SwarmReport::default());
    assert!(page.contains("no seed") && !page.contains("NaN"));
}

#[test]
fn hostile_text_stays_text_and_nothing_is_loaded() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert('2')>\"";
    let mut report = swarm();
    report.reproduce = hostile.into();
    report.options[0].values[0].value = hostile.into();
    report.options[1].name = hostile.into();
    report.marks[0].name = hostile.into();
    report.marks[0].what = hostile.into();
    let failure = &mut report.failures[0];
    failure.signature = hostile.into();
    failure.message = hostile.into();
    failure.reproduce = hostile.into();
    let page = swarm_page(&report);
    assert!(!page.contains("<script") && !page.contains("<img"), "a tag from the data");
    for outside in ["http:", "https:", "<link", "@import", " src=\"", "url(\""] {
        assert!(!page.contains(outside), "{outside} reaches outside of the page");
    }
}
