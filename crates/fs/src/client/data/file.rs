//! The data of one file.

use bytes::Bytes;

use super::{LocalChanges, Mode, Seek};
use crate::core::{Attr, Errno, Layout};

/// The data of one file on this mount, shared by all its handles.
pub struct FileData;

impl FileData {
    /// Bytes from `offset`, at most `len`; shorter at the end of the file only.
    pub fn read(&self, _offset: u64, _len: u32, _mode: Mode) -> Result<Bytes, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Writes. With `sync` the data is on the disks of the OSTs before this returns, and the size is told to the MDS
    /// (the caller then asks the MDS to sync).
    pub fn write(&self, _offset: u64, _data: &[u8], _mode: Mode, _sync: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// A writer is not root: set-id bits go when the MDS is told next.
    pub fn kill_suid_sgid(&self) {}

    /// The size as this mount knows it, what is held back included.
    pub fn size(&self) -> u64 {
        0
    }

    /// What the MDS does not know yet; `None` when it knows everything.
    pub fn attr_changes(&self) -> Option<LocalChanges> {
        None
    }

    /// Everything written so far is with the OSTs and the MDS, not necessarily durable. Tells a failure of an earlier
    /// write-back once; what could not be written is dropped then.
    pub fn flush(&self) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// [`FileData::flush`], and durable at the OSTs; the caller then asks the MDS to sync.
    pub fn sync(&self) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Forgets what was read ahead.
    pub fn forget_clean(&self) {}

    /// News from the MDS: attributes of an answer, and the layout where it came along. What this mount has written and
    /// not told yet stays as it is; news that are older than what is known are ignored. Not for a change of the size by
    /// this mount: that is [`FileData::resize`].
    pub fn set_size(&self, _attr: &Attr, _layout: Option<Layout>) {}

    /// A change of the size by this mount: `change` asks the MDS for it. Data held back behind the new size is dropped
    /// when it succeeds, and nothing that was on its way arrives at an OST after the objects were cut.
    pub fn resize(
        &self,
        _size: u64,
        _change: impl FnOnce() -> Result<(Attr, Option<Layout>), Errno>,
    ) -> Result<Attr, Errno> {
        Err(Errno::ENOSYS)
    }

    /// Makes a hole; the size stays.
    pub fn punch(&self, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Zeros a range; the file grows to its end unless `keep_size`.
    pub fn zero(&self, _offset: u64, _len: u64, _keep_size: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// Sets space aside; the file grows to the end of the range unless `keep_size`.
    pub fn allocate(&self, _offset: u64, _len: u64, _keep_size: bool) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// fallocate(2) by its mode bits; `EOPNOTSUPP` for what cannot be done.
    pub fn fallocate(&self, _mode: i32, _offset: u64, _len: u64) -> Result<(), Errno> {
        Err(Errno::ENOSYS)
    }

    /// The next data or hole at or behind `offset`; `ENXIO` behind the end.
    pub fn seek(&self, _offset: u64, _what: Seek) -> Result<u64, Errno> {
        Err(Errno::ENOSYS)
    }

    /// The session was evicted: what is held back is lost, and every call from now on answers `EIO`.
    pub fn discard(&self) {}
}
