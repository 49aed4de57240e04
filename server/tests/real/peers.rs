//! A peer that is played by the test.

use std::time::{Duration, Instant};

use detkv_core::pb::peer::{Hello, LaneKind};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Cluster, PATIENCE};

/// What a dialer says of itself.
async fn read_hello(stream: &mut TcpStream) -> Hello {
    let len = stream.read_u32_le().await.expect("a length");
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await.expect("a whole Hello");
    Hello::decode(&body[..]).expect("a Hello")
}

/// Takes a connection as the peer that is looked for.
async fn welcome(stream: &mut TcpStream, hello: &Hello) {
    let answer = Hello { from: hello.to, to: hello.from, ..hello.clone() };
    let body = answer.encode_to_vec();
    stream.write_all(&(body.len() as u32).to_le_bytes()).await.expect("written");
    stream.write_all(&body).await.expect("written");
}

/// So does one that is about to end, for a moment.
#[tokio::test]
async fn a_peer_that_drops_every_connection_is_not_dialed_without_a_pause() {
    const PAUSE: Duration = Duration::from_millis(20);
    const CONNECTIONS: u32 = 20;
    let mut cluster = Cluster::new(2, &[]);
    // The one with the smaller id dials; the other is played.
    cluster.members.sort_by_key(|member| {
        let url = format!("http://127.0.0.1:{}", member.peer_port);
        detkv_core::config::member_id(&[url], "etcd-cluster")
    });
    cluster.members[0].start();
    // Before its port is open it asks its peers whether it has been here before.
    let _ = cluster.members[0].channel().await;
    let address = ("127.0.0.1", cluster.members[1].peer_port);
    let listener = TcpListener::bind(address).await.expect("our port");
    let dialed = tokio::time::timeout(PATIENCE, async {
        let mut began = None;
        let mut dialed = 0;
        while dialed < CONNECTIONS {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let hello = read_hello(&mut stream).await;
            if hello.probe || hello.lane() != LaneKind::Messages {
                continue;
            }
            began.get_or_insert_with(Instant::now);
            welcome(&mut stream, &hello).await;
            dialed += 1;
        }
        began.expect("there was a first").elapsed()
    });
    let took = dialed.await.expect("it dials");
    assert!(took >= PAUSE * (CONNECTIONS - 1), "{CONNECTIONS} connections in {took:?}");
}
