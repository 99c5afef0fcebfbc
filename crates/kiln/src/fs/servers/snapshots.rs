//! What a target was at a snapshot: its dataset on a pool, as it was then.
//!
//! An OST is served from that itself, which nothing changes. An MDT is served from a clone: whoever mounts it has a session, and sessions are rows.
//! The clone goes when nobody uses the snapshot.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_fs::core::target::{SNAPSHOT_MARK, split_snapshot};
use kiln_fs::core::{OstIndex, Role};
use kiln_fs::mds::Mds;
use kiln_fs::oss::{Label, Ost, PoolObjects};
use kiln_fs::wire::mgs::Target;
use kiln_fs::wire::node::SnapshotStep;
use kiln_pool::disk::PoolDisk;
use kiln_pool::pool::{DatasetId, Pool, PoolError};

use super::{OpenError, Setup, dataset_of, ground, label, on_pool};

/// Beside an MDT that is made what it was: whoever had a session then is not waited for.
const ROLLED_BACK: &str = "rolled-back";
/// The filesystem stands still for so long at most.
const FROZEN_MAX: Duration = Duration::from_secs(30);

/// A pool, and targets that stand on it.
type OnPool = (Arc<Pool>, Vec<Target>);

/// The dataset of what a target was at a snapshot.
fn snapshot_of(pool: &Pool, target: &Target) -> Option<DatasetId> {
    let (base, snapshot) = split_snapshot(&target.fs)?;
    pool.snapshot_of(&dataset_of(&Target { fs: base.to_owned(), ..target.clone() }), snapshot)
}

fn missing(pool: &Pool, target: &Target) -> OpenError {
    on_pool(pool, &format!("there is no snapshot of {}", label(&target.fs, target.role)))
}

/// The name of the clone that an MDT is served from. No filesystem's name has a dot.
fn clone_of(target: &Target) -> String {
    dataset_of(target).replace(SNAPSHOT_MARK, ".")
}

pub(super) fn open_ost(
    pool: &Arc<Pool>,
    dir: &Path,
    target: &Target,
    index: OstIndex,
) -> Result<Ost, OpenError> {
    let Some((base, snapshot)) = split_snapshot(&target.fs) else { return Err(missing(pool, target)) };
    let of_base = Label { id: target.id.0, fs: base.to_owned(), index };
    let objects = PoolObjects::open_snapshot(Arc::clone(pool), &of_base, snapshot);
    let objects = objects.map_err(|_| missing(pool, target))?;
    ground::make(dir)?;
    let served = Label { fs: target.fs.clone(), ..of_base };
    Ok(Ost::over(served, Box::new(objects), dir)?)
}

/// The disk of an MDT, and whether it is new.
pub(super) fn disk_of_mdt(pool: &Arc<Pool>, target: &Target) -> Result<(PoolDisk, bool), OpenError> {
    let snapshot = snapshot_of(pool, target).ok_or_else(|| missing(pool, target))?;
    let clone = clone_of(target);
    let is_new = pool.dataset(&clone).is_none();
    if is_new {
        pool.clone_snapshot(snapshot, &clone).map_err(|error| on_pool(pool, &error))?;
    }
    let disk = PoolDisk::open(Arc::clone(pool), &clone);
    Ok((disk.map_err(|error| on_pool(pool, &format!("{clone}: {error}")))?, is_new))
}

/// Whether an MDT was made what it was, and not served since.
pub(super) fn was_rolled_back(dir: &Path) -> bool {
    dir.join(ROLLED_BACK).exists()
}

/// It is served again.
pub(super) fn is_as_before(dir: &Path) {
    // Where it stays, sessions are ended at the next start: clients begin new ones.
    let _ = std::fs::remove_file(dir.join(ROLLED_BACK));
}

fn forget_clone(pool: &Pool, target: &Target) -> Result<(), PoolError> {
    pool.dataset(&clone_of(target)).map_or(Ok(()), |clone| pool.destroy_dataset(clone))
}

/// Removes what there is of a snapshot of a target.
pub(super) fn remove(pool: &Pool, target: &Target) -> Result<(), OpenError> {
    let removed = forget_clone(pool, target)
        .and_then(|()| snapshot_of(pool, target).map_or(Ok(()), |snapshot| pool.destroy_dataset(snapshot)));
    removed.map_err(|error| on_pool(pool, &error))
}

impl Setup {
    /// Nobody uses the MDT of a snapshot any more, and it is not served now.
    pub(in crate::fs) fn unused(&self, target: &Target, dir: &Path) {
        if let Some(Ok(pool)) = self.pools.of_target(dir)
            && let Err(error) = forget_clone(&pool, target)
        {
            // It goes when the snapshot is used again, or destroyed.
            tracing::debug!(target = label(&target.fs, target.role), %error, "a clone stays");
        }
    }

    /// Does a step for a snapshot of a filesystem; `targets` are those of its targets that are here.
    pub(in crate::fs) fn snapshot_step(
        &self,
        step: SnapshotStep,
        snapshot: &str,
        targets: &[Target],
        mds: Option<&Mds>,
    ) -> Result<u64, String> {
        let mds = || mds.ok_or("its MDT is not served; `kiln fs status` shows why".to_owned());
        match step {
            SnapshotStep::Freeze => mds()?.freeze(FROZEN_MAX).map_err(|error| error.to_string())?,
            SnapshotStep::Thaw if mds()?.thaw() => {}
            SnapshotStep::Thaw => {
                return Err(format!("it took longer than {} s; try again", FROZEN_MAX.as_secs()));
            }
            SnapshotStep::Take => {
                for (pool, targets) in self.by_pool(targets)? {
                    take(&pool, &targets, snapshot).map_err(|error| of_pool(&pool, &error))?;
                }
            }
            SnapshotStep::Drop => {
                for (pool, targets) in self.by_pool(targets)? {
                    drop_leftovers(&pool, &targets, snapshot).map_err(|error| of_pool(&pool, &error))?;
                }
            }
            SnapshotStep::RollBack => {
                for mdt in targets.iter().filter(|target| matches!(target.role, Role::Mdt(_))) {
                    let marker = self.dir(mdt).join(ROLLED_BACK);
                    File::create(&marker)
                        .and_then(|marker| marker.sync_all())
                        .map_err(|error| format!("failed to make {}: {error}", marker.display()))?;
                }
                for (pool, targets) in self.by_pool(targets)? {
                    roll_back(&pool, &targets, snapshot).map_err(|error| of_pool(&pool, &error))?;
                }
            }
            SnapshotStep::Measure => {
                let mut bytes = 0;
                for (pool, targets) in self.by_pool(targets)? {
                    for kept in targets.iter().filter_map(|target| kept(&pool, target, snapshot)) {
                        bytes += pool.snapshot_bytes(kept).map_err(|error| of_pool(&pool, &error))?;
                    }
                }
                return Ok(bytes);
            }
        }
        Ok(0)
    }

    /// The pools that targets stand on, with those of each.
    fn by_pool(&self, targets: &[Target]) -> Result<Vec<OnPool>, String> {
        let mut pools: BTreeMap<String, OnPool> = BTreeMap::new();
        for target in targets {
            let pool = self.pools.of_target(&self.dir(target)).ok_or_else(|| {
                let name = label(&target.fs, target.role);
                format!(
                    "{name} is in a directory, and only what stands on a pool can have snapshots: kiln fs create NAME --mdt POOL --ost POOL"
                )
            })??;
            let of_pool = pools.entry(pool.name()).or_insert_with(|| (pool, Vec::new()));
            of_pool.1.push(target.clone());
        }
        Ok(pools.into_values().collect())
    }
}

fn of_pool(pool: &Pool, error: &PoolError) -> String {
    format!("pool '{}': {error}", pool.name())
}

fn kept(pool: &Pool, target: &Target, snapshot: &str) -> Option<DatasetId> {
    pool.snapshot_of(&dataset_of(target), snapshot)
}

/// Keeps the targets as they are. What an attempt before left under the name is not the snapshot.
fn take(pool: &Pool, targets: &[Target], snapshot: &str) -> Result<(), PoolError> {
    drop_leftovers(pool, targets, snapshot)?;
    let dataset = |target| pool.dataset(&dataset_of(target)).ok_or(PoolError::NoDataset);
    let datasets = targets.iter().map(dataset).collect::<Result<Vec<DatasetId>, PoolError>>()?;
    pool.snapshot(&datasets, snapshot).map(drop)
}

fn drop_leftovers(pool: &Pool, targets: &[Target], snapshot: &str) -> Result<(), PoolError> {
    let left = targets.iter().filter_map(|target| kept(pool, target, snapshot));
    left.into_iter().try_for_each(|left| pool.destroy_dataset(left))
}

fn roll_back(pool: &Pool, targets: &[Target], snapshot: &str) -> Result<(), PoolError> {
    let kept = |target| kept(pool, target, snapshot).ok_or(PoolError::NoDataset);
    pool.roll_back(&targets.iter().map(kept).collect::<Result<Vec<DatasetId>, PoolError>>()?)
}

/// Whether a target is what an MDT was at a snapshot: that is served when somebody wants it.
pub(in crate::fs) fn is_served_on_demand(target: &Target) -> bool {
    split_snapshot(&target.fs).is_some() && matches!(target.role, Role::Mdt(_))
}
