//! `kiln pool`, as plain arguments.

use std::path::PathBuf;

use clap::Subcommand;
use kiln_types::ByteSize;

/// `kiln pool`.
#[derive(Debug, Subcommand)]
pub(crate) enum Pool {
    /// Make a pool of disks: files or block devices; what is on them is lost
    ///
    /// VDEVS as for zpool: disks by themselves, or `mirror`, `raidz1`, `raidz2` or `raidz3` before the disks of one, and `spare` before disks that step
    /// in when one fails; records are spread over all vdevs. Where a directory is named, the disk is a file in it.
    Create {
        /// Its name
        name: String,
        /// As in: raidz2 /dev/sdb /dev/sdc /dev/sdd /dev/sde
        #[arg(required = true)]
        vdevs: Vec<String>,
        /// How it keeps what is written, as in compression=lz4; may be repeated
        #[arg(short = 'o', short_alias = 'O', value_name = "PROPERTY=VALUE")]
        properties: Vec<String>,
        /// Also of disks that are part of another pool
        #[arg(long, short)]
        force: bool,
        /// The node that has the disks, by rank
        #[arg(long, default_value_t = 0)]
        node: u32,
    },
    /// Add vdevs or spares to a pool; new records are spread over all vdevs
    Add {
        /// The pool
        name: String,
        /// As for create
        #[arg(required = true)]
        vdevs: Vec<String>,
        /// Also of disks that are part of another pool, and vdevs that can do without fewer disks than the others
        #[arg(long, short)]
        force: bool,
    },
    /// Change how a pool keeps what is written from now on
    Set {
        /// compression=off|lz4|zstd or checksum=xxh3|blake3
        property: String,
        /// The pool
        name: String,
    },
    /// Show how pools keep what is written
    Get {
        /// The property, or all
        property: String,
        /// The pool [default: all]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
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
        /// Let it rest where it is; `kiln pool scrub` without this goes on
        #[arg(long, short, conflicts_with_all = ["wait", "stop"])]
        pause: bool,
        /// Look at no more than this in a second, as in 100MiB; 0B for no limit
        #[arg(long, conflicts_with_all = ["pause", "stop"])]
        rate: Option<ByteSize>,
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
    /// Give a single disk or a mirror one more copy
    Attach {
        /// The pool
        name: String,
        /// A disk of the mirror, by its path in `kiln pool status`
        disk: PathBuf,
        /// The new disk
        new: PathBuf,
        /// Also one that is part of another pool
        #[arg(long, short)]
        force: bool,
    },
    /// Take a disk out of a mirror for good, as long as the others have everything
    Detach {
        /// The pool
        name: String,
        /// The disk, by its path in `kiln pool status`
        disk: PathBuf,
    },
    /// Take a spare out of a pool
    Remove {
        /// The pool
        name: String,
        /// The disk, by its path in `kiln pool status`
        disk: PathBuf,
    },
    /// Show what happened to pools since their nodes started; topic kiln.pool has it all
    Events {
        /// The pool [default: all]
        name: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what was done to a pool by commands; it is kept in the pool
    History {
        /// The pool [default: all]
        name: Option<String>,
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
