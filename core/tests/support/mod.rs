//! A cluster of members on in-memory disks and an instant network, in virtual time: as small as it
//! can be. Faults, latencies and crashes in full are the simulator's.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use detkv_core::api::{Request, RequestId, Response, StreamId, WatchMessage};
use detkv_core::mvcc::BackendJob;
use detkv_core::pb::etcdserverpb as pb;
use detkv_core::pb::peer::{Frame, frame::Body};
use detkv_core::{
    ApiError, BootMember, Config, DiskAction, DiskOp, Files, Halt, Input, Instant, Lane, LogLine,
    Member, MemberId, OpenError, Outputs, Peer, Profile, Recovery, RecoveryStep, Role, Ticket,
};

type Inode = Arc<Mutex<Vec<u8>>>;

/// Every write is kept: a crash loses nothing. What a crash may lose is tested in the simulator.
#[derive(Clone, Default, Debug)]
pub struct MemDisk(Arc<Mutex<BTreeMap<String, Inode>>>);

impl MemDisk {
    pub fn perform(&self, action: &DiskAction) {
        let mut files = self.0.lock().unwrap();
        match action {
            DiskAction::CreateDir { .. } | DiskAction::SyncData { .. } => {}
            DiskAction::SyncDir { .. } => {}
            DiskAction::Create { path } => {
                files.insert(path.clone(), Inode::default());
            }
            DiskAction::Allocate { path, len } => {
                let mut file = files[path].lock().unwrap();
                let len = file.len().max(*len as usize);
                file.resize(len, 0);
            }
            DiskAction::WriteAt { path, offset, data } => {
                write_at(&mut files[path].lock().unwrap(), *offset, data);
            }
            DiskAction::Truncate { path, len } => {
                files[path].lock().unwrap().truncate(*len as usize);
            }
            DiskAction::Rename { from, to } => {
                let inode = files.remove(from).expect("renamed file exists");
                files.insert(to.clone(), inode);
            }
            DiskAction::Remove { path } => {
                files.remove(path);
            }
        }
    }
}

fn write_at(file: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let end = offset as usize + data.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset as usize..end].copy_from_slice(data);
}

impl Files for MemDisk {
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let prefix = format!("{dir}/");
        let files = self.0.lock().unwrap();
        let names = files.keys().filter_map(|p| p.strip_prefix(&prefix));
        Ok(names.filter(|n| !n.contains('/')).map(str::to_owned).collect())
    }

    fn len(&self, path: &str) -> io::Result<Option<u64>> {
        Ok(self.0.lock().unwrap().get(path).map(|f| f.lock().unwrap().len() as u64))
    }

    fn read(&self, path: &str, offset: u64, len: usize) -> io::Result<Bytes> {
        let files = self.0.lock().unwrap();
        let file = files.get(path).ok_or(io::ErrorKind::NotFound)?.lock().unwrap();
        let from = (offset as usize).min(file.len());
        let to = (from + len).min(file.len());
        Ok(Bytes::copy_from_slice(&file[from..to]))
    }

    fn backend(&self, path: &str) -> io::Result<Box<dyn redb::StorageBackend>> {
        let inode = self.0.lock().unwrap().entry(path.to_owned()).or_default().clone();
        Ok(Box::new(MemBackend(inode)))
    }
}

#[derive(Debug)]
struct MemBackend(Inode);

impl redb::StorageBackend for MemBackend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let file = self.0.lock().unwrap();
        let from = offset as usize;
        out.copy_from_slice(file.get(from..from + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().unwrap().resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write_at(&mut self.0.lock().unwrap(), offset, data);
        Ok(())
    }
}

/// A node: its disk always, its member while it is up.
pub struct Node {
    pub member: Option<Member>,
    pub disk: MemDisk,
    config: Config,
    /// Log syncs are reported only when this is false.
    pub log_stalled: bool,
    unreported: Option<Ticket>,
    /// Backend jobs wait while this is true.
    pub jobs_stalled: bool,
    jobs: VecDeque<(Ticket, BackendJob)>,
    /// Actions of the snapshot lane wait while this is true.
    pub snapshot_lane_stalled: bool,
    snapshot_lane: Vec<DiskOp>,
    pub replies: Vec<(RequestId, Result<Response, ApiError>)>,
    pub watch: Vec<(StreamId, WatchMessage)>,
    pub halt: Option<Halt>,
    /// Whom it wants to be connected to.
    peers: BTreeSet<MemberId>,
    /// Of all its lives.
    pub log_lines: Vec<LogLine>,
}

impl Node {
    fn new(config: Config) -> Self {
        Self {
            member: None,
            disk: MemDisk::default(),
            config,
            log_stalled: false,
            unreported: None,
            jobs_stalled: false,
            jobs: VecDeque::new(),
            snapshot_lane_stalled: false,
            snapshot_lane: Vec::new(),
            replies: Vec::new(),
            watch: Vec::new(),
            halt: None,
            peers: BTreeSet::new(),
            log_lines: Vec::new(),
        }
    }
}

pub struct Cluster {
    pub now: Instant,
    pub nodes: BTreeMap<MemberId, Node>,
    wire: VecDeque<(MemberId, MemberId, Frame)>,
    /// All frames for a member that are on the wire reach it in one burst.
    pub bursts: bool,
    /// Snapshot chunks and what belongs to them wait in `held` while this is true.
    pub hold_snapshots: bool,
    held: Vec<(MemberId, MemberId, Frame)>,
    /// Nodes that nothing reaches and that reach nobody.
    pub isolated: BTreeSet<MemberId>,
    seed: u64,
    next_request: u64,
    /// Inputs handled by all members.
    pub steps: u64,
    /// Answers to appends that reached their receiver.
    pub append_answers: u64,
    /// Appends with entries that reached their receiver: to whom, bytes of the entries' data.
    pub appends: Vec<(MemberId, usize)>,
    /// While this is true answers to appends are lost.
    pub lose_append_answers: bool,
}

impl Cluster {
    pub fn new(size: u64, profile: Profile, seed: u64) -> Self {
        Self::with(size, seed, |config| config.profile = profile)
    }

    pub fn with(size: u64, seed: u64, tune: impl Fn(&mut Config)) -> Self {
        let boot: Vec<BootMember> = (1..=size)
            .map(|id| BootMember {
                id: MemberId(id),
                name: format!("m{id}"),
                peer_urls: vec![format!("http://127.0.0.1:{}", 2380 + id)],
            })
            .collect();
        let mut cluster = Self {
            now: Instant { ns: 1 },
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            bursts: false,
            hold_snapshots: false,
            held: Vec::new(),
            isolated: BTreeSet::new(),
            seed,
            next_request: 0,
            steps: 0,
            append_answers: 0,
            appends: Vec::new(),
            lose_append_answers: false,
        };
        for member in &boot {
            let mut config = Config::new(member.id, 77, boot.clone());
            config.client_urls = vec![format!("http://127.0.0.1:{}", 3000 + member.id.0)];
            config.wal_segment_bytes = 1 << 20;
            tune(&mut config);
            cluster.nodes.insert(member.id, Node::new(config));
        }
        for member in &boot {
            cluster.start(member.id);
        }
        cluster
    }

    /// Opens the data directory of a member that is down.
    pub fn open(&mut self, id: MemberId) -> Result<Member, OpenError> {
        let node = &self.nodes[&id];
        let files = Arc::new(node.disk.clone());
        let mut recovery = Recovery::new(node.config.clone(), files, self.seed)?;
        loop {
            match recovery.step(self.now)? {
                RecoveryStep::Perform(ops) => {
                    ops.iter().for_each(|op| node.disk.perform(&op.action))
                }
                RecoveryStep::Read { .. } => {}
                RecoveryStep::Ready(member) => return Ok(*member),
            }
        }
    }

    pub fn start(&mut self, id: MemberId) {
        let member = self.open(id).unwrap();
        self.nodes.get_mut(&id).unwrap().member = Some(member);
        let others: Vec<MemberId> = self.nodes.keys().copied().filter(|o| *o != id).collect();
        for other in others {
            self.input(id, Input::PeerUp { peer: other });
            self.input(other, Input::PeerUp { peer: id });
        }
        self.poll(id);
    }

    /// Starts a member that was added, with an empty disk: `list` is what a peer told it.
    pub fn join(&mut self, id: MemberId, list: &[pb::Member]) {
        let like = self.nodes.values().next().expect("there is a cluster to join").config.clone();
        let boot = list.iter().map(|m| BootMember {
            id: MemberId(m.id),
            name: m.name.clone(),
            peer_urls: m.peer_ur_ls.clone(),
        });
        let config = Config {
            id,
            name: format!("joined-{id}"),
            client_urls: vec![format!("http://127.0.0.1:{}", 4000 + id.0 % 1000)],
            initial_cluster: boot.collect(),
            join: true,
            ..like
        };
        self.nodes.insert(id, Node::new(config));
        self.start(id);
    }

    pub fn kill(&mut self, id: MemberId) {
        let node = self.nodes.get_mut(&id).unwrap();
        node.member = None;
        node.unreported = None;
        node.jobs.clear();
        node.snapshot_lane.clear();
        for other in self.nodes.keys().copied().filter(|o| *o != id).collect::<Vec<_>>() {
            self.input(other, Input::PeerDown { peer: id });
        }
    }

    pub fn member(&self, id: MemberId) -> &Member {
        self.nodes[&id].member.as_ref().expect("the node is up")
    }

    /// One thing happens to a member; what comes of it comes at the next `poll`.
    pub fn input(&mut self, id: MemberId, input: Input) {
        let now = self.now;
        self.steps += 1;
        // A member that was added and not started yet has no node.
        if let Some(member) = self.nodes.get_mut(&id).and_then(|node| node.member.as_mut()) {
            member.handle(now, input);
        }
    }

    /// Polls until the member has nothing more to do at this instant.
    pub fn poll(&mut self, id: MemberId) {
        loop {
            let Some(node) = self.nodes.get_mut(&id) else { return };
            let Some(member) = &mut node.member else { return };
            let mut out = Outputs::default();
            member.poll(self.now, &mut out);
            node.snapshot_lane.append(&mut out.snapshot);
            let mut again = false;
            if !node.snapshot_lane_stalled {
                let ops = std::mem::take(&mut node.snapshot_lane);
                again = perform(&node.disk, Lane::Snapshot, &ops, member, self.now);
            }
            for op in &out.log {
                node.disk.perform(&op.action);
                node.unreported = Some(op.ticket);
            }
            if !node.log_stalled
                && let Some(up_to) = node.unreported.take()
            {
                member.handle(self.now, Input::Synced { lane: Lane::Log, up_to });
                again = true;
            }
            node.jobs.extend(out.jobs);
            if !node.jobs_stalled {
                for (ticket, job) in std::mem::take(&mut node.jobs) {
                    member.handle(self.now, Input::JobDone { ticket, done: job.run() });
                    again = true;
                }
            }
            node.replies.append(&mut out.replies);
            node.watch.append(&mut out.watch);
            node.log_lines.append(&mut out.log_lines);
            if let Some(peers) = out.peers {
                node.peers = peers.into_iter().map(|peer| peer.id).collect();
            }
            if let Some(halt) = out.halt {
                node.halt = Some(halt);
                node.member = None;
            }
            let frames = out.messages.into_iter().chain(out.snapshot_frames);
            self.wire.extend(frames.map(|(to, frame)| (id, to, frame)));
            if !again {
                return;
            }
        }
    }

    /// Runs the oldest backend job of a member whose jobs are stalled.
    pub fn run_job(&mut self, id: MemberId) {
        let node = self.nodes.get_mut(&id).unwrap();
        if let Some((ticket, job)) = node.jobs.pop_front() {
            let done = job.run();
            self.input(id, Input::JobDone { ticket, done });
            self.poll(id);
        }
    }

    pub fn release_snapshots(&mut self) {
        self.hold_snapshots = false;
        self.wire.extend(std::mem::take(&mut self.held));
        self.deliver();
    }

    pub fn holds_snapshots(&self) -> bool {
        !self.held.is_empty()
    }

    pub fn deliver(&mut self) {
        while !self.wire.is_empty() {
            let count = if self.bursts { self.wire.len() } else { 1 };
            let frames: Vec<_> = self.wire.drain(..count).collect();
            let mut reached = BTreeSet::new();
            for (from, to, frame) in frames {
                if self.isolated.contains(&from) || self.isolated.contains(&to) {
                    continue;
                }
                if !self.is_connected(from, to) {
                    continue;
                }
                if self.hold_snapshots && is_snapshot(&frame) {
                    self.held.push((from, to, frame));
                    continue;
                }
                if is_append_answer(&frame) {
                    if self.lose_append_answers {
                        continue;
                    }
                    self.append_answers += 1;
                }
                if let Some(bytes) = append_bytes(&frame) {
                    self.appends.push((to, bytes));
                }
                self.input(to, Input::Peer { from, frame });
                reached.insert(to);
            }
            reached.into_iter().for_each(|to| self.poll(to));
        }
    }

    /// Whether the two want each other. One that is not wanted where it dials says who it is.
    fn is_connected(&mut self, from: MemberId, to: MemberId) -> bool {
        let wants = |a, b| self.nodes.get(&a).is_some_and(|node: &Node| node.peers.contains(&b));
        let (dials, is_known) = (wants(from, to), wants(to, from));
        if dials && !is_known {
            let urls = self.nodes[&from].config.own_peer_urls().to_vec();
            self.input(to, Input::Remote { peer: Peer { id: from, urls } });
            self.poll(to);
        }
        dials && is_known
    }

    /// Lets `d` of virtual time pass.
    pub fn run(&mut self, d: Duration) {
        let end = self.now + d;
        loop {
            self.deliver();
            let members = self.nodes.iter().filter_map(|(id, n)| Some((*id, n.member.as_ref()?)));
            let due = members.filter_map(|(id, m)| Some((m.next_deadline()?, id))).min();
            match due {
                Some((at, id)) if at <= end => {
                    self.now = self.now.max(at);
                    self.input(id, Input::Deadline);
                    self.poll(id);
                    let again = self.nodes[&id].member.as_ref().and_then(Member::next_deadline);
                    assert!(again.is_none_or(|next| next > at), "{id} made no progress at {at:?}");
                }
                _ => break,
            }
        }
        self.now = end;
    }

    pub fn ms(&mut self, ms: u64) {
        self.run(Duration::from_millis(ms));
    }

    pub fn leader(&self) -> Option<MemberId> {
        let up = self.nodes.iter().filter(|(id, _)| !self.isolated.contains(id));
        let leaders = up.filter_map(|(id, n)| {
            let status = n.member.as_ref()?.status();
            (status.role == Role::Leader).then_some((status.term, *id))
        });
        leaders.max().map(|(_, id)| id)
    }

    pub fn elect(&mut self) -> MemberId {
        for _ in 0..100 {
            self.ms(100);
            if let Some(leader) = self.leader() {
                self.ms(200);
                return leader;
            }
        }
        panic!("no leader within 10 s");
    }

    pub fn followers(&self) -> Vec<MemberId> {
        let leader = self.leader();
        self.nodes.keys().copied().filter(|id| Some(*id) != leader).collect()
    }

    /// A request that is handled in the member's next burst.
    pub fn submit(&mut self, to: MemberId, request: Request) -> RequestId {
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.input(to, Input::Request { id, request });
        id
    }

    pub fn send(&mut self, to: MemberId, request: Request) -> RequestId {
        let id = self.submit(to, request);
        self.poll(to);
        self.deliver();
        id
    }

    /// The reply, if it has come. A read is run against the member's reader.
    pub fn reply(&mut self, at: MemberId, id: RequestId) -> Option<Result<Response, ApiError>> {
        let replies = &mut self.nodes.get_mut(&at).unwrap().replies;
        let position = replies.iter().position(|(r, _)| *r == id)?;
        Some(replies.remove(position).1)
    }

    pub fn call(&mut self, to: MemberId, request: Request) -> Result<Response, ApiError> {
        let id = self.send(to, request);
        for _ in 0..200 {
            if let Some(reply) = self.reply(to, id) {
                return reply;
            }
            self.ms(50);
        }
        panic!("no reply within 10 s");
    }

    pub fn put(&mut self, to: MemberId, key: &str, value: &str) -> i64 {
        match self.call(to, put(key, value)).unwrap() {
            Response::Put(r) => r.header.unwrap().revision,
            other => panic!("{other:?}"),
        }
    }

    pub fn get(&mut self, to: MemberId, key: &str) -> Option<String> {
        let request = pb::RangeRequest { key: key.to_owned().into(), ..Default::default() };
        let Response::ReadReady(ready) = self.call(to, Request::Range(request)).unwrap() else {
            panic!("a range becomes a read")
        };
        match self.member(to).reader().read(&ready).unwrap() {
            detkv_core::mvcc::ReadResult::Range(rows) => rows.kvs.first().map(|kv| {
                let kv: detkv_core::pb::mvccpb::KeyValue =
                    prost::Message::decode(kv.clone()).unwrap();
                String::from_utf8(kv.value.to_vec()).unwrap()
            }),
            other => panic!("{other:?}"),
        }
    }

    /// All members that are up are equal at the same applied index.
    pub fn assert_converged(&mut self) {
        self.ms(500);
        let hashes: BTreeSet<(u64, u64)> =
            self.nodes.values().filter_map(|n| Some(n.member.as_ref()?.state_hash())).collect();
        assert_eq!(hashes.len(), 1, "members differ: {hashes:?}");
    }
}

fn is_append_answer(frame: &Frame) -> bool {
    const MSG_APPEND_RESPONSE: u32 = 4;
    matches!(&frame.body, Some(Body::Raft(m)) if m.msg_type == MSG_APPEND_RESPONSE)
}

/// Bytes of the entries that an append carries; none for one that carries no entries.
fn append_bytes(frame: &Frame) -> Option<usize> {
    const MSG_APPEND: u32 = 3;
    let Some(Body::Raft(m)) = &frame.body else { return None };
    let carries = m.msg_type == MSG_APPEND && !m.entries.is_empty();
    carries.then(|| m.entries.iter().map(|entry| entry.data.len()).sum())
}

fn is_snapshot(frame: &Frame) -> bool {
    matches!(
        frame.body,
        Some(Body::SnapshotHeader(_) | Body::SnapshotChunk(_) | Body::SnapshotEnd(_))
    )
}

fn perform(disk: &MemDisk, lane: Lane, ops: &[DiskOp], member: &mut Member, now: Instant) -> bool {
    ops.iter().for_each(|op| disk.perform(&op.action));
    if let Some(last) = ops.last() {
        member.handle(now, Input::Synced { lane, up_to: last.ticket });
    }
    !ops.is_empty()
}

pub fn put(key: &str, value: &str) -> Request {
    Request::Put(pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    })
}
