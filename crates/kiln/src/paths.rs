//! Where things are: the data directory, what lies in it, and the pointer by which a bare `flux` or `kiln` finds the instance that runs here.

use std::env;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use crate::commands::Usage;

/// Longest path that fits a Unix socket address on Linux, in bytes (`sun_path` less its NUL).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The data directory of one instance and the names inside it.
#[derive(Debug, Clone)]
pub(crate) struct DataDir(PathBuf);

impl DataDir {
    /// Takes `dir` as an absolute path; nothing is created.
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        std::path::absolute(dir).map(Self)
    }

    /// The directory itself.
    pub(crate) fn root(&self) -> &Path {
        &self.0
    }

    /// Sockets, locks and pid files: nothing here is worth keeping.
    pub(crate) fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// One log file per node.
    pub(crate) fn logs(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Held by the supervisor for as long as it lives.
    pub(crate) fn lock(&self) -> PathBuf {
        self.run().join("lock")
    }

    /// What the supervisor knows: pids, nodes, listeners (JSON, replaced whole).
    pub(crate) fn supervisor_file(&self) -> PathBuf {
        self.run().join("supervisor.json")
    }

    /// The settings this run was started with, as its nodes read them.
    pub(crate) fn effective_config(&self) -> PathBuf {
        self.run().join("config.json")
    }

    /// The leader's socket for `kiln` commands.
    pub(crate) fn control_socket(&self) -> PathBuf {
        self.run().join("control.sock")
    }

    /// The job broker's socket of a rank; `flux` connects to one of these.
    pub(crate) fn broker_socket(&self, rank: u32) -> PathBuf {
        self.run().join(format!("broker-{rank}.sock"))
    }

    /// Where a node serves filesystems: the targets it has, and on the leader the MGS.
    pub(crate) fn fs_socket(&self, rank: u32) -> PathBuf {
        self.run().join(format!("fs-{rank}.sock"))
    }

    /// One file for each mount that runs, locked by its process.
    pub(crate) fn mounts(&self) -> PathBuf {
        self.run().join("mounts")
    }

    /// The targets of filesystems, unless the administrator chose other directories.
    pub(crate) fn filesystems(&self) -> PathBuf {
        self.0.join("fs")
    }

    /// What a node knows of its pools: a directory for each.
    pub(crate) fn pools(&self, rank: u32) -> PathBuf {
        self.0.join("pools").join(rank.to_string())
    }

    /// Held by the process of a node for as long as it lives: nobody else touches what is that node's.
    pub(crate) fn node_lock(&self, rank: u32) -> PathBuf {
        self.run().join(format!("node-{rank}.lock"))
    }

    /// The password with which agents log in to the broker; readable by the owner alone.
    pub(crate) fn agent_secret(&self) -> PathBuf {
        self.run().join("agent.secret")
    }

    /// Makes the directories, private to the user, and refuses a path too deep for a socket address.
    pub(crate) fn prepare(&self) -> anyhow::Result<()> {
        let longest = self.broker_socket(99_999);
        if longest.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let (path, bytes) = (longest.display(), longest.as_os_str().len());
            return Err(Usage(format!(
                "the data directory's path is too long for a Unix socket: {path} is {bytes} bytes, {SOCKET_PATH_BYTES_MAX} is the limit; choose a shorter --data"
            ))
            .into());
        }
        // The data directory itself may be somebody's choice; what is in it is private in any case.
        let kept = ["store", "kafka", "amqp", "jobs", "fs"].map(|name| self.0.join(name));
        for dir in [self.0.clone(), self.run(), self.logs()].into_iter().chain(kept) {
            create_private_dir(&dir).map_err(|e| {
                anyhow::anyhow!(
                    "failed to create {}: {e}; choose a directory you may write with --data",
                    dir.display()
                )
            })?;
        }
        Ok(())
    }
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Where data lies when nobody says: `/var/lib/kiln` for root, `$XDG_DATA_HOME/kiln` or `~/.local/share/kiln` for others.
pub(crate) fn default_data_dir() -> PathBuf {
    if Uid::effective().is_root() {
        return PathBuf::from("/var/lib/kiln");
    }
    env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
        .unwrap_or_else(|| PathBuf::from("/var/tmp"))
        .join("kiln")
}

/// A link to the data directory of the instance started last on this machine by this user.
fn instance_pointer() -> PathBuf {
    let uid = Uid::effective();
    let run = if uid.is_root() {
        PathBuf::from("/run")
    } else {
        env::var_os("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/tmp/kiln-{uid}")), PathBuf::from)
    };
    run.join("kiln").join("instance")
}

/// Where the pointer leads, if this user has made it: another's would be a trap.
fn published() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt as _;
    let pointer = instance_pointer();
    let own = pointer.symlink_metadata().is_ok_and(|link| link.uid() == Uid::effective().as_raw());
    if own { std::fs::read_link(pointer).ok() } else { None }
}

/// Points bare commands at `data`, and says where they led before. A pointer that cannot be written only costs the user a `--data`.
pub(crate) fn publish_instance(data: &DataDir) -> Option<DataDir> {
    let pointer = instance_pointer();
    let before = published().filter(|to| to != data.root()).map(DataDir);
    let publish = || -> io::Result<()> {
        create_private_dir(pointer.parent().unwrap_or(Path::new("/")))?;
        let fresh = pointer.with_extension(format!("{}", std::process::id()));
        std::os::unix::fs::symlink(data.root(), &fresh)?;
        std::fs::rename(&fresh, &pointer)
    };
    if let Err(error) = publish() {
        tracing::debug!(pointer = %pointer.display(), %error, "cannot publish the instance; commands will need --data");
    }
    before
}

/// Takes the pointer back if it still names `data`, and gives it to `heir`: an instance that ran before and runs on.
pub(crate) fn withdraw_instance(data: &DataDir, heir: Option<DataDir>) {
    if published().is_none_or(|to| to != data.root()) {
        return;
    }
    let _ = std::fs::remove_file(instance_pointer());
    if let Some(heir) = heir {
        publish_instance(&heir);
    }
}

/// The instance a command means: `--data`, else `KILN_DATA` (clap fills both into `given`), else the one that runs here, else the default place.
pub(crate) fn resolve(given: Option<&Path>) -> io::Result<DataDir> {
    match given {
        Some(dir) => DataDir::new(dir),
        None => DataDir::new(&published().unwrap_or_else(default_data_dir)),
    }
}

/// The broker socket that `flux` uses when `FLUX_URI` is not set.
pub(crate) fn default_flux_socket() -> PathBuf {
    let given = env::var_os("KILN_DATA").map(PathBuf::from);
    resolve(given.as_deref())
        .map_or_else(|_| PathBuf::from("/run/kiln/flux.sock"), |data| data.broker_socket(0))
}
