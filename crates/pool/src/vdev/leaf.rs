//! One disk.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use kiln_world::File;

use super::SECTOR_BYTES;
use super::incidents::{Book, Counts, Incidents, Trouble};

/// So much may wait in the system's memory before it is told to begin writing it, in bytes.
const HELD_BACK_MAX: u64 = 8 << 20;

/// A disk of a vdev, or the place of one that is not there.
pub struct Leaf {
    /// It comes and goes while the pool is used.
    file: RwLock<Option<Arc<dyn File>>>,
    /// Where the records begin, in bytes.
    data_start: u64,
    /// It has missed transaction groups: what it holds may be old.
    behind: AtomicBool,
    /// What was written since the system was told to begin with it, in bytes.
    held_back: AtomicU64,
    /// Something was written since the last flush began.
    unflushed: AtomicBool,
    /// It did not take something since this was asked last.
    missed: AtomicBool,
    /// A flush has failed, which the system tells one caller only: nothing on this disk is known to be durable until it is opened again.
    flush_failed: Mutex<bool>,
    book: Mutex<Book>,
}

impl Leaf {
    /// A disk whose first `data_start` bytes are not for records.
    pub fn new(file: Arc<dyn File>, data_start: u64) -> Leaf {
        Leaf {
            file: RwLock::new(Some(file)),
            data_start,
            behind: AtomicBool::new(false),
            held_back: AtomicU64::new(0),
            // What a process that ended has written may be with the system only.
            unflushed: AtomicBool::new(true),
            missed: AtomicBool::new(false),
            flush_failed: Mutex::new(false),
            book: Mutex::default(),
        }
    }

    /// The place of a disk that is not there: nothing can be read or written, and nothing is counted.
    pub fn absent(data_start: u64) -> Leaf {
        Leaf {
            file: RwLock::new(None),
            data_start,
            behind: AtomicBool::new(true),
            held_back: AtomicU64::new(0),
            unflushed: AtomicBool::new(false),
            missed: AtomicBool::new(false),
            flush_failed: Mutex::new(false),
            book: Mutex::default(),
        }
    }

    /// Whether it is there.
    pub fn is_there(&self) -> bool {
        self.file().is_some()
    }

    /// The disk itself.
    pub fn file(&self) -> Option<Arc<dyn File>> {
        self.file.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a disk in its place, or takes the disk away. What went wrong with the one before is forgotten.
    pub fn exchange(&self, file: Option<Arc<dyn File>>) {
        self.set_behind(true);
        let mut flush_failed = self.flush_failed.lock().unwrap_or_else(PoisonError::into_inner);
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = file;
        *flush_failed = false;
        self.unflushed.store(true, Ordering::Release);
        self.missed.store(false, Ordering::Release);
        *self.book() = Book::default();
    }

    /// Whether it has missed something: what it holds may be old, for which it is not to be blamed.
    pub fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire)
    }

    /// It has missed something, or has everything again.
    pub fn set_behind(&self, behind: bool) {
        self.behind.store(behind, Ordering::Release);
    }

    /// It did not take something.
    pub fn note_missed(&self) {
        self.missed.store(true, Ordering::Release);
    }

    /// Whether it did not take something since this was asked last.
    pub fn take_missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// Whether a flush has failed: nothing on this disk is known to be durable any more.
    pub fn is_doubtful(&self) -> bool {
        *self.flush_failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What went wrong so far.
    pub fn counts(&self) -> Counts {
        self.book().counts
    }

    /// What went wrong since this was asked last.
    pub fn take_incidents(&self) -> Incidents {
        std::mem::take(&mut self.book().untold)
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was read of a sector on was not what was written.
    pub(super) fn note_checksum(&self, sector: u64) {
        if !self.is_behind() {
            self.note(Trouble::Checksum, sector);
        }
    }

    fn note(&self, what: Trouble, sector: u64) {
        self.book().note(what, Some(self.position(sector)));
    }

    /// Writes what was read otherwise, or could not be read; whether it was written.
    pub(super) fn mend(&self, sector: u64, bytes: &[u8]) -> bool {
        let mended = self.write(sector, &[bytes]);
        if mended && !self.is_behind() {
            self.note(Trouble::Mended, sector);
        }
        mended
    }

    /// So many sectors, all of them; `None` when they cannot be read.
    pub(super) fn read(&self, sector: u64, sectors: u32) -> Option<Vec<u8>> {
        let file = self.file()?;
        let mut bytes = vec![0; sectors as usize * SECTOR_BYTES];
        if read_exactly(&*file, &mut bytes, self.position(sector)).is_err() {
            self.note(Trouble::Read, sector);
            return None;
        }
        Some(bytes)
    }

    /// Writes parts one after the other; whether all of them were written.
    pub(super) fn write(&self, sector: u64, parts: &[&[u8]]) -> bool {
        let Some(file) = self.file() else { return false };
        let written = file.write_all_at(parts, self.position(sector)).is_ok();
        // Only now: a flush that begins before this may leave it out.
        self.unflushed.store(true, Ordering::Release);
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if !written {
            self.note(Trouble::Write, sector);
        }
        if self.held_back.fetch_add(bytes as u64, Ordering::Relaxed) >= HELD_BACK_MAX {
            // The disk has something to do until the next flush.
            self.held_back.store(0, Ordering::Relaxed);
            file.write_back();
        }
        written
    }

    /// Whether [`Leaf::sync`] has something to do, or to tell. Where a flush is under way it is to be waited for.
    pub(super) fn needs_sync(&self) -> bool {
        match self.flush_failed.try_lock() {
            Ok(failed) => *failed || self.unflushed.load(Ordering::Acquire),
            Err(_) => true,
        }
    }

    /// Whether everything that was written is durable. A place without a disk has nothing to lose. A failure is final.
    pub(super) fn sync(&self) -> bool {
        let mut failed = self.flush_failed.lock().unwrap_or_else(PoisonError::into_inner);
        // Who flushes at the same time waits for the lock, and so for the flush that has what was written.
        let needed = self.unflushed.swap(false, Ordering::AcqRel);
        let synced = !*failed && (!needed || self.file().is_none_or(|file| file.sync().is_ok()));
        *failed = !synced;
        if !synced {
            self.book().note(Trouble::Flush, None);
        }
        synced
    }

    fn position(&self, sector: u64) -> u64 {
        self.data_start + sector * SECTOR_BYTES as u64
    }
}

/// Fills all of `into`; what ends before is an error.
pub(super) fn read_exactly(file: &dyn File, into: &mut [u8], at: u64) -> io::Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read_at(&mut into[filled..], at + filled as u64)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => filled += read,
        }
    }
    Ok(())
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf").field("is_there", &self.is_there()).field("counts", &self.counts()).finish()
    }
}
