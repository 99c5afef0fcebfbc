//! What can go wrong.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};

use kiln_types::Offset;

use super::label::Label;
use crate::core::Errno;

/// Why an MDT was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk did not do as it was told.
    #[error("the MDT's disk: {0}")]
    Io(#[from] std::io::Error),
    /// Written by a newer Kiln.
    #[error(
        "format {found} of {what} is newer than {known}: start it with the version that wrote it, or a later one"
    )]
    Newer {
        /// Of what.
        what: &'static str,
        /// In the file.
        found: u32,
        /// The newest that is understood here.
        known: u32,
    },
    /// A file lacks what every such file has.
    #[error("{what} is missing or damaged: restore the MDT's directory from a copy")]
    Damaged {
        /// What was looked for.
        what: &'static str,
    },
    /// The MDT is another one's.
    #[error("this is MDT {index} of filesystem {fs}, not MDT {wanted_index} of {wanted_fs}: look at the path", index = .found.mdt, fs = .found.fs, wanted_index = .wanted.mdt, wanted_fs = .wanted.fs)]
    Foreign {
        /// Whose it is.
        found: Label,
        /// Whose it should be.
        wanted: Label,
    },
    /// The table cannot be used.
    #[error("the MDT's table: {0}")]
    Rows(String),
    /// The journal cannot be used.
    #[error("the MDT's journal: {0}")]
    Journal(String),
    /// Table and journal do not belong together.
    #[error(
        "the MDT's table is at command {applied}, but its journal holds {start} up to {end}: restore them together"
    )]
    Apart {
        /// The last command in the table; -1 is none.
        applied: Offset,
        /// The journal's first command.
        start: Offset,
        /// The number that the next command would get.
        end: Offset,
    },
    /// A command in the journal cannot be applied.
    #[error("command {at} of the MDT's journal: {why}")]
    Replay {
        /// Its place.
        at: Offset,
        /// What is wrong with it.
        why: String,
    },
}

/// The first failure, after which nothing is true any more; everybody is told `EIO` from then on.
#[derive(Clone, Default)]
pub(super) struct Latch(Arc<OnceLock<Arc<str>>>);

impl Latch {
    pub(super) fn check(&self) -> Result<(), Errno> {
        if self.0.get().is_some() { Err(Errno::EIO) } else { Ok(()) }
    }

    pub(super) fn reason(&self) -> Option<Arc<str>> {
        self.0.get().cloned()
    }

    /// Latches a failure, unless there was one before.
    pub(super) fn fail(&self, why: &dyn Display) -> Errno {
        if self.0.set(why.to_string().into()).is_ok() {
            tracing::error!(%why, "the MDT has stopped until the next start");
        }
        Errno::EIO
    }
}
