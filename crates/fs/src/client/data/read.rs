//! Reading: what is in memory, over what the servers have.

use std::sync::Arc;

use bytes::Bytes;

use crate::core::clean::Keep;
use crate::core::dirty::{CHUNK_BYTES, Gaps, overlay};
use crate::core::layout::Place;
use crate::core::ranges::Share;
use crate::core::split::{Run, runs};
use crate::core::{Errno, Extent};
use crate::wire::DATA_BYTES_MAX;
use crate::wire::oss::Op;

use super::file::{Coming, State};
use super::mount::Job;
use super::osts::Ask;
use super::{FileData, Mode};

/// How a read gets what it lacks in memory.
enum Step {
    /// It lacks nothing.
    Done(Bytes),
    /// Somebody is reading some of it ahead.
    Wait,
    /// This is to be read ahead, and nobody has begun: the reader does it.
    Take(Extent),
    /// From the servers.
    Fetch,
}

impl FileData {
    /// Bytes from `offset`, at most `len`; shorter at the end of the file only.
    pub fn read(&self, offset: u64, len: u32, mode: Mode) -> Result<Bytes, Errno> {
        let wanted = Extent { start: offset, end: offset.saturating_add(len.into()) };
        if mode == Mode::Direct && wanted.end > self.size() {
            self.refresh()?;
        }
        if mode == Mode::Cached {
            self.plan(wanted);
        }
        loop {
            let mut state = self.alive()?;
            let extent = Extent { end: wanted.end.min(state.size), ..wanted };
            if extent.start >= extent.end {
                return Ok(Bytes::new());
            }
            match state.step(extent, mode) {
                Step::Done(bytes) => {
                    self.settle(&mut state);
                    return Ok(bytes);
                }
                Step::Wait => drop(self.wait(state)?),
                Step::Take(coming) => {
                    drop(state);
                    self.read_ahead(coming);
                }
                Step::Fetch => {
                    let ticket = self.claim(state, extent, Share::Shared)?;
                    // The file may have been cut before the claim could start.
                    let outcome = (self.size() >= extent.end).then(|| self.merged(extent, mode));
                    self.lock().ranges.release(ticket);
                    self.notify();
                    let Some(outcome) = outcome else { continue };
                    let (bytes, whole) = self.heed(outcome)?;
                    if whole || mode == Mode::Cached {
                        return Ok(bytes);
                    }
                    // Others may have cut the file: zeros are only read where it still is.
                    self.refresh()?;
                    let len = self.size().min(extent.end).saturating_sub(extent.start);
                    return Ok(bytes.slice(..len as usize));
                }
            }
        }
    }

    /// Asks the MDS how long the file is.
    pub(super) fn refresh(&self) -> Result<(), Errno> {
        let attr = self.heed(self.mount.mds.attr(self.ino))?;
        let mut state = self.alive()?;
        state.learn(&attr);
        self.settle(&mut state);
        Ok(())
    }

    /// What is in memory over what the servers have. The range is claimed: nothing of it is written back meanwhile, and so
    /// what is dirty at the end, over what was fetched, is what the file was at one moment. Also answers whether the
    /// servers had the last byte.
    fn merged(&self, extent: Extent, mode: Mode) -> Result<(Bytes, bool), Errno> {
        let (gaps, layout, below) = {
            let state = self.lock();
            let gaps = state.gaps(extent, mode);
            let below = (gaps.left() != [extent]).then(|| state.copy(extent, mode));
            (gaps, Arc::clone(&state.layout), below)
        };
        let layout = if mode == Mode::Direct { self.layout_now(extent)? } else { layout };
        let mut fetched = Vec::new();
        for gap in gaps.left() {
            fetched.extend(runs(&layout, *gap, DATA_BYTES_MAX.into()));
        }
        let fetched = self.fetch(fetched)?;
        let whole = fetched.iter().all(|(run, bytes)| {
            run.parts.last().is_none_or(|part| part.end < extent.end) || bytes.len() as u64 == run.len
        });
        let bytes = match (&fetched[..], &below) {
            ([(run, bytes)], None) if bytes.len() as u64 == run.len && run.parts.len() == 1 => bytes.clone(),
            _ => assembled(extent, below, &fetched),
        };
        let state = self.lock();
        if state.dirty.segments(extent).next().is_none() {
            return Ok((bytes, whole));
        }
        let mut bytes = Vec::from(bytes);
        overlay(state.dirty.segments(extent), extent.start, &mut bytes);
        Ok((bytes.into(), whole))
    }

    /// Asks the servers for runs, all at once. What is shorter than its run ends in zeros.
    fn fetch(&self, runs: Vec<Run>) -> Result<Vec<(Run, Bytes)>, Errno> {
        let mut asks = Vec::with_capacity(runs.len());
        for run in &runs {
            if let Place::Object { ost, object, offset } = run.place {
                let op = Op::Read { object, offset, len: run.len as u32 };
                asks.push(Ask { ost, op, bulk: Vec::new() });
            }
        }
        let mut answers = self.mount.osts.ask_all(&asks, &self.gone).into_iter();
        let mut fetched = Vec::with_capacity(runs.len());
        for run in runs {
            let bytes = match run.place {
                Place::Object { .. } => answers.next().expect("there is an answer to each question")?.1,
                Place::Inline => self.mount.mds.read_inline(self.ino, run.parts[0].start, run.len as u32)?,
                Place::Unplaced { .. } => Bytes::new(),
            };
            if bytes.len() as u64 > run.len {
                return Err(Errno::EIO);
            }
            fetched.push((run, bytes));
        }
        Ok(fetched)
    }

    /// Decides what to read ahead, and has it done.
    fn plan(&self, wanted: Extent) {
        let window = self.mount.settings.readahead_bytes_max.min(self.mount.settings.clean_bytes_max / 2);
        let mut state = self.lock();
        let (size, end) = (state.size, wanted.end.min(state.size));
        if wanted.start >= end {
            return;
        }
        let Some(ahead) = state.readahead.read(Extent { end, ..wanted }, size, window) else { return };
        let mut at = ahead.start;
        while at < ahead.end && self.mount.may_read_ahead() {
            let extent =
                Extent { start: at, end: ahead.end.min(at / CHUNK_BYTES * CHUNK_BYTES + CHUNK_BYTES) };
            at = extent.end;
            let known = state.gaps(extent, Mode::Cached).left() != [extent];
            if known || state.coming.iter().any(|coming| coming.meets(extent)) {
                continue;
            }
            let Some(me) = self.me.upgrade() else { return };
            state.coming.push(Coming { extent, started: false });
            self.mount.push(Job::ReadAhead(me, extent));
        }
    }

    /// Reads a range ahead, unless somebody has begun to.
    pub(super) fn read_ahead(&self, extent: Extent) {
        let mut state = self.lock();
        let waiting = |coming: &&mut Coming| coming.extent == extent && !coming.started;
        let Some(coming) = state.coming.iter_mut().find(waiting) else { return };
        coming.started = true;
        let ticket = state.ranges.try_claim(extent, Share::Shared);
        let forgotten = state.forgotten;
        drop(state);
        let outcome = ticket.map(|_| self.of_servers(extent));
        let mut state = self.lock();
        state.coming.retain(|coming| coming.extent != extent || !coming.started);
        if let Some(ticket) = ticket {
            state.ranges.release(ticket);
        }
        self.notify();
        let Some(Ok(bytes)) = outcome else { return };
        if state.forgotten == forgotten && !self.is_gone() {
            state.clean.insert(extent.start, bytes, Keep::UntilRead);
            self.settle(&mut state);
            drop(state);
            self.mount.came(&self.me, extent);
        }
    }

    fn of_servers(&self, extent: Extent) -> Result<Bytes, Errno> {
        let layout = Arc::clone(&self.lock().layout);
        let fetched = self.fetch(runs(&layout, extent, DATA_BYTES_MAX.into()))?;
        Ok(match &fetched[..] {
            [(run, bytes)] if bytes.len() as u64 == run.len && run.parts.len() == 1 => bytes.clone(),
            fetched => assembled(extent, None, fetched),
        })
    }
}

/// What was fetched, each byte where it belongs, over zeros or what is there `below`.
fn assembled(extent: Extent, below: Option<Vec<u8>>, fetched: &[(Run, Bytes)]) -> Bytes {
    let mut out = below.unwrap_or_else(|| vec![0; (extent.end - extent.start) as usize]);
    for (run, bytes) in fetched {
        let mut rest = &bytes[..];
        for part in &run.parts {
            let (now, later) = rest.split_at(rest.len().min((part.end - part.start) as usize));
            overlay([(part.start, now)].into_iter(), extent.start, &mut out);
            rest = later;
        }
    }
    out.into()
}

impl Coming {
    fn meets(&self, extent: Extent) -> bool {
        self.extent.start < extent.end && extent.start < self.extent.end
    }
}

impl State {
    fn step(&mut self, extent: Extent, mode: Mode) -> Step {
        if let Some(bytes) = self.in_memory(extent, mode) {
            return Step::Done(bytes);
        }
        match self.coming.iter().find(|coming| mode == Mode::Cached && coming.meets(extent)) {
            Some(Coming { started: true, .. }) => Step::Wait,
            Some(Coming { extent, .. }) => Step::Take(*extent),
            None => Step::Fetch,
        }
    }

    /// A range, if all of it is in memory.
    fn in_memory(&mut self, extent: Extent, mode: Mode) -> Option<Bytes> {
        let bytes = self.in_clean(extent, mode).or_else(|| {
            let gaps = self.gaps(extent, mode);
            gaps.left().is_empty().then(|| self.copy(extent, mode).into())
        })?;
        self.clean.consume(extent);
        Some(bytes)
    }

    /// Without copying, where nothing lies over it.
    fn in_clean(&self, extent: Extent, mode: Mode) -> Option<Bytes> {
        let written = self.dirty.segments(extent).next().is_some()
            || self.failed.segments(extent).next().is_some()
            || self.flying.iter().any(|flight| flight.segments(extent).next().is_some());
        if written || mode == Mode::Direct { None } else { self.clean.slice(extent) }
    }

    /// The parts of a range that only the servers have.
    pub(super) fn gaps(&self, extent: Extent, mode: Mode) -> Gaps {
        let mut gaps = Gaps::all(extent);
        gaps.fill(self.dirty.segments(extent));
        self.flying.iter().for_each(|flight| gaps.fill(flight.segments(extent)));
        gaps.fill(self.failed.segments(extent));
        if mode == Mode::Cached {
            gaps.fill(self.clean.segments(extent));
        }
        gaps
    }

    /// What memory has of a range, over zeros.
    fn copy(&self, extent: Extent, mode: Mode) -> Vec<u8> {
        let mut out = vec![0; (extent.end - extent.start) as usize];
        if mode == Mode::Cached {
            overlay(self.clean.segments(extent), extent.start, &mut out);
        }
        overlay(self.failed.segments(extent), extent.start, &mut out);
        self.flying.iter().for_each(|flight| overlay(flight.segments(extent), extent.start, &mut out));
        overlay(self.dirty.segments(extent), extent.start, &mut out);
        out
    }
}
