//! The pools of a node: made, imported, watched, and given up.
//!
//! What a node knows of a pool lies in a directory of its name: the file `disks` names where its disks were last, by which it is opened
//! again when the node starts, and each target that stands on it has a directory for what its server needs to remember besides objects.

mod disks;
mod scan;
mod view;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_fs::wire::pool::{NewVdev, Reply, Request};
use kiln_pool::format::{PoolState, VdevKind};
use kiln_pool::pool::{Host, Pool, Settings, VdevSpec};
use kiln_world::{RealClock, RealRng};

use disks::{Found, TakenDisk};
use scan::Scans;

/// The file that names the disks of a pool, one on each line.
const DISKS: &str = "disks";

/// A pool that is in use.
#[derive(Clone)]
struct Held {
    pool: Arc<Pool>,
    scans: Arc<Scans>,
    /// Goes last, when nobody uses the pool any more.
    disks: Arc<Mutex<Vec<TakenDisk>>>,
}

/// A pool that the node knows.
enum Known {
    Open(Held),
    /// It could not be opened, and why.
    Failed(String),
}

/// See the module.
pub(crate) struct Pools {
    dir: PathBuf,
    host: Host,
    known: Mutex<BTreeMap<String, Known>>,
}

/// Why something cannot be done with pools, for people.
type Refusal = String;

impl Pools {
    /// Opens the pools that a node had in use.
    pub(crate) fn start(dir: PathBuf, host: String) -> Pools {
        let host = Host { name: host, clock: Arc::new(RealClock::new()), rng: Arc::new(RealRng) };
        let pools = Pools { dir, host, known: Mutex::default() };
        for name in pools.names() {
            let opened = pools.open_known(&name);
            if let Known::Failed(why) = &opened {
                tracing::error!(pool = name, why, "a pool could not be opened; targets on it are not served");
            }
            pools.known().insert(name, opened);
        }
        pools
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        locked(&self.known)
    }

    /// The names of the pools of which the node has a directory.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let named = entries.filter(|entry| entry.path().join(DISKS).exists());
        named.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    fn open_known(&self, name: &str) -> Known {
        let opened = read_disks(&self.dir.join(name)).map_err(|error| error.to_string()).and_then(|paths| {
            let found = disks::look(&paths);
            self.open(found, |label| label.name == name, false)
        });
        opened.map_or_else(Known::Failed, |(_, held)| Known::Open(held))
    }

    /// The pool of which a directory is that of a target; `None` when the directory is of no pool.
    pub(crate) fn of_target(&self, dir: &Path) -> Option<Result<Arc<Pool>, Refusal>> {
        let (parent, name) = (dir.parent()?, dir.parent()?.file_name()?.to_str()?);
        if parent.parent() != Some(&self.dir) {
            return None;
        }
        Some(match self.known().get(name) {
            Some(Known::Open(held)) => Ok(Arc::clone(&held.pool)),
            Some(Known::Failed(why)) => Err(format!("pool '{name}' is not there: {why}")),
            None => Err(format!(
                "this node has no pool '{name}'; `kiln pool import {name}` finds it by its labels"
            )),
        })
    }

    /// Does what is asked.
    pub(crate) fn answer(&self, request: Request) -> Reply {
        let done = |outcome: Result<(), Refusal>| outcome.map_or_else(Reply::Bad, |()| Reply::Done);
        match request {
            Request::Status => Reply::Pools(self.status()),
            Request::Create { name, vdevs, force } => done(self.create(&name, vdevs, force)),
            Request::Import { name, places, force } => done(self.import(&name, &places, force)),
            Request::Importable { places } => Reply::Importable(self.importable(&places)),
            Request::Export { name } => done(self.leave(&name, PoolState::Exported)),
            Request::Destroy { name } => done(self.leave(&name, PoolState::Destroyed)),
            Request::Scrub { name, stop } => done(self.scrub(&name, stop)),
            Request::Offline { name, disk } => done(self.offline(&name, &disk)),
            Request::Online { name, disk, at } => {
                done(self.online(&name, &disk, at.as_deref().unwrap_or(&disk)))
            }
            Request::Replace { name, disk, new, force } => done(self.replace(&name, &disk, &new, force)),
        }
    }

    fn status(&self) -> Vec<kiln_fs::wire::pool::Pool> {
        let known = self.known();
        let pools = known.iter().map(|(name, known)| match known {
            Known::Open(held) => view::pool(&held.pool.status(), held.scans.status(&held.pool)),
            Known::Failed(why) => view::failed(name, why),
        });
        pools.collect()
    }

    fn create(&self, name: &str, vdevs: Vec<NewVdev>, force: bool) -> Result<(), Refusal> {
        check_name(name)?;
        let mut known = self.known();
        if known.contains_key(name) {
            return Err(format!("a pool '{name}' is there already"));
        }
        let mut taken = Vec::new();
        let mut specs = Vec::new();
        for NewVdev { parity, disks } in vdevs {
            let kind = if parity == 0 { VdevKind::Mirror } else { VdevKind::Raidz(parity) };
            let mut files = Vec::new();
            for path in &disks {
                if taken.iter().any(|disk: &TakenDisk| disk.path() == Path::new(path)) {
                    return Err(format!("{path} is named twice"));
                }
                let disk = TakenDisk::take(Path::new(path)).map_err(|error| error.to_string())?;
                files.push(disk.file());
                taken.push(disk);
            }
            specs.push(VdevSpec { kind, disks: files });
        }
        let pool = Pool::create(name, specs, &self.host, Settings::default(), force);
        let pool = pool.map_err(|error| error.to_string())?;
        self.enter(&mut known, name, pool, taken)
    }

    fn import(&self, name: &str, places: &[String], force: bool) -> Result<(), Refusal> {
        let found = disks::look(&disks::candidates(places));
        let is_it =
            |label: &kiln_pool::format::Label| label.name == name || format!("{:032x}", label.pool.0) == name;
        let mut known = self.known();
        if known.get(name).is_some_and(|known| matches!(known, Known::Open(_))) {
            return Err(format!("pool '{name}' is imported already"));
        }
        let (name, held) = self.open(found, is_it, force)?;
        check_name(&name)?;
        if known.get(&name).is_some_and(|known| matches!(known, Known::Open(_))) {
            return Err(format!("another pool '{name}' is imported already"));
        }
        self.remember(&name, &held.pool).map_err(|error| error.to_string())?;
        known.insert(name, Known::Open(held));
        Ok(())
    }

    /// Opens the pool that is meant of those that were found; all disks of it are taken.
    fn open(
        &self,
        found: Vec<Found>,
        is_it: impl Fn(&kiln_pool::format::Label) -> bool,
        force: bool,
    ) -> Result<(String, Held), Refusal> {
        let mut of_it: Vec<Found> = found.into_iter().filter(|found| is_it(&found.label)).collect();
        let newest = of_it.iter().max_by_key(|found| found.label.txg);
        let newest = newest.ok_or("none of the disks that were looked at is of it")?.label.clone();
        if let Some(other) = of_it.iter().find(|found| found.label.pool != newest.pool) {
            return Err(format!(
                "there are several pools '{}'; import one by its id: {:032x} or {:032x}",
                newest.name, newest.pool.0, other.label.pool.0
            ));
        }
        of_it.retain(|found| found.label.pool == newest.pool);
        let taken: Result<Vec<TakenDisk>, _> =
            of_it.iter().map(|found| TakenDisk::take(&found.path)).collect();
        let taken = taken.map_err(|error| error.to_string())?;
        let files = taken.iter().map(TakenDisk::file).collect();
        let pool =
            Pool::open(files, &self.host, Settings::default(), force).map_err(|error| error.to_string())?;
        Ok((pool.name(), held(pool, taken)))
    }

    fn enter(
        &self,
        known: &mut BTreeMap<String, Known>,
        name: &str,
        pool: Pool,
        taken: Vec<TakenDisk>,
    ) -> Result<(), Refusal> {
        self.remember(name, &pool)
            .map_err(|error| format!("failed to remember the pool in {}: {error}", self.dir.display()))?;
        known.insert(name.to_owned(), Known::Open(held(pool, taken)));
        Ok(())
    }

    /// Writes down where the disks of a pool are.
    fn remember(&self, name: &str, pool: &Pool) -> io::Result<()> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        let config = pool.config();
        let leaves = config.vdevs.iter().flat_map(|vdev| &vdev.leaves);
        let lines = leaves.map(|leaf| leaf.path.as_str()).collect::<Vec<_>>().join("\n");
        let new = dir.join("disks.new");
        fs::write(&new, lines)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, dir.join(DISKS))?;
        fs::File::open(&dir)?.sync_all()?;
        fs::File::open(&self.dir)?.sync_all()
    }

    fn leave(&self, name: &str, state: PoolState) -> Result<(), Refusal> {
        let mut known = self.known();
        let used = |held: &Held| {
            let targets: Vec<String> = held.pool.datasets().into_iter().map(|(_, name)| name).collect();
            // What is not served now is lost all the same when the pool is destroyed.
            let lost = state == PoolState::Destroyed && !targets.is_empty();
            (lost || Arc::strong_count(&held.pool) > 1).then(|| targets.join(", "))
        };
        match known.get(name) {
            None => return Err(no_pool(name)),
            Some(Known::Failed(why)) if state == PoolState::Destroyed => {
                return Err(format!("pool '{name}' is not there: {why}"));
            }
            Some(Known::Failed(_)) => {}
            Some(Known::Open(held)) => {
                held.scans.stop();
                if let Some(targets) = used(held) {
                    return Err(format!(
                        "pool '{name}' is in use: {targets} stand on it; destroy their filesystem first"
                    ));
                }
            }
        }
        if let Some(Known::Open(held)) = known.remove(name) {
            let Held { pool, disks: _held, .. } = held;
            let pool = Arc::into_inner(pool).ok_or_else(|| format!("pool '{name}' is in use"))?;
            let left = if state == PoolState::Destroyed { pool.destroy_pool() } else { pool.export() };
            left.map_err(|error| error.to_string())?;
        }
        fs::remove_dir_all(self.dir.join(name)).map_err(|error| error.to_string())
    }

    /// A pool that is in use.
    fn held(&self, name: &str) -> Result<Held, Refusal> {
        match self.known().get(name) {
            Some(Known::Open(held)) => Ok(held.clone()),
            Some(Known::Failed(why)) => Err(format!("pool '{name}' is not there: {why}")),
            None => Err(no_pool(name)),
        }
    }

    fn scrub(&self, name: &str, stop: bool) -> Result<(), Refusal> {
        let held = self.held(name)?;
        if stop { held.scans.stop_scrub() } else { held.scans.start_scrub(&held.pool) }
    }

    fn offline(&self, name: &str, disk: &str) -> Result<(), Refusal> {
        let held = self.held(name)?;
        held.pool.offline(disk).map_err(|error| error.to_string())?;
        locked(&held.disks).retain(|taken| taken.path() != Path::new(disk));
        Ok(())
    }

    fn online(&self, name: &str, disk: &str, at: &str) -> Result<(), Refusal> {
        let held = self.held(name)?;
        let taken = TakenDisk::take(Path::new(at)).map_err(|error| error.to_string())?;
        held.pool.online(disk, taken.file()).map_err(|error| error.to_string())?;
        locked(&held.disks).push(taken);
        self.came(name, &held)
    }

    fn replace(&self, name: &str, disk: &str, new: &str, force: bool) -> Result<(), Refusal> {
        let held = self.held(name)?;
        let taken = TakenDisk::take(Path::new(new)).map_err(|error| error.to_string())?;
        held.pool.replace(disk, taken.file(), &*self.host.rng, force).map_err(|error| error.to_string())?;
        let mut disks = locked(&held.disks);
        disks.retain(|taken| taken.path() != Path::new(disk));
        disks.push(taken);
        drop(disks);
        self.came(name, &held)
    }

    /// A disk has come, which is to get what it lacks.
    fn came(&self, name: &str, held: &Held) -> Result<(), Refusal> {
        self.remember(name, &held.pool).map_err(|error| error.to_string())?;
        held.scans.start_resilver(&held.pool);
        Ok(())
    }

    fn importable(&self, places: &[String]) -> Vec<kiln_fs::wire::pool::Importable> {
        let found = disks::look(&disks::candidates(places));
        let known = self.known();
        let open: Vec<_> = known
            .values()
            .filter_map(|known| match known {
                Known::Open(held) => Some(held.pool.config().pool),
                Known::Failed(_) => None,
            })
            .collect();
        view::importable(found.iter().map(|found| &found.label).filter(|label| !open.contains(&label.pool)))
    }

    /// Commits everything; the pools end when nobody uses them any more.
    pub(crate) fn stop(&self) {
        let known = std::mem::take(&mut *self.known());
        for (name, known) in known {
            if let Known::Open(held) = known {
                held.scans.stop();
                if let Err(error) = held.pool.commit() {
                    tracing::error!(pool = name, %error, "a pool could not be committed at the end");
                }
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn held(pool: Pool, taken: Vec<TakenDisk>) -> Held {
    let pool = Arc::new(pool);
    let scans = Arc::new(Scans::default());
    scans.start_resilver(&pool);
    Held { pool, scans, disks: Arc::new(Mutex::new(taken)) }
}

fn no_pool(name: &str) -> Refusal {
    format!(
        "no such pool '{name}'; `kiln pool list` shows those that are there, `kiln pool import` those that could be"
    )
}

fn read_disks(dir: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(fs::read_to_string(dir.join(DISKS))?.lines().map(PathBuf::from).collect())
}

/// A pool's name is also that of a directory, and of a word on the command line.
fn check_name(name: &str) -> Result<(), Refusal> {
    let mut chars = name.chars();
    let begins = chars.next().is_some_and(|first| first.is_ascii_alphabetic());
    let goes_on = chars.all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let reserved = ["mirror", "raidz", "spare", "log"].iter().any(|word| name.starts_with(word));
    if begins && goes_on && !reserved && name.len() <= 64 {
        return Ok(());
    }
    Err(format!(
        "'{name}' is no name for a pool: up to 64 letters, digits, '-', '_' and '.', beginning with a letter, and not with \
         mirror, raidz, spare or log"
    ))
}
