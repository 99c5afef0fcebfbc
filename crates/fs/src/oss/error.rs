//! Why a target cannot be made or served.

use std::io;
use std::path::{Path, PathBuf};

use super::label::{FORMAT_VERSION, Label};

/// Why a target cannot be made or served; the text is for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The disk failed, or has no room.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// How that failed.
        source: io::Error,
    },
    /// There is no label.
    #[error("{} is not a target: it has no label; mount its disk if it has one of its own", .0.display())]
    NotATarget(PathBuf),
    /// It was to be made where something else is.
    #[error("{} is not empty: it has {entry}; a target needs a directory of its own", dir.display())]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
        /// Something in it.
        entry: String,
    },
    /// Another server has it.
    #[error("{} is being served by {by}; a target is served once: stop that server first", dir.display())]
    Taken {
        /// The directory.
        dir: PathBuf,
        /// Who says to have it.
        by: String,
    },
    /// The label is of another target.
    #[error("{} is {found}, not {wanted}; check which disk is mounted there", dir.display())]
    Other {
        /// The directory.
        dir: PathBuf,
        /// What it is.
        found: Label,
        /// What it should be.
        wanted: Label,
    },
    /// A file of the target does not say what it should.
    #[error("{} is damaged: {what}; {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// It was made by a later release.
    #[error("{} has format {version}, newer than {FORMAT_VERSION}; serve it with a later release", path.display())]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        version: u32,
    },
    /// The name of a filesystem that no label has room for.
    #[error("{0:?} is no name of a filesystem: it has 1 to 255 bytes")]
    Name(String),
}

impl TargetError {
    /// For `map_err`: what failed at `path`.
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> TargetError {
        let path = path.to_owned();
        move |source| TargetError::Io { path, source }
    }
}
