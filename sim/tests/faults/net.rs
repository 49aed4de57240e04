//! Network: what each kind does to a call, and that the cluster survives every one of them.

use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{PutRequest, RangeRequest};
use detkv_core::{ApiError, MemberId};
use detkv_sim::fault::{
    Bridge, ConnectHang, DelayReads, Direction, Fault, IsolatePeers, LinkBandwidth, LinkDuplicate,
    LinkFlap, LinkLoss, LinkReorder, LinkSlow, PartialPartition, RemoveMember, Ring, Target,
};
use detkv_sim::{CallError, ClientId, Handle, Reply, RunOutcome, Sim, SimConfig};

use super::{SECOND, config, judged, m, ms, told, until_leader};

const CLIENT: ClientId = ClientId(1);

fn put(bytes: usize) -> Request {
    let (key, value) = ("a".into(), vec![7; bytes].into());
    Request::Put(PutRequest { key, value, ..Default::default() })
}

fn get(serializable: bool) -> Request {
    Request::Range(RangeRequest { key: "a".into(), serializable, ..Default::default() })
}

type Answer = Result<Result<Reply, ApiError>, CallError>;

async fn timed(world: &Handle, to: MemberId, request: Request) -> (Answer, Duration) {
    let before = world.now();
    let answer = world.call(CLIENT, to, request, 5 * SECOND).await;
    (answer, world.now().since(before))
}

async fn ok(world: &Handle, to: MemberId, request: Request) -> Duration {
    let (answer, took) = timed(world, to, request).await;
    assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
    took
}

/// Runs `script` with a leader that `CLIENT` is connected to.
fn run<F, Fut>(members: u64, script: F) -> RunOutcome
where
    F: FnOnce(Handle, MemberId) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let config = SimConfig { members, ..SimConfig::new(5) };
    let outcome = Sim::run(config, |world| async move {
        let leader = until_leader(&world).await;
        ok(&world, leader, put(1)).await;
        script(world, leader).await;
    });
    assert_eq!(outcome.panics, Vec::<String>::new());
    outcome
}

fn client_link() -> (Vec<Target>, Vec<Target>, Direction, Vec<u32>) {
    (vec![Target::Leader], vec![Target::Leader], Direction::Outgoing, vec![CLIENT.0])
}

#[test]
fn a_slow_link_adds_its_time_and_nothing_once_it_is_over() {
    run(3, |world, leader| async move {
        let (nodes, peers, direction, clients) = client_link();
        let (by, spread, duration) = (ms(50), Duration::ZERO, SECOND);
        world.inject(LinkSlow { nodes, peers, direction, clients, by, spread, duration }.into());
        let took = ok(&world, leader, get(true)).await;
        assert!((ms(50)..ms(51)).contains(&took), "{took:?}");
        world.sleep(SECOND).await;
        assert!(ok(&world, leader, get(true)).await < ms(1));
    });
}

#[test]
fn a_lost_packet_costs_a_timeout() {
    run(3, |world, leader| async move {
        let (nodes, peers, direction, clients) = client_link();
        let (ppm, duration) = (500_000, 100 * SECOND);
        world.inject(LinkLoss { nodes, peers, direction, clients, ppm, duration }.into());
        let (mut late, mut in_time) = (0, 0);
        for _ in 0..40 {
            let took = timed(&world, leader, get(true)).await.1;
            late += u32::from(took >= ms(200));
            in_time += u32::from(took < ms(1));
        }
        assert!(late > 10 && in_time > 8, "{late} late, {in_time} in time");
    });
}

#[test]
fn little_bandwidth_is_shared_and_never_exceeded() {
    run(3, |world, leader| async move {
        let (duration, bytes_per_sec) = (60 * SECOND, 100_000);
        let fault = LinkBandwidth {
            nodes: vec![Target::Leader],
            peers: vec![],
            direction: Direction::Outgoing,
            clients: vec![],
            bytes_per_sec,
            duration,
        };
        world.inject(fault.into());
        // One follower's copy is enough: 100 kB at 100 kB/s.
        let took = ok(&world, leader, put(100_000)).await;
        assert!((SECOND..SECOND + ms(100)).contains(&took), "{took:?}");
    });
}

#[test]
fn a_flapping_link_lets_calls_through_now_and_then() {
    run(3, |world, leader| async move {
        let (nodes, peers, direction, clients) = client_link();
        let (down, up, duration) = (ms(1000), ms(1000), 30 * SECOND);
        let fault = LinkFlap { nodes, peers, direction, clients, down, up, duration };
        world.inject(fault.into());
        let (mut slow, mut fast) = (0, 0);
        for _ in 0..40 {
            let (_, took) = timed(&world, leader, get(true)).await;
            slow += u32::from(took > ms(100));
            fast += u32::from(took < ms(1));
            world.sleep(ms(100)).await;
        }
        assert!(slow >= 2 && fast >= 8, "{slow} slow, {fast} fast");
        world.sleep(30 * SECOND).await;
        ok(&world, leader, get(true)).await;
    });
}

#[test]
fn a_connection_that_hangs_times_out_and_one_that_is_up_goes_on() {
    run(3, |world, leader| async move {
        let fault = ConnectHang {
            nodes: vec![m(1), m(2), m(3)],
            peers: vec![],
            direction: Direction::Incoming,
            clients: vec![CLIENT.0],
            duration: 20 * SECOND,
        };
        world.inject(fault.into());
        ok(&world, leader, get(false)).await;
        let other = world.members().into_iter().find(|id| *id != leader).expect("three members");
        let (answer, took) = timed(&world, other, get(true)).await;
        assert_eq!((answer, took), (Err(CallError::Timeout), 5 * SECOND));
        world.sleep(16 * SECOND).await;
        ok(&world, other, get(true)).await;
    });
}

#[test]
fn delayed_answers_to_read_index_delay_linearizable_reads_alone() {
    run(3, |world, leader| async move {
        let (by, duration) = (ms(300), 20 * SECOND);
        world.inject(DelayReads { node: Target::Leader, by, duration }.into());
        let took = ok(&world, leader, get(false)).await;
        assert!((ms(300)..ms(320)).contains(&took), "{took:?}");
        assert!(ok(&world, leader, get(true)).await < ms(1));
        assert!(ok(&world, leader, put(1)).await < ms(20));
        let other = world.members().into_iter().find(|id| *id != leader).expect("three members");
        assert!(ok(&world, other, get(false)).await > ms(300), "its round is the leader's too");
    });
}

#[test]
fn a_member_without_peers_answers_clients_with_what_it_has() {
    run(3, |world, old| async move {
        world.inject(IsolatePeers { node: Target::Leader, duration: 20 * SECOND }.into());
        world.sleep(5 * SECOND).await;
        ok(&world, old, get(true)).await;
        let (answer, _) = timed(&world, old, get(false)).await;
        assert!(!matches!(answer, Ok(Ok(_))), "a minority knows nothing for certain: {answer:?}");
        assert_ne!(until_leader(&world).await, old);
    });
}

#[test]
fn a_partial_partition_leaves_a_majority_that_works() {
    run(3, |world, leader| async move {
        let (nodes, peers) = (vec![Target::Leader], vec![Target::Follower(1)]);
        let (direction, duration) = (Direction::Both, 20 * SECOND);
        world.inject(PartialPartition { nodes, peers, direction, duration }.into());
        world.sleep(10 * SECOND).await;
        assert_eq!(world.leader(), Some(leader), "pre-vote keeps the one cut off from campaigning");
        ok(&world, leader, put(1)).await;
    });
}

#[test]
fn a_bridge_makes_a_majority_with_either_half() {
    run(5, |world, _| async move {
        world.inject(Bridge { node: m(3), duration: 30 * SECOND }.into());
        world.sleep(15 * SECOND).await;
        let leader = until_leader(&world).await;
        ok(&world, leader, put(1)).await;
    });
}

#[test]
fn five_members_in_a_ring_hear_their_neighbours_only() {
    let outcome = run(5, |world, _| async move {
        world.inject(Ring { one_way: false, duration: 20 * SECOND }.into());
        world.sleep(25 * SECOND).await;
        let leader = until_leader(&world).await;
        ok(&world, leader, put(1)).await;
    });
    assert_eq!(super::told(&outcome), ["each member reaches its neighbours only for 20s"]);
}

/// Frames between members in a run of five seconds with a fault on all their links.
fn frames(fault: Option<Fault>) -> u64 {
    let faults = fault.into_iter().map(|fault| (ms(500), fault)).collect();
    let outcome = judged(config(9), 4 * SECOND, faults);
    outcome.counters.links.iter().map(|(_, _, link)| link.messages).sum()
}

fn all_links() -> (Vec<Target>, Vec<Target>, Direction, Vec<u32>) {
    (vec![], vec![], Direction::Both, vec![])
}

#[test]
fn duplicated_and_reordered_raft_messages_are_survived() {
    let plain = frames(None);
    let (nodes, peers, direction, clients) = all_links();
    let (ppm, later, duration) = (400_000, ms(300), 10 * SECOND);
    let twice = frames(Some(
        LinkDuplicate { nodes, peers, direction, clients, ppm, later, duration }.into(),
    ));
    assert!(twice > plain + plain / 20, "{twice} instead of {plain}");
    let (nodes, peers, direction, clients) = all_links();
    frames(Some(LinkReorder { nodes, peers, direction, clients, ppm, later, duration }.into()));
}

#[test]
fn every_kind_of_partition_is_survived() {
    let duration = 3 * SECOND;
    let (nodes, peers) = (vec![Target::Leader], vec![Target::Follower(1)]);
    let (down, up) = (ms(300), ms(300));
    let faults: Vec<Fault> = vec![
        IsolatePeers { node: Target::Leader, duration }.into(),
        PartialPartition { nodes, peers, direction: Direction::Outgoing, duration }.into(),
        Bridge { node: Target::Leader, duration }.into(),
        Ring { one_way: true, duration }.into(),
        LinkFlap {
            nodes: vec![Target::Leader],
            peers: vec![],
            direction: Direction::Both,
            clients: vec![0, 1],
            down,
            up,
            duration,
        }
        .into(),
        DelayReads { node: Target::Leader, by: ms(600), duration }.into(),
    ];
    for (seed, fault) in (20..).zip(faults) {
        judged(config(seed), 5 * SECOND, vec![(SECOND, fault)]);
    }
}

/// What becomes of `fault` in a cluster of so many members, of which the last one has been removed for good.
fn after_a_removal(members: u64, fault: Fault) -> String {
    let outcome = run(members, move |world, leader| async move {
        let gone = if leader.0 == members { members - 1 } else { members };
        // Longer than a connection must have been up for a removal.
        world.sleep(6 * SECOND).await;
        world.inject(RemoveMember { node: m(gone) }.into());
        while world.members().contains(&MemberId(gone)) {
            world.sleep(ms(100)).await;
        }
        world.inject(fault);
        world.sleep(SECOND).await;
    });
    told(&outcome).pop().expect("the fault is in the history")
}

#[test]
fn a_removed_member_has_no_place_in_a_ring_and_is_in_no_half() {
    let ring = Ring { one_way: false, duration: SECOND };
    let told = after_a_removal(4, ring.into());
    assert_eq!(told, "ring skipped: 3 members reach each other in a ring");
    let bridge = Bridge { node: Target::Leader, duration: SECOND };
    let told = after_a_removal(3, bridge.into());
    assert_eq!(told, "bridge skipped: there is nothing to bridge");
}
