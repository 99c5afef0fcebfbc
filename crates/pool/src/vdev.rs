//! A vdev: disks that hold each record more than once, or with parity, and mend what does not match.
//!
//! A record is a run of whole sectors. Whether what was read is right, the caller says (`matches`): the checksum of a record lies with
//! whoever points to it, and not beside the record, where the same fault would meet both. A read that meets a bad copy answers the
//! right bytes, and writes them over the bad ones. What cannot be put together any more is [`Damaged`], and never wrong bytes.
//!
//! A single disk is a mirror of one.

mod incidents;
pub mod labels;
mod leaf;
mod mirror;
mod raidz;
mod syncers;
#[cfg(test)]
mod tests;

pub use incidents::{Counts, Incident, Incidents, Trouble};
pub use leaf::Leaf;

use std::sync::Arc;

use crate::core::raidz::Layout;
use syncers::Syncers;

/// What is read and written as a whole, in bytes.
pub const SECTOR_BYTES: usize = 4096;
/// Sectors of the largest record: 16 MiB.
pub const RECORD_SECTORS_MAX: u32 = 4096;

/// How the disks of a vdev keep records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redundancy {
    /// Each disk has all of it.
    Mirror,
    /// In columns, with parity.
    Raidz(Layout),
}

impl Redundancy {
    /// The sectors of a vdev that a record of so many sectors takes.
    pub fn allocated(self, sectors: u32) -> u64 {
        match self {
            Redundancy::Mirror => sectors.into(),
            Redundancy::Raidz(layout) => layout.allocated(sectors),
        }
    }
}

/// Says whether bytes are those of the record.
pub type Matches<'m> = &'m dyn Fn(&[u8]) -> bool;

/// See the module.
#[derive(Debug)]
pub struct Vdev {
    redundancy: Redundancy,
    /// **Invariant:** at least one; as many as a RAIDZ layout is wide.
    leaves: Vec<Arc<Leaf>>,
    syncers: Syncers,
}

/// What is read of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// As little as it takes.
    Enough,
    /// The same, and nothing from disks that are behind.
    Current,
    /// Everything that there is.
    All,
}

/// What was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The record.
    pub bytes: Vec<u8>,
    /// Disks that had something else, or could not be read, by their place in the vdev. It was written again.
    pub mended: Vec<usize>,
}

/// No copy, and nothing that can be computed, is what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at sector {first} is damaged beyond what its redundancy can mend")]
pub struct Damaged {
    /// Where the record begins, in sectors of the vdev.
    pub first: u64,
}

/// Too few disks took the record for it to be read again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} disks did not take the record at sector {first}", missed.len())]
pub struct NotWritten {
    /// Where the record begins, in sectors of the vdev.
    pub first: u64,
    /// The disks that failed, by their place in the vdev.
    pub missed: Vec<usize>,
}

impl Vdev {
    /// `None` when there are no disks, or not as many as the layout is wide.
    pub fn new(redundancy: Redundancy, leaves: Vec<Arc<Leaf>>) -> Option<Vdev> {
        let fits = match redundancy {
            Redundancy::Mirror => !leaves.is_empty(),
            Redundancy::Raidz(layout) => leaves.len() == layout.width(),
        };
        fits.then(|| Vdev { redundancy, leaves, syncers: Syncers::default() })
    }

    /// Its disks.
    pub fn leaves(&self) -> &[Arc<Leaf>] {
        &self.leaves
    }

    /// How its disks keep records.
    pub fn redundancy(&self) -> Redundancy {
        self.redundancy
    }

    /// Disks that may miss a record without its being lost.
    pub fn tolerates(&self) -> usize {
        match self.redundancy {
            Redundancy::Mirror => self.leaves.len() - 1,
            Redundancy::Raidz(layout) => layout.parity(),
        }
    }

    /// Writes a record, which is durable after [`Vdev::sync`]. The disks that missed it, by their place.
    ///
    /// # Panics
    ///
    /// Unless the record has 1 to [`RECORD_SECTORS_MAX`] whole sectors.
    pub fn write(&self, first: u64, bytes: &[u8]) -> Result<Vec<usize>, NotWritten> {
        self.write_all(&[(first, bytes)]).remove(0)
    }

    /// The same for several records, each with the sector where it begins. What is beside one another on a disk is written at once.
    ///
    /// # Panics
    ///
    /// As [`Vdev::write`].
    pub fn write_all(&self, records: &[(u64, &[u8])]) -> Vec<Result<Vec<usize>, NotWritten>> {
        let mut missed: Vec<Vec<usize>> = vec![Vec::new(); records.len()];
        let parity: Vec<Vec<Vec<u8>>> = match self.redundancy {
            Redundancy::Mirror => Vec::new(),
            Redundancy::Raidz(layout) => records
                .iter()
                .map(|(first, bytes)| raidz::parity(&layout.stripe(*first, sectors_of(bytes.len())), bytes))
                .collect(),
        };
        let mut segments = Vec::new();
        for (record, (first, bytes)) in records.iter().enumerate() {
            let sectors = sectors_of(bytes.len());
            match self.redundancy {
                Redundancy::Mirror => {
                    let of = |leaf| Segment { leaf, row: *first, bytes, record };
                    segments.extend((0..self.leaves.len()).map(of));
                }
                Redundancy::Raidz(layout) => {
                    let columns = raidz::columns(layout, (*first, sectors), bytes, &parity[record]);
                    segments.extend(columns.into_iter().map(|(leaf, row, bytes)| Segment {
                        leaf,
                        row,
                        bytes,
                        record,
                    }));
                }
            }
        }
        segments.sort_by_key(|segment| (segment.leaf, segment.row));
        let follows = |a: &Segment<'_>, b: &Segment<'_>| {
            (a.leaf, a.row + (a.bytes.len() / SECTOR_BYTES) as u64) == (b.leaf, b.row)
        };
        for run in segments.chunk_by(follows) {
            let parts: Vec<&[u8]> = run.iter().map(|segment| segment.bytes).collect();
            if !self.leaves[run[0].leaf].write(run[0].row, &parts) {
                for segment in run {
                    missed[segment.record].push(segment.leaf);
                }
            }
        }
        let told = records.iter().zip(missed).map(|((first, _), mut missed)| {
            missed.dedup();
            if missed.len() > self.tolerates() {
                Err(NotWritten { first: *first, missed })
            } else {
                Ok(missed)
            }
        });
        told.collect()
    }

    /// Reads a record of so many sectors, from as few disks as it takes.
    ///
    /// # Panics
    ///
    /// As [`Vdev::write`].
    pub fn read(&self, first: u64, sectors: u32, matches: Matches<'_>) -> Result<Read, Damaged> {
        self.read_of(first, sectors, matches, Effort::Enough)
    }

    /// Reads a record that says itself whether it is one, and so may be old on a disk that has missed something: such disks are not
    /// asked.
    ///
    /// # Panics
    ///
    /// As [`Vdev::write`].
    pub fn read_current(&self, first: u64, sectors: u32, matches: Matches<'_>) -> Result<Read, Damaged> {
        self.read_of(first, sectors, matches, Effort::Current)
    }

    /// Reads all that there is of a record, parity too, and mends what is not right: a scrub.
    ///
    /// # Panics
    ///
    /// As [`Vdev::write`].
    pub fn verify(&self, first: u64, sectors: u32, matches: Matches<'_>) -> Result<Read, Damaged> {
        self.read_of(first, sectors, matches, Effort::All)
    }

    fn read_of(
        &self,
        first: u64,
        sectors: u32,
        matches: Matches<'_>,
        effort: Effort,
    ) -> Result<Read, Damaged> {
        assert!((1..=RECORD_SECTORS_MAX).contains(&sectors), "a record of {sectors} sectors");
        let read = match self.redundancy {
            Redundancy::Mirror => mirror::read(&self.leaves, (first, sectors), matches, effort),
            Redundancy::Raidz(layout) => {
                raidz::read(&self.leaves, &layout.stripe(first, sectors), matches, effort)
            }
        };
        read.ok_or(Damaged { first })
    }

    /// Makes everything durable that was written, on all disks at once. Those where that failed, by their place: what they were to hold
    /// may be gone.
    pub fn sync(&self) -> Vec<usize> {
        // Those that hold something back, and those that are doubtful, which are told again.
        let concerned: Vec<(usize, &Arc<Leaf>)> =
            self.leaves.iter().enumerate().filter(|(_, leaf)| leaf.needs_sync()).collect();
        let leaves: Vec<&Arc<Leaf>> = concerned.iter().map(|(_, leaf)| *leaf).collect();
        let synced = self.syncers.sync_all(&leaves);
        concerned.iter().zip(synced).filter(|(_, synced)| !synced).map(|((place, _), _)| *place).collect()
    }
}

/// A part of a record on a disk.
#[derive(Clone, Copy, Debug)]
struct Segment<'b> {
    leaf: usize,
    row: u64,
    bytes: &'b [u8],
    record: usize,
}

fn sectors_of(bytes: usize) -> u32 {
    let sectors = bytes / SECTOR_BYTES;
    let whole = bytes.is_multiple_of(SECTOR_BYTES) && (1..=RECORD_SECTORS_MAX as usize).contains(&sectors);
    assert!(whole, "a record of {bytes} bytes");
    sectors as u32
}
