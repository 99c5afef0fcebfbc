//! Segments: the files that a log consists of, in order of offset.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::{Offset, Timestamp};
use kiln_world::{Disk, File, Open};

use crate::batch::Header;
use crate::index::Index;

/// The most bytes that one segment may have: positions in the index have 32 bits.
pub(crate) const SEGMENT_BYTES_LIMIT: u64 = 1 << 31;

/// What is known of a segment without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentInfo {
    /// The lowest offset it may hold; the number in its name.
    pub base: Offset,
    /// The offset of its last record; `base - 1` when it is empty.
    pub last: Offset,
    /// Its size in bytes.
    pub bytes: u64,
    /// The highest timestamp in it, in milliseconds since the epoch; `i64::MIN` when it is empty.
    pub max_time_ms: i64,
}

impl SegmentInfo {
    pub(crate) fn empty(base: Offset) -> SegmentInfo {
        SegmentInfo { base, last: Offset(base.0 - 1), bytes: 0, max_time_ms: i64::MIN }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// A segment that is no longer written.
pub(crate) struct Sealed {
    pub(crate) info: SegmentInfo,
    /// Its open file and index until the flusher has synced the one and saved the other.
    pub(crate) unsynced: Option<Arc<OpenSegment>>,
}

/// A sealed segment ready to be read.
pub(crate) struct OpenSegment {
    pub(crate) info: SegmentInfo,
    pub(crate) file: Arc<dyn File>,
    pub(crate) index: Index,
}

impl OpenSegment {
    /// Saves the index beside the segment. Not synced: it is a cache.
    pub(crate) fn save_index(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let bytes = self.index.encode(&self.info);
        let file = disk.open(&index_path(dir, self.info.base), Open::OrCreate)?;
        file.set_len(0)?;
        file.write_all_at(&[&bytes], 0)
    }
}

/// The segment that is being written.
pub(crate) struct Active {
    pub(crate) info: SegmentInfo,
    pub(crate) file: Arc<dyn File>,
    pub(crate) index: Index,
    /// When its first batch was appended.
    pub(crate) born: Option<Timestamp>,
    /// How far the file reaches: zeros lie behind the last batch. **Invariant:** as long as it is written to, not below
    /// `info.bytes`, unless the disk was full.
    pub(crate) filled: u64,
}

impl Active {
    pub(crate) fn new(base: Offset, file: Arc<dyn File>, index_interval_bytes: u32) -> Active {
        let index = Index::new(base, index_interval_bytes);
        Active { info: SegmentInfo::empty(base), file, index, born: None, filled: 0 }
    }

    /// Counts in a batch that was written at the segment's end.
    pub(crate) fn wrote(&mut self, header: &Header) {
        self.index.note(&self.info, header);
        self.info.last = header.last();
        self.info.bytes += header.bytes as u64;
        self.info.max_time_ms = self.info.max_time_ms.max(header.max_time_ms);
    }

    pub(crate) fn seal(self) -> Sealed {
        let open = OpenSegment { info: self.info, file: self.file, index: self.index };
        Sealed { info: self.info, unsynced: Some(Arc::new(open)) }
    }
}

/// The file that holds the batches of the segment at `base`.
pub(crate) fn log_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.log", base.0))
}

/// The file that caches its index.
pub(crate) fn index_path(dir: &Path, base: Offset) -> PathBuf {
    dir.join(format!("{:020}.index", base.0))
}

/// The base offset in a segment's file name, if it is one.
pub(crate) fn base_of(name: &std::ffi::OsStr) -> Option<Offset> {
    let digits = name.to_str()?.strip_suffix(".log")?;
    let all_digits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all_digits { digits.parse().ok().map(Offset) } else { None }
}
