//! What the broker keeps in the store: topics, committed offsets, and the next producer id.
//!
//! | table | key | value |
//! |---|---|---|
//! | `topics` | name | [`TopicRow`] |
//! | `offsets` | group NUL topic NUL partition (4 bytes, big-endian) | [`OffsetRow`] |
//! | `producers` | `next` | the next free producer id, `i64` |

use crate::core::topic::TopicConfig;
use kiln_store::{Machine, Tables};
use kiln_types::Timestamp;
use serde::{Deserialize, Serialize};

pub(crate) const TOPICS: &str = "topics";
pub(crate) const OFFSETS: &str = "offsets";
const PRODUCERS: &str = "producers";
const NEXT: &[u8] = b"next";

/// Longest name of a group, in bytes.
pub const GROUP_BYTES_MAX: usize = 255;

/// Longest text kept with a committed offset, in bytes (`offset.metadata.max.bytes`).
pub(crate) const METADATA_BYTES_MAX: usize = 4096;

/// A topic as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRow {
    /// Its id; another one when a topic of the same name is created again.
    pub id: [u8; 16],
    /// How many partitions.
    pub partitions: u32,
    /// What was set explicitly.
    pub config: TopicConfig,
}

/// A committed offset as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetRow {
    /// The next offset that the group will read.
    pub offset: i64,
    /// Epoch of the leader that the client saw, or -1.
    pub leader_epoch: i32,
    /// Whatever the client wrote beside it.
    pub metadata: String,
    /// When.
    pub at: Timestamp,
}

/// An offset to be committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset that the group will read.
    pub offset: i64,
    /// Epoch of the leader that the client saw, or -1.
    pub leader_epoch: i32,
    /// Whatever the client wants kept beside it.
    pub metadata: String,
}

/// What the store is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Create a topic.
    CreateTopic {
        /// Its name.
        name: String,
        /// What it is.
        topic: TopicRow,
    },
    /// Delete a topic, and every group's offsets in it.
    DeleteTopic {
        /// Its name.
        name: String,
    },
    /// Grow a topic to that many partitions.
    SetPartitions {
        /// Its name.
        name: String,
        /// How many.
        partitions: u32,
    },
    /// Store a group's offsets, all or none.
    CommitOffsets {
        /// The group.
        group: String,
        /// Its offsets.
        offsets: Vec<Commit>,
    },
    /// Delete a group's offsets.
    DeleteGroup {
        /// The group.
        group: String,
    },
    /// Take producer ids that nobody else gets.
    TakeProducerIds {
        /// How many.
        count: i64,
    },
    /// Give a topic other settings.
    SetConfig {
        /// Its name.
        name: String,
        /// All that is set explicitly from now on.
        config: TopicConfig,
    },
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// The first of the producer ids.
    ProducerIds(i64),
}

/// Why a command is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The topic is there.
    #[error("topic {0} exists already")]
    TopicExists(String),
    /// The topic is not there.
    #[error("there is no topic {0}")]
    NoTopic(String),
    /// Partitions cannot be taken away.
    #[error("topic {name} has {has} partitions, so it cannot be given {wanted}")]
    Shrinks {
        /// The topic.
        name: String,
        /// How many it has.
        has: u32,
        /// How many were asked for.
        wanted: u32,
    },
    /// The group has no offsets.
    #[error("there is no group {0}")]
    NoGroup(String),
}

/// The broker's part of the store.
#[derive(Debug, Default, Clone, Copy)]
pub struct KafkaMachine;

impl Machine for KafkaMachine {
    const NAME: &'static str = "kafka";
    type Command = Command;
    type Reply = Reply;
    type Rejection = Rejection;

    fn apply(&self, tables: &mut Tables<'_>, command: Command, at: Timestamp) -> Result<Reply, Rejection> {
        match command {
            Command::CreateTopic { name, topic } => create_topic(tables, name, &topic),
            Command::DeleteTopic { name } => delete_topic(tables, name),
            Command::SetPartitions { name, partitions } => set_partitions(tables, name, partitions),
            Command::CommitOffsets { group, offsets } => {
                for commit in offsets {
                    let key = offset_key(&group, &commit.topic, commit.partition);
                    let Commit { offset, leader_epoch, metadata, .. } = commit;
                    tables.put(OFFSETS, &key, &OffsetRow { offset, leader_epoch, metadata, at });
                }
                Ok(Reply::Done)
            }
            Command::DeleteGroup { group } => match tables.delete_prefix(OFFSETS, &group_prefix(&group)) {
                0 => Err(Rejection::NoGroup(group)),
                _ => Ok(Reply::Done),
            },
            Command::TakeProducerIds { count } => {
                let next: i64 = tables.get(PRODUCERS, NEXT).unwrap_or(0);
                tables.put(PRODUCERS, NEXT, &next.saturating_add(count));
                Ok(Reply::ProducerIds(next))
            }
            Command::SetConfig { name, config } => set_config(tables, name, config),
        }
    }
}

fn create_topic(tables: &mut Tables<'_>, name: String, topic: &TopicRow) -> Result<Reply, Rejection> {
    if tables.has(TOPICS, name.as_bytes()) {
        return Err(Rejection::TopicExists(name));
    }
    tables.put(TOPICS, name.as_bytes(), topic);
    Ok(Reply::Done)
}

fn delete_topic(tables: &mut Tables<'_>, name: String) -> Result<Reply, Rejection> {
    if !tables.delete(TOPICS, name.as_bytes()) {
        return Err(Rejection::NoTopic(name));
    }
    for (key, _) in tables.scan::<OffsetRow>(OFFSETS, &[]) {
        if parse_offset_key(&key).is_some_and(|(_, topic, _)| topic == name) {
            tables.delete(OFFSETS, &key);
        }
    }
    Ok(Reply::Done)
}

fn set_partitions(tables: &mut Tables<'_>, name: String, partitions: u32) -> Result<Reply, Rejection> {
    let Some(mut row) = tables.get::<TopicRow>(TOPICS, name.as_bytes()) else {
        return Err(Rejection::NoTopic(name));
    };
    if partitions <= row.partitions {
        return Err(Rejection::Shrinks { name, has: row.partitions, wanted: partitions });
    }
    row.partitions = partitions;
    tables.put(TOPICS, name.as_bytes(), &row);
    Ok(Reply::Done)
}

fn set_config(tables: &mut Tables<'_>, name: String, config: TopicConfig) -> Result<Reply, Rejection> {
    let Some(mut row) = tables.get::<TopicRow>(TOPICS, name.as_bytes()) else {
        return Err(Rejection::NoTopic(name));
    };
    row.config = config;
    tables.put(TOPICS, name.as_bytes(), &row);
    Ok(Reply::Done)
}

/// Whether a group may have this name: it must stand in a key before a NUL.
pub(crate) fn is_group_name(group: &str) -> bool {
    (1..=GROUP_BYTES_MAX).contains(&group.len()) && !group.contains('\0')
}

/// What the keys of a group's offsets begin with.
pub(crate) fn group_prefix(group: &str) -> Vec<u8> {
    [group.as_bytes(), b"\0"].concat()
}

/// Key of an offset.
pub(crate) fn offset_key(group: &str, topic: &str, partition: i32) -> Vec<u8> {
    [group.as_bytes(), b"\0", topic.as_bytes(), b"\0", &partition.to_be_bytes()].concat()
}

/// Group, topic and partition of an offset's key.
pub(crate) fn parse_offset_key(key: &[u8]) -> Option<(&str, &str, i32)> {
    let (names, partition) = key.split_last_chunk::<4>()?;
    let mut names = std::str::from_utf8(names).ok()?.splitn(3, '\0');
    Some((names.next()?, names.next()?, i32::from_be_bytes(*partition)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back() {
        for partition in [0, 1, 256, i32::MAX] {
            let key = offset_key("my group", "t", partition);
            assert_eq!(parse_offset_key(&key), Some(("my group", "t", partition)));
            assert!(key.starts_with(&group_prefix("my group")));
        }
        assert_eq!(parse_offset_key(b"abc"), None);
        assert!(is_group_name("g") && !is_group_name("") && !is_group_name("a\0b"));
    }

    #[test]
    fn golden_bytes_of_a_commit() {
        let commit =
            Commit { topic: "t".into(), partition: 1, offset: 300, leader_epoch: -1, metadata: "m".into() };
        let command = Command::CommitOffsets { group: "g".into(), offsets: vec![commit] };
        // variant 3, "g", one offset: "t", zigzag 1, zigzag 300, zigzag -1, "m".
        let golden = [3, 1, b'g', 1, 1, b't', 2, 0xd8, 4, 1, 1, b'm'];
        let bytes = postcard_bytes(&command);
        assert_eq!(bytes, golden);
    }

    #[test]
    fn golden_bytes_of_new_settings() {
        let config = TopicConfig { retention_ms: Some(-1), ..TopicConfig::default() };
        let command = Command::SetConfig { name: "t".into(), config };
        // variant 6, "t", some zigzag -1, none, none, none.
        assert_eq!(postcard_bytes(&command), [6, 1, b't', 1, 1, 0, 0, 0]);
    }

    fn postcard_bytes(command: &Command) -> Vec<u8> {
        postcard::to_stdvec(command).unwrap()
    }
}
