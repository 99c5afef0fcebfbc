//! One partition: its log, its producers, and what may be appended to it.

use crate::core::producer::{Producers, Refused, Stamp, Verdict};
use crate::core::topic::Retention;
use crate::core::warm::Warm;
use crate::wire::ErrorCode;
use kiln_log::batch::{BadBatch, Codec, Header, batches};
use kiln_log::{AppendError, ChangeError, Log, ReadError, Upto, Watermarks};
use kiln_types::{Offset, Timestamp};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The leader's epoch: there is one broker, and it never changes.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// How much of a log's end is read at the start to learn its producers, in bytes.
const PRODUCER_SCAN_BYTES: u64 = 64 << 20;

/// How much of it is read at a time.
const SCAN_STEP_BYTES: usize = 4 << 20;

/// Why a batch was not stored.
#[derive(Debug, thiserror::Error)]
pub enum ProduceError {
    /// It breaks a rule of its format.
    #[error("{0}")]
    Invalid(&'static str),
    /// It is larger than the topic allows.
    #[error("the batch has {bytes} bytes, max.message.bytes is {max}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// What is allowed.
        max: usize,
    },
    /// Its producer's numbers are wrong.
    #[error("{reason}")]
    Sequence {
        /// What the client is told.
        code: ErrorCode,
        /// What is wrong.
        reason: String,
    },
    /// The producers of the partition are still being read from the log.
    #[error("the partition is starting; try again")]
    Starting,
    /// The topic cannot be written.
    #[error("the topic is read-only")]
    ReadOnly,
    /// The log refused it.
    #[error(transparent)]
    Log(#[from] AppendError),
}

impl ProduceError {
    /// The code that a Kafka client gets.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invalid(_) => ErrorCode::InvalidRecord,
            Self::TooLarge { .. } | Self::Log(AppendError::TooLarge { .. }) => ErrorCode::MessageTooLarge,
            Self::Sequence { code, .. } => *code,
            Self::Starting => ErrorCode::NotLeaderOrFollower,
            Self::ReadOnly => ErrorCode::TopicAuthorizationFailed,
            Self::Log(AppendError::Bad(BadBatch::Magic(_))) => ErrorCode::UnsupportedForMessageFormat,
            Self::Log(AppendError::Bad(_)) => ErrorCode::CorruptMessage,
            Self::Log(AppendError::Full | AppendError::Failed(_)) => ErrorCode::KafkaStorageError,
        }
    }
}

impl From<Refused> for ProduceError {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Fenced { .. } => ErrorCode::InvalidProducerEpoch,
            Refused::OutOfOrder { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Refused::Duplicate { .. } => ErrorCode::DuplicateSequenceNumber,
        };
        Self::Sequence { code, reason: refused.to_string() }
    }
}

/// Where a batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// Offset of its first record.
    pub base: Offset,
    /// Offset of its last record; it is durable when this offset is.
    pub last: Offset,
}

/// A partition. It is written by one broker alone, this one.
pub(crate) struct Partition {
    log: Log,
    /// None until they have been read from the log.
    producers: Mutex<Option<Producers>>,
    warm: Mutex<Warm>,
    /// `max.message.bytes`, which may change at any time.
    batch_bytes_max: AtomicUsize,
    is_read_only: bool,
}

impl Partition {
    pub(crate) fn new(log: Log, batch_bytes_max: u32) -> Self {
        let is_new = log.watermarks().end == Offset(0);
        Self {
            log,
            producers: Mutex::new(is_new.then(Producers::default)),
            warm: Mutex::default(),
            batch_bytes_max: AtomicUsize::new(batch_bytes_max as usize),
            is_read_only: false,
        }
    }

    /// A log that others write.
    pub(crate) fn read_only(log: Log) -> Self {
        let mut partition = Self::new(log, 0);
        partition.is_read_only = true;
        partition
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    pub(crate) fn set_batch_bytes_max(&self, bytes: u32) {
        self.batch_bytes_max.store(bytes as usize, Ordering::Relaxed);
    }

    pub(crate) fn watermarks(&self) -> Watermarks {
        self.log.watermarks()
    }

    /// Appends one batch, unless it is stored already. Blocks for a copy to the page cache.
    pub(crate) fn append(&self, batch: &mut [u8]) -> Result<Placed, ProduceError> {
        let header = self.check(batch)?;
        if header.producer_id < 0 {
            let appended = self.log.append(batch, LEADER_EPOCH)?;
            self.warmed(appended.base, batch.len());
            return Ok(Placed { base: appended.base, last: appended.last });
        }
        self.append_once(batch, &header)
    }

    /// The check of the number, the append and its note are one step for every producer of the partition.
    fn append_once(&self, batch: &mut [u8], header: &Header) -> Result<Placed, ProduceError> {
        let stamp = stamp(header);
        let mut producers = lock(&self.producers);
        let producers = producers.as_mut().ok_or(ProduceError::Starting)?;
        match producers.check(stamp)? {
            Verdict::Stored { base, last } => Ok(Placed { base: Offset(base), last: Offset(last) }),
            Verdict::Append => {
                let appended = self.log.append(batch, LEADER_EPOCH)?;
                producers.appended(stamp, appended.base.0, appended.at.millis());
                self.warmed(appended.base, batch.len());
                Ok(Placed { base: appended.base, last: appended.last })
            }
        }
    }

    /// What Kafka demands of a produced batch beyond a sound header and checksum.
    fn check(&self, batch: &[u8]) -> Result<Header, ProduceError> {
        if self.is_read_only {
            return Err(ProduceError::ReadOnly);
        }
        // The formats before version 2 have their magic at the same place, and may be shorter than its header.
        if let Some(&magic @ 0..2) = batch.get(16) {
            return Err(AppendError::from(BadBatch::Magic(magic as i8)).into());
        }
        let header = Header::parse(batch).map_err(AppendError::from)?;
        let max = self.batch_bytes_max.load(Ordering::Relaxed);
        if batch.len() > max {
            return Err(ProduceError::TooLarge { bytes: batch.len(), max });
        }
        if header.bytes != batch.len() {
            return Err(ProduceError::Invalid("a partition takes exactly one whole batch per request"));
        }
        if header.is_control() || header.is_transactional() {
            return Err(ProduceError::Invalid("transactions are not served"));
        }
        if header.records.checked_sub(1) != Some(header.last_offset_delta) || header.records < 1 {
            return Err(ProduceError::Invalid("the record count does not match the last offset"));
        }
        if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
            return Err(ProduceError::Invalid("a producer id needs an epoch and a sequence number"));
        }
        if let Codec::Unknown(_) = header.codec() {
            return Err(ProduceError::Invalid("the compression codec is not known"));
        }
        Ok(header)
    }

    fn warmed(&self, base: Offset, bytes: usize) {
        lock(&self.warm).appended(base.0, bytes as u64);
    }

    /// Whether reading from `from` on will find everything in the page cache.
    pub(crate) fn is_warm(&self, from: Offset) -> bool {
        lock(&self.warm).covers(from.0)
    }

    /// Whole durable batches from the one that holds `from`. Blocks on the disk unless [`Partition::is_warm`].
    pub(crate) fn read(&self, from: Offset, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        self.log.read(from, Upto::Durable, bytes_max)
    }

    /// Reads the producers from the end of the log, if that has not been done. Blocks on the disk.
    ///
    /// What lies further back than [`PRODUCER_SCAN_BYTES`] is not looked at: a producer would have to repeat a
    /// batch that old to have it stored twice.
    pub(crate) fn load_producers(&self) -> Result<(), ReadError> {
        if lock(&self.producers).is_some() {
            return Ok(());
        }
        let mut producers = Producers::default();
        let mut next = self.scan_from();
        while next < self.watermarks().end {
            let bytes = self.log.read(next, Upto::End, SCAN_STEP_BYTES)?;
            let before = next;
            for (header, _) in batches(&bytes) {
                if header.producer_id >= 0 {
                    producers.appended(stamp(&header), header.base.0, header.max_time_ms);
                }
                next = header.last().next();
            }
            if next <= before {
                break;
            }
        }
        lock(&self.producers).get_or_insert(producers);
        Ok(())
    }

    /// The first offset of the newest segments that make up [`PRODUCER_SCAN_BYTES`].
    fn scan_from(&self) -> Offset {
        let mut bytes = 0;
        let segments = self.log.segments();
        let newest = segments.iter().rev().take_while(|segment| {
            let wanted = bytes < PRODUCER_SCAN_BYTES;
            bytes += segment.bytes;
            wanted
        });
        let first = newest.map(|segment| segment.base).min().unwrap_or_default();
        first.max(self.watermarks().start)
    }

    /// Removes the segments that are too old or too much at the time `now`; how many. Blocks on the disk.
    pub(crate) fn retain(&self, now: Timestamp, keep: Retention) -> Result<usize, ChangeError> {
        let old = match keep.age {
            Some(age) => self.log.retain(before(now, age))?,
            None => 0,
        };
        let Some(bytes_max) = keep.bytes else { return Ok(old) };
        let mut surplus = self.log.bytes().saturating_sub(bytes_max);
        let mut is_front = true;
        let more = self.log.drop_segments(&mut |segment| {
            // Only from the front: retention leaves no holes.
            is_front = is_front && segment.bytes <= surplus;
            surplus = surplus.saturating_sub(segment.bytes);
            is_front
        })?;
        Ok(old + more)
    }

    /// Forgets producers unheard of since `before_ms`, in milliseconds since the epoch.
    pub(crate) fn expire_producers(&self, before_ms: i64) {
        if let Some(producers) = lock(&self.producers).as_mut() {
            producers.expire(before_ms);
        }
    }
}

fn before(now: Timestamp, age: Duration) -> Timestamp {
    Timestamp(now.0.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX)))
}

fn stamp(header: &Header) -> Stamp {
    Stamp {
        id: header.producer_id,
        epoch: header.producer_epoch,
        first: header.base_sequence.max(0),
        delta: header.last_offset_delta.max(0),
    }
}

/// The data behind these locks is sound between any two statements, so a panic elsewhere does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
