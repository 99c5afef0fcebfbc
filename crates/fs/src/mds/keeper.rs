//! What happens by time: eviction, the end of the recovery, checkpoints.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::mdt::Checkpoint;
use super::serve::{Server, UNPOISONED};
use super::state::State;
use crate::core::Ino;

/// Limits are looked at so often at least.
const TICK_MAX: Duration = Duration::from_secs(1);
/// And at most.
const TICK_MIN: Duration = Duration::from_millis(5);

impl Server {
    /// Runs until the server stops.
    pub(super) fn keep(&self) {
        let limit = self.settings.session_limit.min(self.settings.recovery_limit);
        let tick = (limit / 8).clamp(TICK_MIN, TICK_MAX);
        let mut last = self.now();
        while self.pause(tick) {
            let now = self.now();
            let mut state = self.lock();
            // The machine slept, or was too busy to run this: then nobody else could be heard either.
            if now.saturating_sub(last) > tick + self.settings.session_limit / 4 {
                state.sessions.all_heard(now);
                state.leases.renew_calls(now);
            }
            last = now;
            self.by_time(&mut state, now);
        }
    }

    fn by_time(&self, state: &mut State, now: Duration) {
        if let Some(since) = now.checked_sub(self.settings.session_limit) {
            for session in state.leases.overdue(since) {
                self.evict(state, session, "it does not answer a callback");
            }
            for session in state.sessions.silent(since) {
                self.evict(state, session, "it is silent");
            }
        }
        if now >= state.recovery_ends {
            for session in state.sessions.expected() {
                self.evict(state, session, "it did not come back after the start");
            }
        }
        let orphans: Vec<Ino> = state.orphans.iter().copied().collect();
        self.bury(state, orphans.into_iter());
        self.offer_checkpoint(state);
    }

    /// Waits; `false` when the server stops.
    pub(super) fn pause(&self, time: Duration) -> bool {
        let (stop, stopped) = &self.stop;
        let guard = stop.lock().expect(UNPOISONED);
        let waited = stopped.wait_timeout_while(guard, time, |stop| !*stop).expect(UNPOISONED);
        !*waited.0
    }
}

/// Runs checkpoints until the last one.
pub(super) fn run_checkpoints(checkpoints: &Receiver<Option<Checkpoint>>) {
    while let Ok(Some(checkpoint)) = checkpoints.recv() {
        checkpoint.run();
    }
}
