//! One error enum per operation; each variant carries what the caller needs to decide.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_types::Offset;

use crate::batch::BadBatch;

/// A log has stopped for good, after an I/O error that leaves unknown what is on the disk, or because it was
/// removed. Whatever was durable before still is; the log can be read; opening it anew recovers it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("write to the log {}: it stopped after: {reason}; check the disk, then restart", .dir.display())]
pub struct Failed {
    /// The log's directory, relative to the disk's root.
    pub dir: Arc<Path>,
    /// The error that stopped it.
    pub reason: Arc<str>,
    /// Its kind; `NotFound` after [`crate::Log::remove`].
    pub kind: io::ErrorKind,
}

impl Failed {
    pub(crate) fn new(dir: &Arc<Path>, error: &io::Error) -> Failed {
        Failed { dir: Arc::clone(dir), reason: error.to_string().into(), kind: error.kind() }
    }
}

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused.
    #[error("open the log {}: {source}", .path.display())]
    Io {
        /// The log's directory.
        path: PathBuf,
        /// The disk's error.
        #[source]
        source: io::Error,
    },
    /// A later version of Kiln wrote it.
    #[error("open {}: format version {found} is newer than {known}; use the newer kiln", .path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The version in it.
        found: u32,
        /// The newest that is understood here.
        known: u32,
    },
    /// Something that was durable is damaged. Nothing was changed.
    #[error("open the log: {} is damaged at byte {position}: {reason}; restore it from a copy", .file.display())]
    Corrupt {
        /// The damaged file, relative to the disk's root.
        file: PathBuf,
        /// Where the first damaged batch begins, in bytes.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why batches were not appended. Nothing was appended then.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The bytes are not sound batches.
    #[error("append: {0}")]
    Bad(#[from] BadBatch),
    /// A batch is larger than [`crate::Settings::batch_bytes_max`].
    #[error("append a batch of {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Its size in bytes.
        bytes: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The disk is full. The log goes on when there is space.
    #[error("append: the disk is full; free some space")]
    Full,
    /// The log has stopped.
    #[error(transparent)]
    Failed(#[from] Failed),
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The offset is below the log's start or above its end.
    #[error("read: the log has offsets {start} up to, not including, {end}")]
    OutOfRange {
        /// The first offset there is.
        start: Offset,
        /// The offset after the last one that may be read.
        end: Offset,
    },
    /// A stored batch is damaged.
    #[error("read: {} is damaged at byte {position}: {reason}; restore it from a copy", .file.display())]
    Corrupt {
        /// The damaged file, relative to the disk's root.
        file: PathBuf,
        /// Where the damaged batch begins, in bytes.
        position: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The disk refused.
    #[error("read {}: {source}", .file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// The disk's error.
        #[source]
        source: io::Error,
    },
}

/// Why the start could not be moved, or segments not be dropped, or the log not be removed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The new start is above what is durable.
    #[error("move the start to {to}: only offsets below {durable} are durable")]
    OutOfRange {
        /// The start that was asked for.
        to: Offset,
        /// The log's durable watermark.
        durable: Offset,
    },
    /// The log has stopped.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// The disk refused; trying again is safe.
    #[error("change the log {}: {source}", .dir.display())]
    Io {
        /// The log's directory.
        dir: PathBuf,
        /// The disk's error.
        #[source]
        source: io::Error,
    },
}
