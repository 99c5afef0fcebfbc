//! The targets of this node: which are served, which are not and why.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use kiln_fs::core::Role;
use kiln_fs::core::target::{label, split_snapshot};
use kiln_fs::mds::Mds;
use kiln_fs::oss::Oss;
use kiln_fs::wire::mgs::{Assignment, Duty, FsConfig, Target};
use kiln_fs::wire::node::{SnapshotStep, TargetState, TargetStatus};

use super::servers::{Server, Setup, snapshots};

/// How long targets may take to be served no more.
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// The targets, as the MGS wants them and as they are.
pub(super) struct Targets {
    setup: Setup,
    entries: RwLock<Vec<Entry>>,
    /// Held by who closes targets, or opens what is served on demand.
    changing: Mutex<()>,
    /// Targets were closed.
    closed: Condvar,
}

/// One target.
struct Entry {
    target: Target,
    dir: PathBuf,
    condition: Condition,
    /// It is served on demand, as a part of this filesystem: the MDT of a snapshot.
    on_demand: Option<FsConfig>,
    /// Of such a one: requests that had come when that was looked at last, if it was.
    requests_seen: Option<u64>,
}

enum Condition {
    Starting,
    Serving(Server),
    /// It is served when somebody wants it.
    Waiting,
    Failed(String),
    Removing,
}

impl Targets {
    pub(super) fn new(setup: Setup) -> Targets {
        Targets { setup, entries: RwLock::default(), changing: Mutex::default(), closed: Condvar::new() }
    }

    /// Serves what `duty` names, and nothing else; what failed before is tried again. Returns what the MGS does not know to be
    /// on the disk yet.
    pub(super) fn follow(&self, duty: &Duty) -> Vec<Target> {
        self.drop_all_but(&duty.serve);
        let (osts, mdts): (Vec<_>, Vec<_>) =
            duty.serve.iter().partition(|assignment| matches!(assignment.target.role, Role::Ost(_)));
        // An MDT that starts may have things to do at its OSTs.
        for assignment in osts.into_iter().chain(mdts) {
            if !self.begin(&assignment.target) {
                continue;
            }
            let config = duty.configs.iter().find(|config| config.name == assignment.target.fs);
            match config.filter(|_| snapshots::is_served_on_demand(&assignment.target)) {
                Some(config) => self.wait_for_use(&assignment.target, config),
                None => self.start(assignment, config),
            }
        }
        self.close_unused();
        for config in &duty.configs {
            self.configure(config);
        }
        self.newly_made(&duty.serve)
    }

    /// Tells the MDS of a filesystem, if it is served here, what it is made of now.
    fn configure(&self, config: &FsConfig) {
        let Some(mds) = self.served_mds(&config.name) else { return };
        mds.set_osts(&config.osts);
        for entry in self.read().iter().filter(|entry| entry.target.fs == config.name) {
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
            entries.push(Entry::new(target.clone(), dir, Condition::Starting));
            return true;
        };
        // What is served on demand is tried again when somebody wants it, and until then tells why it failed.
        matches!(entry.condition, Condition::Failed(_)) && entry.on_demand.is_none()
    }

    fn start(&self, assignment: &Assignment, config: Option<&FsConfig>) {
        let target = &assignment.target;
        let dir = self.setup.dir(target);
        let name = label(&target.fs, target.role);
        let started = Instant::now();
        let condition = match self.setup.open(assignment, &dir, config) {
            Ok(server) => {
                tracing::info!(target = name, dir = %dir.display(), took = ?started.elapsed(), "target served");
                Condition::Serving(server)
            }
            Err(error) => Condition::Failed(error.to_string()),
        };
        self.set(target, condition);
    }

    /// Notes how a target is; one that is not wanted any more is stopped.
    fn set(&self, target: &Target, condition: Condition) {
        let mut entries = self.write();
        let Some(entry) = entries.iter_mut().find(|entry| entry.target == *target) else {
            drop(entries);
            let dir = self.setup.dir(target);
            return stop(vec![Entry::new(target.clone(), dir, condition)]);
        };
        if let Condition::Failed(reason) = &condition
            && !matches!(&entry.condition, Condition::Failed(before) if before == reason)
        {
            let (name, dir) = (label(&target.fs, target.role), entry.dir.display());
            tracing::error!(target = name, %dir, reason, "target not served; the node goes on trying");
        }
        entry.condition = condition;
    }

    /// Notes that a target is served when somebody wants it.
    fn wait_for_use(&self, target: &Target, config: &FsConfig) {
        if let Some(entry) = self.write().iter_mut().find(|entry| entry.target == *target) {
            (entry.condition, entry.on_demand) = (Condition::Waiting, Some(config.clone()));
        }
    }

    /// Serves the MDT of a snapshot that somebody wants now.
    fn open_waiting(&self, fs: &str) -> Option<Arc<Mds>> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |entry: &&Entry| {
            let is_closed = matches!(entry.condition, Condition::Waiting | Condition::Failed(_));
            entry.target.fs == fs && entry.on_demand.is_some() && is_closed
        };
        let waiting =
            self.read().iter().find(waits).map(|entry| (entry.target.clone(), entry.on_demand.clone()));
        if let Some((target, config)) = waiting {
            self.start(&Assignment { target, made: true }, config.as_ref());
        }
        self.served_mds(fs)
    }

    /// Closes MDTs of snapshots that nobody has mounted, and that nobody has asked since this was done last.
    fn close_unused(&self) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unused = Vec::new();
        for entry in self.write().iter_mut().filter(|entry| entry.on_demand.is_some()) {
            let Condition::Serving(server) = &entry.condition else { continue };
            let (requests, _) = server.counts();
            let seen = entry.requests_seen.replace(requests);
            if !server.clients().is_empty() || seen != Some(requests) {
                continue;
            }
            let condition = std::mem::replace(&mut entry.condition, Condition::Waiting);
            entry.requests_seen = None;
            unused.push(Entry::new(entry.target.clone(), entry.dir.clone(), condition));
        }
        let closed: Vec<(Target, PathBuf)> =
            unused.iter().map(|entry| (entry.target.clone(), entry.dir.clone())).collect();
        stop(unused);
        for (target, dir) in &closed {
            self.setup.unused(target, dir);
        }
    }

    /// Stops every target that is not in `serve`.
    fn drop_all_but(&self, serve: &[Assignment]) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries = self.write();
        let (kept, dropped) = std::mem::take(&mut *entries).into_iter().partition(|entry| {
            serve.iter().any(|wanted| wanted.target == entry.target)
                || matches!(entry.condition, Condition::Removing)
        });
        *entries = kept;
        drop(entries);
        stop(dropped);
        self.closed.notify_all();
    }

    /// Empties the directory of a target that is no more; whether nothing of it is left.
    pub(super) fn remove(&self, target: &Target) -> bool {
        let dir = self.setup.dir(target);
        {
            let mut entries = self.write();
            if !entries.iter().any(|entry| entry.target == *target) {
                entries.push(Entry::new(target.clone(), dir.clone(), Condition::Removing));
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

    /// The MDS of a filesystem, if it is served here. That of a snapshot is begun when it is asked for.
    pub(super) fn mds(&self, fs: &str) -> Option<Arc<Mds>> {
        let served = self.served_mds(fs);
        if served.is_none() && split_snapshot(fs).is_some() { self.open_waiting(fs) } else { served }
    }

    fn served_mds(&self, fs: &str) -> Option<Arc<Mds>> {
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

    /// Does a step for a snapshot of a filesystem; `targets` are those of its targets that are here.
    pub(super) fn snapshot_step(
        &self,
        step: SnapshotStep,
        snapshot: &str,
        targets: &[Target],
    ) -> Result<u64, String> {
        if step == SnapshotStep::RollBack {
            self.wait_until_stopped(targets)?;
        }
        let mds = targets.first().and_then(|target| self.served_mds(&target.fs));
        self.setup.snapshot_step(step, snapshot, targets, mds.as_deref())
    }

    /// Waits until none of these targets is served: the MGS has said so, and this node may not have heard it yet.
    fn wait_until_stopped(&self, targets: &[Target]) -> Result<(), String> {
        let served = || {
            let entries = self.read();
            let served = entries.iter().find(|entry| {
                let is_served = matches!(entry.condition, Condition::Serving(_) | Condition::Starting);
                is_served && targets.contains(&entry.target)
            });
            served.map(|entry| label(&entry.target.fs, entry.target.role))
        };
        // Who closes targets holds this until they are closed.
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.closed.wait_timeout_while(changing, STOPPED_WITHIN, |()| served().is_some());
        drop(waited);
        served().map_or(Ok(()), |name| Err(format!("{name} is still served; try again")))
    }

    fn read(&self) -> RwLockReadGuard<'_, Vec<Entry>> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Entry>> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(target: Target, dir: PathBuf, condition: Condition) -> Entry {
        Entry { target, dir, condition, on_demand: None, requests_seen: None }
    }

    fn status(&self) -> TargetStatus {
        let state = match &self.condition {
            Condition::Starting => TargetState::Starting,
            Condition::Serving(server) => server.failed().map_or(TargetState::Serving, TargetState::Failed),
            Condition::Waiting => TargetState::Serving,
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
