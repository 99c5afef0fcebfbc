//! Looking at everything: every copy and all parity of what is committed, and mending what is not right.
//!
//! It goes step by step through the trees in the order of keys, and begins each step with what is committed then: so commits wait for one
//! step at most. What was written since the scrub began may be looked at or not. What snapshots share is looked at once, in the oldest; what
//! is damaged there is told of all that lead to it.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::store::{Reading, Store, StoreError, pointer_of};
use super::{Config, Pool, PoolError, Roots, Shared, locked};
use crate::core::ranges::Ranges;
use crate::core::tree::{Key, Load, Root};
use crate::format::{
    DAMAGED_MAX, DamagedRecord, DatasetId, DatasetPart as Part, DatasetRecord, DatasetSort as Sort, Extent,
    LeafId, Pointer, ScrubPosition as Position, ScrubRecord, ScrubReport, Txg, dataset_key, is_record,
    object_key,
};
use crate::vdev::{Leaf, SECTOR_BYTES};

/// Records of one step, where nobody says how many.
pub const STEP_RECORDS: u64 = 256;

/// A scrub under way.
#[derive(Debug)]
pub struct Scrub<'p> {
    pool: &'p Pool,
    /// What was written before is not looked at.
    since: Txg,
    /// What was committed when it began: snapshots that were made later do not matter.
    began: Txg,
    position: Position,
    report: ScrubReport,
}

impl Pool {
    /// Begins to look at everything.
    pub fn scrub(&self) -> Scrub<'_> {
        self.scrub_since(Txg(0))
    }

    /// Goes on with a scrub that was under way when the pool was open before.
    pub fn scrub_from(&self, record: &ScrubRecord) -> Scrub<'_> {
        let ScrubRecord { began, position, ref report, .. } = *record;
        Scrub { began, position, report: report.clone(), ..self.scrub() }
    }

    /// What was found damaged beyond repair, by the last scrub that came to its end and by reads since; at most [`DAMAGED_MAX`].
    pub fn damaged(&self) -> Vec<DamagedRecord> {
        locked(&self.shared.damaged).iter().copied().collect()
    }

    /// These were found before it was opened.
    pub fn know_damaged(&self, records: &[DamagedRecord]) {
        for record in records {
            self.shared.note_damaged(*record);
        }
    }

    fn scrub_since(&self, since: Txg) -> Scrub<'_> {
        Scrub {
            pool: self,
            since,
            began: self.shared.roots().txg,
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
        while !scrub.step(STEP_RECORDS)? {
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

    /// Where it goes on, and what was committed when it began.
    pub fn position(&self) -> (Position, Txg) {
        (self.position, self.began)
    }

    /// Does it to the end.
    pub fn run(mut self) -> Result<ScrubReport, PoolError> {
        while !self.step(STEP_RECORDS)? {}
        Ok(self.report)
    }

    /// Looks at the next records, at most so many; whether that were the last.
    pub fn step(&mut self, records: u64) -> Result<bool, PoolError> {
        let pool = self.pool;
        let shared = &*pool.shared;
        let roots = shared.roots();
        let mut walk =
            Walk { shared, roots: &roots, since: self.since, left: records, report: &mut self.report };
        self.position = match self.position {
            Position::Datasets(from) => {
                let next = roots.tree.as_ref().and_then(|root| walk.tree(None, root, from));
                next.map_or(first_of(Sort::Snapshots, 0), Position::Datasets)
            }
            Position::In(sort, dataset, part, from) => {
                let is_of_sort = |(_, record): &(&u64, &DatasetRecord)| match sort {
                    Sort::Snapshots => record.snapshot_of.is_some() && record.created <= self.began,
                    Sort::Live => record.snapshot_of.is_none(),
                };
                match (roots.datasets.range(dataset..).find(is_of_sort), sort) {
                    (None, Sort::Snapshots) => first_of(Sort::Live, 0),
                    (None, Sort::Live) => Position::Done,
                    (Some((id, _)), _) if *id != dataset => first_of(sort, *id),
                    (Some((id, record)), _) => {
                        walk.since = self.since.max(Txg(roots.shared_as_of(*id, self.began).until.0 + 1));
                        let root = match part {
                            Part::Objects => record.root.as_ref(),
                            Part::Dead => record.dead.as_ref(),
                        };
                        let next = root.and_then(|root| walk.tree(Some(*id), root, from));
                        match (next, part) {
                            (Some(next), _) => Position::In(sort, *id, part, next),
                            (None, Part::Objects) => Position::In(sort, *id, Part::Dead, Extent::keys().0),
                            (None, Part::Dead) => first_of(sort, id + 1),
                        }
                    }
                }
            }
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

fn first_of(sort: Sort, dataset: u64) -> Position {
    Position::In(sort, dataset, Part::Objects, object_key(0))
}

struct Walk<'w> {
    shared: &'w Shared,
    roots: &'w Roots,
    since: Txg,
    /// So many records more in this step.
    left: u64,
    report: &'w mut ScrubReport,
}

impl Walk<'_> {
    /// Looks at what a tree has from a key on. Where to go on, if that was not all.
    fn tree(&mut self, dataset: Option<u64>, root: &Root, from: Key) -> Option<Key> {
        self.node(dataset, root, (Key::default(), from))
    }

    /// The same for a node, whose lowest key is `lowest`.
    fn node(&mut self, dataset: Option<u64>, root: &Root, (lowest, from): (Key, Key)) -> Option<Key> {
        let pointer = pointer_of(&root.place).ok();
        // Nothing below a node is younger than it.
        if pointer.as_ref().is_some_and(|pointer| pointer.birth < self.since) {
            return None;
        }
        let right = pointer.is_some_and(|pointer| self.record(&pointer));
        let node = right.then(|| Reading(&self.shared.store).load(&root.place).ok()).flatten();
        let Some(node) = node else {
            self.damaged(dataset, (Some(root.level), lowest), &root.place);
            return None;
        };
        let Some(level) = root.level.checked_sub(1) else {
            for (key, value) in node.entries.iter_from(node.entries.first_from(from)) {
                if self.left == 0 {
                    return Some(key);
                }
                if dataset.is_some() && is_record(key) {
                    self.part(dataset, key, value);
                }
            }
            return None;
        };
        for (key, place) in node.entries.iter_from(node.entries.child_of(from)) {
            let from = from.max(key);
            if self.left == 0 {
                return Some(from);
            }
            let child = Root { level, place: place.to_vec() };
            if let Some(next) = self.node(dataset, &child, (key, from)) {
                return Some(next);
            }
        }
        None
    }

    /// Looks at a part of an object.
    fn part(&mut self, dataset: Option<u64>, key: Key, value: &[u8]) {
        let right = match pointer_of(value) {
            Ok(pointer) => pointer.birth < self.since || self.record(&pointer),
            Err(_) => false,
        };
        if !right {
            self.damaged(dataset, (None, key), value);
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

    /// Takes down that a node of a level, or a record, of a dataset is damaged, and the same for all others that lead to it.
    fn damaged(&mut self, dataset: Option<u64>, (level, key): (Option<u8>, Key), place: &[u8]) {
        self.report.damaged_records += 1;
        let others = dataset.map_or(BTreeSet::new(), |dataset| self.roots.sharing_with(dataset));
        let leads = |id: &u64| {
            let root = self.roots.datasets.get(id).and_then(|record| record.root.as_ref());
            root.is_some_and(|root| leads_to(&self.shared.store, root, (level, key), place))
        };
        let others: Vec<u64> = others.into_iter().filter(leads).collect();
        let (object, offset) = match level {
            Some(_) => (None, 0),
            None => (Some(key.object), key.index * SECTOR_BYTES as u64),
        };
        for dataset in [dataset].into_iter().chain(others.into_iter().map(Some)) {
            if self.report.damaged.len() < DAMAGED_MAX {
                let dataset = dataset.map(DatasetId);
                self.report.damaged.push(DamagedRecord { dataset, object, offset });
            }
        }
    }
}

/// Whether a tree has a node of a level, or without one a record, with this key in this place.
fn leads_to(store: &Store, root: &Root, (level, key): (Option<u8>, Key), place: &[u8]) -> bool {
    let (mut at, mut at_place) = (root.level, root.place.clone());
    loop {
        if Some(at) == level {
            return at_place == place;
        }
        let Ok(node) = Reading(store).load(&at_place) else { return false };
        let Some(below) = at.checked_sub(1) else {
            return level.is_none() && node.entries.iter().any(|entry| entry == (key, place));
        };
        let child = node.entries.iter_from(node.entries.child_of(key)).next();
        let Some((_, child)) = child else { return false };
        (at, at_place) = (below, child.to_vec());
    }
}
