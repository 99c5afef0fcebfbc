//! What goes wrong on a disk: counted since it was opened, and kept one by one until somebody tells of it.

/// What went wrong on a disk since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads that failed.
    pub read: u64,
    /// Writes and syncs that failed.
    pub write: u64,
    /// Parts of records that were read and were not what was written.
    pub checksum: u64,
    /// Parts of records that were written again, because they were not what was written, or could not be read.
    pub mended: u64,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Something could not be read.
    Read,
    /// Something could not be written.
    Write,
    /// What was written could not be made durable.
    Flush,
    /// What was read is not what was written.
    Checksum,
    /// That, or what could not be read, was written again.
    Mended,
}

/// Something that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// What.
    pub what: Trouble,
    /// Where on the disk, in bytes; `None` of the disk as a whole.
    pub at: Option<u64>,
}

/// What went wrong since somebody asked last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incidents {
    /// The first of them, in order; at most [`Incidents::KEPT_MAX`].
    pub first: Vec<Incident>,
    /// How many more there were.
    pub more: Counts,
}

impl Incidents {
    /// Incidents that are kept one by one.
    pub const KEPT_MAX: usize = 64;

    /// Whether nothing went wrong.
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }
}

/// The book of one disk.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) counts: Counts,
    pub(super) untold: Incidents,
}

impl Book {
    pub(super) fn note(&mut self, what: Trouble, at: Option<u64>) {
        self.counts.add(what);
        let Incidents { first, more } = &mut self.untold;
        if first.len() < Incidents::KEPT_MAX {
            first.push(Incident { what, at });
        } else {
            more.add(what);
        }
    }
}

impl Counts {
    fn add(&mut self, what: Trouble) {
        *match what {
            Trouble::Read => &mut self.read,
            Trouble::Write | Trouble::Flush => &mut self.write,
            Trouble::Checksum => &mut self.checksum,
            Trouble::Mended => &mut self.mended,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_counted_and_the_first_of_it_kept() {
        let mut book = Book::default();
        book.note(Trouble::Flush, None);
        for at in 0..100 {
            book.note(Trouble::Checksum, Some(at));
        }
        assert_eq!(book.counts, Counts { write: 1, checksum: 100, ..Counts::default() });
        let told = std::mem::take(&mut book.untold);
        assert_eq!(told.first.len(), Incidents::KEPT_MAX);
        assert_eq!(told.first[0], Incident { what: Trouble::Flush, at: None });
        assert_eq!(told.first[1], Incident { what: Trouble::Checksum, at: Some(0) });
        assert_eq!(told.more, Counts { checksum: 101 - Incidents::KEPT_MAX as u64, ..Counts::default() });
        assert!(book.untold.is_empty() && book.counts.checksum == 100);
    }
}
