//! Objects as sparse files in a directory of any filesystem of the machine.
//!
//! ```text
//! label      which target this is; written last when the target is made
//! lock       held while it is served
//! fences     sessions that are kept out
//! O/d0 .. O/d31/HEX   the objects, by the remainder of their number
//! ```

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{Whence, lseek};

use super::durable;
use super::error::TargetError;
use super::label::Label;
use super::lock::{LOCK, TargetLock};
use super::objects::Objects;
use super::shelf::{ObjectFile, Shelf};
use super::streams::Streams;
use crate::core::{Errno, ObjectId};
use crate::wire::oss::{ObjectStat, Space};

/// Directories over which the objects are spread, so that making and opening them goes on side by side.
const SHELVES: u64 = 32;
const OBJECTS: &str = "O";
/// What may be in a directory in which a target is to be made: what an attempt before left, and what mkfs makes.
const NO_OBSTACLES: [&str; 4] = [OBJECTS, LOCK, "label.new", "lost+found"];

/// One file for each object.
#[derive(Debug)]
pub struct DirectoryObjects {
    /// **Invariant:** [`SHELVES`] of them.
    shelves: Vec<Shelf>,
    root: File,
    streams: Streams,
    /// Ends last, when nothing is used any more.
    _lock: TargetLock,
}

impl DirectoryObjects {
    /// Makes an empty directory, which may be missing, a target. Whoever serves it later says with [`Label`] which one it
    /// must be: a disk that is not mounted is then missed, where making it anew would lose it from sight.
    pub fn format(dir: &Path, label: &Label) -> Result<(), TargetError> {
        durable::create_dir(dir).map_err(TargetError::io(dir))?;
        let _lock = TargetLock::take(dir)?;
        if let Some(found) = Label::read(dir)? {
            return found.check(dir, label);
        }
        check_empty(dir)?;
        make_shelves(&dir.join(OBJECTS)).map_err(TargetError::io(dir))?;
        label.write(dir)
    }

    /// Opens the target in `dir`, which must be `wanted`; until it is dropped nobody else can.
    pub fn open(dir: &Path, wanted: &Label) -> Result<DirectoryObjects, TargetError> {
        // Before the lock, which would leave its file in a directory that is none of ours.
        if Label::read(dir)?.is_none() {
            return Err(TargetError::NotATarget(dir.to_owned()));
        }
        let lock = TargetLock::take(dir)?;
        let found = Label::read(dir)?.ok_or_else(|| TargetError::NotATarget(dir.to_owned()))?;
        found.check(dir, wanted)?;
        let open = |path: &Path| File::open(path).map_err(TargetError::io(path));
        let objects = dir.join(OBJECTS);
        let shelves = (0..SHELVES).map(|shelf| open(&objects.join(format!("d{shelf}"))).map(Shelf::new));
        let shelves = shelves.collect::<Result<_, _>>()?;
        let root = open(dir)?;
        Ok(DirectoryObjects { shelves, streams: Streams::of(&root), root, _lock: lock })
    }

    fn shelf(&self, object: ObjectId) -> &Shelf {
        &self.shelves[(object.0 % SHELVES) as usize]
    }

    fn existing(&self, object: ObjectId) -> Result<Option<Arc<ObjectFile>>, Errno> {
        self.shelf(object).existing(object).map_err(refusal)
    }

    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        self.shelves.iter().map(Shelf::open_files).sum()
    }
}

fn check_empty(dir: &Path) -> Result<(), TargetError> {
    for entry in fs::read_dir(dir).map_err(TargetError::io(dir))? {
        let name = entry.map_err(TargetError::io(dir))?.file_name();
        if !NO_OBSTACLES.iter().any(|known| name == *known) {
            let entry = name.to_string_lossy().into_owned();
            return Err(TargetError::NotEmpty { dir: dir.to_owned(), entry });
        }
    }
    Ok(())
}

fn make_shelves(objects: &Path) -> io::Result<()> {
    for shelf in 0..SHELVES {
        fs::create_dir_all(objects.join(format!("d{shelf}")))?;
    }
    File::open(objects)?.sync_all()
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refusal(error: io::Error) -> Errno {
    Errno::from(&error)
}

fn of_system(error: nix::errno::Errno) -> Errno {
    Errno(error as i32)
}

impl Objects for DirectoryObjects {
    fn read(&self, object: ObjectId, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
        let Some(file) = self.existing(object)? else { return Ok(0) };
        let mut filled = 0;
        while filled < into.len() {
            match self.streams.read_at(&file, &mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(refusal(error)),
            }
        }
        Ok(filled)
    }

    fn write(&self, object: ObjectId, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let file = self.shelf(object).made(object).map_err(refusal)?;
        self.streams.write_all_at(&file, bytes, offset).map_err(refusal)
    }

    fn truncate(&self, object: ObjectId, len: u64) -> Result<(), Errno> {
        let Some(file) = self.existing(object)? else { return Ok(()) };
        if file.metadata().map_err(refusal)?.len() > len {
            // A write behind `len` that comes in between is cut as if it had come before.
            file.set_len(len).map_err(refusal)?;
        }
        Ok(())
    }

    fn punch(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno> {
        let Some(file) = self.existing(object)? else { return Ok(()) };
        // Behind the end there is nothing, and what is too far for the filesystem it would refuse.
        let end = file.metadata().map_err(refusal)?.len().min(offset + len);
        if end <= offset {
            return Ok(());
        }
        let (how, len) =
            (FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE, end - offset);
        fallocate(&**file, how, offset as i64, len as i64).map_err(of_system)
    }

    fn allocate(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno> {
        let file = self.shelf(object).made(object).map_err(refusal)?;
        fallocate(&**file, FallocateFlags::empty(), offset as i64, len as i64).map_err(of_system)
    }

    fn seek(&self, object: ObjectId, offset: u64, hole: bool) -> Result<u64, Errno> {
        let file = self.existing(object)?.ok_or(Errno::ENXIO)?;
        let whence = if hole { Whence::SeekHole } else { Whence::SeekData };
        // The position of the shared file is of no meaning: nothing else uses it.
        lseek(&**file, offset as i64, whence).map(|found| found as u64).map_err(of_system)
    }

    fn sync(&self, objects: &[ObjectId]) -> Result<(), Errno> {
        objects.iter().try_for_each(|object| self.shelf(*object).sync_object(*object)).map_err(refusal)?;
        let mut shelves: Vec<u64> = objects.iter().map(|object| object.0 % SHELVES).collect();
        shelves.sort_unstable();
        shelves.dedup();
        shelves.iter().try_for_each(|shelf| self.shelves[*shelf as usize].sync_names()).map_err(refusal)
    }

    fn stat(&self, object: ObjectId) -> Result<ObjectStat, Errno> {
        let stat = self.shelf(object).stat(object).map_err(refusal)?;
        Ok(stat.map_or(ObjectStat::default(), |stat| ObjectStat {
            len: stat.st_size as u64,
            blocks: stat.st_blocks as u64,
        }))
    }

    fn destroy(&self, object: ObjectId) -> Result<(), Errno> {
        self.shelf(object).remove(object).map_err(refusal)
    }

    fn space(&self) -> Result<Space, Errno> {
        let space = fstatvfs(&self.root).map_err(of_system)?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_size());
        Ok(Space {
            total_bytes: bytes(space.blocks()),
            free_bytes: bytes(space.blocks_free()),
            available_bytes: bytes(space.blocks_available()),
            inodes: space.files(),
            free_inodes: space.files_free(),
        })
    }
}
