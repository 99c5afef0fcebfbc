//! The pools of a node: made, imported, watched, and given up.
//!
//! What a node knows of a pool lies in a directory of its name: the file `disks` names where its disks were last, by which it is opened
//! again when the node starts, and each target that stands on it has a directory for what its server needs to remember besides objects.

mod disks;
mod events;
mod history;
mod own;
mod properties;
mod saved;
mod scan;
mod view;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kiln_fs::wire::pool::{Event, NewVdev, Reply, Request, ScrubAct};
use kiln_pool::format::{PoolState, Properties, VdevKind};
use kiln_pool::pool::{Care, DiskFile, Host, Pool, Settings, VdevSpec};
use kiln_world::{RealClock, RealRng};

use disks::{Found, TakenDisk};
use events::Events;
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
    settings: Settings,
    known: Mutex<BTreeMap<String, Known>>,
    events: Arc<Events>,
    watch: Watch,
}

/// The thread that looks after the pools.
#[derive(Default)]
struct Watch {
    /// Whoever gives a pool up waits until it is not looked at.
    looking: Mutex<()>,
    /// The pools as they were when they were looked at last.
    seen: Mutex<Vec<kiln_fs::wire::pool::Pool>>,
    state: Mutex<WatchState>,
    wake: Condvar,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct WatchState {
    ended: bool,
    /// Something was done that is to be told soon.
    wanted: bool,
}

/// Where events go besides the memory of the node.
pub(crate) type EventSink = Box<dyn Fn(Vec<Event>) -> Result<(), String> + Send>;

/// How often the pools are looked after.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why something cannot be done with pools, for people.
type Refusal = String;

impl Pools {
    /// Opens the pools that a node had in use.
    pub(crate) fn start(dir: PathBuf, host: String, memory_bytes: u64) -> Pools {
        let events = Arc::new(Events::of(&host));
        let host = Host { name: host, clock: Arc::new(RealClock::new()), rng: Arc::new(RealRng) };
        let settings = Settings::within(memory_bytes);
        let pools = Pools { dir, host, settings, known: Mutex::default(), events, watch: Watch::default() };
        for name in pools.names() {
            let opened = pools.open_known(&name);
            if let Known::Failed(why) = &opened {
                tracing::error!(pool = name, why, "a pool could not be opened; targets on it are not served");
            }
            pools.known().insert(name, opened);
        }
        pools
    }

    /// Looks after the pools from now on: disks that fail, spares, pools whose disks come later, and events.
    pub(crate) fn look_after(self: &Arc<Self>, sink: EventSink) -> io::Result<()> {
        let pools = Arc::clone(self);
        let run = move || {
            loop {
                let state = locked(&pools.watch.state);
                let idle = |state: &mut WatchState| !state.ended && !state.wanted;
                let waited = pools.watch.wake.wait_timeout_while(state, LOOK_EVERY, idle);
                let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
                let ended = state.ended;
                state.wanted = false;
                drop(state);
                if !ended {
                    pools.care();
                    pools.open_again();
                }
                pools.compare();
                pools.events.send(&sink);
                if ended {
                    return;
                }
            }
        };
        *locked(&self.watch.thread) = Some(thread::Builder::new().name("pool-watch".into()).spawn(run)?);
        Ok(())
    }

    /// Tells what went wrong, and what is otherwise than when it was looked last.
    fn compare(&self) {
        for (name, known) in &*self.known() {
            let Known::Open(held) = known else { continue };
            for (disk, incidents) in held.pool.take_incidents() {
                self.events.tell(name, &disk, &incidents);
            }
        }
        let mut seen = locked(&self.watch.seen);
        let now = self.status();
        self.events.compare(&seen, &now);
        *seen = now;
    }

    /// Looks after the disks of each pool.
    fn care(&self) {
        let _looking = locked(&self.watch.looking);
        let open: Vec<(String, Held)> = {
            let known = self.known();
            let held = known.iter().filter_map(|(name, known)| match known {
                Known::Open(held) => Some((name.clone(), held.clone())),
                Known::Failed(_) => None,
            });
            held.collect()
        };
        for (name, held) in open {
            match held.pool.care() {
                Ok(done) if done.is_empty() => {}
                Ok(done) => self.cared(&name, &held, done),
                // It is suspended, which its status says.
                Err(error) => {
                    tracing::debug!(pool = name, %error, "the disks of a pool are not looked after");
                }
            }
        }
    }

    fn cared(&self, name: &str, held: &Held, done: Vec<Care>) {
        for care in done {
            match care {
                Care::Faulted { disk } => {
                    let text = "it failed again and again, and is not used any more".to_owned();
                    self.events.add(name, "vdev_fault", Some(&disk), text);
                    locked(&held.disks).retain(|taken| taken.path() != Path::new(&disk));
                }
                Care::SparedIn { disk, spare } => {
                    self.events.add(name, "vdev_spare", Some(&disk), format!("{spare} takes its place"));
                    locked(&held.disks).retain(|taken| taken.path() != Path::new(&disk));
                }
            }
        }
        if let Err(why) = self.came(name, held) {
            tracing::warn!(pool = name, why, "where the disks of a pool are is not remembered");
        }
    }

    /// Opens pools that could not be opened, since their disks may have come.
    fn open_again(&self) {
        let failed = |(name, known): (&String, &Known)| match known {
            Known::Failed(_) => Some(name.clone()),
            Known::Open(_) => None,
        };
        let failed: Vec<String> = self.known().iter().filter_map(failed).collect();
        for name in failed {
            let mut known = self.known();
            if matches!(known.get(&name), Some(Known::Failed(_))) {
                let opened = self.open_known(&name);
                if let Known::Open(_) = opened {
                    self.events.add(&name, "pool_import", None, "its disks are there now".to_owned());
                }
                known.insert(name, opened);
            }
        }
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

    /// A pool, for what stands on it.
    pub(crate) fn pool(&self, name: &str) -> Result<Arc<Pool>, Refusal> {
        self.held(name).map(|held| held.pool)
    }

    /// Does what is asked. What changes a pool is in its history, and among the events.
    pub(crate) fn answer(&self, request: Request) -> Reply {
        let noted = history::command(&request).map(|(name, command)| (name.to_owned(), command));
        let class = class_of(&request);
        let about = match &request {
            Request::Destroy { name } => Some(name.clone()),
            _ => noted.as_ref().map(|(name, _)| name.clone()),
        };
        let reply = self.act(request);
        if let (Reply::Done, Some((name, command))) = (&reply, &noted) {
            self.note(name, command);
        }
        if let (Reply::Done, Some(class), Some(name)) = (&reply, class, about) {
            let text = noted.map_or_else(|| format!("kiln pool destroy {name}"), |(_, command)| command);
            self.events.add(&name, class, None, text);
            locked(&self.watch.state).wanted = true;
            self.watch.wake.notify_all();
        }
        reply
    }

    fn note(&self, name: &str, command: &str) {
        // One that was exported has it from [`Pools::leave`].
        if let Ok(held) = self.held(name) {
            note_in(&held.pool, command);
        }
    }

    fn act(&self, request: Request) -> Reply {
        let done = |outcome: Result<(), Refusal>| outcome.map_or_else(Reply::Bad, |()| Reply::Done);
        match request {
            Request::Status => Reply::Pools(self.status()),
            Request::Events => {
                self.compare();
                Reply::Events(self.events.all())
            }
            Request::History { name } => self.history(&name).map_or_else(Reply::Bad, Reply::History),
            Request::Create { name, vdevs, spares, properties, force } => {
                done(self.create(&name, vdevs, &spares, &properties, force))
            }
            Request::Add { name, vdevs, spares, force } => done(self.add(&name, vdevs, &spares, force)),
            Request::Set { name, property, value } => done(self.set(&name, &property, &value)),
            Request::Import { name, places, force } => done(self.import(&name, &places, force)),
            Request::Importable { places } => Reply::Importable(self.importable(&places)),
            Request::Export { name } => done(self.leave(&name, PoolState::Exported)),
            Request::Destroy { name } => done(self.leave(&name, PoolState::Destroyed)),
            Request::Scrub { name, act, rate } => done(self.scrub(&name, act, rate)),
            Request::Offline { name, disk } => done(self.offline(&name, &disk)),
            Request::Online { name, disk, at } => {
                done(self.online(&name, &disk, at.as_deref().unwrap_or(&disk)))
            }
            Request::Replace { name, disk, new, force } => done(self.replace(&name, &disk, &new, force)),
            Request::Attach { name, disk, new, force } => done(self.attach(&name, &disk, &new, force)),
            Request::Detach { name, disk } => done(self.give_back(&name, &disk, |pool| pool.detach(&disk))),
            Request::Remove { name, disk } => {
                done(self.give_back(&name, &disk, |pool| pool.remove_spare(&disk)))
            }
        }
    }

    fn status(&self) -> Vec<kiln_fs::wire::pool::Pool> {
        let known = self.known();
        let pools = known.iter().map(|(name, known)| match known {
            Known::Open(held) => view::pool(&held.pool, held.scans.status(&held.pool)),
            Known::Failed(why) => view::failed(name, why),
        });
        pools.collect()
    }

    fn create(
        &self,
        name: &str,
        vdevs: Vec<NewVdev>,
        spares: &[String],
        properties: &BTreeMap<String, String>,
        force: bool,
    ) -> Result<(), Refusal> {
        check_name(name)?;
        let properties = properties
            .iter()
            .try_fold(Properties::default(), |set, (name, value)| properties::with(set, name, value))?;
        let mut known = self.known();
        if known.contains_key(name) {
            return Err(format!("a pool '{name}' is there already"));
        }
        let mut taken = Vec::new();
        let specs = take_vdevs(vdevs, &mut taken)?;
        let spares = take_disks(spares, &mut taken)?;
        let pool = Pool::create(name, specs, &self.host, self.settings, force);
        let pool = pool.map_err(|error| error.to_string())?;
        pool.set_properties(properties).map_err(|error| error.to_string())?;
        if !spares.is_empty() {
            let added = pool.add_spares(spares, &*self.host.rng, force);
            if let Err(error) = added {
                // Nothing is half made.
                let given_up = pool.destroy_pool();
                return Err(given_up
                    .err()
                    .map_or_else(|| error.to_string(), |also| format!("{error}; {also}")));
            }
        }
        self.enter(&mut known, name, pool, taken)
    }

    fn add(&self, name: &str, vdevs: Vec<NewVdev>, spares: &[String], force: bool) -> Result<(), Refusal> {
        let held = self.held(name)?;
        let (mut of_vdevs, mut of_spares) = (Vec::new(), Vec::new());
        let specs = take_vdevs(vdevs, &mut of_vdevs)?;
        let spares = take_disks(spares, &mut of_spares)?;
        let rng = &*self.host.rng;
        if !specs.is_empty() {
            held.pool.add(&specs, rng, force).map_err(|error| error.to_string())?;
            locked(&held.disks).extend(of_vdevs);
        }
        if !spares.is_empty() {
            held.pool.add_spares(spares, rng, force).map_err(|error| error.to_string())?;
            locked(&held.disks).extend(of_spares);
        }
        self.came(name, &held)
    }

    fn set(&self, name: &str, property: &str, value: &str) -> Result<(), Refusal> {
        let held = self.held(name)?;
        let properties = properties::with(held.pool.properties(), property, value)?;
        held.pool.set_properties(properties).map_err(|error| error.to_string())
    }

    fn history(&self, name: &str) -> Result<Vec<String>, Refusal> {
        history::lines(&self.held(name)?.pool).map_err(|error| error.to_string())
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
        let pool = Pool::open(files, &self.host, self.settings, force).map_err(|error| error.to_string())?;
        Ok((pool.name(), self.hold(pool, taken)))
    }

    fn hold(&self, pool: Pool, taken: Vec<TakenDisk>) -> Held {
        let pool = Arc::new(pool);
        let scans = Arc::new(Scans::new(Arc::clone(&self.events)));
        scans.go_on(&pool);
        Held { pool, scans, disks: Arc::new(Mutex::new(taken)) }
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
        known.insert(name.to_owned(), Known::Open(self.hold(pool, taken)));
        Ok(())
    }

    /// Writes down where the disks of a pool are.
    fn remember(&self, name: &str, pool: &Pool) -> io::Result<()> {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir)?;
        let config = pool.config();
        let leaves = config.vdevs.iter().flat_map(|vdev| &vdev.leaves).chain(&config.spares);
        let lines = leaves.map(|leaf| leaf.path.as_str()).collect::<Vec<_>>().join("\n");
        let new = dir.join("disks.new");
        fs::write(&new, lines)?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, dir.join(DISKS))?;
        fs::File::open(&dir)?.sync_all()?;
        fs::File::open(&self.dir)?.sync_all()
    }

    fn leave(&self, name: &str, state: PoolState) -> Result<(), Refusal> {
        let _not_looked_at = locked(&self.watch.looking);
        let mut known = self.known();
        let used = |held: &Held| {
            let datasets = held.pool.datasets().into_iter().map(|(_, name)| name);
            let targets: Vec<String> = datasets.filter(|name| !own::is_own(name)).collect();
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
                held.scans.interrupt();
                if let Some(targets) = used(held) {
                    held.scans.go_on(&held.pool);
                    return Err(format!(
                        "pool '{name}' is in use: {targets} stand on it; destroy their filesystems first (`kiln fs destroy`); the logs of the instance move away with log.pool = \".\""
                    ));
                }
            }
        }
        if let Some(Known::Open(held)) = known.remove(name) {
            let Held { pool, disks: _held, .. } = held;
            if state == PoolState::Exported {
                note_in(&pool, &format!("kiln pool export {name}"));
            }
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

    fn scrub(&self, name: &str, act: ScrubAct, rate: Option<u64>) -> Result<(), Refusal> {
        let held = self.held(name)?;
        match act {
            ScrubAct::Start => held.scans.start_scrub(&held.pool, rate),
            ScrubAct::Pause => held.scans.pause_scrub(),
            ScrubAct::Stop => held.scans.stop_scrub(),
        }
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
        let taken = take(new)?;
        held.pool.replace(disk, &taken.file(), &*self.host.rng, force).map_err(|error| error.to_string())?;
        let mut disks = locked(&held.disks);
        disks.retain(|taken| taken.path() != Path::new(disk));
        disks.push(taken);
        drop(disks);
        self.came(name, &held)
    }

    fn attach(&self, name: &str, disk: &str, new: &str, force: bool) -> Result<(), Refusal> {
        let held = self.held(name)?;
        let taken = take(new)?;
        held.pool.attach(disk, taken.file(), &*self.host.rng, force).map_err(|error| error.to_string())?;
        locked(&held.disks).push(taken);
        self.came(name, &held)
    }

    /// Lets go of a disk that the pool does not have any more.
    fn give_back(
        &self,
        name: &str,
        disk: &str,
        give: impl FnOnce(&Pool) -> Result<(), kiln_pool::pool::DiskError>,
    ) -> Result<(), Refusal> {
        let held = self.held(name)?;
        give(&held.pool).map_err(|error| error.to_string())?;
        locked(&held.disks).retain(|taken| taken.path() != Path::new(disk));
        self.remember(name, &held.pool).map_err(|error| error.to_string())
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
        locked(&self.watch.state).ended = true;
        self.watch.wake.notify_all();
        let thread = locked(&self.watch.thread).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that looks after pools ended by a panic");
        }
        let known = std::mem::take(&mut *self.known());
        for (name, known) in known {
            if let Known::Open(held) = known {
                held.scans.interrupt();
                if let Err(error) = held.pool.commit() {
                    tracing::error!(pool = name, %error, "a pool could not be committed at the end");
                }
            }
        }
    }
}

/// Writes a command down in the history of its pool.
fn note_in(pool: &Pool, command: &str) {
    if let Err(error) = history::note(pool, command) {
        tracing::warn!(pool = pool.name(), %error, "a command is not in the history of its pool");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What class an event is of that tells that something was asked for and done.
fn class_of(request: &Request) -> Option<&'static str> {
    Some(match request {
        Request::Create { .. } => "pool_create",
        Request::Destroy { .. } => "pool_destroy",
        Request::Export { .. } => "pool_export",
        Request::Import { .. } => "pool_import",
        Request::Set { .. } => "pool_set",
        Request::Add { .. } => "vdev_add",
        Request::Attach { .. } => "vdev_attach",
        Request::Detach { .. } | Request::Remove { .. } => "vdev_remove",
        Request::Replace { .. } => "vdev_replace",
        Request::Online { .. } => "vdev_online",
        Request::Offline { .. } => "vdev_offline",
        Request::Scrub { .. }
        | Request::Status
        | Request::Importable { .. }
        | Request::Events
        | Request::History { .. } => return None,
    })
}

/// The disk that is meant by a path, which no other process has.
fn take(path: &str) -> Result<TakenDisk, Refusal> {
    let path = disks::meant(Path::new(path)).map_err(|error| error.to_string())?;
    TakenDisk::take(&path).map_err(|error| error.to_string())
}

/// Takes disks, each once.
fn take_disks(paths: &[String], taken: &mut Vec<TakenDisk>) -> Result<Vec<DiskFile>, Refusal> {
    let mut files = Vec::new();
    for path in paths {
        let meant = disks::meant(Path::new(path)).map_err(|error| error.to_string())?;
        if taken.iter().any(|disk| disk.path() == meant) {
            return Err(format!("{path} is named twice"));
        }
        let disk = take(path)?;
        files.push(disk.file());
        taken.push(disk);
    }
    Ok(files)
}

fn take_vdevs(vdevs: Vec<NewVdev>, taken: &mut Vec<TakenDisk>) -> Result<Vec<VdevSpec>, Refusal> {
    let spec = |NewVdev { parity, disks }| {
        let kind = if parity == 0 { VdevKind::Mirror } else { VdevKind::Raidz(parity) };
        Ok(VdevSpec { kind, disks: take_disks(&disks, taken)? })
    };
    vdevs.into_iter().map(spec).collect()
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
