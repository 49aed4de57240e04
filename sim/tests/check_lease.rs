//! The lease checker rejects a planted history for each promise of surface spec §5.

mod check_support;

use std::time::Duration;

use check_support::*;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::{ApiError, MemberId};
use detkv_sim::Reply;
use detkv_sim::check::Lease;
use detkv_sim::history::{Entry, Fact, Failure, LeaseEntry, OpId, Rare};

const ID: i64 = 5;
const TTL: i64 = 10;

fn grant() -> Request {
    Request::LeaseGrant(pb::LeaseGrantRequest { id: ID, ttl: TTL })
}

fn put_with_lease(key: &str) -> Request {
    Request::Put(pb::PutRequest { lease: ID, ..put_request(key, "1") })
}

/// A lease of 10 s with two keys.
struct Leased {
    script: Script,
    index: u64,
}

impl Leased {
    fn new() -> Self {
        let mut this = Self { script: Script::new(), index: 0 };
        this.script.run(1, grant());
        this.log(Some(TTL), true);
        this.script.history.raft_mut().rare(this.script.now, MEMBER, Rare::Leads { term: 1 });
        this.script.run(1, put_with_lease("a"));
        this.script.run(1, put_with_lease("b"));
        this
    }

    fn wait_ms(&mut self, ms: u64) -> &mut Self {
        self.script.now = self.script.now + Duration::from_millis(ms);
        self
    }

    /// A grant's or revoke's entry is in the log now.
    fn log(&mut self, granted_ttl_secs: Option<i64>, is_committed: bool) {
        self.index += 1;
        let (at, index) = (self.script.now, self.index);
        let trace = self.script.history.raft_mut();
        let (entry, _) = trace.entry_id(Entry { index, term: 1, prev_term: 1, hash: index });
        trace.appended(MEMBER, index, &[entry]);
        trace.lease(LeaseEntry { entry, at, member: MEMBER, lease: ID, granted_ttl_secs });
        if is_committed {
            trace.committed(MEMBER, index);
        }
    }

    /// The leader revokes it for its age.
    fn expire(&mut self) -> &mut Self {
        self.log(None, true);
        self.script.store.expire(ID);
        self
    }

    fn ask(&mut self, request: Request, reply: impl FnOnce(pb::ResponseHeader) -> Reply) -> OpId {
        let op = self.script.call(2, request);
        let header = self.script.store.header();
        self.script.answer(op, reply(header));
        op
    }

    /// A renewal that is answered with `ttl`.
    fn keep_alive(&mut self, ttl: i64) -> &mut Self {
        let request = Request::LeaseKeepAlive(pb::LeaseKeepAliveRequest { id: ID });
        self.ask(request, |header| {
            Reply::LeaseKeepAlive(pb::LeaseKeepAliveResponse { header: Some(header), id: ID, ttl })
        });
        self
    }

    fn time_to_live(&mut self, ttl: i64, granted_ttl: i64) -> &mut Self {
        let request = Request::LeaseTimeToLive(pb::LeaseTimeToLiveRequest { id: ID, keys: false });
        self.ask(request, |header| {
            let header = Some(header);
            let answer = pb::LeaseTimeToLiveResponse {
                header,
                id: ID,
                ttl,
                granted_ttl,
                ..Default::default()
            };
            Reply::LeaseTimeToLive(answer)
        });
        self
    }

    #[track_caller]
    fn accepts(&self) {
        accepts(&self.script, &Lease);
    }

    #[track_caller]
    fn rejects(&self, promise: &str) {
        rejects(&self.script, &Lease, promise);
    }
}

#[test]
fn checker_accepts_a_lease_that_is_kept_for_a_while_and_expires() {
    let mut leased = Leased::new();
    leased.wait_ms(9_000).keep_alive(TTL).wait_ms(5_000).time_to_live(4, TTL);
    leased.wait_ms(5_500).expire().wait_ms(100).keep_alive(0).time_to_live(-1, 0);
    leased.script.watched(watch_all(1));
    leased.accepts();
}

#[test]
fn checker_rejects_a_lease_that_expires_before_its_time() {
    for (ms, is_right) in [(9_900, false), (10_100, true)] {
        let mut leased = Leased::new();
        leased.wait_ms(3_000).keep_alive(TTL).wait_ms(ms).expire();
        if is_right { leased.accepts() } else { leased.rejects("expired early") }
    }
    // Without a look into the log: clients find it gone.
    let mut leased = Leased::new();
    leased.wait_ms(5_000).keep_alive(0);
    leased.rejects("expired early");
    let mut leased = Leased::new();
    leased.wait_ms(5_000).time_to_live(-1, 0);
    leased.rejects("expired early");
    let mut leased = Leased::new();
    leased.wait_ms(5_000);
    let put = leased.script.call(1, put_with_lease("c"));
    leased.script.fail(put, Failure::Api(ApiError::LeaseNotFound));
    leased.rejects("expired early");
}

#[test]
fn checker_allows_for_a_clock_that_was_stepped_forward_and_for_a_revoke() {
    let mut leased = Leased::new();
    leased.script.fact(Fact::ClockStepped { member: MemberId(1), ns: 6_000_000_000 });
    leased.wait_ms(5_000).expire();
    leased.accepts();
    let mut leased = Leased::new();
    let revoke = leased.script.call(1, Request::LeaseRevoke(pb::LeaseRevokeRequest { id: ID }));
    leased.script.fail(revoke, Failure::Unknown);
    leased.wait_ms(3_000).expire().keep_alive(0);
    leased.accepts();
}

#[test]
fn checker_rejects_a_lease_that_outlives_its_time() {
    // Never revoked.
    let mut leased = Leased::new();
    leased.wait_ms(60_000).time_to_live(-49, TTL);
    leased.rejects("expired late");
    // Revoked at last.
    let mut leased = Leased::new();
    leased.wait_ms(60_000).expire();
    leased.rejects("expired late");
    // The leader stepped down in time, and nobody led after it; or only long after the lease's time.
    for (led_ms, is_right) in [(9_000, true), (50_000, false)] {
        for end in [Rare::Follows { term: 2 }, Rare::Ended { acknowledged: 0 }] {
            let mut leased = Leased::new();
            leased.wait_ms(led_ms);
            leased.script.history.raft_mut().rare(leased.script.now, MEMBER, end);
            leased.wait_ms(60_000 - led_ms).time_to_live(-49, TTL);
            if is_right { leased.accepts() } else { leased.rejects("expired late") }
        }
    }
    // The leader was held up.
    let mut leased = Leased::new();
    let what = "pause".to_owned();
    leased.script.fact(Fact::FaultBegan { fault: 0, what, member: None });
    leased.wait_ms(50_000);
    leased.script.fact(Fact::FaultEnded { fault: 0 });
    leased.wait_ms(10_000).expire();
    leased.accepts();
    // A new leader gives it its full time again.
    let mut leased = Leased::new();
    leased.wait_ms(9_000);
    let now = leased.script.now;
    leased.script.history.raft_mut().rare(now, MemberId(2), Rare::Leads { term: 2 });
    leased.wait_ms(11_500).expire();
    leased.accepts();
}

#[test]
fn checker_rejects_a_lease_that_comes_back() {
    let mut leased = Leased::new();
    leased.wait_ms(11_000).expire().keep_alive(0).keep_alive(TTL);
    leased.rejects("revived");
    let mut leased = Leased::new();
    leased.script.run(1, Request::LeaseRevoke(pb::LeaseRevokeRequest { id: ID }));
    leased.time_to_live(3, TTL);
    leased.rejects("revived");
    // A key is put with what is gone.
    let mut leased = Leased::new();
    leased.wait_ms(11_000).expire().keep_alive(0);
    leased.script.run(1, put_with_lease("c"));
    leased.rejects("revived");
}

#[test]
fn checker_rejects_a_renewal_while_the_revoke_is_in_the_log() {
    for (is_committed, is_right) in [(true, false), (false, true)] {
        let mut leased = Leased::new();
        leased.wait_ms(11_000).log(None, is_committed);
        leased.keep_alive(TTL);
        if is_right { leased.accepts() } else { leased.rejects("revived") }
    }
}

#[test]
fn checker_rejects_more_time_than_was_granted() {
    let mut leased = Leased::new();
    leased.wait_ms(1_000).keep_alive(TTL + 1);
    leased.rejects("TTL beyond full");
    // A new leader adds one election timeout and no more.
    let mut leased = Leased::new();
    leased.wait_ms(1_000).time_to_live(TTL + 1, TTL);
    leased.accepts();
    leased.time_to_live(TTL + 2, TTL);
    leased.rejects("TTL beyond full");
}

#[test]
fn checker_rejects_another_ttl_than_the_one_in_force() {
    let mut leased = Leased::new();
    leased.wait_ms(1_000).time_to_live(5, TTL + 5);
    leased.rejects("granted TTL");
    let mut leased = Leased::new();
    leased.keep_alive(TTL - 1);
    leased.rejects("granted TTL");
    // The least TTL is 2 s: less than that is raised.
    for (asked, got, is_right) in [(1, 2, true), (1, 1, false), (7, 6, false)] {
        let mut script = Script::new();
        let grant = pb::LeaseGrantRequest { id: 9, ttl: asked };
        script.run_wrong(Request::LeaseGrant(grant), |reply| {
            let Reply::LeaseGrant(answer) = reply else { panic!("a grant answers a grant") };
            Reply::LeaseGrant(pb::LeaseGrantResponse { ttl: got, ..answer })
        });
        if is_right {
            accepts(&script, &Lease);
        } else {
            rejects(&script, &Lease, "granted TTL");
        }
    }
}

#[test]
fn checker_rejects_an_expiry_in_two_revisions_or_with_a_foreign_key() {
    let mut leased = Leased::new();
    leased.script.store.rows.get_mut(&bytes("b")).expect("b was put").lease = 6;
    leased.wait_ms(11_000).expire();
    leased.script.store.expire(6);
    leased.script.watched(watch_all(1));
    leased.rejects("keys go in one revision");

    let mut leased = Leased::new();
    leased.script.run(1, put("c", "1"));
    leased.script.store.rows.get_mut(&bytes("c")).expect("c was put").lease = ID;
    leased.wait_ms(11_000).expire();
    leased.script.watched(watch_all(1));
    leased.rejects("keys go in one revision");
}

#[test]
fn checker_does_not_take_a_clients_delete_for_an_expiry() {
    for is_answered in [true, false] {
        let mut leased = Leased::new();
        let op = leased.script.call(1, delete("a"));
        let reply = leased.script.take_effect(op);
        if is_answered {
            leased.script.answer(op, reply);
        } else {
            leased.script.fail(op, Failure::Unknown);
        }
        leased.script.watched(watch_all(1));
        leased.accepts();
    }
}
