//! A dataset as a disk of files: what stores something through [`Disk`], as the log does, and an MDT, stands on a pool unchanged.
//!
//! Object 0 is the table of names, and each file is an object. Whatever is written is in the intent log when the call returns, though
//! not flushed: it outlives the process, as it does with a file of the system, and a sync is one flush.

mod names;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_world::{Disk, Entry, File, Open, Space, plain_path};

use crate::format::{DatasetKind, NAME_SLOT_BYTES, NameSlot, check_names_head, encode_names_head};
use crate::pool::{DatasetId, Pool, PoolError};
use names::{Named, Names};

/// The length of records, in bytes: databases and logs change a little at a time.
const RECORD_BYTES: u32 = 16 << 10;
/// The table of names.
const NAMES: u64 = 0;

impl From<PoolError> for io::Error {
    fn from(error: PoolError) -> io::Error {
        let kind = match &error {
            PoolError::NoSpace => io::ErrorKind::StorageFull,
            PoolError::TooLong => io::ErrorKind::FileTooLarge,
            PoolError::NoDataset => io::ErrorKind::NotFound,
            PoolError::DatasetExists => io::ErrorKind::AlreadyExists,
            PoolError::DatasetName => io::ErrorKind::InvalidFilename,
            PoolError::Damaged => io::ErrorKind::InvalidData,
            PoolError::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
            PoolError::HasSnapshots | PoolError::HasClone(_) | PoolError::NotNewest => {
                io::ErrorKind::ResourceBusy
            }
            PoolError::Suspended(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

/// See the module. Clones are the same disk. A dataset is one disk at a time.
#[derive(Clone)]
pub struct PoolDisk {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Arc<Pool>,
    dataset: DatasetId,
    names: Mutex<Names>,
}

impl PoolDisk {
    /// Makes the dataset, unless it is there, and opens it.
    pub fn make(pool: Arc<Pool>, dataset: &str) -> io::Result<PoolDisk> {
        match pool.create_dataset(dataset, RECORD_BYTES, DatasetKind::Files) {
            Ok(_) | Err(PoolError::DatasetExists) => PoolDisk::open(pool, dataset),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the disk that a dataset is; `NotFound` when the pool has none of that name.
    pub fn open(pool: Arc<Pool>, dataset: &str) -> io::Result<PoolDisk> {
        let dataset = pool.dataset(dataset).ok_or(PoolError::NoDataset)?;
        if pool.stat(dataset, NAMES)?.is_none_or(|stat| stat.len == 0) {
            pool.write(dataset, NAMES, 0, &encode_names_head())?;
            pool.sync(dataset, &[NAMES])?;
        }
        let (names, over) = read_names(&pool, dataset)?;
        let shared = Shared { pool, dataset, names: Mutex::new(names) };
        for object in over {
            shared.forget(object)?;
        }
        shared.collect()?;
        Ok(PoolDisk { shared: Arc::new(shared) })
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.shared.names()
    }

    fn file(&self, names: &mut Names, object: u64) -> Arc<dyn File> {
        names.hold(object);
        Arc::new(PoolFile { disk: Arc::clone(&self.shared), object })
    }
}

/// The names of the table, and the slots in it that hold nothing any more.
fn read_names(pool: &Pool, dataset: DatasetId) -> io::Result<(Names, Vec<u64>)> {
    const SLOTS_AT_ONCE: usize = 1024;
    let len = pool.stat(dataset, NAMES)?.unwrap_or_default().len;
    let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut chunk = vec![0; SLOTS_AT_ONCE * NAME_SLOT_BYTES];
    let mut slots = Vec::new();
    let mut at = 0;
    while at < len {
        let read = pool.read(dataset, NAMES, at, &mut chunk)?;
        for (index, bytes) in chunk[..read].chunks(NAME_SLOT_BYTES).enumerate() {
            let number = at / NAME_SLOT_BYTES as u64 + index as u64;
            if number == 0 {
                check_names_head(bytes).map_err(malformed)?;
            } else if let Some(slot) = NameSlot::decode(bytes).map_err(malformed)? {
                slots.push((number, slot));
            }
        }
        at += read as u64;
    }
    Ok(Names::of(slots.into_iter(), len.div_ceil(NAME_SLOT_BYTES as u64)))
}

impl Shared {
    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_slot(&self, object: u64, bytes: &[u8]) -> io::Result<()> {
        self.pool.write(self.dataset, NAMES, object * NAME_SLOT_BYTES as u64, bytes)?;
        Ok(self.pool.keep(self.dataset, NAMES)?)
    }

    /// Gives an object a name; what had that name before is not needed any more, unless somebody has it open.
    fn enter(&self, names: &mut Names, object: u64, slot: NameSlot) -> io::Result<()> {
        self.write_slot(object, &slot.encode())?;
        let replaced = names.get(&slot.path).filter(|replaced| replaced.object != object);
        let unused = replaced.and_then(|_| names.leave(&slot.path));
        names.enter(object, slot);
        if let Some(replaced) = replaced {
            self.write_slot(replaced.object, &[0; NAME_SLOT_BYTES])?;
        }
        unused.map_or(Ok(()), |unused| self.destroy(names, unused))
    }

    fn remove(&self, names: &mut Names, path: &Path, named: Named) -> io::Result<()> {
        self.write_slot(named.object, &[0; NAME_SLOT_BYTES])?;
        names.leave(path).map_or(Ok(()), |unused| self.destroy(names, unused))
    }

    fn destroy(&self, names: &mut Names, object: u64) -> io::Result<()> {
        self.pool.destroy(self.dataset, object)?;
        names.give_back(object);
        Ok(())
    }

    /// A slot whose path was given to another object, or an object without a name, from before a crash.
    fn forget(&self, object: u64) -> io::Result<()> {
        self.write_slot(object, &[0; NAME_SLOT_BYTES])?;
        Ok(self.pool.destroy(self.dataset, object)?)
    }

    /// Destroys what has no name: files that were removed, or made, just before a crash.
    fn collect(&self) -> io::Result<()> {
        const AT_ONCE: usize = 1024;
        let named = self.names().objects();
        let mut first = NAMES + 1;
        loop {
            let found = self.pool.objects(self.dataset, first, AT_ONCE)?;
            for object in found.iter().filter(|object| !named.contains(object)) {
                self.pool.destroy(self.dataset, *object)?;
            }
            match found.last() {
                Some(last) if found.len() == AT_ONCE => first = last + 1,
                _ => return Ok(()),
            }
        }
    }
}

impl Disk for PoolDisk {
    fn open(&self, path: &Path, how: Open) -> io::Result<Arc<dyn File>> {
        let path = plain_path(path)?;
        let mut names = self.names();
        let object = match (names.get(&path), how) {
            (Some(named), _) if named.is_dir => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(_), Open::New) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(named), _) => named.object,
            (None, Open::Existing) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::OrCreate | Open::New) => {
                let (object, slot) = names.new_name(&path, false)?;
                // What had the number before is gone before it has a name again.
                self.shared.pool.destroy(self.shared.dataset, object)?;
                self.shared.pool.keep(self.shared.dataset, object)?;
                self.shared.enter(&mut names, object, slot)?;
                object
            }
        };
        Ok(self.file(&mut names, object))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        Ok(self.names().list(&plain_path(dir)?))
    }

    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = plain_path(dir)?;
        let mut names = self.names();
        let mut missing: Vec<&Path> = Vec::new();
        for path in dir.ancestors() {
            match names.get(path) {
                Some(named) if named.is_dir => break,
                Some(_) => return Err(io::ErrorKind::NotADirectory.into()),
                None => missing.push(path),
            }
        }
        for path in missing.into_iter().rev() {
            let (object, slot) = names.new_name(path, true)?;
            self.shared.enter(&mut names, object, slot)?;
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (plain_path(from)?, plain_path(to)?);
        let mut names = self.names();
        let named = names.get(&from).ok_or(io::ErrorKind::NotFound)?;
        if named.is_dir || names.get(&to).is_some_and(|there| there.is_dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let parent = to.parent().unwrap_or(Path::new(""));
        if names.get(parent).is_none_or(|parent| !parent.is_dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if from == to {
            return Ok(());
        }
        let slot = names.slot(&to, false)?;
        self.shared.enter(&mut names, named.object, slot)?;
        names.forget(&from);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = plain_path(path)?;
        let mut names = self.names();
        match names.get(&path) {
            Some(named) if named.is_dir => Err(io::ErrorKind::IsADirectory.into()),
            Some(named) => self.shared.remove(&mut names, &path, named),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let dir = plain_path(dir)?;
        let mut names = self.names();
        match names.get(&dir) {
            Some(named) if !named.is_dir => return Err(io::ErrorKind::NotADirectory.into()),
            Some(_) => {}
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        // A directory goes after all that is in it.
        for (path, named) in names.below(&dir).into_iter().rev() {
            self.shared.remove(&mut names, &path, named)?;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.names().get(&plain_path(dir)?).is_none_or(|named| !named.is_dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.shared.pool.sync(self.shared.dataset, &[NAMES])?)
    }

    fn sync_files(&self, files: &[Arc<dyn File>]) -> io::Result<()> {
        // The first makes the log durable up to now, and the others find that it is.
        files.iter().try_for_each(|file| file.sync())
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(self.shared.pool.commit()?)
    }

    fn space(&self) -> io::Result<Space> {
        let space = self.shared.pool.space(DatasetKind::Files);
        Ok(Space {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            available_bytes: space.free_bytes,
        })
    }
}

impl fmt::Debug for PoolDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolDisk").field("dataset", &self.shared.dataset).finish_non_exhaustive()
    }
}

struct PoolFile {
    disk: Arc<Shared>,
    object: u64,
}

impl File for PoolFile {
    fn read_at(&self, buf: &mut [u8], pos: u64) -> io::Result<usize> {
        Ok(self.disk.pool.read(self.disk.dataset, self.object, pos, buf)?)
    }

    fn write_all_at(&self, parts: &[&[u8]], pos: u64) -> io::Result<()> {
        // One write costs less than many small ones.
        let bytes = if let [only] = parts { only } else { &parts.concat()[..] };
        if bytes.is_empty() {
            return Ok(());
        }
        self.disk.pool.write(self.disk.dataset, self.object, pos, bytes)?;
        Ok(self.disk.pool.keep(self.disk.dataset, self.object)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(self.disk.pool.sync(self.disk.dataset, &[self.object])?)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.pool.stat(self.disk.dataset, self.object)?.unwrap_or_default().len)
    }

    fn disk_bytes(&self) -> io::Result<u64> {
        Ok(self.disk.pool.stat(self.disk.dataset, self.object)?.unwrap_or_default().disk_bytes)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.pool.set_len(self.disk.dataset, self.object, len)?;
        Ok(self.disk.pool.keep(self.disk.dataset, self.object)?)
    }

    /// Every write goes to a new place, so nothing can be set aside.
    fn reserve(&self, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PoolFile {
    fn drop(&mut self) {
        let mut names = self.disk.names();
        if names.release(self.object) {
            // What cannot be destroyed now is collected when the disk is opened again.
            let _ = self.disk.destroy(&mut names, self.object);
        }
    }
}
