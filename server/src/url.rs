//! Member URLs: `http://host:port`, with etcd's complaints about everything else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Url {
    text: String,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
}

impl Url {
    /// Errors: one line that names the URL.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("URL has no scheme: {text}"))?;
        match scheme {
            "http" => {}
            "https" | "unix" | "unixs" => {
                return Err(format!("{text}: scheme {scheme} is not yet supported"));
            }
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        }
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(format!("URL must not contain a path: {text}"));
        }
        if authority.contains('@') {
            return Err(format!("URL must not contain a user: {text}"));
        }
        let no_port = || format!("URL address does not have the form \"host:port\": {text}");
        let (host, port) = authority.rsplit_once(':').ok_or_else(no_port)?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.strip_suffix(']').ok_or_else(no_port)?,
            None if host.contains(':') => return Err(no_port()),
            None => host,
        };
        if host.is_empty() {
            return Err(no_port());
        }
        let port = port.parse().map_err(|_| format!("URL has a bad port: {text}"))?;
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port })
    }

    /// A comma-separated list. Errors: an empty one too.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        if text.trim().is_empty() {
            return Err("needs at least one URL".to_owned());
        }
        text.split(',').map(|url| Self::parse(url.trim())).collect()
    }

    /// `host:port`, to dial.
    pub fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Where to listen. Errors: a DNS name other than `localhost`.
    pub fn listen_address(&self) -> Result<SocketAddr, String> {
        if self.host == "localhost" {
            return Ok(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port));
        }
        match self.host.parse::<IpAddr>() {
            Ok(ip) => Ok(SocketAddr::new(ip, self.port)),
            Err(_) => Err(format!("expected IP in URL for binding ({self})")),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_where_to_dial_and_where_to_listen() {
        let url = Url::parse("http://10.0.0.1:2379").expect("valid");
        assert_eq!(url.address(), "10.0.0.1:2379");
        assert_eq!(url.listen_address(), Ok("10.0.0.1:2379".parse().expect("valid")));
        let url = Url::parse("http://[::1]:99/").expect("valid");
        assert_eq!(url.address(), "[::1]:99");
        let url = Url::parse("http://localhost:7").expect("valid");
        assert_eq!(url.listen_address(), Ok("127.0.0.1:7".parse().expect("valid")));
        let url = Url::parse("http://db.example:7").expect("valid");
        assert_eq!(
            url.listen_address(),
            Err("expected IP in URL for binding (http://db.example:7)".to_owned())
        );
    }

    #[test]
    fn bad_urls_are_named() {
        for bad in [
            "",
            "localhost:1",
            "ftp://h:1",
            "https://h:1",
            "http://h",
            "http://:1",
            "http://h:1/x",
            "http://h:70000",
            "http://u@h:1",
            "http://::1:1",
            "http://[::1:1",
        ] {
            let error = Url::parse(bad).expect_err(bad);
            assert!(error.contains(bad), "{error}");
        }
        assert!(Url::parse_list("").is_err());
        assert_eq!(Url::parse_list("http://a:1, http://b:2").expect("valid").len(), 2);
    }
}
