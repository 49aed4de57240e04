//! A cluster that cannot converge says why: the missing votes, entries and snapshots, and where the only copy is.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::PutRequest;
use detkv_core::{MemberId, Profile};
use detkv_sim::fault::{Direction, DiskStall, Kill, Partition, Target};
use detkv_sim::{ClientId, Handle, Sim, SimConfig};

const SECOND: Duration = Duration::from_secs(1);

async fn first_leader(world: &Handle) -> MemberId {
    loop {
        if let Some(leader) = world.leader() {
            // The others must have heard of it.
            world.sleep(SECOND).await;
            return leader;
        }
        world.sleep(Duration::from_millis(50)).await;
    }
}

async fn put(world: &Handle, to: MemberId, n: u32) -> bool {
    let put = PutRequest { key: format!("k{n}").into(), value: "v".into(), ..Default::default() };
    let answer = world.call(ClientId(0), to, Request::Put(put), Duration::from_millis(200)).await;
    matches!(answer, Ok(Ok(_)))
}

fn cut(node: MemberId, direction: Direction) -> Partition {
    let nodes = vec![Target::Member(node)];
    Partition { nodes, direction, duration: 100 * SECOND, clients: Vec::new() }
}

/// Runs `script` and returns the lines that it collected.
fn explained<F: Future<Output = Vec<String>> + 'static>(
    config: SimConfig,
    script: impl FnOnce(Handle) -> F,
) -> Vec<String> {
    let lines: Rc<RefCell<Vec<String>>> = Rc::default();
    let into = lines.clone();
    let outcome = Sim::run(config, |world| {
        let run = script(world);
        async move { *into.borrow_mut() = run.await }
    });
    assert_eq!(outcome.panics, Vec::<String>::new());
    lines.take()
}

#[track_caller]
fn says(lines: &[String], what: &str) {
    assert!(lines.iter().any(|line| line.contains(what)), "no {what:?} in\n{}", lines.join("\n"));
}

#[test]
fn without_a_quorum_it_names_the_missing_voters_and_the_only_copy() {
    let found: Rc<RefCell<Option<(MemberId, MemberId)>>> = Rc::default();
    let names = found.clone();
    let lines = explained(SimConfig::new(5), |world| async move {
        let leader = first_leader(&world).await;
        // What it takes in from here on nobody else has.
        world.inject(cut(leader, Direction::Outgoing).into());
        for n in 0..3 {
            assert!(!put(&world, leader, n).await, "no quorum has it");
        }
        let other = world.members().into_iter().find(|id| *id != leader).expect("three members");
        for node in [leader, other] {
            world.inject(Kill { node: Target::Member(node) }.into());
        }
        world.sleep(5 * SECOND).await;
        *names.borrow_mut() = Some((leader, other));
        world.explain()
    });
    let (leader, other) = found.take().expect("the script ran to its end");
    let mut down = [leader.0, other.0];
    down.sort_unstable();
    says(&lines, "no quorum: 1 of 3 voters are up, 2 are needed");
    says(&lines, &format!("missing: m{}, m{}", down[0], down[1]));
    says(&lines, "(not known to be committed): the only copy is on");
    says(&lines, &format!("the only copy is on m{}", leader.0));
    says(&lines, &format!("m{} is down (killed)", other.0));
    says(&lines, &format!("nothing gets from m{} to", leader.0));
}

#[test]
fn a_follower_behind_the_leaders_log_is_said_to_need_a_snapshot() {
    let mut config = SimConfig::new(6);
    config.tune = Some(Rc::new(|_, member| {
        member.snapshot_count = 10;
        member.snapshot_catchup_entries = 1;
    }));
    let found: Rc<RefCell<Option<MemberId>>> = Rc::default();
    let name = found.clone();
    let lines = explained(config, |world| async move {
        let leader = first_leader(&world).await;
        let behind = world.members().into_iter().find(|id| *id != leader).expect("three members");
        world.inject(cut(behind, Direction::Both).into());
        for n in 0..60 {
            put(&world, leader, n).await;
            world.sleep(Duration::from_millis(100)).await;
        }
        *name.borrow_mut() = Some(behind);
        world.explain()
    });
    let behind = found.take().expect("the script ran to its end");
    says(&lines, &format!("m{} lacks entries", behind.0));
    says(&lines, "a snapshot is needed");
}

#[test]
fn what_a_blocked_loop_has_not_taken_yet_is_not_said_to_be_in_its_log() {
    let mut config = SimConfig::new(8);
    config.profile = Profile::Coupled;
    let lines = explained(config, |world| async move {
        let leader = first_leader(&world).await;
        let behind = world.members().into_iter().find(|id| *id != leader).expect("three members");
        let stall = DiskStall { node: Target::Member(behind), duration: 100 * SECOND };
        world.inject(stall.into());
        for n in 0..20 {
            assert!(put(&world, leader, n).await, "two of three have it");
        }
        world.sleep(SECOND).await;
        world.explain()
    });
    says(&lines, "last entry of term 1");
    says(&lines, "lacks entries");
    assert!(!lines.iter().any(|line| line.contains("last entry of term 0")), "{lines:#?}");
}

#[test]
fn a_cut_between_all_members_names_the_missing_votes() {
    let lines = explained(SimConfig::new(7), |world| async move {
        first_leader(&world).await;
        for node in world.members() {
            world.inject(cut(node, Direction::Both).into());
        }
        world.sleep(5 * SECOND).await;
        world.explain()
    });
    says(
        &lines,
        "m1 cannot be elected: 1 of 2 votes; missing: m2 (the link is cut), m3 (the link is cut)",
    );
}
