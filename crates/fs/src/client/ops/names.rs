//! Requests about names.

use std::time::Duration;

use bytes::Bytes;

use super::{Caller, Client, Outcome, Ready};
use crate::client::cache::{Known, Names, State};
use crate::client::fuse::{Entry, Reply, kind_of};
use crate::client::meta::{KEEP, Kept, unexpected};
use crate::client::session::{Answered, Stamp};
use crate::core::{Attr, Errno, Ino};
use crate::wire::mds::{Act, Answer, Ask, Make, Rename};
use crate::wire::{NAME_BYTES_MAX, SYMLINK_BYTES_MAX};

/// renameat2(2)
const RENAME_NOREPLACE: u32 = libc::RENAME_NOREPLACE;
const RENAME_EXCHANGE: u32 = libc::RENAME_EXCHANGE;

pub(super) fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_BYTES_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(()) }
}

/// A change of names that is under way in these directories. The kernel has them locked until it is answered.
pub(super) struct Changing<'c> {
    client: &'c Client,
    /// Each with the count of its changes, this one included.
    dirs: [Option<(Ino, u64)>; 2],
    links: bool,
}

impl<'c> Changing<'c> {
    pub(super) fn begin(client: &'c Client, dirs: [Option<Ino>; 2], links: bool) -> Changing<'c> {
        let begin = |dir: Ino| {
            let inode = client.meta.inodes.get(dir);
            let mut state = inode.state();
            state.changing += 1;
            state.own_changes += 1;
            (dir, state.own_changes)
        };
        let dirs = dirs.map(|dir| dir.map(begin));
        client.meta.changing(links);
        Changing { client, dirs, links }
    }

    /// The MDS has done it, and says how the directories are after it. What is decided to be kept from now on knows of it;
    /// what was decided before is with the kernel, which learns of the change after that.
    pub(super) fn done(&self, answered: &Answered) {
        for (dir, count) in self.dirs.iter().flatten() {
            let inode = self.client.meta.inodes.get(*dir);
            let mut state = inode.state();
            state.own_changes += 1;
            state.forget_attr();
            let alone = state.own_changes == count + 1;
            if let Some(attr) = answered.dirs.iter().find(|attr| attr.ino == *dir) {
                let certain = alone && self.client.meta.is_fresh(*dir, answered.stamp);
                let as_of = state.own_changes;
                state.note_attr(attr, certain.then_some(as_of));
            }
        }
        self.client.meta.changing(self.links);
        self.client.meta.barrier();
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        for (dir, _) in self.dirs.iter().flatten() {
            if let Some(inode) = self.client.meta.inodes.find(*dir) {
                inode.state().changing -= 1;
            }
        }
    }
}

impl Client {
    pub(super) fn lookup(&self, caller: &Caller<'_>, parent: Ino, name: &[u8]) -> Outcome<'_> {
        check_name(name)?;
        if let Some(ready) = self.lookup_here(parent, name) {
            return Ok(ready);
        }
        let before = self.meta.changes();
        let Answered { outcome, grants, stamp, .. } =
            self.ask(caller, Ask::Lookup { parent, name: name.to_vec() })?;
        let kept = self.meta.absorb(grants, stamp);
        match outcome {
            Ok(Answer::Entry(attr)) => {
                let entry = self.entry(attr, parent, &kept, before);
                Ok(Ready::keeping(Reply::Entry(entry), kept))
            }
            Ok(other) => Err(unexpected(&other)),
            Err(Errno::ENOENT) => {
                let keep = self.name_time(kept.name(parent));
                Ok(Ready::keeping(Reply::NoEntry(keep), kept))
            }
            Err(errno) => Err(errno),
        }
    }

    /// The root, as a name that the kernel may not rely on leads to it.
    pub(super) fn root(&self, caller: &Caller<'_>) -> Outcome<'_> {
        let before = self.meta.changes();
        let Answered { outcome, grants, stamp, .. } = self.ask(caller, Ask::Getattr { ino: Ino::ROOT })?;
        let kept = self.meta.absorb(grants, stamp);
        match outcome? {
            Answer::Attr(attr) => {
                let entry = self.entry(attr, Ino::ROOT, &kept, before);
                let entry = Entry { keep_name: Duration::ZERO, ..entry };
                Ok(Ready::keeping(Reply::Entry(entry), kept))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The answer to a lookup in a directory of which everything is known.
    fn lookup_here(&self, parent: Ino, name: &[u8]) -> Option<Ready<'_>> {
        let dir = self.meta.inodes.find(parent)?;
        let kept = self.meta.keep_nothing_new();
        let known = dir.state().find_name(name);
        match known {
            Known::Unknown => None,
            Known::Absent => Some(Ready::keeping(Reply::NoEntry(self.name_time(KEEP)), kept)),
            Known::There(ino) => {
                let (attr, keep_attr) = self.with_local_changes(self.meta.certain_attr(ino)?, KEEP);
                self.meta.inodes.looked_up(ino);
                let keep_name = self.name_time(KEEP);
                Some(Ready::keeping(Reply::Entry(Entry { attr, keep_name, keep_attr }), kept))
            }
        }
    }

    pub(super) fn readlink(&self, caller: &Caller<'_>, ino: Ino) -> Outcome<'_> {
        let answered = self.ask(caller, Ask::Readlink { ino })?;
        let stamp = answered.stamp;
        let kept = self.meta.absorb(answered.grants, stamp);
        match answered.outcome? {
            Answer::Bytes(target) => Ok(Ready::keeping(Reply::Bytes(Bytes::from(target)), kept)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) fn symlink(
        &self,
        caller: &Caller<'_>,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Outcome<'_> {
        if target.len() > SYMLINK_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let what = Make::Symlink { target: target.to_vec() };
        self.make(caller, parent, name, (0o777, 0), what)
    }

    pub(super) fn mknod(
        &self,
        caller: &Caller<'_>,
        parent: Ino,
        name: &[u8],
        (mode, umask): (u32, u32),
        rdev: u32,
    ) -> Outcome<'_> {
        use crate::core::FileKind::{Directory, Regular, Symlink};
        let what = match kind_of(mode).ok_or(Errno::EINVAL)? {
            Regular => Make::File { spread: None, open: false, exclusive: true },
            Directory | Symlink => return Err(Errno::EINVAL),
            kind => Make::Node { kind, rdev },
        };
        self.make(caller, parent, name, (mode, umask), what)
    }

    pub(super) fn mkdir(
        &self,
        caller: &Caller<'_>,
        parent: Ino,
        name: &[u8],
        mode: (u32, u32),
    ) -> Outcome<'_> {
        self.make(caller, parent, name, mode, Make::Directory)
    }

    fn make(
        &self,
        caller: &Caller<'_>,
        parent: Ino,
        name: &[u8],
        (mode, umask): (u32, u32),
        what: Make,
    ) -> Outcome<'_> {
        check_name(name)?;
        let changing = Changing::begin(self, [Some(parent), None], false);
        let before = self.meta.changes();
        let fresh_dir = what == Make::Directory;
        let (mode, umask) = ((mode & 0o7777) as u16, (umask & 0o777) as u16);
        let answered = self.change(caller, Act::Make { parent, name: name.to_vec(), mode, umask, what })?;
        changing.done(&answered);
        let stamp = answered.stamp;
        let kept = self.meta.absorb(answered.grants, stamp);
        let attr = expect_entry(answered.outcome)?;
        let entry = {
            let mut entry = self.entry(attr, parent, &kept, before);
            entry.keep_attr = Client::own_attr_time(&kept, entry.attr.ino);
            entry
        };
        self.name_added(parent, name, entry.attr.ino, &kept, stamp);
        if fresh_dir && kept.grants().iter().any(|grant| grant.ino == entry.attr.ino && grant.leases.names) {
            let inode = self.meta.inodes.get(entry.attr.ino);
            let mut state = inode.state();
            if state.names {
                state.known = Some(Names::default());
            }
        }
        Ok(Ready::keeping(Reply::Entry(entry), kept))
    }

    /// How long the attributes of what this request made may be kept: nobody else can have changed them.
    fn own_attr_time(kept: &Kept<'_>, ino: Ino) -> Duration {
        let granted = kept.grants().iter().any(|grant| grant.ino == ino && grant.leases.meta);
        if granted { KEEP } else { Duration::ZERO }
    }

    /// This mount has changed a name: what is known of the directory follows, unless another mount came behind it.
    /// Returns what `change` does if it does follow.
    fn name_changed<R>(
        &self,
        parent: Ino,
        name: &[u8],
        stamp: Stamp,
        change: impl FnOnce(&mut State) -> Option<R>,
    ) -> Option<R> {
        let dir = self.meta.inodes.find(parent)?;
        let mut state = dir.state();
        if self.meta.is_fresh(parent, stamp) {
            change(&mut state)
        } else {
            state.add_name(name, None);
            None
        }
    }

    /// A name was made by this mount; what it leads to, where that is known and `kept` covers it.
    pub(super) fn name_added(&self, parent: Ino, name: &[u8], ino: Ino, kept: &Kept<'_>, stamp: Stamp) {
        let ino = (!kept.name(parent).is_zero()).then_some(ino);
        self.name_changed(parent, name, stamp, |state| {
            state.add_name(name, ino);
            Some(())
        });
    }

    /// A name was given to something else by this mount. The answer covers no name: one that the lease did not cover stays
    /// unknown.
    fn name_replaced(&self, parent: Ino, name: &[u8], ino: Option<Ino>, stamp: Stamp) {
        self.name_changed(parent, name, stamp, |state| {
            let known = state.find_name(name) != Known::Unknown;
            state.add_name(name, ino.filter(|_| known));
            Some(())
        });
    }

    fn name_removed(&self, parent: Ino, name: &[u8], stamp: Stamp) -> Option<Ino> {
        self.name_changed(parent, name, stamp, |state| state.remove_name(name))
    }

    pub(super) fn unlink(&self, caller: &Caller<'_>, parent: Ino, name: &[u8]) -> Outcome<'_> {
        self.remove(caller, parent, name, Act::Unlink { parent, name: name.to_vec() })
    }

    pub(super) fn rmdir(&self, caller: &Caller<'_>, parent: Ino, name: &[u8]) -> Outcome<'_> {
        self.remove(caller, parent, name, Act::Rmdir { parent, name: name.to_vec() })
    }

    fn remove(&self, caller: &Caller<'_>, parent: Ino, name: &[u8], act: Act) -> Outcome<'_> {
        check_name(name)?;
        let changing = Changing::begin(self, [Some(parent), None], true);
        let answered = self.change(caller, act)?;
        changing.done(&answered);
        let stamp = answered.stamp;
        let kept = self.meta.absorb(answered.grants, stamp);
        answered.outcome?;
        self.name_removed(parent, name, stamp);
        Ok(Ready::keeping(Reply::Done, kept))
    }

    pub(super) fn rename(
        &self,
        caller: &Caller<'_>,
        (from, from_name): (Ino, &[u8]),
        (to, to_name): (Ino, &[u8]),
        flags: u32,
    ) -> Outcome<'_> {
        check_name(from_name)?;
        check_name(to_name)?;
        let how = match flags {
            0 => Rename::Replace,
            RENAME_NOREPLACE => Rename::NoReplace,
            RENAME_EXCHANGE => Rename::Exchange,
            _ => return Err(Errno::EINVAL),
        };
        let changing = Changing::begin(self, [Some(from), (to != from).then_some(to)], true);
        let (from_name_, to_name_) = (from_name.to_vec(), to_name.to_vec());
        let act = Act::Rename { from, from_name: from_name_, to, to_name: to_name_, how };
        let answered = self.change(caller, act)?;
        changing.done(&answered);
        let stamp = answered.stamp;
        let kept = self.meta.absorb(answered.grants, stamp);
        answered.outcome?;
        self.renamed((from, from_name), (to, to_name), how, stamp);
        Ok(Ready::keeping(Reply::Done, kept))
    }

    fn renamed(
        &self,
        (from, from_name): (Ino, &[u8]),
        (to, to_name): (Ino, &[u8]),
        how: Rename,
        stamp: Stamp,
    ) {
        let moved = self.name_removed(from, from_name, stamp);
        let replaced = self.name_removed(to, to_name, stamp);
        self.name_replaced(to, to_name, moved, stamp);
        if how == Rename::Exchange {
            self.name_replaced(from, from_name, replaced, stamp);
        }
    }

    pub(super) fn link(&self, caller: &Caller<'_>, ino: Ino, parent: Ino, name: &[u8]) -> Outcome<'_> {
        check_name(name)?;
        let changing = Changing::begin(self, [Some(parent), None], true);
        let before = self.meta.changes();
        let answered = self.change(caller, Act::Link { ino, parent, name: name.to_vec() })?;
        changing.done(&answered);
        let stamp = answered.stamp;
        let kept = self.meta.absorb(answered.grants, stamp);
        let attr = expect_entry(answered.outcome)?;
        let entry = self.entry(attr, parent, &kept, before);
        self.name_added(parent, name, ino, &kept, stamp);
        Ok(Ready::keeping(Reply::Entry(entry), kept))
    }
}

fn expect_entry(outcome: Result<Answer, Errno>) -> Result<Attr, Errno> {
    match outcome? {
        Answer::Entry(attr) => Ok(attr),
        other => Err(unexpected(&other)),
    }
}
