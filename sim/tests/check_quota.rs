//! The quota checker rejects a planted history for each promise of surface spec §16.6.

mod check_support;

use std::time::Duration;

use check_support::*;
use detkv_core::ApiError;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_sim::Reply;
use detkv_sim::check::{Linearizability, Quota, State};
use detkv_sim::history::{AlarmEntry, Entry, Failure};

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
        let op = self.script.call(2, request);
        self.script.fail(op, Failure::Api(ApiError::NoSpace));
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
