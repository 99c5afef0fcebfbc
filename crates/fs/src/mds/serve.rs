//! A request from its arrival to its answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_net::blocking::Replies;
use kiln_net::{Fault, Status};
use kiln_world::Clock;

use super::Settings;
use super::drain::Drain;
use super::mdt::Checkpoint;
use super::osts::{Osts, Page, Work};
use super::sessions::{Next, Standing};
use super::state::State;
use crate::core::jobs::{JobDelta, JobTable};
use crate::core::leases::{Ticket, Touch};
use crate::core::namespace::{Command, Outcome, Todo, TodoId, What};
use crate::core::{Errno, Ino, OstIndex, SessionId, Time};
use crate::wire::mds::{Acked, Answer, Op, Reply, Request};
use crate::wire::mgs::FsId;

/// Who waits looks so often whether anybody still wants to know.
pub(super) const WAIT_TICK: Duration = Duration::from_millis(250);
/// Orphans that are removed by one command.
const FORGET_MAX: usize = 1024;

/// What the threads of an MDS share.
pub(super) struct Server {
    pub(super) fs: String,
    pub(super) id: FsId,
    pub(super) mdt: u16,
    pub(super) settings: Settings,
    pub(super) clock: std::sync::Arc<dyn Clock>,
    pub(super) state: Mutex<State>,
    /// Something that requests wait for has changed in `state`.
    pub(super) changed: Condvar,
    /// A lock may have become free.
    pub(super) lock_freed: Condvar,
    pub(super) stopping: AtomicBool,
    /// The same for who waits without `state`.
    pub(super) stop: (Mutex<bool>, Condvar),
    pub(super) osts: Osts,
    /// What jobs did. Never locked together with `state`.
    pub(super) jobs: Mutex<JobTable>,
    /// The OSTs that drain. Never locked before `state`.
    pub(super) drains: Mutex<BTreeMap<OstIndex, Drain>>,
    /// Requests that came.
    pub(super) requests: AtomicU64,
    /// Sessions that were evicted.
    pub(super) evictions: AtomicU64,
    /// It is a snapshot: nothing changes it, and nothing is done at its OSTs.
    pub(super) is_snapshot: bool,
    /// Somebody wants to read what changed.
    pub(super) records_changes: bool,
    /// Checkpoints that are to be run; `None` is the last.
    pub(super) checkpoints: SyncSender<Option<Checkpoint>>,
}

/// Who asks.
pub(super) struct Asker<'a> {
    pub(super) session: SessionId,
    /// Whether the connection is gone.
    pub(super) is_gone: &'a dyn Fn() -> bool,
}

/// Why a request ends without having been served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is refused.
    Refused(Errno),
    /// Too many wait.
    Busy,
    /// Nobody is there to hear the answer.
    Gone,
    /// The server ends.
    Stopping,
}

impl From<Errno> for Stop {
    fn from(errno: Errno) -> Stop {
        Stop::Refused(errno)
    }
}

/// What came of a try to serve a request.
pub(super) enum Attempt<T> {
    Done(T),
    /// Something is in the way; it will do this.
    Wait(Vec<(Ino, Touch)>),
}

/// A reply with its bulk.
pub(super) type Answered = (Reply, Vec<u8>);

impl Server {
    pub(super) fn handle(&self, request: Request, bulk: &[u8], replies: &mut Replies) -> Result<(), Fault> {
        let Request { fs, id, session, op } = request;
        if fs != self.fs || id != self.id {
            return replies.last(&self.refusal(Errno::ENODEV), &[]);
        }
        if op == Op::Callbacks {
            return self.send_callbacks(session, replies);
        }
        let answered = {
            let is_gone = || replies.is_closed();
            self.answer(&Asker { session, is_gone: &is_gone }, op, bulk)
        };
        match answered {
            Ok((reply, bulk)) => replies.last(&reply, &[&bulk]),
            Err(Stop::Refused(errno)) => replies.last(&self.refusal(errno), &[]),
            Err(Stop::Busy) => Err(Fault::new(Status::Busy, "too many requests wait at the MDS")),
            Err(Stop::Gone | Stop::Stopping) => Err(Fault::new(Status::Unavailable, "the MDS stops")),
        }
    }

    fn answer(&self, asker: &Asker<'_>, op: Op, bulk: &[u8]) -> Result<Answered, Stop> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.lock().sessions.heard(asker.session, self.now());
        match op {
            Op::Hello(hello) => self.hello(asker.session, &hello).map(without_bulk),
            Op::Bye => Ok(without_bulk(self.bye(asker.session))),
            Op::Ack(acked) => self.ack(asker.session, &acked).map(without_bulk),
            Op::Ping => self.ping(asker.session).map(without_bulk),
            Op::Ask(ask) => self.ask(asker, &ask),
            Op::Change(_) | Op::DurableChange(_) if self.is_snapshot => Err(Stop::Refused(Errno::EROFS)),
            Op::Change(change) => self.change(asker, change, bulk).map(without_bulk),
            Op::DurableChange(change) => self.change_durably(asker, change, bulk).map(without_bulk),
            Op::Lock(lock) => self.lock_file(asker, &lock).map(without_bulk),
            Op::Jobs(deltas) => self.count_jobs(asker.session, &deltas).map(without_bulk),
            // It was served before.
            Op::Callbacks => Err(Stop::Refused(Errno::EPROTO)),
        }
    }

    fn refusal(&self, errno: Errno) -> Reply {
        self.lock().reply(Err(errno), Vec::new())
    }

    fn ping(&self, session: SessionId) -> Result<Reply, Stop> {
        let state = self.lock();
        match state.sessions.standing(session) {
            Standing::Unknown => Err(Errno::ESTALE.into()),
            Standing::Live | Standing::Expected => Ok(state.reply(Ok(Answer::Done), Vec::new())),
        }
    }

    fn count_jobs(&self, session: SessionId, deltas: &[JobDelta]) -> Result<Reply, Stop> {
        let reply = self.ping(session)?;
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).add(deltas, self.time());
        Ok(reply)
    }

    fn ack(&self, session: SessionId, acked: &[Acked]) -> Result<Reply, Stop> {
        let mut state = self.lock();
        if state.sessions.standing(session) == Standing::Unknown {
            return Err(Errno::ESTALE.into());
        }
        for acked in acked {
            state.leases.ack(session, *acked);
        }
        let unnamed = acked.iter().map(|acked| acked.ino);
        self.bury(&mut state, unnamed);
        self.changed.notify_all();
        Ok(state.reply(Ok(Answer::Done), Vec::new()))
    }

    /// The stream of a session's callbacks, until there is another one.
    fn send_callbacks(&self, session: SessionId, replies: &mut Replies) -> Result<(), Fault> {
        let (outbox, stream) = {
            let state = self.lock();
            let Some(outbox) = state.sessions.outbox(session) else {
                return Err(Fault::new(Status::Denied, "the session has not said hello, or is over"));
            };
            let stream = outbox.begin(state.leases.outstanding(session));
            (outbox, stream)
        };
        loop {
            match outbox.next(stream, WAIT_TICK) {
                Next::Callback(callback) => replies.item(&callback, &[])?,
                Next::Nothing if !replies.is_closed() && !self.is_stopping() => {}
                Next::Nothing | Next::Over => return Ok(()),
            }
        }
    }

    /// Tries to serve a request until nothing is in the way. Every try has the lock; what is in the way is called back by the
    /// try itself. Meanwhile nobody else is granted what would be in the way again.
    pub(super) fn turn<T>(
        &self,
        asker: &Asker<'_>,
        mut attempt: impl FnMut(&mut State, Option<Ticket>) -> Result<Attempt<T>, Stop>,
    ) -> Result<T, Stop> {
        self.own_turn(asker, |state, ticket| match state.sessions.standing(asker.session) {
            Standing::Unknown => Err(Errno::ESTALE.into()),
            Standing::Expected => Ok(Attempt::Wait(Vec::new())),
            Standing::Live => attempt(state, ticket),
        })
    }

    /// The same for the server itself, which has no session.
    pub(super) fn own_turn<T>(
        &self,
        asker: &Asker<'_>,
        mut attempt: impl FnMut(&mut State, Option<Ticket>) -> Result<Attempt<T>, Stop>,
    ) -> Result<T, Stop> {
        let mut state = self.lock();
        let mut ticket = None;
        let outcome = loop {
            let attempted = if self.is_frozen(&state) {
                Ok(Attempt::Wait(Vec::new()))
            } else {
                attempt(&mut state, ticket)
            };
            let touches = match attempted {
                Ok(Attempt::Done(done)) => break Ok(done),
                Ok(Attempt::Wait(touches)) => touches,
                Err(stop) => break Err(stop),
            };
            ticket = state.leases.wait(ticket, asker.session, &touches);
            if ticket.is_none() {
                break Err(Stop::Busy);
            }
            let (again, stop) = self.wait(state, &self.changed, asker, WAIT_TICK);
            state = again;
            if let Some(stop) = stop {
                break Err(stop);
            }
        };
        if let Some(ticket) = ticket {
            state.leases.leave(ticket);
            self.changed.notify_all();
        }
        outcome
    }

    /// Waits until something changed, at most so long; and says whether to go on.
    pub(super) fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        what: &Condvar,
        asker: &Asker<'_>,
        tick: Duration,
    ) -> (MutexGuard<'s, State>, Option<Stop>) {
        let (state, waited) = what.wait_timeout(state, tick).expect(UNPOISONED);
        let stop = if self.is_stopping() {
            Some(Stop::Stopping)
        } else if waited.timed_out() && (asker.is_gone)() {
            Some(Stop::Gone)
        } else {
            None
        };
        (state, stop)
    }

    /// Applies a command, and sees to what comes of it at the OSTs.
    pub(super) fn apply(&self, state: &mut State, command: &Command, bulk: &[u8]) -> Outcome {
        let outcome = state.mdt.change(command, bulk);
        if !self.is_snapshot {
            state.pending.add(&outcome.todo);
            self.osts.wake(&outcome.todo);
        }
        self.offer_checkpoint(state);
        outcome
    }

    /// Has a checkpoint run, if one is due.
    pub(super) fn offer_checkpoint(&self, state: &mut State) {
        if let Some(checkpoint) = state.mdt.checkpoint_due(self.now()) {
            // One that is not taken is begun again.
            let _ = self.checkpoints.try_send(Some(checkpoint));
        }
    }

    /// Applies a command of the server's own. What cannot be done is tried again by the next start.
    pub(super) fn apply_own(&self, state: &mut State, what: What) {
        let command = Command { now: self.time(), what };
        if let Err(errno) = self.apply(state, &command, &[]).answer {
            tracing::error!(%errno, what = ?command.what, "the MDT does not take a command of its server");
        }
    }

    /// Removes those of these inodes that have no name, and that nobody has open. Whoever may have them open is asked.
    pub(super) fn bury(&self, state: &mut State, inos: impl Iterator<Item = Ino>) {
        if state.sessions.is_recovering() || self.now() < state.orphans_stay_until {
            return;
        }
        let orphans: Vec<Ino> = inos.filter(|ino| state.orphans.contains(ino)).collect();
        for ino in &orphans {
            state.call(&state.leases.unsure(*ino), self.now());
        }
        let is_over = |ino: &Ino| !state.leases.in_use(*ino);
        let inos: Vec<Ino> = orphans.into_iter().filter(is_over).take(FORGET_MAX).collect();
        if inos.is_empty() {
            return;
        }
        for ino in &inos {
            state.orphans.remove(ino);
            state.leases.forget(*ino);
        }
        self.apply_own(state, What::Forget { inos });
    }

    /// Puts a session out: what it holds is free, but data at an OST only when that OST does not serve it any more.
    pub(super) fn evict(&self, state: &mut State, session: SessionId, why: &str) {
        let host = state.sessions.leave(session).unwrap_or_default();
        tracing::warn!(session = session.0, %host, why, "session evicted");
        self.evictions.fetch_add(1, Ordering::Relaxed);
        state.sessions.remember_evicted(session);
        let written = self.end(state, session, What::Evict { session, osts: self.osts.indices() });
        // Only now: at each OST the session is kept out before anything is cut.
        if !written.is_empty() {
            self.apply_own(state, What::Trim { inos: written });
        }
    }

    /// The session is over, by this command. The files that it may have been writing.
    pub(super) fn end(&self, state: &mut State, session: SessionId, command: What) -> Vec<Ino> {
        let written = state.leases.drop_session(session);
        state.locks.drop_session(session);
        self.apply_own(state, command);
        let orphans: Vec<Ino> = state.orphans.iter().copied().collect();
        self.bury(state, orphans.into_iter());
        self.changed.notify_all();
        self.lock_freed.notify_all();
        written
    }

    pub(super) fn begin_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        *self.stop.0.lock().expect(UNPOISONED) = true;
        self.stop.1.notify_all();
        // Whoever does not listen any more has ended.
        let _ = self.checkpoints.send(None);
        let state = self.lock();
        state.sessions.close();
        self.changed.notify_all();
        self.lock_freed.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }

    /// Time since some moment, for limits.
    pub(super) fn now(&self) -> Duration {
        self.clock.monotonic()
    }

    /// The calendar time.
    pub(super) fn time(&self) -> Time {
        calendar(&*self.clock)
    }
}

/// The calendar time of a clock.
pub(super) fn calendar(clock: &dyn Clock) -> Time {
    let micros = clock.now().0;
    Time { secs: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1000) as u32 }
}

/// After a panic under the lock nobody knows who holds what: every later request fails, until the process is started anew.
pub(super) const UNPOISONED: &str = "no thread has panicked with the state half changed";

pub(super) fn without_bulk(reply: Reply) -> Answered {
    (reply, Vec::new())
}

impl Work for Server {
    fn todo(&self, ost: OstIndex, from: TodoId) -> Option<Page> {
        if self.is_snapshot {
            return Some(Page { entries: Vec::new(), next: None });
        }
        self.lock().todo(ost, from).ok()
    }

    fn done(&self, entries: &[(TodoId, Todo)]) {
        let mut state = self.lock();
        self.apply_own(&mut state, What::Done { todo: entries.iter().map(|(id, _)| *id).collect() });
        if state.pending.remove(entries.iter().map(|(id, _)| *id)) {
            self.changed.notify_all();
        }
    }

    fn reached(&self) {
        let _state = self.lock();
        self.changed.notify_all();
    }
}
