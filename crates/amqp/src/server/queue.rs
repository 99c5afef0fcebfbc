//! A queue with its lock, its place on disk and its part of the memory.
//!
//! Every operation locks once, for as long as it takes to move messages between lists and the page cache; nothing
//! is awaited under the lock. What must happen outside is returned as [`Followup`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_log::{AppendError, Log, Volume};
use kiln_types::Offset;

use crate::core::{
    ConsumerKey, Drained, Entry, Message, NEVER, Offer, Overflow, Queue as Core, QueueArguments, QueueSpec,
    Reason, Refusal, ReplyCode, UNLOGGED,
};
use crate::server::backing::{Backing, BackingError, Chore, logged_offset};
use crate::server::mailbox::{Consumer, Letter};
use crate::server::record::StoredMessage;
use crate::wire::ShortStr;

/// Messages kept in memory for one queue, in bytes; the bodies of what comes after are only in the log.
const QUEUE_MEMORY_BYTES_MAX: usize = 32 << 20;

/// What all queues share.
#[derive(Debug)]
pub(super) struct Memory {
    used: AtomicUsize,
    max: usize,
}

impl Memory {
    pub(super) fn new(max: usize) -> Self {
        Self { used: AtomicUsize::new(0), max }
    }

    /// Bytes of messages in memory.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

/// A queue of the running broker.
pub(super) struct Queue {
    /// Unlike any other queue's of this run.
    pub(super) id: u64,
    pub(super) vhost: ShortStr,
    pub(super) spec: Arc<QueueSpec>,
    volume: Volume,
    dir: PathBuf,
    memory: Arc<Memory>,
    state: Mutex<State>,
}

struct State {
    core: Core<Arc<Consumer>>,
    /// Opened with the first message that needs it.
    backing: Option<Backing>,
    deleted: bool,
    /// Bytes of messages in memory for this queue, and how many of them `memory` knows of.
    resident: usize,
    reported: usize,
    /// The deadline that the timer knows of.
    armed: i64,
    /// Whether it ever had a consumer: an auto-delete queue goes after its last one, never before a first.
    was_consumed: bool,
}

/// What an operation leaves to be done outside the lock.
#[derive(Default)]
pub(super) struct Followup {
    /// Messages that died here.
    pub(super) dead: Vec<(Entry, Reason)>,
    /// When to look at the queue again, microseconds since the epoch.
    pub(super) deadline: Option<i64>,
    /// Work on disk.
    pub(super) chore: Option<Chore>,
}

/// What became of published messages.
#[derive(Default)]
pub(super) struct Published {
    /// The log and offset to wait for, when a message is to be durable.
    pub(super) durable: Option<(Log, Offset)>,
    /// Indexes of the messages refused because the queue is full.
    pub(super) refused: Vec<usize>,
}

/// The disk is full: nothing of the messages from `from` on was taken.
pub(super) struct Full {
    pub(super) from: usize,
    /// What became of those before.
    pub(super) published: Published,
}

/// Why messages were not taken.
enum Untaken {
    Full,
    Failed(String),
}

impl From<BackingError> for Untaken {
    fn from(error: BackingError) -> Self {
        if error.is_full() { Self::Full } else { Self::Failed(error.to_string()) }
    }
}

/// Counts for people.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) ready: usize,
    pub(super) unacked: usize,
    pub(super) consumers: usize,
    pub(super) ready_bytes: u64,
    pub(super) memory_bytes: usize,
    pub(super) disk_bytes: u64,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("id", &self.id).field("name", &self.spec.name).finish_non_exhaustive()
    }
}

/// Where a queue keeps its messages, and what it shares with others.
pub(super) struct Home {
    pub(super) id: u64,
    pub(super) vhost: ShortStr,
    pub(super) volume: Volume,
    pub(super) dir: PathBuf,
    pub(super) memory: Arc<Memory>,
}

impl Queue {
    pub(super) fn new(home: Home, spec: Arc<QueueSpec>, arguments: QueueArguments, now: i64) -> Self {
        let state = State {
            core: Core::new(arguments, now),
            backing: None,
            deleted: false,
            resident: 0,
            reported: 0,
            armed: NEVER,
            was_consumed: false,
        };
        let Home { id, vhost, volume, dir, memory } = home;
        Self { id, vhost, spec, volume, dir, memory, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As errors name it.
    fn describe(&self) -> String {
        format!("queue '{}' in vhost '{}'", self.spec.name, self.vhost)
    }

    /// Reads back what the last run left. Only for a durable queue whose directory is there.
    pub(super) fn recover(&self) -> Result<Followup, BackingError> {
        let mut state = self.lock();
        let core = &mut state.core;
        let mut found = |stored: &StoredMessage, delivered| {
            let entry = Entry {
                position: 0,
                offset: stored.offset,
                expires_at: core.expiry(stored.time_ms * 1000, stored.message.expiration),
                size: stored.message.body.len() as u32,
                priority: core.cut_priority(stored.message.priority),
                redelivered: delivered,
                message: None,
            };
            core.push(entry);
        };
        state.backing = Some(Backing::open(&self.volume, &self.dir, true, &mut found)?);
        Ok(self.finish(state, Vec::new(), 0))
    }

    // ---- publishing

    /// Takes messages, delivers what can be delivered. All or, from an index on, none.
    pub(super) fn publish(&self, messages: &[Arc<Message>], now: i64) -> (Result<Published, Full>, Followup) {
        let mut state = self.lock();
        if state.deleted {
            return (Ok(Published::default()), Followup::default());
        }
        let mut dead = expired(state.core.expire(now));
        let one_by_one = state.core.arguments().overflow != Overflow::DropHead;
        let step = if one_by_one { 1 } else { messages.len().max(1) };
        let mut published = Published::default();
        for (nth, chunk) in messages.chunks(step).enumerate() {
            let from = nth * step;
            if one_by_one && refuse(&mut state, &chunk[0], &mut dead) {
                published.refused.push(from);
                continue;
            }
            match self.take(&mut state, chunk, now) {
                Ok(durable) => published.durable = durable.or(published.durable),
                Err(Untaken::Full) => return (Err(Full { from, published }), self.finish(state, dead, now)),
                Err(Untaken::Failed(error)) => {
                    tracing::error!(%error, queue = %self.spec.name, "failed to store messages");
                    published.refused.extend(from..from + chunk.len());
                    continue;
                }
            }
            self.drain(&mut state, now);
            let over = state.core.overflow();
            dead.extend(over.into_iter().map(|entry| (entry, Reason::MaxLength)));
        }
        dead.extend(expired(state.core.expire(now)));
        (Ok(published), self.finish(state, dead, now))
    }

    /// Puts messages into the log where they belong there, and into the queue.
    fn take(
        &self,
        state: &mut State,
        messages: &[Arc<Message>],
        now: i64,
    ) -> Result<Option<(Log, Offset)>, Untaken> {
        let durable = self.spec.is_stored();
        let room = self.room(state, messages);
        // Whatever is above the memory's bound is put into the log, transient or not.
        let is_logged = |message: &Message| !room || (durable && message.persistent);
        let logged: Vec<(&Message, bool)> = messages
            .iter()
            .filter(|message| is_logged(message))
            .map(|message| (&**message, !(durable && message.persistent)))
            .collect();
        let wait = logged.iter().any(|(_, transient)| !transient);
        let mut next_offset = 0;
        let mut target = None;
        if !logged.is_empty() {
            let backing = self.backing(state)?;
            let (base, last) =
                backing.append(logged.into_iter(), now / 1000).map_err(|error| match error {
                    AppendError::Full => Untaken::Full,
                    error => Untaken::Failed(error.to_string()),
                })?;
            next_offset = base;
            target = wait.then(|| (backing.log().clone(), last));
        }
        for message in messages {
            let offset = if is_logged(message) {
                next_offset += 1;
                next_offset - 1
            } else {
                UNLOGGED
            };
            let keep = room || offset == UNLOGGED;
            state.resident += if keep { message.footprint() } else { 0 };
            let entry = Entry {
                position: 0,
                offset,
                expires_at: state.core.expiry(now, message.expiration),
                size: message.body.len() as u32,
                priority: state.core.cut_priority(message.priority),
                redelivered: false,
                message: keep.then(|| Arc::clone(message)),
            };
            state.core.push(entry);
        }
        Ok(target)
    }

    /// Whether these messages may stay in memory.
    fn room(&self, state: &State, messages: &[Arc<Message>]) -> bool {
        let more: usize = messages.iter().map(|message| message.footprint()).sum();
        // A few messages are always kept, so that a queue that is consumed needs no reading back.
        (state.core.has_taker() && state.core.ready_count() == 0)
            || (state.resident + more <= QUEUE_MEMORY_BYTES_MAX
                && self.memory.used() + more <= self.memory.max)
    }

    fn backing<'s>(&self, state: &'s mut State) -> Result<&'s mut Backing, BackingError> {
        if state.backing.is_none() {
            // Nothing is found: its directory is new.
            state.backing =
                Some(Backing::open(&self.volume, &self.dir, self.spec.is_stored(), &mut |_, _| {})?);
        }
        Ok(state.backing.as_mut().expect("it was just opened"))
    }

    // ---- delivering

    fn drain(&self, state: &mut State, now: i64) {
        if !state.core.has_taker() {
            return;
        }
        let mut auto_acked = Vec::new();
        let mut auto_acked_bytes = 0;
        loop {
            let mut freed = 0;
            let mut newest = UNLOGGED;
            let mut auto_count = 0;
            let drained = state.core.drain(|consumer, _, entry| {
                let (offset, size) = (entry.offset, u64::from(entry.size));
                let footprint = super::mailbox::weight(&entry);
                let offer = consumer.offer(entry);
                if matches!(offer, Offer::Taken) {
                    if offset != UNLOGGED || consumer.no_ack {
                        freed += footprint;
                    }
                    if consumer.no_ack {
                        auto_count += 1;
                        if offset != UNLOGGED {
                            auto_acked.push(offset);
                            auto_acked_bytes += size;
                        }
                    } else {
                        newest = newest.max(offset);
                    }
                }
                offer
            });
            state.resident = state.resident.saturating_sub(freed);
            (0..auto_count).for_each(|_| state.core.settle());
            if let (true, Some(backing)) = (newest != UNLOGGED, &mut state.backing) {
                backing.delivered(newest, now / 1000);
            }
            let Drained::NeedsBody { offset } = drained else { break };
            self.read_back(state, offset);
        }
        if let Some(backing) = &mut state.backing {
            backing.settle(auto_acked, auto_acked_bytes, now / 1000);
        }
    }

    /// Reads bodies from `offset` on back into memory. A head that cannot be read is dropped, and said.
    fn read_back(&self, state: &mut State, offset: i64) {
        let read = match &state.backing {
            Some(backing) => backing.read(offset).map_err(|error| error.to_string()),
            None => Err("the queue has no log".to_owned()),
        };
        let stored = read.unwrap_or_else(|error| {
            tracing::error!(%error, queue = %self.spec.name, offset, "failed to read messages back");
            Vec::new()
        });
        let mut stored = stored.into_iter().peekable();
        let mut gained = 0;
        let filled = state.core.fill(|offset| {
            while stored.peek().is_some_and(|next| next.offset < offset) {
                stored.next();
            }
            let found = stored.next_if(|next| next.offset == offset)?;
            gained += found.message.footprint();
            Some(Arc::new(found.message))
        });
        state.resident += gained;
        if filled == 0 && state.core.head().is_some_and(|head| head.message.is_none()) {
            tracing::error!(queue = %self.spec.name, offset, "a message cannot be read back and is skipped");
            state.core.drop_head();
        }
    }

    /// A message with its body, for those who need it after it left the queue.
    pub(super) fn load(&self, entry: &Entry) -> Option<Arc<Message>> {
        if let Some(message) = &entry.message {
            return Some(Arc::clone(message));
        }
        let state = self.lock();
        let stored = state.backing.as_ref()?.read(entry.offset).ok()?;
        stored.into_iter().find(|stored| stored.offset == entry.offset).map(|stored| Arc::new(stored.message))
    }

    /// Takes the head for `basic.get`, with the number of messages left.
    pub(super) fn get(&self, no_ack: bool, now: i64) -> (Option<(Entry, usize)>, Followup) {
        let mut state = self.lock();
        let dead = expired(state.core.expire(now));
        if let Some(head) = state.core.head()
            && head.message.is_none()
        {
            let offset = head.offset;
            self.read_back(&mut state, offset);
        }
        let got = state.core.pop(now);
        if let Some(entry) = &got {
            if entry.is_logged() || no_ack {
                state.resident = state.resident.saturating_sub(super::mailbox::weight(entry));
            }
            if no_ack {
                state.core.settle();
            }
            if let (Some(offset), Some(backing)) = (logged_offset(entry), &mut state.backing) {
                if no_ack {
                    backing.settle(vec![offset], entry.size.into(), now / 1000);
                } else {
                    backing.delivered(offset, now / 1000);
                }
            }
        }
        let left = state.core.ready_count();
        (got.map(|entry| (entry, left)), self.finish(state, dead, now))
    }

    // ---- settling

    /// Deliveries are done with; `resumed` have room again.
    pub(super) fn settle(&self, entries: &[Entry], resumed: &[ConsumerKey], now: i64) -> Followup {
        let mut state = self.lock();
        for _ in entries {
            state.core.settle();
        }
        forget(&mut state, entries, now);
        self.go_on(state, resumed, now)
    }

    /// Messages that died and were passed on, or dropped, are done with.
    pub(super) fn bury(&self, entries: &[Entry], now: i64) -> Option<Chore> {
        let mut state = self.lock();
        forget(&mut state, entries, now);
        self.finish(state, Vec::new(), now).chore
    }

    /// Rejected deliveries leave the queue's count, and die outside.
    pub(super) fn reject(&self, entries: Vec<Entry>, resumed: &[ConsumerKey], now: i64) -> Followup {
        let mut state = self.lock();
        for _ in &entries {
            state.core.settle();
        }
        let mut followup = self.go_on(state, resumed, now);
        followup.dead.extend(entries.into_iter().map(|entry| (entry, Reason::Rejected)));
        followup
    }

    /// Deliveries come back to where they were.
    pub(super) fn requeue(&self, mut entries: Vec<Entry>, resumed: &[ConsumerKey], now: i64) -> Followup {
        let mut state = self.lock();
        if state.deleted {
            return Followup::default();
        }
        // From the back: each then goes to the front, without moving others.
        entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.position));
        for mut entry in entries {
            if entry.is_logged() {
                // Its memory was given back when it was delivered.
                entry.message = None;
            }
            state.core.requeue(entry);
        }
        self.go_on(state, resumed, now)
    }

    /// A consumer has room again.
    pub(super) fn resume(&self, key: ConsumerKey, now: i64) -> Followup {
        self.go_on(self.lock(), &[key], now)
    }

    fn go_on(&self, mut state: MutexGuard<'_, State>, resumed: &[ConsumerKey], now: i64) -> Followup {
        for &key in resumed {
            state.core.resume(key);
        }
        let dead = expired(state.core.expire(now));
        self.drain(&mut state, now);
        self.finish(state, dead, now)
    }

    /// Looks at what time alone brings; whether the queue itself has expired.
    pub(super) fn tick(&self, now: i64) -> (bool, Followup) {
        let mut state = self.lock();
        state.armed = NEVER;
        let dead = expired(state.core.expire(now));
        let gone = !state.deleted && state.core.expires_at().is_some_and(|at| at <= now);
        (gone, self.finish(state, dead, now))
    }

    /// Ends an operation: reports memory, and finds out what is left to do.
    fn finish(&self, mut state: MutexGuard<'_, State>, dead: Vec<(Entry, Reason)>, now: i64) -> Followup {
        self.report(&mut state);
        let deadline = state.core.next_deadline().filter(|&at| at < state.armed && !state.deleted);
        if let Some(at) = deadline {
            state.armed = at;
        }
        let chore = state.backing.as_mut().and_then(|backing| backing.chore(now / 1000));
        Followup { dead, deadline, chore }
    }

    fn report(&self, state: &mut State) {
        let (is, was) = (state.resident, state.reported);
        if is > was {
            self.memory.used.fetch_add(is - was, Ordering::Relaxed);
        } else if is < was {
            self.memory.used.fetch_sub(was - is, Ordering::Relaxed);
        }
        state.reported = is;
    }

    // ---- consumers

    /// Adds a consumer and gives it what is ready.
    pub(super) fn consume(&self, consumer: &Arc<Consumer>, now: i64) -> Result<Followup, Refusal> {
        let mut state = self.lock();
        if state.deleted {
            return Err(Refusal::no_queue(&self.vhost, &self.spec.name));
        }
        let taken = state.core.consumers().len() > 0;
        if state.core.in_exclusive_use() || (consumer.exclusive && taken) {
            let detail = format!("{} in exclusive use", self.describe());
            return Err(Refusal::new(ReplyCode::AccessRefused, detail));
        }
        let key = state.core.add_consumer(Arc::clone(consumer), consumer.exclusive);
        consumer.key.get_or_init(|| key);
        state.was_consumed = true;
        Ok(self.go_on(state, &[], now))
    }

    /// Removes a consumer; whether the queue is now to be deleted.
    pub(super) fn cancel(&self, consumer: &Consumer, now: i64) -> (bool, Followup) {
        let mut state = self.lock();
        let Some(&key) = consumer.key.get() else { return (false, Followup::default()) };
        state.core.remove_consumer(key, now);
        let unused = self.spec.auto_delete && state.was_consumed && state.core.consumers().len() == 0;
        let delete = unused && !state.deleted;
        (delete, self.go_on(state, &[], now))
    }

    // ---- managing

    /// Counts a redeclaration as use, and gives ready messages and consumers.
    pub(super) fn declared(&self, now: i64) -> (u32, u32) {
        let mut state = self.lock();
        state.core.touch(now);
        (saturate(state.core.ready_count()), saturate(state.core.consumers().len()))
    }

    /// When the queue first needs looking at.
    pub(super) fn first_deadline(&self, now: i64) -> Option<i64> {
        self.finish(self.lock(), Vec::new(), now).deadline
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts {
            ready: state.core.ready_count(),
            unacked: state.core.unacked_count(),
            consumers: state.core.consumers().len(),
            ready_bytes: state.core.ready_bytes(),
            memory_bytes: state.resident,
            disk_bytes: state.backing.as_ref().map_or(0, Backing::bytes),
        }
    }

    pub(super) fn consumers(&self) -> Vec<Arc<Consumer>> {
        self.lock().core.consumers().cloned().collect()
    }

    pub(super) fn with_arguments<T>(&self, look: impl FnOnce(&QueueArguments) -> T) -> T {
        look(self.lock().core.arguments())
    }

    /// Drops every ready message and gives their number.
    pub(super) fn purge(&self, now: i64) -> (usize, Option<Chore>) {
        let mut state = self.lock();
        let entries = state.core.purge();
        forget(&mut state, &entries, now);
        (entries.len(), self.finish(state, Vec::new(), now).chore)
    }

    /// Marks the queue as deleted when the conditions hold; gives the number of ready messages. Its consumers are
    /// told, its messages forgotten; [`Queue::remove`] then clears the disk.
    pub(super) fn delete(&self, if_unused: bool, if_empty: bool) -> Result<u32, Refusal> {
        let mut state = self.lock();
        if if_unused && state.core.consumers().len() > 0 {
            return Err(Refusal::precondition(format!("{} in use", self.describe())));
        }
        if if_empty && state.core.ready_count() > 0 {
            return Err(Refusal::precondition(format!("{} not empty", self.describe())));
        }
        state.deleted = true;
        let count = state.core.purge().len();
        state.resident = 0;
        self.report(&mut state);
        let consumers: Vec<_> = state.core.consumers().cloned().collect();
        drop(state);
        for consumer in consumers {
            consumer.mailbox.send(Letter::QueueGone(Arc::clone(&consumer)));
        }
        Ok(saturate(count))
    }

    /// Removes a deleted queue's files; blocks.
    pub(super) fn remove_files(&self) {
        let backing = self.lock().backing.take();
        let Some(backing) = backing else { return };
        let removed = backing.remove().map_err(|error| error.to_string());
        let disk = self.volume.disk();
        let removed =
            removed.and_then(|()| disk.remove_dir_all(&self.dir).map_err(|error| error.to_string()));
        if let Err(error) = removed {
            tracing::warn!(%error, queue = %self.spec.name, "failed to remove a deleted queue's files");
        }
    }
}

/// Whether a full queue refuses the message; it may be dead-lettered instead.
fn refuse(state: &mut State, message: &Arc<Message>, dead: &mut Vec<(Entry, Reason)>) -> bool {
    if state.core.has_taker() || !state.core.refuses(message.body.len() as u64) {
        return false;
    }
    if state.core.arguments().overflow == Overflow::RejectPublishDeadLetter {
        let entry = Entry {
            position: 0,
            offset: UNLOGGED,
            expires_at: NEVER,
            size: message.body.len() as u32,
            priority: 0,
            redelivered: false,
            message: Some(Arc::clone(message)),
        };
        // It was never counted here; settling it later must not count it off.
        state.resident += message.footprint();
        dead.push((entry, Reason::MaxLength));
    }
    true
}

fn forget(state: &mut State, entries: &[Entry], now: i64) {
    let freed: usize = entries.iter().map(super::mailbox::weight).sum();
    state.resident = state.resident.saturating_sub(freed);
    if let Some(backing) = &mut state.backing {
        let logged = entries.iter().filter(|entry| entry.is_logged());
        let bytes = logged.map(|entry| u64::from(entry.size)).sum();
        backing.settle(entries.iter().filter_map(logged_offset).collect(), bytes, now / 1000);
    }
}

fn expired(entries: Vec<Entry>) -> Vec<(Entry, Reason)> {
    entries.into_iter().map(|entry| (entry, Reason::Expired)).collect()
}

fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
