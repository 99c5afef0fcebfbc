//! Extended attributes and ACLs.

use bytes::Bytes;

use super::{Caller, Client, Outcome};
use crate::client::control::PREFIX;
use crate::client::fuse::{Op, Reply};
use crate::client::meta::unexpected;
use crate::core::{Attr, Errno, Ino, SetAttr};
use crate::wire::XATTR_BYTES_MAX;
use crate::wire::mds::{Act, Answer, Ask, XattrHow};

/// The set-group-id bit.
const SETGID: u16 = libc::S_ISGID as u16;

impl Client {
    pub(super) fn xattr(&self, caller: &Caller<'_>, ino: Ino, op: &Op<'_>) -> Outcome<'_> {
        match op {
            Op::Getxattr { name, size } if is_control(name) => self.get_control(caller, ino, name, *size),
            Op::Setxattr { name, value, .. } if is_control(name) && !self.read_only => {
                self.set_control(caller, ino, name, value)
            }
            Op::Removexattr { name } if is_control(name) => Err(Errno::ENODATA),
            Op::Getxattr { name, size } => self.getxattr(caller, ino, name, *size),
            Op::Listxattr { size } => self.listxattr(caller, ino, *size),
            Op::Setxattr { .. } | Op::Removexattr { .. } if self.read_only => Err(Errno::EROFS),
            Op::Setxattr { name, value, flags, kill_sgid } => {
                self.setxattr(caller, ino, name, value, *flags)?;
                if *kill_sgid {
                    self.kill_sgid(caller, ino)?;
                }
                Ok(Reply::Done.into())
            }
            Op::Removexattr { name } => {
                self.change_xattr(caller, ino, Act::RemoveXattr { ino, name: name.to_vec() })?;
                Ok(Reply::Done.into())
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    /// Whether it is certain that the inode has no extended attribute.
    fn has_none(&self, ino: Ino) -> bool {
        self.meta.certain_attr(ino).is_some_and(|attr| attr.flags & Attr::NO_XATTR != 0)
    }

    fn getxattr(&self, caller: &Caller<'_>, ino: Ino, name: &[u8], size: u32) -> Outcome<'_> {
        if self.has_none(ino) {
            return Err(Errno::ENODATA);
        }
        let answered = self.ask(caller, Ask::GetXattr { ino, name: name.to_vec() })?;
        drop(self.meta.absorb(answered.grants, answered.stamp));
        sized(answered.outcome?, size)
    }

    fn listxattr(&self, caller: &Caller<'_>, ino: Ino, size: u32) -> Outcome<'_> {
        if self.has_none(ino) {
            return sized(Answer::Bytes(Vec::new()), size);
        }
        let answered = self.ask(caller, Ask::ListXattr { ino })?;
        drop(self.meta.absorb(answered.grants, answered.stamp));
        match answered.outcome? {
            Answer::Bytes(names) => sized(Answer::Bytes(shown_to(caller.uid, names)), size),
            other => Err(unexpected(&other)),
        }
    }

    fn setxattr(
        &self,
        caller: &Caller<'_>,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: u32,
    ) -> Result<(), Errno> {
        if value.len() > XATTR_BYTES_MAX {
            return Err(Errno::E2BIG);
        }
        let how = match flags as i32 {
            0 => XattrHow::Set,
            libc::XATTR_CREATE => XattrHow::Create,
            libc::XATTR_REPLACE => XattrHow::Replace,
            _ => return Err(Errno::EINVAL),
        };
        let act = Act::SetXattr { ino, name: name.to_vec(), value: value.to_vec(), how };
        self.change_xattr(caller, ino, act)
    }

    /// An ACL was set by somebody who is not in the group: the set-group-id bit goes.
    fn kill_sgid(&self, caller: &Caller<'_>, ino: Ino) -> Result<(), Errno> {
        let answered = self.ask(caller, Ask::Getattr { ino })?;
        let attr = super::attrs::expect_attr(answered.outcome)?;
        if attr.mode & SETGID != 0 {
            let set = SetAttr { mode: Some(attr.mode & !SETGID), ..SetAttr::default() };
            self.change_xattr(caller, ino, Act::Setattr { ino, set })?;
        }
        Ok(())
    }

    /// A change after which what is known of the attributes is not certain: an ACL changes the mode, any attribute the time.
    pub(super) fn change_xattr(&self, caller: &Caller<'_>, ino: Ino, act: Act) -> Result<(), Errno> {
        let answered = self.change(caller, act)?;
        if let Some(inode) = self.meta.inodes.find(ino) {
            inode.state().forget_attr();
        }
        drop(self.meta.absorb(answered.grants, answered.stamp));
        answered.outcome.map(drop)
    }
}

/// The names of attributes, each with a NUL behind it, that a user may know of: `trusted.` ones are root's (xattr(7)).
fn shown_to(uid: u32, names: Vec<u8>) -> Vec<u8> {
    const ROOT: u32 = 0;
    if uid == ROOT {
        return names;
    }
    names
        .split_inclusive(|byte| *byte == 0)
        .filter(|name| !name.starts_with(b"trusted."))
        .flatten()
        .copied()
        .collect()
}

/// Whether an attribute is answered by the mount itself.
fn is_control(name: &[u8]) -> bool {
    name.starts_with(PREFIX.as_bytes())
}

/// A value as the kernel asked for it: its length, or all of it.
pub(super) fn sized(answer: Answer, size: u32) -> Outcome<'static> {
    match answer {
        Answer::Bytes(value) if size == 0 => Ok(Reply::XattrSize(value.len() as u32).into()),
        Answer::Bytes(value) if value.len() > size as usize => Err(Errno::ERANGE),
        Answer::Bytes(value) => Ok(Reply::Bytes(Bytes::from(value)).into()),
        other => Err(unexpected(&other)),
    }
}
