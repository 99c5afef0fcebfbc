//! Sessions, and what each was answered, so that a request that comes again is not done again.
//!
//! A session is one row, which changes with every change that it makes; so it is put together by hand:
//!
//! ```text
//! version: u8   done_below: u64   host: u16 length, bytes   { xid: u64   answer: u32 length, postcard }*
//! ```
//!
//! Numbers are little endian.

use std::ops::ControlFlow;

use super::keys;
use super::rows::Rows;
use super::transaction::Transaction;
use crate::core::{Errno, SessionId, Xid};
use crate::wire::mds::{Answer, Change};

/// The most answers that are remembered for one session. A client that has more changes under way is told `EAGAIN`.
pub const REPLIES_MAX: usize = 1024;
/// The longest name of a host that is kept, in bytes.
const HOST_BYTES_MAX: usize = 255;
const VERSION: u8 = 1;
/// Bytes before the host's name.
const FIXED_BYTES: usize = 1 + 8 + 2;

/// A session's row.
pub(super) struct Session {
    row: Vec<u8>,
    done_below: Xid,
    /// Where the answers begin.
    replies_at: usize,
}

/// An answer in a row, and where it is with its header.
struct Reply<'r> {
    xid: Xid,
    answer: &'r [u8],
    whole: &'r [u8],
}

impl Session {
    fn parse(row: Vec<u8>) -> Result<Session, Errno> {
        let (done_below, host_bytes) = parse_fixed(&row).ok_or(Errno::EIO)?;
        let replies_at = FIXED_BYTES + usize::from(host_bytes);
        if row.len() < replies_at {
            return Err(Errno::EIO);
        }
        Ok(Session { row, done_below, replies_at })
    }

    pub(super) fn host(&self) -> String {
        String::from_utf8_lossy(&self.row[FIXED_BYTES..self.replies_at]).into_owned()
    }

    fn replies(&self) -> impl Iterator<Item = Result<Reply<'_>, Errno>> {
        let mut rest = &self.row[self.replies_at..];
        std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| take_reply(&mut rest).ok_or(Errno::EIO).inspect_err(|_| rest = &[]))
        })
    }

    /// What the session was answered to this request, if it made it before.
    pub(super) fn reply(&self, xid: Xid) -> Result<Option<Answer>, Errno> {
        for reply in self.replies() {
            let reply = reply?;
            if reply.xid == xid {
                return postcard::from_bytes(reply.answer).map(Some).map_err(|_| Errno::EIO);
            }
        }
        Ok(None)
    }
}

/// What the session was answered to this request; `None` when it did not make it, or has the answer.
pub fn reply_to(rows: &dyn Rows, session: SessionId, xid: Xid) -> Result<Option<Answer>, Errno> {
    get(rows, session)?.reply(xid)
}

/// Every session, with its host's name.
pub fn sessions(rows: &dyn Rows) -> Result<Vec<(SessionId, String)>, Errno> {
    let (from, to) = keys::sessions();
    let mut found = Vec::new();
    let mut sound = true;
    rows.scan(&from, &to, &mut |key, row| {
        match (keys::session_of(key), Session::parse(row.to_vec())) {
            (Some(id), Ok(session)) => found.push((id, session.host())),
            _ => sound = false,
        }
        ControlFlow::Continue(())
    })?;
    if sound { Ok(found) } else { Err(Errno::EIO) }
}

/// The session of a change, if it may make one more.
pub(super) fn check(rows: &dyn Rows, session: SessionId, change: &Change) -> Result<Session, Errno> {
    let session = get(rows, session)?;
    // Its answer is gone: a client that asks has told before that it has it.
    if change.xid < session.done_below || change.xid < change.done_below {
        return Err(Errno::EINVAL);
    }
    Ok(session)
}

/// Keeps the answer, and forgets those that the client has.
pub(super) fn remember(
    transaction: &mut Transaction<'_>,
    session: &Session,
    id: SessionId,
    change: &Change,
    answer: &Answer,
) -> Result<(), Errno> {
    let done_below = session.done_below.max(change.done_below);
    let mut row = session.row[..session.replies_at].to_vec();
    row[1..9].copy_from_slice(&done_below.0.to_le_bytes());
    let mut kept = 0;
    for reply in session.replies() {
        let reply = reply?;
        if reply.xid >= done_below {
            row.extend_from_slice(reply.whole);
            kept += 1;
        }
    }
    if kept >= REPLIES_MAX {
        return Err(Errno::EAGAIN);
    }
    let answer = postcard::to_stdvec(answer).map_err(|_| Errno::EIO)?;
    row.extend_from_slice(&change.xid.0.to_le_bytes());
    row.extend_from_slice(&(answer.len() as u32).to_le_bytes());
    row.extend_from_slice(&answer);
    transaction.put(&keys::session(id), row);
    Ok(())
}

/// Begins a session that is not there.
pub(super) fn begin(transaction: &mut Transaction<'_>, id: SessionId, host: &str) -> Result<(), Errno> {
    let key = keys::session(id);
    if transaction.get(&key)?.is_some() {
        return Ok(());
    }
    let host = &host.as_bytes()[..host.len().min(HOST_BYTES_MAX)];
    let mut row = vec![VERSION];
    row.extend_from_slice(&0_u64.to_le_bytes());
    row.extend_from_slice(&(host.len() as u16).to_le_bytes());
    row.extend_from_slice(host);
    transaction.put(&key, row);
    Ok(())
}

/// Ends a session, if it is there.
pub(super) fn end(transaction: &mut Transaction<'_>, id: SessionId) -> Result<(), Errno> {
    let key = keys::session(id);
    if transaction.get(&key)?.is_some() {
        transaction.delete(&key);
    }
    Ok(())
}

/// The host of a session, if it is there.
pub(super) fn host(rows: &dyn Rows, session: SessionId) -> Result<Option<String>, Errno> {
    let row = rows.get(&keys::session(session))?;
    Ok(row.map(Session::parse).transpose()?.map(|session| session.host()))
}

fn get(rows: &dyn Rows, session: SessionId) -> Result<Session, Errno> {
    Session::parse(rows.get(&keys::session(session))?.ok_or(Errno::ESTALE)?)
}

/// What is before the host's name.
fn parse_fixed(row: &[u8]) -> Option<(Xid, u16)> {
    let (&version, rest) = row.split_first()?;
    let (done_below, rest) = rest.split_first_chunk()?;
    let host_bytes = rest.first_chunk()?;
    let is_known = version == VERSION;
    is_known.then(|| (Xid(u64::from_le_bytes(*done_below)), u16::from_le_bytes(*host_bytes)))
}

fn take_reply<'r>(rest: &mut &'r [u8]) -> Option<Reply<'r>> {
    const HEAD_BYTES: usize = 8 + 4;
    let all = *rest;
    let xid = Xid(u64::from_le_bytes(*all.first_chunk()?));
    let len = u32::from_le_bytes(all.get(8..HEAD_BYTES)?.try_into().ok()?) as usize;
    let (whole, behind) = all.split_at_checked(HEAD_BYTES.checked_add(len)?)?;
    *rest = behind;
    Some(Reply { xid, answer: &whole[HEAD_BYTES..], whole })
}
