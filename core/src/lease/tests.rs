//! One test per sentence of surface spec §5 that is the lessor's to keep.

use super::*;

const ELECTION: Duration = Duration::from_millis(1000);
const RETRY: Duration = Duration::from_secs(7);
const NOTHING: [i64; 0] = [];

fn at_ms(ms: u64) -> Instant {
    Instant::ZERO + Duration::from_millis(ms)
}

fn leader(leases: &[(i64, i64)]) -> Lessor {
    let mut lessor = Lessor::new(ELECTION);
    lessor.promote(at_ms(0));
    for (id, ttl) in leases {
        assert!(lessor.grant(*id, *ttl));
        lessor.stamp(at_ms(0), *id);
    }
    lessor
}

fn moved(key: &'static str, from: i64, to: i64) -> LeaseMove {
    LeaseMove { key: Bytes::from_static(key.as_bytes()), from, to }
}

fn keys(lessor: &Lessor, id: i64) -> Vec<Bytes> {
    lessor.time_to_live(at_ms(0), id).expect("the lease exists").keys
}

#[test]
fn an_id_in_use_is_not_granted_again_and_negative_ids_are_ids() {
    let mut lessor = leader(&[(-5, 10)]);
    assert!(lessor.exists(-5) && !lessor.exists(5) && !lessor.exists(0));
    assert!(!lessor.grant(-5, 60));
    assert_eq!(lessor.time_to_live(at_ms(0), -5).unwrap().granted_ttl_secs, 10);
}

#[test]
fn revoke_gives_the_keys_in_ascending_order_and_unknown_ids_give_none() {
    let mut lessor = leader(&[(1, 10)]);
    lessor.on_moves(&[moved("b", 0, 1), moved("c", 0, 1), moved("a", 0, 1)]);
    assert_eq!(lessor.revoke(1), Some(vec!["a".into(), "b".into(), "c".into()]));
    assert_eq!(lessor.revoke(1), None);
    assert_eq!((lessor.count(), lessor.next_deadline()), (0, None));
    lessor.on_moves(&[moved("a", 1, 0)]);
}

#[test]
fn a_key_belongs_to_at_most_one_lease() {
    let mut lessor = leader(&[(1, 10), (2, 10)]);
    lessor.on_moves(&[moved("k", 0, 1), moved("k", 1, 2)]);
    assert_eq!((keys(&lessor, 1), keys(&lessor, 2)), (vec![], vec!["k".into()]));
    lessor.on_moves(&[moved("k", 2, 0)]);
    assert_eq!(keys(&lessor, 2), Vec::<Bytes>::new());
    assert!(lessor.exists(2), "a lease without keys stays");
}

#[test]
fn a_lease_falls_due_at_the_first_round_after_its_ttl() {
    let mut lessor = Lessor::new(ELECTION);
    lessor.promote(at_ms(0));
    lessor.grant(1, 2);
    lessor.stamp(at_ms(100), 1);
    assert_eq!(lessor.next_deadline(), Some(at_ms(2500)));
    assert_eq!(lessor.take_expired(at_ms(2099), 10, RETRY), NOTHING);
    assert_eq!(lessor.take_expired(at_ms(2500), 10, RETRY), [1]);
}

#[test]
fn at_most_max_are_taken_per_round_and_rounds_are_half_a_second_apart() {
    let leases: Vec<(i64, i64)> = (1..=1200).map(|id| (id, 2)).collect();
    let mut lessor = leader(&leases);
    let mut taken = Vec::new();
    for ms in (2000..3500).step_by(100) {
        taken.push(lessor.take_expired(at_ms(ms), 500, RETRY).len());
    }
    assert_eq!(taken, [500, 0, 0, 0, 0, 500, 0, 0, 0, 0, 200, 0, 0, 0, 0]);
}

#[test]
fn a_revoke_that_does_not_succeed_is_retried_after_the_timeout() {
    let mut lessor = leader(&[(1, 2)]);
    assert_eq!(lessor.take_expired(at_ms(2000), 10, RETRY), [1]);
    assert_eq!(lessor.take_expired(at_ms(8999), 10, RETRY), NOTHING);
    assert_eq!(lessor.next_deadline(), Some(at_ms(9000)));
    assert_eq!(lessor.take_expired(at_ms(9000), 10, RETRY), [1]);
}

#[test]
fn a_renewal_gives_the_full_ttl_again() {
    let mut lessor = leader(&[(1, 5)]);
    assert_eq!(lessor.renew(at_ms(4000), 1), Renewal::Renewed { ttl_secs: 5 });
    assert_eq!(lessor.time_to_live(at_ms(4000), 1).unwrap().ttl_secs, 5);
    assert_eq!(lessor.next_deadline(), Some(at_ms(9000)));
    assert_eq!(lessor.renew(at_ms(4000), 9), Renewal::Unknown);
}

#[test]
fn a_lease_past_its_expiry_is_never_revived() {
    let mut lessor = leader(&[(1, 2)]);
    assert_eq!(lessor.renew(at_ms(2000), 1), Renewal::Expiring, "even before its round");
    lessor.take_expired(at_ms(2000), 10, RETRY);
    assert_eq!(lessor.renew(at_ms(3000), 1), Renewal::Expiring);
    assert_eq!(lessor.time_to_live(at_ms(4500), 1).unwrap().ttl_secs, -2);
    lessor.revoke(1);
    assert_eq!(lessor.renew(at_ms(3000), 1), Renewal::Unknown);
}

#[test]
fn seconds_left_are_truncated() {
    let lessor = leader(&[(1, 5)]);
    let left = |ms| lessor.time_to_live(at_ms(ms), 1).unwrap().ttl_secs;
    assert_eq!((left(0), left(1), left(4001), left(5999)), (5, 4, 0, 0));
    assert_eq!(lessor.time_to_live(at_ms(0), 2), None);
}

#[test]
fn only_the_leader_expires_leases() {
    let mut lessor = Lessor::new(ELECTION);
    lessor.grant(1, 2);
    lessor.stamp(at_ms(0), 1);
    assert!(!lessor.is_primary());
    assert_eq!(lessor.take_expired(Instant::FAR, 10, RETRY), NOTHING);
    assert_eq!(lessor.next_deadline(), None);
    let mut lessor = leader(&[(1, 2)]);
    lessor.demote();
    assert_eq!((lessor.next_deadline(), lessor.is_primary()), (None, false));
    assert_eq!(lessor.take_expired(at_ms(60_000), 10, RETRY), NOTHING);
}

#[test]
fn a_new_leader_gives_full_ttl_plus_one_election_timeout_and_no_more() {
    let mut lessor = leader(&[(1, 5)]);
    lessor.demote();
    lessor.promote(at_ms(10_000));
    assert_eq!(lessor.next_deadline(), Some(at_ms(16_000)));
    lessor.promote(at_ms(10_000));
    assert_eq!(lessor.next_deadline(), Some(at_ms(16_000)), "never beyond");
}

#[test]
fn with_1000_leases_at_most_750_fall_due_in_a_second_after_promotion() {
    let mut lessor = Lessor::new(ELECTION);
    for id in 1..=5000 {
        lessor.grant(id, if id % 2 == 0 { 10 } else { 12 });
    }
    lessor.promote(at_ms(0));
    let mut expiries: Vec<u64> = lessor.leases.values().map(|l| l.expiry.ns).collect();
    expiries.sort_unstable();
    for pair in expiries.windows(751) {
        assert!(pair[750] - pair[0] >= 1_000_000_000, "751 leases fall due within a second");
    }
    assert_eq!(expiries[0], at_ms(11_000).ns);
    // 5000 leases at 750 a second need no more than 7 s.
    assert!(*expiries.last().unwrap() <= at_ms(18_000).ns);

    let mut few = Lessor::new(ELECTION);
    (1..=999).for_each(|id| assert!(few.grant(id, 10)));
    few.promote(at_ms(0));
    assert!(few.leases.values().all(|l| l.expiry == at_ms(11_000)), "fewer are not spread");
}

#[test]
fn the_list_is_by_expiry_on_the_leader_and_by_id_elsewhere() {
    let mut lessor = leader(&[(1, 30), (2, 10), (3, 20)]);
    assert_eq!(lessor.list(), [2, 3, 1]);
    lessor.demote();
    assert_eq!(lessor.list(), [1, 2, 3]);
}

#[test]
fn restore_attaches_keys_and_waits_for_promotion() {
    let mut lessor = leader(&[(9, 5)]);
    let lease = leasepb::Lease { id: 7, ttl: 30, remaining_ttl: 0 };
    lessor.restore(vec![lease], vec![("k".into(), 7), ("other".into(), 8)]);
    assert_eq!((lessor.list(), lessor.is_primary()), (vec![7], false));
    assert_eq!(keys(&lessor, 7), vec![Bytes::from("k")]);
    lessor.promote(at_ms(0));
    assert_eq!(lessor.next_deadline(), Some(at_ms(31_000)));
}

#[test]
fn the_longest_ttl_does_not_overflow_and_a_bad_one_falls_due_at_once() {
    let lessor = leader(&[(1, crate::limits::LEASE_TTL_SECS_MAX)]);
    assert_eq!(
        lessor.time_to_live(at_ms(0), 1).unwrap().ttl_secs,
        crate::limits::LEASE_TTL_SECS_MAX
    );
    let mut lessor = leader(&[(2, -1), (3, i64::MAX)]);
    assert_eq!(lessor.take_expired(at_ms(0), 10, RETRY), [2]);
}

#[test]
fn an_idle_lease_is_small() {
    assert!(size_of::<Lease>() <= 48, "{} bytes", size_of::<Lease>());
}
