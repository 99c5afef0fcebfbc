//! Names and settings of topics.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest topic name (`org.apache.kafka.common.internals.Topic`).
const NAME_BYTES_MAX: usize = 249;

/// Why a topic, or a setting of one, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum BadTopic {
    /// The name is not one that Kafka allows.
    #[error(
        "topic name {0:?} is not allowed: use 1 to 249 of the characters a-z A-Z 0-9 . _ -, and neither . nor .."
    )]
    Name(String),
    /// No such setting.
    #[error("topic setting {0} is not known; known are {known}", known = known_keys())]
    UnknownKey(String),
    /// The setting has no such value.
    #[error("topic setting {key} cannot be {value:?}: {wanted}")]
    Value {
        /// The setting.
        key: String,
        /// The value.
        value: String,
        /// What it may be.
        wanted: String,
    },
}

/// Checks a topic's name by Kafka's rules.
pub fn check_name(name: &str) -> Result<(), BadTopic> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
    if fits && name != "." && name != ".." { Ok(()) } else { Err(BadTopic::Name(name.to_owned())) }
}

/// Settings of a topic that were set explicitly; the broker's defaults apply to the rest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// `retention.ms`: how long records are kept, in milliseconds; -1 for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`: how many bytes of each partition are kept; -1 all.
    pub retention_bytes: Option<i64>,
    /// `segment.bytes`: size of a segment file.
    pub segment_bytes: Option<i64>,
    /// `max.message.bytes`: largest batch.
    pub batch_bytes_max: Option<i64>,
}

/// The settings that apply where a topic sets none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDefaults {
    /// How long records are kept; none for ever.
    pub retention: Option<Duration>,
    /// How many bytes of each partition are kept; none for all.
    pub retention_bytes: Option<u64>,
    /// Size of a segment file, in bytes.
    pub segment_bytes: u64,
    /// Largest batch, in bytes.
    pub batch_bytes_max: u32,
}

impl Default for TopicDefaults {
    /// Kafka's own: seven days, any size, batches of 1 MiB and 12 bytes; segments of 64 MiB instead of 1 GiB.
    fn default() -> Self {
        Self {
            retention: Some(Duration::from_hours(7 * 24)),
            retention_bytes: None,
            segment_bytes: 64 << 20,
            batch_bytes_max: 1_048_588,
        }
    }
}

/// A setting as `DescribeConfigs` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name of it.
    pub key: &'static str,
    /// Its value in effect.
    pub value: String,
    /// Whether the topic sets it itself.
    pub is_own: bool,
    /// What kind of value.
    pub kind: ConfigKind,
}

/// How much of a partition is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this go; none for ever.
    pub age: Option<Duration>,
    /// The oldest records go while a partition has more bytes than this; none for all.
    pub bytes: Option<u64>,
}

/// Kinds of values of settings, with the numbers of `DescribeConfigs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigKind {
    /// 32-bit integer.
    Int = 3,
    /// 64-bit integer.
    Long = 5,
    /// Text.
    Text = 2,
    /// Comma-separated list.
    List = 7,
}

/// The largest batch that a topic may allow, in bytes.
const BATCH_BYTES_LIMIT: u32 = 64 << 20;

/// Settings that can be set, with the smallest and the largest value.
const SETTABLE: [(&str, i64, i64, ConfigKind); 4] = [
    ("retention.ms", -1, i64::MAX, ConfigKind::Long),
    ("retention.bytes", -1, i64::MAX, ConfigKind::Long),
    ("segment.bytes", 4 << 10, 1 << 30, ConfigKind::Int),
    ("max.message.bytes", 256, BATCH_BYTES_LIMIT as i64, ConfigKind::Int),
];

/// Settings that have one value here. They may be set to it, so that scripts written for Kafka run.
const FIXED: [(&str, &str, &str, ConfigKind); 4] = [
    ("cleanup.policy", "delete", "compaction is not served; delete is the only policy", ConfigKind::List),
    ("compression.type", "producer", "batches are stored as the producer compressed them", ConfigKind::Text),
    (
        "message.timestamp.type",
        "CreateTime",
        "records keep the time their producer gave them",
        ConfigKind::Text,
    ),
    ("min.insync.replicas", "1", "there is one replica", ConfigKind::Int),
];

fn known_keys() -> String {
    let keys = SETTABLE.iter().map(|row| row.0).chain(FIXED.iter().map(|row| row.0));
    keys.collect::<Vec<_>>().join(", ")
}

impl TopicConfig {
    fn field(&mut self, key: &str) -> Option<&mut Option<i64>> {
        match key {
            "retention.ms" => Some(&mut self.retention_ms),
            "retention.bytes" => Some(&mut self.retention_bytes),
            "segment.bytes" => Some(&mut self.segment_bytes),
            "max.message.bytes" => Some(&mut self.batch_bytes_max),
            _ => None,
        }
    }

    /// Sets one setting by Kafka's name, or goes back to the default when there is no value.
    pub fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), BadTopic> {
        if let Some((_, only, wanted, _)) = FIXED.iter().find(|row| row.0 == key) {
            return match value {
                Some(value) if value != *only => Err(bad_value(key, value, (*wanted).to_owned())),
                _ => Ok(()),
            };
        }
        let row = SETTABLE.iter().find(|row| row.0 == key);
        let (Some((_, min, max, _)), Some(field)) = (row, self.field(key)) else {
            return Err(BadTopic::UnknownKey(key.to_owned()));
        };
        let Some(value) = value else {
            *field = None;
            return Ok(());
        };
        let number = value.parse().ok().filter(|number| (min..=max).contains(&number));
        *field = Some(number.ok_or_else(|| bad_value(key, value, format!("a number from {min} to {max}")))?);
        Ok(())
    }

    /// Every setting with its value in effect.
    pub fn describe(&self, defaults: &TopicDefaults) -> Vec<ConfigEntry> {
        let mut own = self.clone();
        let mut all = defaults.as_config();
        let settable = SETTABLE.iter().map(|(key, _, _, kind)| {
            let set = own.field(key).copied().flatten();
            let value = set.or(all.field(key).copied().flatten()).unwrap_or(-1);
            ConfigEntry { key, value: value.to_string(), is_own: set.is_some(), kind: *kind }
        });
        let settable: Vec<_> = settable.collect();
        let fixed = FIXED.iter().map(|(key, value, _, kind)| ConfigEntry {
            key,
            value: (*value).to_owned(),
            is_own: false,
            kind: *kind,
        });
        settable.into_iter().chain(fixed).collect()
    }

    /// The settings that a log of this topic is opened with.
    ///
    /// A log keeps them for as long as it is open. What can be changed in the meantime is therefore left to the
    /// partition: the log takes every batch that a topic may ever allow, and has an age of zero, so that the time
    /// that its `retain` is given is the one before which everything goes.
    pub fn log_settings(&self, defaults: &TopicDefaults) -> kiln_log::Settings {
        kiln_log::Settings {
            segment_bytes_max: limit(self.segment_bytes, None).unwrap_or(defaults.segment_bytes),
            retention_bytes: None,
            retention_age: Some(Duration::ZERO),
            batch_bytes_max: BATCH_BYTES_LIMIT.max(defaults.batch_bytes_max),
            ..kiln_log::Settings::default()
        }
    }

    /// How much of each partition is kept.
    pub fn retention(&self, defaults: &TopicDefaults) -> Retention {
        let all = defaults.as_config();
        Retention {
            age: limit(self.retention_ms, all.retention_ms).map(Duration::from_millis),
            bytes: limit(self.retention_bytes, all.retention_bytes),
        }
    }

    /// The largest batch, in bytes.
    pub fn batch_bytes_max(&self, defaults: &TopicDefaults) -> u32 {
        self.batch_bytes_max.and_then(|n| u32::try_from(n).ok()).unwrap_or(defaults.batch_bytes_max)
    }
}

impl TopicDefaults {
    fn as_config(&self) -> TopicConfig {
        TopicConfig {
            retention_ms: Some(self.retention.map_or(-1, |age| age.as_millis() as i64)),
            retention_bytes: Some(self.retention_bytes.map_or(-1, |bytes| bytes as i64)),
            segment_bytes: Some(self.segment_bytes as i64),
            batch_bytes_max: Some(i64::from(self.batch_bytes_max)),
        }
    }
}

/// The value in effect; none if it is -1, for no limit.
fn limit(own: Option<i64>, default: Option<i64>) -> Option<u64> {
    own.or(default).and_then(|limit| u64::try_from(limit).ok())
}

fn bad_value(key: &str, value: &str, wanted: String) -> BadTopic {
    BadTopic::Value { key: key.to_owned(), value: value.to_owned(), wanted }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        for good in ["a", "tasks", "Task_events.v1-x", &"x".repeat(249)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "../etc", "a b", "ä", "a\0", &"x".repeat(250)] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn settings_are_checked_and_shown_with_where_they_come_from() {
        let mut config = TopicConfig::default();
        config.set("retention.ms", Some("60000")).unwrap();
        config.set("retention.bytes", Some("-1")).unwrap();
        config.set("cleanup.policy", Some("delete")).unwrap();
        for (key, value) in [("retention.ms", "-2"), ("segment.bytes", "many"), ("max.message.bytes", "")] {
            assert!(config.set(key, Some(value)).is_err(), "{key}={value}");
        }
        assert!(matches!(config.set("colour", Some("red")), Err(BadTopic::UnknownKey(_))));
        let compact = config.set("cleanup.policy", Some("compact")).unwrap_err();
        assert!(compact.to_string().contains("compaction is not served"), "{compact}");

        let entries = config.describe(&TopicDefaults::default());
        let of = |key| entries.iter().find(|entry| entry.key == key).unwrap();
        assert_eq!((of("retention.ms").value.as_str(), of("retention.ms").is_own), ("60000", true));
        assert_eq!(
            (of("max.message.bytes").value.as_str(), of("max.message.bytes").is_own),
            ("1048588", false)
        );

        config.set("retention.ms", None).unwrap();
        assert_eq!(config.retention_ms, None);
    }

    #[test]
    fn minus_one_keeps_for_ever() {
        let mut config = TopicConfig::default();
        let defaults = TopicDefaults::default();
        assert_eq!(config.retention(&defaults).age, Some(Duration::from_hours(168)));
        config.set("retention.ms", Some("-1")).unwrap();
        assert_eq!(config.retention(&defaults).age, None);
    }
}
