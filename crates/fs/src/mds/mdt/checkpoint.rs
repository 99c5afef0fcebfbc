//! Rows on their way from memory into the table.

use std::fmt::Display;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use kiln_types::Offset;

use super::error::Latch;
use super::journal::{Journal, Syncing};
use super::room::Measure;
use super::table::Table;
use crate::core::namespace::Changes;

/// Rows that a checkpoint takes, or took. They do not change any more.
pub(super) struct Saving {
    rows: Arc<Changes>,
    /// The last command that is in them.
    applied: Offset,
    slot: Arc<Slot>,
}

/// Where the one who runs a checkpoint tells how far it is.
struct Slot {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Nobody runs it.
    Waiting,
    Running,
    /// The rows are in the table, durably. The table's file was measured, if that was asked for.
    Saved(Option<Measure>),
    /// They are not, and the MDT has stopped.
    Failed,
}

impl Saving {
    pub(super) fn new(rows: Changes, applied: Offset) -> Saving {
        let slot = Slot { progress: Mutex::new(Progress::Waiting), changed: Condvar::new() };
        Saving { rows: Arc::new(rows), applied, slot: Arc::new(slot) }
    }

    pub(super) fn rows(&self) -> &Changes {
        &self.rows
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(*self.slot.lock(), Progress::Saved(_))
    }

    /// How the table's file is used since, if that was measured.
    pub(super) fn measured(&self) -> Option<Measure> {
        if let Progress::Saved(measure) = *self.slot.lock() { measure } else { None }
    }

    /// The checkpoint, unless somebody runs it.
    pub(super) fn begin(
        &mut self,
        table: &Table,
        journal: &Journal,
        latch: &Latch,
        measure: bool,
    ) -> Option<Checkpoint> {
        let mut progress = self.slot.lock();
        if *progress != Progress::Waiting {
            return None;
        }
        *progress = Progress::Running;
        Some(Checkpoint {
            rows: Arc::clone(&self.rows),
            applied: self.applied,
            table: Some(table.clone()),
            journal: journal.sync(self.applied),
            slot: Arc::clone(&self.slot),
            latch: latch.clone(),
            measure,
        })
    }

    /// Blocks for as long as somebody runs it.
    pub(super) fn wait(&self) {
        let progress = self.slot.lock();
        let running = |progress: &mut Progress| *progress == Progress::Running;
        drop(self.slot.changed.wait_while(progress, running).unwrap_or_else(PoisonError::into_inner));
    }
}

/// A checkpoint that is to be run.
#[must_use = "it is run, or begun again"]
pub struct Checkpoint {
    rows: Arc<Changes>,
    applied: Offset,
    /// Until it was written: then the MDT may want to have it alone.
    table: Option<Table>,
    journal: Syncing,
    slot: Arc<Slot>,
    latch: Latch,
    /// Measure the table's file afterwards.
    measure: bool,
}

impl Checkpoint {
    /// Puts the rows into the table. Blocks on the disk; meanwhile the MDT serves others. A failure stops the MDT.
    pub fn run(mut self) {
        let Some(table) = self.table.take() else { return };
        let progress = match self.save(&table) {
            Ok(measure) => Progress::Saved(measure),
            Err(()) => Progress::Failed,
        };
        drop(table);
        self.slot.set(progress);
    }

    fn save(&self, table: &Table) -> Result<Option<Measure>, ()> {
        let stop = |why: &dyn Display| {
            self.latch.fail(why);
        };
        // A command that only the page cache holds must not get into the table before it is durable itself.
        self.journal.wait().map_err(|_| stop(&"the journal has stopped"))?;
        table.write(&self.rows, self.applied).map_err(|error| stop(&error))?;
        if let Err(error) = self.journal.trim() {
            // The journal stays longer than needed; the next checkpoint tries again.
            tracing::warn!(%error, "the MDT's journal was not trimmed");
        }
        self.measure.then(|| table.measure()).transpose().map_err(|error| stop(&error))
    }
}

impl Drop for Checkpoint {
    fn drop(&mut self) {
        let mut progress = self.slot.lock();
        if *progress == Progress::Running {
            *progress = Progress::Waiting;
            self.slot.changed.notify_all();
        }
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, progress: Progress) {
        *self.lock() = progress;
        self.changed.notify_all();
    }
}
