//! fsync(2): what was written is on the disks of the OSTs, and the MDS's.
//!
//! The usual case is a program that writes a little, within what the file has, and waits for it: then the OST writes and
//! syncs in one call, and the MDS is told the time and syncs meanwhile. A size is told when the data is durable, not before.
//!
//! fdatasync(2) does not wait for the time of the last write (POSIX, 1003.1, under "synchronized I/O data integrity completion"). Where the
//! disk of the MDT is known to have the size and the layout already, the MDS is not asked at all.

use std::sync::Arc;

use super::FileData;
use super::file::Growth;
#[cfg(doc)]
use super::file::State;
use super::write_back::{Flight, Pick, by_ost};
use crate::core::Errno;
use crate::wire::oss::Op;

/// Everything that is dirty, on its way in one flight.
struct Alone {
    flight: Arc<Flight>,
    growth: Growth,
    /// The MDS knows how long the file is, and what it uses.
    told: bool,
    /// Its disk does: see [`State::is_found`].
    found: bool,
}

impl FileData {
    /// [`FileData::flush`], and durable at the OSTs and at the MDS.
    pub fn sync(&self) -> Result<(), Errno> {
        self.sync_as(false)
    }

    /// The same but for the time of the last write.
    pub fn sync_data(&self) -> Result<(), Errno> {
        self.sync_as(true)
    }

    fn sync_as(&self, data_only: bool) -> Result<(), Errno> {
        let unaccounted = self.alive()?.unaccounted;
        let outcome = self.make_durable(data_only);
        if outcome.is_ok() {
            self.accounted(unaccounted);
        }
        self.or_failure(outcome)
    }

    fn make_durable(&self, data_only: bool) -> Result<(), Errno> {
        let growth = match self.depart_alone()? {
            Some(Alone { flight, growth, told: true, found }) if !(data_only && found) => {
                let mut told = Err(Errno::EIO);
                let outcome = self.carry(&flight, true, || told = self.tell(growth, None, true));
                self.arrived(&flight, outcome);
                told?;
                return self.sync_objects();
            }
            Some(Alone { flight, growth, .. }) => {
                let outcome = self.carry(&flight, true, || ());
                self.arrived(&flight, outcome);
                growth
            }
            None => self.land()?,
        };
        self.sync_objects()?;
        if data_only && self.alive()?.is_found() {
            return Ok(());
        }
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
        let (told, found) = (state.size <= state.told.size && state.is_dense(), state.is_found());
        Ok(state.depart(Pick::Until(mark)).map(|flight| Alone { flight, growth, told, found }))
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
