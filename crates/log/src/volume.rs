//! All logs of one disk, and the group commit that serves them.
//!
//! One thread takes all logs that were written since the last round, syncs their files outside every lock, advances
//! their durable watermarks and wakes who waited. Everything that is appended during a round goes into the next.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use kiln_world::{Clock, Disk, File};

use crate::error::{Failed, OpenError};
use crate::log::{FlushWork, Log, Settings, Shared};
use crate::pace::{Asks, Pace, QUIET};
use crate::read::SegmentCache;
use crate::waiters::Woken;

/// What was appended without anybody waiting for it is flushed at the latest after this time, where nobody says otherwise.
const UNASKED_FLUSH_AFTER: Duration = Duration::from_millis(10);

/// All logs of one disk. Clones are the same volume; the flusher ends when the last one and all logs are dropped.
#[derive(Clone)]
pub struct Volume {
    handle: Arc<Handle>,
}

/// Ends the flusher when it is dropped.
struct Handle {
    core: Arc<Core>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

struct Core {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    unasked_after: Duration,
    queue: Mutex<Queue>,
    work: Condvar,
    asks: Asks,
    /// Held during a round, with buffers that are used again.
    round: Mutex<Round>,
    logs: Mutex<Logs>,
    /// What a dead process left in the page cache has been synced.
    settled: Mutex<bool>,
    log_ids: AtomicU64,
    cache: SegmentCache,
}

#[derive(Default)]
struct Logs {
    open: HashMap<PathBuf, Weak<Shared>>,
    /// Logs that this volume has opened before, whether or not they are open now.
    known: HashSet<PathBuf>,
}

#[derive(Default)]
struct Queue {
    /// Logs with bytes that no round has taken yet, each once.
    dirty: Vec<Arc<Shared>>,
    /// The flusher sleeps until it is woken. Otherwise it looks again in time for whatever is appended meanwhile.
    idle: bool,
    closed: bool,
}

#[derive(Default)]
struct Round {
    logs: Vec<Arc<Shared>>,
    work: Vec<FlushWork>,
    files: Vec<Arc<dyn File>>,
    woken: Woken,
}

impl Volume {
    /// A volume with its flusher thread.
    ///
    /// # Panics
    /// When the system refuses to start a thread.
    pub fn start(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Volume {
        Volume::start_unhurried(disk, clock, UNASKED_FLUSH_AFTER)
    }

    /// The same; what nobody waits for is flushed at the latest after `unasked_after`.
    ///
    /// # Panics
    /// When the system refuses to start a thread.
    pub fn start_unhurried(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, unasked_after: Duration) -> Volume {
        let volume = Volume::with(disk, clock, unasked_after);
        let core = Arc::clone(&volume.handle.core);
        let flusher = std::thread::Builder::new().name("log-flusher".to_owned()).spawn(move || {
            core.run();
        });
        *lock(&volume.handle.flusher) = Some(flusher.expect("the system starts one thread per disk"));
        volume
    }

    /// A volume without a thread, for tests: it flushes when [`Volume::flush_round`] is called.
    pub fn manual(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>) -> Volume {
        Volume::with(disk, clock, UNASKED_FLUSH_AFTER)
    }

    fn with(disk: Arc<dyn Disk>, clock: Arc<dyn Clock>, unasked_after: Duration) -> Volume {
        let core = Core {
            disk,
            clock,
            unasked_after,
            queue: Mutex::default(),
            work: Condvar::new(),
            asks: Asks::new(),
            round: Mutex::default(),
            logs: Mutex::default(),
            settled: Mutex::new(false),
            log_ids: AtomicU64::new(0),
            cache: SegmentCache::default(),
        };
        Volume { handle: Arc::new(Handle { core: Arc::new(core), flusher: Mutex::new(None) }) }
    }

    /// Flushes everything that was appended so far; returns how many logs that were.
    pub fn flush_round(&self) -> usize {
        self.handle.core.flush_round().logs
    }

    /// Makes a round on the calling thread, unless one is under way or somebody else has asked for one: then it is for the
    /// flusher, which serves all of them together.
    pub(crate) fn flush_alone(&self) {
        let core = &self.handle.core;
        if core.asks.count() == 0
            && let Ok(round) = core.round.try_lock()
        {
            core.make_round(round);
        }
    }

    /// Opens the log in `dir`, relative to the disk's root, and recovers it; creates it when it is not there.
    /// A log that is open already is returned as it is, with the settings it has.
    pub fn open(&self, dir: &Path, settings: Settings) -> Result<Log, OpenError> {
        let mut logs = lock(&self.handle.core.logs);
        if let Some(shared) = logs.open.get(dir).and_then(Weak::upgrade) {
            return Ok(Log::from_shared(shared));
        }
        let id = self.handle.core.log_ids.fetch_add(1, Ordering::Relaxed);
        let is_first = logs.known.insert(dir.to_owned());
        let shared = Arc::new(crate::recover::open(self, id, dir, settings, is_first)?);
        logs.open.insert(dir.to_owned(), Arc::downgrade(&shared));
        Ok(Log::from_shared(shared))
    }

    /// The disk that the logs are on.
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.handle.core.disk
    }

    /// The clock that the logs go by.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.handle.core.clock
    }

    /// Flushes everything, ends the flusher, and stops all logs: they can be read, not written.
    pub fn close(&self) {
        self.handle.stop();
        let flusher = lock(&self.handle.flusher).take();
        if let Some(flusher) = flusher
            && flusher.thread().id() != std::thread::current().id()
        {
            // The thread's panic, if any, was already reported by the panic hook.
            let _ = flusher.join();
        }
        self.flush_round();
        let logs: Vec<_> =
            lock(&self.handle.core.logs).open.drain().filter_map(|(_, log)| log.upgrade()).collect();
        for log in logs {
            log.close();
        }
    }

    /// Asks for a flush soon.
    pub(crate) fn ask(&self) {
        let core = &self.handle.core;
        if core.asks.add() {
            let _queue = lock(&core.queue); // so that the flusher is not between looking and sleeping
            core.work.notify_one();
        }
    }

    /// Puts a log in line for the next round; each log does so once per round.
    pub(crate) fn enqueue(&self, log: Arc<Shared>) {
        let core = &self.handle.core;
        let mut queue = lock(&core.queue);
        queue.dirty.push(log);
        if std::mem::take(&mut queue.idle) {
            core.work.notify_one();
        }
    }

    /// Forgets a log that was removed, so that its directory can be opened anew.
    pub(crate) fn forget(&self, dir: &Path) {
        let mut logs = lock(&self.handle.core.logs);
        logs.open.remove(dir);
        logs.known.remove(dir);
    }

    /// Forgets a log that nobody holds any more, unless it was opened anew.
    pub(crate) fn forget_dead(&self, dir: &Path) {
        let mut logs = lock(&self.handle.core.logs);
        if logs.open.get(dir).is_some_and(|log| log.strong_count() == 0) {
            logs.open.remove(dir);
        }
    }

    /// Makes durable what a dead process left in the page cache: once, for all logs that are opened the first time.
    pub(crate) fn settle(&self) -> std::io::Result<()> {
        let mut settled = lock(&self.handle.core.settled);
        if !*settled {
            self.disk().sync_all()?;
            *settled = true;
        }
        Ok(())
    }

    pub(crate) fn cache(&self) -> &SegmentCache {
        &self.handle.core.cache
    }
}

impl Handle {
    fn stop(&self) {
        lock(&self.core.queue).closed = true;
        self.core.work.notify_all();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Core {
    /// The flusher's thread.
    fn run(&self) {
        let mut pace = Pace::default();
        while self.wait_for_work() {
            self.gather(&pace);
            let begun = self.clock.monotonic();
            let served = self.flush_round();
            pace = served.pace(begun, self.clock.monotonic());
        }
    }

    /// Sleeps until somebody asks, or what nobody asked for is due; false when the volume is closed.
    ///
    /// Waking a thread costs more than an append. So it is not woken by each one that finds nothing else appended: it looks
    /// every `unasked_after`, and sleeps longer only when nothing came in that time.
    fn wait_for_work(&self) -> bool {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return false;
            }
            if self.asks.arm(1) {
                return true;
            }
            if queue.idle {
                queue = self.work.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let timed_out;
            (queue, timed_out) = self.sleep(queue, self.unasked_after);
            if timed_out && !queue.closed && !queue.dirty.is_empty() {
                return true;
            }
            queue.idle = timed_out;
        }
    }

    /// Lets those whom the last round served come back before the next one leaves.
    fn gather(&self, pace: &Pace) {
        let (wanted, deadline) = pace.gather(self.clock.monotonic());
        let mut queue = lock(&self.queue);
        let mut seen = 0;
        while !queue.closed && !self.asks.arm(wanted) {
            let asked = self.asks.count();
            if asked == seen || self.clock.monotonic() >= deadline {
                return;
            }
            seen = asked;
            (queue, _) = self.sleep(queue, QUIET);
        }
    }

    fn sleep<'a>(&self, queue: MutexGuard<'a, Queue>, time: Duration) -> (MutexGuard<'a, Queue>, bool) {
        let (queue, timeout) = self.work.wait_timeout(queue, time).unwrap_or_else(PoisonError::into_inner);
        (queue, timeout.timed_out())
    }

    fn flush_round(&self) -> Served {
        self.make_round(lock(&self.round))
    }

    fn make_round(&self, mut round: MutexGuard<'_, Round>) -> Served {
        self.asks.reset();
        std::mem::swap(&mut lock(&self.queue).dirty, &mut round.logs);
        let Round { logs, work, files, woken } = &mut *round;
        work.extend(logs.iter().map(|log| log.begin_flush(files)));
        match self.sync(work, files) {
            Ok(()) => {
                for (work, log) in work.iter().zip(logs.iter()) {
                    log.end_flush(work, woken);
                }
            }
            Err(error) => {
                // After a failed sync nobody knows which files of the round are on the disk: all their logs stop.
                tracing::error!(%error, logs = logs.len(), "failed to flush; these logs stop");
                for log in logs.iter() {
                    log.fail(&Failed::new(log.dir(), &error), woken);
                }
            }
        }
        let served = Served { logs: logs.len(), asked: self.asks.count(), woken: woken.len() };
        woken.wake();
        for (work, log) in work.drain(..).zip(logs.iter()) {
            log.after_flush(&work);
        }
        files.clear();
        logs.clear();
        served
    }

    /// Files first, then the names that lead to them: only both together make a record durable.
    fn sync(&self, work: &[FlushWork], files: &[Arc<dyn File>]) -> std::io::Result<()> {
        self.disk.sync_files(files)?;
        let changed = work.iter().filter(|work| work.names);
        // Parents that logs have in common are synced once.
        let dirs: BTreeSet<&Path> = changed.flat_map(|work| work.dir.ancestors()).collect();
        for dir in dirs {
            match self.disk.sync_dir(dir) {
                // The log was removed meanwhile, with its names.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                outcome => outcome?,
            }
        }
        Ok(())
    }
}

/// What a round did.
struct Served {
    logs: usize,
    /// Who had asked for the next round when this one was about to wake its waiters.
    asked: usize,
    woken: usize,
}

impl Served {
    fn pace(&self, begun: Duration, now: Duration) -> Pace {
        let mut pace = Pace::default();
        pace.round_ended(now, now.saturating_sub(begun), self.asked, self.woken);
        pace
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
