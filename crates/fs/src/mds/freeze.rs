//! Everything stands still for a moment, so that a snapshot is of one.

use std::time::Duration;

use super::MDS_SESSION;
use super::serve::{Asker, Attempt, Server, Stop, WAIT_TICK};
use super::state::State;
use crate::core::leases::Touch;
use crate::core::{Errno, Ino};
use crate::wire::mds::DataLease;

/// Files whose data is asked for at once.
const FILES_AT_ONCE: usize = 256;

/// Why it does not stand still.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FreezeError {
    /// Somebody else has it stand still.
    #[error("another snapshot is being made; try again")]
    Frozen,
    /// Data is not written, or an OST does not cut what is to be cut.
    #[error(
        "what is under way did not end within {0:?}: a client does not write back, or an OST does not answer; `kiln fs status` shows them"
    )]
    TooLong(Duration),
    /// The MDT fails.
    #[error("the MDT failed: {0}")]
    Failed(Errno),
    /// The server ends.
    #[error("the MDS stops")]
    Stopping,
}

impl Server {
    pub(super) fn freeze(&self, limit: Duration) -> Result<(), FreezeError> {
        let deadline = self.now() + limit;
        if self.is_frozen(&self.lock()) {
            return Err(FreezeError::Frozen);
        }
        self.have_all_written(deadline).map_err(|stop| match stop {
            Stop::Gone | Stop::Busy => FreezeError::TooLong(limit),
            Stop::Refused(errno) => FreezeError::Failed(errno),
            Stop::Stopping => FreezeError::Stopping,
        })?;
        let syncing = {
            let mut state = self.lock();
            if self.is_frozen(&state) {
                return Err(FreezeError::Frozen);
            }
            state.frozen_until = Some(self.now() + limit);
            let is_late = || self.now() >= deadline;
            let asker = Asker { session: MDS_SESSION, is_gone: &is_late };
            // Where something is to be cut off, an object has more than the MDT says.
            while state.sessions.is_recovering() || !state.pending.cuts().is_empty() {
                let (again, stop) = self.wait(state, &self.changed, &asker, WAIT_TICK);
                state = again;
                if let Some(stop) = stop {
                    state.frozen_until = None;
                    self.changed.notify_all();
                    let is_gone = stop == Stop::Gone;
                    return Err(if is_gone { FreezeError::TooLong(limit) } else { FreezeError::Stopping });
                }
            }
            state.mdt.sync()
        };
        syncing.wait().map_err(|errno| {
            self.thaw();
            FreezeError::Failed(errno)
        })
    }

    pub(super) fn is_frozen(&self, state: &State) -> bool {
        state.frozen_until.is_some_and(|until| self.now() < until)
    }

    /// Waits until all data is written that sessions hold back now.
    fn have_all_written(&self, deadline: Duration) -> Result<(), Stop> {
        let is_late = || self.now() >= deadline;
        let asker = Asker { session: MDS_SESSION, is_gone: &is_late };
        // After a start it is not known who holds what before all have come back.
        let held_back = self.own_turn(&asker, |state, _| {
            let is_known = !state.sessions.is_recovering();
            Ok(if is_known { Attempt::Done(state.leases.held_back()) } else { Attempt::Wait(Vec::new()) })
        })?;
        for files in held_back.chunks(FILES_AT_ONCE) {
            let touch = |ino: &Ino| (*ino, Touch::Data(DataLease::Read));
            let touches: Vec<(Ino, Touch)> = files.iter().map(touch).collect();
            self.own_turn(&asker, |state, _| {
                let is_clear = state.clear(MDS_SESSION, &touches, self.now());
                Ok(if is_clear { Attempt::Done(()) } else { Attempt::Wait(touches.clone()) })
            })?;
        }
        Ok(())
    }

    pub(super) fn thaw(&self) -> bool {
        let until = self.lock().frozen_until.take();
        self.changed.notify_all();
        until.is_some_and(|until| self.now() < until)
    }
}
