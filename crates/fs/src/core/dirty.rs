//! Data that was written and is not with the servers yet.
//!
//! It is kept in chunks of the file, which are what is written back at once; a chunk has segments of bytes that follow one
//! another. A write is copied once: over what is there, behind the segment that ends where it begins, or into a new one.

use std::collections::{BTreeMap, BTreeSet};

use super::layout::Extent;
use super::segment::Segment;

/// Bytes of a chunk; chunks begin at multiples of it. The end of the inline component is a border too.
pub const CHUNK_BYTES: u64 = 1 << 20;
/// What a segment costs besides its bytes.
const SEGMENT_COST_BYTES: u64 = 64;

/// The dirty data of a file.
#[derive(Debug, Default)]
pub struct Dirty {
    /// The end of the inline component.
    split: u64,
    /// By their first byte. **Invariant:** none is empty; each lies within the bounds that [`Dirty::bounds`] tells.
    chunks: BTreeMap<u64, Chunk>,
    /// Those of `chunks` that have every byte.
    complete: BTreeSet<u64>,
    /// The sum of [`Chunk::cost`].
    cost: u64,
}

/// The dirty data of one chunk.
#[derive(Debug)]
pub struct Chunk {
    stamp: u64,
    /// By their first byte. **Invariant:** none is empty, and they do not overlap.
    segments: BTreeMap<u64, Segment>,
    bytes: u64,
}

impl Dirty {
    /// No dirty data, of a file whose inline component ends at `split`.
    pub fn new(split: u64) -> Dirty {
        Dirty { split, ..Dirty::default() }
    }

    /// The memory that it takes, in bytes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// The chunk around an offset.
    pub fn bounds(&self, at: u64) -> Extent {
        let start = at / CHUNK_BYTES * CHUNK_BYTES;
        let end = start.saturating_add(CHUNK_BYTES);
        match self.split {
            split if start < split && at < split => Extent { start, end: end.min(split) },
            split if start < split => Extent { start: split, end: end.max(split) },
            _ => Extent { start, end },
        }
    }

    /// Takes a write. A chunk that was clean has the `stamp` from now on.
    pub fn write(&mut self, mut at: u64, mut data: &[u8], stamp: u64) {
        while !data.is_empty() {
            let bounds = self.bounds(at);
            let (now, later) = data.split_at(data.len().min((bounds.end - at) as usize));
            self.change(bounds.start, Chunk::new(stamp), |chunk| chunk.write(at, now, bounds));
            at += now.len() as u64;
            data = later;
        }
    }

    /// Drops what is in a range.
    pub fn remove(&mut self, extent: Extent) {
        for key in self.keys(extent) {
            self.change(key, Chunk::new(0), |chunk| chunk.remove(extent));
        }
    }

    /// Takes a chunk out, up to `limit`; `None` when there is nothing.
    pub fn take(&mut self, key: u64, limit: u64) -> Option<Chunk> {
        let mut taken = None;
        self.change(key, Chunk::new(0), |chunk| {
            let rest = chunk.split_off(limit);
            taken = Some(std::mem::replace(chunk, rest));
        });
        taken.filter(|chunk| chunk.bytes > 0)
    }

    /// The chunks that have every byte, by their first.
    pub fn complete(&self) -> impl Iterator<Item = u64> + '_ {
        self.complete.iter().copied()
    }

    /// Whether the chunk that begins here has every byte.
    pub fn is_complete(&self, key: u64) -> bool {
        self.complete.contains(&key)
    }

    /// The chunks that have been dirty since `stamp` or longer and begin below `limit`.
    pub fn due(&self, stamp: u64, limit: u64) -> impl Iterator<Item = u64> + '_ {
        let chunks = self.chunks.range(..limit).filter(move |(_, chunk)| chunk.stamp <= stamp);
        chunks.filter(move |(_, chunk)| chunk.extent().start < limit).map(|(key, _)| *key)
    }

    /// From the first to the last dirty byte of a chunk that is there.
    pub fn extent(&self, key: u64) -> Option<Extent> {
        self.chunks.get(&key).map(Chunk::extent)
    }

    /// The dirty bytes in a range, in order.
    pub fn segments(&self, extent: Extent) -> impl Iterator<Item = (u64, &[u8])> {
        let first = self.bounds(extent.start).start;
        let chunks = self.chunks.range(first..extent.end.max(first));
        chunks.flat_map(move |(_, chunk)| chunk.segments(extent))
    }

    /// The inline component ends elsewhere.
    pub fn set_split(&mut self, split: u64) {
        if self.split == split {
            return;
        }
        let old = std::mem::replace(self, Dirty::new(split));
        for chunk in old.chunks.into_values() {
            for (at, data) in &chunk.segments {
                self.write(*at, data, chunk.stamp);
            }
        }
    }

    fn keys(&self, extent: Extent) -> Vec<u64> {
        let first = self.bounds(extent.start).start;
        self.chunks.range(first..extent.end.max(first)).map(|(key, _)| *key).collect()
    }

    /// Changes the chunk that has this key, or `new`, and keeps the invariants.
    fn change(&mut self, key: u64, new: Chunk, change: impl FnOnce(&mut Chunk)) {
        let bounds = self.bounds(key);
        let chunk = self.chunks.entry(key).or_insert(new);
        let before = chunk.cost();
        change(chunk);
        self.cost = self.cost + chunk.cost() - before;
        let bytes = chunk.bytes;
        if bytes == bounds.end - bounds.start {
            self.complete.insert(key);
        } else {
            self.complete.remove(&key);
        }
        if bytes == 0 {
            self.chunks.remove(&key);
        }
    }
}

impl Chunk {
    fn new(stamp: u64) -> Chunk {
        Chunk { stamp, segments: BTreeMap::new(), bytes: 0 }
    }

    /// Since when it has been dirty.
    pub fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The memory that it takes, in bytes.
    pub fn cost(&self) -> u64 {
        self.bytes + self.segments.len() as u64 * SEGMENT_COST_BYTES
    }

    /// From its first to its last dirty byte.
    pub fn extent(&self) -> Extent {
        let start = self.segments.first_key_value().map_or(0, |(start, _)| *start);
        let end = self.segments.last_key_value().map_or(0, |(start, data)| start + data.len() as u64);
        Extent { start, end }
    }

    /// The dirty bytes in a range, in order.
    pub fn segments(&self, extent: Extent) -> impl Iterator<Item = (u64, &[u8])> {
        clipped(&self.segments, extent)
    }

    /// The stretches without a gap, in order.
    pub fn stretches(&self) -> Vec<Extent> {
        let mut stretches: Vec<Extent> = Vec::new();
        for (start, data) in &self.segments {
            let end = start + data.len() as u64;
            match stretches.last_mut().filter(|last| last.end == *start) {
                Some(last) => last.end = end,
                None => stretches.push(Extent { start: *start, end }),
            }
        }
        stretches
    }

    fn write(&mut self, mut at: u64, mut data: &[u8], bounds: Extent) {
        while !data.is_empty() {
            let taken = self.write_front(at, data, bounds);
            at += taken as u64;
            data = &data[taken..];
        }
    }

    /// Takes the data up to where the next segment begins, or the one around `at` ends.
    fn write_front(&mut self, at: u64, data: &[u8], bounds: Extent) -> usize {
        let next = self.segments.range(at + 1..).next().map_or(bounds.end, |(start, _)| *start);
        let free = data.len().min((next - at) as usize);
        if let Some((start, segment)) = self.segments.range_mut(..=at).next_back() {
            let within = (at - start) as usize;
            if within < segment.len() {
                let over = data.len().min(segment.len() - within);
                segment[within..within + over].copy_from_slice(&data[..over]);
                return over;
            }
            if within == segment.len() {
                segment.append(&data[..free], (bounds.end - start) as usize);
                self.bytes += free as u64;
                return free;
            }
        }
        let mut segment = Segment::default();
        // One that begins with its chunk may fill it.
        segment.append(&data[..free], if at == bounds.start { (bounds.end - at) as usize } else { free });
        self.segments.insert(at, segment);
        self.bytes += free as u64;
        free
    }

    fn remove(&mut self, extent: Extent) {
        let behind = self.split_off(extent.end);
        let within = self.split_off(extent.start);
        self.bytes += behind.bytes;
        self.segments.extend(behind.segments);
        drop(within);
    }

    /// Keeps what is below `at`, answers the rest.
    fn split_off(&mut self, at: u64) -> Chunk {
        let mut rest = self.segments.split_off(&at);
        if let Some((start, segment)) = self.segments.last_key_value()
            && at < start + segment.len() as u64
        {
            let mut last = self.segments.last_entry().expect("it is there");
            let within = (at - last.key()) as usize;
            rest.insert(at, last.get_mut().split_off(within));
        }
        let bytes = rest.values().map(|segment| segment.len() as u64).sum();
        self.bytes -= bytes;
        Chunk { stamp: self.stamp, segments: rest, bytes }
    }
}

/// What is in a range, of bytes by their offset that do not overlap.
pub(super) fn clipped<T: AsRef<[u8]>>(
    map: &BTreeMap<u64, T>,
    extent: Extent,
) -> impl Iterator<Item = (u64, &[u8])> {
    let first = map.range(..=extent.start).next_back().map_or(extent.start, |(start, _)| *start);
    map.range(first..extent.end.max(first)).filter_map(move |(start, data)| {
        let data = data.as_ref();
        let from = extent.start.max(*start);
        let to = extent.end.min(start + data.len() as u64);
        (from < to).then(|| (from, &data[(from - start) as usize..(to - start) as usize]))
    })
}

/// Copies segments to where they belong in `out`, which begins at the offset `at`.
pub fn overlay<'s>(segments: impl Iterator<Item = (u64, &'s [u8])>, at: u64, out: &mut [u8]) {
    for (start, data) in segments {
        let from = (start - at) as usize;
        out[from..from + data.len()].copy_from_slice(data);
    }
}

/// The parts of a range that no layer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gaps(Vec<Extent>);

impl Gaps {
    /// All of a range.
    pub fn all(extent: Extent) -> Gaps {
        Gaps(if extent.start < extent.end { vec![extent] } else { Vec::new() })
    }

    /// A layer has these.
    pub fn fill<'s>(&mut self, segments: impl Iterator<Item = (u64, &'s [u8])>) {
        for (start, data) in segments {
            self.fill_one(Extent { start, end: start + data.len() as u64 });
        }
    }

    fn fill_one(&mut self, full: Extent) {
        let first = self.0.partition_point(|gap| gap.end <= full.start);
        let behind = self.0.partition_point(|gap| gap.start < full.end);
        if first >= behind {
            return;
        }
        let left = Extent { start: self.0[first].start, end: full.start };
        let right = Extent { start: full.end, end: self.0[behind - 1].end };
        let kept = [left, right].into_iter().filter(|gap| gap.start < gap.end);
        self.0.splice(first..behind, kept);
    }

    /// What is left, in order.
    pub fn left(&self) -> &[Extent] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: u64 = 3 * CHUNK_BYTES;

    #[derive(Clone, Debug)]
    enum Step {
        Write(u64, usize),
        Remove(u64, u64),
        Take(u64, u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Places that meet each other and the borders of chunks often.
        let at = prop_oneof![0..FILE - 1000, (0_u64..600).prop_map(|n| n * 5000), Just(CHUNK_BYTES - 10)];
        prop_oneof![
            6 => (at.clone(), prop_oneof![1_usize..200, 5000..5001_usize, 1..70_000_usize]).prop_map(|(at, len)| Step::Write(at, len)),
            1 => (at.clone(), 1_u64..100_000).prop_map(|(at, len)| Step::Remove(at, len)),
            1 => (at.clone(), at).prop_map(|(at, limit)| Step::Take(at, limit)),
        ]
    }

    /// The model: each byte of the file, if it is dirty.
    type Model = Vec<Option<u8>>;

    fn apply(dirty: &mut Dirty, model: &mut Model, step: &Step, n: u64) {
        match *step {
            Step::Write(at, len) => {
                let data: Vec<u8> = (0..len).map(|i| (i as u64 * 7 + n) as u8).collect();
                let end = (at as usize + len).min(FILE as usize);
                let data = &data[..end - at as usize];
                dirty.write(at, data, n);
                for (byte, value) in model[at as usize..end].iter_mut().zip(data) {
                    *byte = Some(*value);
                }
            }
            Step::Remove(start, len) => {
                let end = (start + len).min(FILE);
                dirty.remove(Extent { start, end });
                model[start as usize..end as usize].fill(None);
            }
            Step::Take(at, limit) => {
                let bounds = dirty.bounds(at);
                let taken = dirty.take(bounds.start, limit);
                let end = bounds.end.min(limit.max(bounds.start)) as usize;
                let slots = &mut model[bounds.start as usize..end];
                let mut expected = vec![None; slots.len()];
                expected.swap_with_slice(slots);
                let mut seen = vec![None; expected.len()];
                for (start, data) in taken.iter().flat_map(|chunk| chunk.segments(bounds)) {
                    for (i, byte) in data.iter().enumerate() {
                        seen[(start - bounds.start) as usize + i] = Some(*byte);
                    }
                }
                assert!(seen == expected, "what was taken is not what was there");
            }
        }
    }

    fn contents(dirty: &Dirty) -> Model {
        let mut seen = vec![None; FILE as usize];
        for (start, data) in dirty.segments(Extent { start: 0, end: FILE }) {
            for (slot, byte) in seen[start as usize..].iter_mut().zip(data) {
                assert_eq!(slot.replace(*byte), None, "segments overlap");
            }
        }
        seen
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn it_holds_what_was_written_last(
            split in prop::sample::select(vec![0, 65_536, CHUNK_BYTES]),
            steps in prop::collection::vec(step(), 1..60),
            range in (0..FILE, 0..FILE),
        ) {
            let mut dirty = Dirty::new(split);
            let mut model: Model = vec![None; FILE as usize];
            for (n, step) in (1..).zip(&steps) {
                apply(&mut dirty, &mut model, step, n);
            }
            prop_assert!(contents(&dirty) == model);
            let bytes = model.iter().flatten().count() as u64;
            let segments = dirty.segments(Extent { start: 0, end: FILE }).count() as u64;
            prop_assert_eq!(dirty.cost(), bytes + segments * SEGMENT_COST_BYTES);
            let complete: Vec<u64> = dirty.complete().collect();
            for key in dirty.due(u64::MAX, u64::MAX) {
                let bounds = dirty.bounds(key);
                let full = model[bounds.start as usize..bounds.end as usize].iter().all(Option::is_some);
                prop_assert_eq!(complete.contains(&key), full);
            }
            let extent = Extent { start: range.0.min(range.1), end: range.0.max(range.1) };
            let mut gaps = Gaps::all(extent);
            gaps.fill(dirty.segments(extent));
            let gap_bytes: u64 = gaps.left().iter().map(|gap| gap.end - gap.start).sum();
            let clean = model[extent.start as usize..extent.end as usize].iter().filter(|byte| byte.is_none()).count();
            prop_assert_eq!(gap_bytes, clean as u64);
            prop_assert!(gaps.left().iter().all(|gap| model[gap.start as usize..gap.end as usize].iter().all(Option::is_none)));
            dirty.set_split(4096);
            prop_assert!(contents(&dirty) == model);
        }
    }

    #[test]
    fn writes_one_behind_the_other_become_one_segment_per_chunk() {
        let mut dirty = Dirty::new(0);
        for n in 0..512 {
            dirty.write(n * 4096, &[1; 4096], n + 1);
        }
        assert_eq!(dirty.segments(Extent { start: 0, end: FILE }).count(), 2);
        assert_eq!(dirty.complete().collect::<Vec<_>>(), [0, CHUNK_BYTES]);
        dirty.write(0, &[2; 4096], 1000);
        assert_eq!(
            dirty.due(999, FILE).collect::<Vec<_>>(),
            [0, CHUNK_BYTES],
            "rewriting leaves it as old as it was"
        );
        assert_eq!(dirty.cost(), 2 * (CHUNK_BYTES + SEGMENT_COST_BYTES));
    }

    #[test]
    fn the_inline_component_is_a_chunk_of_its_own() {
        let mut dirty = Dirty::new(65_536);
        dirty.write(65_530, b"0123456789", 1);
        let keys: Vec<u64> = dirty.due(1, FILE).collect();
        assert_eq!(keys, [0, 65_536]);
        assert_eq!(
            dirty.take(0, FILE).map(|chunk| chunk.stretches()),
            Some(vec![Extent { start: 65_530, end: 65_536 }])
        );
        assert_eq!(dirty.bounds(70_000), Extent { start: 65_536, end: CHUNK_BYTES });
        assert_eq!(
            Dirty::new(CHUNK_BYTES).bounds(CHUNK_BYTES),
            Extent { start: CHUNK_BYTES, end: 2 * CHUNK_BYTES }
        );
    }
}
