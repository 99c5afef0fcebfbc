//! Publishes and acknowledgements of one read of the socket, gathered so that each queue is locked once for them.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_log::Log;
use kiln_types::Offset;

use crate::core::{ConsumerKey, Entry, Message};
use crate::server::mailbox::Consumer;
use crate::server::queue::Queue;

/// The origin of a message that is not confirmed to anybody: channel 0 carries none.
pub(super) const NOBODY: (u16, u64) = (0, 0);
/// Up to so many queues are looked through one by one.
const LINEAR_MAX: usize = 8;

/// Something gathered for each of several queues, in the order in which they first came.
#[derive(Debug)]
pub(super) struct Groups<T> {
    list: Vec<(Arc<Queue>, T)>,
    /// Indexes by queue, once there are many.
    index: HashMap<u64, usize>,
    last: usize,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self { list: Vec::new(), index: HashMap::new(), last: 0 }
    }
}

impl<T: Default> Groups<T> {
    /// The group of `queue`.
    pub(super) fn of(&mut self, queue: &Arc<Queue>) -> &mut T {
        if self.list.get(self.last).is_none_or(|(other, _)| other.id != queue.id) {
            self.last = self.find(queue);
        }
        &mut self.list[self.last].1
    }

    fn find(&mut self, queue: &Arc<Queue>) -> usize {
        let found = if self.list.len() <= LINEAR_MAX {
            self.list.iter().position(|(other, _)| other.id == queue.id)
        } else {
            self.index.get(&queue.id).copied()
        };
        found.unwrap_or_else(|| self.add(queue))
    }

    fn add(&mut self, queue: &Arc<Queue>) -> usize {
        let at = self.list.len();
        if at == LINEAR_MAX {
            self.index = self.list.iter().enumerate().map(|(at, (queue, _))| (queue.id, at)).collect();
        }
        if at >= LINEAR_MAX {
            self.index.insert(queue.id, at);
        }
        self.list.push((Arc::clone(queue), T::default()));
        at
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Takes everything.
    pub(super) fn take(&mut self) -> Vec<(Arc<Queue>, T)> {
        self.index.clear();
        self.last = 0;
        std::mem::take(&mut self.list)
    }
}

/// Messages for one queue.
#[derive(Debug, Default)]
pub(super) struct ForQueue {
    pub(super) messages: Vec<Arc<Message>>,
    /// Channel and sequence number of each, 0 without confirms.
    pub(super) origins: Vec<(u16, u64)>,
}

/// Messages published and not yet pushed. With a full disk, a batch stays until all of it has found room.
#[derive(Default)]
pub(super) struct PublishBatch {
    pub(super) groups: Groups<ForQueue>,
    /// Channels in confirm mode that published.
    pub(super) confirming: Vec<u16>,
    /// Messages times queues.
    pub(super) count: usize,
    /// Memory held for the messages, in bytes.
    pub(super) bytes: usize,
    /// Channel and sequence number of messages that full queues refused.
    pub(super) refused: Vec<(u16, u64)>,
    /// Logs and offsets that the batch's confirms wait for.
    pub(super) waiting: Vec<(Log, Offset)>,
}

impl PublishBatch {
    /// A channel is gone: nobody is told any more what became of its messages.
    pub(super) fn forget_channel(&mut self, number: u16) {
        self.confirming.retain(|&other| other != number);
        self.refused.retain(|&(other, _)| other != number);
        for (_, group) in &mut self.groups.list {
            for origin in group.origins.iter_mut().filter(|(other, _)| *other == number) {
                *origin = NOBODY;
            }
        }
    }
}

/// What becomes of deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Acknowledged.
    Done,
    /// Back to where it was.
    Requeue,
    /// Rejected: to the dead-letter exchange, if there is one.
    Dead,
}

/// A delivery that waits for an acknowledgement.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) queue: Arc<Queue>,
    /// `None` for `basic.get`.
    pub(super) consumer: Option<Arc<Consumer>>,
    pub(super) entry: Entry,
}

/// Deliveries of one queue that got their fate.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) done: Vec<Entry>,
    pub(super) requeue: Vec<Entry>,
    pub(super) dead: Vec<Entry>,
    pub(super) resumed: Vec<ConsumerKey>,
}

impl Settled {
    /// Adds one, and gives its consumer's prefetch back.
    pub(super) fn add(&mut self, consumer: Option<&Arc<Consumer>>, entry: Entry, fate: Fate) {
        match fate {
            Fate::Done => self.done.push(entry),
            Fate::Requeue => self.requeue.push(entry),
            Fate::Dead => self.dead.push(entry),
        }
        if let Some(consumer) = consumer {
            consumer.credit.give(1);
            if let Some(&key) = consumer.key.get()
                && !self.resumed.contains(&key)
            {
                self.resumed.push(key);
            }
        }
    }
}
