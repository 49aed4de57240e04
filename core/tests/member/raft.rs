//! Messages, terms, commits.

use detkv_core::pb::peer;
use detkv_core::{Input, Profile};

use crate::support::{Cluster, put};
use crate::three;

/// The swarm's seed 3953: a coupled member that waits for its disk had accepted an append, and said that what
/// its log still held there was committed.
#[test]
fn an_entry_about_to_be_replaced_is_not_shown_as_committed() {
    let mut c = Cluster::new(3, Profile::Coupled, 7);
    let old = c.elect();
    c.put(old, "a", "1");
    c.ms(500);
    let new = c.followers()[0];
    c.isolated.insert(old);
    c.send(old, put("a", "lost"));
    let (term, last) = (c.member(old).status().term, c.member(old).status().last_index);
    c.nodes.get_mut(&old).unwrap().log_stalled = true;
    let told = |c: &mut Cluster, m: peer::RaftMessage| {
        let m = peer::RaftMessage { from: new.0, to: old.0, term: term + 1, ..m };
        let frame = peer::Frame { body: Some(peer::frame::Body::Raft(m)) };
        c.input(old, Input::Peer { from: new, frame });
        c.poll(old);
        let member = c.nodes.get_mut(&old).unwrap().member.as_mut().unwrap();
        let facts = member.take_raft_facts();
        assert_eq!((facts.term, facts.last_index), (term + 1, last));
        (facts.commit_index, member.log_term(last))
    };
    const MSG_APPEND: u32 = 3;
    const MSG_HEARTBEAT: u32 = 8;
    // The new term is being written; the append is accepted and waits behind it.
    let heartbeat = peer::RaftMessage { msg_type: MSG_HEARTBEAT, ..Default::default() };
    assert_eq!(told(&mut c, heartbeat.clone()), (last - 1, Some(term)));
    let entry = peer::Entry { term: term + 1, index: last, ..Default::default() };
    let append = peer::RaftMessage {
        msg_type: MSG_APPEND,
        log_term: term,
        index: last - 1,
        entries: vec![entry],
        commit: last,
        ..Default::default()
    };
    assert_eq!(told(&mut c, append), (last - 1, Some(term)));
    c.nodes.get_mut(&old).unwrap().log_stalled = false;
    c.poll(old);
    assert_eq!(told(&mut c, heartbeat), (last, Some(term + 1)));
}

#[test]
fn a_commit_notice_is_not_answered() {
    let mut c = three();
    let leader = c.elect();
    c.ms(500);
    c.put(leader, "a", "1");
    let before = c.append_answers;
    c.put(leader, "b", "2");
    assert_eq!(c.append_answers - before, 2, "one answer per follower, to the entry");
}

#[test]
fn a_lost_acknowledgement_comes_again_after_a_heartbeat() {
    let mut c = three();
    let leader = c.elect();
    c.ms(500);
    c.lose_append_answers = true;
    let id = c.send(leader, put("a", "1"));
    c.deliver();
    c.lose_append_answers = false;
    assert!(c.reply(leader, id).is_none(), "nobody told the leader");
    c.ms(250);
    assert!(matches!(c.reply(leader, id), Some(Ok(_))), "the next heartbeats brought it");
}

/// On a slow link a probe is repeated with every heartbeat that was under way before it.
#[test]
fn a_peer_whose_log_is_not_known_is_sent_little_and_then_each_entry_once() {
    let mut c = three();
    let leader = c.elect();
    let follower = c.followers()[0];
    c.isolated.insert(follower);
    let value = "v".repeat(8 << 10);
    for n in 0..40 {
        c.put(leader, &format!("key-{n}"), &value);
    }
    c.appends.clear();
    c.isolated.clear();
    c.ms(500);
    let sent: Vec<usize> =
        c.appends.iter().filter(|(to, _)| *to == follower).map(|(_, bytes)| *bytes).collect();
    assert!((8 << 10..=64 << 10).contains(&sent[0]), "the probe: {sent:?}");
    assert!(sent.iter().sum::<usize>() < 41 * (9 << 10), "no entry comes twice: {sent:?}");
    c.assert_converged();
}

/// A message of many megabytes would hold up every heartbeat behind it (swarm run 13262).
#[test]
fn what_a_peer_lacks_is_sent_in_pieces() {
    let mut c = three();
    let leader = c.elect();
    let follower = c.followers()[0];
    c.isolated.insert(follower);
    let value = "v".repeat(300 << 10);
    for n in 0..15 {
        c.put(leader, &format!("key-{n}"), &value);
    }
    c.appends.clear();
    c.isolated.clear();
    c.ms(500);
    let sent = c.appends.iter().filter(|(to, _)| *to == follower).map(|(_, bytes)| *bytes);
    let sent: Vec<usize> = sent.collect();
    let largest = sent.iter().max().copied().unwrap_or(0);
    assert!(((600 << 10)..=(1 << 20)).contains(&largest), "{sent:?}");
    c.assert_converged();
}
