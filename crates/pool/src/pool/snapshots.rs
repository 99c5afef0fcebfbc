//! Snapshots of datasets, and clones of those, at the cost of what changes.
//!
//! A snapshot is a dataset that nothing changes: it begins with the root that its dataset has when the group that makes it is committed. What
//! was written until then is in both, and stays when the dataset does not lead to it any more: it goes to the list of what is *dead* for the
//! dataset and not for the snapshot before it. So what is to be freed with a snapshot is known without looking through it: of the list of
//! the one that comes after it, all that is younger than the one before it.

use std::collections::BTreeSet;

use super::store::{Reading, Store, pointer_of};
use super::writer::Writer;
use super::{Change, DatasetId, NODE_BYTES, Pool, PoolError, Roots};
use crate::core::tree::{Edits, Key, Load, Root, Tree};
use crate::format::{DATASET_NAME_BYTES_MAX, DatasetRecord, Extent, Txg, dataset_key, is_record};

/// What is between the name of a dataset and that of its snapshot.
pub const SNAPSHOT_MARK: char = '@';
/// Extents that are looked at at once.
const EXTENTS_AT_ONCE: usize = 4096;

/// What of what a dataset leads to belongs to snapshots too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shared {
    /// What is no younger than this is in the snapshot before it.
    pub(super) until: Txg,
    /// What is no younger than this is in the snapshot that it was cloned from.
    pub(super) origin: Txg,
}

/// Nothing.
pub(super) const NOT_SHARED: Shared = Shared { until: Txg(0), origin: Txg(0) };

impl Pool {
    /// Keeps datasets as they are now under a name, all at the same moment; durable when this returns.
    pub fn snapshot(&self, datasets: &[DatasetId], name: &str) -> Result<(), PoolError> {
        if name.is_empty() || name.contains(SNAPSHOT_MARK) {
            return Err(PoolError::DatasetName);
        }
        self.shared.change(|roots, _| {
            for dataset in datasets {
                let record = roots.datasets.get(&dataset.0).ok_or(PoolError::NoDataset)?;
                if record.snapshot_of.is_some() {
                    return Err(PoolError::ReadOnly);
                }
                roots.is_free(&snapshot_name(&record.name, name))?;
            }
            let datasets = datasets.iter().map(|dataset| dataset.0).collect();
            Ok(Change::Snapshot { datasets, name: name.to_owned() })
        })
    }

    /// The snapshot of a name, of the dataset of a name.
    pub fn snapshot_of(&self, dataset: &str, name: &str) -> Option<DatasetId> {
        self.dataset(&snapshot_name(dataset, name))
    }

    /// Makes a dataset that begins as what a snapshot is, and can be changed; durable when this returns.
    pub fn clone_snapshot(&self, snapshot: DatasetId, name: &str) -> Result<DatasetId, PoolError> {
        check_name(name)?;
        self.shared.change(|roots, created| {
            roots.is_free(name)?;
            let origin = roots.snapshot(snapshot)?;
            let (record_bytes, kind, root) = (origin.record_bytes, origin.kind, origin.root.clone());
            let before = Some(snapshot.0);
            let plain = DatasetRecord::new(name.to_owned(), created, record_bytes, kind);
            let clone = DatasetRecord { root, before, ..plain };
            Ok(Change::CreateDataset(roots.next_dataset, clone))
        })?;
        self.dataset(name).ok_or(PoolError::NoDataset)
    }

    /// Makes datasets again what they were at these snapshots, all at the same moment and durably; what was done since is lost. They
    /// must be the newest of their datasets. **Must hold:** nobody uses the datasets meanwhile.
    pub fn roll_back(&self, snapshots: &[DatasetId]) -> Result<(), PoolError> {
        self.shared.change(|roots, _| {
            for snapshot in snapshots {
                let of = roots.snapshot(*snapshot)?.snapshot_of;
                let dataset = of.and_then(|of| roots.datasets.get(&of)).ok_or(PoolError::NoDataset)?;
                if dataset.before != Some(snapshot.0) {
                    return Err(PoolError::NotNewest);
                }
            }
            Ok(Change::RollBack(snapshots.iter().map(|snapshot| snapshot.0).collect()))
        })
    }

    /// What is freed when a snapshot is destroyed, in bytes, without parity.
    pub fn snapshot_bytes(&self, snapshot: DatasetId) -> Result<u64, PoolError> {
        let roots = self.shared.roots();
        roots.snapshot(snapshot)?;
        let since = roots.shared_by(snapshot.0).until;
        let mut sectors = 0;
        let after = roots.after(snapshot.0).and_then(|after| roots.datasets.get(&after));
        let dead = after.and_then(|after| after.dead.clone());
        each_extent(&self.shared.store, dead.as_ref(), |extent| {
            if extent.birth > since {
                sectors += self.shared.store.space().allocated(extent.place.vdev, extent.sectors);
            }
            Ok(())
        })?;
        Ok(self.shared.without_parity(sectors) * crate::vdev::SECTOR_BYTES as u64)
    }
}

/// Whether a name is one that a dataset can have that is no snapshot.
pub(super) fn check_name(name: &str) -> Result<(), PoolError> {
    let fits = (1..=DATASET_NAME_BYTES_MAX).contains(&name.len()) && !name.contains(SNAPSHOT_MARK);
    if fits { Ok(()) } else { Err(PoolError::DatasetName) }
}

fn snapshot_name(dataset: &str, name: &str) -> String {
    format!("{dataset}{SNAPSHOT_MARK}{name}")
}

/// Tells of all that a list has.
fn each_extent(
    store: &Store,
    dead: Option<&Root>,
    mut tell: impl FnMut(Extent) -> Result<(), PoolError>,
) -> Result<(), PoolError> {
    let mut reading = Reading(store);
    let (mut first, last) = Extent::keys();
    loop {
        let entries = Tree::new(&mut reading, NODE_BYTES).scan(dead, first, last, EXTENTS_AT_ONCE)?;
        for (key, value) in entries.iter() {
            tell(Extent::decode(key, value).map_err(|_| PoolError::Damaged)?)?;
        }
        if entries.len() < EXTENTS_AT_ONCE {
            return Ok(());
        }
        // Two extents do not begin at one sector, and no vdev has the last one.
        let last = entries.key(entries.len() - 1);
        first = Key { index: last.index + 1, ..last };
    }
}

impl Roots {
    /// Whether no dataset has a name, and one could have it.
    pub(super) fn is_free(&self, name: &str) -> Result<(), PoolError> {
        if name.len() > DATASET_NAME_BYTES_MAX {
            return Err(PoolError::DatasetName);
        }
        let taken = self.datasets.values().any(|record| record.name == name);
        if taken { Err(PoolError::DatasetExists) } else { Ok(()) }
    }

    fn snapshot(&self, id: DatasetId) -> Result<&DatasetRecord, PoolError> {
        let snapshot = self.datasets.get(&id.0).filter(|record| record.snapshot_of.is_some());
        snapshot.ok_or(PoolError::NoDataset)
    }

    /// What of what a dataset leads to is in snapshots too.
    pub(super) fn shared_by(&self, dataset: u64) -> Shared {
        self.shared_as_of(dataset, Txg(u64::MAX))
    }

    /// The same as if snapshots of groups behind `last` were not there.
    pub(super) fn shared_as_of(&self, dataset: u64, last: Txg) -> Shared {
        let mut shared = NOT_SHARED;
        let Some(record) = self.datasets.get(&dataset) else { return shared };
        let of = record.snapshot_of.unwrap_or(dataset);
        let mut at = record.before;
        while let Some(before) = at.and_then(|id| self.datasets.get(&id)) {
            if before.created <= last {
                shared.until = shared.until.max(before.created);
            }
            if before.snapshot_of != Some(of) {
                shared.origin = before.created;
                break;
            }
            at = before.before;
        }
        shared
    }

    /// What comes after a snapshot of the same dataset: the next one, or the dataset itself.
    pub(super) fn after(&self, snapshot: u64) -> Option<u64> {
        let of = self.datasets.get(&snapshot)?.snapshot_of;
        let follows = |(id, record): &(&u64, &DatasetRecord)| {
            record.before == Some(snapshot) && (record.snapshot_of == of || Some(**id) == of)
        };
        self.datasets.iter().find(follows).map(|(id, _)| *id)
    }

    /// The datasets that lead to what a snapshot leads to, as far as they did not change it since: those that came after it, and their clones.
    pub(super) fn sharing_with(&self, snapshot: u64) -> BTreeSet<u64> {
        let mut found = BTreeSet::from([snapshot]);
        // The number of what comes before a snapshot is lower than its own.
        let (snapshots, live): (Vec<_>, Vec<_>) =
            self.datasets.iter().partition(|(_, record)| record.snapshot_of.is_some());
        for (id, record) in snapshots.into_iter().chain(live) {
            if record.before.is_some_and(|before| found.contains(&before)) {
                found.insert(*id);
            }
        }
        found.remove(&snapshot);
        found
    }

    /// Whether there is any snapshot.
    pub(super) fn have_snapshots(&self) -> bool {
        self.datasets.values().any(|record| record.snapshot_of.is_some())
    }

    /// Whether a dataset may be destroyed.
    pub(super) fn is_disposable(&self, id: u64) -> Result<(), PoolError> {
        let record = self.datasets.get(&id).ok_or(PoolError::NoDataset)?;
        if self.datasets.values().any(|other| other.snapshot_of == Some(id)) {
            return Err(PoolError::HasSnapshots);
        }
        let after = record.snapshot_of.and_then(|_| self.after(id));
        let mut others = self.datasets.iter().filter(|(other, _)| Some(**other) != after);
        let clone = others.find(|(_, record)| record.before == Some(id)).map(|(number, clone)| {
            // The oldest snapshot of a clone comes before that.
            let clone = self.datasets.get(&clone.snapshot_of.unwrap_or(*number)).unwrap_or(clone);
            clone.name.clone()
        });
        clone.map_or(Ok(()), |clone| Err(PoolError::HasClone(clone)))
    }
}

impl Writer<'_> {
    /// Makes a snapshot of each of these datasets, as they are with what the group has done.
    pub(super) fn snapshot(
        &mut self,
        roots: &mut Roots,
        (datasets, name): (&[u64], &str),
        edits: &mut Edits,
    ) {
        for id in datasets {
            let Some(record) = roots.datasets.get_mut(id) else { continue };
            let number = roots.next_dataset;
            roots.next_dataset += 1;
            let snapshot = DatasetRecord {
                name: snapshot_name(&record.name, name),
                created: self.txg,
                snapshot_of: Some(*id),
                dead: record.dead.take(),
                ..record.clone()
            };
            record.before = Some(number);
            edits.put(dataset_key(*id), record.encode());
            edits.put(dataset_key(number), snapshot.encode());
            roots.datasets.insert(number, snapshot);
        }
    }

    /// Makes the datasets of these snapshots what they were then.
    pub(super) fn roll_back(
        &mut self,
        roots: &mut Roots,
        snapshots: &[u64],
        edits: &mut Edits,
    ) -> Result<Vec<u64>, PoolError> {
        let mut rolled_back = Vec::new();
        for snapshot in snapshots {
            let Some(then) = roots.datasets.get(snapshot).cloned() else { continue };
            let Some(id) = then.snapshot_of else { continue };
            let Some(now) = roots.datasets.get(&id) else { continue };
            let (root, dead) = (now.root.clone(), now.dead.clone());
            // What is in the snapshot is in the dataset again.
            self.free_tree(root.as_ref(), Shared { until: then.created, origin: then.created })?;
            self.free_tree(dead.as_ref(), NOT_SHARED)?;
            if let Some(now) = roots.datasets.get_mut(&id) {
                (now.root, now.dead) = (then.root, None);
                edits.put(dataset_key(id), now.encode());
            }
            rolled_back.push(id);
        }
        Ok(rolled_back)
    }

    /// Destroys a dataset of which there are no snapshots or clones.
    pub(super) fn destroy_dataset(
        &mut self,
        roots: &mut Roots,
        id: u64,
        edits: &mut Edits,
    ) -> Result<(), PoolError> {
        let Some(record) = roots.datasets.get(&id).cloned() else { return Ok(()) };
        let (shared, after) = (roots.shared_by(id), roots.after(id));
        roots.datasets.remove(&id);
        edits.remove(dataset_key(id), dataset_key(id));
        let Some((after, next)) = after.and_then(|after| Some((after, roots.datasets.get_mut(&after)?)))
        else {
            self.free_tree(record.root.as_ref(), shared)?;
            return self.free_tree(record.dead.as_ref(), NOT_SHARED);
        };
        // Of what the one after it does not lead to, what came after the one before it is nobody's now.
        let mut changes = Edits::default();
        // The first of those that follow one another in the list, and the last.
        let mut run: Option<(Key, Key)> = None;
        self.write_nodes()?;
        each_extent(self.store, next.dead.as_ref(), |extent| {
            if extent.birth > shared.until {
                run = Some((run.map_or(extent.key(), |(first, _)| first), extent.key()));
                return Ok(self.free(&extent)?);
            }
            if let Some((first, last)) = run.take() {
                changes.remove(first, last);
            }
            Ok(())
        })?;
        if let Some((first, last)) = run {
            changes.remove(first, last);
        }
        // What it did not lead to any more, the one after it does not either.
        each_extent(self.store, record.dead.as_ref(), |extent| {
            changes.put(extent.key(), extent.encode());
            Ok(())
        })?;
        self.free_tree(record.dead.as_ref(), NOT_SHARED)?;
        next.before = record.before;
        next.dead = Tree::new(self, NODE_BYTES).apply(next.dead.as_ref(), &changes)?;
        edits.put(dataset_key(after), next.encode());
        Ok(())
    }

    /// Keeps in mind, for what a dataset shares with its snapshots, what it does not lead to any more.
    pub(super) fn note_dead(&mut self, dataset: &mut DatasetRecord) -> Result<(), PoolError> {
        let mut changes = Edits::default();
        for extent in std::mem::take(&mut self.dead) {
            changes.put(extent.key(), extent.encode());
        }
        self.shared = NOT_SHARED;
        dataset.dead = Tree::new(self, NODE_BYTES).apply(dataset.dead.as_ref(), &changes)?;
        Ok(())
    }

    /// Frees a tree with all that it leads to, but for what is shared.
    fn free_tree(&mut self, root: Option<&Root>, shared: Shared) -> Result<(), PoolError> {
        let Some(root) = root else { return Ok(()) };
        let pointer = pointer_of(&root.place)?;
        // Nothing below a node is younger than it.
        if pointer.birth <= shared.until {
            return Ok(());
        }
        let node = Reading(self.store).load(&root.place)?;
        if node.level != root.level {
            return Err(PoolError::Damaged);
        }
        for (key, value) in node.entries.iter() {
            match root.level.checked_sub(1) {
                Some(level) => self.free_tree(Some(&Root { level, place: value.to_vec() }), shared)?,
                None if is_record(key) => {
                    let record = pointer_of(value)?;
                    if record.birth > shared.until {
                        Extent::of(&record).try_for_each(|extent| self.free(&extent))?;
                    }
                }
                None => {}
            }
        }
        self.store.forget_node(&pointer);
        Ok(Extent::of(&pointer).try_for_each(|extent| self.free(&extent))?)
    }
}
