//! What is to be done at the OSTs. An entry stays until the OST has done it, over any restart of the MDS.

use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::keys;
use super::rows::{Row, Rows};
use super::transaction::Transaction;
use crate::core::{Errno, ObjectId, OstIndex, SessionId};

/// An entry of the to-do list; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TodoId(pub u64);

/// Something to be done at an OST. To do it twice does no harm, as long as nothing was written in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Todo {
    /// The object's file is gone.
    Destroy {
        /// The OST.
        ost: OstIndex,
        /// The object.
        object: ObjectId,
    },
    /// The object's file was cut.
    Cut {
        /// The OST.
        ost: OstIndex,
        /// The object.
        object: ObjectId,
        /// What it keeps, in bytes.
        len: u64,
    },
    /// A session was evicted, and is served no more. Comes before what else is to be done at that OST.
    Fence {
        /// The OST.
        ost: OstIndex,
        /// The session.
        session: SessionId,
    },
}

impl Row for Todo {
    const VERSION: u8 = 1;
}

impl Todo {
    /// The OST that it is to be done at.
    pub fn ost(&self) -> OstIndex {
        let (Todo::Destroy { ost, .. } | Todo::Cut { ost, .. } | Todo::Fence { ost, .. }) = self;
        *ost
    }
}

/// Entries from `from` on, at most so many.
pub fn todo(rows: &dyn Rows, from: TodoId, count_max: usize) -> Result<Vec<(TodoId, Todo)>, Errno> {
    let (from, to) = keys::todos(from);
    let mut found = Vec::new();
    let mut sound = true;
    rows.scan(&from, &to, &mut |key, value| {
        if found.len() == count_max {
            return ControlFlow::Break(());
        }
        match (keys::number_of(key), Todo::decode(value)) {
            (Some(id), Ok(todo)) => found.push((TodoId(id), todo)),
            _ => sound = false,
        }
        ControlFlow::Continue(())
    })?;
    if sound { Ok(found) } else { Err(Errno::EIO) }
}

/// Takes an entry off the list.
pub(super) fn done(transaction: &mut Transaction<'_>, id: TodoId) {
    transaction.delete(&keys::todo(id));
}
