//! What a change will touch, so that others can be asked to give back leases on it before it is made.

use super::rows::Rows;
use super::{directory, inode, keys};
use crate::core::{Errno, FileKind, Ino};
use crate::wire::mds::{Act, Make, Rename};

/// Something that a change touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Attributes, extended attributes or the layout of an inode.
    Meta(Ino),
    /// A name in a directory.
    Name(Ino, Vec<u8>),
    /// All names in a directory.
    Names(Ino),
    /// Bytes of a file: nobody else may keep a copy (`Read`) or hold back his own (`Write`). Who goes to the bytes each
    /// time (`Direct`) may go on.
    Bytes(Ino),
    /// Where the bytes of a file are, or where it ends: nobody else may read or write until it is done.
    Data(Ino),
    /// It loses its last name: does anybody have it open?
    Unlinked(Ino),
}

/// What `act` touches, if it is made now. A refused act touches nothing, or less than this says.
///
/// [`Act::Make`] of a file that is there already opens it and touches nothing: to the others that is an open.
pub fn touches(rows: &dyn Rows, act: &Act) -> Result<Vec<Touch>, Errno> {
    Ok(match act {
        Act::Make { parent, name, what, .. } => {
            let opens = matches!(what, Make::File { open: true, exclusive: false, .. });
            if opens && rows.get(&keys::name(*parent, name))?.is_some() {
                return Ok(Vec::new());
            }
            vec![Touch::Name(*parent, name.clone()), Touch::Meta(*parent)]
        }
        Act::MakeUnnamed { .. } | Act::SetQuota { .. } => Vec::new(),
        Act::Link { ino, parent, name } => {
            vec![Touch::Name(*parent, name.clone()), Touch::Meta(*parent), Touch::Meta(*ino)]
        }
        Act::Unlink { parent, name } | Act::Rmdir { parent, name } => {
            let mut touched = vec![Touch::Name(*parent, name.clone()), Touch::Meta(*parent)];
            touch_victim(rows, *parent, name, &mut touched)?;
            touched
        }
        Act::Rename { from, from_name, to, to_name, how } => {
            rename(rows, (*from, from_name), (*to, to_name), *how)?
        }
        Act::Setattr { ino, set } if set.size.is_some() => vec![Touch::Meta(*ino), Touch::Data(*ino)],
        Act::Setattr { ino, .. }
        | Act::SetXattr { ino, .. }
        | Act::RemoveXattr { ino, .. }
        | Act::Written { ino, .. }
        | Act::Place { ino, .. }
        | Act::SetDefault { ino, .. } => vec![Touch::Meta(*ino)],
        Act::WriteInline { ino, .. } | Act::ZeroInline { ino, .. } => {
            vec![Touch::Meta(*ino), Touch::Bytes(*ino)]
        }
        Act::SetLayout { ino, .. } => vec![Touch::Meta(*ino), Touch::Data(*ino)],
        Act::SwapLayouts { one: (one, _), other: (other, _) } => {
            vec![Touch::Meta(*one), Touch::Data(*one), Touch::Meta(*other), Touch::Data(*other)]
        }
    })
}

fn rename(
    rows: &dyn Rows,
    (from, from_name): (Ino, &[u8]),
    (to, to_name): (Ino, &[u8]),
    how: Rename,
) -> Result<Vec<Touch>, Errno> {
    let mut touched = vec![
        Touch::Name(from, from_name.to_vec()),
        Touch::Meta(from),
        Touch::Name(to, to_name.to_vec()),
        Touch::Meta(to),
    ];
    if let Some(moved) = directory::find(rows, from, from_name)? {
        touched.push(Touch::Meta(moved.ino));
    }
    match how {
        Rename::Replace => touch_victim(rows, to, to_name, &mut touched)?,
        Rename::NoReplace => {}
        Rename::Exchange => {
            touched.extend(directory::find(rows, to, to_name)?.map(|other| Touch::Meta(other.ino)));
        }
    }
    Ok(touched)
}

/// What loses this name.
fn touch_victim(rows: &dyn Rows, parent: Ino, name: &[u8], touched: &mut Vec<Touch>) -> Result<(), Errno> {
    let Some(victim) = directory::find(rows, parent, name)? else { return Ok(()) };
    touched.push(Touch::Meta(victim.ino));
    let is_last = victim.kind == FileKind::Directory || inode::get(rows, victim.ino)?.attr.nlink <= 1;
    if is_last {
        touched.push(Touch::Unlinked(victim.ino));
    }
    Ok(())
}
