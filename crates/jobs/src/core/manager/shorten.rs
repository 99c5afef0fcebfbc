//! Old jobs are forgotten, so that neither the log nor the time of a start grows for ever.
//!
//! A [`Checkpoint`] says which jobs are forgotten, and what the records before the log's new start said beside. A replay
//! that begins there skips records of jobs whose submission it did not see: they are over and forgotten. A job that is
//! active keeps the log from its submission on.

use super::{Effect, Manager};
use crate::core::record::{Checkpoint, Record};
use kiln_types::{IdSet, Offset, Timestamp};

impl Manager {
    /// Forgets jobs that are over and were submitted before a record.
    pub(super) fn shorten(&mut self, before: Offset, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(epoch) = self.epoch else { return };
        let drained = self.graph.rows().into_iter();
        let drained =
            drained.filter_map(|row| row.drained.map(|drained| (row.rank, drained.at, drained.reason)));
        let forget = before.min(self.next);
        let active = self.active.values().map(|job| job.span.first);
        let start = active.fold(forget, Offset::min);
        let checkpoint = Checkpoint {
            epoch,
            newest: self.newest,
            forget,
            start,
            drained: drained.collect(),
            scheduling: self.scheduling,
            ended: self.archive.ended(),
        };
        self.append(now, Record::Checkpoint(Box::new(checkpoint)), effects);
        effects.push(Effect::Trim(start));
    }

    /// Makes a checkpoint true. Where nothing is missing, only forgotten jobs change.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) {
        let Checkpoint { epoch, newest, forget, start, drained, scheduling, ended } = checkpoint;
        self.epoch = Some(epoch);
        self.ids = kiln_types::JobIds::new(epoch, 0);
        self.ids.seen(newest);
        self.newest = newest;
        self.scheduling = scheduling;
        self.graph.undrain(&self.graph.drained());
        for (rank, at, reason) in drained {
            self.graph.drain(&IdSet::range(rank.0..=rank.0), &reason, at);
        }
        self.archive.set_ended(ended);
        let active = &self.active;
        self.archive.forget(forget, |id| active.contains_key(&id));
        self.partial = self.partial.filter(|begun| *begun > start);
        self.replan = true;
    }
}
