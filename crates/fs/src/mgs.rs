//! The MGS: which filesystems there are, and of which targets each is made.
//!
//! That is shared state of the cluster, and so it is rows of its store, changed by commands:
//!
//! | table | key | value |
//! |---|---|---|
//! | `filesystems` | name | [`Filesystem`] |
//! | `doomed` | label of a target | [`Doomed`]: it belonged to a filesystem that was destroyed, and is still on its node's disk |
//! | `meta` | `version` | how many changes there were, `u64` |

use std::path::PathBuf;

use kiln_store::{Machine, ReadError, Snapshot, Tables};
use kiln_types::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::layout::STRIPES_MAX;
use crate::core::target::{is_fs_name, label, uuid};
use crate::core::{OstIndex, Role};
use crate::wire::mgs::{Address, Assignment, Duty, FsConfig, FsId, Ost, Target};

/// Key: name. Value: [`Filesystem`].
pub const FILESYSTEMS: &str = "filesystems";
/// Key: label. Value: [`Doomed`].
const DOOMED: &str = "doomed";
/// Key: [`VERSION`].
pub const META: &str = "meta";
/// In [`META`]: changes so far. Every change changes it, so this is what to watch.
pub const VERSION: &[u8] = b"version";

/// OSTs of one filesystem.
pub const OSTS_MAX: usize = STRIPES_MAX;

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
    if let Some(Doomed { target, rank }) = doomed.find(|doomed| doomed.target.fs == name) {
        return Err(Rejection::StillRemoved(label(&name, target.role), rank));
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
    tables.delete(FILESYSTEMS, name.as_bytes());
    for (role, place) in row.places() {
        let target = row.target(name, role, place);
        let key = label(name, role);
        tables.put(DOOMED, key.as_bytes(), &Doomed { target, rank: place.rank });
    }
    next_version(tables);
    Ok(None)
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
    pub fn config(&self, name: &str, address: impl Fn(u32) -> Address) -> FsConfig {
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
        }
    }

    fn is_made(&self, role: Role) -> bool {
        match role {
            Role::Mdt(_) => self.mdt_made,
            Role::Ost(OstIndex(index)) => self.osts.get(usize::from(index)).is_some_and(|ost| ost.made),
        }
    }

    fn target(&self, name: &str, role: Role, place: &Place) -> Target {
        Target { fs: name.to_owned(), id: self.id, role, dir: place.dir.clone() }
    }
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
        if row.mdt.rank == rank {
            duty.configs.push(row.config(&name, &address));
        }
        let here = row.places().filter(|(_, place)| place.rank == rank);
        duty.serve.extend(here.map(|(role, place)| Assignment {
            target: row.target(&name, role, place),
            made: row.is_made(role),
        }));
    }
    let doomed = snapshot.scan::<Doomed>(DOOMED, &[])?.into_iter().map(|(_, doomed)| doomed);
    duty.remove.extend(doomed.filter(|doomed| doomed.rank == rank).map(|doomed| doomed.target));
    Ok(duty)
}

/// Whether something of a destroyed filesystem of this name is still on a disk.
pub fn is_doomed(snapshot: &Snapshot, name: &str) -> Result<bool, ReadError> {
    let doomed = snapshot.scan::<Doomed>(DOOMED, &[])?;
    Ok(doomed.iter().any(|(_, doomed)| doomed.target.fs == name))
}

#[cfg(test)]
mod tests;
