//! Snapshots of filesystems.
//!
//! ```text
//! make       the MDS has written what clients hold back, and stands still; each node keeps its targets; the MDS goes on; the MGS knows it
//! destroy    the MGS knows it no more; each node stops serving it, and removes it
//! go back    the MGS has the filesystem served no more; each node makes its targets what they were; it is served again
//! ```
//!
//! A snapshot that was not made as a whole is not known to the MGS; what is left of it on the disks goes when one of its name is made.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_fs::core::target::snapshot_fs;
use kiln_fs::mgs::{self, Command, Filesystem as Row};
use kiln_fs::wire::mgs::Target;
use kiln_fs::wire::node::{Reply, Request, SnapshotStep};

use super::{Admin, AdminError, ask_node, check_unused};
use crate::api::model::fs::Snapshot;
use crate::fs::view;

/// How long a step may take on a node: clients write back what they hold, and a pool commits.
const STEP_WITHIN: Duration = Duration::from_mins(2);

/// The targets of a filesystem that the node of a rank has.
type ByRank = BTreeMap<u32, Vec<Target>>;

impl Admin {
    /// The snapshots of a filesystem, the oldest first.
    pub(crate) async fn snapshots(&self, name: &str) -> Result<Vec<Snapshot>, AdminError> {
        let row = self.row(name)?;
        let told = self.ask_nodes(std::iter::once(&row)).await;
        let mut snapshots = Vec::new();
        for (own, kept) in mgs::snapshots(&self.store.read(), name)? {
            let mut used = Some(0);
            for (rank, targets) in by_rank(name, &row, kept.osts.len()) {
                let measured = self.step(rank, SnapshotStep::Measure, &own, &targets).await.ok();
                used = used.zip(measured).map(|(sum, more)| sum + more);
            }
            let name = snapshot_fs(name, &own);
            let failure = view::failure(&told, &name);
            snapshots.push(Snapshot { name, created: kept.created.millis(), used, failure });
        }
        Ok(snapshots)
    }

    /// Makes a snapshot of a filesystem, which may be in use.
    pub(crate) async fn snapshot(&self, name: &str, snapshot: &str) -> Result<(), AdminError> {
        let _one_at_a_time = self.snapshots.lock().await;
        let (name, own) = (name.to_owned(), snapshot.to_owned());
        self.submit(Command::MaySnapshot { name: name.clone(), snapshot: own.clone() }).await?;
        let row = self.row(&name)?;
        let targets = by_rank(&name, &row, row.osts.len());
        // Where something is in a directory, nothing is to stand still for it.
        self.on_each(&targets, SnapshotStep::Measure, snapshot).await?;
        let (mdt, here) = (row.mdt.rank, targets[&row.mdt.rank].clone());
        self.step(mdt, SnapshotStep::Freeze, snapshot, &here).await?;
        let taken = self.on_each(&targets, SnapshotStep::Take, snapshot).await;
        let thawed = self.step(mdt, SnapshotStep::Thaw, snapshot, &here).await;
        let made = match taken.and(thawed.map(drop)) {
            Ok(()) => self.submit(Command::AddSnapshot { name, snapshot: own }).await.map(drop),
            Err(error) => Err(error),
        };
        if made.is_err() {
            // What stays goes when one of this name is made.
            let _ = self.on_each(&targets, SnapshotStep::Drop, snapshot).await;
        }
        made
    }

    /// Destroys a snapshot; whether all that only it had is free already.
    pub(crate) async fn destroy_snapshot(&self, name: &str, snapshot: &str) -> Result<bool, AdminError> {
        let (fs, own) = (name.to_owned(), snapshot.to_owned());
        self.submit(Command::DestroySnapshot { name: fs, snapshot: own }).await?;
        self.wait_until_gone(&snapshot_fs(name, snapshot)).await
    }

    /// Makes a filesystem what it was at its newest snapshot; what was done since is lost. With `force` also one that is mounted, or of
    /// which that is not known.
    pub(crate) async fn roll_back(&self, name: &str, snapshot: &str, force: bool) -> Result<(), AdminError> {
        let _one_at_a_time = self.snapshots.lock().await;
        // One that was not finished is not served, and so not mounted.
        let is_begun = mgs::rollback(&self.store.read(), name)?.is_some();
        if !force && !is_begun {
            check_unused(&self.status(name).await?)?;
        }
        let row = self.row(name)?;
        let fs = || name.to_owned();
        self.submit(Command::BeginRollback { name: fs(), snapshot: snapshot.to_owned() }).await?;
        let targets = by_rank(name, &row, row.osts.len());
        self.on_each(&targets, SnapshotStep::RollBack, snapshot).await?;
        // What it says of the time since did not happen.
        self.changelogs.remove(name).await;
        self.changelogs.begin(name).await;
        self.submit(Command::EndRollback { name: fs() }).await.map(drop)
    }

    /// Does a step on each node.
    async fn on_each(&self, targets: &ByRank, step: SnapshotStep, snapshot: &str) -> Result<(), AdminError> {
        for (rank, targets) in targets {
            self.step(*rank, step, snapshot, targets).await?;
        }
        Ok(())
    }

    async fn step(
        &self,
        rank: u32,
        step: SnapshotStep,
        snapshot: &str,
        targets: &[Target],
    ) -> Result<u64, AdminError> {
        let socket = self.data.fs_socket(rank);
        let request = Request::Snapshot { step, snapshot: snapshot.to_owned(), targets: targets.to_vec() };
        let asked = tokio::task::spawn_blocking(move || ask_node(&socket, request, STEP_WITHIN));
        match asked.await {
            Ok(Some(Reply::Snapshot(Ok(told)))) => Ok(told),
            Ok(Some(Reply::Snapshot(Err(why)))) => Err(AdminError::Failed(why)),
            _ => {
                Err(AdminError::Failed(format!("node {rank} does not answer; `kiln status` shows the nodes")))
            }
        }
    }
}

/// The MDT and so many OSTs of a filesystem, by the node that has them.
fn by_rank(name: &str, row: &Row, osts: usize) -> ByRank {
    let mut targets = ByRank::new();
    for (role, place) in row.places().take(1 + osts) {
        targets.entry(place.rank).or_default().push(row.target(name, role, place));
    }
    targets
}
