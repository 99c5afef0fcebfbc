//! What stores the objects of a target.

use std::fmt::Debug;

use crate::core::{Errno, ObjectId};
use crate::wire::oss::{ObjectStat, Space};

/// The highest offset of an object, in bytes; a backend may have a lower one, and refuses what is above with `EFBIG`.
pub(super) const OBJECT_BYTES_MAX: u64 = i64::MAX as u64;

/// The objects of one target: sparse runs of bytes by number.
///
/// There is no making of an object: one that was never written is empty, and a write makes it. All verbs may be called from
/// many threads at once, for the same object too. A read that meets a write sees some of its bytes or none; two writes leave
/// at each byte what one of them wrote. Every verb may be repeated.
///
/// What is durable is what was synced: bytes, length and existence of an object (or that it does not exist) as of the last
/// [`Objects::sync`] that returned `Ok`. After one that failed for an object, each later sync of it fails too: what it covered
/// may be gone, and everybody who asks must be told.
///
/// **Callers' part:** offset and length together are at most `i64::MAX`.
///
/// A refusal for want of space (`ENOSPC`, `EDQUOT`) leaves what was there before; of what was to be written any part may
/// be. `EIO` says that the storage failed.
pub trait Objects: Debug + Send + Sync + 'static {
    /// Fills the front of `into` with the bytes from `offset`; returns how many. Fewer only at the end of the object; bytes
    /// that were never written are zeros.
    fn read(&self, object: ObjectId, offset: u64, into: &mut [u8]) -> Result<usize, Errno>;

    /// Writes all of `bytes` at `offset`; the object reaches at least to their end.
    fn write(&self, object: ObjectId, offset: u64, bytes: &[u8]) -> Result<(), Errno>;

    /// Cuts the object to `len`; a shorter one stays as it is.
    fn truncate(&self, object: ObjectId, len: u64) -> Result<(), Errno>;

    /// Makes `len` bytes from `offset` read as zeros and gives their space back; the object's length stays.
    fn punch(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno>;

    /// Sets space aside for `len` bytes from `offset`, at least one; the object reaches at least to their end, and reads as
    /// before, with zeros behind.
    fn allocate(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno>;

    /// The first offset from `offset` on that is in a hole (`hole`) or may hold data; the end of the object is a hole. `ENXIO`
    /// where there is none, and from the end on.
    fn seek(&self, object: ObjectId, offset: u64, hole: bool) -> Result<u64, Errno>;

    /// Makes objects durable, and that they are not there where they are not.
    fn sync(&self, objects: &[ObjectId]) -> Result<(), Errno>;

    /// Length and space of an object; nothing of both when it is not there.
    fn stat(&self, object: ObjectId) -> Result<ObjectStat, Errno>;

    /// Removes an object and gives its space back.
    fn destroy(&self, object: ObjectId) -> Result<(), Errno>;

    /// Space of the target.
    fn space(&self) -> Result<Space, Errno>;
}
