//! The revision-ordered linearizability checker and the generic search agree on thousands of small histories,
//! good and damaged. A disagreement is a bug in one of them.

mod check_support;

use check_support::random::{Bug, Shape, good_history};
use check_support::*;
use detkv_core::Instant;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_sim::Reply;
use detkv_sim::check::{Case, Checker as _, Linearizability, Violation, Watch, wgl};
use detkv_sim::history::{Event, Failure, History};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

type Events = Vec<(Instant, Event)>;

/// What is done to the record of a history.
#[derive(Clone, Copy, Debug)]
enum Damage {
    None,
    /// Two answers of one kind change places.
    Swap,
    /// A header shows the revision before or after.
    Revision,
    /// An answer is lost: the history stays good.
    Lose,
    /// A request with an effect is said never to have been sent.
    Deny,
    /// Two neighbours in time change places.
    Reorder,
    /// A read gets the answer of an earlier one.
    Older,
}

const DAMAGES: [Damage; 7] = [
    Damage::None,
    Damage::Swap,
    Damage::Revision,
    Damage::Lose,
    Damage::Deny,
    Damage::Reorder,
    Damage::Older,
];
const BUGS: [Option<Bug>; 4] = [None, Some(Bug::Lost), Some(Bug::Twice), Some(Bug::Stale)];

fn small(seed: u64, ops: u32, clients: u32, keys: u32, bug: Option<Bug>, watched: bool) -> Script {
    let shape = Shape {
        ops,
        clients,
        keys,
        watchers: 0,
        lost_per_mille: 150,
        bug,
        keep_events: true,
        readout: watched,
        // They have no place in the order.
        serializable: false,
        ..Shape::default()
    };
    good_history(seed, shape)
}

fn damaged(script: Script, damage: Damage, seed: u64) -> History {
    let mut events = script.events.expect("events are kept");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut below = |n: usize| (rng.next_u64() % n.max(1) as u64) as usize;
    let answers: Vec<usize> = (0..events.len())
        .filter(|i| matches!(events[*i].1, Event::Return { result: Ok(_), .. }))
        .collect();
    if let Some(at) = answers.get(below(answers.len())).copied() {
        match damage {
            Damage::None => {}
            Damage::Swap => swap(&mut events, at, &answers, below(answers.len())),
            Damage::Revision => {
                let by = if below(2) == 0 { 1 } else { -1 };
                change(&mut events, at, |reply| shift_revision(reply, by));
            }
            Damage::Lose => fail(&mut events, at, Failure::Unknown),
            Damage::Deny => fail(&mut events, at, Failure::NotSent),
            Damage::Reorder => reorder(&mut events, below(1 << 20)),
            Damage::Older => older(&mut events, at),
        }
    }
    let mut history = History::new();
    events.into_iter().for_each(|(at, event)| history.record(at, event));
    history
}

fn answer_of(event: &Event) -> Option<&Reply> {
    match event {
        Event::Return { result: Ok(reply), .. } => Some(reply),
        _ => None,
    }
}

fn change(events: &mut Events, at: usize, with: impl FnOnce(&mut Reply)) {
    if let Event::Return { result: Ok(reply), .. } = &mut events[at].1 {
        with(reply);
    }
}

fn fail(events: &mut Events, at: usize, failure: Failure) {
    if let Event::Return { result, .. } = &mut events[at].1 {
        *result = Err(failure);
    }
}

/// With the next answer of the same kind.
fn swap(events: &mut Events, at: usize, answers: &[usize], from: usize) {
    let kind = |i: usize| answer_of(&events[i].1).map(std::mem::discriminant);
    let others = answers[from..].iter().chain(answers);
    let other = others.copied().find(|other| *other != at && kind(*other) == kind(at));
    let Some(other) = other else { return };
    let (a, b) = (answer_of(&events[at].1).cloned(), answer_of(&events[other].1).cloned());
    change(events, at, |reply| *reply = b.expect("an answer"));
    change(events, other, |reply| *reply = a.expect("an answer"));
}

fn shift_revision(reply: &mut Reply, by: i64) {
    let header = match reply {
        Reply::Range(r) => &mut r.header,
        Reply::Put(r) => &mut r.header,
        Reply::DeleteRange(r) => &mut r.header,
        Reply::Txn(r) => &mut r.header,
        Reply::LeaseRevoke(r) => &mut r.header,
        _ => return,
    };
    if let Some(header) = header {
        header.revision += by;
    }
}

/// Times stay where they are. Calls keep their order among themselves, and each its return behind it.
fn reorder(events: &mut Events, from: usize) {
    let can = |events: &Events, i: usize| match (&events[i].1, &events[i + 1].1) {
        (Event::Call { op: called, .. }, Event::Return { op, .. }) => called != op,
        (Event::Return { .. }, Event::Call { .. }) => true,
        _ => false,
    };
    let n = events.len() - 1;
    for i in (0..n).map(|i| (i + from) % n).take(n / 2) {
        if can(events, i) {
            let (first, second) = (events[i].0, events[i + 1].0);
            events.swap(i, i + 1);
            (events[i].0, events[i + 1].0) = (first, second);
        }
    }
}

/// The answer to an equal request that came before.
fn older(events: &mut Events, at: usize) {
    let op_of = |event: &Event| match event {
        Event::Return { op, .. } => Some(*op),
        _ => None,
    };
    let request = |of| {
        events.iter().find_map(|(_, event)| match event {
            Event::Call { op, request, .. } if Some(*op) == of => Some(request.clone()),
            _ => None,
        })
    };
    let own = request(op_of(&events[at].1));
    let is_range = matches!(own, Some(Request::Range(pb::RangeRequest { revision: 0, .. })));
    let before = (0..at).find(|i| is_range && request(op_of(&events[*i].1)) == own);
    if let Some(reply) = before.and_then(|i| answer_of(&events[i].1).cloned()) {
        change(events, at, |own| *own = reply);
    }
}

/// What calls and watches show together, as the generic search judges it; and whether every change is known.
fn ordered(history: &History) -> (Result<(), Violation>, bool) {
    let case = Case::new(history);
    let watched = Watch.check(&case).or_else(|violation| {
        // That a watch must show the end of a history is not a question of order.
        if violation.message.ends_with("never delivered") { Ok(()) } else { Err(violation) }
    });
    (Linearizability.check(&case).and(watched), case.is_complete())
}

fn show(history: &History) -> String {
    let ops = history.operations_with_ids().map(|(id, op)| {
        let (from, to) = (op.called.ns / 1_000_000, op.ended.ns / 1_000_000);
        format!("{id} {from}..{to} client {} {:?} => {:?}\n", op.client.0, op.call, op.outcome)
    });
    let kvs = history.kvs().iter().enumerate().map(|(i, kv)| format!("kv {i}: {kv:?}\n"));
    ops.chain(kvs).collect()
}

proptest! {
    // Equal histories in every run; `PROPTEST_RNG_SEED=N` looks at others.
    #![proptest_config(ProptestConfig {
        cases: 3000,
        failure_persistence: None,
        rng_seed: match ProptestConfig::default().rng_seed {
            RngSeed::Random => RngSeed::Fixed(1),
            given => given,
        },
        ..ProptestConfig::default()
    })]

    /// The verdicts are equal. Where nobody saw what some revision did and several calls may have made it
    /// (more often without a watch), the ordered checker leaves open what it cannot know, and never
    /// refuses a history that has an order.
    #[test]
    fn both_checkers_agree(
        seed in any::<u64>(), ops in 4u32..22, clients in 1u32..5, keys in 1u32..4,
        damage in 0..DAMAGES.len(), bug in 0..BUGS.len(), watched in any::<bool>(),
    ) {
        let script = small(seed, ops, clients, keys, BUGS[bug], watched);
        let history = damaged(script, DAMAGES[damage], seed ^ 1);
        let (ordered, is_complete) = ordered(&history);
        let generic = wgl::check(&history);
        prop_assume!(generic != wgl::Verdict::TooLarge);
        let is_good = generic == wgl::Verdict::Linearizable;
        prop_assert!(
            ordered.is_ok() == is_good || (ordered.is_ok() && !is_complete),
            "{:?} {:?}: ordered {:?} (complete {}), generic {:?}\n{}",
            DAMAGES[damage], BUGS[bug], ordered, is_complete, generic, show(&history)
        );
    }

    /// What has no order key by key has none at all: on longer histories than a full search can do.
    #[test]
    fn what_the_search_by_key_refuses_the_ordered_checker_refuses(
        seed in any::<u64>(), ops in 20u32..120, clients in 1u32..6, keys in 2u32..10,
        damage in 0..DAMAGES.len(), bug in 0..BUGS.len(),
    ) {
        let script = small(seed, ops, clients, keys, BUGS[bug], true);
        let history = damaged(script, DAMAGES[damage], seed ^ 1);
        let by_key = wgl::check_by_key(&history);
        if matches!(by_key, wgl::Verdict::NotLinearizable { .. }) {
            let (ordered, is_complete) = ordered(&history);
            prop_assert!(
                ordered.is_err() || !is_complete,
                "{:?} {:?}: by key {:?}\n{}", DAMAGES[damage], BUGS[bug], by_key, show(&history)
            );
        }
    }
}

/// Found by `both_checkers_agree`: a lease that only a put names ends, and takes a revision.
#[test]
fn a_lease_whose_grant_nobody_recorded_may_take_a_revision() {
    let seed = 11_285_264_747_120_935_534;
    let history = damaged(small(seed, 10, 1, 1, BUGS[2], false), DAMAGES[3], seed ^ 1);
    assert_eq!(wgl::check(&history), wgl::Verdict::Linearizable, "{}", show(&history));
    let (ordered, is_complete) = ordered(&history);
    assert!(ordered.is_ok(), "{ordered:?} (complete {is_complete})\n{}", show(&history));
}

/// Found by `both_checkers_agree`: a revoke that leaves the lease its key.
#[test]
fn a_revoke_whose_revision_still_has_the_key_is_refused() {
    let seed = 12_256_392_955_056_611_856;
    let history = damaged(small(seed, 8, 4, 1, BUGS[0], false), DAMAGES[1], seed ^ 1);
    assert!(matches!(wgl::check(&history), wgl::Verdict::NotLinearizable { .. }));
    let (ordered, _) = ordered(&history);
    assert!(ordered.is_err(), "{}", show(&history));
}

/// Found by `both_checkers_agree`: open writes may have taken the key from the lease before its revoke.
#[test]
fn a_revoke_of_a_lease_whose_key_is_uncertain_need_not_have_made_its_revision() {
    let seed = 11_928_954_976_086_888_098;
    let history = damaged(small(seed, 13, 1, 1, BUGS[0], false), DAMAGES[3], seed ^ 1);
    assert_eq!(wgl::check(&history), wgl::Verdict::Linearizable, "{}", show(&history));
    let (ordered, is_complete) = ordered(&history);
    assert!(ordered.is_ok(), "{ordered:?} (complete {is_complete})\n{}", show(&history));
}

/// The comparison means something: most histories are complete, and of each verdict there are many.
#[test]
fn good_and_bad_histories_are_compared_in_numbers() {
    let (mut complete, mut bad) = (0, 0);
    let all = DAMAGES.len() * BUGS.len() * 10;
    for n in 0..all {
        let (damage, bug) = (DAMAGES[n % DAMAGES.len()], BUGS[n / DAMAGES.len() % BUGS.len()]);
        let script = small(n as u64, 15, 3, 2, bug, n % 2 == 0);
        let (verdict, is_complete) = ordered(&damaged(script, damage, n as u64));
        complete += usize::from(is_complete || verdict.is_err());
        bad += usize::from(verdict.is_err());
    }
    println!("{all} histories: {complete} decided in full, {bad} bad");
    assert!(complete * 10 >= all * 9, "{complete} of {all} are decided in full");
    assert!((all / 4..all * 3 / 4).contains(&bad), "{bad} of {all} are bad");
}

#[test]
fn the_generic_checker_finds_what_it_should() {
    let mut script = Script::new();
    script.run(1, put("a", "1"));
    let old = script.store.run(&get("a"));
    script.run(1, put("a", "2"));
    assert_eq!(wgl::check(&script.history), wgl::Verdict::Linearizable);
    let read = script.call(2, get("a"));
    script.answer(read, old);
    let broken = wgl::Verdict::NotLinearizable { placed: 2, of: 3 };
    assert_eq!(wgl::check(&script.history), broken);
    assert_eq!(wgl::check_by_key(&script.history), broken);
}
