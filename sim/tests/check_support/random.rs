//! Random good histories: concurrent clients, lost answers, leases, watches that fall behind and resume.

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb as pb;
use detkv_sim::Reply;
use detkv_sim::history::{Event, Failure, OpId, WatchId};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};

use super::{
    Script, Store, bytes, delete, get, get_all, get_serializable, guarded_put, put, put_request,
    watch_all,
};

#[derive(Clone, Copy)]
pub struct Shape {
    pub ops: u32,
    pub clients: u32,
    pub keys: u32,
    pub watchers: u32,
    pub value_bytes: usize,
    /// Of 1000 calls, how many get no answer.
    pub lost_per_mille: u32,
    /// What the store does wrong now and then.
    pub bug: Option<Bug>,
    /// Keep what is recorded, to change it afterwards.
    pub keep_events: bool,
    /// Read everything back at the end, a watch of the past included; else one plain read.
    pub readout: bool,
    /// Some reads are serializable.
    pub serializable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    /// A request is answered and has no effect.
    Lost,
    /// It takes effect twice.
    Twice,
    /// It is answered by what the store was some time ago.
    Stale,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            ops: 200,
            clients: 5,
            keys: 5,
            watchers: 2,
            value_bytes: 8,
            lost_per_mille: 50,
            bug: None,
            keep_events: false,
            readout: true,
            serializable: true,
        }
    }
}

enum Open {
    Idle,
    Called(OpId),
    Done(OpId, Box<Reply>),
}

struct Watcher {
    request: pb::WatchCreateRequest,
    watch: WatchId,
    next: i64,
}

struct Generator {
    rng: ChaCha8Rng,
    shape: Shape,
    script: Script,
    clients: Vec<Open>,
    watchers: Vec<Watcher>,
    called: u32,
    /// The store some time ago, for a stale answer.
    old: Store,
}

/// A history in which nothing is wrong, unless the shape has a bug.
pub fn good_history(seed: u64, shape: Shape) -> Script {
    let mut generator = Generator {
        rng: ChaCha8Rng::seed_from_u64(seed),
        shape,
        script: Script::new(),
        clients: (0..shape.clients).map(|_| Open::Idle).collect(),
        watchers: Vec::new(),
        called: 0,
        old: Store::default(),
    };
    generator.script.events = shape.keep_events.then(Vec::new);
    for _ in 0..shape.watchers {
        let request = watch_all(1);
        let watch = generator.script.watch(request.clone());
        generator.watchers.push(Watcher { request, watch, next: 2 });
    }
    while generator.called < shape.ops || generator.has_open() {
        generator.step();
    }
    for watcher in 0..generator.watchers.len() {
        generator.deliver(watcher);
    }
    if shape.readout {
        generator.script.read_back();
    } else {
        generator.script.run(8, get_all());
    }
    generator.script
}

impl Generator {
    fn below(&mut self, n: u32) -> u32 {
        self.rng.next_u32() % n
    }

    fn has_open(&self) -> bool {
        self.clients.iter().any(|open| !matches!(open, Open::Idle))
    }

    fn step(&mut self) {
        let client = self.below(self.shape.clients) as usize;
        match std::mem::replace(&mut self.clients[client], Open::Idle) {
            Open::Idle if self.called < self.shape.ops => {
                let request = self.request();
                self.called += 1;
                self.clients[client] = Open::Called(self.script.call(client as u32, request));
            }
            Open::Idle => {}
            Open::Called(op) if self.below(1000) < self.shape.lost_per_mille => {
                // The request or its answer is lost.
                if self.below(2) == 0 {
                    self.script.take_effect(op);
                }
                self.script.fail(op, Failure::Unknown);
            }
            Open::Called(op) => {
                let reply = self.take_effect(op);
                self.clients[client] = Open::Done(op, Box::new(reply));
            }
            Open::Done(op, reply) => self.script.answer(op, *reply),
        }
        if !self.watchers.is_empty() && self.below(4) == 0 {
            let watcher = self.below(self.shape.watchers) as usize;
            self.deliver(watcher);
        }
    }

    fn take_effect(&mut self, op: OpId) -> Reply {
        if self.shape.bug.is_none() {
            return self.script.take_effect(op);
        }
        if self.below(8) == 0 {
            self.old = self.script.store.clone();
        }
        let bug = self.shape.bug.filter(|_| self.below(6) == 0);
        let request = self.script.requests[op.0 as usize].clone();
        match bug {
            None => self.script.take_effect(op),
            Some(Bug::Lost) => self.script.store.clone().run(&request),
            Some(Bug::Stale) => self.old.clone().run(&request),
            Some(Bug::Twice) => {
                let first = self.script.take_effect(op);
                let second = self.script.take_effect(op);
                if self.below(2) == 0 { first } else { second }
            }
        }
    }

    fn request(&mut self) -> Request {
        let key = format!("k{}", self.below(self.shape.keys));
        let value = format!("{:0width$}", self.called, width = self.shape.value_bytes);
        match self.below(20) {
            0..8 => put(&key, &value),
            8..12 => get(&key),
            12 if self.shape.serializable => get_serializable(&key),
            12 | 13 => delete(&key),
            14 => get_all(),
            15 => {
                let revision = 1 + i64::from(self.below(self.script.store.revision() as u32));
                let Request::Range(range) = get(&key) else { unreachable!("get is a range") };
                Request::Range(pb::RangeRequest { revision, ..range })
            }
            16 => {
                let lease = 1 + i64::from(self.below(4));
                Request::Put(pb::PutRequest { lease, ..put_request(&key, &value) })
            }
            17 => Request::LeaseRevoke(pb::LeaseRevokeRequest { id: 1 + i64::from(self.below(4)) }),
            _ => {
                let held = self.script.store.rows.get(&bytes(&key)).map_or(0, |kv| kv.mod_revision);
                guarded_put(&key, held, &value)
            }
        }
    }

    /// Everything new to one watcher, a few revisions in a response; sometimes it loses its connection first.
    fn deliver(&mut self, watcher: usize) {
        let Watcher { request, watch, next } = &self.watchers[watcher];
        let (request, mut watch, mut next) = (request.clone(), *watch, *next);
        if self.below(20) == 0 {
            self.script.record(Event::WatchLost { watch });
            watch = self
                .script
                .watch(pb::WatchCreateRequest { start_revision: next, ..request.clone() });
        }
        while next <= self.script.store.revision() {
            let last = (next + i64::from(self.below(3))).min(self.script.store.revision());
            let events = (next..=last).flat_map(|r| self.script.events_of(&request, r)).collect();
            self.script.deliver(watch, events);
            next = last + 1;
        }
        self.watchers[watcher] = Watcher { request, watch, next };
    }
}
