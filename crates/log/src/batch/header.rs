//! The 61-byte header of a batch.

use std::fmt;

use kiln_types::Offset;

use super::BadBatch;

/// Size of the header in bytes; the records follow.
pub const HEADER_BYTES: usize = 61;
/// Base offset and length field: what the length field does not count.
const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the checksummed part begins (the attributes).
const CHECKED_FROM: usize = 21;

/// The compression of a batch's records (attribute bits 0 to 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// Not compressed.
    None,
    /// gzip.
    Gzip,
    /// Snappy, in Kafka's framing.
    Snappy,
    /// LZ4 frame.
    Lz4,
    /// Zstandard.
    Zstd,
    /// A number that the format does not define.
    Unknown(u8),
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Codec::None => f.write_str("none"),
            Codec::Gzip => f.write_str("gzip"),
            Codec::Snappy => f.write_str("snappy"),
            Codec::Lz4 => f.write_str("lz4"),
            Codec::Zstd => f.write_str("zstd"),
            Codec::Unknown(number) => write!(f, "codec {number}"),
        }
    }
}

/// The header's fields. Numbers are big-endian on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record.
    pub base: Offset,
    /// Size of the whole batch in bytes, this header and the length field included.
    pub bytes: usize,
    /// Epoch of the leader that appended it; -1 when unknown.
    pub leader_epoch: i32,
    /// CRC-32C over everything from the attributes on.
    pub crc: u32,
    /// Codec (bits 0-2), timestamp type (3), transactional (4), control (5).
    pub attributes: i16,
    /// Offset of the last record less `base`.
    pub last_offset_delta: i32,
    /// Timestamp that the records' deltas count from, in milliseconds since the epoch.
    pub base_time_ms: i64,
    /// The highest timestamp, in milliseconds since the epoch.
    pub max_time_ms: i64,
    /// Idempotent producer; -1 for none.
    pub producer_id: i64,
    /// Epoch of that producer.
    pub producer_epoch: i16,
    /// Sequence number of the first record; -1 for none.
    pub base_sequence: i32,
    /// Number of records.
    pub records: i32,
}

impl Header {
    /// Reads the header at the front of `bytes`; the records need not be there. Does not check the checksum.
    pub fn parse(bytes: &[u8]) -> Result<Header, BadBatch> {
        let short = BadBatch::Short { have: bytes.len(), need: HEADER_BYTES };
        let fixed: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(short)?;
        let length = i32::from_be_bytes(field(fixed, 8));
        if length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(BadBatch::Length(length));
        }
        let magic = i8::from_be_bytes(field(fixed, 16));
        if magic != 2 {
            return Err(BadBatch::Magic(magic));
        }
        Ok(Header {
            base: Offset(i64::from_be_bytes(field(fixed, 0))),
            bytes: length as usize + LENGTH_PREFIX_BYTES,
            leader_epoch: i32::from_be_bytes(field(fixed, 12)),
            crc: u32::from_be_bytes(field(fixed, 17)),
            attributes: i16::from_be_bytes(field(fixed, 21)),
            last_offset_delta: i32::from_be_bytes(field(fixed, 23)),
            base_time_ms: i64::from_be_bytes(field(fixed, 27)),
            max_time_ms: i64::from_be_bytes(field(fixed, 35)),
            producer_id: i64::from_be_bytes(field(fixed, 43)),
            producer_epoch: i16::from_be_bytes(field(fixed, 51)),
            base_sequence: i32::from_be_bytes(field(fixed, 53)),
            records: i32::from_be_bytes(field(fixed, 57)),
        })
    }

    /// The header as it lies on disk.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let length = (self.bytes - LENGTH_PREFIX_BYTES) as i32;
        out[0..8].copy_from_slice(&self.base.0.to_be_bytes());
        out[8..12].copy_from_slice(&length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.to_be_bytes());
        out[16] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_time_ms.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_time_ms.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.records.to_be_bytes());
        out
    }

    /// Offset of the last record.
    pub fn last(&self) -> Offset {
        Offset(self.base.0.saturating_add(i64::from(self.last_offset_delta)))
    }

    /// How the records are compressed.
    pub fn codec(&self) -> Codec {
        match self.attributes & 0b111 {
            0 => Codec::None,
            1 => Codec::Gzip,
            2 => Codec::Snappy,
            3 => Codec::Lz4,
            4 => Codec::Zstd,
            other => Codec::Unknown(other as u8),
        }
    }

    /// Whether all records carry the broker's time of appending, which is then `max_time_ms`.
    pub fn is_append_time(&self) -> bool {
        self.attributes & 0b1000 != 0
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & 0b1_0000 != 0
    }

    /// Whether the batch holds a transaction marker instead of data.
    pub fn is_control(&self) -> bool {
        self.attributes & 0b10_0000 != 0
    }
}

/// Copies the `N` bytes at `at`, a constant of the layout above.
fn field<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&header[at..at + N]);
    out
}

/// Checks the batch at the front of `bytes` whole: length, magic, record count and CRC-32C.
pub fn verify(bytes: &[u8]) -> Result<Header, BadBatch> {
    let header = Header::parse(bytes)?;
    let batch = bytes.get(..header.bytes).ok_or(BadBatch::Short { have: bytes.len(), need: header.bytes })?;
    // A compacted batch has fewer records than offsets, a produced one as many.
    if header.records < 1 || header.last_offset_delta < header.records - 1 || header.base.0 < 0 {
        return Err(BadBatch::Count { records: header.records, last_delta: header.last_offset_delta });
    }
    let computed = checksum(batch);
    if computed == header.crc { Ok(header) } else { Err(BadBatch::Checksum { stored: header.crc, computed }) }
}

/// CRC-32C of a whole batch's checked part.
pub(super) fn checksum(batch: &[u8]) -> u32 {
    crc32c::crc32c(&batch[CHECKED_FROM..])
}

/// Gives the verified batches in `bytes` their offsets, from `base` on, and the leader epoch. Both lie outside the
/// checksum.
pub(crate) fn patch_all(bytes: &mut [u8], base: Offset, leader_epoch: i32) {
    let mut base = base;
    let mut rest = bytes;
    while let Ok(header) = Header::parse(rest) {
        let (batch, tail) = rest.split_at_mut(header.bytes);
        batch[0..8].copy_from_slice(&base.0.to_be_bytes());
        batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        base = Offset(base.0 + i64::from(header.last_offset_delta) + 1);
        rest = tail;
    }
}

/// The batches that lie back to back in `bytes`. Ends at the first that is cut short or has no sound header;
/// checksums are not computed (what [`crate::Log::read`] returns was already checked).
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = Header::parse(rest).ok()?;
        let (batch, tail) = rest.split_at_checked(header.bytes)?;
        rest = tail;
        Some((header, batch))
    })
}
