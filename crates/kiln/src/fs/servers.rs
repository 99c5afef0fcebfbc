//! How a target's server is opened, and closed: the only place that knows how each kind is built.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiln_config::Config;
use kiln_fs::core::layout::Stripes;
use kiln_fs::core::target::{base_fs, label, split_snapshot};
use kiln_fs::core::{Errno, OstIndex, Role, SessionId, Spread, Time};
use kiln_fs::mds::mdt::{self, Mdt};
use kiln_fs::mds::{self, Changelog, Mds, Parts};
use kiln_fs::oss::{Label, Oss, Ost, PoolObjects, TargetError};
use kiln_fs::wire::mgs::{Assignment, FsConfig, FsId, Target};
use kiln_fs::wire::node::{ClientStatus, DrainStatus};
use kiln_fs::wire::oss::{Op, Reply, Request, Space};
use kiln_log::Volume;
use kiln_pool::disk::PoolDisk;
use kiln_pool::pool::{Pool, PoolError};
use kiln_types::Timestamp;
use kiln_world::{Clock, Disk, RealClock, RealDisk};

pub(super) mod snapshots;

use super::changelog::Sink;
use super::duty::Source;
use super::ground::{self, GroundError, Lock};
use crate::paths::DataDir;
use crate::pools::Pools;

/// For questions of the node's own.
const NOBODY: SessionId = SessionId(0);
/// The MDT's own directory within that of the target.
const MDT_DIR: &str = "mdt";
/// What every MDT has that was made.
const MDT_LABEL: &str = "mdt/label";
/// What programs have changed and did not sync is safe from a loss of power after this time at the latest.
const JOURNAL_FLUSH_AFTER: Duration = Duration::from_secs(1);
/// Pages of a snapshot's MDT that are kept in memory, in bytes.
const SNAPSHOT_CACHE_BYTES: usize = 16 << 20;
/// The least that clients which were there before a start are waited for.
const RECOVERY_MIN: Duration = Duration::from_secs(2);

/// What all targets of a node have in common.
pub(super) struct Setup {
    /// Where the instance's data lies.
    pub data: DataDir,
    /// The settings in force.
    pub config: Config,
    /// The OSTs of this node.
    pub oss: Arc<Oss>,
    /// Where changelogs are written.
    pub leader: Source,
    /// The pools of this node.
    pub pools: Arc<Pools>,
}

/// A target that is served.
pub(super) enum Server {
    /// An MDT.
    Mdt(ServedMdt),
    /// An OST, by the node's OSS.
    Ost {
        /// The OSS.
        oss: Arc<Oss>,
        /// The filesystem.
        fs: String,
        /// Which one of that name.
        id: FsId,
        /// The OST's index in it.
        index: OstIndex,
    },
}

/// An MDT that is served.
pub(super) struct ServedMdt {
    pub mds: Arc<Mds>,
    /// The version of the filesystem that it was told last.
    pub version: AtomicU64,
    /// Of the journal.
    volume: Volume,
    /// Goes last.
    lock: Lock,
}

/// Why a target is not served; the text is for its administrator.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    /// Its directory cannot be used.
    #[error(transparent)]
    Ground(#[from] GroundError),
    /// The OST in it cannot.
    #[error("{0}")]
    Ost(Box<TargetError>),
    /// The MDT in it cannot.
    #[error("{}: {error}", dir.display())]
    Mdt {
        /// Where it is.
        dir: PathBuf,
        /// The reason.
        error: Box<mdt::OpenError>,
    },
    /// The MDT in it is of an older filesystem of the same name.
    #[error("{} has the MDT of another filesystem of this name; move that directory away", .0.display())]
    OtherFilesystem(PathBuf),
    /// Its pool is not there, or fails.
    #[error("{0}")]
    Pool(String),
    /// The MDT's rows cannot be read.
    #[error("{}: the MDT's sessions cannot be read ({errno})", dir.display())]
    Start {
        /// Where it is.
        dir: PathBuf,
        /// The reason.
        errno: Errno,
    },
}

impl From<TargetError> for OpenError {
    fn from(error: TargetError) -> OpenError {
        OpenError::Ost(Box::new(error))
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

    /// Opens a target, making it if it was never there, and serves it.
    pub(super) fn open(
        &self,
        assignment: &Assignment,
        dir: &Path,
        config: Option<&FsConfig>,
    ) -> Result<Server, OpenError> {
        let Assignment { target, made } = assignment;
        match target.role {
            Role::Mdt(index) => self.open_mdt(assignment, index, dir, config).map(Server::Mdt),
            Role::Ost(index) => {
                let label = Label { id: target.id.0, fs: target.fs.clone(), index };
                let ost = match self.pools.of_target(dir) {
                    Some(pool) if split_snapshot(&target.fs).is_some() => {
                        snapshots::open_ost(&pool.map_err(OpenError::Pool)?, dir, target, index)?
                    }
                    Some(pool) => open_on_pool(&pool.map_err(OpenError::Pool)?, dir, &label, *made)?,
                    None => open_in_directory(dir, &label, *made)?,
                };
                self.oss.add(ost);
                Ok(Server::Ost { oss: Arc::clone(&self.oss), fs: label.fs, id: target.id, index })
            }
        }
    }

    fn open_mdt(
        &self,
        assignment: &Assignment,
        index: u16,
        dir: &Path,
        config: Option<&FsConfig>,
    ) -> Result<ServedMdt, OpenError> {
        let Assignment { target, made } = assignment;
        let failed = |error| OpenError::Mdt { dir: dir.to_owned(), error: Box::new(error) };
        let snapshot = split_snapshot(&target.fs).map(|_| target.fs.clone());
        let mut is_of_old = snapshots::was_rolled_back(dir);
        let (lock, disk): (Lock, Arc<dyn Disk>) = if let Some(pool) = self.pools.of_target(dir) {
            let pool = pool.map_err(OpenError::Pool)?;
            let disk = if snapshot.is_some() {
                let (disk, is_new) = snapshots::disk_of_mdt(&pool, target)?;
                is_of_old = is_new;
                disk
            } else {
                disk_on_pool(&pool, target, *made)?
            };
            // A pool that was imported on another node comes without it.
            (ground::take(dir, false, MDT_LABEL)?, Arc::new(disk))
        } else {
            let lock = ground::take(dir, *made, MDT_LABEL)?;
            (lock, Arc::new(RealDisk::new(dir).map_err(|error| failed(error.into()))?))
        };
        let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
        let uuid = target.id.0.to_be_bytes();
        let format = mdt::Format {
            label: mdt::Label { uuid, fs: base_fs(&target.fs).to_owned(), mdt: index },
            spread: self.spread(),
            now: time(clock.now()),
        };
        let volume = Volume::start_unhurried(disk, Arc::clone(&clock), JOURNAL_FLUSH_AFTER);
        let plain = mdt::Settings::default();
        let cache_bytes = if snapshot.is_some() { SNAPSHOT_CACHE_BYTES } else { plain.cache_bytes };
        let settings = mdt::Settings { cache_bytes, ..plain };
        let mdt = Mdt::open(&volume, Path::new(MDT_DIR), &format, settings).map_err(failed)?;
        if mdt.label().uuid != uuid {
            return Err(OpenError::OtherFilesystem(dir.to_owned()));
        }
        let osts = config.map(|config| config.osts.clone()).unwrap_or_default();
        let sink = || Box::new(Sink(self.leader.clone())) as Box<dyn Changelog>;
        let changelog = (self.config.fs.changelog && snapshot.is_none()).then(sink);
        let parts = Parts { mdt, osts, clock, changelog, snapshot, is_of_old };
        let mds = Mds::start(parts, self.mds_settings());
        let mds = mds.map_err(|errno| OpenError::Start { dir: dir.to_owned(), errno })?;
        snapshots::is_as_before(dir);
        let (mds, version) = (Arc::new(mds), AtomicU64::new(0));
        Ok(ServedMdt { mds, version, volume, lock })
    }

    fn mds_settings(&self) -> mds::Settings {
        let session_limit = self.config.fs.session_timeout;
        let recovery_limit = (session_limit / 2).max(RECOVERY_MIN);
        mds::Settings { session_limit, recovery_limit, ..mds::Settings::default() }
    }

    /// The layout of files in a filesystem that is made now.
    fn spread(&self) -> Spread {
        let fs = &self.config.fs;
        let count = u16::try_from(fs.stripe_count).ok().filter(|count| *count > 0);
        Spread::plain(fs.inline_size.0, fs.stripe_size.0 as u32, Stripes { count, first: None })
    }

    /// Removes what a target that is not served has on the disk.
    pub(super) fn remove(&self, target: &Target, dir: &Path) -> Result<(), OpenError> {
        if let Some(pool) = self.pools.of_target(dir) {
            let pool = pool.map_err(OpenError::Pool)?;
            match split_snapshot(&target.fs) {
                Some(_) => snapshots::remove(&pool, target)?,
                None => {
                    if let Some(dataset) = pool.dataset(&dataset_of(target)) {
                        pool.destroy_dataset(dataset).map_err(|error| on_pool(&pool, &error))?;
                    }
                }
            }
        }
        ground::remove(dir)?;
        if target.dir.is_none() {
            // The last of a filesystem takes its directory along.
            let _ = std::fs::remove_dir(self.data.filesystems().join(&target.fs));
        }
        Ok(())
    }
}

fn open_in_directory(dir: &Path, label: &Label, made: bool) -> Result<Ost, OpenError> {
    if !made {
        ground::make(dir)?;
        Ost::format(dir, label)?;
    }
    Ok(Ost::open(dir, label)?)
}

fn on_pool(pool: &Pool, error: &dyn Display) -> OpenError {
    OpenError::Pool(format!("pool '{}': {error}", pool.name()))
}

/// The name of a target's dataset; that of an OST is its label.
fn dataset_of(target: &Target) -> String {
    format!("{} of {:032x}", label(&target.fs, target.role), target.id.0)
}

/// The disk of an MDT on a pool.
fn disk_on_pool(pool: &Arc<Pool>, target: &Target, made: bool) -> Result<PoolDisk, OpenError> {
    let name = dataset_of(target);
    let open = if made { PoolDisk::open } else { PoolDisk::make };
    open(Arc::clone(pool), &name).map_err(|error| on_pool(pool, &format!("{name}: {error}")))
}

/// `dir` is where the server remembers what is not an object.
fn open_on_pool(pool: &Arc<Pool>, dir: &Path, label: &Label, made: bool) -> Result<Ost, OpenError> {
    let failed = |error: PoolError| on_pool(pool, &error);
    if !made {
        PoolObjects::format(pool, label).map_err(failed)?;
    }
    // A pool that was imported on another node comes without it.
    ground::make(dir)?;
    let objects = PoolObjects::open(Arc::clone(pool), label).map_err(failed)?;
    Ok(Ost::over(label.clone(), Box::new(objects), dir)?)
}

fn time(at: Timestamp) -> Time {
    let millis = at.millis();
    Time { secs: millis.div_euclid(1000), nanos: millis.rem_euclid(1000) as u32 * 1_000_000 }
}

impl Server {
    /// Why it does nothing any more, if it failed.
    pub(super) fn failed(&self) -> Option<String> {
        match self {
            Server::Mdt(mdt) => mdt.mds.failed().map(|why| format!("{why}; start its node again")),
            Server::Ost { .. } => None,
        }
    }

    /// Its space, as far as it tells.
    pub(super) fn space(&self) -> Option<Space> {
        match self {
            Server::Mdt(mdt) => mdt.mds.space().ok(),
            Server::Ost { oss, fs, id, index } => {
                let (fs, id, ost) = (fs.clone(), *id, *index);
                let request = Request { fs, id, ost, session: NOBODY, op: Op::Statfs };
                match oss.answer(&request, &[]).reply() {
                    Reply::Space(space) => Some(*space),
                    _ => None,
                }
            }
        }
    }

    /// Requests that it was sent, and sessions that it evicted, since its start.
    pub(super) fn counts(&self) -> (u64, u64) {
        match self {
            Server::Mdt(mdt) => (mdt.mds.requests(), mdt.mds.evictions()),
            Server::Ost { oss, fs, index, .. } => (oss.requests(fs, *index), 0),
        }
    }

    /// The version of the filesystem that it was told last, and how far OSTs are that drain.
    pub(super) fn drains(&self) -> (u64, Vec<DrainStatus>) {
        match self {
            Server::Mdt(mdt) => (mdt.version.load(Ordering::Relaxed), mdt.mds.drains()),
            Server::Ost { .. } => (0, Vec::new()),
        }
    }

    /// Who has a session.
    pub(super) fn clients(&self) -> Vec<ClientStatus> {
        match self {
            Server::Mdt(mdt) => {
                let sessions = mdt.mds.sessions().into_iter();
                sessions.map(|(session, host)| ClientStatus { host, session }).collect()
            }
            Server::Ost { .. } => Vec::new(),
        }
    }

    /// Ends when nothing of it is under way any more.
    pub(super) fn stop(self) {
        match self {
            Server::Mdt(ServedMdt { mds, volume, lock, .. }) => {
                mds.close();
                volume.close();
                drop(lock);
            }
            Server::Ost { oss, fs, index, .. } => {
                oss.remove(&fs, index);
            }
        }
    }
}
