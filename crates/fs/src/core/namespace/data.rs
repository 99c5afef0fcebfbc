//! The length of files, and the bytes of them that are on the MDT.
//!
//! Those bytes are rows of a page each. A page that is not there, and what is behind the end of a shorter one, is zeros.
//! **Invariant:** no page holds bytes behind the end of its file, so that what a file grows by is zeros.

use std::ops::ControlFlow;

use super::inode::{self, Inode};
use super::keys;
use super::rows::Rows;
use super::todo::Todo;
use super::transaction::{ROOT, Transaction};
use crate::core::{Errno, Ino, Time};
use crate::wire::DATA_BYTES_MAX;
use crate::wire::mds::{Answer, Cred};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;
/// What a page counts for in `blocks`.
pub(super) const PAGE_BLOCKS: u64 = PAGE_BYTES as u64 / 512;
/// The longest file.
const SIZE_MAX: u64 = i64::MAX as u64;

/// The page that holds a byte, and the byte's place in it.
fn place_of(offset: u64) -> (u32, usize) {
    ((offset / PAGE_BYTES as u64) as u32, (offset % PAGE_BYTES as u64) as usize)
}

/// Up to `len` bytes from `offset`, which end with the file or its part on the MDT.
pub(super) fn read(rows: &dyn Rows, ino: Ino, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
    read_from(rows, &inode::get(rows, ino)?, offset, len)
}

/// [`read`] of an inode that was loaded already.
pub(super) fn read_from(rows: &dyn Rows, inode: &Inode, offset: u64, len: u32) -> Result<Vec<u8>, Errno> {
    let file = inode.file()?;
    // The part on the MDT has a bound, and so has what is set aside here.
    let end = inode.attr.size.min(file.layout.inline_bytes());
    let end = end.min(offset.saturating_add(len.min(DATA_BYTES_MAX).into()));
    let mut bytes = vec![0; end.saturating_sub(offset) as usize];
    if bytes.is_empty() || file.pages == 0 {
        return Ok(bytes);
    }
    let (first, _) = place_of(offset);
    let (last, _) = place_of(end - 1);
    let from = keys::page(inode.attr.ino, first);
    let to = keys::page(inode.attr.ino, last + 1);
    rows.scan(&from, &to, &mut |key, page| {
        if let Some(number) = keys::page_of(key) {
            copy_page(&mut bytes, offset, u64::from(number) * PAGE_BYTES as u64, page);
        }
        ControlFlow::Continue(())
    })?;
    Ok(bytes)
}

/// Copies what a page at `at` in the file has of the bytes from `offset`.
fn copy_page(bytes: &mut [u8], offset: u64, at: u64, page: &[u8]) {
    let skip = offset.saturating_sub(at) as usize;
    let Some(page) = page.get(skip..) else { return };
    let Some(bytes) = bytes.get_mut(at.saturating_sub(offset) as usize..) else { return };
    let len = page.len().min(bytes.len());
    bytes[..len].copy_from_slice(&page[..len]);
}

/// Writes the bulk.
pub(super) fn write(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    offset: u64,
    crc: u32,
    mtime: Time,
    cred: &Cred,
) -> Result<Answer, Errno> {
    let bulk = transaction.bulk;
    if crc32c::crc32c(bulk) != crc {
        return Err(Errno::EIO);
    }
    let mut inode = transaction.inode(ino)?;
    let end = offset.checked_add(bulk.len() as u64).ok_or(Errno::EFBIG)?;
    if end > inode.file()?.layout.inline_bytes() {
        return Err(Errno::EINVAL);
    }
    let mut done = 0;
    while done < bulk.len() {
        let (number, from) = place_of(offset + done as u64);
        let len = (PAGE_BYTES - from).min(bulk.len() - done);
        write_page(transaction, &mut inode, number, from, &bulk[done..done + len])?;
        done += len;
    }
    inode.attr.size = inode.attr.size.max(end);
    inode.attr.mtime = mtime;
    if cred.uid != ROOT {
        inode.kill_set_id();
    }
    inode.written(mtime);
    transaction.save(&inode);
    Ok(Answer::Attr(inode.attr))
}

/// Puts bytes into a page from `from` on.
fn write_page(
    transaction: &mut Transaction<'_>,
    inode: &mut Inode,
    number: u32,
    from: usize,
    bytes: &[u8],
) -> Result<(), Errno> {
    let key = keys::page(inode.attr.ino, number);
    let old = if inode.file()?.pages == 0 { None } else { transaction.get(&key)? };
    inode.count_pages(u32::from(old.is_none()), 0)?;
    let mut page = old.unwrap_or_default();
    let end = from + bytes.len();
    if page.len() < end {
        page.resize(end, 0);
    }
    page[from..end].copy_from_slice(bytes);
    transaction.put(&key, page);
    Ok(())
}

/// Makes a range zeros.
pub(super) fn zero(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    offset: u64,
    len: u64,
) -> Result<Answer, Errno> {
    let mut inode = transaction.inode(ino)?;
    let end = offset.saturating_add(len).min(inode.file()?.layout.inline_bytes());
    clear(transaction, &mut inode, offset, end)?;
    inode.attr.mtime = transaction.now;
    inode.changed(transaction.now);
    transaction.save(&inode);
    Ok(Answer::Attr(inode.attr))
}

/// Makes what the pages have between two places zeros. The inode is changed, and to be saved.
fn clear(transaction: &mut Transaction<'_>, inode: &mut Inode, start: u64, end: u64) -> Result<(), Errno> {
    if inode.file()?.pages == 0 || start >= end {
        return Ok(());
    }
    let (first, _) = place_of(start);
    let (last, _) = place_of(end - 1);
    let from = keys::page(inode.attr.ino, first);
    let to = keys::page(inode.attr.ino, last.saturating_add(1));
    let mut pages = Vec::new();
    transaction.scan(&from, &to, &mut |key, page| {
        pages.push((key.to_vec(), page.to_vec()));
        ControlFlow::Continue(())
    })?;
    for (key, page) in pages {
        let at = u64::from(keys::page_of(&key).ok_or(Errno::EIO)?) * PAGE_BYTES as u64;
        clear_page(transaction, inode, &key, page, (start.saturating_sub(at), end - at))?;
    }
    Ok(())
}

/// Makes a range of a page zeros; the page goes when nothing is left of it.
fn clear_page(
    transaction: &mut Transaction<'_>,
    inode: &mut Inode,
    key: &[u8],
    mut page: Vec<u8>,
    (from, to): (u64, u64),
) -> Result<(), Errno> {
    let from = page.len().min(from as usize);
    if to >= page.len() as u64 {
        page.truncate(from);
    } else {
        page[from..to as usize].fill(0);
    }
    if page.is_empty() || from == 0 && page.iter().all(|byte| *byte == 0) {
        inode.count_pages(0, 1)?;
        transaction.delete(key);
    } else {
        transaction.put(key, page);
    }
    Ok(())
}

/// Cuts a file, or extends it by a hole. The inode is changed, and to be saved.
pub(super) fn resize(transaction: &mut Transaction<'_>, inode: &mut Inode, size: u64) -> Result<(), Errno> {
    inode.file()?;
    if size > SIZE_MAX {
        return Err(Errno::EFBIG);
    }
    if size < inode.attr.size {
        cut_objects(transaction, inode, size)?;
        let inline = inode.file()?.layout.inline_bytes();
        clear(transaction, inode, size, inline)?;
        inode.limit_object_blocks(size)?;
    }
    inode.attr.size = size;
    inode.attr.mtime = transaction.now;
    Ok(())
}

fn cut_objects(transaction: &mut Transaction<'_>, inode: &Inode, size: u64) -> Result<(), Errno> {
    for (ost, object, len) in inode.file()?.layout.cut(size) {
        transaction.plan(Todo::Cut { ost, object, len })?;
    }
    Ok(())
}

/// Cuts the objects of a file to its length.
pub(super) fn trim(transaction: &mut Transaction<'_>, ino: Ino) -> Result<(), Errno> {
    match inode::find(transaction, ino)? {
        Some(inode) if inode.file().is_ok() => cut_objects(transaction, &inode, inode.attr.size),
        _ => Ok(()),
    }
}

/// What a session wrote at the OSTs.
pub(super) struct Written {
    pub(super) size: u64,
    pub(super) mtime: Option<Time>,
    pub(super) blocks: Option<u64>,
}

/// Takes what a session wrote at the OSTs into account.
pub(super) fn written(
    transaction: &mut Transaction<'_>,
    ino: Ino,
    written: &Written,
    kill_suid_sgid: bool,
) -> Result<Answer, Errno> {
    if written.size > SIZE_MAX {
        return Err(Errno::EFBIG);
    }
    let mut inode = transaction.inode(ino)?;
    inode.file()?;
    inode.attr.size = inode.attr.size.max(written.size);
    inode.attr.mtime = written.mtime.unwrap_or(inode.attr.mtime);
    if let Some(blocks) = written.blocks {
        inode.set_object_blocks(blocks)?;
    }
    if kill_suid_sgid {
        inode.kill_set_id();
    }
    match written.mtime {
        Some(mtime) => inode.written(mtime),
        // The length of what was written before, or the space that it uses: nobody sees another time for it.
        None => inode.attr.version += 1,
    }
    transaction.save(&inode);
    Ok(Answer::Attr(inode.attr))
}
