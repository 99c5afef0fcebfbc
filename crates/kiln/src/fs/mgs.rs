//! What the MGS answers to nodes and clients.

use std::time::Duration;

use kiln_fs::core::changelog::Entry;
use kiln_fs::mgs::{self, Command, MgsMachine};
use kiln_fs::wire::mgs::{Address, FsConfig, Reply, Request};
use kiln_fs::wire::pool::Event;
use kiln_store::{Handle, ReadError, Snapshot};
use tokio::sync::watch;

use crate::paths::DataDir;
use crate::wiring::changelogs::Changelogs;

/// The longest that a question for something newer is held; it is then answered with what there is.
const HELD_MAX: Duration = Duration::from_secs(5);

/// The MGS of the instance, for the threads of the listener.
pub(crate) struct Mgs {
    store: Handle<MgsMachine>,
    data: DataDir,
    changelogs: Changelogs,
    runtime: tokio::runtime::Handle,
    stopping: watch::Sender<bool>,
}

impl Mgs {
    /// An MGS over the rows of `store`. Must be called within the runtime.
    pub(crate) fn new(store: Handle<MgsMachine>, data: DataDir, changelogs: Changelogs) -> Mgs {
        let runtime = tokio::runtime::Handle::current();
        Mgs { store, data, changelogs, runtime, stopping: watch::Sender::new(false) }
    }

    /// Answers one question; blocks for up to [`HELD_MAX`] when it asks for news.
    pub(crate) fn answer(&self, request: Request) -> Reply {
        let answered = match request {
            Request::List => self.list(),
            Request::Get { name, newer_than } => self.get(&name, newer_than),
            Request::Duty { rank, newer_than } => self.duty(rank, newer_than),
            Request::Made(target) => return self.told(Command::Made { target }),
            Request::Removed(target) => return self.told(Command::Removed { target }),
            Request::Changes { fs, entries } => return self.changes(&fs, &entries),
            Request::PoolEvents(events) => return self.pool_events(&events),
        };
        answered.unwrap_or_else(|error| Reply::Failed(error.to_string()))
    }

    /// Lets those go that wait for news.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    fn address(&self, rank: u32) -> Address {
        Address::Unix(self.data.fs_socket(rank))
    }

    fn list(&self) -> Result<Reply, ReadError> {
        let snapshot = self.store.read();
        let rows = mgs::filesystems(&snapshot)?;
        let config = |(name, _): &(String, _)| mgs::config(&snapshot, name, |rank| self.address(rank));
        let configs = rows.iter().map(config).collect::<Result<Vec<_>, _>>()?;
        Ok(Reply::List(configs.into_iter().flatten().collect()))
    }

    fn get(&self, name: &str, newer_than: u64) -> Result<Reply, ReadError> {
        let look = |snapshot: &Snapshot| mgs::config(snapshot, name, |rank| self.address(rank));
        let is_news = |config: &Option<FsConfig>| {
            newer_than == 0 || config.as_ref().is_none_or(|config| config.version > newer_than)
        };
        Ok(Reply::Get(self.look_until(look, is_news)?))
    }

    fn duty(&self, rank: u32, newer_than: Option<u64>) -> Result<Reply, ReadError> {
        let look = |snapshot: &Snapshot| mgs::duty(snapshot, rank, |rank| self.address(rank));
        let duty = self.look_until(look, |duty| newer_than.is_none_or(|version| duty.version > version))?;
        Ok(Reply::Duty(duty))
    }

    fn told(&self, command: Command) -> Reply {
        match self.runtime.block_on(self.store.submit(command)) {
            Ok(_) => Reply::Done,
            Err(error) => Reply::Failed(error.to_string()),
        }
    }

    fn changes(&self, fs: &str, entries: &[Entry]) -> Reply {
        match self.runtime.block_on(self.changelogs.append(fs, entries)) {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Failed(why),
        }
    }

    fn pool_events(&self, events: &[Event]) -> Reply {
        match self.runtime.block_on(self.changelogs.append_pool_events(events)) {
            Ok(()) => Reply::Done,
            Err(why) => Reply::Failed(why),
        }
    }

    /// What `look` finds, once that is news; or what it finds when the time is over.
    fn look_until<T>(
        &self,
        look: impl Fn(&Snapshot) -> Result<T, ReadError>,
        is_news: impl Fn(&T) -> bool,
    ) -> Result<T, ReadError> {
        let mut changes = self.store.watch(mgs::META, mgs::VERSION);
        let mut stopping = self.stopping.subscribe();
        let news = async {
            loop {
                changes.borrow_and_update();
                let found = look(&self.store.read())?;
                if is_news(&found) {
                    return Ok(found);
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return Ok(found) },
                    _ = stopping.wait_for(|stopping| *stopping) => return Ok(found),
                }
            }
        };
        let held = async { tokio::time::timeout(HELD_MAX, news).await };
        self.runtime.block_on(held).unwrap_or_else(|_| look(&self.store.read()))
    }
}
