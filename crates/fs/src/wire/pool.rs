//! What the leader asks a node about its pools, for those who look after them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::core::Role;
use crate::core::target::{snapshot_fs, split_snapshot};

/// What is to be done with the pools of a node. Paths are absolute, and of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How they are.
    Status,
    /// Make one.
    Create {
        /// Its name.
        name: String,
        /// Its vdevs.
        vdevs: Vec<NewVdev>,
        /// Disks that step in when one fails.
        spares: Vec<String>,
        /// How it keeps what is written: names of properties with their values.
        properties: BTreeMap<String, String>,
        /// Also of disks that are part of another pool.
        force: bool,
    },
    /// Give one more vdevs, or spares.
    Add {
        /// Its name.
        name: String,
        /// The new vdevs.
        vdevs: Vec<NewVdev>,
        /// The new spares.
        spares: Vec<String>,
        /// Also of disks that are part of another pool, and vdevs that stand less than the others.
        force: bool,
    },
    /// Change how it keeps what is written from now on.
    Set {
        /// Its name.
        name: String,
        /// The property.
        property: String,
        /// Its new value.
        value: String,
    },
    /// Use one whose disks have their labels.
    Import {
        /// Its name, or its id in hexadecimal digits.
        name: String,
        /// Where to look: files, devices, and directories of these.
        places: Vec<String>,
        /// Also when another host seems to use it.
        force: bool,
    },
    /// Which ones could be imported.
    Importable {
        /// Where to look.
        places: Vec<String>,
    },
    /// Give one up, so that it can be imported elsewhere.
    Export {
        /// Its name.
        name: String,
    },
    /// Destroy one with everything in it.
    Destroy {
        /// Its name.
        name: String,
    },
    /// Look at everything in it, and mend what is not right; or pause or stop that.
    Scrub {
        /// Its name.
        name: String,
        /// What of it.
        act: ScrubAct,
        /// The most that is looked at in a second, in bytes.
        rate: Option<u64>,
    },
    /// What happened to the pools of the node since its start: [`Reply::Events`].
    Events,
    /// What was done to it by commands: [`Reply::History`].
    History {
        /// Its name.
        name: String,
    },
    /// Give a mirror one more disk.
    Attach {
        /// The pool's name.
        name: String,
        /// A disk of the mirror, by its path in the pool's status.
        disk: String,
        /// The new one.
        new: String,
        /// Also one that is part of another pool.
        force: bool,
    },
    /// Take a disk out of a mirror for good.
    Detach {
        /// The pool's name.
        name: String,
        /// The disk, by its path in the pool's status.
        disk: String,
    },
    /// Take a spare out of a pool.
    Remove {
        /// The pool's name.
        name: String,
        /// The disk, by its path in the pool's status.
        disk: String,
    },
    /// Take a disk out of use.
    Offline {
        /// The pool's name.
        name: String,
        /// The disk, by its path in the pool's status.
        disk: String,
    },
    /// Use a disk again that was away or taken out of use.
    Online {
        /// The pool's name.
        name: String,
        /// The disk, by its path in the pool's status.
        disk: String,
        /// Where it is now, if not there.
        at: Option<String>,
    },
    /// Put a new disk in the place of one.
    Replace {
        /// The pool's name.
        name: String,
        /// The disk whose place it takes, by its path in the pool's status.
        disk: String,
        /// The new one.
        new: String,
        /// Also one that is part of another pool.
        force: bool,
    },
}

impl Request {
    /// The pool that it is about, if that is to be there already.
    pub fn pool(&self) -> Option<&str> {
        match self {
            Request::Add { name, .. }
            | Request::Set { name, .. }
            | Request::Export { name }
            | Request::Destroy { name }
            | Request::Scrub { name, .. }
            | Request::History { name }
            | Request::Attach { name, .. }
            | Request::Detach { name, .. }
            | Request::Remove { name, .. }
            | Request::Offline { name, .. }
            | Request::Online { name, .. }
            | Request::Replace { name, .. } => Some(name),
            Request::Status
            | Request::Events
            | Request::Create { .. }
            | Request::Import { .. }
            | Request::Importable { .. } => None,
        }
    }
}

/// What is to be done about a scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubAct {
    /// Begin one, or go on with one that is paused.
    Start,
    /// Let it rest where it is.
    Pause,
    /// End it.
    Stop,
}

/// A vdev to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVdev {
    /// 0 for copies on each disk, 1 to 3 for so much parity.
    pub parity: u8,
    /// Its disks.
    pub disks: Vec<String>,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done.
    Done,
    /// How the pools are.
    Pools(Vec<Pool>),
    /// Which ones could be imported.
    Importable(Vec<Importable>),
    /// What happened, the oldest first.
    Events(Vec<Event>),
    /// Lines, the oldest first.
    History(Vec<String>),
    /// It cannot be, and why.
    Bad(String),
}

/// A pool of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// `ONLINE`, `DEGRADED`, `SUSPENDED` or `UNAVAIL`.
    pub state: String,
    /// Why it is in that state, and what to do, if there is something to say.
    pub note: Option<String>,
    /// All of its space, in bytes, with what parity takes.
    pub size: u64,
    /// What of it is taken.
    pub allocated: u64,
    /// What was looked at last, or is being looked at.
    pub scan: Option<Scan>,
    /// Its vdevs.
    pub vdevs: Vec<Vdev>,
    /// Its spares.
    pub spares: Vec<Disk>,
    /// How it keeps what is written: names of properties with their values.
    pub properties: BTreeMap<String, String>,
    /// Records that were found damaged beyond repair, as many as are named.
    pub damaged: Vec<Damaged>,
}

impl Pool {
    /// All of its disks but the spares, also those that are vdevs by themselves.
    pub fn all_disks(&self) -> impl Iterator<Item = Disk> + '_ {
        self.vdevs.iter().flat_map(|vdev| {
            let own = vdev.disks.is_empty().then(|| Disk {
                path: vdev.name.clone(),
                state: vdev.state.clone(),
                behind: vdev.behind,
                errors: vdev.errors,
                mended: vdev.mended,
            });
            own.into_iter().chain(vdev.disks.iter().cloned())
        })
    }
}

/// A record that nothing can mend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Damaged {
    /// The dataset; `None` for what leads to the datasets.
    pub dataset: Option<String>,
    /// The object; `None` for a node of the dataset's tree, with which many may be lost.
    pub object: Option<u64>,
    /// Where in the object it begins, in bytes.
    pub offset: u64,
    /// The file that the object is of, from the root of its filesystem, where that is known.
    pub path: Option<String>,
}

impl Damaged {
    /// The target that the dataset is, and its filesystem, or the snapshot of that: `scratch-OST0001 of ID@noon` is an OST of
    /// `scratch@noon`.
    pub fn target(&self) -> Option<(String, Role)> {
        let dataset = self.dataset.as_deref()?;
        let (fs, role) = dataset.split(' ').next()?.rsplit_once('-')?;
        let fs = split_snapshot(dataset).map_or(fs.to_owned(), |(_, own)| snapshot_fs(fs, own));
        Some((fs, role.parse().ok()?))
    }
}

/// Something that happened to a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The node that has the pool, by its host's name.
    pub node: String,
    /// The pool.
    pub pool: String,
    /// What kind of event, as in `checksum`, `statechange`, `scrub_finish`.
    pub class: String,
    /// The disk, if it is about one.
    pub disk: Option<String>,
    /// For people.
    pub text: String,
}

/// A scrub or a resilver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// It is a resilver: of what disks have missed.
    pub resilver: bool,
    /// `running`, `paused`, `finished`, `stopped`, or why it failed.
    pub state: String,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// For how long it ran.
    pub secs: u64,
    /// What was looked at, in bytes.
    pub looked_at: u64,
    /// About how much there is to look at.
    pub of: u64,
    /// Copies and columns that were mended.
    pub mended: u64,
    /// Records that nothing can mend.
    pub damaged: u64,
}

/// A top-level vdev.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vdev {
    /// As in `raidz1-0`; that of its only disk, if it has one.
    pub name: String,
    /// How it is.
    pub state: String,
    /// Its disks; none when it is a disk itself.
    pub disks: Vec<Disk>,
    /// Reads, writes and checksums that went wrong, when it is a disk itself.
    pub errors: [u64; 3],
    /// It lacks what was written while it was away, when it is a disk itself.
    pub behind: bool,
    /// Parts of records that were written again, when it is a disk itself.
    pub mended: u64,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Where it is, or was.
    pub path: String,
    /// How it is.
    pub state: String,
    /// It lacks what was written while it was away.
    pub behind: bool,
    /// Reads, writes and checksums that went wrong.
    pub errors: [u64; 3],
    /// Parts of records that were written again.
    pub mended: u64,
}

/// A pool that could be imported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Importable {
    /// Its name.
    pub name: String,
    /// Its id, in hexadecimal digits.
    pub id: String,
    /// `exported`, `active` or `destroyed`.
    pub state: String,
    /// Who uses it, or did last.
    pub host: String,
    /// Disks that were found, and how many there should be.
    pub disks: (u32, u32),
}
