//! What operators do to the cluster comes to its end: who was added runs, who was removed knows it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use detkv_core::MemberId;
use detkv_core::member::MemberStatus;
use detkv_sim::fault::{AddMember, Direction, LinkSlow, Partition, RemoveMember, Target};
use detkv_sim::{Handle, NodeStatus, Sim, SimConfig};

const SECOND: Duration = Duration::from_secs(1);
/// The client number of the operator of the run's first fault.
const OPERATOR: u32 = 1 << 16;

fn run<F: Future<Output = ()> + 'static>(
    config: SimConfig,
    script: impl FnOnce(Handle) -> F + 'static,
) {
    let ended = Rc::new(Cell::new(false));
    let is_over = ended.clone();
    let outcome = Sim::run(config, |world| async move {
        script(world).await;
        is_over.set(true);
    });
    assert_eq!(outcome.panics, Vec::<String>::new());
    assert!(ended.get(), "the script ran to its end");
}

async fn leader(world: &Handle) -> MemberId {
    for _ in 0..1000 {
        if let Some(leader) = world.leader() {
            return leader;
        }
        world.sleep(Duration::from_millis(20)).await;
    }
    panic!("no leader:\n{}", world.explain().join("\n"));
}

fn up(world: &Handle, member: MemberId) -> MemberStatus {
    match world.node_status(member) {
        NodeStatus::Up(status) => status,
        other => panic!("member {member} is {other:?}"),
    }
}

fn one_member() -> SimConfig {
    SimConfig { members: 1, ..SimConfig::new(1) }
}

/// With the second voter in the list the first one alone can neither read it out nor elect anybody.
#[test]
fn a_second_voter_is_started() {
    run(one_member(), |world| async move {
        leader(&world).await;
        world.inject(AddMember { learner: false }.into());
        world.sleep(5 * SECOND).await;
        let leader = leader(&world).await;
        assert_eq!(up(&world, leader).voters.len(), 2);
        assert!(!world.is_operated());
    });
}

#[test]
fn a_second_voter_is_started_though_the_answer_to_its_addition_was_lost() {
    let mut config = one_member();
    config.net.client.latency = detkv_sim::rng::Distribution::Constant(SECOND / 10);
    run(config, |world| async move {
        let first = leader(&world).await;
        world.inject(AddMember { learner: false }.into());
        // A dial and the list took 400 ms, the request is on its way: the answer comes too late.
        world.sleep(SECOND / 2).await;
        let late = LinkSlow {
            nodes: vec![Target::Member(first)],
            peers: Vec::new(),
            direction: Direction::Outgoing,
            clients: vec![OPERATOR],
            by: 20 * SECOND,
            spread: Duration::ZERO,
            duration: 10 * SECOND,
        };
        world.inject(late.into());
        world.sleep(8 * SECOND).await;
        assert_eq!(up(&world, first).voters.len(), 2, "it was added");
        assert_eq!(world.members().len(), 1, "nobody knows");
        assert_eq!(world.leader(), None);
        // Later calls time out too, the next look at the list is answered.
        world.sleep(30 * SECOND).await;
        let leader = leader(&world).await;
        assert_eq!(up(&world, leader).voters.len(), 2);
        assert!(!world.is_operated());
    });
}

/// Nothing reached it while it was removed and bidden farewell. Its own connections were up all the time.
#[test]
fn a_member_that_missed_its_removal_is_told() {
    run(SimConfig::new(2), |world| async move {
        let leader = leader(&world).await;
        let gone = world.members().into_iter().find(|id| *id != leader).expect("three members");
        let node = Target::Member(gone);
        // Longer than a connection must have been up for a removal.
        world.sleep(6 * SECOND).await;
        let deaf = Partition {
            nodes: vec![node],
            direction: Direction::Incoming,
            duration: 20 * SECOND,
            clients: Vec::new(),
        };
        world.inject(deaf.into());
        world.inject(RemoveMember { node }.into());
        world.sleep(15 * SECOND).await;
        assert_eq!(up(&world, leader).voters.len(), 2);
        world.sleep(10 * SECOND).await;
        assert_eq!(world.node_status(gone), NodeStatus::Down);
        assert!(!world.members().contains(&gone), "it was told and left for good");
    });
}
