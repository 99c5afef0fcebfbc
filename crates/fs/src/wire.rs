//! The messages between client, MDS, OSS and MGS: postcard bodies of Kiln's framed RPC (docs/formats/rpc.md), file data as
//! the bulk part. docs/formats/fs-wire.md describes them.
//!
//! A refusal that the caller's program sees is an [`Errno`](crate::core::Errno) inside of the reply; a fault of the RPC
//! means that the peer did not act, and that the caller may try again.

use serde::{Deserialize, Serialize};

pub mod mds;
pub mod mgs;
pub mod node;
pub mod oss;

/// Version of the messages; a peer with another one is refused when it says hello.
pub const VERSION: u32 = 2;
/// The most file data in one message, in bytes.
pub const DATA_BYTES_MAX: u32 = 4 << 20;
/// The longest name of a directory entry, in bytes (NAME_MAX).
pub const NAME_BYTES_MAX: usize = 255;
/// The longest id of a job, in bytes.
pub const JOB_BYTES_MAX: usize = 63;
/// The longest target of a symbolic link, in bytes (PATH_MAX less its NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// The longest extended attribute's value and list of names, in bytes (XATTR_SIZE_MAX, XATTR_LIST_MAX).
pub const XATTR_BYTES_MAX: usize = 64 << 10;

/// A request to the filesystem service of a node: one listener serves whatever targets the node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// To the MGS, which is on the leader.
    Mgs(mgs::Request),
    /// To an MDS.
    Mds(mds::Request),
    /// To an OSS.
    Oss(oss::Request),
    /// To the node itself.
    Node(node::Request),
}
