//! Opening, making and closing files.

use std::sync::Arc;

use bytes::Bytes;

use super::names::{Changing, check_name};
use super::{Caller, Client, Outcome, Ready};
use crate::client::cache::Inode;
use crate::client::data::FileData;
use crate::client::fuse::{Entry, Opened, Reply, flags};
use crate::client::handles::Handle;
use crate::client::meta::{Changes, Kept, unexpected};
use crate::client::session::Answered;
use crate::core::{Attr, Errno, Ino, Layout, SetAttr};
use crate::wire::mds::{Act, Answer, Ask, DataLease, Make};

/// How much of a file on the MDT comes along when it is opened, in bytes.
const HEAD_BYTES_MAX: u32 = 64 << 10;

/// An open that is under way or done: until it is dropped, or given to a handle, the inode counts as open.
struct Opening<'c> {
    client: &'c Client,
    inode: Arc<Inode>,
    writes: bool,
    /// A handle has it.
    done: bool,
}

impl<'c> Opening<'c> {
    fn begin(client: &'c Client, ino: Ino, writes: bool) -> Opening<'c> {
        let inode = client.meta.inodes.get(ino);
        let mut state = inode.not_closing();
        state.opens += 1;
        state.writers += u32::from(writes);
        drop(state);
        Opening { client, inode, writes, done: false }
    }

    /// The file's data in memory, unless there is nothing in it that is worth more than what an open brings along: nobody
    /// else has it open, and nothing is held back.
    fn file_in_use(&self) -> Option<Arc<FileData>> {
        let state = self.inode.state();
        let file = state.file.clone()?;
        let idle = state.opens == 1;
        drop(state);
        (!idle || file.holds_back()).then_some(file)
    }

    /// What the MDS said: the file's data, shared by all its handles.
    fn opened(&self, attr: &Attr, layout: Layout, shared: bool, head: Option<Bytes>) -> Arc<FileData> {
        let in_use = self.file_in_use();
        let mut state = self.inode.state();
        state.told = Some(self.writes || state.told == Some(true));
        state.shared = shared;
        // A head that was read before somebody else took the data must not be kept.
        let head = head.filter(|_| matches!(state.data(), DataLease::Read | DataLease::Write));
        drop(state);
        if let Some(file) = in_use {
            file.set_size(attr, Some(layout));
            return file;
        }
        let file = self.client.data.file(attr.ino, attr, layout, head);
        let mut state = self.inode.state();
        // Another that opens it at the same time may have come first.
        if state.opens > 1
            && let Some(first) = &state.file
        {
            return Arc::clone(first);
        }
        state.file = Some(Arc::clone(&file));
        file
    }

    fn handle(mut self, file: Arc<FileData>) -> u64 {
        self.done = true;
        let (inode, writes) = (Arc::clone(&self.inode), self.writes);
        self.client.handles.add(Handle { inode, file, writes })
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.client.count_close(&self.inode, self.writes);
        }
    }
}

fn writes(open: i32) -> bool {
    open & libc::O_ACCMODE != libc::O_RDONLY
}

impl Client {
    /// How the kernel treats the file: what only reads may use its page cache; what writes comes here, so that no page is
    /// locked while it waits for a lease.
    fn open_flags(inode: &Inode, open: i32) -> u32 {
        let state = inode.state();
        let direct = writes(open) || state.shared || open & libc::O_DIRECT != 0;
        let cached = if direct {
            flags::FOPEN_DIRECT_IO | flags::FOPEN_PARALLEL_DIRECT_WRITES
        } else {
            flags::FOPEN_KEEP_CACHE
        };
        // A close has nothing to tell, unless it drops record locks; of what was opened for writing nobody knows yet whether
        // it will have some. Who makes a file that must be new, and cannot read it, does not lock it: if he does, the locks
        // go with the handle.
        let made = open & libc::O_EXCL != 0 && open & libc::O_ACCMODE == libc::O_WRONLY;
        let quiet = (made || !writes(open)) && !state.record_locks;
        let quiet = if quiet { flags::FOPEN_NOFLUSH } else { 0 };
        cached | quiet
    }

    pub(super) fn open(&self, caller: &Caller<'_>, ino: Ino, open: i32, kill: bool) -> Outcome<'_> {
        if self.read_only && writes(open) {
            return Err(Errno::EROFS);
        }
        let opening = Opening::begin(self, ino, writes(open));
        let file = match self.open_here(&opening) {
            Some(file) => file,
            None => self.open_at_mds(caller, &opening)?,
        };
        if open & libc::O_TRUNC != 0 {
            self.truncate(caller, ino, &file, kill)?;
        }
        let flags = Client::open_flags(&opening.inode, open);
        Ok(Reply::Opened(Opened { handle: opening.handle(file), flags }).into())
    }

    /// Opens a file under leases that say that nothing has changed since it was open last. The MDS hears of it with the next
    /// callback for the file.
    fn open_here(&self, opening: &Opening<'_>) -> Option<Arc<FileData>> {
        self.meta.certain_attr(opening.inode.ino)?;
        let state = opening.inode.state();
        let leased = match state.data() {
            DataLease::Write => true,
            DataLease::Read => !opening.writes,
            DataLease::None | DataLease::Direct => false,
        };
        state.file.clone().filter(|_| leased && state.meta)
    }

    fn open_at_mds(&self, caller: &Caller<'_>, opening: &Opening<'_>) -> Result<Arc<FileData>, Errno> {
        let ino = opening.inode.ino;
        let before = self.meta.changes_of(ino);
        let data_max = if opening.writes || opening.file_in_use().is_some() { 0 } else { HEAD_BYTES_MAX };
        let answered = self.ask(caller, Ask::Open { ino, write: opening.writes, data_max })?;
        let kept = self.meta.absorb(answered.grants, answered.stamp);
        let Answer::Opened { attr, layout, shared, data, .. } = answered.outcome? else {
            return Err(Errno::EPROTO);
        };
        self.meta.note(&attr, before, answered.stamp);
        let head = data.map(|len| answered.bulk.slice(..answered.bulk.len().min(len as usize)));
        let file = opening.opened(&attr, layout, shared, head);
        drop(kept);
        Ok(file)
    }

    fn truncate(
        &self,
        caller: &Caller<'_>,
        ino: Ino,
        file: &FileData,
        kill_suid_sgid: bool,
    ) -> Result<(), Errno> {
        let before = self.meta.changes();
        let set = SetAttr { size: Some(0), kill_suid_sgid, ..SetAttr::default() };
        file.resize(0, || {
            let answered = self.change(caller, Act::Setattr { ino, set })?;
            let kept = self.meta.absorb(answered.grants, answered.stamp);
            let attr = super::attrs::expect_attr(answered.outcome)?;
            self.meta.note(&attr, before, answered.stamp);
            drop(kept);
            Ok((attr, None))
        })?;
        Ok(())
    }

    pub(super) fn create(
        &self,
        caller: &Caller<'_>,
        parent: Ino,
        name: &[u8],
        open: i32,
        (mode, umask): (u32, u32),
    ) -> Outcome<'_> {
        check_name(name)?;
        let changing = Changing::begin(self, [Some(parent), None], false);
        let before = self.meta.changes();
        let what = Make::File { spread: None, open: true, exclusive: open & libc::O_EXCL != 0 };
        let (mode, umask) = ((mode & 0o7777) as u16, (umask & 0o777) as u16);
        let answered = self.change(caller, Act::Make { parent, name: name.to_vec(), mode, umask, what })?;
        changing.done(&answered);
        let stamp = answered.stamp;
        let (opened, made) = self.made_open(answered, open, before)?;
        if !made && open & libc::O_TRUNC != 0 {
            self.truncate(caller, opened.attr.ino, &opened.file, false)?;
        }
        let Made { attr, file, opening, grants } = opened;
        let kept = self.meta.absorb(grants, stamp);
        self.name_added(parent, name, attr.ino, &kept, stamp);
        let entry = self.made_entry(attr, Some(parent), &kept, before);
        let flags = Client::open_flags(&opening.inode, open);
        let opened = Opened { handle: opening.handle(file), flags };
        Ok(Ready::keeping(Reply::Created(entry, opened), kept))
    }

    pub(super) fn tmpfile(
        &self,
        caller: &Caller<'_>,
        parent: Ino,
        open: i32,
        (mode, umask): (u32, u32),
    ) -> Outcome<'_> {
        let before = self.meta.changes();
        let act = Act::MakeUnnamed { parent, mode: (mode & 0o7777) as u16, umask: (umask & 0o777) as u16 };
        let answered = self.change(caller, act)?;
        let stamp = answered.stamp;
        let (Made { attr, file, opening, grants }, _) = self.made_open(answered, open, before)?;
        let kept = self.meta.absorb(grants, stamp);
        let entry = self.made_entry(attr, None, &kept, before);
        let flags = Client::open_flags(&opening.inode, open);
        let opened = Opened { handle: opening.handle(file), flags };
        Ok(Ready::keeping(Reply::Created(entry, opened), kept))
    }

    fn made_entry(&self, attr: Attr, parent: Option<Ino>, kept: &Kept<'_>, before: Changes) -> Entry {
        let parent = parent.unwrap_or(Ino(0));
        self.entry(attr, parent, kept, before)
    }

    /// A file that was made, or found, and is open now; and whether it was made.
    fn made_open(&self, answered: Answered, open: i32, before: Changes) -> Result<(Made<'_>, bool), Errno> {
        let Answered { outcome, grants, stamp, .. } = answered;
        let (attr, layout, shared, made) = match outcome? {
            Answer::Opened { attr, layout, shared, made, .. } => (attr, layout, shared, made),
            other => return Err(unexpected(&other)),
        };
        let opening = Opening::begin(self, attr.ino, writes(open));
        // Granted again below, when the kernel is told; the data of the file is decided here.
        let kept = self.meta.absorb(grants.clone(), stamp);
        self.meta.note(&attr, before, stamp);
        let file = opening.opened(&attr, layout, shared, None);
        drop(kept);
        Ok((Made { attr, file, opening, grants }, made))
    }

    pub(super) fn release(&self, number: u64, flock_owner: Option<u64>) -> Outcome<'_> {
        let Some(handle) = self.handles.remove(number) else { return Err(Errno::EBADF) };
        if let Some(owner) = flock_owner {
            self.drop_locks(handle.inode.ino, true, owner);
        }
        let owners = handle.inode.state().lockers_through(number);
        for owner in owners {
            self.drop_locks(handle.inode.ino, false, owner);
        }
        self.count_close(&handle.inode, handle.writes);
        Ok(Reply::Done.into())
    }

    /// A handle, or an open that came to nothing, is gone. The MDS is told of the last one a little later, and not at all
    /// if the file is opened again meanwhile.
    fn count_close(&self, inode: &Arc<Inode>, writes: bool) {
        let mut state = inode.state();
        state.opens -= 1;
        state.writers -= u32::from(writes);
        let last = state.opens == 0;
        state.shared &= !last;
        drop(state);
        if last {
            self.house.closed(inode.ino);
        }
    }

    /// A program has closed a descriptor. What it wrote stays here under the lease; only its record locks go.
    pub(super) fn flush(&self, caller: &Caller<'_>, ino: Ino, owner: u64) -> Outcome<'_> {
        let locked = self.meta.inodes.find(ino).is_some_and(|inode| inode.state().flushed_by(owner));
        if locked {
            self.drop_record_locks(caller, ino, owner)?;
        }
        Ok(Reply::Done.into())
    }
}

/// See [`Client::made_open`].
struct Made<'c> {
    attr: Attr,
    file: Arc<FileData>,
    opening: Opening<'c>,
    grants: Vec<crate::wire::mds::Grant>,
}
