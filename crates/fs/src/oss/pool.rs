//! Objects in a dataset of a pool, which has a checksum for each record and mends what it can.

use std::sync::Arc;

use kiln_pool::format::DatasetKind;
use kiln_pool::pool::{DatasetId, Pool, PoolError, RECORD_BYTES};

use super::label::Label;
use super::objects::Objects;
use crate::core::{Errno, ObjectId};
use crate::wire::oss::{ObjectStat, Space};

/// Units in which the space of an object is told, in bytes.
const BLOCK_BYTES: u64 = 512;
/// What an object takes at least, for the number of objects that could still be made.
const OBJECT_BYTES: u64 = 4096;

/// The objects of one target, which are a dataset of the pool. What was done outlives the process when a call returns, as with files: a
/// client that was answered does not do it again.
#[derive(Debug)]
pub struct PoolObjects {
    pool: Arc<Pool>,
    dataset: DatasetId,
}

impl PoolObjects {
    /// Makes the dataset of a target, if it is not there.
    pub fn format(pool: &Pool, label: &Label) -> Result<(), PoolError> {
        match pool.create_dataset(&label.to_string(), RECORD_BYTES, DatasetKind::Objects) {
            Ok(_) | Err(PoolError::DatasetExists) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn keep(&self, object: ObjectId) -> Result<(), Errno> {
        self.pool.keep(self.dataset, object.0).map_err(refusal)
    }

    /// Opens the target; an error when the pool has no such dataset.
    pub fn open(pool: Arc<Pool>, label: &Label) -> Result<PoolObjects, PoolError> {
        let dataset = pool.dataset(&label.to_string()).ok_or(PoolError::NoDataset)?;
        Ok(PoolObjects { pool, dataset })
    }

    /// Opens what a target was at a snapshot, which nothing changes; an error when the pool has no such snapshot.
    pub fn open_snapshot(pool: Arc<Pool>, label: &Label, snapshot: &str) -> Result<PoolObjects, PoolError> {
        let dataset = pool.snapshot_of(&label.to_string(), snapshot).ok_or(PoolError::NoDataset)?;
        Ok(PoolObjects { pool, dataset })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn refusal(error: PoolError) -> Errno {
    match error {
        PoolError::NoSpace => Errno::ENOSPC,
        PoolError::TooLong => Errno::EFBIG,
        PoolError::ReadOnly => Errno::EROFS,
        PoolError::Damaged
        | PoolError::Suspended(_)
        | PoolError::NoDataset
        | PoolError::DatasetExists
        | PoolError::DatasetName
        | PoolError::HasSnapshots
        | PoolError::HasClone(_)
        | PoolError::NotNewest => Errno::EIO,
    }
}

impl Objects for PoolObjects {
    fn read(&self, object: ObjectId, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
        self.pool.read(self.dataset, object.0, offset, into).map_err(refusal)
    }

    fn write(&self, object: ObjectId, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.pool.write(self.dataset, object.0, offset, bytes).map_err(refusal)?;
        self.keep(object)
    }

    fn truncate(&self, object: ObjectId, len: u64) -> Result<(), Errno> {
        match self.pool.stat(self.dataset, object.0).map_err(refusal)? {
            // A write behind `len` that comes in between is cut as if it had come before.
            Some(stat) if stat.len > len => {
                self.pool.set_len(self.dataset, object.0, len).map_err(refusal)?;
                self.keep(object)
            }
            _ => Ok(()),
        }
    }

    fn punch(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno> {
        self.pool.punch(self.dataset, object.0, offset, len).map_err(refusal)?;
        self.keep(object)
    }

    /// Nothing is set aside where every write goes to a new place; what is asked for must fit, and the object reaches there.
    fn allocate(&self, object: ObjectId, offset: u64, len: u64) -> Result<(), Errno> {
        if len > self.pool.space(DatasetKind::Objects).free_bytes {
            return Err(Errno::ENOSPC);
        }
        self.pool.reach(self.dataset, object.0, offset + len).map_err(refusal)?;
        self.keep(object)
    }

    fn seek(&self, object: ObjectId, offset: u64, hole: bool) -> Result<u64, Errno> {
        self.pool.seek(self.dataset, object.0, offset, hole).map_err(refusal)?.ok_or(Errno::ENXIO)
    }

    fn sync(&self, objects: &[ObjectId]) -> Result<(), Errno> {
        let objects: Vec<u64> = objects.iter().map(|object| object.0).collect();
        self.pool.sync(self.dataset, &objects).map_err(refusal)
    }

    fn stat(&self, object: ObjectId) -> Result<ObjectStat, Errno> {
        let stat = self.pool.stat(self.dataset, object.0).map_err(refusal)?.unwrap_or_default();
        Ok(ObjectStat { len: stat.len, blocks: stat.disk_bytes / BLOCK_BYTES })
    }

    fn destroy(&self, object: ObjectId) -> Result<(), Errno> {
        self.pool.destroy(self.dataset, object.0).map_err(refusal)?;
        self.keep(object)
    }

    fn space(&self) -> Result<Space, Errno> {
        let space = self.pool.space(DatasetKind::Objects);
        Ok(Space {
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            available_bytes: space.free_bytes,
            inodes: space.total_bytes / OBJECT_BYTES,
            free_inodes: space.free_bytes / OBJECT_BYTES,
        })
    }
}
