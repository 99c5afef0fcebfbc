//! How a transaction group gets to the disks, and who waits for that.

use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use super::log::{Until, slots_sectors};
use super::snapshots::NOT_SHARED;
use super::store::{NODE_COPIES, NewRecord, ROOT_COPIES, StoreError, sectors_of};
use super::writer::Writer;
use super::{Change, Config, Groups, LOG_BYTES_MAX, NODE_BYTES, PoolError, Roots, Shared, locked};
use crate::core::allocator::{ChangedMap, Purpose};
use crate::core::group::{Dirty, Group, ObjectKey};
use crate::core::ranges::Ranges;
use crate::core::tree::{Edits, Tree};
use crate::format::{
    ChecksumKind, DatasetKind, Extent, Kind, Label, LeafId, LogStart, MapBlock, Place, PoolRoot, Txg,
    Uberblock, VdevConfig, dataset_key,
};
use crate::vdev::SECTOR_BYTES;
use crate::vdev::labels::{write_label, write_uberblock};

/// What goes through the log at once where it is not to be durable, in bytes.
const WRITTEN_BYTES_MAX: u64 = 4 << 20;
/// The intent log between two commits, in bytes.
const LOG_BETWEEN_COMMITS_BYTES: u64 = 64 << 20;
/// Commits after which there is no space where there was none.
const NO_SPACE_TRIES: u32 = 8;
/// So much of a pool objects leave to files with names.
const LAST_ROOM_PART: u64 = 64;
/// Ranges of transaction groups that a disk has missed.
const MISSED_RANGES_MAX: usize = 64;
/// The longest root, in bytes.
const ROOT_BYTES_MAX: usize = SECTOR_BYTES;

/// Room for a change, until it is in a group.
pub(super) struct Admitted<'s> {
    shared: &'s Shared,
    sectors: u64,
}

impl Admitted<'_> {
    /// The change is in a group.
    pub(super) fn spend(mut self, groups: &mut Groups) {
        groups.admitted -= std::mem::take(&mut self.sectors);
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        if self.sectors > 0 {
            self.shared.groups().admitted -= self.sectors;
        }
    }
}

impl Shared {
    /// What may still be taken of the space that was free at the last commit, in sectors: by the groups that are not committed, by what
    /// was admitted and is not in one yet, and by new slots of the log.
    pub(super) fn outstanding(&self, groups: &Groups) -> u64 {
        let of = |group: &Group| {
            let (records, objects) = (group.records(), group.objects_changed());
            group.placed_sectors() + self.needed(group.bytes(), records, objects, groups.has_snapshots)
        };
        let slots = self.store.space().slot_sectors().saturating_sub(groups.slot_sectors);
        of(&groups.open) + groups.syncing.as_deref().map_or(0, of) + groups.admitted + slots
    }

    /// The most that so many bytes in so many records of so many objects take: on every vdev, and each with a leaf of its own; where there
    /// are snapshots, also in the list of what is dead.
    fn needed(&self, bytes: u64, records: u64, objects: u64, has_snapshots: bool) -> u64 {
        /// Roots, and inner nodes that all share.
        const NODES_OF_GROUP: u64 = 16;
        let space = self.store.space();
        let sectors = bytes / SECTOR_BYTES as u64 + records;
        let unit = space.allocated_most(64);
        let node = space.allocated_most(sectors_of(NODE_BYTES)) * NODE_COPIES as u64;
        let leaves = (records + objects) * if has_snapshots { 2 } else { 1 };
        let nodes = leaves * node + if leaves > 0 { NODES_OF_GROUP * node } else { 0 };
        (sectors * unit).div_ceil(64) + records * (space.allocated_most(1) - 1) + nodes
    }

    /// What nothing has or may take, in sectors.
    fn room(&self, groups: &Groups) -> u64 {
        groups.free_sectors.saturating_sub(self.outstanding(groups))
    }

    /// Waits until so much more may be changed, and fails when there is no room for it. What is admitted has its room until the guard is
    /// dropped: by then it is in a group. Without records nothing is asked of the space. The groups are as they were found.
    pub(super) fn admit(
        &self,
        kind: DatasetKind,
        bytes: u64,
        records: u64,
    ) -> Result<(MutexGuard<'_, Groups>, Admitted<'_>), PoolError> {
        let mut tries = 0;
        loop {
            let mut groups = self.groups();
            if let Some(why) = &groups.suspended {
                return Err(PoolError::Suspended(why.clone()));
            }
            let open = groups.open.txg();
            let sectors = if records > 0 { self.needed(bytes, records, 1, groups.has_snapshots) } else { 0 };
            let last_room = if records > 0 { last_room(kind, groups.total_sectors) } else { 0 };
            if records > 0 && sectors > self.room(&groups).saturating_sub(last_room) {
                // What was freed is there when the group that freed it is committed; and what others were admitted for was more than they
                // need. Once nothing of that can help, or others are always faster, there is none.
                let nothing_comes =
                    groups.open.is_empty() && groups.syncing.is_none() && groups.admitted == 0;
                let too_much = tries > 0 && sectors > groups.free_sectors.saturating_sub(last_room);
                if nothing_comes || too_much || tries == NO_SPACE_TRIES {
                    return Err(PoolError::NoSpace);
                }
                tries += 1;
                drop(groups);
                self.commit_through(open)?;
                continue;
            }
            let (weight, most) = (groups.open.weight(), self.settings.dirty_bytes_max);
            let (is_full, thread) = (weight >= most, self.settings.commit_every.is_some());
            if weight >= most / 2 {
                groups.wanted = true;
                self.changed.notify_all();
            }
            if weight < most / 2 || (thread && groups.syncing.is_none() && !is_full) {
                groups.admitted += sectors;
                return Ok((groups, Admitted { shared: self, sectors }));
            }
            drop(groups);
            // What is being committed makes room, unless the open group alone is too much.
            self.commit_through(if is_full || !thread { open } else { Txg(open.0 - 1) })?;
        }
    }

    /// Puts into the log what is new of objects, or waits for a commit where that is too much.
    pub(super) fn log(&self, keys: &[ObjectKey], until: Until) -> Result<(), PoolError> {
        let bytes_max = match until {
            Until::Written => WRITTEN_BYTES_MAX,
            Until::Durable => LOG_BYTES_MAX,
        };
        loop {
            let mut groups = self.groups();
            if let Some(why) = &groups.suspended {
                return Err(PoolError::Suspended(why.clone()));
            }
            let open = groups.open.txg();
            let waits =
                groups.syncing.as_ref().filter(|group| keys.iter().any(|key| group.is_unlogged(*key)));
            if let Some(txg) = waits.map(|group| group.txg()) {
                drop(groups);
                self.commit_through(txg)?;
                continue;
            }
            let changed: Vec<ObjectKey> =
                keys.iter().filter(|key| groups.open.object(**key).is_some()).copied().collect();
            let bytes: u64 = changed.iter().map(|key| self.unlogged(&groups, *key)).sum();
            let logged = changed.is_empty() || open >= groups.logged_from;
            if !logged || bytes > bytes_max || self.room(&groups) < slots_sectors(&self.store) {
                drop(groups);
                return self.commit_through(open);
            }
            let mut entries = Vec::new();
            for key in changed {
                let record_bytes = self.record_bytes(key.dataset)?;
                entries.extend(groups.open.take_unlogged(key, record_bytes));
            }
            let ticket = self.log.submit(&entries);
            drop(groups);
            if self.log.wait(&self.store, ticket, until).is_err() {
                return self.commit_through(open);
            }
            if self.log.is_long(LOG_BETWEEN_COMMITS_BYTES) {
                self.groups().wanted = true;
                self.changed.notify_all();
            }
            return Ok(());
        }
    }

    fn unlogged(&self, groups: &Groups, key: ObjectKey) -> u64 {
        self.record_bytes(key.dataset).map_or(0, |record_bytes| groups.open.unlogged_bytes(key, record_bytes))
    }

    /// Changes something besides objects by the group that is open, and commits that.
    pub(super) fn change(
        &self,
        change: impl Fn(&Roots, Txg) -> Result<Change, PoolError>,
    ) -> Result<(), PoolError> {
        let committing = locked(&self.committing);
        let txg = {
            let roots = self.roots();
            let mut groups = locked(&self.groups);
            let change = change(&roots, groups.open.txg())?;
            groups.changes.push(change);
            groups.open.txg()
        };
        self.commit_open(txg)?;
        drop(committing);
        Ok(())
    }

    /// Commits what was changed until now.
    pub(super) fn commit_now(&self) -> Result<(), PoolError> {
        let open = self.groups().open.txg();
        self.commit_through(open)
    }

    /// Waits until a group is durable; commits it if nobody does.
    pub(super) fn commit_through(&self, txg: Txg) -> Result<(), PoolError> {
        let _committing = locked(&self.committing);
        let groups = self.groups();
        if let Some(why) = &groups.suspended {
            return Err(PoolError::Suspended(why.clone()));
        }
        let done = groups.committed >= txg;
        drop(groups);
        if done { Ok(()) } else { self.commit_open(txg) }
    }

    /// What the committing thread does.
    pub(super) fn commit_when_wanted(&self, every: Duration) {
        loop {
            let groups = self.groups();
            let waits = |groups: &mut Groups| !groups.wanted && !groups.ended && groups.suspended.is_none();
            let waited = self.changed.wait_timeout_while(groups, every, waits);
            let (groups, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
            if groups.ended || groups.suspended.is_some() {
                return;
            }
            let (open, empty) = (groups.open.txg(), groups.open.is_empty() && groups.changes.is_empty());
            let wanted = groups.wanted;
            drop(groups);
            if !empty || wanted {
                // What failed is known to all who wait: the pool is suspended.
                let _ = self.commit_through(open);
            }
        }
    }

    /// Commits the open group, which is that one. **Must hold:** the caller has `committing`.
    pub(super) fn commit_open(&self, txg: Txg) -> Result<(), PoolError> {
        // Before the group is closed: entries of the next one lie behind.
        let room = self.room(&self.groups());
        let (start, new_chain) = self.log.position(&self.store, txg.0, room);
        let (group, changes) = {
            let _early = self.early.write().unwrap_or_else(std::sync::PoisonError::into_inner);
            let mut groups = self.groups();
            self.store.space().close_early();
            debug_assert_eq!(groups.open.txg(), txg, "one group is committed after the other");
            groups.wanted = false;
            let group = std::mem::replace(&mut groups.open, Group::new(Txg(txg.0 + 1)));
            let group = Arc::new(group);
            groups.syncing = Some(Arc::clone(&group));
            (group, std::mem::take(&mut groups.changes))
        };
        match self.write_group(&group, changes, start) {
            Ok((roots, maps)) => {
                let has_snapshots = roots.have_snapshots();
                // Readers of what was before are done when this lock is had, so what they read may be written over.
                *self.roots.write().unwrap_or_else(std::sync::PoisonError::into_inner) = roots;
                let mut space = self.store.space();
                let freed = space.committed(&maps);
                debug_assert_eq!(freed, Ok(()), "the maps to be written had it too");
                drop(space);
                let lost = self.log.committed(&self.store, start, new_chain);
                let (total, free, slot_sectors) = {
                    let space = self.store.space();
                    let counts = space.counts();
                    // What is allocated early counts for the group that it is of.
                    let free = (counts.free + space.early_sectors()).saturating_sub(counts.reserved);
                    (counts.total, free, space.slot_sectors())
                };
                let mut groups = self.groups();
                groups.syncing = None;
                groups.committed = txg;
                groups.total_sectors = total;
                groups.free_sectors = free;
                groups.slot_sectors = slot_sectors;
                groups.has_snapshots = has_snapshots;
                if lost {
                    groups.logged_from = Txg(groups.open.txg().0 + 1);
                }
                self.changed.notify_all();
                Ok(())
            }
            Err(error) => {
                let why = format!("transaction group {} could not be committed: {error}", txg.0);
                let mut groups = self.groups();
                groups.suspended = Some(why.clone());
                self.changed.notify_all();
                Err(PoolError::Suspended(why))
            }
        }
    }

    fn write_group(
        &self,
        group: &Group,
        changes: Vec<Change>,
        log: LogStart,
    ) -> Result<(Roots, Vec<ChangedMap>), PoolError> {
        let txg = group.txg();
        let mut roots = self.roots().clone();
        let threads = self.settings.threads;
        let mut writer = Writer {
            store: &self.store,
            txg,
            threads,
            properties: roots.properties,
            shared: NOT_SHARED,
            dead: Vec::new(),
            nodes: Vec::new(),
        };
        group.freed().iter().flat_map(Extent::of).try_for_each(|extent| writer.free(&extent))?;
        let mut edits = Edits::default();
        // Snapshots have what the group does to objects.
        let (after, before): (Vec<Change>, Vec<Change>) =
            changes.into_iter().partition(|change| matches!(change, Change::Snapshot { .. }));
        let mut other = BTreeSet::new();
        for change in before {
            other.extend(writer.change(&mut roots, change, &mut edits)?);
        }
        let mut objects = group.objects().peekable();
        while let Some((first, _)) = objects.peek() {
            let id = first.dataset;
            let of_dataset = std::iter::from_fn(|| objects.next_if(|(key, _)| key.dataset == id));
            let of_dataset: Vec<(ObjectKey, &Dirty)> = of_dataset.collect();
            let shared = roots.shared_by(id);
            match roots.datasets.get_mut(&id) {
                Some(dataset) if !other.contains(&id) => {
                    writer.write_objects(dataset, shared, &of_dataset)?;
                    edits.put(dataset_key(id), dataset.encode());
                }
                // A dataset that was destroyed meanwhile takes its changes along.
                _ => writer.discard(&of_dataset)?,
            }
        }
        for change in after {
            writer.change(&mut roots, change, &mut edits)?;
        }
        roots.tree = Tree::new(&mut writer, NODE_BYTES).apply(roots.tree.as_ref(), &edits)?;
        writer.write_nodes()?;
        roots.txg = txg;
        let maps = self.finish(&roots, log)?;
        Ok((roots, maps))
    }

    /// Writes maps, root and uberblock.
    fn finish(&self, roots: &Roots, log: LogStart) -> Result<Vec<ChangedMap>, PoolError> {
        let store = &self.store;
        let root_places =
            store.room(Purpose::Node, ROOT_BYTES_MAX, ROOT_COPIES).ok_or(StoreError::NoSpace)?;
        // The root before this one is not needed when this one is there.
        let old_root = std::mem::replace(&mut *locked(&self.root_places), root_places.clone());
        let maps = {
            let mut space = store.space();
            for place in old_root {
                space.free(place, sectors_of(ROOT_BYTES_MAX)).map_err(|_| PoolError::Damaged)?;
            }
            space.changed_maps().map_err(|_| PoolError::Damaged)?
        };
        for map in &maps {
            let (vdev, stretch) = (map.vdev, map.stretch);
            let block = MapBlock { pool: self.id, vdev, stretch, txg: roots.txg, map: map.map.clone() };
            if !store.write_place(Place { vdev: map.vdev, sector: map.sector }, &block.encode()) {
                return Err(StoreError::NotWritten.into());
            }
        }
        let root = PoolRoot {
            txg: roots.txg,
            next_dataset: roots.next_dataset,
            datasets: roots.tree.clone(),
            log,
            properties: roots.properties,
        };
        let bytes = root.encode();
        let record = NewRecord::plain(Kind::Root, &bytes, roots.txg, ChecksumKind::Blake3);
        let pointer = store.write_at(record, root_places)?;
        store.sync()?;
        self.write_config(roots.txg)?;
        self.write_uberblocks(&Uberblock {
            pool: self.id,
            txg: roots.txg,
            time: self.clock.now().0.div_euclid(1_000_000).unsigned_abs(),
            root: pointer,
        })?;
        Ok(maps)
    }

    /// Writes what disks have missed to the labels of the others, if there is something new.
    fn write_config(&self, txg: Txg) -> Result<(), PoolError> {
        let tops = self.store.tops();
        let mut config = locked(&self.config);
        let Config { label, changed } = &mut *config;
        for (top, vdev) in tops.iter().zip(&mut label.vdevs) {
            for (leaf, known) in top.vdev.leaves().iter().zip(&mut vdev.leaves) {
                if leaf.take_missed() && !known.missed.contains(txg.0) {
                    note_missed(&mut known.missed, txg);
                    leaf.set_behind(true);
                    *changed = true;
                }
            }
        }
        if !*changed {
            return Ok(());
        }
        label.txg = txg;
        self.write_labels(label)?;
        *changed = false;
        Ok(())
    }

    /// Writes the labels of all disks that are there; enough of them must take it.
    pub(super) fn write_labels(&self, label: &Label) -> Result<(), PoolError> {
        let labelled = |file: &dyn kiln_world::File, leaf| {
            let label = Label { leaf, ..label.clone() };
            write_label(file, &label).is_ok()
        };
        for spare in &*locked(&self.spares) {
            // One that does not take it is found to be away when it is needed.
            let _ = labelled(&*spare.disk.file, spare.id);
        }
        self.on_enough_disks(&label.vdevs, labelled)
    }

    fn write_uberblocks(&self, uberblock: &Uberblock) -> Result<(), PoolError> {
        let vdevs = locked(&self.config).label.vdevs.clone();
        self.on_enough_disks(&vdevs, |file, _| write_uberblock(file, uberblock).is_ok())?;
        self.on_enough_disks(&vdevs, |file, _| file.sync().is_ok())
    }

    /// Does something on every disk; an error when so many fail that a vdev would not be whole with the others.
    fn on_enough_disks(
        &self,
        vdevs: &[VdevConfig],
        act: impl Fn(&dyn kiln_world::File, LeafId) -> bool,
    ) -> Result<(), PoolError> {
        for (top, config) in self.store.tops().iter().zip(vdevs) {
            let leaves = top.vdev.leaves().iter().zip(&config.leaves);
            let failed = leaves.filter(|(leaf, config)| {
                let file = leaf.file().filter(|_| !config.missed.contains(u64::MAX));
                !file.is_some_and(|file| act(&*file, config.id))
            });
            if failed.count() > top.vdev.tolerates() {
                return Err(StoreError::NotWritten.into());
            }
        }
        Ok(())
    }
}

/// What objects must leave of so much, in sectors: files with names may need it to go on, and to be removed.
pub(super) fn last_room(kind: DatasetKind, total_sectors: u64) -> u64 {
    match kind {
        DatasetKind::Files => 0,
        DatasetKind::Objects => total_sectors / LAST_ROOM_PART,
    }
}

fn note_missed(known: &mut Ranges, txg: Txg) {
    known.insert(txg.0, txg.0);
    // More than it has missed is read again, but labels have room for it.
    if known.iter().len() > MISSED_RANGES_MAX
        && let Some((first, last)) = known.span()
    {
        known.insert(first, last);
    }
}
