//! Dead messages on their way to their dead-letter exchange.
//!
//! **Invariant:** a message leaves its queue's log only when its letters are durable wherever they went. Letters that
//! find the disk full wait here, in the order in which their messages died, and are tried again. A restart finds
//! their messages in the queue where they died.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_log::Log;
use kiln_types::Offset;

use crate::core::{Death, Entry, Message, Reason, dead_letter_properties, is_cycle};
use crate::server::broker::{Broker, WeakBroker};
use crate::server::mailbox::weight;
use crate::server::queue::{Followup, Queue};

/// The pause between two tries while the disk is full.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Letters of so many messages, or of bodies of so many bytes, are made at a time.
const LETTERS_MAX: usize = 256;
const LETTERS_BYTES_MAX: usize = 4 << 20;
/// Messages that are in no log and wait for one queue, in bytes; what comes beyond is dropped.
const UNLOGGED_BYTES_MAX: usize = 32 << 20;

/// Messages that died in one queue, and why.
pub(super) type Dead = Vec<(Entry, Reason)>;

/// What dead messages become, and what of it has not arrived.
struct Letters {
    entries: Vec<Entry>,
    left: Vec<(Arc<Queue>, Vec<Arc<Message>>)>,
    /// Where letters arrived that are to be durable before their messages are forgotten.
    arrived: Vec<(Log, Offset)>,
}

/// Dead messages of one queue. Empty while they are being tried again.
struct Waiting {
    queue: Arc<Queue>,
    stuck: VecDeque<Letters>,
    behind: VecDeque<(Entry, Reason)>,
    /// Bytes of those of `behind` that are in no log.
    unlogged_bytes: usize,
}

impl Waiting {
    fn new(queue: &Arc<Queue>) -> Self {
        let queue = Arc::clone(queue);
        Self { queue, stuck: VecDeque::new(), behind: VecDeque::new(), unlogged_bytes: 0 }
    }

    /// Adds dead messages; gives back those for which there is no memory.
    fn add(&mut self, dead: Dead) -> Vec<Entry> {
        let mut dropped = Vec::new();
        for (entry, reason) in dead {
            let bytes = if entry.is_logged() { 0 } else { weight(&entry) };
            if self.unlogged_bytes + bytes > UNLOGGED_BYTES_MAX {
                dropped.push(entry);
                continue;
            }
            self.unlogged_bytes += bytes;
            self.behind.push_back((entry, reason));
        }
        dropped
    }

    fn next_dead(&mut self) -> Dead {
        let mut bytes = 0;
        let mut next = Dead::new();
        while next.len() < LETTERS_MAX && bytes < LETTERS_BYTES_MAX {
            let Some((entry, reason)) = self.behind.pop_front() else { break };
            bytes += entry.size as usize;
            if !entry.is_logged() {
                self.unlogged_bytes = self.unlogged_bytes.saturating_sub(weight(&entry));
            }
            next.push((entry, reason));
        }
        next
    }

    /// Adds what came while this was being tried again.
    fn append(&mut self, mut later: Self) {
        self.stuck.append(&mut later.stuck);
        self.behind.append(&mut later.behind);
        self.unlogged_bytes += later.unlogged_bytes;
    }

    fn is_empty(&self) -> bool {
        self.stuck.is_empty() && self.behind.is_empty()
    }
}

/// Dead messages whose letters found the disk full, by the queue in which they died.
#[derive(Default)]
pub(super) struct Burials {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    waiting: HashMap<u64, Waiting>,
    /// A task tries again. Invariant: set while anything waits.
    retrying: bool,
}

impl Burials {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts dead messages behind those of the same queue that wait; gives them back when none do. Otherwise gives
    /// those that are dropped for want of memory.
    fn join(&self, queue: &Arc<Queue>, dead: Dead) -> Result<Vec<Entry>, Dead> {
        match self.lock().waiting.get_mut(&queue.id) {
            Some(waiting) => Ok(waiting.add(dead)),
            None => Err(dead),
        }
    }

    /// Keeps what did not fit; whether a task must be started to try again.
    fn keep(&self, mut left: Waiting) -> bool {
        let mut inner = self.lock();
        if let Some(later) = inner.waiting.remove(&left.queue.id) {
            left.append(later);
        }
        inner.waiting.insert(left.queue.id, left);
        !std::mem::replace(&mut inner.retrying, true)
    }

    /// Takes everything that waits; what dies meanwhile waits behind it.
    fn take(&self) -> Vec<Waiting> {
        let mut inner = self.lock();
        let taken = inner.waiting.values_mut().map(|waiting| {
            let empty = Waiting::new(&waiting.queue);
            std::mem::replace(waiting, empty)
        });
        taken.collect()
    }

    /// Everything taken was tried; whether to go on trying.
    fn rest(&self) -> bool {
        let mut inner = self.lock();
        inner.waiting.retain(|_, waiting| !waiting.is_empty());
        inner.retrying = !inner.waiting.is_empty();
        inner.retrying
    }
}

impl Broker {
    /// Passes dead messages on to their dead-letter exchange, and those that die by that on to theirs.
    pub(super) fn bury(&self, queue: &Arc<Queue>, dead: Dead) {
        let mut work = vec![(Arc::clone(queue), dead)];
        while let Some((queue, dead)) = work.pop() {
            match self.burials().join(&queue, dead) {
                Ok(dropped) => self.forget(&queue, &dropped),
                Err(dead) => {
                    let mut waiting = Waiting::new(&queue);
                    self.forget(&queue, &waiting.add(dead));
                    self.pass_on(waiting, &mut work);
                }
            }
        }
    }

    fn forget(&self, queue: &Queue, dropped: &[Entry]) {
        if dropped.is_empty() {
            return;
        }
        tracing::error!(queue = %queue.spec.name, count = dropped.len(), "the disk is full: dead letters are lost");
        if let Some(chore) = queue.bury(dropped, self.now()) {
            tokio::spawn(chore.run());
        }
    }

    /// Passes on what the disk has room for, and keeps the rest. What dies by that is added to `work`.
    fn pass_on(&self, mut waiting: Waiting, work: &mut Vec<(Arc<Queue>, Dead)>) {
        loop {
            let mut letters = match waiting.stuck.pop_front() {
                Some(stuck) => stuck,
                None => match waiting.next_dead() {
                    dead if dead.is_empty() => return,
                    dead => self.letters(&waiting.queue, dead),
                },
            };
            self.deliver(&mut letters, work);
            if letters.left.is_empty() {
                self.settle_dead(&waiting.queue, letters);
                continue;
            }
            waiting.stuck.push_front(letters);
            if self.burials().keep(waiting) {
                tracing::error!("the disk is full: dead letters wait");
                tokio::spawn(retry(self.downgrade()));
            }
            return;
        }
    }

    fn deliver(&self, letters: &mut Letters, work: &mut Vec<(Arc<Queue>, Dead)>) {
        for (target, mut messages) in std::mem::take(&mut letters.left) {
            let (outcome, followup) = target.publish(&messages, self.now());
            let Followup { dead, deadline, chore } = followup;
            self.follow_up(&target, Followup { dead: Dead::new(), deadline, chore });
            if !dead.is_empty() {
                work.push((Arc::clone(&target), dead));
            }
            let (published, rest) = match outcome {
                Ok(published) => (published, Vec::new()),
                Err(full) => (full.published, messages.split_off(full.from)),
            };
            letters.arrived.extend(published.durable);
            if !rest.is_empty() {
                letters.left.push((target, rest));
            }
        }
    }

    /// The messages are done with once their letters are durable.
    fn settle_dead(&self, queue: &Arc<Queue>, letters: Letters) {
        let Letters { entries, arrived, .. } = letters;
        let (queue, now) = (Arc::clone(queue), self.now());
        if arrived.is_empty() {
            if let Some(chore) = queue.bury(&entries, now) {
                tokio::spawn(chore.run());
            }
            return;
        }
        tokio::spawn(async move {
            for (log, last) in arrived {
                if let Err(error) = log.durable(last).await {
                    tracing::error!(%error, queue = %queue.spec.name, "dead letters are not stored");
                    return;
                }
            }
            if let Some(chore) = queue.bury(&entries, now) {
                chore.run().await;
            }
        });
    }

    /// The messages that dead ones become, by the queue that they go to.
    fn letters(&self, queue: &Arc<Queue>, dead: Dead) -> Letters {
        let left = self.addressed(queue, &dead);
        let entries = dead.into_iter().map(|(entry, _)| entry).collect();
        Letters { entries, left, arrived: Vec::new() }
    }

    fn addressed(
        &self,
        queue: &Arc<Queue>,
        dead: &[(Entry, Reason)],
    ) -> Vec<(Arc<Queue>, Vec<Arc<Message>>)> {
        let (exchange, key) = queue.with_arguments(|arguments| {
            (arguments.dead_letter_exchange.clone(), arguments.dead_letter_routing_key.clone())
        });
        let (Some(exchange), Some(vhost)) = (exchange, self.running_vhost(&queue.vhost)) else {
            return Vec::new();
        };
        let time = (self.now() / 1_000_000).unsigned_abs();
        let mut groups: Vec<(Arc<Queue>, Vec<Arc<Message>>)> = Vec::new();
        for (entry, reason) in dead {
            let Some(message) = queue.load(entry) else { continue };
            let death = Death { queue: &queue.spec.name, reason: *reason, time };
            // Properties were scanned when the message was published; only its header table can be malformed.
            let Ok(properties) = dead_letter_properties(&message, &death) else { continue };
            let routing_key = key.clone().unwrap_or_else(|| message.routing_key.clone());
            let routed = vhost.read().route(&exchange, &[&routing_key], &properties);
            let letter = Arc::new(Message {
                exchange: exchange.clone(),
                routing_key,
                properties,
                body: message.body.clone(),
                persistent: message.persistent,
                priority: message.priority,
                expiration: None,
            });
            for target in routed.map(|routed| routed.queues).unwrap_or_default() {
                if *reason != Reason::Rejected && is_cycle(&letter.properties, &target.spec.name) {
                    continue;
                }
                match groups.iter_mut().find(|(other, _)| other.id == target.id) {
                    Some((_, messages)) => messages.push(Arc::clone(&letter)),
                    None => groups.push((target, vec![Arc::clone(&letter)])),
                }
            }
        }
        groups
    }

    /// Tries everything that waits once; whether to go on.
    fn retry_burials(&self) -> bool {
        for waiting in self.burials().take() {
            let mut work = Vec::new();
            self.pass_on(waiting, &mut work);
            for (queue, dead) in work {
                self.bury(&queue, dead);
            }
        }
        self.burials().rest()
    }
}

/// Tries again until nothing waits or the broker is gone.
async fn retry(broker: WeakBroker) {
    loop {
        tokio::time::sleep(RETRY_PAUSE).await;
        let Some(broker) = broker.upgrade() else { return };
        if !broker.retry_burials() {
            return;
        }
    }
}
