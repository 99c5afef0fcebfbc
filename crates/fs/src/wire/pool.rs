//! What the leader asks a node about its pools, for those who look after them.

use serde::{Deserialize, Serialize};

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
        /// Also of disks that are part of another pool.
        force: bool,
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
    /// Look at everything in it, and mend what is not right; or stop that.
    Scrub {
        /// Its name.
        name: String,
        /// Stop it.
        stop: bool,
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
}

/// A scrub or a resilver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// It is a resilver: of what disks have missed.
    pub resilver: bool,
    /// `running`, `finished`, `stopped`, or why it failed.
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
    /// Some of them, for people.
    pub damaged_names: Vec<String>,
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
