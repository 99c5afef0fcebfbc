//! What is decided without a disk.
//!
//! - [`allocator`]: where records may go.
//! - [`group`]: what a transaction group changes.
//! - [`raidz`]: where the columns of a record lie on the disks of a RAIDZ vdev.
//! - [`ranges`]: sets of transaction groups, such as those that a disk has missed.
//! - [`space`]: which sectors are taken.
//! - [`tree`]: a B+tree that is copied where it changes.

pub mod allocator;
pub mod group;
pub mod raidz;
pub mod ranges;
pub mod space;
pub mod tree;
