//! What stat(2) tells of an inode, and how it is changed.

use serde::{Deserialize, Serialize};

use super::ids::Ino;

/// A moment, since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds; negative before 1970.
    pub secs: i64,
    /// **Invariant:** below 1,000,000,000.
    pub nanos: u32,
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// A file with data.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// The attributes of an inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// Which inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permissions with set-id and sticky bits: the lower 12 bits of `st_mode`.
    pub mode: u16,
    /// Names that lead here; a directory has 2 and one for each directory in it.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Project, for quotas; inherited from the directory where that says so.
    pub project: u32,
    /// Device number of a device.
    pub rdev: u32,
    /// Length in bytes; of a directory, bytes of its names.
    pub size: u64,
    /// Space used, in units of 512 bytes.
    pub blocks: u64,
    /// Last read, as relatime keeps it.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the content or the attributes.
    pub ctime: Time,
    /// When it was made.
    pub btime: Time,
    /// Goes up with every change of attributes, names or content that the MDT sees.
    pub version: u64,
    /// Bits of [`Attr::NO_ACL`] and its like.
    pub flags: u32,
}

impl Attr {
    /// Those of what is new: root's, without content.
    pub fn new(ino: Ino, kind: FileKind, mode: u16, now: Time) -> Attr {
        Attr {
            ino,
            kind,
            mode,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            project: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            version: 1,
            flags: Attr::NO_XATTR,
        }
    }

    /// Those of an empty file.
    #[cfg(test)]
    pub(crate) fn of_empty_file(ino: Ino, version: u64) -> Attr {
        Attr { version, flags: 0, ..Attr::new(ino, FileKind::Regular, 0o644, Time::default()) }
    }

    /// It has no ACL and no extended attribute: the client need not ask.
    pub const NO_XATTR: u32 = 1;
    /// New entries of this directory take its project (chattr +P).
    pub const PROJECT_INHERIT: u32 = 1 << 1;
}

/// A time to be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The time at which the MDS serves the request.
    Now,
    /// This time.
    To(Time),
}

/// What setattr changes; `None` stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// The lower 12 bits of the mode.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Project; for root alone.
    pub project: Option<u32>,
    /// Whether new entries of a directory take its project; for root alone.
    pub project_inherit: Option<bool>,
    /// Length: cuts, or extends by a hole.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Drop set-user-id and set-group-id as chown and write by others than root do.
    pub kill_suid_sgid: bool,
}
