//! Which part of a log was written or read so recently that it is surely in the page cache.

use std::collections::VecDeque;

/// Appended bytes per mark.
const MARK_BYTES: u64 = 1 << 20;

/// Marks kept: this many mebibytes of the newest data count as warm.
const MARKS_MAX: usize = 64;

/// The newest appended data, in steps of a mebibyte.
#[derive(Debug, Default)]
pub(crate) struct Warm {
    /// First offsets of the steps, oldest first; never more than [`MARKS_MAX`].
    marks: VecDeque<i64>,
    /// Bytes in the newest step.
    filled: u64,
}

impl Warm {
    /// Notes that `bytes` were appended from offset `base` on.
    pub(crate) fn appended(&mut self, base: i64, bytes: u64) {
        if self.marks.is_empty() || self.filled >= MARK_BYTES {
            if self.marks.len() == MARKS_MAX {
                self.marks.pop_front();
            }
            self.marks.push_back(base);
            self.filled = 0;
        }
        self.filled += bytes;
    }

    /// Whether everything from `offset` on was appended recently.
    pub(crate) fn covers(&self, offset: i64) -> bool {
        self.marks.front().is_some_and(|first| *first <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_steps_are_warm() {
        let mut warm = Warm::default();
        assert!(!warm.covers(0));
        for base in 0..200 {
            warm.appended(base, MARK_BYTES / 2);
        }
        assert!(warm.covers(199) && warm.covers(72));
        assert!(!warm.covers(71));
        assert_eq!(warm.marks.len(), MARKS_MAX);
    }
}
