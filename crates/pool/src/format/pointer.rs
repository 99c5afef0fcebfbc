//! Where a record lies, and how it is recognised. A pointer is in the node above the record, up to the root in the uberblock: what
//! is read is checked by what was read before.

use super::bytes::part;
use super::{Checksum, ChecksumKind};

/// Length of a pointer.
pub const POINTER_BYTES: usize = 128;
/// Places of one record.
pub const PLACES_MAX: usize = 3;
/// The longest record, as stored and as it is.
pub const RECORD_BYTES_MAX: u32 = 16 << 20;

const PLACES_AT: usize = 24;
const PLACE_BYTES: usize = 16;
const CHECKSUM_AT: usize = 72;
const RESERVED_AT: usize = CHECKSUM_AT + Checksum::BYTES;

/// A top-level vdev of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VdevId(pub u32);

/// A transaction group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txg(pub u64);

/// Sectors of the largest vdev: four exabytes. A sector below it can be computed with and never overflows.
pub const VDEV_SECTORS_MAX: u64 = 1 << 50;

/// Where a record begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// On which vdev.
    pub vdev: VdevId,
    /// At which of its sectors. **Invariant:** below [`VDEV_SECTORS_MAX`].
    pub sector: u64,
}

/// What a record was made smaller by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Compression {
    /// Nothing.
    None = 0,
    /// LZ4, a block of it.
    Lz4 = 1,
    /// Zstandard, a frame of it.
    Zstd = 2,
}

impl Compression {
    /// That of a byte.
    pub(super) fn from_byte(byte: u8) -> Option<Compression> {
        match byte {
            0 => Some(Compression::None),
            1 => Some(Compression::Lz4),
            2 => Some(Compression::Zstd),
            _ => None,
        }
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Bytes of an object.
    Data = 1,
    /// A node of a tree.
    Node = 2,
    /// The root of the pool.
    Root = 3,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// What the record is.
    pub kind: Kind,
    /// **Invariant:** 1 to [`PLACES_MAX`], each with the same bytes.
    pub places: Vec<Place>,
    /// How it is stored.
    pub compression: Compression,
    /// Its length as stored. **Invariant:** 1 to [`RECORD_BYTES_MAX`].
    pub stored_bytes: u32,
    /// Its length as it is. **Invariant:** 1 to [`RECORD_BYTES_MAX`]; that stored, where it is not compressed.
    pub bytes: u32,
    /// When it was written.
    pub birth: Txg,
    /// Of the bytes as stored.
    pub checksum: Checksum,
}

/// Bytes that are no pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PointerError {
    /// An unknown kind of record.
    #[error("a record of unknown kind {0}")]
    Kind(u8),
    /// Not one to three.
    #[error("a record in {0} places")]
    Places(u8),
    /// An unknown compression.
    #[error("a record compressed in an unknown way, {0}")]
    Compression(u8),
    /// An unknown kind of checksum, or bytes that one of its kind cannot be.
    #[error("a checksum of unknown kind {0}, or that cannot be one")]
    Checksum(u8),
    /// Lengths that a record cannot have.
    #[error("a record of {bytes} bytes in {stored_bytes}")]
    Length {
        /// Of the record.
        bytes: u32,
        /// As stored.
        stored_bytes: u32,
    },
    /// At a sector that no vdev has.
    #[error("a record at sector {0}")]
    Sector(u64),
    /// What must be zero is not.
    #[error("reserved bytes that are not zero")]
    Reserved,
}

impl Pointer {
    /// Its bytes.
    ///
    /// # Panics
    ///
    /// When an invariant does not hold.
    pub fn encode(&self) -> [u8; POINTER_BYTES] {
        assert!((1..=PLACES_MAX).contains(&self.places.len()), "{} places", self.places.len());
        assert!(self.places.iter().all(|place| place.sector < VDEV_SECTORS_MAX), "sectors of a vdev");
        assert!(lengths_fit(self.compression, self.bytes, self.stored_bytes), "lengths of a record");
        let mut out = [0; POINTER_BYTES];
        out[0] = self.kind as u8;
        out[1] = self.places.len() as u8;
        out[2] = self.compression as u8;
        out[3] = self.checksum.kind() as u8;
        out[4..8].copy_from_slice(&self.stored_bytes.to_be_bytes());
        out[8..12].copy_from_slice(&self.bytes.to_be_bytes());
        out[16..24].copy_from_slice(&self.birth.0.to_be_bytes());
        for (place, out) in self.places.iter().zip(out[PLACES_AT..].chunks_exact_mut(PLACE_BYTES)) {
            out[..4].copy_from_slice(&place.vdev.0.to_be_bytes());
            out[8..].copy_from_slice(&place.sector.to_be_bytes());
        }
        out[CHECKSUM_AT..RESERVED_AT].copy_from_slice(self.checksum.bytes());
        out
    }

    /// The pointer that these bytes are. A pointer has one form only: what it is encoded to again are the same bytes.
    pub fn decode(bytes: &[u8; POINTER_BYTES]) -> Result<Pointer, PointerError> {
        let kind = match bytes[0] {
            1 => Kind::Data,
            2 => Kind::Node,
            3 => Kind::Root,
            other => return Err(PointerError::Kind(other)),
        };
        let count = usize::from(bytes[1]);
        if !(1..=PLACES_MAX).contains(&count) {
            return Err(PointerError::Places(bytes[1]));
        }
        let compression = Compression::from_byte(bytes[2]).ok_or(PointerError::Compression(bytes[2]))?;
        let checksum_kind = ChecksumKind::from_byte(bytes[3]).ok_or(PointerError::Checksum(bytes[3]))?;
        let checksum = Checksum::from_bytes(checksum_kind, part(bytes, CHECKSUM_AT));
        let checksum = checksum.ok_or(PointerError::Checksum(bytes[3]))?;
        let stored_bytes = u32::from_be_bytes(part(bytes, 4));
        let length = u32::from_be_bytes(part(bytes, 8));
        if !lengths_fit(compression, length, stored_bytes) {
            return Err(PointerError::Length { bytes: length, stored_bytes });
        }
        let place = |index: usize| {
            let at = PLACES_AT + index * PLACE_BYTES;
            let vdev = VdevId(u32::from_be_bytes(part(bytes, at)));
            Place { vdev, sector: u64::from_be_bytes(part(bytes, at + 8)) }
        };
        let birth = Txg(u64::from_be_bytes(part(bytes, 16)));
        let places: Vec<Place> = (0..count).map(place).collect();
        if let Some(beyond) = places.iter().find(|place| place.sector >= VDEV_SECTORS_MAX) {
            return Err(PointerError::Sector(beyond.sector));
        }
        let pointer = Pointer { kind, places, compression, stored_bytes, bytes: length, birth, checksum };
        if pointer.encode() == *bytes { Ok(pointer) } else { Err(PointerError::Reserved) }
    }
}

fn lengths_fit(compression: Compression, bytes: u32, stored_bytes: u32) -> bool {
    let bounds = 1..=RECORD_BYTES_MAX;
    let same = bytes == stored_bytes || compression != Compression::None;
    same && bounds.contains(&bytes) && bounds.contains(&stored_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pointer() -> Pointer {
        Pointer {
            kind: Kind::Node,
            places: vec![
                Place { vdev: VdevId(1), sector: 0x0102_0304_0506 },
                Place { vdev: VdevId(2), sector: 9 },
            ],
            compression: Compression::Lz4,
            stored_bytes: 0x1234,
            bytes: 0x4000,
            birth: Txg(77),
            checksum: Checksum::of(ChecksumKind::Xxh3, b"a node"),
        }
    }

    #[test]
    fn golden_bytes() {
        let mut golden = vec![2, 2, 1, 1, 0, 0, 0x12, 0x34, 0, 0, 0x40, 0, 0, 0, 0, 0];
        golden.extend([0, 0, 0, 0, 0, 0, 0, 77]);
        golden.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6]);
        golden.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
        golden.extend([0; 16]);
        golden.extend(pointer().checksum.bytes());
        golden.extend([0; 24]);
        assert_eq!(pointer().encode()[..], golden);
    }

    #[test]
    fn what_is_no_pointer_is_told() {
        let with = |at: usize, byte: u8| {
            let mut bytes = pointer().encode();
            bytes[at] = byte;
            Pointer::decode(&bytes).expect_err("it is none")
        };
        assert_eq!(with(0, 0), PointerError::Kind(0));
        assert_eq!(with(1, 4), PointerError::Places(4));
        assert_eq!(with(1, 1), PointerError::Reserved, "the second place would be beyond the last");
        assert_eq!(with(2, 3), PointerError::Compression(3));
        assert_eq!(with(2, 0), PointerError::Length { bytes: 0x4000, stored_bytes: 0x1234 });
        assert_eq!(with(3, 9), PointerError::Checksum(9));
        assert_eq!(with(4, 0xff), PointerError::Length { bytes: 0x4000, stored_bytes: 0xff00_1234 });
        assert_eq!(with(CHECKSUM_AT + 20, 1), PointerError::Checksum(1));
        assert_eq!(with(PLACES_AT + 8, 1), PointerError::Sector(1 << 56 | 0x0102_0304_0506));
        for reserved in [12, PLACES_AT + 5, RESERVED_AT, POINTER_BYTES - 1] {
            assert_eq!(with(reserved, 1), PointerError::Reserved, "byte {reserved}");
        }
        assert_eq!(Pointer::decode(&[0; POINTER_BYTES]), Err(PointerError::Kind(0)), "a hole is no pointer");
    }

    proptest! {
        #[test]
        fn it_comes_back(
            kind in prop::sample::select(vec![Kind::Data, Kind::Node, Kind::Root]),
            places in prop::collection::vec((any::<u32>(), 0..VDEV_SECTORS_MAX), 1..=PLACES_MAX),
            lengths in (1..=RECORD_BYTES_MAX, 1..=RECORD_BYTES_MAX),
            compressed in any::<bool>(),
            birth in any::<u64>(),
            record in prop::collection::vec(any::<u8>(), 0..50),
            strong in any::<bool>(),
        ) {
            let checksum_kind = if strong { ChecksumKind::Blake3 } else { ChecksumKind::Xxh3 };
            let pointer = Pointer {
                kind,
                places: places.into_iter().map(|(vdev, sector)| Place { vdev: VdevId(vdev), sector }).collect(),
                compression: if compressed { Compression::Zstd } else { Compression::None },
                stored_bytes: lengths.0,
                bytes: if compressed { lengths.1 } else { lengths.0 },
                birth: Txg(birth),
                checksum: Checksum::of(checksum_kind, &record),
            };
            prop_assert_eq!(Pointer::decode(&pointer.encode()), Ok(pointer));
        }

        #[test]
        fn whatever_is_read_has_one_form(
            mut bytes in prop::array::uniform32(any::<u8>()).prop_map(|part| {
                let mut bytes = [0; POINTER_BYTES];
                bytes[..32].copy_from_slice(&part);
                bytes
            }),
            head in (0..5_u8, 0..5_u8, 0..4_u8, 0..4_u8),
        ) {
            (bytes[0], bytes[1], bytes[2], bytes[3]) = head;
            if let Ok(pointer) = Pointer::decode(&bytes) {
                prop_assert_eq!(pointer.encode(), bytes);
            }
        }
    }
}
