//! The intent log as it is written: one who waits writes for all who wait.
//!
//! Blocks lie one after the other in slots. Where the next block is follows from the one before: behind it, or, when the slot could not
//! hold the longest block any more, at the beginning of the next slot, which every head names. So a reader needs no index, and what lies
//! behind the last block is never taken for one: its number is not the next.
//!
//! The log takes nothing (**`chain` is `None`**) while there is no room for its slots, or after a write of it failed; who wants something
//! durable then waits for the transaction group. The next commit begins a new chain.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};

use super::store::{Store, StoreError, sectors_of};
use crate::format::{
    Checksum, ChecksumKind, LOG_BODY_BYTES_MAX, LOG_HEAD_BYTES, LOG_INLINE_BYTES, LogChange, LogEntry,
    LogHead, LogStart, Place, PoolId, Txg, VdevId,
};
use crate::vdev::SECTOR_BYTES;

/// A slot holds so many of the longest blocks.
const BLOCKS_OF_SLOT: u64 = 4;
/// A head, in sectors.
const HEAD_SECTORS: u32 = (LOG_HEAD_BYTES / SECTOR_BYTES) as u32;
/// What may wait to be written, in bytes; who has more waits for the transaction group.
pub(super) const LOG_BYTES_MAX: u64 = 128 << 10;

/// The log did not take something; it may be on the disk or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotLogged;

/// What has been handed to the log up to a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// The number of the last entry.
    last: u64,
    /// The block that it is to be in, counted from the beginning.
    batch: u64,
}

#[derive(Debug)]
struct Chain {
    /// Where the next block goes.
    at: LogStart,
    next_slot: Place,
    /// Slots that may hold blocks which are needed, oldest first, and the next one.
    slots: VecDeque<Place>,
}

#[derive(Debug, Default)]
struct State {
    chain: Option<Chain>,
    /// Entries that are not written yet, each encoded, the last of which is number `submitted`.
    queue: VecDeque<Vec<u8>>,
    /// The number of the last entry that was handed over.
    submitted: u64,
    /// Vdevs with blocks that are written and not durable.
    unflushed: BTreeSet<VdevId>,
    /// Entries were thrown away since the last commit began.
    lost_lately: bool,
    /// The number of the block that is written next.
    batch: u64,
    /// Somebody is writing a block, or makes what is written durable.
    writing: bool,
    /// On one of them, in turns, are those whose entries come with the next block, and on the other one those whose entries were taken:
    /// whoever has written a block wakes all of the latter, and of the former one, which goes on. **Invariant:** who waits for the next
    /// block has entries in the queue, so that whoever of them is woken writes it.
    waiting: [VecDeque<Arc<Waiter>>; 2],
}

/// One who waits. It is woken once, and whoever finds then that he has what he wanted does not come to the lock again: many are woken at a
/// time.
#[derive(Debug)]
struct Waiter {
    thread: Thread,
    woken: AtomicBool,
}

impl Waiter {
    fn here() -> Waiter {
        Waiter { thread: thread::current(), woken: AtomicBool::new(false) }
    }

    fn wait(&self) {
        while !self.woken.load(Ordering::Acquire) {
            thread::park();
        }
    }

    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

/// How far the log is; changed with its state locked. **Invariant:** `durable <= written`, and that is not beyond what was handed over.
#[derive(Debug, Default)]
struct Progress {
    /// The number of the last entry that is written.
    written: AtomicU64,
    /// Of the last that is durable.
    durable: AtomicU64,
    /// Of the entries up to this number some were thrown away.
    lost: AtomicU64,
    /// What was taken of the slots since the last commit, in bytes.
    taken_bytes: AtomicU64,
}

/// How far an entry is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// With the system: it is not lost with the process.
    Written,
    /// On the disks.
    Durable,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Log {
    pool: PoolId,
    state: Mutex<State>,
    progress: Progress,
}

/// A chain that no root names yet.
#[derive(Debug)]
pub(super) struct NewChain(Chain);

impl Log {
    pub(super) fn new(pool: PoolId) -> Log {
        Log { pool, state: Mutex::default(), progress: Progress::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the log of the transaction groups from now on begins, for a root that is about to be written; with a chain that begins when
    /// that root is durable ([`Log::committed`]), if there is none and there is room for one. `room` is what nothing else may need, in sectors.
    pub(super) fn position(&self, store: &Store, chain: u64, room: u64) -> (LogStart, Option<NewChain>) {
        let mut state = self.state();
        let writing = state.writing;
        if let Some(chain) = &mut state.chain {
            // What is being written was given its place before.
            if writing || (room >= slots_sectors(store) && make_room(chain, store).is_some()) {
                return (chain.at, None);
            }
            self.fail(&mut state);
        }
        match (room >= slots_sectors(store)).then(|| new_chain(store, chain)).flatten() {
            Some(new) => (new.at, Some(NewChain(new))),
            None => (no_log(), None),
        }
    }

    /// A root is durable by which this is the log. Slots before it are free. Whether entries of later groups may have been lost, which then
    /// come with the next commit.
    pub(super) fn committed(&self, store: &Store, start: LogStart, new: Option<NewChain>) -> bool {
        let mut state = self.state();
        self.progress.taken_bytes.store(0, Ordering::Relaxed);
        let mut old = Vec::new();
        if let Some(NewChain(new)) = new {
            let slots = store.space().slots().to_vec();
            old.extend(slots.into_iter().map(|(place, _)| place).filter(|place| !new.slots.contains(place)));
            state.chain = Some(new);
        } else if let Some(chain) = &mut state.chain {
            while chain.slots.front().is_some_and(|slot| *slot != start.slot) {
                old.extend(chain.slots.pop_front());
            }
        } else if start == no_log() {
            old.extend(store.space().slots().iter().map(|(place, _)| *place));
        }
        let lost = std::mem::take(&mut state.lost_lately);
        drop(state);
        free_slots(store, old);
        lost
    }

    /// Whether so much was logged that it is time to commit.
    pub(super) fn is_long(&self, bytes_max: u64) -> bool {
        self.progress.taken_bytes.load(Ordering::Relaxed) > bytes_max
    }

    /// What was taken of the slots since the last commit, in bytes.
    #[cfg(test)]
    pub(super) fn taken_bytes(&self) -> u64 {
        self.progress.taken_bytes.load(Ordering::Relaxed)
    }

    /// Takes entries, which are where they are to be when [`Log::wait`] has returned.
    pub(super) fn submit(&self, entries: &[LogEntry]) -> Ticket {
        let encoded: Vec<Vec<u8>> = entries.iter().map(LogEntry::to_bytes).collect();
        let mut state = self.state();
        state.queue.extend(encoded);
        for entry in entries {
            if let LogChange::Place { pointer, .. } = &entry.change {
                // It is durable only together with what it leads to.
                state.unflushed.extend(pointer.places.iter().map(|place| place.vdev));
            }
        }
        state.submitted += entries.len() as u64;
        // Nothing of it is in the next block.
        let before = u64::from(entries.is_empty());
        Ticket { last: state.submitted, batch: state.batch.wrapping_sub(before) }
    }

    /// Waits until everything up to there is as far as it is to be; brings it there if nobody does.
    pub(super) fn wait(&self, store: &Store, ticket: Ticket, until: Until) -> Result<(), NotLogged> {
        loop {
            if let Some(outcome) = self.outcome(ticket, until) {
                return outcome;
            }
            let mut state = self.state();
            if let Some(outcome) = self.outcome(ticket, until) {
                return outcome;
            }
            if state.writing {
                // What is not in the queue any more depends on the block that is being written, or on the flush.
                let batch = if ticket.batch == state.batch { state.batch } else { state.batch + 1 };
                let waiter = Arc::new(Waiter::here());
                of(&mut state, batch).push_back(Arc::clone(&waiter));
                drop(state);
                waiter.wait();
            } else if self.progress.written.load(Ordering::Acquire) < ticket.last {
                self.write_next(state, store, until);
            } else {
                let state = self.flush_written(state, store);
                wake_all(state);
            }
        }
    }

    /// What came of what was handed over, if that is known.
    fn outcome(&self, ticket: Ticket, until: Until) -> Option<Result<(), NotLogged>> {
        let Progress { written, durable, lost, .. } = &self.progress;
        if ticket.last <= lost.load(Ordering::Acquire) {
            return Some(Err(NotLogged));
        }
        let reached = match until {
            Until::Written => written,
            Until::Durable => durable,
        };
        (ticket.last <= reached.load(Ordering::Acquire)).then_some(Ok(()))
    }

    /// Writes the next block; makes it durable with those before it, if that is what is wanted.
    fn write_next(&self, mut state: MutexGuard<'_, State>, store: &Store, until: Until) {
        let (entries, last) = take_entries(&mut state);
        let batch = state.batch;
        state.batch += 1;
        let Some(place) = next_place(&mut state, store) else {
            return self.fail(&mut state);
        };
        state.writing = true;
        drop(state);
        // Others wait for the lock: what takes time is done without it.
        let written = write_block(self.pool, store, place, &entries);
        let mut state = self.state();
        state.writing = false;
        match written {
            Ok(sectors) if state.chain.is_some() => {
                self.progress.written.store(last, Ordering::Release);
                let bytes = u64::from(sectors) * SECTOR_BYTES as u64;
                self.progress.taken_bytes.fetch_add(bytes, Ordering::Relaxed);
                advance(&mut state, sectors);
                state.unflushed.insert(place.at.slot.vdev);
                if until == Until::Durable {
                    state = self.flush_written(state, store);
                }
            }
            _ => self.fail(&mut state),
        }
        let mut woken = std::mem::take(of(&mut state, batch));
        // First of all the one that goes on.
        woken.extend(of(&mut state, batch + 1).pop_front());
        drop(state);
        woken.iter().rev().for_each(|waiter| waiter.wake());
    }

    fn flush_written<'l>(&'l self, mut state: MutexGuard<'l, State>, store: &Store) -> MutexGuard<'l, State> {
        let (last, vdevs) =
            (self.progress.written.load(Ordering::Acquire), std::mem::take(&mut state.unflushed));
        state.writing = true;
        drop(state);
        let flushed = vdevs.iter().all(|vdev| store.sync_vdev(*vdev).is_ok());
        let mut state = self.state();
        state.writing = false;
        if flushed && state.chain.is_some() {
            self.progress.durable.store(last, Ordering::Release);
        } else {
            self.fail(&mut state);
        }
        state
    }

    /// Nothing more is taken until the next commit. What was handed over and is not durable comes with that.
    fn fail(&self, state: &mut State) {
        state.chain = None;
        state.queue.clear();
        state.unflushed.clear();
        self.progress.lost.store(state.submitted, Ordering::Release);
        state.lost_lately = true;
        for waiter in state.waiting.iter_mut().flat_map(std::mem::take) {
            waiter.wake();
        }
    }
}

/// Those who wait for a block.
fn of(state: &mut State, batch: u64) -> &mut VecDeque<Arc<Waiter>> {
    &mut state.waiting[(batch % 2) as usize]
}

/// Lets all look who wait.
fn wake_all(mut state: MutexGuard<'_, State>) {
    let waiting = std::mem::take(&mut state.waiting);
    drop(state);
    waiting.into_iter().flatten().for_each(|waiter| waiter.wake());
}

fn free_slots(store: &Store, slots: Vec<Place>) {
    let mut space = store.space();
    for slot in slots {
        // A slot is in the list of slots once, so it is taken.
        let freed = space.free_slot(slot);
        debug_assert_eq!(freed, Ok(()));
    }
}

/// What stands in the root of a pool without a log.
fn no_log() -> LogStart {
    LogStart {
        chain: 0,
        seq: 0,
        slot: Place { vdev: crate::format::VdevId(0), sector: 0 },
        slot_sectors: 0,
        offset: 0,
    }
}

/// The longest block, in sectors of a vdev.
fn block_sectors_max(store: &Store) -> u64 {
    let space = store.space();
    space.allocated_most(HEAD_SECTORS) + space.allocated_most(sectors_of(LOG_BODY_BYTES_MAX))
}

fn slot_sectors(store: &Store) -> u32 {
    (block_sectors_max(store) * BLOCKS_OF_SLOT) as u32
}

/// What two slots take, in sectors: with less room nothing is logged.
pub(super) fn slots_sectors(store: &Store) -> u64 {
    let sectors = slot_sectors(store);
    2 * store.space().allocated_most(sectors)
}

fn new_chain(store: &Store, chain: u64) -> Option<Chain> {
    let slot_sectors = slot_sectors(store);
    let mut space = store.space();
    let slot = space.allocate_slot(slot_sectors)?;
    let Some(next_slot) = space.allocate_slot(slot_sectors) else {
        let freed = space.free_slot(slot);
        debug_assert_eq!(freed, Ok(()));
        return None;
    };
    let at = LogStart { chain, seq: 0, slot, slot_sectors, offset: 0 };
    Some(Chain { at, next_slot, slots: [slot, next_slot].into() })
}

/// Takes as many entries out of the queue as a block holds, at least one; and the number of the last.
fn take_entries(state: &mut State) -> (Vec<Vec<u8>>, u64) {
    let mut bytes = 0;
    let fits = |entry: &&Vec<u8>| {
        bytes += entry.len();
        bytes <= LOG_BODY_BYTES_MAX
    };
    let count = state.queue.iter().take_while(fits).count().max(1).min(state.queue.len());
    let entries = state.queue.drain(..count).collect();
    (entries, state.submitted - state.queue.len() as u64)
}

/// Goes on to the next slot when this one could not hold the longest block; `None` when there is no room for another.
fn make_room(chain: &mut Chain, store: &Store) -> Option<()> {
    if u64::from(chain.at.offset) + block_sectors_max(store) > u64::from(chain.at.slot_sectors) {
        let after = store.space().allocate_slot(chain.at.slot_sectors)?;
        chain.slots.push_back(after);
        (chain.at.slot, chain.at.offset) = (chain.next_slot, 0);
        chain.next_slot = after;
    }
    Some(())
}

/// Where a block goes.
#[derive(Clone, Copy, Debug)]
struct BlockPlace {
    at: LogStart,
    /// The slot behind the one that it is in.
    next_slot: Place,
}

/// The place of the next block; `None` when there is no chain, or no room for it.
fn next_place(state: &mut State, store: &Store) -> Option<BlockPlace> {
    let chain = state.chain.as_mut()?;
    make_room(chain, store)?;
    Some(BlockPlace { at: chain.at, next_slot: chain.next_slot })
}

/// Writes a block of entries; the sectors of its vdev that it takes.
fn write_block(
    pool: PoolId,
    store: &Store,
    BlockPlace { at, next_slot }: BlockPlace,
    entries: &[Vec<u8>],
) -> Result<u32, StoreError> {
    let body_bytes = entries.iter().map(Vec::len).sum();
    let padded_bytes = sectors_of(body_bytes) as usize * SECTOR_BYTES;
    let mut body = Vec::with_capacity(padded_bytes);
    for entry in entries {
        body.extend(entry);
    }
    let body_checksum = Checksum::of(ChecksumKind::Xxh3, &body);
    let inline = if body_bytes <= LOG_INLINE_BYTES { std::mem::take(&mut body) } else { Vec::new() };
    let (chain, seq) = (at.chain, at.seq);
    let head = LogHead { pool, chain, seq, next_slot, body_bytes: body_bytes as u32, body_checksum, inline };
    let place = Place { vdev: at.slot.vdev, sector: at.slot.sector + u64::from(at.offset) };
    let mut written = store.write_place(place, &head.encode());
    if !body.is_empty() {
        let head_sectors = store.space().allocated(place.vdev, HEAD_SECTORS);
        body.resize(padded_bytes, 0);
        let place = Place { sector: place.sector + head_sectors, ..place };
        written &= store.write_place(place, &body);
    }
    if !written {
        return Err(StoreError::NotWritten);
    }
    Ok(block_sectors(store, place, body_bytes))
}

fn block_sectors(store: &Store, place: Place, body_bytes: usize) -> u32 {
    let space = store.space();
    let body =
        if body_bytes <= LOG_INLINE_BYTES { 0 } else { space.allocated(place.vdev, sectors_of(body_bytes)) };
    (space.allocated(place.vdev, HEAD_SECTORS) + body) as u32
}

fn advance(state: &mut State, sectors: u32) {
    if let Some(chain) = &mut state.chain {
        chain.at.seq += 1;
        chain.at.offset += sectors;
    }
}

/// What is in the log that begins there, block by block, of the groups behind `committed`; the slots that it lies in are claimed, and so are
/// the places that it names. The log ends at the first block that is not there or not whole, or names a place whose record is not there: that
/// was never said to be durable.
pub(super) fn replay(store: &Store, pool: PoolId, start: LogStart, committed: Txg) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    if start.slot_sectors == 0 || !store.space().claim_slot(start.slot, start.slot_sectors) {
        return entries;
    }
    let longest = block_sectors_max(store);
    let mut at = start;
    let mut next_slot: Option<Place> = None;
    loop {
        if u64::from(at.offset) + longest > u64::from(at.slot_sectors) {
            let Some(slot) = next_slot else { return entries };
            if !store.space().claim_slot(slot, at.slot_sectors) {
                return entries;
            }
            (at.slot, at.offset) = (slot, 0);
        }
        let Some((head, body)) = read_block(store, pool, at) else { return entries };
        let Some(mut found) = LogEntry::decode_all(&body) else { return entries };
        found.retain(|entry| entry.txg > committed);
        if !claim_places(store, &found) {
            return entries;
        }
        entries.extend(found);
        let place = Place { vdev: at.slot.vdev, sector: at.slot.sector + u64::from(at.offset) };
        at.offset += block_sectors(store, place, body.len());
        at.seq += 1;
        next_slot = Some(head.next_slot);
    }
}

/// Takes the places that entries name, before anything else is written; whether all of them hold what they should.
fn claim_places(store: &Store, entries: &[LogEntry]) -> bool {
    let mut claimed = Vec::new();
    for entry in entries {
        let LogChange::Place { pointer, .. } = &entry.change else { continue };
        let claims = |place: &Place| {
            let sectors = sectors_of(pointer.stored_bytes as usize);
            store.space().claim_early(*place, sectors).is_some()
        };
        let [place] = pointer.places[..] else { return give_back(store, claimed) };
        if !claims(&place) {
            return give_back(store, claimed);
        }
        claimed.push(place);
        if store.read(pointer).is_err() {
            return give_back(store, claimed);
        }
    }
    true
}

/// Nothing of a block holds.
fn give_back(store: &Store, claimed: Vec<Place>) -> bool {
    for place in claimed {
        store.space().unallocate_early(place);
    }
    false
}

fn read_block(store: &Store, pool: PoolId, at: LogStart) -> Option<(LogHead, Vec<u8>)> {
    let place = Place { vdev: at.slot.vdev, sector: at.slot.sector + u64::from(at.offset) };
    let head_of = |bytes: &[u8]| {
        let bytes: &[u8; LOG_HEAD_BYTES] = bytes.try_into().ok()?;
        LogHead::decode(bytes).filter(|head| (head.pool, head.chain, head.seq) == (pool, at.chain, at.seq))
    };
    let head = head_of(&store.read_current(place, HEAD_SECTORS, &|bytes| head_of(bytes).is_some())?)?;
    let length = head.body_bytes as usize;
    if length <= LOG_INLINE_BYTES {
        let body = head.inline.clone();
        return head.body_checksum.matches(&body).then_some((head, body));
    }
    let head_sectors = store.space().allocated(place.vdev, HEAD_SECTORS);
    let place = Place { sector: place.sector + head_sectors, ..place };
    let whole = |bytes: &[u8]| {
        bytes[length..].iter().all(|byte| *byte == 0) && head.body_checksum.matches(&bytes[..length])
    };
    let mut body = store.read_current(place, sectors_of(length), &whole)?;
    body.truncate(length);
    Some((head, body))
}
