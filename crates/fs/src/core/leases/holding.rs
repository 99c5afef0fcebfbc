//! What one session has of one inode, and what goes with what.

use crate::core::SessionId;
use crate::wire::mds::{DataLease, Leases, Take};

/// Names of a directory that a session was asked for and does not know; with more, all its names are taken. A session that
/// does not look the names up again has no use for the lease, and others do not pay for it with a callback each time.
const WITHOUT_MAX: usize = 32;

/// What a request does to an inode, as far as others may know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touch {
    /// Its attributes, extended attributes, link target or layout change.
    Meta,
    /// This name in it changes.
    Name(Vec<u8>),
    /// Any of its names may change.
    Names,
    /// The data is used like this: others keep what goes with it.
    Data(DataLease),
    /// Its size and times are told: nobody else holds writes back.
    Size,
}

/// How a file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpenMode {
    /// For reading.
    Read,
    /// For writing, and maybe for reading.
    Write,
}

/// What one session has of one inode.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) session: SessionId,
    pub(super) leases: Leases,
    pub(super) open: Option<OpenMode>,
    /// Names that the lease on names does not cover. **Invariant:** empty without that lease, and at most `WITHOUT_MAX`.
    without: Vec<Vec<u8>>,
}

/// The holding of a session in the list of an inode.
pub(super) fn entry(list: &mut Vec<Holding>, session: SessionId) -> &mut Holding {
    let at = list.iter().position(|holding| holding.session == session).unwrap_or_else(|| {
        list.push(Holding { session, leases: Leases::default(), open: None, without: Vec::new() });
        list.len() - 1
    });
    &mut list[at]
}

/// Whether two sessions may have these at once.
fn compatible(one: DataLease, other: DataLease) -> bool {
    use DataLease::{Direct, None, Read};
    matches!((one, other), (None, _) | (_, None) | (Read, Read) | (Direct, Direct))
}

/// The mode of a session that has one and gets another. Read and Direct make Write: while the answer is on its way the
/// session still does what it did before, so that it cannot change from one to the other without a callback.
pub(super) fn join(held: DataLease, want: DataLease) -> DataLease {
    match (held, want) {
        (one, DataLease::None) | (DataLease::None, one) => one,
        (one, other) if one == other => one,
        _ => DataLease::Write,
    }
}

/// Whether a request that waits with this touch is against somebody else getting the data in this mode.
pub(super) fn touch_excludes(touch: &Touch, mode: DataLease) -> bool {
    match touch {
        Touch::Data(used) => !compatible(*used, mode),
        // Who writes alone also knows the attributes alone.
        Touch::Size => mode == DataLease::Write,
        Touch::Meta | Touch::Name(_) | Touch::Names => false,
    }
}

impl Holding {
    /// What must be taken from it before something that touches the inode so is done.
    pub(super) fn conflict(&self, touch: &Touch) -> Option<Take> {
        let Leases { meta, names, data } = self.leases;
        match touch {
            Touch::Meta => meta.then_some(Take::Meta),
            Touch::Name(name) if names && !self.without.contains(name) => {
                Some(if self.without.len() < WITHOUT_MAX { Take::Name(name.clone()) } else { Take::Names })
            }
            Touch::Name(_) => None,
            Touch::Names => names.then_some(Take::Names),
            Touch::Data(used) => (!compatible(*used, data)).then(|| Take::Data(down_to(*used, data))),
            Touch::Size => (data == DataLease::Write).then_some(Take::Data(DataLease::Read)),
        }
    }

    /// Whether another session may have the data in this mode.
    pub(super) fn goes_with(&self, mode: DataLease) -> bool {
        compatible(self.leases.data, mode) && !(mode == DataLease::Write && self.leases.meta)
    }

    /// Takes what a callback took.
    pub(super) fn take(&mut self, take: &Take) {
        match take {
            Take::Meta | Take::Unlinked => self.leases.meta = false,
            Take::Name(name) if self.leases.names => {
                self.without.push(name.clone());
                // Two callbacks for names can be on their way when the bound is reached.
                if self.without.len() > WITHOUT_MAX {
                    self.drop_names();
                }
            }
            Take::Names => self.drop_names(),
            Take::Data(mode) => self.leases.data = self.leases.data.min(*mode),
            Take::Name(_) => {}
        }
    }

    /// Takes what the session gives back.
    pub(super) fn release(&mut self, leases: Leases) {
        self.leases.meta &= !leases.meta;
        if leases.names {
            self.drop_names();
        }
        if leases.data != DataLease::None {
            self.leases.data = DataLease::None;
        }
    }

    /// Gives the names, of which these are known again.
    pub(super) fn know<'n>(&mut self, known: &(impl Iterator<Item = &'n [u8]> + Clone)) {
        self.leases.names = true;
        self.without.retain(|name| !known.clone().any(|known| known == name.as_slice()));
    }

    /// Gives what the session says that it has.
    pub(super) fn claim(&mut self, leases: Leases) {
        self.leases.meta |= leases.meta;
        self.leases.names |= leases.names;
        self.leases.data = join(self.leases.data, leases.data);
    }

    /// How the session has a file open that it opened without asking: for writing it needs the lease for it.
    pub(super) fn local_open_mode(&self) -> OpenMode {
        if self.leases.data >= DataLease::Direct { OpenMode::Write } else { OpenMode::Read }
    }

    /// Whether the session may have it open without having said so: to open without asking needs attributes and data.
    pub(super) fn may_be_open(&self) -> bool {
        self.open.is_none() && self.leases.meta && self.leases.data != DataLease::None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.leases == Leases::default() && self.open.is_none()
    }

    fn drop_names(&mut self) {
        self.leases.names = false;
        self.without = Vec::new();
    }
}

/// What a session keeps of `held` beside another that uses the data in the mode `used`. A writer is not taken down to
/// Direct: it may not have its answer yet, believe that it holds Read, and keep that.
fn down_to(used: DataLease, held: DataLease) -> DataLease {
    if (used, held) == (DataLease::Read, DataLease::Write) { DataLease::Read } else { DataLease::None }
}
