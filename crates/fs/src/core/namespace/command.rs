//! Commands, and what comes of them.

use serde::{Deserialize, Serialize};

use super::todo::{Todo, TodoId};
use crate::core::{Errno, Ino, OstIndex, SessionId, Time};
use crate::wire::mds::{Answer, Change};

/// A change of the rows, as it stands in the journal. The bulk of the request travels beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// When it is done.
    pub now: Time,
    /// What is done.
    pub what: What,
}

/// What a command does. Journals have the number of a variant: new ones come last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// A session begins; it may be there already.
    Begin {
        /// Which.
        session: SessionId,
        /// The client's host, for people.
        host: String,
    },
    /// A session is over: what it was answered is forgotten, and it changes nothing any more.
    End {
        /// Which.
        session: SessionId,
    },
    /// A session changes something.
    Change {
        /// Which session; `ESTALE` when it never began.
        session: SessionId,
        /// What it asked for.
        change: Change,
        /// Where new objects may go, the best first; each at most once. Used by `Act::Place` alone.
        osts: Vec<OstIndex>,
        /// Somebody has open what loses its last name by this: it stays, as an orphan, until [`What::Forget`].
        victim_open: bool,
    },
    /// Nobody has these open any more: they go, if they have no name.
    Forget {
        /// Which inodes; others than orphans stay as they are.
        inos: Vec<Ino>,
    },
    /// A writer was evicted: what it wrote beyond the ends of these files, as far as they are known, is cut off.
    Trim {
        /// Which files; what is no file, or not there, stays as it is.
        inos: Vec<Ino>,
    },
    /// The OSTs did what was to be done.
    Done {
        /// Which entries.
        todo: Vec<TodoId>,
    },
    /// As [`What::End`], and the OSTs are to be told not to serve it any more.
    Evict {
        /// Which session.
        session: SessionId,
        /// The OSTs.
        osts: Vec<OstIndex>,
    },
    /// From now on records of changes are kept for the changelog, or no more.
    Record {
        /// Whether they are kept.
        on: bool,
    },
    /// A session closed these, which it could write. Changes nothing but the changelog.
    Closed {
        /// Which session.
        session: SessionId,
        /// Which files.
        inos: Vec<Ino>,
    },
    /// The records of the changelog below this one are where its readers are.
    Recorded {
        /// The first that is not.
        below: u64,
    },
    /// Makes a file without a name that has a new object for each one that a file has on an OST which drains. Answered by
    /// [`Answer::Opened`]; `ENODATA` when it has none there.
    Spare {
        /// The file.
        ino: Ino,
        /// The OST.
        from: OstIndex,
        /// Where the new objects may be, the best first; each at most once.
        to: Vec<OstIndex>,
    },
    /// A file gets the objects of its spare, in which a copy is, for those that it has on an OST. `EAGAIN` when it has changed.
    Exchange {
        /// The file.
        ino: Ino,
        /// The generation of its layout when it was copied.
        generation: u32,
        /// The version of its attributes then.
        version: u64,
        /// The OST.
        from: OstIndex,
        /// Its spare.
        spare: Ino,
    },
}

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The answer to whoever asked; [`Answer::Done`] to a command of the server itself.
    pub answer: Result<Answer, Errno>,
    /// This lost its last name. It is gone, or an orphan when it was said to be open.
    pub unlinked: Option<Ino>,
    /// What is to be done at the OSTs because of it. The cuts among it are done before anybody hears the answer: what is
    /// written afterwards must not be cut off.
    pub todo: Vec<(TodoId, Todo)>,
    /// The session had asked this before, and got this answer. Nothing was changed now.
    pub repeated: bool,
}

impl Outcome {
    /// Nothing was changed.
    pub fn refused(errno: Errno) -> Outcome {
        Outcome::unchanged(Err(errno))
    }

    pub(super) fn unchanged(answer: Result<Answer, Errno>) -> Outcome {
        Outcome { answer, unlinked: None, todo: Vec::new(), repeated: false }
    }
}
