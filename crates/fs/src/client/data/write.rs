//! Writing: into memory, or through to the servers.

use std::sync::Arc;

use crate::core::layout::{COMPONENTS_MAX, Component, Place};
use crate::core::ranges::Share;
use crate::core::split::runs;
use crate::core::{Errno, Extent, Layout};
use crate::wire::DATA_BYTES_MAX;
use crate::wire::oss::Op;

use super::file::now;
use super::mount::Job;
use super::osts::Ask;
use super::write_back::Pick;
use super::{FileData, Mode};

/// The largest offset of a file, as Linux has it.
const OFFSET_MAX: u64 = i64::MAX as u64;
/// What a write may cost besides its bytes: the ends of it are pieces of their own.
const WRITE_COST_BYTES: u64 = 256;

impl FileData {
    /// Writes. With `sync` the data is on the disks of the OSTs before this returns, and the size is told to the MDS
    /// (the caller then asks the MDS to sync). A write that is held back tells a failure of an earlier one.
    pub fn write(&self, offset: u64, data: &[u8], mode: Mode, sync: bool) -> Result<(), Errno> {
        let end =
            offset.checked_add(data.len() as u64).filter(|end| *end <= OFFSET_MAX).ok_or(Errno::EFBIG)?;
        if data.is_empty() {
            return Ok(());
        }
        match mode {
            Mode::Cached if !sync => self.hold_back(offset, data, end),
            _ => self.write_through(Extent { start: offset, end }, data, mode, sync),
        }
    }

    fn hold_back(&self, offset: u64, data: &[u8], end: u64) -> Result<(), Errno> {
        let cost = data.len() as u64 + WRITE_COST_BYTES;
        self.admit(cost)?;
        let mut state = self.lock();
        state.charged += cost;
        if !self.is_gone() {
            state.stamp += 1;
            let stamp = state.stamp;
            state.dirty.write(offset, data, stamp);
            state.owe(Extent { start: offset, end });
            state.touched(end);
        }
        self.settle(&mut state);
        let help = self.wants_help(&mut state);
        self.age(state);
        if help && let Some(me) = self.me.upgrade() {
            self.mount.push(Job::WriteBack(me));
        }
        if self.is_gone() { Err(Errno::EIO) } else { Ok(()) }
    }

    /// Waits until there is memory for a write, and sets it aside. Who waits writes back.
    fn admit(&self, cost: u64) -> Result<(), Errno> {
        loop {
            let mut state = self.alive()?;
            if let Some(error) = state.error {
                return Err(error);
            }
            let fits =
                state.charged == 0 || state.charged + cost <= self.mount.settings.dirty_bytes_per_file_max;
            if fits && self.mount.reserve(cost) {
                return Ok(());
            }
            match state.depart(Pick::Until(u64::MAX)) {
                Some(flight) => {
                    drop(state);
                    self.fly(&flight);
                }
                None if fits => {
                    drop(state);
                    self.mount.await_room();
                }
                None => drop(self.wait(state)?),
            }
        }
    }

    fn write_through(&self, extent: Extent, data: &[u8], mode: Mode, sync: bool) -> Result<(), Errno> {
        let ticket = self.claim(self.alive()?, extent, Share::Exclusive)?;
        let outcome = self.placed(extent).and_then(|layout| self.put(&layout, extent, data, sync));
        let mut state = self.lock();
        state.ranges.release(ticket);
        state.clean.remove(extent);
        state.reached = state.reached.max(extent.end);
        if outcome.is_ok() {
            state.dirty.remove(extent);
            state.landed(extent);
            state.owe(extent);
            match mode {
                Mode::Cached => state.touched(extent.end),
                Mode::Direct => state.touched_for_all(extent.end),
            }
        }
        self.settle(&mut state);
        self.notify();
        // Of who writes together with others the MDS knows everything: it does not ask for the time.
        let tells = extent.end > state.told.size || mode == Mode::Direct;
        let growth = state.growth(extent.end);
        self.age(state);
        self.heed(outcome)?;
        if tells { self.tell(growth, None, false) } else { Ok(()) }
    }

    /// Writes a range at the servers; all of it has a place.
    fn put(&self, layout: &Layout, extent: Extent, data: &[u8], sync: bool) -> Result<(), Errno> {
        let mut asks = Vec::new();
        let mut inline = None;
        let part =
            |part: &Extent| &data[(part.start - extent.start) as usize..(part.end - extent.start) as usize];
        for run in runs(layout, extent, DATA_BYTES_MAX.into()) {
            let bulk: Vec<&[u8]> = run.parts.iter().map(part).collect();
            match run.place {
                Place::Object { ost, object, offset } => {
                    asks.push(Ask { ost, op: Op::Write { object, offset, crc: None, sync }, bulk });
                }
                Place::Inline => inline = bulk.first().map(|bytes| (run.parts[0].start, *bytes)),
                Place::Unplaced { .. } => return Err(Errno::EIO),
            }
        }
        if !asks.is_empty() {
            self.send_writes(&asks, sync)?;
        }
        if let Some((offset, bytes)) = inline {
            let _ = self.telling(self.lock(), |mds| mds.write_inline(self.ino, offset, bytes, now()))?;
        }
        Ok(())
    }

    /// Sends writes to the OSTs and notes what is not durable yet. The first failure is answered.
    fn send_writes(&self, asks: &[Ask<'_>], durable: bool) -> Result<(), Errno> {
        self.send_writes_while(asks, durable, || ())
    }

    /// The same, and does something else before it waits for the answers.
    pub(super) fn send_writes_while(
        &self,
        asks: &[Ask<'_>],
        durable: bool,
        meanwhile: impl FnOnce(),
    ) -> Result<(), Errno> {
        let answers = self.mount.osts.ask_all_while(asks, &self.gone, meanwhile);
        let mut state = self.lock();
        state.blocks_due = true;
        state.landed_bytes +=
            asks.iter().flat_map(|ask| &ask.bulk).map(|part| part.len() as u64).sum::<u64>();
        state.stamp += 1;
        let stamp = state.stamp;
        for ask in asks.iter().filter(|_| !durable) {
            if let Op::Write { object, .. } = ask.op {
                state.unsynced.insert((ask.ost, object), stamp);
            }
        }
        drop(state);
        answers.into_iter().try_for_each(|answer| answer.map(drop))
    }

    /// The layout, with objects for every component that a range meets.
    pub(super) fn placed(&self, extent: Extent) -> Result<Arc<Layout>, Errno> {
        for _ in 0..=COMPONENTS_MAX {
            let layout = Arc::clone(&self.lock().layout);
            let Some(component) = lacking(&layout, extent) else { return Ok(layout) };
            let offset = component.extent.start.max(extent.start);
            let layout = self.mount.mds.place(self.ino, offset)?;
            self.lock().adopt(layout);
        }
        Err(Errno::EIO)
    }

    /// The layout of a range that others may write to at the same time: as the MDS has it, where a component that was
    /// without objects may have some now.
    pub(super) fn layout_now(&self, extent: Extent) -> Result<Arc<Layout>, Errno> {
        let layout = Arc::clone(&self.lock().layout);
        if lacking(&layout, extent).is_none() {
            return Ok(layout);
        }
        let layout = self.heed(self.mount.mds.layout(self.ino))?;
        let mut state = self.lock();
        state.adopt(layout);
        Ok(Arc::clone(&state.layout))
    }

    /// Grows the file to `end` by a hole, unless it is longer.
    pub(super) fn grow(&self, end: u64) -> Result<(), Errno> {
        let mut state = self.alive()?;
        let growth = state.growth(end);
        state.touched(end);
        self.age(state);
        self.tell(growth, None, false)
    }
}

/// The first component without objects that a range meets.
fn lacking(layout: &Layout, extent: Extent) -> Option<&Component> {
    layout.components.iter().find(|component| {
        let meets = component.extent.start < extent.end && extent.start < component.extent.end;
        meets && component.lacks_objects()
    })
}
