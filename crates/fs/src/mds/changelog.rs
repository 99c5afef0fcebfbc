//! From the MDT to the readers of the changelog: a thread takes records there in batches, and then lets the MDT forget them.
//!
//! The path of a change does nothing but put a record among the MDT's rows. A batch is taken away when its changes are
//! durable: else a loss of power would leave readers with records of changes that never were, under indices that are given
//! again.

use std::time::Duration;

use super::Changelog;
use super::serve::Server;
use crate::core::Errno;
use crate::core::changelog::Entry;
use crate::core::namespace::What;

/// Records wait so long for others to go with them.
const PAUSE: Duration = Duration::from_millis(100);
/// And as long as this after a failure.
const PAUSE_FAILED: Duration = Duration::from_secs(1);
/// Records that are written at once.
const BATCH_RECORDS: usize = if cfg!(test) { 8 } else { 2048 };
/// Records that the MDT keeps for readers that cannot be reached; beyond that the oldest are given up.
pub(super) const BACKLOG_RECORDS_MAX: u64 = if cfg!(test) { 64 } else { 1 << 20 };

impl Server {
    /// Has the MDT record changes from now on, or no more, as there are readers or none.
    pub(super) fn set_recording(&self) {
        let mut state = self.lock();
        self.apply_own(&mut state, What::Record { on: self.records_changes });
    }

    /// Runs until the server stops.
    pub(super) fn ship_changes(&self, changelog: &dyn Changelog) {
        let mut failing = false;
        let mut pause = PAUSE;
        while self.pause(pause) {
            match self.ship(changelog) {
                Ok(()) if failing => {
                    tracing::info!(fs = self.fs, "the changelog is written again");
                    (failing, pause) = (false, PAUSE);
                }
                Ok(()) => {}
                Err(why) => {
                    if !failing {
                        tracing::warn!(
                            fs = self.fs,
                            why,
                            keeps = BACKLOG_RECORDS_MAX,
                            "the changelog cannot be written; the MDT keeps its records and goes on trying"
                        );
                    }
                    (failing, pause) = (true, PAUSE_FAILED);
                    self.give_up_oldest();
                }
            }
        }
    }

    /// Takes away all there is; what comes meanwhile waits for its turn.
    fn ship(&self, changelog: &dyn Changelog) -> Result<(), String> {
        while let Some((entries, last)) = self.take_batch().map_err(|errno| errno.to_string())? {
            let is_full = entries.len() >= BATCH_RECORDS;
            changelog.write(&self.fs, entries)?;
            let mut state = self.lock();
            self.apply_own(&mut state, What::Recorded { below: last + 1 });
            drop(state);
            if !is_full || self.is_stopping() {
                break;
            }
        }
        Ok(())
    }

    /// The next records, and the index of the last of them, once they are durable.
    fn take_batch(&self) -> Result<Option<(Vec<Entry>, u64)>, Errno> {
        let (entries, syncing) = {
            let state = self.lock();
            (state.mdt.records(BATCH_RECORDS)?, state.mdt.sync())
        };
        let Some(last) = entries.last().map(|entry| entry.index) else { return Ok(None) };
        syncing.wait()?;
        Ok(Some((entries, last)))
    }

    /// Forgets the oldest records that the MDT does not keep any longer.
    fn give_up_oldest(&self) {
        let mut lost = 0;
        loop {
            let mut state = self.lock();
            let Ok((first, next)) = state.mdt.backlog() else { return };
            let excess = (next - first).saturating_sub(BACKLOG_RECORDS_MAX);
            if excess == 0 {
                break;
            }
            let some = excess.min(BATCH_RECORDS as u64);
            self.apply_own(&mut state, What::Recorded { below: first + some });
            lost += some;
        }
        if lost > 0 {
            tracing::error!(
                fs = self.fs,
                lost,
                "the changelog could not be written for too long: its oldest records are given up, and its readers will miss them"
            );
        }
    }
}
