//! Peer URLs as etcd takes them (surface spec §6).

/// `scheme://host:port` with scheme http or https, or a unix socket; no path, no user.
fn is_url(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    match scheme {
        "http" | "https" => {
            let Some((host, port)) = rest.rsplit_once(':') else { return false };
            let host = match host.strip_prefix('[') {
                Some(bracketed) => bracketed.strip_suffix(']').unwrap_or_default(),
                None if host.contains(':') => return false,
                None => host,
            };
            let is_clean = !host.contains(['/', '?', '#', '@', '[', ']', ' ']);
            !host.is_empty() && is_clean && port.parse::<u16>().is_ok()
        }
        "unix" | "unixs" => !rest.is_empty() && !rest.contains(['/', '?', '#', ' ']),
        _ => false,
    }
}

/// The URLs trimmed and sorted, as etcd keeps them. `None` when there is none or one is bad.
pub fn parse(urls: &[String]) -> Option<Vec<String>> {
    let mut urls: Vec<String> = urls.iter().map(|url| url.trim().to_owned()).collect();
    urls.sort();
    (!urls.is_empty() && urls.iter().all(|url| is_url(url))).then_some(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_trimmed_and_sorted() {
        let urls = [" http://b:2 ".to_owned(), "http://[::1]:99".to_owned()];
        assert_eq!(parse(&urls).unwrap(), ["http://[::1]:99", "http://b:2"]);
    }

    #[test]
    fn bad_urls_are_refused() {
        for bad in [
            "",
            "h:1",
            "ftp://h:1",
            "http://h",
            "http://:1",
            "http://h:1/",
            "http://h:1/x",
            "http://h:70000",
            "http://u@h:1",
            "http://::1:1",
        ] {
            assert_eq!(parse(&[bad.to_owned()]), None, "{bad}");
        }
        assert_eq!(parse(&[]), None);
    }
}
