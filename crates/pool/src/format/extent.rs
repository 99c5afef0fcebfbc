//! Sectors that a record takes, as they stand in the list of what a dataset does not lead to any more and its snapshots do.

use super::bytes::Reader;
use super::{Place, Pointer, RecordError, Txg, VDEV_SECTORS_MAX, VdevId};
use crate::core::tree::Key;
use crate::vdev::SECTOR_BYTES;

/// The tag of an extent.
const TAG_EXTENT: u8 = 3;

/// One copy of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent {
    /// Where it begins.
    pub place: Place,
    /// How many sectors it has, without parity.
    pub sectors: u32,
    /// When it was written.
    pub birth: Txg,
}

impl Extent {
    /// The copies of a record.
    pub fn of(pointer: &Pointer) -> impl Iterator<Item = Extent> + '_ {
        let sectors = (pointer.stored_bytes as usize).div_ceil(SECTOR_BYTES) as u32;
        pointer.places.iter().map(move |place| Extent { place: *place, sectors, birth: pointer.birth })
    }

    /// Its key.
    pub fn key(&self) -> Key {
        Key { object: self.place.vdev.0.into(), tag: TAG_EXTENT, index: self.place.sector }
    }

    /// The lowest and the highest key of extents.
    pub fn keys() -> (Key, Key) {
        (
            Key { object: 0, tag: TAG_EXTENT, index: 0 },
            Key { object: u64::MAX, tag: TAG_EXTENT, index: u64::MAX },
        )
    }

    /// What is with its key.
    pub fn encode(&self) -> Vec<u8> {
        [&self.sectors.to_be_bytes()[..], &self.birth.0.to_be_bytes()].concat()
    }

    /// The extent of a key and what is with it.
    pub fn decode(key: Key, value: &[u8]) -> Result<Extent, RecordError> {
        let mut reader = Reader::new(value);
        let (sectors, birth) = (reader.u32(), reader.u64());
        let vdev = u32::try_from(key.object);
        match (vdev, sectors, birth) {
            (Ok(vdev), Some(sectors), Some(birth))
                if reader.is_empty() && key.tag == TAG_EXTENT && key.index < VDEV_SECTORS_MAX =>
            {
                let place = Place { vdev: VdevId(vdev), sector: key.index };
                Ok(Extent { place, sectors, birth: Txg(birth) })
            }
            _ => Err(RecordError::Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let extent = Extent { place: Place { vdev: VdevId(2), sector: 77 }, sectors: 32, birth: Txg(0x0102) };
        assert_eq!(extent.key(), Key { object: 2, tag: 3, index: 77 });
        assert_eq!(extent.encode(), [0, 0, 0, 32, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(Extent::decode(extent.key(), &extent.encode()), Ok(extent));
        let (lowest, highest) = Extent::keys();
        assert!(lowest < extent.key() && extent.key() < highest);
    }

    #[test]
    fn what_is_no_extent_is_told() {
        let (key, value) = (Key { object: 2, tag: 3, index: 77 }, [0; 12]);
        for (key, value) in [
            (key, &value[..11]),
            (key, &[0; 13]),
            (Key { tag: 2, ..key }, &value),
            (Key { object: 1 << 32, ..key }, &value),
            (Key { index: VDEV_SECTORS_MAX, ..key }, &value),
        ] {
            assert_eq!(Extent::decode(key, value), Err(RecordError::Malformed));
        }
    }
}
