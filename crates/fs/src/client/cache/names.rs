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

    /// The name leads there now; `None` when that is not known, or not covered by the lease. `false`: there are too many to
    /// remember, and nothing is known any more.
    #[must_use]
    pub(crate) fn add(&mut self, name: &[u8], ino: Option<Ino>) -> bool {
        if self.names.len() >= NAMES_MAX && !self.names.contains_key(name) {
            return false;
        }
        self.names.insert(name.into(), ino);
        true
    }

    /// The name is not there any more; what it led to. A name that the lease does not cover stays one that is asked for.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<Ino> {
        if self.find(name) == Known::Unknown {
            return None;
        }
        self.names.remove(name).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_made_here_is_not_there() {
        let mut names = Names::default();
        assert_eq!(names.find(b"a"), Known::Absent);
        assert!(names.add(b"a", Some(Ino(5))));
        assert_eq!(names.find(b"a"), Known::There(Ino(5)));
        assert_eq!(names.remove(b"a"), Some(Ino(5)));
        assert_eq!(names.find(b"a"), Known::Absent);
    }

    #[test]
    fn a_name_that_was_called_back_is_asked_for_until_it_is_granted_again() {
        let mut names = Names::default();
        assert!(names.add(b"a", None));
        assert_eq!(names.find(b"a"), Known::Unknown);
        assert_eq!(names.remove(b"a"), None);
        assert_eq!(names.find(b"a"), Known::Unknown, "the lease on it did not come back");
        assert!(names.add(b"a", Some(Ino(6))));
        assert_eq!(names.find(b"a"), Known::There(Ino(6)));
    }

    #[test]
    fn too_many_names_are_not_remembered() {
        let mut names = Names::default();
        for n in 0..NAMES_MAX {
            assert!(names.add(n.to_string().as_bytes(), None));
        }
        assert!(!names.add(b"one more", None));
        assert!(names.add(b"7", None), "one that is known already");
    }
}
