//! Ids, hostlists, idsets, durations and sizes: the words that every plane shares. Pure.

mod offset;
mod rank;
mod timestamp;

pub use offset::Offset;
pub use rank::Rank;
pub use timestamp::Timestamp;
