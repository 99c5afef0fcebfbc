//! Disks that are taken out, come back, or are replaced, while the pool is used.
//!
//! Each change is part of a transaction group of its own. A disk that comes gets what it lacks by [`Pool::resilver`].

use std::sync::Arc;

use super::open::{check_unused, random};
use super::{CreateError, DiskFile, Pool, PoolError, Shared, locked};
use crate::core::ranges::Ranges;
use crate::format::{LeafConfig, LeafId, LeafState, Txg};
use crate::vdev::labels::{Areas, DISK_BYTES_MIN, read_label};
use kiln_world::Rng;

/// Why a disk is not taken out, or put in.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The pool has no such disk.
    #[error("the pool has no disk {0}; `kiln pool status` shows those that it has")]
    Unknown(String),
    /// Without it something could not be read any more.
    #[error(
        "the vdev of {path} needs it: {missing} others of its disks are away or lack something, and it can do without {tolerates}; \
         bring those back first, or wait for their resilver"
    )]
    Needed {
        /// Which disk.
        path: String,
        /// Others of its vdev that do not have everything.
        missing: usize,
        /// How many it can do without.
        tolerates: usize,
    },
    /// The disk that was found there is another one.
    #[error(
        "{0} is not the disk that was there: its label says otherwise, or it has none; to put a new one there, replace it"
    )]
    Other(String),
    /// It is in use already.
    #[error("{0} is online already")]
    Online(String),
    /// It is too small for its place.
    #[error("{path} has {bytes} bytes, and the place of that disk needs {needed}")]
    TooSmall {
        /// Which one.
        path: String,
        /// Its length.
        bytes: u64,
        /// What it needs.
        needed: u64,
    },
    /// The new disk cannot be used.
    #[error(transparent)]
    Unfit(#[from] CreateError),
    /// The change could not be committed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl Pool {
    /// Takes a disk out of use, named by its path. It may be pulled when this returns.
    pub fn offline(&self, path: &str) -> Result<(), DiskError> {
        self.shared.change_disk(path, |change| {
            change.check_others()?;
            change.config.state = LeafState::Offline;
            change.config.missed.insert(change.txg.0, u64::MAX);
            Ok(None)
        })
    }

    /// Uses a disk again that was away or taken out of use; what it lacks comes with a resilver.
    pub fn online(&self, path: &str, disk: DiskFile) -> Result<(), DiskError> {
        self.shared.change_disk(path, |change| {
            if change.is_there {
                return Err(DiskError::Online(path.to_owned()));
            }
            let label = read_label(&*disk.file).map_err(|_| DiskError::Other(disk.path.clone()))?;
            if (label.pool, label.leaf) != (change.shared.id, change.config.id) {
                return Err(DiskError::Other(disk.path));
            }
            change.config.state = LeafState::Online;
            change.config.path.clone_from(&disk.path);
            change.config.missed.remove(change.txg.0, u64::MAX);
            Ok(Some(disk))
        })
    }

    /// Puts a new disk in the place of one; what belongs there comes with a resilver. With `force` also a disk that is part of another
    /// pool.
    pub fn replace(&self, path: &str, disk: DiskFile, rng: &dyn Rng, force: bool) -> Result<(), DiskError> {
        if !force {
            check_unused(&disk)?;
        }
        let bytes = disk.file.len().map_err(|error| CreateError::Disk { path: disk.path.clone(), error })?;
        self.shared.change_disk(path, |change| {
            change.check_others()?;
            let has = Areas::of(bytes).map_or(0, Areas::data_sectors);
            if has < change.leaf_sectors {
                let needed = change.leaf_sectors * crate::vdev::SECTOR_BYTES as u64 + DISK_BYTES_MIN / 2;
                return Err(DiskError::TooSmall { path: disk.path, bytes, needed });
            }
            let mut missed = Ranges::default();
            missed.insert(1, change.txg.0 - 1);
            *change.config = LeafConfig {
                id: LeafId(random(rng)),
                path: disk.path.clone(),
                state: LeafState::Online,
                missed,
            };
            Ok(Some(disk))
        })
    }
}

/// A disk of the configuration, as it is to be from a transaction group on.
struct Change<'c> {
    shared: &'c Shared,
    config: &'c mut LeafConfig,
    is_there: bool,
    txg: Txg,
    leaf_sectors: u64,
    /// Other disks of the vdev that do not have everything, and how many it can do without.
    missing: usize,
    tolerates: usize,
}

impl Change<'_> {
    /// Whether the other disks of the vdev have everything between them.
    fn check_others(&self) -> Result<(), DiskError> {
        if self.missing < self.tolerates {
            return Ok(());
        }
        let (missing, tolerates) = (self.missing, self.tolerates);
        Err(DiskError::Needed { path: self.config.path.clone(), missing, tolerates })
    }
}

impl Shared {
    /// Changes the disk of a path by the group that is open, and commits that; what `change` returns is in its place from then on.
    fn change_disk(
        &self,
        path: &str,
        change: impl FnOnce(&mut Change<'_>) -> Result<Option<DiskFile>, DiskError>,
    ) -> Result<(), DiskError> {
        let committing = locked(&self.committing);
        let groups = self.groups();
        if let Some(why) = &groups.suspended {
            return Err(PoolError::Suspended(why.clone()).into());
        }
        let txg = groups.open.txg();
        drop(groups);
        let mut config = locked(&self.config);
        let (top, leaf) = config
            .label
            .vdevs
            .iter()
            .enumerate()
            .find_map(|(top, vdev)| Some((top, vdev.leaves.iter().position(|leaf| leaf.path == path)?)))
            .ok_or_else(|| DiskError::Unknown(path.to_owned()))?;
        let vdev = &self.store.tops[top].vdev;
        let lacks = |index: &usize| !vdev.leaves()[*index].is_there() || vdev.leaves()[*index].is_behind();
        let missing = (0..vdev.leaves().len()).filter(|index| *index != leaf).filter(lacks).count();
        let mut changed = config.label.vdevs[top].leaves[leaf].clone();
        let disk = change(&mut Change {
            shared: self,
            config: &mut changed,
            is_there: vdev.leaves()[leaf].is_there(),
            txg,
            leaf_sectors: config.label.vdevs[top].leaf_sectors,
            missing,
            tolerates: vdev.tolerates(),
        })?;
        config.label.vdevs[top].leaves[leaf] = changed;
        config.changed = true;
        drop(config);
        vdev.leaves()[leaf].exchange(disk.map(|disk| Arc::clone(&disk.file)));
        self.commit_open(txg)?;
        drop(committing);
        Ok(())
    }
}
