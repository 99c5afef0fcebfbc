//! Records of changes, from the change that made them until they are where the changelog's readers are.
//!
//! A record is made by the same command as the change, so there is one if, and only if, the change was made; and it is a
//! row, so it outlives whatever the change outlives. Nothing is recorded until [`What::Record`](super::What::Record) says so.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::rows::{Row, Rows, load};
use super::transaction::Transaction;
use super::{directory, keys, replies};
use crate::core::changelog::{Doer, Entry, Record, name_taken};
use crate::core::{Errno, Ino, SessionId};
use crate::wire::JOB_BYTES_MAX;
use crate::wire::mds::{Act, Answer, Change};

/// Where the changelog is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Whether changes are recorded.
    pub(super) recording: bool,
    /// The first record that is here. **Invariant:** at most `next`; every record from here up to `next` is a row.
    pub(super) first: u64,
    /// The index of the next record; the first is 1.
    pub(super) next: u64,
}

impl Row for Head {
    const VERSION: u8 = 1;
}

/// A record as a row; its index is in the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Noted {
    /// The client's host.
    pub(super) client: String,
    pub(super) record: Record,
}

impl Row for Noted {
    const VERSION: u8 = 1;
}

/// What is needed to record a change, looked up before it is made.
pub(super) struct Pen {
    head: Head,
    /// What has the name that the change takes away or moves.
    named: Option<Ino>,
}

/// What records a change that is about to be made; `None` when changes are not recorded.
pub(super) fn pen(rows: &dyn Rows, act: &Act) -> Result<Option<Pen>, Errno> {
    let Some(head) = recording(rows)? else { return Ok(None) };
    let named = match name_taken(act) {
        Some((parent, name)) => directory::find(rows, parent, name)?.map(|entry| entry.ino),
        None => None,
    };
    Ok(Some(Pen { head, named }))
}

/// Records a change that was made.
pub(super) fn changed(
    transaction: &mut Transaction<'_>,
    pen: Pen,
    (session, client): (SessionId, String),
    change: &Change,
    answer: &Answer,
) {
    let Pen { mut head, named } = pen;
    let mut cred = change.cred.clone();
    if cred.job.len() > JOB_BYTES_MAX {
        cred.job = String::new();
    }
    let doer = Doer { time: transaction.now, session, cred: Some(cred) };
    if let Some(record) = Record::of(&change.act, answer, named, transaction.unlinked(), doer) {
        note(transaction, &mut head, &Noted { client, record });
        transaction.put(keys::LOG_HEAD, head.encode());
    }
}

/// Records that a session closed files that it could write.
pub(super) fn closed(
    transaction: &mut Transaction<'_>,
    session: SessionId,
    inos: &[Ino],
) -> Result<(), Errno> {
    let Some(mut head) = recording(transaction)? else { return Ok(()) };
    let client = replies::host(transaction, session)?.unwrap_or_default();
    for ino in inos {
        let doer = Doer { time: transaction.now, session, cred: None };
        let record = Record::of_close(*ino, doer);
        note(transaction, &mut head, &Noted { client: client.clone(), record });
    }
    transaction.put(keys::LOG_HEAD, head.encode());
    Ok(())
}

/// Records changes from now on, or no more. What is recorded stays.
pub(super) fn set_recording(transaction: &mut Transaction<'_>, on: bool) -> Result<(), Errno> {
    let head = head(transaction)?;
    if head.recording != on {
        transaction.put(keys::LOG_HEAD, Head { recording: on, ..head }.encode());
    }
    Ok(())
}

/// Records below `below` are not needed any more.
pub(super) fn recorded(transaction: &mut Transaction<'_>, below: u64) -> Result<(), Errno> {
    let mut head = head(transaction)?;
    let below = below.min(head.next);
    if below > head.first {
        (head.first..below).for_each(|index| transaction.delete(&keys::record(index)));
        head.first = below;
        transaction.put(keys::LOG_HEAD, head.encode());
    }
    Ok(())
}

/// Records from the first that is here, at most so many.
pub fn records(rows: &dyn Rows, count_max: usize) -> Result<Vec<Entry>, Errno> {
    let (from, to) = keys::records(head(rows)?.first);
    let mut found = Vec::new();
    let mut sound = true;
    rows.scan(&from, &to, &mut |key, value| {
        if found.len() == count_max {
            return ControlFlow::Break(());
        }
        match (keys::number_of(key), Noted::decode(value)) {
            (Some(index), Ok(Noted { client, record })) => found.push(Entry { index, client, record }),
            _ => sound = false,
        }
        ControlFlow::Continue(())
    })?;
    if sound { Ok(found) } else { Err(Errno::EIO) }
}

/// The first record that is here, and the one that comes next: the same when there is none.
pub fn backlog(rows: &dyn Rows) -> Result<(u64, u64), Errno> {
    let head = head(rows)?;
    Ok((head.first, head.next))
}

/// Whether the row under this key gets a value once in the life of an MDT, and is deleted then. While its value is among
/// rows that are not in the table yet, it can be forgotten there without a trace.
pub fn is_written_once(key: &[u8]) -> bool {
    keys::is_record(key)
}

fn note(transaction: &mut Transaction<'_>, head: &mut Head, noted: &Noted) {
    transaction.put(&keys::record(head.next), noted.encode());
    head.next += 1;
}

fn head(rows: &dyn Rows) -> Result<Head, Errno> {
    let nothing = Head { recording: false, first: 1, next: 1 };
    Ok(load(rows, keys::LOG_HEAD)?.unwrap_or(nothing))
}

fn recording(rows: &dyn Rows) -> Result<Option<Head>, Errno> {
    Ok(Some(head(rows)?).filter(|head| head.recording))
}
