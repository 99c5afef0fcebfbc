//! The sessions that are there, and the callbacks that wait to be sent to each.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::SessionId;
use crate::wire::mds::Callback;

/// Sessions at once.
pub const SESSIONS_MAX: usize = 4096;
/// Sessions that were evicted and are known as such when they say hello.
const EVICTED_MAX: usize = 1024;

/// Callbacks that wait to be sent. Bounded by what the lease table lets be outstanding for one session.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    callbacks: VecDeque<Callback>,
    /// Counts the streams; only the last one sends.
    stream: u64,
    closed: bool,
}

/// What a stream does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Sends this.
    Callback(Callback),
    /// Looks whether anybody listens.
    Nothing,
    /// Ends: the session is over, or has another stream.
    Over,
}

impl Outbox {
    pub(super) fn push(&self, callback: Callback) {
        self.lock().callbacks.push_back(callback);
        self.ready.notify_all();
    }

    /// Begins a stream with what is outstanding; another one that there is ends.
    pub(super) fn begin(&self, outstanding: Vec<Callback>) -> u64 {
        let mut queue = self.lock();
        queue.callbacks = outstanding.into();
        queue.stream += 1;
        self.ready.notify_all();
        queue.stream
    }

    /// The session is over.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// Waits for the next callback, at most so long.
    pub(super) fn next(&self, stream: u64, timeout: Duration) -> Next {
        let idle = |queue: &mut Queue| !queue.closed && queue.stream == stream && queue.callbacks.is_empty();
        let waited = self.ready.wait_timeout_while(self.lock(), timeout, idle);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        if queue.closed || queue.stream != stream {
            return Next::Over;
        }
        queue.callbacks.pop_front().map_or(Next::Nothing, Next::Callback)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing under this lock can panic halfway.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session that is here.
#[derive(Debug)]
struct Session {
    /// The client's host, for people.
    host: String,
    /// When it was heard last.
    heard: Duration,
    outbox: Arc<Outbox>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is here.
    Live,
    /// It was here before the MDS started, and has not said hello since.
    Expected,
    /// It was never here, or is over.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    /// **Invariant:** with `expected` at most [`SESSIONS_MAX`], but for those that were there at the start.
    live: BTreeMap<SessionId, Session>,
    /// Those that are waited for, with their hosts.
    expected: BTreeMap<SessionId, String>,
    evicted: VecDeque<SessionId>,
}

impl Sessions {
    /// Those that were there when the MDS stopped.
    pub(super) fn expecting(known: Vec<(SessionId, String)>) -> Sessions {
        Sessions { expected: known.into_iter().collect(), ..Sessions::default() }
    }

    pub(super) fn standing(&self, session: SessionId) -> Standing {
        if self.live.contains_key(&session) {
            Standing::Live
        } else if self.expected.contains_key(&session) {
            Standing::Expected
        } else {
            Standing::Unknown
        }
    }

    /// Whether some that were there at the start have neither come back nor been given up.
    pub(super) fn is_recovering(&self) -> bool {
        !self.expected.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.live.len() + self.expected.len() >= SESSIONS_MAX
    }

    pub(super) fn was_evicted(&self, session: SessionId) -> bool {
        self.evicted.contains(&session)
    }

    /// A session is here now.
    pub(super) fn enter(&mut self, session: SessionId, host: String, now: Duration) {
        self.expected.remove(&session);
        self.live.insert(session, Session { host, heard: now, outbox: Arc::default() });
    }

    pub(super) fn heard(&mut self, session: SessionId, now: Duration) {
        if let Some(session) = self.live.get_mut(&session) {
            session.heard = now;
        }
    }

    /// Time was lost in which nobody could be heard.
    pub(super) fn all_heard(&mut self, now: Duration) {
        for session in self.live.values_mut() {
            session.heard = now;
        }
    }

    /// Those that were not heard since `since`.
    pub(super) fn silent(&self, since: Duration) -> Vec<SessionId> {
        let silent = self.live.iter().filter(|(_, session)| session.heard < since);
        silent.map(|(id, _)| *id).collect()
    }

    pub(super) fn expected(&self) -> Vec<SessionId> {
        self.expected.keys().copied().collect()
    }

    pub(super) fn outbox(&self, session: SessionId) -> Option<Arc<Outbox>> {
        self.live.get(&session).map(|session| Arc::clone(&session.outbox))
    }

    pub(super) fn send(&self, session: SessionId, callback: Callback) {
        if let Some(session) = self.live.get(&session) {
            session.outbox.push(callback);
        }
    }

    /// A session is over. Its host.
    pub(super) fn leave(&mut self, session: SessionId) -> Option<String> {
        let live = self.live.remove(&session);
        if let Some(session) = &live {
            session.outbox.close();
        }
        live.map(|session| session.host).or_else(|| self.expected.remove(&session))
    }

    /// It was put out, and will find that out when it says hello.
    pub(super) fn remember_evicted(&mut self, session: SessionId) {
        if self.evicted.len() >= EVICTED_MAX {
            self.evicted.pop_front();
        }
        self.evicted.push_back(session);
    }

    /// Ends every stream.
    pub(super) fn close(&self) {
        for session in self.live.values() {
            session.outbox.close();
        }
    }

    /// Every session that is here, with its host.
    pub(super) fn list(&self) -> Vec<(SessionId, String)> {
        self.live.iter().map(|(id, session)| (*id, session.host.clone())).collect()
    }
}
