//! The metadata side of a mount: the session with the MDS, and what its answers allow to be kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;

use super::cache::{Inodes, State};
use super::data::{Mds, Written};
use super::session::{Answered, Session, Stamp, Waiter};
use crate::core::quota::Owner;
use crate::core::{Attr, Errno, FileKind, Ino, Layout, Time};
use crate::wire::mds::{Act, Answer, Ask, Cred, Grant};

/// How long the kernel relies on what a lease covers: until it is told otherwise.
pub(crate) const KEEP: Duration = Duration::from_hours(24);

/// How often this mount had begun or ended to change something when something was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Names, and with them the attributes of directories.
    names: u64,
    /// Links, and with them the attributes of what is linked.
    links: u64,
    /// Names of one directory, if that is what was asked about.
    dir: Option<(Ino, u64)>,
}

/// See the module.
pub(crate) struct Meta {
    pub(crate) session: Arc<Session>,
    pub(crate) inodes: Inodes,
    /// Held for reading from when it is decided what the kernel may keep, until the kernel was told; see [`super`].
    gate: RwLock<()>,
    names: AtomicU64,
    links: AtomicU64,
}

impl Meta {
    pub(crate) fn new(session: Arc<Session>) -> Meta {
        Meta {
            session,
            inodes: Inodes::new(),
            gate: RwLock::new(()),
            names: AtomicU64::new(0),
            links: AtomicU64::new(0),
        }
    }

    /// Returns when every answer for which it was decided before what may be kept is with the kernel.
    pub(crate) fn barrier(&self) {
        drop(self.gate.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// The count of changes before something is asked.
    pub(crate) fn changes(&self) -> Changes {
        Changes {
            names: self.names.load(Ordering::SeqCst),
            links: self.links.load(Ordering::SeqCst),
            dir: None,
        }
    }

    /// The same, when one inode is asked about.
    pub(crate) fn changes_of(&self, ino: Ino) -> Changes {
        let dir = self.inodes.find(ino).map(|inode| (ino, inode.state().own_changes));
        Changes { dir, ..self.changes() }
    }

    /// Names change now; with `links`, what is linked too. Called when a change begins and when it ends.
    pub(crate) fn changing(&self, links: bool) {
        self.names.fetch_add(1, Ordering::SeqCst);
        if links {
            self.links.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Notes what an answer grants. Nothing may be asked of the MDS until the result is dropped.
    pub(crate) fn absorb(&self, mut grants: Vec<Grant>, stamp: Stamp) -> Kept<'_> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let epoch = self.session.epoch();
        grants.retain(|grant| self.inodes.keep(grant, stamp, epoch));
        Kept { meta: self, _gate: gate, grants, stamp }
    }

    /// The gate alone, for an answer that is given without the MDS.
    pub(crate) fn keep_nothing_new(&self) -> Kept<'_> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        Kept { meta: self, _gate: gate, grants: Vec::new(), stamp: Stamp::default() }
    }

    /// Notes attributes of an answer that was asked for after so many changes.
    pub(crate) fn note(&self, attr: &Attr, before: Changes, stamp: Stamp) {
        if let Some(inode) = self.inodes.find(attr.ino) {
            let mut state = inode.state();
            let certain = self.is_unchanged(attr, before, &state) && self.is_fresh(attr.ino, stamp);
            let as_of = self.count(attr.kind, &state);
            state.note_attr(attr, certain.then_some(as_of));
        }
    }

    /// Attributes of an inode without asking, if they are certain.
    pub(crate) fn certain_attr(&self, ino: Ino) -> Option<Attr> {
        let inode = self.inodes.find(ino)?;
        let state = inode.state();
        let kind = state.last_attr()?.kind;
        state.attr(self.count(kind, &state)).cloned()
    }

    /// Counts what changes the attributes of such an inode beside requests about itself.
    fn count(&self, kind: FileKind, state: &State) -> u64 {
        if kind == FileKind::Directory { state.own_changes } else { self.links.load(Ordering::SeqCst) }
    }

    /// Whether attributes that were asked for after so many changes are those of now, as far as this mount's own go.
    fn is_unchanged(&self, attr: &Attr, before: Changes, state: &State) -> bool {
        match attr.kind {
            FileKind::Directory => {
                before.names == self.names.load(Ordering::SeqCst)
                    || before.dir == Some((attr.ino, state.own_changes))
            }
            _ => before.links == self.links.load(Ordering::SeqCst),
        }
    }

    /// How long the kernel may keep attributes that a lease covers. The kernel itself sees to the attributes of what is no
    /// directory: it drops those that an own change has overtaken.
    fn attr_time(&self, attr: &Attr, before: Changes) -> Duration {
        let overtaken = attr.kind == FileKind::Directory
            && self
                .inodes
                .find(attr.ino)
                .is_some_and(|inode| !self.is_unchanged(attr, before, &inode.state()));
        if overtaken { Duration::ZERO } else { KEEP }
    }

    /// Whether an answer says how things are, as far as callbacks that have come tell.
    pub(crate) fn is_fresh(&self, ino: Ino, stamp: Stamp) -> bool {
        self.inodes.is_fresh(ino, stamp, self.session.epoch())
    }

    fn mount_asks(&self, ino: Ino, ask: Ask) -> Result<Answered, Errno> {
        self.session.ask(ask, Waiter::MOUNT).inspect(|answered| self.heed(ino, answered))
    }

    /// A change on behalf of nobody.
    fn mount_changes(&self, ino: Ino, act: Act, bulk: &[u8]) -> Result<Answered, Errno> {
        let answered = self.session.change(Cred::default(), act, bulk, Waiter::MOUNT);
        answered.inspect(|answered| self.heed(ino, answered))
    }

    /// The same, durable when it is answered.
    fn mount_changes_durably(&self, ino: Ino, act: Act) -> Result<Answered, Errno> {
        let answered = self.session.change_durably(Cred::default(), act, &[], Waiter::MOUNT);
        answered.inspect(|answered| self.heed(ino, answered))
    }

    /// A file that is no more there (another mount has removed it) takes with it what was to be written.
    fn heed(&self, ino: Ino, answered: &Answered) {
        if answered.outcome == Err(Errno::ESTALE) {
            let file = self.inodes.find(ino).and_then(|inode| inode.state().file.clone());
            if let Some(file) = file {
                file.discard();
            }
        }
    }

    fn expect_attr(&self, answered: Answered, before: Changes) -> Result<Attr, Errno> {
        let stamp = answered.stamp;
        let kept = self.absorb(answered.grants, stamp);
        match answered.outcome? {
            Answer::Attr(attr) => {
                self.note(&attr, before, stamp);
                drop(kept);
                Ok(attr)
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// What an answer lets the kernel keep. The gate is held until it is dropped.
pub(crate) struct Kept<'m> {
    meta: &'m Meta,
    _gate: RwLockReadGuard<'m, ()>,
    /// Those that are not stale.
    grants: Vec<Grant>,
    stamp: Stamp,
}

impl Kept<'_> {
    fn granted(&self, ino: Ino, lease: impl Fn(&Grant) -> bool) -> bool {
        self.grants.iter().any(|grant| grant.ino == ino && lease(grant))
    }

    /// When the answer was made; long ago where there was none.
    pub(crate) fn stamp(&self) -> Stamp {
        self.stamp
    }

    pub(crate) fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// How long the name may be kept that the answer tells of.
    pub(crate) fn name(&self, parent: Ino) -> Duration {
        if self.granted(parent, |grant| grant.leases.names) { KEEP } else { Duration::ZERO }
    }

    /// How long these attributes may be kept, that came with the answer to a request after so many changes.
    pub(crate) fn attr(&self, attr: &Attr, before: Changes) -> Duration {
        let granted = self.granted(attr.ino, |grant| grant.leases.meta);
        if granted { self.meta.attr_time(attr, before) } else { Duration::ZERO }
    }
}

/// An answer of another kind than the question asks for.
pub(crate) fn unexpected(answer: &Answer) -> Errno {
    tracing::warn!(?answer, "the MDS answered something else than it was asked");
    Errno::EPROTO
}

/// The bulk of an answer, if it arrived as it was sent.
fn checked(bulk: Bytes, crc: u32) -> Result<Bytes, Errno> {
    if crc32c::crc32c(&bulk) == crc {
        return Ok(bulk);
    }
    tracing::warn!("file data of the MDS arrived damaged");
    Err(Errno::EIO)
}

impl Mds for Meta {
    fn place(&self, ino: Ino, offset: u64) -> Result<Layout, Errno> {
        let answered = self.mount_changes(ino, Act::Place { ino, offset }, &[])?;
        drop(self.absorb(answered.grants, answered.stamp));
        match answered.outcome? {
            Answer::Layout(layout) => Ok(layout),
            other => Err(unexpected(&other)),
        }
    }

    fn layout(&self, ino: Ino) -> Result<Layout, Errno> {
        let answered = self.mount_asks(ino, Ask::Layout { ino })?;
        drop(self.absorb(answered.grants, answered.stamp));
        match answered.outcome? {
            Answer::Layout(layout) => Ok(layout),
            other => Err(unexpected(&other)),
        }
    }

    fn read_inline(&self, ino: Ino, offset: u64, len: u32) -> Result<Bytes, Errno> {
        let answered = self.mount_asks(ino, Ask::ReadInline { ino, offset, len })?;
        match answered.outcome? {
            Answer::Data { crc } => checked(answered.bulk, crc),
            other => Err(unexpected(&other)),
        }
    }

    fn write_inline(&self, ino: Ino, offset: u64, data: &[u8], mtime: Time) -> Result<Attr, Errno> {
        let before = self.changes();
        let act = Act::WriteInline { ino, offset, crc: crc32c::crc32c(data), mtime };
        self.expect_attr(self.mount_changes(ino, act, data)?, before)
    }

    fn zero_inline(&self, ino: Ino, offset: u64, len: u64) -> Result<(), Errno> {
        let answered = self.mount_changes(ino, Act::ZeroInline { ino, offset, len }, &[])?;
        drop(self.absorb(answered.grants, answered.stamp));
        answered.outcome.map(drop)
    }

    fn written(&self, ino: Ino, written: Written) -> Result<Attr, Errno> {
        let before = self.changes();
        let Written { size, mtime, blocks, kill_suid_sgid, durably } = written;
        let act = Act::Written { ino, size, mtime, blocks, kill_suid_sgid };
        let answered =
            if durably { self.mount_changes_durably(ino, act)? } else { self.mount_changes(ino, act, &[])? };
        self.expect_attr(answered, before)
    }

    fn sync(&self) -> Result<(), Errno> {
        self.session.ask(Ask::Sync, Waiter::MOUNT)?.outcome.map(drop)
    }

    fn room(&self, owner: Owner) -> Option<u64> {
        self.session.room(owner)
    }

    fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        let before = self.changes_of(ino);
        self.expect_attr(self.mount_asks(ino, Ask::Getattr { ino })?, before)
    }
}
