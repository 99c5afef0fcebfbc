//! What programs have open.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::cache::Inode;
use super::data::FileData;
use super::meta::Changes;
use super::session::Stamp;
use crate::core::{Errno, Ino};
use crate::wire::mds::Name;

/// An open file.
pub(crate) struct Handle {
    pub(crate) inode: Arc<Inode>,
    pub(crate) file: Arc<FileData>,
    pub(crate) writes: bool,
}

/// Names that the MDS told, and the kernel was not told yet.
#[derive(Default)]
pub(crate) struct Listed {
    pub(crate) names: VecDeque<Name>,
    /// With attributes and leases on them.
    pub(crate) plus: bool,
    /// When they were told.
    pub(crate) stamp: Stamp,
    pub(crate) before: Changes,
    /// Inodes whose attributes may be kept.
    pub(crate) granted: std::collections::HashSet<Ino>,
    /// The names may be kept.
    pub(crate) names_granted: bool,
    /// There are no names behind these.
    pub(crate) end: bool,
    /// The cursor in front of the first of `names`.
    pub(crate) from: u64,
    /// The directory that it is in, when it was listed.
    pub(crate) parent: Option<Ino>,
}

/// An open directory.
pub(crate) struct OpenDir {
    pub(crate) ino: Ino,
    listed: Mutex<Listed>,
}

impl OpenDir {
    pub(crate) fn listed(&self) -> MutexGuard<'_, Listed> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Table<T> {
    open: RwLock<HashMap<u64, Arc<T>>>,
}

impl<T> Table<T> {
    fn new() -> Table<T> {
        Table { open: RwLock::new(HashMap::new()) }
    }

    fn add(&self, number: u64, what: T) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::new(what));
    }

    fn get(&self, number: u64) -> Result<Arc<T>, Errno> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&number).cloned().ok_or(Errno::EBADF)
    }

    fn remove(&self, number: u64) -> Option<Arc<T>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&number)
    }
}

/// Open files and directories by the numbers that the kernel has for them.
pub(crate) struct Handles {
    files: Table<Handle>,
    dirs: Table<OpenDir>,
    last: AtomicU64,
}

impl Handles {
    pub(crate) fn new() -> Handles {
        Handles { files: Table::new(), dirs: Table::new(), last: AtomicU64::new(0) }
    }

    fn number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn add(&self, handle: Handle) -> u64 {
        let number = self.number();
        self.files.add(number, handle);
        number
    }

    pub(crate) fn get(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        self.files.get(number)
    }

    pub(crate) fn remove(&self, number: u64) -> Option<Arc<Handle>> {
        self.files.remove(number)
    }

    pub(crate) fn add_dir(&self, ino: Ino) -> u64 {
        let number = self.number();
        self.dirs.add(number, OpenDir { ino, listed: Mutex::default() });
        number
    }

    pub(crate) fn dir(&self, number: u64) -> Result<Arc<OpenDir>, Errno> {
        self.dirs.get(number)
    }

    pub(crate) fn remove_dir(&self, number: u64) {
        self.dirs.remove(number);
    }
}
