//! A transaction group: what was changed and is not on the disks yet.
//!
//! It lies over what was before: of an object that it changes it knows the length, the records that are new, and the records that are
//! gone. Everything else is looked up below. It also knows what of this no intent log has yet.

use std::collections::BTreeMap;

use super::ranges::Ranges;
use crate::format::{LogChange, LogEntry, Pointer, Txg};

/// An object of a dataset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// The dataset's number.
    pub dataset: u64,
    /// The object's number in it.
    pub object: u64,
}

/// What a group says of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'g> {
    /// Its bytes; zeros follow up to the object's length.
    Bytes(&'g [u8]),
    /// It is on the disks already.
    Placed(&'g Pointer),
    /// It is zeros.
    Hole,
    /// Nothing: it is as it was before the group.
    Below,
}

/// A new record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// It is to be written with the group; zeros follow up to the object's length.
    Bytes(Vec<u8>),
    /// It was written when it came, since it came as a whole.
    Placed(Pointer),
}

impl Content {
    /// What it takes in memory, in bytes.
    fn held(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::Placed(_) => 0,
        }
    }

    /// Its length without the zeros at its end, as far as that is known.
    pub fn bytes(&self) -> usize {
        match self {
            Content::Bytes(bytes) => bytes.len(),
            Content::Placed(pointer) => pointer.bytes as usize,
        }
    }
}

/// What is new of an object.
#[derive(Clone, Debug, Default)]
pub struct Dirty {
    /// Its length. **Invariant:** 0 when it is destroyed.
    len: u64,
    /// It is not there any more.
    destroyed: bool,
    /// Numbers of records of which nothing that was before is left.
    removed: Ranges,
    /// New records by their number. **Invariant:** none reaches beyond `len`.
    records: BTreeMap<u64, Content>,
    unlogged: Unlogged,
}

/// What of an object's changes is not in the intent log yet.
#[derive(Clone, Debug, Default)]
struct Unlogged {
    /// It was destroyed, and may have come back since.
    destroyed: bool,
    /// The shortest that it was.
    cut: Option<u64>,
    /// Bytes that were written, or became zeros.
    touched: Ranges,
    /// Something is not logged.
    any: bool,
}

impl Dirty {
    /// The object's length; `None` when it is destroyed.
    pub fn object_len(&self) -> Option<u64> {
        (!self.destroyed).then_some(self.len)
    }

    /// The numbers of records of which nothing is left that was before.
    pub fn removed(&self) -> &Ranges {
        &self.removed
    }

    /// The new records.
    pub fn records(&self) -> &BTreeMap<u64, Content> {
        &self.records
    }
}

/// What a committed record that is removed takes in memory until the group is committed, in bytes, at most: that is where snapshots still have
/// it, and it goes into a list.
pub const REMOVED_BYTES: u64 = 256;

/// See the module.
#[derive(Clone, Debug)]
pub struct Group {
    txg: Txg,
    objects: BTreeMap<ObjectKey, Dirty>,
    /// Of all new records that are not placed.
    bytes: u64,
    records: u64,
    /// What was taken for records that were placed, in sectors of vdevs, also for those that are not needed any more.
    placed_sectors: u64,
    /// Records that were placed and are not needed any more.
    freed: Vec<Pointer>,
    /// How many committed records it removes, at most.
    removed: u64,
}

impl Group {
    /// A group without changes.
    pub fn new(txg: Txg) -> Group {
        let objects = BTreeMap::new();
        Group { txg, objects, bytes: 0, records: 0, placed_sectors: 0, freed: Vec::new(), removed: 0 }
    }

    /// Which one it is.
    pub fn txg(&self) -> Txg {
        self.txg
    }

    /// What was taken for records that were placed, in sectors of vdevs.
    pub fn placed_sectors(&self) -> u64 {
        self.placed_sectors
    }

    /// Records that were placed and are not needed any more: their space is free when the group is committed.
    pub fn freed(&self) -> &[Pointer] {
        &self.freed
    }

    /// A record that was placed for the group is not needed, or belongs to nothing.
    pub fn free(&mut self, pointer: Pointer, sectors: u64) {
        self.placed_sectors += sectors;
        self.freed.push(pointer);
    }

    /// What its new records hold in memory.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// About what it takes in memory, in bytes.
    pub fn weight(&self) -> u64 {
        const OBJECT_BYTES: u64 = 512;
        const RECORD_BYTES: u64 = 256;
        let records = self.records + self.freed.len() as u64;
        let removed = self.removed * REMOVED_BYTES;
        self.bytes + records * RECORD_BYTES + removed + self.objects.len() as u64 * OBJECT_BYTES
    }

    /// It removes so many committed records more, at most.
    pub fn removes(&mut self, records: u64) {
        self.removed += records;
    }

    /// How many new records there are.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// How many objects are changed.
    pub fn objects_changed(&self) -> u64 {
        self.objects.len() as u64
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// What is changed, in the order of datasets and objects.
    pub fn objects(&self) -> impl Iterator<Item = (ObjectKey, &Dirty)> {
        self.objects.iter().map(|(key, dirty)| (*key, dirty))
    }

    /// What is new of an object.
    pub fn object(&self, key: ObjectKey) -> Option<&Dirty> {
        self.objects.get(&key)
    }

    /// What the group says of a record.
    pub fn record(&self, key: ObjectKey, number: u64) -> Found<'_> {
        let Some(dirty) = self.objects.get(&key) else { return Found::Below };
        match dirty.records.get(&number) {
            Some(Content::Bytes(bytes)) => Found::Bytes(bytes),
            Some(Content::Placed(pointer)) => Found::Placed(pointer),
            None if dirty.removed.contains(number) => Found::Hole,
            None => Found::Below,
        }
    }

    /// Whether the group has a record's bytes, or knows that it is zeros: a write needs nothing from below.
    pub fn has_bytes(&self, key: ObjectKey, number: u64) -> bool {
        matches!(self.record(key, number), Found::Bytes(_) | Found::Hole)
    }

    /// An object as it is to be changed; `len` is what it has until now.
    fn changed(&mut self, key: ObjectKey, len: u64) -> &mut Dirty {
        let dirty = self.objects.entry(key).or_insert_with(|| Dirty { len, ..Dirty::default() });
        dirty.destroyed = false;
        dirty.unlogged.any = true;
        dirty
    }

    /// Writes into a record, `within` bytes behind its beginning; what is between its old end and there becomes zeros. `base` is what
    /// the record was, unless the group has its bytes or says that it is a hole, and `len` the length that the object has until now.
    pub fn write(
        &mut self,
        (key, len): (ObjectKey, u64),
        (number, record_bytes): (u64, u32),
        within: usize,
        bytes: &[u8],
        base: Vec<u8>,
    ) {
        let dirty = self.changed(key, len);
        let is_hole = dirty.removed.contains(number) && !dirty.records.contains_key(&number);
        let before = dirty.records.remove(&number);
        let (added, held) = (u64::from(before.is_none()), before.as_ref().map_or(0, Content::held));
        let (mut record, freed) = match before {
            Some(Content::Bytes(record)) => (record, None),
            Some(Content::Placed(pointer)) => (base, Some(pointer)),
            None if is_hole => (Vec::new(), None),
            None => (base, None),
        };
        let end = within + bytes.len();
        record.resize(record.len().max(within), 0);
        let over = bytes.len().min(record.len() - within);
        record[within..within + over].copy_from_slice(&bytes[..over]);
        record.extend_from_slice(&bytes[over..]);
        let holds = record.len() as u64;
        dirty.records.insert(number, Content::Bytes(record));
        dirty.touched(number * u64::from(record_bytes) + within as u64, end - within);
        self.freed.extend(freed);
        self.bytes = self.bytes + holds - held;
        self.records += added;
    }

    /// Makes a record one that is on the disks already, where it takes so many sectors; `len` is the length that the object has until now.
    pub fn place(
        &mut self,
        (key, len): (ObjectKey, u64),
        (number, record_bytes): (u64, u32),
        pointer: Pointer,
        sectors: u64,
    ) {
        let dirty = self.changed(key, len);
        let bytes = pointer.bytes as usize;
        let before = dirty.records.insert(number, Content::Placed(pointer));
        dirty.touched(number * u64::from(record_bytes), bytes);
        self.placed_sectors += sectors;
        self.records += u64::from(before.is_none());
        self.gone(before);
    }

    /// New records that are not needed any more.
    fn gone(&mut self, contents: impl IntoIterator<Item = Content>) {
        for content in contents {
            self.bytes -= content.held();
            if let Content::Placed(pointer) = content {
                self.freed.push(pointer);
            }
        }
    }

    /// Cuts an object, or lets it reach further. `base` is what is left of the record in which it is cut, if that is not empty and the
    /// group does not have its bytes; `len` the length that the object has until now.
    pub fn set_len(
        &mut self,
        (key, len): (ObjectKey, u64),
        record_bytes: u32,
        new_len: u64,
        base: Option<Vec<u8>>,
    ) {
        let record_bytes = u64::from(record_bytes);
        let dirty = self.changed(key, len);
        if new_len >= dirty.len {
            dirty.len = new_len;
            return;
        }
        dirty.len = new_len;
        dirty.unlogged.cut = Some(dirty.unlogged.cut.map_or(new_len, |cut| cut.min(new_len)));
        dirty.unlogged.touched.remove(new_len, u64::MAX);
        let (last, within) = (new_len / record_bytes, (new_len % record_bytes) as usize);
        let first_gone = if within == 0 { last } else { last + 1 };
        let mut gone: Vec<Content> = dirty.records.split_off(&first_gone).into_values().collect();
        // What the record in which it is cut holds now, if there is something of it.
        let mut kept = None;
        if within > 0 {
            let before = dirty.records.remove(&last);
            let is_hole = before.is_none() && dirty.removed.contains(last);
            let left = match &before {
                Some(Content::Bytes(bytes)) => Some(bytes.clone()),
                None if is_hole => None,
                Some(Content::Placed(_)) | None => base,
            };
            gone.extend(before);
            if let Some(mut left) = left {
                left.truncate(within);
                kept = Some(left.len() as u64);
                dirty.records.insert(last, Content::Bytes(left));
            }
        }
        dirty.removed.insert(first_gone, u64::MAX);
        self.bytes += kept.unwrap_or(0);
        self.records = self.records + u64::from(kept.is_some()) - gone.len() as u64;
        self.gone(gone);
    }

    /// Makes whole records, `first` to `last`, zeros; the object's length stays.
    pub fn punch(&mut self, (key, len): (ObjectKey, u64), record_bytes: u32, (first, last): (u64, u64)) {
        let dirty = self.changed(key, len);
        dirty.removed.insert(first, last);
        let numbers: Vec<u64> = dirty.records.range(first..=last).map(|(number, _)| *number).collect();
        let gone: Vec<Content> = numbers.iter().filter_map(|number| dirty.records.remove(number)).collect();
        let touched =
            (first * u64::from(record_bytes), (last + 1).saturating_mul(u64::from(record_bytes)) - 1);
        if let Some(end) = dirty.len.checked_sub(1) {
            dirty.unlogged.touched.insert(touched.0, touched.1.min(end));
        }
        self.records -= gone.len() as u64;
        self.gone(gone);
    }

    /// Destroys an object.
    pub fn destroy(&mut self, key: ObjectKey) {
        let dirty = self.changed(key, 0);
        let gone = std::mem::take(&mut dirty.records);
        dirty.len = 0;
        dirty.destroyed = true;
        dirty.removed.insert(0, u64::MAX);
        dirty.unlogged = Unlogged { destroyed: true, any: true, ..Unlogged::default() };
        self.records -= gone.len() as u64;
        self.gone(gone.into_values());
    }

    /// Whether an object has changes that no log has.
    pub fn is_unlogged(&self, key: ObjectKey) -> bool {
        self.objects.get(&key).is_some_and(|dirty| dirty.unlogged.any)
    }

    /// About how many bytes of an object are to be logged.
    pub fn unlogged_bytes(&self, key: ObjectKey, record_bytes: u32) -> u64 {
        let Some(dirty) = self.objects.get(&key) else { return 0 };
        let record_bytes = u64::from(record_bytes);
        let of_range = |(first, last): (u64, u64)| {
            let records = dirty.records.range(first / record_bytes..=last / record_bytes);
            let placed = records.filter_map(|(number, content)| match content {
                Content::Placed(pointer) => Some((number * record_bytes, u64::from(pointer.bytes))),
                Content::Bytes(_) => None,
            });
            // Of what is placed only the pointer is logged.
            let less = placed.map(|(begin, bytes)| {
                let covered = (last + 1).min(begin + bytes).saturating_sub(first.max(begin));
                covered.saturating_sub(LogEntry::PLACE_BYTES)
            });
            (last - first + 1) - less.sum::<u64>()
        };
        dirty.unlogged.touched.iter().map(of_range).sum()
    }

    /// What brings an object from what the log had of it until now to what it is; from now on it counts as logged.
    pub fn take_unlogged(&mut self, key: ObjectKey, record_bytes: u32) -> Vec<LogEntry> {
        let txg = self.txg;
        let Some(dirty) = self.objects.get_mut(&key) else { return Vec::new() };
        let Unlogged { destroyed, cut, touched, any } = std::mem::take(&mut dirty.unlogged);
        let mut changes = Vec::new();
        if destroyed {
            changes.push(LogChange::Destroy);
        }
        if let Some(cut) = cut {
            changes.push(LogChange::SetLen(cut));
        }
        for (first, last) in touched.iter() {
            dirty.log_range((first, last), u64::from(record_bytes), &mut changes);
        }
        if any && !dirty.destroyed {
            changes.push(LogChange::SetLen(dirty.len));
        }
        let entry = |change| LogEntry { txg, dataset: key.dataset, object: key.object, change };
        changes.into_iter().map(entry).collect()
    }
}

impl Dirty {
    /// Bytes at an offset are new.
    fn touched(&mut self, first: u64, bytes: usize) {
        self.len = self.len.max(first + bytes as u64);
        if let Some(last) = (bytes as u64).checked_sub(1) {
            self.unlogged.touched.insert(first, first + last);
        }
    }

    /// The bytes from `first` to `last` as they are now, record by record.
    fn log_range(&self, (first, last): (u64, u64), record_bytes: u64, into: &mut Vec<LogChange>) {
        let mut at = first;
        while at <= last {
            let number = at / record_bytes;
            let end = ((number + 1) * record_bytes - 1).min(last);
            let (from, to) =
                ((at - number * record_bytes) as usize, (end + 1 - number * record_bytes) as usize);
            match self.records.get(&number) {
                Some(Content::Bytes(record)) => {
                    let written =
                        record.get(from.min(record.len())..to.min(record.len())).unwrap_or_default();
                    if !written.is_empty() {
                        into.push(LogChange::Write { offset: at, bytes: written.to_vec() });
                    }
                    let zeros = (to - from - written.len()) as u64;
                    if zeros > 0 {
                        into.push(LogChange::Punch { offset: at + written.len() as u64, len: zeros });
                    }
                }
                Some(Content::Placed(pointer)) => {
                    into.push(LogChange::Place { offset: number * record_bytes, pointer: pointer.clone() });
                }
                None => into.push(LogChange::Punch { offset: at, len: end - at + 1 }),
            }
            at = end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::format::{Checksum, ChecksumKind, Compression, Kind, Place, VdevId};

    const RECORD: u32 = 8;
    const KEY: ObjectKey = ObjectKey { dataset: 1, object: 2 };

    /// A pointer to a record of these bytes: they are where else the time of its birth is.
    fn pointer_to(content: [u8; RECORD as usize]) -> Pointer {
        Pointer {
            kind: Kind::Data,
            places: vec![Place { vdev: VdevId(0), sector: 1 }],
            compression: Compression::None,
            stored_bytes: RECORD,
            bytes: RECORD,
            birth: Txg(u64::from_be_bytes(content)),
            checksum: Checksum::of(ChecksumKind::Xxh3, &content),
        }
    }

    fn content_of(pointer: &Pointer) -> [u8; RECORD as usize] {
        pointer.birth.0.to_be_bytes()
    }

    /// What an object is without any group.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    struct Plain(Option<Vec<u8>>);

    impl Plain {
        fn apply(&mut self, change: &LogChange) {
            let bytes = self.0.get_or_insert_default();
            match change {
                LogChange::Destroy => self.0 = None,
                LogChange::SetLen(len) => bytes.resize(*len as usize, 0),
                LogChange::Write { offset, bytes: new } => {
                    let end = *offset as usize + new.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    bytes[*offset as usize..end].copy_from_slice(new);
                }
                LogChange::Place { offset, pointer } => {
                    let new = content_of(pointer).to_vec();
                    self.apply(&LogChange::Write { offset: *offset, bytes: new });
                }
                LogChange::Punch { offset, len } => {
                    let (from, to) = (*offset as usize, (*offset + *len) as usize);
                    let (from, to) = (from.min(bytes.len()), to.min(bytes.len()));
                    bytes[from..to].fill(0);
                }
            }
        }

        fn record(&self, number: u64) -> Vec<u8> {
            let bytes = self.0.as_deref().unwrap_or_default();
            let first = (number as usize * RECORD as usize).min(bytes.len());
            bytes[first..bytes.len().min(first + RECORD as usize)].to_vec()
        }
    }

    /// An object with a group over what it was.
    struct Object {
        below: Plain,
        group: Group,
        placed: Vec<Pointer>,
    }

    impl Object {
        fn len(&self) -> u64 {
            let below = self.below.0.as_ref().map_or(0, |bytes| bytes.len() as u64);
            self.group.object(KEY).map_or(below, |dirty| dirty.object_len().unwrap_or(0))
        }

        fn base(&self, number: u64) -> Vec<u8> {
            match self.group.record(KEY, number) {
                Found::Below => self.below.record(number),
                Found::Placed(pointer) => content_of(pointer).to_vec(),
                Found::Bytes(_) | Found::Hole => Vec::new(),
            }
        }

        fn apply(&mut self, change: &LogChange) {
            let (record_bytes, len) = (u64::from(RECORD), self.len());
            match change {
                LogChange::Destroy => self.group.destroy(KEY),
                LogChange::SetLen(new_len) => {
                    let base = Some(self.base(new_len / record_bytes));
                    self.group.set_len((KEY, len), RECORD, *new_len, base);
                }
                LogChange::Write { offset, bytes } => {
                    for (index, byte) in bytes.iter().enumerate() {
                        let at = offset + index as u64;
                        let number = at / record_bytes;
                        let (base, len) = (self.base(number), self.len());
                        let within = (at % record_bytes) as usize;
                        self.group.write((KEY, len), (number, RECORD), within, &[*byte], base);
                    }
                }
                LogChange::Place { offset, pointer } => {
                    self.placed.push(pointer.clone());
                    self.group.place((KEY, len), (offset / record_bytes, RECORD), pointer.clone(), 1);
                }
                LogChange::Punch { offset, len: count } => {
                    let (first, last) = (offset / record_bytes, (offset + count) / record_bytes - 1);
                    self.group.punch((KEY, len), RECORD, (first, last));
                }
            }
        }

        fn now(&self) -> Plain {
            let Some(len) = self.group.object(KEY).map_or(Some(self.len()), Dirty::object_len) else {
                return Plain(None);
            };
            let mut bytes = Vec::new();
            for number in 0..len.div_ceil(u64::from(RECORD)) {
                let mut record = match self.group.record(KEY, number) {
                    Found::Bytes(record) => record.to_vec(),
                    Found::Placed(pointer) => content_of(pointer).to_vec(),
                    Found::Hole => Vec::new(),
                    Found::Below => self.below.record(number),
                };
                assert!(record.len() <= RECORD as usize);
                record.resize(RECORD as usize, 0);
                bytes.extend(record);
            }
            bytes.truncate(len as usize);
            Plain(Some(bytes))
        }
    }

    fn change() -> impl Strategy<Value = LogChange> {
        prop_oneof![
            1 => Just(LogChange::Destroy),
            3 => (0..60_u64).prop_map(LogChange::SetLen),
            5 => (0..50_u64, prop::collection::vec(any::<u8>(), 1..20))
                .prop_map(|(offset, bytes)| LogChange::Write { offset, bytes }),
            // Whole records.
            3 => (0..5_u64, any::<[u8; RECORD as usize]>())
                .prop_map(|(number, bytes)| LogChange::Place { offset: number * 8, pointer: pointer_to(bytes) }),
            2 => (0..5_u64, 0..3_u64).prop_map(|(first, more)| LogChange::Punch { offset: first * 8, len: more * 8 + 8 }),
        ]
    }

    proptest! {
        /// The group over what was before is what happened, and so is what the log says of it, at whatever moments it was asked.
        #[test]
        fn it_is_what_happened(
            before in prop::option::of(prop::collection::vec(any::<u8>(), 0..60)),
            changes in prop::collection::vec((change(), any::<bool>()), 0..30),
        ) {
            let below = Plain(before);
            let mut plain = below.clone();
            let mut logged = below.clone();
            let mut object = Object { below, group: Group::new(Txg(3)), placed: Vec::new() };
            for (change, log) in changes {
                plain.apply(&change);
                object.apply(&change);
                prop_assert_eq!(&object.now(), &plain);
                prop_assert!(object.group.is_unlogged(KEY));
                if log {
                    for entry in object.group.take_unlogged(KEY, RECORD) {
                        logged.apply(&entry.change);
                    }
                    prop_assert_eq!(&logged, &plain);
                    prop_assert!(!object.group.is_unlogged(KEY));
                }
                let dirty = object.group.object(KEY).expect("it was changed");
                let bytes: u64 = dirty.records().values().map(Content::held).sum();
                prop_assert_eq!(object.group.bytes(), bytes);
                prop_assert_eq!(object.group.records(), dirty.records().len() as u64);
                // What was placed is there, or its space comes back.
                let there = dirty.records().values().filter(|content| matches!(content, Content::Placed(_)));
                prop_assert_eq!(there.count() + object.group.freed().len(), object.placed.len());
                prop_assert_eq!(object.group.placed_sectors(), object.placed.len() as u64);
            }
        }
    }
}
