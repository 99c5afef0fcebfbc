//! One of the directories over which objects are spread, with the files of it that are open.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::core::ObjectId;

/// Files of one shelf that are kept open: 2,048 of a target, each once more if it was used past the page cache.
pub(super) const OPEN_MAX: usize = 64;
/// Objects of one shelf whose loss is remembered one by one; with more, all are taken for lost.
const LOST_MAX: usize = 1024;

/// A directory of objects.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: File,
    state: Mutex<State>,
    /// Held during a sync. The kernel tells of a failed write once for each open file; of two syncs at once one would be
    /// told, and the other must learn of it from [`State::lost`].
    syncing: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// **Invariant:** at most [`OPEN_MAX`], each the file that the object's name leads to.
    open: HashMap<ObjectId, Open>,
    /// Goes up with every use of a file.
    uses: u64,
    /// Goes up with every name that comes or goes.
    changes: u64,
    /// The changes that are durable. **Invariant:** `synced <= changes`.
    synced: u64,
    /// Objects of which a sync failed. **Invariant:** at most [`LOST_MAX`].
    lost: HashSet<ObjectId>,
    /// A sync of the names failed, or more objects were lost than are remembered.
    all_lost: bool,
}

#[derive(Debug)]
struct Open {
    file: Arc<ObjectFile>,
    /// [`State::uses`] at its last use.
    used: u64,
}

/// The file of an object.
#[derive(Debug)]
pub(super) struct ObjectFile {
    file: File,
    /// The same past the page cache; `None` where that cannot be had.
    direct: OnceLock<Option<File>>,
}

impl ObjectFile {
    /// The file past the page cache, if it can be had.
    pub(super) fn direct(&self) -> Option<&File> {
        let open_again = || {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            let how = OFlag::O_RDWR | OFlag::O_DIRECT | OFlag::O_CLOEXEC;
            open(path.as_str(), how, Mode::empty()).ok().map(File::from)
        };
        self.direct.get_or_init(open_again).as_ref()
    }
}

impl From<File> for ObjectFile {
    fn from(file: File) -> ObjectFile {
        ObjectFile { file, direct: OnceLock::new() }
    }
}

impl Deref for ObjectFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Shelf {
    pub(super) fn new(dir: File) -> Shelf {
        // A name that a server made before it died may be in the kernel only: the first sync makes all durable.
        let state = State { changes: 1, ..State::default() };
        Shelf { dir, state: Mutex::new(state), syncing: Mutex::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file of an object, if there is one.
    pub(super) fn existing(&self, object: ObjectId) -> io::Result<Option<Arc<ObjectFile>>> {
        self.existing_in(&mut self.lock(), object)
    }

    /// The file of an object, made if it is not there.
    pub(super) fn made(&self, object: ObjectId) -> io::Result<Arc<ObjectFile>> {
        let mut state = self.lock();
        if let Some(file) = self.existing_in(&mut state, object)? {
            return Ok(file);
        }
        let file = self.open(&mut state, object, OFlag::O_CREAT | OFlag::O_EXCL)?;
        state.changes += 1;
        Ok(state.keep(object, file))
    }

    /// The lock is held while the file is opened, so that none is kept open under a name that was removed meanwhile.
    fn existing_in(&self, state: &mut State, object: ObjectId) -> io::Result<Option<Arc<ObjectFile>>> {
        if let Some(file) = state.kept(object) {
            return Ok(Some(file));
        }
        match self.open(state, object, OFlag::empty()) {
            Ok(file) => Ok(Some(state.keep(object, file))),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, state: &mut State, object: ObjectId, how: OFlag) -> nix::Result<File> {
        let name = file_name(object);
        let open = || openat(&self.dir, name.as_str(), how | OFlag::O_RDWR | OFlag::O_CLOEXEC, mode());
        match open() {
            Err(Errno::EMFILE | Errno::ENFILE) => {
                state.open.clear();
                open()
            }
            opened => opened,
        }
        .map(File::from)
    }

    pub(super) fn stat(&self, object: ObjectId) -> io::Result<Option<FileStat>> {
        match fstatat(&self.dir, file_name(object).as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn remove(&self, object: ObjectId) -> io::Result<()> {
        // Open until the lock is free again: the close gives the space back, which takes long for a large object.
        let _file = self.existing(object);
        let mut state = self.lock();
        state.open.remove(&object);
        match unlinkat(self.dir.as_fd(), file_name(object).as_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => {
                state.lost.remove(&object);
                state.changes += 1;
                Ok(())
            }
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the bytes and the length of an object durable.
    pub(super) fn sync_object(&self, object: ObjectId) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.existing(object)?;
        let synced = file.map_or(Ok(()), |file| file.sync_data());
        let mut state = self.lock();
        if synced.is_err() {
            state.lose(object);
        }
        synced.and_then(|()| state.check_lost(object))
    }

    /// Makes durable which objects there are.
    pub(super) fn sync_names(&self) -> io::Result<()> {
        let _alone = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let State { changes, synced, all_lost, .. } = *self.lock();
        if all_lost {
            return Err(Errno::EIO.into());
        }
        if synced < changes {
            let outcome = self.dir.sync_all();
            let mut state = self.lock();
            state.all_lost = outcome.is_err();
            outcome?;
            state.synced = changes;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        self.lock().open.len()
    }
}

impl State {
    fn kept(&mut self, object: ObjectId) -> Option<Arc<ObjectFile>> {
        let open = self.open.get_mut(&object)?;
        self.uses += 1;
        open.used = self.uses;
        Some(Arc::clone(&open.file))
    }

    /// Remembers that a sync of an object failed.
    fn lose(&mut self, object: ObjectId) {
        if self.lost.len() < LOST_MAX {
            self.lost.insert(object);
        } else {
            self.all_lost = true;
        }
    }

    fn check_lost(&self, object: ObjectId) -> io::Result<()> {
        if self.all_lost || self.lost.contains(&object) { Err(Errno::EIO.into()) } else { Ok(()) }
    }

    /// Keeps a file open, in place of the one that was not used for longest when there are too many.
    fn keep(&mut self, object: ObjectId, file: File) -> Arc<ObjectFile> {
        if self.open.len() >= OPEN_MAX {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.used).map(|(object, _)| *object);
            oldest.map(|object| self.open.remove(&object));
        }
        let file = Arc::new(ObjectFile::from(file));
        self.uses += 1;
        self.open.insert(object, Open { file: Arc::clone(&file), used: self.uses });
        file
    }
}

fn file_name(object: ObjectId) -> String {
    format!("{:x}", object.0)
}

fn mode() -> Mode {
    Mode::S_IRUSR | Mode::S_IWUSR
}
