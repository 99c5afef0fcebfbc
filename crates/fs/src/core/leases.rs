//! Who may keep what: the leases and open files of all sessions on one MDT.
//!
//! A request that changes something names what it [`Touch`]es. What others hold of that is in [`LeaseTable::conflicts`];
//! [`LeaseTable::call`] makes callbacks of it, [`LeaseTable::ack`] takes the answers. When nothing conflicts the request is
//! applied, and what its session may keep of the answer is granted, all in one critical section of the server.
//!
//! **Invariants** (the property test asserts them after each step):
//! - of the data of a file, sessions hold Read together, or Direct together, or one holds Write;
//! - while one session holds Write, no other holds the attributes: size and times are known to the writer alone;
//! - while a request waits for callbacks, nothing is granted to other sessions that it would have to call back again;
//! - nothing is granted to a session that has a callback outstanding for it: the acknowledgement would end the new lease too;
//! - a session holds leases on at most so many inodes; beyond that it gets answers, and keeps nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::core::{Ino, SessionId};
use crate::wire::mds::{Acked, Callback, DataLease, Grant, Held, Leases, Take};

mod calls;
mod holding;
mod queue;
#[cfg(test)]
mod tests;

use calls::Calls;
use holding::Holding;
pub use holding::{OpenMode, Touch};
use queue::Queue;
pub use queue::Ticket;

/// Files that a session may have open.
pub const OPENS_PER_SESSION_MAX: usize = 1 << 20;
/// Callbacks of one session that are not acknowledged; what more is wanted back is asked for when some are.
pub const CALLS_PER_SESSION_MAX: usize = 256;
/// Requests that wait for callbacks at once.
pub const WAITING_MAX: usize = 4096;

/// A lease of another session that is in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who holds it.
    pub session: SessionId,
    /// On which inode.
    pub ino: Ino,
    /// What has to come back.
    pub take: Take,
}

/// A bound was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has too many files open")]
pub struct TooManyOpen;

/// What others do with a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Somebody else has it open.
    pub open: bool,
    /// Somebody else has it open for writing.
    pub writing: bool,
}

/// How much a session has.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    /// Inodes with a [`Holding`].
    inodes: usize,
    /// Those that are open.
    opens: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct LeaseTable {
    /// **Invariant:** no list is empty, and no session is in one twice.
    inodes: BTreeMap<Ino, Vec<Holding>>,
    sessions: BTreeMap<SessionId, Usage>,
    calls: Calls,
    queue: Queue,
    leases_per_session_max: usize,
}

impl LeaseTable {
    /// Nobody holds anything. Callbacks are numbered above `seq`, which must be above every number that an earlier table of
    /// the same MDT has used.
    pub fn new(seq: u64, leases_per_session_max: usize) -> LeaseTable {
        LeaseTable {
            inodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            calls: Calls::new(seq),
            queue: Queue::default(),
            leases_per_session_max,
        }
    }

    /// The number that answers carry now.
    pub fn seq(&self) -> u64 {
        self.calls.seq()
    }

    /// A session begins.
    pub fn join(&mut self, session: SessionId) {
        self.sessions.entry(session).or_default();
    }

    /// The files whose data a session may hold back.
    pub fn held_back(&self) -> Vec<Ino> {
        let writes = |holding: &Holding| holding.leases.data == DataLease::Write;
        self.inodes.iter().filter(|(_, list)| list.iter().any(writes)).map(|(ino, _)| *ino).collect()
    }

    /// What other sessions hold that `touches` need back. Empty means: go on.
    pub fn conflicts(&self, session: SessionId, touches: &[(Ino, Touch)]) -> Vec<Conflict> {
        let mut found: Vec<Conflict> = Vec::new();
        for (ino, touch) in touches {
            for holding in self.holdings(*ino).iter().filter(|holding| holding.session != session) {
                let Some(take) = holding.conflict(touch) else { continue };
                let conflict = Conflict { session: holding.session, ino: *ino, take };
                if !found.contains(&conflict) {
                    found.push(conflict);
                }
            }
        }
        found
    }

    /// The callbacks that must be sent for `conflicts`: those that are not on their way yet. `now` counts from any moment.
    pub fn call(&mut self, conflicts: &[Conflict], now: Duration) -> Vec<(SessionId, Callback)> {
        let mut sent = Vec::new();
        for Conflict { session, ino, take } in conflicts {
            let callback = self.calls.begin(*session, *ino, take, now);
            sent.extend(callback.map(|callback| (*session, callback)));
        }
        sent
    }

    /// Puts a request in the queue of those that wait for callbacks, or keeps its place with new touches. `None` when
    /// [`WAITING_MAX`] wait already.
    pub fn wait(
        &mut self,
        ticket: Option<Ticket>,
        session: SessionId,
        touches: &[(Ino, Touch)],
    ) -> Option<Ticket> {
        self.queue.wait(ticket, session, touches)
    }

    /// The request does not wait any more: it is done, or nobody wants its answer.
    pub fn leave(&mut self, ticket: Ticket) {
        self.queue.leave(ticket);
    }

    /// Whether `session` would get these leases on an inode now: see [`LeaseTable::grant`].
    pub fn grants(&self, session: SessionId, ino: Ino, want: Leases, ticket: Option<Ticket>) -> bool {
        let held = self.find(ino, session).map_or(Leases::default(), |holding| holding.leases);
        let granted = self.grantable(session, ino, want, ticket);
        (granted.meta || !want.meta) && (granted.data == holding::join(held.data, want.data))
    }

    /// Grants attributes and data, as much of `want` as may be. A session that holds Read and wants Direct, or the other way
    /// round, gets Write or nothing new: ask [`LeaseTable::mode_with`] for what others have to give back. What a request that waited (`ticket`) wants goes before the
    /// needs of those that came later. `None`: the answer may not be kept.
    pub fn grant(
        &mut self,
        session: SessionId,
        ino: Ino,
        want: Leases,
        ticket: Option<Ticket>,
    ) -> Option<Grant> {
        let leases = self.grantable(session, ino, want, ticket);
        if !leases.meta && (want.data == DataLease::None || leases.data == DataLease::None) {
            return None;
        }
        let holding = self.make_room(session, ino)?;
        holding.leases.meta |= leases.meta;
        holding.leases.data = leases.data;
        Some(Grant { ino, leases })
    }

    /// Grants the names of a directory, of which the answer says these `known`.
    pub fn grant_names<'n>(
        &mut self,
        session: SessionId,
        dir: Ino,
        known: &(impl Iterator<Item = &'n [u8]> + Clone),
        ticket: Option<Ticket>,
    ) -> Option<Grant> {
        let fresh = self.find(dir, session).is_none_or(|holding| !holding.leases.names);
        let says = |name: &[u8]| fresh || known.clone().any(|known| known == name);
        let awaited = self.queue.before(dir, session, ticket).any(|touch| match touch {
            Touch::Names => true,
            Touch::Name(name) => says(name),
            Touch::Meta | Touch::Data(_) | Touch::Size => false,
        });
        let called = self.calls.of(session, dir).any(|take| match take {
            Take::Names => true,
            Take::Name(name) => says(name),
            Take::Meta | Take::Data(_) | Take::Unlinked => false,
        });
        if awaited || called {
            return None;
        }
        self.make_room(session, dir)?.know(known);
        Some(Grant { ino: dir, leases: Leases { names: true, ..Leases::default() } })
    }

    /// What of `want` nobody and nothing is against; data as the mode that the session would have.
    fn grantable(&self, session: SessionId, ino: Ino, want: Leases, ticket: Option<Ticket>) -> Leases {
        let held = self.find(ino, session).map_or(Leases::default(), |holding| holding.leases);
        if self.calls.of(session, ino).any(|take| matches!(take, Take::Data(_))) {
            return Leases::default();
        }
        let others = || self.holdings(ino).iter().filter(|holding| holding.session != session);
        let awaited = || self.queue.before(ino, session, ticket);
        let called_meta = self.calls.of(session, ino).any(|take| *take == Take::Meta);
        let meta = want.meta
            && !called_meta
            && others().all(|other| other.leases.data != DataLease::Write)
            && !awaited().any(|touch| *touch == Touch::Meta);
        let wished = holding::join(held.data, want.data);
        let free = others().all(|other| other.goes_with(wished))
            && !awaited().any(|touch| holding::touch_excludes(touch, wished));
        let data = if wished == held.data || free { wished } else { held.data };
        Leases { meta, names: false, data }
    }

    /// The holding of a session on an inode, made if the session may have one more.
    fn make_room(&mut self, session: SessionId, ino: Ino) -> Option<&mut Holding> {
        let usage = self.sessions.get_mut(&session)?;
        let held = self.inodes.get(&ino).is_some_and(|list| list.iter().any(|one| one.session == session));
        if !held && usage.inodes >= self.leases_per_session_max {
            return None;
        }
        usage.inodes += usize::from(!held);
        Some(holding::entry(self.inodes.entry(ino).or_default(), session))
    }

    /// A callback is done. What it took, or `None` for one that was not outstanding.
    pub fn ack(&mut self, session: SessionId, acked: Acked) -> Option<Take> {
        let take = self.calls.end(session, acked.ino, acked.seq)?;
        let holding = self.find_mut(acked.ino, session);
        let mode = holding.as_ref().map_or(OpenMode::Read, |holding| holding.local_open_mode());
        // Who has it open keeps its attributes; who has not cannot open it any more, without a name.
        let keeps = take == Take::Unlinked && acked.open;
        if let Some(holding) = holding.filter(|_| !keeps) {
            holding.take(&take);
        }
        if acked.open {
            // Bounded by the leases: it was asked because it had one.
            self.record_open(session, acked.ino, mode);
        }
        self.tidy(session, acked.ino);
        Some(take)
    }

    /// The session does not need these leases any more.
    pub fn release(&mut self, session: SessionId, ino: Ino, leases: Leases) {
        if let Some(holding) = self.find_mut(ino, session) {
            holding.release(leases);
            self.tidy(session, ino);
        }
    }

    /// The session has a file open.
    pub fn open(&mut self, session: SessionId, ino: Ino, mode: OpenMode) -> Result<(), TooManyOpen> {
        let already = self.find(ino, session).is_some_and(|holding| holding.open.is_some());
        let usage = self.usage(session);
        if !already && usage.opens >= OPENS_PER_SESSION_MAX {
            return Err(TooManyOpen);
        }
        self.record_open(session, ino, mode);
        Ok(())
    }

    fn record_open(&mut self, session: SessionId, ino: Ino, mode: OpenMode) {
        let list = self.inodes.entry(ino).or_default();
        let before = list.len();
        let open = &mut holding::entry(list, session).open;
        let new = open.is_none();
        *open = (*open).max(Some(mode));
        let added = list.len() - before;
        let usage = self.usage(session);
        usage.inodes += added;
        usage.opens += usize::from(new);
    }

    /// The session has closed a file: how it had it open.
    pub fn close(&mut self, session: SessionId, ino: Ino) -> Option<OpenMode> {
        let mode = self.find_mut(ino, session)?.open.take()?;
        self.usage(session).opens -= 1;
        self.tidy(session, ino);
        Some(mode)
    }

    /// How other sessions have a file open.
    pub fn others(&self, session: SessionId, ino: Ino) -> Others {
        let others = self.holdings(ino).iter().filter(|holding| holding.session != session);
        others.fold(Others::default(), |sum, holding| Others {
            open: sum.open || holding.open.is_some(),
            writing: sum.writing || holding.open == Some(OpenMode::Write),
        })
    }

    /// How a session has a file open.
    pub fn open_mode(&self, session: SessionId, ino: Ino) -> Option<OpenMode> {
        self.find(ino, session)?.open
    }

    /// Whether somebody has it open, or may have without having said so.
    pub fn in_use(&self, ino: Ino) -> bool {
        self.holdings(ino).iter().any(|holding| holding.open.is_some() || holding.may_be_open())
    }

    /// The inode has no name any more: who is to be asked whether he has it open.
    pub fn unsure(&self, ino: Ino) -> Vec<Conflict> {
        let unsure = self.holdings(ino).iter().filter(|holding| holding.may_be_open());
        unsure.map(|holding| Conflict { session: holding.session, ino, take: Take::Unlinked }).collect()
    }

    /// The inode is gone.
    pub fn forget(&mut self, ino: Ino) {
        for holding in self.inodes.remove(&ino).unwrap_or_default() {
            let usage = self.usage(holding.session);
            usage.inodes -= 1;
            usage.opens -= usize::from(holding.open.is_some());
        }
    }

    /// Gives a session again what it says it holds. What cannot be (somebody else holds what does not go with it) makes the
    /// whole claim void: the caller ends the session.
    #[must_use]
    pub fn claim(&mut self, session: SessionId, held: &[Held]) -> bool {
        held.iter().all(|held| self.claim_one(session, held))
    }

    fn claim_one(&mut self, session: SessionId, held: &Held) -> bool {
        let Held { ino, leases, open } = *held;
        let others = self.holdings(ino).iter().filter(|holding| holding.session != session);
        let fits = |other: &Holding| {
            other.goes_with(leases.data) && !(leases.meta && other.leases.data == DataLease::Write)
        };
        if !others.clone().all(fits) {
            return false;
        }
        if leases != Leases::default() {
            let Some(holding) = self.make_room(session, ino) else { return false };
            holding.claim(leases);
        }
        // How it was opened is not said; the careful assumption costs somebody's cache at most.
        let is_known = self.open_mode(session, ino).is_some();
        !open || is_known || self.open(session, ino, OpenMode::Write).is_ok()
    }

    /// Everything on its way to a session, in order: a new stream of callbacks begins with it.
    pub fn outstanding(&self, session: SessionId) -> Vec<Callback> {
        self.calls.outstanding(session)
    }

    /// Time was lost in which nobody could acknowledge: every callback counts as sent now.
    pub fn renew_calls(&mut self, now: Duration) {
        self.calls.renew(now);
    }

    /// Sessions with a callback that is outstanding since before `since`.
    pub fn overdue(&self, since: Duration) -> Vec<SessionId> {
        self.calls.overdue(since)
    }

    /// Everything of a session is free. Which files it may have been writing.
    pub fn drop_session(&mut self, session: SessionId) -> Vec<Ino> {
        self.calls.drop_session(session);
        self.sessions.remove(&session);
        let mut written = Vec::new();
        self.inodes.retain(|ino, list| {
            for gone in list.extract_if(.., |holding| holding.session == session) {
                written.extend((gone.leases.data >= DataLease::Direct).then_some(*ino));
            }
            !list.is_empty()
        });
        written
    }

    /// The mode in which a session uses the data of a file when it gets `want` beside what it holds.
    pub fn mode_with(&self, session: SessionId, ino: Ino, want: DataLease) -> DataLease {
        holding::join(self.held(session, ino).data, want)
    }

    /// What a session holds on an inode.
    pub fn held(&self, session: SessionId, ino: Ino) -> Leases {
        self.find(ino, session).map_or(Leases::default(), |holding| holding.leases)
    }

    /// On how many inodes a session holds something.
    pub fn inodes_of(&self, session: SessionId) -> usize {
        self.sessions.get(&session).map_or(0, |usage| usage.inodes)
    }

    fn holdings(&self, ino: Ino) -> &[Holding] {
        self.inodes.get(&ino).map_or(&[], Vec::as_slice)
    }

    fn find(&self, ino: Ino, session: SessionId) -> Option<&Holding> {
        self.holdings(ino).iter().find(|holding| holding.session == session)
    }

    fn find_mut(&mut self, ino: Ino, session: SessionId) -> Option<&mut Holding> {
        self.inodes.get_mut(&ino)?.iter_mut().find(|holding| holding.session == session)
    }

    fn usage(&mut self, session: SessionId) -> &mut Usage {
        self.sessions.entry(session).or_default()
    }

    /// Drops the holding of a session that holds nothing.
    fn tidy(&mut self, session: SessionId, ino: Ino) {
        let Some(list) = self.inodes.get_mut(&ino) else { return };
        let before = list.len();
        list.retain(|holding| holding.session != session || !holding.is_empty());
        let gone = before - list.len();
        if list.is_empty() {
            self.inodes.remove(&ino);
        }
        self.usage(session).inodes -= gone;
    }
}
