//! The root of the pool, to which the uberblock points: where the tree of datasets and the intent log begin.

use super::bytes::{Reader, put_place};
use super::{ChecksumKind, Compression, LogStart, POINTER_BYTES, Txg};
use crate::core::tree::Root;

const MAGIC: [u8; 8] = *b"KILNROT\0";
const VERSION: u32 = 4;
/// Pointers in its trees, and to them, are not packed.
const VERSION_3: u32 = 3;
/// Its datasets have no snapshots.
const VERSION_2: u32 = 2;
/// It has no properties, and its datasets have no kind.
const VERSION_1: u32 = 1;

/// How what is written from now on is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Properties {
    /// What records of objects are made smaller by.
    pub compression: Compression,
    /// What records of objects are recognised by.
    pub checksum: ChecksumKind,
}

impl Default for Properties {
    fn default() -> Properties {
        Properties { compression: Compression::None, checksum: ChecksumKind::Xxh3 }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolRoot {
    /// The transaction group that wrote it.
    pub txg: Txg,
    /// The number of the next dataset.
    pub next_dataset: u64,
    /// The tree of datasets; `None` when there are none.
    pub datasets: Option<Root>,
    /// Where the intent log of later groups begins.
    pub log: LogStart,
    /// How the pool keeps what is written.
    pub properties: Properties,
}

/// Bytes that are no root, or no dataset, or no object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Nothing of Kiln's.
    #[error("no record of this kind")]
    Magic,
    /// Written by a newer Kiln.
    #[error("a record of version {0}, which this Kiln does not know")]
    Version(u32),
    /// The checksum of the pointer matches, and yet it cannot be one.
    #[error("a record that cannot be read")]
    Malformed,
}

impl PoolRoot {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_be_bytes());
        out.extend(self.txg.0.to_be_bytes());
        out.extend(self.next_dataset.to_be_bytes());
        put_root(&mut out, self.datasets.as_ref());
        out.extend(self.log.chain.to_be_bytes());
        out.extend(self.log.seq.to_be_bytes());
        put_place(&mut out, self.log.slot);
        out.extend(self.log.slot_sectors.to_be_bytes());
        out.extend(self.log.offset.to_be_bytes());
        out.push(self.properties.compression as u8);
        out.push(self.properties.checksum as u8);
        out
    }

    /// The root that these bytes are.
    pub fn decode(bytes: &[u8]) -> Result<PoolRoot, RecordError> {
        let mut reader = Reader::new(bytes);
        if reader.take(8) != Some(&MAGIC) {
            return Err(RecordError::Magic);
        }
        let version = match reader.u32() {
            Some(version @ (VERSION_1 | VERSION_2 | VERSION_3 | VERSION)) => version,
            Some(version) => return Err(RecordError::Version(version)),
            None => return Err(RecordError::Malformed),
        };
        let root = read(&mut reader, version).filter(|_| reader.is_empty());
        root.ok_or(RecordError::Malformed)
    }
}

fn read(reader: &mut Reader<'_>, version: u32) -> Option<PoolRoot> {
    Some(PoolRoot {
        txg: Txg(reader.u64()?),
        next_dataset: reader.u64()?,
        datasets: read_root(reader)?,
        log: LogStart {
            chain: reader.u64()?,
            seq: reader.u64()?,
            slot: reader.place()?,
            slot_sectors: reader.u32()?,
            offset: reader.u32()?,
        },
        properties: if version == VERSION_1 { Properties::default() } else { read_properties(reader)? },
    })
}

fn read_properties(reader: &mut Reader<'_>) -> Option<Properties> {
    Some(Properties {
        compression: Compression::from_byte(reader.u8()?)?,
        checksum: ChecksumKind::from_byte(reader.u8()?)?,
    })
}

/// There is no tree.
const NONE: u8 = 0;
/// The pointer to its root is not packed.
const PLAIN: u8 = 1;
/// The pointer to its root is packed, behind its length.
const PACKED: u8 = 2;

/// A tree's root: whether there is one, its level, the pointer to it.
///
/// # Panics
///
/// For a pointer of more than 255 bytes.
pub(super) fn put_root(out: &mut Vec<u8>, root: Option<&Root>) {
    match root {
        None => out.push(NONE),
        Some(root) if root.place.len() == POINTER_BYTES => out.extend([PLAIN, root.level]),
        Some(root) => {
            let len = u8::try_from(root.place.len()).expect("a pointer is short");
            out.extend([PACKED, root.level, len]);
        }
    }
    out.extend(root.into_iter().flat_map(|root| &root.place));
}

/// `None` when it cannot be read; `Some(None)` for an empty tree.
#[expect(clippy::option_option, reason = "the outer one is that of every reader")]
pub(super) fn read_root(reader: &mut Reader<'_>) -> Option<Option<Root>> {
    let packed = match reader.u8()? {
        NONE => return Some(None),
        PLAIN => false,
        PACKED => true,
        _ => return None,
    };
    let level = reader.u8()?;
    let len = if packed { reader.u8()?.into() } else { POINTER_BYTES };
    // There is one form for each length.
    let place = reader.take(len).filter(|_| packed == (len != POINTER_BYTES))?.to_vec();
    Some(Some(Root { level, place }))
}

#[cfg(test)]
mod tests {
    use super::super::{Place, VdevId};
    use super::*;

    fn root() -> PoolRoot {
        PoolRoot {
            txg: Txg(9),
            next_dataset: 3,
            datasets: Some(Root { level: 1, place: vec![7; 60] }),
            log: LogStart {
                chain: 5,
                seq: 6,
                slot: Place { vdev: VdevId(1), sector: 0x0203 },
                slot_sectors: 64,
                offset: 2,
            },
            properties: Properties { compression: Compression::Lz4, checksum: ChecksumKind::Blake3 },
        }
    }

    /// What follows the version, up to the tree of datasets; and what follows that.
    const FRONT: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3];
    const BACK: [u8; 36] = [
        0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2, 3, 0, 0, 0, 64, 0,
        0, 0, 2,
    ];

    #[test]
    fn golden_bytes() {
        let properties = [Compression::Lz4 as u8, ChecksumKind::Blake3 as u8];
        let tree = [&[2, 1, 60][..], &[7; 60]].concat();
        let golden = [b"KILNROT\0\0\0\0\x04", &FRONT[..], &tree, &BACK, &properties].concat();
        assert_eq!(root().encode(), golden);
        assert_eq!(PoolRoot::decode(&golden), Ok(root()));
        let empty = PoolRoot { datasets: None, ..root() };
        assert_eq!(PoolRoot::decode(&empty.encode()), Ok(empty));
        let long = [&[2, 1, POINTER_BYTES as u8][..], &[7; POINTER_BYTES]].concat();
        let long = [b"KILNROT\0\0\0\0\x04", &FRONT[..], &long, &BACK, &properties].concat();
        assert_eq!(PoolRoot::decode(&long), Err(RecordError::Malformed), "that length has its own form");
    }

    #[test]
    fn older_versions_are_read() {
        let properties = [Compression::Lz4 as u8, ChecksumKind::Blake3 as u8];
        let tree = [&[1, 1][..], &[7; POINTER_BYTES]].concat();
        let datasets = Some(Root { level: 1, place: vec![7; POINTER_BYTES] });
        let third = [b"KILNROT\0\0\0\0\x03", &FRONT[..], &tree, &BACK, &properties].concat();
        assert_eq!(PoolRoot::decode(&third), Ok(PoolRoot { datasets: datasets.clone(), ..root() }));
        let first = [b"KILNROT\0\0\0\0\x01", &FRONT[..], &tree, &BACK].concat();
        let plain = PoolRoot { datasets, properties: Properties::default(), ..root() };
        assert_eq!(PoolRoot::decode(&first), Ok(plain));
    }

    #[test]
    fn what_is_no_root_is_told() {
        let bytes = root().encode();
        for len in 12..bytes.len() {
            assert_eq!(PoolRoot::decode(&bytes[..len]), Err(RecordError::Malformed), "cut to {len}");
        }
        assert_eq!(PoolRoot::decode(&bytes[..7]), Err(RecordError::Magic));
        let mut newer = bytes;
        newer[11] = 5;
        assert_eq!(PoolRoot::decode(&newer), Err(RecordError::Version(5)));
    }
}
