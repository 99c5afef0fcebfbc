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
pub mod pool;

/// Version of the messages; a peer with another one is refused when it says hello.
pub const VERSION: u32 = 5;
/// The most file data in one message, in bytes.
pub const DATA_BYTES_MAX: u32 = 4 << 20;
/// The longest name of a directory entry, in bytes (`NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;
/// The longest id of a job, in bytes.
pub const JOB_BYTES_MAX: usize = 63;
/// The longest target of a symbolic link, in bytes (`PATH_MAX` less its NUL).
pub const SYMLINK_BYTES_MAX: usize = 4095;
/// The longest extended attribute's value and list of names, in bytes (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Errno, Ino, OstIndex, SessionId};
    use crate::wire::mds::{Callback, DataLease, Grant, Leases, Reply, Take};

    fn bytes<T: Serialize>(message: &T) -> Vec<u8> {
        postcard::to_stdvec(message).expect("it has no lengths that are not known")
    }

    #[test]
    fn golden_bytes() {
        let ping =
            mds::Request { fs: "s".into(), id: mgs::FsId(6), session: SessionId(1), op: mds::Op::Ping };
        assert_eq!(bytes(&Request::Mds(ping)), [1, 1, b's', 6, 1, 4]);
        let statfs = oss::Request {
            fs: "s".into(),
            id: mgs::FsId(6),
            ost: OstIndex(3),
            session: SessionId(0),
            op: oss::Op::Statfs,
        };
        assert_eq!(bytes(&Request::Oss(statfs)), [2, 1, b's', 6, 3, 0, 10]);
        let leases = Leases { meta: true, names: false, data: DataLease::Write };
        let reply = Reply {
            outcome: Err(Errno::ENOENT),
            grants: vec![Grant { ino: Ino(300), leases }],
            seq: 128,
            dirs: vec![],
            room: None,
        };
        assert_eq!(bytes(&reply), [1, 4, 1, 0xac, 2, 1, 0, 3, 0x80, 1, 0, 0]);
        let callback = Callback { seq: 5, ino: Ino::ROOT, take: Take::Name(b"n".to_vec()) };
        assert_eq!(bytes(&callback), [5, 1, 1, 1, b'n']);
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        for bad in [&[][..], &[9], &[1, 200, b's'], &[1, 1, b's', 6, 1, 99]] {
            assert!(postcard::from_bytes::<Request>(bad).is_err(), "{bad:?}");
        }
    }
}
