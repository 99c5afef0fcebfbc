//! The data path of a mount: what the programs of this machine read and write, between the kernel and the OSTs.
//!
//! Written data is held back in memory, at most [`Settings::dirty_bytes_max`] of it, and goes to the OSTs in large
//! requests; sequential readers are read ahead for. Which of the two is allowed the caller says with each request, by
//! [`Mode`]: it follows from the lease that the mount holds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use crate::core::{Attr, Errno, Ino, Layout, Time};

mod file;
mod mount;
mod osts;
mod read;
mod space;
mod write;
mod write_back;

#[cfg(test)]
mod tests;

use mount::Mount;

pub use file::FileData;
pub use osts::Osts;

/// Files that nobody uses are looked for when there are so many entries at least.
const SWEEP_LEN_MIN: usize = 64;

/// What the data path asks of the metadata side. Calls wait for as long as the MDS is away; no lock of the data path is
/// held meanwhile. `ESTALE` says that the session was evicted.
pub trait Mds: Send + Sync {
    /// Gives objects to the component around `offset`, if it has none; answers the layout.
    fn place(&self, ino: Ino, offset: u64) -> Result<Layout, Errno>;
    /// Bytes of the inline component; shorter at the end of the file.
    fn read_inline(&self, ino: Ino, offset: u64, len: u32) -> Result<Bytes, Errno>;
    /// Writes into the inline component.
    fn write_inline(&self, ino: Ino, offset: u64, data: &[u8], mtime: Time) -> Result<Attr, Errno>;
    /// Zeros a range of the inline component.
    fn zero_inline(&self, ino: Ino, offset: u64, len: u64) -> Result<(), Errno>;
    /// Tells what was written at the OSTs.
    fn written(&self, ino: Ino, written: Written) -> Result<Attr, Errno>;
    /// The attributes as the MDS has them now; asked when a file that others write to too is read at its end.
    fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.written(ino, Written::default())
    }
}

/// What the MDS is told after data was written at the OSTs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The file reaches at least to here.
    pub size: u64,
    /// When it was written last; `None` for a change of size alone.
    pub mtime: Option<Time>,
    /// Units of 512 bytes that its objects use, where that is known.
    pub blocks: Option<u64>,
    /// A writer was not root: set-id bits go.
    pub kill_suid_sgid: bool,
}

/// Whether a request may be answered from memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Under a Read or Write lease: what was read ahead is used, what is written is held back.
    Cached,
    /// Under a Direct lease: each request is at the servers before it is answered.
    Direct,
}

/// What this mount knows of a file and the MDS does not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalChanges {
    /// The size.
    pub size: u64,
    /// When it was written last.
    pub mtime: Option<Time>,
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// `SEEK_DATA`
    Data,
    /// `SEEK_HOLE`
    Hole,
}

/// The bounds of a mount's data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Data held back for all files, in bytes. Writers wait when it is reached.
    pub dirty_bytes_max: u64,
    /// Data held back for one file, in bytes.
    pub dirty_bytes_per_file_max: u64,
    /// Data is written back when it is as old as this.
    pub write_back_after: Duration,
    /// How far one sequential reader is read ahead for, in bytes.
    pub readahead_bytes_max: u64,
    /// Data kept in memory that was read ahead, for all files, in bytes.
    pub clean_bytes_max: u64,
    /// Threads that write back and read ahead.
    pub workers: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            dirty_bytes_max: 256 << 20,
            dirty_bytes_per_file_max: 128 << 20,
            write_back_after: Duration::from_secs(3),
            readahead_bytes_max: 8 << 20,
            clean_bytes_max: 64 << 20,
            workers: 4,
        }
    }
}

/// The data path of one mount.
pub struct DataPath {
    mount: Arc<Mount>,
    files: Mutex<Files>,
    workers: Vec<JoinHandle<()>>,
}

/// The files that somebody uses, and some that nobody uses any more.
#[derive(Default)]
struct Files {
    known: HashMap<Ino, Weak<FileData>>,
    /// At this length those that nobody uses go.
    sweep_at: usize,
}

impl Files {
    fn insert(&mut self, ino: Ino, file: &Arc<FileData>) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, file| file.strong_count() > 0);
            self.sweep_at = 2 * self.known.len() + SWEEP_LEN_MIN;
        }
        self.known.insert(ino, Arc::downgrade(file));
    }
}

impl DataPath {
    /// Starts its threads; they end when it is dropped. What is held back then is lost: flush each file before.
    ///
    /// # Panics
    ///
    /// When the system has no threads for it.
    pub fn new(mds: Arc<dyn Mds>, osts: Arc<Osts>, settings: Settings) -> Arc<DataPath> {
        let workers = settings.workers.max(1);
        let mount = Arc::new(Mount::new(mds, osts, settings));
        let workers = (0..workers).map(|_| {
            let mount = Arc::clone(&mount);
            let name = "fs-data".to_owned();
            let spawned = thread::Builder::new().name(name).spawn(move || mount.work());
            spawned.expect("a process that cannot make a thread cannot mount")
        });
        let workers = workers.collect();
        Arc::new(DataPath { mount, files: Mutex::default(), workers })
    }

    /// The data of a file: one for all its handles. `head` has its first bytes, as they were with `attr`, where the MDS
    /// sent them along and they may be kept. `attr` and `layout` are taken as [`FileData::set_size`] does.
    pub fn file(&self, ino: Ino, attr: &Attr, layout: Layout, head: Option<Bytes>) -> Arc<FileData> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let known = files.known.get(&ino).and_then(Weak::upgrade).filter(|file| !file.is_gone());
        let file = known.unwrap_or_else(|| {
            let file = FileData::new(ino, Arc::clone(&self.mount), attr, layout.clone());
            files.insert(ino, &file);
            file
        });
        drop(files);
        file.opened(attr, layout, head);
        file
    }

    /// Data that is held back for all files, in bytes.
    pub fn dirty_bytes(&self) -> u64 {
        self.mount.dirty_bytes()
    }
}

impl Drop for DataPath {
    fn drop(&mut self) {
        let files = std::mem::take(self.files.get_mut().unwrap_or_else(PoisonError::into_inner));
        let waiting = self.mount.stop();
        files.known.into_values().filter_map(|file| file.upgrade()).for_each(|file| file.discard());
        drop(waiting);
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread of the data path has failed");
            }
        }
    }
}
