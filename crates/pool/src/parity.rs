//! Parity of a stripe: up to three columns that are computed of the others, and the way back.
//!
//! A stripe has data columns `D[0] .. D[n-1]` and parity columns P, Q, R over the field GF(2^8) of [`field`]:
//!
//! ```text
//! P = sum of D[i]          Q = sum of 2^(n-1-i) D[i]          R = sum of 4^(n-1-i) D[i]
//! ```
//!
//! P alone is RAID-5; P and Q are H. P. Anvin's "The mathematics of RAID-6" with the powers counted from the last column, so that
//! each is one pass of Horner's rule; R is the next row of the same Vandermonde matrix, as RAIDZ3 has it. The powers of 2 are
//! distinct for 255 columns, and every square part of the first three rows of such a matrix can be inverted: any columns that are
//! lost, as many as there is parity, come back.
//!
//! A column may be shorter than the longest; what it lacks counts as zeros.

mod field;
#[cfg(test)]
mod tests;

use field::{Times, WORD_BYTES, double_word, inverse, power, product, words, words_mut};

/// Parity columns of a stripe.
pub const PARITY_MAX: usize = 3;
/// Data columns of a stripe.
pub const DATA_MAX: usize = 255;
/// Lengths of columns are multiples of it.
pub const UNIT_BYTES: usize = WORD_BYTES;

/// How much of each column is worked on at a time, so that the parity stays in the processor's first cache.
const BLOCK_BYTES: usize = 4096;

/// Computes the parity of `data` into `parity`: P, or P and Q, or all three.
///
/// # Panics
///
/// Unless there are 1 to [`DATA_MAX`] data and 1 to [`PARITY_MAX`] parity columns, the parity columns are as long as the longest
/// data column, and all lengths are multiples of [`UNIT_BYTES`].
pub fn generate(data: &[&[u8]], parity: &mut [&mut [u8]]) {
    check(data, parity);
    for column in parity.iter_mut() {
        column.fill(0);
    }
    sum(data, parity);
}

/// Adds columns to parity that is zero, by Horner's rule. A column may be empty: it counts in the powers of those before it.
fn sum(data: &[&[u8]], parity: &mut [&mut [u8]]) {
    let len = parity[0].len();
    for begin in (0..len).step_by(BLOCK_BYTES) {
        let end = (begin + BLOCK_BYTES).min(len);
        for column in data {
            add_block(&column[begin.min(column.len())..end.min(column.len())], parity, begin, end);
        }
    }
}

/// One step of Horner's rule for a block of each parity column.
fn add_block(data: &[u8], parity: &mut [&mut [u8]], begin: usize, end: usize) {
    let common = begin + data.len();
    match parity {
        [p] => add(&mut p[begin..common], data),
        [p, q] => {
            add(&mut p[begin..common], data);
            double_and_add(&mut q[begin..end], data);
        }
        [p, q, r] => {
            add(&mut p[begin..common], data);
            double_and_add(&mut q[begin..end], data);
            quadruple_and_add(&mut r[begin..end], data);
        }
        _ => unreachable!("there are one to three parity columns"),
    }
}

/// `into += data`; both have the same length.
fn add(into: &mut [u8], data: &[u8]) {
    for (into, data) in words_mut(into).zip(words(data)) {
        *into = (u64::from_ne_bytes(*into) ^ u64::from_ne_bytes(*data)).to_ne_bytes();
    }
}

/// `into = 2 into + data`; `data` may be shorter.
fn double_and_add(into: &mut [u8], data: &[u8]) {
    let (front, rest) = into.split_at_mut(data.len());
    for (into, data) in words_mut(front).zip(words(data)) {
        *into = (double_word(u64::from_ne_bytes(*into)) ^ u64::from_ne_bytes(*data)).to_ne_bytes();
    }
    for into in words_mut(rest) {
        *into = double_word(u64::from_ne_bytes(*into)).to_ne_bytes();
    }
}

/// `into = 4 into + data`; `data` may be shorter.
fn quadruple_and_add(into: &mut [u8], data: &[u8]) {
    let quadruple = |word: &[u8; WORD_BYTES]| double_word(double_word(u64::from_ne_bytes(*word)));
    let (front, rest) = into.split_at_mut(data.len());
    for (into, data) in words_mut(front).zip(words(data)) {
        *into = (quadruple(into) ^ u64::from_ne_bytes(*data)).to_ne_bytes();
    }
    for into in words_mut(rest) {
        *into = quadruple(into).to_ne_bytes();
    }
}

fn check(data: &[&[u8]], parity: &[&mut [u8]]) {
    assert!((1..=DATA_MAX).contains(&data.len()), "{} data columns", data.len());
    assert!((1..=PARITY_MAX).contains(&parity.len()), "{} parity columns", parity.len());
    let longest = data.iter().map(|column| column.len()).max().unwrap_or(0);
    assert!(parity.iter().all(|column| column.len() == longest), "parity is as long as the longest column");
    assert!(data.iter().all(|column| column.len().is_multiple_of(UNIT_BYTES)), "columns of whole units");
}

/// Too much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{lost} data columns are lost, and {parity} parity columns are there")]
pub struct TooManyLost {
    /// Data columns that are lost.
    pub lost: usize,
    /// Parity columns that are there.
    pub parity: usize,
}

/// Computes data columns that are lost from what is there, in the order of `lost`.
///
/// Of `data`, the columns at the indices `lost` (ascending) are taken only for their length; `parity` are P, Q, R as far as there are
/// any, `None` where one is lost.
///
/// # Panics
///
/// As [`generate`]; and when an index is not one of a column, or not above the one before.
pub fn reconstruct(
    data: &[&[u8]],
    lost: &[usize],
    parity: &[Option<&[u8]>],
) -> Result<Vec<Vec<u8>>, TooManyLost> {
    let there: Vec<(usize, &[u8])> =
        parity.iter().enumerate().filter_map(|(row, column)| column.map(|column| (row, column))).collect();
    assert!(lost.windows(2).all(|pair| pair[0] < pair[1]), "ascending indices");
    assert!(lost.last().is_none_or(|last| *last < data.len()), "indices of columns");
    if lost.is_empty() {
        return Ok(Vec::new());
    }
    if there.len() < lost.len() {
        return Err(TooManyLost { lost: lost.len(), parity: there.len() });
    }
    let used = &there[..lost.len()];
    let syndromes = syndromes(data, lost, parity.len(), used);
    let matrix = invert(&coefficients(data.len(), lost, used));
    let solved = matrix.iter().zip(lost).map(|(row, index)| {
        let mut column = vec![0; data[*index].len()];
        for (factor, syndrome) in row.iter().zip(&syndromes) {
            Times::new(*factor).add_to(&mut column, syndrome);
        }
        column
    });
    Ok(solved.collect())
}

/// What the lost columns add to each of the used parity columns.
fn syndromes(data: &[&[u8]], lost: &[usize], rows: usize, used: &[(usize, &[u8])]) -> Vec<Vec<u8>> {
    let longest = data.iter().map(|column| column.len()).max().unwrap_or(0);
    let known: Vec<&[u8]> = (data.iter().enumerate())
        .map(|(index, column)| if lost.contains(&index) { &[][..] } else { *column })
        .collect();
    let mut sums = vec![vec![0; longest]; rows];
    sum(&known, &mut sums.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    let of_used = used.iter().map(|(row, column)| {
        assert_eq!(column.len(), longest, "parity is as long as the longest column");
        let mut sum = std::mem::take(&mut sums[*row]);
        add(&mut sum, column);
        sum
    });
    of_used.collect()
}

/// What each lost column counts in each of the used parity columns.
fn coefficients(columns: usize, lost: &[usize], used: &[(usize, &[u8])]) -> Vec<Vec<u8>> {
    let row = |(row, _): &(usize, &[u8])| {
        lost.iter().map(|index| power((columns - 1 - index) * row)).collect::<Vec<u8>>()
    };
    used.iter().map(row).collect()
}

/// The inverse of a matrix that has one, by Gauss and Jordan.
fn invert(matrix: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let size = matrix.len();
    let mut rows: Vec<Vec<u8>> = (0..size)
        .map(|row| {
            let unit = (0..size).map(|column| u8::from(column == row));
            matrix[row].iter().copied().chain(unit).collect()
        })
        .collect();
    for pivot in 0..size {
        let found = (pivot..size).find(|row| rows[*row][pivot] != 0);
        rows.swap(pivot, found.expect("parts of a Vandermonde matrix can be inverted"));
        let scale = inverse(rows[pivot][pivot]);
        rows[pivot].iter_mut().for_each(|cell| *cell = product(*cell, scale));
        let pivot_row = rows[pivot].clone();
        for row in (0..size).filter(|row| *row != pivot) {
            let factor = rows[row][pivot];
            for (cell, above) in rows[row].iter_mut().zip(&pivot_row) {
                *cell ^= product(*above, factor);
            }
        }
    }
    rows.into_iter().map(|row| row[size..].to_vec()).collect()
}
