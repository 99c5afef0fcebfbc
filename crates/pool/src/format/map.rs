//! The map of a stretch of a vdev. It lies in one of two fixed places, so that it needs no pointer, and has a checksum of its own.

use super::bytes::part;
use super::{Checksum, ChecksumKind, PoolId, Txg, VdevId};
use crate::core::space::Map;

/// Length of a map.
pub const MAP_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"KILNMAP\0";
const VERSION: u32 = 1;
const POOL_AT: usize = 32;
const CHECKSUM_AT: usize = 48;
const BITS_AT: usize = 64;
const WORD_BYTES: usize = 8;

/// A map with where it belongs, and as of when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapBlock {
    /// Of which pool: the disk may have been of another one before.
    pub pool: PoolId,
    /// Of which vdev.
    pub vdev: VdevId,
    /// Of which of its stretches.
    pub stretch: u64,
    /// Written in which transaction group.
    pub txg: Txg,
    /// The bits.
    pub map: Map,
}

/// Bytes that are no map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// Nothing of Kiln's.
    #[error("no map of space")]
    Magic,
    /// Written by a newer Kiln.
    #[error("a map of space of version {0}; this Kiln knows up to {VERSION}")]
    Version(u32),
    /// Torn, or rotten.
    #[error("a map of space whose checksum does not match")]
    Checksum,
}

impl MapBlock {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; MAP_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_be_bytes());
        out[12..16].copy_from_slice(&self.vdev.0.to_be_bytes());
        out[16..24].copy_from_slice(&self.stretch.to_be_bytes());
        out[24..32].copy_from_slice(&self.txg.0.to_be_bytes());
        out[POOL_AT..CHECKSUM_AT].copy_from_slice(&self.pool.0.to_be_bytes());
        for (word, out) in self.map.words().iter().zip(out[BITS_AT..].chunks_exact_mut(WORD_BYTES)) {
            out.copy_from_slice(&word.to_be_bytes());
        }
        let checksum = checksum_of(&out);
        out[CHECKSUM_AT..BITS_AT].copy_from_slice(&checksum);
        out
    }

    /// The map that these bytes are.
    pub fn decode(bytes: &[u8; MAP_BYTES]) -> Result<MapBlock, MapError> {
        if bytes[..8] != MAGIC {
            return Err(MapError::Magic);
        }
        let version = u32::from_be_bytes(part(bytes, 8));
        if version != VERSION {
            return Err(MapError::Version(version));
        }
        if bytes[CHECKSUM_AT..BITS_AT] != checksum_of(bytes) {
            return Err(MapError::Checksum);
        }
        let mut words = Box::new([0; (MAP_BYTES - BITS_AT) / WORD_BYTES]);
        for (word, bytes) in words.iter_mut().zip(bytes[BITS_AT..].as_chunks().0) {
            *word = u64::from_be_bytes(*bytes);
        }
        Ok(MapBlock {
            pool: PoolId(u128::from_be_bytes(part(bytes, POOL_AT))),
            vdev: VdevId(u32::from_be_bytes(part(bytes, 12))),
            stretch: u64::from_be_bytes(part(bytes, 16)),
            txg: Txg(u64::from_be_bytes(part(bytes, 24))),
            map: Map::from_words(words),
        })
    }
}

/// XXH3 of all but the checksum.
fn checksum_of(bytes: &[u8]) -> [u8; BITS_AT - CHECKSUM_AT] {
    let covered = [&bytes[..CHECKSUM_AT], &bytes[BITS_AT..]].concat();
    let checksum = Checksum::of(ChecksumKind::Xxh3, &covered);
    let mut short = [0; BITS_AT - CHECKSUM_AT];
    short.copy_from_slice(&checksum.bytes()[..BITS_AT - CHECKSUM_AT]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> MapBlock {
        let mut map = Map::new(1000);
        map.allocate(3, 62).expect("there is room");
        MapBlock { pool: PoolId(0x0506), vdev: VdevId(2), stretch: 0x0304, txg: Txg(9), map }
    }

    fn bytes() -> [u8; MAP_BYTES] {
        block().encode().try_into().expect("its length")
    }

    #[test]
    fn golden_bytes() {
        let bytes = bytes();
        let mut head = b"KILNMAP\0".to_vec();
        head.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        head.extend([0, 0, 0, 0, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0, 0, 9]);
        head.extend([0; 14]);
        head.extend([5, 6]);
        assert_eq!(bytes[..CHECKSUM_AT], head);
        // Sectors 62 and 63 are the highest bits of the first word, 64 the lowest of the second.
        assert_eq!(bytes[BITS_AT..BITS_AT + 16], [0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(MapBlock::decode(&bytes), Ok(block()));
    }

    #[test]
    fn any_bit_that_is_flipped_is_found() {
        let bytes = bytes();
        for at in 0..MAP_BYTES {
            let mut bytes = bytes;
            bytes[at] ^= 1 << (at % 8);
            assert!(MapBlock::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_is_no_map_is_told() {
        let forged = |at: usize, byte: u8| {
            let mut bytes = bytes();
            bytes[at] = byte;
            let checksum = checksum_of(&bytes);
            bytes[CHECKSUM_AT..BITS_AT].copy_from_slice(&checksum);
            MapBlock::decode(&bytes).expect_err("it is none")
        };
        assert_eq!(forged(3, 0), MapError::Magic);
        assert_eq!(forged(11, 2), MapError::Version(2));
    }
}
