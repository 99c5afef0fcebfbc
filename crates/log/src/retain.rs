//! Giving space back: by size, by age, by the user's word. All of it blocks on the disk.

use std::io;
use std::sync::PoisonError;

use kiln_types::{Offset, Timestamp};

use crate::error::{ChangeError, Failed};
use crate::log::{Log, Shared, State};
use crate::recover::remove_segment;
use crate::segment::SegmentInfo;
use crate::waiters::Woken;

impl Log {
    /// Makes `to` the first offset, for good, and removes the segments wholly below it. A `to` below the present
    /// start changes nothing. It is durable on return.
    pub fn set_start(&self, to: Offset) -> Result<(), ChangeError> {
        let shared = &self.shared;
        let mut known = shared.meta.lock().unwrap_or_else(PoisonError::into_inner);
        let marks = {
            let state = shared.lock();
            state.check()?;
            state.marks
        };
        if to > marks.durable {
            return Err(ChangeError::OutOfRange { to, durable: marks.durable });
        }
        if to > marks.start {
            // First the word, then the deed: a crash between the two is completed when the log is opened.
            shared.write_meta(&mut known.meta, to, true).map_err(|source| shared.changing(source))?;
            let mut state = shared.lock();
            state.marks.start = state.marks.start.max(to);
        }
        drop(known);
        shared.publish();
        self.drop_segments(&mut |segment| segment.last < to).map(drop)
    }

    /// Removes the sealed segments that `dead` declares dead, also inner ones: their offsets are then missing.
    /// Returns how many. Only segments that are wholly durable are asked for. After an error, and after a crash in
    /// between, a segment may be back when the log is opened anew.
    pub fn drop_segments(&self, dead: &mut dyn FnMut(SegmentInfo) -> bool) -> Result<usize, ChangeError> {
        let shared = &self.shared;
        let mut known = shared.meta.lock().unwrap_or_else(PoisonError::into_inner);
        let removed = shared.lock().take_dead(dead)?;
        let Some(newest) = removed.last() else { return Ok(0) };
        if known.meta.durable <= newest.last {
            // Recovery takes missing offsets for a lost tail unless log.meta says that they were durable.
            shared.write_meta(&mut known.meta, Offset(0), true).map_err(|source| shared.changing(source))?;
        }
        drop(known);
        let disk = &**shared.volume.disk();
        for segment in &removed {
            shared.volume.cache().remove(shared.id, segment.base);
            remove_segment(disk, &shared.dir, segment.base).map_err(|source| shared.changing(source))?;
        }
        disk.sync_dir(&shared.dir).map_err(|source| shared.changing(source))?;
        shared.publish();
        Ok(removed.len())
    }

    /// Removes what is too old or too much at the time `now`, by the log's settings. Returns how many segments.
    pub fn retain(&self, now: Timestamp) -> Result<usize, ChangeError> {
        self.roll_if_expired(now)?;
        let settings = &self.shared.settings;
        let mut surplus = settings.retention_bytes.map_or(0, |max| self.bytes().saturating_sub(max));
        let mut oldest = true;
        self.drop_segments(&mut |segment| {
            // Only from the front: retention leaves no holes.
            oldest = oldest && (segment.bytes <= surplus || settings.is_expired(&segment, now));
            if oldest {
                surplus = surplus.saturating_sub(segment.bytes);
            }
            oldest
        })
    }

    /// Removes the log with all its files. Every other handle of it gives [`Failed`] from then on.
    pub fn remove(self) -> Result<(), ChangeError> {
        let shared = &self.shared;
        let _meta = shared.meta.lock().unwrap_or_else(PoisonError::into_inner); // no flush writes meanwhile
        let gone = io::Error::new(io::ErrorKind::NotFound, "the log was removed");
        let mut woken = Woken::default();
        shared.fail(&Failed::new(&shared.dir, &gone), &mut woken);
        woken.wake();
        for segment in self.segments() {
            shared.volume.cache().remove(shared.id, segment.base);
        }
        let disk = &**shared.volume.disk();
        disk.remove_dir_all(&shared.dir).map_err(|source| shared.changing(source))?;
        shared.volume.forget(&shared.dir);
        let parent = shared.dir.parent().unwrap_or(&shared.dir);
        disk.sync_dir(parent).map_err(|source| shared.changing(source))
    }

    /// Seals the active segment when all of it is too old, so that it can go too.
    fn roll_if_expired(&self, now: Timestamp) -> Result<(), ChangeError> {
        let shared = &self.shared;
        {
            let mut state = shared.lock();
            state.check()?;
            let info = state.active.info;
            let is_durable = info.last < state.marks.durable;
            if info.is_empty() || !is_durable || !shared.settings.is_expired(&info, now) {
                return Ok(());
            }
            shared.roll(&mut state).map_err(|source| shared.changing(source))?;
            if !state.queued {
                state.queued = true;
                shared.volume.enqueue(std::sync::Arc::clone(shared));
            }
        }
        // The new segment's name must last before the old segment goes, or the log would forget where it ends.
        shared.volume.flush_round();
        Ok(())
    }
}

impl State {
    pub(crate) fn check(&self) -> Result<(), Failed> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Takes the dead ones among the sealed and synced segments off the list; moves the start behind them.
    fn take_dead(&mut self, dead: &mut dyn FnMut(SegmentInfo) -> bool) -> Result<Vec<SegmentInfo>, Failed> {
        self.check()?;
        let mut removed = Vec::new();
        self.sealed.retain(|sealed| {
            let goes = sealed.unsynced.is_none() && dead(sealed.info);
            if goes {
                removed.push(sealed.info);
            }
            !goes
        });
        let first = self.sealed.front().map_or(self.active.info.base, |sealed| sealed.info.base);
        self.marks.start = self.marks.start.max(first);
        Ok(removed)
    }
}

impl Shared {
    fn changing(&self, source: io::Error) -> ChangeError {
        ChangeError::Io { dir: self.dir.to_path_buf(), source }
    }
}

impl crate::log::Settings {
    fn is_expired(&self, segment: &SegmentInfo, now: Timestamp) -> bool {
        self.retention_age.is_some_and(|age| {
            let oldest_ms = i128::from(now.millis()) - age.as_millis() as i128;
            i128::from(segment.max_time_ms) < oldest_ms
        })
    }
}
