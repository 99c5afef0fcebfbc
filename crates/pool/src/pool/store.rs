//! Records on the vdevs: written where there is room, found again by their pointers.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::cache::Cache;
use super::compression::decompress;
use crate::core::allocator::{Allocator, Purpose};
use crate::core::tree::{Load, Node};
use crate::format::{Checksum, ChecksumKind, Compression, Kind, Place, Pointer, Txg, VdevId, decode_node};
use crate::vdev::{Damaged, NotWritten, SECTOR_BYTES, Vdev};

/// What records that were read in part may take of the memory for what was read; nodes have the rest.
const RECORDS_SHARE: usize = 3;
/// Copies of a node, beyond what its vdev keeps; of the root there are more.
pub(super) const NODE_COPIES: usize = 2;
/// Copies of the root.
pub(super) const ROOT_COPIES: usize = 3;

/// Why a record cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StoreError {
    /// No copy of it is right.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// It is there, and cannot be what it should.
    #[error("a record that cannot be read: {0}")]
    Malformed(&'static str),
    /// No vdev has room.
    #[error("no space is left in the pool")]
    NoSpace,
    /// Too few disks took it.
    #[error("too few disks took a record")]
    NotWritten,
}

/// A top-level vdev.
#[derive(Debug)]
pub(super) struct Top {
    pub(super) id: VdevId,
    pub(super) vdev: Vdev,
    /// Sectors for records.
    pub(super) sectors: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Store {
    /// They come, and change, while the pool is used.
    tops: RwLock<Arc<[Arc<Top>]>>,
    space: Mutex<Allocator>,
    nodes: Cache<(Place, Txg), Arc<Node>>,
    records: Cache<(Place, Txg), Arc<Vec<u8>>>,
}

/// What is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewRecord<'b> {
    pub(super) kind: Kind,
    /// What goes to the disks.
    pub(super) stored: &'b [u8],
    /// How many bytes that is when it is not compressed any more.
    pub(super) bytes: usize,
    pub(super) compression: Compression,
    pub(super) birth: Txg,
    pub(super) checksum: ChecksumKind,
}

impl<'b> NewRecord<'b> {
    /// One that is stored as it is.
    pub(super) fn plain(kind: Kind, bytes: &'b [u8], birth: Txg, checksum: ChecksumKind) -> NewRecord<'b> {
        let compression = Compression::None;
        NewRecord { kind, stored: bytes, bytes: bytes.len(), compression, birth, checksum }
    }
}

impl Store {
    pub(super) fn new(tops: Vec<Top>, space: Allocator, cache_bytes: usize) -> Store {
        Store {
            tops: RwLock::new(tops.into_iter().map(Arc::new).collect()),
            space: Mutex::new(space),
            nodes: Cache::new(cache_bytes - cache_bytes / RECORDS_SHARE),
            records: Cache::new(cache_bytes / RECORDS_SHARE),
        }
    }

    pub(super) fn space(&self) -> MutexGuard<'_, Allocator> {
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vdevs as they are now, in the order of the configuration.
    pub(super) fn tops(&self) -> Arc<[Arc<Top>]> {
        Arc::clone(&self.tops.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a vdev in the place of the one of that id; a new one comes last.
    pub(super) fn set_top(&self, top: Top) {
        let mut tops = self.tops.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = tops.to_vec();
        let top = Arc::new(top);
        match new.iter_mut().find(|there| there.id == top.id) {
            Some(there) => *there = top,
            None => new.push(top),
        }
        *tops = new.into();
    }

    fn top(&self, id: VdevId) -> Option<Arc<Top>> {
        self.tops().iter().find(|top| top.id == id).cloned()
    }

    /// As many places as there are to be copies; one at least.
    pub(super) fn room(&self, purpose: Purpose, bytes: usize, copies: usize) -> Option<Vec<Place>> {
        let sectors = sectors_of(bytes);
        let mut space = self.space();
        let mut places = Vec::with_capacity(copies);
        while places.len() < copies {
            match space.allocate_besides(purpose, sectors, &places) {
                Some(place) => places.push(place),
                None => break,
            }
        }
        (!places.is_empty()).then_some(places)
    }

    /// Writes a record to places that were allocated for it.
    pub(super) fn write_at(&self, record: NewRecord<'_>, places: Vec<Place>) -> Result<Pointer, StoreError> {
        let stored = padded(record.stored);
        let mut written = 0;
        for place in &places {
            written += usize::from(self.write_place(*place, &stored));
        }
        if written == 0 {
            return Err(StoreError::NotWritten);
        }
        pointer_to(record, places)
    }

    /// Finds room for records of the group that is open and writes them there, all at once; where each is, and what it takes, in sectors of
    /// its vdev. `None` for those that have no room in one piece, or were not written.
    pub(super) fn place_all(&self, records: &[NewRecord<'_>]) -> Vec<Option<(Pointer, u64)>> {
        let places: Vec<Option<(Place, u64)>> = {
            let mut space = self.space();
            records.iter().map(|record| space.allocate_early(sectors_of(record.stored.len()))).collect()
        };
        let only: Vec<Option<Place>> = places.iter().map(|place| place.map(|(place, _)| place)).collect();
        let pointers = self.write_to(records, &only);
        let told = places.into_iter().zip(pointers).map(|(place, pointer)| {
            let (place, taken) = place?;
            if pointer.is_none() {
                self.space().unallocate_early(place);
            }
            pointer.map(|pointer| (pointer, taken))
        });
        told.collect()
    }

    /// Finds room for records of the group that is being written and writes them there, all at once; `None` for those that have no room in
    /// one piece.
    pub(super) fn write_all_new(
        &self,
        records: &[NewRecord<'_>],
    ) -> Result<Vec<Option<Pointer>>, StoreError> {
        let places: Vec<Option<Place>> = {
            let mut space = self.space();
            let sectors = records.iter().map(|record| sectors_of(record.stored.len()));
            sectors.map(|sectors| space.allocate(Purpose::Data, sectors)).collect()
        };
        let pointers = self.write_to(records, &places);
        let lost = places.iter().zip(&pointers).any(|(place, pointer)| place.is_some() && pointer.is_none());
        if lost { Err(StoreError::NotWritten) } else { Ok(pointers) }
    }

    /// Writes records to places that were allocated for them; `None` for those without one, and those that were not written.
    fn write_to(&self, records: &[NewRecord<'_>], places: &[Option<Place>]) -> Vec<Option<Pointer>> {
        let stored: Vec<Cow<'_, [u8]>> = records.iter().map(|record| padded(record.stored)).collect();
        let placed = places.iter().enumerate().filter_map(|(index, place)| Some((index, (*place)?)));
        let (indices, writes): (Vec<usize>, Vec<(Place, &[u8])>) =
            placed.map(|(index, place)| (index, (place, &*stored[index]))).unzip();
        let mut pointers: Vec<Option<Pointer>> = vec![None; records.len()];
        for (index, written) in indices.into_iter().zip(self.write_places(&writes)) {
            if let Some(place) = places[index].filter(|_| written) {
                pointers[index] = pointer_to(records[index], vec![place]).ok();
            }
        }
        pointers
    }

    /// Writes whole sectors to several places, what is beside one another at once; whether enough disks took each.
    pub(super) fn write_places(&self, writes: &[(Place, &[u8])]) -> Vec<bool> {
        let mut written = vec![false; writes.len()];
        for top in self.tops().iter() {
            let of_top = || writes.iter().enumerate().filter(|(_, (place, _))| place.vdev == top.id);
            let here: Vec<(u64, &[u8])> =
                of_top().map(|(_, (place, bytes))| (place.sector, *bytes)).collect();
            for ((index, _), outcome) in of_top().zip(top.vdev.write_all(&here)) {
                written[index] = outcome_of(&top.vdev, outcome);
            }
        }
        written
    }

    /// Writes whole sectors; whether enough disks took them.
    pub(super) fn write_place(&self, place: Place, stored: &[u8]) -> bool {
        let Some(top) = self.top(place.vdev) else { return false };
        outcome_of(&top.vdev, top.vdev.write(place.sector, stored))
    }

    /// Makes durable what was written to all vdevs. Fails when a vdev may have lost something.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        // All of them, also when one fails.
        let failed = self.tops().iter().filter(|top| !sync(&top.vdev)).count();
        if failed == 0 { Ok(()) } else { Err(StoreError::NotWritten) }
    }

    /// The same for one vdev.
    pub(super) fn sync_vdev(&self, id: VdevId) -> Result<(), StoreError> {
        let top = self.top(id).ok_or(StoreError::NotWritten)?;
        if sync(&top.vdev) { Ok(()) } else { Err(StoreError::NotWritten) }
    }

    /// The bytes of a record. Bad copies are mended.
    pub(super) fn read(&self, pointer: &Pointer) -> Result<Vec<u8>, StoreError> {
        let stored = pointer.stored_bytes as usize;
        let matches = |bytes: &[u8]| is_record(pointer, bytes);
        let mut damaged = Vec::new();
        for place in &pointer.places {
            let Some(top) = self.top(place.vdev) else { continue };
            match top.vdev.read(place.sector, sectors_of(stored), &matches) {
                Ok(read) => {
                    for place in damaged {
                        self.write_place(place, &read.bytes);
                    }
                    let mut bytes = read.bytes;
                    bytes.truncate(stored);
                    return decompress(pointer.compression, bytes, pointer.bytes as usize)
                        .ok_or(StoreError::Malformed("it is not what its compression makes"));
                }
                Err(Damaged { .. }) => damaged.push(*place),
            }
        }
        let first = pointer.places.first().map_or(0, |place| place.sector);
        Err(StoreError::Damaged(Damaged { first }))
    }

    /// Reads every copy and all parity of a record, and mends what is wrong. Fails when nothing of it is right.
    pub(super) fn verify(&self, pointer: &Pointer) -> Result<Verified, StoreError> {
        let sectors = sectors_of(pointer.stored_bytes as usize);
        let matches = |bytes: &[u8]| is_record(pointer, bytes);
        let mut verified = Verified::default();
        let mut right = None;
        let mut damaged = Vec::new();
        for place in &pointer.places {
            let Some(top) = self.top(place.vdev) else { continue };
            match top.vdev.verify(place.sector, sectors, &matches) {
                Ok(read) => {
                    verified.mended += read.mended.len() as u64;
                    right.get_or_insert(read.bytes);
                }
                Err(Damaged { .. }) => damaged.push(*place),
            }
            verified.bytes += u64::from(sectors) * SECTOR_BYTES as u64;
        }
        let first = pointer.places.first().map_or(0, |place| place.sector);
        let right = right.ok_or(StoreError::Damaged(Damaged { first }))?;
        for place in damaged {
            verified.mended += u64::from(self.write_place(place, &right));
        }
        Ok(verified)
    }

    /// A record of which only a part is wanted, which stays in memory for the parts beside it.
    pub(super) fn read_kept(&self, pointer: &Pointer) -> Result<Arc<Vec<u8>>, StoreError> {
        let key = (pointer.places[0], pointer.birth);
        if let Some(bytes) = self.records.get(key) {
            return Ok(bytes);
        }
        let bytes = Arc::new(self.read(pointer)?);
        self.records.put(key, Arc::clone(&bytes), bytes.len());
        Ok(bytes)
    }

    /// A node that was just written.
    pub(super) fn keep_node(&self, pointer: &Pointer, node: Arc<Node>) {
        let bytes = node.entries.memory_bytes();
        self.nodes.put((pointer.places[0], pointer.birth), node, bytes);
    }

    /// A node that is not part of any tree any more.
    pub(super) fn forget_node(&self, pointer: &Pointer) {
        self.nodes.forget((pointer.places[0], pointer.birth));
    }

    fn node(&self, pointer: &Pointer) -> Result<Arc<Node>, StoreError> {
        let key = (pointer.places[0], pointer.birth);
        if let Some(node) = self.nodes.get(key) {
            return Ok(node);
        }
        let bytes = self.read(pointer)?;
        let node = decode_node(&bytes).map_err(|_| StoreError::Malformed("it is no node"))?;
        let node = Arc::new(node);
        self.keep_node(pointer, Arc::clone(&node));
        Ok(node)
    }

    /// Reads a record that says itself whether it is one.
    pub(super) fn read_current(
        &self,
        place: Place,
        sectors: u32,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> Option<Vec<u8>> {
        let top = self.top(place.vdev)?;
        top.vdev.read_current(place.sector, sectors, matches).ok().map(|read| read.bytes)
    }
}

/// Whole sectors, with zeros behind what does not fill them.
pub(super) fn padded(bytes: &[u8]) -> Cow<'_, [u8]> {
    let rest = bytes.len() % SECTOR_BYTES;
    if rest == 0 { Cow::Borrowed(bytes) } else { Cow::Owned([bytes, &vec![0; SECTOR_BYTES - rest]].concat()) }
}

/// The pointer to a record in these places.
pub(super) fn pointer_to(record: NewRecord<'_>, places: Vec<Place>) -> Result<Pointer, StoreError> {
    let length_of = |len: usize| u32::try_from(len).map_err(|_| StoreError::Malformed("it is too long"));
    let NewRecord { kind, stored, bytes, compression, birth, checksum } = record;
    Ok(Pointer {
        kind,
        places,
        compression,
        stored_bytes: length_of(stored.len())?,
        bytes: length_of(bytes)?,
        birth,
        checksum: Checksum::of(checksum, stored),
    })
}

/// Whether enough disks have what was written; those that do not are noted.
fn outcome_of(vdev: &Vdev, outcome: Result<Vec<usize>, NotWritten>) -> bool {
    let (missed, enough) = match outcome {
        Ok(missed) => (missed, true),
        Err(failed) => (failed.missed, false),
    };
    note_missed(vdev, &missed);
    enough
}

fn note_missed(vdev: &Vdev, leaves: &[usize]) {
    for leaf in leaves {
        vdev.leaves()[*leaf].note_missed();
    }
}

/// Whether enough disks of a vdev have everything that was written.
fn sync(vdev: &Vdev) -> bool {
    let failed = vdev.sync();
    let absent = vdev.leaves().iter().filter(|leaf| !leaf.is_there()).count();
    note_missed(vdev, &failed);
    failed.len() + absent <= vdev.tolerates()
}

/// What came of looking at a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verified {
    /// What it has, in all its places, without parity.
    pub(super) bytes: u64,
    /// Copies and columns that were mended.
    pub(super) mended: u64,
}

fn is_record(pointer: &Pointer, bytes: &[u8]) -> bool {
    let (stored, padding) = bytes.split_at(pointer.stored_bytes as usize);
    padding.iter().all(|byte| *byte == 0) && pointer.checksum.matches(stored)
}

/// Whole sectors that hold so many bytes.
pub(super) fn sectors_of(bytes: usize) -> u32 {
    bytes.div_ceil(SECTOR_BYTES) as u32
}

/// The pointer that an inner node, or a value, has.
pub(super) fn pointer_of(place: &[u8]) -> Result<Pointer, StoreError> {
    Pointer::unpack(place).map_err(|_| StoreError::Malformed("a pointer that cannot be"))
}

/// Reads nodes.
pub(super) struct Reading<'s>(pub(super) &'s Store);

impl Load for Reading<'_> {
    type Error = StoreError;

    fn load(&mut self, place: &[u8]) -> Result<Arc<Node>, StoreError> {
        self.0.node(&pointer_of(place)?)
    }
}
