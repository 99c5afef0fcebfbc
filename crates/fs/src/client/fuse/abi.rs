//! Numbers of the kernel's FUSE interface (`include/uapi/linux/fuse.h`, version 7.45).

/// Request codes.
pub(super) mod op {
    pub(in super::super) const LOOKUP: u32 = 1;
    pub(in super::super) const FORGET: u32 = 2;
    pub(in super::super) const GETATTR: u32 = 3;
    pub(in super::super) const SETATTR: u32 = 4;
    pub(in super::super) const READLINK: u32 = 5;
    pub(in super::super) const SYMLINK: u32 = 6;
    pub(in super::super) const MKNOD: u32 = 8;
    pub(in super::super) const MKDIR: u32 = 9;
    pub(in super::super) const UNLINK: u32 = 10;
    pub(in super::super) const RMDIR: u32 = 11;
    pub(in super::super) const RENAME: u32 = 12;
    pub(in super::super) const LINK: u32 = 13;
    pub(in super::super) const OPEN: u32 = 14;
    pub(in super::super) const READ: u32 = 15;
    pub(in super::super) const WRITE: u32 = 16;
    pub(in super::super) const STATFS: u32 = 17;
    pub(in super::super) const RELEASE: u32 = 18;
    pub(in super::super) const FSYNC: u32 = 20;
    pub(in super::super) const SETXATTR: u32 = 21;
    pub(in super::super) const GETXATTR: u32 = 22;
    pub(in super::super) const LISTXATTR: u32 = 23;
    pub(in super::super) const REMOVEXATTR: u32 = 24;
    pub(in super::super) const FLUSH: u32 = 25;
    pub(in super::super) const OPENDIR: u32 = 27;
    pub(in super::super) const READDIR: u32 = 28;
    pub(in super::super) const RELEASEDIR: u32 = 29;
    pub(in super::super) const FSYNCDIR: u32 = 30;
    pub(in super::super) const GETLK: u32 = 31;
    pub(in super::super) const SETLK: u32 = 32;
    pub(in super::super) const SETLKW: u32 = 33;
    pub(in super::super) const CREATE: u32 = 35;
    pub(in super::super) const INTERRUPT: u32 = 36;
    pub(in super::super) const DESTROY: u32 = 38;
    pub(in super::super) const BATCH_FORGET: u32 = 42;
    pub(in super::super) const FALLOCATE: u32 = 43;
    pub(in super::super) const READDIRPLUS: u32 = 44;
    pub(in super::super) const RENAME2: u32 = 45;
    pub(in super::super) const LSEEK: u32 = 46;
    pub(in super::super) const COPY_FILE_RANGE: u32 = 47;
    pub(in super::super) const TMPFILE: u32 = 51;
}

/// Notification codes.
pub(super) mod notify {
    pub(in super::super) const INVAL_INODE: i32 = 2;
    pub(in super::super) const INVAL_ENTRY: i32 = 3;
    pub(in super::super) const INC_EPOCH: i32 = 8;
}

/// Bits in requests and answers.
pub(crate) mod flags {
    pub(crate) const FOPEN_DIRECT_IO: u32 = 1;
    pub(crate) const FOPEN_KEEP_CACHE: u32 = 1 << 1;
    pub(crate) const FOPEN_NOFLUSH: u32 = 1 << 5;
    pub(crate) const FOPEN_PARALLEL_DIRECT_WRITES: u32 = 1 << 6;

    pub(crate) const FATTR_MODE: u32 = 1;
    pub(crate) const FATTR_UID: u32 = 1 << 1;
    pub(crate) const FATTR_GID: u32 = 1 << 2;
    pub(crate) const FATTR_SIZE: u32 = 1 << 3;
    pub(crate) const FATTR_ATIME: u32 = 1 << 4;
    pub(crate) const FATTR_MTIME: u32 = 1 << 5;
    pub(crate) const FATTR_ATIME_NOW: u32 = 1 << 7;
    pub(crate) const FATTR_MTIME_NOW: u32 = 1 << 8;
    pub(crate) const FATTR_KILL_SUIDGID: u32 = 1 << 11;

    pub(crate) const OPEN_KILL_SUIDGID: u32 = 1;
    /// The reader is a program, not the page cache.
    pub(crate) const READ_LOCKOWNER: u32 = 1 << 1;
    /// The page cache writes back what a program stored in a mapping.
    pub(crate) const WRITE_CACHE: u32 = 1;
    pub(crate) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
    pub(crate) const FSYNC_FDATASYNC: u32 = 1;
    pub(crate) const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
    pub(crate) const LK_FLOCK: u32 = 1;
    pub(crate) const SETXATTR_ACL_KILL_SGID: u32 = 1;
}

/// Capabilities that are asked for when the mount begins, if the kernel offers them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Init;

impl Init {
    /// Reads of one file go out together.
    const ASYNC_READ: u64 = 1;
    /// fcntl(2) locks are the filesystem's.
    const POSIX_LOCKS: u64 = 1 << 1;
    /// `O_TRUNC` comes with the open.
    const ATOMIC_O_TRUNC: u64 = 1 << 3;
    const BIG_WRITES: u64 = 1 << 5;
    /// The umask is applied by the MDS, which knows of default ACLs.
    const DONT_MASK: u64 = 1 << 6;
    /// flock(2) locks are the filesystem's.
    const FLOCK_LOCKS: u64 = 1 << 10;
    const DO_READDIRPLUS: u64 = 1 << 13;
    /// The kernel asks for attributes with names while programs use them.
    const READDIRPLUS_AUTO: u64 = 1 << 14;
    const ASYNC_DIO: u64 = 1 << 15;
    const PARALLEL_DIROPS: u64 = 1 << 18;
    const POSIX_ACL: u64 = 1 << 20;
    const MAX_PAGES: u64 = 1 << 22;
    const CACHE_SYMLINKS: u64 = 1 << 23;
    /// Pages are dropped when this mount says so, never because times changed.
    const EXPLICIT_INVAL_DATA: u64 = 1 << 25;
    /// Set-id bits are dropped by who knows the mode.
    const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    const SETXATTR_EXT: u64 = 1 << 29;
    /// Files that bypass the page cache can be mapped all the same.
    const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;

    /// Every one of them.
    pub(crate) const WANTED: u64 = Init::ASYNC_READ
        | Init::POSIX_LOCKS
        | Init::ATOMIC_O_TRUNC
        | Init::BIG_WRITES
        | Init::DONT_MASK
        | Init::FLOCK_LOCKS
        | Init::DO_READDIRPLUS
        | Init::READDIRPLUS_AUTO
        | Init::ASYNC_DIO
        | Init::PARALLEL_DIROPS
        | Init::POSIX_ACL
        | Init::MAX_PAGES
        | Init::CACHE_SYMLINKS
        | Init::EXPLICIT_INVAL_DATA
        | Init::HANDLE_KILLPRIV_V2
        | Init::SETXATTR_EXT
        | Init::DIRECT_IO_ALLOW_MMAP;
}

/// Bytes in front of each request (`struct fuse_in_header`).
pub(super) const IN_HEADER_BYTES: usize = 40;
/// Bytes in front of each answer (`struct fuse_out_header`).
pub(super) const OUT_HEADER_BYTES: usize = 16;
/// `struct fuse_write_in`, the longest fixed part before data.
pub(super) const WRITE_IN_BYTES: usize = 40;
/// `struct fuse_entry_out`.
pub(super) const ENTRY_OUT_BYTES: usize = 128;
/// `struct fuse_dirent` before the name.
pub(super) const DIRENT_BYTES: usize = 24;
