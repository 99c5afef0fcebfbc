//! Answers to the kernel, encoded.

use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::Bytes;

use super::abi;
use super::tree::Tree;
use crate::core::{Attr, Errno, FileKind, Ino, Time};
use crate::wire::mds::{LockKind, RecordLock};

/// The block size that programs are told, in bytes.
const BLOCK_BYTES: u32 = 4096;
/// What `st_blksize` says: programs that heed it read and write in pieces of this, in bytes.
const IO_BYTES: u32 = 1 << 20;
/// Room for the longest fixed part of an answer.
const FIXED_BYTES: usize = abi::ENTRY_OUT_BYTES + 32;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Done,
    Entry(Entry),
    /// The name is not there, and the kernel may rely on it for so long.
    NoEntry(Duration),
    Attr {
        attr: Attr,
        keep: Duration,
    },
    Created(Entry, Opened),
    Opened(Opened),
    /// Data of a file or a directory, a link's target, an attribute's value.
    Bytes(Bytes),
    Written(u32),
    XattrSize(u32),
    Statfs(Statfs),
    /// The lock that is in the way.
    Lock(Option<RecordLock>),
    Offset(u64),
}

/// A name that leads to an inode.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) attr: Attr,
    /// How long the kernel may rely on the name.
    pub(crate) keep_name: Duration,
    /// How long it may rely on the attributes.
    pub(crate) keep_attr: Duration,
}

/// An open file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) handle: u64,
    /// `FOPEN_` bits.
    pub(crate) flags: u32,
}

/// What statfs(2) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statfs {
    pub(crate) total_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) available_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) free_inodes: u64,
}

/// Encodes an answer and gives it to `carry`, the data of the answer uncopied.
pub(super) fn encode<R>(
    unique: u64,
    tree: Tree,
    outcome: Result<&Reply, Errno>,
    carry: impl FnOnce(&[IoSlice<'_>]) -> R,
) -> R {
    let mut fixed = Out::new(tree);
    let mut data: &[u8] = &[];
    let error = match outcome {
        Ok(reply) => {
            data = fixed.reply(reply);
            0
        }
        Err(errno) => -errno.0,
    };
    let len = abi::OUT_HEADER_BYTES + fixed.len + data.len();
    let mut header = [0; abi::OUT_HEADER_BYTES];
    header[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&error.to_ne_bytes());
    header[8..].copy_from_slice(&unique.to_ne_bytes());
    let parts = [IoSlice::new(&header), IoSlice::new(fixed.bytes()), IoSlice::new(data)];
    let used = if data.is_empty() { 2 } else { 3 };
    carry(&parts[..used])
}

/// The fixed part of an answer under construction.
struct Out {
    bytes: [u8; FIXED_BYTES],
    /// **Invariant:** at most `FIXED_BYTES`: no answer has a longer fixed part.
    len: usize,
    /// Of which filesystem the inodes are.
    tree: Tree,
}

impl Out {
    fn new(tree: Tree) -> Out {
        Out { bytes: [0; FIXED_BYTES], len: 0, tree }
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn u32(&mut self, value: u32) {
        self.put(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(&value.to_ne_bytes());
    }

    /// Writes the fixed part, returns what follows.
    fn reply<'r>(&mut self, reply: &'r Reply) -> &'r [u8] {
        match reply {
            Reply::Done => {}
            Reply::Entry(entry) => self.entry(entry),
            Reply::NoEntry(keep) => self.no_entry(*keep),
            Reply::Attr { attr, keep } => {
                self.u64(keep.as_secs());
                self.u32(keep.subsec_nanos());
                self.u32(0);
                self.attr(attr);
            }
            Reply::Created(entry, opened) => {
                self.entry(entry);
                self.opened(*opened);
            }
            Reply::Opened(opened) => self.opened(*opened),
            Reply::Bytes(bytes) => return bytes,
            Reply::Written(len) | Reply::XattrSize(len) => {
                self.u32(*len);
                self.u32(0);
            }
            Reply::Statfs(statfs) => self.statfs(statfs),
            Reply::Lock(lock) => self.lock(lock.as_ref()),
            Reply::Offset(offset) => self.u64(*offset),
        }
        &[]
    }

    fn entry(&mut self, entry: &Entry) {
        self.entry_head(self.tree.node(entry.attr.ino), entry.keep_name, entry.keep_attr);
        self.attr(&entry.attr);
    }

    fn no_entry(&mut self, keep: Duration) {
        self.entry_head(0, keep, Duration::ZERO);
        self.len = abi::ENTRY_OUT_BYTES;
    }

    fn entry_head(&mut self, node: u64, keep_name: Duration, keep_attr: Duration) {
        self.u64(node);
        self.u64(0);
        self.u64(keep_name.as_secs());
        self.u64(keep_attr.as_secs());
        self.u32(keep_name.subsec_nanos());
        self.u32(keep_attr.subsec_nanos());
    }

    fn opened(&mut self, opened: Opened) {
        self.u64(opened.handle);
        self.u32(opened.flags);
        self.u32(0);
    }

    fn attr(&mut self, attr: &Attr) {
        let times = [attr.atime, attr.mtime, attr.ctime];
        self.u64(self.tree.node(attr.ino));
        self.u64(attr.size);
        self.u64(attr.blocks);
        for Time { secs, .. } in times {
            self.u64(secs as u64);
        }
        for Time { nanos, .. } in times {
            self.u32(nanos);
        }
        self.u32(mode(attr.kind) | u32::from(attr.mode & 0o7777));
        self.u32(attr.nlink);
        self.u32(attr.uid);
        self.u32(attr.gid);
        self.u32(attr.rdev);
        self.u32(if attr.kind == FileKind::Regular { IO_BYTES } else { BLOCK_BYTES });
        self.u32(0);
    }

    fn statfs(&mut self, statfs: &Statfs) {
        let block = u64::from(BLOCK_BYTES);
        for bytes in [statfs.total_bytes, statfs.free_bytes, statfs.available_bytes] {
            self.u64(bytes / block);
        }
        self.u64(statfs.inodes);
        self.u64(statfs.free_inodes);
        self.u32(BLOCK_BYTES);
        self.u32(crate::wire::NAME_BYTES_MAX as u32);
        self.u32(BLOCK_BYTES);
        // Padding and spare fields.
        self.put(&[0; 28]);
    }

    fn lock(&mut self, lock: Option<&RecordLock>) {
        let (start, last, pid) = lock.map_or((0, 0, 0), |lock| (lock.start, lock.last, lock.pid));
        let kind = match lock.map(|lock| lock.kind) {
            None | Some(LockKind::None) => libc::F_UNLCK,
            Some(LockKind::Shared) => libc::F_RDLCK,
            Some(LockKind::Exclusive) => libc::F_WRLCK,
        };
        self.u64(start);
        self.u64(last.min(i64::MAX as u64));
        self.u32(kind as u32);
        self.u32(pid);
    }
}

/// The upper bits of `st_mode`.
fn mode(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
    }
}

/// The kind that the upper bits of a mode name.
pub(crate) fn kind_of(mode: u32) -> Option<FileKind> {
    Some(match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => FileKind::Regular,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Symlink,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => return None,
    })
}

/// Entries of a directory under construction, up to the size that the kernel gave.
#[derive(Debug)]
pub(crate) struct Entries {
    bytes: Vec<u8>,
    bytes_max: usize,
    tree: Tree,
}

impl Entries {
    /// Names of a directory of this filesystem.
    pub(crate) fn new(bytes_max: u32, tree: Tree) -> Entries {
        // Room for what one getdents(2) can take; more is allocated when it is used.
        let bytes = Vec::with_capacity(bytes_max.min(64 << 10) as usize);
        Entries { bytes, bytes_max: bytes_max as usize, tree }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        Bytes::from(self.bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Adds a name; `false` when there is no room for it. `next` is where to go on behind it.
    pub(crate) fn push(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) -> bool {
        if self.bytes.len() + record_bytes(0, name) > self.bytes_max {
            return false;
        }
        self.dirent(ino, kind, name, next);
        true
    }

    /// Adds a name with attributes; without `entry` the kernel takes the name alone.
    pub(crate) fn push_plus(
        &mut self,
        ino: Ino,
        kind: FileKind,
        name: &[u8],
        next: u64,
        entry: Option<&Entry>,
    ) -> bool {
        if self.bytes.len() + record_bytes(abi::ENTRY_OUT_BYTES, name) > self.bytes_max {
            return false;
        }
        let mut out = Out::new(self.tree);
        match entry {
            Some(entry) => out.entry(entry),
            None => out.no_entry(Duration::ZERO),
        }
        self.bytes.extend_from_slice(out.bytes());
        self.dirent(ino, kind, name, next);
        true
    }

    fn dirent(&mut self, ino: Ino, kind: FileKind, name: &[u8], next: u64) {
        self.bytes.extend_from_slice(&self.tree.node(ino).to_ne_bytes());
        self.bytes.extend_from_slice(&next.to_ne_bytes());
        self.bytes.extend_from_slice(&(name.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&(mode(kind) >> 12).to_ne_bytes());
        self.bytes.extend_from_slice(name);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
    }
}

fn record_bytes(before: usize, name: &[u8]) -> usize {
    before + (abi::DIRENT_BYTES + name.len()).next_multiple_of(8)
}

/// Encodes a message that nobody has asked for.
pub(super) fn notify(
    code: i32,
    body: &[u8],
    name: &[u8],
    carry: impl FnOnce(&[IoSlice<'_>]) -> io::Result<()>,
) -> io::Result<()> {
    let len = abi::OUT_HEADER_BYTES + body.len() + name.len();
    let mut header = [0; abi::OUT_HEADER_BYTES];
    header[..4].copy_from_slice(&(len as u32).to_ne_bytes());
    header[4..8].copy_from_slice(&code.to_ne_bytes());
    carry(&[IoSlice::new(&header), IoSlice::new(body), IoSlice::new(name)])
}
