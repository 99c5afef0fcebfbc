//! The last scrub of a pool, as it lies in the pool: so that it goes on after a restart, and is known when it has ended.

use kiln_pool::format::ScrubRecord;
use kiln_pool::pool::{DatasetId, Pool, PoolError};

use super::own;

/// Its dataset.
pub(super) const DATASET: &str = ".scrub";
/// Longer than any record.
const BYTES_MAX: u64 = 1 << 20;

/// Writes it down; it is durable when this returns. Each is an object of its own, for half of one would be none.
pub(super) fn save(pool: &Pool, record: &ScrubRecord) -> Result<(), PoolError> {
    let dataset = own::dataset(pool, DATASET)?;
    let before = pool.objects(dataset, 0, usize::MAX)?;
    let next = before.last().map_or(0, |last| last + 1);
    pool.write(dataset, next, 0, &record.encode())?;
    pool.commit()?;
    before.into_iter().try_for_each(|object| pool.destroy(dataset, object))
}

/// It as it was saved last; `None` when there is none that can be read.
pub(super) fn load(pool: &Pool) -> Option<ScrubRecord> {
    let dataset = pool.dataset(DATASET)?;
    let objects = pool.objects(dataset, 0, usize::MAX).unwrap_or_default();
    objects.into_iter().rev().find_map(|object| read(pool, dataset, object))
}

fn read(pool: &Pool, dataset: DatasetId, object: u64) -> Option<ScrubRecord> {
    let len = pool.stat(dataset, object).ok()??.len.min(BYTES_MAX);
    let mut bytes = vec![0; len as usize];
    let read = pool.read(dataset, object, 0, &mut bytes).ok()?;
    ScrubRecord::decode(&bytes[..read]).ok()
}
