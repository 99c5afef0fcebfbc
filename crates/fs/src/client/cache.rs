//! What a mount knows of inodes: those that the kernel refers to, that are open, or on which a lease is held.

mod fresh;
mod inode;
mod names;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fresh::Freshness;
pub(crate) use inode::{Begin, Inode, MappedWrite, Need, Pages, State, Use};
pub(crate) use names::{Known, Names};

use super::bell::Bell;
use super::session::Stamp;
use crate::core::Ino;
use crate::wire::mds::{DataLease, Grant, Held, Leases};

/// Inodes with leases at once. Answers about others are used once and not kept; the kernel asks again.
const LEASED_MAX: usize = 1 << 20;

/// The inodes of a mount.
///
/// **Locks:** that of the table, then that of an inode, then that of `fresh`.
pub(crate) struct Inodes {
    table: Mutex<HashMap<Ino, Arc<Inode>>>,
    fresh: Mutex<Freshness>,
    /// Rung when a release is done.
    released: Bell,
}

impl Inodes {
    pub(crate) fn new() -> Inodes {
        Inodes { table: Mutex::default(), fresh: Mutex::default(), released: Bell::default() }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Ino, Arc<Inode>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fresh(&self) -> MutexGuard<'_, Freshness> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inode, known from now on.
    pub(crate) fn get(&self, ino: Ino) -> Arc<Inode> {
        let mut table = self.table();
        Arc::clone(table.entry(ino).or_insert_with(|| Arc::new(Inode::new(ino))))
    }

    pub(crate) fn find(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.table().get(&ino).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Inode>> {
        self.table().values().cloned().collect()
    }

    /// The kernel refers to the inode once more.
    pub(crate) fn looked_up(&self, ino: Ino) {
        self.get(ino).state().lookups += 1;
    }

    /// The kernel has dropped so many references. The inode when that were all.
    pub(crate) fn forget(&self, ino: Ino, count: u64) -> Option<Arc<Inode>> {
        let inode = self.find(ino)?;
        let mut state = inode.state();
        state.lookups = state.lookups.saturating_sub(count);
        let unused = state.lookups == 0;
        drop(state);
        unused.then_some(inode)
    }

    /// Drops an inode that nobody refers to and that holds nothing.
    pub(crate) fn tidy(&self, inode: &Inode) {
        let mut table = self.table();
        if inode.state().is_unused() {
            table.remove(&inode.ino);
        }
    }

    /// A callback for the inode came: answers from before it are stale.
    pub(crate) fn revoked(&self, ino: Ino, seq: u64) {
        self.fresh().revoked(ino, seq);
    }

    /// Leases on the inode are being given back: until [`Inodes::released`], no answer about it is kept.
    pub(crate) fn releasing(&self, ino: Ino) {
        self.fresh().releasing(ino);
    }

    /// The MDS has what was given back; answers that were asked for with a `ticket` from this on may be kept.
    pub(crate) fn released(&self, ino: Ino, ticket: u64) {
        self.fresh().released(ino, ticket);
        self.released.notify_all();
    }

    /// Waits, at most so long, until no lease on the inode is being given back; whether that is so. An answer that came
    /// before could not be kept.
    pub(crate) fn wait_released(&self, ino: Ino, at_most: Duration) -> bool {
        let mut fresh = self.fresh();
        if fresh.is_releasing(ino) {
            fresh = self.released.wait_timeout(fresh, at_most);
        }
        !fresh.is_releasing(ino)
    }

    /// Whether an answer says how things are, as far as callbacks that have come tell.
    pub(crate) fn is_fresh(&self, ino: Ino, stamp: Stamp, epoch: u64) -> bool {
        self.fresh().is_fresh(ino, stamp, epoch)
    }

    /// Notes what an answer grants, unless it is stale. **Must hold:** the gate is held for reading, and until whatever the
    /// kernel is told because of the grant was told.
    pub(crate) fn keep(&self, grant: &Grant, stamp: Stamp, epoch: u64) -> bool {
        let inode = {
            let mut table = self.table();
            if table.len() >= LEASED_MAX && !table.contains_key(&grant.ino) {
                return false;
            }
            Arc::clone(table.entry(grant.ino).or_insert_with(|| Arc::new(Inode::new(grant.ino))))
        };
        // A callback counts the answer as stale before it looks at the inode.
        let mut state = inode.state();
        let fresh = self.is_fresh(grant.ino, stamp, epoch);
        if fresh {
            state.granted(grant.leases);
        }
        drop(state);
        inode.look_again();
        fresh
    }

    /// Everything that is held, for a hello that resumes the session in a new epoch.
    pub(crate) fn held(&self) -> Vec<Held> {
        self.fresh().forget_revoked();
        let held = |inode: Arc<Inode>| {
            let state = inode.state();
            let (leases, open) = (state.held(), state.is_open_at_mds());
            (open || leases != Leases::default()).then_some(Held { ino: inode.ino, leases, open })
        };
        self.all().into_iter().filter_map(held).collect()
    }
}

/// Which leases a client gives back with an inode that it drops.
pub(crate) fn everything(leases: Leases) -> Option<Leases> {
    (leases != Leases { meta: false, names: false, data: DataLease::None }).then_some(leases)
}
