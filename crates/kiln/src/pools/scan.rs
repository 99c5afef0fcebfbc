//! Scrubs and resilvers, each on a thread of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_fs::wire::pool::Scan;
use kiln_pool::format::DatasetKind;
use kiln_pool::pool::{Health, Pool, PoolError, ScrubReport};

use super::events::Events;
use super::locked;

/// How often disks are brought up to date that miss something again and again.
const RESILVERS_MAX: usize = 3;
/// What is said where there is nothing to pause or stop.
const NO_SCRUB: &str = "no scrub is under way";

/// What was looked at last in a pool, or is.
pub(super) struct Scans {
    events: Arc<Events>,
    last: Mutex<Option<Last>>,
    stop: Arc<AtomicBool>,
    pause: AtomicBool,
    /// The most that a scrub looks at in a second, in bytes; 0 for no limit.
    rate: AtomicU64,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Last {
    resilver: bool,
    began: SystemTime,
    started: Instant,
    took: Option<Duration>,
    state: State,
    report: ScrubReport,
    /// For how long it was paused.
    paused: Duration,
}

enum State {
    Running,
    Paused,
    Finished,
    Stopped,
    Failed(String),
}

impl Scans {
    /// Nothing was looked at yet; what is tells of itself there.
    pub(super) fn new(events: Arc<Events>) -> Scans {
        Scans {
            events,
            last: Mutex::default(),
            stop: Arc::default(),
            pause: AtomicBool::default(),
            rate: AtomicU64::default(),
            thread: Mutex::default(),
        }
    }

    fn tell(&self, pool: &Pool, what: &str) {
        let (kind, found) = {
            let last = locked(&self.last);
            let Some(last) = &*last else { return };
            let ScrubReport { mended, damaged_records, .. } = last.report;
            let kind = if last.resilver { "resilver" } else { "scrub" };
            (kind, format!("{mended} copies mended, {damaged_records} records damaged beyond repair"))
        };
        let text = if what == "start" { "begun".to_owned() } else { found };
        self.events.add(&pool.name(), &format!("{kind}_{what}"), None, text);
    }

    /// Begins a scrub, or goes on with one that is paused; one that is under way has another rate from now on, if one is given.
    pub(super) fn start_scrub(self: &Arc<Self>, pool: &Arc<Pool>, rate: Option<u64>) -> Result<(), String> {
        if self.pause.swap(false, Ordering::Relaxed) && self.is_scrubbing() {
            if let Some(rate) = rate {
                self.rate.store(rate, Ordering::Relaxed);
            }
            return Ok(());
        }
        if rate.is_some() && self.is_scrubbing() {
            self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
            return Ok(());
        }
        self.start(pool, false, Scans::scrub)?;
        self.rate.store(rate.unwrap_or(0), Ordering::Relaxed);
        Ok(())
    }

    /// Lets a scrub rest where it is.
    pub(super) fn pause_scrub(&self) -> Result<(), String> {
        if !self.is_scrubbing() {
            return Err(NO_SCRUB.to_owned());
        }
        self.pause.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn is_scrubbing(&self) -> bool {
        let last = locked(&self.last);
        last.as_ref()
            .is_some_and(|last| !last.resilver && matches!(last.state, State::Running | State::Paused))
    }

    /// Begins a resilver, if a disk has missed something.
    pub(super) fn start_resilver(self: &Arc<Self>, pool: &Arc<Pool>) {
        let behind = |pool: &Pool| {
            pool.status()
                .vdevs
                .iter()
                .flat_map(|vdev| &vdev.leaves)
                .any(|leaf| leaf.behind && leaf.health == Health::Online)
        };
        if !behind(pool) {
            return;
        }
        // What is under way does not know of the disk that has come.
        self.stop();
        if let Err(why) = self.start(pool, true, Scans::resilver) {
            tracing::warn!(why, "what a disk has missed is not brought up to date");
        }
    }

    fn start(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        resilver: bool,
        scan: impl FnOnce(&Scans, &Pool) -> Result<ScrubReport, PoolError> + Send + 'static,
    ) -> Result<(), String> {
        let mut last = locked(&self.last);
        if last.as_ref().is_some_and(|last| matches!(last.state, State::Running | State::Paused)) {
            return Err(
                "a scrub or resilver is under way already; `kiln pool scrub -s` stops a scrub".to_owned()
            );
        }
        *last = Some(Last {
            resilver,
            began: SystemTime::now(),
            started: Instant::now(),
            took: None,
            state: State::Running,
            report: ScrubReport::default(),
            paused: Duration::ZERO,
        });
        drop(last);
        self.stop.store(false, Ordering::Relaxed);
        self.pause.store(false, Ordering::Relaxed);
        self.tell(pool, "start");
        // The pool is given up only when this thread has ended: see `stop`.
        let (scans, pool) = (Arc::clone(self), Arc::downgrade(pool));
        let run = move || {
            let Some(pool) = pool.upgrade() else { return };
            let outcome = scan(&scans, &pool);
            scans.ended(&pool, outcome);
        };
        let thread =
            thread::Builder::new().name("pool-scan".into()).spawn(run).map_err(|error| error.to_string())?;
        *locked(&self.thread) = Some(thread);
        Ok(())
    }

    fn scrub(&self, pool: &Pool) -> Result<ScrubReport, PoolError> {
        let mut scrub = pool.scrub();
        while !scrub.step()? && self.goes_on(scrub.report()) && self.rests(pool, scrub.report().bytes) {}
        Ok(scrub.report().clone())
    }

    /// Waits while the scrub is paused, or has looked at more than its rate allows; whether it is not to be stopped.
    fn rests(&self, pool: &Pool, looked_at: u64) -> bool {
        const LOOK_AGAIN: Duration = Duration::from_millis(20);
        let active = || {
            let last = locked(&self.last);
            last.as_ref().map_or(Duration::ZERO, |last| last.started.elapsed().saturating_sub(last.paused))
        };
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            if self.pause.load(Ordering::Relaxed) {
                if self.set_paused(true) {
                    self.tell(pool, "paused");
                }
                let began = Instant::now();
                thread::sleep(LOOK_AGAIN);
                if let Some(last) = &mut *locked(&self.last) {
                    last.paused += began.elapsed();
                }
                continue;
            }
            if self.set_paused(false) {
                self.tell(pool, "resume");
            }
            let rate = self.rate.load(Ordering::Relaxed);
            if rate == 0 || looked_at as f64 <= active().as_secs_f64() * rate as f64 {
                return true;
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// Whether it was otherwise.
    fn set_paused(&self, paused: bool) -> bool {
        let mut last = locked(&self.last);
        let Some(last) = &mut *last else { return false };
        let was = matches!(last.state, State::Paused);
        last.state = if paused { State::Paused } else { State::Running };
        was != paused
    }

    fn resilver(&self, pool: &Pool) -> Result<ScrubReport, PoolError> {
        let mut report = ScrubReport::default();
        // A disk may have missed something again in the meantime.
        for _ in 0..RESILVERS_MAX {
            match pool.resilver(&|report| self.goes_on(report))? {
                Some(found) => report = found,
                None => break,
            }
        }
        Ok(report)
    }

    /// Tells how far it is; whether it is not to be stopped.
    fn goes_on(&self, report: &ScrubReport) -> bool {
        if let Some(last) = &mut *locked(&self.last) {
            let ScrubReport { records, bytes, mended, damaged_records, .. } = *report;
            last.report = ScrubReport { records, bytes, mended, damaged_records, damaged: Vec::new() };
        }
        !self.stop.load(Ordering::Relaxed)
    }

    fn ended(&self, pool: &Pool, outcome: Result<ScrubReport, PoolError>) {
        let what = {
            let mut last = locked(&self.last);
            let Some(last) = &mut *last else { return };
            last.took = Some(last.started.elapsed());
            match outcome {
                Ok(report) => {
                    last.report = report;
                    let stopped = self.stop.load(Ordering::Relaxed);
                    last.state = if stopped { State::Stopped } else { State::Finished };
                    if stopped { "abort" } else { "finish" }
                }
                Err(error) => {
                    last.state = State::Failed(error.to_string());
                    "abort"
                }
            }
        };
        self.tell(pool, what);
    }

    /// Stops a scrub; what it has found stays.
    pub(super) fn stop_scrub(&self) -> Result<(), String> {
        if !self.is_scrubbing() {
            return Err(NO_SCRUB.to_owned());
        }
        self.stop();
        Ok(())
    }

    /// Stops what is under way, and waits for that. Disks that a resilver was for stay behind.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = locked(&self.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a scrub ended by a panic");
        }
    }

    /// What was looked at last, or is.
    pub(super) fn status(&self, pool: &Pool) -> Option<Scan> {
        let last = locked(&self.last);
        let last = last.as_ref()?;
        let state = match &last.state {
            State::Running => "running".to_owned(),
            State::Paused => "paused".to_owned(),
            State::Finished => "finished".to_owned(),
            State::Stopped => "stopped".to_owned(),
            State::Failed(why) => why.clone(),
        };
        let space = pool.space(DatasetKind::Files);
        Some(Scan {
            resilver: last.resilver,
            state,
            began: last.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            secs: last.took.unwrap_or_else(|| last.started.elapsed()).saturating_sub(last.paused).as_secs(),
            looked_at: last.report.bytes,
            of: (space.total_bytes - space.free_bytes).max(last.report.bytes),
            mended: last.report.mended,
            damaged: last.report.damaged_records,
        })
    }
}
