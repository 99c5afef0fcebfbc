//! Reading by offset and by time, while others append.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_types::Offset;
use kiln_world::{File, Open};

use crate::batch::{self, BadBatch, HEADER_BYTES, Header};
use crate::error::ReadError;
use crate::log::{Log, Shared, State};
use crate::recover::{load_index, scan};
use crate::segment::{OpenSegment, SegmentInfo, log_path};

/// Sealed segments that a volume holds open (file and index) at most.
const OPEN_SEGMENTS_MAX: usize = 256;
/// How much is read at a time while looking for a batch behind an index entry, in bytes.
const SEEK_BYTES: usize = 4096;

/// How far a read may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upto {
    /// Only what survives a power failure.
    Durable,
    /// All that was appended.
    End,
}

/// A segment to read from, and how far.
struct Source {
    info: SegmentInfo,
    file: Arc<dyn File>,
    path: PathBuf,
    /// Where to start looking, in bytes.
    position: u64,
    /// Batches from here on are not to be read.
    limit: Offset,
}

/// What a reader looks for in a segment.
#[derive(Clone, Copy)]
enum Goal {
    Offset(Offset),
    Time(i64),
}

impl Log {
    /// Reads whole batches back to back, from the one that holds `from` (so the first may begin before it), about
    /// `bytes_max` bytes but at least one batch. Empty when there is nothing from `from` on. Every checksum is
    /// verified.
    pub fn read(&self, from: Offset, limit: Upto, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let Some(source) = retry_if_removed(|| self.shared.source(from, limit))? else {
            return Ok(Vec::new());
        };
        let Some((position, first)) = source.seek(|header| header.last() >= from)? else {
            return Ok(Vec::new());
        };
        source.read(position, &first, bytes_max)
    }

    /// The first durable record with a timestamp of at least `time_ms` (milliseconds since the epoch), and its
    /// timestamp. Of a compressed batch, whose records cannot be told apart here, the first offset.
    pub fn offset_at(&self, time_ms: i64) -> Result<Option<(Offset, i64)>, ReadError> {
        let mut next = self.shared.lock().marks.start;
        while let Some(source) = retry_if_removed(|| self.shared.source_at(next, time_ms))? {
            let after = source.info.last.next();
            let found = source.seek(|header| header.max_time_ms >= time_ms && header.last() >= next)?;
            if let Some((position, header)) = found {
                let batch = source.read(position, &header, header.bytes)?;
                return Ok(Some(first_at(&batch, &header, time_ms, next)));
            }
            next = after;
        }
        Ok(None)
    }
}

/// The first record of `batch` at or after both `time_ms` and `start`; its first offset if records cannot be read.
fn first_at(batch: &[u8], header: &Header, time_ms: i64, start: Offset) -> (Offset, i64) {
    batch::records(batch)
        .map_while(Result::ok)
        .find(|record| record.time_ms >= time_ms && record.offset >= start)
        .map_or((header.base.max(start), header.max_time_ms), |record| (record.offset, record.time_ms))
}

/// A segment can be removed between being chosen and being opened; another choice is then made.
fn retry_if_removed<T>(choose: impl Fn() -> Result<T, ReadError>) -> Result<T, ReadError> {
    match choose() {
        Err(ReadError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => choose(),
        outcome => outcome,
    }
}

impl Shared {
    /// The segment that holds `from`, or the next one where offsets are missing; `None` at the end.
    fn source(&self, from: Offset, limit: Upto) -> Result<Option<Source>, ReadError> {
        let state = self.lock();
        let limit = match limit {
            Upto::Durable => state.marks.durable,
            Upto::End => state.marks.end,
        };
        if from < state.marks.start || from > limit {
            return Err(ReadError::OutOfRange { start: state.marks.start, end: limit });
        }
        if from == limit {
            return Ok(None);
        }
        let at = state.sealed.partition_point(|sealed| sealed.info.last < from);
        self.open_source(state, at, Goal::Offset(from), limit).map(Some)
    }

    /// The first segment from `from` on with a record of at least `time_ms`.
    fn source_at(&self, from: Offset, time_ms: i64) -> Result<Option<Source>, ReadError> {
        let state = self.lock();
        let limit = state.marks.durable;
        let from = from.max(state.marks.start);
        let skip = state.sealed.partition_point(|sealed| sealed.info.last < from);
        let sealed = state.sealed.iter().skip(skip).position(|sealed| sealed.info.max_time_ms >= time_ms);
        let at = sealed.map_or(state.sealed.len(), |at| skip + at);
        let info = state.sealed.get(at).map_or(state.active.info, |sealed| sealed.info);
        if info.last < from || info.max_time_ms < time_ms || info.base >= limit {
            return Ok(None);
        }
        self.open_source(state, at, Goal::Time(time_ms), limit).map(Some)
    }

    /// Opens the segment at place `at`; a sealed one without holding the log's lock.
    fn open_source(
        &self,
        state: MutexGuard<'_, State>,
        at: usize,
        goal: Goal,
        limit: Offset,
    ) -> Result<Source, ReadError> {
        let Some(sealed) = state.sealed.get(at) else {
            let active = &state.active;
            let path = log_path(&self.dir, active.info.base);
            let position = goal.position(&active.index);
            return Ok(Source { info: active.info, file: Arc::clone(&active.file), path, position, limit });
        };
        let info = sealed.info;
        let unsynced = sealed.unsynced.clone();
        drop(state);
        let path = log_path(&self.dir, info.base);
        let segment = match unsynced {
            Some(segment) => segment,
            None => self.open_sealed(info).map_err(|source| ReadError::Io { file: path.clone(), source })?,
        };
        let position = goal.position(&segment.index);
        Ok(Source { info, file: Arc::clone(&segment.file), path, position, limit })
    }

    /// A sealed segment, from the volume's cache or from the disk.
    fn open_sealed(&self, info: SegmentInfo) -> io::Result<Arc<OpenSegment>> {
        let cache = self.volume.cache();
        if let Some(segment) = cache.get(self.id, info.base) {
            return Ok(segment);
        }
        let disk = &**self.volume.disk();
        let file = disk.open(&log_path(&self.dir, info.base), Open::Existing)?;
        let index = match load_index(disk, &self.dir, info.base, &self.settings) {
            Some((saved, index)) if saved == info => index,
            _ => scan(info.base, Arc::clone(&file), self.settings.index_interval_bytes)?.active.index,
        };
        let segment = Arc::new(OpenSegment { info, file, index });
        cache.put(self.id, &segment);
        Ok(segment)
    }
}

impl Goal {
    fn position(self, index: &crate::index::Index) -> u64 {
        match self {
            Goal::Offset(offset) => index.position_of(offset),
            Goal::Time(time_ms) => index.position_of_time(time_ms),
        }
    }
}

impl Source {
    /// The first batch that is `wanted`, with its position; `None` when there is none below the limit.
    fn seek(&self, wanted: impl Fn(&Header) -> bool) -> Result<Option<(u64, Header)>, ReadError> {
        let mut window = [0; SEEK_BYTES];
        let mut window_at = 0;
        let mut filled = 0;
        let mut position = self.position;
        while position < self.info.bytes {
            let inside = position.checked_sub(window_at).map_or(filled, |at| at as usize);
            if inside + HEADER_BYTES > filled {
                window_at = position;
                filled = self.read_up_to(&mut window, position)?;
            }
            let header = Header::parse(&window[(position - window_at) as usize..filled])
                .map_err(|bad| self.corrupt(position, &bad))?;
            if header.base >= self.limit {
                return Ok(None);
            }
            if wanted(&header) {
                return Ok(Some((position, header)));
            }
            position += header.bytes as u64;
        }
        Ok(None)
    }

    /// Reads the batches from `position` on, where `first` is.
    fn read(&self, position: u64, first: &Header, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let left = self.info.bytes - position;
        if first.bytes as u64 > left {
            let bad = BadBatch::Short { have: left as usize, need: first.bytes };
            return Err(self.corrupt(position, &bad));
        }
        let mut bytes = vec![0; left.min(bytes_max.max(first.bytes) as u64) as usize];
        let count = self.read_up_to(&mut bytes, position)?;
        bytes.truncate(count);
        let sound = self.check(&bytes, position)?;
        bytes.truncate(sound);
        Ok(bytes)
    }

    /// How many bytes of `bytes` are whole batches below the limit.
    fn check(&self, bytes: &[u8], position: u64) -> Result<usize, ReadError> {
        let mut done = 0;
        while done < bytes.len() {
            match batch::verify(&bytes[done..]) {
                Ok(header) if header.base >= self.limit => break,
                Ok(header) => done += header.bytes,
                Err(BadBatch::Short { .. }) if done > 0 => break,
                Err(bad) => return Err(self.corrupt(position + done as u64, &bad)),
            }
        }
        Ok(done)
    }

    /// Fills `buf` from `position`, but not beyond what was wholly written when the reader came.
    fn read_up_to(&self, buf: &mut [u8], position: u64) -> Result<usize, ReadError> {
        let count = (self.info.bytes - position).min(buf.len() as u64) as usize;
        self.file
            .read_at(&mut buf[..count], position)
            .map_err(|source| ReadError::Io { file: self.path.clone(), source })
    }

    fn corrupt(&self, position: u64, bad: &BadBatch) -> ReadError {
        ReadError::Corrupt { file: self.path.clone(), position, reason: bad.to_string() }
    }
}

/// The sealed segments that are open, so that tens of thousands of logs need few file handles.
#[derive(Default)]
pub(crate) struct SegmentCache {
    inner: Mutex<CacheInner>,
}

#[derive(Default)]
struct CacheInner {
    /// By log and base offset; with the time of last use, in uses.
    open: HashMap<(u64, Offset), (Arc<OpenSegment>, u64)>,
    uses: u64,
}

impl SegmentCache {
    fn get(&self, log: u64, base: Offset) -> Option<Arc<OpenSegment>> {
        let mut inner = self.lock();
        inner.uses += 1;
        let now = inner.uses;
        let (segment, used) = inner.open.get_mut(&(log, base))?;
        *used = now;
        Some(Arc::clone(segment))
    }

    fn put(&self, log: u64, segment: &Arc<OpenSegment>) {
        let mut inner = self.lock();
        if inner.open.len() >= OPEN_SEGMENTS_MAX {
            let oldest = inner.open.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            oldest.map(|key| inner.open.remove(&key));
        }
        inner.uses += 1;
        let now = inner.uses;
        inner.open.insert((log, segment.info.base), (Arc::clone(segment), now));
    }

    /// Forgets a segment that was removed.
    pub(crate) fn remove(&self, log: u64, base: Offset) {
        self.lock().open.remove(&(log, base));
    }

    fn lock(&self) -> MutexGuard<'_, CacheInner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
