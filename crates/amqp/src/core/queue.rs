//! A queue without I/O: order, limits, expiry, and which consumer is next.

use std::collections::VecDeque;

use crate::core::ready::Ready;
use crate::core::{Entry, NEVER, Overflow, QueueArguments};

/// A consumer within one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerKey(pub u64);

/// A consumer's answer to an offered entry.
#[derive(Debug)]
pub enum Offer {
    /// It took the entry.
    Taken,
    /// It has no room; it will be resumed.
    Busy(Entry),
    /// It no longer exists.
    Gone(Entry),
}

/// Why draining stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// No message is ready, or no consumer has room.
    Idle,
    /// The head's body is only in the log: read from this offset, [`Queue::fill`] it in, drain again.
    NeedsBody {
        /// The head's offset.
        offset: i64,
    },
}

#[derive(Debug)]
struct Slot<C> {
    key: ConsumerKey,
    consumer: C,
    exclusive: bool,
    /// It had no room when it was last asked. Invariant: such a slot is not in `turns`.
    waiting: bool,
}

/// Ready messages and consumers of one queue. `C` is the server's handle on a consumer.
#[derive(Debug)]
pub struct Queue<C> {
    arguments: QueueArguments,
    ready: Ready,
    next_position: u64,
    unacked: usize,
    consumers: Vec<Slot<C>>,
    turns: VecDeque<ConsumerKey>,
    next_key: u64,
    /// When it was last used, microseconds since the epoch; for `x-expires`.
    used_at: i64,
}

impl<C> Queue<C> {
    /// An empty queue, used just now.
    pub fn new(arguments: QueueArguments, now: i64) -> Self {
        let ready = Ready::new(arguments.max_priority);
        Self {
            arguments,
            ready,
            next_position: 0,
            unacked: 0,
            consumers: Vec::new(),
            turns: VecDeque::new(),
            next_key: 0,
            used_at: now,
        }
    }

    /// The arguments it was declared with.
    pub fn arguments(&self) -> &QueueArguments {
        &self.arguments
    }

    /// Messages that wait for a consumer.
    pub fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Octets of their bodies.
    pub fn ready_bytes(&self) -> u64 {
        self.ready.bytes()
    }

    /// Messages delivered and not yet acknowledged.
    pub fn unacked_count(&self) -> usize {
        self.unacked
    }

    /// The consumers.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &C> {
        self.consumers.iter().map(|slot| &slot.consumer)
    }

    /// Whether a consumer holds it exclusively.
    pub fn in_exclusive_use(&self) -> bool {
        self.consumers.iter().any(|slot| slot.exclusive)
    }

    /// When a message that lives `own` milliseconds expires here, in microseconds since the epoch.
    pub fn expiry(&self, now: i64, own: Option<u64>) -> i64 {
        let ttl = match (self.arguments.message_ttl, own) {
            (Some(queue), Some(own)) => queue.min(own),
            (Some(ttl), None) | (None, Some(ttl)) => ttl,
            (None, None) => return NEVER,
        };
        let micros = i64::try_from(ttl).unwrap_or(NEVER).saturating_mul(1000);
        now.saturating_add(micros)
    }

    /// A priority cut to what this queue knows.
    pub fn cut_priority(&self, priority: u8) -> u8 {
        priority.min(self.arguments.max_priority)
    }

    /// Whether a new message must be refused (`x-overflow` `reject-publish`).
    pub fn refuses(&self, size: u64) -> bool {
        if self.arguments.overflow == Overflow::DropHead {
            return false;
        }
        let full = self.arguments.max_length.is_some_and(|max| self.ready.len() as u64 >= max);
        full || self.arguments.max_length_bytes.is_some_and(|max| self.ready.bytes() + size > max)
    }

    /// Puts a new message at the end; its position is given here.
    pub fn push(&mut self, mut entry: Entry) {
        entry.position = self.next_position;
        self.next_position += 1;
        self.ready.insert(entry);
    }

    /// Puts a delivered message back where it was, marked as redelivered.
    pub fn requeue(&mut self, mut entry: Entry) {
        self.unacked -= 1;
        entry.redelivered = true;
        self.ready.insert(entry);
    }

    /// Counts a delivered message as settled.
    pub fn settle(&mut self) {
        self.unacked -= 1;
    }

    /// Takes the head for `basic.get`; it counts as unacked until settled or requeued.
    pub fn pop(&mut self, now: i64) -> Option<Entry> {
        self.used_at = now;
        let entry = self.ready.pop()?;
        self.unacked += 1;
        Some(entry)
    }

    /// The entry that would be popped.
    pub fn head(&self) -> Option<&Entry> {
        self.ready.head()
    }

    /// Takes every ready message.
    pub fn purge(&mut self) -> Vec<Entry> {
        self.ready.take_all()
    }

    /// Every ready message.
    pub fn ready(&self) -> impl Iterator<Item = &Entry> {
        self.ready.iter()
    }

    /// Takes expired messages off the head.
    pub fn expire(&mut self, now: i64) -> Vec<Entry> {
        let mut out = Vec::new();
        self.ready.expire(now, &mut out);
        out
    }

    /// Takes what exceeds `x-max-length` and `x-max-length-bytes`, oldest first.
    pub fn overflow(&mut self) -> Vec<Entry> {
        let max_count = self.arguments.max_length.unwrap_or(u64::MAX);
        let max_bytes = self.arguments.max_length_bytes.unwrap_or(u64::MAX);
        let mut out = Vec::new();
        while self.ready.len() as u64 > max_count || self.ready.bytes() > max_bytes {
            out.extend(self.ready.pop_least());
        }
        out
    }

    /// When something happens by itself: a head expires, or the queue does. Microseconds since the epoch.
    pub fn next_deadline(&self) -> Option<i64> {
        match (self.ready.next_expiry(), self.expires_at()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// When the queue goes for not being used (`x-expires`).
    pub fn expires_at(&self) -> Option<i64> {
        let ms = self.arguments.expires?;
        let micros = i64::try_from(ms).unwrap_or(NEVER).saturating_mul(1000);
        self.consumers.is_empty().then(|| self.used_at.saturating_add(micros))
    }

    /// Notes a use: a redeclaration, a get, a consumer.
    pub fn touch(&mut self, now: i64) {
        self.used_at = now;
    }

    /// Adds a consumer, ready to take.
    pub fn add_consumer(&mut self, consumer: C, exclusive: bool) -> ConsumerKey {
        let key = ConsumerKey(self.next_key);
        self.next_key += 1;
        self.consumers.push(Slot { key, consumer, exclusive, waiting: false });
        self.turns.push_back(key);
        key
    }

    /// Removes a consumer; `None` when it is not there.
    pub fn remove_consumer(&mut self, key: ConsumerKey, now: i64) -> Option<C> {
        let at = self.consumers.iter().position(|slot| slot.key == key)?;
        self.turns.retain(|&other| other != key);
        self.used_at = now;
        Some(self.consumers.remove(at).consumer)
    }

    /// A consumer has room again.
    pub fn resume(&mut self, key: ConsumerKey) {
        if let Some(slot) = self.consumers.iter_mut().find(|slot| slot.key == key)
            && std::mem::take(&mut slot.waiting)
        {
            self.turns.push_back(key);
        }
    }

    /// Whether someone would take a message now.
    pub fn has_taker(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Offers ready messages to consumers in turn until one side runs out.
    pub fn drain(&mut self, mut offer: impl FnMut(&C, ConsumerKey, Entry) -> Offer) -> Drained {
        while self.ready.len() > 0 {
            let Some(at) = self.next_turn() else { return Drained::Idle };
            if let Some(head) = self.ready.head()
                && head.message.is_none()
            {
                return Drained::NeedsBody { offset: head.offset };
            }
            let Some(entry) = self.ready.pop() else { return Drained::Idle };
            let slot = &mut self.consumers[at];
            match offer(&slot.consumer, slot.key, entry) {
                Offer::Taken => {
                    self.unacked += 1;
                    self.turns.rotate_left(1);
                }
                Offer::Busy(entry) => {
                    slot.waiting = true;
                    self.ready.insert(entry);
                    self.turns.pop_front();
                }
                Offer::Gone(entry) => {
                    self.ready.insert(entry);
                    self.turns.pop_front();
                }
            }
        }
        Drained::Idle
    }

    /// The index of the consumer whose turn it is.
    fn next_turn(&mut self) -> Option<usize> {
        if self.arguments.single_active_consumer {
            let first = self.consumers.first()?;
            let key = first.key;
            let place = self.turns.iter().position(|&other| other == key)?;
            self.turns.swap(0, place);
            return Some(0);
        }
        while let Some(&key) = self.turns.front() {
            match self.consumers.iter().position(|slot| slot.key == key) {
                Some(at) => return Some(at),
                None => self.turns.pop_front(),
            };
        }
        None
    }

    /// Gives bodies read back from the log to the entries at the head. `body` returns `None` past what was read.
    pub fn fill(&mut self, mut body: impl FnMut(i64) -> Option<std::sync::Arc<super::Message>>) -> usize {
        let Some(list) = self.ready.head_list() else { return 0 };
        let mut filled = 0;
        for entry in list.iter_mut() {
            if entry.message.is_some() || !entry.is_logged() {
                continue;
            }
            let Some(message) = body(entry.offset) else { break };
            entry.message = Some(message);
            filled += 1;
        }
        filled
    }

    /// Drops the head that cannot be read back, so that the messages after it can be delivered.
    pub fn drop_head(&mut self) -> Option<Entry> {
        self.ready.pop()
    }
}

#[cfg(test)]
mod tests;
