//! Objects in datasets, changed in transaction groups.
//!
//! What is changed lies in memory, in the open [`Group`], until that is committed: its records are written where nothing is (those that
//! come as a whole are written there when they come), then the nodes of the trees that lead to them, the maps of space, the root, and at last the uberblock, which makes it all true at once. Meanwhile
//! the next group is open. [`Pool::sync`] does not wait for that: it writes what is new of the objects to the intent log, which is
//! replayed when the pool is opened after a crash.
//!
//! **Order of locks:** an object, `committing`, `early`, `groups`, `roots`, the log, space.

mod cache;
mod commit;
mod compression;
mod disks;
mod log;
mod objects;
mod open;
mod scrub;
mod snapshots;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kiln_world::Clock;

use crate::core::group::{Group, ObjectKey, REMOVED_BYTES};
use crate::core::tree::{Root, TreeError};
use crate::format::{
    DATASET_NAME_BYTES_MAX, DatasetKind, DatasetRecord, Label, LeafId, Place, PoolId, Properties, Txg,
};
use crate::vdev::SECTOR_BYTES;
use log::{LOG_BYTES_MAX, Log, Until};
use store::{Store, StoreError};

pub use crate::format::{DAMAGED_MAX, DamagedRecord, DatasetId, ScrubReport};
pub use disks::{Care, DiskError};
pub use open::{CreateError, DiskFile, Host, OpenError, VdevSpec};
pub use scrub::{STEP_RECORDS, Scrub};
pub use snapshots::SNAPSHOT_MARK;
pub use status::{Health, LeafStatus, PoolStatus, VdevStatus};

/// Length of the nodes of trees, before they are compressed: with what is usual in them they then fit into a sector.
const NODE_BYTES: usize = 7 << 10;
/// Objects are changed by one at a time; so many locks are shared by all of them.
const OBJECT_LOCKS: usize = 64;
/// Threads that write a group, unless it is said otherwise.
const THREADS_MAX: usize = 4;
/// Which part of a pool's memory the records may take that one group removes of one object.
const REMOVED_SHARE: u64 = 8;
/// Of a range of no more records it is not asked how many there are before they are removed.
const COUNTED_MIN: u64 = 1024;
/// A dataset's records, unless it says otherwise.
pub const RECORD_BYTES: u32 = 128 << 10;
/// The largest object, in bytes.
pub const OBJECT_BYTES_MAX: u64 = i64::MAX as u64;

/// How a pool is run.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How much changed data may wait in memory, in bytes; who changes more waits.
    pub dirty_bytes_max: u64,
    /// How much of what was read, or is to lead to it, may stay in memory, in bytes.
    pub cache_bytes: usize,
    /// Of a write that is at least so long, in bytes, whole records go to their places at once.
    pub placed_bytes_min: usize,
    /// How many records one group removes of one object; of more, it takes several groups. **Must hold:** at least one.
    pub removed_max: usize,
    /// How long a change waits to be committed at most, unless somebody wants it earlier. `None`: there is no thread that commits, and
    /// whoever needs a commit does it.
    pub commit_every: Option<Duration>,
    /// How many threads write the records of a group. **Must hold:** at least one.
    pub threads: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::within(512 << 20)
    }
}

impl Settings {
    /// Those of a pool that is to take no more than so much memory, in bytes.
    pub fn within(memory_bytes: u64) -> Settings {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        Settings {
            // While one group is written, the next one fills up to the half of this.
            dirty_bytes_max: memory_bytes / 2,
            cache_bytes: (memory_bytes / 4) as usize,
            placed_bytes_min: 64 << 10,
            removed_max: (memory_bytes / REMOVED_SHARE / REMOVED_BYTES) as usize,
            commit_every: Some(Duration::from_secs(5)),
            threads,
        }
    }
}

/// Why something could not be done with a pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// The pool is full.
    #[error("no space is left in the pool")]
    NoSpace,
    /// What was asked for is damaged beyond what redundancy can mend.
    #[error("damaged beyond what the pool's redundancy can mend")]
    Damaged,
    /// Too many disks failed: nothing can be written until the pool is opened again.
    #[error("the pool is suspended: {0}; bring its disks back, and start its node again")]
    Suspended(String),
    /// There is no such dataset.
    #[error("no such dataset")]
    NoDataset,
    /// There is one of that name.
    #[error("a dataset of that name is there already")]
    DatasetExists,
    /// A name that no dataset can have.
    #[error("a dataset's name has 1 to {DATASET_NAME_BYTES_MAX} bytes and no '{SNAPSHOT_MARK}'")]
    DatasetName,
    /// A snapshot cannot be changed.
    #[error("it is a snapshot, which nothing changes")]
    ReadOnly,
    /// A dataset with snapshots cannot be destroyed.
    #[error("the dataset has snapshots; destroy those first")]
    HasSnapshots,
    /// A snapshot that was cloned cannot be destroyed.
    #[error("dataset '{0}' was cloned from the snapshot; destroy that first")]
    HasClone(String),
    /// A dataset is rolled back to its newest snapshot only.
    #[error("there are newer snapshots; destroy those first")]
    NotNewest,
    /// An object cannot be so long.
    #[error("an object has at most {OBJECT_BYTES_MAX} bytes")]
    TooLong,
}

impl From<StoreError> for PoolError {
    fn from(error: StoreError) -> PoolError {
        match error {
            StoreError::NoSpace => PoolError::NoSpace,
            StoreError::Damaged(_) | StoreError::Malformed(_) => PoolError::Damaged,
            StoreError::NotWritten => PoolError::Suspended(error.to_string()),
        }
    }
}

impl From<TreeError<StoreError>> for PoolError {
    fn from(error: TreeError<StoreError>) -> PoolError {
        match error {
            TreeError::Node(error) => error.into(),
            TreeError::Malformed { .. } => PoolError::Damaged,
        }
    }
}

/// Length of an object, and what it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectStat {
    /// Its length, in bytes.
    pub len: u64,
    /// What it takes on the disks, in bytes, without parity; what is not committed counts with its length.
    pub disk_bytes: u64,
}

/// Space of a pool for objects, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total_bytes: u64,
    /// What of it is free.
    pub free_bytes: u64,
}

/// What is committed. A record that is looked up in it is there as long as the lock is held.
#[derive(Clone, Debug)]
struct Roots {
    txg: Txg,
    tree: Option<Root>,
    next_dataset: u64,
    datasets: BTreeMap<u64, DatasetRecord>,
    properties: Properties,
}

/// What is to be done by the open group besides changing objects.
#[derive(Clone, Debug)]
enum Change {
    CreateDataset(u64, DatasetRecord),
    DestroyDataset(u64),
    Snapshot {
        datasets: Vec<u64>,
        name: String,
    },
    /// To these snapshots.
    RollBack(Vec<u64>),
    Properties(Properties),
}

#[derive(Debug)]
struct Groups {
    open: Group,
    /// What is being committed.
    syncing: Option<Arc<Group>>,
    /// What else the open group does.
    changes: Vec<Change>,
    /// The last that is durable.
    committed: Txg,
    /// A group before this one may lack something in the log that counts as logged.
    logged_from: Txg,
    /// Space as of the last commit, in sectors, and what of it was free for objects.
    total_sectors: u64,
    free_sectors: u64,
    /// Of the log, as of the last commit.
    slot_sectors: u64,
    /// Whether there are snapshots, as of the last commit.
    has_snapshots: bool,
    /// What was admitted and is not in a group yet, in sectors.
    admitted: u64,
    /// Somebody wants the open group to be committed.
    wanted: bool,
    /// Nothing can be written any more.
    suspended: Option<String>,
    ended: bool,
}

struct Shared {
    id: PoolId,
    settings: Settings,
    clock: Arc<dyn Clock>,
    store: Store,
    /// The configuration, as of the newest labels.
    config: Mutex<Config>,
    /// Those spares of the configuration that are there.
    spares: Mutex<Vec<Spare>>,
    /// Records that were found damaged beyond repair.
    damaged: Mutex<BTreeSet<DamagedRecord>>,
    roots: RwLock<Roots>,
    groups: Mutex<Groups>,
    changed: Condvar,
    committing: Mutex<()>,
    /// Held by those who write to places for the group that is open, and had alone by who closes it.
    early: RwLock<()>,
    /// Of the newest root.
    root_places: Mutex<Vec<Place>>,
    objects: [Mutex<()>; OBJECT_LOCKS],
    log: Log,
}

/// A disk that steps in when another one fails.
struct Spare {
    id: LeafId,
    disk: DiskFile,
}

/// The configuration, and whether the labels have it.
#[derive(Clone, Debug)]
struct Config {
    label: Label,
    changed: bool,
}

/// A pool that is open. It ends when it is dropped, without a commit: what was synced is there when it is opened again.
pub struct Pool {
    shared: Arc<Shared>,
    committer: Option<JoinHandle<()>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    fn run(shared: Shared) -> std::io::Result<Pool> {
        let shared = Arc::new(shared);
        let committer = match shared.settings.commit_every {
            None => None,
            Some(every) => {
                let shared = Arc::clone(&shared);
                Some(
                    thread::Builder::new()
                        .name("pool-commit".into())
                        .spawn(move || shared.commit_when_wanted(every))?,
                )
            }
        };
        Ok(Pool { shared, committer })
    }

    /// The pool's name.
    pub fn name(&self) -> String {
        locked(&self.shared.config).label.name.clone()
    }

    /// The configuration of now.
    pub fn config(&self) -> Label {
        locked(&self.shared.config).label.clone()
    }

    /// How what is written is kept.
    pub fn properties(&self) -> Properties {
        self.shared.roots().properties
    }

    /// Keeps what is written from now on in another way; what is there stays as it is.
    pub fn set_properties(&self, properties: Properties) -> Result<(), PoolError> {
        self.shared.change(|_, _| Ok(Change::Properties(properties)))
    }

    /// The datasets, with their names.
    pub fn datasets(&self) -> Vec<(DatasetId, String)> {
        let roots = self.shared.roots();
        roots.datasets.iter().map(|(id, record)| (DatasetId(*id), record.name.clone())).collect()
    }

    /// The dataset of a name.
    pub fn dataset(&self, name: &str) -> Option<DatasetId> {
        let roots = self.shared.roots();
        roots.datasets.iter().find(|(_, record)| record.name == name).map(|(id, _)| DatasetId(*id))
    }

    /// Makes a dataset, which is durable when this returns.
    ///
    /// # Panics
    ///
    /// Unless the length of records is a power of two from a sector to 1 MiB.
    pub fn create_dataset(
        &self,
        name: &str,
        record_bytes: u32,
        kind: DatasetKind,
    ) -> Result<DatasetId, PoolError> {
        snapshots::check_name(name)?;
        let sizes = SECTOR_BYTES as u32..=1 << 20;
        assert!(
            record_bytes.is_power_of_two() && sizes.contains(&record_bytes),
            "records of {record_bytes} bytes"
        );
        self.shared.change(|roots, txg| {
            roots.is_free(name)?;
            let new = DatasetRecord::new(name.to_owned(), txg, record_bytes, kind);
            Ok(Change::CreateDataset(roots.next_dataset, new))
        })?;
        self.dataset(name).ok_or(PoolError::NoDataset)
    }

    /// Destroys a dataset, or a snapshot, with all its objects, durably. Those of its snapshots, and of its clones, must be gone.
    pub fn destroy_dataset(&self, dataset: DatasetId) -> Result<(), PoolError> {
        self.shared.change(|roots, _| {
            roots.is_disposable(dataset.0)?;
            Ok(Change::DestroyDataset(dataset.0))
        })
    }

    /// Fills the front of `into` from `offset` on; how much of it. Less only at the end of the object; one that is not there is empty.
    pub fn read(
        &self,
        dataset: DatasetId,
        object: u64,
        offset: u64,
        into: &mut [u8],
    ) -> Result<usize, PoolError> {
        self.shared.read(ObjectKey { dataset: dataset.0, object }, offset, into)
    }

    /// Writes at `offset`; an object that was shorter reaches there with zeros, and one that was not there is made.
    pub fn write(&self, dataset: DatasetId, object: u64, offset: u64, bytes: &[u8]) -> Result<(), PoolError> {
        self.shared.write(ObjectKey { dataset: dataset.0, object }, offset, bytes)
    }

    /// Cuts an object, or lets it reach further with zeros; one that is not there is made.
    pub fn set_len(&self, dataset: DatasetId, object: u64, len: u64) -> Result<(), PoolError> {
        self.shared.set_len(ObjectKey { dataset: dataset.0, object }, len)
    }

    /// Lets an object reach to `len` with zeros; a longer one stays as it is, and one that is not there is made.
    pub fn reach(&self, dataset: DatasetId, object: u64, len: u64) -> Result<(), PoolError> {
        self.shared.reach(ObjectKey { dataset: dataset.0, object }, len)
    }

    /// Makes a part of an object zeros, and gives the space of whole records back. Its length stays.
    pub fn punch(&self, dataset: DatasetId, object: u64, offset: u64, len: u64) -> Result<(), PoolError> {
        self.shared.punch(ObjectKey { dataset: dataset.0, object }, offset, len)
    }

    /// Destroys an object, if it is there.
    pub fn destroy(&self, dataset: DatasetId, object: u64) -> Result<(), PoolError> {
        self.shared.destroy(ObjectKey { dataset: dataset.0, object })
    }

    /// Length and space of an object; `None` when it is not there.
    pub fn stat(&self, dataset: DatasetId, object: u64) -> Result<Option<ObjectStat>, PoolError> {
        self.shared.stat(ObjectKey { dataset: dataset.0, object })
    }

    /// The first record from `offset` on that is (`hole`) or is not a hole, as an offset that is not below `offset`; `None` when there
    /// is none. What is behind the end of an object is a hole.
    pub fn seek(
        &self,
        dataset: DatasetId,
        object: u64,
        offset: u64,
        hole: bool,
    ) -> Result<Option<u64>, PoolError> {
        self.shared.seek(ObjectKey { dataset: dataset.0, object }, offset, hole)
    }

    /// Makes what was done to objects until now durable.
    pub fn sync(&self, dataset: DatasetId, objects: &[u64]) -> Result<(), PoolError> {
        let key = |object: &u64| ObjectKey { dataset: dataset.0, object: *object };
        self.shared.log(&objects.iter().map(key).collect::<Vec<_>>(), Until::Durable)
    }

    /// Makes sure that what was done to an object until now outlives this process, though not a loss of power: it is with the system.
    pub fn keep(&self, dataset: DatasetId, object: u64) -> Result<(), PoolError> {
        self.shared.log(&[ObjectKey { dataset: dataset.0, object }], Until::Written)
    }

    /// Makes everything durable that was done until now, by committing it.
    pub fn commit(&self) -> Result<(), PoolError> {
        self.shared.commit_now()
    }

    /// The objects of a dataset from `first` on that are committed, at most so many, in ascending order.
    pub fn objects(&self, dataset: DatasetId, first: u64, count_max: usize) -> Result<Vec<u64>, PoolError> {
        self.shared.objects_of(dataset.0, first, count_max)
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        locked(&self.shared.groups).ended = true;
        self.shared.changed.notify_all();
        if let Some(committer) = self.committer.take() {
            // It has told why if it panicked; nothing waits for it any more.
            let _ = committer.join();
        }
    }
}

impl Shared {
    fn roots(&self) -> RwLockReadGuard<'_, Roots> {
        self.roots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn groups(&self) -> MutexGuard<'_, Groups> {
        locked(&self.groups)
    }

    fn object_lock(&self, key: ObjectKey) -> MutexGuard<'_, ()> {
        let spread = key.object ^ key.object >> 32 ^ key.dataset;
        locked(&self.objects[spread as usize % OBJECT_LOCKS])
    }

    fn record_bytes(&self, dataset: u64) -> Result<u32, PoolError> {
        let roots = self.roots();
        roots.datasets.get(&dataset).map(|record| record.record_bytes).ok_or(PoolError::NoDataset)
    }

    /// The length of the records of a dataset that may be changed, and what it is for.
    fn changeable(&self, dataset: u64) -> Result<(u32, DatasetKind), PoolError> {
        let roots = self.roots();
        let record = roots.datasets.get(&dataset).ok_or(PoolError::NoDataset)?;
        let is_snapshot = record.snapshot_of.is_some();
        if is_snapshot { Err(PoolError::ReadOnly) } else { Ok((record.record_bytes, record.kind)) }
    }

    /// The open group and what is being committed, newest first.
    fn layers(&self) -> (MutexGuard<'_, Groups>, Option<Arc<Group>>) {
        let groups = self.groups();
        let syncing = groups.syncing.clone();
        (groups, syncing)
    }
}
