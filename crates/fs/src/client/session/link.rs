//! The connections of a session, and whether there can be any.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_net::blocking::{Closer, Connection, Waits, waits};

use super::Waiter;
use crate::core::{Errno, SessionId};
use crate::wire::mgs::Address;

/// How long a server has to accept a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// How often a program that waits for the MDS is looked at: it may have been killed.
const LOOK: Duration = Duration::from_millis(100);
/// Connections that are kept for later calls; more are closed when their call is done.
const IDLE_MAX: usize = 64;

/// Where the session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not connected; the keeper is at it. Calls wait.
    Down,
    /// Connected.
    Up,
    /// Evicted, and what it had is being dropped. Calls wait, except those that what is dropped could wait for.
    Evicted,
    /// The mount ends: calls fail.
    Ended(Errno),
}

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// The mount ends.
    Ended(Errno),
    /// The session in which the call began is no more.
    Evicted,
    /// Nobody waits for the answer any more.
    Gone,
}

/// A connection in use.
pub(super) struct Line {
    pub(super) connection: Connection,
    pub(super) session: SessionId,
    pub(super) epoch: u64,
    number: u64,
}

struct State {
    address: Address,
    phase: Phase,
    session: SessionId,
    /// **Invariant:** all of the epoch of now, and empty unless the phase is `Up`.
    idle: Vec<Line>,
    /// Of every connection of the epoch of now, in use or idle.
    closers: HashMap<u64, Closer>,
    lines: u64,
    lifetime: Option<Duration>,
    /// The session takes its leave: once the link is lost there will be no other.
    leaving: bool,
    /// When the MDS was heard last, if it is not heard now.
    silent_since: Option<Instant>,
}

pub(super) struct Link {
    state: Mutex<State>,
    changed: Condvar,
    /// Changed under the lock of `state` alone.
    epoch: AtomicU64,
}

impl Link {
    pub(super) fn new(address: Address, session: SessionId) -> Link {
        let state = State {
            address,
            phase: Phase::Down,
            session,
            idle: Vec::new(),
            closers: HashMap::new(),
            lines: 0,
            lifetime: None,
            leaving: false,
            silent_since: None,
        };
        Link { state: Mutex::new(state), changed: Condvar::new(), epoch: AtomicU64::new(1) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    pub(super) fn lifetime(&self) -> Option<Duration> {
        self.state().lifetime
    }

    /// For how long the MDS was not heard.
    pub(super) fn silence(&self) -> Duration {
        self.state().silent_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A connection for a call that began in the session `began`, if it began already. Waits until there is one.
    pub(super) fn line(
        &self,
        waiter: Waiter<'_>,
        began: Option<SessionId>,
    ) -> Result<(SessionId, Line), Lost> {
        let mut state = self.state();
        loop {
            if began.is_some_and(|began| began != state.session) {
                return Err(Lost::Evicted);
            }
            match state.phase {
                Phase::Ended(errno) => return Err(Lost::Ended(errno)),
                Phase::Evicted if !waiter.may_wait_for_pages() => return Err(Lost::Evicted),
                Phase::Up => {
                    if let Some(line) = state.idle.pop() {
                        return Ok((state.session, line));
                    }
                    let (epoch, address) = (self.epoch(), state.address.clone());
                    drop(state);
                    match connect(&address).and_then(|connection| self.enter(connection, epoch)) {
                        Ok(line) => return Ok((line.session, line)),
                        Err(error) => tracing::debug!(%error, "no connection to the MDS"),
                    }
                    self.lost(epoch);
                    state = self.state();
                }
                Phase::Down if state.leaving => return Err(Lost::Ended(Errno::ENOTCONN)),
                Phase::Down | Phase::Evicted => {
                    if waiter.is_gone() {
                        return Err(Lost::Gone);
                    }
                    state = self.wait(state, LOOK);
                }
            }
        }
    }

    /// A connection, if the link is up.
    pub(super) fn line_now(&self) -> Option<(SessionId, Line)> {
        let mut state = self.state();
        if state.phase != Phase::Up {
            return None;
        }
        if let Some(line) = state.idle.pop() {
            return Some((state.session, line));
        }
        let (epoch, address) = (self.epoch(), state.address.clone());
        drop(state);
        match connect(&address).and_then(|connection| self.enter(connection, epoch)) {
            Ok(line) => Some((line.session, line)),
            Err(error) => {
                tracing::debug!(%error, "no connection to the MDS");
                self.lost(epoch);
                None
            }
        }
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, at_most: Duration) -> MutexGuard<'s, State> {
        waits(Waits::Asleep);
        self.changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Makes a new connection one of the epoch.
    fn enter(&self, connection: Connection, epoch: u64) -> io::Result<Line> {
        let closer = connection.shutdown_handle()?;
        let mut state = self.state();
        if self.epoch() != epoch {
            return Err(io::Error::other("the link was lost meanwhile"));
        }
        state.lines += 1;
        let number = state.lines;
        state.closers.insert(number, closer);
        Ok(Line { connection, session: state.session, epoch, number })
    }

    /// A connection outside of the phases, for the keeper's hello.
    pub(super) fn dial(&self) -> io::Result<Line> {
        let address = self.state().address.clone();
        let connection = connect(&address)?;
        self.enter(connection, self.epoch())
    }

    /// The call is answered; the next may use its connection.
    pub(super) fn put_back(&self, line: Line) {
        let mut state = self.state();
        if line.epoch == self.epoch() && state.phase == Phase::Up && state.idle.len() < IDLE_MAX {
            state.idle.push(line);
        } else {
            state.closers.remove(&line.number);
        }
    }

    /// The connection is of no use any more, which says nothing about the others.
    pub(super) fn drop_line(&self, line: &Line) {
        self.state().closers.remove(&line.number);
    }

    /// A connection of that epoch broke: all are closed, and their calls wait for the next.
    pub(super) fn lost(&self, epoch: u64) {
        let mut state = self.state();
        if self.epoch() != epoch {
            return;
        }
        if state.phase == Phase::Up {
            state.phase = Phase::Down;
        }
        self.leave_epoch(&mut state);
    }

    fn leave_epoch(&self, state: &mut State) {
        state.silent_since.get_or_insert_with(Instant::now);
        self.epoch.fetch_add(1, Ordering::SeqCst);
        state.idle.clear();
        for (_, closer) in state.closers.drain() {
            closer.close();
        }
        self.changed.notify_all();
    }

    /// The hello on a connection of `epoch` was answered: calls may go.
    pub(super) fn up(&self, epoch: u64, lifetime: Duration) {
        let mut state = self.state();
        if self.epoch() == epoch && state.phase == Phase::Down {
            state.phase = Phase::Up;
            state.lifetime = Some(lifetime);
            state.silent_since = None;
            self.changed.notify_all();
        }
    }

    /// The session was evicted: calls fail until [`Link::renewed`].
    pub(super) fn evicted(&self, next: SessionId) {
        let mut state = self.state();
        if !matches!(state.phase, Phase::Ended(_)) {
            state.phase = Phase::Evicted;
        }
        state.session = next;
        self.leave_epoch(&mut state);
    }

    /// What the evicted session had is dropped.
    pub(super) fn renewed(&self) {
        let mut state = self.state();
        if state.phase == Phase::Evicted {
            state.phase = Phase::Down;
        }
        self.changed.notify_all();
    }

    pub(super) fn end(&self, errno: Errno) {
        let mut state = self.state();
        state.phase = Phase::Ended(errno);
        self.leave_epoch(&mut state);
    }

    /// The session is about to end: the link is not mended any more.
    pub(super) fn leave(&self) {
        self.state().leaving = true;
        self.changed.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        let state = self.state();
        state.leaving || matches!(state.phase, Phase::Ended(_))
    }

    pub(super) fn moved(&self, address: Address) {
        let mut state = self.state();
        if state.address == address {
            return;
        }
        state.address = address;
        if state.phase == Phase::Up {
            state.phase = Phase::Down;
        }
        self.leave_epoch(&mut state);
    }

    /// Waits, at most so long, for the session to be up; whether it is.
    pub(super) fn wait_up(&self, at_most: Duration) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), at_most, |state| {
            matches!(state.phase, Phase::Down | Phase::Evicted)
        });
        waited.unwrap_or_else(PoisonError::into_inner).0.phase == Phase::Up
    }

    /// Waits before the next attempt to connect; ends early when something changes.
    pub(super) fn pause(&self, at_most: Duration) {
        let state = self.state();
        if !matches!(state.phase, Phase::Ended(_)) {
            drop(self.wait(state, at_most));
        }
    }
}

fn connect(address: &Address) -> io::Result<Connection> {
    match address {
        Address::Unix(path) => Connection::connect_unix(path),
        Address::Tcp(address) => Connection::connect_tcp(address, CONNECT),
    }
}
