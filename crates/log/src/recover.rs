//! Opening a log: what is there, what of it is sound, and where it ends.
//!
//! **Invariant:** recovery cuts only behind what `log.meta` calls durable. Damage below that is reported with file
//! and position, and nothing is changed.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kiln_types::{Offset, Timestamp};
use kiln_world::{Disk, File, Open};
use tokio::sync::watch;

use crate::batch::{self, BadBatch};
use crate::error::OpenError;
use crate::index::Index;
use crate::log::{KnownMeta, Settings, Shared, State, Watermarks};
use crate::meta::Meta;
use crate::segment::{Active, Sealed, SegmentInfo, base_of, index_path, log_path};
use crate::volume::Volume;
use crate::waiters::Waiters;

/// How much is read at a time while scanning, in bytes.
const SCAN_BYTES: usize = 1 << 20;

/// A larger index file is not believed, in bytes: at an entry for each 4 KiB it would be that of 16 GiB.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Opens or creates the log in `dir`; `is_first` when this volume has not opened it before.
pub(crate) fn open(
    volume: &Volume,
    id: u64,
    dir: &Path,
    settings: Settings,
    is_first: bool,
) -> Result<Shared, OpenError> {
    let disk = &**volume.disk();
    let failed = |source| OpenError::Io { path: dir.to_owned(), source };
    let saved = Meta::read(disk, dir)?;
    let meta = saved.unwrap_or(Meta::NEW);
    disk.create_dir_all(dir).map_err(failed)?;
    let bases = segments_from(disk, dir, meta.start).map_err(failed)?;
    let opening = Opening { disk, dir, settings: &settings, durable: meta.durable };
    let Recovered { sealed, active, cut } = opening.recover(meta.start, &bases)?;
    let end = active.info.last.next();
    // What was left in the page cache is served from now on, so it must last.
    if cut || (meta.durable < end && !is_first) {
        // And what was cut must not come back behind something new.
        sync(disk, dir, &sealed, &active).map_err(failed)?;
    } else if meta.durable < end {
        volume.settle().map_err(failed)?;
    }
    let first = sealed.first().map_or(active.info.base, |segment| segment.info.base);
    let marks = Watermarks { start: meta.start.max(first).min(end), durable: end, end };
    let state = State {
        marks,
        sealed: sealed.into(),
        active,
        queued: false,
        // A name that a killed process left may not be on the disk yet.
        names_dirty: true,
        written_bytes: 0,
        failed: None,
    };
    Ok(Shared {
        id,
        volume: volume.clone(),
        dir: dir.into(),
        settings,
        state: Mutex::new(state),
        waiters: Waiters::new(end),
        watch: watch::Sender::new(marks),
        meta: Mutex::new(KnownMeta { meta, written_bytes: 0 }),
    })
}

/// The segments in `dir`, oldest first, without those wholly below `start`: their removal, begun before a crash,
/// is completed.
fn segments_from(disk: &dyn Disk, dir: &Path, start: Offset) -> io::Result<Vec<Offset>> {
    let mut bases: Vec<Offset> = disk
        .list(dir)?
        .iter()
        .filter(|entry| !entry.is_dir)
        .filter_map(|entry| base_of(&entry.name))
        .collect();
    bases.sort_unstable();
    let dead = bases.partition_point(|base| *base <= start).saturating_sub(1);
    for base in bases.drain(..dead) {
        remove_segment(disk, dir, base)?;
    }
    Ok(bases)
}

/// Removes a segment's files. Its index may be missing.
pub(crate) fn remove_segment(disk: &dyn Disk, dir: &Path, base: Offset) -> io::Result<()> {
    for path in [index_path(dir, base), log_path(dir, base)] {
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn sync(disk: &dyn Disk, dir: &Path, sealed: &[Sealed], active: &Active) -> io::Result<()> {
    let unsynced = sealed.iter().filter_map(|segment| segment.unsynced.as_ref());
    let mut files: Vec<Arc<dyn File>> = unsynced.map(|segment| Arc::clone(&segment.file)).collect();
    files.push(Arc::clone(&active.file));
    disk.sync_files(&files)?;
    dir.ancestors().try_for_each(|dir| disk.sync_dir(dir))
}

/// A log while it is being opened.
struct Opening<'a> {
    disk: &'a dyn Disk,
    dir: &'a Path,
    settings: &'a Settings,
    /// Everything below was durable, and must be sound.
    durable: Offset,
}

/// What of a log is sound.
struct Recovered {
    sealed: Vec<Sealed>,
    active: Active,
    /// Something was removed behind it.
    cut: bool,
}

impl Opening<'_> {
    /// Walks the segments at `bases`, up to where the log ends.
    fn recover(&self, start: Offset, bases: &[Offset]) -> Result<Recovered, OpenError> {
        if !bases.first().is_some_and(|first| *first <= start || self.follows(*first, start)) {
            return self.begin(start, bases);
        }
        let mut sealed = Vec::new();
        let mut trimmed = false;
        for (at, base) in bases.iter().enumerate() {
            let next = bases.get(at + 1).copied();
            let is_durable = next.is_some_and(|next| next <= self.durable);
            if is_durable && let Some(info) = self.indexed(*base) {
                sealed.push(Sealed { info, unsynced: None });
                continue;
            }
            let mut scan = self.scan(*base)?;
            let end = scan.active.info.last.next();
            let is_whole = scan.problem.is_none() || scan.is_filled;
            if is_whole && next.is_some_and(|next| self.follows(next, end)) {
                // It was sealed, and what was filled ahead came back with the crash.
                if scan.is_filled {
                    scan.active.file.set_len(scan.active.info.bytes).map_err(|source| self.failed(source))?;
                    trimmed = true;
                }
                sealed.push(scan.active.seal());
                continue;
            }
            if is_durable || end < self.durable {
                let file = log_path(self.dir, *base);
                let reason = scan.problem.unwrap_or_else(|| self.lost());
                return Err(OpenError::Corrupt { file, position: scan.active.info.bytes, reason });
            }
            let cut = self.cut(&mut scan, &bases[at + 1..])? || trimmed;
            return Ok(Recovered { sealed, active: scan.active, cut });
        }
        unreachable!("nothing follows the last segment, so the loop returned")
    }

    /// Whether a segment at `base` may follow what ends at `end`. Offsets between may be missing only where
    /// durable segments were dropped; in the tail it means that a segment was lost.
    fn follows(&self, base: Offset, end: Offset) -> bool {
        base == end || (base > end && base <= self.durable)
    }

    /// Begins a log at `start`, of which nothing durable is there. Segments from a tail whose beginning was lost
    /// are removed.
    fn begin(&self, start: Offset, bases: &[Offset]) -> Result<Recovered, OpenError> {
        let path = log_path(self.dir, start);
        if start < self.durable {
            return Err(OpenError::Corrupt { file: path, position: 0, reason: self.lost() });
        }
        self.remove_later(bases)?;
        let file = self.open_file(&path, Open::New)?;
        let active = Active::new(start, file, self.settings.index_interval_bytes);
        Ok(Recovered { sealed: Vec::new(), active, cut: !bases.is_empty() })
    }

    fn lost(&self) -> String {
        format!("records below {} were durable and are gone", self.durable)
    }

    /// Cuts what follows the last sound batch of the tail: the rest of its segment, and all later segments.
    fn cut(&self, scan: &mut Scan, later: &[Offset]) -> Result<bool, OpenError> {
        let info = scan.active.info;
        if let Some(problem) = &scan.problem {
            if scan.is_filled {
                tracing::debug!(log = %self.dir.display(), at = info.bytes, "cutting what was filled ahead");
            } else {
                tracing::warn!(log = %self.dir.display(), at = info.bytes, %problem, "cutting a torn tail");
            }
            scan.active.file.set_len(info.bytes).map_err(|source| self.failed(source))?;
        }
        self.remove_later(later)?;
        Ok(scan.problem.is_some() || !later.is_empty())
    }

    fn remove_later(&self, later: &[Offset]) -> Result<(), OpenError> {
        for base in later {
            tracing::warn!(log = %self.dir.display(), %base, "removing a segment behind a torn tail");
            remove_segment(self.disk, self.dir, *base).map_err(|source| self.failed(source))?;
        }
        Ok(())
    }

    /// What a saved index says of a sealed segment, if it fits the segment's file.
    fn indexed(&self, base: Offset) -> Option<SegmentInfo> {
        let (info, _) = load_index(self.disk, self.dir, base, self.settings)?;
        let file = self.disk.open(&log_path(self.dir, base), Open::Existing).ok()?;
        (file.len().ok()? == info.bytes).then_some(info)
    }

    fn scan(&self, base: Offset) -> Result<Scan, OpenError> {
        let path = log_path(self.dir, base);
        let file = self.open_file(&path, Open::Existing)?;
        scan(base, file, self.settings.index_interval_bytes).map_err(|source| OpenError::Io { path, source })
    }

    fn open_file(&self, path: &Path, how: Open) -> Result<Arc<dyn File>, OpenError> {
        self.disk.open(path, how).map_err(|source| OpenError::Io { path: path.to_owned(), source })
    }

    fn failed(&self, source: io::Error) -> OpenError {
        OpenError::Io { path: self.dir.to_owned(), source }
    }
}

/// Reads the saved index of a sealed segment, if it is sound.
pub(crate) fn load_index(
    disk: &dyn Disk,
    dir: &Path,
    base: Offset,
    settings: &Settings,
) -> Option<(SegmentInfo, Index)> {
    let file = disk.open(&index_path(dir, base), Open::Existing).ok()?;
    let len = file.len().ok()?;
    if len > INDEX_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; len as usize];
    let count = file.read_at(&mut bytes, 0).ok()?;
    let (info, index) = Index::decode(&bytes[..count], settings.index_interval_bytes)?;
    (info.base == base).then_some((info, index))
}

/// A segment as far as it is sound.
pub(crate) struct Scan {
    pub(crate) active: Active,
    /// Why it ends before the file does.
    pub(crate) problem: Option<String>,
    /// Zeros are what follows.
    is_filled: bool,
}

/// Reads a segment from the front and checks every batch, up to the first that is not sound.
pub(crate) fn scan(base: Offset, file: Arc<dyn File>, index_interval_bytes: u32) -> io::Result<Scan> {
    let len = file.len()?;
    let mut scan =
        Scan { active: Active::new(base, file, index_interval_bytes), problem: None, is_filled: false };
    let mut window = Vec::new();
    let mut need = SCAN_BYTES;
    while scan.problem.is_none() && scan.active.info.bytes < len {
        let left = len - scan.active.info.bytes;
        // A length field is believed only as far as the file goes.
        window.resize(left.min(need.max(SCAN_BYTES) as u64) as usize, 0);
        let count = scan.active.file.read_at(&mut window, scan.active.info.bytes)?;
        need = scan.walk(&window[..count], left);
    }
    Ok(scan)
}

impl Scan {
    /// Takes all whole batches of `window`, with `left` bytes of file from its front; says how many bytes the
    /// next batch needs.
    fn walk(&mut self, window: &[u8], left: u64) -> usize {
        let mut rest = window;
        while !rest.is_empty() {
            let left = left - (window.len() - rest.len()) as u64;
            match batch::verify(rest) {
                Ok(header) if header.base <= self.active.info.last => {
                    self.problem = Some(format!("offset {} comes twice", header.base));
                    return 0;
                }
                Ok(header) => {
                    let born = Timestamp::from_millis(header.base_time_ms);
                    self.active.wrote(&header);
                    self.active.born.get_or_insert(born);
                    rest = &rest[header.bytes..];
                }
                Err(BadBatch::Short { need, .. }) if need as u64 <= left => return need,
                Err(bad) => {
                    self.is_filled = rest.iter().all(|byte| *byte == 0);
                    self.problem = Some(bad.to_string());
                    return 0;
                }
            }
        }
        0
    }
}
