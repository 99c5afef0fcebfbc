//! Copies on every disk.

use std::sync::Arc;

use super::{Effort, Leaf, Matches, Read};

/// Neighbouring records are read from the same disk, which then sees them coming; so many sectors further it is the next one's turn: far
/// enough that what is read ahead is not for nothing.
const TURN_SECTORS: u64 = 8192;

/// Reads copies until one matches, or all of them.
pub(super) fn read(
    leaves: &[Arc<Leaf>],
    (first, sectors): (u64, u32),
    matches: Matches<'_>,
    effort: Effort,
) -> Option<Read> {
    let turn = (first / TURN_SECTORS) as usize;
    let mut right: Option<Vec<u8>> = None;
    let mut bad = Vec::new();
    let mut places: Vec<usize> = (0..leaves.len()).map(|n| (turn + n) % leaves.len()).collect();
    places.sort_by_key(|place| leaves[*place].is_behind());
    places.retain(|place| effort != Effort::Current || !leaves[*place].is_behind());
    for place in places {
        let leaf = &leaves[place];
        match leaf.read(first, sectors) {
            Some(bytes) if matches(&bytes) => {
                right.get_or_insert(bytes);
                if effort != Effort::All {
                    break;
                }
            }
            Some(_) => {
                leaf.note_checksum(first);
                bad.push(place);
            }
            None if leaf.is_there() => bad.push(place),
            None => {}
        }
    }
    let bytes = right?;
    let mut mended: Vec<usize> = bad.into_iter().filter(|place| leaves[*place].mend(first, &bytes)).collect();
    mended.sort_unstable();
    Some(Read { bytes, mended })
}
