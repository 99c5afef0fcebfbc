//! The session with the MDS: connections, repeats, and what happens when the MDS is away.
//!
//! A call waits until it is answered: when the connection breaks or the MDS restarts, [`Keeper`] reconnects and says hello
//! with what the mount holds, and the call is sent again, a change under the number it had ([`Change::xid`]), so that it
//! is done once. Only a mount that ends, a program that is killed, or the eviction of the session end the wait.
//!
//! **Epochs.** Each loss of the link begins a new epoch. What an answer of an earlier epoch grants is not kept, because the
//! hello that resumes the session does not claim it.

mod keeper;
mod link;
mod rooms;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kiln_net::blocking::{Closer, Waits, waits};
use kiln_net::{CallError, Status};

pub(crate) use keeper::{Holder, Keeper, new_id};
use link::{Link, Lost};
use rooms::Rooms;

use super::fuse::Interrupt;
use crate::core::quota::Owner;
use crate::core::{Attr, Errno, SessionId, Xid};
use crate::wire;
use crate::wire::mds::{Acked, Act, Answer, Ask, Change, Cred, Grant, Lock, Op, Reply};
use crate::wire::mgs::{Address, FsId};

/// How long to wait before a server that refuses is asked again.
const RETRY: Duration = Duration::from_millis(50);

/// When an answer was made, as far as that decides whether it may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The number that the MDS had.
    pub(crate) seq: u64,
    /// The epoch of the link.
    pub(crate) epoch: u64,
    /// Counts requests of this mount: this one was sent when so many had been.
    pub(crate) ticket: u64,
}

/// An answer of the MDS.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) outcome: Result<Answer, Errno>,
    pub(crate) grants: Vec<Grant>,
    /// Directories that a change has changed.
    pub(crate) dirs: Vec<Attr>,
    pub(crate) bulk: Bytes,
    pub(crate) stamp: Stamp,
}

/// Who waits for an answer, and may stop waiting.
#[derive(Clone, Copy, Default)]
pub(crate) struct Waiter<'w> {
    interrupt: Option<&'w Interrupt>,
    /// The thread of the program.
    pid: u32,
    /// The kernel has pages locked until this is answered.
    holds_pages: bool,
}

impl<'w> Waiter<'w> {
    /// The mount itself: it waits for as long as it lasts.
    pub(crate) const MOUNT: Waiter<'static> = Waiter { interrupt: None, pid: 0, holds_pages: false };

    pub(crate) fn program(interrupt: &'w Interrupt, pid: u32) -> Waiter<'w> {
        Waiter { interrupt: Some(interrupt), pid, holds_pages: false }
    }

    /// The same, while the kernel has pages locked.
    pub(crate) fn holding_pages(self) -> Waiter<'w> {
        Waiter { holds_pages: true, ..self }
    }

    /// Whether it may wait while what an evicted session had is dropped. That drops pages, and so must not wait for who holds
    /// some, or who works for one that may.
    fn may_wait_for_pages(&self) -> bool {
        self.interrupt.is_some() && !self.holds_pages
    }

    /// Whether the program is in a group besides its first.
    pub(crate) fn is_in_group(&self, gid: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
        groups.split_ascii_whitespace().any(|group| group.parse() == Ok(gid))
    }

    /// Whether nobody is left who wants the answer: the program is being killed. Other signals do not end a wait for the
    /// MDS, as nobody could say whether the call was done.
    pub(crate) fn is_gone(&self) -> bool {
        self.interrupt.is_some_and(Interrupt::is_raised) && is_dying(self.pid)
    }
}

/// Whether a thread has a SIGKILL pending; the kernel turns every fatal signal into one.
fn is_dying(pid: u32) -> bool {
    const SIGKILL_BIT: u64 = 1 << 8;
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let pending = |line: &str| {
        let bits = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(bits.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|bits| bits & SIGKILL_BIT != 0)
}

/// Changes under way.
#[derive(Debug, Default)]
struct Xids {
    last: u64,
    /// **Invariant:** none is above `last`.
    open: BTreeSet<u64>,
}

/// The session of a mount.
pub(crate) struct Session {
    fs: String,
    fs_id: FsId,
    link: Link,
    xids: Mutex<Xids>,
    tickets: AtomicU64,
    rooms: Rooms,
}

impl Session {
    /// A session that is not connected yet; a [`Keeper`] connects it.
    pub(crate) fn new((fs, fs_id): (String, FsId), address: Address, id: SessionId) -> Session {
        Session {
            fs,
            fs_id,
            link: Link::new(address, id),
            xids: Mutex::default(),
            tickets: AtomicU64::new(1),
            rooms: Rooms::default(),
        }
    }

    /// The MDS is served elsewhere now.
    pub(crate) fn moved(&self, address: Address) {
        self.link.moved(address);
    }

    /// The epoch of now.
    pub(crate) fn epoch(&self) -> u64 {
        self.link.epoch()
    }

    /// How many requests were sent: an answer with a smaller or equal ticket was asked for before now.
    pub(crate) fn ticket(&self) -> u64 {
        self.tickets.load(Ordering::SeqCst)
    }

    /// How long the MDS lets a session be silent; `None` before the first hello.
    pub(crate) fn lifetime(&self) -> Option<Duration> {
        self.link.lifetime()
    }

    /// How much space an owner of files has left, in bytes, as the MDS has said last; `None` without a limit.
    pub(crate) fn room(&self, owner: Owner) -> Option<u64> {
        self.rooms.of(owner)
    }

    /// Whether the MDS was not heard for so long that it has a right to have evicted the session.
    pub(crate) fn may_be_evicted(&self) -> bool {
        self.lifetime().is_some_and(|lifetime| self.link.silence() > lifetime)
    }

    /// Waits, at most so long, for the session to be open; whether it is.
    pub(crate) fn wait_up(&self, at_most: Duration) -> bool {
        self.link.wait_up(at_most)
    }

    /// Ends every wait with `errno`, and all calls from now on.
    pub(crate) fn end(&self, errno: Errno) {
        self.link.end(errno);
    }

    /// Asks something that changes nothing.
    pub(crate) fn ask(&self, ask: Ask, waiter: Waiter<'_>) -> Result<Answered, Errno> {
        self.exchange(Op::Ask(ask), &[], waiter)
    }

    /// Changes something, once.
    pub(crate) fn change(
        &self,
        cred: Cred,
        act: Act,
        bulk: &[u8],
        waiter: Waiter<'_>,
    ) -> Result<Answered, Errno> {
        self.change_as(Op::Change, cred, act, bulk, waiter)
    }

    /// Changes something, once; it and all changes before are on the disk of the MDT when this returns.
    pub(crate) fn change_durably(
        &self,
        cred: Cred,
        act: Act,
        bulk: &[u8],
        waiter: Waiter<'_>,
    ) -> Result<Answered, Errno> {
        self.change_as(Op::DurableChange, cred, act, bulk, waiter)
    }

    fn change_as(
        &self,
        op: fn(Change) -> Op,
        cred: Cred,
        act: Act,
        bulk: &[u8],
        waiter: Waiter<'_>,
    ) -> Result<Answered, Errno> {
        let xid = self.begin_change();
        let change = Change { xid, done_below: xid, cred, act };
        let answered = self.exchange(op(change), bulk, waiter);
        self.xids().open.remove(&xid.0);
        answered
    }

    /// Tells the MDS something that it answers with [`Answer::Done`].
    pub(crate) fn tell(&self, op: Op) -> Result<(), Errno> {
        self.exchange(op, &[], Waiter::MOUNT)?.outcome.map(drop)
    }

    /// Acknowledges callbacks, if the link is there: after a loss the hello says what is still held. It does not wait for a new
    /// link, since it is called by the thread that makes it.
    pub(crate) fn acknowledge(&self, acked: Vec<Acked>) {
        let Some((session, mut line)) = self.link.line_now() else { return };
        let request = self.request(session, Op::Ack(acked));
        match line.connection.call::<_, Reply>(&request, &[]) {
            Ok((reply, _)) => {
                if let Err(errno) = reply.outcome {
                    tracing::debug!(%errno, "a callback was not acknowledged");
                }
                self.link.put_back(line);
            }
            Err(error) => {
                tracing::debug!(%error, "a callback was not acknowledged: the link is lost");
                self.link.lost(line.epoch);
            }
        }
    }

    /// Asks for a lock. A wait for it ends with `EINTR` when the program gets a signal, and the lock is not held then.
    pub(crate) fn lock(&self, lock: Lock, waiter: Waiter<'_>) -> Result<Answered, Errno> {
        match lock {
            Lock::Set { wait: true, .. } => self.exchange_interruptibly(Op::Lock(lock), waiter),
            _ => self.exchange(Op::Lock(lock), &[], waiter),
        }
    }

    /// Takes leave of the MDS, if it is there: everything that is held is free. All calls end then.
    pub(crate) fn bye(&self) {
        self.link.leave();
        if let Err(errno) = self.tell(Op::Bye) {
            tracing::debug!(%errno, "the MDS was not told that the mount ends");
        }
        self.end(Errno::ENOTCONN);
    }

    /// The session lives; a connection on which that is not answered in time is lost.
    pub(crate) fn ping(&self, at_most: Duration) -> Result<(), Errno> {
        let (session, mut line) = self.link.line(Waiter::MOUNT, None)?;
        let timed = line.connection.set_timeout(Some(at_most)).is_ok();
        let called = line.connection.call::<_, Reply>(&self.request(session, Op::Ping), &[]);
        if timed && called.is_ok() && line.connection.set_timeout(None).is_ok() {
            self.link.put_back(line);
        } else {
            self.link.lost(line.epoch);
        }
        Ok(())
    }

    fn xids(&self) -> MutexGuard<'_, Xids> {
        self.xids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_change(&self) -> Xid {
        let mut xids = self.xids();
        xids.last += 1;
        let last = xids.last;
        xids.open.insert(last);
        Xid(last)
    }

    /// The first change that is not answered.
    fn done_below(&self) -> Xid {
        let xids = self.xids();
        Xid(xids.open.first().copied().unwrap_or(xids.last + 1))
    }

    fn request(&self, session: SessionId, op: Op) -> wire::Request {
        wire::Request::Mds(wire::mds::Request { fs: self.fs.clone(), id: self.fs_id, session, op })
    }

    /// Puts into a request what is different when it is sent again.
    fn freshen(&self, request: &mut wire::Request) {
        if let wire::Request::Mds(wire::mds::Request { op, .. }) = request
            && let Op::Change(change) | Op::DurableChange(change) = op
        {
            change.done_below = self.done_below();
        }
    }

    /// Sends until it is answered.
    fn exchange(&self, op: Op, bulk: &[u8], waiter: Waiter<'_>) -> Result<Answered, Errno> {
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
        let (session, mut line) = self.link.line(waiter, None)?;
        tracing::trace!(?op, "asked");
        let mut request = self.request(session, op);
        loop {
            self.freshen(&mut request);
            let called = line.connection.call::<_, Reply>(&request, &[bulk]);
            if let Some((reply, bulk)) = self.called(called, &line)? {
                let stamp = Stamp { seq: reply.seq, epoch: line.epoch, ticket };
                self.link.put_back(line);
                self.rooms.note(&reply);
                let Reply { outcome, grants, dirs, .. } = reply;
                return Ok(Answered { outcome, grants, dirs, bulk, stamp });
            }
            line = self.link.line(waiter, Some(session))?.1;
        }
    }

    /// As [`Session::exchange`], for a call that waits at the MDS: it ends with its connection.
    fn exchange_interruptibly(&self, op: Op, waiter: Waiter<'_>) -> Result<Answered, Errno> {
        let raised = || waiter.interrupt.is_some_and(Interrupt::is_raised);
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
        let (session, mut line) = self.link.line(waiter, None)?;
        let request = self.request(session, op);
        loop {
            let closer = line.connection.shutdown_handle().ok();
            let hook = move || closer.iter().for_each(Closer::close);
            let called = hooked(waiter.interrupt, hook, || line.connection.call::<_, Reply>(&request, &[]));
            let interrupted = raised();
            if called.is_err() && interrupted {
                self.link.drop_line(&line);
                return Err(Errno::EINTR);
            }
            if let Some((reply, bulk)) = self.called(called, &line)? {
                let stamp = Stamp { seq: reply.seq, epoch: line.epoch, ticket };
                // The hook may have closed it after the answer came.
                if interrupted {
                    self.link.drop_line(&line);
                } else {
                    self.link.put_back(line);
                }
                let Reply { outcome, grants, dirs, .. } = reply;
                return Ok(Answered { outcome, grants, dirs, bulk, stamp });
            }
            line = self.link.line(waiter, Some(session))?.1;
        }
    }

    /// What came of a call: an answer, `None` to send it again, or an error that sending again does not mend.
    fn called(
        &self,
        called: Result<(Reply, Bytes), CallError>,
        line: &link::Line,
    ) -> Result<Option<(Reply, Bytes)>, Errno> {
        match called {
            Ok(answer) if answer.0.outcome != Err(Errno::ENODEV) => return Ok(Some(answer)),
            // Served by nobody at that address yet, or not any more.
            Ok(_) | Err(CallError::Closed | CallError::Deadline(_) | CallError::Empty) => {
                self.link.lost(line.epoch);
            }
            Err(CallError::Refused { status, text }) => {
                self.link.drop_line(line);
                if status == Status::BadRequest {
                    tracing::warn!(text, "the MDS does not understand this client; their versions differ");
                    return Err(Errno::EPROTO);
                }
                tracing::debug!(text, "the MDS refused a call, which is made again");
                waits(Waits::Asleep);
                std::thread::sleep(RETRY);
            }
            Err(error @ (CallError::Decode(_) | CallError::Encode(_))) => {
                tracing::warn!(%error, "a call of the MDS failed");
                self.link.drop_line(line);
                return Err(Errno::EPROTO);
            }
        }
        Ok(None)
    }
}

/// Runs `call`; an interrupt meanwhile runs `hook`.
fn hooked<R>(
    interrupt: Option<&Interrupt>,
    hook: impl FnOnce() + Send + 'static,
    call: impl FnOnce() -> R,
) -> R {
    if let Some(interrupt) = interrupt {
        interrupt.on_raise(hook);
    }
    let result = call();
    if let Some(interrupt) = interrupt {
        interrupt.on_raise(|| {});
    }
    result
}

impl From<Lost> for Errno {
    fn from(lost: Lost) -> Errno {
        match lost {
            Lost::Ended(errno) => errno,
            Lost::Evicted => Errno::ESTALE,
            Lost::Gone => Errno::EINTR,
        }
    }
}

/// Whether the server answered, and the same request would be answered the same again.
fn is_refusal(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Refused { status: Status::BadRequest, .. } | CallError::Decode(_) | CallError::Encode(_)
    )
}
