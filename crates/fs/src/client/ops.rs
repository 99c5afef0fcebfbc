//! What programs do with the mount: each request of the kernel, served.

mod attrs;
mod control;
mod data;
mod dirs;
mod files;
mod locks;
mod names;
mod xattrs;

use std::time::Duration;

pub(crate) use locks::HeldLocks;

use super::Client;
use super::cache::Use;
use super::fuse::{Answer, Entry, Op, Opened, Operations, Reply, Request};
use super::jobs::{self, Process};
use super::meta::{Changes, Kept};
use super::session::{Answered, Waiter};
use crate::core::{Attr, Errno, Ino};
use crate::wire::mds::{Act, Ask, Cred};

/// Whose request it is.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'w> {
    uid: u32,
    gid: u32,
    /// The job that it is in, unless it is the kernel's own.
    job: Option<&'w Process>,
    waiter: Waiter<'w>,
}

impl Caller<'_> {
    fn cred(&self) -> Cred {
        let job = self.job.map_or_else(String::new, Process::job);
        Cred { uid: self.uid, gid: self.gid, job }
    }
}

/// An answer, and what must stay as it is until the kernel has it. **Must hold:** the fields are dropped after the answer
/// was sent.
pub(crate) struct Ready<'c> {
    reply: Reply,
    _kept: Option<Kept<'c>>,
    _used: Option<Use>,
}

impl<'c> Ready<'c> {
    fn keeping(reply: Reply, kept: Kept<'c>) -> Ready<'c> {
        Ready { reply, _kept: Some(kept), _used: None }
    }

    fn using(reply: Reply, used: Use) -> Ready<'c> {
        Ready { reply, _kept: None, _used: Some(used) }
    }
}

impl From<Reply> for Ready<'_> {
    fn from(reply: Reply) -> Self {
        Ready { reply, _kept: None, _used: None }
    }
}

type Outcome<'c> = Result<Ready<'c>, Errno>;

impl Operations for Client {
    fn serve(&self, request: &Request<'_>, answer: Answer<'_>) {
        self.serve_by(request, answer, |caller| self.perform(request, caller));
    }
}

impl Client {
    /// Answers a lookup by which the root of this filesystem is found, as a directory of another one.
    pub(crate) fn serve_root(&self, request: &Request<'_>, answer: Answer<'_>) {
        self.serve_by(request, answer, |caller| self.root(caller));
    }

    fn serve_by<'c>(
        &'c self,
        request: &Request<'_>,
        answer: Answer<'_>,
        perform: impl FnOnce(&Caller<'_>) -> Outcome<'c>,
    ) {
        let waiter = Waiter::program(answer.interrupt(), request.pid);
        let job = self.jobs.of(request);
        let caller = Caller { uid: request.uid, gid: request.gid, job: job.as_deref(), waiter };
        let outcome = perform(&caller);
        let answered = outcome.as_ref().map(|ready| &ready.reply).map_err(|errno| *errno);
        tracing::trace!(ino = request.ino.0, op = ?request.op, error = ?answered.err(), "served");
        if let Some(job) = &job {
            jobs::count(job, request, answered);
        }
        answer.send(answered);
    }

    fn perform(&self, request: &Request<'_>, caller: &Caller<'_>) -> Outcome<'_> {
        let ino = request.ino;
        match &request.op {
            Op::Lookup { name } => self.lookup(caller, ino, name),
            Op::Forget { counts } => {
                counts.clone().for_each(|(ino, count)| self.forget(ino, count));
                Ok(Reply::Done.into())
            }
            Op::Getattr => self.getattr(caller, ino),
            Op::Setattr(set) => self.setattr(caller, ino, set),
            Op::Readlink => self.readlink(caller, ino),
            Op::Statfs => self.statfs(caller),
            Op::Setxattr { .. } | Op::Getxattr { .. } | Op::Listxattr { .. } | Op::Removexattr { .. } => {
                self.xattr(caller, ino, &request.op)
            }
            Op::Opendir => Ok(Reply::Opened(Opened { handle: self.handles.add_dir(ino), flags: 0 }).into()),
            Op::Readdir { handle, offset, size, plus } => {
                self.readdir(caller, *handle, *offset, *size, *plus)
            }
            Op::Releasedir { handle } => {
                self.handles.remove_dir(*handle);
                Ok(Reply::Done.into())
            }
            Op::Fsyncdir => self.sync_mds(caller),
            Op::Getlk { lock } => self.getlk(caller, ino, *lock),
            Op::Setlk { handle, lock, flock, wait } => self.setlk(caller, *handle, *lock, *flock, *wait),
            Op::Destroy => Ok(Reply::Done.into()),
            Op::Interrupt { .. } | Op::Other => Err(Errno::ENOSYS),
            _ if self.read_only && changes_names(&request.op) => Err(Errno::EROFS),
            _ => self.perform_names(request, caller),
        }
    }

    fn perform_names(&self, request: &Request<'_>, caller: &Caller<'_>) -> Outcome<'_> {
        let ino = request.ino;
        match &request.op {
            Op::Symlink { name, target } => self.symlink(caller, ino, name, target),
            Op::Mknod { name, mode, rdev, umask } => self.mknod(caller, ino, name, (*mode, *umask), *rdev),
            Op::Mkdir { name, mode, umask } => self.mkdir(caller, ino, name, (*mode, *umask)),
            Op::Unlink { name } => self.unlink(caller, ino, name),
            Op::Rmdir { name } => self.rmdir(caller, ino, name),
            Op::Rename { name, to, to_name, flags } => {
                self.rename(caller, (ino, name), (*to, to_name), *flags)
            }
            Op::Link { of, name } => self.link(caller, *of, ino, name),
            Op::Create { name, flags, mode, umask } => {
                self.create(caller, ino, name, *flags, (*mode, *umask))
            }
            Op::Tmpfile { flags, mode, umask } => self.tmpfile(caller, ino, *flags, (*mode, *umask)),
            _ => self.perform_io(request, caller),
        }
    }

    fn perform_io(&self, request: &Request<'_>, caller: &Caller<'_>) -> Outcome<'_> {
        match request.op {
            Op::Open { flags, kill_suid_sgid } => self.open(caller, request.ino, flags, kill_suid_sgid),
            Op::Read { handle, offset, size, paged } => self.read(caller, handle, offset, size, paged),
            Op::Write { handle, offset, data, paged, kill_suid_sgid, flags } => {
                let how = data::Write { paged, kill_suid_sgid, flags };
                self.write(caller, handle, offset, data, how)
            }
            Op::Flush { owner } => self.flush(caller, request.ino, owner),
            Op::Release { handle, flock_owner } => self.release(handle, flock_owner),
            Op::Fsync { handle, data_only } => self.fsync(handle, data_only),
            Op::Fallocate { handle, offset, len, mode } => self.fallocate(caller, handle, offset, len, mode),
            Op::Lseek { handle, offset, whence } => self.lseek(caller, handle, offset, whence),
            Op::CopyFileRange { from, from_offset, to, to_offset, len, .. } => {
                self.copy_file_range(caller, (from, from_offset), (to, to_offset), len)
            }
            _ => Err(Errno::ENOSYS),
        }
    }

    fn ask(&self, caller: &Caller<'_>, ask: Ask) -> Result<Answered, Errno> {
        self.meta.session.ask(ask, caller.waiter).map_err(program_errno)
    }

    fn change(&self, caller: &Caller<'_>, act: Act) -> Result<Answered, Errno> {
        self.meta.session.change(caller.cred(), act, &[], caller.waiter).map_err(program_errno)
    }

    /// The attributes of an inode that came with an answer, for the kernel, with how long they may be kept.
    fn shown(&self, attr: Attr, kept: &Kept<'_>, before: Changes) -> (Attr, Duration) {
        let keep = kept.attr(&attr, before);
        self.meta.note(&attr, before, kept.stamp());
        self.with_local_changes(attr, keep)
    }

    /// Attributes with what this mount has written and not told yet, which may change at any moment.
    ///
    /// What was told between the MDS's answer and now came with newer attributes; these are looked up after it was seen that
    /// nothing is left to be told.
    fn with_local_changes(&self, attr: Attr, keep: Duration) -> (Attr, Duration) {
        let Some(inode) = self.meta.inodes.find(attr.ino) else { return (attr, keep) };
        let file = inode.state().file.clone();
        let changes = file.and_then(|file| file.attr_changes());
        let mut attr =
            inode.state().last_attr().filter(|last| last.version > attr.version).cloned().unwrap_or(attr);
        let Some(changes) = changes else { return (attr, keep) };
        attr.size = attr.size.max(changes.size.unwrap_or(0));
        attr.blocks = changes.blocks;
        if let Some(written) = changes.mtime {
            attr.mtime = written;
            attr.ctime = attr.ctime.max(written);
        }
        (attr, Duration::ZERO)
    }

    /// The kernel is told of a name: it refers to the inode once more.
    fn entry(&self, attr: Attr, parent: Ino, kept: &Kept<'_>, before: Changes) -> Entry {
        self.meta.inodes.looked_up(attr.ino);
        let (attr, keep_attr) = self.shown(attr, kept, before);
        Entry { attr, keep_name: self.name_time(kept.name(parent)), keep_attr }
    }

    /// A kernel that cannot be told to forget names without a lock must not keep any.
    fn name_time(&self, keep: Duration) -> Duration {
        if self.keeps_names() { keep } else { Duration::ZERO }
    }
}

/// What the program sees of the error of a call: to it, the end of the session is one of I/O.
fn program_errno(errno: Errno) -> Errno {
    if errno == Errno::ESTALE { Errno::EIO } else { errno }
}

fn changes_names(op: &Op<'_>) -> bool {
    !matches!(
        op,
        Op::Open { .. }
            | Op::Read { .. }
            | Op::Flush { .. }
            | Op::Release { .. }
            | Op::Fsync { .. }
            | Op::Lseek { .. }
    )
}
