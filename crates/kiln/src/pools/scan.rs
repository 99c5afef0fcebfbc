//! Scrubs and resilvers, each on a thread of its own.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_fs::wire::pool::Scan;
use kiln_pool::format::{DatasetKind, ScrubRecord, ScrubState};
use kiln_pool::pool::{Health, Pool, PoolError, RECORD_BYTES, STEP_RECORDS, Scrub, ScrubReport};

use super::events::Events;
use super::{locked, saved};

/// How often disks are brought up to date that miss something again and again.
const RESILVERS_MAX: usize = 3;
/// How often it is written down how far a scrub is.
const SAVE_EVERY: Duration = Duration::from_secs(5);
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
    stop: Option<Stop>,
    pause: bool,
    /// The most that a scrub looks at in a second, in bytes; 0 for no limit.
    rate: u64,
}

/// Why a scan is to stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// It is not wanted any more.
    ForGood,
    /// The pool is closed; a scrub goes on when it is open again.
    ForNow,
}

struct Last {
    resilver: bool,
    began: SystemTime,
    /// For how long it ran while the pool was open before.
    ran_before: Duration,
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
        self.start(pool, Last::new(false), wish, |scans, pool| scans.scrub(pool, pool.scrub()))
    }

    /// Goes on with what was under way when the pool was open last: a resilver, if a disk has missed something, or else the scrub.
    pub(super) fn go_on(self: &Arc<Self>, pool: &Arc<Pool>) {
        if let Some(record) = saved::load(pool) {
            self.go_on_with(pool, record);
        }
        self.start_resilver(pool);
    }

    /// Goes on with a scrub; of one that had ended it is known what it found.
    fn go_on_with(self: &Arc<Self>, pool: &Arc<Pool>, record: ScrubRecord) {
        let last = Last::of(&record);
        let is_paused = record.state == ScrubState::Paused;
        if record.state != ScrubState::Running && !is_paused {
            pool.know_damaged(&record.report.damaged);
            *locked(&self.last) = Some(last);
            return;
        }
        let wish = Wish { stop: None, pause: is_paused, rate: record.rate };
        let scrub = move |scans: &Scans, pool: &Pool| scans.scrub(pool, pool.scrub_from(&record));
        if let Err(why) = self.start(pool, last, wish, scrub) {
            tracing::warn!(pool = pool.name(), why, "a scrub does not go on");
        }
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
        self.stop(Stop::ForGood);
        if let Err(why) = self.start(pool, Last::new(true), Wish::default(), Scans::resilver) {
            tracing::warn!(why, "what a disk has missed is not brought up to date");
        }
    }

    fn start(
        self: &Arc<Self>,
        pool: &Arc<Pool>,
        begun: Last,
        wish: Wish,
        scan: impl FnOnce(&Scans, &Pool) -> Result<ScrubReport, PoolError> + Send + 'static,
    ) -> Result<(), String> {
        let mut last = locked(&self.last);
        if last.as_ref().is_some_and(|last| matches!(last.state, State::Running | State::Paused)) {
            return Err(
                "a scrub or resilver is under way already; `kiln pool scrub -s` stops a scrub".to_owned()
            );
        }
        let what = if begun.ran_before.is_zero() { "start" } else { "resume" };
        *last = Some(begun);
        drop(last);
        *locked(&self.wish) = wish;
        self.tell(pool, what);
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

    fn scrub(&self, pool: &Pool, mut scrub: Scrub<'_>) -> Result<ScrubReport, PoolError> {
        let begun = if self.wish().pause { ScrubState::Paused } else { ScrubState::Running };
        self.save(pool, &scrub, begun);
        let mut saved = Instant::now();
        let state = loop {
            if scrub.step(records_at_once(self.wish().rate))? {
                break ScrubState::Finished;
            }
            self.goes_on(scrub.report());
            if !self.rests(pool, &scrub) {
                break match self.wish().stop {
                    Some(Stop::ForGood) => ScrubState::Stopped,
                    _ if self.wish().pause => ScrubState::Paused,
                    _ => ScrubState::Running,
                };
            }
            if saved.elapsed() >= SAVE_EVERY {
                self.save(pool, &scrub, ScrubState::Running);
                saved = Instant::now();
            }
        };
        self.save(pool, &scrub, state);
        Ok(scrub.report().clone())
    }

    /// Writes down how far a scrub is. Where that fails it goes on all the same, and begins earlier after a restart.
    fn save(&self, pool: &Pool, scrub: &Scrub<'_>, state: ScrubState) {
        let record = {
            let last = locked(&self.last);
            let Some(last) = &*last else { return };
            let (position, began) = scrub.position();
            ScrubRecord {
                state,
                began_secs: last.began_secs(),
                ran_ms: last.ran().as_millis() as u64,
                rate: self.wish().rate,
                began,
                position,
                report: scrub.report().clone(),
            }
        };
        if let Err(error) = saved::save(pool, &record) {
            tracing::warn!(pool = pool.name(), %error, "how far a scrub is cannot be written down");
        }
    }

    /// Waits while the scrub is paused, or has looked at more than its rate allows; whether it is not to be stopped.
    fn rests(&self, pool: &Pool, scrub: &Scrub<'_>) -> bool {
        loop {
            let wish = self.wish();
            if wish.stop.is_some() {
                return false;
            }
            if wish.pause {
                if self.set_paused(true) {
                    self.save(pool, scrub, ScrubState::Paused);
                    self.tell(pool, "paused");
                }
                let began = Instant::now();
                drop(self.wished.wait_while(locked(&self.wish), |wish| wish.pause && wish.stop.is_none()));
                if let Some(last) = &mut *locked(&self.last) {
                    last.paused += began.elapsed();
                }
                continue;
            }
            if self.set_paused(false) {
                self.save(pool, scrub, ScrubState::Running);
                self.tell(pool, "resume");
            }
            let ahead = self.ahead(scrub.report().bytes, wish.rate);
            if ahead.is_zero() {
                return true;
            }
            let same = |now: &mut Wish| now.stop.is_none() && !now.pause && now.rate == wish.rate;
            drop(self.wished.wait_timeout_while(locked(&self.wish), ahead, same));
        }
    }

    /// By how much a scrub is ahead of its rate.
    fn ahead(&self, looked_at: u64, rate: u64) -> Duration {
        let (Some(last), false) = (&*locked(&self.last), rate == 0) else { return Duration::ZERO };
        let wanted = Duration::from_secs_f64(looked_at as f64 / rate as f64);
        wanted.saturating_sub(last.ran())
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
        self.wish().stop.is_none()
    }

    fn ended(&self, pool: &Pool, outcome: Result<ScrubReport, PoolError>) {
        let what = {
            let mut last = locked(&self.last);
            let Some(last) = &mut *last else { return };
            last.took = Some(last.started.elapsed());
            match outcome {
                Ok(report) => {
                    last.report = report;
                    let (state, what) = match self.wish().stop {
                        None => (State::Finished, "finish"),
                        Some(Stop::ForGood) => (State::Stopped, "abort"),
                        Some(Stop::ForNow) => (State::Stopped, "interrupted"),
                    };
                    last.state = state;
                    what
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
        self.stop(Stop::ForGood);
        Ok(())
    }

    /// Stops what is under way, which goes on when the pool is open again.
    pub(super) fn interrupt(&self) {
        self.stop(Stop::ForNow);
    }

    /// Stops what is under way, and waits for that. Disks that a resilver was for stay behind.
    fn stop(&self, stop: Stop) {
        self.wish_for(|wish| wish.stop = Some(stop));
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
            began: last.began_secs(),
            secs: last.ran().as_secs(),
            looked_at: last.report.bytes,
            of: (space.total_bytes - space.free_bytes).max(last.report.bytes),
            mended: last.report.mended,
            damaged: last.report.damaged_records,
        })
    }
}

/// Records that a scrub looks at before it is asked whether it is too fast: those of a tenth of a second.
fn records_at_once(rate: u64) -> u64 {
    if rate == 0 { STEP_RECORDS } else { (rate / 10 / u64::from(RECORD_BYTES)).clamp(1, STEP_RECORDS) }
}

impl Last {
    /// One that begins now.
    fn new(resilver: bool) -> Last {
        Last {
            resilver,
            began: SystemTime::now(),
            ran_before: Duration::ZERO,
            started: Instant::now(),
            took: None,
            state: State::Running,
            report: ScrubReport::default(),
            paused: Duration::ZERO,
        }
    }

    /// A scrub as it was written down.
    fn of(record: &ScrubRecord) -> Last {
        let (state, took) = match record.state {
            ScrubState::Running | ScrubState::Paused => (State::Running, None),
            ScrubState::Finished => (State::Finished, Some(Duration::ZERO)),
            ScrubState::Stopped => (State::Stopped, Some(Duration::ZERO)),
        };
        Last {
            began: UNIX_EPOCH.checked_add(Duration::from_secs(record.began_secs)).unwrap_or(UNIX_EPOCH),
            ran_before: Duration::from_millis(record.ran_ms),
            took,
            state,
            report: record.report.clone(),
            ..Last::new(false)
        }
    }

    /// When it began, in seconds since 1970.
    fn began_secs(&self) -> u64 {
        self.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// For how long it ran, without pauses.
    fn ran(&self) -> Duration {
        let now = self.took.unwrap_or_else(|| self.started.elapsed());
        self.ran_before.saturating_add(now).saturating_sub(self.paused)
    }
}
