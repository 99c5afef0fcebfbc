//! What an administrator does to filesystems, and sees of them.

mod snapshots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_fs::core::target::{base_fs, label};
use kiln_fs::core::{ObjectId, OstIndex, Role};
use kiln_fs::mgs::{self, Command, Filesystem as Row, MgsMachine, Place, Rejection};
use kiln_fs::wire;
use kiln_fs::wire::mgs::FsId;
use kiln_fs::wire::node::{Reply, Request, TargetStatus};
use kiln_fs::wire::pool;
use kiln_net::blocking::Connection;
use kiln_store::{Handle, ReadError, SubmitError};
use kiln_world::Rng;

use super::view::{self, Told};
use crate::api::model::fs::{Filesystem, JobStats, NewFilesystem, Place as Wanted, Target};
use crate::paths::DataDir;
use crate::wiring::changelogs::Changelogs;

/// A node that takes longer to tell how its targets are does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// How long a change of a pool may take: all of its maps of space may have to be written.
const POOL_CHANGED_WITHIN: Duration = Duration::from_mins(5);
/// How long a destroyed filesystem's data may take to be gone before that is said.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);
/// OSTs of a filesystem for which nobody named any.
const OSTS_MIN: usize = 2;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AdminError {
    /// It cannot be.
    #[error("{0}")]
    Bad(String),
    /// There is no such filesystem, or no such OST.
    #[error("{0}")]
    Missing(String),
    /// It is right and could not be done.
    #[error("{0}")]
    Failed(String),
}

/// The filesystems, for their administrator.
pub(crate) struct Admin {
    store: Handle<MgsMachine>,
    changelogs: Changelogs,
    /// Host names by rank.
    hosts: Vec<String>,
    data: DataDir,
    rng: Arc<dyn Rng>,
    /// Held by who makes a snapshot, or goes back to one.
    snapshots: tokio::sync::Mutex<()>,
}

impl Admin {
    pub(crate) fn new(
        store: Handle<MgsMachine>,
        changelogs: Changelogs,
        hosts: Vec<String>,
        data: DataDir,
        rng: Arc<dyn Rng>,
    ) -> Admin {
        Admin { store, changelogs, hosts, data, rng, snapshots: tokio::sync::Mutex::default() }
    }

    /// Every filesystem, as it is.
    pub(crate) async fn list(&self) -> Result<Vec<Filesystem>, AdminError> {
        let rows = mgs::filesystems(&self.store.read())?;
        let told = self.ask_nodes(rows.iter().map(|(_, row)| row)).await;
        Ok(rows.iter().map(|(name, row)| view::filesystem(name, row, &told, &self.hosts)).collect())
    }

    /// One filesystem, as it is.
    pub(crate) async fn status(&self, name: &str) -> Result<Filesystem, AdminError> {
        let row = self.row(name)?;
        let told = self.ask_nodes(std::iter::once(&row)).await;
        Ok(view::filesystem(name, &row, &told, &self.hosts))
    }

    /// Makes a filesystem. Its targets are served a moment later.
    pub(crate) async fn create(&self, new: NewFilesystem) -> Result<(), AdminError> {
        let mdt = new.mdt.map_or(Ok(Place { rank: 0, dir: None }), |wanted| self.place(wanted))?;
        let osts: Vec<Place> = if new.osts.is_empty() {
            self.usual_osts()
        } else {
            new.osts.into_iter().map(|wanted| self.place(wanted)).collect::<Result<_, _>>()?
        };
        let mut id = [0; 16];
        self.rng.fill(&mut id);
        let id = FsId(u128::from_le_bytes(id));
        let name = new.name;
        if mgs::filesystem(&self.store.read(), &name)?.is_none() {
            // Of a filesystem of this name whose data was not gone when its destruction was told.
            self.changelogs.remove(&name).await;
        }
        self.submit(Command::Create { name: name.clone(), id, mdt, osts }).await?;
        self.changelogs.begin(&name).await;
        Ok(())
    }

    /// Gives a filesystem another OST; returns its label.
    pub(crate) async fn add_ost(&self, name: &str, wanted: Wanted) -> Result<String, AdminError> {
        let place = self.place(wanted)?;
        let row = self.submit(Command::AddOst { name: name.to_owned(), place }).await?;
        let last = row.map_or(0, |row| row.osts.len() - 1);
        Ok(label(name, Role::Ost(OstIndex(last as u16))))
    }

    /// Keeps new objects from an OST, or lets them go there again.
    pub(crate) async fn set_draining(&self, name: &str, ost: u16, draining: bool) -> Result<(), AdminError> {
        let ost = OstIndex(ost);
        self.submit(Command::SetDraining { name: name.to_owned(), ost, draining }).await.map(drop)
    }

    /// Destroys a filesystem; with `force` also one that is mounted, or of which that is not known. Whether all of its data is
    /// gone already.
    pub(crate) async fn destroy(&self, name: &str, force: bool) -> Result<bool, AdminError> {
        if !force {
            let snapshots = mgs::snapshots(&self.store.read(), name)?;
            let names: Vec<String> = snapshots.into_iter().map(|(own, _)| own).collect();
            if !names.is_empty() {
                return Err(Rejection::HasSnapshots(name.to_owned(), names.join(", ")).into());
            }
            check_unused(&self.status(name).await?)?;
        }
        self.submit(Command::Destroy { name: name.to_owned() }).await?;
        let gone = self.wait_until_gone(name).await?;
        if gone {
            self.changelogs.remove(name).await;
        }
        Ok(gone)
    }

    /// Waits until nothing of what was destroyed is on a disk; whether that is so.
    async fn wait_until_gone(&self, name: &str) -> Result<bool, AdminError> {
        let mut changes = self.store.watch(mgs::META, mgs::VERSION);
        let gone = async {
            while mgs::is_doomed(&self.store.read(), name)? {
                if changes.changed().await.is_err() {
                    break;
                }
            }
            Ok::<_, ReadError>(())
        };
        match tokio::time::timeout(REMOVED_WITHIN, gone).await {
            Ok(done) => done.map(|()| true).map_err(Into::into),
            Err(_) => Ok(false),
        }
    }

    /// What jobs did to a filesystem, those that did most first.
    pub(crate) async fn jobs(&self, name: &str) -> Result<Vec<JobStats>, AdminError> {
        let socket = self.data.fs_socket(self.row(name)?.mdt.rank);
        let request = Request::Jobs(name.to_owned());
        match tokio::task::spawn_blocking(move || ask_node(&socket, request, ANSWER_WITHIN)).await {
            Ok(Some(Reply::Jobs(Some(jobs)))) => Ok(jobs.iter().map(view::job).collect()),
            _ => Err(AdminError::Failed(format!(
                "the MDT of {name} does not answer; `kiln fs status {name}` shows its targets"
            ))),
        }
    }

    fn row(&self, name: &str) -> Result<Row, AdminError> {
        let row = mgs::filesystem(&self.store.read(), name)?;
        row.ok_or_else(|| Rejection::NoFilesystem(name.to_owned()).into())
    }

    async fn submit(&self, command: Command) -> Result<mgs::Reply, AdminError> {
        self.store.submit(command).await.map_err(|error| match error {
            SubmitError::Rejected(rejection) => rejection.into(),
            other => AdminError::Failed(other.to_string()),
        })
    }

    /// One on each node; on a single node two, so that a file has something to be spread over.
    fn usual_osts(&self) -> Vec<Place> {
        let ranks = (0..self.hosts.len() as u32).cycle().take(self.hosts.len().max(OSTS_MIN));
        ranks.map(|rank| Place { rank, dir: None }).collect()
    }

    fn place(&self, wanted: Wanted) -> Result<Place, AdminError> {
        let by_name = self.hosts.iter().position(|host| *host == wanted.node);
        let by_rank = wanted.node.parse().ok().filter(|rank: &usize| *rank < self.hosts.len());
        let Some(rank) = by_name.or(by_rank) else {
            if wanted.dir.is_none()
                && let Some(place) = self.pool_place(&wanted.node)
            {
                return Ok(place);
            }
            return Err(AdminError::Bad(format!(
                "{} is no node of this cluster, and no pool; its nodes are {}",
                wanted.node,
                self.hosts.join(", ")
            )));
        };
        Ok(Place { rank: rank as u32, dir: wanted.dir.map(Into::into) })
    }

    /// Where the node that has a pool keeps what it knows of it; a target there stands on the pool.
    fn pool_place(&self, pool: &str) -> Option<Place> {
        let has = |rank: &u32| !pool.contains('/') && self.data.pools(*rank).join(pool).is_dir();
        let rank = (0..self.hosts.len() as u32).find(has)?;
        Some(Place { rank, dir: Some(self.data.pools(rank).join(pool)) })
    }

    /// Asks a node about its pools, or changes them.
    pub(crate) async fn pool(&self, rank: u32, request: &pool::Request) -> Result<pool::Reply, AdminError> {
        let failed = |why: String| AdminError::Failed(why);
        if rank as usize >= self.hosts.len() {
            return Err(AdminError::Missing(format!(
                "there is no node {rank}; this cluster has {}",
                self.hosts.len()
            )));
        }
        let within = if *request == pool::Request::Status { ANSWER_WITHIN } else { POOL_CHANGED_WITHIN };
        let request = serde_json::to_string(request).map_err(|error| failed(error.to_string()))?;
        let socket = self.data.fs_socket(rank);
        let ask = move || ask_node(&socket, Request::Pool(request), within);
        match tokio::task::spawn_blocking(ask).await {
            Ok(Some(Reply::Pool(reply))) => match serde_json::from_str(&reply) {
                Ok(pool::Reply::Bad(why)) => Err(AdminError::Bad(why)),
                Ok(reply) => Ok(reply),
                Err(error) => Err(failed(error.to_string())),
            },
            _ => Err(failed(format!("node {rank} does not answer; `kiln status` shows the nodes"))),
        }
    }

    /// The pools of all nodes, each with the node's rank; all of them must answer, or it would look as if there were none.
    pub(crate) async fn pools(&self) -> Result<Vec<(u32, pool::Pool)>, AdminError> {
        let mut pools = Vec::new();
        for rank in 0..self.hosts.len() as u32 {
            if let pool::Reply::Pools(found) = self.pool(rank, &pool::Request::Status).await? {
                pools.extend(found.into_iter().map(|pool| (rank, pool)));
            }
        }
        Ok(pools)
    }

    /// What happened to the pools of all nodes, the oldest first; a node that does not answer is left out.
    pub(crate) async fn pool_events(&self) -> Result<Vec<pool::Event>, AdminError> {
        let mut events = Vec::new();
        for rank in 0..self.hosts.len() as u32 {
            if let pool::Reply::Events(found) = self.pool(rank, &pool::Request::Events).await? {
                events.extend(found);
            }
        }
        events.sort_by_key(|event| event.at_ms);
        Ok(events)
    }

    /// Finds the paths of damaged objects, as far as their filesystems can tell.
    pub(crate) async fn name_damaged(&self, pools: &mut [pool::Pool]) {
        let mut wanted: BTreeMap<(String, OstIndex), Vec<ObjectId>> = BTreeMap::new();
        for damaged in pools.iter().flat_map(|pool| &pool.damaged) {
            if let (Some((fs, Role::Ost(ost))), Some(object)) = (damaged.target(), damaged.object) {
                wanted.entry((fs, ost)).or_default().push(ObjectId(object));
            }
        }
        let mut paths: BTreeMap<(String, OstIndex, ObjectId), String> = BTreeMap::new();
        for ((fs, ost), objects) in wanted {
            let Ok(row) = self.row(base_fs(&fs)) else { continue };
            let socket = self.data.fs_socket(row.mdt.rank);
            let request = Request::Owners { fs: fs.clone(), ost, objects };
            let asked = tokio::task::spawn_blocking(move || ask_node(&socket, request, POOL_CHANGED_WITHIN));
            if let Ok(Some(Reply::Owners(Some(owners)))) = asked.await {
                paths.extend(owners.into_iter().map(|(object, path)| ((fs.clone(), ost, object), path)));
            }
        }
        for damaged in pools.iter_mut().flat_map(|pool| &mut pool.damaged) {
            if let (Some((fs, Role::Ost(ost))), Some(object)) = (damaged.target(), damaged.object) {
                damaged.path = paths.get(&(fs, ost, ObjectId(object))).cloned();
            }
        }
    }

    /// Asks every node with a target of `rows` how its targets are, all at once.
    async fn ask_nodes(&self, rows: impl Iterator<Item = &Row>) -> Told {
        let mut ranks: Vec<u32> = rows.flat_map(|row| row.places().map(|(_, place)| place.rank)).collect();
        ranks.sort_unstable();
        ranks.dedup();
        let asked: Vec<_> = ranks
            .into_iter()
            .map(|rank| {
                let socket = self.data.fs_socket(rank);
                (rank, tokio::task::spawn_blocking(move || targets_of(&socket)))
            })
            .collect();
        let mut told = Told::new();
        for (rank, answer) in asked {
            told.push((rank, answer.await.unwrap_or_default()));
        }
        told
    }
}

/// Refuses to take away what is mounted, or may be.
fn check_unused(fs: &Filesystem) -> Result<(), AdminError> {
    let name = &fs.name;
    if !fs.clients.is_empty() {
        let hosts: Vec<&str> = fs.clients.iter().map(|client| client.host.as_str()).collect();
        return Err(AdminError::Bad(format!(
            "{name} is mounted on {}; unmount it there, or do it all the same with --force",
            hosts.join(", ")
        )));
    }
    let mdt_serves = fs.targets.first().is_some_and(|mdt| mdt.state == Target::SERVING);
    if mdt_serves {
        return Ok(());
    }
    Err(AdminError::Bad(format!(
        "whether {name} is mounted is not known while its MDT is not served; do it all the same with --force"
    )))
}

/// How a node's targets are; `None` when it does not answer.
fn targets_of(socket: &std::path::Path) -> Option<Vec<TargetStatus>> {
    match ask_node(socket, Request::Targets, ANSWER_WITHIN)? {
        Reply::Targets(targets) => Some(targets),
        Reply::Jobs(_) | Reply::Owners(_) | Reply::Pool(_) | Reply::Snapshot(_) => None,
    }
}

/// What a node answers; `None` when it does not.
fn ask_node(socket: &std::path::Path, request: Request, within: Duration) -> Option<Reply> {
    let asked = || -> Result<Reply, Box<dyn std::error::Error>> {
        let mut connection = Connection::connect_unix(socket)?;
        connection.set_timeout(Some(within))?;
        Ok(connection.call(&wire::Request::Node(request), &[])?.0)
    };
    match asked() {
        Ok(reply) => Some(reply),
        Err(error) => {
            tracing::debug!(socket = %socket.display(), %error, "a node does not answer");
            None
        }
    }
}

impl From<ReadError> for AdminError {
    fn from(error: ReadError) -> AdminError {
        AdminError::Failed(error.to_string())
    }
}

impl From<Rejection> for AdminError {
    fn from(rejection: Rejection) -> AdminError {
        match rejection {
            Rejection::NoFilesystem(_) | Rejection::NoOst { .. } | Rejection::NoSnapshot(_) => {
                AdminError::Missing(rejection.to_string())
            }
            other => AdminError::Bad(other.to_string()),
        }
    }
}
