//! The peer port: checks a dialer's `Hello` and hands the connection to the link it belongs to.

use std::sync::Arc;
use std::time::Duration;

use detkv_core::config::WIRE_VERSION_MIN;
use detkv_core::pb::peer::{Hello, LaneKind};
use detkv_core::{Input, MemberId, Peer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::link::{HANDSHAKE_TIMEOUT, configure};
use super::{Greeted, Identity, Shared, members, wire};
use crate::client::Client;
use crate::inbox::Event;
use crate::logs;

/// Connections that may be in their handshake at once.
const HANDSHAKES_MAX: usize = 64;
/// Pause after an `accept` that failed (as a rule: no file descriptor left).
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts peers for ever.
pub async fn accept_peers(listener: TcpListener, shared: Arc<Shared>, client: Arc<Client>) {
    // The sender is in `shared`: this cannot fail.
    let _ = shared.known.subscribe().wait_for(|known| *known).await;
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(slot) = handshakes.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let (shared, client) = (shared.clone(), client.clone());
                tokio::spawn(async move {
                    let _slot = slot;
                    let handshake =
                        tokio::time::timeout(HANDSHAKE_TIMEOUT, greet(stream, &shared, &client));
                    let error = match handshake.await {
                        Ok(Ok(())) => return,
                        Ok(Err(error)) => error,
                        Err(_) => "handshake timed out".to_owned(),
                    };
                    let fields = [("remote-addr", from.to_string()), ("error", error)];
                    logs::warn("rejected connection on peer endpoint", &fields);
                });
            }
            Err(error) => {
                logs::warn("accept failed on peer endpoint", &[("error", error.to_string())]);
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Answers a `Hello`. Errors: why the dialer was refused or did not get so far.
async fn greet(mut stream: TcpStream, shared: &Shared, client: &Client) -> Result<(), String> {
    configure(&stream).map_err(|e| e.to_string())?;
    if members::is_http(&stream).await.map_err(|e| e.to_string())? {
        return members::answer(stream, shared, client).await;
    }
    let hello = wire::read_hello(&mut stream).await.map_err(|e| e.to_string())?;
    let from = MemberId(hello.from);
    let removed = shared.removed.lock().contains(&from);
    let checked = check(&hello, shared.identity, removed).and_then(|lane| {
        let link = shared.accepting.lock().get(&(from, lane)).cloned();
        link.ok_or_else(|| {
            // One that joined after all that we have applied may be the one we need. The member decides;
            // if it wants to talk, the next dial finds a link, or ours is the next to dial.
            let peer = Peer { id: from, urls: hello.peer_urls.clone() };
            // A closed inbox means that the process is ending.
            let _ = shared.inbox.push(Event::Input(Input::Remote { peer }));
            format!("{from} is not a member of the cluster")
        })
    });
    let refused = checked.as_ref().err().cloned().unwrap_or_default();
    let answer = Hello { refused, removed, ..shared.hello(hello.from, hello.lane) };
    wire::write_hello(&mut stream, &answer).await.map_err(|e| e.to_string())?;
    let link = checked?;
    if hello.probe {
        return Ok(());
    }
    let wire = hello.version.min(shared.wire_version);
    let (version, answers_pings) = (hello.server_version, hello.answers_pings);
    let greeted = Greeted { stream, wire, version, answers_pings };
    link.send(greeted).await.map_err(|_| "the link has ended".to_owned())
}

/// The lane asked for, or why we do not talk to this dialer.
fn check(hello: &Hello, us: Identity, removed: bool) -> Result<LaneKind, String> {
    if hello.version < WIRE_VERSION_MIN {
        let (theirs, least) = (hello.version, WIRE_VERSION_MIN);
        return Err(format!("peer wire version {theirs} (we speak {least} or later)"));
    }
    if hello.cluster_id != us.cluster_id {
        let (theirs, ours) = (hello.cluster_id, us.cluster_id);
        return Err(format!("cluster ID mismatch: {theirs:x} (ours is {ours:x})"));
    }
    if hello.to != us.member.0 {
        return Err(format!("looking for member {:x}, but this is {}", hello.to, us.member));
    }
    if removed {
        return Err("the member has been permanently removed from the cluster".to_owned());
    }
    if MemberId(hello.from) >= us.member && !hello.probe {
        return Err(format!("member {:x} does not dial {}: it is dialed", hello.from, us.member));
    }
    LaneKind::try_from(hello.lane).map_err(|_| format!("unknown lane {}", hello.lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us() -> Identity {
        Identity { cluster_id: 0xc, member: MemberId(9) }
    }

    fn hello() -> Hello {
        Hello { version: 1, cluster_id: 0xc, from: 3, to: 9, lane: 1, ..Hello::default() }
    }

    #[test]
    fn a_hello_is_refused_with_its_reason() {
        assert_eq!(check(&hello(), us(), false), Ok(LaneKind::Snapshot));
        let newer = Hello { version: 9, ..hello() };
        assert_eq!(check(&newer, us(), false), Ok(LaneKind::Snapshot), "the lower is spoken");
        let removed = check(&hello(), us(), true).expect_err("refused");
        assert_eq!(removed, "the member has been permanently removed from the cluster");
        let refusal = |hello| check(&hello, us(), false).expect_err("refused");
        let old = refusal(Hello { version: 0, ..hello() });
        assert_eq!(old, "peer wire version 0 (we speak 1 or later)");
        let other_cluster = Hello { cluster_id: 0xd, ..hello() };
        assert_eq!(refusal(other_cluster), "cluster ID mismatch: d (ours is c)");
        assert_eq!(refusal(Hello { to: 4, ..hello() }), "looking for member 4, but this is 9");
        assert_eq!(
            refusal(Hello { from: 11, ..hello() }),
            "member b does not dial 9: it is dialed"
        );
        assert_eq!(refusal(Hello { lane: 7, ..hello() }), "unknown lane 7");
    }
}
