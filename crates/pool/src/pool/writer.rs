//! Writing the records and nodes of a transaction group.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::compression::compress;
use super::snapshots::Shared;
use super::store::{
    NODE_COPIES, NewRecord, Reading, Store, StoreError, padded, pointer_of, pointer_to, sectors_of,
};
use super::{Change, NODE_BYTES, PoolError, Roots};
use crate::core::allocator::Purpose;
use crate::core::group::{Content, Dirty, ObjectKey};
use crate::core::tree::{Edits, Key, Load, Node, Nodes, Tree};
use crate::format::{
    ChecksumKind, Compression, DatasetRecord, Extent, Kind, ObjectRecord, Place, Pointer, Properties,
    RecordError, Txg, dataset_key, encode_node, is_record, object_key, record_key,
};
use crate::vdev::SECTOR_BYTES;

/// Records that a thread writes at once.
const RECORDS_AT_ONCE: usize = 32;
/// How nodes are stored: what they point to is much the same from one entry to the next, and much of it is zeros.
const NODE_COMPRESSION: Compression = Compression::Lz4;
/// Nodes that wait to be written at once.
const NODES_AT_ONCE: usize = 64;
/// Records for which another thread is worth its while.
const RECORDS_OF_THREAD: usize = 16;
/// The same where somebody waits for them.
const PLACED_OF_THREAD: usize = 4;

/// Bytes of an object that are to be written, from a sector of it on.
#[derive(Clone, Copy, Debug)]
struct NewBytes<'g> {
    sector: u64,
    bytes: &'g [u8],
}

/// The sector of an object at which a part begins, and where that was written.
type Part = (u64, Pointer);
/// The parts of a record, with its number among those that are written.
type Numbered = (usize, Vec<Part>);

/// A node, as bytes, and its places.
pub(super) struct PlacedNode {
    places: Vec<Place>,
    bytes: Vec<u8>,
}

/// Writes records and nodes of a group, and frees what is not needed any more when that is committed.
pub(super) struct Writer<'s> {
    pub(super) store: &'s Store,
    pub(super) txg: Txg,
    /// How many threads write records.
    pub(super) threads: usize,
    /// How records of objects are kept.
    pub(super) properties: Properties,
    /// What of the tree that is written belongs to snapshots too.
    pub(super) shared: Shared,
    /// What of that it does not lead to any more.
    pub(super) dead: Vec<Extent>,
    /// Nodes that have their places and are to be written there.
    pub(super) nodes: Vec<PlacedNode>,
}

impl Writer<'_> {
    /// Does something besides changing objects. The datasets that are not any more what the group's changes of objects are meant for.
    pub(super) fn change(
        &mut self,
        roots: &mut Roots,
        change: Change,
        edits: &mut Edits,
    ) -> Result<Vec<u64>, PoolError> {
        match change {
            Change::CreateDataset(id, record) => {
                edits.put(dataset_key(id), record.encode());
                roots.next_dataset = id + 1;
                roots.datasets.insert(id, record);
            }
            Change::DestroyDataset(id) => {
                self.destroy_dataset(roots, id, edits)?;
                return Ok(vec![id]);
            }
            Change::RollBack(snapshots) => return self.roll_back(roots, &snapshots, edits),
            Change::Snapshot { datasets, name } => self.snapshot(roots, (&datasets, &name), edits),
            Change::Properties(properties) => {
                roots.properties = properties;
                self.properties = properties;
            }
        }
        Ok(Vec::new())
    }

    /// What a group has placed for objects that are not there any more is not needed.
    pub(super) fn discard(&self, objects: &[(ObjectKey, &Dirty)]) -> Result<(), StoreError> {
        let contents = objects.iter().flat_map(|(_, dirty)| dirty.records().values());
        let placed = contents.filter_map(|content| match content {
            Content::Placed(pointer) => Some(pointer),
            Content::Bytes(_) => None,
        });
        placed.flat_map(Extent::of).try_for_each(|extent| self.free(&extent))
    }

    /// Nothing leads there any more when the group is committed.
    pub(super) fn free(&self, extent: &Extent) -> Result<(), StoreError> {
        let freed = self.store.space().free(extent.place, extent.sectors);
        freed.map_err(|_| StoreError::Malformed("it is where nothing is"))
    }

    /// A record is not part of the tree any more that is written.
    fn leave(&mut self, pointer: &Pointer) -> Result<(), StoreError> {
        for extent in Extent::of(pointer) {
            if extent.birth > self.shared.until {
                self.free(&extent)?;
            } else if extent.birth > self.shared.origin {
                self.dead.push(extent);
            }
        }
        Ok(())
    }

    pub(super) fn write_objects(
        &mut self,
        dataset: &mut DatasetRecord,
        shared: Shared,
        objects: &[(ObjectKey, &Dirty)],
    ) -> Result<(), PoolError> {
        self.shared = shared;
        let sectors_of_record = u64::from(dataset.record_bytes) / SECTOR_BYTES as u64;
        let records: Vec<NewBytes<'_>> = objects
            .iter()
            .flat_map(|(_, dirty)| to_write(dirty))
            .map(|(number, bytes)| NewBytes { sector: number * sectors_of_record, bytes })
            .collect();
        let mut written = self.write_records(&records)?.into_iter();
        let mut edits = Edits::default();
        for (key, dirty) in objects {
            let mut parts: Vec<Part> = written.by_ref().take(to_write(dirty).count()).flatten().collect();
            let placed = dirty.records().iter().filter_map(|(number, content)| match content {
                Content::Placed(pointer) => Some((number * sectors_of_record, pointer.clone())),
                Content::Bytes(_) => None,
            });
            parts.extend(placed);
            self.change_object(dataset, key.object, dirty, &parts, &mut edits)?;
        }
        dataset.root = Tree::new(self, NODE_BYTES).apply(dataset.root.as_ref(), &edits)?;
        self.note_dead(dataset)
    }

    /// What changes in the tree of an object's dataset: `parts` are its new records.
    fn change_object(
        &self,
        dataset: &DatasetRecord,
        object: u64,
        dirty: &Dirty,
        parts: &[Part],
        edits: &mut Edits,
    ) -> Result<(), PoolError> {
        let sectors_of_record = u64::from(dataset.record_bytes) / SECTOR_BYTES as u64;
        let Some(len) = dirty.object_len() else {
            edits.remove(object_key(object), record_key(object, u64::MAX));
            return Ok(());
        };
        let range = |first: u64, last: u64| {
            let end = (last.saturating_add(1)).saturating_mul(sectors_of_record);
            (record_key(object, first * sectors_of_record), record_key(object, end.saturating_sub(1)))
        };
        let mut gone = dirty.removed().clone();
        dirty.records().keys().for_each(|number| gone.insert(*number, *number));
        let mut sectors =
            self.sectors_without(dataset, object, gone.iter().map(|(first, last)| range(first, last)))?;
        for (first, last) in gone.iter() {
            let (first, last) = range(first, last);
            edits.remove(first, last);
        }
        for (sector, pointer) in parts {
            sectors += self.taken(pointer);
            edits.put(record_key(object, *sector), pointer.pack());
        }
        edits.put(object_key(object), ObjectRecord { len, sectors }.encode());
        Ok(())
    }

    /// What an object takes until now, without what lies in these ranges.
    fn sectors_without(
        &self,
        dataset: &DatasetRecord,
        object: u64,
        gone: impl Iterator<Item = (Key, Key)>,
    ) -> Result<u64, PoolError> {
        const AT_ONCE: usize = 1024;
        let mut reading = Reading(self.store);
        let mut tree = Tree::new(&mut reading, NODE_BYTES);
        let Some(known) = tree.get(dataset.root.as_ref(), object_key(object))? else { return Ok(0) };
        let mut sectors = ObjectRecord::decode(&known).map_err(|_: RecordError| PoolError::Damaged)?.sectors;
        for (mut first, last) in gone {
            loop {
                let entries = tree.scan(dataset.root.as_ref(), first, last, AT_ONCE)?;
                for (key, value) in entries.iter() {
                    sectors = sectors.saturating_sub(self.taken(&pointer_of(value)?));
                    first = record_key(object, key.index + 1);
                }
                if entries.len() < AT_ONCE {
                    break;
                }
            }
        }
        Ok(sectors)
    }

    /// The sectors that a record takes in its first place.
    fn taken(&self, pointer: &Pointer) -> u64 {
        let place = pointer.places[0];
        self.store.space().allocated(place.vdev, sectors_of(pointer.stored_bytes as usize))
    }

    /// Writes records, on several threads if there are many; the parts of each, in the order of the records.
    fn write_records(&self, records: &[NewBytes<'_>]) -> Result<Vec<Vec<Part>>, StoreError> {
        let threads = self.threads.min(records.len() / RECORDS_OF_THREAD).max(1);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut written = Vec::new();
            loop {
                let first = next.fetch_add(RECORDS_AT_ONCE, Ordering::Relaxed);
                let Some(rest) = records.get(first..).filter(|rest| !rest.is_empty()) else {
                    return Ok(written);
                };
                let some = &rest[..rest.len().min(RECORDS_AT_ONCE)];
                let numbers = first..;
                written.extend(numbers.zip(self.write_some(some)?));
            }
        };
        let outcomes: Vec<Result<Vec<Numbered>, StoreError>> = thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let own = work();
            // A thread that panicked has written nothing that anything leads to.
            let others = others.into_iter().map(|other| other.join().unwrap_or(Err(StoreError::NotWritten)));
            std::iter::once(own).chain(others).collect()
        });
        let mut written = Vec::with_capacity(records.len());
        for outcome in outcomes {
            written.extend(outcome?);
        }
        written.sort_unstable_by_key(|(index, _)| *index);
        Ok(written.into_iter().map(|(_, parts)| parts).collect())
    }

    /// Writes a few records at once; the parts of each.
    fn write_some(&self, records: &[NewBytes<'_>]) -> Result<Vec<Vec<Part>>, StoreError> {
        let packed: Vec<Option<Vec<u8>>> =
            records.iter().map(|record| compress(self.properties.compression, record.bytes)).collect();
        let new: Vec<NewRecord<'_>> = records
            .iter()
            .zip(&packed)
            .map(|(record, packed)| new_record(self.properties, self.txg, record.bytes, packed.as_deref()))
            .collect();
        let written = self.store.write_all_new(&new)?;
        let parts = records.iter().zip(written).map(|(record, pointer)| {
            if let Some(pointer) = pointer {
                return Ok(vec![(record.sector, pointer)]);
            }
            let mut parts = Vec::new();
            self.write_parts(record.sector, record.bytes, &mut parts)?;
            Ok(parts)
        });
        parts.collect()
    }

    /// Writes the nodes that have their places, what is beside one another at once.
    pub(super) fn write_nodes(&mut self) -> Result<(), StoreError> {
        let nodes = std::mem::take(&mut self.nodes);
        let padded: Vec<Cow<'_, [u8]>> = nodes.iter().map(|node| padded(&node.bytes)).collect();
        let copies = nodes.iter().zip(&padded);
        let writes: Vec<(Place, &[u8])> = copies
            .flat_map(|(node, bytes)| node.places.iter().map(move |place| (*place, &**bytes)))
            .collect();
        let mut written = self.store.write_places(&writes).into_iter();
        for node in &nodes {
            // One copy must be there.
            let count = written.by_ref().take(node.places.len()).filter(|written| *written).count();
            if count == 0 {
                return Err(StoreError::NotWritten);
            }
        }
        Ok(())
    }

    /// Writes a record, in parts where no room is for it as a whole.
    fn write_parts(&self, sector: u64, bytes: &[u8], parts: &mut Vec<Part>) -> Result<(), StoreError> {
        let packed = compress(self.properties.compression, bytes);
        let record = new_record(self.properties, self.txg, bytes, packed.as_deref());
        let one = record.stored.len() <= SECTOR_BYTES;
        let room = |purpose| self.store.room(purpose, record.stored.len(), 1);
        let places = match room(Purpose::Data) {
            Some(places) => places,
            // What was acknowledged has the room that is kept for nodes, before it is lost.
            None if one => room(Purpose::Node).ok_or(StoreError::NoSpace)?,
            None => {
                let half = (bytes.len() / 2).next_multiple_of(SECTOR_BYTES);
                let (first, second) = bytes.split_at(half);
                self.write_parts(sector, first, parts)?;
                return self.write_parts(sector + (half / SECTOR_BYTES) as u64, second, parts);
            }
        };
        parts.push((sector, self.store.write_at(record, places)?));
        Ok(())
    }
}

/// The records of an object that are to be written, with their numbers.
fn to_write(dirty: &Dirty) -> impl Iterator<Item = (u64, &[u8])> {
    dirty.records().iter().filter_map(|(number, content)| match content {
        Content::Bytes(bytes) if !bytes.is_empty() => Some((*number, bytes.as_slice())),
        Content::Bytes(_) | Content::Placed(_) => None,
    })
}

/// Writes records for the group that is open, on several threads if there are many; where each is, and what it takes, in sectors of its
/// vdev. `None` for those that have no room in one piece, or were not written.
pub(super) fn place(
    store: &Store,
    txg: Txg,
    properties: Properties,
    records: &[(u64, &[u8])],
    threads: usize,
) -> Vec<Option<(Pointer, u64)>> {
    let threads = threads.min(records.len() / PLACED_OF_THREAD).max(1);
    let work = |records: &[(u64, &[u8])]| {
        let packed: Vec<Option<Vec<u8>>> =
            records.iter().map(|(_, bytes)| compress(properties.compression, bytes)).collect();
        let new: Vec<NewRecord<'_>> = records
            .iter()
            .zip(&packed)
            .map(|((_, bytes), packed)| new_record(properties, txg, bytes, packed.as_deref()))
            .collect();
        store.place_all(&new)
    };
    let mut shares = records.chunks(records.len().div_ceil(threads).max(1));
    let own = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let others: Vec<_> = shares.map(|share| (share.len(), scope.spawn(|| work(share)))).collect();
        let mut placed = work(own);
        for (count, other) in others {
            // Of a thread that panicked nothing is placed, and what it has written nothing leads to.
            placed.extend(other.join().unwrap_or_else(|_| vec![None; count]));
        }
        placed
    })
}

fn new_record<'b>(
    properties: Properties,
    birth: Txg,
    bytes: &'b [u8],
    packed: Option<&'b [u8]>,
) -> NewRecord<'b> {
    NewRecord {
        kind: Kind::Data,
        stored: packed.unwrap_or(bytes),
        bytes: bytes.len(),
        compression: if packed.is_some() { properties.compression } else { Compression::None },
        birth,
        checksum: properties.checksum,
    }
}

impl Load for Writer<'_> {
    type Error = StoreError;

    fn load(&mut self, place: &[u8]) -> Result<Arc<Node>, StoreError> {
        if !self.nodes.is_empty() && pointer_of(place)?.birth == self.txg {
            self.write_nodes()?;
        }
        Reading(self.store).load(place)
    }
}

impl Nodes for Writer<'_> {
    fn store(&mut self, node: Node) -> Result<Vec<u8>, StoreError> {
        let whole = encode_node(&node);
        let packed = compress(NODE_COMPRESSION, &whole);
        let compression = if packed.is_some() { NODE_COMPRESSION } else { Compression::None };
        let (len, bytes) = (whole.len(), packed.unwrap_or(whole));
        let record = NewRecord {
            compression,
            bytes: len,
            ..NewRecord::plain(Kind::Node, &bytes, self.txg, ChecksumKind::Xxh3)
        };
        let places = self.store.room(Purpose::Node, bytes.len(), NODE_COPIES).ok_or(StoreError::NoSpace)?;
        let pointer = pointer_to(record, places.clone())?;
        self.nodes.push(PlacedNode { places, bytes });
        if self.nodes.len() >= NODES_AT_ONCE {
            self.write_nodes()?;
        }
        self.store.keep_node(&pointer, Arc::new(node));
        Ok(pointer.pack())
    }

    fn release(&mut self, place: &[u8]) -> Result<(), StoreError> {
        let pointer = pointer_of(place)?;
        self.store.forget_node(&pointer);
        self.leave(&pointer)
    }

    fn dropped(&mut self, key: Key, value: &[u8]) -> Result<(), StoreError> {
        if is_record(key) {
            self.leave(&pointer_of(value)?)?;
        }
        Ok(())
    }
}
