//! What the files of a mount share: bounds on memory, and the threads that write back and read ahead.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::quota::Debts;
use super::{FileData, Mds, Osts, Settings};
use crate::client::bell::Bell;
use crate::core::Extent;

/// Requests to read ahead that wait for a thread; further ones are not made.
const READ_AHEAD_JOBS_MAX: usize = 256;
/// Parts of files in memory that are clean; the first go when there are more.
const CLEAN_PARTS_MAX: usize = 4096;
/// How long a writer waits for memory before it looks for something to write back itself.
const ADMISSION_WAIT: Duration = Duration::from_millis(50);

pub(super) struct Mount {
    pub(super) mds: Arc<dyn Mds>,
    pub(super) osts: Arc<Osts>,
    pub(super) settings: Settings,
    /// What was used and not told to the MDS.
    pub(super) debts: Debts,
    dirty: Mutex<u64>,
    less_dirty: Bell,
    clean: Mutex<CleanMemory>,
    queue: Mutex<Queue>,
    work: Condvar,
}

/// Work for the threads.
pub(super) enum Job {
    /// Chunks of the file are complete, or somebody waits for them.
    WriteBack(Arc<FileData>),
    /// Everything that the file has.
    Flush(Arc<FileData>),
    /// A range.
    ReadAhead(Arc<FileData>, Extent),
}

#[derive(Default)]
struct Queue {
    /// **Bound:** for each file one job for each worker; [`READ_AHEAD_JOBS_MAX`].
    jobs: VecDeque<Job>,
    /// Files that have something to tell, by when they shall; each is there once.
    aging: VecDeque<(Instant, Arc<FileData>)>,
    stopping: bool,
}

/// Clean data in memory, in the order in which it came.
#[derive(Default)]
struct CleanMemory {
    bytes: u64,
    /// What may be dropped; some of it may be gone already.
    parts: VecDeque<(Weak<FileData>, Extent)>,
}

impl Mount {
    pub(super) fn new(mds: Arc<dyn Mds>, osts: Arc<Osts>, settings: Settings) -> Mount {
        Mount {
            mds,
            osts,
            settings,
            debts: Debts::default(),
            dirty: Mutex::new(0),
            less_dirty: Bell::default(),
            clean: Mutex::default(),
            queue: Mutex::default(),
            work: Condvar::new(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets memory aside for dirty data, if there is enough. Data that is larger than the bound gets all of it.
    pub(super) fn reserve(&self, bytes: u64) -> bool {
        let mut dirty = lock(&self.dirty);
        let fits = *dirty == 0 || *dirty + bytes <= self.settings.dirty_bytes_max;
        if fits {
            let calm = *dirty <= self.settings.dirty_bytes_max / 2;
            *dirty += bytes;
            if calm && *dirty > self.settings.dirty_bytes_max / 2 {
                self.work.notify_one();
            }
        }
        fits
    }

    /// Waits for a while, or until there is less dirty data.
    pub(super) fn await_room(&self) {
        self.work.notify_all();
        let dirty = lock(&self.dirty);
        drop(self.less_dirty.wait_timeout(dirty, ADMISSION_WAIT));
    }

    /// A file's share of the dirty data has changed.
    pub(super) fn charge(&self, old: u64, new: u64) {
        if old == new {
            return;
        }
        let mut dirty = lock(&self.dirty);
        *dirty = *dirty - old + new;
        drop(dirty);
        if new < old {
            self.less_dirty.notify_all();
        }
    }

    pub(super) fn dirty_bytes(&self) -> u64 {
        *lock(&self.dirty)
    }

    /// A file's share of the clean data has changed.
    pub(super) fn charge_clean(&self, old: u64, new: u64) {
        if old != new {
            let mut clean = lock(&self.clean);
            clean.bytes = clean.bytes - old + new;
        }
    }

    #[cfg(test)]
    pub(super) fn clean_bytes(&self) -> u64 {
        lock(&self.clean).bytes
    }

    /// Clean data has come into memory: drops what came first until the bound is kept. **Must hold:** the caller has no
    /// file locked.
    pub(super) fn came(&self, file: &Weak<FileData>, extent: Extent) {
        lock(&self.clean).parts.push_back((Weak::clone(file), extent));
        while let Some((file, extent)) = self.surplus() {
            if let Some(file) = file.upgrade() {
                file.forget(extent);
            }
        }
    }

    fn surplus(&self) -> Option<(Weak<FileData>, Extent)> {
        let mut clean = lock(&self.clean);
        // Parts that were read are gone, and their entries pile up at the front.
        if clean.bytes > self.settings.clean_bytes_max || clean.parts.len() > CLEAN_PARTS_MAX {
            clean.parts.pop_front()
        } else {
            None
        }
    }

    pub(super) fn push(&self, job: Job) {
        let mut queue = self.queue();
        if !queue.stopping {
            queue.jobs.push_back(job);
            drop(queue);
            self.work.notify_one();
        }
    }

    /// Whether another range may be read ahead.
    pub(super) fn may_read_ahead(&self) -> bool {
        self.queue().jobs.len() < READ_AHEAD_JOBS_MAX
    }

    /// A file has something to tell from now on.
    pub(super) fn age(&self, file: Arc<FileData>) {
        let due = Instant::now() + self.settings.write_back_after;
        let mut queue = self.queue();
        if !queue.stopping {
            queue.aging.push_back((due, file));
            let first = queue.aging.len() == 1;
            drop(queue);
            if first {
                self.work.notify_one(); // Somebody has to wait for this moment.
            }
        }
    }

    /// Works until the mount stops.
    pub(super) fn work(&self) {
        while let Some(job) = self.next() {
            match job {
                Job::WriteBack(file) => file.help(),
                Job::Flush(file) => file.flush_in_background(),
                Job::ReadAhead(file, extent) => file.read_ahead(extent),
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if queue.stopping {
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            let Some((due, _)) = queue.aging.front() else {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let wait = due.saturating_duration_since(Instant::now());
            if wait.is_zero() || self.dirty_bytes() > self.settings.dirty_bytes_max / 2 {
                return queue.aging.pop_front().map(|(_, file)| Job::Flush(file));
            }
            queue = self.work.wait_timeout(queue, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Ends the threads, and answers the files that still had something to tell.
    pub(super) fn stop(&self) -> Vec<Arc<FileData>> {
        let mut queue = self.queue();
        queue.stopping = true;
        let jobs = std::mem::take(&mut queue.jobs);
        let aging = std::mem::take(&mut queue.aging);
        drop(queue);
        drop(jobs);
        self.work.notify_all();
        aging.into_iter().map(|(_, file)| file).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
