//! Every pattern of losses, and columns of different lengths.

use proptest::prelude::*;

use super::*;

fn parity_of(data: &[&[u8]], rows: usize) -> Vec<Vec<u8>> {
    let longest = data.iter().map(|column| column.len()).max().unwrap_or(0);
    let mut parity = vec![vec![0xaa; longest]; rows];
    generate(data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    parity
}

fn slices(columns: &[Vec<u8>]) -> Vec<&[u8]> {
    columns.iter().map(Vec::as_slice).collect()
}

/// Indices of the bits that are set.
fn members(set: u32) -> Vec<usize> {
    (0..32).filter(|bit| set & (1 << bit) != 0).collect()
}

/// Loses `lost` data columns and the parity columns `gone`; what comes back must be what was there.
fn lose(columns: &[Vec<u8>], rows: usize, lost: &[usize], gone: &[usize]) {
    let parity = parity_of(&slices(columns), rows);
    let garbage: Vec<Vec<u8>> = columns.iter().map(|column| vec![0x5a; column.len()]).collect();
    let pick = |index: usize| if lost.contains(&index) { &garbage[index][..] } else { &columns[index][..] };
    let left: Vec<&[u8]> = (0..columns.len()).map(pick).collect();
    let there: Vec<Option<&[u8]>> = parity
        .iter()
        .enumerate()
        .map(|(row, column)| (!gone.contains(&row)).then_some(&column[..]))
        .collect();
    let found = reconstruct(&left, lost, &there).expect("there is enough parity");
    for (column, index) in found.iter().zip(lost) {
        assert_eq!(
            column,
            &columns[*index],
            "column {index} of {}, parity {rows}, without {gone:?}",
            columns.len()
        );
    }
}

#[test]
fn known_values() {
    let data: [&[u8]; 3] = [&[0x01; 8], &[0x80; 8], &[0xff; 8]];
    // P = 01+80+ff, Q = 4*01+2*80+ff = 04+1d+ff, R = 16*01+4*80+ff = 10+3a+ff.
    assert_eq!(parity_of(&data, 3), [vec![0x7e; 8], vec![0xe6; 8], vec![0xd5; 8]]);
}

#[test]
fn any_losses_up_to_the_parity_come_back() {
    const COLUMNS: usize = 8;
    // Rows of a stripe: the first columns have one unit more, as in RAIDZ.
    let columns: Vec<Vec<u8>> = (0..COLUMNS)
        .map(|index| {
            (0..if index < 3 { 24 } else { 16 }).map(|at| (at * 37 + index * 101 + 5) as u8).collect()
        })
        .collect();
    for rows in 1..=PARITY_MAX {
        for set in 0..1_u32 << (COLUMNS + rows) {
            if set.count_ones() as usize > rows {
                continue;
            }
            let (lost, gone) = (members(set & ((1 << COLUMNS) - 1)), members(set >> COLUMNS));
            lose(&columns, rows, &lost, &gone);
        }
    }
}

#[test]
fn what_is_lost_beyond_the_parity_is_refused() {
    let columns = vec![vec![1; 8]; 4];
    let parity = parity_of(&slices(&columns), 2);
    let outcome = reconstruct(&slices(&columns), &[0, 2], &[None, Some(&parity[1])]);
    assert_eq!(outcome, Err(TooManyLost { lost: 2, parity: 1 }));
}

#[test]
fn the_widest_stripe_loses_its_ends() {
    let columns: Vec<Vec<u8>> = (0..DATA_MAX).map(|index| vec![(index * 7 + 3) as u8; 16]).collect();
    lose(&columns, 3, &[0, 127, DATA_MAX - 1], &[]);
    lose(&columns, 3, &[0, DATA_MAX - 1], &[0]);
    lose(&columns, 3, &[0, DATA_MAX - 1], &[1]);
}

proptest! {
    #[test]
    fn random_stripes_come_back(
        columns in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1200), 1..20),
        rows in 1..=PARITY_MAX,
        picks in prop::collection::vec(any::<prop::sample::Index>(), 3),
    ) {
        let columns: Vec<Vec<u8>> = columns
            .into_iter()
            .map(|mut column| {
                column.resize(column.len().next_multiple_of(UNIT_BYTES), 0);
                column
            })
            .collect();
        // Of data and parity alike, as many as there is parity.
        let mut all: Vec<usize> = picks[..rows].iter().map(|pick| pick.index(columns.len() + rows)).collect();
        all.sort_unstable();
        all.dedup();
        let (lost, gone): (Vec<usize>, Vec<usize>) = all.into_iter().partition(|index| *index < columns.len());
        let gone: Vec<usize> = gone.into_iter().map(|index| index - columns.len()).collect();
        lose(&columns, rows, &lost, &gone);
    }
}
