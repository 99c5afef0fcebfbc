//! Requests that wait for callbacks, in the order in which they came.

use std::collections::BTreeMap;

use super::{Touch, WAITING_MAX};
use crate::core::{Ino, SessionId};

/// The place of a request in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// What a request waits to do to one inode.
#[derive(Clone, Debug)]
struct Waiting {
    session: SessionId,
    touches: Vec<Touch>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<(Ino, Ticket), Waiting>,
    /// The inodes that each touches.
    tickets: BTreeMap<Ticket, Vec<Ino>>,
    last: u64,
}

impl Queue {
    pub(super) fn wait(
        &mut self,
        ticket: Option<Ticket>,
        session: SessionId,
        touches: &[(Ino, Touch)],
    ) -> Option<Ticket> {
        let ticket = match ticket {
            Some(ticket) => ticket,
            None if self.tickets.len() >= WAITING_MAX => return None,
            None => {
                self.last += 1;
                Ticket(self.last)
            }
        };
        self.leave(ticket);
        for (ino, touch) in touches {
            let waiting = self.waiting.entry((*ino, ticket));
            let waiting = waiting.or_insert_with(|| Waiting { session, touches: Vec::new() });
            waiting.touches.push(touch.clone());
        }
        self.tickets.insert(ticket, touches.iter().map(|(ino, _)| *ino).collect());
        Some(ticket)
    }

    pub(super) fn leave(&mut self, ticket: Ticket) {
        for ino in self.tickets.remove(&ticket).unwrap_or_default() {
            self.waiting.remove(&(ino, ticket));
        }
    }

    /// What other sessions' requests that came before `ticket` (all, without one) will do to an inode.
    pub(super) fn before(
        &self,
        ino: Ino,
        session: SessionId,
        ticket: Option<Ticket>,
    ) -> impl Iterator<Item = &Touch> {
        let end = ticket.unwrap_or(Ticket(u64::MAX));
        let waiting = self.waiting.range((ino, Ticket(0))..(ino, end));
        waiting.filter(move |(_, one)| one.session != session).flat_map(|(_, one)| &one.touches)
    }
}
