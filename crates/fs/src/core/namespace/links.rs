//! The names of inodes: given, taken away, and found again from the inode.
//!
//! Each inode knows one of its names, its home; a file with more has a row for each of the others. That is what leads
//! from an inode to its paths, and from a directory to the one that it is in.

use std::ops::ControlFlow;

use super::directory::{self, Entry};
use super::inode::{Body, Home, Inode, LINKS_MAX, Link};
use super::rows::Rows;
use super::todo::Todo;
use super::transaction::Transaction;
use super::{inode, keys};
use crate::core::{Attr, Errno, FileKind, Ino};
use crate::wire::mds::Answer;

/// Directories above an inode that are looked at; more is taken for damage.
const DEPTH_MAX: usize = 1 << 20;
/// Paths that are answered at most.
const PATHS_MAX: usize = 4096;
/// The longest path that is answered, in bytes.
const PATH_BYTES_MAX: usize = 1 << 20;

/// Gives an inode one more name.
pub(super) fn link(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    parent: Ino,
    name: &[u8],
) -> Result<Answer, Errno> {
    directory::check_name(name)?;
    let mut parent = directory::open(transaction, parent)?;
    let mut inode = transaction.inode(ino)?;
    match inode.home {
        _ if inode.is_directory() => return Err(Errno::EPERM),
        Home::Gone | Home::Root => return Err(Errno::ENOENT),
        Home::Name(_) | Home::Unnamed => {}
    }
    if directory::find(transaction, parent.attr.ino, name)?.is_some() {
        return Err(Errno::EEXIST);
    }
    if inode.attr.nlink >= LINKS_MAX {
        return Err(Errno::EMLINK);
    }
    check_project(&parent, &inode)?;
    let link = directory::insert(transaction, &mut parent, name, (ino, inode.attr.kind))?;
    add(transaction, &mut inode, link);
    inode.changed(transaction.now);
    transaction.save(&parent);
    transaction.save(&inode);
    Ok(Answer::Entry(inode.attr))
}

/// A directory that passes its project on takes nothing of another project (as ext4 and XFS have it).
pub(super) fn check_project(parent: &Inode, inode: &Inode) -> Result<(), Errno> {
    let passes_on = parent.attr.flags & Attr::PROJECT_INHERIT != 0;
    if passes_on && parent.attr.project != inode.attr.project { Err(Errno::EXDEV) } else { Ok(()) }
}

/// Takes a name of a file away.
pub(super) fn unlink(transaction: &mut Transaction<'_>, parent: Ino, name: &[u8]) -> Result<Answer, Errno> {
    let (mut parent, entry) = find(transaction, parent, name)?;
    if entry.kind == FileKind::Directory {
        return Err(Errno::EISDIR);
    }
    let inode = transaction.inode(entry.ino)?;
    let link = directory::remove(transaction, &mut parent, name, &entry)?;
    transaction.save(&parent);
    take(transaction, inode, link)?;
    Ok(Answer::Done)
}

/// Takes an empty directory away.
pub(super) fn rmdir(transaction: &mut Transaction<'_>, parent: Ino, name: &[u8]) -> Result<Answer, Errno> {
    let (mut parent, entry) = find(transaction, parent, name)?;
    if entry.kind != FileKind::Directory {
        return Err(Errno::ENOTDIR);
    }
    let inode = transaction.inode(entry.ino)?;
    if inode.directory()?.entries > 0 {
        return Err(Errno::ENOTEMPTY);
    }
    let link = directory::remove(transaction, &mut parent, name, &entry)?;
    transaction.save(&parent);
    take(transaction, inode, link)?;
    Ok(Answer::Done)
}

/// A directory and an entry in it.
pub(super) fn find(rows: &dyn Rows, parent: Ino, name: &[u8]) -> Result<(Inode, Entry), Errno> {
    directory::check_name(name)?;
    let parent = directory::open(rows, parent)?;
    let entry = directory::find(rows, parent.attr.ino, name)?.ok_or(Errno::ENOENT)?;
    Ok((parent, entry))
}

/// Counts a name that an inode got. The inode is changed, and to be saved.
fn add(transaction: &mut Transaction<'_>, inode: &mut Inode, link: Link) {
    if let Home::Name(_) = inode.home {
        transaction.put(&keys::link(inode.attr.ino, link), Vec::new());
    } else {
        transaction.delete(&keys::orphan(inode.attr.ino));
        inode.home = Home::Name(link);
    }
    inode.attr.nlink += 1;
}

/// Counts a name that an inode has lost, and saves or removes the inode.
pub(super) fn take(transaction: &mut Transaction<'_>, mut inode: Inode, link: Link) -> Result<(), Errno> {
    let is_last = inode.is_directory() || inode.attr.nlink <= 1;
    if is_last {
        return bury(transaction, inode);
    }
    if inode.home == Home::Name(link) {
        let other = first_link(transaction, inode.attr.ino)?.ok_or(Errno::EIO)?;
        transaction.delete(&keys::link(inode.attr.ino, other));
        inode.home = Home::Name(other);
    } else {
        transaction.delete(&keys::link(inode.attr.ino, link));
    }
    inode.attr.nlink -= 1;
    inode.changed(transaction.now);
    transaction.save(&inode);
    Ok(())
}

/// A name of an inode was replaced by another one. The inode is changed, and to be saved.
pub(super) fn moved(transaction: &mut Transaction<'_>, inode: &mut Inode, from: Link, to: Link) {
    if inode.home == Home::Name(from) {
        inode.home = Home::Name(to);
    } else {
        transaction.delete(&keys::link(inode.attr.ino, from));
        transaction.put(&keys::link(inode.attr.ino, to), Vec::new());
    }
    inode.changed(transaction.now);
}

fn first_link(rows: &dyn Rows, ino: Ino) -> Result<Option<Link>, Errno> {
    let (from, to) = keys::links(ino);
    let mut first = None;
    rows.scan(&from, &to, &mut |key, _| {
        first = keys::link_of(key);
        ControlFlow::Break(())
    })?;
    Ok(first)
}

/// The last name is gone: the inode goes too, or waits as an orphan until it is closed.
fn bury(transaction: &mut Transaction<'_>, mut inode: Inode) -> Result<(), Errno> {
    if !transaction.lost_last_name(inode.attr.ino) {
        return destroy(transaction, &inode);
    }
    inode.attr.nlink = 0;
    inode.home = Home::Gone;
    inode.changed(transaction.now);
    transaction.put(&keys::orphan(inode.attr.ino), Vec::new());
    transaction.save(&inode);
    Ok(())
}

/// Nobody has it open any more: it goes, if it has no name.
pub(super) fn forget(transaction: &mut Transaction<'_>, ino: Ino) -> Result<(), Errno> {
    let Some(inode) = inode::find(transaction, ino)? else { return Ok(()) };
    if !matches!(inode.home, Home::Gone | Home::Unnamed) {
        return Ok(());
    }
    transaction.delete(&keys::orphan(ino));
    destroy(transaction, &inode)
}

/// Removes every row of an inode, and its objects.
fn destroy(transaction: &mut Transaction<'_>, inode: &Inode) -> Result<(), Errno> {
    let ino = inode.attr.ino;
    if inode.attr.flags & Attr::NO_XATTR == 0 {
        transaction.delete_all(&keys::xattrs(ino))?;
    }
    if let Body::File(file) = &inode.body {
        if file.pages > 0 {
            transaction.delete_all(&keys::pages(ino, 0))?;
        }
        for (ost, object) in file.layout.objects() {
            transaction.plan(Todo::Destroy { ost, object })?;
        }
    }
    transaction.delete(&keys::inode(ino));
    let counters = transaction.counters()?;
    counters.inodes = counters.inodes.saturating_sub(1);
    Ok(())
}

/// Whether `ino` is `directory`, or a directory above it.
pub(super) fn is_above(rows: &dyn Rows, ino: Ino, directory: Ino) -> Result<bool, Errno> {
    let mut at = directory;
    for _ in 0..DEPTH_MAX {
        if at == ino {
            return Ok(true);
        }
        match inode::get(rows, at)?.home {
            Home::Name(link) => at = link.parent,
            Home::Root | Home::Unnamed | Home::Gone => return Ok(false),
        }
    }
    Err(Errno::ELOOP)
}

/// Paths from the root to an inode, without a leading slash, at most so many.
pub(super) fn paths(rows: &dyn Rows, ino: Ino, count_max: u32) -> Result<Vec<Vec<u8>>, Errno> {
    let mut found = match inode::get(rows, ino)?.home {
        Home::Root => return Ok(vec![Vec::new()]),
        Home::Unnamed | Home::Gone => return Ok(Vec::new()),
        Home::Name(link) => vec![link],
    };
    let count_max = PATHS_MAX.min(count_max as usize);
    let (from, to) = keys::links(ino);
    rows.scan(&from, &to, &mut |key, _| {
        if found.len() >= count_max {
            return ControlFlow::Break(());
        }
        found.extend(keys::link_of(key));
        ControlFlow::Continue(())
    })?;
    found.into_iter().take(count_max).map(|link| path(rows, link)).collect()
}

/// The path to a name.
fn path(rows: &dyn Rows, mut link: Link) -> Result<Vec<u8>, Errno> {
    let mut names = Vec::new();
    let mut bytes = 0;
    loop {
        let name = directory::named(rows, link)?.name;
        bytes += name.len() + 1;
        if bytes > PATH_BYTES_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        names.push(name);
        match inode::get(rows, link.parent)?.home {
            Home::Name(above) => link = above,
            Home::Root | Home::Unnamed | Home::Gone => break,
        }
    }
    names.reverse();
    Ok(names.join(&b'/'))
}
