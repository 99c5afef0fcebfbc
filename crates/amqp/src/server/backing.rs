//! A queue's place on disk: the log of its messages and the companion log of what is done with.

use std::path::{Path, PathBuf};

use kiln_log::{AppendError, Log, OpenError, ReadError, Settings, Upto, Volume};
use kiln_types::Offset;

use crate::core::{Entry, Message};
use crate::server::live::Live;
use crate::server::record::{
    Mark, Recovered, StoredMessage, decode_messages, encode_messages, marks, ranges,
};

/// Small segments, so that a queue that is consumed gives its space back soon.
const SEGMENT_BYTES_MAX: u64 = 16 << 20;
/// The largest batch: one message of the largest size with its properties.
const BATCH_BYTES_MAX: u32 = 160 << 20;
/// Bytes read back from the log at a time.
const READ_BYTES: usize = 512 * 1024;
/// After so many settled messages, dead segments are looked for.
const RECLAIM_INTERVAL: usize = 8192;
/// As well after so many bytes of settled bodies.
const RECLAIM_BYTES: u64 = SEGMENT_BYTES_MAX / 2;
/// A companion log larger than this, and than twice its last snapshot, is replaced by a snapshot.
const MARKS_BYTES_MAX: u64 = 4 << 20;
/// Records of the companion log between two looks at its size.
const SNAPSHOT_INTERVAL: i64 = 4096;
/// Segments of the companion log; one goes as soon as a snapshot stands behind it.
const MARKS_SEGMENT_BYTES_MAX: u64 = 1 << 20;

/// What is on disk for one queue.
pub(super) struct Backing {
    messages: Log,
    /// Only for a durable queue: what a restart must know.
    marks: Option<Marks>,
    live: Live,
    settled_since_reclaim: usize,
    settled_bytes: u64,
}

struct Marks {
    log: Log,
    /// Offsets below were told to be delivered.
    delivered: i64,
    /// The size of the last snapshot.
    snapshot_bytes: u64,
    /// The offset at which to ask again whether a snapshot is due.
    next_snapshot: i64,
    /// A mark was lost to a full disk; a snapshot will make up for it.
    is_behind: bool,
}

/// Blocking work to be done outside the queue's lock.
pub(super) enum Chore {
    /// Remove the segments in which nothing is live.
    Reclaim { log: Log, live: Live, end: i64 },
    /// Wait until the snapshot at this offset is durable, then drop what stands before it.
    Shorten { log: Log, to: Offset },
}

impl Chore {
    /// Does the work; blocks.
    pub(super) async fn run(self) {
        let outcome = match self {
            Self::Reclaim { log, live, end } => {
                blocking(move || {
                    log.drop_segments(&mut |s| s.last.0 < end && live.is_dead(s.base.0, s.last.0)).map(drop)
                })
                .await
            }
            Self::Shorten { log, to } => {
                if log.durable(to).await.is_err() {
                    return;
                }
                blocking(move || log.set_start(to)).await
            }
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "failed to give back a queue's disk space");
        }
    }
}

async fn blocking(
    work: impl FnOnce() -> Result<(), kiln_log::ChangeError> + Send + 'static,
) -> Result<(), String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn settings() -> Settings {
    Settings { segment_bytes_max: SEGMENT_BYTES_MAX, batch_bytes_max: BATCH_BYTES_MAX, ..Settings::default() }
}

/// The directory of a queue's messages and that of its marks.
fn directories(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join("messages"), dir.join("marks"))
}

impl Backing {
    /// Opens or creates what is on disk in `dir`, and shows `found` each message that is still to be delivered, with
    /// whether it was delivered before; none is kept in memory. A queue that is not `durable` starts with nothing.
    pub(super) fn open(
        volume: &Volume,
        dir: &Path,
        durable: bool,
        found: &mut dyn FnMut(&StoredMessage, bool),
    ) -> Result<Self, BackingError> {
        let (messages_dir, marks_dir) = directories(dir);
        let messages = volume.open(&messages_dir, settings())?;
        let mut backing =
            Self { messages, marks: None, live: Live::default(), settled_since_reclaim: 0, settled_bytes: 0 };
        if !durable {
            return Ok(backing);
        }
        let log =
            volume.open(&marks_dir, Settings { segment_bytes_max: MARKS_SEGMENT_BYTES_MAX, ..settings() })?;
        let recovered = read_marks(&log)?;
        backing.marks = Some(Marks {
            log,
            delivered: recovered.delivered,
            snapshot_bytes: 0,
            next_snapshot: 0,
            is_behind: false,
        });
        backing.recover(&recovered, found)?;
        Ok(backing)
    }

    fn recover(
        &mut self,
        recovered: &Recovered,
        found: &mut dyn FnMut(&StoredMessage, bool),
    ) -> Result<(), BackingError> {
        let end = self.messages.watermarks().end;
        let mut at = self.messages.watermarks().start;
        while at < end {
            let bytes = self.messages.read(at, Upto::End, READ_BYTES)?;
            let Some(last) = kiln_log::batch::batches(&bytes).last().map(|(header, _)| header.last()) else {
                break;
            };
            for stored in decode_messages(bytes) {
                if stored.offset >= at.0 && !stored.transient && recovered.is_live(stored.offset) {
                    let delivered = stored.offset < recovered.delivered;
                    self.live.add(stored.offset, 1);
                    found(&stored, delivered);
                }
            }
            at = last.next();
        }
        Ok(())
    }

    /// The log of messages, to wait for its flush.
    pub(super) fn log(&self) -> &Log {
        &self.messages
    }

    /// Bytes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.messages.bytes() + self.marks.as_ref().map_or(0, |marks| marks.log.bytes())
    }

    /// Appends messages, each with whether it is transient; gives the first and the last offset.
    pub(super) fn append<'m>(
        &mut self,
        messages: impl ExactSizeIterator<Item = (&'m Message, bool)>,
        now_ms: i64,
    ) -> Result<(i64, Offset), AppendError> {
        let count = messages.len();
        let mut bytes = encode_messages(messages, now_ms);
        let appended = self.messages.append(&mut bytes, 0)?;
        self.live.add(appended.base.0, count);
        Ok((appended.base.0, appended.last))
    }

    /// Notes that messages with so many bytes of bodies are done with. Not waited for: what is lost with the power
    /// comes again.
    pub(super) fn settle(&mut self, offsets: Vec<i64>, bytes: u64, now_ms: i64) {
        if offsets.is_empty() {
            return;
        }
        self.settled_since_reclaim += offsets.len();
        self.settled_bytes += bytes;
        self.live.remove(&offsets);
        self.mark(&Mark::Settled(offsets), now_ms);
    }

    /// Notes that messages up to `offset` are being delivered, so that a restart marks them as redelivered.
    pub(super) fn delivered(&mut self, offset: i64, now_ms: i64) {
        if self.marks.as_ref().is_some_and(|marks| marks.delivered <= offset) {
            self.mark(&Mark::Delivered(offset + 1), now_ms);
            if let Some(marks) = &mut self.marks {
                marks.delivered = offset + 1;
            }
        }
    }

    fn mark(&mut self, mark: &Mark, now_ms: i64) {
        let Some(marks) = &mut self.marks else { return };
        match marks.log.append(&mut mark.encode(now_ms), 0) {
            // There is space again.
            Ok(_) if marks.is_behind => marks.next_snapshot = 0,
            Ok(_) => {}
            Err(AppendError::Full) => marks.is_behind = true,
            // The messages come again after a restart, which at-least-once delivery allows.
            Err(error) => tracing::warn!(%error, "failed to note acknowledgements"),
        }
    }

    fn snapshot(&self) -> Mark {
        Mark::Snapshot {
            end: self.messages.watermarks().end.0,
            delivered: self.marks.as_ref().map_or(0, |marks| marks.delivered),
            live: ranges(self.live.offsets()),
        }
    }

    /// Reads messages from `offset` on.
    pub(super) fn read(&self, offset: i64) -> Result<Vec<StoredMessage>, ReadError> {
        self.messages.read(Offset(offset), Upto::End, READ_BYTES).map(decode_messages)
    }

    /// What is worth doing now, outside the lock. Space that can be given back goes first: on a full disk the rest waits
    /// for it.
    pub(super) fn chore(&mut self, now_ms: i64) -> Option<Chore> {
        self.reclaim().or_else(|| self.shorten(now_ms))
    }

    fn reclaim(&mut self) -> Option<Chore> {
        if self.settled_since_reclaim < RECLAIM_INTERVAL && self.settled_bytes < RECLAIM_BYTES {
            return None;
        }
        // What a large batch settled beyond the mark counts for the next look: how acknowledgements came in batches
        // never decides whether a segment is looked at.
        self.settled_since_reclaim %= RECLAIM_INTERVAL;
        self.settled_bytes %= RECLAIM_BYTES;
        let segments = self.messages.segments();
        let (_, sealed) = segments.split_last()?;
        if !sealed.iter().any(|s| self.live.is_dead(s.base.0, s.last.0)) {
            return None;
        }
        let end = self.messages.watermarks().end.0;
        Some(Chore::Reclaim { log: self.messages.clone(), live: self.live.clone(), end })
    }

    fn shorten(&mut self, now_ms: i64) -> Option<Chore> {
        let marks = self.marks.as_ref()?;
        let end = marks.log.watermarks().end.0;
        // Few records are never many bytes; looking at the size of all segments costs more than this.
        if end < marks.next_snapshot {
            return None;
        }
        let due = marks.is_behind || marks.log.bytes() >= MARKS_BYTES_MAX.max(2 * marks.snapshot_bytes);
        let snapshot = due.then(|| self.snapshot().encode(now_ms));
        let marks = self.marks.as_mut()?;
        marks.next_snapshot = end + SNAPSHOT_INTERVAL;
        let mut bytes = snapshot?;
        marks.snapshot_bytes = bytes.len() as u64;
        let at = marks.log.append(&mut bytes, 0).ok()?;
        marks.is_behind = false;
        Some(Chore::Shorten { log: marks.log.clone(), to: at.base })
    }

    /// Removes everything from disk; blocks.
    pub(super) fn remove(self) -> Result<(), kiln_log::ChangeError> {
        self.messages.remove()?;
        match self.marks {
            Some(marks) => marks.log.remove(),
            None => Ok(()),
        }
    }
}

fn read_marks(log: &Log) -> Result<Recovered, ReadError> {
    let mut recovered = Recovered::default();
    let end = log.watermarks().end;
    let mut at = log.watermarks().start;
    while at < end {
        let bytes = log.read(at, Upto::End, READ_BYTES)?;
        let Some(last) = kiln_log::batch::batches(&bytes).last().map(|(header, _)| header.last()) else {
            break;
        };
        marks(&bytes).for_each(|mark| recovered.apply(mark));
        at = last.next();
    }
    Ok(recovered)
}

/// Whether `entry` is in the log, for [`Backing::settle`].
pub(super) fn logged_offset(entry: &Entry) -> Option<i64> {
    entry.is_logged().then_some(entry.offset)
}

/// Why a queue's place on disk cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// A log does not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A log does not read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

impl BackingError {
    /// Whether it works again when there is space.
    pub(super) fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, Self::Open(OpenError::Io { source, .. }) if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}
