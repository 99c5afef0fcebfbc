//! A filesystem of one MDS and two OSTs in this process, and mounts of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kiln_fs::client::mount::{MountOptions, Mounted, mount};
use kiln_fs::core::layout::Stripes;
use kiln_fs::core::{OstIndex, Spread, Time};
use kiln_fs::mds::mdt::{self, Mdt};
use kiln_fs::mds::{self, Mds, Parts};
use kiln_fs::oss::{self, Oss, Ost};
use kiln_fs::wire;
use kiln_fs::wire::mgs::{self, Address, FsConfig};
use kiln_log::Volume;
use kiln_net::blocking::{Call, Listener, Replies, ServeLimits, Server, Service, serve};
use kiln_net::{Fault, Peer};
use kiln_world::{RealClock, RealDisk, RealRng};

const NAME: &str = "scratch";
/// Its id.
const ID: u128 = 7;
const OSTS: u16 = 2;
/// Small, so that files of some hundred KiB are in several places.
const STRIPE_BYTES: u32 = 64 << 10;
const INLINE_BYTES: u64 = 64 << 10;

/// The servers of a filesystem.
pub(crate) struct Servers {
    mds: Mds,
    oss: Oss,
    /// Keeps the journal's flusher.
    _volume: Volume,
}

impl Service for Servers {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        match call.decode::<wire::Request>()? {
            wire::Request::Mds(request) => self.mds.handle(request, &call.bulk, replies),
            wire::Request::Oss(request) => self.oss.handle(&request, &call, replies),
            wire::Request::Mgs(_) | wire::Request::Node(_) => {
                Err(Fault::new(kiln_net::Status::BadRequest, "no MGS here"))
            }
        }
    }

    fn takes_memory(&self, _: Peer) -> bool {
        true
    }
}

/// A filesystem.
pub(crate) struct Cluster {
    dir: PathBuf,
    pub(crate) config: FsConfig,
    settings: mds::Settings,
    running: Mutex<Option<(Server, Arc<Servers>)>>,
}

impl Cluster {
    /// Makes and serves it under `dir`.
    pub(crate) fn start(dir: &Path) -> Cluster {
        Cluster::with(dir, mds::Settings::default())
    }

    pub(crate) fn with(dir: &Path, settings: mds::Settings) -> Cluster {
        let socket = dir.join("fs.sock");
        let ost = |index| mgs::Ost {
            index: OstIndex(index),
            uuid: format!("{NAME}-OST{index:04x}_UUID"),
            rank: 0,
            address: Address::Unix(socket.clone()),
            draining: false,
        };
        let config = FsConfig {
            name: NAME.to_owned(),
            id: mgs::FsId(ID),
            version: 1,
            mdt_rank: 0,
            mdt: Address::Unix(socket.clone()),
            osts: (0..OSTS).map(ost).collect(),
            snapshots: Vec::new(),
        };
        for index in 0..OSTS {
            Ost::format(&dir.join(format!("ost{index}")), &label(index)).expect("an empty directory");
        }
        let cluster = Cluster { dir: dir.to_owned(), config, settings, running: Mutex::new(None) };
        cluster.serve();
        cluster
    }

    /// Serves it, after it was stopped.
    pub(crate) fn serve(&self) {
        let disk = Arc::new(RealDisk::new(&self.dir).expect("the directory is there"));
        let clock = Arc::new(RealClock::new());
        let volume = Volume::start(disk, Arc::clone(&clock) as Arc<dyn kiln_world::Clock>);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
        let format = mdt::Format {
            label: mdt::Label { uuid: ID.to_be_bytes(), fs: NAME.to_owned(), mdt: 0 },
            spread: Spread::plain(INLINE_BYTES, STRIPE_BYTES, Stripes { count: None, first: None }),
            now: Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() },
        };
        let mdt = Mdt::open(&volume, Path::new("mdt"), &format, mdt::Settings::default()).expect("an MDT");
        let oss = Oss::new();
        for index in 0..OSTS {
            let dir = self.dir.join(format!("ost{index}"));
            oss.add(Ost::open(&dir, &label(index)).expect("an OST"));
        }
        let parts = Parts { mdt, osts: Vec::new(), clock, changelog: None, snapshot: None, is_of_old: false };
        let mds = Mds::start(parts, self.settings).expect("an MDS");
        let servers = Arc::new(Servers { mds, oss, _volume: volume });
        let socket = self.dir.join("fs.sock");
        let listener = Listener::bind_unix(&socket).expect("a socket");
        let server = serve(listener, ServeLimits::default(), Arc::clone(&servers));
        servers.mds.set_osts(&self.config.osts);
        *self.running() = Some((server, servers));
    }

    /// Stops the servers without a word to anybody.
    pub(crate) fn stop(&self) {
        if let Some((server, servers)) = self.running().take() {
            servers.mds.stop();
            server.stop(Duration::from_secs(5));
        }
    }

    /// Puts every session out.
    pub(crate) fn evict_all(&self) {
        let running = self.running();
        let (_, servers) = running.as_ref().expect("the servers run");
        for (session, _) in servers.mds.sessions() {
            servers.mds.evict(session);
        }
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<(Server, Arc<Servers>)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts it.
    pub(crate) fn mount(&self, name: &str) -> Mount {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir).expect("a directory to mount on");
        let mounted =
            mount(&MountOptions::new(self.config.clone(), &dir), Arc::new(RealRng)).expect("a mount");
        Mount { dir, mounted: Some(mounted) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop();
    }
}

fn label(index: u16) -> oss::Label {
    oss::Label { id: ID, fs: NAME.to_owned(), index: OstIndex(index) }
}

/// Whether this machine lets us mount; says so if not.
fn can_mount() -> bool {
    let can = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    if !can {
        println!("skipped: /dev/fuse is not there, or not for this user");
    }
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: these tests change owners, and want to be root");
    }
    can && root
}

/// Shows what `RUST_LOG` asks for.
pub(crate) fn log() {
    if let Ok(filter) = std::env::var("RUST_LOG") {
        // It may be set up already, by another test of this process.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
}

/// Runs a test with a filesystem of its own, where that is possible.
pub(crate) fn with_cluster(settings: mds::Settings, test: impl FnOnce(&Cluster)) {
    if can_mount() {
        log();
        let dir = tempfile::tempdir().expect("a scratch directory");
        let cluster = Cluster::with(dir.path(), settings);
        test(&cluster);
    }
}

/// Runs a test with one mount of a new filesystem.
pub(crate) fn with_mount(test: impl FnOnce(&Mount)) {
    with_cluster(mds::Settings::default(), |cluster| test(&cluster.mount("mnt")));
}

/// Runs a test with two mounts of a new filesystem.
pub(crate) fn with_mounts(test: impl FnOnce(&Mount, &Mount)) {
    with_cluster(mds::Settings::default(), |cluster| test(&cluster.mount("one"), &cluster.mount("other")));
}

/// A mount, taken away when it is dropped.
pub(crate) struct Mount {
    dir: PathBuf,
    mounted: Option<Mounted>,
}

impl Mount {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Waits until somebody else takes it away.
    pub(crate) fn wait(mut self) {
        self.mounted.take().expect("it is mounted").wait();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if let Some(mounted) = self.mounted.take() {
            match mounted.unmount() {
                Ok(()) => mounted.wait(),
                Err(error) => eprintln!("{} stays mounted: {error}", self.dir.display()),
            }
        }
    }
}
