//! What the kernel is told to forget.

use std::io;
use std::sync::Arc;

use super::abi::notify;
use super::device::Device;
use super::reply;
use super::tree::Tree;
use crate::core::Ino;

/// The kernel's caches. Calls may wait for requests of programs that are under way (pages and directories are locked
/// meanwhile), so they are never made by a thread that serves a request.
pub(crate) trait Kernel: Send + Sync + 'static {
    /// Forgets attributes and ACLs of an inode. Waits for nothing.
    fn forget_attr(&self, ino: Ino);
    /// Forgets attributes and pages of an inode from `offset`, `len` bytes or to the end (0). What a mapping has changed in
    /// the pages is written first. Waits for reads of these pages.
    fn forget_pages(&self, ino: Ino, offset: u64, len: u64);
    /// Forgets one name. Waits for requests about names of the directory.
    fn forget_name(&self, parent: Ino, name: &[u8]);
    /// Forgets every name of the mount. Waits for nothing. `false`: this kernel cannot.
    fn forget_all_names(&self) -> bool;
}

/// The kernel's caches of one filesystem of a mount.
pub(crate) struct TreeKernel {
    pub(crate) kernel: Arc<dyn Kernel>,
    pub(crate) tree: Tree,
}

impl TreeKernel {
    fn node(&self, ino: Ino) -> Ino {
        Ino(self.tree.node(ino))
    }
}

impl Kernel for TreeKernel {
    fn forget_attr(&self, ino: Ino) {
        self.kernel.forget_attr(self.node(ino));
    }

    fn forget_pages(&self, ino: Ino, offset: u64, len: u64) {
        self.kernel.forget_pages(self.node(ino), offset, len);
    }

    fn forget_name(&self, parent: Ino, name: &[u8]) {
        self.kernel.forget_name(self.node(parent), name);
    }

    fn forget_all_names(&self) -> bool {
        self.kernel.forget_all_names()
    }
}

impl Kernel for Device {
    fn forget_attr(&self, ino: Ino) {
        // A negative offset spares the pages.
        tell(self, notify::INVAL_INODE, &inval_inode(ino, -1, 0), &[]);
    }

    fn forget_pages(&self, ino: Ino, offset: u64, len: u64) {
        tell(self, notify::INVAL_INODE, &inval_inode(ino, offset as i64, len as i64), &[]);
    }

    fn forget_name(&self, parent: Ino, name: &[u8]) {
        let mut body = [0; 16];
        body[..8].copy_from_slice(&parent.0.to_ne_bytes());
        body[8..12].copy_from_slice(&(name.len() as u32).to_ne_bytes());
        let mut ended = name.to_vec();
        ended.push(0);
        tell(self, notify::INVAL_ENTRY, &body, &ended);
    }

    fn forget_all_names(&self) -> bool {
        tell(self, notify::INC_EPOCH, &[], &[])
    }
}

fn inval_inode(ino: Ino, offset: i64, len: i64) -> [u8; 24] {
    let mut body = [0; 24];
    body[..8].copy_from_slice(&ino.0.to_ne_bytes());
    body[8..16].copy_from_slice(&offset.to_ne_bytes());
    body[16..].copy_from_slice(&len.to_ne_bytes());
    body
}

fn tell(device: &Device, code: i32, body: &[u8], name: &[u8]) -> bool {
    match reply::notify(code, body, name, |parts| device.carry_notice(parts)) {
        Ok(()) => true,
        // The kernel does not know the inode or the name any more, which is as good.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => true,
        // The mount is gone.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOTCONN)) => true,
        Err(error) => {
            report(&error, code);
            false
        }
    }
}

fn report(error: &io::Error, code: i32) {
    if code != notify::INC_EPOCH {
        tracing::warn!(%error, code, "the kernel did not take a notification");
    }
}
