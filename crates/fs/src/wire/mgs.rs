//! What clients and servers ask the MGS: which targets make up a filesystem, and where they are served.

use serde::{Deserialize, Serialize};

use crate::core::OstIndex;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Address {
    /// A unix socket on this machine.
    Unix(std::path::PathBuf),
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
    /// Goes up with every change.
    pub version: u64,
    /// Rank of the node that serves the MDT.
    pub mdt_rank: u32,
    /// The MDT's server.
    pub mdt: Address,
    /// The OSTs by index.
    pub osts: Vec<Ost>,
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
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// To [`Request::List`].
    List(Vec<FsConfig>),
    /// To [`Request::Get`]; `None` when there is no such filesystem.
    Get(Option<FsConfig>),
}
