//! Mounting a filesystem.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, OnceLock, RwLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kiln_world::Rng;

use super::Client;
use super::callbacks::{NamesGiver, give_names};
use super::data::{self, DataPath, Osts};
use super::fuse::device::{self, Device, How, Workers};
use super::fuse::{Kernel, Operations, Tree, TreeKernel};
use super::handles::Handles;
use super::house::{House, keep_house};
use super::jobs::{Asked, Jobs, find_jobs};
use super::meta::Meta;
use super::notices::{Notices, Stale, forget_stale};
use super::ops::HeldLocks;
use super::session::{Holder, Keeper, Session, new_id};
use super::snapshots::Trees;
use crate::core::Errno;
use crate::core::target::split_snapshot;
use crate::wire::mds::Callback;
use crate::wire::mgs::FsConfig;

/// What stands before a filesystem's name in the source of its mounts, as the kernel's table shows it. The type is not always
/// ours: mounts that root makes are of type `fuse`.
pub const SOURCE_PREFIX: &str = "kiln:";
/// How far the kernel reads ahead in files that are read through its page cache, in KiB. Root only.
const READ_AHEAD_KIB: u32 = 4096;

/// How a filesystem is mounted.
#[derive(Clone, Debug)]
pub struct MountOptions {
    /// The filesystem, as the MGS has it.
    pub config: FsConfig,
    /// The directory to mount on.
    pub dir: PathBuf,
    /// Nothing can be changed through this mount.
    pub read_only: bool,
    /// Every user may use it. A plain user can offer that only where `/etc/fuse.conf` has `user_allow_other`.
    pub allow_other: bool,
    /// Threads that wait for requests; more are started while these are busy.
    pub threads: usize,
    /// How long to wait for the MDS at first.
    pub patience: Duration,
    /// The bounds of the data path.
    pub data: data::Settings,
    /// What people call this machine, shown by the MDS.
    pub host: String,
}

impl MountOptions {
    /// The usual options: read-write, for everybody if root mounts.
    pub fn new(config: FsConfig, dir: impl Into<PathBuf>) -> MountOptions {
        MountOptions {
            config,
            dir: dir.into(),
            read_only: false,
            allow_other: nix::unistd::geteuid().is_root(),
            threads: 3,
            patience: Duration::from_secs(30),
            data: data::Settings::default(),
            host: nix::unistd::gethostname()
                .map_or_else(|_| String::new(), |host| host.to_string_lossy().into_owned()),
        }
    }
}

/// Why a filesystem is not mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The MDS does not answer.
    #[error(
        "reach the MDS of {fs} at {address:?} within {waited:?}; see whether its node is up: kiln fs status {fs}"
    )]
    NoMds {
        /// The filesystem.
        fs: String,
        /// Where the MDS was looked for.
        address: crate::wire::mgs::Address,
        /// For how long.
        waited: Duration,
    },
    /// The kernel refused.
    #[error("mount on {dir}: {error}", dir = dir.display())]
    Kernel {
        /// The directory.
        dir: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A thread could not be started.
    #[error("start a thread: {0}")]
    Thread(io::Error),
}

/// A mounted filesystem. It lasts until [`Mounted::unmount`], or until somebody else unmounts it; when it is dropped, the
/// kernel's mount is taken away and what was not written back is lost.
pub struct Mounted {
    trees: Arc<Trees>,
    device: Arc<Device>,
    workers: Workers,
    threads: Vec<JoinHandle<()>>,
}

/// Mounts.
pub fn mount(options: &MountOptions, rng: Arc<dyn Rng>) -> Result<Mounted, MountError> {
    // A snapshot can be mounted alone, and nothing changes it then either.
    let read_only = options.read_only || split_snapshot(&options.config.name).is_some();
    let options = &MountOptions { read_only, ..options.clone() };
    let (client, queues) = client(options, Tree::MOUNTED, &*rng);
    let keeper = keep_session(&client, options, &rng)?;
    let mounted = client
        .wait_up(options)
        .and_then(|()| mount_kernel(&client, options))
        .and_then(|device| start(&client, device, queues, options, rng));
    match mounted {
        Ok(mut mounted) => {
            mounted.threads.push(keeper);
            raise_read_ahead(&options.dir);
            Ok(mounted)
        }
        Err(error) => {
            client.end();
            join(keeper);
            Err(error)
        }
    }
}

/// Work that comes to the threads of a mount.
struct Queues {
    names: Receiver<Callback>,
    stale: Receiver<Stale>,
    asked: Asked,
}

fn keep_session(
    client: &Arc<Client>,
    options: &MountOptions,
    rng: &Arc<dyn Rng>,
) -> Result<JoinHandle<()>, MountError> {
    let session = Arc::clone(&client.meta.session);
    let holder = Arc::clone(client) as Arc<dyn Holder>;
    Keeper::start(session, holder, options.host.clone(), Arc::clone(rng)).map_err(MountError::Thread)
}

fn client(options: &MountOptions, tree: Tree, rng: &dyn Rng) -> (Arc<Client>, Queues) {
    let id = new_id(rng);
    let config = &options.config;
    let session = Arc::new(Session::new((config.name.clone(), config.id), config.mdt.clone(), id));
    let meta = Arc::new(Meta::new(session));
    let osts = Osts::new(config, id);
    let data =
        DataPath::new(Arc::clone(&meta) as Arc<dyn data::Mds>, Arc::clone(&osts), options.data.clone());
    let (names, names_queue) = NamesGiver::new();
    let (notices, stale) = Notices::new();
    let (jobs, asked) = Jobs::new();
    let client = Arc::new_cyclic(|me| Client {
        meta,
        data,
        osts,
        handles: Handles::new(),
        locks: HeldLocks::default(),
        house: House::default(),
        jobs,
        notices,
        names,
        read_only: options.read_only,
        tree,
        config: RwLock::new(Arc::new(config.clone())),
        kernel: OnceLock::new(),
        me: me.clone(),
    });
    (client, Queues { names: names_queue, stale, asked })
}

fn mount_kernel(client: &Client, options: &MountOptions) -> Result<Arc<Device>, MountError> {
    let how = How {
        allow_other: options.allow_other,
        read_only: options.read_only,
        source: format!("{SOURCE_PREFIX}{}", options.config.name),
        threads: options.threads,
    };
    let mounted = Device::mount(&options.dir, &how);
    let device = mounted.map_err(|error| MountError::Kernel { dir: options.dir.clone(), error })?;
    let device = Arc::new(device);
    let forgets_all = device.forget_all_names();
    if !forgets_all {
        tracing::warn!(
            "this kernel (before 6.16) cannot forget all names at once: each use of a name is asked for"
        );
    }
    let kernel: Arc<dyn Kernel> = Arc::clone(&device) as Arc<dyn Kernel>;
    client.kernel.set((kernel, forgets_all)).ok().expect("a client is mounted once");
    Ok(device)
}

fn start(
    client: &Arc<Client>,
    device: Arc<Device>,
    queues: Queues,
    options: &MountOptions,
    rng: Arc<dyn Rng>,
) -> Result<Mounted, MountError> {
    let house = begin_work(client, queues)?;
    let options = options.clone();
    let threads = options.threads;
    let kernel: Arc<dyn Kernel> = Arc::clone(&device) as Arc<dyn Kernel>;
    let keeps_names = client.keeps_names();
    let begin = move |config: FsConfig, tree: Tree| {
        let options = MountOptions { config, read_only: true, ..options.clone() };
        let kernel = Arc::new(TreeKernel { kernel: Arc::clone(&kernel), tree });
        begin_snapshot(&options, tree, (kernel, keeps_names), &rng)
    };
    let trees = Arc::new(Trees::new(Arc::clone(client), Box::new(begin)));
    let operations = Arc::clone(&trees) as Arc<dyn Operations>;
    let workers = device::serve(Arc::clone(&device), operations, threads);
    Ok(Mounted { trees, device, workers, threads: vec![house] })
}

/// Begins with a snapshot, as one more filesystem of a mount.
fn begin_snapshot(
    options: &MountOptions,
    tree: Tree,
    kernel: (Arc<dyn Kernel>, bool),
    rng: &Arc<dyn Rng>,
) -> Result<Running, MountError> {
    let (client, queues) = client(options, tree, &**rng);
    client.kernel.set(kernel).ok().expect("a client is mounted once");
    let keeper = keep_session(&client, options, rng)?;
    match client.wait_up(options).and_then(|()| begin_work(&client, queues)) {
        Ok(house) => Ok(Running { client, threads: vec![keeper, house] }),
        Err(error) => {
            client.end();
            join(keeper);
            Err(error)
        }
    }
}

/// A snapshot that is one of the filesystems of a mount.
pub(crate) struct Running {
    pub(crate) client: Arc<Client>,
    threads: Vec<JoinHandle<()>>,
}

impl Running {
    /// Ends it in good order.
    fn finish(self) {
        self.client.finish();
        self.threads.into_iter().for_each(join);
    }

    /// Ends it: programs that still use it get errors. Does not wait.
    pub(crate) fn abandon(self) {
        self.client.meta.session.end(Errno::EIO);
        self.client.end();
    }
}

/// Starts the threads of a client that the kernel knows; that which is returned ends last.
fn begin_work(client: &Arc<Client>, queues: Queues) -> Result<JoinHandle<()>, MountError> {
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(MountError::Thread)
    };
    let kernel = client.kernel();
    let Queues { names, stale, asked } = queues;
    // These end when the client is gone.
    let me = Arc::downgrade(client);
    spawn("fs-give-names", Box::new(move || give_names(&me, &names)))?;
    spawn("fs-stale", Box::new(move || forget_stale(&kernel, &stale)))?;
    spawn("fs-jobs", Box::new(move || find_jobs(&asked)))?;
    let house = Arc::clone(client);
    spawn("fs-house", Box::new(move || keep_house(&house)))
}

/// What other threads may do with a mount that one waits for. It does not keep the mount.
#[derive(Clone)]
pub struct Handle {
    trees: Weak<Trees>,
    device: Weak<Device>,
}

impl Handle {
    /// The filesystem has changed: targets were added, or are served elsewhere.
    pub fn reconfigure(&self, config: &FsConfig) {
        if let Some(trees) = self.trees.upgrade() {
            trees.reconfigure(config);
        }
    }

    /// The filesystem is no more: programs get `EIO` from now on, and what was not written back is lost.
    pub fn destroyed(&self) {
        let Some(trees) = self.trees.upgrade() else { return };
        trees.end().into_iter().for_each(Running::abandon);
        let client = trees.mounted();
        client.meta.session.end(Errno::EIO);
        for inode in client.meta.inodes.all() {
            let file = inode.state().file.clone();
            if let Some(file) = file {
                file.discard();
            }
        }
    }

    /// Takes the mount away; what was written is then written back. Fails with `EBUSY` while programs use it.
    pub fn unmount(&self) -> io::Result<()> {
        self.device.upgrade().map_or(Ok(()), |device| device.unmount())
    }

    /// Whether the mount is gone, and everything is written back.
    pub fn is_over(&self) -> bool {
        self.trees.strong_count() == 0
    }
}

impl Mounted {
    /// A handle for other threads.
    pub fn handle(&self) -> Handle {
        Handle { trees: Arc::downgrade(&self.trees), device: Arc::downgrade(&self.device) }
    }

    /// See [`Handle::reconfigure`].
    pub fn reconfigure(&self, config: &FsConfig) {
        self.handle().reconfigure(config);
    }

    /// See [`Handle::unmount`].
    pub fn unmount(&self) -> io::Result<()> {
        self.device.unmount()
    }

    /// Waits until the mount is gone, by [`Mounted::unmount`] or by somebody else, and everything is written back.
    pub fn wait(mut self) {
        self.workers.wait();
        self.trees.end().into_iter().for_each(Running::finish);
        self.trees.mounted().finish();
        self.threads.drain(..).for_each(join);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            let _ = self.device.unmount();
            for Running { client, threads } in self.trees.end() {
                client.end();
                threads.into_iter().for_each(join);
            }
            self.trees.mounted().end();
            self.threads.drain(..).for_each(join);
        }
    }
}

impl Client {
    /// Waits for the MDS at first.
    fn wait_up(&self, options: &MountOptions) -> Result<(), MountError> {
        if self.meta.session.wait_up(options.patience) {
            return Ok(());
        }
        let (fs, address) = (options.config.name.clone(), options.config.mdt.clone());
        Err(MountError::NoMds { fs, address, waited: options.patience })
    }

    /// Writes everything back and ends the session.
    fn finish(&self) {
        for inode in self.meta.inodes.all() {
            let file = inode.state().file.clone();
            if let Some(file) = file {
                file.flush_unheard();
            }
        }
        self.tell_jobs();
        self.meta.session.bye();
        self.end();
    }

    fn end(&self) {
        self.house.end();
        self.meta.session.end(Errno::ENOTCONN);
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of the mount has panicked");
    }
}

/// Lets buffered reads come in large requests: the kernel's own bound for FUSE is 128 KiB, and only root may raise it.
fn raise_read_ahead(dir: &Path) {
    use std::os::unix::fs::MetadataExt;
    let Ok(about) = std::fs::metadata(dir) else { return };
    let (major, minor) = (nix::sys::stat::major(about.dev()), nix::sys::stat::minor(about.dev()));
    let path = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(%error, path, "readahead stays as the kernel has it");
    }
}
