//! `GET /members` and `/version` on the peer port (surface spec §13.5): what a member that joins, or
//! one that bootstraps, has to know of the others before it starts.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream as StdStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use detkv_core::MemberId;
use detkv_core::api::{Request, Response};
use detkv_core::pb::etcdserverpb as pb;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Shared;
use crate::client::Client;
use crate::url::Url;

/// Longest head of a request, and longest answer that is read.
const HEAD_BYTES_MAX: usize = 8 << 10;
const ANSWER_BYTES_MAX: u64 = 1 << 20;
const CLUSTER_ID: &str = "X-Etcd-Cluster-ID";

/// Whether the connection begins with an HTTP request: a `Hello`'s length has zeros where `GET ` has none.
pub async fn is_http(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; 4];
    loop {
        let n = stream.peek(&mut first).await?;
        if n == 0 || n >= first.len() || first[0] != b'G' {
            return Ok(first == *b"GET ");
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Answers one request and closes. Errors: why nothing was answered.
pub async fn answer(mut stream: TcpStream, shared: &Shared, client: &Client) -> Result<(), String> {
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") {
        if head.len() > HEAD_BYTES_MAX {
            return Err("HTTP head is too long".to_owned());
        }
        if stream.read_buf(&mut head).await.map_err(|e| e.to_string())? == 0 {
            return Err("closed in the middle of an HTTP head".to_owned());
        }
    }
    let line = String::from_utf8_lossy(&head);
    let path = line.split_whitespace().nth(1).unwrap_or_default();
    let (status, body) = match path {
        "/members" => match members(client).await {
            Ok(list) => ("200 OK", list),
            Err(error) => ("503 Service Unavailable", json!({ "message": error })),
        },
        "/version" => ("200 OK", json!({ "etcdserver": shared.server_version })),
        _ => ("404 Not Found", json!({ "message": "404 page not found" })),
    };
    let body = body.to_string();
    let cluster = shared.identity.cluster_id;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         {CLUSTER_ID}: {cluster:x}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body.as_bytes()].concat()).await.map_err(|e| e.to_string())
}

async fn members(client: &Client) -> Result<Value, String> {
    let request = Request::MemberList(pb::MemberListRequest { linearizable: false });
    let Response::MemberList(list) = client.call(request).await.map_err(|e| e.to_string())? else {
        return Err("core answers a request with its own response".to_owned());
    };
    let members = list.members.into_iter().map(|m| {
        json!({
            "id": m.id, "peerURLs": m.peer_ur_ls, "name": m.name,
            "clientURLs": m.client_ur_ls, "isLearner": m.is_learner,
        })
    });
    Ok(members.collect())
}

/// A member as a peer tells of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub id: MemberId,
    pub name: String,
    pub peer_urls: Vec<String>,
    pub client_urls: Vec<String>,
}

/// Cluster id and members, from the first peer that answers.
///
/// Errors: the last reason why nobody did.
pub fn fetch(urls: &[String], patience: Duration) -> Result<(u64, Vec<Told>), String> {
    let mut last = "there is no other member to ask".to_owned();
    for url in urls {
        match fetch_from(url, patience) {
            Ok(told) => return Ok(told),
            Err(error) => last = format!("{url}: {error}"),
        }
    }
    Err(last)
}

fn fetch_from(url: &str, patience: Duration) -> Result<(u64, Vec<Told>), String> {
    let until = Instant::now() + patience;
    let address = Url::parse(url)?.address();
    let io = |e: std::io::Error| e.to_string();
    let addresses = address.to_socket_addrs().map_err(io)?;
    let mut tried = Err("the name has no address".to_owned());
    for address in addresses {
        tried = StdStream::connect_timeout(&address, patience).map_err(io);
        if tried.is_ok() {
            break;
        }
    }
    let mut stream = tried?;
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(10));
    stream.set_read_timeout(Some(left)).map_err(io)?;
    stream.set_write_timeout(Some(left)).map_err(io)?;
    let request = format!("GET /members HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(io)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(io)?;
    read_answer(&String::from_utf8_lossy(&answer))
}

fn read_answer(answer: &str) -> Result<(u64, Vec<Told>), String> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("HTTP status {status}"));
    }
    let id = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case(CLUSTER_ID).then(|| value.trim())
    });
    let id = id.ok_or("the answer has no cluster id")?;
    let id = u64::from_str_radix(id, 16).map_err(|_| format!("bad cluster id {id:?}"))?;
    let list: Value = serde_json::from_str(body).map_err(|e| format!("bad member list: {e}"))?;
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect()
    };
    let told = |member: &Value| {
        Some(Told {
            id: MemberId(member["id"].as_u64()?),
            name: member["name"].as_str().unwrap_or_default().to_owned(),
            peer_urls: texts(&member["peerURLs"]),
            client_urls: texts(&member["clientURLs"]),
        })
    };
    let members: Option<Vec<Told>> = list.as_array().and_then(|l| l.iter().map(told).collect());
    Ok((id, members.ok_or("bad member list")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_list_is_read_as_etcd_writes_it() {
        let body = r#"[{"id":10276657743932975437,"peerURLs":["http://a:1"],"name":"a","clientURLs":["http://a:2"]},{"id":7,"peerURLs":["http://b:1"]}]"#;
        let answer =
            format!("HTTP/1.0 200 OK\r\nx-etcd-cluster-id: cdf818194e3a8c32\r\n\r\n{body}");
        let (cluster, members) = read_answer(&answer).expect("valid");
        assert_eq!(cluster, 0xcdf8_1819_4e3a_8c32);
        assert_eq!((members[0].id.0, members[0].name.as_str()), (10_276_657_743_932_975_437, "a"));
        assert_eq!((members[1].name.as_str(), members[1].client_urls.len()), ("", 0));
    }

    #[test]
    fn anything_else_is_an_error() {
        for bad in [
            "",
            "HTTP/1.0 503 x\r\nX-Etcd-Cluster-ID: 1\r\n\r\n[]",
            "HTTP/1.0 200 OK\r\n\r\n[]",
            "HTTP/1.0 200 OK\r\nX-Etcd-Cluster-ID: 1\r\n\r\n{}",
            "HTTP/1.0 200 OK\r\nX-Etcd-Cluster-ID: zz\r\n\r\n[]",
            "HTTP/1.0 200 OK\r\nX-Etcd-Cluster-ID: 1\r\n\r\n[{}]",
        ] {
            assert!(read_answer(bad).is_err(), "{bad}");
        }
    }
}
