//! Columns on different disks, some of them parity.

use std::sync::Arc;

use super::{Effort, Leaf, Matches, Read, SECTOR_BYTES};
use crate::core::raidz::{Column, Layout, Stripe};
use crate::parity::{generate, reconstruct};

/// What the parity columns of a record hold.
pub(super) fn parity(stripe: &Stripe, bytes: &[u8]) -> Vec<Vec<u8>> {
    parity_of(stripe, &split(stripe, bytes))
}

/// All columns of a record: disk, row and bytes of each. What is left over at its end is among them, as zeros, so that on each disk the
/// next record follows without a gap.
pub(super) fn columns<'b>(
    layout: Layout,
    (first, sectors): (u64, u32),
    bytes: &'b [u8],
    parity: &'b [Vec<u8>],
) -> Vec<(usize, u64, &'b [u8])> {
    const ZEROS: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];
    let stripe = layout.stripe(first, sectors);
    let places =
        |columns: &[Column]| columns.iter().map(|column| (column.disk, column.row)).collect::<Vec<_>>();
    let parity = places(stripe.parity()).into_iter().zip(parity.iter().map(Vec::as_slice));
    let data = places(stripe.data()).into_iter().zip(split(&stripe, bytes));
    let used =
        stripe.parity().iter().chain(stripe.data()).map(|column| u64::from(column.sectors)).sum::<u64>();
    let width = layout.width() as u64;
    let rest = (first + used..first + layout.allocated(sectors))
        .map(|sector| (((sector % width) as usize, sector / width), &ZEROS[..]));
    parity.chain(data).chain(rest).map(|((disk, row), bytes)| (disk, row, bytes)).collect()
}

/// The data columns alone, if that is all it takes; else every column, and those taken for bad that make the rest match.
pub(super) fn read(
    leaves: &[Arc<Leaf>],
    stripe: &Stripe,
    matches: Matches<'_>,
    effort: Effort,
) -> Option<Read> {
    let of = |column: &Column| {
        let leaf = &leaves[column.disk];
        let asked = effort != Effort::Current || !leaf.is_behind();
        asked.then(|| leaf.read(column.row, column.sectors)).flatten()
    };
    let data: Vec<Option<Vec<u8>>> = stripe.data().iter().map(of).collect();
    let whole = data.iter().map(Option::as_deref).collect::<Option<Vec<_>>>().map(|columns| columns.concat());
    let right = whole.filter(|bytes| matches(bytes));
    if effort != Effort::All
        && let Some(bytes) = right
    {
        return Some(Read { bytes, mended: Vec::new() });
    }
    let parity: Vec<Option<Vec<u8>>> = stripe.parity().iter().map(of).collect();
    let bytes = match right {
        Some(bytes) => bytes,
        None => search(stripe, &data, &parity, matches)?,
    };
    let mended = mend(leaves, stripe, &bytes, parity.into_iter().chain(data));
    Some(Read { bytes, mended })
}

/// Takes sets of columns for bad, small ones first, until the record that follows from the others matches.
fn search(
    stripe: &Stripe,
    data: &[Option<Vec<u8>>],
    parity: &[Option<Vec<u8>>],
    matches: Matches<'_>,
) -> Option<Vec<u8>> {
    let columns = data.len() + parity.len();
    let unread: Vec<usize> = (data.iter().chain(parity).enumerate())
        .filter_map(|(index, column)| column.is_none().then_some(index))
        .collect();
    let readable: Vec<usize> = (0..columns).filter(|index| !unread.contains(index)).collect();
    let spare = parity.len().checked_sub(unread.len())?;
    (0..=spare).find_map(|count| {
        combinations(&readable, count).find_map(|suspects| {
            let bad = |index: usize| unread.contains(&index) || suspects.contains(&index);
            without(stripe, data, parity, &bad).filter(|bytes| matches(bytes))
        })
    })
}

/// The record as it follows from the columns that are not bad; parity columns are numbered behind the data columns.
fn without(
    stripe: &Stripe,
    data: &[Option<Vec<u8>>],
    parity: &[Option<Vec<u8>>],
    bad: &dyn Fn(usize) -> bool,
) -> Option<Vec<u8>> {
    let lost: Vec<usize> = (0..data.len()).filter(|index| bad(*index)).collect();
    // Of what could not be read only the length is asked for.
    let zeros = vec![0; bytes_of(&stripe.parity()[0])];
    let columns: Vec<&[u8]> = (data.iter().zip(stripe.data()))
        .map(|(bytes, column)| bytes.as_deref().unwrap_or(&zeros[..bytes_of(column)]))
        .collect();
    let there: Vec<Option<&[u8]>> = (parity.iter().enumerate())
        .map(|(row, column)| column.as_deref().filter(|_| !bad(data.len() + row)))
        .collect();
    let found = reconstruct(&columns, &lost, &there).ok()?;
    let mut found = found.iter();
    let joined: Vec<&[u8]> = (columns.iter().enumerate())
        .map(
            |(index, column)| {
                if lost.contains(&index) { found.next().map_or(*column, Vec::as_slice) } else { column }
            },
        )
        .collect();
    Some(joined.concat())
}

/// Writes the columns again that were read otherwise, or could not be read. Their disks.
fn mend(
    leaves: &[Arc<Leaf>],
    stripe: &Stripe,
    bytes: &[u8],
    read: impl Iterator<Item = Option<Vec<u8>>>,
) -> Vec<usize> {
    let data = split(stripe, bytes);
    let parity = parity_of(stripe, &data);
    let columns = stripe.parity().iter().chain(stripe.data());
    let right = parity.iter().map(Vec::as_slice).chain(data);
    let mut mended = Vec::new();
    for ((column, right), read) in columns.zip(right).zip(read) {
        let leaf = &leaves[column.disk];
        if read.as_deref() == Some(right) || !leaf.is_there() {
            continue;
        }
        if read.is_some() {
            leaf.note_checksum(column.row);
        }
        if leaf.mend(column.row, right) {
            mended.push(column.disk);
        }
    }
    mended.sort_unstable();
    mended
}

/// The bytes of each data column.
fn split<'b>(stripe: &Stripe, bytes: &'b [u8]) -> Vec<&'b [u8]> {
    let mut rest = bytes;
    let column = |column: &Column| {
        let (now, later) = rest.split_at(bytes_of(column));
        rest = later;
        now
    };
    stripe.data().iter().map(column).collect()
}

fn parity_of(stripe: &Stripe, data: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut parity: Vec<Vec<u8>> = stripe.parity().iter().map(|column| vec![0; bytes_of(column)]).collect();
    generate(data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    parity
}

fn bytes_of(column: &Column) -> usize {
    column.sectors as usize * SECTOR_BYTES
}

/// Every way to pick `count` of `of`.
fn combinations(of: &[usize], count: usize) -> Box<dyn Iterator<Item = Vec<usize>> + '_> {
    if count == 0 {
        return Box::new(std::iter::once(Vec::new()));
    }
    let begin_with = move |at: usize| {
        combinations(&of[at + 1..], count - 1).map(move |mut rest| {
            rest.insert(0, of[at]);
            rest
        })
    };
    Box::new((0..of.len()).flat_map(begin_with))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_comes_once() {
        let all: Vec<Vec<usize>> = combinations(&[1, 2, 3, 4], 2).collect();
        assert_eq!(all, [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]);
        assert_eq!(combinations(&[1, 2], 3).count(), 0);
        assert_eq!(combinations(&[], 0).count(), 1);
    }
}
