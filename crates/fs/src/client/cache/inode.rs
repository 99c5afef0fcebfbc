//! One inode: who uses it, which leases are held, and how its data may be used under them.
//!
//! Reading and writing begins with [`Inode::begin`], which tells whether the lease that is held suffices, has to be asked
//! for, or is being given back. A lease is given back by [`Inode::give`]: from then on nothing begins under it, and
//! [`Inode::unused`] waits for what has.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::names::{Known, Names};
use crate::client::bell::Bell;
use crate::client::data::{FileData, Mode};
use crate::core::{Attr, Ino};
use crate::wire::mds::{DataLease, Leases};

/// What a request needs to do with a file's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Fill pages that the kernel keeps.
    Pages { offset: u64, len: u64 },
    /// Read for a program.
    Read,
    /// Write what a program stored in a mapping.
    WritePages,
    /// Write for a program.
    Write,
    /// Write at the end, wherever that is.
    Append,
}

impl Need {
    /// How it is done under a lease, if that suffices.
    fn under(self, lease: DataLease) -> Option<Mode> {
        match (self, lease) {
            (_, DataLease::Write) | (Need::Pages { .. } | Need::Read, DataLease::Read) => Some(Mode::Cached),
            (Need::Read | Need::Write, DataLease::Direct) => Some(Mode::Direct),
            _ => None,
        }
    }

    /// The lease to be asked for. In a file that several mounts use at once and one writes, they keep nothing, and need not
    /// take the lease from each other.
    fn wants(self, shared: bool) -> DataLease {
        match self {
            Need::Read | Need::Write if shared => DataLease::Direct,
            Need::Pages { .. } | Need::Read => DataLease::Read,
            Need::Write | Need::WritePages | Need::Append => DataLease::Write,
        }
    }

    fn writes(self) -> bool {
        matches!(self, Need::Write | Need::WritePages | Need::Append)
    }
}

/// See [`Inode::begin`].
#[derive(Debug)]
pub(crate) enum Begin {
    /// Go on.
    Use(Use),
    /// Ask for this lease, then begin again. Nobody else asks meanwhile.
    Ask(Asking, DataLease),
}

/// What is known and held of an inode.
#[derive(Default)]
pub(crate) struct State {
    /// References of the kernel.
    pub(crate) lookups: u64,
    pub(crate) meta: bool,
    pub(crate) names: bool,
    /// What reading and writing may rely on.
    data: DataLease,
    /// What the MDS was not told to be given back yet. **Invariant:** at least `data`, and `data` unless `giving`.
    held: DataLease,
    /// A lease on the data is being given back.
    giving: bool,
    /// Somebody asks for a lease on the data.
    asking: bool,
    /// Requests that read and write under the lease.
    reading: u32,
    writing: u32,
    /// Pages that were filled while the lease was being given back: forgotten before it is.
    late: Vec<(u64, u64)>,
    /// The kernel may have pages of it.
    pages: bool,
    /// Reads that filled pages, and how many there had been at the last write.
    fills: u64,
    fills_at_write: u64,
    /// The attributes, as the MDS said last, and as of which count of this mount's changes they are certain, if at all.
    attr: Option<(Attr, Option<u64>)>,
    /// How often this mount has begun or ended to change names of the directory.
    pub(crate) own_changes: u64,
    /// Its data, while it is open or there is something to be kept.
    pub(crate) file: Option<Arc<FileData>>,
    /// Open handles.
    pub(crate) opens: u32,
    /// Those for writing.
    pub(crate) writers: u32,
    /// The MDS was told that it is open: for writing?
    pub(crate) told: Option<bool>,
    /// The MDS is being told that it is closed.
    pub(crate) closing: bool,
    /// Other mounts use it too, and somebody writes.
    pub(crate) shared: bool,
    /// Of a directory of which everything is known. **Invariant:** only with `names`.
    pub(crate) known: Option<Names>,
    /// Requests of this mount that change names of the directory: the kernel holds it locked.
    pub(crate) changing: u32,
    /// A program has set a record lock; a close drops it.
    pub(crate) record_locks: bool,
    /// Owners of record locks, each with the handle through which it has set one last. A program that closes the file takes
    /// its entry away. What is left when the handle is gone are open file descriptions' own locks, and those of programs
    /// whose close the kernel was told to keep quiet about.
    lockers: BTreeMap<u64, u64>,
    /// What mappings have changed while no lease allowed it to be written, in order. **Invariant:** a thread writes them
    /// while there are any.
    mapped: VecDeque<MappedWrite>,
}

/// What a program has stored in a mapping.
pub(crate) struct MappedWrite {
    pub(crate) file: Arc<FileData>,
    pub(crate) offset: u64,
    pub(crate) data: Vec<u8>,
}

impl State {
    /// The leases that the MDS counts on being asked about.
    pub(crate) fn held(&self) -> Leases {
        Leases { meta: self.meta, names: self.names, data: self.held }
    }

    pub(crate) fn data(&self) -> DataLease {
        self.data
    }

    pub(crate) fn is_open_at_mds(&self) -> bool {
        self.opens > 0 || self.told.is_some()
    }

    /// The MDS is told with an acknowledgement whether it is open: it may have been opened without asking.
    pub(crate) fn tell_open(&mut self) -> bool {
        if self.opens > 0 && self.told.is_none() {
            self.told = Some(self.writers > 0);
        }
        self.is_open_at_mds()
    }

    /// An owner sets a record lock through a handle.
    pub(crate) fn locks_through(&mut self, handle: u64, owner: u64) {
        self.record_locks = true;
        self.lockers.insert(owner, handle);
    }

    /// A program has closed the file; whether it may have record locks.
    pub(crate) fn flushed_by(&mut self, owner: u64) -> bool {
        self.lockers.remove(&owner);
        self.record_locks
    }

    /// A handle is gone: the owners whose record locks go with it.
    pub(crate) fn lockers_through(&mut self, handle: u64) -> Vec<u64> {
        self.lockers.extract_if(.., |_, through| *through == handle).map(|(owner, _)| owner).collect()
    }

    /// The pages there may be for a request that begins.
    fn pages_for(&mut self, writes: bool) -> Pages {
        if !self.pages {
            return Pages::None;
        }
        let left = writes && self.opens == self.writers && self.fills == self.fills_at_write;
        if writes {
            self.fills_at_write = self.fills;
        }
        if left { Pages::Left(self.fills) } else { Pages::Used }
    }

    /// Takes the lease on the data, if nothing is done with it and nothing is kept under it: neither here nor in pages.
    pub(crate) fn give_up_data(&mut self) -> Leases {
        let used = self.opens > 0 || self.giving || self.asking || self.reading > 0 || self.writing > 0;
        if used || self.pages || !self.mapped.is_empty() {
            return Leases::default();
        }
        self.file = None;
        self.data = DataLease::None;
        Leases { data: std::mem::take(&mut self.held), ..Leases::default() }
    }

    /// The attributes if they are certain: the lease is held, and the count of this mount's changes that may have touched
    /// them is still what it was.
    pub(crate) fn attr(&self, changes: u64) -> Option<&Attr> {
        let known = self.attr.as_ref().filter(|(_, as_of)| self.meta && *as_of == Some(changes));
        known.map(|(attr, _)| attr)
    }

    /// The attributes that the MDS said last.
    pub(crate) fn last_attr(&self) -> Option<&Attr> {
        self.attr.as_ref().map(|(attr, _)| attr)
    }

    /// Notes attributes of an answer, certain as of that count; older ones than those known are ignored.
    pub(crate) fn note_attr(&mut self, attr: &Attr, as_of: Option<u64>) {
        if self.attr.as_ref().is_none_or(|(known, _)| known.version <= attr.version) {
            self.attr = Some((attr.clone(), as_of));
        }
    }

    /// The attributes have changed, nobody knows to what.
    pub(crate) fn forget_attr(&mut self) {
        if let Some((_, as_of)) = &mut self.attr {
            *as_of = None;
        }
    }

    /// The lease on the attributes is gone. What is known of them stays uncertain, also when an answer that does not tell
    /// them, of an extended attribute perhaps, brings the lease again.
    pub(crate) fn lose_meta(&mut self) {
        self.meta = false;
        self.forget_attr();
    }

    /// What is known of a name without asking.
    pub(crate) fn find_name(&self, name: &[u8]) -> Known {
        self.known.as_ref().filter(|_| self.names).map_or(Known::Unknown, |known| known.find(name))
    }

    /// A name was made, or changed by somebody else (`None`).
    pub(crate) fn add_name(&mut self, name: &[u8], ino: Option<Ino>) {
        if let Some(known) = &mut self.known
            && !known.add(name, ino)
        {
            self.known = None;
        }
    }

    /// A name was taken away; what it led to, if that is known.
    pub(crate) fn remove_name(&mut self, name: &[u8]) -> Option<Ino> {
        self.known.as_mut()?.remove(name)
    }

    /// Leases came with an answer.
    pub(super) fn granted(&mut self, leases: Leases) {
        self.meta |= leases.meta;
        self.names |= leases.names;
        if leases.data > self.data && !self.giving {
            self.data = leases.data;
            self.held = leases.data;
        }
    }

    /// Nobody refers to it and nothing is held.
    pub(super) fn is_unused(&self) -> bool {
        self.lookups == 0
            && !self.is_open_at_mds()
            && self.held() == Leases::default()
            && self.file.is_none()
            && !self.closing
            && !self.giving
            && !self.asking
            && self.reading == 0
            && self.writing == 0
    }

    /// Takes every lease from an inode that is not used: what it had.
    pub(crate) fn give_up(&mut self) -> Leases {
        if self.giving || self.asking || self.reading > 0 || self.writing > 0 {
            return Leases::default();
        }
        let had = self.held();
        self.lose();
        had
    }

    /// Everything that was held is gone.
    pub(crate) fn lose(&mut self) {
        (self.meta, self.names, self.data, self.held) = (false, false, DataLease::None, DataLease::None);
        (self.known, self.attr, self.told) = (None, None, None);
    }
}

/// See the module.
pub(crate) struct Inode {
    pub(crate) ino: Ino,
    state: Mutex<State>,
    /// Signalled when `giving`, `asking`, `closing`, `reading` or `writing` changes.
    changed: Bell,
}

impl Inode {
    pub(super) fn new(ino: Ino) -> Inode {
        Inode { ino, state: Mutex::default(), changed: Bell::default() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state)
    }

    /// Who waits for a lease looks again.
    pub(super) fn look_again(&self) {
        self.changed.notify_all();
    }

    /// Begins to use the data.
    ///
    /// While the lease is being given back, a request that holds pages does not wait for that: giving back waits for the
    /// pages. It goes on under the lease that is not given back yet, and what it leaves in pages is forgotten again before
    /// the lease is. Others wait, and then ask for the lease.
    pub(crate) fn begin(self: &Arc<Inode>, need: Need) -> Begin {
        let mut state = self.state();
        loop {
            if let Some(mode) = need.under(state.data) {
                return Begin::Use(self.enter(&mut state, need, mode));
            }
            if state.giving {
                if let Need::Pages { offset, len } = need {
                    state.late.push((offset, len));
                    return Begin::Use(self.enter(&mut state, need, Mode::Direct));
                }
            } else if !state.asking {
                state.asking = true;
                let want = need.wants(state.shared);
                return Begin::Ask(Asking(Arc::clone(self)), want);
            }
            state = self.wait(state);
        }
    }

    /// Begins to write what a mapping has changed, if a lease that was not given back yet allows it. Waits for nothing: the
    /// kernel waits for these pages when it is told to forget some.
    pub(crate) fn begin_mapped(self: &Arc<Inode>) -> Option<Use> {
        let mut state = self.state();
        let allowed = state.held == DataLease::Write && state.mapped.is_empty();
        allowed.then(|| self.enter(&mut state, Need::WritePages, Mode::Cached))
    }

    /// Keeps what a mapping has changed until there is a lease to write it; `true`: a thread has to be started that does.
    pub(crate) fn put_mapped(&self, write: MappedWrite) -> bool {
        let mut state = self.state();
        state.mapped.push_back(write);
        state.mapped.len() == 1
    }

    /// The first of what mappings have changed; it stays in the queue until [`Inode::mapped_done`].
    pub(crate) fn next_mapped(&self) -> Option<(Arc<FileData>, u64, Vec<u8>)> {
        let mut state = self.state();
        let first = state.mapped.front_mut()?;
        Some((Arc::clone(&first.file), first.offset, std::mem::take(&mut first.data)))
    }

    /// The first is written; whether there are more.
    pub(crate) fn mapped_done(&self) -> bool {
        let mut state = self.state();
        state.mapped.pop_front();
        let more = !state.mapped.is_empty();
        drop(state);
        self.changed.notify_all();
        more
    }

    /// Waits until everything is written that mappings have changed.
    pub(crate) fn mapped_written(&self) {
        let mut state = self.state();
        while !state.mapped.is_empty() {
            state = self.wait(state);
        }
    }

    fn enter(self: &Arc<Inode>, state: &mut State, need: Need, mode: Mode) -> Use {
        let writes = need.writes();
        *(if writes { &mut state.writing } else { &mut state.reading }) += 1;
        let fills = matches!(need, Need::Pages { .. });
        state.pages |= fills;
        state.fills += u64::from(fills);
        let pages = state.pages_for(writes);
        Use { inode: Arc::clone(self), mode, writes, pages }
    }

    /// The lease is being given back, down to `keep`: what was held until now. Waits for another that is under way.
    pub(crate) fn give(&self, keep: DataLease) -> DataLease {
        let mut state = self.state();
        while state.giving {
            state = self.wait(state);
        }
        let had = state.held;
        if keep < had {
            state.data = keep;
            state.giving = true;
            // Whoever has it open together with others goes direct from now on.
            state.shared |= state.opens > 0 && (had == DataLease::Write || state.writers > 0);
        }
        had
    }

    /// Waits until nobody writes any more, and nobody reads either if what is kept does not cover that.
    pub(crate) fn unused(&self) {
        let mut state = self.state();
        while state.writing > 0 || (state.reading > 0 && state.data == DataLease::None) {
            state = self.wait(state);
        }
    }

    /// Whether the kernel may have pages.
    pub(crate) fn has_pages(&self) -> bool {
        self.state().pages
    }

    /// Whether a program may have changed pages in a mapping.
    pub(crate) fn has_mapped_writes(&self) -> bool {
        self.state().writers > 0
    }

    /// Pages were forgotten entirely. Those that are filled from now on count again.
    pub(crate) fn no_pages(&self) {
        self.state().pages = false;
    }

    /// The same, if none were filled since the count was this.
    pub(crate) fn no_pages_since(&self, fills: u64) {
        let mut state = self.state();
        state.pages &= state.fills != fills;
    }

    /// Ends what [`Inode::give`] began, or tells which pages have to be forgotten first.
    pub(crate) fn given(&self) -> Result<(), Vec<(u64, u64)>> {
        let mut state = self.state();
        while state.reading > 0 && state.data == DataLease::None {
            state = self.wait(state);
        }
        if !state.late.is_empty() {
            return Err(std::mem::take(&mut state.late));
        }
        state.giving = false;
        state.held = state.data;
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits while the MDS is being told that the file is closed.
    pub(crate) fn not_closing(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while state.closing {
            state = self.wait(state);
        }
        state
    }

    /// The MDS knows that the file is closed.
    pub(crate) fn closed(&self) {
        self.state().closing = false;
        self.changed.notify_all();
    }

    /// The session is gone, and everything that was held: who waits looks again.
    pub(crate) fn lost(&self) {
        self.state().lose();
        self.changed.notify_all();
    }
}

/// A request that reads or writes; until it is dropped the lease is not given back.
pub(crate) struct Use {
    inode: Arc<Inode>,
    pub(crate) mode: Mode,
    writes: bool,
    /// What the kernel may have had when it began.
    pub(crate) pages: Pages,
}

/// Pages of a file that the kernel may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pages {
    /// None.
    None,
    /// Some, and programs use them.
    Used,
    /// Some, but nobody has the file open who fills any, and none were filled between this write and the one before. So
    /// many were filled ever.
    Left(u64),
}

impl std::fmt::Debug for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Use").field("mode", &self.mode).field("writes", &self.writes).finish_non_exhaustive()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        let mut state = self.inode.state();
        let count = if self.writes { &mut state.writing } else { &mut state.reading };
        *count -= 1;
        let last = *count == 0;
        drop(state);
        if last {
            self.inode.changed.notify_all();
        }
    }
}

/// The right to ask for a lease.
pub(crate) struct Asking(Arc<Inode>);

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asking")
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.state().asking = false;
        self.0.changed.notify_all();
    }
}
