//! setattr: permissions, owner, times, length.

use super::inode::Inode;
use super::transaction::{ROOT, Transaction};
use super::{data, xattr};
use crate::core::{Attr, Errno, FileKind, Ino, SetAttr, SetTime, Time};
use crate::wire::mds::{Answer, Cred};

const MODE_BITS: u16 = 0o7777;

/// Changes attributes.
pub(super) fn set(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    set: &SetAttr,
    cred: &Cred,
) -> Result<Answer, Errno> {
    let sets_project = set.project.is_some() || set.project_inherit.is_some();
    if sets_project && cred.uid != ROOT {
        return Err(Errno::EPERM);
    }
    let mut inode = transaction.inode(ino)?;
    if set.kill_suid_sgid {
        inode.kill_set_id();
    }
    set_owner(&mut inode, set);
    if let Some(mode) = set.mode {
        set_mode(transaction, &mut inode, mode)?;
    }
    if let Some(size) = set.size {
        data::resize(transaction, &mut inode, size)?;
    }
    set_times(&mut inode.attr, set, transaction.now)?;
    inode.changed(transaction.now);
    transaction.save(&inode);
    Ok(Answer::Attr(inode.attr))
}

fn set_owner(inode: &mut Inode, set: &SetAttr) {
    let is_directory = inode.is_directory();
    let attr = &mut inode.attr;
    attr.uid = set.uid.unwrap_or(attr.uid);
    attr.gid = set.gid.unwrap_or(attr.gid);
    attr.project = set.project.unwrap_or(attr.project);
    if let Some(inherit) = set.project_inherit.filter(|_| is_directory) {
        attr.flags &= !Attr::PROJECT_INHERIT;
        attr.flags |= if inherit { Attr::PROJECT_INHERIT } else { 0 };
    }
}

fn set_mode(transaction: &mut Transaction<'_>, inode: &mut Inode, mode: u16) -> Result<(), Errno> {
    if inode.attr.kind == FileKind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    inode.attr.mode = mode & MODE_BITS;
    xattr::follow_mode(transaction, inode)
}

fn set_times(attr: &mut Attr, set: &SetAttr, now: Time) -> Result<(), Errno> {
    const SECOND_NANOS: u32 = 1_000_000_000;
    let time = |time: SetTime| match time {
        SetTime::Now => Ok(now),
        SetTime::To(time) if time.nanos < SECOND_NANOS => Ok(time),
        SetTime::To(_) => Err(Errno::EINVAL),
    };
    if let Some(atime) = set.atime {
        attr.atime = time(atime)?;
    }
    if let Some(mtime) = set.mtime {
        attr.mtime = time(mtime)?;
    }
    Ok(())
}
