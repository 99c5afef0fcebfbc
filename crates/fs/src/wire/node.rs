//! What the leader asks each node about its targets, for those who look after them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::core::jobs::JobStats;
use crate::core::{ObjectId, OstIndex, Role, SessionId};
use crate::wire::mgs::{FsId, Target};
use crate::wire::oss::Space;

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Its targets, and how they are: [`Reply::Targets`].
    Targets,
    /// What jobs did to the filesystem of this name, whose MDT is on the node: [`Reply::Jobs`].
    Jobs(String),
    /// Which files of a filesystem, whose MDT is on the node, have these objects: [`Reply::Owners`].
    Owners {
        /// The filesystem.
        fs: String,
        /// On which OST.
        ost: OstIndex,
        /// Which objects.
        objects: Vec<ObjectId>,
    },
    /// A step of making or using a snapshot: [`Reply::Snapshot`].
    Snapshot {
        /// What is to be done.
        step: SnapshotStep,
        /// The snapshot's own name.
        snapshot: String,
        /// The targets of its filesystem that are on the node.
        targets: Vec<Target>,
    },
    /// Something about its pools: [`Reply::Pool`]. The request is JSON, since its form is that of the API.
    Pool(String),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// In the order in which the MGS gave them.
    Targets(Vec<TargetStatus>),
    /// Those that did most first; `None` when the MDT is not served here.
    Jobs(Option<Vec<JobStats>>),
    /// Objects with the paths of the files that have them; `None` when the MDT is not served here, or cannot tell.
    Owners(Option<Vec<(ObjectId, String)>>),
    /// The answer about pools, as JSON.
    Pool(String),
    /// What was told of a snapshot, or why something could not be done.
    Snapshot(Result<u64, String>),
}

/// What a node does for a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotStep {
    /// The MDS stands still; at most for a while.
    Freeze,
    /// The targets are kept as they are, those of a pool at the same moment.
    Take,
    /// The MDS goes on; fails when it did already.
    Thaw,
    /// What was kept is not needed.
    Drop,
    /// The targets, which are not served, are made what they were.
    RollBack,
    /// How much only the snapshot has, in bytes.
    Measure,
}

/// A target on its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// The filesystem's name.
    pub fs: String,
    /// The filesystem.
    pub id: FsId,
    /// What it is.
    pub role: Role,
    /// Its directory.
    pub dir: PathBuf,
    /// What it does.
    pub state: TargetState,
    /// Its space, when it is served.
    pub space: Option<Space>,
    /// Clients that have a session, when it is an MDT that is served.
    pub clients: Vec<ClientStatus>,
    /// Requests that it was sent since its start, when it is served.
    pub requests: u64,
    /// Sessions that it evicted since its start, when it is an MDT that is served.
    pub evictions: u64,
    /// The version of the filesystem that its server was told last, when it is an MDT that is served.
    pub config_version: u64,
    /// How far OSTs are that drain, when it is an MDT that is served.
    pub drains: Vec<DrainStatus>,
}

/// How far an OST is that drains, since its MDT's server began with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// The OST.
    pub ost: OstIndex,
    /// What is left was counted; until then it is not known.
    pub counted: bool,
    /// Files with objects there.
    pub left_files: u64,
    /// The most that these hold, in bytes.
    pub left_bytes: u64,
    /// Files that were moved.
    pub moved_files: u64,
    /// The bytes that were written elsewhere for them; holes count for nothing.
    pub moved_bytes: u64,
    /// Nothing is left there: neither a file's objects nor such as nobody needs any more.
    pub drained: bool,
    /// Files that could not be moved when it was tried last, and are tried again.
    pub kept_files: u64,
    /// Some of these.
    pub kept: Vec<Kept>,
    /// For how many seconds nothing was moved.
    pub still_secs: u64,
}

impl DrainStatus {
    /// One that was not looked at yet.
    pub fn new(ost: OstIndex) -> DrainStatus {
        DrainStatus {
            ost,
            counted: false,
            left_files: 0,
            left_bytes: 0,
            moved_files: 0,
            moved_bytes: 0,
            drained: false,
            kept_files: 0,
            kept: Vec::new(),
            still_secs: 0,
        }
    }
}

/// A file that stays on an OST that drains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its path from the root of the filesystem, without a leading slash; its id where it has none.
    pub path: String,
    /// Why.
    pub why: String,
}

/// What a target does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetState {
    /// It is read and brought up to date.
    Starting,
    /// It answers.
    Serving,
    /// It cannot be served; the node goes on trying.
    Failed(String),
    /// Its filesystem was destroyed, and its directory is being emptied.
    Removing,
}

/// A client with a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientStatus {
    /// Its host, as it said.
    pub host: String,
    /// Its session.
    pub session: SessionId,
}
