//! What clients and servers ask the MGS: which targets make up a filesystem, and where they are served.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::core::changelog::Entry;
use crate::core::target::snapshot_fs;
use crate::core::{OstIndex, Role};
use crate::wire::pool::Event;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Address {
    /// A unix socket on this machine.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

/// One OST of a filesystem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ost {
    /// Its index.
    pub index: OstIndex,
    /// Its uuid, `NAME-OST0000_UUID`.
    pub uuid: String,
    /// Rank of the node that serves it.
    pub rank: u32,
    /// Its server.
    pub address: Address,
    /// No new objects go there; what is there moves away.
    pub draining: bool,
}

/// A filesystem as the MGS knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FsConfig {
    /// Its name: 1 to 8 letters and digits, as Lustre's.
    pub name: String,
    /// Which one of that name.
    pub id: FsId,
    /// Goes up with every change; also from one filesystem of this name to the next.
    pub version: u64,
    /// Rank of the node that serves the MDT.
    pub mdt_rank: u32,
    /// The MDT's server.
    pub mdt: Address,
    /// The OSTs by index.
    pub osts: Vec<Ost>,
    /// Its snapshots, the oldest first.
    pub snapshots: Vec<Snapshot>,
}

/// A snapshot of a filesystem. It is served as a filesystem of its own, with the same id and on the same nodes, under
/// [`snapshot_fs`](crate::core::target::snapshot_fs).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its own name.
    pub name: String,
    /// The MGS's version that made it: another one when a name is used again.
    pub version: u64,
    /// How many OSTs the filesystem had: the first ones.
    pub osts: u16,
}

impl FsConfig {
    /// A snapshot, as a filesystem of its own.
    #[must_use]
    pub fn of_snapshot(&self, snapshot: &Snapshot) -> FsConfig {
        let osts = self.osts.iter().take(snapshot.osts.into());
        FsConfig {
            name: snapshot_fs(&self.name, &snapshot.name),
            version: snapshot.version,
            osts: osts.map(|ost| Ost { draining: false, ..ost.clone() }).collect(),
            snapshots: Vec::new(),
            ..self.clone()
        }
    }
}

/// Which filesystem a target belongs to, whatever its name: another one when a name is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FsId(pub u128);

/// A target as the node that has it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The filesystem's name.
    pub fs: String,
    /// The filesystem.
    pub id: FsId,
    /// What it is.
    pub role: Role,
    /// The directory that it has one of its own in; `None` is the node's usual place.
    pub dir: Option<PathBuf>,
}

/// A target that a node is to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The target.
    pub target: Target,
    /// It was served before: where nothing of it is found, its disk is missing, and it must not be begun anew.
    pub made: bool,
}

/// Everything that a node has to do with. [`Request::Made`] tells what it has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duty {
    /// The MGS's version of this.
    pub version: u64,
    /// What it serves.
    pub serve: Vec<Assignment>,
    /// The filesystems whose MDT is among that.
    pub configs: Vec<FsConfig>,
    /// What is of filesystems that were destroyed: it removes that, and says so with [`Request::Removed`].
    pub remove: Vec<Target>,
}

/// A question to the MGS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Every filesystem.
    List,
    /// One filesystem; answered when its version is above `newer_than`, or after a while with what it is.
    Get {
        /// Its name.
        name: String,
        /// The version that the asker has; 0 is answered at once.
        newer_than: u64,
    },
    /// From a node: what it has to do; answered when the version is above `newer_than`, or after a while with what it is.
    Duty {
        /// The node's rank.
        rank: u32,
        /// The version that it has; `None` is answered at once.
        newer_than: Option<u64>,
    },
    /// From a node: a target is on its disk.
    Made(Target),
    /// From a node: a target of a destroyed filesystem is gone from its disk.
    Removed(Target),
    /// From an MDS: records for the changelog of its filesystem, in their order; done when they are durable there.
    Changes {
        /// The filesystem.
        fs: String,
        /// The records.
        entries: Vec<Entry>,
    },
    /// From a node: what happened to its pools, for their topic; done when it is durable there.
    PoolEvents(Vec<Event>),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::List`].
    List(Vec<FsConfig>),
    /// To [`Request::Get`]; `None` when there is no such filesystem.
    Get(Option<FsConfig>),
    /// To [`Request::Duty`].
    Duty(Duty),
    /// It is done.
    Done,
    /// It could not be done now; ask again later.
    Failed(String),
}
