//! Entries of directories.
//!
//! An entry is two rows: under its name, which is how it is looked up, and under its cursor, which is how a directory is
//! read. Cursors count up within a directory, so one that was read to stays good whatever is added or removed, files
//! are listed in the order in which they were made, and to add a name to a directory of a million costs no more than to
//! one of ten.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::inode::{Inode, Link};
use super::rows::{Row, Rows, load};
use super::transaction::Transaction;
use super::{inode, keys};
use crate::core::{Errno, FileKind, Ino};
use crate::wire::mds::Name;
use crate::wire::{DATA_BYTES_MAX, NAME_BYTES_MAX};

/// What a name takes in an answer beside its bytes, at most: numbers, and lengths.
const NAME_OVERHEAD_BYTES: usize = 32;
/// What attributes take in an answer, at most.
const ATTR_BYTES: usize = 160;

/// What a name leads to: the row under the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    pub(super) cursor: u64,
}

impl Row for Entry {
    const VERSION: u8 = 1;
}

/// A name: the row under the cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) ino: Ino,
    pub(super) kind: FileKind,
    pub(super) name: Vec<u8>,
}

impl Row for Named {
    const VERSION: u8 = 1;
}

/// Refuses what cannot be the name of an entry.
pub(super) fn check_name(name: &[u8]) -> Result<(), Errno> {
    match name {
        b"" | b"." | b".." => Err(Errno::EINVAL),
        _ if name.len() > NAME_BYTES_MAX => Err(Errno::ENAMETOOLONG),
        _ if name.iter().any(|byte| matches!(byte, 0 | b'/')) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// The entry with a name, if there is one.
pub(super) fn find(rows: &dyn Rows, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Errno> {
    load(rows, &keys::name(parent, name))
}

/// The name that a link is.
pub(super) fn named(rows: &dyn Rows, link: Link) -> Result<Named, Errno> {
    load(rows, &keys::entry(link))?.ok_or(Errno::EIO)
}

/// A directory that names may be put into.
pub(super) fn open(rows: &dyn Rows, ino: Ino) -> Result<Inode, Errno> {
    let directory = inode::get(rows, ino)?;
    directory.directory()?;
    if directory.attr.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    Ok(directory)
}

/// Adds a name that is not there. `parent` is changed, and to be saved.
pub(super) fn insert(
    transaction: &mut Transaction<'_>,
    parent: &mut Inode,
    name: &[u8],
    (ino, kind): (Ino, FileKind),
) -> Result<Link, Errno> {
    let link = Link { parent: parent.attr.ino, cursor: parent.directory()?.cursor_next };
    let body = parent.directory_mut()?;
    body.cursor_next += 1;
    body.entries += 1;
    if kind == FileKind::Directory {
        parent.attr.nlink += 1;
    }
    resized(parent, parent.attr.size + name.len() as u64, transaction);
    let entry = Entry { ino, kind, cursor: link.cursor };
    transaction.put(&keys::name(link.parent, name), entry.encode());
    transaction.put(&keys::entry(link), Named { ino, kind, name: name.to_vec() }.encode());
    Ok(link)
}

/// Takes the name of an entry away. `parent` is changed, and to be saved.
pub(super) fn remove(
    transaction: &mut Transaction<'_>,
    parent: &mut Inode,
    name: &[u8],
    entry: &Entry,
) -> Result<Link, Errno> {
    let link = Link { parent: parent.attr.ino, cursor: entry.cursor };
    let body = parent.directory_mut()?;
    body.entries = body.entries.saturating_sub(1);
    if entry.kind == FileKind::Directory {
        parent.attr.nlink = parent.attr.nlink.saturating_sub(1);
    }
    resized(parent, parent.attr.size.saturating_sub(name.len() as u64), transaction);
    transaction.delete(&keys::name(link.parent, name));
    transaction.delete(&keys::entry(link));
    Ok(link)
}

/// Puts another inode behind a name that stays.
pub(super) fn replace(
    transaction: &mut Transaction<'_>,
    parent: &mut Inode,
    name: &[u8],
    old: &Entry,
    (ino, kind): (Ino, FileKind),
) -> Result<Link, Errno> {
    let link = Link { parent: parent.attr.ino, cursor: old.cursor };
    parent.directory()?;
    let was = u32::from(old.kind == FileKind::Directory);
    let is = u32::from(kind == FileKind::Directory);
    parent.attr.nlink = (parent.attr.nlink + is).saturating_sub(was);
    resized(parent, parent.attr.size, transaction);
    transaction.put(&keys::name(link.parent, name), Entry { ino, kind, cursor: link.cursor }.encode());
    transaction.put(&keys::entry(link), Named { ino, kind, name: name.to_vec() }.encode());
    Ok(link)
}

/// The names of a directory changed, which take so many bytes now.
fn resized(parent: &mut Inode, size: u64, transaction: &Transaction<'_>) {
    const BLOCK_BYTES: u64 = 512;
    parent.attr.size = size;
    parent.attr.blocks = size.div_ceil(BLOCK_BYTES);
    parent.attr.mtime = transaction.now;
    parent.changed(transaction.now);
}

/// Names behind the cursor `after`, of about `bytes_max` bytes but at least one; and whether these are the last.
pub(super) fn read(
    rows: &dyn Rows,
    ino: Ino,
    after: u64,
    bytes_max: u32,
    plus: bool,
) -> Result<(Vec<Name>, bool), Errno> {
    inode::get(rows, ino)?.directory()?;
    let each = NAME_OVERHEAD_BYTES + if plus { ATTR_BYTES } else { 0 };
    let mut left = bytes_max.min(DATA_BYTES_MAX) as usize;
    let mut names = Vec::new();
    let mut end = true;
    let mut sound = true;
    let (from, to) = keys::entries(ino, after);
    rows.scan(&from, &to, &mut |key, value| {
        let (Some(link), Ok(named)) = (keys::link_of_entry(key), Named::decode(value)) else {
            sound = false;
            return ControlFlow::Break(());
        };
        let bytes = each + named.name.len();
        if bytes > left && !names.is_empty() {
            end = false;
            return ControlFlow::Break(());
        }
        left = left.saturating_sub(bytes);
        let Named { ino, kind, name } = named;
        names.push(Name { cursor: link.cursor, ino, kind, name, attr: None });
        ControlFlow::Continue(())
    })?;
    if !sound {
        return Err(Errno::EIO);
    }
    if plus {
        for name in &mut names {
            name.attr = Some(inode::get(rows, name.ino)?.attr);
        }
    }
    Ok((names, end))
}
