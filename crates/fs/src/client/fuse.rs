//! The seam between the kernel and the operations of a mount.
//!
//! A transport reads requests, hands each as a [`Request`] to [`Operations::serve`] and carries the [`Answer`] back;
//! [`Kernel`] is how the mount tells the kernel what it must not keep any longer. The transport of today is
//! [`device`]: threads that read and write `/dev/fuse`. Another one (FUSE over `io_uring`) needs the same parts: requests
//! are decoded by [`Request::decode`] from wherever the bytes lie, answers are written by a [`Carrier`].
//!
//! fuser mounts and shakes hands with the kernel; the requests themselves are read here, for three reasons. A request that
//! waits for another mount must not keep the others from being served, so there must be threads as the load needs them;
//! a program that waits for a lock must be able to give up, so INTERRUPT must be heard; and `O_TMPFILE` and the
//! invalidation of all names at once are not among the messages that fuser knows.

mod abi;
pub(crate) mod device;
mod interrupt;
pub(crate) mod kernel;
mod reply;
mod request;
#[cfg(test)]
mod tests;
mod tree;

use std::io;

pub(crate) use abi::flags;
pub(crate) use interrupt::Interrupt;
pub(crate) use kernel::{Kernel, TreeKernel};
pub(crate) use reply::{Entries, Entry, Opened, Reply, Statfs, kind_of};
pub(crate) use request::{Op, Request, Setattr};
pub(crate) use tree::Tree;

use crate::core::Errno;

/// What a mount does with requests. Called from many threads at once; may block for as long as it takes.
pub(crate) trait Operations: Send + Sync + 'static {
    /// Serves one request. An answer that is dropped is `EIO`; requests that want none ignore theirs.
    fn serve(&self, request: &Request<'_>, answer: Answer<'_>);
}

/// Carries answers to the kernel.
pub(crate) trait Carrier: Sync {
    /// Writes one message, in one piece.
    fn carry(&self, parts: &[io::IoSlice<'_>]) -> io::Result<()>;
}

/// The answer to one request, to be sent once.
pub(crate) struct Answer<'t> {
    carrier: &'t dyn Carrier,
    unique: u64,
    interrupt: &'t Interrupt,
    /// Of which filesystem the inodes are that it tells of.
    tree: Tree,
    /// Cleared when it is sent, and where none is wanted.
    owed: bool,
}

impl<'t> Answer<'t> {
    pub(crate) fn new(
        carrier: &'t dyn Carrier,
        request: &Request<'_>,
        interrupt: &'t Interrupt,
    ) -> Answer<'t> {
        let tree = Tree::MOUNTED;
        Answer { carrier, unique: request.unique, interrupt, tree, owed: request.wants_answer() }
    }

    /// The inodes that it tells of are of this filesystem.
    pub(crate) fn of(self, tree: Tree) -> Answer<'t> {
        let mut answer = self;
        answer.tree = tree;
        answer
    }

    /// Tells whether the program still waits.
    pub(crate) fn interrupt(&self) -> &'t Interrupt {
        self.interrupt
    }

    /// Sends the answer. When this returns, the kernel has acted on it: pages are filled and unlocked, names are linked.
    pub(crate) fn send(mut self, outcome: Result<&Reply, Errno>) {
        self.owed = false;
        self.write(outcome);
    }

    fn write(&self, outcome: Result<&Reply, Errno>) {
        let sent = reply::encode(self.unique, self.tree, outcome, |parts| self.carrier.carry(parts));
        if let Err(error) = sent {
            // ENOENT: the program was killed and the kernel has given the request up.
            if error.raw_os_error() != Some(libc::ENOENT) {
                tracing::warn!(%error, "an answer to the kernel was not taken");
            }
        }
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if self.owed {
            self.write(Err(Errno::EIO));
        }
    }
}
