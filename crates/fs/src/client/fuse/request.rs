//! Requests of the kernel, decoded.

use super::abi::{self, flags, op};
use crate::core::{Errno, Ino, SetTime, Time};
use crate::wire::mds::{LockKind, RecordLock};

/// A request.
#[derive(Debug)]
pub(crate) struct Request<'b> {
    /// The kernel's number of it.
    pub(crate) unique: u64,
    /// The inode it is about; the directory of requests about names.
    pub(crate) ino: Ino,
    /// Whose.
    pub(crate) uid: u32,
    /// Whose.
    pub(crate) gid: u32,
    /// The thread that asks.
    pub(crate) pid: u32,
    /// What is asked.
    pub(crate) op: Op<'b>,
}

/// What is asked; the fields as fuse(4) and the system call of the name have them.
#[derive(Clone, Debug)]
pub(crate) enum Op<'b> {
    Lookup {
        name: &'b [u8],
    },
    Forget {
        counts: Forgets<'b>,
    },
    Getattr,
    Setattr(Setattr),
    Readlink,
    Symlink {
        name: &'b [u8],
        target: &'b [u8],
    },
    Mknod {
        name: &'b [u8],
        mode: u32,
        rdev: u32,
        umask: u32,
    },
    Mkdir {
        name: &'b [u8],
        mode: u32,
        umask: u32,
    },
    Unlink {
        name: &'b [u8],
    },
    Rmdir {
        name: &'b [u8],
    },
    Rename {
        name: &'b [u8],
        to: Ino,
        to_name: &'b [u8],
        flags: u32,
    },
    Link {
        of: Ino,
        name: &'b [u8],
    },
    Open {
        flags: i32,
        kill_suid_sgid: bool,
    },
    Create {
        name: &'b [u8],
        flags: i32,
        mode: u32,
        umask: u32,
    },
    Tmpfile {
        flags: i32,
        mode: u32,
        umask: u32,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
        paged: bool,
    },
    Write {
        handle: u64,
        offset: u64,
        data: &'b [u8],
        paged: bool,
        kill_suid_sgid: bool,
        flags: i32,
    },
    Statfs,
    Release {
        handle: u64,
        flock_owner: Option<u64>,
    },
    Fsync {
        handle: u64,
        data_only: bool,
    },
    Setxattr {
        name: &'b [u8],
        value: &'b [u8],
        flags: u32,
        kill_sgid: bool,
    },
    Getxattr {
        name: &'b [u8],
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'b [u8],
    },
    Flush {
        owner: u64,
    },
    Opendir,
    Readdir {
        handle: u64,
        offset: u64,
        size: u32,
        plus: bool,
    },
    Releasedir {
        handle: u64,
    },
    Fsyncdir,
    Getlk {
        lock: RecordLock,
    },
    Setlk {
        handle: u64,
        lock: RecordLock,
        flock: bool,
        wait: bool,
    },
    Fallocate {
        handle: u64,
        offset: u64,
        len: u64,
        mode: i32,
    },
    Lseek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    CopyFileRange {
        from: u64,
        from_offset: u64,
        to_ino: Ino,
        to: u64,
        to_offset: u64,
        len: u64,
    },
    Interrupt {
        unique: u64,
    },
    Destroy,
    /// One that this client does not serve.
    Other,
}

/// What setattr changes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setattr {
    pub(crate) mode: Option<u32>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) size: Option<u64>,
    pub(crate) atime: Option<SetTime>,
    pub(crate) mtime: Option<SetTime>,
    pub(crate) kill_suid_sgid: bool,
}

/// Inodes that the kernel has dropped, each with the number of references.
#[derive(Clone, Debug)]
pub(crate) struct Forgets<'b> {
    one: Option<(Ino, u64)>,
    rest: Fields<'b>,
}

impl Iterator for Forgets<'_> {
    type Item = (Ino, u64);

    fn next(&mut self) -> Option<(Ino, u64)> {
        self.one.take().or_else(|| Some((Ino(self.rest.u64().ok()?), self.rest.u64().ok()?)))
    }
}

impl<'b> Request<'b> {
    /// Decodes one message of the kernel; `EIO` for one that is cut short.
    pub(crate) fn decode(bytes: &'b [u8]) -> Result<Request<'b>, Errno> {
        let mut head = Fields(bytes);
        let (len, opcode) = (head.u32()?, head.u32()?);
        let (unique, ino) = (head.u64()?, Ino(head.u64()?));
        let (uid, gid, pid) = (head.u32()?, head.u32()?, head.u32()?);
        let body = bytes.get(abi::IN_HEADER_BYTES..len as usize).ok_or(Errno::EIO)?;
        let op = decode_op(opcode, ino, Fields(body))?;
        Ok(Request { unique, ino, uid, gid, pid, op })
    }

    /// Whether the kernel waits for an answer.
    pub(crate) fn wants_answer(&self) -> bool {
        !matches!(self.op, Op::Forget { .. } | Op::Interrupt { .. })
    }
}

fn decode_op(opcode: u32, ino: Ino, mut body: Fields<'_>) -> Result<Op<'_>, Errno> {
    Ok(match opcode {
        op::LOOKUP => Op::Lookup { name: body.name()? },
        op::FORGET => {
            let one = Some((ino, body.u64()?));
            Op::Forget { counts: Forgets { one, rest: Fields(&[]) } }
        }
        op::BATCH_FORGET => {
            body.skip(8)?;
            Op::Forget { counts: Forgets { one: None, rest: body } }
        }
        op::GETATTR => Op::Getattr,
        op::SETATTR => Op::Setattr(setattr(body)?),
        op::READLINK => Op::Readlink,
        op::SYMLINK => Op::Symlink { name: body.name()?, target: body.name()? },
        op::MKNOD => {
            let (mode, rdev, umask) = (body.u32()?, body.u32()?, body.u32()?);
            body.skip(4)?;
            Op::Mknod { name: body.name()?, mode, rdev, umask }
        }
        op::MKDIR => {
            let (mode, umask) = (body.u32()?, body.u32()?);
            Op::Mkdir { name: body.name()?, mode, umask }
        }
        op::UNLINK => Op::Unlink { name: body.name()? },
        op::RMDIR => Op::Rmdir { name: body.name()? },
        op::RENAME => {
            let to = Ino(body.u64()?);
            Op::Rename { name: body.name()?, to, to_name: body.name()?, flags: 0 }
        }
        op::RENAME2 => {
            let (to, flags) = (Ino(body.u64()?), body.u32()?);
            body.skip(4)?;
            Op::Rename { name: body.name()?, to, to_name: body.name()?, flags }
        }
        op::LINK => Op::Link { of: Ino(body.u64()?), name: body.name()? },
        op::STATFS => Op::Statfs,
        op::SETXATTR => setxattr(body)?,
        op::GETXATTR => {
            let size = body.u32()?;
            body.skip(4)?;
            Op::Getxattr { name: body.name()?, size }
        }
        op::LISTXATTR => Op::Listxattr { size: body.u32()? },
        op::REMOVEXATTR => Op::Removexattr { name: body.name()? },
        op::INTERRUPT => Op::Interrupt { unique: body.u64()? },
        op::DESTROY => Op::Destroy,
        _ => return decode_io(opcode, body),
    })
}

/// The requests about open files.
fn decode_io(opcode: u32, mut body: Fields<'_>) -> Result<Op<'_>, Errno> {
    Ok(match opcode {
        op::OPEN => {
            let (flags, open_flags) = (body.i32()?, body.u32()?);
            Op::Open { flags, kill_suid_sgid: open_flags & flags::OPEN_KILL_SUIDGID != 0 }
        }
        op::CREATE => {
            let (flags, mode, umask) = (body.i32()?, body.u32()?, body.u32()?);
            body.skip(4)?;
            Op::Create { name: body.name()?, flags, mode, umask }
        }
        op::TMPFILE => Op::Tmpfile { flags: body.i32()?, mode: body.u32()?, umask: body.u32()? },
        op::READ => {
            let (handle, offset, size, read_flags) = (body.u64()?, body.u64()?, body.u32()?, body.u32()?);
            Op::Read { handle, offset, size, paged: read_flags & flags::READ_LOCKOWNER == 0 }
        }
        op::WRITE => write(body)?,
        op::RELEASE => {
            let (handle, _flags, release, owner) = (body.u64()?, body.u32()?, body.u32()?, body.u64()?);
            let flock_owner = (release & flags::RELEASE_FLOCK_UNLOCK != 0).then_some(owner);
            Op::Release { handle, flock_owner }
        }
        op::FSYNC => {
            let (handle, how) = (body.u64()?, body.u32()?);
            Op::Fsync { handle, data_only: how & flags::FSYNC_FDATASYNC != 0 }
        }
        op::FLUSH => {
            body.skip(16)?;
            Op::Flush { owner: body.u64()? }
        }
        op::OPENDIR => Op::Opendir,
        op::READDIR | op::READDIRPLUS => {
            let (handle, offset, size) = (body.u64()?, body.u64()?, body.u32()?);
            Op::Readdir { handle, offset, size, plus: opcode == op::READDIRPLUS }
        }
        op::RELEASEDIR => Op::Releasedir { handle: body.u64()? },
        op::FSYNCDIR => Op::Fsyncdir,
        op::GETLK => Op::Getlk { lock: lock(body)?.1 },
        op::SETLK | op::SETLKW => {
            let (handle, lock, flock) = lock(body)?;
            Op::Setlk { handle, lock, flock, wait: opcode == op::SETLKW }
        }
        op::FALLOCATE => {
            let (handle, offset, len, mode) = (body.u64()?, body.u64()?, body.u64()?, body.i32()?);
            Op::Fallocate { handle, offset, len, mode }
        }
        op::LSEEK => Op::Lseek { handle: body.u64()?, offset: body.u64()?, whence: body.u32()? },
        op::COPY_FILE_RANGE => {
            let (from, from_offset, to_ino) = (body.u64()?, body.u64()?, Ino(body.u64()?));
            let (to, to_offset, len) = (body.u64()?, body.u64()?, body.u64()?);
            Op::CopyFileRange { from, from_offset, to_ino, to, to_offset, len }
        }
        _ => Op::Other,
    })
}

fn setattr(mut body: Fields<'_>) -> Result<Setattr, Errno> {
    let valid = body.u32()?;
    body.skip(4)?;
    let (_handle, size, _owner) = (body.u64()?, body.u64()?, body.u64()?);
    let (atime, mtime, _ctime) = (body.u64()?, body.u64()?, body.u64()?);
    let (atime_nanos, mtime_nanos, _ctime_nanos) = (body.u32()?, body.u32()?, body.u32()?);
    let mode = body.u32()?;
    body.skip(4)?;
    let (uid, gid) = (body.u32()?, body.u32()?);
    let has = |bit: u32| valid & bit != 0;
    let time = |set, now, secs: u64, nanos| match (has(set), has(now)) {
        (_, true) => Some(SetTime::Now),
        (true, false) => Some(SetTime::To(Time { secs: secs as i64, nanos })),
        (false, false) => None,
    };
    Ok(Setattr {
        mode: has(flags::FATTR_MODE).then_some(mode),
        uid: has(flags::FATTR_UID).then_some(uid),
        gid: has(flags::FATTR_GID).then_some(gid),
        size: has(flags::FATTR_SIZE).then_some(size),
        atime: time(flags::FATTR_ATIME, flags::FATTR_ATIME_NOW, atime, atime_nanos),
        mtime: time(flags::FATTR_MTIME, flags::FATTR_MTIME_NOW, mtime, mtime_nanos),
        kill_suid_sgid: has(flags::FATTR_KILL_SUIDGID),
    })
}

fn setxattr(mut body: Fields<'_>) -> Result<Op<'_>, Errno> {
    let (size, set, extra) = (body.u32()?, body.u32()?, body.u32()?);
    body.skip(4)?;
    let name = body.name()?;
    let value = body.0.get(..size as usize).ok_or(Errno::EIO)?;
    Ok(Op::Setxattr { name, value, flags: set, kill_sgid: extra & flags::SETXATTR_ACL_KILL_SGID != 0 })
}

fn write(mut body: Fields<'_>) -> Result<Op<'_>, Errno> {
    let (handle, offset, size, write_flags) = (body.u64()?, body.u64()?, body.u32()?, body.u32()?);
    let (_owner, open) = (body.u64()?, body.i32()?);
    body.skip(4)?;
    let data = body.0.get(..size as usize).ok_or(Errno::EIO)?;
    let paged = write_flags & flags::WRITE_CACHE != 0;
    let kill_suid_sgid = write_flags & flags::WRITE_KILL_SUIDGID != 0;
    Ok(Op::Write { handle, offset, data, paged, kill_suid_sgid, flags: open })
}

/// The handle, the lock, and whether it is one of flock(2).
fn lock(mut body: Fields<'_>) -> Result<(u64, RecordLock, bool), Errno> {
    let (handle, owner, start, last) = (body.u64()?, body.u64()?, body.u64()?, body.u64()?);
    let (kind, pid, lock_flags) = (body.i32()?, body.u32()?, body.u32()?);
    let kind = match kind {
        libc::F_RDLCK => LockKind::Shared,
        libc::F_WRLCK => LockKind::Exclusive,
        libc::F_UNLCK => LockKind::None,
        _ => return Err(Errno::EINVAL),
    };
    // The kernel's OFFSET_MAX is the end of the file, wherever that is.
    let last = if last >= i64::MAX as u64 { u64::MAX } else { last };
    let flock = lock_flags & flags::LK_FLOCK != 0;
    Ok((handle, RecordLock { start, last, kind, owner, pid }, flock))
}

/// Fields of a message, in the machine's byte order, one after the other.
#[derive(Clone, Copy, Debug)]
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Errno::EIO)?;
        self.0 = rest;
        Ok(*field)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_ne_bytes)
    }

    fn i32(&mut self) -> Result<i32, Errno> {
        self.take().map(i32::from_ne_bytes)
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_ne_bytes)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Errno> {
        self.0 = self.0.get(bytes..).ok_or(Errno::EIO)?;
        Ok(())
    }

    /// A name up to its NUL.
    fn name(&mut self) -> Result<&'b [u8], Errno> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Errno::EIO)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(name)
    }
}
