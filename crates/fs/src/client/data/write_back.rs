//! Writing back: from memory to the servers, what was written, and then how long the file is.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

use crate::core::dirty::{CHUNK_BYTES, Chunk};
use crate::core::layout::{END, Place};
use crate::core::ranges::{Share, Ticket};
use crate::core::split::runs;
use crate::core::{Attr, Errno, Extent, Layout, ObjectId, OstIndex};
use crate::wire::DATA_BYTES_MAX;
use crate::wire::oss::{OBJECTS_MAX, Op, Reply};

use super::file::{Growth, Known, State, now};
use super::mount::Job;
use super::osts::Ask;
use super::{FileData, Mds, Written};

/// Chunks that are written back together.
const CHUNKS_MAX: usize = DATA_BYTES_MAX as usize / CHUNK_BYTES as usize;

/// Dirty data on its way to the servers. It does not change any more.
#[derive(Debug)]
pub(super) struct Flight {
    tickets: Vec<Ticket>,
    /// One behind the other. **Invariant:** the inline component's chunk flies alone.
    chunks: Vec<Chunk>,
    inline: bool,
}

/// Which chunks are written back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pick {
    /// Those that are complete, except the inline one, and those that somebody waits for.
    Ready,
    /// Those that have been dirty since this stamp or longer.
    Until(u64),
}

/// What the objects of a file use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    /// In units of 512 bytes.
    blocks: u64,
    /// Of `State::landed_bytes`, what is among them.
    landed_bytes: u64,
}

impl Flight {
    /// The bytes in a range, in order.
    pub(super) fn segments(&self, extent: Extent) -> impl Iterator<Item = (u64, &[u8])> {
        self.chunks.iter().flat_map(move |chunk| chunk.segments(extent))
    }

    fn stamp(&self) -> u64 {
        self.chunks.iter().map(Chunk::stamp).min().unwrap_or(u64::MAX)
    }

    fn cost(&self) -> u64 {
        self.chunks.iter().map(Chunk::cost).sum()
    }

    /// The stretches without a gap, in order.
    fn stretches(&self) -> Vec<Extent> {
        let mut stretches: Vec<Extent> = Vec::new();
        for next in self.chunks.iter().flat_map(Chunk::stretches) {
            match stretches.last_mut().filter(|last| last.end == next.start) {
                Some(last) => last.end = next.end,
                None => stretches.push(next),
            }
        }
        stretches
    }
}

impl FileData {
    /// Everything written so far is with the OSTs and the MDS, not necessarily durable. Tells a failure of an earlier
    /// write-back once; what could not be written is dropped then.
    pub fn flush(&self) -> Result<(), Errno> {
        let outcome = self.write_back();
        self.or_failure(outcome)
    }

    /// [`FileData::flush`] where no program waits that could be told of a failure: the log is. Of a file that was discarded it is silent. The one that was
    /// removed meanwhile has nothing to write, and an eviction was told already.
    pub fn flush_unheard(&self) {
        if let Err(errno) = self.flush()
            && !self.is_gone()
        {
            tracing::warn!(ino = self.ino.0, %errno, "file data could not be written back");
        }
    }

    /// An outcome, or the failure of an earlier write-back if there is one to tell.
    pub(super) fn or_failure(&self, outcome: Result<(), Errno>) -> Result<(), Errno> {
        let mut state = self.alive()?;
        let Some(error) = state.error.take() else { return outcome };
        state.failed.remove(Extent { start: 0, end: u64::MAX });
        self.settle(&mut state);
        self.notify();
        Err(error)
    }

    /// A thread of the mount helps to write back.
    pub(super) fn help(&self) {
        loop {
            let mut state = self.lock();
            let Some(flight) = state.depart(Pick::Ready) else {
                state.helpers -= 1;
                return;
            };
            self.call_help(state);
            self.fly(&flight);
        }
    }

    /// Another thread may help where there is more to do.
    fn call_help(&self, mut state: MutexGuard<'_, State>) {
        let help = self.wants_help(&mut state);
        drop(state);
        if help && let Some(me) = self.me.upgrade() {
            self.mount.push(Job::WriteBack(me));
        }
    }

    /// Whether a thread of the mount shall help; it must be asked then.
    pub(super) fn wants_help(&self, state: &mut State) -> bool {
        let wants = state.helpers < self.mount.settings.workers && state.ready().next().is_some();
        state.helpers += usize::from(wants);
        wants
    }

    /// The data has been held back for long enough.
    pub(super) fn flush_in_background(&self) {
        self.aged();
        self.write_back_noting_errors();
    }

    /// Writes everything back; the next flush tells a failure.
    pub(super) fn write_back_noting_errors(&self) {
        if let Err(error) = self.write_back() {
            self.lock().error.get_or_insert(error);
        }
    }

    /// Writes everything back that is dirty now, and tells the MDS. A failure to write is kept, not answered.
    fn write_back(&self) -> Result<(), Errno> {
        let unaccounted = self.alive()?.unaccounted;
        let growth = self.land()?;
        let used = self.used()?;
        self.tell(growth, used, false)?;
        self.accounted(unaccounted);
        Ok(())
    }

    /// Writes everything back that is dirty now; the size that is to be told then.
    pub(super) fn land(&self) -> Result<Growth, Errno> {
        let mut state = self.alive()?;
        state.stamp += 1;
        let (mark, growth) = (state.stamp, state.untold_growth());
        state.forced = mark;
        loop {
            if let Some(flight) = state.depart(Pick::Until(mark)) {
                self.call_help(state);
                self.fly(&flight);
            } else if let Some(key) = state.due(mark) {
                self.fly_when_free(state, key)?;
            } else if state.flying.iter().any(|flight| flight.stamp() <= mark) {
                drop(self.wait(state)?);
            } else {
                break;
            }
            state = self.alive()?;
        }
        Ok(growth)
    }

    /// Writes a chunk back where others are at work: after them.
    fn fly_when_free(&self, state: MutexGuard<'_, State>, key: u64) -> Result<(), Errno> {
        let bounds = state.dirty.bounds(key);
        let limit = state.cut_limit();
        let extent = Extent { start: bounds.start, end: bounds.end.min(limit) };
        let ticket = self.claim(state, extent, Share::Exclusive)?;
        let mut state = self.lock();
        let limit = state.cut_limit().min(extent.end);
        let flight = state.take(key, ticket, limit);
        drop(state);
        self.fly(&flight);
        Ok(())
    }

    /// Brings a flight to the servers.
    pub(super) fn fly(&self, flight: &Arc<Flight>) {
        let outcome =
            if flight.inline { self.carry_inline(flight) } else { self.carry(flight, false, || ()) };
        self.arrived(flight, outcome);
    }

    /// A flight is over.
    pub(super) fn arrived(&self, flight: &Arc<Flight>, outcome: Result<(), Errno>) {
        let outcome = self.heed(outcome);
        let mut state = self.lock();
        state.flying.retain(|flying| !Arc::ptr_eq(flying, flight));
        state.flying_cost -= flight.cost();
        for ticket in &flight.tickets {
            state.ranges.release(*ticket);
        }
        if !flight.inline {
            // Also of one that failed some may be there.
            let end = flight.stretches().last().map_or(0, |stretch| stretch.end);
            state.reached = state.reached.max(end);
        }
        match outcome {
            _ if self.is_gone() => {}
            Ok(()) => flight.stretches().into_iter().for_each(|stretch| state.landed(stretch)),
            Err(error) => {
                tracing::warn!(ino = self.ino.0, %error, "written data cannot be written back");
                state.error.get_or_insert(error);
                for (at, data) in flight.segments(Extent { start: 0, end: u64::MAX }) {
                    state.failed.write(at, data, 0);
                }
            }
        }
        self.settle(&mut state);
        self.notify();
    }

    /// Writes a flight at the OSTs, and does something `meanwhile`. With `sync`, what is one request is on the disk of the
    /// OST when it is answered; the rest is noted as not durable.
    pub(super) fn carry(&self, flight: &Flight, sync: bool, meanwhile: impl FnOnce()) -> Result<(), Errno> {
        let stretches = flight.stretches();
        let (Some(first), Some(last)) = (stretches.first(), stretches.last()) else { return Ok(()) };
        let layout = self.placed(Extent { start: first.start, end: last.end })?;
        let asks = stretches.iter().flat_map(|stretch| writes(flight, &layout, *stretch));
        let mut asks: Vec<Ask<'_>> = asks.collect();
        let at_once = sync && asks.len() == 1;
        for ask in &mut asks {
            if let Op::Write { sync, .. } = &mut ask.op {
                *sync = at_once;
            }
        }
        self.send_writes_while(&asks, at_once, meanwhile)
    }

    fn carry_inline(&self, flight: &Flight) -> Result<(), Errno> {
        for stretch in flight.stretches() {
            let segments: Vec<&[u8]> = flight.segments(stretch).map(|(_, data)| data).collect();
            let joined = if segments.len() > 1 { segments.concat() } else { Vec::new() };
            let data = if segments.len() > 1 { &joined } else { segments[0] };
            let state = self.lock();
            let mtime = state.mtime.unwrap_or_else(now);
            let _ = self.telling(state, |mds| mds.write_inline(self.ino, stretch.start, data, mtime))?;
        }
        Ok(())
    }

    /// Tells the MDS what it does not know: how far the file reaches at least, when it was written, what its objects use.
    /// With `durably`, that and all that this mount changed before is on the disk of the MDT then.
    pub(super) fn tell(&self, growth: Growth, used: Option<Used>, durably: bool) -> Result<(), Errno> {
        let blocks = used.map(|used| used.blocks);
        let mut state = self.alive()?;
        let size = state.grown(growth);
        let kill_suid_sgid = std::mem::take(&mut state.kill_suid_sgid);
        let written = Written { size, mtime: state.untold_mtime(), blocks, kill_suid_sgid, durably };
        let is_known = size <= state.told.size && !(growth.always && size > 0);
        if is_known && written.mtime.is_none() && blocks.is_none() && !kill_suid_sgid {
            let known = Known { unversioned: state.unversioned, version: state.told.version };
            drop(state);
            if durably {
                self.heed(self.mount.mds.sync())?;
                self.lock().is_durable(known);
            }
            return Ok(());
        }
        state.retold();
        let unversioned = state.unversioned;
        let outcome = self.telling(state, |mds| mds.written(self.ino, written));
        let mut state = self.lock();
        match &outcome {
            Err(_) => {
                state.kill_suid_sgid |= kill_suid_sgid;
                state.blocks_due |= used.is_some();
                state.punched |= used.is_some();
            }
            Ok(version) => {
                let known = Known { unversioned, version: *version };
                let landed = used.map_or(0, |used| used.landed_bytes);
                state.landed_bytes -= landed.min(state.landed_bytes);
                if durably {
                    state.is_durable(known);
                }
            }
        }
        outcome.map(drop)
    }

    /// Calls the MDS with what changes a size or a time there, and learns from the answer; the version that the inode has by that.
    pub(super) fn telling(
        &self,
        mut state: MutexGuard<'_, State>,
        call: impl FnOnce(&dyn Mds) -> Result<Attr, Errno>,
    ) -> Result<u64, Errno> {
        state.telling += 1;
        drop(state);
        let outcome = self.heed(call(&*self.mount.mds));
        let mut state = self.lock();
        state.telling -= 1;
        self.notify();
        let attr = outcome?;
        state.learn(&attr);
        self.settle(&mut state);
        Ok(attr.version)
    }

    /// What the objects use, in units of 512 bytes, where it may have changed. The objects of a file that is dense cannot
    /// use more as long as it does not grow.
    pub(super) fn used(&self) -> Result<Option<Used>, Errno> {
        let mut state = self.alive()?;
        let dense = state.is_dense();
        let less = std::mem::take(&mut state.punched);
        if !std::mem::take(&mut state.blocks_due) || (dense && !less) {
            state.landed_bytes = 0;
            return Ok(None);
        }
        let landed_bytes = state.landed_bytes;
        let layout = Arc::clone(&state.layout);
        drop(state);
        let asks = by_ost(layout.objects(), |objects| Op::Stat { objects });
        let blocks = self.mount.osts.ask_all(&asks, &self.gone).into_iter().map(|answer| match answer? {
            (Reply::Stats(stats), _) => Ok(stats.iter().map(|stat| stat.blocks).sum::<u64>()),
            _ => Err(Errno::EIO),
        });
        let blocks = self.heed(blocks.sum());
        if blocks.is_err() {
            let mut state = self.lock();
            state.blocks_due = true;
            state.punched |= less;
        }
        Ok(Some(Used { blocks: blocks?, landed_bytes }))
    }
}

impl State {
    /// Takes a flight out of what is dirty; `None` when there is nothing, or others are at work where it is.
    pub(super) fn depart(&mut self, pick: Pick) -> Option<Arc<Flight>> {
        let limit = self.cut_limit();
        let State { dirty, ranges, layout, forced, .. } = &mut *self;
        let free = |key: u64| {
            let extent = dirty.extent(key)?;
            let extent = Extent { end: extent.end.min(limit), ..extent };
            let ticket = (extent.start < limit).then(|| ranges.try_claim(extent, Share::Exclusive))??;
            Some((key, ticket))
        };
        let (key, ticket) = match pick {
            Pick::Ready => {
                let inline = layout.inline_bytes();
                let complete = dirty.complete().filter(|key| *key >= inline);
                complete.chain(dirty.due(*forced, limit)).find_map(free)
            }
            Pick::Until(stamp) => dirty.due(stamp, limit).find_map(free),
        }?;
        Some(self.take(key, ticket, limit))
    }

    /// Takes a chunk, which `ticket` has claimed, and complete ones behind it.
    fn take(&mut self, key: u64, ticket: Ticket, limit: u64) -> Arc<Flight> {
        let mut flight = Flight { tickets: vec![ticket], chunks: Vec::new(), inline: false };
        flight.chunks.extend(self.dirty.take(key, limit));
        flight.inline = key < self.layout.inline_bytes();
        let mut next = self.dirty.bounds(key).end;
        while !flight.inline && flight.chunks.len() < CHUNKS_MAX && self.dirty.is_complete(next) {
            let bounds = self.dirty.bounds(next);
            if bounds.end > limit {
                break;
            }
            let Some(ticket) = self.ranges.try_claim(bounds, Share::Exclusive) else { break };
            flight.tickets.push(ticket);
            flight.chunks.extend(self.dirty.take(next, limit));
            next = bounds.end;
        }
        let flight = Arc::new(flight);
        self.flying_cost += flight.cost();
        self.flying.push(Arc::clone(&flight));
        flight
    }

    /// The chunks that threads of the mount may write back.
    fn ready(&self) -> impl Iterator<Item = u64> + '_ {
        let inline = self.layout.inline_bytes();
        let complete = self.dirty.complete().filter(move |key| *key >= inline);
        complete.chain(self.dirty.due(self.forced, self.cut_limit()))
    }

    /// Whether the MDS knows the file as it is, without holes: writing in it cannot make it use more.
    pub(super) fn is_dense(&self) -> bool {
        self.size <= self.told.size && self.told.blocks >= self.size.div_ceil(512)
    }

    /// Whether one chunk for the OSTs is all that they, and the MDS, lack.
    pub(super) fn is_calm(&self) -> bool {
        let mut due = self.dirty.due(u64::MAX, END);
        let one = due.next().is_some_and(|key| key >= self.layout.inline_bytes()) && due.next().is_none();
        let over = self.error.is_none() && self.failed.is_empty() && self.unsynced.is_empty();
        one && over && self.flying.is_empty() && self.cut_limit() == END && !self.punched
    }

    /// A chunk that has been dirty since `mark` or longer.
    fn due(&self, mark: u64) -> Option<u64> {
        self.dirty.due(mark, self.cut_limit()).next()
    }
}

/// The requests that write a stretch of a flight.
fn writes<'f>(flight: &'f Flight, layout: &Layout, stretch: Extent) -> Vec<Ask<'f>> {
    let asks = runs(layout, stretch, DATA_BYTES_MAX.into()).into_iter().filter_map(|run| {
        let Place::Object { ost, object, offset } = run.place else { return None };
        let bulk: Vec<&[u8]> =
            run.parts.iter().flat_map(|part| flight.segments(*part)).map(|(_, data)| data).collect();
        Some(Ask { ost, op: Op::Write { object, offset, crc: None, sync: false }, bulk })
    });
    asks.collect()
}

/// Questions to the OSTs about their objects.
pub(super) fn by_ost(
    objects: impl Iterator<Item = (OstIndex, ObjectId)>,
    question: impl Fn(Vec<ObjectId>) -> Op,
) -> Vec<Ask<'static>> {
    let mut groups = BTreeMap::<OstIndex, Vec<ObjectId>>::new();
    for (ost, object) in objects {
        groups.entry(ost).or_default().push(object);
    }
    let mut asks = Vec::with_capacity(groups.len());
    for (ost, objects) in groups {
        let parts = objects.chunks(OBJECTS_MAX).map(<[ObjectId]>::to_vec);
        asks.extend(parts.map(|part| Ask { ost, op: question(part), bulk: Vec::new() }));
    }
    asks
}
