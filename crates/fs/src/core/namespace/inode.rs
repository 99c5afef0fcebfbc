//! Rows of inodes.

use serde::{Deserialize, Serialize};

use super::data::{PAGE_BLOCKS, PAGE_BYTES};
use super::keys;
use super::rows::{Row, Rows, load};
use crate::core::quota::BLOCK_BYTES;
use crate::core::{Attr, Errno, FileKind, Ino, Layout, Spread, Time};

/// The most names of an inode, and one more than the most directories in a directory.
pub const LINKS_MAX: u32 = 1 << 24;

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inode {
    pub(super) attr: Attr,
    pub(super) home: Home,
    pub(super) body: Body,
}

/// How an inode is found in the tree. A file with several names has one of them here; the others are rows of links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Home {
    /// It is the root.
    Root,
    /// Under this name.
    Name(Link),
    /// It was made without a name, and may get one. **Invariant:** it has a row among the orphans.
    Unnamed,
    /// It lost its last name. **Invariant:** it has a row among the orphans.
    Gone,
}

/// A name in a directory, by its cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Link {
    pub(super) parent: Ino,
    pub(super) cursor: u64,
}

/// What an inode has beside attributes. **Invariant:** fits `attr.kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Body {
    File(File),
    Directory(Directory),
    Symlink(Vec<u8>),
    /// Pipes, sockets and devices.
    Node,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct File {
    pub(super) layout: Layout,
    /// Rows of data.
    pub(super) pages: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Directory {
    /// The cursor of the next name. Never 0, and never used again.
    pub(super) cursor_next: u64,
    /// Names in it.
    pub(super) entries: u64,
    /// The layout of new files.
    pub(super) default: Option<Spread>,
}

impl Row for Inode {
    const VERSION: u8 = 1;
}

impl Inode {
    pub(super) fn file(&self) -> Result<&File, Errno> {
        match &self.body {
            Body::File(file) => Ok(file),
            Body::Directory(_) => Err(Errno::EISDIR),
            Body::Symlink(_) | Body::Node => Err(Errno::EINVAL),
        }
    }

    pub(super) fn file_mut(&mut self) -> Result<&mut File, Errno> {
        self.file()?;
        let Body::File(file) = &mut self.body else { unreachable!("it was one just now") };
        Ok(file)
    }

    pub(super) fn directory(&self) -> Result<&Directory, Errno> {
        match &self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    pub(super) fn directory_mut(&mut self) -> Result<&mut Directory, Errno> {
        match &mut self.body {
            Body::Directory(directory) => Ok(directory),
            _ => Err(Errno::ENOTDIR),
        }
    }

    /// The directory that a directory is in.
    pub(super) fn parent(&self) -> Ino {
        match self.home {
            Home::Name(link) => link.parent,
            Home::Root | Home::Unnamed | Home::Gone => self.attr.ino,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.attr.kind == FileKind::Directory
    }

    /// Content changed when it was written, of which the MDT may hear later: who has seen the file since, with what was
    /// held back, sees no other time afterwards.
    pub(super) fn written(&mut self, when: Time) {
        self.attr.ctime = self.attr.ctime.max(when);
        self.attr.version += 1;
    }

    /// Attributes, names or content change.
    pub(super) fn changed(&mut self, now: Time) {
        self.attr.ctime = now;
        self.attr.version += 1;
    }

    /// Takes `add` rows of data more, and `sub` fewer, into account.
    pub(super) fn count_pages(&mut self, add: u32, sub: u32) -> Result<(), Errno> {
        let file = self.file_mut()?;
        file.pages = (file.pages + add).saturating_sub(sub);
        self.attr.blocks =
            (self.attr.blocks + u64::from(add) * PAGE_BLOCKS).saturating_sub(u64::from(sub) * PAGE_BLOCKS);
        Ok(())
    }

    /// Sets the space that its objects use, in units of 512 bytes.
    pub(super) fn set_object_blocks(&mut self, blocks: u64) -> Result<(), Errno> {
        let pages = u64::from(self.file()?.pages);
        self.attr.blocks = blocks.saturating_add(pages * PAGE_BLOCKS);
        Ok(())
    }

    /// The objects were cut to what a file of `size` bytes fills: they use no more than that.
    pub(super) fn limit_object_blocks(&mut self, size: u64) -> Result<(), Errno> {
        let file = self.file()?;
        let pages = u64::from(file.pages) * PAGE_BLOCKS;
        let most = pages + file.layout.object_space_max(size, PAGE_BYTES as u64) / BLOCK_BYTES;
        self.attr.blocks = self.attr.blocks.min(most);
        Ok(())
    }

    /// Drops set-user-id and set-group-id as a change of owner or content does (`should_remove_suid` of Linux): the
    /// latter only where the group may execute, since otherwise it does not mean that.
    pub(super) fn kill_set_id(&mut self) {
        const SET_UID: u16 = 0o4000;
        const SET_GID: u16 = 0o2000;
        const GROUP_EXECUTE: u16 = 0o010;
        if self.is_directory() {
            return;
        }
        self.attr.mode &= !SET_UID;
        if self.attr.mode & GROUP_EXECUTE != 0 {
            self.attr.mode &= !SET_GID;
        }
    }
}

/// The inode, where there is one.
pub(super) fn find(rows: &dyn Rows, ino: Ino) -> Result<Option<Inode>, Errno> {
    load(rows, &keys::inode(ino))
}

/// The inode; `ESTALE` when it is not, or no more, there.
pub(super) fn get(rows: &dyn Rows, ino: Ino) -> Result<Inode, Errno> {
    find(rows, ino)?.ok_or(Errno::ESTALE)
}
