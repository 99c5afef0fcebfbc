//! How a target's server is opened, and closed: the only place that knows how each kind is built.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_config::Config;
use kiln_fs::core::{Errno, Role};
use kiln_fs::wire::mgs::{FsConfig, Target};
use kiln_fs::wire::node::ClientStatus;
use kiln_fs::wire::oss::Space;
use kiln_fs::wire::{mds, oss};
use kiln_net::Fault;
use kiln_net::blocking::{Call, ConnId, Replies};

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

pub(super) struct Mds;
pub(super) struct Oss;

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
    /// Where a target lies.
    pub(super) fn dir(&self, target: &Target) -> PathBuf {
        let usual = || self.data.root().join("fs").join(&target.fs).join(target.role.to_string());
        target.dir.clone().unwrap_or_else(usual)
    }

    /// Opens a target, making it if it is not there, and serves it. The reason of a failure is for a person.
    pub(super) fn open(
        &self,
        target: &Target,
        dir: &Path,
        _config: Option<&FsConfig>,
    ) -> Result<Server, String> {
        std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        Ok(match target.role {
            Role::Mdt(_) => Server::Mdt(Arc::new(Mds)),
            Role::Ost(_) => Server::Ost(Arc::new(Oss)),
        })
    }

    /// Removes what a target that is not served has on the disk.
    pub(super) fn remove(&self, target: &Target, dir: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                std::fs::remove_dir_all(entry.path())?;
            } else {
                std::fs::remove_file(entry.path())?;
            }
        }
        if target.dir.is_none() {
            std::fs::remove_dir(dir)?;
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
