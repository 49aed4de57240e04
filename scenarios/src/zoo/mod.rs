//! The leak zoo: runs with a leak planted on purpose, judged as `check-determinism` judges any run.
//!
//! Each leak is a number that a process takes from its machine. A task of the run turns it into the key of a
//! put, so that the world's course depends on it. Then process A (plain) and process B (shaken) are compared:
//! the leak is *reported*, with the first event that differs, or madsim's shell has *neutralised* it, or the
//! shell ends the run. Which of these is stated beside each leak; anything else is a hole in the proof.

mod leaks;

use std::path::Path;

use detkv_core::api::Request;
use detkv_core::pb::etcdserverpb::PutRequest;
use detkv_sim_world::client::Clients;
use std::time::Duration;

pub use leaks::{LEAKS, Leak};

use crate::child::{Job, Surroundings};
use crate::determinism;
use crate::scenario::Profile;

/// What becomes of a leak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The check prints the first event that differs.
    Reported,
    /// Both processes have the same number.
    Neutralised,
    /// The run ends with a message.
    Refused,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Fate::Reported => "reported",
            Fate::Neutralised => "neutralised",
            Fate::Refused => "run ended",
        }
    }
}

/// The run that the leaks are planted in: two virtual seconds of one client.
const HOST: &str = "about = \"host of the leak zoo\"\nprofiles = [\"decoupled\"]\nwarm_up = \"200ms\"\nduration = \"2s\"\n";
const SEED: u64 = 1;
/// Between two uses of the leaked number.
const EVERY: Duration = Duration::from_millis(50);
const ROUNDS: u64 = 20;

/// Every animal shown to the check: lines to print, and how many met the fate that is stated.
pub fn show(binary: &Path) -> anyhow::Result<(Vec<String>, usize)> {
    let (mut lines, mut right) = (Vec::new(), 0);
    for (number, leak) in LEAKS.iter().enumerate() {
        let (fate, why) = judge(binary, leak)?;
        let is_right = fate == leak.fate;
        right += usize::from(is_right);
        let wrong = if is_right { "" } else { "   NOT AS STATED" };
        lines.push(format!(
            "{:>2} {:<18}{:<13}{}{}{wrong}",
            number + 1,
            leak.name,
            fate.word(),
            leak.what,
            leak.ban.map_or(String::new(), |ban| format!("; banned at build: {ban}")),
        ));
        lines.extend(why.into_iter().map(|line| format!("     {line}")));
    }
    Ok((lines, right))
}

fn judge(binary: &Path, leak: &Leak) -> anyhow::Result<(Fate, Vec<String>)> {
    let job = Job {
        scenario: format!("leak {}", leak.name),
        path: "host of the leak zoo".to_owned(),
        name: "leak-zoo".to_owned(),
        files: std::collections::BTreeMap::new(),
        text: HOST.to_owned(),
        seed: SEED,
        profile: Profile::Decoupled,
        with_timeline: false,
        trace_file: None,
        history_dir: None,
        full: 0..0,
        surroundings: Surroundings::Plain,
        wall_secs_max: 60,
        leak: Some(leak.name.to_owned()),
    };
    match determinism::check(binary, None, &job) {
        Ok(Some(difference)) => Ok((Fate::Reported, difference.lines[1..].to_vec())),
        Ok(None) => Ok((Fate::Neutralised, Vec::new())),
        Err(crash) => {
            let said = crash.to_string();
            let why = said.lines().find(|line| line.contains("attempt to spawn"));
            match why {
                Some(line) => Ok((Fate::Refused, vec![line.trim().to_owned()])),
                None => Err(crash),
            }
        }
    }
}

/// The leak of that name.
pub fn find(name: &str) -> Option<&'static Leak> {
    LEAKS.iter().find(|leak| leak.name == name)
}

/// Starts the task that lets the leaked number decide something.
pub fn plant(leak: &'static Leak, clients: &Clients) {
    let client = clients.pinned(clients.handle().members()[0], Duration::from_secs(1));
    clients.spawn(async move {
        for round in 0..ROUNDS {
            client.handle().sleep(EVERY).await;
            let key = format!("leak/{}", (leak.number)(round)).into();
            let _ = client.call(Request::Put(PutRequest { key, ..Default::default() })).await;
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_that_is_named_is_in_core_and_in_sim() {
        let lists =
            [include_str!("../../../core/clippy.toml"), include_str!("../../../sim/clippy.toml")];
        for ban in LEAKS.iter().filter_map(|leak| leak.ban) {
            for list in lists {
                assert!(list.contains(&format!("path = \"{ban}\"")), "{ban} is not banned");
            }
        }
    }

    #[test]
    fn ten_leaks_have_ten_names() {
        let mut names: Vec<&str> = LEAKS.iter().map(|leak| leak.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 10);
    }
}
