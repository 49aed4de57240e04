//! What members are configured with, where it differs from etcd's defaults.

use std::ops::RangeInclusive;
use std::time::Duration;

use detkv_sim_world::bounds::{SHORTEST, at_least, time_within, within};
use detkv_sim_world::duration::{self, LONGEST};
use serde::Deserialize;
use toml::Table;

use crate::scenario::{Profile, from_entry, optional_duration};

/// `[member]`.
#[derive(Clone, Default, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MemberOptions {
    #[serde(deserialize_with = "optional_duration")]
    pub heartbeat: Option<Duration>,
    #[serde(deserialize_with = "optional_duration")]
    pub election: Option<Duration>,
    pub pre_vote: Option<bool>,
    pub snapshot_count: Option<u64>,
    pub snapshot_catchup_entries: Option<u64>,
    pub wal_segment_bytes: Option<u64>,
    pub quota_bytes: Option<u64>,
    pub watch_stream_bytes: Option<u64>,
    pub initial_corrupt_check: Option<bool>,
    #[serde(deserialize_with = "optional_duration")]
    pub corrupt_check_interval: Option<Duration>,
    #[serde(deserialize_with = "optional_duration")]
    pub compact_hash_check_interval: Option<Duration>,
    pub auto_compaction: Option<AutoCompact>,
    pub strict_reconfig_check: Option<bool>,
    pub learners_max: Option<usize>,
}

/// `auto_compaction`: what the members keep of the history by themselves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AutoCompact {
    /// `{ periodic = "2s" }`: that of so long.
    Periodic(#[serde(with = "detkv_sim_world::duration")] Duration),
    /// `{ revision = 100 }`: so many revisions, looked at every five minutes.
    Revision(i64),
}

impl From<AutoCompact> for detkv_core::AutoCompaction {
    fn from(option: AutoCompact) -> Self {
        match option {
            AutoCompact::Periodic(retention) => Self::Periodic(retention),
            AutoCompact::Revision(retention) => Self::Revision(retention),
        }
    }
}

/// `[member]` with what `[member.coupled]` and `[member.decoupled]` say otherwise.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct MembersOptions {
    pub coupled: MemberOptions,
    pub decoupled: MemberOptions,
}

impl MembersOptions {
    /// Errors: an unknown option, named in the message.
    pub fn read(mut table: Table) -> Result<Self, String> {
        let mut own = |profile: &str| match table.remove(profile) {
            None => Ok(Table::new()),
            Some(toml::Value::Table(own)) => Ok(own),
            Some(_) => Err(format!("`{profile}` of `member`: expected a table of options")),
        };
        let (coupled, decoupled) = (own("coupled")?, own("decoupled")?);
        let with = |own: Table| {
            let mut both = table.clone();
            both.extend(own);
            from_entry(both)
        };
        Ok(Self { coupled: with(coupled)?, decoupled: with(decoupled)? })
    }

    /// Errors: the profile with something that is wrong, and what.
    pub fn check(&self) -> Result<(), (Profile, String)> {
        for profile in [Profile::Coupled, Profile::Decoupled] {
            self.of(profile).check().map_err(|what| (profile, what))?;
        }
        Ok(())
    }

    pub fn of(&self, profile: Profile) -> &MemberOptions {
        match profile {
            Profile::Coupled => &self.coupled,
            Profile::Decoupled => &self.decoupled,
        }
    }
}

/// As long as etcd lets an election take.
const ELECTIONS: RangeInclusive<Duration> = SHORTEST..=Duration::from_secs(50);
/// Entries.
const COUNTS: RangeInclusive<u64> = 1..=1_000_000_000;
/// A segment is allocated whole.
const SEGMENT_BYTES: RangeInclusive<u64> = 4 << 10..=1 << 30;
/// Between two checks of the same data.
const CHECKS: RangeInclusive<Duration> = Duration::from_millis(10)..=LONGEST;

/// Revisions kept by auto-compaction.
const REVISIONS: RangeInclusive<i64> = 1..=1_000_000_000;
const LEARNERS: RangeInclusive<u64> = 0..=100;

impl MemberOptions {
    /// Errors: what is wrong, and what was expected. What core takes for granted of its configuration is asked here.
    fn check(&self) -> Result<(), String> {
        let usual = detkv_core::Config::new(detkv_core::MemberId(1), 1, Vec::new());
        let heartbeat = self.heartbeat.unwrap_or(usual.heartbeat);
        let election = self.election.unwrap_or(usual.election);
        time_within("heartbeat", heartbeat, ELECTIONS)?;
        time_within("election", election, ELECTIONS)?;
        let is_multiple = election.as_nanos().is_multiple_of(heartbeat.as_nanos());
        if !is_multiple || election < 5 * heartbeat {
            let [election, heartbeat] = [election, heartbeat].map(duration::format);
            return Err(format!(
                "`election` is {election}, expected a multiple of `heartbeat`, {heartbeat}, and at least 5 of it"
            ));
        }
        let count = |name, value: Option<u64>, bounds| {
            value.map_or(Ok(()), |value| within(name, value, bounds))
        };
        count("snapshot_count", self.snapshot_count, COUNTS)?;
        count("snapshot_catchup_entries", self.snapshot_catchup_entries, COUNTS)?;
        count("wal_segment_bytes", self.wal_segment_bytes, SEGMENT_BYTES)?;
        let positive =
            |name, value: Option<u64>| value.map_or(Ok(()), |value| at_least(name, value, 1));
        positive("quota_bytes", self.quota_bytes)?;
        positive("watch_stream_bytes", self.watch_stream_bytes)?;
        let check = |name, value: Option<Duration>| {
            value.map_or(Ok(()), |value| time_within(name, value, CHECKS))
        };
        check("corrupt_check_interval", self.corrupt_check_interval)?;
        check("compact_hash_check_interval", self.compact_hash_check_interval)?;
        match self.auto_compaction {
            Some(AutoCompact::Periodic(kept)) => time_within("periodic", kept, CHECKS)?,
            Some(AutoCompact::Revision(kept)) => within("revision", kept, REVISIONS)?,
            None => {}
        }
        let learners = self.learners_max.map_or(1, |count| count as u64);
        within("learners_max", learners, LEARNERS)
    }

    pub fn apply(&self, config: &mut detkv_core::Config) {
        fn set<T: Copy>(field: &mut T, value: Option<T>) {
            *field = value.unwrap_or(*field);
        }
        set(&mut config.heartbeat, self.heartbeat);
        set(&mut config.election, self.election);
        set(&mut config.pre_vote, self.pre_vote);
        set(&mut config.snapshot_count, self.snapshot_count);
        set(&mut config.snapshot_catchup_entries, self.snapshot_catchup_entries);
        set(&mut config.wal_segment_bytes, self.wal_segment_bytes);
        set(&mut config.watch_stream_bytes, self.watch_stream_bytes);
        set(&mut config.initial_corrupt_check, self.initial_corrupt_check);
        set(&mut config.strict_reconfig_check, self.strict_reconfig_check);
        set(&mut config.learners_max, self.learners_max);
        // Off unless they are given.
        config.quota_bytes = self.quota_bytes.or(config.quota_bytes);
        config.corrupt_check_interval =
            self.corrupt_check_interval.or(config.corrupt_check_interval);
        config.compact_hash_check_interval =
            self.compact_hash_check_interval.or(config.compact_hash_check_interval);
        config.auto_compaction = self.auto_compaction.map(Into::into).or(config.auto_compaction);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_may_differ_from_what_both_have() {
        let text = "snapshot_count = 7\npre_vote = true\n[coupled]\npre_vote = false\n";
        let options = MembersOptions::read(toml::from_str(text).unwrap()).unwrap();
        assert_eq!(options.coupled.pre_vote, Some(false));
        assert_eq!(options.decoupled.pre_vote, Some(true));
        assert_eq!(options.of(Profile::Coupled).snapshot_count, Some(7));
    }
}
