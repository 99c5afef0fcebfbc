//! What is done with objects: over the open group, the one that is being written, and what is committed.

use std::sync::{Arc, PoisonError};

use super::store::{Reading, pointer_of};
use super::writer;
use super::{
    COUNTED_MIN, DamagedRecord, DatasetId, NODE_BYTES, OBJECT_BYTES_MAX, ObjectStat, PoolError, Roots, Shared,
};
use crate::core::group::{Dirty, Found, ObjectKey};
use crate::core::tree::Tree;
use crate::format::{DatasetKind, ObjectRecord, Pointer, object_key, record_key};
use crate::vdev::SECTOR_BYTES;

impl Shared {
    pub(super) fn len(&self, key: ObjectKey) -> Result<Option<u64>, PoolError> {
        let (groups, syncing) = self.layers();
        let found = groups.open.object(key).map(Dirty::object_len);
        drop(groups);
        let found = found.or_else(|| syncing.as_ref()?.object(key).map(Dirty::object_len));
        match found {
            Some(len) => Ok(len),
            None => Ok(self.committed_object(key)?.map(|record| record.len)),
        }
    }

    fn committed_object(&self, key: ObjectKey) -> Result<Option<ObjectRecord>, PoolError> {
        let roots = self.roots();
        let dataset = roots.datasets.get(&key.dataset).ok_or(PoolError::NoDataset)?;
        let mut reading = Reading(&self.store);
        let value = Tree::new(&mut reading, NODE_BYTES).get(dataset.root.as_ref(), object_key(key.object))?;
        value.map(|value| ObjectRecord::decode(&value).map_err(|_| PoolError::Damaged)).transpose()
    }

    /// Hands a record's bytes to `with`, without the zeros at its end.
    fn with_record<R>(
        &self,
        key: ObjectKey,
        (number, record_bytes): (u64, u32),
        whole: bool,
        with: impl FnOnce(&[u8]) -> R,
    ) -> Result<R, PoolError> {
        let (groups, syncing) = self.layers();
        let of_open = groups.open.record(key, number);
        let found = match (of_open, &syncing) {
            (Found::Below, Some(syncing)) => syncing.record(key, number),
            (found, _) => found,
        };
        // As long as `roots` is held, nothing is written over that anything leads to now. For a record that no root leads to yet that must
        // begin before its group can be committed; others must not wait for it with the groups.
        let (roots, read) = match found {
            Found::Bytes(bytes) => return Ok(with(bytes)),
            Found::Hole => return Ok(with(&[])),
            Found::Placed(pointer) => {
                let (roots, pointer) = (self.roots(), pointer.clone());
                drop(groups);
                let read = self.read_placed(&pointer, whole);
                (roots, read)
            }
            Found::Below => {
                drop(groups);
                let roots = self.roots();
                let read = self.parts_of_record(&roots, key, (number, record_bytes), whole);
                (roots, read)
            }
        };
        drop(roots);
        if read == Err(PoolError::Damaged) {
            let (dataset, object) = (Some(DatasetId(key.dataset)), Some(key.object));
            self.note_damaged(DamagedRecord { dataset, object, offset: number * u64::from(record_bytes) });
        }
        read.map(|bytes| with(&bytes))
    }

    /// A record that lies in one place.
    fn read_placed(&self, pointer: &Pointer, whole: bool) -> Result<Arc<Vec<u8>>, PoolError> {
        Ok(if whole { Arc::new(self.store.read(pointer)?) } else { self.store.read_kept(pointer)? })
    }

    /// The parts of a record that is committed, put together.
    fn parts_of_record(
        &self,
        roots: &Roots,
        key: ObjectKey,
        (number, record_bytes): (u64, u32),
        whole: bool,
    ) -> Result<Arc<Vec<u8>>, PoolError> {
        let dataset = roots.datasets.get(&key.dataset).ok_or(PoolError::NoDataset)?;
        let sectors = u64::from(record_bytes) / SECTOR_BYTES as u64;
        let (first, last) = (number * sectors, (number + 1) * sectors - 1);
        let mut reading = Reading(&self.store);
        let range = (record_key(key.object, first), record_key(key.object, last));
        let parts = Tree::new(&mut reading, NODE_BYTES).scan(
            dataset.root.as_ref(),
            range.0,
            range.1,
            sectors as usize,
        )?;
        if parts.len() == 1 && parts.key(0) == range.0 {
            return self.read_placed(&pointer_of(parts.value(0))?, whole);
        }
        let mut record = Vec::new();
        for (key, value) in parts.iter() {
            let at = (key.index - first) as usize * SECTOR_BYTES;
            record.resize(at, 0);
            record.extend(self.store.read(&pointer_of(value)?)?);
        }
        record.truncate(record_bytes as usize);
        Ok(Arc::new(record))
    }

    pub(super) fn read(&self, key: ObjectKey, offset: u64, into: &mut [u8]) -> Result<usize, PoolError> {
        let record_bytes = self.record_bytes(key.dataset)?;
        let len = self.len(key)?.unwrap_or(0);
        let count = len.saturating_sub(offset).min(into.len() as u64) as usize;
        for piece in pieces(offset, count, record_bytes) {
            let out = &mut into[piece.from..piece.from + piece.len];
            let whole = piece.len == record_bytes as usize;
            self.with_record(key, (piece.number, record_bytes), whole, |bytes| {
                let there = bytes.get(piece.within..).unwrap_or_default();
                let there = &there[..there.len().min(out.len())];
                out[..there.len()].copy_from_slice(there);
                out[there.len()..].fill(0);
            })?;
        }
        Ok(count)
    }

    pub(super) fn write(&self, key: ObjectKey, offset: u64, bytes: &[u8]) -> Result<(), PoolError> {
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= OBJECT_BYTES_MAX);
        let end = end.ok_or(PoolError::TooLong)?;
        let (record_bytes, kind) = self.changeable(key.dataset)?;
        let _changing = self.object_lock(key);
        let Some(last) = end.checked_sub(1).filter(|_| !bytes.is_empty()) else {
            // It is made, and does not reach further.
            let len = self.len(key)?.unwrap_or(0);
            return self.set_len_of(key, len);
        };
        let size = u64::from(record_bytes);
        let records = last / size - offset / size + 1;
        let pieces: Vec<Piece> = pieces(offset, bytes.len(), record_bytes).collect();
        let (mut groups, admitted) = self.admit(kind, records * size, records)?;
        if let [piece] = pieces[..]
            && bytes.len() < self.settings.placed_bytes_min
            && let Some(len) = groups.open.object(key).and_then(Dirty::object_len)
            && (groups.open.has_bytes(key, piece.number) || piece.covers(record_bytes, len))
        {
            // The commonest write, done at once: many come at the same time.
            groups.open.write((key, len), (piece.number, record_bytes), piece.within, bytes, Vec::new());
            admitted.spend(&mut groups);
            return Ok(());
        }
        drop(groups);
        let len = self.len(key)?.unwrap_or(0);
        let whole = |piece: &&Piece| piece.len == record_bytes as usize;
        let mut placed = Vec::new();
        if bytes.len() >= self.settings.placed_bytes_min {
            let wholes: Vec<(u64, &[u8])> =
                pieces.iter().filter(whole).map(|piece| (piece.number, piece.of(bytes))).collect();
            placed = self.place((key, len), record_bytes, &wholes)?;
        }
        for piece in pieces.iter().filter(|piece| !placed.contains(&piece.number)) {
            let mut groups = self.groups();
            let mut base = Vec::new();
            if matches!(groups.open.record(key, piece.number), Found::Below | Found::Placed(_)) {
                drop(groups);
                if !piece.covers(record_bytes, len) {
                    base = self.with_record(key, (piece.number, record_bytes), true, <[u8]>::to_vec)?;
                }
                groups = self.groups();
            }
            if let Some(why) = &groups.suspended {
                return Err(PoolError::Suspended(why.clone()));
            }
            let (number, written) = ((piece.number, record_bytes), piece.of(bytes));
            groups.open.write((key, len), number, piece.within, written, base);
        }
        debug_assert!(self.len(key).is_ok_and(|len| len >= Some(end)), "the object reaches there now");
        drop(admitted);
        Ok(())
    }

    /// Writes whole records to their places now, each with its number; the group that they belong to then has no more than where they lie.
    /// The numbers of those for which there was a place in one piece.
    fn place(
        &self,
        (key, len): (ObjectKey, u64),
        record_bytes: u32,
        records: &[(u64, &[u8])],
    ) -> Result<Vec<u64>, PoolError> {
        // The group stays open until it has the records.
        let _early = self.early.read().unwrap_or_else(PoisonError::into_inner);
        let (txg, properties) = (self.groups().open.txg(), self.roots().properties);
        let pointers = writer::place(&self.store, txg, properties, records, self.settings.threads);
        let mut groups = self.groups();
        if let Some(why) = &groups.suspended {
            return Err(PoolError::Suspended(why.clone()));
        }
        let mut placed = Vec::new();
        for ((number, _), found) in records.iter().zip(pointers) {
            if let Some((pointer, sectors)) = found {
                groups.open.place((key, len), (*number, record_bytes), pointer, sectors);
                placed.push(*number);
            }
        }
        Ok(placed)
    }

    pub(super) fn reach(&self, key: ObjectKey, end: u64) -> Result<(), PoolError> {
        let _changing = self.object_lock(key);
        match self.len(key)? {
            Some(len) if len >= end => Ok(()),
            _ => self.set_len_of(key, end),
        }
    }

    pub(super) fn set_len(&self, key: ObjectKey, new_len: u64) -> Result<(), PoolError> {
        let _changing = self.object_lock(key);
        self.set_len_of(key, new_len)
    }

    /// **Must hold:** the caller has the object's lock.
    fn set_len_of(&self, key: ObjectKey, new_len: u64) -> Result<(), PoolError> {
        if new_len > OBJECT_BYTES_MAX {
            return Err(PoolError::TooLong);
        }
        let (record_bytes, kind) = self.changeable(key.dataset)?;
        let len = self.len(key)?.unwrap_or(0);
        let (number, within) =
            (new_len / u64::from(record_bytes), (new_len % u64::from(record_bytes)) as usize);
        // What only frees always works.
        let records = u64::from(new_len >= len || within > 0);
        let (groups, _admitted) = self.admit(kind, records * u64::from(record_bytes), records)?;
        drop(groups);
        let (first, end) = (new_len.div_ceil(u64::from(record_bytes)), len.div_ceil(u64::from(record_bytes)));
        let Rest { records: removed, .. } = self.thin_out((key, len), record_bytes, (first, end))?;
        let base = (new_len < len && within > 0)
            .then(|| self.with_record(key, (number, record_bytes), true, <[u8]>::to_vec))
            .transpose()?;
        let mut groups = self.groups();
        groups.open.removes(removed);
        groups.open.set_len((key, len), record_bytes, new_len, base);
        Ok(())
    }

    pub(super) fn punch(&self, key: ObjectKey, offset: u64, count: u64) -> Result<(), PoolError> {
        let (record_bytes, _) = self.changeable(key.dataset)?;
        let size = u64::from(record_bytes);
        let changing = self.object_lock(key);
        let len = self.len(key)?.unwrap_or(0);
        let end = offset.saturating_add(count).min(len);
        if offset >= end {
            return Ok(());
        }
        drop(self.admit(DatasetKind::Objects, 0, 0)?);
        // What reaches to the end of the object reaches to the end of its record.
        let whole_end = if end == len { end.div_ceil(size) } else { end / size };
        let (first, whole) = (offset.div_ceil(size), whole_end);
        if first < whole {
            let rest = self.thin_out((key, len), record_bytes, (first, whole))?;
            let mut groups = self.groups();
            groups.open.removes(rest.records);
            groups.open.punch((key, len), record_bytes, (rest.first, whole - 1));
        }
        drop(changing);
        let head = (offset, end.min(first * size));
        let tail = (head.1.max(whole * size), end);
        for (from, to) in [head, tail].into_iter().filter(|(from, to)| from < to) {
            self.zero(key, (from, to), record_bytes)?;
        }
        Ok(())
    }

    /// Writes zeros over a part of a record, unless nothing is there.
    fn zero(&self, key: ObjectKey, (from, to): (u64, u64), record_bytes: u32) -> Result<(), PoolError> {
        let number = from / u64::from(record_bytes);
        let within = (from % u64::from(record_bytes)) as usize;
        let there = self.with_record(key, (number, record_bytes), true, <[u8]>::len)?;
        let count = ((to - from) as usize).min(there.saturating_sub(within));
        if count > 0 { self.write(key, from, &vec![0; count]) } else { Ok(()) }
    }

    pub(super) fn destroy(&self, key: ObjectKey) -> Result<(), PoolError> {
        let (record_bytes, _) = self.changeable(key.dataset)?;
        let _changing = self.object_lock(key);
        if let Some(len) = self.len(key)? {
            drop(self.admit(DatasetKind::Objects, 0, 0)?);
            let end = len.div_ceil(u64::from(record_bytes));
            let rest = self.thin_out((key, len), record_bytes, (0, end))?;
            let mut groups = self.groups();
            groups.open.removes(rest.records);
            groups.open.destroy(key);
        }
        Ok(())
    }

    /// Removes most of a range of records that is to be removed, from its beginning, if there are very many: by groups that are committed one after
    /// the other, since what a group removes is in memory until it is. Whoever reads meanwhile, or after a crash, finds zeros there. What is left.
    /// **Must hold:** the caller has the object's lock, and removes the rest.
    fn thin_out(
        &self,
        (key, len): (ObjectKey, u64),
        record_bytes: u32,
        (mut first, end): (u64, u64),
    ) -> Result<Rest, PoolError> {
        let most = self.settings.removed_max;
        loop {
            let span = end.saturating_sub(first);
            if span <= COUNTED_MIN.min(most as u64) {
                return Ok(Rest { first, records: span });
            }
            let (count, behind) = self.count(key, record_bytes, (first, end - 1), most)?;
            let Some(behind) = behind else { return Ok(Rest { first, records: count as u64 }) };
            // Of a record in several parts all go.
            let next = behind.max(first + 1);
            let txg = {
                let mut groups = self.groups();
                groups.open.removes(count as u64);
                groups.open.punch((key, len), record_bytes, (first, next - 1));
                groups.open.txg()
            };
            self.commit_through(txg)?;
            first = next;
        }
    }

    /// How many committed parts there are in a range of records, but no more than `most`; and the record with the one behind those, if there are
    /// more.
    fn count(
        &self,
        key: ObjectKey,
        record_bytes: u32,
        (first, last): (u64, u64),
        most: usize,
    ) -> Result<(usize, Option<u64>), PoolError> {
        let sectors = u64::from(record_bytes) / SECTOR_BYTES as u64;
        let roots = self.roots();
        let dataset = roots.datasets.get(&key.dataset).ok_or(PoolError::NoDataset)?;
        let range =
            (record_key(key.object, first * sectors), record_key(key.object, last * sectors + sectors - 1));
        let mut reading = Reading(&self.store);
        let (count, behind) =
            Tree::new(&mut reading, NODE_BYTES).count(dataset.root.as_ref(), range, most)?;
        Ok((count, behind.map(|key| key.index / sectors)))
    }

    pub(super) fn stat(&self, key: ObjectKey) -> Result<Option<ObjectStat>, PoolError> {
        let Some(len) = self.len(key)? else { return Ok(None) };
        let (groups, syncing) = self.layers();
        let new: u64 = [Some(&groups.open), syncing.as_deref()]
            .into_iter()
            .flatten()
            .filter_map(|group| group.object(key))
            .flat_map(|dirty| dirty.records().values())
            .map(|record| record.bytes().next_multiple_of(SECTOR_BYTES) as u64)
            .sum();
        drop(groups);
        let committed = self.committed_object(key)?.unwrap_or_default();
        let disk_bytes = self.without_parity(committed.sectors) * SECTOR_BYTES as u64 + new;
        Ok(Some(ObjectStat { len, disk_bytes }))
    }

    pub(super) fn seek(&self, key: ObjectKey, offset: u64, hole: bool) -> Result<Option<u64>, PoolError> {
        let record_bytes = self.record_bytes(key.dataset)?;
        let Some(len) = self.len(key)?.filter(|len| offset < *len) else { return Ok(None) };
        let size = u64::from(record_bytes);
        let mut number = offset / size;
        while number.saturating_mul(size) < len {
            let (is_hole, next) = self.is_hole(key, (number, record_bytes))?;
            if is_hole == hole {
                return Ok(Some(offset.max(number * size)));
            }
            number = next;
        }
        Ok(hole.then_some(len))
    }

    /// Whether a record is a hole, and the next one of which that is not known.
    fn is_hole(&self, key: ObjectKey, (number, record_bytes): (u64, u32)) -> Result<(bool, u64), PoolError> {
        let (groups, syncing) = self.layers();
        let layers = [Some(&groups.open), syncing.as_deref()].into_iter().flatten();
        let mut covered = false;
        for layer in layers {
            covered |= layer.object(key).is_some();
            match layer.record(key, number) {
                Found::Bytes(_) | Found::Placed(_) => return Ok((false, number + 1)),
                Found::Hole => return Ok((true, number + 1)),
                Found::Below => {}
            }
        }
        drop(groups);
        let roots = self.roots();
        let dataset = roots.datasets.get(&key.dataset).ok_or(PoolError::NoDataset)?;
        let sectors = u64::from(record_bytes) / SECTOR_BYTES as u64;
        let mut reading = Reading(&self.store);
        let (first, last) = (record_key(key.object, number * sectors), record_key(key.object, u64::MAX));
        let next = Tree::new(&mut reading, NODE_BYTES).scan(dataset.root.as_ref(), first, last, 1)?;
        let next = next.iter().next().map_or(u64::MAX, |(key, _)| key.index / sectors);
        // Where nothing lies over what is committed, the whole gap is one.
        let skipped = if covered { number + 1 } else { next };
        Ok(if next == number { (false, number + 1) } else { (true, skipped) })
    }

    pub(super) fn objects_of(
        &self,
        dataset: u64,
        first: u64,
        count_max: usize,
    ) -> Result<Vec<u64>, PoolError> {
        let roots = self.roots();
        let root = roots.datasets.get(&dataset).ok_or(PoolError::NoDataset)?.root.clone();
        let mut reading = Reading(&self.store);
        let mut tree = Tree::new(&mut reading, NODE_BYTES);
        let mut found = Vec::new();
        let mut next = Some(first);
        while let Some(from) = next.filter(|_| found.len() < count_max) {
            let entries = tree.scan(root.as_ref(), object_key(from), record_key(u64::MAX, u64::MAX), 1)?;
            let object = entries.iter().next().map(|(key, _)| key.object);
            found.extend(object);
            next = object.and_then(|object| object.checked_add(1));
        }
        Ok(found)
    }
}

/// What is left to be removed.
struct Rest {
    /// The first record.
    first: u64,
    /// How many there are, at most.
    records: u64,
}

/// A part of a read or a write that lies in one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    number: u64,
    /// Where in the record.
    within: usize,
    /// Where in what is read or written.
    from: usize,
    len: usize,
}

impl Piece {
    /// Whether it covers all that there is of its record, in an object of this length.
    fn covers(self, record_bytes: u32, len: u64) -> bool {
        let begin = self.number * u64::from(record_bytes);
        let all = self.within == 0 && (self.len == record_bytes as usize || begin + self.len as u64 >= len);
        all || begin >= len
    }

    /// What of it is in what is written.
    pub(super) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.from..self.from + self.len]
    }
}

fn pieces(offset: u64, count: usize, record_bytes: u32) -> impl Iterator<Item = Piece> {
    let size = u64::from(record_bytes);
    let mut from = 0;
    std::iter::from_fn(move || {
        if from >= count {
            return None;
        }
        let at = offset + from as u64;
        let within = (at % size) as usize;
        let len = (record_bytes as usize - within).min(count - from);
        let piece = Piece { number: at / size, within, from, len };
        from += len;
        Some(piece)
    })
}
