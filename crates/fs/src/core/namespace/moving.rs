//! Objects that move to other OSTs, so that one can be taken away.
//!
//! ```text
//! What::Spare     a file without a name gets the new objects, which are filled then
//! What::Exchange  file and spare exchange objects, if nothing of the file has changed since it was looked at
//! What::Forget    the spare goes, with the objects that it has now
//! ```
//!
//! So each object belongs to one inode at any moment, and whatever ends in between, the spare is an orphan that goes at the
//! next start, with the objects that nobody needs. Attributes stay as they are but for their version: to users nothing changed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use super::inode::{Body, File, Home, Inode};
use super::keys;
use super::rows::{Row as _, Rows};
use super::transaction::Transaction;
use crate::core::layout::{Component, END, Extent, Pattern, STRIPE_BYTES_MIN, Stripes};
use crate::core::{Attr, Errno, FileKind, Ino, Layout, ObjectId, OstIndex};
use crate::wire::mds::Answer;

/// A file with objects on an OST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The file.
    pub ino: Ino,
    /// The OST.
    pub ost: OstIndex,
    /// The most that its objects there hold, in bytes.
    pub bytes: u64,
}

/// Which files from `from` on have objects on these OSTs, among so many inodes; and where to go on, unless that is all.
pub fn located(
    rows: &dyn Rows,
    from: Ino,
    osts: &[OstIndex],
    look_max: usize,
) -> Result<(Vec<Located>, Option<Ino>), Errno> {
    let (mut found, mut sound) = (Vec::new(), true);
    let next = look_through(rows, from, look_max, &mut |inode| match inode {
        Some(inode) => found.extend(osts.iter().filter_map(|ost| located_on(&inode, *ost))),
        None => sound = false,
    })?;
    if sound { Ok((found, next)) } else { Err(Errno::EIO) }
}

/// An object, and the file that has it.
pub type Owned = (ObjectId, Ino);

/// Which inodes from `from` on have these objects of an OST, among so many that are looked at; and where to go on, unless that is all. What
/// cannot be read owns nothing that could be named.
pub fn owners(
    rows: &dyn Rows,
    from: Ino,
    ost: OstIndex,
    objects: &BTreeSet<ObjectId>,
    look_max: usize,
) -> Result<(Vec<Owned>, Option<Ino>), Errno> {
    let mut found = Vec::new();
    let next = look_through(rows, from, look_max, &mut |inode| {
        let Some(inode) = inode else { return };
        let Ok(file) = inode.file() else { return };
        let held = held(&file.layout, inode.attr.size, ost).into_iter().map(|(object, _)| object);
        found.extend(held.filter(|object| objects.contains(object)).map(|object| (object, inode.attr.ino)));
    })?;
    Ok((found, next))
}

/// Shows so many inodes from `from` on, `None` for one that cannot be read; where to go on, unless those were all.
fn look_through(
    rows: &dyn Rows,
    from: Ino,
    look_max: usize,
    show: &mut dyn FnMut(Option<Inode>),
) -> Result<Option<Ino>, Errno> {
    let (mut looked, mut next) = (0, None);
    let (_, end) = keys::all_inodes();
    rows.scan(&keys::inode(from), &end, &mut |key, row| {
        if looked == look_max {
            next = keys::number_of(key).map(Ino);
            return ControlFlow::Break(());
        }
        looked += 1;
        show(Inode::decode(row).ok());
        ControlFlow::Continue(())
    })?;
    Ok(next)
}

fn located_on(inode: &Inode, ost: OstIndex) -> Option<Located> {
    let layout = &inode.file().ok()?.layout;
    let held = held(layout, inode.attr.size, ost);
    let bytes = held.iter().map(|(_, len)| len).sum();
    (!held.is_empty()).then_some(Located { ino: inode.attr.ino, ost, bytes })
}

/// The objects of a file of `size` bytes that are on an OST, each with the most bytes that it holds, in the order of the layout.
pub fn held(layout: &Layout, size: u64, ost: OstIndex) -> Vec<(ObjectId, u64)> {
    let lengths = layout.object_lengths(size);
    lengths.filter(|(on, _, _)| *on == ost).map(|(_, object, len)| (object, len)).collect()
}

/// Makes a file without a name, with an object for each one that `ino` has on the OST `from`, on the OSTs `to`.
pub(super) fn spare(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    from: OstIndex,
    to: &[OstIndex],
) -> Result<Answer, Errno> {
    let layout = transaction.inode(ino)?.file()?.layout.clone();
    let mut objects = Vec::new();
    for component in &layout.components {
        let Pattern::Raid0 { objects: old, .. } = &component.pattern else { continue };
        for ost in choose(old, from, to)? {
            objects.push((ost, transaction.new_object()?));
        }
    }
    if objects.is_empty() {
        return Err(Errno::ENODATA);
    }
    let layout = Layout { generation: 1, components: vec![whole(objects)] };
    let mut attr = Attr::new(transaction.new_ino()?, FileKind::Regular, 0, transaction.now);
    attr.nlink = 0;
    let body = Body::File(File { layout: layout.clone(), pages: 0 });
    transaction.put(&keys::orphan(attr.ino), Vec::new());
    transaction.save(&Inode { attr: attr.clone(), home: Home::Unnamed, body });
    Ok(Answer::Opened { attr, layout, shared: false, data: None, made: true })
}

/// A component that is the whole file.
fn whole(objects: Vec<(OstIndex, ObjectId)>) -> Component {
    Component {
        id: 1,
        extent: Extent { start: 0, end: END },
        pattern: Pattern::Raid0 { stripe_bytes: STRIPE_BYTES_MIN, objects },
        wanted: Stripes { count: None, first: None },
    }
}

/// An OST of `to` for each object of a component that is on `from`: those that the component does not use yet, then the others.
fn choose(objects: &[(OstIndex, ObjectId)], from: OstIndex, to: &[OstIndex]) -> Result<Vec<OstIndex>, Errno> {
    let count = objects.iter().filter(|(on, _)| *on == from).count();
    let is_used = |ost: &OstIndex| objects.iter().any(|(on, _)| on == ost);
    let (used, unused): (Vec<OstIndex>, Vec<_>) = to.iter().copied().partition(is_used);
    if count > 0 && (to.is_empty() || to.contains(&from)) {
        return Err(Errno::ENOSPC);
    }
    Ok(unused.into_iter().chain(used).cycle().take(count).collect())
}

/// What a file was like when its objects were copied.
pub(super) struct Seen {
    pub(super) ino: Ino,
    pub(super) generation: u32,
    pub(super) version: u64,
}

/// Gives a file the objects of its spare for those that it has on the OST `from`, and these to the spare. `EAGAIN` when the file
/// is not as it was seen.
pub(super) fn exchange(
    transaction: &mut Transaction<'_>,
    seen: &Seen,
    from: OstIndex,
    spare: Ino,
) -> Result<Answer, Errno> {
    let mut inode = transaction.inode(seen.ino)?;
    let mut spare = transaction.inode(spare)?;
    if spare.home != Home::Unnamed || spare.attr.ino == seen.ino {
        return Err(Errno::EINVAL);
    }
    let layout = &mut inode.file_mut()?.layout;
    if (layout.generation, seen.version) != (seen.generation, inode.attr.version) {
        return Err(Errno::EAGAIN);
    }
    let layout = &mut inode.file_mut()?.layout;
    let [Component { pattern: Pattern::Raid0 { objects: new, .. }, .. }] =
        &mut spare.file_mut()?.layout.components[..]
    else {
        return Err(Errno::EINVAL);
    };
    let mut new = new.iter_mut();
    for component in &mut layout.components {
        let Pattern::Raid0 { objects, .. } = &mut component.pattern else { continue };
        for old in objects.iter_mut().filter(|(on, _)| *on == from) {
            std::mem::swap(old, new.next().ok_or(Errno::EAGAIN)?);
        }
        // Nobody can have it begin there any more.
        component.wanted.first = component.wanted.first.filter(|first| *first != from || objects.is_empty());
    }
    if new.next().is_some() {
        return Err(Errno::EAGAIN);
    }
    layout.generation += 1;
    inode.attr.version += 1;
    transaction.save(&inode);
    transaction.save(&spare);
    Ok(Answer::Done)
}
