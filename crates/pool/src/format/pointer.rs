//! Where a record lies, and how it is recognised. A pointer is in the node above the record, up to the root in the uberblock: what
//! is read is checked by what was read before.

use super::bytes::{Reader, part, put_place};
use super::{Checksum, ChecksumKind};

/// Length of a pointer that is not packed.
pub const POINTER_BYTES: usize = 128;
/// The longest that is packed.
const PACKED_BYTES_MAX: usize = HEAD_BYTES + 8 + 12 * PLACES_MAX + Checksum::BYTES;
/// Places of one record.
pub const PLACES_MAX: usize = 3;
/// The longest record, as stored and as it is.
pub const RECORD_BYTES_MAX: u32 = 16 << 20;

/// What both forms begin with: kind, places, compression, checksum, the two lengths.
const HEAD_BYTES: usize = 12;
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

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        match byte {
            1 => Some(Kind::Data),
            2 => Some(Kind::Node),
            3 => Some(Kind::Root),
            _ => None,
        }
    }
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
    /// There are fewer bytes than it has, or more.
    #[error("a pointer of another length")]
    Size,
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
        let mut out = [0; POINTER_BYTES];
        out[..HEAD_BYTES].copy_from_slice(&self.head());
        out[16..24].copy_from_slice(&self.birth.0.to_be_bytes());
        for (place, out) in self.places.iter().zip(out[PLACES_AT..].chunks_exact_mut(PLACE_BYTES)) {
            out[..4].copy_from_slice(&place.vdev.0.to_be_bytes());
            out[8..].copy_from_slice(&place.sector.to_be_bytes());
        }
        out[CHECKSUM_AT..RESERVED_AT].copy_from_slice(self.checksum.bytes());
        out
    }

    /// Its bytes as trees have them, without those that say nothing.
    ///
    /// # Panics
    ///
    /// When an invariant does not hold.
    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(PACKED_BYTES_MAX);
        out.extend(self.head());
        out.extend(self.birth.0.to_be_bytes());
        self.places.iter().for_each(|place| put_place(&mut out, *place));
        out.extend(&self.checksum.bytes()[..self.checksum.kind().significant()]);
        out
    }

    /// What both forms begin with.
    fn head(&self) -> [u8; HEAD_BYTES] {
        assert!((1..=PLACES_MAX).contains(&self.places.len()), "{} places", self.places.len());
        assert!(self.places.iter().all(|place| place.sector < VDEV_SECTORS_MAX), "sectors of a vdev");
        assert!(lengths_fit(self.compression, self.bytes, self.stored_bytes), "lengths of a record");
        let mut out = [0; HEAD_BYTES];
        let checksum = self.checksum.kind() as u8;
        out[..4].copy_from_slice(&[
            self.kind as u8,
            self.places.len() as u8,
            self.compression as u8,
            checksum,
        ]);
        out[4..8].copy_from_slice(&self.stored_bytes.to_be_bytes());
        out[8..].copy_from_slice(&self.bytes.to_be_bytes());
        out
    }

    /// The pointer that a tree has: packed, or of [`POINTER_BYTES`] bytes, as they were before. Both have one form only.
    pub fn unpack(bytes: &[u8]) -> Result<Pointer, PointerError> {
        if let Ok(bytes) = bytes.try_into() {
            return Pointer::decode(bytes);
        }
        let mut reader = Reader::new(bytes);
        let head = Head::decode(reader.array().ok_or(PointerError::Size)?)?;
        let birth = Txg(reader.u64().ok_or(PointerError::Size)?);
        let mut places = Vec::with_capacity(head.places);
        for _ in 0..head.places {
            let (vdev, sector) = reader.u32().zip(reader.u64()).ok_or(PointerError::Size)?;
            places.push(Place { vdev: VdevId(vdev), sector });
        }
        let mut checksum = [0; Checksum::BYTES];
        let significant = &mut checksum[..head.checksum.significant()];
        significant.copy_from_slice(reader.take(significant.len()).ok_or(PointerError::Size)?);
        if reader.is_empty() { head.pointer(birth, places, checksum) } else { Err(PointerError::Size) }
    }

    /// The pointer that these bytes are. A pointer has one form only: what it is encoded to again are the same bytes.
    pub fn decode(bytes: &[u8; POINTER_BYTES]) -> Result<Pointer, PointerError> {
        let head = Head::decode(part(bytes, 0))?;
        let place = |index: usize| {
            let at = PLACES_AT + index * PLACE_BYTES;
            let vdev = VdevId(u32::from_be_bytes(part(bytes, at)));
            Place { vdev, sector: u64::from_be_bytes(part(bytes, at + 8)) }
        };
        let birth = Txg(u64::from_be_bytes(part(bytes, 16)));
        let places = (0..head.places).map(place).collect();
        let pointer = head.pointer(birth, places, part(bytes, CHECKSUM_AT))?;
        if pointer.encode() == *bytes { Ok(pointer) } else { Err(PointerError::Reserved) }
    }
}

/// What both forms begin with.
struct Head {
    kind: Kind,
    /// How many there are.
    places: usize,
    compression: Compression,
    checksum: ChecksumKind,
    stored_bytes: u32,
    bytes: u32,
}

impl Head {
    fn decode(head: [u8; HEAD_BYTES]) -> Result<Head, PointerError> {
        let kind = Kind::from_byte(head[0]).ok_or(PointerError::Kind(head[0]))?;
        let places = usize::from(head[1]);
        if !(1..=PLACES_MAX).contains(&places) {
            return Err(PointerError::Places(head[1]));
        }
        let compression = Compression::from_byte(head[2]).ok_or(PointerError::Compression(head[2]))?;
        let checksum = ChecksumKind::from_byte(head[3]).ok_or(PointerError::Checksum(head[3]))?;
        let [stored_bytes, bytes] = [4, 8].map(|at| u32::from_be_bytes(part(&head, at)));
        if !lengths_fit(compression, bytes, stored_bytes) {
            return Err(PointerError::Length { bytes, stored_bytes });
        }
        Ok(Head { kind, places, compression, checksum, stored_bytes, bytes })
    }

    /// The pointer that begins so; `places` are as many as it says.
    fn pointer(
        self,
        birth: Txg,
        places: Vec<Place>,
        checksum: [u8; Checksum::BYTES],
    ) -> Result<Pointer, PointerError> {
        if let Some(beyond) = places.iter().find(|place| place.sector >= VDEV_SECTORS_MAX) {
            return Err(PointerError::Sector(beyond.sector));
        }
        let checksum = Checksum::from_bytes(self.checksum, checksum)
            .ok_or(PointerError::Checksum(self.checksum as u8))?;
        let Head { kind, compression, stored_bytes, bytes, .. } = self;
        Ok(Pointer { kind, places, compression, stored_bytes, bytes, birth, checksum })
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
    fn golden_bytes_packed() {
        let mut golden = vec![2, 2, 1, 1, 0, 0, 0x12, 0x34, 0, 0, 0x40, 0];
        golden.extend([0, 0, 0, 0, 0, 0, 0, 77]);
        golden.extend([0, 0, 0, 1, 0, 0, 1, 2, 3, 4, 5, 6]);
        golden.extend([0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9]);
        golden.extend(&pointer().checksum.bytes()[..16]);
        assert_eq!(pointer().pack(), golden);
    }

    #[test]
    fn what_is_no_packed_pointer_is_told() {
        let packed = pointer().pack();
        let with = |at: usize, byte: u8| {
            let mut bytes = packed.clone();
            bytes[at] = byte;
            Pointer::unpack(&bytes).expect_err("it is none")
        };
        assert_eq!(with(0, 4), PointerError::Kind(4));
        assert_eq!(with(1, 0), PointerError::Places(0));
        assert_eq!(with(1, 4), PointerError::Places(4));
        assert_eq!(with(1, 1), PointerError::Size, "the second place is behind its end");
        assert_eq!(with(1, 3), PointerError::Size, "a third place takes from its checksum");
        assert_eq!(with(2, 3), PointerError::Compression(3));
        assert_eq!(with(2, 0), PointerError::Length { bytes: 0x4000, stored_bytes: 0x1234 });
        assert_eq!(with(3, 9), PointerError::Checksum(9));
        assert_eq!(with(3, 2), PointerError::Size, "a longer checksum");
        assert_eq!(with(24, 1), PointerError::Sector(1 << 56 | 0x0102_0304_0506));
        for end in 0..packed.len() {
            assert!(Pointer::unpack(&packed[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(Pointer::unpack(&[&packed[..], &[0]].concat()), Err(PointerError::Size));
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
            prop_assert_eq!(Pointer::decode(&pointer.encode()), Ok(pointer.clone()));
            prop_assert_eq!(Pointer::unpack(&pointer.encode()), Ok(pointer.clone()), "as it was before");
            prop_assert!(pointer.pack().len() <= PACKED_BYTES_MAX);
            prop_assert_eq!(Pointer::unpack(&pointer.pack()), Ok(pointer));
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

        #[test]
        fn whatever_is_unpacked_has_one_form(
            mut bytes in prop::collection::vec(any::<u8>(), 20..PACKED_BYTES_MAX + 4),
            head in (0..5_u8, 0..5_u8, 0..4_u8, 0..4_u8),
        ) {
            (bytes[0], bytes[1], bytes[2], bytes[3]) = head;
            // Lengths and sectors that can be.
            for high in [4, 8, 24, 25, 36, 37, 48, 49] {
                bytes.get_mut(high).into_iter().for_each(|byte| *byte = 0);
            }
            if let Ok(pointer) = Pointer::unpack(&bytes) {
                prop_assert_eq!(pointer.pack(), bytes);
            }
        }
    }
}
