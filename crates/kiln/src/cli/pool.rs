//! `kiln pool`, as plain arguments.

use std::path::PathBuf;

use clap::Subcommand;

/// `kiln pool`.
#[derive(Debug, Subcommand)]
pub(crate) enum Pool {
    /// Make a pool of disks: files or block devices; what is on them is lost
    ///
    /// VDEVS as for zpool: disks by themselves, or `mirror`, `raidz1`, `raidz2` or `raidz3` before the disks of one; records are spread over all vdevs.
    Create {
        /// Its name
        name: String,
        /// As in: raidz2 /dev/sdb /dev/sdc /dev/sdd /dev/sde
        #[arg(required = true)]
        vdevs: Vec<String>,
        /// Also of disks that are part of another pool
        #[arg(long, short)]
        force: bool,
        /// The node that has the disks, by rank
        #[arg(long, default_value_t = 0)]
        node: u32,
    },
    /// List pools and their space
    List {
        /// The pool [default: all]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show disks, errors, and how far a scrub is
    Status {
        /// The pool [default: all]
        name: Option<String>,
        /// Only pools with which something is wrong
        #[arg(short = 'x')]
        unhealthy: bool,
        /// Name all damaged objects
        #[arg(long, short)]
        verbose: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Read every copy and all parity, and mend what is not right; objects may be used meanwhile
    Scrub {
        /// The pool
        name: String,
        /// Stop the scrub that is under way
        #[arg(long, short, conflicts_with = "wait")]
        stop: bool,
        /// Return when it is done; ends with 1 when something could not be mended
        #[arg(long, short)]
        wait: bool,
    },
    /// Take a disk out of use, as long as the others have everything
    Offline {
        /// The pool
        name: String,
        /// The disk, by its path in `kiln pool status`
        disk: PathBuf,
    },
    /// Use a disk again that was away or taken out of use; it gets what was written meanwhile
    Online {
        /// The pool
        name: String,
        /// The disk, by its path in `kiln pool status`
        disk: PathBuf,
        /// Where it is now [default: the same path]
        at: Option<PathBuf>,
    },
    /// Put a new disk in the place of one, which may be gone; it gets what belongs there
    Replace {
        /// The pool
        name: String,
        /// The disk whose place it takes, by its path in `kiln pool status`
        disk: PathBuf,
        /// The new disk
        new: PathBuf,
        /// Also one that is part of another pool
        #[arg(long, short)]
        force: bool,
    },
    /// Give a pool up, so that it can be imported on another machine
    Export {
        /// The pool
        name: String,
    },
    /// Find pools by the labels of their disks, wherever these are now, and use one
    Import {
        /// The pool, or its id [default: list what could be imported]
        name: Option<String>,
        /// Where to look: a disk, or a directory of disks; may be repeated [default: /dev]
        #[arg(short = 'd', long = "dir", value_name = "DIR|DISK")]
        places: Vec<PathBuf>,
        /// Also a pool that another host seems to use
        #[arg(long, short)]
        force: bool,
        /// The node that has the disks, by rank
        #[arg(long, default_value_t = 0)]
        node: u32,
    },
    /// Destroy a pool with everything in it
    Destroy {
        /// The pool
        name: String,
        /// Do not ask for the name again
        #[arg(long)]
        yes: bool,
    },
}
