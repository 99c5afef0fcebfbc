//! Pages that a write of this mount made stale, forgotten on a thread of their own: the thread that serves the write must
//! not wait in the kernel for pages that other requests hold, because it might be the one to serve these.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};

use kiln_net::blocking::{Waits, waits};

use super::fuse::Kernel;
use crate::core::Ino;

/// Writes that wait for pages to be forgotten.
const WAITING_MAX: usize = 64;

/// A range whose pages are to be forgotten, and who waits for that.
pub(crate) struct Stale {
    ino: Ino,
    offset: u64,
    len: u64,
    done: SyncSender<()>,
}

/// See the module.
pub(crate) struct Notices(SyncSender<Stale>);

impl Notices {
    pub(crate) fn new() -> (Notices, Receiver<Stale>) {
        let (sender, receiver) = mpsc::sync_channel(WAITING_MAX);
        (Notices(sender), receiver)
    }

    /// Returns when the kernel has no page of the range that is older than this call. **Must hold:** the lease under which
    /// pages are filled is held meanwhile, so that who fills them does not wait for the MDS.
    pub(crate) fn forget_pages(&self, ino: Ino, offset: u64, len: u64) {
        let (done, wait) = mpsc::sync_channel(1);
        waits(Waits::Asleep);
        if self.0.send(Stale { ino, offset, len, done }).is_ok() {
            // The thread ends with the mount only; then there are no pages.
            let _ = wait.recv();
        }
    }
}

/// Forgets pages until the mount ends.
pub(crate) fn forget_stale(kernel: &Arc<dyn Kernel>, queue: &Receiver<Stale>) {
    while let Ok(Stale { ino, offset, len, done }) = queue.recv() {
        kernel.forget_pages(ino, offset, len);
        let _ = done.send(());
    }
}
