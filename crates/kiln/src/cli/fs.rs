//! `kiln fs`, as plain arguments.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `kiln fs`.
#[derive(Debug, Subcommand)]
pub(crate) enum Fs {
    /// Make a filesystem: names on an MDT, data over OSTs
    Create(Create),
    /// List filesystems
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a filesystem's targets and clients, or those of all
    Status {
        /// The filesystem [default: all]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a filesystem another OST; it may be mounted meanwhile
    AddOst {
        /// The filesystem
        name: String,
        /// A pool; or the node that has it, by host name or rank, and a directory there [default: the node's usual place]
        #[arg(value_name = "POOL|NODE[:DIR]")]
        place: String,
    },
    /// Empty an OST: it gets no new objects, and those that are there move to others while their files are used
    ///
    /// The server of the MDT moves them, also when this command is ended; `kiln fs status` shows how far it is. A file that is open stays, and is tried again.
    DrainOst {
        /// The filesystem
        name: String,
        /// The OST: its index, or its label as in `scratch-OST0001`
        ost: String,
        /// Let new objects go there again, and move no more away
        #[arg(long)]
        undo: bool,
        /// Return at once, not when the OST is empty
        #[arg(long, conflicts_with = "undo")]
        no_wait: bool,
        /// Name what cannot be moved, and end with 1, when nothing moved for so long
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        patience: u64,
    },
    /// Keep a filesystem as it is now, under DIR/.snapshots/SNAPSHOT of each of its mounts
    Snapshot {
        /// The filesystem, and a name for the snapshot; all its targets must be on pools
        #[arg(value_name = "NAME@SNAPSHOT")]
        name: String,
    },
    /// List the snapshots of a filesystem, or of all
    Snapshots {
        /// The filesystem [default: all]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a filesystem what it was at its newest snapshot; what was done since is lost
    Rollback {
        /// The snapshot
        #[arg(value_name = "NAME@SNAPSHOT")]
        name: String,
        /// Do not ask for the name again
        #[arg(long)]
        yes: bool,
        /// Also while it is mounted: its clients' programs get errors
        #[arg(long)]
        force: bool,
    },
    /// Destroy a filesystem with everything in it, or a snapshot
    Destroy {
        /// The filesystem, or NAME@SNAPSHOT
        name: String,
        /// Do not ask for the name again
        #[arg(long)]
        yes: bool,
        /// Also while it is mounted, and with its snapshots: its clients' programs get errors
        #[arg(long)]
        force: bool,
    },
    /// Show what jobs did to a filesystem, those that did most first
    Jobstats {
        /// The filesystem [default: the only one there is]
        name: Option<String>,
        /// How many jobs
        #[arg(long, value_name = "N", default_value_t = 20)]
        top: usize,
        /// Print every job in Lustre's form, which is YAML
        #[arg(long, conflicts_with = "json")]
        yaml: bool,
        /// Print every job as JSON
        #[arg(long)]
        json: bool,
    },
    /// Mount a filesystem; returns when programs may use it
    Mount(Mount),
    /// Unmount what `kiln fs mount` has mounted
    Umount {
        /// Where it is mounted
        dir: PathBuf,
        /// Take the directory out of sight now, and end when the last program has left it
        #[arg(long)]
        lazy: bool,
    },
}

/// `kiln fs create`.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Its name: 1 to 8 letters, digits, '-' and '_'
    pub name: String,
    /// The node that has the MDT, by host name or rank, and a directory there [default: the first node]
    #[arg(long, value_name = "NODE[:DIR]")]
    pub mdt: Option<String>,
    /// A pool that has an OST, or a node and a directory there; may be repeated [default: one on each node, at least two]
    #[arg(long = "ost", value_name = "POOL|NODE[:DIR]")]
    pub osts: Vec<String>,
    /// Return at once, not when its targets are served
    #[arg(long)]
    pub no_wait: bool,
}

/// `kiln fs mount`.
#[derive(Debug, Args)]
pub(crate) struct Mount {
    /// The filesystem
    pub name: String,
    /// An empty directory
    pub dir: PathBuf,
    /// Stay in the foreground, and write what happens to standard error
    #[arg(long, short)]
    pub foreground: bool,
    /// Mount options, separated by commas: `ro`, `allow_other`, `nonempty`
    #[arg(short = 'o', value_name = "OPTIONS")]
    pub options: Vec<String>,
}
