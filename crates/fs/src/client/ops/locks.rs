//! File and record locks. The MDS decides; this mount remembers what it holds, for when the MDS has restarted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Caller, Client, Outcome};
use crate::client::fuse::Reply;
use crate::client::meta::unexpected;
use crate::client::session::Waiter;
use crate::core::{Errno, Ino};
use crate::wire::mds::{Answer, HeldLock, Lock, LockKind, RecordLock};

/// Whose locks on what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    ino: Ino,
    flock: bool,
    owner: u64,
}

/// The locks that a mount holds.
#[derive(Default)]
pub(crate) struct HeldLocks {
    /// **Invariant:** the locks of one owner do not overlap, and no list is empty.
    held: Mutex<BTreeMap<Owner, Vec<RecordLock>>>,
}

impl HeldLocks {
    fn held(&self) -> MutexGuard<'_, BTreeMap<Owner, Vec<RecordLock>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, ino: Ino, flock: bool, lock: RecordLock) {
        let owner = Owner { ino, flock, owner: lock.owner };
        let mut held = self.held();
        let locks = held.entry(owner).or_default();
        set_range(locks, lock);
        if locks.is_empty() {
            held.remove(&owner);
        }
    }

    fn drop_all(&self, ino: Ino, flock: bool, owner: u64) -> bool {
        self.held().remove(&Owner { ino, flock, owner }).is_some()
    }

    pub(crate) fn clear(&self) {
        self.held().clear();
    }

    /// Every lock, for a hello.
    pub(crate) fn all(&self) -> Vec<HeldLock> {
        let held = self.held();
        let of = |(owner, locks): (&Owner, &Vec<RecordLock>)| {
            let Owner { ino, flock, .. } = *owner;
            locks.iter().map(move |lock| HeldLock { ino, flock, lock: *lock }).collect::<Vec<_>>()
        };
        held.iter().flat_map(of).collect()
    }
}

/// Puts a lock over those of the same owner; what is left of others in the range stays in front of and behind it.
fn set_range(locks: &mut Vec<RecordLock>, lock: RecordLock) {
    let mut left = Vec::with_capacity(locks.len() + 2);
    for old in locks.drain(..) {
        if old.last < lock.start || old.start > lock.last {
            left.push(old);
            continue;
        }
        if old.start < lock.start {
            left.push(RecordLock { last: lock.start - 1, ..old });
        }
        if old.last > lock.last {
            left.push(RecordLock { start: lock.last + 1, ..old });
        }
    }
    if lock.kind != LockKind::None {
        left.push(lock);
    }
    *locks = left;
}

impl Client {
    pub(super) fn getlk(&self, caller: &Caller<'_>, ino: Ino, lock: RecordLock) -> Outcome<'_> {
        let answered = self.meta.session.lock(Lock::Test { ino, lock }, caller.waiter)?;
        match answered.outcome? {
            Answer::Blocker(blocker) => Ok(Reply::Lock(blocker).into()),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn setlk(
        &self,
        caller: &Caller<'_>,
        number: u64,
        lock: RecordLock,
        flock: bool,
        wait: bool,
    ) -> Outcome<'_> {
        let handle = self.handles.get(number)?;
        let ino = handle.inode.ino;
        let wait = wait && lock.kind != LockKind::None;
        if !flock {
            handle.inode.state().locks_through(number, lock.owner);
        }
        let answered = self.meta.session.lock(Lock::Set { ino, flock, lock, wait }, caller.waiter)?;
        answered.outcome?;
        self.locks.set(ino, flock, lock);
        Ok(Reply::Done.into())
    }

    /// A program closed the file.
    pub(super) fn drop_record_locks(&self, caller: &Caller<'_>, ino: Ino, owner: u64) -> Result<(), Errno> {
        if self.locks.drop_all(ino, false, owner) {
            self.meta.session.lock(Lock::Drop { ino, flock: false, owner }, caller.waiter)?.outcome?;
        }
        Ok(())
    }

    /// A file with locks is closed for good.
    pub(super) fn drop_locks(&self, ino: Ino, flock: bool, owner: u64) {
        if !self.locks.drop_all(ino, flock, owner) {
            return;
        }
        let dropped = self.meta.session.lock(Lock::Drop { ino, flock, owner }, Waiter::MOUNT);
        if let Err(errno) | Ok(crate::client::session::Answered { outcome: Err(errno), .. }) = dropped {
            tracing::debug!(%errno, "locks of a closed file were not dropped; they end with the session");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(start: u64, last: u64, kind: LockKind) -> RecordLock {
        RecordLock { start, last, kind, owner: 1, pid: 1 }
    }

    #[test]
    fn a_lock_in_the_middle_splits_what_is_held() {
        let held = HeldLocks::default();
        held.set(Ino(5), false, lock(0, u64::MAX, LockKind::Shared));
        held.set(Ino(5), false, lock(10, 19, LockKind::Exclusive));
        held.set(Ino(5), false, lock(15, 15, LockKind::None));
        let mut ranges: Vec<_> =
            held.all().iter().map(|held| (held.lock.start, held.lock.last, held.lock.kind)).collect();
        ranges.sort_by_key(|(start, ..)| *start);
        let (shared, exclusive) = (LockKind::Shared, LockKind::Exclusive);
        assert_eq!(
            ranges,
            [(0, 9, shared), (10, 14, exclusive), (16, 19, exclusive), (20, u64::MAX, shared)]
        );
        held.set(Ino(5), false, lock(0, u64::MAX, LockKind::None));
        assert!(held.all().is_empty());
    }

    #[test]
    fn families_and_owners_do_not_touch_each_other() {
        let held = HeldLocks::default();
        held.set(Ino(5), false, lock(0, 9, LockKind::Exclusive));
        held.set(Ino(5), true, lock(0, 9, LockKind::Exclusive));
        held.set(Ino(5), false, RecordLock { owner: 2, ..lock(20, 29, LockKind::Shared) });
        assert!(held.drop_all(Ino(5), false, 1));
        assert_eq!(held.all().len(), 2);
        assert!(!held.drop_all(Ino(5), false, 1));
    }
}
