//! Filesystems, as the API tells of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// One filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Filesystem {
    /// Its name.
    pub name: String,
    /// `ok`, or `degraded` while a target is not served.
    pub state: String,
    /// When it was made, in milliseconds since the epoch.
    pub created: i64,
    /// Its targets, the MDT first.
    pub targets: Vec<Target>,
    /// Who has it mounted.
    pub clients: Vec<Client>,
}

impl Filesystem {
    /// [`Filesystem::state`] while every target is served.
    pub(crate) const OK: &'static str = "ok";
    /// [`Filesystem::state`] otherwise.
    pub(crate) const DEGRADED: &'static str = "degraded";
}

/// One target of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Its label, `scratch-OST0000`.
    pub label: String,
    /// `mdt` or `ost`.
    pub kind: String,
    /// Its index among those of its kind.
    pub index: u16,
    /// The node that serves it.
    pub node: String,
    /// That node's rank.
    pub rank: u32,
    /// Its directory there, while the node answers.
    pub dir: Option<String>,
    /// `serving`, `starting`, `failed`, or `unreachable` while its node does not answer.
    pub state: String,
    /// Why it is not served, and what to do.
    pub reason: Option<String>,
    /// It gets no new objects, and those that are there move away.
    pub draining: bool,
    /// How far that is, while the MDT tells.
    pub drain: Option<Drain>,
    /// Its space in bytes, while it is served.
    pub space: Option<Space>,
    /// Requests that it was sent since its start.
    pub requests: u64,
    /// Sessions that it evicted since its start, if it is the MDT.
    pub evictions: u64,
}

impl Target {
    /// [`Target::state`] of one that answers.
    pub(crate) const SERVING: &'static str = "serving";
    /// [`Target::state`] of one that is read and brought up to date.
    pub(crate) const STARTING: &'static str = "starting";
    /// [`Target::state`] of one that cannot be served.
    pub(crate) const FAILED: &'static str = "failed";
    /// [`Target::state`] of one whose node does not answer.
    pub(crate) const UNREACHABLE: &'static str = "unreachable";
}

/// How far an OST is that drains, since the MDT was started or it began to drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Drain {
    /// `counting`, `moving`, or `drained` when it holds no objects any more.
    pub state: String,
    /// Files that have objects there.
    pub left_files: u64,
    /// The most that these hold, in bytes.
    pub left_bytes: u64,
    /// Files that were moved.
    pub moved_files: u64,
    /// The bytes that were written elsewhere for them; holes count for nothing.
    pub moved_bytes: u64,
    /// Files that could not be moved when it was tried last; they are tried again.
    pub kept_files: u64,
    /// Some of them.
    pub kept: Vec<KeptFile>,
    /// For how many seconds nothing was moved.
    pub still_seconds: u64,
}

impl Drain {
    /// [`Drain::state`] until what is there was counted.
    pub(crate) const COUNTING: &'static str = "counting";
    /// [`Drain::state`] while something is there.
    pub(crate) const MOVING: &'static str = "moving";
    /// [`Drain::state`] of one that is empty.
    pub(crate) const DRAINED: &'static str = "drained";
}

/// A file that stays on an OST that drains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptFile {
    /// Its path from the root of the filesystem, without a leading slash; its id where it has none.
    pub path: String,
    /// Why it stays.
    pub reason: String,
}

/// The space of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Space {
    /// All of it, in bytes.
    pub total: u64,
    /// What is used, in bytes.
    pub used: u64,
    /// What may still be written, in bytes.
    pub available: u64,
    /// Inodes that are used: files of an MDT, and on the disk of an OST whatever is there.
    pub inodes_used: u64,
    /// How many more could be made.
    pub inodes_free: u64,
}

/// A snapshot of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Its name, `scratch@noon`.
    pub name: String,
    /// When it was made, in milliseconds since the epoch.
    pub created: i64,
    /// What is free again when it is destroyed, in bytes, while its nodes tell.
    pub used: Option<u64>,
    /// Why it cannot be read, where that was tried and failed.
    #[serde(default)]
    pub failure: Option<String>,
}

/// `POST /api/fs/NAME/snapshots`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSnapshot {
    /// Its own name.
    pub name: String,
}

/// What a job did to a filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobStats {
    /// Its id, or the process's name and user where there is none.
    pub job_id: String,
    /// When it was first heard of, in milliseconds since the epoch.
    pub start_time: i64,
    /// When it was last heard of.
    pub snapshot_time: i64,
    /// What it did, by the name of the operation; what it did not do is not here.
    pub operations: BTreeMap<String, JobCounter>,
}

/// How often a job did something.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobCounter {
    /// How often.
    pub samples: u64,
    /// Of reads and writes: the smallest, in bytes.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// All bytes.
    pub sum: u64,
}

/// A client that has a filesystem mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Client {
    /// Its host.
    pub host: String,
    /// Its session, in hexadecimal.
    pub session: String,
}

/// Where a target shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Place {
    /// A node: its host name or its rank.
    pub node: String,
    /// A directory there; the node's usual place when none is given.
    #[serde(default)]
    pub dir: Option<String>,
}

/// `POST /api/fs`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewFilesystem {
    /// Its name.
    pub name: String,
    /// Where its MDT is; on the first node when nothing is said.
    #[serde(default)]
    pub mdt: Option<Place>,
    /// Where its OSTs are; one on each node, and at least two, when nothing is said.
    #[serde(default)]
    pub osts: Vec<Place>,
}

/// `PUT /api/fs/NAME/osts/INDEX`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangedOst {
    /// Whether new objects are kept from it.
    pub draining: bool,
}
