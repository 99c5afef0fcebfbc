//! One log: appending, watermarks, and its part in a flush round.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use kiln_types::{Offset, Timestamp};
use kiln_world::{File, Open};
use tokio::sync::watch;

use crate::batch::{self, BadBatch, Header};
use crate::error::{AppendError, Failed};
use crate::meta::Meta;
use crate::segment::{Active, OpenSegment, SEGMENT_BYTES_LIMIT, Sealed, SegmentInfo, log_path};
use crate::volume::Volume;
use crate::waiters::{Durable, Waiters, Woken};

/// `log.meta` is brought up to date at the latest after this many durable bytes, so that recovery can tell damage
/// from a torn tail.
const META_INTERVAL_BYTES: u64 = 4 << 20;

/// How a log behaves. All sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A segment that would grow beyond this is sealed, and a new one begun. At most 2 GiB.
    pub segment_bytes_max: u64,
    /// Distance of the entries in the index.
    pub index_interval_bytes: u32,
    /// Sealed segments are removed, oldest first, while the log is larger than this.
    pub retention_bytes: Option<u64>,
    /// Segments are removed when their newest record is older than this.
    pub retention_age: Option<Duration>,
    /// A segment is sealed at the next append when its first batch is older than this.
    pub segment_age_max: Option<Duration>,
    /// The largest batch that is taken.
    pub batch_bytes_max: u32,
    /// So many zeros are written behind the end when it has reached the last of them: a batch that takes the place of zeros
    /// becomes durable without a change of the file's size, in half the time. 0: none.
    pub fill_ahead_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            segment_bytes_max: 64 << 20,
            index_interval_bytes: 4096,
            retention_bytes: None,
            retention_age: None,
            segment_age_max: None,
            batch_bytes_max: 64 << 20,
            fill_ahead_bytes: 0,
        }
    }
}

/// Where an append went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base: Offset,
    /// Offset of the last record.
    pub last: Offset,
    /// The time of appending.
    pub at: Timestamp,
}

/// What a log holds: `start <= durable <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watermarks {
    /// The first offset that can be read.
    pub start: Offset,
    /// The first offset that is not durable: all below survive a power failure.
    pub durable: Offset,
    /// The offset that the next record gets.
    pub end: Offset,
}

/// An open log. Clones are the same log.
#[derive(Clone)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles of a log share.
pub(crate) struct Shared {
    /// Unlike any other log's in this volume; the key in the cache of open segments.
    pub(crate) id: u64,
    pub(crate) volume: Volume,
    pub(crate) dir: Arc<Path>,
    pub(crate) settings: Settings,
    pub(crate) state: Mutex<State>,
    pub(crate) waiters: Waiters,
    pub(crate) watch: watch::Sender<Watermarks>,
    /// What `log.meta` says; locked before `state`, never while holding it.
    pub(crate) meta: Mutex<KnownMeta>,
}

/// What `log.meta` says, and how much was written when it was written.
pub(crate) struct KnownMeta {
    pub(crate) meta: Meta,
    pub(crate) written_bytes: u64,
}

/// Guarded by a lock that is held for a write to the page cache, never for a sync.
pub(crate) struct State {
    pub(crate) marks: Watermarks,
    /// Oldest first. Offsets between two segments may be missing, none may be in both.
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) active: Active,
    /// The log is in the volume's queue.
    pub(crate) queued: bool,
    /// Names in the directory changed since its last sync.
    pub(crate) names_dirty: bool,
    /// Bytes written since the log was opened.
    pub(crate) written_bytes: u64,
    pub(crate) failed: Option<Failed>,
}

/// What a round takes from a log.
pub(crate) struct FlushWork {
    pub(crate) dir: Arc<Path>,
    /// Everything below is durable when the round succeeds.
    target: Offset,
    /// The directory and its parents are to be synced too.
    pub(crate) names: bool,
    /// Segments sealed since the last round.
    sealed: Vec<Arc<OpenSegment>>,
    /// Bytes written since the log was opened.
    written_bytes: u64,
}

impl Log {
    pub(crate) fn from_shared(shared: Arc<Shared>) -> Log {
        Log { shared }
    }

    /// Appends the batches that lie back to back in `bytes`, all or none.
    ///
    /// Checks length, record count and CRC-32C, patches base offset and `leader_epoch` into `bytes`, and writes
    /// them to the page cache. They are not durable yet: see [`Log::durable`]. Blocks for as long as the copy takes.
    pub fn append(&self, bytes: &mut [u8], leader_epoch: i32) -> Result<Appended, AppendError> {
        let shared = &self.shared;
        check(bytes, shared.settings.batch_bytes_max as usize)?;
        let at = shared.volume.clock().now();
        let mut state = shared.lock();
        if let Some(failed) = &state.failed {
            return Err(AppendError::Failed(failed.clone()));
        }
        let outcome = shared.write(&mut state, bytes, leader_epoch, at);
        let base = match outcome {
            Ok(base) => base,
            Err(error) if is_full(&error) => return Err(AppendError::Full),
            Err(error) => {
                drop(state);
                return Err(AppendError::Failed(shared.stop(&error)));
            }
        };
        let last = Offset(state.marks.end.0 - 1);
        if !state.queued {
            state.queued = true;
            shared.volume.enqueue(Arc::clone(shared));
        }
        Ok(Appended { base, last, at })
    }

    /// Resolves when `last` and everything before it is on the disk, or the log has stopped. Asks for a flush.
    pub fn durable(&self, last: Offset) -> impl Future<Output = Result<(), Failed>> + Send + 'static + use<> {
        Durable::new(Arc::clone(&self.shared), last)
    }

    /// As [`Log::durable`], by a function. It is run on the flusher's thread, or at once when the outcome is known;
    /// it must be quick and must not append.
    pub fn on_durable(&self, last: Offset, f: Box<dyn FnOnce(Result<(), Failed>) + Send>) {
        match self.shared.waiters.add_call(last, f) {
            None => self.shared.volume.ask(),
            Some((f, outcome)) => f(outcome),
        }
    }

    /// Blocks until `last` and everything before it is on the disk, or the log has stopped. Who waits alone flushes on its own
    /// thread, which saves the way to the flusher and back.
    pub fn wait_durable(&self, last: Offset) -> Result<(), Failed> {
        self.shared.volume.flush_alone();
        let (done, wait) = mpsc::sync_channel(1);
        self.on_durable(
            last,
            Box::new(move |outcome| {
                // The receiver waits below for as long as this can be called.
                let _ = done.send(outcome);
            }),
        );
        let never = |_| Err(Failed::new(&self.shared.dir, &io::ErrorKind::NotConnected.into()));
        wait.recv().unwrap_or_else(never)
    }

    /// Start, durable and end as they are now.
    pub fn watermarks(&self) -> Watermarks {
        self.shared.lock().marks
    }

    /// Tells of new watermarks each time that `durable` or `start` moves; `end` is then up to date too, but an append
    /// alone is not told (it is flushed, and told, within milliseconds).
    pub fn watch(&self) -> watch::Receiver<Watermarks> {
        self.shared.watch.subscribe()
    }

    /// The size of all segments, in bytes.
    pub fn bytes(&self) -> u64 {
        self.shared.lock().bytes()
    }

    /// All segments, oldest first; the last one is being written.
    pub fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.lock();
        state.sealed.iter().map(|sealed| sealed.info).chain([state.active.info]).collect()
    }

    /// The log's directory, relative to the disk's root.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }
}

/// Refuses anything but whole, sound batches.
fn check(bytes: &[u8], max: usize) -> Result<(), AppendError> {
    let mut rest = bytes;
    loop {
        let header = batch::verify(rest)?;
        if header.bytes > max {
            return Err(AppendError::TooLarge { bytes: header.bytes, max });
        }
        if header.last_offset_delta != header.records - 1 {
            let Header { records, last_offset_delta: last_delta, .. } = header;
            return Err(AppendError::Bad(BadBatch::Count { records, last_delta }));
        }
        rest = &rest[header.bytes..];
        if rest.is_empty() {
            return Ok(());
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl State {
    pub(crate) fn bytes(&self) -> u64 {
        self.sealed.iter().map(|sealed| sealed.info.bytes).sum::<u64>() + self.active.info.bytes
    }

    /// Whether the active segment should be sealed before `more` bytes are written.
    fn is_segment_due(&self, settings: &Settings, more: u64, now: Timestamp) -> bool {
        let active = &self.active;
        if active.info.is_empty() {
            return false;
        }
        // A clock that was set back makes nothing old.
        let age_us = active.born.map_or(0, |born| now.0.saturating_sub(born.0).max(0));
        let old = |age_max: Duration| age_us as u128 > age_max.as_micros();
        active.info.bytes + more > settings.segment_bytes_max.min(SEGMENT_BYTES_LIMIT)
            || settings.segment_age_max.is_some_and(old)
            || self.marks.end.0 - active.info.base.0 > i64::from(i32::MAX)
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn dir(&self) -> &Arc<Path> {
        &self.dir
    }

    /// Writes batches at the end, all or none; returns the first offset.
    fn write(&self, state: &mut State, bytes: &mut [u8], epoch: i32, at: Timestamp) -> io::Result<Offset> {
        if state.is_segment_due(&self.settings, bytes.len() as u64, at) {
            self.roll(state)?;
        }
        let base = state.marks.end;
        batch::patch_all(bytes, base, epoch);
        let position = state.active.info.bytes;
        state.written_bytes += bytes.len() as u64;
        if let Err(error) = state.active.file.write_all_at(&[bytes], position) {
            // What was written of it is cut off, so that the log can go on behind the last whole batch.
            state.active.file.set_len(position)?;
            state.active.filled = position;
            return Err(error);
        }
        self.fill_ahead(&mut state.active, position + bytes.len() as u64);
        for (header, _) in batch::batches(bytes) {
            state.active.wrote(&header);
        }
        state.active.born.get_or_insert(at);
        state.marks.end = state.active.info.last.next();
        Ok(base)
    }

    /// Zeros behind `end`, unless there are some.
    fn fill_ahead(&self, active: &mut Active, end: u64) {
        if end <= active.filled || self.settings.fill_ahead_bytes == 0 {
            active.filled = active.filled.max(end);
            return;
        }
        let room = self.settings.segment_bytes_max.saturating_sub(end);
        let zeros = vec![0; self.settings.fill_ahead_bytes.min(room) as usize];
        active.filled = end;
        // Without them it is only slower; on a full disk some may stay, and count as none.
        if active.file.write_all_at(&[&zeros], end).is_ok() {
            active.filled += zeros.len() as u64;
        }
    }

    /// Seals the active segment and begins a new one. Both files, and the directory, are synced by the next round
    /// before it calls anything durable; until then recovery treats all of it as tail.
    pub(crate) fn roll(&self, state: &mut State) -> io::Result<()> {
        let base = state.marks.end;
        // A sealed segment is what it holds; this is durable with the next segment's first record.
        if self.settings.fill_ahead_bytes > 0 {
            state.active.file.set_len(state.active.info.bytes)?;
            state.active.filled = state.active.info.bytes;
        }
        let file = self.volume.disk().open(&log_path(&self.dir, base), Open::New)?;
        let next = Active::new(base, file, self.settings.index_interval_bytes);
        let sealed = std::mem::replace(&mut state.active, next).seal();
        state.sealed.push_back(sealed);
        state.names_dirty = true;
        Ok(())
    }

    /// Latches an error that leaves the log's state on disk unknown.
    fn stop(&self, error: &io::Error) -> Failed {
        tracing::error!(%error, log = %self.dir.display(), "failed to write; the log stops");
        let failed = Failed::new(&self.dir, error);
        let mut woken = Woken::default();
        self.fail(&failed, &mut woken);
        woken.wake();
        failed
    }

    /// Latches `failed` and collects everybody who waits.
    pub(crate) fn fail(&self, failed: &Failed, woken: &mut Woken) {
        self.lock().failed.get_or_insert_with(|| failed.clone());
        self.waiters.fail(failed, woken);
    }

    /// Takes what there is to flush; adds the files to `files`.
    pub(crate) fn begin_flush(&self, files: &mut Vec<Arc<dyn File>>) -> FlushWork {
        let mut state = self.lock();
        state.queued = false;
        let sealed: Vec<_> = state.sealed.iter().rev().map_while(|sealed| sealed.unsynced.clone()).collect();
        files.extend(sealed.iter().map(|segment| Arc::clone(&segment.file)));
        files.push(Arc::clone(&state.active.file));
        let names = std::mem::take(&mut state.names_dirty);
        let written_bytes = state.written_bytes;
        FlushWork { dir: Arc::clone(&self.dir), target: state.marks.end, names, sealed, written_bytes }
    }

    /// The round succeeded: advances the watermark and collects those who waited for it.
    pub(crate) fn end_flush(&self, work: &FlushWork, woken: &mut Woken) {
        let mut state = self.lock();
        debug_assert!(work.target <= state.marks.end, "nothing is durable before it is written");
        if state.failed.is_some() {
            return;
        }
        state.marks.durable = state.marks.durable.max(work.target);
        let durable = state.marks.durable;
        drop(state);
        self.waiters.advance(durable, woken);
        self.publish();
    }

    /// Tells the watchers.
    pub(crate) fn publish(&self) {
        self.watch.send_modify(|marks| *marks = self.lock().marks);
    }

    /// What can wait until the waiters were woken: saves the indexes of segments that were sealed, and what is
    /// durable now. An error here costs speed at the next start, or the telling apart of damage and torn tail in
    /// what was written last; it loses nothing.
    pub(crate) fn after_flush(&self, work: &FlushWork) {
        // Held throughout, so that nothing is written to the directory of a log that is being removed.
        let mut known = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        if self.lock().failed.is_some() {
            return;
        }
        for segment in &work.sealed {
            self.save_index(segment);
        }
        let is_sealed = !work.sealed.is_empty();
        if is_sealed || work.written_bytes - known.written_bytes >= META_INTERVAL_BYTES {
            known.written_bytes = work.written_bytes;
            if let Err(error) = self.write_meta(&mut known.meta, Offset(0), is_sealed) {
                tracing::warn!(%error, log = %self.dir.display(), "failed to write log.meta");
            }
        }
    }

    fn save_index(&self, segment: &OpenSegment) {
        if let Err(error) = segment.save_index(&**self.volume.disk(), &self.dir) {
            tracing::warn!(%error, log = %self.dir.display(), "failed to save an index; it will be rebuilt");
        }
        let mut state = self.lock();
        let sealed = state.sealed.iter_mut().rev().find(|sealed| sealed.info.base == segment.info.base);
        if let Some(sealed) = sealed {
            sealed.unsynced = None;
        }
    }

    /// Writes the start, which is to be at least `start`, and the durable watermark to `log.meta`.
    pub(crate) fn write_meta(&self, meta: &mut Meta, start: Offset, sync: bool) -> io::Result<()> {
        let marks = self.lock().marks;
        let next =
            Meta { sequence: meta.sequence + 1, start: marks.start.max(start), durable: marks.durable };
        next.write(&**self.volume.disk(), &self.dir, sync)?;
        *meta = next;
        Ok(())
    }

    /// Stops the log for good, after the volume's last flush.
    pub(crate) fn close(&self) {
        let mut known = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = self.lock().marks;
        if self.lock().failed.is_none()
            && (known.meta.start, known.meta.durable) != (marks.start, marks.durable)
            && let Err(error) = self.write_meta(&mut known.meta, Offset(0), false)
        {
            tracing::warn!(%error, log = %self.dir.display(), "failed to write log.meta");
        }
        let mut woken = Woken::default();
        let closed = io::Error::new(io::ErrorKind::NotConnected, "the volume was closed");
        self.fail(&Failed::new(&self.dir, &closed), &mut woken);
        woken.wake();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.volume.forget_dead(&self.dir);
    }
}
