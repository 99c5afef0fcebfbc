//! File and record locks.

use std::time::Duration;

use super::serve::{Asker, Attempt, Server, Stop};
use super::sessions::Standing;
use super::state::State;
use crate::core::locks::LockTicket;
use crate::core::{Errno, Ino};
use crate::wire::mds::{Answer, Lock, LockKind, RecordLock, Reply};

/// Who waits for a lock looks so often whether its program was interrupted, which closes the connection.
const LOCK_TICK: Duration = Duration::from_millis(100);

impl Server {
    pub(super) fn lock_file(&self, asker: &Asker<'_>, lock: &Lock) -> Result<Reply, Stop> {
        let answer = match *lock {
            Lock::Test { ino, lock } => self.with_locks(asker, |state| {
                Ok(Answer::Blocker(state.locks.test(asker.session, ino, lock)?))
            })?,
            Lock::Drop { ino, flock, owner } => self.with_locks(asker, |state| {
                state.locks.drop_owner(asker.session, ino, flock, owner);
                Ok(Answer::Done)
            })?,
            Lock::Set { ino, flock, lock, wait } if wait && lock.kind != LockKind::None => {
                self.wait_for_lock(asker, ino, flock, lock)?
            }
            Lock::Set { ino, flock, lock, .. } => self.with_locks(asker, |state| {
                state.locks.set(asker.session, ino, flock, lock)?;
                Ok(Answer::Done)
            })?,
        };
        Ok(self.lock().reply(Ok(answer), Vec::new()))
    }

    /// Does something with the locks, once the recovery is over; whoever waits then looks again.
    fn with_locks<T>(
        &self,
        asker: &Asker<'_>,
        mut act: impl FnMut(&mut State) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        self.turn(asker, |state, _| {
            if state.sessions.is_recovering() {
                return Ok(Attempt::Wait(Vec::new()));
            }
            let outcome = act(state);
            if state.locks.is_awaited() {
                self.lock_freed.notify_all();
            }
            Ok(Attempt::Done(outcome?))
        })
    }

    fn wait_for_lock(
        &self,
        asker: &Asker<'_>,
        ino: Ino,
        flock: bool,
        lock: RecordLock,
    ) -> Result<Answer, Stop> {
        let ticket = self.with_locks(asker, |state| {
            still_wanted(asker)?;
            Ok(state.locks.wait(asker.session, ino, flock, lock)?)
        })?;
        if let Some(ticket) = ticket {
            let outcome = self.retry_lock(asker, ticket);
            // Those behind may get what this one waited for.
            self.lock().locks.leave(ticket);
            self.lock_freed.notify_all();
            outcome?;
        }
        Ok(Answer::Done)
    }

    fn retry_lock(&self, asker: &Asker<'_>, ticket: LockTicket) -> Result<(), Stop> {
        let mut state = self.lock();
        loop {
            if state.sessions.standing(asker.session) != Standing::Live {
                return Err(Errno::ESTALE.into());
            }
            still_wanted(asker)?;
            if state.locks.retry(ticket)? {
                return Ok(());
            }
            let (again, stop) = self.wait(state, &self.lock_freed, asker, LOCK_TICK);
            state = again;
            if let Some(stop) = stop {
                return Err(stop);
            }
        }
    }
}

/// Asked before each try: a lock that its program was told nothing of would be held until the client goes.
fn still_wanted(asker: &Asker<'_>) -> Result<(), Stop> {
    if (asker.is_gone)() { Err(Stop::Gone) } else { Ok(()) }
}
