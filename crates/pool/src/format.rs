//! What is on the disks, byte by byte; `docs/formats/pool.md` has the tables. Numbers are big-endian.
//!
//! - [`Checksum`]: what a record is recognised by.
//! - [`Pointer`]: where a record lies and how it is recognised.

mod checksum;
mod pointer;

pub use checksum::{Checksum, ChecksumKind};
pub use pointer::{
    Compression, Kind, PLACES_MAX, POINTER_BYTES, Place, Pointer, PointerError, RECORD_BYTES_MAX, Txg, VdevId,
};
