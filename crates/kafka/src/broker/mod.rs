//! The broker: topics, their logs, groups and their offsets. Sockets are in `server`; the rest of Kiln uses
//! a [`Broker`] directly.

mod admin;
mod background;
mod groups;
mod offsets;
mod partition;
mod topics;

pub use admin::{AdminError, GroupInfo, Lag, NewTopic, PartitionInfo, TopicInfo};
pub(crate) use groups::GroupView;
pub use offsets::OffsetError;
pub(crate) use partition::{LEADER_EPOCH, Partition};
pub use partition::{Placed, ProduceError};
pub(crate) use topics::{Topic, Topics};

use crate::core::group::Limits;
use crate::machine::{Command, KafkaMachine, Rejection, Reply};
use crate::settings::Settings;
use groups::Coordinator;
use kiln_auth::Auth;
use kiln_log::batch::{Builder, Record};
use kiln_log::{Failed, Log, OpenError, Volume, Watermarks};
use kiln_store::{Handle, SubmitError};
use kiln_types::Offset;
use kiln_world::Rng;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// Producer ids taken from the store at a time.
const PRODUCER_IDS: i64 = 1_000;

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store's topics could not be read.
    #[error("read the topics: {0}")]
    Store(#[from] kiln_store::ReadError),
    /// A partition's log could not be opened.
    #[error("{0}")]
    Log(#[from] OpenError),
    /// A directory could not be listed, or what a deleted topic left could not be removed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which directory.
        path: PathBuf,
        /// The disk's error.
        source: std::io::Error,
    },
}

/// Why records could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No such topic or partition.
    #[error("there is no partition {1} of topic {0}")]
    NoPartition(String, i32),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] kiln_log::ReadError),
}

/// Why records could not be appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// No such topic or partition.
    #[error("there is no partition {1} of topic {0}")]
    NoPartition(String, i32),
    /// The partition refused.
    #[error(transparent)]
    Produce(#[from] ProduceError),
    /// The log stopped before the records were durable.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// What the broker stands on.
pub struct Parts {
    /// The logs of the disk.
    pub volume: Volume,
    /// The broker's part of the store.
    pub store: Handle<KafkaMachine>,
    /// Users, if clients may log in.
    pub auth: Option<Auth>,
    /// Where ids come from.
    pub rng: Arc<dyn Rng>,
}

/// The event log. Clones are the same broker.
#[derive(Clone)]
pub struct Broker {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) auth: Option<Auth>,
    pub(crate) groups: Coordinator,
    /// Kibibytes of requests and of fetched records that may be in memory.
    pub(crate) request_room: Arc<Semaphore>,
    pub(crate) fetch_room: Arc<Semaphore>,
    volume: Volume,
    store: Handle<KafkaMachine>,
    rng: Arc<dyn Rng>,
    /// Locked for a lookup or the swap of a topic, never for I/O.
    topics: RwLock<Topics>,
    /// Held while topics are created, grown and deleted, so that the store, the registry and the directories go
    /// together; the path of data never takes it.
    admin: tokio::sync::Mutex<()>,
    /// Producer ids taken from the store and not yet given away.
    producer_ids: Mutex<Range<i64>>,
    /// Retention, group timers; they end with the broker.
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            task.abort();
        }
    }
}

impl Broker {
    /// Opens every topic's logs, removes what deleted topics have left behind, and starts the timers.
    pub async fn start(parts: Parts, settings: Settings) -> Result<Self, StartError> {
        let limits = Limits {
            session_min: settings.group_session.0,
            session_max: settings.group_session.1,
            initial_delay: settings.group_initial_delay,
            members_max: settings.group_members_max,
        };
        let groups = Coordinator::new(parts.volume.clock().clone(), limits, settings.groups_max);
        let inner = Inner {
            groups,
            request_room: Arc::new(Semaphore::new(kibibytes(settings.requests_bytes_max) as usize)),
            fetch_room: Arc::new(Semaphore::new(kibibytes(settings.fetches_bytes_max) as usize)),
            settings,
            auth: parts.auth,
            volume: parts.volume,
            store: parts.store,
            rng: parts.rng,
            topics: RwLock::default(),
            admin: tokio::sync::Mutex::default(),
            producer_ids: Mutex::new(0..0),
            tasks: Mutex::default(),
        };
        let broker = Self { inner: Arc::new(inner) };
        broker.open_topics().await?;
        broker.start_tasks();
        Ok(broker)
    }

    /// Exposes a log of another service as a topic that clients can only read, with one partition.
    ///
    /// Its id follows from its name, so that it stays the same. A topic of that name that clients made before is
    /// hidden while the log is mounted.
    pub fn mount(&self, name: &str, log: Log) {
        let mut id = [0_u8; 16];
        for (n, byte) in name.bytes().enumerate() {
            id[n % 16] = id[n % 16].rotate_left(3) ^ byte;
        }
        id[6] = id[6] & 0x0f | 0x80; // UUID version 8: made by rules of one's own (RFC 9562)
        let partitions = vec![Arc::new(Partition::read_only(log))];
        let config = crate::core::topic::TopicConfig::default();
        self.topics_mut().put(Topic { name: name.to_owned(), id, config, partitions, is_mounted: true });
    }

    /// Appends one record batch and returns where it went; it is not durable yet, see [`Broker::durable`].
    ///
    /// Base offset and leader epoch are patched into `batch`. Blocks for a copy to the page cache.
    pub fn append(&self, topic: &str, partition: i32, batch: &mut [u8]) -> Result<Placed, AppendError> {
        Ok(self.appendable(topic, partition)?.append(batch)?)
    }

    /// As [`Broker::append`], from single records, as one uncompressed batch.
    pub fn append_records(
        &self,
        topic: &str,
        partition: i32,
        records: &[Record<'_>],
    ) -> Result<Placed, AppendError> {
        let now = self.inner.volume.clock().now().millis();
        let mut builder = Builder::new(records.first().map_or(now, |record| record.time_ms));
        for record in records {
            builder.push(record);
        }
        self.append(topic, partition, &mut builder.finish())
    }

    /// Resolves when everything up to `last` is on the disk.
    pub async fn durable(&self, topic: &str, partition: i32, last: Offset) -> Result<(), AppendError> {
        let log = self.appendable(topic, partition)?.log().clone();
        Ok(log.durable(last).await?)
    }

    /// Whole durable batches from the one that holds `from`, about `bytes_max` bytes; empty at the end.
    ///
    /// Recent records are read at once; older ones apart, so that the disk does not hold up the caller's thread.
    pub async fn read(
        &self,
        topic: &str,
        partition: i32,
        from: Offset,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ReadError> {
        let partition = self.readable(topic, partition)?;
        Ok(read_partition(&partition, from, bytes_max).await?)
    }

    /// First, durable and next offset of a partition, now and whenever they move.
    pub fn watch(&self, topic: &str, partition: i32) -> Result<watch::Receiver<Watermarks>, ReadError> {
        Ok(self.readable(topic, partition)?.log().watch())
    }

    fn readable(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, ReadError> {
        self.partition(topic, partition).ok_or_else(|| ReadError::NoPartition(topic.to_owned(), partition))
    }

    fn appendable(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, AppendError> {
        self.partition(topic, partition).ok_or_else(|| AppendError::NoPartition(topic.to_owned(), partition))
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<Arc<Partition>> {
        self.topics().get(topic)?.partition(partition).cloned()
    }

    pub(crate) fn topic(&self, name: &str) -> Option<Arc<Topic>> {
        self.topics().get(name).cloned()
    }

    pub(crate) fn topics(&self) -> RwLockReadGuard<'_, Topics> {
        self.inner.topics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn topics_mut(&self) -> RwLockWriteGuard<'_, Topics> {
        self.inner.topics.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A producer id that nobody has had.
    pub(crate) async fn producer_id(&self) -> Result<i64, SubmitError<Rejection>> {
        if let Some(id) = self.spare_producer_id() {
            return Ok(id);
        }
        let reply = self.inner.store.submit(Command::TakeProducerIds { count: PRODUCER_IDS }).await?;
        let first = if let Reply::ProducerIds(first) = reply { first } else { 0 };
        // If others took a range at the same time, theirs is forgotten: ids are plenty.
        *self.inner.producer_ids.lock().unwrap_or_else(PoisonError::into_inner) =
            first + 1..first + PRODUCER_IDS;
        Ok(first)
    }

    fn spare_producer_id(&self) -> Option<i64> {
        self.inner.producer_ids.lock().unwrap_or_else(PoisonError::into_inner).next()
    }

    /// Sixteen random bytes in the form of a UUID of version 4 (RFC 9562).
    pub(crate) fn random_id(&self) -> [u8; 16] {
        let mut id = [0; 16];
        self.inner.rng.fill(&mut id);
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        id
    }
}

/// Reads inline what is surely in the page cache, and anything else on a thread that may block.
pub(crate) async fn read_partition(
    partition: &Arc<Partition>,
    from: Offset,
    bytes_max: usize,
) -> Result<Vec<u8>, kiln_log::ReadError> {
    if partition.is_warm(from) {
        return partition.read(from, bytes_max);
    }
    let partition = partition.clone();
    blocking(move || partition.read(from, bytes_max)).await
}

/// Runs what blocks on the disk on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    ended(tokio::task::spawn_blocking(work)).await
}

/// Runs a change of store, registry and directories to its end, also when whoever waits for it goes away.
///
/// A client may close its connection at any moment, and its requests go with it. A change that ended in the middle
/// would leave a topic that the store has and the registry has not: it could be neither used nor created.
async fn to_the_end<T: Send + 'static>(change: impl Future<Output = T> + Send + 'static) -> T {
    ended(tokio::spawn(change)).await
}

async fn ended<T>(task: JoinHandle<T>) -> T {
    match task.await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => std::future::pending().await, // the runtime is going down, and the caller with it
    }
}

/// Permits for so many bytes, at least one.
pub(crate) fn kibibytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).max(1)
}
