//! The metadata server: who may keep what of the namespace of one MDT.
//!
//! ```text
//! a connection's thread   reads a request, waits for its turn, answers        serve.rs, ask.rs, change.rs, lock.rs
//! a session's stream      sends callbacks                                     sessions.rs
//! the keeper              evicts who is silent, ends the recovery             keeper.rs
//! the changelog's         takes records of changes to their readers           changelog.rs
//! the checkpointer        writes the MDT's rows to its table                  keeper.rs
//! the drainer             moves objects away from OSTs that drain                     drain.rs
//! who takes a snapshot    has all data written, and everything wait            freeze.rs
//! a thread for each OST   destroys and cuts objects, looks at the space       osts.rs
//! ```
//!
//! All of them share one [`State`](state) under one lock: the MDT, the leases and the locks. A request that touches what
//! another session holds sends callbacks and waits; when nobody holds it any more it is applied and answered, and its own
//! session granted what it may keep, without letting go of the lock. Operations under the lock take microseconds; nothing
//! that waits for a disk, a socket or a peer is done there.
//!
//! docs/formats/fs-wire.md describes sessions, leases and recovery as a client sees them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kiln_net::blocking::{Call, Replies, Service};
use kiln_net::{Fault, Status};
use kiln_world::Clock;

use crate::core::changelog::Entry;
use crate::core::jobs::JobStats;
use crate::core::leases::LeaseTable;
use crate::core::namespace::{Command, What};
use crate::core::{Errno, ObjectId, OstIndex, SessionId, Time};
use crate::wire;
use crate::wire::mds::Request;
use crate::wire::mgs::{FsId, Ost};
use crate::wire::node::DrainStatus;
use crate::wire::oss::Space;

mod ask;
mod change;
mod changelog;
mod drain;
mod freeze;
mod hello;
mod keeper;
mod lock;
pub mod mdt;
mod osts;
mod serve;
mod sessions;
mod state;
#[cfg(test)]
mod tests;

pub use freeze::FreezeError;
pub use osts::MDS_SESSION;
pub use sessions::SESSIONS_MAX;

use mdt::Mdt;
use osts::{Osts, Work};
use serve::{Server, calendar};
use state::State;

/// How an MDS behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// A session that is silent for so long, or does not answer a callback for so long, is evicted. In whole seconds on the
    /// wire, rounded up.
    pub session_limit: Duration,
    /// After a start, sessions that were there before are waited for so long.
    pub recovery_limit: Duration,
    /// Inodes that one session may hold leases on; beyond that it gets answers, and keeps nothing.
    pub leases_per_session_max: usize,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            session_limit: Duration::from_secs(20),
            recovery_limit: Duration::from_secs(10),
            leases_per_session_max: 1 << 18,
        }
    }
}

/// Where the records of what changed go, for whoever reads them.
///
/// The MDT keeps a record from the change on until it was written here, so none is missing, whatever ends at once. One that
/// was written is written again when the MDT did not hear of it; its index tells. Called from a thread of its own.
pub trait Changelog: Send + Sync + 'static {
    /// Writes the records of an MDT, which follow the last that were written, in their order. When this returns, no crash
    /// undoes that. It may block, for a bounded time; if it fails it is tried again.
    fn write(&self, fs: &str, entries: Vec<Entry>) -> Result<(), String>;
}

/// What an MDS stands on.
pub struct Parts {
    /// Its MDT.
    pub mdt: Mdt,
    /// The filesystem's OSTs. Those that are missing here are not told whom the MDS evicts.
    pub osts: Vec<Ost>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where records of changes go; they are kept only if they go somewhere.
    pub changelog: Option<Box<dyn Changelog>>,
    /// The MDT is what one was at a snapshot, and served under this name: nothing changes its names, and nothing is done at its OSTs.
    pub snapshot: Option<String>,
    /// The MDT is what it was at another time: whoever had a session then has none now.
    pub is_of_old: bool,
}

/// A running MDS. It answers what its [`Service`] is handed; dropping it without [`Mds::stop`] leaves its threads running.
pub struct Mds {
    server: Arc<Server>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Mds {
    /// Starts it. Sessions that its MDT remembers are waited for before anything is answered.
    ///
    /// # Panics
    ///
    /// When the system has no threads for it.
    pub fn start(parts: Parts, settings: Settings) -> Result<Mds, Errno> {
        let Parts { mut mdt, osts, clock, changelog, snapshot, is_of_old } = parts;
        if is_of_old {
            end_all(&mut mdt, calendar(&*clock))?;
        }
        let now = clock.monotonic();
        // Above what was used before, unless the calendar was set back by as much as the MDS was away: a client counts
        // anew when it says hello to a server that does not know its leases.
        let seq = u64::try_from(clock.now().0).unwrap_or(0);
        let leases = LeaseTable::new(seq, settings.leases_per_session_max);
        let known = !mdt.sessions()?.is_empty();
        let recovery_ends = now + settings.recovery_limit;
        let orphans_stay = if known { recovery_ends + settings.recovery_limit } else { now };
        let label = mdt.label().clone();
        let id = FsId(u128::from_be_bytes(label.uuid));
        let is_snapshot = snapshot.is_some();
        let fs = snapshot.unwrap_or_else(|| label.fs.clone());
        let state = if is_snapshot {
            State::of_snapshot(mdt, leases, Arc::clone(&clock), recovery_ends)?
        } else {
            State::new(mdt, leases, Arc::clone(&clock), recovery_ends, orphans_stay)?
        };
        let (checkpoints, to_run) = sync_channel(1);
        let server = Arc::new(Server {
            fs: fs.clone(),
            id,
            mdt: label.mdt,
            settings,
            clock,
            state: Mutex::new(state),
            changed: Condvar::new(),
            lock_freed: Condvar::new(),
            stopping: AtomicBool::new(false),
            stop: (Mutex::new(false), Condvar::new()),
            osts: Osts::new(fs, id),
            jobs: Mutex::default(),
            drains: Mutex::default(),
            requests: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            is_snapshot,
            records_changes: changelog.is_some(),
            checkpoints,
        });
        // Before the keeper can evict anybody: the OSTs must be known that are told so.
        let mds = Mds { server: Arc::clone(&server), threads: Mutex::default() };
        mds.set_osts(&osts);
        if !is_snapshot {
            server.set_recording();
        }
        let (shipper, drainer) = (Arc::clone(&server), Arc::clone(&server));
        let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
        let threads = [
            spawn("mds-keeper").spawn(move || server.keep()),
            spawn("mds-checkpoint").spawn(move || keeper::run_checkpoints(&to_run)),
            spawn("mds-drain").spawn(move || drainer.empty_osts()),
        ];
        let threads = threads.map(|thread| thread.expect("a server that starts gets its threads"));
        let shipping = changelog.map(|changelog| {
            let ship = move || shipper.ship_changes(&*changelog);
            spawn("mds-changelog").spawn(ship).expect("a server that starts gets its threads")
        });
        let mut all = mds.threads.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(threads);
        all.extend(shipping);
        drop(all);
        Ok(mds)
    }

    /// The filesystem has these OSTs now.
    pub fn set_osts(&self, osts: &[Ost]) {
        let work: Arc<dyn Work> = Arc::clone(&self.server) as Arc<dyn Work>;
        self.server.osts.replace(&work, osts);
    }

    /// The filesystem that it serves.
    pub fn fs(&self) -> &str {
        &self.server.fs
    }

    /// Sessions that are here, with their hosts.
    pub fn sessions(&self) -> Vec<(SessionId, String)> {
        self.server.lock().sessions.list()
    }

    /// What jobs did, as far as mounts have told; those that did most first.
    pub fn jobs(&self) -> Vec<JobStats> {
        let now = self.server.time();
        self.server.jobs.lock().unwrap_or_else(PoisonError::into_inner).list(now)
    }

    /// How far the OSTs are that drain.
    pub fn drains(&self) -> Vec<DrainStatus> {
        self.server.drain_status()
    }

    /// The paths of the files that have these objects of an OST.
    pub fn owners(
        &self,
        ost: OstIndex,
        objects: &BTreeSet<ObjectId>,
    ) -> Result<Vec<(ObjectId, String)>, Errno> {
        self.server.owners(ost, objects)
    }

    /// Has all data written that sessions hold back, waits for what is under way, and serves nothing more until [`Mds::thaw`], or for at
    /// most `limit`: meanwhile a snapshot of the MDT and one of the objects are of the same moment.
    pub fn freeze(&self, limit: Duration) -> Result<(), FreezeError> {
        self.server.freeze(limit)
    }

    /// Ends [`Mds::freeze`]; whether it lasted until now.
    pub fn thaw(&self) -> bool {
        self.server.thaw()
    }

    /// Requests that came since its start.
    pub fn requests(&self) -> u64 {
        self.server.requests.load(Ordering::Relaxed)
    }

    /// Sessions that were evicted since its start.
    pub fn evictions(&self) -> u64 {
        self.server.evictions.load(Ordering::Relaxed)
    }

    /// Space and inodes of its MDT.
    pub fn space(&self) -> Result<Space, Errno> {
        self.server.lock().mdt.space()
    }

    /// Why its MDT answers `EIO` to everything, if it does: the process should end, and recover at its next start.
    pub fn failed(&self) -> Option<Arc<str>> {
        self.server.lock().mdt.failed()
    }

    /// Evicts a session as if it had not answered; `false` when it is not here.
    pub fn evict(&self, session: SessionId) -> bool {
        let mut state = self.server.lock();
        let is_here = state.sessions.standing(session) != sessions::Standing::Unknown;
        if is_here {
            self.server.evict(&mut state, session, "an administrator wants it");
        }
        is_here
    }

    /// Answers one request.
    pub fn handle(&self, request: Request, bulk: &[u8], replies: &mut Replies) -> Result<(), Fault> {
        self.server.handle(request, bulk, replies)
    }

    /// Ends its threads; requests that wait are not answered. What was answered is in the MDT's journal.
    pub fn stop(&self) {
        self.server.begin_stop();
        self.server.osts.stop();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }

    /// Stops it in good order: with a checkpoint, so that the next start has nothing to do again.
    pub fn close(&self) {
        self.stop();
        loop {
            let checkpoint = self.server.lock().mdt.checkpoint();
            match checkpoint {
                Some(checkpoint) => checkpoint.run(),
                None => return,
            }
        }
    }
}

/// Ends all sessions that an MDT remembers.
fn end_all(mdt: &mut Mdt, now: Time) -> Result<(), Errno> {
    for (session, _) in mdt.sessions()? {
        mdt.change(&Command { now, what: What::End { session } }, &[]).answer?;
    }
    Ok(())
}

impl Service for Mds {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        match call.decode()? {
            wire::Request::Mds(request) => self.server.handle(request, &call.bulk, replies),
            wire::Request::Mgs(_) | wire::Request::Oss(_) | wire::Request::Node(_) => {
                Err(Fault::new(Status::BadRequest, "here is an MDS, and nothing else"))
            }
        }
    }
}
