//! A first start with an empty data directory: who we are in a cluster that exists, and whether a
//! cluster that is to be new exists already.

use std::time::Duration;

use detkv_core::{BootMember, Config, MemberId};

use crate::peer::{Told, fetch};

/// How long one peer may take to say who the members are.
const JOIN_PATIENCE: Duration = Duration::from_secs(2);
const BOOTSTRAP_PATIENCE: Duration = Duration::from_millis(500);

fn others(config: &Config) -> Vec<String> {
    let others = config.initial_cluster.iter().filter(|member| member.id != config.id);
    others.flat_map(|member| member.peer_urls.clone()).collect()
}

/// `--initial-cluster-state existing`: our id and the cluster's come from MemberAdd, the member list
/// from a peer. Errors: etcd's, when the flags do not match that list.
pub fn join(config: &mut Config) -> Result<(), String> {
    let (cluster_id, members) = fetch(&others(config), JOIN_PATIENCE)
        .map_err(|e| format!("cannot fetch cluster info from peer urls: {e}"))?;
    config.id = assign(&config.initial_cluster, config.id, &members)?;
    config.cluster_id = cluster_id;
    config.initial_cluster = members
        .into_iter()
        .map(|m| BootMember { id: m.id, name: m.name, peer_urls: m.peer_urls })
        .collect();
    Ok(())
}

/// The id that the cluster gave the member that our flags call `own`.
fn assign(flags: &[BootMember], own: MemberId, members: &[Told]) -> Result<MemberId, String> {
    let invalid = |what: &str| {
        let list: Vec<String> =
            members.iter().map(|m| format!("{}={}", m.id, m.peer_urls.join(";"))).collect();
        format!("error validating peerURLs {{{}}}: {what}", list.join(" "))
    };
    if flags.len() != members.len() {
        return Err(invalid("member count is unequal"));
    }
    let mut assigned = None;
    for flag in flags {
        let sorted = |urls: &[String]| {
            let mut urls = urls.to_vec();
            urls.sort();
            urls
        };
        let same = |member: &&Told| sorted(&member.peer_urls) == sorted(&flag.peer_urls);
        let found = members.iter().find(same);
        let found = found.ok_or_else(|| invalid("unmatched member while checking PeerURLs"))?;
        if flag.id == own {
            assigned = Some(found.id);
        }
    }
    assigned.ok_or_else(|| invalid("unmatched member while checking PeerURLs"))
}

/// `--initial-cluster-state new` with an empty directory: a cluster that knows this member as one
/// that ran before must not get it back without its votes and its log.
///
/// Errors: etcd's message. Nobody to ask means a new cluster, as in etcd.
pub fn check_not_bootstrapped(config: &Config) -> Result<(), String> {
    let Ok((_, members)) = fetch(&others(config), BOOTSTRAP_PATIENCE) else { return Ok(()) };
    let ran = members.iter().any(|m| m.id == config.id && !m.client_urls.is_empty());
    if ran { Err(format!("member {} has already been bootstrapped", config.id)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot(id: u64, url: &str) -> BootMember {
        BootMember { id: MemberId(id), name: format!("m{id}"), peer_urls: vec![url.to_owned()] }
    }

    fn told(id: u64, url: &str) -> Told {
        let (id, name) = (MemberId(id), String::new());
        Told { id, name, peer_urls: vec![url.to_owned()], client_urls: Vec::new() }
    }

    #[test]
    fn the_cluster_says_which_id_our_urls_have() {
        let flags = [boot(1, "http://a:1"), boot(2, "http://b:1")];
        let members = [told(71, "http://b:1"), told(72, "http://a:1")];
        assert_eq!(assign(&flags, MemberId(2), &members), Ok(MemberId(71)));
        let error = |members: &[Told]| assign(&flags, MemberId(2), members).expect_err("differs");
        assert!(error(&members[..1]).contains("member count is unequal"));
        let others = [told(71, "http://c:1"), told(72, "http://a:1")];
        assert!(error(&others).contains("unmatched member while checking PeerURLs"));
    }
}
