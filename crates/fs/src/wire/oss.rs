//! What clients and the MDS ask an OSS about the objects of one OST.

use serde::{Deserialize, Serialize};

use crate::core::{Errno, ObjectId, OstIndex, SessionId};
use crate::wire::mgs::FsId;

/// Objects in one request.
pub const OBJECTS_MAX: usize = 4096;

/// A request; every one may be repeated, and then does what it did or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Of which filesystem.
    pub fs: String,
    /// Which one of that name; see [`crate::wire::mds::Request::id`].
    pub id: FsId,
    /// At which OST; a server that does not serve it answers `ENODEV`.
    pub ost: OstIndex,
    /// Who asks. A session that was evicted is answered `ESTALE`, so that its late writes do no harm.
    pub session: SessionId,
    /// What is asked.
    pub op: Op,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Speaks this version of the messages? Answered by [`Reply::Done`], or `EPROTO`.
    Hello {
        /// [`crate::wire::VERSION`]
        version: u32,
    },
    /// Bytes of an object: [`Reply::Data`] with the bulk. Shorter at the object's end; holes are zeros.
    Read {
        /// Which object; one that was never written is empty.
        object: ObjectId,
        /// From where.
        offset: u64,
        /// At most this many bytes.
        len: u32,
    },
    /// Writes the bulk; the object is made if it is not there. Answered when the bytes are with the kernel.
    Write {
        /// Which object.
        object: ObjectId,
        /// To where.
        offset: u64,
        /// CRC32C of the bulk; bytes that arrive otherwise are refused with `EIO` and may be sent again. None where they do not travel: they lie
        /// in memory that the client has lent.
        crc: Option<u32>,
        /// Answer only when they are on the disk (`O_SYNC`, `O_DSYNC`).
        sync: bool,
    },
    /// Cuts an object to a length.
    Truncate {
        /// Which object.
        object: ObjectId,
        /// To which length; one that is shorter stays.
        len: u64,
    },
    /// Makes a hole: the bytes read as zeros and cost nothing.
    Punch {
        /// Which object.
        object: ObjectId,
        /// From where.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// Sets space aside; bytes that were not written read as zeros. The object's length grows to cover them; the file's is
    /// what the MDT says.
    Allocate {
        /// Which object.
        object: ObjectId,
        /// From where.
        offset: u64,
        /// How many bytes.
        len: u64,
    },
    /// The next data or hole from an offset in an object: [`Reply::Offset`], or `ENXIO` behind the end (lseek).
    Seek {
        /// Which object.
        object: ObjectId,
        /// From where.
        offset: u64,
        /// The next hole, not the next data.
        hole: bool,
    },
    /// Makes objects durable, and that they are not there where they are not.
    Sync {
        /// Which; at most [`OBJECTS_MAX`].
        objects: Vec<ObjectId>,
    },
    /// Lengths and space: [`Reply::Stats`] in the order of the question.
    Stat {
        /// Which; at most [`OBJECTS_MAX`].
        objects: Vec<ObjectId>,
    },
    /// Removes objects and gives their space back.
    Destroy {
        /// Which; at most [`OBJECTS_MAX`].
        objects: Vec<ObjectId>,
    },
    /// Space of the OST.
    Statfs,
    /// From the MDS: nothing of this session is served any more, durably; what was begun is over when this is answered.
    Fence {
        /// Which session.
        session: SessionId,
    },
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The bulk has the bytes.
    Data {
        /// CRC32C of the bulk; none where it lies in memory that the client has lent.
        crc: Option<u32>,
    },
    /// To `Seek`.
    Offset(u64),
    /// To `Stat`.
    Stats(Vec<ObjectStat>),
    /// To `Statfs`.
    Space(Space),
    /// It is refused.
    Refused(Errno),
}

/// Length and space of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStat {
    /// Length in bytes.
    pub len: u64,
    /// Space in units of 512 bytes.
    pub blocks: u64,
}

/// Space of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// All of it, in bytes.
    pub total_bytes: u64,
    /// What is free for anybody, in bytes.
    pub free_bytes: u64,
    /// What is free without the reserve, in bytes.
    pub available_bytes: u64,
    /// Objects that could be, those that are included.
    pub inodes: u64,
    /// Objects that could still be made.
    pub free_inodes: u64,
}
