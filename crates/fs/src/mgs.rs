//! The MGS: which filesystems there are, and of which targets each is made.
//!
//! That is shared state of the cluster, and so it is rows of its store, changed by commands:
//!
//! | table | key | value |
//! |---|---|---|
//! | `filesystems` | name | [`Filesystem`] |
//! | `snapshots` | `NAME@SNAPSHOT` | [`SnapshotRow`] |
//! | `rollbacks` | name | [`Rollback`]: the filesystem is made what it was at a snapshot, and not served meanwhile |
//! | `doomed` | label of a target | [`Doomed`]: it belonged to a filesystem that was destroyed, and is still on its node's disk |
//! | `meta` | `version` | how many changes there were, `u64` |

use std::path::PathBuf;

use kiln_store::{Machine, ReadError, Snapshot, Tables};
use kiln_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::layout::STRIPES_MAX;
use crate::core::target::{
    SNAPSHOT_NAME_BYTES_MAX, base_fs, is_fs_name, is_snapshot_name, label, snapshot_fs, split_snapshot, uuid,
};
use crate::core::{OstIndex, Role};
use crate::wire::mgs::{self as wire, Address, Assignment, Duty, FsConfig, FsId, Ost, Target};

/// Key: name. Value: [`Filesystem`].
pub const FILESYSTEMS: &str = "filesystems";
/// Key: `NAME@SNAPSHOT`. Value: [`SnapshotRow`].
const SNAPSHOTS: &str = "snapshots";
/// Key: name. Value: [`Rollback`].
const ROLLBACKS: &str = "rollbacks";
/// Key: label. Value: [`Doomed`].
const DOOMED: &str = "doomed";
/// Key: [`VERSION`].
pub const META: &str = "meta";
/// In [`META`]: changes so far. Every change changes it, so this is what to watch.
pub const VERSION: &[u8] = b"version";

/// OSTs of one filesystem.
pub const OSTS_MAX: usize = STRIPES_MAX;
/// Snapshots of one filesystem.
pub const SNAPSHOTS_MAX: usize = 1024;

/// Where a target is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Rank of the node that has it.
    pub rank: u32,
    /// The directory that the administrator chose on that node, absolute; the target has one of its own in it. `None` is the
    /// usual place.
    pub dir: Option<PathBuf>,
}

/// An OST as stored. Its index is its place in [`Filesystem::osts`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OstRow {
    /// Where it is.
    pub place: Place,
    /// Gets no new objects.
    pub draining: bool,
    /// It is on its node's disk.
    pub made: bool,
}

/// A filesystem as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filesystem {
    /// Its id.
    pub id: FsId,
    /// The MGS's version at its last change.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Where its MDT is.
    pub mdt: Place,
    /// The MDT is on its node's disk.
    pub mdt_made: bool,
    /// Its OSTs. **Invariant:** 1 to [`OSTS_MAX`]; never shorter.
    pub osts: Vec<OstRow>,
}

/// A snapshot of a filesystem as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRow {
    /// The MGS's version that made it.
    pub version: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Where the MDT was.
    pub mdt: Place,
    /// Where the OSTs were.
    pub osts: Vec<Place>,
}

/// A filesystem that is made what it was, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// At this snapshot.
    pub snapshot: String,
}

/// A target that is to be removed, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// The target.
    pub target: Target,
    /// Rank of the node that has it.
    pub rank: u32,
}

/// What the store is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Makes a filesystem.
    Create {
        /// Its name.
        name: String,
        /// Its id, of random bits.
        id: FsId,
        /// Where its MDT is.
        mdt: Place,
        /// Where its OSTs are.
        osts: Vec<Place>,
    },
    /// Gives a filesystem another OST.
    AddOst {
        /// The filesystem.
        name: String,
        /// Where the OST is.
        place: Place,
    },
    /// Keeps new objects from an OST, or lets them go there again.
    SetDraining {
        /// The filesystem.
        name: String,
        /// The OST.
        ost: OstIndex,
        /// Whether it drains.
        draining: bool,
    },
    /// Takes a filesystem away; its targets are doomed.
    Destroy {
        /// The filesystem.
        name: String,
    },
    /// A target is on its node's disk.
    Made {
        /// The target.
        target: Target,
    },
    /// A doomed target is gone.
    Removed {
        /// The target.
        target: Target,
    },
    /// Asks whether a filesystem may get a snapshot of this name now; changes nothing.
    MaySnapshot {
        /// The filesystem.
        name: String,
        /// The snapshot's own name.
        snapshot: String,
    },
    /// A snapshot of a filesystem is on the disks of its targets.
    AddSnapshot {
        /// The filesystem.
        name: String,
        /// Its own name.
        snapshot: String,
    },
    /// Takes a snapshot away; what it is on the disks is doomed.
    DestroySnapshot {
        /// The filesystem.
        name: String,
        /// Its own name.
        snapshot: String,
    },
    /// A filesystem is made what it was at its newest snapshot: until that is done it is not served.
    BeginRollback {
        /// The filesystem.
        name: String,
        /// The snapshot.
        snapshot: String,
    },
    /// It is done, or given up.
    EndRollback {
        /// The filesystem.
        name: String,
    },
}

/// What it answers: the filesystem as it is afterwards, where there is one.
pub type Reply = Option<Filesystem>;

/// Why a command is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The name is none.
    #[error("{0:?} cannot be a filesystem's name: it has 1 to 8 letters, digits, '-' and '_'")]
    Name(String),
    /// The name is taken.
    #[error("there is a filesystem {0} already; `kiln fs status {0}` shows it")]
    Exists(String),
    /// There was one of the name, and it is not gone yet.
    #[error(
        "{0} of the filesystem that had this name is still being removed; try again when the node of rank {1} has done it"
    )]
    StillRemoved(String, u32),
    /// There is none.
    #[error("there is no filesystem {0}; `kiln fs list` shows those there are")]
    NoFilesystem(String),
    /// It has no such OST.
    #[error("filesystem {name} has no {}; `kiln fs status {name}` shows those it has", Role::Ost(*.ost))]
    NoOst {
        /// The filesystem.
        name: String,
        /// The OST.
        ost: OstIndex,
    },
    /// The number of OSTs is out of bounds.
    #[error("a filesystem has 1 to {OSTS_MAX} OSTs")]
    OstCount,
    /// Nothing would be left to write to.
    #[error("{0} is the last OST that takes new objects; add another first: kiln fs add-ost")]
    LastOst(String),
    /// The name is none.
    #[error(
        "{0:?} cannot be a snapshot's name: it has 1 to {SNAPSHOT_NAME_BYTES_MAX} letters, digits, '-', '_', '.' and ':', and begins with no '.'"
    )]
    SnapshotName(String),
    /// The name is taken.
    #[error("there is a snapshot {0} already; `kiln fs snapshots` shows those there are")]
    SnapshotExists(String),
    /// There is none.
    #[error("there is no snapshot {0}; `kiln fs snapshots` shows those there are")]
    NoSnapshot(String),
    /// There are too many.
    #[error(
        "{0} has {SNAPSHOTS_MAX} snapshots, and cannot have more; destroy one: kiln fs destroy {0}@SNAPSHOT"
    )]
    SnapshotCount(String),
    /// Only the newest can be gone back to.
    #[error("{name}@{snapshot} is not the newest snapshot; destroy those after it first: {later}")]
    NotNewest {
        /// The filesystem.
        name: String,
        /// The snapshot.
        snapshot: String,
        /// Those after it.
        later: String,
    },
    /// There are targets that the snapshot has not.
    #[error(
        "{name} has OSTs that were added after {name}@{snapshot}, and what is on those cannot be taken back; copy what is needed from .snapshots/{snapshot}"
    )]
    OstsAdded {
        /// The filesystem.
        name: String,
        /// The snapshot.
        snapshot: String,
    },
    /// A filesystem with snapshots goes only with them.
    #[error("{0} has snapshots, which would be lost too: {1}; destroy them first, or all of it with --force")]
    HasSnapshots(String, String),
    /// A rollback is under way.
    #[error(
        "{0} is being rolled back to {0}@{1}; do that again if it does not end: kiln fs rollback {0}@{1}"
    )]
    RollingBack(String, String),
    /// A directory that depends on who reads it.
    #[error("{0} is no absolute path; the directory for a target is one, on its node")]
    RelativeDir(String),
}

/// The MGS's part of the store.
#[derive(Debug, Default, Clone, Copy)]
pub struct MgsMachine;

impl Machine for MgsMachine {
    const NAME: &'static str = "mgs";
    type Command = Command;
    type Reply = Reply;
    type Rejection = Rejection;

    fn apply(&self, tables: &mut Tables<'_>, command: Command, at: Timestamp) -> Result<Reply, Rejection> {
        match command {
            Command::Create { name, id, mdt, osts } => {
                let osts = osts.into_iter().map(OstRow::new).collect();
                create(tables, name, Filesystem { id, version: 0, created: at, mdt, mdt_made: false, osts })
            }
            Command::AddOst { name, place } => add_ost(tables, &name, place),
            Command::SetDraining { name, ost, draining } => set_draining(tables, name, ost, draining),
            Command::Destroy { name } => destroy(tables, &name),
            Command::Made { target } => Ok(made(tables, &target)),
            Command::Removed { target } => {
                let key = label(&target.fs, target.role);
                let row = tables.get::<Doomed>(DOOMED, key.as_bytes());
                if row.is_some_and(|doomed| doomed.target.id == target.id) {
                    tables.delete(DOOMED, key.as_bytes());
                    next_version(tables);
                }
                Ok(None)
            }
            Command::MaySnapshot { name, snapshot } => {
                let row = get(tables, &name)?;
                check_snapshot(tables, &name, &snapshot)?;
                Ok(Some(row))
            }
            Command::AddSnapshot { name, snapshot } => add_snapshot(tables, &name, &snapshot, at),
            Command::DestroySnapshot { name, snapshot } => {
                destroy_snapshot(tables, &name, &snapshot)?;
                Ok(Some(put_again(tables, &name)?))
            }
            Command::BeginRollback { name, snapshot } => begin_rollback(tables, name, snapshot),
            Command::EndRollback { name } => {
                tables.delete(ROLLBACKS, name.as_bytes());
                Ok(Some(put_again(tables, &name)?))
            }
        }
    }
}

fn create(tables: &mut Tables<'_>, name: String, new: Filesystem) -> Result<Reply, Rejection> {
    if !is_fs_name(&name) {
        return Err(Rejection::Name(name));
    }
    if tables.has(FILESYSTEMS, name.as_bytes()) {
        return Err(Rejection::Exists(name));
    }
    if new.osts.is_empty() || new.osts.len() > OSTS_MAX {
        return Err(Rejection::OstCount);
    }
    let mut doomed = tables.scan::<Doomed>(DOOMED, &[]).into_iter().map(|(_, doomed)| doomed);
    let of_it = |target: &Target| base_fs(&target.fs) == name;
    if let Some(Doomed { target, rank }) = doomed.find(|doomed| of_it(&doomed.target)) {
        return Err(Rejection::StillRemoved(label(&target.fs, target.role), rank));
    }
    new.places().try_for_each(|(_, place)| check_dir(place))?;
    Ok(Some(put(tables, &name, new)))
}

fn add_ost(tables: &mut Tables<'_>, name: &str, place: Place) -> Result<Reply, Rejection> {
    let mut row = get(tables, name)?;
    if row.osts.len() >= OSTS_MAX {
        return Err(Rejection::OstCount);
    }
    check_dir(&place)?;
    row.osts.push(OstRow::new(place));
    Ok(Some(put(tables, name, row)))
}

fn set_draining(
    tables: &mut Tables<'_>,
    name: String,
    ost: OstIndex,
    draining: bool,
) -> Result<Reply, Rejection> {
    let mut row = get(tables, &name)?;
    let Some(found) = row.osts.get_mut(usize::from(ost.0)) else {
        return Err(Rejection::NoOst { name, ost });
    };
    found.draining = draining;
    if row.osts.iter().all(|ost| ost.draining) {
        return Err(Rejection::LastOst(label(&name, Role::Ost(ost))));
    }
    Ok(Some(put(tables, &name, row)))
}

fn destroy(tables: &mut Tables<'_>, name: &str) -> Result<Reply, Rejection> {
    let row = get(tables, name)?;
    tables.delete(ROLLBACKS, name.as_bytes());
    for (snapshot, _) in snapshots_in(tables, name) {
        destroy_snapshot(tables, name, &snapshot)?;
    }
    tables.delete(FILESYSTEMS, name.as_bytes());
    doom(tables, row.places().map(|(role, place)| (row.target(name, role, place), place.rank)));
    Ok(None)
}

fn doom(tables: &mut Tables<'_>, targets: impl Iterator<Item = (Target, u32)>) {
    for (target, rank) in targets {
        let key = label(&target.fs, target.role);
        tables.put(DOOMED, key.as_bytes(), &Doomed { target, rank });
    }
    next_version(tables);
}

fn add_snapshot(
    tables: &mut Tables<'_>,
    name: &str,
    snapshot: &str,
    created: Timestamp,
) -> Result<Reply, Rejection> {
    let row = get(tables, name)?;
    check_snapshot(tables, name, snapshot)?;
    let (mdt, osts) = (row.mdt.clone(), row.osts.iter().map(|ost| ost.place.clone()).collect());
    let made = put(tables, name, row);
    let row = SnapshotRow { version: made.version, created, mdt, osts };
    tables.put(SNAPSHOTS, snapshot_fs(name, snapshot).as_bytes(), &row);
    Ok(Some(made))
}

/// Whether a filesystem may get a snapshot of this name now.
fn check_snapshot(tables: &mut Tables<'_>, name: &str, snapshot: &str) -> Result<(), Rejection> {
    if !is_snapshot_name(snapshot) {
        return Err(Rejection::SnapshotName(snapshot.to_owned()));
    }
    let full = snapshot_fs(name, snapshot);
    let there = snapshots_in(tables, name);
    if there.iter().any(|(other, _)| other == snapshot) {
        return Err(Rejection::SnapshotExists(full));
    }
    if there.len() >= SNAPSHOTS_MAX {
        return Err(Rejection::SnapshotCount(name.to_owned()));
    }
    if let Some(Rollback { snapshot }) = tables.get(ROLLBACKS, name.as_bytes()) {
        return Err(Rejection::RollingBack(name.to_owned(), snapshot));
    }
    let doomed = tables.scan::<Doomed>(DOOMED, &[]).into_iter().map(|(_, doomed)| doomed);
    match doomed.into_iter().find(|doomed| doomed.target.fs == full) {
        Some(Doomed { target, rank }) => Err(Rejection::StillRemoved(label(&full, target.role), rank)),
        None => Ok(()),
    }
}

fn destroy_snapshot(tables: &mut Tables<'_>, name: &str, snapshot: &str) -> Result<(), Rejection> {
    let full = snapshot_fs(name, snapshot);
    let id = get(tables, name)?.id;
    let there: Option<SnapshotRow> = tables.get(SNAPSHOTS, full.as_bytes());
    let row = there.ok_or_else(|| Rejection::NoSnapshot(full.clone()))?;
    if let Some(Rollback { snapshot }) = tables.get(ROLLBACKS, name.as_bytes()) {
        return Err(Rejection::RollingBack(name.to_owned(), snapshot));
    }
    tables.delete(SNAPSHOTS, full.as_bytes());
    doom(tables, row.targets(&full, id));
    Ok(())
}

fn begin_rollback(tables: &mut Tables<'_>, name: String, snapshot: String) -> Result<Reply, Rejection> {
    let row = get(tables, &name)?;
    let mut there = snapshots_in(tables, &name);
    let Some(at) = there.iter().position(|(other, _)| *other == snapshot) else {
        return Err(Rejection::NoSnapshot(snapshot_fs(&name, &snapshot)));
    };
    let later: Vec<String> = there.split_off(at + 1).into_iter().map(|(later, _)| later).collect();
    if !later.is_empty() {
        return Err(Rejection::NotNewest { name, snapshot, later: later.join(", ") });
    }
    if there[at].1.osts.len() < row.osts.len() {
        return Err(Rejection::OstsAdded { name, snapshot });
    }
    tables.put(ROLLBACKS, name.as_bytes(), &Rollback { snapshot });
    Ok(Some(put(tables, &name, row)))
}

/// The snapshots of a filesystem, the oldest first.
fn snapshots_in(tables: &mut Tables<'_>, name: &str) -> Vec<(String, SnapshotRow)> {
    of_filesystem(name, tables.scan::<SnapshotRow>(SNAPSHOTS, snapshot_fs(name, "").as_bytes()))
}

fn of_filesystem(name: &str, rows: Vec<(Vec<u8>, SnapshotRow)>) -> Vec<(String, SnapshotRow)> {
    let own = |(full, row): (Vec<u8>, SnapshotRow)| {
        let full = String::from_utf8_lossy(&full).into_owned();
        split_snapshot(&full).filter(|(fs, _)| *fs == name).map(|(_, own)| (own.to_owned(), row))
    };
    let mut found: Vec<(String, SnapshotRow)> = rows.into_iter().filter_map(own).collect();
    found.sort_by_key(|(_, row)| row.version);
    found
}

/// Notes that a target is there; nothing that a client has to know.
fn made(tables: &mut Tables<'_>, target: &Target) -> Reply {
    let mut row = get(tables, &target.fs).ok().filter(|row| row.id == target.id)?;
    match target.role {
        Role::Mdt(_) => row.mdt_made = true,
        Role::Ost(OstIndex(index)) => row.osts.get_mut(usize::from(index))?.made = true,
    }
    tables.put(FILESYSTEMS, target.fs.as_bytes(), &row);
    next_version(tables);
    Some(row)
}

fn get(tables: &mut Tables<'_>, name: &str) -> Result<Filesystem, Rejection> {
    tables.get(FILESYSTEMS, name.as_bytes()).ok_or_else(|| Rejection::NoFilesystem(name.to_owned()))
}

/// Stores a filesystem that has changed.
fn put(tables: &mut Tables<'_>, name: &str, mut row: Filesystem) -> Filesystem {
    row.version = next_version(tables);
    tables.put(FILESYSTEMS, name.as_bytes(), &row);
    row
}

/// A filesystem whose surroundings have changed.
fn put_again(tables: &mut Tables<'_>, name: &str) -> Result<Filesystem, Rejection> {
    let row = get(tables, name)?;
    Ok(put(tables, name, row))
}

fn next_version(tables: &mut Tables<'_>) -> u64 {
    let next = tables.get::<u64>(META, VERSION).unwrap_or(0) + 1;
    tables.put(META, VERSION, &next);
    next
}

fn check_dir(place: &Place) -> Result<(), Rejection> {
    match &place.dir {
        Some(dir) if !dir.is_absolute() => Err(Rejection::RelativeDir(dir.display().to_string())),
        _ => Ok(()),
    }
}

impl OstRow {
    fn new(place: Place) -> OstRow {
        OstRow { place, draining: false, made: false }
    }
}

impl Filesystem {
    /// Each target with where it is, the MDT first.
    pub fn places(&self) -> impl Iterator<Item = (Role, &Place)> {
        let osts = self.osts.iter().zip(0..).map(|(ost, index)| (Role::Ost(OstIndex(index)), &ost.place));
        std::iter::once((Role::Mdt(0), &self.mdt)).chain(osts)
    }

    /// What clients and servers are told; `address` knows where the node of a rank listens.
    pub fn config(
        &self,
        name: &str,
        snapshots: &[(String, SnapshotRow)],
        address: impl Fn(u32) -> Address,
    ) -> FsConfig {
        let osts = self.osts.iter().zip(0..).map(|(ost, index)| Ost {
            index: OstIndex(index),
            uuid: uuid(name, Role::Ost(OstIndex(index))),
            rank: ost.place.rank,
            address: address(ost.place.rank),
            draining: ost.draining,
        });
        FsConfig {
            name: name.to_owned(),
            id: self.id,
            version: self.version,
            mdt_rank: self.mdt.rank,
            mdt: address(self.mdt.rank),
            osts: osts.collect(),
            snapshots: snapshots.iter().map(|(name, row)| row.told(name)).collect(),
        }
    }

    fn is_made(&self, role: Role) -> bool {
        match role {
            Role::Mdt(_) => self.mdt_made,
            Role::Ost(OstIndex(index)) => self.osts.get(usize::from(index)).is_some_and(|ost| ost.made),
        }
    }

    /// One of its targets.
    pub fn target(&self, name: &str, role: Role, place: &Place) -> Target {
        Target { fs: name.to_owned(), id: self.id, role, dir: place.dir.clone() }
    }
}

impl SnapshotRow {
    /// What clients are told of it.
    fn told(&self, name: &str) -> wire::Snapshot {
        wire::Snapshot { name: name.to_owned(), version: self.version, osts: self.osts.len() as u16 }
    }

    /// What it is on the disks, with the rank of the node; `full` is its name as a filesystem of its own.
    fn targets<'r>(&'r self, full: &'r str, id: FsId) -> impl Iterator<Item = (Target, u32)> + 'r {
        let osts = self.osts.iter().zip(0..).map(|(place, index)| (Role::Ost(OstIndex(index)), place));
        let places = std::iter::once((Role::Mdt(0), &self.mdt)).chain(osts);
        places.map(move |(role, place)| {
            (Target { fs: full.to_owned(), id, role, dir: place.dir.clone() }, place.rank)
        })
    }
}

/// The snapshots of a filesystem, the oldest first.
pub fn snapshots(snapshot: &Snapshot, name: &str) -> Result<Vec<(String, SnapshotRow)>, ReadError> {
    let rows = snapshot.scan::<SnapshotRow>(SNAPSHOTS, snapshot_fs(name, "").as_bytes())?;
    Ok(of_filesystem(name, rows))
}

/// The snapshot that a filesystem is being rolled back to.
pub fn rollback(snapshot: &Snapshot, name: &str) -> Result<Option<String>, ReadError> {
    Ok(snapshot.get::<Rollback>(ROLLBACKS, name.as_bytes())?.map(|rollback| rollback.snapshot))
}

/// What clients are told of a filesystem, or of a snapshot as a filesystem of its own; `None` when there is none.
pub fn config(
    snapshot: &Snapshot,
    name: &str,
    address: impl Fn(u32) -> Address,
) -> Result<Option<FsConfig>, ReadError> {
    let base = base_fs(name);
    let Some(row) = filesystem(snapshot, base)? else { return Ok(None) };
    let config = row.config(base, &snapshots(snapshot, base)?, address);
    Ok(match split_snapshot(name) {
        None => Some(config),
        Some((_, own)) => {
            config.snapshots.iter().find(|there| there.name == own).map(|own| config.of_snapshot(own))
        }
    })
}

/// Every filesystem by name.
pub fn filesystems(snapshot: &Snapshot) -> Result<Vec<(String, Filesystem)>, ReadError> {
    let rows = snapshot.scan::<Filesystem>(FILESYSTEMS, &[])?;
    Ok(rows.into_iter().map(|(name, row)| (String::from_utf8_lossy(&name).into_owned(), row)).collect())
}

/// One filesystem.
pub fn filesystem(snapshot: &Snapshot, name: &str) -> Result<Option<Filesystem>, ReadError> {
    snapshot.get(FILESYSTEMS, name.as_bytes())
}

/// The version of everything.
pub fn version(snapshot: &Snapshot) -> Result<u64, ReadError> {
    Ok(snapshot.get(META, VERSION)?.unwrap_or(0))
}

/// What the node of a rank has to do; `address` knows where the node of a rank listens.
pub fn duty(snapshot: &Snapshot, rank: u32, address: impl Fn(u32) -> Address) -> Result<Duty, ReadError> {
    let mut duty = Duty { version: version(snapshot)?, ..Duty::default() };
    for (name, row) in filesystems(snapshot)? {
        let there = snapshots(snapshot, &name)?;
        let config = row.config(&name, &there, &address);
        let is_rolled_back = rollback(snapshot, &name)?.is_some();
        let own = row.places().filter(|(_, place)| place.rank == rank && !is_rolled_back);
        duty.serve.extend(own.map(|(role, place)| Assignment {
            target: row.target(&name, role, place),
            made: row.is_made(role),
        }));
        for (own, at) in &there {
            let full = snapshot_fs(&name, own);
            let here = at.targets(&full, row.id).filter(|(_, at)| *at == rank);
            duty.serve.extend(here.map(|(target, _)| Assignment { target, made: true }));
        }
        if row.mdt.rank == rank {
            duty.configs.extend(config.snapshots.iter().map(|own| config.of_snapshot(own)));
            duty.configs.push(config);
        }
    }
    let doomed = snapshot.scan::<Doomed>(DOOMED, &[])?.into_iter().map(|(_, doomed)| doomed);
    duty.remove.extend(doomed.filter(|doomed| doomed.rank == rank).map(|doomed| doomed.target));
    // What has snapshots cannot go before them.
    duty.remove.sort_by_key(|target| split_snapshot(&target.fs).is_none());
    Ok(duty)
}

/// Whether something of a destroyed filesystem of this name is still on a disk.
pub fn is_doomed(snapshot: &Snapshot, name: &str) -> Result<bool, ReadError> {
    let doomed = snapshot.scan::<Doomed>(DOOMED, &[])?;
    Ok(doomed.iter().any(|(_, doomed)| doomed.target.fs == name || base_fs(&doomed.target.fs) == name))
}

#[cfg(test)]
mod tests;
