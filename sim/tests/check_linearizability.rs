//! The linearizability and serializable-read checkers accept good histories and reject planted bad ones.

mod check_support;

use check_support::random::{Shape, good_history};
use check_support::*;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::mvccpb::KeyValue;
use detkv_core::{ApiError, MemberId};
use detkv_sim::Reply;
use detkv_sim::check::{Linearizability, Serializable, all};
use detkv_sim::history::{DownHow, Event, Fact, Failure};
use proptest::prelude::*;

/// Two puts, the answer of the first kept for a later lie.
fn two_puts() -> (Script, Reply) {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    let old = script.store.run(&get("a"));
    script.run(1, put("a", "2"));
    (script, old)
}

fn with_revision(reply: Reply, revision: i64) -> Reply {
    let header = Some(pb::ResponseHeader { revision, ..Default::default() });
    match reply {
        Reply::Range(rows) => Reply::Range(pb::RangeResponse { header, ..rows }),
        Reply::Put(put) => Reply::Put(pb::PutResponse { header, ..put }),
        Reply::Txn(txn) => Reply::Txn(pb::TxnResponse { header, ..txn }),
        other => panic!("no revision to change in {other:?}"),
    }
}

fn rows(reply: Reply) -> pb::RangeResponse {
    match reply {
        Reply::Range(rows) => rows,
        other => panic!("not a range: {other:?}"),
    }
}

#[test]
fn checker_rejects_a_stale_read() {
    let (mut script, old) = two_puts();
    let read = script.call(2, get("a"));
    script.answer(read, old);
    rejects(&script, &Linearizability, "stale read");
}

#[test]
fn checker_accepts_a_read_that_was_called_before_the_write_returned() {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    let read = script.call(2, get("a"));
    let old = script.take_effect(read);
    let write = script.call(1, put("a", "2"));
    let reply = script.take_effect(write);
    script.answer(write, reply);
    script.answer(read, old);
    accepts(&script, &Linearizability);
}

#[test]
fn checker_rejects_a_read_of_a_value_that_was_overwritten() {
    let (mut script, old) = two_puts();
    script.run_wrong(get("a"), |_| with_revision(old, 3));
    rejects(&script, &Linearizability, "read result");
}

#[test]
fn checker_rejects_a_read_with_a_missing_key_and_one_with_a_phantom() {
    let (mut script, _) = two_puts();
    script.run_wrong(get_all(), |reply| {
        Reply::Range(pb::RangeResponse { kvs: vec![], count: 0, ..rows(reply) })
    });
    rejects(&script, &Linearizability, "read result");

    let (mut script, _) = two_puts();
    script.run_wrong(get("b"), |reply| {
        let mut rows = rows(reply);
        rows.kvs.push(KeyValue {
            key: bytes("b"),
            create_revision: 2,
            mod_revision: 2,
            version: 1,
            ..Default::default()
        });
        rows.count = 1;
        Reply::Range(rows)
    });
    rejects(&script, &Linearizability, "read result");
}

#[test]
fn checker_rejects_two_writes_at_one_revision() {
    let (mut script, _) = two_puts();
    script.run_wrong(put("b", "1"), |reply| with_revision(reply, 3));
    rejects(&script, &Linearizability, "one write per revision");
}

#[test]
fn checker_rejects_a_write_that_was_seen_before_its_call() {
    // The later put got the earlier revision.
    let mut script = Script::new();
    let first = script.call(1, put("a", "1"));
    let reply = script.take_effect(first);
    script.answer(first, with_revision(reply, 3));
    script.run_wrong(put("b", "1"), |reply| with_revision(reply, 2));
    rejects(&script, &Linearizability, "a write was seen before its call");
}

#[test]
fn checker_rejects_a_revision_that_no_write_made() {
    let (mut script, _) = two_puts();
    script.run_wrong(get("a"), |reply| with_revision(reply, 4));
    rejects(&script, &Linearizability, "revision");
}

#[test]
fn checker_rejects_a_revision_that_was_skipped() {
    let mut script = Script::new();
    script.run_wrong(put("a", "1"), |reply| with_revision(reply, 3));
    script.run(1, delete("nothing"));
    rejects(&script, &Linearizability, "nothing explains a change");
}

#[test]
fn checker_rejects_a_wrong_prev_kv_and_a_wrong_number_of_deletes() {
    let (mut script, _) = two_puts();
    let request = pb::PutRequest { prev_kv: true, ..put_request("a", "3") };
    script.run_wrong(Request::Put(request), |reply| {
        let Reply::Put(put) = reply else { panic!("a put answers a put") };
        Reply::Put(pb::PutResponse { prev_kv: None, ..put })
    });
    rejects(&script, &Linearizability, "write result");

    let (mut script, _) = two_puts();
    script.run_wrong(delete("a"), |reply| {
        let Reply::DeleteRange(got) = reply else { panic!("a delete answers a delete") };
        Reply::DeleteRange(pb::DeleteRangeResponse { deleted: 2, ..got })
    });
    rejects(&script, &Linearizability, "write result");
}

#[test]
fn checker_rejects_a_txn_that_took_the_wrong_branch() {
    // Two guarded puts on one revision of the key: only one of them may succeed.
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    script.run(1, guarded_put("a", 2, "2"));
    let lost = script.call(2, guarded_put("a", 2, "3"));
    let right = script.take_effect(lost);
    let Reply::Txn(got) = &right else { panic!("a txn answers a txn") };
    assert!(!got.succeeded, "the reference store must refuse the second guarded put");
    let put = pb::response_op::Response::ResponsePut(pb::PutResponse::default());
    let lie = pb::TxnResponse {
        succeeded: true,
        responses: vec![pb::ResponseOp { response: Some(put) }],
        header: Some(pb::ResponseHeader { revision: 4, ..Default::default() }),
    };
    script.answer(lost, Reply::Txn(lie));
    rejects(&script, &Linearizability, "write result");
}

#[test]
fn checker_rejects_a_wrong_read_at_an_old_revision() {
    let (mut script, _) = two_puts();
    let Request::Range(range) = get("a") else { unreachable!("get is a range") };
    let at_2 = Request::Range(pb::RangeRequest { revision: 2, ..range });
    script.run(1, at_2.clone());
    accepts(&script, &Linearizability);
    let new = script.store.run(&get("a"));
    script.run_wrong(at_2, |_| new);
    rejects(&script, &Linearizability, "read result");
}

#[test]
fn checker_rejects_a_read_below_an_acknowledged_compaction() {
    let (mut script, _) = two_puts();
    script.run(1, Request::Compact(pb::CompactionRequest { revision: 3, physical: false }));
    let Request::Range(range) = get("a") else { unreachable!("get is a range") };
    script.run(1, Request::Range(pb::RangeRequest { revision: 2, ..range }));
    rejects(&script, &Linearizability, "compacted revision was read");
}

#[test]
fn checker_rejects_a_read_behind_a_compaction_that_has_not_returned() {
    let (mut script, _) = two_puts();
    let compact = pb::CompactionRequest { revision: 3, physical: false };
    let compaction = script.call(1, Request::Compact(compact));
    let done = script.take_effect(compaction);
    script.run(2, put("b", "1"));
    // At revision 4, so behind the compaction, which was answered at 3.
    let Request::Range(range) = get("a") else { unreachable!("get is a range") };
    script.run(3, Request::Range(pb::RangeRequest { revision: 2, ..range }));
    script.answer(compaction, done);
    rejects(&script, &Linearizability, "compacted revision was read");
}

#[test]
fn checker_resolves_a_lost_answer_from_a_later_read() {
    let mut script = Script::new();
    let lost = script.call(1, put("a", "1"));
    script.fail(lost, Failure::Unknown);
    // It takes effect long after the client gave up.
    script.run(2, get("a"));
    script.take_effect(lost);
    script.run(2, get("a"));
    accepts(&script, &Linearizability);
}

#[test]
fn checker_accepts_a_lost_answer_whose_write_never_happened() {
    let mut script = Script::new();
    let lost = script.call(1, put("a", "1"));
    script.fail(lost, Failure::Unknown);
    script.run(2, get("a"));
    script.run(2, put("a", "2"));
    accepts(&script, &Linearizability);
}

/// As a read of keys only shows it, and as any other does.
#[test]
fn checker_accepts_two_views_of_one_lost_put() {
    let mut script = Script::new();
    let lost = script.call(1, put("a", "1"));
    script.fail(lost, Failure::Unknown);
    script.take_effect(lost);
    let keys_only =
        Request::Range(pb::RangeRequest { key: bytes("a"), keys_only: true, ..Default::default() });
    script.run_wrong(keys_only, without_values);
    script.run(2, get("a"));
    script.run(2, put("b", "2"));
    accepts(&script, &Linearizability);
}

fn without_values(reply: Reply) -> Reply {
    let mut rows = rows(reply);
    rows.kvs.iter_mut().for_each(|kv| kv.value.clear());
    Reply::Range(rows)
}

#[test]
fn checker_rejects_a_lost_put_that_took_effect_twice() {
    let mut script = Script::new();
    let other = script.call(1, put("b", "1"));
    script.fail(other, Failure::Unknown);
    let lost = script.call(1, put("a", "1"));
    script.fail(lost, Failure::Unknown);
    script.take_effect(lost);
    script.run(2, get("a"));
    script.run(2, put("a", "2"));
    script.take_effect(lost);
    script.run(2, get("a"));
    rejects(&script, &Linearizability, "a write took effect twice");
}

#[test]
fn checker_rejects_the_effect_of_a_refused_write() {
    for refusal in [Failure::NotSent, Failure::Api(ApiError::TooManyRequests)] {
        let mut script = Script::new();
        let refused = script.call(1, put("a", "1"));
        script.fail(refused, refusal);
        let open = script.call(1, put("b", "1"));
        script.fail(open, Failure::Unknown);
        script.take_effect(refused);
        script.run(2, get("a"));
        rejects(&script, &Linearizability, "nothing explains a change");
    }
}

#[test]
fn checker_gives_two_identical_lost_deletes_their_revisions() {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    for _ in 0..2 {
        let lost = script.call(1, delete("a"));
        script.fail(lost, Failure::Unknown);
        script.take_effect(lost);
        script.run(2, put("a", "2"));
    }
    script.watched(watch_all(1));
    accepts(&script, &Linearizability);
}

#[test]
fn checker_explains_a_lease_expiry_and_rejects_one_that_left_a_key() {
    let leased = |key: &str| Request::Put(pb::PutRequest { lease: 5, ..put_request(key, "1") });
    let grant = pb::LeaseGrantRequest { id: 5, ttl: 10 };
    for leave_one in [false, true] {
        let mut script = Script::new();
        script.run(1, Request::LeaseGrant(grant));
        script.run(1, leased("a"));
        script.run(1, leased("b"));
        if leave_one {
            script.store.rows.get_mut(&bytes("b")).expect("b was put").lease = 6;
        }
        script.store.expire(5);
        script.watched(watch_all(1));
        if leave_one {
            rejects(&script, &Linearizability, "nothing explains a change");
        } else {
            accepts(&script, &Linearizability);
        }
    }
}

#[test]
fn checker_does_not_take_a_second_revoke_for_the_first() {
    let mut script = Script::new();
    let grant = pb::LeaseGrantRequest { id: 5, ttl: 10 };
    script.run(1, Request::LeaseGrant(grant));
    script.run(1, Request::Put(pb::PutRequest { lease: 5, ..put_request("a", "1") }));
    let revoke = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 5 });
    let lost = script.call(1, revoke.clone());
    script.fail(lost, Failure::Unknown);
    script.take_effect(lost);
    // Shows the revision of the first revoke, and not what it did.
    script.run(2, get("b"));
    script.run(1, revoke);
    accepts(&script, &Linearizability);
}

#[test]
fn checker_lets_go_of_what_nobody_saw() {
    // The lost put was overwritten before anybody looked: its revision is known by its absence only.
    let mut script = Script::new();
    let lost = script.call(1, put("a", "1"));
    script.fail(lost, Failure::Unknown);
    script.take_effect(lost);
    script.run(2, delete("a"));
    script.run(2, put("b", "1"));
    script.run(2, get_all());
    accepts(&script, &Linearizability);
    let old = script.store.run(&get("b"));
    script.run(2, put("b", "2"));
    let read = script.call(3, get("b"));
    script.answer(read, with_revision(old, 5));
    rejects(&script, &Linearizability, "read result");
}

/// "b" holds one of two lost writes that nobody saw; "a" is at revision 2, "d" at 4, both known.
fn one_key_unknown() -> Script {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    let lost = ["b", "c"].map(|key| script.call(1, put(key, "1")));
    lost.iter().for_each(|op| script.fail(*op, Failure::Unknown));
    script.take_effect(lost[0]);
    script.run(2, put("d", "1"));
    script
}

#[test]
fn checker_knows_all_of_a_lost_txn_by_one_of_its_rows() {
    use pb::request_op::Request as Op;
    let delete_a = pb::DeleteRangeRequest { key: bytes("a"), ..Default::default() };
    let ops = [Op::RequestPut(put_request("b", "2")), Op::RequestDeleteRange(delete_a)];
    let ops = ops.map(|op| pb::RequestOp { request: Some(op) }).to_vec();
    let plain = pb::TxnRequest { success: ops.clone(), ..Default::default() };
    let Request::Txn(guarded) = guarded_put("b", 3, "2") else { panic!("a guarded put is a txn") };
    // Whether the guard holds cannot be told: what "b" was is not known.
    for txn in [plain, pb::TxnRequest { success: ops, ..guarded }] {
        let mut script = one_key_unknown();
        let old = script.store.run(&get("a"));
        let lost = script.call(1, Request::Txn(txn));
        script.fail(lost, Failure::Unknown);
        script.take_effect(lost);
        script.run(2, get("b"));
        script.run(2, get("a"));
        script.run(2, get_serializable("a"));
        accepts(&script, &Linearizability);
        accepts(&script, &Serializable);
        // Known to be gone: a row of it is of no state.
        let read = script.call(3, get_serializable("a"));
        script.answer(read, with_revision(old, 5));
        rejects(&script, &Serializable, "no past state");
    }
}

#[test]
fn checker_lets_go_of_what_an_unknown_change_may_have_done_beside_what_was_seen() {
    let mut script = Script::new();
    let grant = pb::LeaseGrantRequest { ttl: 5, id: 7 };
    script.run(1, Request::LeaseGrant(grant));
    script.run(1, put("d", "1"));
    let leased = |key| Request::Put(pb::PutRequest { lease: 7, ..put_request(key, "1") });
    let lost = ["b", "c"].map(|key| script.call(1, leased(key)));
    lost.iter().for_each(|op| script.fail(*op, Failure::Unknown));
    script.take_effect(lost[0]);
    script.run(2, leased("a"));
    // Of the keys that go together only one is watched, and whose it was is not known.
    script.store.expire(7);
    script.watched(watch_from("b", 5));
    script.run(2, get("a"));
    accepts(&script, &Linearizability);
    let read = script.call(2, get("d"));
    script.answer(read, with_revision(Script::new().store.run(&get("d")), 5));
    rejects(&script, &Linearizability, "read result");
}

#[test]
fn checker_accepts_a_stale_serializable_read_and_rejects_one_of_no_state() {
    let (mut script, _) = two_puts();
    let old = Script::new().store.run(&get_serializable("a"));
    let read = script.call_at(2, MemberId(2), get_serializable("a"));
    script.answer(read, old.clone());
    accepts(&script, &Linearizability);
    accepts(&script, &Serializable);
    let read = script.call_at(2, MemberId(2), get_serializable("a"));
    script.answer(read, with_revision(old, 2));
    rejects(&script, &Serializable, "no past state");
}

#[test]
fn checker_rejects_a_serializable_read_of_the_future() {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    let read = script.call(2, get_serializable("a"));
    let future = {
        let mut later = Script::new();
        later.run(1, put("a", "1"));
        later.run(1, put("a", "2"));
        later.store.run(&get_serializable("a"))
    };
    script.answer(read, future);
    script.run(1, put("a", "2"));
    rejects(&script, &Serializable, "a read of the future");
}

#[test]
fn checker_rejects_a_member_that_goes_back_unless_it_restarted() {
    for restarts in [false, true] {
        let mut script = Script::new();
        script.run(1, put("a", "1"));
        let old = script.store.run(&get_serializable("a"));
        script.run(1, put("a", "2"));
        let member = MemberId(2);
        let read = script.call_at(2, member, get_serializable("a"));
        let new = script.take_effect(read);
        script.answer(read, new);
        if restarts {
            script.fact(Fact::Down { member, how: DownHow::PowerLoss });
        }
        let read = script.call_at(2, member, get_serializable("a"));
        script.answer(read, old);
        if restarts {
            accepts(&script, &Serializable);
        } else {
            rejects(&script, &Serializable, "a member went back");
        }
    }
}

#[test]
fn checker_does_not_hold_an_answer_that_outlived_its_member_against_the_next_life() {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    let old = script.store.run(&get_serializable("a"));
    script.run(1, put("a", "2"));
    let member = MemberId(2);
    let read = script.call_at(2, member, get_serializable("a"));
    let new = script.take_effect(read);
    script.fact(Fact::Down { member, how: DownHow::PowerLoss });
    // It was on its way when the power went.
    script.answer(read, new);
    let read = script.call_at(2, member, get_serializable("a"));
    script.answer(read, old);
    accepts(&script, &Serializable);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn checkers_accept_good_histories(seed in any::<u64>(), keys in 1u32..8, clients in 1u32..8) {
        let script = good_history(seed, Shape { keys, clients, ..Shape::default() });
        for checker in all() {
            accepts(&script, &*checker);
        }
    }

    #[test]
    fn checker_rejects_good_histories_with_one_old_answer(seed in any::<u64>(), ops in 20u32..200) {
        let mut script = good_history(seed, Shape { ops, ..Shape::default() });
        prop_assume!(script.store.revision() > 3);
        let old = Script::new().store.run(&get_all());
        let late = script.call(1, get_all());
        script.answer(late, old);
        rejects(&script, &Linearizability, "stale read");
    }
}

#[test]
fn checker_accepts_a_watch_that_was_lost_between_two_fragments_of_a_lost_write() {
    let mut script = Script::new();
    for key in ["a", "b", "c"] {
        script.run(1, put(key, "1"));
    }
    let all = pb::DeleteRangeRequest { key: bytes("a"), range_end: bytes("z"), prev_kv: false };
    let lost = script.call(1, Request::DeleteRange(all));
    script.take_effect(lost);
    script.fail(lost, Failure::Unknown);
    let request = pb::WatchCreateRequest { fragment: true, ..watch_all(5) };
    let watch = script.watch(request.clone());
    let mut events = script.events_of(&request, 5);
    events.truncate(1);
    let header = Some(script.store.header());
    let part = pb::WatchResponse { header, events, fragment: true, ..Default::default() };
    script.record(Event::WatchResponse { watch, response: part });
    script.record(Event::WatchLost { watch });
    script.run(1, get_all());
    accepts(&script, &Linearizability);
}

#[test]
fn checker_accepts_a_lost_delete_that_met_less_than_it_might_have() {
    let delete_to = |end: &str| {
        let (key, range_end) = (bytes("a"), bytes(end));
        Request::DeleteRange(pb::DeleteRangeRequest { key, range_end, prev_kv: false })
    };
    let lose = |script: &mut Script, request: Request, has_effect: bool| {
        let op = script.call(1, request);
        if has_effect {
            script.take_effect(op);
        }
        script.fail(op, Failure::Unknown);
    };
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    // Revision 3, and only this delete can have made it.
    lose(&mut script, delete_to("b"), true);
    let watch = script.watched(watch_all(2));
    script.record(Event::WatchLost { watch });
    // Revision 4, which nobody sees: a may be there now, or c, which never is.
    lose(&mut script, put("c", "1"), false);
    lose(&mut script, put("a", "2"), true);
    // Revision 5: the wide delete finds a alone.
    lose(&mut script, delete_to("z"), true);
    script.watched(pb::WatchCreateRequest { prev_kv: false, ..watch_all(5) });
    script.run(1, get_all());
    accepts(&script, &Linearizability);
}
