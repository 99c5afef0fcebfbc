//! The pool: objects over vdevs, with a checksum for every record and redundancy to mend what does not match.
//!
//! - [`parity`]: what RAIDZ computes of its columns, and the way back. Pure.
//! - [`core`]: what is decided without a disk. Pure.
//! - [`disk`]: a dataset as a disk of files.
//! - [`format`]: what is on the disks, byte by byte. Pure.
//! - [`pool`]: transaction groups of objects, committed to vdevs.
//! - [`vdev`]: records on disks: mirrors and RAIDZ, which mend what does not match.

pub mod core;
pub mod disk;
pub mod format;
pub mod parity;
pub mod pool;
pub mod vdev;
