//! The same scripts on simulated connections and on TCP sockets of the loopback interface.
//!
//! A server in a process of its own answers lines; a client with one connection calls it, as a gRPC client does: a
//! connection known to be dead is dialed anew, a call on one that breaks is lost.
//!
//! | Not compared, and why |
//! |---|
//! | power loss (half open), lost packets, cuts: loopback has none without privileges; `world/peers.rs` says what is allowed |
//! | half-close: neither gRPC nor our peer wire uses it; only that an end lets data arrive first |

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use detkv_core::MemberId;
use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::{
    PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, watch_request,
};
use detkv_sim::fault::{ConnectHang, Direction, Kill, Pause, Restart, Target};
use detkv_sim::rng::{stream, uniform};
use detkv_sim::{CallError, ClientId, Handle, NodeStatus, Sim, SimConfig};

use super::CHILD;

const TIMEOUT: Duration = Duration::from_millis(600);
/// In the simulation a step begins so long after the one before.
const STEP: Duration = Duration::from_millis(800);
/// How far into a call the other thing happens.
const MEANWHILE: Duration = Duration::from_millis(60);
const STEPS: usize = 7;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Answered,
    /// Nobody listens.
    Refused,
    /// The connection broke under the call.
    Lost,
    TimedOut,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum To {
    Kill,
    Start,
    Pause,
    Resume,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Call,
    /// A call, and this while it is under way.
    CallAnd(To),
    Do(To),
}

/// A script that makes sense: what is down is started, what is paused goes on.
fn script(seed: u64) -> Vec<Step> {
    let mut rng = stream(seed, 0, "real net");
    let (mut up, mut paused) = (true, false);
    let mut steps = Vec::new();
    while steps.len() < STEPS {
        let to = match (up, paused, uniform(&mut rng, 0, 1)) {
            (false, ..) => To::Start,
            (true, true, 0) => To::Resume,
            (true, false, 0) => To::Pause,
            (true, _, _) => To::Kill,
        };
        match uniform(&mut rng, 0, 3) {
            0..=1 => {
                steps.push(Step::Call);
                continue;
            }
            // A start takes longer than a call that is refused.
            2 if to != To::Start => steps.push(Step::CallAnd(to)),
            _ => steps.push(Step::Do(to)),
        }
        (up, paused) = (to != To::Kill, to == To::Pause);
    }
    steps
}

// -- the simulated side

fn simulated(script: &[Step], seed: u64) -> Vec<Option<Outcome>> {
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    let (steps, found) = (script.to_vec(), outcomes.clone());
    let mut config = SimConfig { members: 1, ..SimConfig::new(seed) };
    // Each start reads the whole segment.
    config.tune = Some(Rc::new(|_, core| core.wal_segment_bytes = 64 << 10));
    Sim::run(config, |world| async move {
        while world.leader().is_none() {
            world.sleep(Duration::from_millis(10)).await;
        }
        let begin = world.now();
        for (n, step) in steps.iter().enumerate() {
            world.sleep_until(begin + STEP * n as u32).await;
            // A pause ends where the script says so, or when the process is killed.
            let ends =
                |step: &Step| matches!(step, Step::Do(To::Resume) | Step::CallAnd(To::Resume));
            let left = steps[n..].iter().position(ends).unwrap_or(STEPS) as u32;
            let pause = STEP * left + MEANWHILE;
            let outcome = match step {
                Step::Call => Some(call(&world).await),
                Step::CallAnd(to) => {
                    let (later, to) = (world.clone(), *to);
                    world.spawn(async move {
                        later.sleep(MEANWHILE).await;
                        apply(&later, to, pause);
                    });
                    Some(call(&world).await)
                }
                Step::Do(to) => {
                    apply(&world, *to, pause);
                    None
                }
            };
            found.borrow_mut().push(outcome);
        }
    });
    outcomes.take()
}

fn apply(world: &Handle, to: To, pause: Duration) {
    let node = Target::Member(MemberId(1));
    match to {
        To::Kill => world.inject(Kill { node }.into()),
        To::Start if world.node_status(MemberId(1)) == NodeStatus::Down => {
            world.inject(Restart { node }.into());
        }
        To::Pause => world.inject(Pause { node, duration: pause }.into()),
        // The pause was made to end about now.
        To::Start | To::Resume => {}
    }
}

async fn call(world: &Handle) -> Outcome {
    let (key, serializable) = ("a".into(), true);
    let request = Request::Range(RangeRequest { key, serializable, ..Default::default() });
    match world.call(ClientId(1), MemberId(1), request, TIMEOUT).await {
        Ok(_) => Outcome::Answered,
        Err(CallError::Unavailable) => Outcome::Refused,
        Err(CallError::ConnectionLost) => Outcome::Lost,
        Err(CallError::Timeout) => Outcome::TimedOut,
    }
}

// -- the real side

/// The server: answers every line with itself.
fn serve(port: &str) {
    let address: SocketAddr = format!("127.0.0.1:{port}").parse().expect("an address");
    let listener = TcpListener::bind(address).expect("the port is ours");
    println!("listens {}", listener.local_addr().expect("it is bound").port());
    for stream in listener.incoming() {
        let Ok(mut stream) = stream else { continue };
        std::thread::spawn(move || {
            let lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            for line in lines.map_while(Result::ok) {
                if stream.write_all(format!("{line}\n").as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}

struct Server {
    port: u16,
    process: Option<Child>,
}

impl Server {
    fn new() -> Self {
        let mut server = Self { port: 0, process: None };
        server.start();
        server
    }

    fn start(&mut self) {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "net::connections_break_as_the_model_says", "--nocapture"])
            .env(CHILD, self.port.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test runs once more");
        let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let port = lines.find_map(|line| {
            line.ok()?.rsplit_once("listens ").and_then(|(_, port)| port.parse().ok())
        });
        self.port = port.expect("it says where it listens");
        self.process = Some(process);
    }

    fn signal(&self, signal: libc::c_int) {
        let Some(process) = &self.process else { return };
        // SAFETY: the process is our child and not yet waited for, so the id is its own.
        unsafe { libc::kill(process.id() as libc::pid_t, signal) };
    }

    fn apply(&mut self, to: To) {
        match to {
            To::Kill => {
                if let Some(mut process) = self.process.take() {
                    process.kill().expect("it is ours");
                    process.wait().expect("it is ours");
                }
            }
            To::Start => self.start(),
            To::Pause => self.signal(libc::SIGSTOP),
            To::Resume => self.signal(libc::SIGCONT),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.apply(To::Kill);
    }
}

struct Client {
    port: u16,
    stream: Option<BufReader<TcpStream>>,
    calls: u32,
}

impl Client {
    fn call(&mut self) -> Outcome {
        self.calls += 1;
        match self.try_call() {
            Ok(()) => Outcome::Answered,
            Err(outcome) => {
                if outcome != Outcome::TimedOut {
                    self.stream = None;
                }
                outcome
            }
        }
    }

    fn try_call(&mut self) -> Result<(), Outcome> {
        let deadline = Instant::now() + TIMEOUT;
        if self.stream.as_ref().is_some_and(|stream| is_dead(stream.get_ref())) {
            self.stream = None;
        }
        if self.stream.is_none() {
            let address = SocketAddr::from(([127, 0, 0, 1], self.port));
            let stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(|error| {
                if is_timeout(&error) { Outcome::TimedOut } else { Outcome::Refused }
            })?;
            self.stream = Some(BufReader::new(stream));
        }
        let stream = self.stream.as_mut().expect("connected just now");
        let line = format!("{}\n", self.calls);
        stream.get_mut().write_all(line.as_bytes()).map_err(|_| Outcome::Lost)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            stream.get_mut().set_read_timeout(Some(left)).expect("a socket");
            let mut answer = String::new();
            match stream.read_line(&mut answer) {
                Ok(0) => return Err(Outcome::Lost),
                Ok(_) if answer == line => return Ok(()),
                // The answer to a call that was given up.
                Ok(_) => {}
                Err(error) if is_timeout(&error) => return Err(Outcome::TimedOut),
                Err(_) => return Err(Outcome::Lost),
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

/// Whether its end is known already.
fn is_dead(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).expect("a socket");
    match peeked {
        Ok(bytes) => bytes == 0,
        Err(error) => !is_timeout(&error),
    }
}

fn real(script: &[Step]) -> Vec<Option<Outcome>> {
    let mut server = Server::new();
    let mut client = Client { port: server.port, stream: None, calls: 0 };
    let step = |step: &Step| match *step {
        Step::Call => Some(client.call()),
        Step::Do(to) => {
            server.apply(to);
            None
        }
        Step::CallAnd(to) => std::thread::scope(|scope| {
            let called = scope.spawn(|| client.call());
            std::thread::sleep(MEANWHILE);
            server.apply(to);
            Some(called.join().expect("the client does not panic"))
        }),
    };
    script.iter().map(step).collect()
}

#[test]
fn connections_break_as_the_model_says() {
    if let Ok(port) = std::env::var(CHILD) {
        return serve(&port);
    }
    // Waiting, most of the time: all at once.
    let threads: Vec<_> =
        (0..10).map(|seed| std::thread::spawn(move || (seed, real(&script(seed))))).collect();
    let mut seen = BTreeSet::new();
    for thread in threads {
        let (seed, real) = thread.join().expect("the script is performed");
        let script = script(seed);
        let allowed: Vec<_> = (0..3).map(|run| simulated(&script, seed * 10 + run)).collect();
        for (n, outcome) in real.iter().enumerate() {
            let here: Vec<_> = allowed.iter().map(|run| run[n]).collect();
            assert!(here.contains(outcome), "{script:?}: step {n} {outcome:?}, allowed {here:?}");
            seen.extend(*outcome);
        }
    }
    assert_eq!(seen.len(), 4, "every outcome was seen: {seen:?}");
}

#[test]
fn a_connection_that_nobody_accepts_hangs_and_one_to_a_closed_port_is_refused() {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("any port");
    socket.listen(0).expect("it listens");
    let port = socket.local_addr().expect("bound").as_socket().expect("an address").port();
    // The first ones fill the queue of those not yet accepted.
    let mut clients: Vec<Client> =
        (0..4).map(|_| Client { port, stream: None, calls: 0 }).collect();
    let outcomes: Vec<Outcome> = clients.iter_mut().map(Client::call).collect();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::TimedOut), "{outcomes:?}");
    assert!(clients.last().expect("four").stream.is_none(), "its handshake was not answered");
    drop((clients, socket));
    let mut client = Client { port, stream: None, calls: 0 };
    assert_eq!(client.call(), Outcome::Refused);

    let outcomes = Rc::new(RefCell::new(Vec::new()));
    let found = outcomes.clone();
    Sim::run(SimConfig { members: 1, ..SimConfig::new(1) }, |world| async move {
        let node = Target::Member(MemberId(1));
        let fault = ConnectHang {
            nodes: vec![node],
            peers: vec![],
            direction: Direction::Incoming,
            clients: vec![1],
            duration: TIMEOUT * 2,
        };
        world.sleep(STEP).await;
        world.inject(fault.into());
        let hung = call(&world).await;
        found.borrow_mut().push(hung);
        world.inject(Kill { node }.into());
        world.sleep(TIMEOUT * 2).await;
        let refused = call(&world).await;
        found.borrow_mut().push(refused);
    });
    assert_eq!(outcomes.take(), [Outcome::TimedOut, Outcome::Refused]);
}

/// What a sender sees of a receiver that does not read, and the receiver once it does.
#[derive(PartialEq, Eq, Debug)]
struct Pressure {
    /// The sender was held up.
    bounded: bool,
    in_order: bool,
    complete: bool,
}

fn real_pressure() -> Pressure {
    let listener = TcpListener::bind("127.0.0.1:0").expect("any port");
    let mut sender = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (mut receiver, _) = listener.accept().expect("it is there");
    sender.set_nonblocking(true).expect("a socket");
    let mut sent: Vec<u8> = Vec::new();
    let bounded = loop {
        let piece: Vec<u8> = (0..4096).map(|n| ((sent.len() + n) % 251) as u8).collect();
        match sender.write(&piece) {
            Ok(n) => sent.extend(&piece[..n]),
            Err(error) => break is_timeout(&error),
        }
        if sent.len() > 1 << 30 {
            break false;
        }
    };
    // An orderly end does not overtake what was sent.
    sender.shutdown(Shutdown::Write).expect("it is connected");
    let mut received = Vec::new();
    receiver.read_to_end(&mut received).expect("all of it, then the end");
    Pressure {
        bounded,
        in_order: sent.starts_with(&received),
        complete: sent.len() == received.len(),
    }
}

fn simulated_pressure() -> Pressure {
    const PUTS: i64 = 200;
    let seen = Rc::new(RefCell::new((0, Vec::new())));
    let found = seen.clone();
    let mut config = SimConfig { members: 1, ..SimConfig::new(2) };
    config.net.stream_window_bytes = 20_000;
    Sim::run(config, |world| async move {
        while world.leader().is_none() {
            world.sleep(Duration::from_millis(10)).await;
        }
        let mut watch = world.watch(ClientId(2), MemberId(1)).await.expect("it listens");
        let create = WatchCreateRequest { key: "a".into(), ..Default::default() };
        let create = watch_request::RequestUnion::CreateRequest(create);
        watch.send(WatchRequest { request_union: Some(create) });
        for _ in 0..PUTS {
            let put =
                PutRequest { key: "a".into(), value: vec![1; 1000].into(), ..Default::default() };
            let answer = world.call(ClientId(1), MemberId(1), Request::Put(put), STEP).await;
            assert!(matches!(answer, Ok(Ok(_))), "{answer:?}");
        }
        world.sleep(STEP).await;
        let begin = world.now();
        while found.borrow().1.len() < PUTS as usize {
            let response = watch.recv().await.expect("the stream goes on");
            let mut found = found.borrow_mut();
            // What had come before anything was read.
            found.0 += usize::from(world.now() == begin) * response.events.len();
            let revisions = response.events.iter().filter_map(|event| event.kv.as_ref());
            found.1.extend(revisions.map(|kv| kv.mod_revision));
        }
    });
    let (unread, revisions) = seen.take();
    Pressure {
        // A window of 20 kB, a kilobyte each.
        bounded: (1..=20).contains(&unread),
        in_order: revisions.is_sorted(),
        complete: revisions == (2..2 + PUTS).collect::<Vec<i64>>(),
    }
}

#[test]
fn a_receiver_that_does_not_read_holds_the_sender_up_and_gets_everything_in_order() {
    assert_eq!(real_pressure(), Pressure { bounded: true, in_order: true, complete: true });
    assert_eq!(simulated_pressure(), real_pressure());
}
