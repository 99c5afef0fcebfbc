//! Making pools, and finding them again by the labels of their disks.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, RwLock};

use kiln_world::{Clock, File, Rng};

use super::log::{Log, replay};
use super::store::{Reading, Store, Top, sectors_of};
use super::{Config, Groups, NODE_BYTES, Pool, PoolError, Roots, Settings, Shared, Spare, locked};
use crate::core::allocator::{Allocator, VdevSpace};
use crate::core::group::{Group, ObjectKey};
use crate::core::raidz::Layout;
use crate::core::ranges::Ranges;
use crate::core::tree::Tree;
use crate::format::{
    DatasetRecord, Label, LabelError, LeafConfig, LeafId, LeafState, LogChange, LogEntry, MAP_BYTES,
    MapBlock, NAME_BYTES_MAX, Place, Pointer, PoolId, PoolRoot, PoolState, Properties, RecordError, Txg,
    Uberblock, Unfit, VdevConfig, VdevId, VdevKind, dataset_key,
};
use crate::vdev::labels::{Areas, DISK_BYTES_MIN, ReadError, read_label, read_uberblocks};
use crate::vdev::{Leaf, Redundancy, Vdev};

/// A disk, and where it was found.
#[derive(Clone)]
pub struct DiskFile {
    /// What the label will say, for people.
    pub path: String,
    /// The disk.
    pub file: Arc<dyn File>,
}

/// A vdev to be made.
#[derive(Clone)]
pub struct VdevSpec {
    /// How it keeps records.
    pub kind: VdevKind,
    /// Its disks.
    pub disks: Vec<DiskFile>,
}

/// Why a pool was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// A name that no pool can have.
    #[error("a pool's name has 1 to {NAME_BYTES_MAX} bytes")]
    Name,
    /// No vdevs, or one with too many or too few disks.
    #[error("a vdev of {disks} disks cannot be; a RAIDZ vdev has more disks than parity, and at most 32")]
    Vdev {
        /// How many it was to have.
        disks: usize,
    },
    /// A disk is too small.
    #[error(
        "{path} has {bytes} bytes, and a disk needs at least {DISK_BYTES_MIN}; make it larger (truncate -s), or take another"
    )]
    TooSmall {
        /// Which one.
        path: String,
        /// Its length.
        bytes: u64,
    },
    /// A disk has the label of a pool.
    #[error("{path} is part of pool '{pool}'; --force uses it all the same, and what is on it is lost")]
    InUse {
        /// Which disk.
        path: String,
        /// Of which pool.
        pool: String,
    },
    /// A disk cannot be read or written.
    #[error("{path}: {error}")]
    Disk {
        /// Which one.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// There are more disks than labels have room for.
    #[error(transparent)]
    Unfit(#[from] Unfit),
    /// The rest.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Why a pool was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// None of the disks has a label.
    #[error("no disk of a pool was found")]
    NoDisks,
    /// The disks are of different pools.
    #[error("the disks are of different pools, '{0}' and '{1}'")]
    Different(String, String),
    /// Another host uses it.
    #[error("pool '{pool}' is in use by {host}; export it there, or force the import if that host is dead")]
    InUse {
        /// Its name.
        pool: String,
        /// Who uses it.
        host: String,
    },
    /// It was destroyed.
    #[error("pool '{0}' was destroyed")]
    Destroyed(String),
    /// Too few disks of a vdev are there.
    #[error("vdev {vdev} of pool '{pool}' lacks {missing} disks, and can do without {tolerates}")]
    TooFewDisks {
        /// The pool.
        pool: String,
        /// Its vdev.
        vdev: u32,
        /// How many are not there, or behind.
        missing: usize,
        /// How many it can do without.
        tolerates: usize,
    },
    /// There is no uberblock: it was never made as a whole.
    #[error("pool '{0}' was never made as a whole")]
    NoUberblock(String),
    /// A newer Kiln has used it.
    #[error(
        "pool '{pool}' was written by a newer Kiln: its root has version {version}; open it with that Kiln, or a later one"
    )]
    Newer {
        /// The pool.
        pool: String,
        /// The version that is not known here.
        version: u32,
    },
    /// The root, or a map of space, is damaged on all disks.
    #[error("pool '{pool}' is damaged beyond repair: {what}")]
    Damaged {
        /// The pool.
        pool: String,
        /// What of it.
        what: String,
    },
    /// The rest.
    #[error(transparent)]
    Pool(#[from] PoolError),
}

/// Where a pool is run.
#[derive(Clone)]
pub struct Host {
    /// Its name, which the labels say.
    pub name: String,
    /// Its clock.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub rng: Arc<dyn Rng>,
}

impl Pool {
    /// Makes a pool of disks; what was on them is lost. With `force` also of disks that are part of another.
    pub fn create(
        name: &str,
        vdevs: Vec<VdevSpec>,
        host: &Host,
        settings: Settings,
        force: bool,
    ) -> Result<Pool, CreateError> {
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) {
            return Err(CreateError::Name);
        }
        if vdevs.is_empty() {
            return Err(CreateError::Vdev { disks: 0 });
        }
        for disk in vdevs.iter().flat_map(|vdev| &vdev.disks).filter(|_| !force) {
            check_unused(disk, None)?;
        }
        let mut tops = Vec::new();
        let mut configs = Vec::new();
        let mut spaces = Vec::new();
        for (index, spec) in vdevs.into_iter().enumerate() {
            let id = VdevId(index as u32);
            let config = vdev_config(id, Txg(0), &spec, &*host.rng)?;
            let disks = spec.disks.iter().map(|disk| Some(Arc::clone(&disk.file))).collect();
            let top = top_of(&config, disks).ok_or(CreateError::Vdev { disks: spec.disks.len() })?;
            spaces.push(VdevSpace::new(id, top.vdev.redundancy(), top.sectors));
            tops.push(top);
            configs.push(config);
        }
        let label = Label {
            pool: PoolId(random(&*host.rng)),
            name: name.to_owned(),
            leaf: LeafId(0),
            txg: Txg(0),
            state: PoolState::Active,
            host: host.name.clone(),
            vdevs: configs,
            spares: Vec::new(),
        };
        label.encode()?;
        let roots = Roots {
            txg: Txg(0),
            tree: None,
            next_dataset: 1,
            datasets: BTreeMap::new(),
            properties: Properties::default(),
        };
        let store = Store::new(tops, Allocator::new(spaces), settings.cache_bytes);
        let shared = Shared::new(label, roots, store, host, settings, Vec::new(), Vec::new());
        locked(&shared.config).changed = true;
        shared.commit_through(Txg(1))?;
        Ok(Pool::run(shared).map_err(|error| PoolError::Suspended(error.to_string()))?)
    }

    /// Opens the pool that these disks are of; disks that are not of it, and those that have no label, do not matter. A pool that another
    /// host uses is only opened with `force`.
    pub fn open(
        disks: Vec<DiskFile>,
        host: &Host,
        settings: Settings,
        force: bool,
    ) -> Result<Pool, OpenError> {
        let found: Vec<(DiskFile, Label)> = disks
            .into_iter()
            .filter_map(|disk| read_label(&*disk.file).ok().map(|label| (disk, label)))
            .collect();
        let mut label = newest_label(&found)?;
        let pool = label.name.clone();
        match label.state {
            PoolState::Destroyed => return Err(OpenError::Destroyed(pool)),
            PoolState::Active if label.host != host.name && !force => {
                return Err(OpenError::InUse { pool, host: label.host });
            }
            PoolState::Active | PoolState::Exported => {}
        }
        let uberblock = newest_uberblock(&found, label.pool).ok_or(OpenError::NoUberblock(pool.clone()))?;
        // What a group added that was not committed is not there.
        label.vdevs.retain(|vdev| vdev.since <= uberblock.txg);
        // Later than anything that was ever written, also by a group that was not committed.
        let txg = Txg(uberblock.txg.0.max(label.txg.0) + 1);
        let tops = tops_of(&mut label, &found, txg)?;
        let store = Store::new(tops, Allocator::default(), settings.cache_bytes);
        let damaged = |what: &str| OpenError::Damaged { pool: pool.clone(), what: what.to_owned() };
        let root = store.read(&uberblock.root).map_err(|_| damaged("its root"))?;
        let root = PoolRoot::decode(&root).map_err(|error| match error {
            RecordError::Version(version) => OpenError::Newer { pool: pool.clone(), version },
            RecordError::Magic | RecordError::Malformed => damaged(&error.to_string()),
        })?;
        let tops = store.tops();
        let spaces = tops.iter().map(|top| read_maps(&store, top, &uberblock)).collect::<Option<Vec<_>>>();
        drop(tops);
        *store.space() = Allocator::new(spaces.ok_or_else(|| damaged("a map of its space"))?);
        let roots = read_roots(&store, &root).map_err(|error| damaged(&error.to_string()))?;
        let entries = replay(&store, label.pool, root.log, uberblock.txg);
        (label.host, label.state, label.txg) = (host.name.clone(), PoolState::Active, txg);
        let spares = spares_of(&mut label, &found);
        let shared = Shared::new(label.clone(), roots, store, host, settings, uberblock.root.places, spares);
        // From here on it is this host's, and the groups to come are later than any before.
        shared.write_labels(&label)?;
        shared.do_again(entries)?;
        shared.commit_through(Txg(txg.0 + 1))?;
        Ok(Pool::run(shared).map_err(|error| PoolError::Suspended(error.to_string()))?)
    }

    /// Commits everything and gives the pool up, so that any host may open it.
    pub fn export(self) -> Result<(), PoolError> {
        self.leave(PoolState::Exported)
    }

    /// Gives the pool up for good: its disks may be used for something else.
    pub fn destroy_pool(self) -> Result<(), PoolError> {
        self.leave(PoolState::Destroyed)
    }

    fn leave(self, state: PoolState) -> Result<(), PoolError> {
        {
            let mut config = locked(&self.shared.config);
            config.label.state = state;
            config.changed = true;
        }
        self.commit()
    }
}

/// Whether a disk is of no pool; for `of` also one that was of it and is not any more.
pub(super) fn check_unused(disk: &DiskFile, of: Option<&Label>) -> Result<(), CreateError> {
    let path = || disk.path.clone();
    match read_label(&*disk.file) {
        Ok(label) if of.is_some_and(|of| of.pool == label.pool && !of.has(label.leaf)) => Ok(()),
        Ok(label) if label.state != PoolState::Destroyed => {
            Err(CreateError::InUse { path: path(), pool: label.name })
        }
        Err(ReadError::Label(LabelError::Version(version))) => {
            Err(CreateError::InUse { path: path(), pool: format!("of version {version}") })
        }
        Err(ReadError::Io(error)) => Err(CreateError::Disk { path: path(), error }),
        Err(ReadError::TooSmall(bytes)) => Err(CreateError::TooSmall { path: path(), bytes }),
        Ok(_) | Err(ReadError::Label(_)) => Ok(()),
    }
}

pub(super) fn vdev_config(
    id: VdevId,
    since: Txg,
    spec: &VdevSpec,
    rng: &dyn Rng,
) -> Result<VdevConfig, CreateError> {
    let mut leaf_sectors = u64::MAX;
    for disk in &spec.disks {
        let bytes = disk.file.len().map_err(|error| CreateError::Disk { path: disk.path.clone(), error })?;
        let areas =
            Areas::of(bytes).ok_or_else(|| CreateError::TooSmall { path: disk.path.clone(), bytes })?;
        leaf_sectors = leaf_sectors.min(areas.data_sectors());
    }
    let leaf = |disk: &DiskFile| LeafConfig {
        id: LeafId(random(rng)),
        path: disk.path.clone(),
        state: LeafState::Online,
        missed: Ranges::default(),
    };
    let leaves = spec.disks.iter().map(leaf).collect();
    Ok(VdevConfig { id, kind: spec.kind, leaf_sectors, since, leaves })
}

/// The vdev of these disks, of which some may be missing; `None` when it cannot be.
pub(super) fn top_of(config: &VdevConfig, disks: Vec<Option<Arc<dyn File>>>) -> Option<Top> {
    let (redundancy, sectors) = match config.kind {
        VdevKind::Mirror => (Redundancy::Mirror, config.leaf_sectors),
        VdevKind::Raidz(parity) => {
            let layout = Layout::new(disks.len(), parity.into())?;
            (Redundancy::Raidz(layout), config.leaf_sectors.checked_mul(disks.len() as u64)?)
        }
    };
    let data_start = Areas::of(DISK_BYTES_MIN)?.data_start();
    let leaves = disks.into_iter().zip(&config.leaves).map(|(disk, config)| {
        Arc::new(match disk {
            Some(file) => {
                let leaf = Leaf::new(file, data_start);
                leaf.set_behind(!config.missed.is_empty());
                leaf
            }
            None => Leaf::absent(data_start),
        })
    });
    let vdev = Vdev::new(redundancy, leaves.collect())?;
    Some(Top { id: config.id, vdev, sectors })
}

/// The newest configuration; an error when the disks are not all of one pool.
fn newest_label(found: &[(DiskFile, Label)]) -> Result<Label, OpenError> {
    let (_, newest) = found.iter().max_by_key(|(_, label)| label.txg).ok_or(OpenError::NoDisks)?;
    match found.iter().find(|(_, label)| label.pool != newest.pool) {
        Some((_, other)) => Err(OpenError::Different(newest.name.clone(), other.name.clone())),
        None => Ok(newest.clone()),
    }
}

fn newest_uberblock(found: &[(DiskFile, Label)], pool: PoolId) -> Option<Uberblock> {
    let uberblocks = found.iter().filter_map(|(disk, _)| read_uberblocks(&*disk.file).ok()).flatten();
    uberblocks.filter(|uberblock| uberblock.pool == pool).max_by_key(|uberblock| uberblock.txg)
}

/// The vdevs with the disks that were found; of those that were not, the configuration says from now on that they miss everything.
fn tops_of(label: &mut Label, found: &[(DiskFile, Label)], txg: Txg) -> Result<Vec<Top>, OpenError> {
    let mut tops = Vec::new();
    for vdev in &mut label.vdevs {
        let mut disks = Vec::new();
        for leaf in &mut vdev.leaves {
            let disk = found.iter().find(|(_, label)| label.leaf == leaf.id).map(|(disk, _)| disk);
            let disk = disk.filter(|_| leaf.state == LeafState::Online);
            if let Some(disk) = disk {
                leaf.path.clone_from(&disk.path);
                leaf.missed.remove(txg.0, u64::MAX);
            } else {
                leaf.missed.insert(txg.0, u64::MAX);
            }
            disks.push(disk.map(|disk| Arc::clone(&disk.file)));
        }
        let missing = disks.iter().filter(|disk| disk.is_none()).count();
        let top = top_of(vdev, disks);
        let tolerates = top.as_ref().map_or(0, |top| top.vdev.tolerates());
        tops.extend(top.filter(|_| missing <= tolerates));
        if tops.last().is_none_or(|top| top.id != vdev.id) {
            return Err(OpenError::TooFewDisks {
                pool: label.name.clone(),
                vdev: vdev.id.0,
                missing,
                tolerates,
            });
        }
    }
    Ok(tops)
}

/// The spares that were found.
fn spares_of(label: &mut Label, found: &[(DiskFile, Label)]) -> Vec<Spare> {
    let spares = label.spares.iter_mut().filter_map(|spare| {
        let (disk, _) = found.iter().find(|(_, label)| label.leaf == spare.id)?;
        spare.path.clone_from(&disk.path);
        Some(Spare { id: spare.id, disk: disk.clone() })
    });
    spares.collect()
}

/// The newest maps of a vdev that are not later than the uberblock.
fn read_maps(store: &Store, top: &Top, uberblock: &Uberblock) -> Option<VdevSpace> {
    let redundancy = top.vdev.redundancy();
    let mut maps = Vec::new();
    for stretch in 0..VdevSpace::stretches(top.sectors) {
        let read = |place: usize| {
            let sector = VdevSpace::map_sector(redundancy, stretch, place);
            read_map(store, Place { vdev: top.id, sector }, stretch, uberblock).map(|block| (block, place))
        };
        let (block, place) = [read(0), read(1)].into_iter().flatten().max_by_key(|(block, _)| block.txg)?;
        maps.push((block.map, place));
    }
    Some(VdevSpace::read(top.id, redundancy, top.sectors, maps))
}

fn read_map(store: &Store, place: Place, stretch: u64, uberblock: &Uberblock) -> Option<MapBlock> {
    let map_of = |bytes: &[u8]| {
        let bytes: &[u8; MAP_BYTES] = bytes.try_into().ok()?;
        let block = MapBlock::decode(bytes).ok()?;
        let is_it = (block.pool, block.vdev, block.stretch) == (uberblock.pool, place.vdev, stretch);
        (is_it && block.txg <= uberblock.txg).then_some(block)
    };
    map_of(&store.read_current(place, sectors_of(MAP_BYTES), &|bytes| map_of(bytes).is_some())?)
}

fn read_roots(store: &Store, root: &PoolRoot) -> Result<Roots, PoolError> {
    const AT_ONCE: usize = 1024;
    let mut reading = Reading(store);
    let mut tree = Tree::new(&mut reading, NODE_BYTES);
    let mut datasets = BTreeMap::new();
    let mut first = dataset_key(0);
    loop {
        let entries = tree.scan(root.datasets.as_ref(), first, dataset_key(u64::MAX), AT_ONCE)?;
        for (key, value) in entries.iter() {
            let record = DatasetRecord::decode(value).map_err(|_| PoolError::Damaged)?;
            datasets.insert(key.object, record);
            first = dataset_key(key.object + 1);
        }
        if entries.len() < AT_ONCE {
            break;
        }
    }
    Ok(Roots {
        txg: root.txg,
        tree: root.datasets.clone(),
        next_dataset: root.next_dataset,
        datasets,
        properties: root.properties,
    })
}

impl Shared {
    fn new(
        label: Label,
        roots: Roots,
        store: Store,
        host: &Host,
        settings: Settings,
        root_places: Vec<Place>,
        spares: Vec<Spare>,
    ) -> Shared {
        let counts = store.space().counts();
        let open = Txg(label.txg.0 + 1);
        let groups = Groups {
            open: Group::new(open),
            syncing: None,
            changes: Vec::new(),
            committed: label.txg,
            logged_from: open,
            total_sectors: counts.total,
            free_sectors: counts.free.saturating_sub(counts.reserved),
            slot_sectors: store.space().slot_sectors(),
            has_snapshots: roots.have_snapshots(),
            admitted: 0,
            wanted: false,
            suspended: None,
            ended: false,
        };
        Shared {
            id: label.pool,
            settings,
            clock: Arc::clone(&host.clock),
            store,
            log: Log::new(label.pool),
            config: Mutex::new(Config { label, changed: false }),
            spares: Mutex::new(spares),
            damaged: Mutex::default(),
            roots: RwLock::new(roots),
            groups: Mutex::new(groups),
            changed: Condvar::new(),
            committing: Mutex::new(()),
            early: RwLock::new(()),
            root_places: Mutex::new(root_places),
            objects: std::array::from_fn(|_| Mutex::new(())),
        }
    }

    /// Does again what the log has of groups that were not committed.
    fn do_again(&self, entries: Vec<LogEntry>) -> Result<(), PoolError> {
        for entry in entries {
            let key = ObjectKey { dataset: entry.dataset, object: entry.object };
            let done = match entry.change {
                LogChange::Destroy => self.destroy(key),
                LogChange::SetLen(len) => self.set_len(key, len),
                LogChange::Write { offset, bytes } => self.write(key, offset, &bytes),
                LogChange::Punch { offset, len } => self.punch_reaching(key, offset, len),
                LogChange::Place { offset, pointer } => self.place_again(key, offset, pointer),
            };
            match done {
                // The dataset was destroyed later on.
                Ok(()) | Err(PoolError::NoDataset) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives an object a record that was written before, and has its space (`replay`).
    fn place_again(&self, key: ObjectKey, offset: u64, pointer: Pointer) -> Result<(), PoolError> {
        let sectors = self.store.space().early().get(&pointer.places[0]).copied().unwrap_or(0);
        let found =
            self.record_bytes(key.dataset).and_then(|record_bytes| Ok((record_bytes, self.len(key)?)));
        let mut groups = self.groups();
        let Ok((record_bytes, len)) = found else {
            groups.open.free(pointer, sectors);
            return found.map(drop);
        };
        let number = offset / u64::from(record_bytes);
        groups.open.place((key, len.unwrap_or(0)), (number, record_bytes), pointer, sectors);
        Ok(())
    }

    /// Punches what may lie behind the end of the object as it is until now: its length comes with a later entry.
    fn punch_reaching(&self, key: ObjectKey, offset: u64, count: u64) -> Result<(), PoolError> {
        let end = offset.saturating_add(count);
        if self.len(key)?.unwrap_or(0) < end {
            self.set_len(key, end)?;
        }
        self.punch(key, offset, count)
    }
}

pub(super) fn random(rng: &dyn Rng) -> u128 {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    u128::from_be_bytes(bytes)
}
