//! Scrubs and resilvers, each on a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use kiln_fs::wire::pool::Scan;
use kiln_pool::format::DatasetKind;
use kiln_pool::pool::{DamagedRecord, Health, Pool, PoolError, ScrubReport};

use super::locked;

/// How often disks are brought up to date that miss something again and again.
const RESILVERS_MAX: usize = 3;
/// Damaged records that are named.
const NAMED_MAX: usize = 1000;

/// What was looked at last in a pool, or is.
#[derive(Default)]
pub(super) struct Scans {
    last: Mutex<Option<Last>>,
    stop: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Last {
    resilver: bool,
    began: SystemTime,
    started: Instant,
    took: Option<Duration>,
    state: State,
    report: ScrubReport,
    names: Vec<String>,
}

enum State {
    Running,
    Finished,
    Stopped,
    Failed(String),
}

impl Scans {
    /// Begins a scrub, unless something is under way.
    pub(super) fn start_scrub(self: &Arc<Self>, pool: &Arc<Pool>) -> Result<(), String> {
        self.start(pool, false, Scans::scrub)
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
        if last.as_ref().is_some_and(|last| matches!(last.state, State::Running)) {
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
            names: Vec::new(),
        });
        drop(last);
        self.stop.store(false, Ordering::Relaxed);
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
        while !scrub.step()? && self.goes_on(scrub.report()) {}
        Ok(scrub.report().clone())
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
        let mut last = locked(&self.last);
        let Some(last) = &mut *last else { return };
        last.took = Some(last.started.elapsed());
        match outcome {
            Ok(report) => {
                last.names =
                    report.damaged.iter().take(NAMED_MAX).map(|damaged| name(pool, damaged)).collect();
                last.report = report;
                let stopped = self.stop.load(Ordering::Relaxed);
                last.state = if stopped { State::Stopped } else { State::Finished };
            }
            Err(error) => last.state = State::Failed(error.to_string()),
        }
        let ScrubReport { records, mended, damaged_records, .. } = &last.report;
        tracing::info!(
            pool = pool.name(),
            resilver = last.resilver,
            records,
            mended,
            damaged_records,
            "looked through a pool"
        );
    }

    /// Stops a scrub; what it has found stays.
    pub(super) fn stop_scrub(&self) -> Result<(), String> {
        let running = locked(&self.last)
            .as_ref()
            .is_some_and(|last| matches!(last.state, State::Running) && !last.resilver);
        if !running {
            return Err("no scrub is under way".to_owned());
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
            State::Finished => "finished".to_owned(),
            State::Stopped => "stopped".to_owned(),
            State::Failed(why) => why.clone(),
        };
        let space = pool.space(DatasetKind::Files);
        Some(Scan {
            resilver: last.resilver,
            state,
            began: last.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            secs: last.took.unwrap_or_else(|| last.started.elapsed()).as_secs(),
            looked_at: last.report.bytes,
            of: (space.total_bytes - space.free_bytes).max(last.report.bytes),
            mended: last.report.mended,
            damaged: last.report.damaged_records,
            damaged_names: last.names.clone(),
        })
    }
}

/// A damaged record, for people.
fn name(pool: &Pool, damaged: &DamagedRecord) -> String {
    let dataset = damaged
        .dataset
        .and_then(|id| pool.datasets().into_iter().find(|(known, _)| *known == id).map(|(_, name)| name));
    match (dataset, damaged.object) {
        (Some(dataset), Some(object)) => format!("{dataset}: object {object:#x} at {}", damaged.offset),
        (Some(dataset), None) => format!("{dataset}: a node of its tree, and what is below"),
        (None, _) => "what leads to the datasets".to_owned(),
    }
}
