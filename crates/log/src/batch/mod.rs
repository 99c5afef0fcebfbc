//! Record batch version 2: the unit that is stored, sent and checked.
//!
//! The layout is Kafka's (Kafka protocol guide, "Record Batch"), so a produced batch goes to the file as it came
//! and from the file to a consumer as it lies there. Base offset and leader epoch lie outside the checksum: they are
//! patched in place. See docs/formats/log.md.

mod builder;
mod header;
mod records;
mod varint;

pub use self::builder::{Builder, Record};
pub(crate) use self::header::patch_all;
pub use self::header::{Codec, HEADER_BYTES, Header, batches, verify};
pub use self::records::{Headers, RecordRef, Records, records};

/// Why bytes are not a sound record batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBatch {
    /// Fewer bytes than the header or the length field ask for.
    #[error("batch ends early: {have} of {need} bytes")]
    Short {
        /// Bytes that are there.
        have: usize,
        /// Bytes that the batch claims.
        need: usize,
    },
    /// The length field is below the header's own size, or negative.
    #[error("batch length field is {0}, which is impossible")]
    Length(i32),
    /// Not version 2 of the format.
    #[error("batch has magic {0}, only 2 is understood")]
    Magic(i8),
    /// The content does not match its CRC-32C.
    #[error("batch checksum is {stored:#010x}, its content gives {computed:#010x}")]
    Checksum {
        /// As the header says.
        stored: u32,
        /// As the bytes say.
        computed: u32,
    },
    /// Record count and last offset delta contradict each other, or there is no record.
    #[error("batch says {records} records with last offset delta {last_delta}")]
    Count {
        /// The header's record count.
        records: i32,
        /// The header's last offset delta.
        last_delta: i32,
    },
    /// A record inside does not follow the format.
    #[error("record {index} of the batch is malformed")]
    Record {
        /// Which one, from 0.
        index: i32,
    },
    /// The records are compressed, so single ones cannot be read here.
    #[error("records are compressed with {0}")]
    Compressed(Codec),
}

#[cfg(test)]
mod tests;
