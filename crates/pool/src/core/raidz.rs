//! Where a record lies on the disks of a RAIDZ vdev.
//!
//! The sectors of all disks are numbered row by row: sector `n` is in row `n / width` of disk `n % width`. A record takes sectors that
//! follow one another; read column by column, the first columns are its parity and the others its data:
//!
//! ```text
//! width 5, parity 1, 6 sectors of data from sector 3:      disk   0   1   2   3   4
//!                                                          row 0              P0  D0
//! columns: P (2 rows) on disk 3, D0 D1 on disk 4,          row 1  D2  D4  D5  P1  D1
//! D2 D3 on disk 0, D4 on disk 1, D5 on disk 2              row 2  D3
//! ```
//!
//! Each record has parity of its own over all of its rows, so that it is written as a whole and nothing of another record has to be
//! read or written for it: there is no write hole. The layout is RAID-Z's, as J. Bonwick described it in 2005. What a record takes is
//! rounded up to multiples of `parity + 1` sectors, the least that a record can take, so that no gap stays that nothing fits in.

use crate::parity::PARITY_MAX;

/// Disks of a RAIDZ vdev. It bounds what is tried to mend a record: with three parity columns 5,489 sets of columns.
pub const WIDTH_MAX: usize = 32;

/// How many disks a RAIDZ vdev has, and how many of them it can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// **Invariant:** more than `parity`, at most [`WIDTH_MAX`].
    width: usize,
    /// **Invariant:** 1 to [`PARITY_MAX`].
    parity: usize,
}

/// A part of a record on one disk: sectors that follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Which disk.
    pub disk: usize,
    /// The first sector on that disk.
    pub row: u64,
    /// How many; at least one.
    pub sectors: u32,
}

/// The columns of a record: parity in front, then data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stripe {
    columns: Vec<Column>,
    parity: usize,
}

impl Layout {
    /// `None` when there cannot be such a vdev.
    pub fn new(width: usize, parity: usize) -> Option<Layout> {
        let fits = (1..=PARITY_MAX).contains(&parity) && width > parity && width <= WIDTH_MAX;
        fits.then_some(Layout { width, parity })
    }

    /// Disks.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Disks that can be lost.
    pub fn parity(&self) -> usize {
        self.parity
    }

    /// The sectors that a record of so many sectors takes, with its parity and the rounding.
    pub fn allocated(&self, sectors: u32) -> u64 {
        let rows = u64::from(sectors).div_ceil((self.width - self.parity) as u64);
        let used = u64::from(sectors) + rows * self.parity as u64;
        used.next_multiple_of(self.parity as u64 + 1)
    }

    /// The columns of a record of so many sectors that begins at `first`.
    ///
    /// # Panics
    ///
    /// For a record without sectors.
    pub fn stripe(&self, first: u64, sectors: u32) -> Stripe {
        assert!(sectors > 0, "a record has a sector at least");
        let width = self.width as u64;
        let data_width = (self.width - self.parity) as u32;
        let (whole_rows, rest) = (sectors / data_width, sectors % data_width);
        // So many columns have one sector more than the others.
        let long = if rest == 0 { 0 } else { rest as usize + self.parity };
        let count = if whole_rows == 0 { long } else { self.width };
        let columns = (0..count as u64).map(|index| {
            let at = first + index;
            let sectors = whole_rows + u32::from((index as usize) < long);
            Column { disk: (at % width) as usize, row: at / width, sectors }
        });
        Stripe { columns: columns.collect(), parity: self.parity }
    }
}

impl Stripe {
    /// P, Q and R, as far as there are.
    pub fn parity(&self) -> &[Column] {
        &self.columns[..self.parity]
    }

    /// The data, in the order of the record's bytes.
    pub fn data(&self) -> &[Column] {
        &self.columns[self.parity..]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn column(disk: usize, row: u64, sectors: u32) -> Column {
        Column { disk, row, sectors }
    }

    #[test]
    fn the_picture_above() {
        let layout = Layout::new(5, 1).expect("it can be");
        let stripe = layout.stripe(3, 6);
        assert_eq!(stripe.parity(), [column(3, 0, 2)]);
        assert_eq!(stripe.data(), [column(4, 0, 2), column(0, 1, 2), column(1, 1, 1), column(2, 1, 1)]);
        assert_eq!(layout.allocated(6), 8);
    }

    #[test]
    fn a_record_of_one_sector_is_mirrored_by_its_parity() {
        let layout = Layout::new(7, 2).expect("it can be");
        let stripe = layout.stripe(6, 1);
        assert_eq!(stripe.parity(), [column(6, 0, 1), column(0, 1, 1)]);
        assert_eq!(stripe.data(), [column(1, 1, 1)]);
        assert_eq!(layout.allocated(1), 3);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (width, parity) in [(1, 1), (0, 0), (3, 0), (3, 3), (9, 4), (WIDTH_MAX + 1, 1)] {
            assert_eq!(Layout::new(width, parity), None, "{width} disks, parity {parity}");
        }
    }

    proptest! {
        /// Sectors of a record lie side by side in the numbering, within what is allocated, on different disks in each row.
        #[test]
        fn a_record_takes_what_was_allocated(
            width in 2_usize..20,
            parity in 1_usize..=3,
            first in 0_u64..1000,
            sectors in 1_u32..300,
        ) {
            prop_assume!(parity < width);
            let layout = Layout::new(width, parity).expect("it can be");
            let stripe = layout.stripe(first, sectors);
            let all = || stripe.parity().iter().chain(stripe.data());
            let taken: BTreeSet<u64> = all()
                .flat_map(|column| (0..u64::from(column.sectors)).map(move |n| (column.row + n, column.disk)))
                .map(|(row, disk)| row * width as u64 + disk as u64)
                .collect();
            let count: u64 = all().map(|column| u64::from(column.sectors)).sum();
            prop_assert_eq!(taken.len() as u64, count, "no sector twice");
            prop_assert_eq!(taken.first().copied(), Some(first));
            prop_assert_eq!(taken.last().copied(), Some(first + count - 1), "without gaps");
            let allocated = layout.allocated(sectors);
            prop_assert!(count <= allocated && allocated - count <= parity as u64);
            prop_assert_eq!(allocated % (parity as u64 + 1), 0);
            let data: u32 = stripe.data().iter().map(|column| column.sectors).sum();
            prop_assert_eq!(data, sectors);
            // A disk that is lost takes one column at most, and no column is longer than the parity.
            let disks: BTreeSet<usize> = all().map(|column| column.disk).collect();
            prop_assert_eq!(disks.len(), all().count());
            let longest = all().map(|column| column.sectors).max();
            prop_assert!(stripe.parity().iter().all(|column| Some(column.sectors) == longest));
            // The longer columns come first, as the parity of what is missing at the end counts as zeros.
            prop_assert!(stripe.data().is_sorted_by(|a, b| a.sectors >= b.sectors));
        }
    }
}
