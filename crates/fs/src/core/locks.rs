//! File and record locks of all sessions: fcntl(2) and flock(2), which do not see each other.
//!
//! A request that has to wait takes a [`LockTicket`]; whenever something may have become free it is tried again, by whoever
//! waits for it. So a request whose caller is gone can leave, and never gets a lock that nobody knows of.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::{Errno, Ino, SessionId};
use crate::wire::mds::{HeldLock, LockKind, RecordLock};

#[cfg(test)]
mod tests;

/// Locks of one session; a lock that would be one more is refused with `ENOLCK`.
pub const LOCKS_PER_SESSION_MAX: usize = 1 << 16;
/// Requests that wait for a lock; one more is refused with `ENOLCK`.
pub const LOCK_WAITERS_MAX: usize = 4096;

/// The file that a lock is on, in the family that it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct File {
    ino: Ino,
    flock: bool,
}

/// Who holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    session: SessionId,
    number: u64,
}

/// A lock. **Invariant:** `lock.kind` is not `None`, and `lock.start <= lock.last`.
#[derive(Clone, Copy, Debug)]
struct Held {
    session: SessionId,
    lock: RecordLock,
}

/// A request that waits.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    file: File,
    wanted: Held,
}

/// The place of a request in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockTicket(u64);

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct LockTable {
    /// **Invariant:** no list is empty; locks of one owner do not overlap, and those of several only when all are shared.
    files: BTreeMap<File, Vec<Held>>,
    /// In the order in which they came.
    waiting: BTreeMap<LockTicket, Waiting>,
    /// How many of `files` are a session's.
    counts: BTreeMap<SessionId, usize>,
    last_ticket: u64,
}

impl Held {
    fn owner(&self) -> Owner {
        Owner { session: self.session, number: self.lock.owner }
    }

    fn overlaps(&self, other: &RecordLock) -> bool {
        self.lock.start <= other.last && other.start <= self.lock.last
    }

    /// Whether it keeps the other out.
    fn blocks(&self, other: &Held) -> bool {
        let exclusive = [self.lock.kind, other.lock.kind].contains(&LockKind::Exclusive);
        exclusive && self.owner() != other.owner() && self.overlaps(&other.lock)
    }

    /// What is left of it without a range: nothing, one piece (all of it, maybe) or two.
    fn without(self, range: RecordLock) -> impl Iterator<Item = Held> {
        let RecordLock { start, last, .. } = self.lock;
        let piece = move |start, last| Held { lock: RecordLock { start, last, ..self.lock }, ..self };
        let before = (start < range.start).then(|| piece(start, last.min(range.start - 1)));
        let behind = (range.last < last).then(|| piece(start.max(range.last + 1), last));
        before.into_iter().chain(behind)
    }

    /// Whether the other goes on where it ends, as the same lock.
    fn continues_in(&self, next: &Held) -> bool {
        let same = self.owner() == next.owner() && self.lock.kind == next.lock.kind;
        same && self.lock.last.checked_add(1) == Some(next.lock.start)
    }
}

impl LockTable {
    /// Takes, changes or drops a lock; `EAGAIN` when somebody else's is in the way. Like Linux, a flock(2) that cannot be
    /// changed is lost.
    pub fn set(&mut self, session: SessionId, ino: Ino, flock: bool, lock: RecordLock) -> Result<(), Errno> {
        let (file, wanted) = asked(session, ino, flock, lock)?;
        if lock.kind != LockKind::None && self.blockers(file, &wanted).next().is_some() {
            if flock {
                self.put(file, Held { lock: RecordLock { kind: LockKind::None, ..wanted.lock }, ..wanted })?;
            }
            return Err(Errno::EAGAIN);
        }
        self.put(file, wanted)
    }

    /// As [`LockTable::set`], but waits: `None` when the lock is taken at once. `EDEADLK` when those who hold what is in the
    /// way wait, in the end, for this owner.
    pub fn wait(
        &mut self,
        session: SessionId,
        ino: Ino,
        flock: bool,
        lock: RecordLock,
    ) -> Result<Option<LockTicket>, Errno> {
        match self.set(session, ino, flock, lock) {
            Err(Errno::EAGAIN) => {}
            done => return done.map(|()| None),
        }
        let (file, wanted) = asked(session, ino, flock, lock)?;
        if !flock && self.is_deadlock(file, &wanted) {
            return Err(Errno::EDEADLK);
        }
        if self.waiting.len() >= LOCK_WAITERS_MAX {
            return Err(Errno::ENOLCK);
        }
        self.last_ticket += 1;
        let ticket = LockTicket(self.last_ticket);
        self.waiting.insert(ticket, Waiting { file, wanted });
        Ok(Some(ticket))
    }

    /// Takes the lock that a request waits for, if it is free and nobody who came before gets it: `true`, and it waits no
    /// more. An error ends the waiting too.
    pub fn retry(&mut self, ticket: LockTicket) -> Result<bool, Errno> {
        let Some(&Waiting { file, wanted }) = self.waiting.get(&ticket) else { return Err(Errno::ESTALE) };
        if !self.is_free(file, &wanted) || self.is_overtaking(ticket, file, &wanted) {
            return Ok(false);
        }
        self.waiting.remove(&ticket);
        self.put(file, wanted).map(|()| true)
    }

    /// A request does not wait any more.
    pub fn leave(&mut self, ticket: LockTicket) {
        self.waiting.remove(&ticket);
    }

    /// Whether anybody waits.
    pub fn is_awaited(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The lock that would be in the way of an fcntl(2) lock, the first by its range.
    pub fn test(&self, session: SessionId, ino: Ino, lock: RecordLock) -> Result<Option<RecordLock>, Errno> {
        let (file, wanted) = asked(session, ino, false, lock)?;
        Ok(self.blockers(file, &wanted).map(|held| held.lock).min_by_key(|lock| lock.start))
    }

    /// Drops every lock of an owner on a file.
    pub fn drop_owner(&mut self, session: SessionId, ino: Ino, flock: bool, owner: u64) {
        let (file, owner) = (File { ino, flock }, Owner { session, number: owner });
        let Some(list) = self.files.get_mut(&file) else { return };
        let before = list.len();
        list.retain(|held| held.owner() != owner);
        let gone = before - list.len();
        self.counts.entry(session).and_modify(|count| *count -= gone);
        self.drop_if_empty(file);
    }

    /// Drops every lock of a session, and whatever it waits for.
    pub fn drop_session(&mut self, session: SessionId) {
        self.waiting.retain(|_, waiting| waiting.wanted.session != session);
        self.files.retain(|_, list| {
            list.retain(|held| held.session != session);
            !list.is_empty()
        });
        self.counts.remove(&session);
    }

    /// Gives a session a lock again that it says it holds.
    pub fn claim(&mut self, session: SessionId, held: &HeldLock) -> Result<(), Errno> {
        self.set(session, held.ino, held.flock, held.lock)
    }

    fn blockers(&self, file: File, wanted: &Held) -> impl Iterator<Item = &Held> {
        self.files.get(&file).into_iter().flatten().filter(move |held| held.blocks(wanted))
    }

    fn is_free(&self, file: File, wanted: &Held) -> bool {
        self.blockers(file, wanted).next().is_none()
    }

    /// Whether somebody who waits for longer could take his lock now, and would be kept out by this one. Who has to wait on
    /// anyhow is not considered: he may wait for the very owner that asks.
    fn is_overtaking(&self, ticket: LockTicket, file: File, wanted: &Held) -> bool {
        let mut before = self.waiting.range(..ticket).map(|(_, waiting)| waiting);
        before.any(|first| {
            first.file == file && wanted.blocks(&first.wanted) && self.is_free(file, &first.wanted)
        })
    }

    /// Follows those who are in the way to what they wait for, and so on.
    fn is_deadlock(&self, file: File, wanted: &Held) -> bool {
        let mut seen: BTreeSet<Owner> = BTreeSet::new();
        let mut next: Vec<Owner> = self.blockers(file, wanted).map(Held::owner).collect();
        while let Some(owner) = next.pop() {
            if owner == wanted.owner() {
                return true;
            }
            if seen.insert(owner) {
                let waits = self.waiting.values();
                let waits = waits.filter(|one| !one.file.flock && one.wanted.owner() == owner);
                next.extend(waits.flat_map(|one| self.blockers(one.file, &one.wanted)).map(Held::owner));
            }
        }
        false
    }

    /// Gives the range of `new` to its owner as `new` says, whatever he had of it.
    fn put(&mut self, file: File, new: Held) -> Result<(), Errno> {
        let list = self.files.entry(file).or_default();
        let (mine, mut others): (Vec<Held>, Vec<Held>) =
            list.iter().partition(|held| held.owner() == new.owner());
        let mut pieces: Vec<Held> = mine.iter().flat_map(|held| held.without(new.lock)).collect();
        pieces.extend((new.lock.kind != LockKind::None).then_some(new));
        pieces.sort_unstable_by_key(|held| held.lock.start);
        pieces.dedup_by(|next, held| {
            let merge = held.continues_in(next);
            if merge {
                held.lock.last = next.lock.last;
            }
            merge
        });
        let count = self.counts.entry(new.session).or_default();
        let after = *count + pieces.len() - mine.len();
        if pieces.len() > mine.len() && after > LOCKS_PER_SESSION_MAX {
            self.drop_if_empty(file);
            return Err(Errno::ENOLCK);
        }
        *count = after;
        others.append(&mut pieces);
        *list = others;
        self.drop_if_empty(file);
        Ok(())
    }

    fn drop_if_empty(&mut self, file: File) {
        if self.files.get(&file).is_some_and(Vec::is_empty) {
            self.files.remove(&file);
        }
    }
}

/// The lock as it is kept: flock(2) has no ranges.
fn asked(session: SessionId, ino: Ino, flock: bool, lock: RecordLock) -> Result<(File, Held), Errno> {
    if lock.start > lock.last {
        return Err(Errno::EINVAL);
    }
    let lock = if flock { RecordLock { start: 0, last: u64::MAX, ..lock } } else { lock };
    Ok((File { ino, flock }, Held { session, lock }))
}
