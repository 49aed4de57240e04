//! Equal seeds give equal event hashes in different processes, whatever the process is given.

use std::process::Command;
use std::time::Duration;

use detkv_core::MemberId;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{PutRequest, WatchCreateRequest, WatchRequest, watch_request};
use detkv_sim::fault::{DiskStall, Pause, PowerLoss, Restart, Target};
use detkv_sim::trace::first_difference;
use detkv_sim::{ClientId, Handle, RunOutcome, Sim, SimConfig};

/// A leader's disk stalls, a follower loses power, the leader pauses; two writers and a watcher go on.
async fn story(world: Handle) {
    world.sleep(Duration::from_secs(3)).await;
    for writer in 0..2_u64 {
        let handle = world.clone();
        world.spawn(async move {
            for n in 0.. {
                let key = format!("k{}", n % 10).into();
                let put =
                    PutRequest { key, value: vec![n as u8; 100].into(), ..Default::default() };
                let (client, to) = (ClientId(writer as u32), MemberId((writer + n) % 3 + 1));
                let _ = handle.call(client, to, Request::Put(put), Duration::from_secs(1)).await;
                handle.sleep(Duration::from_millis(5)).await;
            }
        });
    }
    let handle = world.clone();
    world.spawn(async move {
        loop {
            handle.sleep(Duration::from_millis(100)).await;
            let Ok(mut watch) = handle.watch(ClientId(9), MemberId(2)).await else { continue };
            let create =
                WatchCreateRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
            let request = watch_request::RequestUnion::CreateRequest(create);
            watch.send(WatchRequest { request_union: Some(request) });
            while watch.recv().await.is_some() {}
        }
    });
    let second = Duration::from_secs(1);
    world.inject(DiskStall { node: Target::Leader, duration: 2 * second }.into());
    world.sleep(3 * second).await;
    world.inject(PowerLoss { node: Target::Follower(1) }.into());
    world.sleep(second).await;
    world.inject(Pause { node: Target::Leader, duration: 3 * second }.into());
    world.sleep(second).await;
    for member in world.members() {
        if world.node_status(member) == detkv_sim::NodeStatus::Down {
            world.inject(Restart { node: Target::Member(member) }.into());
        }
    }
    world.sleep(4 * second).await;
    world.heal_all();
    world.sleep(3 * second).await;
}

fn run(seed: u64) -> RunOutcome {
    let outcome = Sim::run(SimConfig::new(seed), story);
    assert_eq!(outcome.panics, Vec::<String>::new());
    outcome
}

/// What the test below runs in processes of its own: prints hashes, tests nothing.
#[test]
#[expect(clippy::disallowed_methods, reason = "the parent test speaks to it; no run is under way")]
fn child_prints_hashes() {
    let Ok(padding) = std::env::var("DETKV_TEST_HEAP_PADDING") else { return };
    // Moves every later allocation.
    let kept: Vec<Vec<u8>> =
        (0..padding.parse().expect("a number")).map(|n| vec![1; 100 + n * 37]).collect();
    for seed in [1, 2] {
        println!("HASH {:032x}", run(seed).event_hash);
    }
    assert!(kept.iter().all(|v| v[0] == 1));
}

fn child(padding: &str, environment: usize, directory: &str) -> Vec<String> {
    let exe = std::env::current_exe().expect("the test knows itself");
    let output = Command::new(exe)
        .args(["--exact", "child_prints_hashes", "--nocapture"])
        .env_clear()
        .env("DETKV_TEST_HEAP_PADDING", padding)
        .env("PADDING", "x".repeat(environment))
        .current_dir(directory)
        .output()
        .expect("the test runs itself");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let hashes: Vec<String> =
        text.lines().filter_map(|line| line.split("HASH ").nth(1)).map(str::to_owned).collect();
    assert_eq!(hashes.len(), 2, "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    hashes
}

#[test]
fn equal_seeds_give_equal_hashes_in_unequal_processes() {
    let plain = child("0", 0, "/");
    assert_eq!(plain, child("1000", 50_000, "/tmp"));
    assert_ne!(plain[0], plain[1], "and other seeds give others");
}

#[test]
fn a_run_repeated_in_one_process_is_the_same_to_the_last_checkpoint() {
    let (a, b) = (run(3), run(3));
    assert_eq!(first_difference(&a.trace, &b.trace), None);
    assert_eq!(a.trace, b.trace);
    assert_eq!(a.history.facts(), b.history.facts());
}

/// Leaders pause again and again: every election draws a timeout in raft-rs, from the operating system.
async fn elections(world: Handle) {
    let second = Duration::from_secs(1);
    for _ in 0..6 {
        world.sleep(3 * second).await;
        world.inject(Pause { node: Target::Leader, duration: 2 * second }.into());
    }
    world.sleep(5 * second).await;
}

/// What raft-rs draws is overwritten; whether it drew, and whether by chance what was set already, must move no
/// stream of ours, not even that of the in-code fault that shortens timeouts.
#[test]
fn chance_in_raft_rs_decides_nothing_where_timeouts_are_shortened() {
    let run = |seed| Sim::run(SimConfig { buggify: true, ..SimConfig::new(seed) }, elections);
    let mut seen = 0;
    for seed in 0..40 {
        let first = run(seed);
        if first.probes.sites.get("raft.shortest-timeout").is_none_or(|times| *times == 0) {
            continue;
        }
        seen += 1;
        for _ in 0..5 {
            assert_eq!(first_difference(&first.trace, &run(seed).trace), None, "seed {seed}");
        }
    }
    assert!(seen >= 4, "the site was active in {seen} of 40 runs");
}
