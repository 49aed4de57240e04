//! The quota checker rejects a planted history for each promise of surface spec §16.6.

mod check_support;

use std::time::Duration;

use check_support::*;
use detkv_core::ApiError;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_sim::Reply;
use detkv_sim::check::{Linearizability, Quota, State};
use detkv_sim::history::{AlarmEntry, Entry, Fact, Failure, Settings};

const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;
const NOSPACE: i32 = 1;
const CORRUPT: i32 = 2;

struct Alarmed {
    script: Script,
    index: u64,
}

impl Alarmed {
    fn new() -> Self {
        let mut this = Self { script: Script::new(), index: 0 };
        this.script.run(1, put("a", "1"));
        this.log(GET, 0, true);
        this
    }

    /// An alarm request of member 1 is in the log now.
    fn log(&mut self, action: i32, alarm: i32, is_committed: bool) -> &mut Self {
        self.index += 1;
        let (at, index) = (self.script.now, self.index);
        let trace = self.script.history.raft_mut();
        let (entry, _) = trace.entry_id(Entry { index, term: 1, prev_term: 1, hash: index });
        trace.appended(MEMBER, index, &[entry]);
        trace.alarm(AlarmEntry { entry, at, action, alarm, of: 1 });
        if is_committed {
            trace.committed(MEMBER, index);
        }
        self
    }

    fn run(&mut self, request: Request) -> &mut Self {
        self.script.run(2, request);
        self
    }

    fn refused(&mut self, request: Request) -> &mut Self {
        self.refused_with(request, ApiError::NoSpace)
    }

    fn refused_with(&mut self, request: Request, error: ApiError) -> &mut Self {
        let op = self.script.call(2, request);
        self.script.fail(op, Failure::Api(error));
        self
    }

    fn list(&mut self, alarms: &[(u64, i32)]) -> &mut Self {
        let request = Request::Alarm(pb::AlarmRequest { action: GET, member_id: 0, alarm: 0 });
        let op = self.script.call(3, request);
        let alarms = alarms
            .iter()
            .map(|(member_id, alarm)| pb::AlarmMember { member_id: *member_id, alarm: *alarm });
        let header = Some(self.script.store.header());
        let answer = pb::AlarmResponse { header, alarms: alarms.collect() };
        self.script.answer(op, Reply::Alarm(answer));
        self
    }

    fn wait(&mut self, seconds: u64) -> &mut Self {
        self.script.now = self.script.now + Duration::from_secs(seconds);
        self
    }

    #[track_caller]
    fn accepts(&self) {
        accepts(&self.script, &Quota);
    }

    #[track_caller]
    fn rejects(&self, promise: &str) {
        rejects(&self.script, &Quota, promise);
    }
}

fn grant() -> Request {
    Request::LeaseGrant(pb::LeaseGrantRequest { id: 4, ttl: 9 })
}

#[test]
fn checker_accepts_an_alarm_that_comes_and_goes() {
    let mut alarmed = Alarmed::new();
    alarmed.refused(put("b", "1")).log(ACTIVATE, NOSPACE, true).list(&[(1, NOSPACE)]);
    alarmed.refused(grant()).refused(guarded_put("a", 0, "2"));
    alarmed.run(delete("a")).run(get("a"));
    alarmed.log(DEACTIVATE, NOSPACE, true).list(&[]).run(put("b", "1"));
    alarmed.accepts();
}

#[test]
fn checker_rejects_what_takes_space_under_nospace() {
    for request in [put("b", "1"), guarded_put("b", 0, "1"), grant()] {
        let mut alarmed = Alarmed::new();
        alarmed.log(ACTIVATE, NOSPACE, true).run(request);
        alarmed.rejects("write under an alarm");
    }
    // Called before the alarm, or the alarm never came to be.
    let mut alarmed = Alarmed::new();
    let early = alarmed.script.call(2, put("b", "1"));
    alarmed.log(ACTIVATE, NOSPACE, true);
    let reply = alarmed.script.take_effect(early);
    alarmed.script.answer(early, reply);
    alarmed.accepts();
    let mut alarmed = Alarmed::new();
    alarmed.log(ACTIVATE, NOSPACE, false).run(put("b", "1"));
    alarmed.accepts();
}

#[test]
fn checker_rejects_any_write_under_corrupt() {
    let mut alarmed = Alarmed::new();
    alarmed.log(ACTIVATE, CORRUPT, true).run(get("a"));
    alarmed.accepts();
    alarmed.run(delete("a"));
    alarmed.rejects("write under an alarm");
}

#[test]
fn checker_rejects_a_member_that_calls_equals_corrupt() {
    let mut alarmed = Alarmed::new();
    alarmed.log(ACTIVATE, NOSPACE, true).log(DEACTIVATE, CORRUPT, true);
    accepts(&alarmed.script, &State);
    // The attempt counts, committed or not.
    alarmed.log(ACTIVATE, CORRUPT, false);
    rejects(&alarmed.script, &State, "corrupt without cause");
    // A client may raise it for reasons of its own.
    let member_id = MEMBER.0;
    let activate = pb::AlarmRequest { action: ACTIVATE, member_id, alarm: CORRUPT };
    let op = alarmed.script.call(2, Request::Alarm(activate));
    alarmed.script.fail(op, Failure::Unknown);
    accepts(&alarmed.script, &State);
}

#[test]
fn checker_rejects_a_delete_a_revoke_or_a_read_that_is_refused_for_space() {
    let compact = Request::Compact(pb::CompactionRequest { revision: 1, physical: false });
    let revoke = Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 4 });
    for request in [delete("a"), compact, revoke, get("a")] {
        let mut alarmed = Alarmed::new();
        alarmed.log(ACTIVATE, NOSPACE, true).refused(request);
        alarmed.rejects("refused what frees space");
    }
}

#[test]
fn checker_rejects_a_refusal_that_raises_no_alarm() {
    let mut alarmed = Alarmed::new();
    alarmed.refused(put("b", "1")).wait(8).run(get("a"));
    alarmed.rejects("refused without cause");
    let mut alarmed = Alarmed::new();
    alarmed.refused(put("b", "1")).wait(2).log(ACTIVATE, NOSPACE, true).wait(8).run(get("a"));
    alarmed.accepts();
}

#[test]
fn checker_rejects_a_refusal_for_space_that_only_another_alarm_explains() {
    let mut alarmed = Alarmed::new();
    alarmed.log(ACTIVATE, CORRUPT, true).refused(put("b", "1")).wait(8).run(get("a"));
    alarmed.rejects("refused without cause");
}

#[test]
fn checker_rejects_a_refusal_that_raises_no_alarm_on_clocks_that_drift() {
    // (drift, seconds of a fault, seconds without)
    for (drift_ppm, faulty, seconds, is_right) in
        [(500, 0, 6, true), (500, 0, 8, false), (0, 4, 6, true), (500, 4, 8, false)]
    {
        let mut alarmed = Alarmed::new();
        alarmed.script.history.note_drift(drift_ppm);
        alarmed.refused(put("b", "1"));
        let what = "pause".to_owned();
        alarmed.script.fact(Fact::FaultBegan { fault: 0, what, member: None });
        alarmed.wait(faulty).script.fact(Fact::FaultEnded { fault: 0 });
        alarmed.wait(seconds).run(get("a"));
        if is_right { alarmed.accepts() } else { alarmed.rejects("refused without cause") }
    }
}

#[test]
fn checker_rejects_a_read_a_renewal_or_an_alarm_that_is_refused_as_corrupt() {
    let renew = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: 4 });
    let list = Request::Alarm(pb::AlarmRequest { action: GET, member_id: 0, alarm: 0 });
    let free = Request::Defragment(pb::DefragmentRequest {});
    for request in [get("a"), renew, list, free] {
        let mut alarmed = Alarmed::new();
        alarmed.log(ACTIVATE, CORRUPT, true).refused_with(request, ApiError::Corrupt);
        alarmed.rejects("refused what writes nothing");
    }
}

#[test]
fn checker_rejects_a_write_that_is_refused_as_corrupt_without_the_alarm() {
    let compact = Request::Compact(pb::CompactionRequest { revision: 1, physical: false });
    for request in [put("b", "1"), delete("a"), guarded_put("a", 0, "2"), grant(), compact] {
        let ended = [(ACTIVATE, CORRUPT), (DEACTIVATE, CORRUPT)];
        for (log, is_right) in [
            (&[(ACTIVATE, CORRUPT)][..], true),
            (&[(GET, 0)], false),
            (&[(ACTIVATE, NOSPACE)], false),
            (&ended, false),
        ] {
            let mut alarmed = Alarmed::new();
            for (action, alarm) in log {
                alarmed.log(*action, *alarm, true);
            }
            alarmed.refused_with(request.clone(), ApiError::Corrupt);
            if is_right { alarmed.accepts() } else { alarmed.rejects("refused without cause") }
        }
    }
}

/// Puts of 300 bytes, to these keys, under a quota of 1000.
fn filled(quota_bytes: Option<u64>, keys: &[&str]) -> Alarmed {
    let mut alarmed = Alarmed::new();
    let settings = Settings { quota_bytes, ..Settings::default() };
    alarmed.script.history.set_settings(settings);
    for key in keys {
        alarmed.run(put(key, &"x".repeat(300)));
    }
    alarmed
}

#[test]
fn checker_rejects_a_member_that_goes_on_past_its_quota_and_raises_no_alarm() {
    for keys in [["b", "c", "d", "e", "f"], ["b", "b", "b", "b", "b"]] {
        // The one that crossed the quota may have been the last.
        filled(Some(1_000), &keys[..4]).accepts();
        filled(Some(1_000), &keys).rejects("accepted past the quota");
        filled(Some(2_000), &keys).accepts();
        filled(None, &keys).accepts();
    }
}

#[test]
fn checker_counts_only_what_compactions_may_have_left() {
    let compact = |revision| Request::Compact(pb::CompactionRequest { revision, physical: true });
    let go_on = |alarmed: &mut Alarmed| {
        alarmed.run(put("b", &"x".repeat(300))).run(put("b", &"x".repeat(300)));
    };
    // Old versions may be gone; what is alive is not.
    for (keys, is_right) in [(["b", "b", "b", "b"], true), (["b", "c", "d", "e"], false)] {
        let mut alarmed = filled(Some(1_000), &keys);
        alarmed.run(compact(6));
        go_on(&mut alarmed);
        if is_right { alarmed.accepts() } else { alarmed.rejects("accepted past the quota") }
    }
    // Deleted, and compacted behind it, or not: nobody knows whether a lost compaction took place.
    for (revision, is_lost, is_right) in [(8, false, true), (8, true, true), (6, false, false)] {
        let mut alarmed = filled(Some(1_000), &["b", "c", "d", "e"]);
        for key in ["c", "d"] {
            alarmed.run(delete(key));
        }
        if is_lost {
            let op = alarmed.script.call(2, compact(revision));
            alarmed.script.fail(op, Failure::Unknown);
        } else {
            alarmed.run(compact(revision));
        }
        go_on(&mut alarmed);
        if is_right { alarmed.accepts() } else { alarmed.rejects("accepted past the quota") }
    }
    // A member that compacts by itself may have done so.
    let mut alarmed = filled(Some(1_000), &["b", "b", "b", "b", "b"]);
    let settings = *alarmed.script.history.settings();
    alarmed.script.history.set_settings(Settings { auto_compacts: true, ..settings });
    alarmed.accepts();
}

#[test]
fn checker_rejects_a_list_that_lost_or_kept_an_alarm() {
    let mut alarmed = Alarmed::new();
    alarmed.log(ACTIVATE, NOSPACE, true).list(&[]);
    alarmed.rejects("alarms are one list");
    let mut alarmed = Alarmed::new();
    alarmed.log(ACTIVATE, NOSPACE, true).log(DEACTIVATE, NOSPACE, true).list(&[(1, NOSPACE)]);
    alarmed.rejects("alarms are one list");
}

#[test]
fn a_put_that_crossed_the_quota_may_have_taken_effect() {
    // Surface spec §16.6, check 2: it is applied, and its caller is refused.
    let mut alarmed = Alarmed::new();
    let crossing = alarmed.script.call(1, put("b", "1"));
    alarmed.script.take_effect(crossing);
    alarmed.log(ACTIVATE, NOSPACE, true);
    alarmed.script.fail(crossing, Failure::Api(ApiError::NoSpace));
    alarmed.run(get("b"));
    alarmed.accepts();
    accepts(&alarmed.script, &Linearizability);
}
