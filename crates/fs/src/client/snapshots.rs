//! The filesystems of a mount: the one that is mounted, and its snapshots under [`DIR`] in its root.
//!
//! A snapshot is served as a filesystem of its own, with its own MDS; here it is a client of its own, which begins when somebody looks the
//! snapshot up. That directory is in no MDT, and a listing of the root does not show it: what walks through the filesystem does not come to
//! every snapshot of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Client;
use super::fuse::{Answer, Entries, Entry, Op, Opened, Operations, Reply, Request, Tree};
use super::mount::{MountError, Running};
use crate::core::target::split_snapshot;
use crate::core::{Attr, Errno, FileKind, Ino, Time};
use crate::wire::mgs::{FsConfig, Snapshot};

/// The directory of snapshots.
const DIR: &str = ".snapshots";
/// How long the kernel may rely on what that directory is.
const KEEP: Duration = Duration::from_secs(1);
/// Where a listing goes on behind "." and "..".
const AFTER_DOT: u64 = 1;
const AFTER_DOTS: u64 = 2;

/// Begins with a snapshot.
type Begin = dyn Fn(FsConfig, Tree) -> Result<Running, MountError> + Send + Sync;

/// See the module.
pub(crate) struct Trees {
    mounted: Arc<Client>,
    begin: Box<Begin>,
    /// The snapshots that were looked up. That at `n` is the [`Tree`] `n + 1`, also when it was destroyed.
    snapshots: Mutex<Vec<Arc<Slot>>>,
    since: Time,
}

/// A snapshot that was looked up.
struct Slot {
    tree: Tree,
    snapshot: Snapshot,
    state: Mutex<State>,
}

enum State {
    /// It has not begun, or could not.
    New,
    Running(Running),
    /// It was destroyed.
    Gone,
}

impl Slot {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn client(&self) -> Option<Arc<Client>> {
        match &*self.state() {
            State::Running(running) => Some(Arc::clone(&running.client)),
            State::New | State::Gone => None,
        }
    }
}

impl Trees {
    pub(crate) fn new(mounted: Arc<Client>, begin: Box<Begin>) -> Trees {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = Time { secs: now.as_secs() as i64, nanos: now.subsec_nanos() };
        Trees { mounted, begin, snapshots: Mutex::default(), since }
    }

    /// The filesystem that is mounted.
    pub(crate) fn mounted(&self) -> &Arc<Client> {
        &self.mounted
    }

    fn snapshots(&self) -> MutexGuard<'_, Vec<Arc<Slot>>> {
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every snapshot; those that were running.
    pub(crate) fn end(&self) -> Vec<Running> {
        let end = |slot: &Arc<Slot>| match std::mem::replace(&mut *slot.state(), State::Gone) {
            State::Running(running) => Some(running),
            State::New | State::Gone => None,
        };
        self.snapshots().iter().filter_map(end).collect()
    }

    /// The filesystem has changed, or its snapshots have.
    pub(crate) fn reconfigure(&self, config: &FsConfig) {
        self.mounted.reconfigure(config);
        let slots = self.snapshots().clone();
        for slot in slots {
            if config.snapshots.contains(&slot.snapshot) {
                if let Some(client) = slot.client() {
                    client.reconfigure(&config.of_snapshot(&slot.snapshot));
                }
            } else if let State::Running(running) = std::mem::replace(&mut *slot.state(), State::Gone) {
                running.abandon();
            }
        }
    }

    /// Whether an inode is the root of what is mounted, where that has the directory of snapshots.
    fn is_root(&self, node: Ino) -> bool {
        node == Ino::ROOT && split_snapshot(&self.mounted.config().name).is_none()
    }

    /// The snapshot of a name.
    fn find(&self, name: &[u8]) -> Result<Arc<Slot>, Errno> {
        let config = self.mounted.config();
        let named = config.snapshots.iter().find(|snapshot| snapshot.name.as_bytes() == name);
        let snapshot = named.ok_or(Errno::ENOENT)?;
        let mut slots = self.snapshots();
        if let Some(there) = slots.iter().find(|slot| slot.snapshot == *snapshot) {
            return Ok(Arc::clone(there));
        }
        let number = u16::try_from(slots.len() + 1).ok().filter(|number| *number < Tree::SNAPSHOTS.0);
        let tree = Tree(number.ok_or(Errno::ENFILE)?);
        let new = Arc::new(Slot { tree, snapshot: snapshot.clone(), state: Mutex::new(State::New) });
        slots.push(Arc::clone(&new));
        Ok(new)
    }

    /// The client of a snapshot, which begins now if it did not before.
    fn begun(&self, slot: &Slot) -> Result<Arc<Client>, Errno> {
        let mut state = slot.state();
        if matches!(*state, State::New) {
            let config = self.mounted.config().of_snapshot(&slot.snapshot);
            let name = config.name.clone();
            let running = (self.begin)(config, slot.tree).map_err(|error| {
                tracing::warn!(snapshot = name, "failed to {error}");
                Errno::EIO
            })?;
            *state = State::Running(running);
        }
        match &*state {
            State::Running(running) => Ok(Arc::clone(&running.client)),
            State::New | State::Gone => Err(Errno::ESTALE),
        }
    }

    fn client_of(&self, tree: Tree) -> Option<Arc<Client>> {
        let index = usize::from(tree.0.checked_sub(1)?);
        let slot = self.snapshots().get(index).cloned();
        slot.and_then(|slot| slot.client())
    }

    fn forget(&self, node: Ino, count: u64) {
        match Tree::split(node) {
            (Tree::MOUNTED, ino) => self.mounted.forget(ino, count),
            (tree, ino) => {
                if let Some(client) = self.client_of(tree) {
                    client.forget(ino, count);
                }
            }
        }
    }

    /// A request about a snapshot.
    fn serve_snapshot(&self, request: &Request<'_>, answer: Answer<'_>) {
        let (tree, ino) = Tree::split(request.ino);
        let Some(client) = self.client_of(tree) else { return answer.send(Err(Errno::ESTALE)) };
        client.serve(&with_ino(request, ino), answer.of(tree));
    }

    /// A request about the directory of snapshots.
    fn serve_dir(&self, request: &Request<'_>, answer: Answer<'_>) {
        if let Op::Lookup { name } = request.op {
            return match self.find(name).and_then(|slot| Ok((self.begun(&slot)?, slot))) {
                Ok((client, slot)) => client.serve_root(request, answer.of(slot.tree)),
                Err(errno) => answer.send(Err(errno)),
            };
        }
        if let Op::Statfs = request.op {
            return self.mounted.serve(&with_ino(request, Ino::ROOT), answer);
        }
        let outcome = match &request.op {
            Op::Getattr => Ok(Reply::Attr { attr: self.attr(), keep: KEEP }),
            Op::Opendir => Ok(Reply::Opened(Opened { handle: 0, flags: 0 })),
            Op::Readdir { offset, size, plus, .. } => {
                Ok(Reply::Bytes(self.list(*offset, *size, *plus).into_bytes()))
            }
            Op::Releasedir { .. } | Op::Fsyncdir => Ok(Reply::Done),
            Op::Listxattr { size: 0 } => Ok(Reply::XattrSize(0)),
            Op::Listxattr { .. } => Ok(Reply::Bytes(bytes::Bytes::new())),
            Op::Getxattr { .. } => Err(Errno::ENODATA),
            Op::Open { .. } => Err(Errno::EISDIR),
            Op::Other | Op::Getlk { .. } | Op::Setlk { .. } => Err(Errno::ENOSYS),
            _ => Err(Errno::EROFS),
        };
        answer.of(Tree::SNAPSHOTS).send(outcome.as_ref().map_err(|errno| *errno));
    }

    /// The attributes of the directory of snapshots.
    fn attr(&self) -> Attr {
        let nlink = 2 + self.mounted.config().snapshots.len() as u32;
        Attr { nlink, ..Attr::new(Ino::ROOT, FileKind::Directory, 0o555, self.since) }
    }

    fn list(&self, offset: u64, size: u32, plus: bool) -> Entries {
        let config = self.mounted.config();
        let dots: [(&[u8], u64); 2] = [(b".", AFTER_DOT), (b"..", AFTER_DOTS)];
        let names = config.snapshots.iter().map(|snapshot| snapshot.name.as_bytes()).zip(AFTER_DOTS + 1..);
        let mut entries = Entries::new(size, Tree::SNAPSHOTS);
        for (name, next) in dots.into_iter().chain(names).filter(|(_, next)| *next > offset) {
            let (ino, kind) = (Ino(next), FileKind::Directory);
            let pushed = if plus {
                entries.push_plus(ino, kind, name, next, None)
            } else {
                entries.push(ino, kind, name, next)
            };
            if !pushed {
                break;
            }
        }
        entries
    }
}

impl Operations for Trees {
    fn serve(&self, request: &Request<'_>, answer: Answer<'_>) {
        let (tree, _) = Tree::split(request.ino);
        match &request.op {
            Op::Forget { counts } => counts.clone().for_each(|(node, count)| self.forget(node, count)),
            op if other(op).is_some_and(|node| Tree::split(node).0 != tree) => answer.send(Err(Errno::EXDEV)),
            Op::Lookup { name } if *name == DIR.as_bytes() && self.is_root(request.ino) => {
                let entry = Entry { attr: self.attr(), keep_name: KEEP, keep_attr: KEEP };
                answer.of(Tree::SNAPSHOTS).send(Ok(&Reply::Entry(entry)));
            }
            op if changes_dir(op, request.ino).is_some_and(|node| self.is_root(node)) => {
                answer.send(Err(Errno::EPERM));
            }
            _ => match tree {
                Tree::MOUNTED => self.mounted.serve(request, answer),
                Tree::SNAPSHOTS => self.serve_dir(request, answer),
                _ => self.serve_snapshot(request, answer),
            },
        }
    }
}

/// A request, about another inode.
fn with_ino<'b>(request: &Request<'b>, ino: Ino) -> Request<'b> {
    let &Request { unique, uid, gid, pid, ref op, .. } = request;
    Request { unique, ino, uid, gid, pid, op: op.clone() }
}

/// A second inode that a request is about.
fn other(op: &Op<'_>) -> Option<Ino> {
    match op {
        Op::Rename { to, .. } => Some(*to),
        Op::Link { of, .. } => Some(*of),
        Op::CopyFileRange { to_ino, .. } => Some(*to_ino),
        _ => None,
    }
}

/// The directory in which a request would make or remove a name like that of the directory of snapshots.
fn changes_dir(op: &Op<'_>, node: Ino) -> Option<Ino> {
    match op {
        Op::Symlink { name, .. }
        | Op::Mknod { name, .. }
        | Op::Mkdir { name, .. }
        | Op::Create { name, .. }
        | Op::Unlink { name }
        | Op::Rmdir { name }
        | Op::Link { name, .. }
        | Op::Rename { name, .. }
            if *name == DIR.as_bytes() =>
        {
            Some(node)
        }
        Op::Rename { to, to_name, .. } if *to_name == DIR.as_bytes() => Some(*to),
        _ => None,
    }
}
