//! File data.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kiln_net::blocking::{Waits, waits};

use super::{Caller, Client, Outcome, Ready, program_errno};
use crate::client::cache::{Begin, Inode, MappedWrite, Need, Pages, Use};
use crate::client::data::{Mode, Seek};
use crate::client::fuse::Reply;
use crate::client::handles::Handle;
use crate::client::meta::unexpected;
use crate::client::session::Waiter;
use crate::core::{Errno, SetAttr};
use crate::wire::mds::{Act, Answer, Ask};

/// How often a lease is asked for that is always gone again when it comes: at once at first, then with longer and longer pauses,
/// for most of a minute in all.
const ASKS_MAX: u32 = 1000;
const ASKS_AT_ONCE: u32 = 16;
const ASK_PAUSE_MAX: Duration = Duration::from_millis(50);
/// How often who waits for a release looks whether his program is being killed.
const RELEASE_LOOK: Duration = Duration::from_millis(100);
/// What `copy_file_range(2)` copies in one piece, in bytes.
const COPY_BYTES: u32 = 1 << 20;
/// The most that one `copy_file_range(2)` copies, in bytes: the kernel asks again, and may be interrupted between.
const COPY_BYTES_MAX: u64 = 64 << 20;

/// Whom no quota binds.
const ROOT: u32 = 0;

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
    fn begin(&self, waiter: Waiter<'_>, inode: &Arc<Inode>, need: Need) -> Result<Use, Errno> {
        for asked in 0..ASKS_MAX {
            match inode.begin(need) {
                Begin::Use(used) => return Ok(used),
                Begin::Ask(asking, want) => {
                    // Nothing tells when the cause has passed: another mount may be the cause.
                    if asked >= ASKS_AT_ONCE {
                        waits(Waits::Asleep);
                        let longer = Duration::from_millis((asked - ASKS_AT_ONCE + 1).into());
                        thread::sleep(longer.min(ASK_PAUSE_MAX));
                        if waiter.is_gone() {
                            return Err(Errno::EINTR);
                        }
                    }
                    while !self.meta.inodes.wait_released(inode.ino, RELEASE_LOOK) {
                        if waiter.is_gone() {
                            return Err(Errno::EINTR);
                        }
                    }
                    let before = self.meta.changes();
                    let ask = Ask::Lease { ino: inode.ino, want };
                    let answered = self.meta.session.ask(ask, waiter).map_err(program_errno)?;
                    let kept = self.meta.absorb(answered.grants, answered.stamp);
                    let (attr, layout) = match answered.outcome? {
                        Answer::Opened { attr, layout, .. } => (attr, layout),
                        other => return Err(unexpected(&other)),
                    };
                    self.meta.note(&attr, before, answered.stamp);
                    if let Some(file) = inode.state().file.clone() {
                        file.set_size(&attr, Some(layout));
                    }
                    drop(kept);
                    drop(asking);
                }
            }
        }
        tracing::warn!(ino = inode.ino.0, ?need, "a lease is always taken back before it can be used");
        Err(Errno::EIO)
    }

    pub(super) fn read(
        &self,
        caller: &Caller<'_>,
        handle: u64,
        offset: u64,
        size: u32,
        paged: bool,
    ) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        let need = if paged { Need::Pages { offset, len: u64::from(size) } } else { Need::Read };
        let waiter = if paged { caller.waiter.holding_pages() } else { caller.waiter };
        let used = self.begin(waiter, &handle.inode, need)?;
        let bytes = handle.file.read(offset, size, used.mode)?;
        Ok(Ready::using(Reply::Bytes(bytes), used))
    }

    pub(super) fn write(
        &self,
        caller: &Caller<'_>,
        handle: u64,
        offset: u64,
        data: &[u8],
        how: Write,
    ) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        if how.kill_suid_sgid {
            self.kill_set_id(caller, &handle.inode)?;
        }
        if how.paged {
            return self.write_mapped(&handle, offset, data);
        }
        let append = how.flags & libc::O_APPEND != 0;
        let need = if append { Need::Append } else { Need::Write };
        let used = self.begin(caller.waiter, &handle.inode, need)?;
        let offset = if append { handle.file.size() } else { offset };
        let sync = how.flags & libc::O_DSYNC != 0;
        put(caller, &handle, offset, data, (used.mode, sync))?;
        if sync {
            make_durable(&handle, how.flags & libc::O_SYNC != libc::O_SYNC)?;
        }
        self.forget_written(&handle.inode, used.pages, offset, data.len() as u64);
        Ok(Ready::using(Reply::Written(data.len() as u32), used))
    }

    /// Forgets the pages of a range that was written. The kernel has dropped them before it sent the write; some may have been
    /// filled again since. Pages that are only left from earlier go all at once, so that further writes need not do this.
    fn forget_written(&self, inode: &Inode, pages: Pages, offset: u64, len: u64) {
        match pages {
            // A read may have begun to fill some after the write had begun, with what was there before.
            Pages::None if inode.has_pages() => self.notices.forget_pages(inode.ino, offset, len),
            Pages::None => {}
            Pages::Used => self.notices.forget_pages(inode.ino, offset, len),
            Pages::Left(fills) => {
                self.notices.forget_pages(inode.ino, 0, 0);
                // A page that was being filled meanwhile was waited for, and is forgotten.
                inode.no_pages_since(fills);
            }
        }
    }

    /// The kernel writes what a program has stored in a mapping. It must not wait for a lease: without one it is written
    /// later, and fsync(2) and msync(2) wait for that.
    fn write_mapped(&self, handle: &Handle, offset: u64, data: &[u8]) -> Outcome<'_> {
        let written = Reply::Written(data.len() as u32);
        if let Some(used) = handle.inode.begin_mapped() {
            // Nobody knows whose store it was: it is the owner's.
            match handle.file.owner().uid {
                ROOT => handle.file.write(offset, data, used.mode, false)?,
                _ => handle.file.write_within_quota(offset, data, used.mode, false)?,
            }
            return Ok(Ready::using(written, used));
        }
        let write = MappedWrite { file: Arc::clone(&handle.file), offset, data: data.to_vec() };
        if handle.inode.put_mapped(write) {
            let (client, inode) = (self.me().ok_or(Errno::EIO)?, Arc::clone(&handle.inode));
            let named = std::thread::Builder::new().name("fs-mapped".to_owned());
            named.spawn(move || client.write_all_mapped(&inode)).map_err(|error| Errno::from(&error))?;
        }
        Ok(written.into())
    }

    fn write_all_mapped(&self, inode: &Arc<Inode>) {
        while let Some((file, offset, data)) = inode.next_mapped() {
            let used = self.begin(Waiter::MOUNT, inode, Need::WritePages);
            if let Err(errno) = used.and_then(|used| file.write(offset, &data, used.mode, false)) {
                tracing::warn!(ino = inode.ino.0, %errno, "what a program stored in a mapping is lost");
            }
            if !inode.mapped_done() {
                return;
            }
        }
    }

    /// Somebody without privileges writes: set-id bits go before the first byte comes. The file's attributes show it at
    /// once, which they would not if it were told with the data.
    fn kill_set_id(&self, caller: &Caller<'_>, inode: &Inode) -> Result<(), Errno> {
        const SET_ID: u16 = (libc::S_ISUID | libc::S_ISGID) as u16;
        let state = inode.state();
        let plain = state.meta && state.last_attr().is_some_and(|attr| attr.mode & SET_ID == 0);
        drop(state);
        if plain {
            return Ok(());
        }
        let before = self.meta.changes();
        let set = SetAttr { kill_suid_sgid: true, ..SetAttr::default() };
        let answered = self.change(caller, Act::Setattr { ino: inode.ino, set })?;
        drop(self.meta.absorb(answered.grants, answered.stamp));
        self.meta.note(&super::attrs::expect_attr(answered.outcome)?, before, answered.stamp);
        Ok(())
    }

    pub(super) fn fsync(&self, handle: u64, data_only: bool) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        handle.inode.mapped_written();
        make_durable(&handle, data_only)?;
        Ok(Reply::Done.into())
    }

    pub(super) fn fallocate(
        &self,
        caller: &Caller<'_>,
        handle: u64,
        offset: u64,
        len: u64,
        mode: i32,
    ) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        let used = self.begin(caller.waiter, &handle.inode, Need::Write)?;
        match caller.uid {
            ROOT => handle.file.fallocate(mode, offset, len, used.mode)?,
            _ => handle.file.fallocate_within_quota(mode, offset, len, used.mode)?,
        }
        self.forget_written(&handle.inode, used.pages, offset, len);
        Ok(Ready::using(Reply::Done, used))
    }

    pub(super) fn lseek(&self, caller: &Caller<'_>, handle: u64, offset: u64, whence: u32) -> Outcome<'_> {
        let handle = self.handles.get(handle)?;
        let what = match whence as i32 {
            libc::SEEK_DATA => Seek::Data,
            libc::SEEK_HOLE => Seek::Hole,
            _ => return Err(Errno::EINVAL),
        };
        let used = self.begin(caller.waiter, &handle.inode, Need::Read)?;
        let found = handle.file.seek(offset, what, used.mode)?;
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
            let used = self.begin(caller.waiter, &from.inode, Need::Read)?;
            from.file.read(from_offset, len, used.mode)?
        };
        if !bytes.is_empty() {
            let used = self.begin(caller.waiter, &to.inode, Need::Write)?;
            put(caller, to, to_offset, &bytes, (used.mode, false))?;
            self.forget_written(&to.inode, used.pages, to_offset, bytes.len() as u64);
        }
        Ok(bytes.len() as u32)
    }
}

/// Makes durable what was written; the time of that too, unless it is the data only.
fn make_durable(handle: &Handle, data_only: bool) -> Result<(), Errno> {
    if data_only { handle.file.sync_data() } else { handle.file.sync() }
}

/// Writes for a program.
fn put(
    caller: &Caller<'_>,
    handle: &Handle,
    offset: u64,
    data: &[u8],
    (mode, sync): (Mode, bool),
) -> Result<(), Errno> {
    match caller.uid {
        ROOT => handle.file.write(offset, data, mode, sync),
        _ => handle.file.write_within_quota(offset, data, mode, sync),
    }
}
