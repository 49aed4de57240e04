//! The log against a model: a list of records of which a crash may take only those no sync covered.

mod wal_disk;

use std::sync::Arc;

use bytes::Bytes;
use detkv_core::pb::{raftpb, walpb};
use detkv_core::wal::{Recovered, WAL_DIR, Wal, WalMetadata, WalRecovery, WalStep, encode_snap};
use detkv_core::{LaneQueue, OpenError};
use proptest::prelude::*;
use raft::eraftpb::{Entry, HardState};
use wal_disk::SimDisk;

const SEGMENT_BYTES: u64 = 4096;
const METADATA: WalMetadata = WalMetadata { node_id: 7, cluster_id: 8 };

/// What happens to the log.
#[derive(Clone, Debug)]
enum Step {
    /// Entries of these sizes, the first of them `back` before the end (never at or below the
    /// commit), then a hard state that commits `commit` tenths of what is there.
    Append {
        back: u64,
        sizes: Vec<usize>,
        commit: Option<u64>,
        fill: u8,
    },
    Sync,
    /// Snap file, snapshot record and release, at the commit.
    Snapshot,
    /// Power is lost (or only the process killed) after this many of the pushed actions, and power
    /// again while it recovers.
    Crash {
        power: bool,
        performed: usize,
        in_recovery: Option<usize>,
        fate: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![4 => 0..40usize, 2 => 400..700usize, 1 => 1500..3000usize];
    let append = (
        prop_oneof![3 => Just(0u64), 1 => 0..5u64],
        prop::collection::vec(size, 0..6),
        prop::option::of(0..=10u64),
        any::<u8>(),
    )
        .prop_map(|(back, sizes, commit, fill)| Step::Append { back, sizes, commit, fill });
    let crash = (any::<bool>(), 0..12usize, prop::option::of(0..10usize), any::<u64>()).prop_map(
        |(power, performed, in_recovery, fate)| Step::Crash { power, performed, in_recovery, fate },
    );
    prop_oneof![6 => append, 3 => Just(Step::Sync), 1 => Just(Step::Snapshot), 2 => crash]
}

/// One record, as the caller sees it.
#[derive(Clone, PartialEq, Debug)]
enum Record {
    Entry(Entry),
    State(HardState),
    Snapshot(u64, u64),
}

/// What a list of records adds up to.
#[derive(Clone, PartialEq, Debug, Default)]
struct Folded {
    hard_state: HardState,
    entries: Vec<Entry>,
    snapshot: (u64, u64),
}

impl Folded {
    fn push(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => {
                self.entries.retain(|e| e.index < entry.index);
                self.entries.push(entry.clone());
            }
            Record::State(state) => self.hard_state = state.clone(),
            Record::Snapshot(term, index) => {
                self.snapshot = (*term, *index);
                self.entries.retain(|e| e.index > *index);
            }
        }
    }

    fn last_index(&self) -> u64 {
        self.entries.last().map_or(self.snapshot.1, |e| e.index)
    }

    fn of(recovered: &Recovered) -> Self {
        let snapshot = recovered.snapshot.as_ref().map_or((0, 0), |s| (s.term, s.index));
        Self {
            hard_state: recovered.hard_state.clone(),
            entries: recovered.entries.clone(),
            snapshot,
        }
    }
}

struct World {
    disk: Arc<SimDisk>,
    out: LaneQueue,
    wal: Wal,
    /// State that surely survives; `tail` are the records after it.
    durable: Folded,
    tail: Vec<Record>,
    /// (ticket, records of `tail` that are durable once it is performed).
    syncs: Vec<(u64, usize)>,
}

/// A cheap generator, so that a failing case needs no list of thousands of coin flips.
fn coin(state: &mut u64) -> bool {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.count_ones().is_multiple_of(2)
}

fn recover(
    disk: &Arc<SimDisk>,
    out: &mut LaneQueue,
    mut crash_after: Option<(usize, &mut u64)>,
) -> Result<Option<Box<Recovered>>, OpenError> {
    let Some(mut recovery) = WalRecovery::new(disk.clone(), SEGMENT_BYTES)? else {
        return Ok(None);
    };
    loop {
        match recovery.step(out)? {
            WalStep::Read(_) => {}
            WalStep::Perform(ops) => match crash_after.take() {
                Some((performed, fate)) => {
                    ops.iter().take(performed).for_each(|op| disk.perform(&op.action));
                    disk.crash(|| coin(fate));
                    return recover(disk, out, None);
                }
                None => ops.iter().for_each(|op| disk.perform(&op.action)),
            },
            WalStep::Done(recovered) => return Ok(Some(recovered)),
        }
    }
}

impl World {
    fn new() -> Self {
        let (disk, mut out) = (Arc::new(SimDisk::default()), LaneQueue::new());
        let wal = Wal::create(METADATA, SEGMENT_BYTES, &mut out);
        out.ops.drain(..).for_each(|op| disk.perform(&op.action));
        let durable = Folded::default();
        Self { disk, out, wal, durable, tail: Vec::new(), syncs: Vec::new() }
    }

    fn folded(&self) -> Folded {
        let mut all = self.durable.clone();
        self.tail.iter().for_each(|record| all.push(record));
        all
    }

    fn append(&mut self, back: u64, sizes: &[usize], commit: Option<u64>, fill: u8) {
        let now = self.folded();
        let floor = now.hard_state.commit.max(now.snapshot.1);
        let term = now.hard_state.term.max(1) + u64::from(back > 0);
        let first = (now.last_index() + 1).saturating_sub(back).max(floor + 1);
        let entries: Vec<Entry> = (first..)
            .zip(sizes)
            .map(|(index, size)| Entry {
                term,
                index,
                data: Bytes::from(vec![fill; *size]),
                ..Default::default()
            })
            .collect();
        let last =
            if entries.is_empty() { now.last_index() } else { first + sizes.len() as u64 - 1 };
        let state = commit.map(|tenths| HardState {
            term,
            vote: 3,
            commit: floor.max(last * tenths / 10),
            ..Default::default()
        });
        let before = self.out.ops.len();
        self.wal.append(&entries, state.as_ref(), &mut self.out);
        self.tail.extend(entries.into_iter().map(Record::Entry));
        self.tail.extend(state.map(Record::State));
        if self.out.ops.len() > before + 1 {
            // A cut: what was there before it is synced by it.
            self.syncs.push((self.out.last().0, self.tail.len()));
        }
    }

    fn sync(&mut self) {
        self.wal.sync(&mut self.out);
        self.syncs.push((self.out.last().0, self.tail.len()));
    }

    fn snapshot(&mut self) {
        self.sync();
        self.perform(usize::MAX);
        let index = self.durable.hard_state.commit;
        // Nothing there: the newest snapshot is at the commit already.
        let Some(last) = self.durable.entries.iter().find(|e| e.index == index) else { return };
        let term = last.term;
        let (name, bytes) =
            encode_snap(&raftpb::SnapshotMetadata { term, index, ..Default::default() });
        self.disk.put(&format!("member/snap/{name}"), bytes.to_vec());
        self.wal.append_snapshot(&walpb::Snapshot { term, index, conf_state: None }, &mut self.out);
        self.tail.push(Record::Snapshot(term, index));
        self.sync();
        self.wal.release_to(index, &mut self.out);
    }

    /// Performs the first `count` of the pushed actions and forgets the rest.
    fn perform(&mut self, count: usize) {
        let mut performed = 0;
        for op in self.out.ops.drain(..).take(count) {
            self.disk.perform(&op.action);
            performed = op.ticket.0;
        }
        let all = count == usize::MAX;
        let done = self.syncs.iter().filter(|(ticket, _)| all || *ticket <= performed);
        let durable = done.map(|(_, records)| *records).max().unwrap_or(0);
        for record in self.tail.drain(..durable) {
            self.durable.push(&record);
        }
        self.syncs.clear();
    }

    fn crash(&mut self, power: bool, performed: usize, in_recovery: Option<usize>, fate: u64) {
        self.perform(performed);
        let mut fate = fate | 1;
        if power {
            self.disk.crash(|| coin(&mut fate));
        }
        let mut out = LaneQueue::new();
        let crash_again = in_recovery.map(|count| (count, &mut fate));
        let recovered = recover(&self.disk, &mut out, crash_again)
            .expect("a crash is not damage")
            .expect("the log exists since create was synced");
        let got = Folded::of(&recovered);
        let mut allowed = self.durable.clone();
        let mut matched = allowed == got;
        for record in &self.tail {
            if matched {
                break;
            }
            allowed.push(record);
            matched = allowed == got;
        }
        assert!(
            matched,
            "recovered {got:#?}\nsurely durable {:#?}\nthen {:#?}",
            self.durable, self.tail
        );
        assert_eq!(recovered.metadata, METADATA);
        let tail = Vec::new();
        let disk = self.disk.clone();
        *self = Self { disk, out, wal: recovered.wal, durable: got, tail, syncs: Vec::new() };
    }
}

fn run(steps: &[Step]) -> World {
    let mut world = World::new();
    for step in steps {
        match step {
            Step::Append { back, sizes, commit, fill } => {
                world.append(*back, sizes, *commit, *fill);
            }
            Step::Sync => world.sync(),
            Step::Snapshot => world.snapshot(),
            Step::Crash { power, performed, in_recovery, fate } => {
                world.crash(*power, *performed, *in_recovery, *fate);
            }
        }
    }
    world
}

/// What etcd's format cannot tell from a torn write: see `core/src/wal/scan.rs`.
fn looks_torn(bytes: &[u8], flipped: usize) -> bool {
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let field = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let end = at + 8 + ((field & 0x00ff_ffff_ffff_ffff) as usize).next_multiple_of(8);
        if field == 0 || flipped < end {
            let mut sectors = (at + 8..end).collect::<Vec<_>>();
            sectors.dedup_by_key(|offset| *offset / 512);
            let zero_sector = sectors.iter().any(|start| {
                let stop = ((start / 512 + 1) * 512).min(end);
                bytes[*start..stop].iter().all(|b| *b == 0)
            });
            return zero_sector || at % 512 == 504;
        }
        at = end;
    }
    false
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_survives_and_nothing_else_appears(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let mut world = run(&steps);
        world.crash(true, usize::MAX, None, 1);
    }

    #[test]
    fn a_flipped_bit_is_reported_or_changes_nothing(
        steps in prop::collection::vec(step(), 1..20),
        places in prop::collection::vec(any::<prop::sample::Index>(), 40),
    ) {
        let mut world = run(&steps);
        world.sync();
        world.perform(usize::MAX);
        let segments: Vec<_> =
            world.disk.paths().into_iter().filter(|p| p.ends_with(".wal")).collect();
        prop_assert!(segments.iter().all(|p| p.starts_with(WAL_DIR)));
        let total: usize = segments.iter().map(|p| world.disk.content(p).len() * 8).sum();
        for place in places {
            let mut bit = place.index(total);
            let mut paths = segments.iter();
            let (path, good) = loop {
                let path = paths.next().expect("the bit lies in some segment");
                let bytes = world.disk.content(path);
                if bit < bytes.len() * 8 {
                    break (path, bytes);
                }
                bit -= bytes.len() * 8;
            };
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            world.disk.put(path, bad);
            if let Ok(recovered) = recover(&world.disk, &mut LaneQueue::new(), None) {
                let got = Folded::of(&recovered.expect("segments are there"));
                let excused = Some(path) == segments.last() && looks_torn(&good, bit / 8);
                prop_assert!(got == world.durable || excused, "bit {bit} of {path}");
            }
            world.disk.put(path, good);
        }
    }
}
