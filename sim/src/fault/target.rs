//! Which member a fault is for: by number, or by its role at the moment the fault is performed.

use std::fmt;
use std::str::FromStr;

use detkv_core::MemberId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::world::World;

/// In files: `"leader"`, `"follower"` (the first one), `"follower2"`, `"m3"` (member 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    Member(MemberId),
    /// The node that is up and leads with the highest term.
    Leader,
    /// The n-th other node by member id, from 1.
    Follower(u64),
}

impl Target {
    /// Place of the node that it means now.
    ///
    /// Errors: there is none.
    pub(crate) fn resolve(&self, world: &World) -> Result<u32, String> {
        let leader = world.leader();
        let member = match self {
            Target::Member(member) => Some(*member),
            Target::Leader => leader,
            Target::Follower(n) => {
                let others = world.nodes.iter().filter(|node| !node.retired).map(|node| node.id);
                others.filter(|id| Some(*id) != leader).nth(*n as usize - 1)
            }
        };
        member.and_then(|member| world.place(member)).ok_or_else(|| format!("there is no {self}"))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Member(id) => write!(f, "m{}", id.0),
            Target::Leader => f.write_str("leader"),
            Target::Follower(1) => f.write_str("follower"),
            Target::Follower(n) => write!(f, "follower{n}"),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse::<u64>().ok().filter(|n| *n > 0);
        match text {
            "leader" => Some(Target::Leader),
            "follower" => Some(Target::Follower(1)),
            _ => {
                text.strip_prefix("follower").and_then(number).map(Target::Follower).or_else(|| {
                    text.strip_prefix('m').and_then(number).map(|n| Target::Member(MemberId(n)))
                })
            }
        }
        .ok_or_else(|| {
            format!(
                "{text:?} names no node: expected \"leader\", \"follower\", \"follower2\" or \"m1\""
            )
        })
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_read_back_as_written() {
        for target in
            [Target::Leader, Target::Follower(1), Target::Follower(2), Target::Member(MemberId(3))]
        {
            assert_eq!(target.to_string().parse(), Ok(target));
        }
    }

    #[test]
    fn a_name_of_no_node_is_refused() {
        for text in ["", "m", "m0", "mx", "followers", "follower0", "Leader"] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
