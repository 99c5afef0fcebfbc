//! Disks and vdevs that come and go while the pool is used.
//!
//! Each change is part of a transaction group of its own. A disk that comes gets what it lacks by [`Pool::resilver`].

use std::sync::Arc;

use kiln_world::Rng;

use super::open::{check_unused, random, top_of, vdev_config};
use super::store::Top;
use super::{CreateError, DiskFile, Pool, PoolError, Shared, Spare, VdevSpec, locked};
use crate::core::allocator::VdevSpace;
use crate::core::ranges::Ranges;
use crate::format::{Label, LeafConfig, LeafId, LeafState, Txg, Unfit, VdevConfig, VdevId, VdevKind};
use crate::vdev::labels::{Areas, DISK_BYTES_MIN, read_label, wipe_label};
use crate::vdev::{Leaf, SECTOR_BYTES, Vdev};

/// A disk is given up on when so many reads and writes of it have failed since the pool was opened.
const ERRORS_MAX: u64 = 16;

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
    /// Only disks of mirrors are attached and detached.
    #[error(
        "{0} is a disk of a RAIDZ vdev, which keeps its width; add another vdev, or replace disks by larger ones"
    )]
    NoMirror(String),
    /// A vdev has one disk at least.
    #[error("{0} is the only disk of its vdev; a vdev cannot be taken out of a pool")]
    OnlyDisk(String),
    /// Vdevs that stand differently much.
    #[error(
        "the pool's vdevs can do without {there} of their disks, and the new one without {new}; what is lost with any vdev is lost with \
         all of them; --force adds it all the same"
    )]
    Weaker {
        /// Of the vdevs that are there.
        there: usize,
        /// Of the new one.
        new: usize,
    },
    /// The new disk cannot be used.
    #[error(transparent)]
    Unfit(#[from] CreateError),
    /// The change could not be committed.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

impl From<Unfit> for DiskError {
    fn from(unfit: Unfit) -> DiskError {
        DiskError::Unfit(unfit.into())
    }
}

/// What [`Pool::care`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Care {
    /// A disk failed too often, and is not used any more.
    Faulted {
        /// Which one.
        disk: String,
    },
    /// A spare took the place of a disk.
    SparedIn {
        /// Of which one.
        disk: String,
        /// Which spare.
        spare: String,
    },
}

impl Pool {
    /// Takes a disk out of use, named by its path. It may be pulled when this returns.
    pub fn offline(&self, path: &str) -> Result<(), DiskError> {
        self.shared.take_out(path, LeafState::Offline)
    }

    /// Uses a disk again that was away or taken out of use; what it lacks comes with a resilver.
    pub fn online(&self, path: &str, disk: DiskFile) -> Result<(), DiskError> {
        let shared = &*self.shared;
        shared.reconfigure(|label, txg| {
            let place = LeafPlace::of(shared, label, path)?;
            if place.leaf().is_there() {
                return Err(DiskError::Online(path.to_owned()));
            }
            let config = place.config(label);
            let found = read_label(&*disk.file).map_err(|_| DiskError::Other(disk.path.clone()))?;
            if (found.pool, found.leaf) != (shared.id, config.id) {
                return Err(DiskError::Other(disk.path));
            }
            config.state = LeafState::Online;
            config.path.clone_from(&disk.path);
            config.missed.remove(txg.0, u64::MAX);
            Ok(move || place.leaf().exchange(Some(disk.file)))
        })
    }

    /// Puts a new disk in the place of one; what belongs there comes with a resilver. With `force` also a disk that is part of another
    /// pool. The disk that was there is none of the pool's any more.
    pub fn replace(&self, path: &str, disk: &DiskFile, rng: &dyn Rng, force: bool) -> Result<(), DiskError> {
        if !force {
            check_unused(disk, Some(&self.config()))?;
        }
        self.shared.replace(path, disk, LeafId(random(rng)), |_| {})
    }

    /// Gives a mirror, or a single disk, one more copy, beside the disk of that path; it comes with a resilver.
    pub fn attach(&self, path: &str, disk: DiskFile, rng: &dyn Rng, force: bool) -> Result<(), DiskError> {
        if !force {
            check_unused(&disk, Some(&self.config()))?;
        }
        let shared = &*self.shared;
        shared.reconfigure(|label, txg| {
            let place = LeafPlace::of(shared, label, path)?;
            place.check_mirror(label)?;
            place.check_size(label, &disk)?;
            label.vdevs[place.vdev].leaves.push(new_leaf(LeafId(random(rng)), &disk, txg));
            let leaf = Leaf::new(disk.file, data_start());
            leaf.set_behind(true);
            let mut leaves = place.top.vdev.leaves().to_vec();
            leaves.push(Arc::new(leaf));
            Ok(move || shared.store.set_top(place.with_leaves(leaves)))
        })
    }

    /// Takes a disk out of a mirror for good.
    pub fn detach(&self, path: &str) -> Result<(), DiskError> {
        let shared = &*self.shared;
        let mut detached = None;
        shared.reconfigure(|label, _| {
            let place = LeafPlace::of(shared, label, path)?;
            place.check_mirror(label)?;
            if place.top.vdev.leaves().len() == 1 {
                return Err(DiskError::OnlyDisk(path.to_owned()));
            }
            place.check_others(path)?;
            label.vdevs[place.vdev].leaves.remove(place.leaf);
            let mut leaves = place.top.vdev.leaves().to_vec();
            detached = leaves.remove(place.leaf).file();
            Ok(move || shared.store.set_top(place.with_leaves(leaves)))
        })?;
        forget(detached.as_deref());
        Ok(())
    }

    /// Adds vdevs, over which new records are spread with those that are there. With `force` also of disks that are part of another pool,
    /// and vdevs that can do without fewer disks than the others.
    pub fn add(&self, vdevs: &[VdevSpec], rng: &dyn Rng, force: bool) -> Result<(), DiskError> {
        for disk in vdevs.iter().flat_map(|vdev| &vdev.disks).filter(|_| !force) {
            check_unused(disk, Some(&self.config()))?;
        }
        let shared = &*self.shared;
        shared.reconfigure(|label, txg| {
            let tolerated = shared.store.tops().iter().map(|top| top.vdev.tolerates()).max().unwrap_or(0);
            let mut tops = Vec::new();
            for spec in vdevs {
                let next = label.vdevs.iter().map(|vdev| vdev.id.0 + 1).max().unwrap_or(0);
                let config = vdev_config(VdevId(next), txg, spec, rng)?;
                let disks = spec.disks.iter().map(|disk| Some(Arc::clone(&disk.file))).collect();
                let top = top_of(&config, disks).ok_or(CreateError::Vdev { disks: spec.disks.len() })?;
                let new = top.vdev.tolerates();
                if new < tolerated && !force {
                    return Err(DiskError::Weaker { there: tolerated, new });
                }
                label.vdevs.push(config);
                tops.push(top);
            }
            Ok(move || {
                for top in tops {
                    let space = VdevSpace::new(top.id, top.vdev.redundancy(), top.sectors);
                    shared.store.set_top(top);
                    shared.store.space().add(space);
                }
            })
        })
    }

    /// Adds disks that step in when one fails.
    pub fn add_spares(&self, disks: Vec<DiskFile>, rng: &dyn Rng, force: bool) -> Result<(), DiskError> {
        for disk in disks.iter().filter(|_| !force) {
            check_unused(disk, Some(&self.config()))?;
        }
        let shared = &*self.shared;
        shared.reconfigure(|label, _| {
            let spares: Vec<Spare> =
                disks.into_iter().map(|disk| Spare { id: LeafId(random(rng)), disk }).collect();
            label.spares.extend(spares.iter().map(|spare| LeafConfig {
                id: spare.id,
                path: spare.disk.path.clone(),
                state: LeafState::Online,
                missed: Ranges::default(),
            }));
            Ok(move || locked(&shared.spares).extend(spares))
        })
    }

    /// Takes a spare out of the pool.
    pub fn remove_spare(&self, path: &str) -> Result<(), DiskError> {
        let shared = &*self.shared;
        let mut removed = None;
        shared.reconfigure(|label, _| {
            let index = label.spares.iter().position(|spare| spare.path == path);
            let index = index.ok_or_else(|| DiskError::Unknown(path.to_owned()))?;
            let id = label.spares.remove(index).id;
            removed = shared.take_spare(id).map(|spare| spare.disk.file);
            Ok(|| {})
        })?;
        forget(removed.as_deref());
        Ok(())
    }

    /// Looks after the disks: one that fails again and again is not used any more, and a spare steps in for one that is not there. A disk
    /// without which its vdev could not be read stays in use.
    pub fn care(&self) -> Result<Vec<Care>, DiskError> {
        let mut done = Vec::new();
        for disk in self.shared.failing() {
            match self.shared.take_out(&disk, LeafState::Faulted) {
                Ok(()) => done.push(Care::Faulted { disk }),
                Err(DiskError::Needed { .. } | DiskError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        for disk in self.shared.missing() {
            if let Some(spare) = self.shared.spare_in(&disk)? {
                done.push(Care::SparedIn { disk, spare });
            }
        }
        Ok(done)
    }
}

/// A disk of the configuration.
struct LeafPlace {
    vdev: usize,
    leaf: usize,
    top: Arc<Top>,
}

impl LeafPlace {
    fn of(shared: &Shared, label: &Label, path: &str) -> Result<LeafPlace, DiskError> {
        let place =
            label.vdevs.iter().enumerate().find_map(|(index, vdev)| {
                Some((index, vdev.leaves.iter().position(|leaf| leaf.path == path)?))
            });
        let (vdev, leaf) = place.ok_or_else(|| DiskError::Unknown(path.to_owned()))?;
        Ok(LeafPlace { vdev, leaf, top: Arc::clone(&shared.store.tops()[vdev]) })
    }

    fn leaf(&self) -> &Leaf {
        &self.top.vdev.leaves()[self.leaf]
    }

    fn config<'l>(&self, label: &'l mut Label) -> &'l mut LeafConfig {
        &mut label.vdevs[self.vdev].leaves[self.leaf]
    }

    /// The vdev with other disks.
    fn with_leaves(&self, leaves: Vec<Arc<Leaf>>) -> Top {
        let vdev = Vdev::new(self.top.vdev.redundancy(), leaves).expect("a mirror has any number of disks");
        Top { id: self.top.id, vdev, sectors: self.top.sectors }
    }

    /// Whether the other disks of the vdev have everything between them.
    fn check_others(&self, path: &str) -> Result<(), DiskError> {
        let vdev = &self.top.vdev;
        let others = vdev.leaves().iter().enumerate().filter(|(index, _)| *index != self.leaf);
        let missing = others.filter(|(_, leaf)| !leaf.is_there() || leaf.is_behind()).count();
        let tolerates = vdev.tolerates();
        if missing < tolerates {
            return Ok(());
        }
        Err(DiskError::Needed { path: path.to_owned(), missing, tolerates })
    }

    fn check_mirror(&self, label: &Label) -> Result<(), DiskError> {
        let VdevConfig { kind, leaves, .. } = &label.vdevs[self.vdev];
        match kind {
            VdevKind::Mirror => Ok(()),
            VdevKind::Raidz(_) => Err(DiskError::NoMirror(leaves[self.leaf].path.clone())),
        }
    }

    fn check_size(&self, label: &Label, disk: &DiskFile) -> Result<(), DiskError> {
        let bytes = disk.file.len().map_err(|error| CreateError::Disk { path: disk.path.clone(), error })?;
        let sectors = label.vdevs[self.vdev].leaf_sectors;
        if Areas::of(bytes).map_or(0, Areas::data_sectors) >= sectors {
            return Ok(());
        }
        let needed = sectors * SECTOR_BYTES as u64 + DISK_BYTES_MIN / 2;
        Err(DiskError::TooSmall { path: disk.path.clone(), bytes, needed })
    }
}

/// A disk that has nothing yet of what belongs there.
fn new_leaf(id: LeafId, disk: &DiskFile, txg: Txg) -> LeafConfig {
    let mut missed = Ranges::default();
    missed.insert(1, txg.0 - 1);
    LeafConfig { id, path: disk.path.clone(), state: LeafState::Online, missed }
}

fn data_start() -> u64 {
    Areas::of(DISK_BYTES_MIN).map_or(0, Areas::data_start)
}

/// Takes a disk's label, so that nobody takes it for one of the pool. It may be gone.
fn forget(disk: Option<&dyn kiln_world::File>) {
    if let Some(disk) = disk {
        let _ = wipe_label(disk);
    }
}

impl Shared {
    /// Changes the configuration by the group that is open, and commits that; what `change` returns is done when nothing can refuse it any
    /// more.
    fn reconfigure<A: FnOnce()>(
        &self,
        change: impl FnOnce(&mut Label, Txg) -> Result<A, DiskError>,
    ) -> Result<(), DiskError> {
        let committing = locked(&self.committing);
        let groups = self.groups();
        if let Some(why) = &groups.suspended {
            return Err(PoolError::Suspended(why.clone()).into());
        }
        let txg = groups.open.txg();
        drop(groups);
        let mut config = locked(&self.config);
        let mut label = config.label.clone();
        let apply = change(&mut label, txg)?;
        label.encode()?;
        config.label = label;
        config.changed = true;
        drop(config);
        apply();
        self.commit_open(txg)?;
        drop(committing);
        Ok(())
    }

    fn take_out(&self, path: &str, state: LeafState) -> Result<(), DiskError> {
        self.reconfigure(|label, txg| {
            let place = LeafPlace::of(self, label, path)?;
            place.check_others(path)?;
            let config = place.config(label);
            config.state = state;
            config.missed.insert(txg.0, u64::MAX);
            Ok(move || place.leaf().exchange(None))
        })
    }

    /// `also` is done to the configuration with it.
    fn replace(
        &self,
        path: &str,
        disk: &DiskFile,
        id: LeafId,
        also: impl FnOnce(&mut Label),
    ) -> Result<(), DiskError> {
        let mut replaced = None;
        self.reconfigure(|label, txg| {
            let place = LeafPlace::of(self, label, path)?;
            place.check_others(path)?;
            place.check_size(label, disk)?;
            *place.config(label) = new_leaf(id, disk, txg);
            also(label);
            replaced = place.leaf().file();
            let file = Arc::clone(&disk.file);
            Ok(move || place.leaf().exchange(Some(file)))
        })?;
        forget(replaced.as_deref());
        Ok(())
    }

    /// Disks that fail again and again.
    fn failing(&self) -> Vec<String> {
        self.disks(|leaf, config| {
            let counts = leaf.counts();
            let fails = leaf.is_doubtful() || counts.read + counts.write >= ERRORS_MAX;
            leaf.is_there() && config.state == LeafState::Online && fails
        })
    }

    /// Disks that are not there, though nobody took them out of use.
    fn missing(&self) -> Vec<String> {
        self.disks(|leaf, config| {
            !leaf.is_there() && matches!(config.state, LeafState::Online | LeafState::Faulted)
        })
    }

    fn disks(&self, which: impl Fn(&Leaf, &LeafConfig) -> bool) -> Vec<String> {
        let tops = self.store.tops();
        let config = locked(&self.config);
        let disks = tops.iter().zip(&config.label.vdevs);
        let disks = disks.flat_map(|(top, vdev)| top.vdev.leaves().iter().zip(&vdev.leaves));
        disks.filter(|(leaf, config)| which(leaf, config)).map(|(_, config)| config.path.clone()).collect()
    }

    fn take_spare(&self, id: LeafId) -> Option<Spare> {
        let mut spares = locked(&self.spares);
        let index = spares.iter().position(|spare| spare.id == id)?;
        Some(spares.remove(index))
    }

    /// Lets the first spare that fits take the place of a disk; which one.
    fn spare_in(&self, path: &str) -> Result<Option<String>, DiskError> {
        let spares: Vec<(LeafId, DiskFile)> =
            locked(&self.spares).iter().map(|spare| (spare.id, spare.disk.clone())).collect();
        for (id, disk) in spares {
            let only_this = |label: &mut Label| label.spares.retain(|spare| spare.id != id);
            match self.replace(path, &disk, id, only_this) {
                Ok(()) => {
                    self.take_spare(id);
                    return Ok(Some(disk.path));
                }
                // Another one may be large enough; and a vdev that has too little left waits for its disks.
                Err(DiskError::TooSmall { .. } | DiskError::Unfit(_) | DiskError::Needed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}
