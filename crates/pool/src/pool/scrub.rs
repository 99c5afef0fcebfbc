//! Looking at everything: every copy and all parity of what is committed, and mending what is not right.
//!
//! It goes step by step through the trees in the order of keys, and begins each step with what is committed then: so commits wait for one
//! step at most. What was written since the scrub began may be looked at or not.

use std::sync::Arc;

use super::store::{Reading, StoreError, pointer_of};
use super::{Config, DatasetId, Pool, PoolError, Shared, locked};
use crate::core::ranges::Ranges;
use crate::core::tree::{Key, Load, Root};
use crate::format::{LeafId, Pointer, Txg, dataset_key, is_record, object_key};
use crate::vdev::{Leaf, SECTOR_BYTES};

/// Records of one step.
const STEP_RECORDS: u64 = 256;
/// Damaged records that are named; more are counted.
pub const DAMAGED_MAX: usize = 10_000;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubReport {
    /// Records that were looked at.
    pub records: u64,
    /// What they have, in all their places, without parity.
    pub bytes: u64,
    /// Copies and columns that were not right, and are now.
    pub mended: u64,
    /// Records that are damaged beyond repair, all of them.
    pub damaged_records: u64,
    /// The first [`DAMAGED_MAX`] of them.
    pub damaged: Vec<DamagedRecord>,
}

/// A record that nothing can mend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DamagedRecord {
    /// Of which dataset; `None` for what leads to the datasets.
    pub dataset: Option<DatasetId>,
    /// Of which object; `None` for a node, with which many may be lost.
    pub object: Option<u64>,
    /// Where in the object it begins, in bytes.
    pub offset: u64,
}

/// Where a scrub goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// In the tree of datasets.
    Datasets(Key),
    /// In the tree of this dataset, or of the next one that is there.
    Objects(u64, Key),
    Done,
}

/// A scrub under way.
#[derive(Debug)]
pub struct Scrub<'p> {
    pool: &'p Pool,
    /// What was written before is not looked at.
    since: Txg,
    position: Position,
    report: ScrubReport,
}

impl Pool {
    /// Begins to look at everything.
    pub fn scrub(&self) -> Scrub<'_> {
        self.scrub_since(Txg(0))
    }

    /// What was found damaged beyond repair, by the last scrub that came to its end and by reads since; at most [`DAMAGED_MAX`].
    pub fn damaged(&self) -> Vec<DamagedRecord> {
        locked(&self.shared.damaged).iter().copied().collect()
    }

    fn scrub_since(&self, since: Txg) -> Scrub<'_> {
        Scrub {
            pool: self,
            since,
            position: Position::Datasets(dataset_key(0)),
            report: ScrubReport::default(),
        }
    }

    /// Brings disks up to date that have missed transaction groups: what was written since the first one is read and mended. After each
    /// step `goes_on` is told what was found; when it says no, the disks stay behind, and the next resilver begins anew. `None` when
    /// no disk that is there has missed anything.
    pub fn resilver(&self, goes_on: &dyn Fn(&ScrubReport) -> bool) -> Result<Option<ScrubReport>, PoolError> {
        let behind = self.shared.behind();
        let Some(first) = behind.iter().map(|disk| disk.first).min() else { return Ok(None) };
        let mut scrub = self.scrub_since(first);
        while !scrub.step()? {
            if !goes_on(&scrub.report) {
                return Ok(Some(scrub.report));
            }
        }
        self.shared.store.space().change_all_maps();
        // The maps are on all disks after this, and only then a disk may be asked for them.
        self.shared.commit_now()?;
        self.shared.caught_up(&behind);
        self.shared.commit_now()?;
        Ok(Some(scrub.report))
    }
}

/// A disk that is there and has missed something.
#[derive(Clone, Debug)]
struct Behind {
    id: LeafId,
    leaf: Arc<Leaf>,
    first: Txg,
    missed: Ranges,
    write_errors: u64,
}

impl Shared {
    /// Keeps in mind that a record was found damaged.
    pub(super) fn note_damaged(&self, record: DamagedRecord) {
        let mut damaged = locked(&self.damaged);
        if damaged.len() < DAMAGED_MAX {
            damaged.insert(record);
        }
    }

    fn behind(&self) -> Vec<Behind> {
        let tops = self.store.tops();
        let config = locked(&self.config);
        let disks = tops.iter().zip(&config.label.vdevs);
        let disks = disks.flat_map(|(top, vdev)| top.vdev.leaves().iter().zip(&vdev.leaves));
        let behind = disks.filter(|(leaf, _)| leaf.is_there()).filter_map(|(leaf, disk)| {
            let (first, _) = disk.missed.span()?;
            let write_errors = leaf.counts().write;
            let missed = disk.missed.clone();
            Some(Behind { id: disk.id, leaf: Arc::clone(leaf), first: Txg(first), missed, write_errors })
        });
        behind.collect()
    }

    /// Disks have what they had missed, unless a write failed or they have missed more since.
    fn caught_up(&self, behind: &[Behind]) {
        let mut config = locked(&self.config);
        let Config { label, changed } = &mut *config;
        for disk in label.vdevs.iter_mut().flat_map(|vdev| &mut vdev.leaves) {
            let has_it = |behind: &&Behind| {
                let still = behind.missed == disk.missed && behind.leaf.counts().write == behind.write_errors;
                behind.id == disk.id && still
            };
            if let Some(behind) = behind.iter().find(has_it) {
                behind.leaf.set_behind(false);
                disk.missed = Ranges::default();
                *changed = true;
            }
        }
    }
}

impl Scrub<'_> {
    /// What was found so far.
    pub fn report(&self) -> &ScrubReport {
        &self.report
    }

    /// Does it to the end.
    pub fn run(mut self) -> Result<ScrubReport, PoolError> {
        while !self.step()? {}
        Ok(self.report)
    }

    /// Looks at the next few records; whether that were the last.
    pub fn step(&mut self) -> Result<bool, PoolError> {
        let pool = self.pool;
        let shared = &*pool.shared;
        let roots = shared.roots();
        let mut walk = Walk { shared, since: self.since, left: STEP_RECORDS, report: &mut self.report };
        self.position = match self.position {
            Position::Datasets(from) => {
                let next = roots.tree.as_ref().and_then(|root| walk.tree(None, root, from));
                next.map_or(Position::Objects(0, object_key(0)), Position::Datasets)
            }
            Position::Objects(dataset, from) => match roots.datasets.range(dataset..).next() {
                None => Position::Done,
                Some((id, record)) => {
                    let from = if *id == dataset { from } else { object_key(0) };
                    let next =
                        record.root.as_ref().and_then(|root| walk.tree(Some(DatasetId(*id)), root, from));
                    next.map_or(Position::Objects(id + 1, object_key(0)), |next| Position::Objects(*id, next))
                }
            },
            Position::Done => Position::Done,
        };
        drop(roots);
        let done = self.position == Position::Done;
        if done {
            // What was mended is durable before it counts.
            shared.store.sync()?;
            if self.since == Txg(0) {
                *locked(&shared.damaged) = self.report.damaged.iter().copied().collect();
            }
        }
        Ok(done)
    }
}

struct Walk<'w> {
    shared: &'w Shared,
    since: Txg,
    /// So many records more in this step.
    left: u64,
    report: &'w mut ScrubReport,
}

impl Walk<'_> {
    /// Looks at what a tree has from a key on. Where to go on, if that was not all.
    fn tree(&mut self, dataset: Option<DatasetId>, root: &Root, from: Key) -> Option<Key> {
        let Ok(pointer) = pointer_of(&root.place) else {
            self.damaged(dataset, None, 0);
            return None;
        };
        // Nothing below a node is younger than it.
        if pointer.birth < self.since {
            return None;
        }
        if !self.record(&pointer) {
            self.damaged(dataset, None, 0);
            return None;
        }
        let Ok(node) = Reading(&self.shared.store).load(&root.place) else {
            self.damaged(dataset, None, 0);
            return None;
        };
        let Some(level) = root.level.checked_sub(1) else {
            let begin = node.entries.partition_point(|entry| entry.key < from);
            for entry in &node.entries[begin..] {
                if self.left == 0 {
                    return Some(entry.key);
                }
                if dataset.is_some() && is_record(entry.key) {
                    self.part(dataset, entry.key, &entry.value);
                }
            }
            return None;
        };
        // The child before the first that begins behind `from` may have it.
        let begin = node.entries.partition_point(|entry| entry.key <= from).saturating_sub(1);
        for entry in &node.entries[begin..] {
            let from = from.max(entry.key);
            if self.left == 0 {
                return Some(from);
            }
            let child = Root { level, place: entry.value.clone() };
            if let Some(next) = self.tree(dataset, &child, from) {
                return Some(next);
            }
        }
        None
    }

    /// Looks at a part of an object.
    fn part(&mut self, dataset: Option<DatasetId>, key: Key, value: &[u8]) {
        let right = match pointer_of(value) {
            Ok(pointer) => pointer.birth < self.since || self.record(&pointer),
            Err(_) => false,
        };
        if !right {
            self.damaged(dataset, Some(key.object), key.index);
        }
    }

    /// Whether a record is right now.
    fn record(&mut self, pointer: &Pointer) -> bool {
        self.report.records += 1;
        self.left = self.left.saturating_sub(1);
        match self.shared.store.verify(pointer) {
            Ok(verified) => {
                self.report.bytes += verified.bytes;
                self.report.mended += verified.mended;
                true
            }
            Err(
                StoreError::Damaged(_)
                | StoreError::Malformed(_)
                | StoreError::NoSpace
                | StoreError::NotWritten,
            ) => false,
        }
    }

    fn damaged(&mut self, dataset: Option<DatasetId>, object: Option<u64>, sector: u64) {
        self.report.damaged_records += 1;
        if self.report.damaged.len() < DAMAGED_MAX {
            let offset = sector * SECTOR_BYTES as u64;
            self.report.damaged.push(DamagedRecord { dataset, object, offset });
        }
    }
}
