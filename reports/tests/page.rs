//! The run page as a whole: complete, self-contained, bounded, and safe from what it shows.

mod fixture;

use std::path::Path;
use std::time::Instant;

use detkv_reports::page::run_page;
use detkv_reports::run::{LogEvent, Role, RoleSpan, RunReport, Verdict};
use fixture::{Draw, END_MS, slow_disk};

/// Keeps the page where a person can open it: `target/tmp/<name>.html`.
fn keep(name: &str, page: &str) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).with_extension("html");
    std::fs::write(path, page).expect("target/tmp is writable");
}

#[test]
fn both_profiles_of_a_seed_share_a_page_and_an_axis() {
    let page = run_page(&[slow_disk("coupled", 200), slow_disk("decoupled", 200)]);
    keep("slow-disk", &page);
    assert_eq!(page.matches("<svg class=\"timeline\"").count(), 2);
    assert!(page.contains("Side by side"));
    assert!(page.contains("leader · term 3"), "the second leader's span names its term");
    assert!(page.contains("no put for 1.43 s"), "the longest gap is labelled");
    assert!(page.contains("1.43 × election timeout"));
    assert!(page.contains("run slow-disk --seed 7 --profile coupled"));
    assert_eq!(
        page.matches("virtual time in seconds").count(),
        2,
        "each picture has its axis with a unit"
    );
}

#[test]
fn the_page_loads_nothing_from_elsewhere() {
    let page = run_page(&[slow_disk("coupled", 200)]);
    assert!(page.contains("default-src 'none'"));
    for outside in ["http:", "https:", "<link", "@import", " src=", "url(\""] {
        assert!(!page.contains(outside), "{outside} reaches outside of the page");
    }
}

#[test]
fn hostile_text_stays_text() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=alert('2')>\"'&\u{0}";
    let mut run = slow_disk("coupled", 50);
    run.timeline.members[0].name = hostile.into();
    run.timeline.faults[0].name = hostile.into();
    run.timeline.faults[0].target = hostile.into();
    run.timeline.faults[0].parameters = hostile.into();
    run.timeline.events.push(LogEvent { time_ms: 1, member: Some(99), text: hostile.into() });
    let summary = &mut run.summary;
    summary.scenario = hostile.into();
    summary.profile = hostile.into();
    summary.event_hash = hostile.into();
    summary.reproduce = hostile.into();
    summary.checkers.insert(hostile.into(), hostile.into());
    summary.options.insert(hostile.into(), hostile.into());
    summary.expectations[0].name = hostile.into();
    summary.expectations[0].actual = hostile.into();
    summary.expectations[0].ok = false;
    summary.verdict = Verdict::Fail;
    let page = run_page(&[run.clone(), slow_disk("decoupled", 50)]);
    keep("hostile", &page);
    assert!(!page.contains("<img"), "a tag from the data became a tag of the page");
    assert!(!page.contains("alert(1)</script>"));
    assert!(!page.contains('\u{0}'));
    assert_eq!(page.matches("<script").count(), 2, "the data element and our script");
    assert_eq!(page.matches("</script").count(), 2);
}

#[test]
fn a_run_of_100_000_puts_gives_a_small_page_quickly() {
    let run = slow_disk("coupled", 5_000);
    assert!(run.timeline.puts.len() >= 100_000);
    let before = Instant::now();
    let page = run_page(std::slice::from_ref(&run));
    println!("{} puts: {} bytes in {:?}", run.timeline.puts.len(), page.len(), before.elapsed());
    keep("large", &page);
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
}

#[test]
fn a_storm_of_roles_and_events_gives_a_small_page() {
    let mut run = slow_disk("coupled", 200);
    let mut draw = Draw::new(3);
    run.timeline.roles.clear();
    for member in 1..=3 {
        let mut at = 0;
        let mut term = 1;
        while at < END_MS {
            let to_ms = at + 1 + draw.below(3);
            let role = Role::ALL[draw.below(Role::ALL.len() as u64) as usize];
            term += draw.below(2);
            run.timeline.roles.push(RoleSpan { member, from_ms: at, to_ms, role, term });
            at = to_ms;
        }
    }
    for time_ms in 0..50_000 {
        let text = "became candidate".repeat(3);
        run.timeline.events.push(LogEvent { time_ms, member: Some(1), text });
        let fault = run.timeline.faults[0].clone();
        run.timeline.faults.push(fault);
    }
    let page = run_page(&[run]);
    keep("storm", &page);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    assert!(page.contains("lines left out"));
}

#[test]
fn a_run_with_nothing_in_it_still_gives_a_page() {
    assert!(run_page(&[]).contains("No run"));
    let mut run = slow_disk("coupled", 200);
    run.timeline = Default::default();
    run.summary.virtual_ms = 0;
    run.summary.wall_ms = 0;
    run.summary.put_p50_us = None;
    run.summary.checkers.clear();
    run.summary.expectations.clear();
    let page = run_page(&[run]);
    assert!(page.contains("No checker ran."));
    assert!(!page.contains("NaN") && !page.contains("inf"), "a division by zero reached the page");
}

#[test]
fn spans_that_run_backwards_or_past_the_end_are_drawn_inside() {
    let mut run = slow_disk("coupled", 200);
    let span =
        |from_ms, to_ms| RoleSpan { member: 1, from_ms, to_ms, role: Role::Paused, term: u64::MAX };
    run.timeline.roles.push(span(5_000, 4_000));
    run.timeline.faults[0].to_ms = 0;
    run.timeline.put_gaps[0].to_ms = 0;
    let page = run_page(&[run]);
    assert!(!page.contains("width=\"-"), "a width may not be negative");
}

#[test]
fn the_record_survives_a_trip_through_json() {
    let run = slow_disk("coupled", 200);
    let text = serde_json::to_string(&run).expect("serialises");
    assert_eq!(serde_json::from_str::<RunReport>(&text).expect("parses"), run);
    let summary = serde_json::to_value(&run.summary).expect("serialises");
    for key in ["scenario", "seed", "profile", "verdict", "event_hash", "virtual_ms", "wall_ms"] {
        assert!(summary.get(key).is_some(), "{key} is promised to readers of --json");
    }
    assert_eq!(summary["verdict"], "pass");
    assert_eq!(summary["checkers"]["watch"], "ok");
}
