//! Scrubs and resilvers, each on a thread of its own.

use std::sync::{Arc, Condvar, Mutex};
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
    wish: Mutex<Wish>,
    wished: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What somebody wants of the scan that is under way.
#[derive(Clone, Copy, Default)]
struct Wish {
    stop: bool,
    pause: bool,
    /// The most that a scrub looks at in a second, in bytes; 0 for no limit.
    rate: u64,
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
            wish: Mutex::default(),
            wished: Condvar::new(),
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
        if self.is_scrubbing() && (rate.is_some() || self.wish().pause) {
            self.wish_for(|wish| {
                wish.pause = false;
                wish.rate = rate.unwrap_or(wish.rate);
            });
            return Ok(());
        }
        let wish = Wish { rate: rate.unwrap_or(0), ..Wish::default() };
        self.start(pool, false, wish, Scans::scrub)
    }

    fn wish(&self) -> Wish {
        *locked(&self.wish)
    }

    fn wish_for(&self, change: impl FnOnce(&mut Wish)) {
        change(&mut locked(&self.wish));
        self.wished.notify_all();
    }

    /// Lets a scrub rest where it is.
    pub(super) fn pause_scrub(&self) -> Result<(), String> {
        if !self.is_scrubbing() {
            return Err(NO_SCRUB.to_owned());
        }
        self.wish_for(|wish| wish.pause = true);
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
        if let Err(why) = self.start(pool, true, Wish::default(), Scans::resilver) {
            tracing::warn!(why, "what a disk has missed is not brought up to date");
        }
    }

    fn start(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        resilver: bool,
        wish: Wish,
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
        *locked(&self.wish) = wish;
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
        loop {
            let wish = self.wish();
            if wish.stop {
                return false;
            }
            if wish.pause {
                if self.set_paused(true) {
                    self.tell(pool, "paused");
                }
                let began = Instant::now();
                drop(self.wished.wait_while(locked(&self.wish), |wish| wish.pause && !wish.stop));
                if let Some(last) = &mut *locked(&self.last) {
                    last.paused += began.elapsed();
                }
                continue;
            }
            if self.set_paused(false) {
                self.tell(pool, "resume");
            }
            let ahead = self.ahead(looked_at, wish.rate);
            if ahead.is_zero() {
                return true;
            }
            let same = |now: &mut Wish| !now.stop && !now.pause && now.rate == wish.rate;
            drop(self.wished.wait_timeout_while(locked(&self.wish), ahead, same));
        }
    }

    /// By how much a scrub is ahead of its rate.
    fn ahead(&self, looked_at: u64, rate: u64) -> Duration {
        let (Some(last), false) = (&*locked(&self.last), rate == 0) else { return Duration::ZERO };
        let wanted = Duration::from_secs_f64(looked_at as f64 / rate as f64);
        wanted.saturating_sub(last.started.elapsed().saturating_sub(last.paused))
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
        !self.wish().stop
    }

    fn ended(&self, pool: &Pool, outcome: Result<ScrubReport, PoolError>) {
        let what = {
            let mut last = locked(&self.last);
            let Some(last) = &mut *last else { return };
            last.took = Some(last.started.elapsed());
            match outcome {
                Ok(report) => {
                    last.report = report;
                    let stopped = self.wish().stop;
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
        self.wish_for(|wish| wish.stop = true);
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
