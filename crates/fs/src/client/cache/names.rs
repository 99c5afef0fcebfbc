//! Directories whose every name the mount knows.

use std::collections::HashMap;

use crate::core::Ino;

/// Names of one directory that are remembered; a directory with more is asked for.
const NAMES_MAX: usize = 100_000;

/// What is known of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It leads there.
    There(Ino),
    /// It is not there.
    Absent,
    /// The MDS must be asked.
    Unknown,
}

/// The names of a directory that this mount made, and on whose names it has held the lease since: what is not among them
/// is not there, so that nobody needs to be asked before a name is made.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// `None`: another mount has changed it since.
    names: HashMap<Box<[u8]>, Option<Ino>>,
}

impl Names {
    pub(crate) fn find(&self, name: &[u8]) -> Known {
        match self.names.get(name) {
            None => Known::Absent,
            Some(None) => Known::Unknown,
            Some(Some(ino)) => Known::There(*ino),
        }
    }

    /// The name leads there now. `false`: there are too many to remember, and nothing is known any more.
    #[must_use]
    pub(crate) fn add(&mut self, name: &[u8], ino: Option<Ino>) -> bool {
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(name) {
            return false;
        }
        self.names.insert(name.into(), ino);
        true
    }

    /// The name is not there any more.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Ino> {
        self.names.remove(name).flatten()
    }
}
