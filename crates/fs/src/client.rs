//! The client: a mount.
//!
//! ```text
//! kernel <-> fuse (transport) -> snapshots (of which filesystem) -> ops (what requests do)
//!                                                                   ops -> meta, session -> MDS
//!                                                                       -> data          -> OSTs
//! MDS -> session (keeper) -> callbacks -> kernel, data -> acknowledged
//! ```
//!
//! **The kernel's caches are the cache.** Names, attributes and pages of files that are only read stay in the kernel for as
//! long as a lease covers them, and the MDS calls a lease back before anybody changes what it covers. Files that are open
//! for writing bypass the kernel's page cache; what is written is held back by [`data`] under the lease that nobody else
//! reads or writes. Access times are kept as with `noatime`: they change only when a program sets them.
//!
//! # What could go wrong between an answer, a callback and the kernel
//!
//! 1. *An answer that was made before a callback is processed after it.* Each answer carries the MDS's number, each callback
//!    a higher one; what is older than the last callback for its inode is not kept, and the kernel gets a timeout of 0
//!    ([`cache`], `fresh`). The same holds for an answer that the mount's own release may have overtaken, and for one of
//!    before the link was lost. A callback is counted before the inode is looked at, an answer is judged with the inode
//!    locked: one of the two sees the other.
//! 2. *An answer is judged good, then a callback comes and is served, then the answer reaches the kernel.* A request holds
//!    the gate ([`meta`]) for reading from the judgement until the kernel has the answer; a callback, once the lease is noted
//!    as gone, takes the gate for writing once before it tells the kernel to forget. The mount's own changes of names do the
//!    same, so that attributes of a directory from before are with the kernel when it learns of the change and drops them.
//! 3. *Forgetting pages waits for pages that a read has locked, and that read waits for the lease which is being given back.*
//!    A read for pages never waits while the lease of its file is being given back: it goes to the servers at once, under
//!    the lease that they still count, and its range is remembered and forgotten again before the acknowledgement. When no
//!    lease is held there are no pages, and giving back waits for none; only then may such a read wait for the MDS, and at
//!    most one request of the mount asks for a lease on the same file, so that nobody waits behind one that was granted.
//! 4. *Forgetting a name waits for the directory, which a change by this mount has locked, which waits at the MDS behind the
//!    change that the callback is for.* See `forget_names` in [`callbacks`]: then every name of the mount is forgotten by a
//!    count that the kernel compares, without a lock. A kernel before 6.16 has no such count; there no name is kept.
//! 5. *A write waits for a lease with pages locked.* It does not: a file open for writing is `FOPEN_DIRECT_IO`. What a program
//!    stored in a mapping comes back from the kernel's pages, but only while a lease is held or given back.
//! 6. *Every thread waits for another mount, whose threads wait for this one.* Threads are started when the last idle one
//!    gets a request (`fuse::device`), callbacks have their own.
//! 7. *Data that was written after the lease was given back.* A request that uses the data is counted from before it
//!    touches it until its answer is with the kernel; giving back waits for those that began under the lease.
//! 8. *Pages that were filled before a write of this mount, and kept.* The kernel drops the pages of a direct write before it
//!    sends it; what was filled since is forgotten before the write is answered ([`notices`]).
//! 9. *A file is closed, the MDS is told later, and it is opened again meanwhile.* Opening waits while the MDS is being told.

mod bell;
mod cache;
mod callbacks;
pub mod control;
pub mod data;
mod fuse;
mod handles;
mod house;
mod jobs;
mod meta;
pub mod mount;
mod notices;
mod ops;
mod session;
mod snapshots;

use std::sync::{Arc, OnceLock, PoisonError, RwLock, Weak};

use callbacks::NamesGiver;
use data::{DataPath, Osts};
use fuse::{Kernel, Tree};
use handles::Handles;
use house::House;
use jobs::Jobs;
use meta::Meta;
use notices::Notices;
use ops::HeldLocks;

use crate::core::Ino;
use crate::wire::mgs::FsConfig;

/// A mount.
pub(crate) struct Client {
    meta: Arc<Meta>,
    data: Arc<DataPath>,
    osts: Arc<Osts>,
    handles: Handles,
    locks: HeldLocks,
    house: House,
    jobs: Jobs,
    notices: Notices,
    names: NamesGiver,
    read_only: bool,
    /// Which filesystem of the mount it is.
    tree: Tree,
    config: RwLock<Arc<FsConfig>>,
    /// Set when the kernel has mounted it, before the first request and the first callback.
    kernel: OnceLock<(Arc<dyn Kernel>, bool)>,
    me: Weak<Client>,
}

impl Client {
    /// The kernel's caches; none while nothing is mounted.
    fn kernel(&self) -> Arc<dyn Kernel> {
        self.kernel
            .get()
            .map_or_else(|| Arc::new(Unmounted) as Arc<dyn Kernel>, |(kernel, _)| Arc::clone(kernel))
    }

    /// Whether names may be kept: this kernel can be told to forget them whatever is locked.
    fn keeps_names(&self) -> bool {
        self.kernel.get().is_some_and(|(_, forgets_all)| *forgets_all)
    }

    /// The filesystem as the MGS has it.
    fn config(&self) -> Arc<FsConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The filesystem has changed.
    fn reconfigure(&self, config: &FsConfig) {
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config.clone());
        self.osts.replace(config);
        self.meta.session.moved(config.mdt.clone());
    }

    /// This client, to be shared with a thread; `None` when it is about to end.
    fn me(&self) -> Option<Arc<Client>> {
        self.me.upgrade()
    }
}

/// A kernel that has no cache yet.
struct Unmounted;

impl Kernel for Unmounted {
    fn forget_attr(&self, _ino: Ino) {}
    fn forget_pages(&self, _ino: Ino, _offset: u64, _len: u64) {}
    fn forget_name(&self, _parent: Ino, _name: &[u8]) {}
    fn forget_all_names(&self) -> bool {
        true
    }
}
