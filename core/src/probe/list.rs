//! Every site and mark there is, with what it means. `<part>.<what>`.

use super::Named;

/// In-code faults. Each is something that a correct member may do at any time.
pub const SITES: &[Named] = &[
    ("raft.tiny-appends", "append messages of a few entries' bytes, two in flight"),
    ("raft.shortest-timeout", "elections time out at once after the least time: votes split"),
    ("raft.hold-batch", "a group commit waits for the next burst"),
    ("raft.tick-missed", "a tick is dropped"),
    ("wal.cut-early", "a segment is cut long before it is full"),
    ("snapshot.save-now", "a Raft snapshot is saved at every durable commit"),
    (
        "snapshot.forget-log",
        "the log behind a snapshot goes at once: slow followers need a transfer",
    ),
    ("snapshot.one-chunk", "one chunk under way at a time, of one row"),
    ("reads.retry-now", "a ReadIndex round is sent once more, at once"),
    ("requests.refuse-forward", "a leader says that it is none to a forwarded request"),
    ("requests.too-many", "a proposal is refused as if the member were overloaded"),
    ("mvcc.commit-now", "a backend batch is written at once and made durable"),
    ("mvcc.slow-batch", "a backend batch that is due waits for the next burst"),
    ("mvcc.compact-one-key", "a compaction slice visits one key"),
    ("mvcc.evict-all", "current values leave memory as soon as the file has them"),
    ("defrag.small-slice", "a slice of a defragmentation copies three rows"),
    ("hash.small-slice", "a slice of a hash walks over three rows"),
    ("watch.small-batch", "a catching-up watcher gets one revision at a time"),
    ("watch.fall-behind", "a watcher becomes unsynced as if its stream had no credit"),
    ("watch.fragment-now", "every event is a fragment of its own"),
    ("watch.one-watcher", "a catch-up round serves one watcher"),
    ("lease.one-revoke", "one lease is revoked per round"),
    ("driver.spurious-deadline", "the driver reports a deadline that has not passed"),
    ("driver.reply-lost", "an answer is lost with its connection"),
];

/// Rare paths. One that no seed of a long run takes is one that nothing tests.
pub const MARKS: &[Named] = &[
    ("raft.vote-while-unsynced", "a vote waits for its sync while messages come in"),
    ("raft.campaign-put-off", "a member with un-synced entries puts its campaign off"),
    ("raft.heartbeat-answered-during-sync", "a follower answers heartbeats before its disk does"),
    ("raft.apply-before-own-sync", "entries are applied that only other members have durable"),
    ("raft.group-commit", "a batch gathered behind a sync in flight"),
    (
        "raft.transfer-refused-unsynced",
        "a transferee with un-synced entries lets the transfer pass",
    ),
    ("wal.segment-cut", "a segment was full"),
    ("wal.segment-released", "an old segment was removed"),
    ("wal.torn-tail", "recovery cut a torn tail"),
    ("wal.leftover-segment", "recovery removed a segment that never got its name"),
    ("snapshot.saved", "the log was noted as held by the backend"),
    ("snapshot.sent", "a transfer came to its end at the sender"),
    ("snapshot.send-failed", "a transfer failed"),
    ("snapshot.aborted-by-demotion", "a leader lost its lead while it was sending"),
    ("snapshot.replaced", "a newer transfer replaced one under way"),
    ("snapshot.refused-during-install", "a transfer came while another was being installed"),
    ("snapshot.not-wanted", "Raft refused a snapshot that had been received"),
    ("snapshot.installed", "a received snapshot became the store"),
    ("snapshot.install-finished-by-recovery", "a crash cut an install short after its record"),
    ("snapshot.leftover-removed", "recovery removed what a crash left of a transfer"),
    ("membership.remote", "a member met one that joined after all that it had applied"),
    ("recovery.backend-behind", "entries of the log were applied again"),
    ("recovery.term-from-entries", "the log had a newer term than its hard state"),
    ("reads.retried", "a ReadIndex round was not answered in time"),
    ("reads.failed-by-new-leader", "reads failed because the leader changed"),
    ("requests.requeued", "a forwarded request came back from one that was no leader"),
    ("requests.refused-by-transfer", "a forwarded proposal met a leadership transfer"),
    ("requests.timed-out", "a proposal had no result in time"),
    ("mvcc.compaction-in-slices", "a compaction took more than one slice"),
    ("mvcc.compaction-resumed", "a compaction went on after a restart"),
    ("mvcc.batch-blocked", "a batch waited for the WAL"),
    ("watch.fell-behind", "a watcher without credit became unsynced"),
    ("watch.caught-up", "an unsynced watcher became synced"),
    ("watch.compacted", "a watcher's position was compacted away"),
    ("watch.fragmented", "a response was sent in fragments"),
    ("lease.expired", "a lease fell due"),
    ("lease.renewed-too-late", "a keep-alive met a revoke under way"),
    ("lease.asked-leader", "a follower asked the leader about a lease"),
    ("lease.asked-non-leader", "the one asked was no leader any more"),
    ("lead.handed-over", "a leader with a stalled disk handed its lead over"),
    ("lead.planned-stop", "a member stopped on request"),
    ("defrag.mirrored", "a commit during a defragmentation was repeated in its copy"),
    ("defrag.finished", "a defragmented file took the old one's place"),
    ("defrag.given-up", "a defragmentation gave way to a stop, a received snapshot or a failure"),
    ("hash.stored", "the hash that belongs to a compaction was taken"),
    ("hash.overtaken", "a hash began again because a compaction overtook it"),
    ("space.alarm-raised", "a member over its quota raised the alarm"),
    ("space.applied-over-quota", "a write was applied by a member that had no room for it"),
    ("space.refused", "an entry was refused because of an alarm"),
];

/// Marks that take thousands of runs. A leader sends a second snapshot while the first is being installed only if it
/// gave that one up meanwhile and then hears an answer that was sent before the install. A log has a newer term than
/// its hard state only if one write held both and the power went between their sectors. A compaction overtakes a hash only
/// between two of its slices, of 10,000 rows each.
pub const VERY_RARE: &[&str] =
    &["snapshot.refused-during-install", "recovery.term-from-entries", "hash.overtaken"];
