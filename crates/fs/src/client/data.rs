//! The data path of a mount: what the programs of this machine read and write, between the kernel and the OSTs.
//!
//! Written data is held back in memory, at most [`Settings::dirty_bytes_max`] of it, and goes to the OSTs in large
//! requests; sequential readers are read ahead for. Which of the two is allowed the caller says with each request, by
//! [`Mode`]: it follows from the lease that the mount holds.
//!
//! - [`DataPath`]: one for a mount; its threads write back what is complete, what is old and what is too much, and read ahead.
//! - [`FileData`]: one for a file. Small writes become chunks (`write.rs`), chunks become flights (`write_back.rs`), and
//!   when everything has landed the MDS is told the size: nobody sees a size without the data.
//! - `quota.rs`: what is refused to owners who have no space left.
//! - [`Osts`]: calls that wait until they are answered, however often a server dies.
//!
//! # What is atomic
//!
//! A request of this mount takes effect at one moment between its begin and its end. What is in memory changes under the
//! lock of the file. What is at the servers takes calls, and so a range of it is claimed first: shared to read it,
//! exclusively to change it ([`Ranges`](crate::core::ranges::Ranges)). While a reader has a range claimed, nothing of it
//! lands; so what it fetches, with what is dirty when it ends, is the file at that end.
//!
//! # Why nobody waits for ever
//!
//! A thread waits for four things, and whoever has them waits only for things further down:
//!
//! 1. memory for dirty data: who waits writes back itself, and does not depend on the threads of the mount;
//! 2. claims: each waits for earlier ones only, and no thread claims a second range while it holds one, but without waiting
//!    (`try_claim`);
//! 3. connections to an OST: a thread waits for one only while it has none;
//! 4. answers of servers. An OST asks nothing of clients. The MDS may call a lease back before it answers somebody; that
//!    needs a [`FileData::flush`], which needs claims of flights and direct requests under way, whose answers the MDS must
//!    not hold up for the callback: `place`, inline data and `written`, by the session that has the lease. A cut is the one
//!    claim that is held over a call that the MDS may hold up, and a flush does not wait for it: it writes, and tells, what
//!    is below the cut only.
//!
//! The locks of a file, of the mount's queue and of its counters are held over no call and no wait but for a change of what
//! they guard; a file's lock is taken before the others, and never two files' at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;

use crate::core::quota::Owner;
use crate::core::{Attr, Errno, Ino, Layout, Time};

mod file;
mod mount;
mod osts;
mod quota;
mod read;
mod space;
mod sync;
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
    /// The layout as it is now: others who write to the file at the same time give objects to components too.
    fn layout(&self, ino: Ino) -> Result<Layout, Errno>;
    /// Bytes of the inline component; shorter at the end of the file.
    fn read_inline(&self, ino: Ino, offset: u64, len: u32) -> Result<Bytes, Errno>;
    /// Writes into the inline component.
    fn write_inline(&self, ino: Ino, offset: u64, data: &[u8], mtime: Time) -> Result<Attr, Errno>;
    /// Zeros a range of the inline component.
    fn zero_inline(&self, ino: Ino, offset: u64, len: u64) -> Result<(), Errno>;
    /// Everything that this mount changed is on the disk of the MDT when this returns.
    fn sync(&self) -> Result<(), Errno>;
    /// Tells what was written at the OSTs.
    fn written(&self, ino: Ino, written: Written) -> Result<Attr, Errno>;
    /// The attributes as the MDS has them now; asked when a file that others write to too is read at its end.
    fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        self.written(ino, Written::default())
    }
    /// How much space an owner of files has left, in bytes, as was said with the last attributes of one of them; `None`
    /// without a limit.
    fn room(&self, _owner: Owner) -> Option<u64> {
        None
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
    /// The answer waits until this, and all that this mount changed before, is on the disk of the MDT.
    pub durably: bool,
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
    /// The size, where it is more than the MDS was told. Who writes together with others has told it, and may know an old one.
    pub size: Option<u64>,
    /// When it was written last.
    pub mtime: Option<Time>,
    /// Space used, in units of 512 bytes. **Must hold:** not 0 while there is data, which archivers take for a hole
    /// as long as the file.
    pub blocks: u64,
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

    /// The MDS is told all that some owners have used.
    pub fn account(&self, of: impl Fn(Owner) -> bool) {
        self.mount.debts.files(of).into_iter().for_each(|file| file.account());
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
