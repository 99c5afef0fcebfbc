//! Ids, hostlists, idsets, durations and sizes: the words that every plane shares; and memory that is used again. Pure.

mod bytesize;
mod fsd;
mod hostlist;
mod idset;
mod jobid;
mod kept;
mod offset;
mod rank;
mod timestamp;

pub use bytesize::{BadByteSize, ByteSize};
pub use fsd::{BadFsd, Fsd};
pub use hostlist::{BadHostlist, HOSTS_MAX, Hostlist};
pub use idset::{BadIdSet, IdSet};
pub use jobid::{BadJobId, JobId, JobIds};
pub use kept::Kept;
pub use offset::Offset;
pub use rank::Rank;
pub use timestamp::Timestamp;
