//! Pushing what a connection published, and confirming it when it is durable.
//!
//! While the disk is full, what was gathered stays gathered and is tried again; the connection is told once, and goes
//! on delivering and acknowledging, so that consumers can give space back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::core::Outcome;
use crate::server::batch::ForQueue;
use crate::server::mailbox::Letter;
use crate::server::queue::Queue;
use crate::server::session::Session;
use crate::wire::{BasicAck, BasicNack, ConnectionBlocked, ConnectionUnblocked, ShortStr};

/// The pause between two tries while the disk is full.
const FULL_PAUSE: Duration = Duration::from_millis(250);
/// Messages that one connection may have waiting for a full disk, in bytes. Beyond, nothing more is read from it.
const STALLED_BYTES_MAX: usize = 8 << 20;

impl Session {
    /// Pushes gathered messages and carries out gathered acknowledgements.
    pub(super) fn flush(&mut self) {
        self.flush_settled();
        self.routes.recheck();
        if self.publishing.count > 0 && self.stalled.is_none_or(|retry_at| Instant::now() >= retry_at) {
            self.push_all();
        }
    }

    /// When to [`Session::flush`] again because the disk was full.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.stalled
    }

    /// Whether there is memory for more of what the client sends.
    pub(super) fn takes_more(&self) -> bool {
        self.stalled.is_none() || self.publishing.bytes < STALLED_BYTES_MAX
    }

    fn push_all(&mut self) {
        self.publishing.count = 0;
        self.publishing.bytes = 0;
        for (queue, group) in self.publishing.groups.take() {
            if let Some(rest) = self.push(&queue, group) {
                self.publishing.count += rest.messages.len();
                self.publishing.bytes +=
                    rest.messages.iter().map(|message| message.footprint()).sum::<usize>();
                *self.publishing.groups.of(&queue) = rest;
            }
        }
        if self.publishing.count > 0 {
            self.stall();
            return;
        }
        if self.stalled.take().is_some() && self.tells_blocking() {
            self.put(0, ConnectionUnblocked {});
        }
        self.confirm();
    }

    /// Pushes messages into one queue; gives back those for which the disk has no room.
    fn push(&mut self, queue: &Arc<Queue>, mut group: ForQueue) -> Option<ForQueue> {
        let (outcome, followup) = queue.publish(&group.messages, self.broker.now());
        self.broker.follow_up(queue, followup);
        let (published, from) = match outcome {
            Ok(published) => (published, group.messages.len()),
            Err(full) => (full.published, full.from),
        };
        let refused = published.refused.into_iter().map(|at| group.origins[at]);
        self.publishing.refused.extend(refused.filter(|&(_, sequence)| sequence > 0));
        self.publishing.waiting.extend(published.durable);
        let messages = group.messages.split_off(from);
        let origins = group.origins.split_off(from);
        (!messages.is_empty()).then_some(ForQueue { messages, origins })
    }

    fn stall(&mut self) {
        let before = self.stalled.replace(Instant::now() + FULL_PAUSE);
        if before.is_none() {
            tracing::warn!(peer = %self.peer.address, "the disk is full: a publisher waits");
            if self.tells_blocking() {
                self.put(0, ConnectionBlocked { reason: ShortStr::from_static("low on disk") });
            }
        }
    }

    fn tells_blocking(&self) -> bool {
        self.conn.is_running() && self.conn.capabilities().connection_blocked
    }

    /// The connection is over: what it published is pushed now or never.
    pub(super) fn push_last(&mut self) {
        if self.publishing.count > 0 {
            self.push_all();
        }
        let count = self.publishing.count;
        if count > 0 {
            let peer = self.peer.address;
            tracing::error!(%peer, count, "the disk is full: messages that were not confirmed are lost");
        }
    }

    /// Closes the confirm batch of every channel that published.
    fn confirm(&mut self) {
        let refused = std::mem::take(&mut self.publishing.refused);
        let waiting = std::mem::take(&mut self.publishing.waiting);
        let mut tickets = Vec::new();
        for number in std::mem::take(&mut self.publishing.confirming) {
            let mut nacks: Vec<u64> = refused.iter().filter(|(n, _)| *n == number).map(|(_, s)| *s).collect();
            nacks.sort_unstable();
            nacks.dedup();
            let Some(confirms) = self.conn.channel(number).and_then(|channel| channel.confirms.as_mut())
            else {
                continue;
            };
            tickets.push((number, confirms.close_batch(waiting.len(), nacks)));
        }
        if tickets.is_empty() {
            return;
        }
        if waiting.is_empty() {
            for (number, _) in tickets {
                self.tell_confirms(number);
            }
            return;
        }
        let tickets: Arc<[(u16, u64)]> = tickets.into();
        for (log, last) in waiting {
            let (mailbox, tickets) = (Arc::clone(&self.mailbox), Arc::clone(&tickets));
            let tell = move |outcome: Result<(), _>| {
                mailbox.send(Letter::Flushed { tickets: Arc::clone(&tickets), ok: outcome.is_ok() });
            };
            log.on_durable(last, Box::new(tell));
        }
    }

    /// One log has flushed its part of these batches, or failed to.
    pub(super) fn flushed(&mut self, tickets: &[(u16, u64)], ok: bool) {
        for &(number, id) in tickets {
            if let Some(confirms) = self.conn.channel(number).and_then(|channel| channel.confirms.as_mut()) {
                confirms.flushed(id, ok);
                self.tell_confirms(number);
            }
        }
    }

    fn tell_confirms(&mut self, number: u16) {
        let Some(confirms) = self.conn.channel(number).and_then(|channel| channel.confirms.as_mut()) else {
            return;
        };
        for outcome in confirms.outcomes() {
            match outcome {
                Outcome::Ack { tag, multiple } => self.put(number, BasicAck { delivery_tag: tag, multiple }),
                // RabbitMQ leaves the meaningless requeue bit at its default, which is set.
                Outcome::Nack { tag } => {
                    self.put(number, BasicNack { delivery_tag: tag, multiple: false, requeue: true });
                }
            }
        }
    }
}
