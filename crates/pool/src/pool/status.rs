//! How a pool is.

use super::commit::last_room;
use super::{Pool, RECORD_BYTES, Shared, Space, locked};
use crate::format::{DatasetKind, LeafState, Properties, VdevId, VdevKind};
use crate::vdev::{Counts, Incidents, SECTOR_BYTES};

/// How a pool, a vdev or a disk is, in the words of `zpool status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// All is there.
    Online,
    /// Something is away, or has missed something; everything can be read and written.
    Degraded,
    /// An administrator took it out of use.
    Offline,
    /// It failed too often.
    Faulted,
    /// It cannot be opened.
    Unavailable,
    /// Nothing can be written any more.
    Suspended,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafStatus {
    /// Where it was last.
    pub path: String,
    /// How it is.
    pub health: Health,
    /// It has missed transaction groups, and is to get them by a resilver.
    pub behind: bool,
    /// What went wrong since the pool was opened.
    pub counts: Counts,
}

/// A top-level vdev.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VdevStatus {
    /// Which one.
    pub id: VdevId,
    /// How it keeps records.
    pub kind: VdevKind,
    /// How it is.
    pub health: Health,
    /// Its disks.
    pub leaves: Vec<LeafStatus>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub name: String,
    /// How it is.
    pub health: Health,
    /// Why nothing can be written any more.
    pub suspended: Option<String>,
    /// All of its space, in bytes, with what parity takes.
    pub size_bytes: u64,
    /// What of it is taken.
    pub allocated_bytes: u64,
    /// Its vdevs.
    pub vdevs: Vec<VdevStatus>,
    /// Disks that step in when one fails, and whether they are there.
    pub spares: Vec<(String, bool)>,
    /// How what is written is kept.
    pub properties: Properties,
}

impl Pool {
    /// What went wrong on its disks since this was asked last, with where each disk was last.
    pub fn take_incidents(&self) -> Vec<(String, Incidents)> {
        let (label, tops) = (self.config(), self.shared.store.tops());
        let vdevs = label.vdevs.iter().zip(&*tops);
        let leaves = vdevs.flat_map(|(config, top)| config.leaves.iter().zip(top.vdev.leaves()));
        let told = leaves.map(|(config, leaf)| (config.path.clone(), leaf.take_incidents()));
        told.filter(|(_, incidents)| !incidents.is_empty()).collect()
    }

    /// How it is.
    pub fn status(&self) -> PoolStatus {
        let shared = &self.shared;
        let label = self.config();
        let vdevs: Vec<VdevStatus> = label
            .vdevs
            .iter()
            .zip(&*shared.store.tops())
            .map(|(config, top)| {
                let leaves = config.leaves.iter().zip(top.vdev.leaves()).map(|(config, leaf)| {
                    let there = leaf.is_there();
                    let health = match config.state {
                        LeafState::Online if there => Health::Online,
                        LeafState::Online | LeafState::Removed => Health::Unavailable,
                        LeafState::Offline => Health::Offline,
                        LeafState::Faulted => Health::Faulted,
                    };
                    LeafStatus {
                        path: config.path.clone(),
                        health,
                        behind: !config.missed.is_empty(),
                        counts: leaf.counts(),
                    }
                });
                let leaves: Vec<LeafStatus> = leaves.collect();
                let whole = leaves.iter().all(|leaf| leaf.health == Health::Online && !leaf.behind);
                let health = if whole { Health::Online } else { Health::Degraded };
                VdevStatus { id: config.id, kind: config.kind, health, leaves }
            })
            .collect();
        let suspended = locked(&shared.groups).suspended.clone();
        let worst = vdevs.iter().map(|vdev| vdev.health).max().unwrap_or(Health::Online);
        let health = if suspended.is_some() { Health::Suspended } else { worst };
        let counts = shared.store.space().counts();
        let bytes = SECTOR_BYTES as u64;
        let (size_bytes, allocated_bytes) = (counts.total * bytes, (counts.total - counts.free) * bytes);
        let spares = label.spares.iter().map(|spare| {
            let there = locked(&shared.spares).iter().any(|there| there.id == spare.id);
            (spare.path.clone(), there)
        });
        let (spares, properties) = (spares.collect(), self.properties());
        PoolStatus {
            name: label.name,
            health,
            suspended,
            size_bytes,
            allocated_bytes,
            vdevs,
            spares,
            properties,
        }
    }

    /// How much there is for datasets of a kind: without what parity takes of records of the usual length.
    pub fn space(&self, kind: DatasetKind) -> Space {
        let (counts, early) = {
            let space = self.shared.store.space();
            (space.counts(), space.early_sectors())
        };
        let outstanding = self.shared.outstanding(&locked(&self.shared.groups)).saturating_sub(early);
        let kept = counts.reserved + last_room(kind, counts.total) + outstanding;
        let free = counts.free.saturating_sub(kept);
        let bytes = |sectors: u64| self.shared.without_parity(sectors) * SECTOR_BYTES as u64;
        Space { total_bytes: bytes(counts.total - counts.reserved), free_bytes: bytes(free) }
    }
}

impl Shared {
    /// What sectors of vdevs hold without parity, in records of the usual length.
    pub(super) fn without_parity(&self, sectors: u64) -> u64 {
        let record = RECORD_BYTES as usize / SECTOR_BYTES;
        let taken = self.store.space().allocated_most(record as u32).max(1);
        (u128::from(sectors) * record as u128).div_ceil(taken.into()) as u64
    }
}
