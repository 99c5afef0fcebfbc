//! New inodes.

use super::acl::{self, Acl};
use super::inode::{self, Body, Directory, File, Home, Inode, LINKS_MAX};
use super::rows::Rows;
use super::transaction::Transaction;
use super::{directory, keys, xattr};
use crate::core::{Attr, Errno, FileKind, Ino, Layout, Spread};
use crate::wire::SYMLINK_BYTES_MAX;
use crate::wire::mds::{Answer, Cred, Make};

const SET_GID: u16 = 0o2000;
const MODE_BITS: u16 = 0o7777;
const PERMISSION_BITS: u16 = 0o777;
/// What a symbolic link says of permissions.
const SYMLINK_MODE: u16 = 0o777;

/// Where something new is made, and by whom.
pub(super) struct New<'a> {
    pub(super) parent: Ino,
    pub(super) mode: u16,
    pub(super) umask: u16,
    pub(super) cred: &'a Cred,
}

/// Makes an inode with a name.
pub(super) fn make(
    transaction: &mut Transaction<'_>,
    new: &New<'_>,
    name: &[u8],
    what: &Make,
) -> Result<Answer, Errno> {
    directory::check_name(name)?;
    let mut parent = directory::open(transaction, new.parent)?;
    if let Some(entry) = directory::find(transaction, new.parent, name)? {
        return open_existing(transaction, entry.ino, what);
    }
    let kind = kind_of(what)?;
    if kind == FileKind::Directory && parent.attr.nlink >= LINKS_MAX {
        return Err(Errno::EMLINK);
    }
    let ino = transaction.new_ino()?;
    let link = directory::insert(transaction, &mut parent, name, (ino, kind))?;
    let body = body_of(transaction, &parent, what)?;
    let inode = Inode { attr: Attr::new(ino, kind, new.mode, transaction.now), home: Home::Name(link), body };
    let inode = inherit(transaction, &parent, new, inode, what)?;
    transaction.save(&parent);
    transaction.save(&inode);
    Ok(match what {
        Make::File { open: true, .. } => opened(inode, true)?,
        _ => Answer::Entry(inode.attr),
    })
}

/// Makes a file without a name.
pub(super) fn make_unnamed(transaction: &mut Transaction<'_>, new: &New<'_>) -> Result<Answer, Errno> {
    let parent = directory::open(transaction, new.parent)?;
    let what = Make::File { spread: None, open: true, exclusive: true };
    let ino = transaction.new_ino()?;
    let mut attr = Attr::new(ino, FileKind::Regular, new.mode, transaction.now);
    attr.nlink = 0;
    let body = body_of(transaction, &parent, &what)?;
    let inode = Inode { attr, home: Home::Unnamed, body };
    let inode = inherit(transaction, &parent, new, inode, &what)?;
    transaction.put(&keys::orphan(ino), Vec::new());
    transaction.save(&inode);
    opened(inode, true)
}

/// Opens what has the name already, if it may be there.
fn open_existing(rows: &dyn Rows, ino: Ino, what: &Make) -> Result<Answer, Errno> {
    let Make::File { open: true, exclusive: false, .. } = what else { return Err(Errno::EEXIST) };
    let inode = inode::get(rows, ino)?;
    match inode.attr.kind {
        FileKind::Regular => opened(inode, false),
        FileKind::Directory => Err(Errno::EISDIR),
        // The caller's kernel knows better what to do with it, once it has seen it.
        _ => Err(Errno::EEXIST),
    }
}

fn opened(inode: Inode, made: bool) -> Result<Answer, Errno> {
    let layout = inode.file()?.layout.clone();
    Ok(Answer::Opened { attr: inode.attr, layout, shared: false, data: None, made })
}

fn kind_of(what: &Make) -> Result<FileKind, Errno> {
    match what {
        Make::File { .. } => Ok(FileKind::Regular),
        Make::Directory => Ok(FileKind::Directory),
        Make::Symlink { target } if target.is_empty() => Err(Errno::ENOENT),
        Make::Symlink { target } if target.len() > SYMLINK_BYTES_MAX => Err(Errno::ENAMETOOLONG),
        Make::Symlink { target } if target.contains(&0) => Err(Errno::EINVAL),
        Make::Symlink { .. } => Ok(FileKind::Symlink),
        Make::Node { kind, .. } => match kind {
            FileKind::Directory | FileKind::Symlink | FileKind::Regular => Err(Errno::EINVAL),
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => Ok(*kind),
        },
    }
}

fn body_of(transaction: &Transaction<'_>, parent: &Inode, what: &Make) -> Result<Body, Errno> {
    Ok(match what {
        Make::File { spread, .. } => {
            let layout = new_layout(transaction, parent, spread.as_ref())?;
            Body::File(File { layout, pages: 0 })
        }
        Make::Directory => {
            let default = parent.directory()?.default.clone();
            Body::Directory(Directory { cursor_next: 1, entries: 0, default })
        }
        Make::Symlink { target } => Body::Symlink(target.clone()),
        Make::Node { .. } => Body::Node,
    })
}

/// The layout of a new file: the one that was asked for, the directory's, or the filesystem's.
fn new_layout(
    transaction: &Transaction<'_>,
    parent: &Inode,
    asked: Option<&Spread>,
) -> Result<Layout, Errno> {
    if let Some(spread) = asked {
        spread.check().map_err(|_| Errno::EINVAL)?;
        return Ok(spread.to_layout());
    }
    match &parent.directory()?.default {
        Some(spread) => Ok(spread.to_layout()),
        None => Ok(transaction.filesystem()?.spread.to_layout()),
    }
}

/// What a new inode has from its maker and its directory: owner, group, permissions, ACLs, project.
fn inherit(
    transaction: &mut Transaction<'_>,
    parent: &Inode,
    new: &New<'_>,
    mut inode: Inode,
    what: &Make,
) -> Result<Inode, Errno> {
    let attr = &mut inode.attr;
    attr.uid = new.cred.uid;
    attr.gid = new.cred.gid;
    attr.mode = new.mode & MODE_BITS;
    if parent.attr.mode & SET_GID != 0 {
        attr.gid = parent.attr.gid;
        attr.mode |= if attr.kind == FileKind::Directory { SET_GID } else { 0 };
    }
    if parent.attr.flags & Attr::PROJECT_INHERIT != 0 {
        attr.project = parent.attr.project;
        attr.flags |= if attr.kind == FileKind::Directory { Attr::PROJECT_INHERIT } else { 0 };
    }
    match what {
        Make::Symlink { target } => {
            attr.mode = SYMLINK_MODE;
            attr.size = target.len() as u64;
        }
        Make::Node { rdev, .. } => attr.rdev = *rdev,
        Make::File { .. } | Make::Directory => {}
    }
    if attr.kind != FileKind::Symlink {
        inherit_acl(transaction, parent, new.umask, &mut inode)?;
    }
    Ok(inode)
}

/// The default ACL of the directory stands in for the umask (acl(5), "Object creation and default ACLs").
fn inherit_acl(
    transaction: &mut Transaction<'_>,
    parent: &Inode,
    umask: u16,
    inode: &mut Inode,
) -> Result<(), Errno> {
    let Some(default) = xattr::acl(transaction, parent, acl::DEFAULT)? else {
        inode.attr.mode &= !(umask & PERMISSION_BITS);
        return Ok(());
    };
    let mut access: Acl = default.clone();
    inode.attr.mode = access.create(inode.attr.mode);
    if !access.is_minimal() {
        xattr::put(transaction, inode, acl::ACCESS, access.to_bytes());
    }
    if inode.is_directory() {
        xattr::put(transaction, inode, acl::DEFAULT, default.to_bytes());
    }
    Ok(())
}
