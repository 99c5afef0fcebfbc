//! What queues and logs leave for a connection, and how it is woken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::Notify;

use crate::core::{ConsumerKey, Credit, Entry, Offer};
use crate::server::queue::{Followup, Queue};
use crate::wire::ShortStr;

/// Bytes of messages that wait for one connection to write them. Beyond, its consumers take no more.
const MAILBOX_BYTES_MAX: usize = 1 << 20;
/// Below this, consumers that were refused are resumed.
const MAILBOX_BYTES_LOW: usize = MAILBOX_BYTES_MAX / 2;

/// A consumer, shared between its connection and its queue.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) tag: ShortStr,
    pub(super) channel: u16,
    pub(super) no_ack: bool,
    pub(super) exclusive: bool,
    pub(super) credit: Credit,
    pub(super) mailbox: Arc<Mailbox>,
    /// `None` for the consumer of direct replies.
    pub(super) queue: Option<Arc<Queue>>,
    /// Set when the queue has taken it.
    pub(super) key: OnceLock<ConsumerKey>,
    /// Its channel is gone or it was cancelled: what still waits for it goes back.
    pub(super) gone: AtomicBool,
}

impl Consumer {
    /// Takes a message if there is prefetch and room.
    pub(super) fn offer(self: &Arc<Self>, entry: Entry) -> Offer {
        if !self.no_ack && !self.credit.take() {
            return Offer::Busy(entry);
        }
        let offer = self.mailbox.deliver(self, entry);
        if !self.no_ack && !matches!(offer, Offer::Taken) {
            self.credit.give(1);
        }
        offer
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// It has room again; gives what is left to do for its queue.
    pub(super) fn resume(&self, now: i64) -> Option<(&Arc<Queue>, Followup)> {
        let (queue, key) = (self.queue.as_ref()?, self.key.get()?);
        Some((queue, queue.resume(*key, now)))
    }
}

/// One message on its way to a consumer.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) consumer: Arc<Consumer>,
    pub(super) entry: Entry,
}

/// Something for a connection.
#[derive(Debug)]
pub(super) enum Letter {
    /// A message for one of its consumers.
    Deliver(Delivery),
    /// A log has flushed these batches of confirms (channel and batch), or failed to.
    Flushed { tickets: Arc<[(u16, u64)]>, ok: bool },
    /// A consumer's queue was deleted.
    QueueGone(Arc<Consumer>),
    /// An operator closes the connection, or the broker shuts down.
    Close(String),
}

#[derive(Debug, Default)]
struct Inner {
    letters: Vec<Letter>,
    /// Of messages, from being put here until they are encoded.
    bytes: usize,
    /// A consumer was refused for want of room.
    starved: bool,
    closed: bool,
}

/// A connection's mailbox.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    inner: Mutex<Inner>,
    wake: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn deliver(&self, consumer: &Arc<Consumer>, entry: Entry) -> Offer {
        let mut inner = self.lock();
        if inner.closed || consumer.is_gone() {
            return Offer::Gone(entry);
        }
        if inner.bytes > MAILBOX_BYTES_MAX {
            inner.starved = true;
            return Offer::Busy(entry);
        }
        inner.bytes += weight(&entry);
        self.put(inner, Letter::Deliver(Delivery { consumer: Arc::clone(consumer), entry }));
        Offer::Taken
    }

    /// Leaves a letter that is small and bounded by what the connection itself asked for.
    pub(super) fn send(&self, letter: Letter) {
        let inner = self.lock();
        if !inner.closed {
            self.put(inner, letter);
        }
    }

    fn put(&self, mut inner: MutexGuard<'_, Inner>, letter: Letter) {
        let was_empty = inner.letters.is_empty();
        inner.letters.push(letter);
        drop(inner);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Waits for a letter. May return without one.
    pub(super) async fn wait(&self) {
        self.wake.notified().await;
    }

    /// Takes everything, into the empty `letters`.
    pub(super) fn take(&self, letters: &mut Vec<Letter>) {
        debug_assert!(letters.is_empty(), "what was taken before is handled");
        std::mem::swap(&mut self.lock().letters, letters);
    }

    /// Messages of so many bytes were encoded. Tells whether consumers are to be resumed.
    pub(super) fn encoded(&self, bytes: usize) -> bool {
        let mut inner = self.lock();
        inner.bytes = inner.bytes.saturating_sub(bytes);
        inner.bytes < MAILBOX_BYTES_LOW && std::mem::take(&mut inner.starved)
    }

    /// Takes no more letters, and gives back those that nobody will read.
    pub(super) fn close(&self) -> Vec<Letter> {
        let mut inner = self.lock();
        inner.closed = true;
        std::mem::take(&mut inner.letters)
    }
}

/// What an entry counts in its mailbox.
pub(super) fn weight(entry: &Entry) -> usize {
    entry.message.as_ref().map_or(0, |message| message.footprint())
}
