//! Three members in the world: they elect, replicate, survive, and do so identically each time.

use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{PutRequest, RangeRequest};
use detkv_core::{Instant, Level, MemberId};
use detkv_sim::fault::{DiskStall, Kill, Partition, Pause, PowerLoss, Restart, Target};
use detkv_sim::trace::Decision;
use detkv_sim::{CallError, ClientId, Handle, Reply, RunOutcome, Sim, SimConfig};

const CLIENT: ClientId = ClientId(1);

async fn until_leader(world: &Handle) -> MemberId {
    let deadline = world.now() + Duration::from_secs(20);
    loop {
        if let Some(leader) = world.leader() {
            return leader;
        }
        assert!(world.now() < deadline, "no leader in 20 s");
        world.sleep(Duration::from_millis(10)).await;
    }
}

async fn put(world: &Handle, to: MemberId, key: &str, value: &str) -> Result<i64, String> {
    let (key, value) = (key.to_owned().into(), value.to_owned().into());
    let request = Request::Put(PutRequest { key, value, ..Default::default() });
    match world.call(CLIENT, to, request, Duration::from_secs(3)).await {
        Ok(Ok(Reply::Put(response))) => Ok(response.header.expect("a header").revision),
        other => Err(format!("{other:?}")),
    }
}

async fn get(world: &Handle, to: MemberId, key: &str) -> Result<Option<String>, String> {
    let request = RangeRequest { key: key.to_owned().into(), ..Default::default() };
    let request = Request::Range(request);
    let mut answer = world.call(CLIENT, to, request.clone(), Duration::from_secs(3)).await;
    if answer == Err(CallError::ConnectionLost) {
        // Half open since the member lost power: the reset tells, the next call dials.
        answer = world.call(CLIENT, to, request, Duration::from_secs(3)).await;
    }
    match answer {
        Ok(Ok(Reply::Range(response))) => Ok(response
            .kvs
            .first()
            .map(|kv| String::from_utf8(kv.value.to_vec()).expect("what was put"))),
        other => Err(format!("{other:?}")),
    }
}

/// Puts until it is acknowledged by whoever leads.
async fn put_until_ok(world: &Handle, key: &str, value: &str) {
    let deadline = world.now() + Duration::from_secs(30);
    loop {
        let leader = until_leader(world).await;
        match put(world, leader, key, value).await {
            Ok(_) => return,
            Err(error) => assert!(world.now() < deadline, "{key}: {error}"),
        }
        world.sleep(Duration::from_millis(50)).await;
    }
}

async fn check_all(world: &Handle, count: usize) {
    world.sleep(Duration::from_secs(3)).await;
    for member in world.members() {
        for i in 0..count {
            let found = get(world, member, &format!("k{i}")).await;
            assert_eq!(found, Ok(Some(format!("v{i}"))), "k{i} on {member}");
        }
    }
}

fn run<F, Fut>(seed: u64, script: F) -> RunOutcome
where
    F: FnOnce(Handle) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let mut config = SimConfig::new(seed);
    config.log_level = Some(Level::Warn);
    let outcome = Sim::run(config, script);
    for line in &outcome.log {
        println!("{line}");
    }
    assert_eq!(outcome.panics, Vec::<String>::new());
    outcome
}

async fn elect_and_replicate(world: Handle) {
    let leader = until_leader(&world).await;
    for i in 0..100 {
        let to = MemberId(i % 3 + 1);
        put(&world, to, &format!("k{i}"), &format!("v{i}"))
            .await
            .expect("a put on a whole cluster");
    }
    assert_eq!(world.leader(), Some(leader));
    check_all(&world, 100).await;
}

#[test]
fn three_members_elect_and_replicate() {
    let outcome = run(1, elect_and_replicate);
    assert!(outcome.virtual_ns > 3_000_000_000);
}

#[test]
fn equal_seeds_give_equal_hashes_and_other_seeds_others() {
    let (a, b, c) =
        (run(7, elect_and_replicate), run(7, elect_and_replicate), run(8, elect_and_replicate));
    assert_eq!(a.trace, b.trace);
    assert_ne!(a.event_hash, c.event_hash);
}

#[test]
fn states_are_compared_many_times_in_a_short_run() {
    let outcome = run(2, |world| async move {
        let leader = until_leader(&world).await;
        for n in 0..100 {
            put(&world, leader, &format!("k{n}"), "v").await.expect("nothing is in the way");
        }
        world.sleep(Duration::from_secs(1)).await;
    });
    let states = outcome.history.states();
    assert_eq!((states.members(), states.differing()), (3, None));
    // Each put is applied by two followers after the leader, as a rule one by one.
    assert!(states.compared() >= 150, "{} times", states.compared());
}

#[test]
fn acknowledged_puts_survive_kill_power_loss_and_restart() {
    run(3, |world| async move {
        for round in 0..6 {
            let leader = until_leader(&world).await;
            put_until_ok(&world, &format!("k{round}"), &format!("v{round}")).await;
            let node = Target::Member(leader);
            world.inject(if round % 2 == 0 {
                Kill { node }.into()
            } else {
                PowerLoss { node }.into()
            });
            world.sleep(Duration::from_millis(500)).await;
            world.inject(Restart { node }.into());
        }
        world.heal_all();
        until_leader(&world).await;
        check_all(&world, 6).await;
    });
}

#[test]
fn acknowledged_puts_survive_a_blackout_of_all() {
    for seed in 10..15 {
        run(seed, |world| async move {
            until_leader(&world).await;
            for i in 0..20 {
                put_until_ok(&world, &format!("k{i}"), &format!("v{i}")).await;
            }
            for member in world.members() {
                world.inject(PowerLoss { node: Target::Member(member) }.into());
            }
            world.sleep(Duration::from_secs(1)).await;
            world.heal_all();
            until_leader(&world).await;
            check_all(&world, 20).await;
        });
    }
}

#[test]
fn a_leader_cut_off_is_replaced_and_rejoins() {
    run(4, |world| async move {
        let old = until_leader(&world).await;
        put_until_ok(&world, "k0", "v0").await;
        let (nodes, duration) = (vec![Target::Leader], Duration::from_secs(8));
        let cut = Partition { nodes, direction: Default::default(), duration, clients: vec![] };
        world.inject(cut.into());
        world.sleep(Duration::from_secs(4)).await;
        let new = until_leader(&world).await;
        assert_ne!(old, new);
        put_until_ok(&world, "k1", "v1").await;
        world.sleep(Duration::from_secs(6)).await;
        check_all(&world, 2).await;
    });
}

#[test]
fn a_paused_leader_is_replaced_and_its_client_waits() {
    run(5, |world| async move {
        let old = until_leader(&world).await;
        let duration = Duration::from_secs(5);
        world.inject(Pause { node: Target::Leader, duration }.into());
        let answer = put(&world, old, "k0", "x").await;
        assert!(answer.expect_err("nobody answers").contains("Timeout"));
        let new = until_leader(&world).await;
        assert_ne!(old, new);
        put_until_ok(&world, "k0", "v0").await;
        world.sleep(Duration::from_secs(6)).await;
        check_all(&world, 1).await;
    });
}

#[test]
fn a_call_to_a_dead_process_is_refused_and_to_a_dark_machine_times_out() {
    run(6, |world| async move {
        until_leader(&world).await;
        world.inject(Kill { node: Target::Member(MemberId(1)) }.into());
        world.inject(PowerLoss { node: Target::Member(MemberId(2)) }.into());
        world.sleep(Duration::from_millis(10)).await;
        let call = async |to| {
            let request = Request::Range(RangeRequest { key: "a".into(), ..Default::default() });
            let before = world.now();
            let answer = world.call(CLIENT, MemberId(to), request, Duration::from_secs(2)).await;
            (answer.expect_err("no answer"), world.now().since(before))
        };
        let (error, took) = call(1).await;
        assert_eq!(error, CallError::Unavailable);
        assert!(took < Duration::from_millis(1), "{took:?}");
        assert_eq!(call(2).await, (CallError::Timeout, Duration::from_secs(2)));
    });
}

#[test]
fn sleeps_end_at_exactly_their_time() {
    run(6, |world| async move {
        for ns in [1, 999, 1_000_000, 1_234_567_891] {
            let at = world.now() + Duration::from_nanos(ns);
            world.sleep_until(at).await;
            assert_eq!(world.now(), at);
        }
        assert!(world.now() > Instant::ZERO);
    });
}

#[test]
fn a_disk_stall_delays_what_needs_this_disk() {
    run(9, |world| async move {
        let leader = until_leader(&world).await;
        put_until_ok(&world, "k0", "v0").await;
        for member in world.members() {
            let (node, duration) = (Target::Member(member), Duration::from_millis(700));
            world.inject(DiskStall { node, duration }.into());
        }
        let before = world.now();
        put(&world, leader, "k1", "v1").await.expect("it is only late");
        let took = world.now().since(before);
        assert!(
            (Duration::from_millis(690)..Duration::from_millis(760)).contains(&took),
            "{took:?}"
        );
    });
}

#[test]
fn recording_more_changes_nothing_and_tells_what_was_decided() {
    let script = |world: Handle| async move {
        until_leader(&world).await;
        world.inject(Kill { node: Target::Leader }.into());
        put_until_ok(&world, "k0", "v0").await;
        world.heal_all();
    };
    let plain = Sim::run(SimConfig::new(11), script);
    let mut config = SimConfig::new(11);
    (config.trace.decisions, config.trace.draws) = (true, true);
    config.trace.full = 100..110;
    let traced = Sim::run(config, script);
    assert_eq!(plain.event_hash, traced.event_hash);
    assert_eq!((plain.decisions.len(), traced.trace.lines.len()), (0, 10));
    let count = |is: fn(&Decision) -> bool| traced.decisions.iter().filter(|d| is(d)).count();
    assert_eq!(count(|d| matches!(d, Decision::Seed { seed: 11, members: 3 })), 1);
    assert_eq!(count(|d| matches!(d, Decision::Fault { target: Some(_), .. })), 1);
    assert_eq!(count(|d| matches!(d, Decision::HealAll { .. })), 1);
    assert!(count(|d| matches!(d, Decision::Operation { .. })) >= 1);
    assert!(count(|d| matches!(d, Decision::Draw(_))) > 100);
}
