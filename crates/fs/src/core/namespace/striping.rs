//! Layouts of files: where objects go, what was asked for beforehand, and the exchange of two files' data.

use std::mem;
use std::ops::ControlFlow;

use super::keys;
use super::rows::Rows;
use super::transaction::Transaction;
use crate::core::layout::{Pattern, Place, STRIPES_MAX, Stripes};
use crate::core::{Errno, Ino, OstIndex, Spread};
use crate::wire::mds::Answer;

/// Gives objects to the component that holds `offset`, unless it has some.
pub(super) fn place(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    offset: u64,
    osts: &[OstIndex],
) -> Result<Answer, Errno> {
    let mut inode = transaction.inode(ino)?;
    let layout = &mut inode.file_mut()?.layout;
    let component = match layout.pieces(offset, 1).next().map(|piece| piece.place) {
        Some(Place::Unplaced { component }) => component,
        Some(Place::Object { .. }) => return Ok(Answer::Layout(layout.clone())),
        Some(Place::Inline) | None => return Err(Errno::EINVAL),
    };
    let component = &mut layout.components[component];
    let Pattern::Raid0 { objects, .. } = &mut component.pattern else { return Err(Errno::EINVAL) };
    for ost in choose(component.wanted, osts)? {
        objects.push((ost, transaction.new_object()?));
    }
    layout.generation += 1;
    let answer = Answer::Layout(layout.clone());
    inode.attr.version += 1;
    transaction.save(&inode);
    Ok(answer)
}

/// The OSTs of a component, the first stripe's first: as many as are wanted, or as there are.
fn choose(wanted: Stripes, osts: &[OstIndex]) -> Result<Vec<OstIndex>, Errno> {
    if osts.is_empty() || wanted.first.is_some_and(|first| !osts.contains(&first)) {
        return Err(Errno::ENOSPC);
    }
    let count = wanted.count.map_or(osts.len(), usize::from).min(osts.len()).min(STRIPES_MAX);
    let others = osts.iter().copied().filter(|ost| Some(*ost) != wanted.first);
    Ok(wanted.first.into_iter().chain(others).take(count).collect())
}

/// Sets the layout of a file that has no data.
pub(super) fn set_layout(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    spread: &Spread,
) -> Result<Answer, Errno> {
    spread.check().map_err(|_| Errno::EINVAL)?;
    let mut inode = transaction.inode(ino)?;
    let size = inode.attr.size;
    let file = inode.file_mut()?;
    if size > 0 || file.pages > 0 || file.layout.objects().next().is_some() {
        return Err(Errno::EEXIST);
    }
    let generation = file.layout.generation + 1;
    file.layout = spread.to_layout();
    file.layout.generation = generation;
    let answer = Answer::Layout(file.layout.clone());
    inode.changed(transaction.now);
    transaction.save(&inode);
    Ok(answer)
}

/// Sets the layout that new files in a directory get.
pub(super) fn set_default(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    spread: Option<&Spread>,
) -> Result<Answer, Errno> {
    if let Some(spread) = spread {
        spread.check().map_err(|_| Errno::EINVAL)?;
    }
    let mut inode = transaction.inode(ino)?;
    inode.directory_mut()?.default = spread.cloned();
    inode.changed(transaction.now);
    transaction.save(&inode);
    Ok(Answer::Done)
}

/// Exchanges the data of two files, if their layouts are still of these generations.
pub(super) fn swap(
    transaction: &mut Transaction<'_>,
    (one, one_generation): (Ino, u32),
    (other, other_generation): (Ino, u32),
) -> Result<Answer, Errno> {
    if one == other {
        return Err(Errno::EINVAL);
    }
    let (mut first, mut second) = (transaction.inode(one)?, transaction.inode(other)?);
    let generations = (first.file()?.layout.generation, second.file()?.layout.generation);
    if generations != (one_generation, other_generation) {
        return Err(Errno::EAGAIN);
    }
    let pages = (take_pages(transaction, one)?, take_pages(transaction, other)?);
    put_pages(transaction, other, pages.0);
    put_pages(transaction, one, pages.1);
    mem::swap(first.file_mut()?, second.file_mut()?);
    mem::swap(&mut first.attr.size, &mut second.attr.size);
    mem::swap(&mut first.attr.blocks, &mut second.attr.blocks);
    let generation = one_generation.max(other_generation) + 1;
    for inode in [&mut first, &mut second] {
        inode.file_mut()?.layout.generation = generation;
        inode.changed(transaction.now);
        transaction.save(inode);
    }
    Ok(Answer::Done)
}

type Pages = Vec<(u32, Vec<u8>)>;

fn take_pages(transaction: &mut Transaction<'_>, ino: Ino) -> Result<Pages, Errno> {
    let range = keys::pages(ino, 0);
    let mut pages = Pages::new();
    transaction.scan(&range.0, &range.1, &mut |key, page| {
        pages.extend(keys::page_of(key).map(|number| (number, page.to_vec())));
        ControlFlow::Continue(())
    })?;
    transaction.delete_all(&range)?;
    Ok(pages)
}

fn put_pages(transaction: &mut Transaction<'_>, ino: Ino, pages: Pages) {
    for (number, page) in pages {
        transaction.put(&keys::page(ino, number), page);
    }
}
