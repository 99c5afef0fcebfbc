//! Questions that change nothing.

use super::filesystem::Filesystem;
use super::inode::{self, Body};
use super::rows::{Rows, load};
use super::{accounts, data, directory, keys, links, xattr};
use crate::core::{Errno, Ino, Spread};
use crate::wire::NAME_BYTES_MAX;
use crate::wire::mds::{Answer, Ask};

/// An answer with its bulk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The answer.
    pub answer: Answer,
    /// File data that goes with it.
    pub bulk: Vec<u8>,
}

impl From<Answer> for Asked {
    fn from(answer: Answer) -> Asked {
        Asked { answer, bulk: Vec::new() }
    }
}

/// The answer to what the rows can tell. Of an open, a lease: the file as it is. `ENOSYS` to what is about sessions and
/// targets, which their server knows.
pub fn ask(rows: &dyn Rows, ask: &Ask) -> Result<Asked, Errno> {
    Ok(match ask {
        Ask::Lookup { parent, name } => lookup(rows, *parent, name)?.into(),
        Ask::Getattr { ino } => Answer::Attr(inode::get(rows, *ino)?.attr).into(),
        Ask::Open { ino, data_max, .. } => open(rows, *ino, *data_max)?,
        Ask::Lease { ino, .. } => open(rows, *ino, 0)?,
        Ask::Readlink { ino } => readlink(rows, *ino)?.into(),
        Ask::Readdir { ino, after, bytes_max, plus } => {
            let (names, end) = directory::read(rows, *ino, *after, *bytes_max, *plus)?;
            Answer::Names { names, end, parent: inode::get(rows, *ino)?.parent() }.into()
        }
        Ask::GetXattr { ino, name } => Answer::Bytes(xattr::get(rows, *ino, name)?).into(),
        Ask::ListXattr { ino } => Answer::Bytes(xattr::list(rows, *ino)?).into(),
        Ask::Layout { ino } => Answer::Layout(inode::get(rows, *ino)?.file()?.layout.clone()).into(),
        Ask::Default { ino } => default(rows, *ino)?.into(),
        Ask::ReadInline { ino, offset, len } => {
            let bulk = data::read(rows, *ino, *offset, *len)?;
            Asked { answer: Answer::Data { crc: crc32c::crc32c(&bulk) }, bulk }
        }
        Ask::Paths { ino, count_max } => Answer::Paths(links::paths(rows, *ino, *count_max)?).into(),
        Ask::Quota { kind, id } => accounts::ask(rows, *kind, *id)?.into(),
        Ask::Close { .. } | Ask::Release { .. } | Ask::Sync | Ask::Statfs => return Err(Errno::ENOSYS),
    })
}

fn lookup(rows: &dyn Rows, parent: Ino, name: &[u8]) -> Result<Answer, Errno> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let Some(entry) = directory::find(rows, parent, name)? else {
        inode::get(rows, parent)?.directory()?;
        return Err(Errno::ENOENT);
    };
    Ok(Answer::Entry(inode::get(rows, entry.ino)?.attr))
}

fn open(rows: &dyn Rows, ino: Ino, data_max: u32) -> Result<Asked, Errno> {
    let inode = inode::get(rows, ino)?;
    let layout = inode.file()?.layout.clone();
    let is_sent = data_max > 0 && layout.inline_bytes() > 0;
    let bulk = if is_sent { data::read_from(rows, &inode, 0, data_max)? } else { Vec::new() };
    let data = is_sent.then_some(bulk.len() as u32);
    Ok(Asked { answer: Answer::Opened { attr: inode.attr, layout, shared: false, data, made: false }, bulk })
}

fn readlink(rows: &dyn Rows, ino: Ino) -> Result<Answer, Errno> {
    match inode::get(rows, ino)?.body {
        Body::Symlink(target) => Ok(Answer::Bytes(target)),
        _ => Err(Errno::EINVAL),
    }
}

fn default(rows: &dyn Rows, ino: Ino) -> Result<Answer, Errno> {
    let own: Option<Spread> = inode::get(rows, ino)?.directory()?.default.clone();
    if let Some(spread) = own {
        return Ok(Answer::Spread(spread, true));
    }
    let filesystem: Filesystem = load(rows, keys::FILESYSTEM)?.ok_or(Errno::EIO)?;
    Ok(Answer::Spread(filesystem.spread, false))
}
