//! Callbacks that are on their way.

use std::collections::BTreeMap;
use std::time::Duration;

use super::CALLS_PER_SESSION_MAX;
use crate::core::{Ino, SessionId};
use crate::wire::mds::{Callback, Take};

/// A callback that is not acknowledged.
#[derive(Clone, Debug)]
struct Call {
    take: Take,
    sent: Duration,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// By session, inode and number.
    outstanding: BTreeMap<(SessionId, Ino, u64), Call>,
    /// How many of `outstanding` are a session's.
    counts: BTreeMap<SessionId, usize>,
    /// Number of the last callback.
    seq: u64,
}

impl Calls {
    pub(super) fn new(seq: u64) -> Calls {
        Calls { outstanding: BTreeMap::new(), counts: BTreeMap::new(), seq }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// The callback to send; `None` if one on its way takes as much, or too many are on their way.
    pub(super) fn begin(
        &mut self,
        session: SessionId,
        ino: Ino,
        take: &Take,
        now: Duration,
    ) -> Option<Callback> {
        let count = self.counts.get(&session).copied().unwrap_or(0);
        if count >= CALLS_PER_SESSION_MAX || self.of(session, ino).any(|sent| covers(sent, take)) {
            return None;
        }
        self.seq += 1;
        self.counts.insert(session, count + 1);
        self.outstanding.insert((session, ino, self.seq), Call { take: take.clone(), sent: now });
        Some(Callback { seq: self.seq, ino, take: take.clone() })
    }

    /// A callback is acknowledged.
    pub(super) fn end(&mut self, session: SessionId, ino: Ino, seq: u64) -> Option<Take> {
        let call = self.outstanding.remove(&(session, ino, seq))?;
        if let Some(count) = self.counts.get_mut(&session) {
            *count -= 1;
        }
        Some(call.take)
    }

    /// What is on its way to be taken from a session on an inode.
    pub(super) fn of(&self, session: SessionId, ino: Ino) -> impl Iterator<Item = &Take> {
        self.outstanding.range((session, ino, 0)..=(session, ino, u64::MAX)).map(|(_, call)| &call.take)
    }

    pub(super) fn outstanding(&self, session: SessionId) -> Vec<Callback> {
        let calls = self.outstanding.range(all_of(session));
        let mut calls: Vec<Callback> =
            calls.map(|(&(_, ino, seq), call)| Callback { seq, ino, take: call.take.clone() }).collect();
        calls.sort_unstable_by_key(|call| call.seq);
        calls
    }

    pub(super) fn renew(&mut self, now: Duration) {
        for call in self.outstanding.values_mut() {
            call.sent = now;
        }
    }

    pub(super) fn overdue(&self, since: Duration) -> Vec<SessionId> {
        let late = self.outstanding.iter().filter(|(_, call)| call.sent < since);
        let mut sessions: Vec<SessionId> = late.map(|(&(session, ..), _)| session).collect();
        sessions.dedup();
        sessions
    }

    pub(super) fn drop_session(&mut self, session: SessionId) {
        let keys: Vec<_> = self.outstanding.range(all_of(session)).map(|(key, _)| *key).collect();
        for key in keys {
            self.outstanding.remove(&key);
        }
        self.counts.remove(&session);
    }
}

fn all_of(session: SessionId) -> std::ops::RangeInclusive<(SessionId, Ino, u64)> {
    (session, Ino(0), 0)..=(session, Ino(u64::MAX), u64::MAX)
}

/// Whether the acknowledgement of `sent` also takes `take`.
fn covers(sent: &Take, take: &Take) -> bool {
    match (sent, take) {
        (Take::Names, Take::Name(_)) => true,
        (Take::Data(sent), Take::Data(down_to)) => sent <= down_to,
        _ => sent == take,
    }
}
