//! The data of one file: what is known of it, and how that changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::mount::Mount;
use super::write_back::Flight;
use super::{LocalChanges, Written};
use crate::client::bell::Bell;
use crate::core::clean::{Clean, Keep};
use crate::core::dirty::Dirty;
use crate::core::layout::END;
use crate::core::quota::{BLOCK_BYTES, Owner};
use crate::core::ranges::{Ranges, Share, Ticket};
use crate::core::readahead::Readahead;
use crate::core::{Attr, Errno, Extent, Ino, Layout, ObjectId, OstIndex, Time};

/// How far apart the times of two writes are that can be told apart, when each is told: a tick of the kernel's clock.
const MTIME_GRAIN_NANOS: i128 = 4_000_000;

/// The data of one file on this mount, shared by all its handles.
pub struct FileData {
    pub(super) ino: Ino,
    pub(super) mount: Arc<Mount>,
    pub(super) me: Weak<FileData>,
    /// It was discarded: nothing is answered any more, and calls that wait give up.
    pub(super) gone: AtomicBool,
    state: Mutex<State>,
    /// Notified when anything that somebody may wait for has changed: claims, flights, what is read ahead.
    changed: Bell,
}

/// **Order of layers**, the later over the earlier: servers, `clean`, `failed`, `flying`, `dirty`.
pub(super) struct State {
    pub(super) layout: Arc<Layout>,
    /// As this mount knows it, what is held back included.
    pub(super) size: u64,
    /// What the MDS is known to know.
    pub(super) told: Told,
    /// When it was written last, since it was opened.
    pub(super) mtime: Option<Time>,
    /// It is to be told though the MDS seems to know it.
    retell_mtime: bool,
    pub(super) kill_suid_sgid: bool,
    /// Calls that tell the MDS a size or a time and are not answered.
    pub(super) telling: usize,
    /// Objects were written since the MDS was told how much space they use.
    pub(super) blocks_due: bool,
    /// They may use less than the MDS was told.
    pub(super) punched: bool,
    /// The objects may have bytes of this mount up to here, in bytes of the file.
    pub(super) reached: u64,
    /// Bytes that were written to objects since the MDS was told how much space they use.
    pub(super) landed_bytes: u64,
    /// Space that may have been used and was not told to the MDS, in bytes.
    pub(super) unaccounted: u64,
    /// What the mount was told of that, and who was the owner then.
    owed: (Owner, u64),
    pub(super) dirty: Dirty,
    /// What is being written back. **Invariant:** each has claimed its ranges.
    pub(super) flying: Vec<Arc<Flight>>,
    /// What could not be written back, until that is told.
    pub(super) failed: Dirty,
    /// Why. Told by the next flush.
    pub(super) error: Option<Errno>,
    /// The file is being cut to these sizes: nothing behind them is written back, nor told.
    cuts: Vec<u64>,
    /// Goes up with each cut.
    cuts_done: u64,
    pub(super) clean: Clean,
    pub(super) coming: Vec<Coming>,
    pub(super) readahead: Readahead,
    /// Goes up when clean data is forgotten: what was asked for before does not count.
    pub(super) forgotten: u64,
    /// Claims on what is at the servers.
    pub(super) ranges: Ranges,
    /// What the MDT's disk is known to have, with the size and the layout by which the data is found.
    durable: Option<Known>,
    /// Changes of the inode by this mount after which it was not told the version.
    pub(super) unversioned: u64,
    /// The number of the last write.
    pub(super) stamp: u64,
    /// Chunks that are dirty since this write, or longer, are to be written back now.
    pub(super) forced: u64,
    /// Objects that may not be durable, by the stamp of the last write to them.
    pub(super) unsynced: BTreeMap<(OstIndex, ObjectId), u64>,
    /// The costs of `flying`.
    pub(super) flying_cost: u64,
    /// What the mount was told of the memory for `dirty`, `flying` and `failed`, and for `clean`.
    pub(super) charged: u64,
    charged_clean: u64,
    /// It is in the mount's list of files that have something to tell.
    aging: bool,
    /// Jobs of the mount that write this file back.
    pub(super) helpers: usize,
}

/// What the MDS knows of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) blocks: u64,
    pub(super) owner: Owner,
    pub(super) version: u64,
}

/// An inode as it is at some time. What is greater is later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Known {
    /// [`State::unversioned`] then.
    pub(super) unversioned: u64,
    pub(super) version: u64,
}

/// A size that the MDS is to be told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growth {
    size: u64,
    cuts_done: u64,
    /// Told also where this mount knows a larger size: who writes together with others may know an old one.
    pub(super) always: bool,
}

/// A range that is to be read ahead.
pub(super) struct Coming {
    pub(super) extent: Extent,
    /// Somebody does it.
    pub(super) started: bool,
}

impl From<&Attr> for Told {
    fn from(attr: &Attr) -> Told {
        Told {
            size: attr.size,
            mtime: attr.mtime,
            blocks: attr.blocks,
            owner: attr.into(),
            version: attr.version,
        }
    }
}

impl FileData {
    pub(super) fn new(ino: Ino, mount: Arc<Mount>, attr: &Attr, layout: Layout) -> Arc<FileData> {
        let split = layout.inline_bytes();
        let state = State {
            layout: Arc::new(layout),
            size: attr.size,
            told: attr.into(),
            mtime: None,
            retell_mtime: false,
            kill_suid_sgid: false,
            telling: 0,
            blocks_due: false,
            punched: false,
            reached: 0,
            landed_bytes: 0,
            unaccounted: 0,
            owed: (attr.into(), 0),
            dirty: Dirty::new(split),
            flying: Vec::new(),
            failed: Dirty::new(split),
            error: None,
            cuts: Vec::new(),
            cuts_done: 0,
            clean: Clean::default(),
            coming: Vec::new(),
            readahead: Readahead::default(),
            forgotten: 0,
            ranges: Ranges::default(),
            durable: None,
            unversioned: 0,
            stamp: 0,
            forced: 0,
            unsynced: BTreeMap::new(),
            flying_cost: 0,
            charged: 0,
            charged_clean: 0,
            aging: false,
            helpers: 0,
        };
        Arc::new_cyclic(|me| FileData {
            ino,
            mount,
            me: Weak::clone(me),
            gone: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: Bell::default(),
        })
    }

    /// The size as this mount knows it, what is held back included.
    pub fn size(&self) -> u64 {
        self.lock().size
    }

    /// Whether something would be lost with this: data that the servers do not have, or what the MDS does not know. Attributes
    /// alone do not tell: after a cut the MDS knows size and time of a file of which data is held back.
    pub fn holds_back(&self) -> bool {
        self.holds_data_back() || self.attr_changes().is_some()
    }

    /// Whether there is data that the servers do not have.
    pub fn holds_data_back(&self) -> bool {
        let state = self.lock();
        !state.dirty.is_empty() || !state.flying.is_empty()
    }

    /// What the MDS does not know yet; `None` when it knows everything.
    pub fn attr_changes(&self) -> Option<LocalChanges> {
        let state = self.lock();
        let (mtime, blocks) = (state.untold_mtime(), state.blocks());
        let uses = blocks != state.told.blocks || state.unaccounted > 0;
        let size = (state.size > state.told.size).then_some(state.size);
        let changed = size.is_some() || mtime.is_some() || uses;
        changed.then_some(LocalChanges { size, mtime, blocks })
    }

    /// A writer is not root: set-id bits go when the MDS is told next.
    pub fn kill_suid_sgid(&self) {
        self.lock().kill_suid_sgid = true;
    }

    /// Forgets what was read ahead.
    pub fn forget_clean(&self) {
        self.forget(Extent { start: 0, end: END });
    }

    /// The layout was changed by this mount.
    pub fn set_layout(&self, layout: Layout) {
        self.lock().adopt(layout);
    }

    /// News from the MDS: attributes of an answer, and the layout where it came along. What this mount has written and
    /// not told yet stays as it is; news that are older than what is known are ignored. Not for a change of the size by
    /// this mount: that is [`FileData::resize`].
    pub fn set_size(&self, attr: &Attr, layout: Option<Layout>) {
        let mut state = self.lock();
        if let Some(layout) = layout {
            state.adopt(layout);
        }
        state.learn(attr);
        self.settle(&mut state);
    }

    /// A change of the size by this mount: `change` asks the MDS for it. Data held back behind the new size is dropped
    /// when it succeeds, and nothing that was on its way arrives at an OST after the objects were cut.
    pub fn resize(
        &self,
        size: u64,
        change: impl FnOnce() -> Result<(Attr, Option<Layout>), Errno>,
    ) -> Result<Attr, Errno> {
        self.lock().cuts.push(size);
        let outcome =
            self.arrived_behind(size).map(|ticket| (ticket, self.tell_reached(size).and_then(|()| change())));
        let mut state = self.lock();
        if let Some(position) = state.cuts.iter().position(|cut| *cut == size) {
            state.cuts.swap_remove(position);
        }
        self.notify();
        let (ticket, outcome) = outcome?;
        state.ranges.release(ticket);
        let (attr, layout) = outcome?;
        if let Some(layout) = layout {
            state.adopt(layout);
        }
        state.learn_mtime(&attr);
        state.cuts_done += 1;
        state.cut(size);
        let has_cut = size > 0 && size < state.size && state.layout.objects().next().is_some();
        state.size = attr.size;
        state.learn(&attr);
        if size == 0 {
            state.unaccounted = 0;
        }
        self.settle(&mut state);
        if has_cut {
            // The MDS knows the most that they may use now.
            (state.blocks_due, state.punched) = (true, true);
            self.age(state);
        }
        Ok(attr)
    }

    /// Waits until nothing behind `size` is on its way, to the OSTs or the MDS, and keeps it so until the ticket is released.
    fn arrived_behind(&self, size: u64) -> Result<Ticket, Errno> {
        let ticket = self.claim(self.alive()?, Extent { start: size, end: END }, Share::Exclusive)?;
        let mut state = self.lock();
        while state.telling > 0 && !self.is_gone() {
            state = self.changed.wait(state);
        }
        Ok(ticket)
    }

    /// Tells the MDS how far the objects may reach where it does not know and they are to be cut: it cuts those of a file that becomes shorter,
    /// and what it left would be in the file when that reaches there again.
    fn tell_reached(&self, size: u64) -> Result<(), Errno> {
        let state = self.alive()?;
        if state.reached <= state.told.size.max(size) {
            return Ok(());
        }
        let written = Written { size: state.reached, ..Written::default() };
        self.telling(state, |mds| mds.written(self.ino, written)).map(drop)
    }

    /// Waits until the MDS is told nothing: what it is told later would undo what another mount changes next.
    pub fn await_told(&self) {
        let mut state = self.lock();
        while state.telling > 0 && !self.is_gone() {
            state = self.changed.wait(state);
        }
    }

    /// A change of the times by this mount: `change` asks the MDS for it. What is written back later does not undo it.
    pub fn set_times(&self, change: impl FnOnce() -> Result<Attr, Errno>) -> Result<Attr, Errno> {
        let attr = change()?;
        let mut state = self.lock();
        let overtaken = state.telling > 0 || state.told.version > attr.version;
        let held_back = !state.dirty.is_empty() || !state.flying.is_empty();
        state.learn(&attr);
        self.settle(&mut state);
        state.retell_mtime = overtaken || held_back;
        state.mtime = state.retell_mtime.then_some(attr.mtime);
        if state.retell_mtime {
            self.age(state);
        }
        Ok(attr)
    }

    /// The session was evicted: what is held back is lost, and every call from now on answers `EIO`.
    pub fn discard(&self) {
        self.gone.store(true, Ordering::Relaxed);
        let mut state = self.lock();
        let split = state.layout.inline_bytes();
        state.dirty = Dirty::new(split);
        state.failed = Dirty::new(split);
        state.clean = Clean::default();
        state.unaccounted = 0;
        self.settle(&mut state);
        self.changed.notify_all();
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// The file is opened, again perhaps: `head` are its first bytes as they were with `attr`.
    pub(super) fn opened(&self, attr: &Attr, layout: Layout, head: Option<Bytes>) {
        let mut state = self.lock();
        let current = attr.version >= state.told.version;
        if attr.version > state.told.version {
            state.forget(Extent { start: 0, end: END });
        }
        state.adopt(layout);
        state.learn(attr);
        let head = head.filter(|head| current && !head.is_empty());
        if let Some(head) = head {
            let extent = Extent { start: 0, end: head.len() as u64 };
            state.clean.insert(0, head, Keep::Long);
            self.settle(&mut state);
            drop(state);
            self.mount.came(&self.me, extent);
        } else {
            self.settle(&mut state);
        }
    }

    /// Forgets clean data.
    pub(super) fn forget(&self, extent: Extent) {
        let mut state = self.lock();
        state.forget(extent);
        self.settle(&mut state);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a file that was not discarded.
    pub(super) fn alive(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let state = self.lock();
        if self.is_gone() { Err(Errno::EIO) } else { Ok(state) }
    }

    /// Waits for a change.
    pub(super) fn wait<'s>(&self, state: MutexGuard<'s, State>) -> Result<MutexGuard<'s, State>, Errno> {
        let state = self.changed.wait(state);
        if self.is_gone() { Err(Errno::EIO) } else { Ok(state) }
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Claims a range and waits until that may start.
    pub(super) fn claim(
        &self,
        mut state: MutexGuard<'_, State>,
        extent: Extent,
        share: Share,
    ) -> Result<Ticket, Errno> {
        let ticket = state.ranges.claim(extent, share);
        while !state.ranges.may_start(ticket) && !self.is_gone() {
            state = self.changed.wait(state);
        }
        if self.is_gone() {
            state.ranges.release(ticket);
            self.changed.notify_all();
            return Err(Errno::EIO);
        }
        Ok(ticket)
    }

    /// Tells the mount what memory the file takes now.
    pub(super) fn settle(&self, state: &mut State) {
        let charged = state.dirty.cost() + state.failed.cost() + state.flying_cost;
        self.mount.charge(std::mem::replace(&mut state.charged, charged), charged);
        let clean = state.clean.bytes();
        self.mount.charge_clean(std::mem::replace(&mut state.charged_clean, clean), clean);
        let owed = (state.told.owner, state.unaccounted);
        if owed != state.owed {
            self.mount.debts.change(self.ino, &self.me, std::mem::replace(&mut state.owed, owed), owed);
        }
    }

    /// The MDS knows of so much of what was used.
    pub(super) fn accounted(&self, bytes: u64) {
        let mut state = self.lock();
        state.unaccounted = state.unaccounted.saturating_sub(bytes);
        self.settle(&mut state);
    }

    /// There is something to tell: the mount sees to it after a while.
    pub(super) fn age(&self, mut state: MutexGuard<'_, State>) {
        if !std::mem::replace(&mut state.aging, true) {
            drop(state);
            if let Some(me) = self.me.upgrade() {
                self.mount.age(me);
            }
        }
    }

    /// Out of the mount's list.
    pub(super) fn aged(&self) {
        self.lock().aging = false;
    }

    /// Takes the answer of a server that may say that this session is fenced.
    pub(super) fn heed<T>(&self, outcome: Result<T, Errno>) -> Result<T, Errno> {
        match outcome {
            Err(Errno::ESTALE) => {
                // Where it was discarded already, whoever did that knows why.
                if !self.is_gone() {
                    tracing::warn!(
                        ino = self.ino.0,
                        "the file was removed, or this mount evicted: what was not written back is lost"
                    );
                }
                self.discard();
                Err(Errno::EIO)
            }
            outcome => outcome,
        }
    }
}

impl Drop for FileData {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.mount.charge(state.charged, 0);
        self.mount.charge_clean(state.charged_clean, 0);
        self.mount.debts.change(self.ino, &self.me, state.owed, (state.owed.0, 0));
    }
}

impl State {
    /// The time of the last write, if the MDS has another one.
    pub(super) fn untold_mtime(&self) -> Option<Time> {
        self.mtime.filter(|mtime| self.retell_mtime || *mtime != self.told.mtime)
    }

    /// The space that the file uses, with what is held back as if nothing were there yet: at most that of a file without
    /// holes, unless the MDS knows better.
    fn blocks(&self) -> u64 {
        let untold = self.dirty.cost() + self.flying_cost + self.failed.cost() + self.landed_bytes;
        let full = self.size.div_ceil(BLOCK_BYTES).max(self.told.blocks);
        (self.told.blocks + untold.div_ceil(BLOCK_BYTES)).min(full)
    }

    /// The size as it is to be told later, unless the file is cut before that.
    pub(super) fn growth(&self, size: u64) -> Growth {
        Growth { size, cuts_done: self.cuts_done, always: size > 0 }
    }

    /// The size, if the MDS was not told when it comes to that. One that it was told is not claimed again: another mount may have
    /// cut the file since.
    pub(super) fn untold_growth(&self) -> Growth {
        Growth { size: self.size, cuts_done: self.cuts_done, always: false }
    }

    /// The size of `growth` as it may be told now: what a cut took away is not told, and below the cut the MDS knows.
    pub(super) fn grown(&self, growth: Growth) -> u64 {
        let size = if growth.cuts_done == self.cuts_done { growth.size.min(self.cut_limit()) } else { 0 };
        if growth.always || size > self.told.size { size } else { 0 }
    }

    /// What the MDS has been told just now.
    pub(super) fn retold(&mut self) {
        self.retell_mtime = false;
    }

    /// The MDT's disk has the inode as it was then.
    pub(super) fn is_durable(&mut self, known: Known) {
        self.durable = self.durable.max(Some(known));
    }

    /// Whether all of the data is found after a crash of the MDS, though it is told nothing.
    pub(super) fn is_found(&self) -> bool {
        let untold = self.size > self.told.size || !self.is_dense() || self.telling > 0;
        !untold && self.durable == Some(Known { unversioned: self.unversioned, version: self.told.version })
    }

    /// Nothing from here on is written back.
    pub(super) fn cut_limit(&self) -> u64 {
        self.cuts.iter().copied().min().unwrap_or(END)
    }

    /// Attributes from the MDS.
    pub(super) fn learn(&mut self, attr: &Attr) {
        if attr.version < self.told.version {
            return;
        }
        let all_told = self.dirty.is_empty() && self.flying.is_empty() && self.untold_mtime().is_none();
        if all_told {
            // Whoever changes the time from now on does so after this mount's last write.
            self.mtime = None;
        }
        let untold = self.size > self.told.size;
        if attr.size < self.told.size || !untold {
            self.cut(attr.size);
            self.size = attr.size;
        } else {
            self.size = self.size.max(attr.size);
        }
        self.told = attr.into();
    }

    /// This mount has set the time of the last write: it is not to be told otherwise later.
    fn learn_mtime(&mut self, attr: &Attr) {
        if attr.version > self.told.version && attr.mtime != self.told.mtime && self.mtime.is_some() {
            self.mtime = Some(attr.mtime);
        }
    }

    pub(super) fn adopt(&mut self, layout: Layout) {
        if layout.generation >= self.layout.generation {
            self.unversioned += u64::from(layout.generation > self.layout.generation);
            let split = layout.inline_bytes();
            self.dirty.set_split(split);
            self.failed.set_split(split);
            self.layout = Arc::new(layout);
        }
    }

    /// Drops what is behind a size.
    fn cut(&mut self, size: u64) {
        let behind = Extent { start: size, end: END };
        self.reached = self.reached.min(size);
        self.dirty.remove(behind);
        self.failed.remove(behind);
        self.forget(behind);
    }

    /// Forgets clean data, and what is on its way.
    pub(super) fn forget(&mut self, extent: Extent) {
        self.clean.remove(extent);
        self.forgotten += 1;
        if extent.start == 0 {
            self.readahead.forget();
        }
    }

    /// A range was written, now.
    pub(super) fn touched(&mut self, end: u64) {
        self.size = self.size.max(end);
        self.mtime = Some(now());
        self.retell_mtime = false;
    }

    /// A range was written now, for all mounts to see. Times are told as coarsely as a kernel has them, so that not each of
    /// many small writes has to be.
    pub(super) fn touched_for_all(&mut self, end: u64) {
        let (last, now) = (self.told.mtime, now());
        self.touched(end);
        let since_last = nanos(now) - nanos(last);
        self.mtime = Some(if (0..MTIME_GRAIN_NANOS).contains(&since_last) { last } else { now });
    }

    /// The servers have a range as it is; layers below `dirty` that have it otherwise go.
    pub(super) fn landed(&mut self, extent: Extent) {
        self.failed.remove(extent);
        self.clean.remove(extent);
    }
}

fn nanos(time: Time) -> i128 {
    i128::from(time.secs) * 1_000_000_000 + i128::from(time.nanos)
}

/// The time of the system.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { secs: since.as_secs() as i64, nanos: since.subsec_nanos() }
}
