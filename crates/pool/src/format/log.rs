//! The intent log: what was made durable since the last transaction group was committed.
//!
//! The log is a chain of blocks, each a head of two sectors and, when that is too small, a body behind it. They lie one after the other in
//! slots: runs of sectors, each of which names the next. A block is recognised by chain and number, which no block before had.

use super::bytes::{Reader, part, put_place};
use super::{Checksum, ChecksumKind, POINTER_BYTES, Place, Pointer, PoolId, Txg};

/// Length of a block's head: what was written and made durable in pieces of 4 KiB fits into it.
pub const LOG_HEAD_BYTES: usize = 8192;
/// The longest body.
pub const LOG_BODY_BYTES_MAX: usize = 256 << 10;
/// What of the entries may lie in the head.
pub const LOG_INLINE_BYTES: usize = CHECKSUM_AT - INLINE_AT;

const MAGIC: [u8; 8] = *b"KILNLOG\0";
const VERSION: u32 = 1;
const BODY_CHECKSUM_AT: usize = 64;
const INLINE_AT: usize = BODY_CHECKSUM_AT + Checksum::BYTES;
const CHECKSUM_AT: usize = LOG_HEAD_BYTES - Checksum::BYTES;

/// Where the log begins, or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogStart {
    /// Of every block of the chain; no two chains of a pool have the same.
    pub chain: u64,
    /// The number of the next block.
    pub seq: u64,
    /// The slot that it lies in, unless it has no room there.
    pub slot: Place,
    /// The length of slots.
    pub slot_sectors: u32,
    /// Where in the slot it lies, in sectors.
    pub offset: u32,
}

/// The head of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// Of which pool.
    pub pool: PoolId,
    /// Of which chain.
    pub chain: u64,
    /// Which of its blocks.
    pub seq: u64,
    /// The slot behind the one that it lies in.
    pub next_slot: Place,
    /// Length of the entries.
    pub body_bytes: u32,
    /// Of the entries.
    pub body_checksum: Checksum,
    /// The entries, if they are short enough ([`LOG_INLINE_BYTES`]); else they are behind the head.
    pub inline: Vec<u8>,
}

impl LogHead {
    /// Its bytes, [`LOG_HEAD_BYTES`] of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend(VERSION.to_be_bytes());
        out.extend(self.body_bytes.to_be_bytes());
        out.extend(self.pool.0.to_be_bytes());
        out.extend(self.chain.to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        put_place(&mut out, self.next_slot);
        out.resize(BODY_CHECKSUM_AT, 0);
        out.extend(self.body_checksum.bytes());
        out.extend(&self.inline);
        out.resize(CHECKSUM_AT, 0);
        let checksum = Checksum::of(ChecksumKind::Xxh3, &out);
        out.extend(checksum.bytes());
        out
    }

    /// The head that these bytes are; `None` for anything else, as what lies behind the last block may be anything.
    pub fn decode(bytes: &[u8; LOG_HEAD_BYTES]) -> Option<LogHead> {
        let checksum = Checksum::of(ChecksumKind::Xxh3, &bytes[..CHECKSUM_AT]);
        if bytes[CHECKSUM_AT..] != *checksum.bytes() {
            return None;
        }
        let mut reader = Reader::new(bytes);
        if reader.take(8)? != MAGIC || reader.u32()? != VERSION {
            return None;
        }
        let body_bytes = reader.u32().filter(|bytes| *bytes as usize <= LOG_BODY_BYTES_MAX)?;
        let inline = if body_bytes as usize <= LOG_INLINE_BYTES { body_bytes as usize } else { 0 };
        Some(LogHead {
            pool: PoolId(reader.u128()?),
            chain: reader.u64()?,
            seq: reader.u64()?,
            next_slot: reader.place()?,
            body_bytes,
            body_checksum: Checksum::from_bytes(ChecksumKind::Xxh3, part(bytes, BODY_CHECKSUM_AT))?,
            inline: bytes[INLINE_AT..INLINE_AT + inline].to_vec(),
        })
    }
}

/// What happened to an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// In which transaction group.
    pub txg: Txg,
    /// Of which dataset.
    pub dataset: u64,
    /// To which object.
    pub object: u64,
    /// What.
    pub change: LogChange,
}

/// A change of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogChange {
    /// It is there no more.
    Destroy,
    /// It is cut, or reaches further with zeros.
    SetLen(u64),
    /// Bytes at an offset.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// A record that was written to its place before.
    Place {
        /// Where in the object.
        offset: u64,
        /// Where on the disks.
        pointer: Pointer,
    },
    /// Zeros that take no space.
    Punch {
        /// Where.
        offset: u64,
        /// How many.
        len: u64,
    },
}

impl LogEntry {
    /// Its length without the bytes that are written.
    pub const HEAD_BYTES: usize = 24 + 1 + 8 + 8;
    /// The length of one that names a place.
    pub const PLACE_BYTES: u64 = (LogEntry::HEAD_BYTES + POINTER_BYTES) as u64;

    /// Its bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let more = match &self.change {
            LogChange::Write { bytes, .. } => bytes.len(),
            LogChange::Place { .. } => POINTER_BYTES,
            LogChange::Destroy | LogChange::SetLen(_) | LogChange::Punch { .. } => 0,
        };
        let mut out = Vec::with_capacity(LogEntry::HEAD_BYTES + more);
        self.encode(&mut out);
        out
    }

    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.txg.0.to_be_bytes());
        out.extend(self.dataset.to_be_bytes());
        out.extend(self.object.to_be_bytes());
        let encoded;
        let (kind, first, second, bytes): (u8, u64, u64, &[u8]) = match &self.change {
            LogChange::Destroy => (1, 0, 0, &[]),
            LogChange::SetLen(len) => (2, *len, 0, &[]),
            LogChange::Write { offset, bytes } => (3, *offset, bytes.len() as u64, bytes),
            LogChange::Punch { offset, len } => (4, *offset, *len, &[]),
            LogChange::Place { offset, pointer } => {
                encoded = pointer.encode();
                (5, *offset, 0, &encoded)
            }
        };
        out.push(kind);
        out.extend(first.to_be_bytes());
        out.extend(second.to_be_bytes());
        out.extend(bytes);
    }

    /// The entries of a block; `None` when they cannot be read.
    pub fn decode_all(bytes: &[u8]) -> Option<Vec<LogEntry>> {
        let mut reader = Reader::new(bytes);
        let mut entries = Vec::new();
        while !reader.is_empty() {
            entries.push(read_entry(&mut reader)?);
        }
        Some(entries)
    }
}

fn read_entry(reader: &mut Reader<'_>) -> Option<LogEntry> {
    let (txg, dataset, object) = (Txg(reader.u64()?), reader.u64()?, reader.u64()?);
    let (kind, first, second) = (reader.u8()?, reader.u64()?, reader.u64()?);
    let change = match kind {
        1 => LogChange::Destroy,
        2 => LogChange::SetLen(first),
        3 => LogChange::Write { offset: first, bytes: reader.take(usize::try_from(second).ok()?)?.to_vec() },
        4 => LogChange::Punch { offset: first, len: second },
        5 => {
            let pointer: &[u8; POINTER_BYTES] = reader.take(POINTER_BYTES)?.try_into().ok()?;
            LogChange::Place { offset: first, pointer: Pointer::decode(pointer).ok()? }
        }
        _ => return None,
    };
    Some(LogEntry { txg, dataset, object, change })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Compression, Kind, VDEV_SECTORS_MAX, VdevId};
    use super::*;

    fn head() -> LogHead {
        LogHead {
            pool: PoolId(7),
            chain: 5,
            seq: 6,
            next_slot: Place { vdev: VdevId(1), sector: 9 },
            body_bytes: 2,
            body_checksum: Checksum::of(ChecksumKind::Xxh3, b"ab"),
            inline: b"ab".to_vec(),
        }
    }

    #[test]
    fn golden_bytes() {
        let bytes = head().encode();
        let mut golden = b"KILNLOG\0".to_vec();
        golden.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6]);
        golden.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0]);
        assert_eq!(bytes[..BODY_CHECKSUM_AT], golden);
        assert_eq!(bytes[INLINE_AT..INLINE_AT + 3], *b"ab\0");
        let bytes: [u8; LOG_HEAD_BYTES] = bytes.try_into().expect("its length");
        assert_eq!(LogHead::decode(&bytes), Some(head()));
        for at in 0..LOG_HEAD_BYTES {
            let mut bytes = bytes;
            bytes[at] ^= 1;
            assert_eq!(LogHead::decode(&bytes), None, "byte {at}");
        }
    }

    fn change() -> impl Strategy<Value = LogChange> {
        prop_oneof![
            Just(LogChange::Destroy),
            any::<u64>().prop_map(LogChange::SetLen),
            (any::<u64>(), prop::collection::vec(any::<u8>(), 0..50))
                .prop_map(|(offset, bytes)| LogChange::Write { offset, bytes }),
            any::<(u64, u64)>().prop_map(|(offset, len)| LogChange::Punch { offset, len }),
            (any::<u64>(), 0..VDEV_SECTORS_MAX).prop_map(|(offset, sector)| LogChange::Place {
                offset,
                pointer: Pointer {
                    kind: Kind::Data,
                    places: vec![Place { vdev: VdevId(1), sector }],
                    compression: Compression::None,
                    stored_bytes: 4096,
                    bytes: 4096,
                    birth: Txg(offset),
                    checksum: Checksum::of(ChecksumKind::Xxh3, &sector.to_be_bytes()),
                },
            }),
        ]
    }

    proptest! {
        #[test]
        fn entries_come_back(changes in prop::collection::vec((any::<(u64, u64, u64)>(), change()), 0..5)) {
            let entries: Vec<LogEntry> = changes
                .into_iter()
                .map(|((txg, dataset, object), change)| LogEntry { txg: Txg(txg), dataset, object, change })
                .collect();
            let mut bytes = Vec::new();
            for entry in &entries {
                entry.encode(&mut bytes);
            }
            prop_assert_eq!(LogEntry::decode_all(&bytes), Some(entries.clone()));
            if let Some(cut) = bytes.len().checked_sub(1) {
                prop_assert_ne!(LogEntry::decode_all(&bytes[..cut]), Some(entries));
            }
        }

        #[test]
        fn whatever_it_is_it_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = LogEntry::decode_all(&bytes);
        }
    }
}
