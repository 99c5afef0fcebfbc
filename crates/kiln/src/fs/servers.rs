//! How a target's server is opened, and closed: the only place that knows how each kind is built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_config::Config;
use kiln_fs::core::target::label;
use kiln_fs::core::{Errno, Role};
use kiln_fs::wire::mgs::{Assignment, FsConfig, Target};
use kiln_fs::wire::node::ClientStatus;
use kiln_fs::wire::oss::Space;
use kiln_fs::wire::{mds, oss};
use kiln_net::Fault;
use kiln_net::blocking::{Call, ConnId, Replies};

use super::ground::{self, GroundError, Lock};
use crate::paths::DataDir;

/// What all targets of a node have in common.
pub(super) struct Setup {
    /// Where the instance's data lies.
    pub data: DataDir,
    /// The settings in force.
    pub config: Config,
}

/// The server of a target.
pub(super) enum Server {
    /// Of an MDT.
    Mdt(Arc<Mds>),
    /// Of an OST.
    Ost(Arc<Oss>),
}

pub(super) struct Mds(Lock);
pub(super) struct Oss(Lock);

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

impl Oss {
    pub(super) fn handle(
        &self,
        _request: oss::Request,
        _call: &Call,
        replies: &mut Replies,
    ) -> Result<(), Fault> {
        replies.last(&oss::Reply::Refused(Errno::ENODEV), &[])
    }
}

impl Setup {
    /// Where a target lies: in the instance's data, or in a directory of its own in the one that the administrator chose.
    pub(super) fn dir(&self, target: &Target) -> PathBuf {
        match &target.dir {
            Some(dir) => dir.join(label(&target.fs, target.role)),
            None => self.data.filesystems().join(&target.fs).join(target.role.to_string()),
        }
    }

    /// Opens a target, making it if it was never there, and serves it. The reason of a failure is for a person.
    pub(super) fn open(
        &self,
        assignment: &Assignment,
        dir: &Path,
        _config: Option<&FsConfig>,
    ) -> Result<Server, String> {
        let lock = ground::take(dir, assignment.made).map_err(|error| error.to_string())?;
        Ok(match assignment.target.role {
            Role::Mdt(_) => Server::Mdt(Arc::new(Mds(lock))),
            Role::Ost(_) => Server::Ost(Arc::new(Oss(lock))),
        })
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
    pub(super) fn space(&self) -> Option<Space> {
        None
    }
    pub(super) fn clients(&self) -> Vec<ClientStatus> {
        Vec::new()
    }
    pub(super) fn closed(&self, _conn: ConnId) {}
    pub(super) fn stop(self) {}
}
