//! Where everything begins: the pointer to the pool's root, as of a transaction group.

use super::bytes::part;
use super::{Checksum, ChecksumKind, POINTER_BYTES, Pointer, PointerError, PoolId, Txg};

/// Length of an uberblock.
pub const UBERBLOCK_BYTES: usize = 4096;
/// Uberblocks of a label. That of transaction group T is in slot T modulo this number.
pub const UBERBLOCK_SLOTS: u64 = 32;

const MAGIC: [u8; 8] = *b"KILNUBR\0";
const VERSION: u32 = 1;
const ROOT_AT: usize = 48;
const RESERVED_AT: usize = ROOT_AT + POINTER_BYTES;
const CHECKSUM_AT: usize = UBERBLOCK_BYTES - Checksum::BYTES;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uberblock {
    /// Of which pool.
    pub pool: PoolId,
    /// The transaction group that it ends.
    pub txg: Txg,
    /// When, in seconds since 1970.
    pub time: u64,
    /// The root.
    pub root: Pointer,
}

/// Bytes that are no uberblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UberblockError {
    /// Nothing of Kiln's.
    #[error("no uberblock")]
    Magic,
    /// Written by a newer Kiln.
    #[error("an uberblock of version {0}; this Kiln knows up to {VERSION}")]
    Version(u32),
    /// Torn, or rotten.
    #[error("an uberblock whose checksum does not match")]
    Checksum,
    /// The checksum matches, and yet it cannot be one.
    #[error("an uberblock with a root that cannot be: {0}")]
    Root(#[from] PointerError),
    /// What must be zero is not.
    #[error("an uberblock with reserved bytes that are not zero")]
    Reserved,
}

impl Uberblock {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; UBERBLOCK_BYTES];
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_be_bytes());
        out[16..32].copy_from_slice(&self.pool.0.to_be_bytes());
        out[32..40].copy_from_slice(&self.txg.0.to_be_bytes());
        out[40..48].copy_from_slice(&self.time.to_be_bytes());
        out[ROOT_AT..RESERVED_AT].copy_from_slice(&self.root.encode());
        let checksum = Checksum::of(ChecksumKind::Blake3, &out[..CHECKSUM_AT]);
        out[CHECKSUM_AT..].copy_from_slice(checksum.bytes());
        out
    }

    /// The uberblock that these bytes are.
    pub fn decode(bytes: &[u8; UBERBLOCK_BYTES]) -> Result<Uberblock, UberblockError> {
        if bytes[..8] != MAGIC {
            return Err(UberblockError::Magic);
        }
        let version = u32::from_be_bytes(part(bytes, 8));
        if version != VERSION {
            return Err(UberblockError::Version(version));
        }
        let checksum = Checksum::of(ChecksumKind::Blake3, &bytes[..CHECKSUM_AT]);
        if bytes[CHECKSUM_AT..] != *checksum.bytes() {
            return Err(UberblockError::Checksum);
        }
        let uberblock = Uberblock {
            pool: PoolId(u128::from_be_bytes(part(bytes, 16))),
            txg: Txg(u64::from_be_bytes(part(bytes, 32))),
            time: u64::from_be_bytes(part(bytes, 40)),
            root: Pointer::decode(&part(bytes, ROOT_AT))?,
        };
        let reserved = bytes[12..16].iter().chain(&bytes[RESERVED_AT..CHECKSUM_AT]);
        if reserved.copied().all(|byte| byte == 0) { Ok(uberblock) } else { Err(UberblockError::Reserved) }
    }

    /// The slot of a label that it is written to.
    pub fn slot(&self) -> u64 {
        self.txg.0 % UBERBLOCK_SLOTS
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Compression, Kind, Place, VdevId};
    use super::*;

    fn uberblock() -> Uberblock {
        let root = Pointer {
            kind: Kind::Root,
            places: (0..3).map(|vdev| Place { vdev: VdevId(vdev), sector: 5 }).collect(),
            compression: Compression::None,
            stored_bytes: 4096,
            bytes: 4096,
            birth: Txg(100),
            checksum: Checksum::of(ChecksumKind::Blake3, b"root"),
        };
        Uberblock { pool: PoolId(7), txg: Txg(100), time: 1_700_000_000, root }
    }

    fn bytes() -> [u8; UBERBLOCK_BYTES] {
        uberblock().encode().try_into().expect("its length")
    }

    /// Bytes that somebody changed who computes checksums too.
    fn forged(at: usize, byte: u8) -> [u8; UBERBLOCK_BYTES] {
        let mut bytes = bytes();
        bytes[at] = byte;
        let checksum = Checksum::of(ChecksumKind::Blake3, &bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(checksum.bytes());
        bytes
    }

    #[test]
    fn golden_bytes() {
        let bytes = bytes();
        let mut head = b"KILNUBR\0".to_vec();
        head.extend([0, 0, 0, 1, 0, 0, 0, 0]);
        head.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        head.extend([0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0x65, 0x53, 0xf1, 0]);
        head.extend(uberblock().root.encode());
        assert_eq!(bytes[..head.len()], head);
        assert!(bytes[head.len()..CHECKSUM_AT].iter().all(|byte| *byte == 0));
        assert_eq!(Uberblock::decode(&bytes), Ok(uberblock()));
        assert_eq!(uberblock().slot(), 4);
    }

    #[test]
    fn any_bit_that_is_flipped_is_found() {
        let bytes = bytes();
        for at in 0..UBERBLOCK_BYTES {
            let mut bytes = bytes;
            bytes[at] ^= 1 << (at % 8);
            assert!(Uberblock::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_is_no_uberblock_is_told() {
        let told = |at: usize, byte: u8| Uberblock::decode(&forged(at, byte)).expect_err("it is none");
        assert_eq!(told(0, b'X'), UberblockError::Magic);
        assert_eq!(told(11, 2), UberblockError::Version(2));
        assert_eq!(told(ROOT_AT, 9), UberblockError::Root(PointerError::Kind(9)));
        assert_eq!(told(13, 1), UberblockError::Reserved);
        assert_eq!(told(RESERVED_AT, 1), UberblockError::Reserved);
        assert_eq!(Uberblock::decode(&[0; UBERBLOCK_BYTES]), Err(UberblockError::Magic));
    }
}
