//! When to read ahead, and how far.
//!
//! Each file has a few streams; a read that begins about where a stream is goes on with it. The second time that happens
//! the reader counts as sequential, and a window opens before it that doubles with each request to fill it. Reads at random
//! places meet no stream twice and cost nothing.

use super::dirty::CHUNK_BYTES;
use super::layout::Extent;

/// Sequential readers of one file that are told apart.
const STREAMS: usize = 4;
/// Reads of this length from the start of a file are the start of a sequential reader: a kernel's full readahead.
const LARGE_READ_BYTES: u64 = 128 << 10;
/// The first window, in bytes, and in lengths of a read.
const WINDOW_BYTES_MIN: u64 = 256 << 10;
const WINDOW_READS: u64 = 4;
/// A read may be so many lengths of its own from where its stream is: threads of the kernel overtake each other.
const SLACK_READS: u64 = 2;
/// Reads that went on with a stream until it counts as sequential.
const HITS_MIN: u32 = 2;

/// What is known of the readers of a file.
#[derive(Debug, Default)]
pub struct Readahead {
    streams: [Stream; STREAMS],
    reads: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    /// Behind the furthest byte that was read.
    front: u64,
    /// Up to here it was asked for ahead.
    ahead: u64,
    /// 0 until the stream is sequential.
    window: u64,
    hits: u32,
    /// The number of the last read that met it; the one that was not met for longest makes place.
    met: u64,
}

impl Readahead {
    /// A read of a file that is `size` long; answers what should be asked for ahead now. The window of a stream is at most
    /// `window_max`.
    pub fn read(&mut self, read: Extent, size: u64, window_max: u64) -> Option<Extent> {
        let len = read.end - read.start;
        self.reads += 1;
        let slack = len.saturating_mul(SLACK_READS);
        let meets = |stream: &&mut Stream| stream.met > 0 && read.start.abs_diff(stream.front) <= slack;
        if let Some(stream) = self.streams.iter_mut().find(meets) {
            stream.hits = stream.hits.saturating_add(1);
            stream.front = stream.front.max(read.end);
            stream.met = self.reads;
            let sequential = stream.hits >= HITS_MIN || len >= LARGE_READ_BYTES;
            return if sequential { stream.advance(len, size, window_max) } else { None };
        }
        let oldest = (0..STREAMS).min_by_key(|nth| self.streams[*nth].met).unwrap_or_default();
        let stream = &mut self.streams[oldest];
        *stream = Stream { front: read.end, ahead: read.end, window: 0, hits: 0, met: self.reads };
        let start = read.start == 0 && len >= LARGE_READ_BYTES;
        if start { stream.advance(len, size, window_max) } else { None }
    }

    /// What was read ahead is gone.
    pub fn forget(&mut self) {
        *self = Readahead::default();
    }
}

impl Stream {
    fn advance(&mut self, len: u64, size: u64, window_max: u64) -> Option<Extent> {
        self.ahead = self.ahead.max(self.front);
        if self.window > 0 && self.ahead - self.front >= self.window / 2 {
            return None;
        }
        let first = WINDOW_BYTES_MIN.max(len.saturating_mul(WINDOW_READS));
        self.window = if self.window == 0 { first } else { self.window * 2 }.min(window_max);
        let mut end = self.front.saturating_add(self.window);
        if self.window >= CHUNK_BYTES {
            end = end / CHUNK_BYTES * CHUNK_BYTES;
        }
        let wanted = Extent { start: self.ahead, end: end.min(size) };
        if wanted.start >= wanted.end {
            return None;
        }
        self.ahead = wanted.end;
        Some(wanted)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn sequential(len: u64, size: u64) -> Vec<Option<Extent>> {
        let mut readahead = Readahead::default();
        (0..size / len)
            .map(|n| readahead.read(Extent { start: n * len, end: (n + 1) * len }, size, 8 * MIB))
            .collect()
    }

    #[test]
    fn a_sequential_reader_is_always_ahead_of_itself_and_nothing_is_asked_twice() {
        for len in [4096, 64 << 10, 128 << 10, MIB] {
            let size = 64 * MIB;
            let asked: Vec<_> = sequential(len, size);
            let mut ahead = 0;
            for (n, wanted) in (0..).zip(&asked) {
                if let Some(wanted) = wanted {
                    assert!(wanted.start >= ahead, "{len}: {wanted:?} was asked before");
                    ahead = wanted.end;
                }
                assert!(n < 3 || ahead >= ((n + 2) * len).min(size), "{len}: read {n} has nothing ahead");
            }
            assert_eq!(ahead, size);
            let requests = asked.iter().flatten().count();
            assert!(requests < 30, "{len}: {requests} windows are too many");
        }
    }

    #[test]
    fn readers_that_alternate_are_told_apart() {
        let mut readahead = Readahead::default();
        let mut asked = [0; 2];
        for n in 0..40 {
            for (reader, base) in [0, 512 * MIB].into_iter().enumerate() {
                let start = base + n * (64 << 10);
                let wanted = readahead.read(Extent { start, end: start + (64 << 10) }, 1 << 30, 8 * MIB);
                asked[reader] += u32::from(wanted.is_some());
            }
        }
        assert!(asked.iter().all(|asked| (2..15).contains(asked)), "{asked:?}");
    }

    #[test]
    fn the_threads_of_the_kernel_may_overtake_each_other() {
        let len = 128 << 10;
        let mut readahead = Readahead::default();
        let order = [1, 0, 2, 4, 3, 5, 7, 6];
        let asked =
            order.map(|n| readahead.read(Extent { start: n * len, end: (n + 1) * len }, 1 << 30, 8 * MIB));
        assert!(asked.iter().flatten().count() > 1, "{asked:?}");
    }

    proptest! {
        #[test]
        fn reads_at_random_places_are_left_alone(places in prop::collection::vec(0_u64..1 << 18, 500)) {
            let mut readahead = Readahead::default();
            let asked = places.iter().filter_map(|page| {
                let start = page * 4096;
                readahead.read(Extent { start, end: start + 4096 }, 1 << 30, 8 * MIB)
            });
            prop_assert!(asked.count() <= 1);
        }

        #[test]
        fn nothing_behind_the_end_nor_beyond_the_window_is_asked_for(
            reads in prop::collection::vec((0_u64..8 * MIB, 1_u64..MIB), 200),
        ) {
            let (size, window_max) = (6 * MIB, 2 * MIB);
            let mut readahead = Readahead::default();
            let mut furthest = 0;
            for (start, len) in reads {
                furthest = furthest.max(start + len);
                if let Some(wanted) = readahead.read(Extent { start, end: start + len }, size, window_max) {
                    prop_assert!(wanted.start < wanted.end && wanted.end <= size);
                    prop_assert!(wanted.end <= furthest + window_max);
                }
            }
        }
    }
}
