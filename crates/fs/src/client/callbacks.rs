//! What the MDS wants back, given back.
//!
//! The thread that hears callbacks never waits for a request: attributes are given back at once; names and data on threads
//! of their own, because the kernel, or the MDS, may make them wait.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::Client;
use super::cache::Inode;
use super::fuse::Kernel;
use crate::core::{Ino, SessionId};
use crate::wire::mds::{Acked, Callback, DataLease, Held, HeldLock, Take};

/// How often it is looked whether a change of names keeps the kernel from forgetting one.
const LOOK: Duration = Duration::from_millis(1);
/// How long the kernel has to forget one name before it is told to forget all.
const PATIENCE: Duration = Duration::from_millis(20);

impl super::session::Holder for Client {
    fn held(&self) -> (Vec<Held>, Vec<HeldLock>) {
        // What was decided to be kept before the epoch ended is noted when this returns.
        self.meta.barrier();
        (self.meta.inodes.held(), self.locks.all())
    }

    fn called(&self, callback: Callback) {
        self.meta.inodes.revoked(callback.ino, callback.seq);
        let Some(client) = self.me() else { return };
        match callback.take {
            Take::Meta => self.give_meta(&callback),
            Take::Unlinked => self.acknowledge(&callback),
            Take::Name(_) | Take::Names => self.names.send(callback),
            Take::Data(keep) => {
                let named = thread::Builder::new().name("fs-give".to_owned());
                let spawned = named.spawn(move || client.give_data(&callback, keep));
                if let Err(error) = spawned {
                    tracing::error!(%error, "no thread to give a lease back; the MDS will evict this mount");
                }
            }
        }
    }

    fn evicted(&self, next: SessionId) {
        self.drop_everything(next);
    }
}

impl Client {
    fn give_meta(&self, callback: &Callback) {
        if let Some(inode) = self.meta.inodes.find(callback.ino) {
            inode.state().lose_meta();
            self.meta.barrier();
            self.kernel().forget_attr(callback.ino);
        } else {
            self.meta.barrier();
        }
        self.acknowledge(callback);
    }

    fn give_data(&self, callback: &Callback, keep: DataLease) {
        if let Some(inode) = self.meta.inodes.find(callback.ino) {
            self.give_inode_data(&inode, keep);
            self.house.close_now(self, &inode);
        }
        self.acknowledge(callback);
    }

    /// Gives the lease on a file's data back, down to `keep`. See [`super`] for the order.
    fn give_inode_data(&self, inode: &Arc<Inode>, keep: DataLease) {
        let had = inode.give(keep);
        if keep >= had {
            return;
        }
        self.meta.barrier();
        inode.unused();
        let keeps_pages = keep == DataLease::Read && !inode.has_mapped_writes();
        if inode.has_pages() && !keeps_pages {
            inode.no_pages();
            self.kernel().forget_pages(inode.ino, 0, 0);
            // Pages that a mapping had changed were written meanwhile.
            inode.unused();
        }
        let file = inode.state().file.clone();
        if let Some(file) = file {
            if had > DataLease::Read {
                file.flush_unheard();
            }
            file.await_told();
            if keep == DataLease::None {
                file.forget_clean();
            }
        }
        while let Err(pages) = inode.given() {
            for (offset, len) in pages {
                self.kernel().forget_pages(inode.ino, offset, len);
            }
        }
    }

    fn acknowledge(&self, callback: &Callback) {
        let open = self.meta.inodes.find(callback.ino).is_some_and(|inode| inode.state().tell_open());
        let acked = Acked { seq: callback.seq, ino: callback.ino, open };
        self.meta.session.acknowledge(vec![acked]);
    }

    /// Drops what the kernel keeps under leases that may be void.
    pub(super) fn drop_clean(&self) {
        let inodes = self.meta.inodes.all();
        for inode in &inodes {
            let mut state = inode.state();
            state.lose_meta();
            (state.names, state.known) = (false, None);
        }
        self.meta.barrier();
        self.kernel().forget_all_names();
        for inode in &inodes {
            self.kernel().forget_attr(inode.ino);
        }
        for inode in &inodes {
            if inode.state().data() == DataLease::Read {
                self.give_inode_data(inode, DataLease::None);
            }
        }
    }

    /// The session was evicted.
    fn drop_everything(&self, next: SessionId) {
        self.osts.renew(next);
        self.locks.clear();
        let inodes = self.meta.inodes.all();
        for inode in &inodes {
            let file = inode.state().file.take();
            if let Some(file) = file {
                file.discard();
            }
            inode.lost();
        }
        self.meta.barrier();
        self.kernel().forget_all_names();
        for inode in &inodes {
            self.kernel().forget_pages(inode.ino, 0, 0);
        }
    }
}

/// The thread that gives names back.
pub(crate) struct NamesGiver(Sender<Callback>);

impl NamesGiver {
    /// The giver, and its queue: at most as long as the MDS has callbacks outstanding for one session.
    pub(crate) fn new() -> (NamesGiver, Receiver<Callback>) {
        let (sender, receiver) = mpsc::channel();
        (NamesGiver(sender), receiver)
    }

    fn send(&self, callback: Callback) {
        // The thread ends with the mount only.
        let _ = self.0.send(callback);
    }
}

/// Gives names back until the mount ends.
pub(crate) fn give_names(client: &Weak<Client>, queue: &Receiver<Callback>) {
    let mut helper = None;
    while let Ok(callback) = queue.recv() {
        let Some(client) = client.upgrade() else { return };
        let helper = helper.get_or_insert_with(|| Helper::start(client.kernel()));
        let name = match &callback.take {
            Take::Name(name) => Some(name.as_slice()),
            _ => None,
        };
        if let Some(dir) = client.meta.inodes.find(callback.ino) {
            let mut state = dir.state();
            if let Some(name) = name {
                state.add_name(name, None);
            } else {
                (state.names, state.known) = (false, None);
            }
        }
        client.meta.barrier();
        forget_names(&client, helper, callback.ino, name);
        client.acknowledge(&callback);
    }
}

/// Makes the kernel forget one name of a directory, or all.
///
/// To forget one it locks the directory, and the lock may be held by a request of this mount that waits at the MDS, behind
/// the very change that this callback is for; or by one that waits, still in the kernel, for the lock of a file that such a
/// request holds. Then the kernel is told to forget every name of the mount, which needs no lock. While the directory is
/// locked for a change, no listing of it is being read in the kernel. Where it is locked for something else, a name of such
/// a listing can slip in behind; it goes when the helper gets the lock.
fn forget_names(client: &Client, helper: &mut Helper, dir: Ino, name: Option<&[u8]>) {
    let began = Instant::now();
    helper.begin(dir, name);
    loop {
        let changing = client.meta.inodes.find(dir).is_some_and(|inode| inode.state().changing > 0);
        if helper.is_done(LOOK) {
            return;
        }
        if changing || began.elapsed() > PATIENCE {
            tracing::debug!(dir = dir.0, changing, "a directory stays locked: every name is forgotten");
            client.kernel().forget_all_names();
            *helper = Helper::start(client.kernel());
            return;
        }
    }
}

/// A thread that may get stuck in the kernel; then another takes its place, and it ends when the kernel lets go.
struct Helper {
    ask: Sender<(Ino, Option<Vec<u8>>)>,
    done: Receiver<()>,
}

impl Helper {
    fn start(kernel: Arc<dyn Kernel>) -> Helper {
        let (ask, asked) = mpsc::channel::<(Ino, Option<Vec<u8>>)>();
        let (tell, done) = mpsc::channel();
        let run = move || {
            while let Ok((dir, name)) = asked.recv() {
                // Any name serves to wait until listings that are being read are in the kernel's cache.
                kernel.forget_name(dir, name.as_deref().unwrap_or(b"."));
                if name.is_none() {
                    kernel.forget_all_names();
                }
                if tell.send(()).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("fs-names".to_owned()).spawn(run) {
            tracing::warn!(%error, "no thread to forget names one by one; all are forgotten each time");
        }
        Helper { ask, done }
    }

    fn begin(&self, dir: Ino, name: Option<&[u8]>) {
        // Without a thread nobody takes it, and nobody will be done.
        let _ = self.ask.send((dir, name.map(<[u8]>::to_vec)));
    }

    /// Waits a moment; whether it is done. A helper that has no thread never is.
    fn is_done(&self, at_most: Duration) -> bool {
        match self.done.recv_timeout(at_most) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => false,
        }
    }
}
