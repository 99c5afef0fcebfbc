//! File data.

use std::sync::Arc;

use super::{Caller, Client, Outcome, Ready};
use crate::client::cache::{Begin, Inode, Need, Use};
use crate::client::data::Seek;
use crate::client::fuse::Reply;
use crate::client::handles::Handle;
use crate::core::Errno;
use crate::wire::mds::Ask;

/// How often a lease is asked for that is always gone again when it comes.
const ASKS_MAX: u32 = 1000;
/// What copy_file_range(2) copies in one piece, in bytes.
const COPY_BYTES: u32 = 1 << 20;
/// The most that one copy_file_range(2) copies, in bytes: the kernel asks again, and may be interrupted between.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// How a write is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    /// By the kernel, from pages of a mapping.
    pub(super) paged: bool,
    /// The writer is not root: set-id bits go.
    pub(super) kill_suid_sgid: bool,
    /// Of the open file.
    pub(super) flags: i32,
}

impl Client {
    /// Begins to use a file's data, with the lease that it takes.
    fn begin(&self, caller: &Caller<'_>, inode: &Arc<Inode>, need: Need) -> Result<Use, Errno> {
        for _ in 0..ASKS_MAX {
            match inode.begin(need) {
                Begin::Use(used) => return Ok(used),
                Begin::Ask(asking, want) => {
                    let before = self.meta.changes();
                    let answered = self.ask(caller, Ask::Lease { ino: inode.ino, want })?;
                    let kept = self.meta.absorb(answered.grants, answered.stamp);
                    let attr = super::attrs::expect_attr(answered.outcome)?;
                    self.meta.note(&attr, before);
                    if let Some(file) = inode.state().file.clone() {
                        file.set_size(&attr, None);
                    }
                    drop(kept);
                    drop(asking);
                }
            }
        }
        tracing::warn!(ino = inode.ino.0, ?need, "a lease is always taken back before it can be used");
        Err(Errno::EIO)
    }

    pub(super) fn read(&self, caller: &Caller<'_>, handle: u64, offset: u64, size: u32, paged: bool) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        let need = if paged { Need::Pages { offset, len: u64::from(size) } } else { Need::Read };
        let used = self.begin(caller, &handle.inode, need)?;
        let bytes = handle.file.read(offset, size, used.mode)?;
        Ok(Ready::using(Reply::Bytes(bytes), used))
    }

    pub(super) fn write(&self, caller: &Caller<'_>, handle: u64, offset: u64, data: &[u8], how: Write) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        let append = how.flags & libc::O_APPEND != 0 && !how.paged;
        let need = match (how.paged, append) {
            (true, _) => Need::WritePages,
            (false, true) => Need::Append,
            (false, false) => Need::Write,
        };
        let used = self.begin(caller, &handle.inode, need)?;
        let offset = if append { handle.file.size() } else { offset };
        if how.kill_suid_sgid {
            handle.file.kill_suid_sgid();
        }
        let sync = how.flags & libc::O_DSYNC != 0;
        handle.file.write(offset, data, used.mode, sync)?;
        if sync {
            self.ask(caller, Ask::Sync)?.outcome?;
        }
        if used.had_pages && !how.paged {
            // The kernel has dropped the pages before it sent this; some may have been filled again since.
            self.notices.forget_pages(handle.inode.ino, offset, data.len() as u64);
        }
        Ok(Ready::using(Reply::Written(data.len() as u32), used))
    }

    pub(super) fn fsync(&self, caller: &Caller<'_>, handle: u64) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        handle.file.sync()?;
        self.sync_mds(caller)
    }

    pub(super) fn fallocate(&self, caller: &Caller<'_>, handle: u64, offset: u64, len: u64, mode: i32) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        let used = self.begin(caller, &handle.inode, Need::Write)?;
        handle.file.fallocate(mode, offset, len)?;
        if used.had_pages {
            self.notices.forget_pages(handle.inode.ino, offset, len);
        }
        Ok(Ready::using(Reply::Done, used))
    }

    pub(super) fn lseek(&self, caller: &Caller<'_>, handle: u64, offset: u64, whence: u32) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        let what = match whence as i32 {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return Err(Errno::EINVAL),
        };
        let used = self.begin(caller, &handle.inode, Need::Read)?;
        let found = handle.file.seek(offset, what)?;
        Ok(Ready::using(Reply::Offset(found), used))
    }

    pub(super) fn copy_file_range(
        &self,
        caller: &Caller<'_>,
        (from, from_offset): (u64, u64),
        (to, to_offset): (u64, u64),
        len: u64,
    ) -> Outcome<'_> {
        let (from, to) = (self.handles.get(from)?, self.handles.get(to)?);
        let len = len.min(COPY_BYTES_MAX);
        let mut copied = 0;
        while copied < len {
            let piece = (len - copied).min(u64::from(COPY_BYTES)) as u32;
            match self.copy_piece(caller, (&from, from_offset + copied), (&to, to_offset + copied), piece) {
                Ok(0) => break,
                Ok(done) => copied += u64::from(done),
                Err(_) if copied > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(Reply::Written(copied as u32).into())
    }

    fn copy_piece(
        &self,
        caller: &Caller<'_>,
        (from, from_offset): (&Handle, u64),
        (to, to_offset): (&Handle, u64),
        len: u32,
    ) -> Result<u32, Errno> {
        let bytes = {
            let used = self.begin(caller, &from.inode, Need::Read)?;
            from.file.read(from_offset, len, used.mode)?
        };
        if !bytes.is_empty() {
            let used = self.begin(caller, &to.inode, Need::Write)?;
            to.file.write(to_offset, &bytes, used.mode, false)?;
            if used.had_pages {
                self.notices.forget_pages(to.inode.ino, to_offset, bytes.len() as u64);
            }
        }
        Ok(bytes.len() as u32)
    }
}
