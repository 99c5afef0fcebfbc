//! Attributes and space.

use std::time::Duration;

use super::{Caller, Client, Outcome, Ready};
use crate::client::fuse::{Reply, Setattr, Statfs};
use crate::client::meta::{Changes, KEEP, unexpected};
use crate::client::session::Answered;
use crate::core::{Attr, Errno, Ino, SetAttr};
use crate::wire::mds::{Act, Answer, Ask};
use crate::wire::oss::Space;

impl Client {
    pub(super) fn getattr(&self, caller: &Caller<'_>, ino: Ino) -> Outcome<'_> {
        {
            let kept = self.meta.keep_nothing_new();
            if let Some(attr) = self.meta.certain_attr(ino) {
                let (attr, keep) = self.with_local_changes(attr, KEEP);
                return Ok(Ready::keeping(Reply::Attr { attr, keep }, kept));
            }
        }
        let before = self.meta.changes_of(ino);
        let Answered { outcome, grants, stamp, .. } = self.ask(caller, Ask::Getattr { ino })?;
        if outcome == Err(Errno::ESTALE)
            && let Some(attr) = self.last_attr(ino)
        {
            return Ok(Reply::Attr { attr: Attr { nlink: 0, ..attr }, keep: Duration::ZERO }.into());
        }
        self.attr_reply(grants, stamp, outcome, before)
    }

    /// Of what another mount has removed while a program here holds on to it, other than by an open file, which the MDS
    /// would have kept: a directory that is open, or that a program is in.
    fn last_attr(&self, ino: Ino) -> Option<Attr> {
        self.meta.inodes.find(ino)?.state().last_attr().cloned()
    }

    fn attr_reply(
        &self,
        grants: Vec<crate::wire::mds::Grant>,
        stamp: crate::client::session::Stamp,
        outcome: Result<Answer, Errno>,
        before: Changes,
    ) -> Outcome<'_> {
        let kept = self.meta.absorb(grants, stamp);
        let attr = expect_attr(outcome)?;
        let (attr, keep) = self.shown(attr, &kept, before);
        Ok(Ready::keeping(Reply::Attr { attr, keep }, kept))
    }

    pub(super) fn setattr(&self, caller: &Caller<'_>, ino: Ino, set: &Setattr) -> Outcome<'_> {
        if self.read_only {
            return Err(Errno::EROFS);
        }
        let inode = self.meta.inodes.get(ino);
        let file = inode.state().file.clone();
        let change = SetAttr {
            mode: set.mode.map(|mode| (mode & 0o7777) as u16),
            uid: set.uid,
            gid: set.gid,
            project: None,
            project_inherit: None,
            size: set.size,
            atime: set.atime,
            mtime: set.mtime,
            // chown(2) drops set-id bits whoever calls it; the kernel leaves that to the filesystem.
            kill_suid_sgid: set.kill_suid_sgid || set.uid.is_some() || set.gid.is_some(),
        };
        let before = self.meta.changes_of(ino);
        match (set.size, file) {
            (Some(size), Some(file)) => self
                .setattr_with(caller, ino, &change, before, |ask| file.resize(size, || Ok((ask()?, None)))),
            (None, Some(file)) if set.mtime.is_some() => {
                self.setattr_with(caller, ino, &change, before, |ask| file.set_times(ask))
            }
            _ => self.setattr_with(caller, ino, &change, before, |ask| ask()),
        }
    }

    /// Asks for a change of attributes in the course of `with`, which may have to see to the data before and after.
    fn setattr_with(
        &self,
        caller: &Caller<'_>,
        ino: Ino,
        set: &SetAttr,
        before: Changes,
        with: impl FnOnce(&mut dyn FnMut() -> Result<Attr, Errno>) -> Result<Attr, Errno>,
    ) -> Outcome<'_> {
        let mut answer = None;
        let attr = with(&mut || {
            let Answered { outcome, grants, stamp, .. } =
                self.change(caller, Act::Setattr { ino, set: set.clone() })?;
            let attr = expect_attr(outcome)?;
            answer = Some((grants, stamp));
            Ok(attr)
        })?;
        let (grants, stamp) = answer.ok_or(Errno::EIO)?;
        self.attr_reply(grants, stamp, Ok(Answer::Attr(attr)), before)
    }

    pub(super) fn statfs(&self, caller: &Caller<'_>) -> Outcome<'_> {
        let answered = self.ask(caller, Ask::Statfs)?;
        let Answer::Space { mdt, osts } = answered.outcome? else { return Err(Errno::EPROTO) };
        let spaces: Vec<Space> = osts.into_iter().filter_map(|(_, space)| space).collect();
        Ok(Reply::Statfs(total(&mdt, &spaces)).into())
    }

    pub(super) fn sync_mds(&self, caller: &Caller<'_>) -> Outcome<'_> {
        self.ask(caller, Ask::Sync)?.outcome?;
        Ok(Reply::Done.into())
    }
}

/// The space of the OSTs, and the inodes of the MDT: data fills the ones, files the other.
fn total(mdt: &Space, osts: &[Space]) -> Statfs {
    let sum = |field: fn(&Space) -> u64| osts.iter().map(field).fold(0, u64::saturating_add);
    Statfs {
        total_bytes: sum(|space| space.total_bytes),
        free_bytes: sum(|space| space.free_bytes),
        available_bytes: sum(|space| space.available_bytes),
        inodes: mdt.inodes,
        free_inodes: mdt.free_inodes,
    }
}

pub(super) fn expect_attr(outcome: Result<Answer, Errno>) -> Result<Attr, Errno> {
    match outcome? {
        Answer::Attr(attr) => Ok(attr),
        other => Err(unexpected(&other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_that_of_all_osts_and_inodes_are_those_of_the_mdt() {
        let space = |n| Space {
            total_bytes: 10 * n,
            free_bytes: 5 * n,
            available_bytes: 4 * n,
            inodes: n,
            free_inodes: n,
        };
        let all = total(&space(7), &[space(100), space(200)]);
        assert_eq!((all.total_bytes, all.free_bytes, all.available_bytes), (3000, 1500, 1200));
        assert_eq!((all.inodes, all.free_inodes), (7, 7));
        assert_eq!(total(&space(1), &[]).total_bytes, 0);
    }
}
