//! How a target's server is opened, and closed: the only place that knows how each kind is built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_config::Config;
use kiln_fs::core::target::label;
use kiln_fs::core::{Errno, OstIndex, Role, SessionId};
use kiln_fs::oss::{Label, Oss, Ost, TargetError};
use kiln_fs::wire::mds;
use kiln_fs::wire::mgs::{Assignment, FsConfig, Target};
use kiln_fs::wire::node::ClientStatus;
use kiln_fs::wire::oss::{Op, Reply, Request, Space};
use kiln_net::Fault;
use kiln_net::blocking::{Call, ConnId, Replies};

use super::ground::{self, GroundError, Lock};
use crate::paths::DataDir;

/// For questions of the node's own.
const NOBODY: SessionId = SessionId(0);

/// What all targets of a node have in common.
pub(super) struct Setup {
    /// Where the instance's data lies.
    pub data: DataDir,
    /// The settings in force.
    pub config: Config,
    /// The OSTs of this node.
    pub oss: Arc<Oss>,
}

/// A target that is served.
pub(super) enum Server {
    /// An MDT, by its MDS.
    Mdt(Arc<Mds>),
    /// An OST, by the node's OSS.
    Ost {
        /// The OSS.
        oss: Arc<Oss>,
        /// The filesystem.
        fs: String,
        /// The OST's index in it.
        index: OstIndex,
    },
}

pub(super) struct Mds(Lock);

impl Mds {
    pub(super) fn handle(
        &self,
        _request: mds::Request,
        _call: &Call,
        replies: &mut Replies,
    ) -> Result<(), Fault> {
        replies.last(&mds::Reply { outcome: Err(Errno::ENODEV), grants: Vec::new(), seq: 0 }, &[])
    }
    pub(super) fn configure(&self, _config: &FsConfig) {}
}

/// Why a target is not served; the text is for its administrator.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The OST in it cannot.
    #[error(transparent)]
    Ost(#[from] TargetError),
}

impl Setup {
    /// Where a target lies: in the instance's data, or in a directory of its own in the one that the administrator chose.
    pub(super) fn dir(&self, target: &Target) -> PathBuf {
        match &target.dir {
            Some(dir) => dir.join(label(&target.fs, target.role)),
            None => self.data.filesystems().join(&target.fs).join(target.role.to_string()),
        }
    }

    /// Opens a target, making it if it was never there, and serves it.
    pub(super) fn open(
        &self,
        assignment: &Assignment,
        dir: &Path,
        _config: Option<&FsConfig>,
    ) -> Result<Server, OpenError> {
        let Assignment { target, made } = assignment;
        match target.role {
            Role::Mdt(_) => {
                let lock = ground::take(dir, *made)?;
                Ok(Server::Mdt(Arc::new(Mds(lock))))
            }
            Role::Ost(index) => {
                let label = Label { id: target.id.0, fs: target.fs.clone(), index };
                if !made {
                    ground::make(dir)?;
                    Ost::format(dir, &label)?;
                }
                self.oss.add(Ost::open(dir, &label)?);
                Ok(Server::Ost { oss: Arc::clone(&self.oss), fs: label.fs, index })
            }
        }
    }

    /// Removes what a target that is not served has on the disk.
    pub(super) fn remove(&self, target: &Target, dir: &Path) -> Result<(), GroundError> {
        ground::remove(dir)?;
        if target.dir.is_none() {
            // The last of a filesystem takes its directory along.
            let _ = std::fs::remove_dir(self.data.filesystems().join(&target.fs));
        }
        Ok(())
    }
}

impl Server {
    /// Its space, as far as it tells.
    pub(super) fn space(&self) -> Option<Space> {
        match self {
            Server::Mdt(_) => None,
            Server::Ost { oss, fs, index } => {
                let request = Request { fs: fs.clone(), ost: *index, session: NOBODY, op: Op::Statfs };
                match oss.answer(&request, &[]).reply() {
                    Reply::Space(space) => Some(*space),
                    _ => None,
                }
            }
        }
    }

    pub(super) fn clients(&self) -> Vec<ClientStatus> {
        Vec::new()
    }

    /// Ends when nothing of it is under way any more.
    pub(super) fn stop(self) {
        match self {
            Server::Mdt(_) => {}
            Server::Ost { oss, fs, index } => {
                oss.remove(&fs, index);
            }
        }
    }

    pub(super) fn closed(&self, _conn: ConnId) {}
}
