//! What there is once: the first rows of an MDT, its counters, and what they count.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::inode::{Body, Directory, Home, Inode};
use super::rows::{Changes, Row, Rows, load};
use super::{accounts, keys};
use crate::core::{Attr, Errno, FileKind, Ino, Spread, Time};

/// Mode of the root of a new filesystem.
const ROOT_MODE: u16 = 0o755;

/// What is numbered, and counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// The index of this MDT, which is in every number of an inode.
    pub(super) mdt: u16,
    /// The number within the MDT of the next inode.
    pub(super) ino_next: u64,
    /// The next object.
    pub(super) object_next: u64,
    /// The next entry of the to-do list.
    pub(super) todo_next: u64,
    /// Inodes that are there.
    pub(super) inodes: u64,
}

impl Row for Counters {
    const VERSION: u8 = 1;
}

/// What is the same for all of the filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Filesystem {
    /// The layout of new files where no directory says otherwise.
    pub(super) spread: Spread,
}

impl Row for Filesystem {
    const VERSION: u8 = 1;
}

/// The rows of a new MDT, which gives new files this layout. The root is on the MDT with index 0, and belongs to `owner`, a user
/// and a group.
pub fn format(mdt: u16, spread: &Spread, owner: (u32, u32), now: Time) -> Changes {
    let mut changes = Changes::new();
    let mut put = |key: &[u8], value: Vec<u8>| changes.insert(key.to_vec(), Some(value));
    let has_root = mdt == 0;
    let (uid, gid) = owner;
    let attr = Attr { uid, gid, ..Attr::new(Ino::ROOT, FileKind::Directory, ROOT_MODE, now) };
    if has_root {
        let root = Directory { cursor_next: 1, entries: 0, default: None };
        let root = Inode { attr: attr.clone(), home: Home::Root, body: Body::Directory(root) };
        put(&keys::inode(Ino::ROOT), root.encode());
    }
    let ino_next = Ino::ROOT.counter() + u64::from(has_root);
    let counters = Counters { mdt, ino_next, object_next: 1, todo_next: 1, inodes: has_root.into() };
    put(keys::COUNTERS, counters.encode());
    put(keys::FILESYSTEM, Filesystem { spread: spread.clone() }.encode());
    changes.extend(accounts::first(has_root.then_some(&attr)));
    changes
}

/// What an MDT holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Inodes.
    pub inodes: u64,
}

/// What the MDT holds.
pub fn usage(rows: &dyn Rows) -> Result<Usage, Errno> {
    let counters: Counters = load(rows, keys::COUNTERS)?.ok_or(Errno::EIO)?;
    Ok(Usage { inodes: counters.inodes })
}

/// Inodes without a name, at most so many: those that were open when the server stopped, and nobody may have open now.
pub fn orphans(rows: &dyn Rows, count_max: usize) -> Result<Vec<Ino>, Errno> {
    let (from, to) = keys::orphans();
    let mut found = Vec::new();
    rows.scan(&from, &to, &mut |key, _| {
        if found.len() == count_max {
            return ControlFlow::Break(());
        }
        found.extend(keys::number_of(key).map(Ino));
        ControlFlow::Continue(())
    })?;
    Ok(found)
}
