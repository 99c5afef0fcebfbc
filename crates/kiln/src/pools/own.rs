//! Datasets in which a pool keeps what is its own, and goes where it goes. No target has a name that begins with a dot.

use kiln_pool::format::DatasetKind;
use kiln_pool::pool::{DatasetId, Pool, PoolError};

use super::{history, saved};

/// The records of such a dataset, in bytes.
const RECORD_BYTES: u32 = 16 << 10;

/// Whether a dataset is the pool's own, and no target.
pub(super) fn is_own(dataset: &str) -> bool {
    [history::DATASET, saved::DATASET].contains(&dataset)
}

/// One of them, which is made when it is not there.
pub(super) fn dataset(pool: &Pool, name: &str) -> Result<DatasetId, PoolError> {
    match pool.dataset(name) {
        Some(dataset) => Ok(dataset),
        None => pool.create_dataset(name, RECORD_BYTES, DatasetKind::Files),
    }
}
