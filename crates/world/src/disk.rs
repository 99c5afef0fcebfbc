//! What storage asks of a disk, and the contract that every disk keeps.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// How [`Disk::open`] treats a file that is, or is not, there. A file is always opened for reading and writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// It must exist, else `NotFound`.
    Existing,
    /// It is created empty when it does not exist.
    OrCreate,
    /// It must not exist, else `AlreadyExists`.
    New,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The last component of the path.
    pub name: OsString,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// How much a disk holds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What is not used.
    pub free_bytes: u64,
    /// What of it is for everybody: without what the system keeps for its administrator.
    pub available_bytes: u64,
}

/// A directory tree that can lose power.
///
/// Paths are relative to the disk's root; an absolute path or one with `..` is `InvalidInput`.
///
/// What survives a power failure, and nothing else may be relied upon:
/// - bytes and length of a file as of its last successful [`File::sync`], [`Disk::sync_files`] or
///   [`Disk::sync_all`];
/// - names in a directory as of the last successful [`Disk::sync_dir`] of that directory or [`Disk::sync_all`],
///   whether created, renamed or removed. Syncing a file does not make its name durable.
/// - A rename is atomic: after a crash the file has the old name, or the new one.
///
/// What was changed since may survive whole, in part (in sectors of 512 bytes, in any order) or not at all.
///
/// A failed sync is final: the changes it covered may be gone, and a later sync that succeeds says nothing about
/// them.
pub trait Disk: Send + Sync + 'static {
    /// Opens or creates a file.
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>>;

    /// The names in `dir`, sorted; empty when there is no such directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>>;

    /// Creates `dir` and its missing parents. None of the new names is durable before its parent is synced.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Renames a file, replacing what has the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Open handles stay readable.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with everything in it; `NotFound` when it is not there.
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// Makes the names in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// [`File::sync`] of each of `files`, which are of this disk. After an error none of them is known to be synced.
    fn sync_files(&self, files: &[Arc<dyn File>]) -> io::Result<()>;

    /// Makes everything durable that was written so far, by whomever: all files, and all names. Takes as long as
    /// that takes.
    fn sync_all(&self) -> io::Result<()>;

    /// How much there is, and is free. Others may use it too, so it is old when it is told.
    fn space(&self) -> io::Result<Space>;
}

/// An open file. Positions and lengths are in bytes.
pub trait File: Send + Sync + 'static {
    /// Reads up to `buf.len()` bytes at `pos`; fewer only at the end of the file, 0 behind it.
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize>;

    /// Writes all `parts` one after the other at `pos`, extending the file as needed. After an error any part of
    /// it may have been written.
    fn write_all_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()>;

    /// Makes content and length durable (fdatasync).
    fn sync(&self) -> io::Result<()>;

    /// A hint: what was written so far may go to the disk now, so that the next [`File::sync`] finds little left. Promises nothing.
    fn write_back(&self) {}

    /// The length.
    fn len(&self) -> io::Result<u64>;

    /// What it takes of the disk, in bytes: less than its length where it was extended and not written, more where
    /// space was set aside.
    fn disk_bytes(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros, which take no space until they are written.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// A hint that the file will grow to `len`: sets space aside without changing the length.
    fn reserve(&self, len: u64) -> io::Result<()>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A path as it is given to a [`Disk`], in the one spelling without `.`; `InvalidInput` for one that could leave the disk's root.
pub fn plain_path(path: &Path) -> io::Result<PathBuf> {
    check_relative(path)?;
    Ok(path.components().filter(|part| !matches!(part, Component::CurDir)).collect())
}

/// Refuses a path that could leave the disk's root.
pub(crate) fn check_relative(path: &Path) -> io::Result<()> {
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if path.components().all(inside) {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} leaves the disk's root", path.display())))
}
