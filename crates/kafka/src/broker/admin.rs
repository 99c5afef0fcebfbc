//! Creating, growing, deleting and listing topics; listing groups.

use super::{Broker, Partition, StartError, Topic, blocking, to_the_end};
use crate::core::topic::{BadTopic, TopicConfig, check_name};
use crate::machine::{Command, OffsetRow, Rejection, TOPICS, TopicRow, parse_offset_key};
use crate::wire::ErrorCode;
use kiln_log::{Log, OpenError};
use kiln_store::SubmitError;
use kiln_types::Offset;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Partitions of one topic.
const TOPIC_PARTITIONS_MAX: u32 = 1_000;

/// Why a topic or a group was not changed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Name or settings are not allowed.
    #[error(transparent)]
    Bad(#[from] BadTopic),
    /// The topic is there.
    #[error("topic {0} exists already")]
    TopicExists(String),
    /// The topic is not there.
    #[error("there is no topic {0}")]
    NoTopic(String),
    /// The topic belongs to another service.
    #[error("topic {0} is written by Kiln itself and cannot be changed")]
    Mounted(String),
    /// That many partitions are not allowed.
    #[error("{wanted} partitions are not allowed: {reason}")]
    Partitions {
        /// How many were asked for.
        wanted: i64,
        /// Why not.
        reason: String,
    },
    /// There is one broker, so one replica.
    #[error("{0} replicas are not possible: there is one broker")]
    Replicas(i64),
    /// The group has members.
    #[error("group {0} has members; stop them first")]
    GroupInUse(String),
    /// The group has no members and no offsets.
    #[error("there is no group {0}")]
    NoGroup(String),
    /// The logs could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The data could not be removed.
    #[error(transparent)]
    Remove(#[from] kiln_log::ChangeError),
    /// The store did not take it.
    #[error(transparent)]
    Store(SubmitError<Rejection>),
}

impl From<SubmitError<Rejection>> for AdminError {
    fn from(error: SubmitError<Rejection>) -> Self {
        match error {
            SubmitError::Rejected(Rejection::TopicExists(name)) => Self::TopicExists(name),
            SubmitError::Rejected(Rejection::NoTopic(name)) => Self::NoTopic(name),
            SubmitError::Rejected(Rejection::NoGroup(name)) => Self::NoGroup(name),
            SubmitError::Rejected(Rejection::Shrinks { wanted, has, .. }) => {
                Self::Partitions { wanted: i64::from(wanted), reason: format!("the topic has {has} already") }
            }
            other => Self::Store(other),
        }
    }
}

impl AdminError {
    /// The code that a Kafka client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Bad(BadTopic::Name(_)) => ErrorCode::InvalidTopic,
            Self::Bad(_) => ErrorCode::InvalidConfig,
            Self::TopicExists(_) => ErrorCode::TopicAlreadyExists,
            Self::NoTopic(_) => ErrorCode::UnknownTopicOrPartition,
            Self::Mounted(_) => ErrorCode::PolicyViolation,
            Self::Partitions { .. } => ErrorCode::InvalidPartitions,
            Self::Replicas(_) => ErrorCode::InvalidReplicationFactor,
            Self::GroupInUse(_) => ErrorCode::NonEmptyGroup,
            Self::NoGroup(_) => ErrorCode::GroupIdNotFound,
            Self::Open(_) | Self::Remove(_) | Self::Store(_) => ErrorCode::KafkaStorageError,
        }
    }
}

/// A topic to be created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; the broker's default if none.
    pub partitions: Option<u32>,
    /// What differs from the defaults.
    pub config: TopicConfig,
}

/// A topic as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: [u8; 16],
    /// Its partitions, in order.
    pub partitions: Vec<PartitionInfo>,
    /// What differs from the defaults.
    pub config: TopicConfig,
    /// Whether it is a log of another service.
    pub is_mounted: bool,
}

/// A partition as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionInfo {
    /// First offset.
    pub start: Offset,
    /// The offset after the last durable record.
    pub end: Offset,
    /// Size on disk in bytes.
    pub bytes: u64,
}

/// A group as listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// Its state, by Kafka's name.
    pub state: String,
    /// How many members.
    pub members: usize,
    /// How far it is, for each partition with a committed offset.
    pub lags: Vec<Lag>,
}

/// How far a group is in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The next offset that the group will read.
    pub committed: Offset,
    /// The offset after the last durable record.
    pub end: Offset,
}

impl Lag {
    /// Records that the group has not read.
    pub fn records(&self) -> u64 {
        u64::try_from(self.end.0 - self.committed.0).unwrap_or(0)
    }
}

impl Broker {
    /// Creates a topic; it can be written when this returns. It is created also if the caller goes away meanwhile.
    pub async fn create_topic(&self, new: NewTopic) -> Result<TopicInfo, AdminError> {
        let broker = self.clone();
        to_the_end(async move { broker.create(new).await }).await
    }

    async fn create(&self, new: NewTopic) -> Result<TopicInfo, AdminError> {
        let partitions = self.check_new(&new)?;
        let _turn = self.inner.admin.lock().await;
        if self.topics().get(&new.name).is_some() {
            return Err(AdminError::TopicExists(new.name));
        }
        self.check_room(partitions, partitions)?;
        let row = TopicRow { id: self.random_id(), partitions, config: new.config };
        let logs = self.open_logs(&new.name, &row, 0).await?;
        let command = Command::CreateTopic { name: new.name.clone(), topic: row.clone() };
        if let Err(error) = self.inner.store.submit(command).await {
            remove_logs(logs).await?;
            return Err(error.into());
        }
        let topic = self.new_topic(new.name, row, logs);
        Ok(info(&self.topics_mut().put(topic)))
    }

    /// Checks name and size of a new topic without creating it; how many partitions it gets.
    pub fn check_new(&self, new: &NewTopic) -> Result<u32, AdminError> {
        check_name(&new.name)?;
        let partitions = new.partitions.unwrap_or(self.inner.settings.default_partitions);
        if partitions == 0 || partitions > TOPIC_PARTITIONS_MAX {
            let reason = format!("use 1 to {TOPIC_PARTITIONS_MAX}");
            return Err(AdminError::Partitions { wanted: i64::from(partitions), reason });
        }
        Ok(partitions)
    }

    /// Grows a topic to `partitions` partitions, also if the caller goes away meanwhile.
    pub async fn set_partitions(&self, name: &str, partitions: u32) -> Result<(), AdminError> {
        let (broker, name) = (self.clone(), name.to_owned());
        to_the_end(async move { broker.grow(&name, partitions).await }).await
    }

    async fn grow(&self, name: &str, partitions: u32) -> Result<(), AdminError> {
        let _turn = self.inner.admin.lock().await;
        let topic = self.changeable(name)?;
        let has = topic.partitions.len() as u32;
        if partitions <= has {
            let reason = format!("the topic has {has} already");
            return Err(AdminError::Partitions { wanted: i64::from(partitions), reason });
        }
        self.check_room(partitions, partitions - has)?;
        let row = TopicRow { id: topic.id, partitions, config: topic.config.clone() };
        let logs = self.open_logs(name, &row, has).await?;
        let command = Command::SetPartitions { name: name.to_owned(), partitions };
        if let Err(error) = self.inner.store.submit(command).await {
            remove_logs(logs).await?;
            return Err(error.into());
        }
        let mut grown = self.new_topic(name.to_owned(), row, logs);
        grown.partitions.splice(0..0, topic.partitions.iter().cloned());
        self.topics_mut().put(grown);
        Ok(())
    }

    /// Changes a topic's settings, all of what `change` does or nothing.
    ///
    /// They hold when this returns, and retention from its next round on; `segment.bytes` holds for partitions
    /// that are opened later, so for those that are there after the next start. It is done also if the caller
    /// goes away meanwhile.
    pub async fn alter_topic(
        &self,
        name: &str,
        change: impl FnOnce(&mut TopicConfig) -> Result<(), BadTopic> + Send + 'static,
    ) -> Result<(), AdminError> {
        let (broker, name) = (self.clone(), name.to_owned());
        to_the_end(async move { broker.alter(&name, change).await }).await
    }

    async fn alter(
        &self,
        name: &str,
        change: impl FnOnce(&mut TopicConfig) -> Result<(), BadTopic> + Send,
    ) -> Result<(), AdminError> {
        let _turn = self.inner.admin.lock().await;
        let topic = self.changeable(name)?;
        let mut config = topic.config.clone();
        change(&mut config)?;
        if config == topic.config {
            return Ok(());
        }
        let command = Command::SetConfig { name: name.to_owned(), config: config.clone() };
        self.inner.store.submit(command).await?;
        let bytes_max = config.batch_bytes_max(&self.inner.settings.topics);
        topic.partitions.iter().for_each(|partition| partition.set_batch_bytes_max(bytes_max));
        let partitions = topic.partitions.clone();
        let altered =
            Topic { name: name.to_owned(), id: topic.id, config, partitions, is_mounted: topic.is_mounted };
        self.topics_mut().put(altered);
        Ok(())
    }

    /// Deletes a topic with its records and every group's offsets in it, also if the caller goes away meanwhile.
    pub async fn delete_topic(&self, name: &str) -> Result<(), AdminError> {
        let (broker, name) = (self.clone(), name.to_owned());
        to_the_end(async move { broker.delete(&name).await }).await
    }

    async fn delete(&self, name: &str) -> Result<(), AdminError> {
        let _turn = self.inner.admin.lock().await;
        let topic = self.changeable(name)?;
        self.inner.store.submit(Command::DeleteTopic { name: name.to_owned() }).await?;
        self.topics_mut().remove(name);
        remove_logs(topic.partitions.iter().map(|partition| partition.log().clone()).collect()).await
    }

    /// Deletes a group's offsets; it must have no members.
    pub async fn delete_group(&self, group: &str) -> Result<(), AdminError> {
        if self.inner.groups.has_members(group) {
            return Err(AdminError::GroupInUse(group.to_owned()));
        }
        self.inner.store.submit(Command::DeleteGroup { group: group.to_owned() }).await?;
        Ok(())
    }

    /// How many partitions a topic has, if it is there.
    pub fn partition_count(&self, topic: &str) -> Option<u32> {
        self.topic(topic).map(|topic| topic.partitions.len() as u32)
    }

    /// All topics by name.
    pub fn list_topics(&self) -> Vec<TopicInfo> {
        let topics: Vec<_> = self.topics().all().cloned().collect();
        topics.iter().map(|topic| info(topic)).collect()
    }

    /// All groups by name, with how far each is.
    pub fn list_groups(&self) -> Result<Vec<GroupInfo>, kiln_store::ReadError> {
        let mut groups: BTreeMap<String, GroupInfo> = BTreeMap::new();
        for (name, view) in self.inner.groups.list() {
            let members = view.members.len();
            let group =
                GroupInfo { name: name.clone(), state: view.state.to_owned(), members, lags: Vec::new() };
            groups.insert(name, group);
        }
        for row in self.inner.store.read().rows::<OffsetRow>(crate::machine::OFFSETS, &[])? {
            let (key, row) = row?;
            let Some((group, topic, partition)) = parse_offset_key(&key) else { continue };
            let end =
                self.partition(topic, partition).map_or(Offset(row.offset), |of| of.watermarks().durable);
            let lag = Lag { topic: topic.to_owned(), partition, committed: Offset(row.offset), end };
            groups.entry(group.to_owned()).or_insert_with(|| empty_group(group)).lags.push(lag);
        }
        Ok(groups.into_values().collect())
    }

    pub(crate) fn changeable(&self, name: &str) -> Result<Arc<Topic>, AdminError> {
        let topic = self.topic(name).ok_or_else(|| AdminError::NoTopic(name.to_owned()))?;
        if topic.is_mounted { Err(AdminError::Mounted(name.to_owned())) } else { Ok(topic) }
    }

    fn check_room(&self, wanted: u32, more: u32) -> Result<(), AdminError> {
        let max = self.inner.settings.partitions_max;
        if wanted <= TOPIC_PARTITIONS_MAX
            && self.topics().partitions() as u64 + u64::from(more) <= u64::from(max)
        {
            return Ok(());
        }
        let reason = format!("a topic may have {TOPIC_PARTITIONS_MAX}, all topics together {max}");
        Err(AdminError::Partitions { wanted: i64::from(wanted), reason })
    }

    fn new_topic(&self, name: String, row: TopicRow, logs: Vec<Log>) -> Topic {
        let bytes_max = row.config.batch_bytes_max(&self.inner.settings.topics);
        let partitions = logs.into_iter().map(|log| Arc::new(Partition::new(log, bytes_max))).collect();
        Topic { name, id: row.id, config: row.config, partitions, is_mounted: false }
    }

    /// Opens the logs of a topic's partitions from number `from` on.
    async fn open_logs(&self, name: &str, row: &TopicRow, from: u32) -> Result<Vec<Log>, OpenError> {
        let settings = row.config.log_settings(&self.inner.settings.topics);
        let dirs: Vec<PathBuf> =
            (from..row.partitions).map(|n| self.inner.settings.dir.join(format!("{name}-{n}"))).collect();
        let volume = self.inner.volume.clone();
        let open = move || dirs.iter().map(|dir| volume.open(dir, settings.clone())).collect();
        blocking(open).await
    }

    /// Opens what the store knows, and removes the directories of topics that it does not know.
    pub(super) async fn open_topics(&self) -> Result<(), StartError> {
        let rows = self.inner.store.read().scan::<TopicRow>(TOPICS, &[])?;
        let mut known = std::collections::HashSet::new();
        for (name, row) in rows {
            let name = String::from_utf8_lossy(&name).into_owned();
            known.extend((0..row.partitions).map(|n| format!("{name}-{n}")));
            let logs = self.open_logs(&name, &row, 0).await?;
            let topic = self.new_topic(name, row, logs);
            self.topics_mut().put(topic);
        }
        let (volume, dir) = (self.inner.volume.clone(), self.inner.settings.dir.clone());
        blocking(move || remove_unknown(&volume, &dir, &known)).await
    }
}

/// Removes directories that no topic of the store has: creating or deleting a topic was interrupted.
fn remove_unknown(
    volume: &kiln_log::Volume,
    dir: &Path,
    known: &std::collections::HashSet<String>,
) -> Result<(), StartError> {
    let failed = |path: &Path, source| StartError::Io { path: path.to_owned(), source };
    for entry in volume.disk().list(dir).map_err(|error| failed(dir, error))? {
        let name = entry.name.to_string_lossy();
        if entry.is_dir && !known.contains(&*name) {
            let path = dir.join(&entry.name);
            tracing::info!(path = %path.display(), "removing what a deleted topic left behind");
            volume.disk().remove_dir_all(&path).map_err(|error| failed(&path, error))?;
        }
    }
    Ok(())
}

async fn remove_logs(logs: Vec<Log>) -> Result<(), AdminError> {
    blocking(move || logs.into_iter().try_for_each(Log::remove)).await?;
    Ok(())
}

fn empty_group(name: &str) -> GroupInfo {
    GroupInfo { name: name.to_owned(), state: "Empty".into(), members: 0, lags: Vec::new() }
}

fn info(topic: &Topic) -> TopicInfo {
    let partition = |partition: &Arc<Partition>| {
        let marks = partition.watermarks();
        PartitionInfo { start: marks.start, end: marks.durable, bytes: partition.log().bytes() }
    };
    TopicInfo {
        name: topic.name.clone(),
        id: topic.id,
        partitions: topic.partitions.iter().map(partition).collect(),
        config: topic.config.clone(),
        is_mounted: topic.is_mounted,
    }
}
