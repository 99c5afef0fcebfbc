//! What the threads of an MDS share, under one lock: so that "nobody holds what this touches" and "it is done" are one step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kiln_world::Clock;

use super::mdt::Mdt;
use super::osts::Page;
use super::serve::calendar;
use super::sessions::Sessions;
use crate::core::grants::Want;
use crate::core::leases::{Conflict, LeaseTable, Ticket, Touch};
use crate::core::locks::LockTable;
use crate::core::namespace::{Todo, TodoId};
use crate::core::{Errno, FileKind, Ino, ObjectId, OstIndex, SessionId};
use crate::wire::mds::{Answer, Ask, DataLease, Grant, Reply};

/// Entries of the to-do list that are read at once.
const TODO_READ: usize = if cfg!(test) { 16 } else { 1024 };

/// See the module.
pub(super) struct State {
    pub(super) mdt: Mdt,
    pub(super) leases: LeaseTable,
    clock: Arc<dyn Clock>,
    pub(super) locks: LockTable,
    pub(super) sessions: Sessions,
    /// Inodes without a name. Each goes when nobody has it open.
    pub(super) orphans: BTreeSet<Ino>,
    /// Before this time orphans stay: their openers may not have said yet that they are.
    pub(super) orphans_stay_until: Duration,
    /// When those who are expected are given up.
    pub(super) recovery_ends: Duration,
    pub(super) pending: Pending,
    /// Until then, or somebody ends it, nothing is served.
    pub(super) frozen_until: Option<Duration>,
}

/// What is to be done at the OSTs before anybody else may use data there.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Objects that are to be cut.
    cuts: BTreeMap<TodoId, (OstIndex, ObjectId)>,
    /// OSTs that still serve a session that was evicted.
    fences: BTreeMap<TodoId, OstIndex>,
}

impl Pending {
    pub(super) fn add(&mut self, entries: &[(TodoId, Todo)]) {
        for (id, todo) in entries {
            match todo {
                Todo::Cut { ost, object, .. } => {
                    self.cuts.insert(*id, (*ost, *object));
                }
                Todo::Fence { ost, .. } => {
                    self.fences.insert(*id, *ost);
                }
                Todo::Destroy { .. } => {}
            }
        }
    }

    /// Whether any of these was waited for.
    pub(super) fn remove(&mut self, ids: impl Iterator<Item = TodoId>) -> bool {
        let remove = |id: TodoId| self.cuts.remove(&id).is_some() | self.fences.remove(&id).is_some();
        ids.map(remove).fold(false, |any, one| any | one)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cuts.is_empty() && self.fences.is_empty()
    }

    /// Every cut that is not done.
    pub(super) fn cuts(&self) -> Vec<TodoId> {
        self.cuts.keys().copied().collect()
    }

    /// Whether any of these cuts is not done.
    pub(super) fn has_cut(&self, ids: &[TodoId]) -> bool {
        ids.iter().any(|id| self.cuts.contains_key(id))
    }

    fn concerns(&self, ost: OstIndex, object: ObjectId) -> bool {
        self.fences.values().any(|fenced| *fenced == ost)
            || self.cuts.values().any(|cut| *cut == (ost, object))
    }
}

impl State {
    /// The state of an MDT that is a snapshot: what was to be done is not.
    pub(super) fn of_snapshot(
        mdt: Mdt,
        leases: LeaseTable,
        clock: Arc<dyn Clock>,
        recovery_ends: Duration,
    ) -> Result<State, Errno> {
        Ok(State {
            sessions: Sessions::expecting(mdt.sessions()?),
            mdt,
            leases,
            clock,
            locks: LockTable::default(),
            orphans: BTreeSet::new(),
            orphans_stay_until: Duration::ZERO,
            recovery_ends,
            pending: Pending::default(),
            frozen_until: None,
        })
    }

    /// The state after a start: what the MDT remembers, and nobody here yet.
    pub(super) fn new(
        mdt: Mdt,
        leases: LeaseTable,
        clock: Arc<dyn Clock>,
        recovery_ends: Duration,
        orphans_stay_until: Duration,
    ) -> Result<State, Errno> {
        let orphans = mdt.orphans(usize::MAX)?.into_iter().collect();
        let mut pending = Pending::default();
        let mut from = TodoId(0);
        loop {
            let entries = mdt.todo(from, TODO_READ)?;
            pending.add(&entries);
            let Some((last, _)) = entries.last() else { break };
            from = TodoId(last.0 + 1);
        }
        let plain = State::of_snapshot(mdt, leases, clock, recovery_ends)?;
        Ok(State { orphans, orphans_stay_until, pending, ..plain })
    }

    /// Whether nobody else holds what is touched; if somebody does, he is called back.
    pub(super) fn clear(&mut self, session: SessionId, touches: &[(Ino, Touch)], now: Duration) -> bool {
        let conflicts = self.leases.conflicts(session, touches);
        self.call(&conflicts, now);
        conflicts.is_empty()
    }

    /// Sends what callbacks are needed.
    pub(super) fn call(&mut self, conflicts: &[Conflict], now: Duration) {
        for (session, callback) in self.leases.call(conflicts, now) {
            tracing::debug!(session = session.0, ino = callback.ino.0, take = ?callback.take, "callback");
            self.sessions.send(session, callback);
        }
    }

    /// Whether a file has bytes where an evicted session could still write, or that are about to be cut off.
    pub(super) fn is_gated(&self, ino: Ino) -> bool {
        if self.pending.is_empty() {
            return false;
        }
        match self.mdt.ask(&Ask::Layout { ino }).map(|asked| asked.answer) {
            Ok(Answer::Layout(layout)) => {
                layout.objects().any(|(ost, object)| self.pending.concerns(ost, object))
            }
            _ => false,
        }
    }

    /// Grants what may be granted.
    pub(super) fn grant(&mut self, session: SessionId, wants: &[Want], ticket: Option<Ticket>) -> Vec<Grant> {
        let grants = wants.iter().filter_map(|want| match want {
            Want::Name(dir, name) => {
                self.leases.grant_names(session, *dir, &std::iter::once(name.as_slice()), ticket)
            }
            Want::Leases(ino, leases) => {
                let mut leases = *leases;
                if leases.data != DataLease::None && self.is_gated(*ino) {
                    leases.data = DataLease::None;
                }
                self.leases.grant(session, *ino, leases, ticket)
            }
        });
        grants.collect()
    }

    /// A reply, as of now.
    pub(super) fn reply(&self, outcome: Result<Answer, Errno>, grants: Vec<Grant>) -> Reply {
        let room = self.room(&outcome);
        Reply { outcome, grants, seq: self.leases.seq(), dirs: Vec::new(), room }
    }

    /// What the owner of the file may still use that an answer tells of.
    fn room(&self, outcome: &Result<Answer, Errno>) -> Option<u64> {
        let Ok(Answer::Attr(attr) | Answer::Opened { attr, .. }) = outcome else { return None };
        let is_file = attr.kind == FileKind::Regular;
        // Rows that cannot be read make the next change fail.
        is_file.then(|| self.mdt.room(attr.into(), calendar(&*self.clock)).ok()?)?
    }

    /// Entries of the to-do list for one OST.
    pub(super) fn todo(&self, ost: OstIndex, from: TodoId) -> Result<Page, Errno> {
        let mut entries = self.mdt.todo(from, TODO_READ)?;
        let is_full = entries.len() == TODO_READ;
        let next = entries.last().filter(|_| is_full).map(|(last, _)| TodoId(last.0 + 1));
        entries.retain(|(_, todo)| todo.ost() == ost);
        Ok(Page { entries, next })
    }
}
