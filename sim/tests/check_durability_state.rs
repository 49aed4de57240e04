//! The durability and state checkers reject planted bad histories.

mod check_support;

use check_support::*;
use detkv_core::MemberId;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_sim::Reply;
use detkv_sim::check::{Durability, Linearizability, State};
use detkv_sim::history::{Fact, Failure, Phase, Sample};

fn some_puts() -> Script {
    let mut script = Script::new();
    for (key, value) in [("a", "1"), ("b", "1"), ("a", "2")] {
        script.run(1, put(key, value));
    }
    script
}

#[test]
fn checker_accepts_when_everything_is_read_back() {
    let mut script = some_puts();
    let lost = script.call(2, put("c", "1"));
    script.fail(lost, Failure::Unknown);
    script.read_back();
    accepts(&script, &Durability);
}

#[test]
fn checker_rejects_a_lost_tail() {
    // The cluster forgot the last acknowledged put and says so honestly.
    let mut script = some_puts();
    let mut forgetful = Script::new();
    for (key, value) in [("a", "1"), ("b", "1")] {
        forgetful.run(1, put(key, value));
    }
    script.store = forgetful.store;
    script.read_back();
    rejects(&script, &Durability, "an acknowledged write is lost");
    rejects(&script, &Linearizability, "stale read");
}

#[test]
fn checker_rejects_a_row_that_is_gone() {
    let mut script = some_puts();
    script.store.rows.remove(&bytes("b"));
    script.read_back();
    rejects(&script, &Durability, "an acknowledged write is lost");
}

#[test]
fn checker_rejects_an_event_that_is_gone_from_the_past() {
    // An overwritten version is missing: only the watch of the past shows it.
    let mut script = some_puts();
    script.store.revisions[0].clear();
    script.read_back();
    rejects(&script, &Durability, "an acknowledged write is lost");
}

/// Two pages of one row each, in the end.
fn read_pages(script: &mut Script, second: &str) {
    script.fact(Fact::Phase(Phase::Readout));
    let revision = script.store.revision();
    script.run(8, get_page("\0", 0, 1));
    script.run(8, get_page(second, revision, 1));
    script.watched(watch_all(1));
}

#[test]
fn checker_accepts_what_is_read_back_page_by_page() {
    let mut script = some_puts();
    read_pages(&mut script, "a\0");
    accepts(&script, &Durability);
}

#[test]
fn checker_rejects_a_row_that_is_gone_from_a_later_page() {
    let mut script = some_puts();
    script.run(1, put("c", "1"));
    script.fact(Fact::Phase(Phase::Readout));
    script.run(8, get_page("\0", 0, 1));
    let rest = script.call(8, get_page("a\0", script.store.revision(), 9));
    let Reply::Range(mut rows) = script.take_effect(rest) else {
        unreachable!("a range is answered by one")
    };
    rows.kvs.retain(|kv| kv.key != "b");
    script.answer(rest, Reply::Range(rows));
    script.watched(watch_all(1));
    rejects(&script, &Durability, "an acknowledged write is lost");
}

#[test]
fn checker_does_not_take_pages_with_a_gap_for_everything() {
    let mut script = some_puts();
    read_pages(&mut script, "b\0");
    rejects(&script, &Durability, "undecided");
}

#[test]
fn checker_does_not_judge_without_a_readout() {
    let mut script = some_puts();
    rejects(&script, &Durability, "undecided");
    script.fact(Fact::Phase(Phase::Readout));
    rejects(&script, &Durability, "undecided");
}

#[test]
fn checker_rejects_two_states_at_one_index() {
    let mut script = some_puts();
    let sample = |member, applied_index, hash| Fact::StateHash {
        member: MemberId(member),
        applied_index,
        hash,
    };
    script.fact(sample(1, 5, 0xa));
    script.fact(sample(2, 4, 0xb));
    script.fact(sample(2, 5, 0xa));
    accepts(&script, &State);
    script.fact(sample(3, 5, 0xc));
    rejects(&script, &State, "equal index, equal state");
}

#[test]
fn checker_rejects_two_states_that_met_while_the_run_went_on() {
    let mut script = some_puts();
    let mut sample = |member, applied_index, hash| {
        let sample = Sample { member: MemberId(member), applied_index, hash };
        script.history.states_mut().sample(script.now, sample);
        script.verdict(&State).map_err(|violation| violation.promise)
    };
    assert_eq!(sample(1, 5, 0xa), Ok(()), "one member cannot differ");
    assert_eq!(sample(2, 4, 0xb), Err("undecided"), "two that never met were not compared");
    assert_eq!(sample(2, 5, 0xa), Ok(()));
    assert_eq!(sample(3, 5, 0xc), Err("equal index, equal state"));
}

#[test]
fn checker_rejects_two_hashes_of_one_revision_during_the_run() {
    let mut script = some_puts();
    let mut hash = |member, hash, compact_revision| {
        let request = Request::HashKv(pb::HashKvRequest { revision: 4 });
        let op = script.call_at(3, MemberId(member), request);
        let header = Some(script.store.header());
        let answer = pb::HashKvResponse { header, hash, compact_revision, hash_revision: 4 };
        script.answer(op, Reply::HashKv(answer));
        script.verdict(&State).map_err(|violation| (violation.promise, violation.ops.len()))
    };
    assert_eq!(hash(1, 7, -1), Ok(()));
    assert_eq!(hash(2, 7, -1), Ok(()));
    assert_eq!(hash(2, 8, 3), Ok(()), "under another compact revision it is another hash");
    assert_eq!(hash(3, 9, -1), Err(("equal revision, equal hash", 2)));
}

#[test]
fn checker_rejects_two_hashes_of_one_revision() {
    let mut script = some_puts();
    let hashed = |member, revision, compact_revision, hash| Fact::KvHash {
        member: MemberId(member),
        revision,
        compact_revision,
        hash,
    };
    script.fact(hashed(1, 5, -1, 7));
    script.fact(hashed(2, 5, -1, 7));
    script.fact(hashed(2, 5, 3, 8));
    script.fact(hashed(3, 4, -1, 9));
    accepts(&script, &State);
    script.fact(hashed(3, 5, 3, 9));
    rejects(&script, &State, "equal revision, equal hash");
}

#[test]
fn checker_does_not_miss_the_delete_of_a_key_that_may_never_have_been() {
    let mut script = Script::new();
    let never = script.call(1, put("c", "1"));
    script.fail(never, Failure::Unknown);
    // Takes revision 2, and nobody sees it.
    let unseen = script.call(1, put("a", "1"));
    script.fail(unseen, Failure::Unknown);
    script.take_effect(unseen);
    script.run(1, delete("a"));
    let op = |request| pb::RequestOp { request: Some(request) };
    let gone = pb::DeleteRangeRequest { key: bytes("c"), ..Default::default() };
    let success = vec![
        op(pb::request_op::Request::RequestDeleteRange(gone)),
        op(pb::request_op::Request::RequestPut(put_request("b", "1"))),
    ];
    script.run(1, Request::Txn(pb::TxnRequest { success, ..Default::default() }));
    script.fact(Fact::Phase(Phase::Readout));
    script.run(8, get_all());
    // The past before revision 4 is compacted.
    script.watched(watch_all(4));
    accepts(&script, &Durability);
}
