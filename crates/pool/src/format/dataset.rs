//! What the trees hold besides pointers: a dataset in the tree of datasets, an object in the tree of its dataset.

use super::bytes::{Reader, put_text};
use super::root::{put_root, read_root};
use super::{RecordError, Txg};
use crate::core::tree::{Key, Root};
use crate::vdev::SECTOR_BYTES;

/// Length of a dataset's name, in bytes.
pub const DATASET_NAME_BYTES_MAX: usize = 255;
/// The tag of a dataset in the tree of datasets.
const TAG_DATASET: u8 = 1;
/// The tag of an object's attributes in the tree of its dataset.
const TAG_OBJECT: u8 = 1;
/// The tag of an object's records.
const TAG_RECORD: u8 = 2;

/// A dataset of a pool, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetId(pub u64);

/// What a dataset is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum DatasetKind {
    /// Objects, as those of an OST.
    #[default]
    Objects = 0,
    /// Files with names, on which something stands that must be able to go on: it may take the last room of a pool that objects have
    /// filled.
    Files = 1,
}

/// A dataset: a set of objects, or what such a set was at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetRecord {
    /// Its name.
    pub name: String,
    /// When it was made; a snapshot has all that was done until then, in that group too.
    pub created: Txg,
    /// The length of its objects' records, in bytes: a power of two from a sector up.
    pub record_bytes: u32,
    /// The tree of its objects; `None` when there are none.
    pub root: Option<Root>,
    /// What it is for.
    pub kind: DatasetKind,
    /// The dataset that it is a snapshot of; `None` for one that can be changed.
    pub snapshot_of: Option<u64>,
    /// The snapshot that it was the same as the last time: the one before it, or what it was cloned from.
    pub before: Option<u64>,
    /// What that snapshot leads to and it does not, a tree of [`Extent`](super::Extent)s, without what already was in the snapshot that it
    /// was cloned from; `None` when there is nothing.
    pub dead: Option<Root>,
}

impl DatasetRecord {
    /// An empty one that can be changed.
    pub fn new(name: String, created: Txg, record_bytes: u32, kind: DatasetKind) -> DatasetRecord {
        let (root, snapshot_of, before, dead) = (None, None, None, None);
        DatasetRecord { name, created, record_bytes, root, kind, snapshot_of, before, dead }
    }

    /// Its bytes. **Must hold:** the name has at most [`DATASET_NAME_BYTES_MAX`] bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_text(&mut out, &self.name);
        out.extend(self.created.0.to_be_bytes());
        out.extend(self.record_bytes.to_be_bytes());
        put_root(&mut out, self.root.as_ref());
        out.push(self.kind as u8);
        // No dataset has the number 0.
        out.extend(self.snapshot_of.unwrap_or(0).to_be_bytes());
        out.extend(self.before.unwrap_or(0).to_be_bytes());
        put_root(&mut out, self.dead.as_ref());
        out
    }

    /// The dataset that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<DatasetRecord, RecordError> {
        let mut reader = Reader::new(bytes);
        let record = read_dataset(&mut reader).filter(|_| reader.is_empty());
        record.ok_or(RecordError::Malformed)
    }
}

fn read_dataset(reader: &mut Reader<'_>) -> Option<DatasetRecord> {
    let name = reader.text().filter(|name| name.len() <= DATASET_NAME_BYTES_MAX)?;
    let created = Txg(reader.u64()?);
    let record_bytes = reader
        .u32()
        .filter(|bytes| bytes.is_power_of_two() && (SECTOR_BYTES as u32..=1 << 20).contains(bytes))?;
    let root = read_root(reader)?;
    let kind = match reader.u8() {
        // In version 1 of the root there is none.
        None | Some(0) => DatasetKind::Objects,
        Some(1) => DatasetKind::Files,
        Some(_) => return None,
    };
    let plain = DatasetRecord { root, ..DatasetRecord::new(name, created, record_bytes, kind) };
    if reader.is_empty() {
        // Up to version 2 of the root there are no snapshots.
        return Some(plain);
    }
    Some(DatasetRecord {
        snapshot_of: Some(reader.u64()?).filter(|number| *number > 0),
        before: Some(reader.u64()?).filter(|number| *number > 0),
        dead: read_root(reader)?,
        ..plain
    })
}

/// An object's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ObjectRecord {
    /// Its length, in bytes.
    pub len: u64,
    /// What its records take on the vdevs, in sectors, with parity and copies within a vdev.
    pub sectors: u64,
}

impl ObjectRecord {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        [self.len.to_be_bytes(), self.sectors.to_be_bytes()].concat()
    }

    /// The attributes that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<ObjectRecord, RecordError> {
        let mut reader = Reader::new(bytes);
        let (len, sectors) = (reader.u64(), reader.u64());
        match (len, sectors) {
            (Some(len), Some(sectors)) if reader.is_empty() => Ok(ObjectRecord { len, sectors }),
            _ => Err(RecordError::Malformed),
        }
    }
}

/// The key of a dataset.
pub fn dataset_key(dataset: u64) -> Key {
    Key { object: dataset, tag: TAG_DATASET, index: 0 }
}

/// The key of an object's attributes.
pub fn object_key(object: u64) -> Key {
    Key { object, tag: TAG_OBJECT, index: 0 }
}

/// The key of the part of an object that begins at a sector of it.
pub fn record_key(object: u64, sector: u64) -> Key {
    Key { object, tag: TAG_RECORD, index: sector }
}

/// Whether a key is one of [`record_key`].
pub fn is_record(key: Key) -> bool {
    key.tag == TAG_RECORD
}

#[cfg(test)]
mod tests {
    use super::super::POINTER_BYTES;
    use super::*;

    #[test]
    fn golden_bytes() {
        let dead = Some(Root { level: 0, place: vec![9; POINTER_BYTES] });
        let plain = DatasetRecord::new("ab".into(), Txg(5), 4096, DatasetKind::Files);
        let (snapshot_of, before) = (Some(3), Some(4));
        let snapshot = DatasetRecord { snapshot_of, before, dead, ..plain.clone() };
        let mut golden = vec![0, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0x10, 0, 0, 1];
        assert_eq!(DatasetRecord::decode(&golden), Ok(plain.clone()), "version 2");
        assert_eq!(
            DatasetRecord::decode(&golden[..golden.len() - 1]),
            Ok(DatasetRecord { kind: DatasetKind::Objects, ..plain.clone() }),
            "version 1"
        );
        golden.extend([0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 1, 0]);
        golden.extend([9; POINTER_BYTES]);
        assert_eq!(snapshot.encode(), golden);
        assert_eq!(DatasetRecord::decode(&golden), Ok(snapshot));
        assert_eq!(DatasetRecord::decode(&plain.encode()), Ok(plain));
        let object = ObjectRecord { len: 0x0102, sectors: 3 };
        let golden = [0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(object.encode(), golden);
        assert_eq!(ObjectRecord::decode(&golden), Ok(object));
    }

    #[test]
    fn what_is_none_is_told() {
        assert_eq!(ObjectRecord::decode(&[0; 15]), Err(RecordError::Malformed));
        assert_eq!(ObjectRecord::decode(&[0; 17]), Err(RecordError::Malformed));
        let odd = [0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0x10, 1, 0, 0];
        assert_eq!(DatasetRecord::decode(&odd), Err(RecordError::Malformed), "no power of two");
        let whole = DatasetRecord::new("a".into(), Txg(5), 4096, DatasetKind::Files).encode();
        assert_eq!(DatasetRecord::decode(&whole[..whole.len() - 1]), Err(RecordError::Malformed), "cut");
        let odd = [0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0x10, 0, 0, 2];
        assert_eq!(DatasetRecord::decode(&odd), Err(RecordError::Malformed), "of no kind");
    }
}
