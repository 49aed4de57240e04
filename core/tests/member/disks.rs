//! Slow disks, and what waits for them.

use detkv_core::{MemberId, Profile, Role};

use crate::support::{Cluster, put};
use crate::three;

#[test]
fn a_single_member_acknowledges_only_after_its_sync() {
    let mut c = Cluster::new(1, Profile::Decoupled, 1);
    let leader = c.elect();
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    let id = c.send(leader, put("k", "v"));
    c.ms(500);
    assert!(c.reply(leader, id).is_none());
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(100);
    assert!(c.reply(leader, id).is_some());
}

/// The swarm's seed 7130: the vote's write failed, and the next life led the same term again, with another
/// entry of the same index and term.
#[test]
fn a_single_member_leads_only_once_its_vote_is_durable() {
    for profile in [Profile::Coupled, Profile::Decoupled] {
        let mut c = Cluster::new(1, profile, 1);
        let id = MemberId(1);
        c.nodes.get_mut(&id).unwrap().log_stalled = true;
        c.ms(10_000);
        let status = c.member(id).status();
        assert_eq!((status.role, status.term, status.last_index), (Role::Candidate, 1, 0));
        c.nodes.get_mut(&id).unwrap().log_stalled = false;
        c.poll(id);
        assert_eq!((c.leader(), c.member(id).status().term), (Some(id), 1), "{profile:?}");
        assert_eq!(c.put(id, "k", "v"), 2);
    }
}

#[test]
fn a_stalled_leader_disk_stops_nothing_when_decoupled() {
    let mut c = three();
    let leader = c.elect();
    let term = c.member(leader).status().term;
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    for i in 0..40 {
        let id = c.send(leader, put("k", &i.to_string()));
        assert!(c.reply(leader, id).is_some(), "a quorum of followers is enough");
        c.ms(100);
    }
    let status = c.member(leader).status();
    assert_eq!((status.term, c.leader()), (term, Some(leader)));
    assert!(status.persisted_index < status.applied_index);
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(500);
    c.assert_converged();
}

#[test]
fn a_stalled_leader_disk_costs_the_lead_when_coupled() {
    let mut c = Cluster::new(3, Profile::Coupled, 7);
    let leader = c.elect();
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    let id = c.send(leader, put("k", "v"));
    c.ms(4_000);
    assert!(c.reply(leader, id).is_none());
    let others = c.followers();
    assert!(c.leader().is_some_and(|l| l != leader), "a follower leads: {others:?}");
    c.nodes.get_mut(&leader).unwrap().log_stalled = false;
    c.ms(1_000);
    c.assert_converged();
}

#[test]
fn a_long_stall_hands_leadership_over_once() {
    let mut c = three();
    let leader = c.elect();
    c.nodes.get_mut(&leader).unwrap().log_stalled = true;
    c.send(leader, put("k", "v"));
    c.ms(9_900);
    assert_eq!(c.leader(), Some(leader));
    c.ms(20_000);
    assert_ne!(c.leader(), Some(leader));
    assert_eq!(c.member(leader).metrics().planned_transfers_total.load(), 1);
}

#[test]
fn two_slow_follower_disks_do_not_depose_the_leader() {
    let mut c = three();
    let leader = c.elect();
    for id in c.followers() {
        c.nodes.get_mut(&id).unwrap().log_stalled = true;
    }
    let id = c.send(leader, put("k", "v"));
    c.ms(5_000);
    assert_eq!(c.leader(), Some(leader));
    assert!(c.reply(leader, id).is_none(), "nothing is durable on a quorum");
    for id in c.followers() {
        c.nodes.get_mut(&id).unwrap().log_stalled = false;
    }
    c.ms(300);
    assert!(matches!(c.reply(leader, id), Some(Ok(_))));
}

/// Under load an append carries entries and a newer commit index at once. That is no vote: what the
/// follower says to heartbeats must not wait for its disk.
#[test]
fn a_slow_follower_answers_heartbeats_while_the_commit_index_moves() {
    let mut c = three();
    c.bursts = true;
    let leader = c.elect();
    let [slow, other] = c.followers()[..] else { panic!() };
    c.nodes.get_mut(&slow).unwrap().log_stalled = true;
    // The other's acknowledgement of `a` and its forwarded `b` reach the leader in one burst.
    c.submit(other, put("b", "v"));
    c.submit(leader, put("a", "v"));
    c.poll(leader);
    c.deliver();
    c.kill(other);
    c.ms(5_000);
    assert_eq!(c.leader(), Some(leader));
}
