//! Connections to the OSTs.

use std::sync::Arc;

use crate::core::SessionId;
use crate::wire::mgs::FsConfig;

/// The OSTs of a filesystem and the connections to them.
pub struct Osts;

impl Osts {
    /// As `config` says; connects when something is asked.
    pub fn new(_config: &FsConfig, _session: SessionId) -> Arc<Osts> {
        Arc::new(Osts)
    }

    /// The configuration has changed: OSTs that moved are asked at their new address, also by calls that wait.
    pub fn replace(&self, _config: &FsConfig) {}

    /// The mount has a new session, after the old one was evicted.
    pub fn renew(&self, _session: SessionId) {}
}
