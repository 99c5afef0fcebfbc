//! fsync(2): what was written is on the disks of the OSTs, and the MDS's.
//!
//! The usual case is a program that writes a little, within what the file has, and waits for it: then the OST writes and
//! syncs in one call, and the MDS is told the time and syncs meanwhile. A size is told when the data is durable, not before.

use std::sync::Arc;

use super::FileData;
use super::file::Growth;
use super::write_back::{Flight, Pick, by_ost};
use crate::core::Errno;
use crate::wire::oss::Op;

/// Everything that is dirty, on its way in one flight.
struct Alone {
    flight: Arc<Flight>,
    growth: Growth,
    /// The MDS knows how long the file is, and what it uses.
    told: bool,
}

impl FileData {
    /// [`FileData::flush`], and durable at the OSTs and at the MDS.
    pub fn sync(&self) -> Result<(), Errno> {
        let unaccounted = self.alive()?.unaccounted;
        let outcome = self.make_durable();
        if outcome.is_ok() {
            self.accounted(unaccounted);
        }
        self.or_failure(outcome)
    }

    fn make_durable(&self) -> Result<(), Errno> {
        let growth = match self.depart_alone()? {
            Some(Alone { flight, growth, told: true }) => {
                let mut told = Err(Errno::EIO);
                let outcome = self.carry(&flight, true, || told = self.tell(growth, None, true));
                self.arrived(&flight, outcome);
                told?;
                return self.sync_objects();
            }
            Some(Alone { flight, growth, told: false }) => {
                let outcome = self.carry(&flight, true, || ());
                self.arrived(&flight, outcome);
                growth
            }
            None => self.land()?,
        };
        self.sync_objects()?;
        let used = self.used()?;
        self.tell(growth, used, true)
    }

    /// Takes what is dirty, if that is one chunk for the OSTs and nothing else is under way.
    fn depart_alone(&self) -> Result<Option<Alone>, Errno> {
        let mut state = self.alive()?;
        if !state.is_calm() {
            return Ok(None);
        }
        state.stamp += 1;
        let (mark, growth) = (state.stamp, state.untold_growth());
        let told = state.size <= state.told.size && state.is_dense();
        Ok(state.depart(Pick::Until(mark)).map(|flight| Alone { flight, growth, told }))
    }

    /// What was written at the OSTs is on their disks.
    fn sync_objects(&self) -> Result<(), Errno> {
        let unsynced = self.alive()?.unsynced.clone();
        if unsynced.is_empty() {
            return Ok(());
        }
        let asks = by_ost(unsynced.keys().copied(), |objects| Op::Sync { objects });
        for answer in self.mount.osts.ask_all(&asks, &self.gone) {
            self.heed(answer)?;
        }
        // What was written meanwhile has another stamp, and stays.
        self.lock().unsynced.retain(|object, stamp| unsynced.get(object) != Some(stamp));
        Ok(())
    }
}
