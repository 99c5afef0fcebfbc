//! The sparse index of a segment: from an offset or a time to a position in the file.
//!
//! While a segment is written its index lives in memory. When it is sealed the index is saved beside it, as a cache:
//! a missing, stale or damaged index file is rebuilt by scanning the segment.

use kiln_types::Offset;

use crate::batch::Header;
use crate::segment::SegmentInfo;

const MAGIC: &[u8; 8] = b"KILNIDX\0";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 48;
const ENTRY_BYTES: usize = 16;
const CRC_BYTES: usize = 4;

/// One remembered place: the batch that begins at `position`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// The batch's base offset less the segment's.
    offset_delta: u32,
    /// In bytes from the start of the file.
    position: u32,
    /// The highest timestamp of all batches before this one.
    time_before_ms: i64,
}

/// The index of one segment: a batch about every `interval_bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    base: Offset,
    interval_bytes: u32,
    /// In ascending order of all three fields. The segment's first batch needs no entry.
    entries: Vec<Entry>,
}

impl Index {
    pub(crate) fn new(base: Offset, interval_bytes: u32) -> Index {
        Index { base, interval_bytes, entries: Vec::new() }
    }

    /// Takes note of a batch that is about to follow the segment described by `before`.
    pub(crate) fn note(&mut self, before: &SegmentInfo, header: &Header) {
        let last = self.entries.last().map_or(0, |entry| entry.position);
        if before.bytes < u64::from(last) + u64::from(self.interval_bytes.max(1)) {
            return;
        }
        let delta = u32::try_from(header.base.0 - self.base.0);
        let (Ok(offset_delta), Ok(position)) = (delta, u32::try_from(before.bytes)) else { return };
        self.entries.push(Entry { offset_delta, position, time_before_ms: before.max_time_ms });
    }

    /// Where to start looking for the batch that holds `offset`: the position of that batch or of one before it.
    pub(crate) fn position_of(&self, offset: Offset) -> u64 {
        let delta = offset.0 - self.base.0;
        let after = self.entries.partition_point(|entry| i64::from(entry.offset_delta) <= delta);
        self.position_before(after)
    }

    /// Where to start looking for the first record with a timestamp of at least `time_ms`.
    pub(crate) fn position_of_time(&self, time_ms: i64) -> u64 {
        let after = self.entries.partition_point(|entry| entry.time_before_ms < time_ms);
        self.position_before(after)
    }

    fn position_before(&self, after: usize) -> u64 {
        after.checked_sub(1).map_or(0, |at| u64::from(self.entries[at].position))
    }

    /// The file's bytes, for the sealed segment described by `info`.
    pub(crate) fn encode(&self, info: &SegmentInfo) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + self.entries.len() * ENTRY_BYTES + CRC_BYTES);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_be_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_be_bytes());
        out.extend_from_slice(&info.base.0.to_be_bytes());
        out.extend_from_slice(&info.last.0.to_be_bytes());
        out.extend_from_slice(&info.bytes.to_be_bytes());
        out.extend_from_slice(&info.max_time_ms.to_be_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&entry.offset_delta.to_be_bytes());
            out.extend_from_slice(&entry.position.to_be_bytes());
            out.extend_from_slice(&entry.time_before_ms.to_be_bytes());
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads a saved index; `None` when it is not sound or of another version, and is to be rebuilt.
    pub(crate) fn decode(bytes: &[u8], interval_bytes: u32) -> Option<(SegmentInfo, Index)> {
        let (content, crc) = bytes.split_last_chunk::<CRC_BYTES>()?;
        if crc32c::crc32c(content) != u32::from_be_bytes(*crc) {
            return None;
        }
        let mut rest = content.strip_prefix(MAGIC)?;
        if u32::from_be_bytes(take(&mut rest)?) != VERSION {
            return None;
        }
        let count = u32::from_be_bytes(take(&mut rest)?) as usize;
        let info = SegmentInfo {
            base: Offset(i64::from_be_bytes(take(&mut rest)?)),
            last: Offset(i64::from_be_bytes(take(&mut rest)?)),
            bytes: u64::from_be_bytes(take(&mut rest)?),
            max_time_ms: i64::from_be_bytes(take(&mut rest)?),
        };
        if rest.len() != count.checked_mul(ENTRY_BYTES)? {
            return None;
        }
        let mut entries = Vec::with_capacity(count);
        while !rest.is_empty() {
            entries.push(Entry {
                offset_delta: u32::from_be_bytes(take(&mut rest)?),
                position: u32::from_be_bytes(take(&mut rest)?),
                time_before_ms: i64::from_be_bytes(take(&mut rest)?),
            });
        }
        Some((info, Index { base: info.base, interval_bytes, entries }))
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}
