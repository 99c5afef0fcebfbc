//! The bytes of one simulated file: what a reader sees, and what would be there after a power failure.

use std::collections::BTreeSet;

use super::SECTOR_BYTES;
use crate::rng::SimRng;

/// A change that no sync has covered yet.
#[derive(Debug)]
enum Change {
    Write { pos: usize, bytes: Vec<u8> },
    Length(usize),
}

/// The unit in which a file that was extended has holes, in bytes.
const BLOCK_BYTES: usize = 4096;

/// What happens to one unsynced change when the power fails.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    /// Some of its sectors are kept.
    Torn,
}

/// One file's bytes.
#[derive(Debug, Default)]
pub(super) struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// In the order they were made. `durable` with all of them applied is `live`, unless a sync failed.
    pending: Vec<Change>,
    /// Blocks of `live` that it was extended by and that were not written since: they take no space.
    holes: BTreeSet<usize>,
}

impl Content {
    pub(super) fn live(&self) -> &[u8] {
        &self.live
    }

    /// What it takes of the disk.
    pub(super) fn disk_bytes(&self) -> usize {
        self.live.len() - self.holes.len() * BLOCK_BYTES
    }

    /// How many bytes of a write at `pos` there is room for on a disk that has `free` bytes.
    pub(super) fn fitting(&self, pos: usize, len: usize, free: usize) -> usize {
        let filled = self.holes.range(blocks(pos, len)).count() * BLOCK_BYTES;
        match free.checked_sub(filled) {
            Some(free) => self.live.len().saturating_add(free).saturating_sub(pos).min(len),
            None => 0,
        }
    }

    pub(super) fn write(&mut self, pos: usize, bytes: &[u8]) {
        for block in blocks(pos, bytes.len()) {
            self.holes.remove(&block);
        }
        put(&mut self.live, pos, bytes);
        self.pending.push(Change::Write { pos, bytes: bytes.to_vec() });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.holes.extend(self.live.len().div_ceil(BLOCK_BYTES)..len / BLOCK_BYTES);
        self.holes.split_off(&(len / BLOCK_BYTES));
        self.live.resize(len, 0);
        self.pending.push(Change::Length(len));
    }

    pub(super) fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { pos, bytes } => put(&mut self.durable, pos, &bytes),
                Change::Length(len) => self.durable.resize(len, 0),
            }
        }
    }

    /// A sync that fails: as on Linux, the pages count as clean from then on, so no later sync writes them.
    pub(super) fn fail_sync(&mut self) {
        self.pending.clear();
    }

    /// Flips the bits of `mask` at `pos`, on the medium and in the cache; false when the file ends before.
    pub(super) fn rot(&mut self, pos: usize, mask: u8) -> bool {
        let Some(byte) = self.live.get_mut(pos) else { return false };
        *byte ^= mask;
        if let Some(byte) = self.durable.get_mut(pos) {
            *byte ^= mask;
        }
        true
    }

    pub(super) fn lose_power(&mut self, rng: &SimRng) {
        for change in std::mem::take(&mut self.pending) {
            let fate = match rng.below(3) {
                0 => Fate::Kept,
                1 => Fate::Lost,
                _ => Fate::Torn,
            };
            self.settle(&change, fate, rng);
        }
        self.live.clone_from(&self.durable);
        self.holes.split_off(&(self.live.len() / BLOCK_BYTES));
    }

    fn settle(&mut self, change: &Change, fate: Fate, rng: &SimRng) {
        match (change, fate) {
            (_, Fate::Lost) => {}
            (Change::Length(len), _) => self.durable.resize(*len, 0),
            (Change::Write { pos, bytes }, Fate::Kept) => put(&mut self.durable, *pos, bytes),
            (Change::Write { pos, bytes }, Fate::Torn) => {
                for (at, part) in sectors(*pos, bytes) {
                    if rng.below(2) == 0 {
                        put(&mut self.durable, at, part);
                    }
                }
            }
        }
    }
}

fn put(content: &mut Vec<u8>, pos: usize, bytes: &[u8]) {
    let end = pos + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[pos..end].copy_from_slice(bytes);
}

/// The blocks that have a part of these bytes.
fn blocks(pos: usize, len: usize) -> std::ops::Range<usize> {
    pos / BLOCK_BYTES..(pos + len).div_ceil(BLOCK_BYTES)
}

/// Cuts a write at `pos` at the sector boundaries.
fn sectors(pos: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = pos;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let room = SECTOR_BYTES - at % SECTOR_BYTES;
        let (part, tail) = rest.split_at(room.min(rest.len()));
        let here = at;
        at += part.len();
        rest = tail;
        Some((here, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_torn_only_at_sector_boundaries() {
        let bytes = vec![7_u8; 1200];
        let cut: Vec<(usize, usize)> = sectors(500, &bytes).map(|(at, part)| (at, part.len())).collect();
        assert_eq!(cut, [(500, 12), (512, 512), (1024, 512), (1536, 164)]);
    }

    #[test]
    fn holes_take_space_when_they_are_written() {
        let mut content = Content::default();
        content.write(0, &[1; 100]);
        content.set_len(3 * BLOCK_BYTES);
        assert_eq!(content.disk_bytes(), BLOCK_BYTES);
        assert_eq!(content.fitting(BLOCK_BYTES - 1, 2, BLOCK_BYTES - 1), 0);
        assert_eq!(content.fitting(BLOCK_BYTES - 1, 2, BLOCK_BYTES), 2);
        assert_eq!(content.fitting(0, BLOCK_BYTES, 0), BLOCK_BYTES, "it was written before");
        content.write(BLOCK_BYTES - 1, &[2; 2]);
        assert_eq!(content.disk_bytes(), 2 * BLOCK_BYTES);
        content.set_len(BLOCK_BYTES + 10);
        assert_eq!(content.disk_bytes(), BLOCK_BYTES + 10);
    }

    #[test]
    fn synced_bytes_survive_and_a_failed_sync_never_heals() {
        let mut content = Content::default();
        content.write(0, b"kept");
        content.sync();
        content.write(4, b"gone");
        content.fail_sync();
        content.sync();
        content.lose_power(&SimRng::new(1));
        assert_eq!(content.live(), b"kept");
    }
}
