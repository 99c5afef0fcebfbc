//! The targets of this node: which are served, which are not and why.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use kiln_fs::core::Role;
use kiln_fs::core::target::label;
use kiln_fs::mds::Mds;
use kiln_fs::oss::Oss;
use kiln_fs::wire::mgs::{Assignment, Duty, FsConfig, Target};
use kiln_fs::wire::node::{TargetState, TargetStatus};

use super::servers::{Server, Setup};

/// The targets, as the MGS wants them and as they are.
pub(super) struct Targets {
    setup: Setup,
    entries: RwLock<Vec<Entry>>,
}

/// One target.
struct Entry {
    target: Target,
    dir: PathBuf,
    condition: Condition,
}

enum Condition {
    Starting,
    Serving(Server),
    Failed(String),
    Removing,
}

impl Targets {
    pub(super) fn new(setup: Setup) -> Targets {
        Targets { setup, entries: RwLock::default() }
    }

    /// Serves what `duty` names, and nothing else; what failed before is tried again. Returns what the MGS does not know to be
    /// on the disk yet.
    pub(super) fn follow(&self, duty: &Duty) -> Vec<Target> {
        self.drop_all_but(&duty.serve);
        let (osts, mdts): (Vec<_>, Vec<_>) =
            duty.serve.iter().partition(|assignment| matches!(assignment.target.role, Role::Ost(_)));
        // An MDT that starts may have things to do at its OSTs.
        for assignment in osts.into_iter().chain(mdts) {
            if self.begin(&assignment.target) {
                self.start(assignment, duty);
            }
        }
        for config in &duty.configs {
            self.configure(config);
        }
        self.newly_made(&duty.serve)
    }

    /// Tells the MDS of a filesystem, if it is served here, what it is made of now.
    fn configure(&self, config: &FsConfig) {
        let Some(mds) = self.mds(&config.name) else { return };
        mds.set_osts(&config.osts);
        for entry in self.read().iter().filter(|entry| entry.target.id == config.id) {
            if let Condition::Serving(Server::Mdt(mdt)) = &entry.condition {
                mdt.version.store(config.version, Ordering::Relaxed);
            }
        }
    }

    fn newly_made(&self, serve: &[Assignment]) -> Vec<Target> {
        let entries = self.read();
        let is_served = |target: &Target| {
            entries.iter().any(|e| e.target == *target && matches!(e.condition, Condition::Serving(_)))
        };
        let new = serve.iter().filter(|assignment| !assignment.made).map(|assignment| &assignment.target);
        new.filter(|target| is_served(target)).cloned().collect()
    }

    /// Enters a target that is not served; `false` when it is.
    fn begin(&self, target: &Target) -> bool {
        let mut entries = self.write();
        let Some(entry) = entries.iter().find(|entry| entry.target == *target) else {
            let dir = self.setup.dir(target);
            entries.push(Entry { target: target.clone(), dir, condition: Condition::Starting });
            return true;
        };
        matches!(entry.condition, Condition::Failed(_))
    }

    fn start(&self, assignment: &Assignment, duty: &Duty) {
        let target = &assignment.target;
        let dir = self.setup.dir(target);
        let name = label(&target.fs, target.role);
        let started = Instant::now();
        let config = duty.configs.iter().find(|config| config.name == target.fs);
        let condition = match self.setup.open(assignment, &dir, config) {
            Ok(server) => {
                tracing::info!(target = name, dir = %dir.display(), took = ?started.elapsed(), "target served");
                Condition::Serving(server)
            }
            Err(error) => Condition::Failed(error.to_string()),
        };
        let mut entries = self.write();
        let Some(entry) = entries.iter_mut().find(|entry| entry.target == *target) else { return };
        if let Condition::Failed(reason) = &condition
            && !matches!(&entry.condition, Condition::Failed(before) if before == reason)
        {
            tracing::error!(target = name, dir = %dir.display(), reason, "target not served; the node goes on trying");
        }
        entry.condition = condition;
    }

    /// Stops every target that is not in `serve`.
    fn drop_all_but(&self, serve: &[Assignment]) {
        let mut entries = self.write();
        let (kept, dropped) = std::mem::take(&mut *entries).into_iter().partition(|entry| {
            serve.iter().any(|wanted| wanted.target == entry.target)
                || matches!(entry.condition, Condition::Removing)
        });
        *entries = kept;
        drop(entries);
        stop(dropped);
    }

    /// Empties the directory of a target that is no more; whether nothing of it is left.
    pub(super) fn remove(&self, target: &Target) -> bool {
        let dir = self.setup.dir(target);
        {
            let mut entries = self.write();
            if !entries.iter().any(|entry| entry.target == *target) {
                let condition = Condition::Removing;
                entries.push(Entry { target: target.clone(), dir: dir.clone(), condition });
            }
        }
        let name = label(&target.fs, target.role);
        match self.setup.remove(target, &dir) {
            Ok(()) => {
                tracing::info!(target = name, dir = %dir.display(), "target removed");
                true
            }
            Err(error) => {
                tracing::error!(target = name, dir = %dir.display(), %error, "a target of a destroyed filesystem cannot be removed; the node goes on trying");
                false
            }
        }
    }

    /// Forgets a target that was removed.
    pub(super) fn forget(&self, target: &Target) {
        self.write().retain(|entry| entry.target != *target);
    }

    /// Stops everything.
    pub(super) fn stop(&self) {
        let entries = std::mem::take(&mut *self.write());
        stop(entries);
    }

    /// The MDS of a filesystem, if it is served here.
    pub(super) fn mds(&self, fs: &str) -> Option<Arc<Mds>> {
        self.read().iter().filter(|entry| entry.target.fs == fs).find_map(|entry| match &entry.condition {
            Condition::Serving(Server::Mdt(mdt)) => Some(Arc::clone(&mdt.mds)),
            _ => None,
        })
    }

    /// The OSTs of this node.
    pub(super) fn oss(&self) -> &Oss {
        &self.setup.oss
    }

    /// How they are.
    pub(super) fn status(&self) -> Vec<TargetStatus> {
        self.read().iter().map(Entry::status).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn status(&self) -> TargetStatus {
        let state = match &self.condition {
            Condition::Starting => TargetState::Starting,
            Condition::Serving(server) => server.failed().map_or(TargetState::Serving, TargetState::Failed),
            Condition::Failed(reason) => TargetState::Failed(reason.clone()),
            Condition::Removing => TargetState::Removing,
        };
        let Target { fs, id, role, .. } = self.target.clone();
        let mut status = TargetStatus {
            fs,
            id,
            role,
            dir: self.dir.clone(),
            state,
            space: None,
            clients: Vec::new(),
            requests: 0,
            evictions: 0,
            config_version: 0,
            drains: Vec::new(),
        };
        if let Condition::Serving(server) = &self.condition {
            (status.space, status.clients) = (server.space(), server.clients());
            (status.requests, status.evictions) = server.counts();
            (status.config_version, status.drains) = server.drains();
        }
        status
    }
}

/// Stops servers, those of MDTs first: they still talk to OSTs.
fn stop(entries: Vec<Entry>) {
    let (mdts, others): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|entry| matches!(entry.target.role, Role::Mdt(_)));
    for entry in mdts.into_iter().chain(others) {
        if let Condition::Serving(server) = entry.condition {
            let name = label(&entry.target.fs, entry.target.role);
            server.stop();
            tracing::info!(target = name, "target no longer served");
        }
    }
}
