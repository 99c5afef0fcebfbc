//! What an administrator does to filesystems, and sees of them.

use std::sync::Arc;
use std::time::Duration;

use kiln_fs::core::target::label;
use kiln_fs::core::{OstIndex, Role, Time, jobs};
use kiln_fs::mgs::{self, Command, Filesystem as Row, MgsMachine, Place, Rejection};
use kiln_fs::wire::mgs::FsId;
use kiln_fs::wire::node::{Reply, Request, TargetState, TargetStatus};
use kiln_fs::wire::{self, oss};
use kiln_net::blocking::Connection;
use kiln_store::{Handle, ReadError, SubmitError};
use kiln_world::Rng;

use crate::api::model::fs::{Client, Filesystem, JobCounter, JobStats, NewFilesystem, Place as Wanted, Space, Target};
use crate::paths::DataDir;
use crate::wiring::changelogs::Changelogs;

/// A node that takes longer to tell how its targets are does not answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
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
}

/// What each node that was asked said; `None` of one that did not answer.
type Told = Vec<(u32, Option<Vec<TargetStatus>>)>;

impl Admin {
    pub(crate) fn new(
        store: Handle<MgsMachine>,
        changelogs: Changelogs,
        hosts: Vec<String>,
        data: DataDir,
        rng: Arc<dyn Rng>,
    ) -> Admin {
        Admin { store, changelogs, hosts, data, rng }
    }

    /// Every filesystem, as it is.
    pub(crate) async fn list(&self) -> Result<Vec<Filesystem>, AdminError> {
        let rows = mgs::filesystems(&self.store.read())?;
        let told = self.ask_nodes(rows.iter().map(|(_, row)| row)).await;
        Ok(rows.iter().map(|(name, row)| self.view(name, row, &told)).collect())
    }

    /// One filesystem, as it is.
    pub(crate) async fn status(&self, name: &str) -> Result<Filesystem, AdminError> {
        let row = self.row(name)?;
        let told = self.ask_nodes(std::iter::once(&row)).await;
        Ok(self.view(name, &row, &told))
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
            self.check_unused(&self.status(name).await?)?;
        }
        self.submit(Command::Destroy { name: name.to_owned() }).await?;
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
            Ok(done) => {
                done?;
                self.changelogs.remove(name).await;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    fn check_unused(&self, fs: &Filesystem) -> Result<(), AdminError> {
        let name = &fs.name;
        if !fs.clients.is_empty() {
            let hosts: Vec<&str> = fs.clients.iter().map(|client| client.host.as_str()).collect();
            return Err(AdminError::Bad(format!(
                "{name} is mounted on {}; unmount it there, or destroy it all the same with --force",
                hosts.join(", ")
            )));
        }
        let mdt_serves = fs.targets.first().is_some_and(|mdt| mdt.state == Target::SERVING);
        if mdt_serves {
            return Ok(());
        }
        Err(AdminError::Bad(format!(
            "whether {name} is mounted is not known while its MDT is not served; destroy it all the same with --force"
        )))
    }

    /// What jobs did to a filesystem, those that did most first.
    pub(crate) async fn jobs(&self, name: &str) -> Result<Vec<JobStats>, AdminError> {
        let socket = self.data.fs_socket(self.row(name)?.mdt.rank);
        let request = Request::Jobs(name.to_owned());
        match tokio::task::spawn_blocking(move || ask_node(&socket, request)).await {
            Ok(Some(Reply::Jobs(Some(jobs)))) => Ok(jobs.iter().map(job).collect()),
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
            return Err(AdminError::Bad(format!(
                "{} is no node of this cluster; its nodes are {}",
                wanted.node,
                self.hosts.join(", ")
            )));
        };
        Ok(Place { rank: rank as u32, dir: wanted.dir.map(Into::into) })
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

    fn view(&self, name: &str, row: &Row, told: &Told) -> Filesystem {
        let mut clients = Vec::new();
        let targets: Vec<Target> = row
            .places()
            .map(|(role, place)| {
                let node =
                    told.iter().find(|(rank, _)| *rank == place.rank).and_then(|(_, told)| told.as_ref());
                let found = node.map(|all| all.iter().find(|seen| seen.id == row.id && seen.role == role));
                clients.extend(found.flatten().into_iter().flat_map(|seen| &seen.clients).map(|client| {
                    Client { host: client.host.clone(), session: format!("{:032x}", client.session.0) }
                }));
                let draining = match role {
                    Role::Ost(OstIndex(index)) => row.osts[usize::from(index)].draining,
                    Role::Mdt(_) => false,
                };
                Target { draining, ..self.target(name, role, place, found) }
            })
            .collect();
        let ok = targets.iter().all(|target| target.state == Target::SERVING);
        let state = if ok { Filesystem::OK } else { Filesystem::DEGRADED };
        Filesystem {
            name: name.to_owned(),
            state: state.to_owned(),
            created: row.created.millis(),
            targets,
            clients,
        }
    }

    /// `found` is `None` when the node did not answer, and `Some(None)` when it does not know the target yet.
    fn target(&self, name: &str, role: Role, place: &Place, found: Option<Option<&TargetStatus>>) -> Target {
        let host = self.hosts.get(place.rank as usize).cloned();
        let (state, reason) = match found {
            None if host.is_none() => (
                Target::UNREACHABLE,
                Some(format!(
                    "there is no node of rank {}; start at least {} nodes",
                    place.rank,
                    place.rank + 1
                )),
            ),
            None => (
                Target::UNREACHABLE,
                Some("its node does not answer; `kiln status` shows the nodes".to_owned()),
            ),
            Some(None) => (Target::STARTING, None),
            Some(Some(seen)) => match &seen.state {
                TargetState::Starting | TargetState::Removing => (Target::STARTING, None),
                TargetState::Serving => (Target::SERVING, None),
                TargetState::Failed(reason) => (Target::FAILED, Some(reason.clone())),
            },
        };
        let seen = found.flatten();
        let (kind, index) = match role {
            Role::Mdt(index) => ("mdt", index),
            Role::Ost(OstIndex(index)) => ("ost", index),
        };
        let dir = seen.map(|seen| seen.dir.clone()).or_else(|| place.dir.clone());
        Target {
            label: label(name, role),
            kind: kind.to_owned(),
            index,
            node: host.unwrap_or_else(|| format!("rank {}", place.rank)),
            rank: place.rank,
            dir: dir.map(|dir| dir.display().to_string()),
            state: state.to_owned(),
            reason,
            draining: false,
            space: seen.and_then(|seen| seen.space).map(space),
            requests: seen.map_or(0, |seen| seen.requests),
            evictions: seen.map_or(0, |seen| seen.evictions),
        }
    }
}

/// How a node's targets are; `None` when it does not answer.
fn targets_of(socket: &std::path::Path) -> Option<Vec<TargetStatus>> {
    match ask_node(socket, Request::Targets)? {
        Reply::Targets(targets) => Some(targets),
        Reply::Jobs(_) => None,
    }
}

fn space(space: oss::Space) -> Space {
    Space {
        total: space.total_bytes,
        used: space.total_bytes.saturating_sub(space.free_bytes),
        available: space.available_bytes,
        inodes_used: space.inodes.saturating_sub(space.free_inodes),
        inodes_free: space.free_inodes,
    }
}

/// What a node answers; `None` when it does not.
fn ask_node(socket: &std::path::Path, request: Request) -> Option<Reply> {
    let asked = || -> Result<Reply, Box<dyn std::error::Error>> {
        let mut connection = Connection::connect_unix(socket)?;
        connection.set_timeout(Some(ANSWER_WITHIN))?;
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

fn job(stats: &jobs::JobStats) -> JobStats {
    let millis = |time: Time| time.secs.saturating_mul(1000) + i64::from(time.nanos / 1_000_000);
    let counter = |(operation, counter): (&jobs::Operation, &jobs::Counter)| {
        let jobs::Counter { samples, min, max, sum } = *counter;
        (operation.name().to_owned(), JobCounter { samples, min, max, sum })
    };
    JobStats {
        job_id: stats.job.clone(),
        start_time: millis(stats.since),
        snapshot_time: millis(stats.last),
        operations: stats.counts.0.iter().map(counter).collect(),
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
            Rejection::NoFilesystem(_) | Rejection::NoOst { .. } => {
                AdminError::Missing(rejection.to_string())
            }
            other => AdminError::Bad(other.to_string()),
        }
    }
}
