//! Segmented, checksummed append log with group commit, indexes, retention and recovery.
//!
//! A [`Volume`] is all logs of one disk and the one thread that flushes them. [`Log::append`] writes record batches
//! to the page cache and returns their offsets; [`Log::durable`] resolves once they are on the disk. One flush round
//! serves every waiter of every log. The files are described in docs/formats/log.md.
//!
//! **Invariant:** `start <= durable <= end` for every log; what is below `durable` survives kill -9 and power loss,
//! and recovery never cuts it.

pub mod batch;
mod error;
mod index;
mod log;
mod meta;
mod pace;
mod read;
mod recover;
mod retain;
mod segment;
mod volume;
mod waiters;

pub use error::{AppendError, ChangeError, Failed, OpenError, ReadError};
pub use log::{Appended, Log, Settings, Watermarks};
pub use read::Upto;
pub use segment::SegmentInfo;
pub use volume::Volume;
pub use waiters::Durable;
