//! Extended attributes. `system.posix_acl_*` among them are ACLs, which the mode goes along with.

use std::ops::ControlFlow;

use super::acl::{self, Acl};
use super::inode::{self, Inode};
use super::keys;
use super::rows::Rows;
use super::transaction::Transaction;
use crate::core::{Attr, Errno, FileKind, Ino};
use crate::wire::XATTR_BYTES_MAX;
use crate::wire::mds::{Answer, XattrHow};

/// The longest name of an attribute, in bytes (`XATTR_NAME_MAX`).
const NAME_BYTES_MAX: usize = 255;
/// The families of names that are kept (xattr(7)).
const PREFIXES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The value of an attribute.
pub(super) fn get(rows: &dyn Rows, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let inode = inode::get(rows, ino)?;
    find(rows, &inode, name)?.ok_or(Errno::ENODATA)
}

fn find(rows: &dyn Rows, inode: &Inode, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    if inode.attr.flags & Attr::NO_XATTR != 0 {
        return Ok(None);
    }
    rows.get(&keys::xattr(inode.attr.ino, name))
}

/// The names of all attributes, each with a NUL behind it.
pub(super) fn list(rows: &dyn Rows, ino: Ino) -> Result<Vec<u8>, Errno> {
    let inode = inode::get(rows, ino)?;
    let mut names = Vec::new();
    if inode.attr.flags & Attr::NO_XATTR == 0 {
        let (from, to) = keys::xattrs(ino);
        rows.scan(&from, &to, &mut |key, _| {
            names.extend_from_slice(keys::xattr_of(key));
            names.push(0);
            ControlFlow::Continue(())
        })?;
    }
    Ok(names)
}

/// An ACL of an inode.
pub(super) fn acl(rows: &dyn Rows, inode: &Inode, name: &[u8]) -> Result<Option<Acl>, Errno> {
    match find(rows, inode, name)? {
        Some(value) => Acl::parse(&value).map_err(|_| Errno::EIO),
        None => Ok(None),
    }
}

/// Sets an attribute.
pub(super) fn set(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    name: &[u8],
    value: &[u8],
    how: XattrHow,
) -> Result<Answer, Errno> {
    if value.len() > XATTR_BYTES_MAX {
        return Err(Errno::E2BIG);
    }
    let mut inode = transaction.inode(ino)?;
    match name {
        acl::ACCESS => set_access(transaction, &mut inode, value)?,
        acl::DEFAULT => set_default(transaction, &mut inode, value)?,
        _ => set_plain(transaction, &mut inode, name, value, how)?,
    }
    inode.changed(transaction.now);
    transaction.save(&inode);
    Ok(Answer::Done)
}

/// Takes an attribute away.
pub(super) fn remove(transaction: &mut Transaction<'_>, ino: Ino, name: &[u8]) -> Result<Answer, Errno> {
    let mut inode = transaction.inode(ino)?;
    find(transaction, &inode, name)?.ok_or(Errno::ENODATA)?;
    take(transaction, &mut inode, name)?;
    inode.changed(transaction.now);
    transaction.save(&inode);
    Ok(Answer::Done)
}

fn set_plain(
    transaction: &mut Transaction<'_>,
    inode: &mut Inode,
    name: &[u8],
    value: &[u8],
    how: XattrHow,
) -> Result<(), Errno> {
    check_name(name)?;
    match (find(transaction, inode, name)?, how) {
        (Some(_), XattrHow::Create) => return Err(Errno::EEXIST),
        (None, XattrHow::Replace) => return Err(Errno::ENODATA),
        (None, _) if list(transaction, inode.attr.ino)?.len() + name.len() >= XATTR_BYTES_MAX => {
            return Err(Errno::ENOSPC);
        }
        _ => {}
    }
    put(transaction, inode, name, value.to_vec());
    Ok(())
}

fn check_name(name: &[u8]) -> Result<(), Errno> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Errno::ERANGE);
    }
    match PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix)) {
        Some([]) => Err(Errno::EINVAL),
        Some(rest) if rest.contains(&0) => Err(Errno::EINVAL),
        Some(_) => Ok(()),
        None => Err(Errno::EOPNOTSUPP),
    }
}

/// The ACL of access: the mode follows it, and what the mode can say alone is not kept.
fn set_access(transaction: &mut Transaction<'_>, inode: &mut Inode, value: &[u8]) -> Result<(), Errno> {
    if inode.attr.kind == FileKind::Symlink {
        return Err(Errno::EOPNOTSUPP);
    }
    let Some(acl) = Acl::parse(value)? else { return take(transaction, inode, acl::ACCESS) };
    inode.attr.mode = acl.mode(inode.attr.mode);
    if acl.is_minimal() {
        return take(transaction, inode, acl::ACCESS);
    }
    put(transaction, inode, acl::ACCESS, acl.to_bytes());
    Ok(())
}

fn set_default(transaction: &mut Transaction<'_>, inode: &mut Inode, value: &[u8]) -> Result<(), Errno> {
    let acl = Acl::parse(value)?;
    match acl {
        None => take(transaction, inode, acl::DEFAULT),
        Some(_) if inode.attr.kind == FileKind::Symlink => Err(Errno::EOPNOTSUPP),
        Some(_) if !inode.is_directory() => Err(Errno::EACCES),
        Some(acl) => {
            put(transaction, inode, acl::DEFAULT, acl.to_bytes());
            Ok(())
        }
    }
}

/// The mode was changed by chmod: the ACL of access follows.
pub(super) fn follow_mode(transaction: &mut Transaction<'_>, inode: &mut Inode) -> Result<(), Errno> {
    if let Some(mut access) = acl(transaction, inode, acl::ACCESS)? {
        access.chmod(inode.attr.mode);
        put(transaction, inode, acl::ACCESS, access.to_bytes());
    }
    Ok(())
}

/// Writes the row of an attribute. The inode is changed, and to be saved.
pub(super) fn put(transaction: &mut Transaction<'_>, inode: &mut Inode, name: &[u8], value: Vec<u8>) {
    inode.attr.flags &= !Attr::NO_XATTR;
    transaction.put(&keys::xattr(inode.attr.ino, name), value);
}

/// Deletes the row of an attribute, if it is there. The inode is changed, and to be saved.
fn take(transaction: &mut Transaction<'_>, inode: &mut Inode, name: &[u8]) -> Result<(), Errno> {
    transaction.delete(&keys::xattr(inode.attr.ino, name));
    if list(transaction, inode.attr.ino)?.is_empty() {
        inode.attr.flags |= Attr::NO_XATTR;
    }
    Ok(())
}
