//! Connections of the world behave as `world/peers.rs` and `world/calls.rs` promise.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, watch_request,
};
use detkv_core::{Instant, MemberId, Role};
use detkv_sim::fault::{Direction, Kill, Partition, PowerLoss, Restart, Target};
use detkv_sim::history::Fact;
use detkv_sim::net::LinkModel;
use detkv_sim::rng::Distribution;
use detkv_sim::{CallError, ClientId, Handle, NodeStatus, Sim, SimConfig};

const CLIENT: ClientId = ClientId(1);
const LONG: Duration = Duration::from_secs(30);

async fn until_leader(world: &Handle) -> MemberId {
    while world.leader().is_none() {
        world.sleep(Duration::from_millis(10)).await;
    }
    world.leader().expect("looked at just now")
}

fn serializable() -> Request {
    let key = "a".into();
    Request::Range(RangeRequest { key, serializable: true, ..Default::default() })
}

fn put(value: usize) -> Request {
    let (key, value) = ("a".into(), vec![7; value].into());
    Request::Put(PutRequest { key, value, ..Default::default() })
}

async fn timed(
    world: &Handle,
    to: MemberId,
    request: Request,
) -> (Result<(), CallError>, Duration) {
    let before = world.now();
    let answer = world.call(CLIENT, to, request, LONG).await;
    (answer.map(|_| ()), world.now().since(before))
}

#[test]
fn a_request_takes_a_round_trip_and_the_first_one_two() {
    let mut config = SimConfig::new(1);
    config.net.client.latency = Distribution::Constant(Duration::from_millis(10));
    config.net.client.bytes_per_sec = None;
    config.cpu = detkv_sim::cpu::CpuModel::free();
    Sim::run(config, |world| async move {
        until_leader(&world).await;
        let (answer, took) = timed(&world, MemberId(1), serializable()).await;
        assert_eq!((answer, took), (Ok(()), Duration::from_millis(40)), "dialed first");
        let (answer, took) = timed(&world, MemberId(1), serializable()).await;
        assert_eq!((answer, took), (Ok(()), Duration::from_millis(20)));
    });
}

#[test]
fn a_large_put_takes_its_size_over_the_bandwidth() {
    let mut config = SimConfig::new(1);
    config.net.client = LinkModel {
        latency: Distribution::Constant(Duration::from_millis(1)),
        bytes_per_sec: Some(1_000_000),
        ..LinkModel::default()
    };
    Sim::run(config, |world| async move {
        let leader = until_leader(&world).await;
        let (answer, _) = timed(&world, leader, put(1)).await;
        assert_eq!(answer, Ok(()));
        let (answer, took) = timed(&world, leader, put(1_000_000)).await;
        assert_eq!(answer, Ok(()));
        assert!((Duration::from_secs(1)..Duration::from_millis(1100)).contains(&took), "{took:?}");
    });
}

#[test]
fn a_kill_breaks_calls_at_once_and_a_power_loss_leaves_them_hanging() {
    Sim::run(SimConfig::new(2), |world| async move {
        until_leader(&world).await;
        // A write that cannot commit: the only member left answers nothing.
        for kill in [true, false] {
            world.heal_all();
            world.sleep(Duration::from_secs(5)).await;
            let target = MemberId(1);
            let node = Target::Member(target);
            // Ends a stale connection of the round before.
            let _ = timed(&world, target, serializable()).await;
            for other in [2, 3] {
                world.inject(Kill { node: Target::Member(MemberId(other)) }.into());
            }
            let handle = world.clone();
            world.spawn(async move {
                handle.sleep(Duration::from_secs(1)).await;
                handle.inject(if kill { Kill { node }.into() } else { PowerLoss { node }.into() });
            });
            let before = world.now();
            let answer = world.call(CLIENT, target, put(1), Duration::from_secs(4)).await;
            let took = world.now().since(before);
            if kill {
                assert_eq!(answer, Err(CallError::ConnectionLost));
                assert!(took < Duration::from_millis(1001), "{took:?}");
            } else {
                assert_eq!((answer, took), (Err(CallError::Timeout), Duration::from_secs(4)));
            }
        }
    });
}

#[test]
fn a_client_cut_off_waits_and_is_served_after_the_cut() {
    Sim::run(SimConfig::new(3), |world| async move {
        let leader = until_leader(&world).await;
        assert_eq!(timed(&world, leader, put(1)).await.0, Ok(()));
        // All members on one side, the client on the side of nobody: it reaches none.
        let cut = Partition {
            nodes: vec![],
            direction: Direction::Both,
            duration: Duration::from_millis(500),
            clients: vec![CLIENT.0],
        };
        world.inject(cut.into());
        let (answer, took) = timed(&world, leader, put(1)).await;
        assert_eq!(answer, Ok(()));
        // Retransmissions come 200 and 600 ms after the cut began.
        assert!(
            (Duration::from_millis(600)..Duration::from_millis(610)).contains(&took),
            "{took:?}"
        );
    });
}

/// Terms and roles of members over a one-way cut of the leader.
fn one_way(direction: Direction) -> Vec<(Instant, Fact)> {
    let outcome = Sim::run(SimConfig::new(4), move |world| async move {
        until_leader(&world).await;
        world.sleep(Duration::from_secs(1)).await;
        let (nodes, duration) = (vec![Target::Leader], Duration::from_secs(4));
        world.inject(Partition { nodes, direction, duration, clients: vec![] }.into());
        world.sleep(Duration::from_secs(10)).await;
        assert!(world.leader().is_some());
    });
    assert!(outcome.panics.is_empty(), "{:?}", outcome.panics);
    outcome.history.facts().to_vec()
}

#[test]
fn a_leader_that_is_not_heard_or_does_not_hear_is_replaced() {
    for direction in [Direction::Outgoing, Direction::Incoming] {
        let facts = one_way(direction);
        let mut leaders: Vec<MemberId> = facts
            .iter()
            .filter_map(|(_, fact)| match fact {
                Fact::Role { member, role: Role::Leader, .. } => Some(*member),
                _ => None,
            })
            .collect();
        leaders.dedup();
        assert!(leaders.len() >= 2, "{direction:?}: {leaders:?}");
    }
}

#[test]
fn a_watch_stream_delivers_in_order_and_ends_with_its_member() {
    Sim::run(SimConfig::new(5), |world| async move {
        let leader = until_leader(&world).await;
        let seen = Rc::new(RefCell::new((Vec::new(), false)));
        let (handle, log) = (world.clone(), seen.clone());
        world.spawn(async move {
            let mut watch = handle.watch(ClientId(2), leader).await.expect("the leader is up");
            let create = WatchCreateRequest { key: "a".into(), ..Default::default() };
            let create = watch_request::RequestUnion::CreateRequest(create);
            watch.send(WatchRequest { request_union: Some(create) });
            while let Some(response) = watch.recv().await {
                let revisions = response
                    .events
                    .iter()
                    .map(|event| event.kv.as_ref().expect("a row").mod_revision);
                log.borrow_mut().0.extend(revisions);
            }
            log.borrow_mut().1 = true;
        });
        world.sleep(Duration::from_millis(100)).await;
        for _ in 0..50 {
            assert_eq!(timed(&world, leader, put(10)).await.0, Ok(()));
        }
        world.sleep(Duration::from_millis(100)).await;
        let revisions = seen.borrow().0.clone();
        assert_eq!(revisions, (2..52).collect::<Vec<i64>>());
        assert!(!seen.borrow().1);
        world.inject(Restart { node: Target::Member(leader) }.into());
        world.sleep(Duration::from_millis(10)).await;
        assert!(seen.borrow().1, "the stream is lost with its process");
        assert!(!matches!(world.node_status(leader), NodeStatus::Down));
    });
}

#[test]
fn a_client_that_does_not_read_holds_the_stream_up_and_then_gets_everything() {
    let mut config = SimConfig::new(6);
    config.net.stream_window_bytes = 10_000;
    Sim::run(config, |world| async move {
        let leader = until_leader(&world).await;
        let mut watch = world.watch(ClientId(2), leader).await.expect("the leader is up");
        let create = WatchCreateRequest { key: "a".into(), ..Default::default() };
        let create = watch_request::RequestUnion::CreateRequest(create);
        watch.send(WatchRequest { request_union: Some(create) });
        for _ in 0..60 {
            assert_eq!(timed(&world, leader, put(1000)).await.0, Ok(()));
        }
        world.sleep(Duration::from_secs(1)).await;
        let mut revisions = Vec::new();
        while revisions.len() < 60 {
            let response = watch.recv().await.expect("the stream goes on");
            revisions
                .extend(response.events.iter().map(|e| e.kv.as_ref().expect("a row").mod_revision));
        }
        assert_eq!(revisions, (2..62).collect::<Vec<i64>>());
    });
}
