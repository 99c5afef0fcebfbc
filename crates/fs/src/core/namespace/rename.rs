//! rename(2) and its variants.

use super::directory::{self, Entry};
use super::inode::{Inode, LINKS_MAX};
use super::links;
use super::rows::Rows;
use super::transaction::Transaction;
use crate::core::{Errno, FileKind, Ino};
use crate::wire::mds::{Answer, Rename};

/// A directory, and a name in it.
type Place<'n> = (Ino, &'n [u8]);

/// Moves `from` to `to`.
pub(super) fn rename(
    transaction: &mut Transaction<'_>,
    from: Place<'_>,
    to: Place<'_>,
    how: Rename,
) -> Result<Answer, Errno> {
    directory::check_name(to.1)?;
    let (_, moved) = links::find(transaction, from.0, from.1)?;
    let target = directory::open(transaction, to.0)?;
    let other = directory::find(transaction, to.0, to.1)?;
    match (how, other) {
        (Rename::NoReplace, Some(_)) => return Err(Errno::EEXIST),
        (Rename::Exchange, None) => return Err(Errno::ENOENT),
        // Names of one inode: nothing happens, as POSIX wants it.
        (_, Some(other)) if other.ino == moved.ino => return Ok(Answer::Done),
        _ => {}
    }
    check_cycle(transaction, &moved, from.0, to.0)?;
    links::check_project(&target, &transaction.inode(moved.ino)?)?;
    match (how, other) {
        (Rename::Exchange, Some(other)) => exchange(transaction, (from, &moved), (to, &other))?,
        (_, Some(victim)) => replace(transaction, (from, &moved), (to, &victim))?,
        (_, None) => shift(transaction, (from, &moved), to)?,
    }
    Ok(Answer::Done)
}

/// A directory cannot be moved to below itself.
fn check_cycle(rows: &dyn Rows, moved: &Entry, from: Ino, to: Ino) -> Result<(), Errno> {
    let is_directory = moved.kind == FileKind::Directory;
    if is_directory && from != to && links::is_above(rows, moved.ino, to)? {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// To a name that was free.
fn shift(
    transaction: &mut Transaction<'_>,
    (from, moved): (Place<'_>, &Entry),
    to: Place<'_>,
) -> Result<(), Errno> {
    let mut source = transaction.inode(from.0)?;
    let old = directory::remove(transaction, &mut source, from.1, moved)?;
    transaction.save(&source);
    let mut target = transaction.inode(to.0)?;
    check_room(&target, moved.kind, None)?;
    let new = directory::insert(transaction, &mut target, to.1, (moved.ino, moved.kind))?;
    transaction.save(&target);
    let mut inode = transaction.inode(moved.ino)?;
    links::moved(transaction, &mut inode, old, new);
    transaction.save(&inode);
    Ok(())
}

/// To a name that something had, which loses it.
fn replace(
    transaction: &mut Transaction<'_>,
    (from, moved): (Place<'_>, &Entry),
    (to, victim): (Place<'_>, &Entry),
) -> Result<(), Errno> {
    let lost = transaction.inode(victim.ino)?;
    check_replaceable(moved.kind, &lost)?;
    let mut source = transaction.inode(from.0)?;
    let old = directory::remove(transaction, &mut source, from.1, moved)?;
    transaction.save(&source);
    let mut target = transaction.inode(to.0)?;
    check_room(&target, moved.kind, Some(victim.kind))?;
    let name = directory::replace(transaction, &mut target, to.1, victim, (moved.ino, moved.kind))?;
    transaction.save(&target);
    let mut inode = transaction.inode(moved.ino)?;
    links::moved(transaction, &mut inode, old, name);
    transaction.save(&inode);
    links::take(transaction, lost, name)
}

/// Each gets the name of the other.
fn exchange(
    transaction: &mut Transaction<'_>,
    (from, moved): (Place<'_>, &Entry),
    (to, other): (Place<'_>, &Entry),
) -> Result<(), Errno> {
    check_cycle(transaction, other, to.0, from.0)?;
    let mut inode = transaction.inode(moved.ino)?;
    let mut counterpart = transaction.inode(other.ino)?;
    let mut source = transaction.inode(from.0)?;
    links::check_project(&source, &counterpart)?;
    check_room(&source, other.kind, Some(moved.kind))?;
    let old = directory::replace(transaction, &mut source, from.1, moved, (other.ino, other.kind))?;
    transaction.save(&source);
    let mut target = transaction.inode(to.0)?;
    check_room(&target, moved.kind, Some(other.kind))?;
    let new = directory::replace(transaction, &mut target, to.1, other, (moved.ino, moved.kind))?;
    transaction.save(&target);
    links::moved(transaction, &mut inode, old, new);
    links::moved(transaction, &mut counterpart, new, old);
    transaction.save(&inode);
    transaction.save(&counterpart);
    Ok(())
}

fn check_replaceable(moved: FileKind, lost: &Inode) -> Result<(), Errno> {
    match (moved == FileKind::Directory, lost.is_directory()) {
        (true, false) => Err(Errno::ENOTDIR),
        (false, true) => Err(Errno::EISDIR),
        (true, true) if lost.directory()?.entries > 0 => Err(Errno::ENOTEMPTY),
        _ => Ok(()),
    }
}

/// Whether a directory can count one more directory in it, unless it counts one less in exchange.
fn check_room(target: &Inode, kind: FileKind, instead_of: Option<FileKind>) -> Result<(), Errno> {
    let grows = kind == FileKind::Directory && instead_of != Some(FileKind::Directory);
    if grows && target.attr.nlink >= LINKS_MAX { Err(Errno::EMLINK) } else { Ok(()) }
}
