//! What the leader asks each node about its targets, for those who look after them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::core::jobs::JobStats;
use crate::core::{Role, SessionId};
use crate::wire::mgs::FsId;
use crate::wire::oss::Space;

/// A question to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Its targets, and how they are: [`Reply::Targets`].
    Targets,
    /// What jobs did to the filesystem of this name, whose MDT is on the node: [`Reply::Jobs`].
    Jobs(String),
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// In the order in which the MGS gave them.
    Targets(Vec<TargetStatus>),
    /// Those that did most first; `None` when the MDT is not served here.
    Jobs(Option<Vec<JobStats>>),
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
