//! Holes and space: fallocate(2) and lseek(2).

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::core::layout::{Component, Pattern, Place};
use crate::core::ranges::Share;
use crate::core::split::{ObjectRange, object_ranges};
use crate::core::{Errno, Extent, Layout};
use crate::wire::DATA_BYTES_MAX;
use crate::wire::oss::{Op, Reply};

use super::file::State;
use super::osts::{Answer, Ask};
use super::{FileData, Mode, Seek};

/// Holes on the MDT begin and end at multiples of it, in bytes.
const PAGE_BYTES: u64 = 4096;

impl FileData {
    /// Makes a hole; the size stays.
    pub fn punch(&self, offset: u64, len: u64, mode: Mode) -> Result<(), Errno> {
        let extent = range(offset, len)?;
        let ticket = self.claim(self.alive()?, extent, Share::Exclusive)?;
        let outcome = self.layout_in(extent, mode).and_then(|layout| self.punch_servers(&layout, extent));
        let mut state = self.lock();
        state.ranges.release(ticket);
        state.clean.remove(extent);
        if outcome.is_ok() {
            state.dirty.remove(extent);
            state.landed(extent);
            state.touched(0);
            (state.blocks_due, state.punched) = (true, true);
        }
        self.settle(&mut state);
        self.notify();
        let growth = state.growth(0);
        self.age(state);
        self.heed(outcome)?;
        // A program that makes a hole wants to see it.
        let used = self.used()?;
        self.tell(growth, used, false)
    }

    /// Zeros a range; the file grows to its end unless `keep_size`.
    pub fn zero(&self, offset: u64, len: u64, keep_size: bool, mode: Mode) -> Result<(), Errno> {
        self.punch(offset, len, mode)?;
        if keep_size { Ok(()) } else { self.grow(range(offset, len)?.end) }
    }

    /// Sets space aside; the file grows to the end of the range unless `keep_size`.
    pub fn allocate(&self, offset: u64, len: u64, keep_size: bool) -> Result<(), Errno> {
        let extent = range(offset, len)?;
        drop(self.alive()?);
        let layout = self.heed(self.placed(extent))?;
        let asks = ask_objects(&layout, extent, |range| {
            let (offset, len) = (range.extent.start, range.extent.end - range.extent.start);
            Op::Allocate { object: range.object, offset, len }
        });
        self.ask_done(&asks)?;
        let mut state = self.lock();
        state.blocks_due = true;
        state.owe(extent);
        self.settle(&mut state);
        self.age(state);
        if keep_size { Ok(()) } else { self.grow(extent.end) }
    }

    /// fallocate(2) by its mode bits; `EOPNOTSUPP` for what cannot be done.
    pub fn fallocate(&self, bits: i32, offset: u64, len: u64, mode: Mode) -> Result<(), Errno> {
        let keep_size = bits & libc::FALLOC_FL_KEEP_SIZE != 0;
        match bits & !libc::FALLOC_FL_KEEP_SIZE {
            0 => self.allocate(offset, len, keep_size),
            libc::FALLOC_FL_PUNCH_HOLE if keep_size => self.punch(offset, len, mode),
            libc::FALLOC_FL_ZERO_RANGE => self.zero(offset, len, keep_size, mode),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// The next data or hole at or behind `offset`; `ENXIO` behind the end. Data that is held back counts as data, and of
    /// what is on the MDT each page that is not all zeros.
    pub fn seek(&self, offset: u64, what: Seek, mode: Mode) -> Result<u64, Errno> {
        if mode == Mode::Direct {
            self.refresh()?;
        }
        // First what is in memory, then the servers: what is written back in between is seen twice, not never.
        let state = self.alive()?;
        let size = state.size;
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        let rest = Extent { start: offset, end: size };
        let written = state.written(rest);
        drop(state);
        let layout = self.layout_in(rest, mode)?;
        match what {
            Seek::Data => {
                let written = written.first().map(|extent| extent.start);
                let before = Extent { start: offset, end: written.unwrap_or(size) };
                let found = self.data_in(&layout, before)?;
                found.or(written).ok_or(Errno::ENXIO)
            }
            Seek::Hole => self.hole_in(&layout, rest, &written),
        }
    }

    fn layout_in(&self, extent: Extent, mode: Mode) -> Result<Arc<Layout>, Errno> {
        match mode {
            Mode::Cached => Ok(Arc::clone(&self.lock().layout)),
            Mode::Direct => self.layout_now(extent),
        }
    }

    fn punch_servers(&self, layout: &Layout, extent: Extent) -> Result<(), Errno> {
        let asks = ask_objects(layout, extent, |range| {
            let (offset, len) = (range.extent.start, range.extent.end - range.extent.start);
            Op::Punch { object: range.object, offset, len }
        });
        self.ask_done(&asks)?;
        let end = extent.end.min(layout.inline_bytes());
        if extent.start < end {
            let outcome = self.mount.mds.zero_inline(self.ino, extent.start, end - extent.start);
            self.lock().unversioned += 1;
            outcome?;
        }
        Ok(())
    }

    fn ask_done(&self, asks: &[Ask<'_>]) -> Result<(), Errno> {
        let answers = self.mount.osts.ask_all(asks, &self.gone);
        answers.into_iter().try_for_each(|answer| self.heed(answer).map(drop))
    }

    /// The first data that the servers have in a range.
    fn data_in(&self, layout: &Layout, extent: Extent) -> Result<Option<u64>, Errno> {
        for component in &layout.components {
            let start = extent.start.max(component.extent.start);
            let part = Extent { start, end: extent.end.min(component.extent.end) };
            if part.start >= part.end {
                continue;
            }
            let found = match component.pattern {
                Pattern::Inline => self.data_inline(part)?,
                Pattern::Raid0 { .. } => self.data_in_objects(component, part)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first byte in a range of the inline component that is in a page with data.
    fn data_inline(&self, extent: Extent) -> Result<Option<u64>, Errno> {
        let bytes = self.inline(extent)?;
        let data = bytes.iter().position(|byte| *byte != 0).map(|at| extent.start + at as u64);
        Ok(data.map(|at| extent.start.max(at / PAGE_BYTES * PAGE_BYTES)))
    }

    /// The first byte in a range of the inline component that is in a page without data; the range's end, if there is none.
    fn hole_inline(&self, extent: Extent) -> Result<u64, Errno> {
        let bytes = self.inline(extent)?;
        let mut at = extent.start;
        while at < extent.end {
            let next = extent.end.min(at / PAGE_BYTES * PAGE_BYTES + PAGE_BYTES);
            let page = bytes.iter().take((next - extent.start) as usize).skip((at - extent.start) as usize);
            if page.into_iter().all(|byte| *byte == 0) {
                break;
            }
            at = next;
        }
        Ok(at)
    }

    fn inline(&self, extent: Extent) -> Result<Bytes, Errno> {
        let len = (extent.end - extent.start).min(DATA_BYTES_MAX.into());
        self.heed(self.mount.mds.read_inline(self.ino, extent.start, len as u32))
    }

    fn data_in_objects(&self, component: &Component, extent: Extent) -> Result<Option<u64>, Errno> {
        let ranges = object_ranges(component, extent);
        let seek = |range: &ObjectRange| seek(range, range.extent.start, false);
        let asks: Vec<Ask<'_>> = ranges.iter().map(seek).collect();
        let mut first: Option<u64> = None;
        for (range, answer) in ranges.iter().zip(self.mount.osts.ask_all(&asks, &self.gone)) {
            if let Some(found) = self.found(answer)?.filter(|found| *found < range.extent.end) {
                let at = range.file_offset(found);
                first = Some(first.map_or(at, |first| first.min(at)));
            }
        }
        Ok(first)
    }

    /// The first hole in a range that is neither in `written` nor data of the servers; its end, if there is none.
    fn hole_in(&self, layout: &Layout, extent: Extent, written: &[Extent]) -> Result<u64, Errno> {
        let mut at = extent.start;
        // For each object the end of the data that is known.
        let mut known = HashMap::new();
        while at < extent.end {
            if let Some(end) = end_of(written, at) {
                at = end;
                continue;
            }
            let Some(piece) = layout.pieces(at, extent.end - at).next() else { break };
            let Place::Object { ost, object, offset } = piece.place else {
                let end = match piece.place {
                    Place::Inline => self.hole_inline(Extent { start: at, end: at + piece.len })?,
                    _ => at,
                };
                if end == at {
                    return Ok(at);
                }
                at = end;
                continue;
            };
            let end = known.entry(object).or_insert(0);
            if *end <= offset {
                let ask = Ask { ost, op: Op::Seek { object, offset, hole: true }, bulk: Vec::new() };
                *end = self.found(self.mount.osts.ask(ask, &self.gone))?.unwrap_or(offset);
            }
            if *end <= offset {
                return Ok(at);
            }
            at += piece.len.min(*end - offset);
        }
        Ok(extent.end)
    }

    /// What a seek found; `None` behind the end of the object.
    fn found(&self, answer: Answer) -> Result<Option<u64>, Errno> {
        match answer {
            Err(Errno::ENXIO) => Ok(None),
            answer => match self.heed(answer)? {
                (Reply::Offset(offset), _) => Ok(Some(offset)),
                _ => Err(Errno::EIO),
            },
        }
    }
}

impl State {
    /// What was written in a range and is not with the servers, in order; neighbours are one.
    fn written(&self, extent: Extent) -> Vec<Extent> {
        let mut extents: Vec<Extent> = Vec::new();
        let flying = self.flying.iter().flat_map(|flight| flight.segments(extent));
        for (start, data) in self.dirty.segments(extent).chain(self.failed.segments(extent)).chain(flying) {
            extents.push(Extent { start, end: start + data.len() as u64 });
        }
        extents.sort_by_key(|extent| extent.start);
        extents.dedup_by(|next, last| {
            let meets = next.start <= last.end;
            if meets {
                last.end = last.end.max(next.end);
            }
            meets
        });
        extents
    }
}

fn end_of(extents: &[Extent], at: u64) -> Option<u64> {
    let behind = extents.partition_point(|extent| extent.start <= at);
    let extent = extents.get(behind.checked_sub(1)?)?;
    (at < extent.end).then_some(extent.end)
}

fn range(offset: u64, len: u64) -> Result<Extent, Errno> {
    match offset.checked_add(len) {
        _ if len == 0 => Err(Errno::EINVAL),
        Some(end) if i64::try_from(end).is_ok() => Ok(Extent { start: offset, end }),
        _ => Err(Errno::EFBIG),
    }
}

fn seek(range: &ObjectRange, offset: u64, hole: bool) -> Ask<'static> {
    Ask { ost: range.ost, op: Op::Seek { object: range.object, offset, hole }, bulk: Vec::new() }
}

/// A question to each object about the part of it that a range fills.
fn ask_objects(layout: &Layout, extent: Extent, question: impl Fn(&ObjectRange) -> Op) -> Vec<Ask<'static>> {
    let ranges = layout.components.iter().flat_map(|component| object_ranges(component, extent));
    ranges.map(|range| Ask { ost: range.ost, op: question(&range), bulk: Vec::new() }).collect()
}
