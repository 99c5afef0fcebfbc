//! Idempotent producers of one partition: each batch is stored once and in order (KIP-98, KIP-360).
//!
//! A producer numbers its records per partition and may have five requests in flight. The last five batches
//! of each are remembered, so that a repeated one is answered with the offset it got the first time.

use std::collections::{HashMap, VecDeque};

/// Batches remembered per producer: `max.in.flight.requests.per.connection` of an idempotent producer is at most 5.
const BATCHES_MAX: usize = 5;

/// Producers remembered per partition; beyond that, the one unheard of for longest is forgotten.
const PRODUCERS_MAX: usize = 10_000;

/// What a batch says of its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Which producer; never negative.
    pub(crate) id: i64,
    /// Its epoch.
    pub(crate) epoch: i16,
    /// Number of the first record.
    pub(crate) first: i32,
    /// The last record's distance from the first.
    pub(crate) delta: i32,
}

impl Stamp {
    /// Number of the last record; numbers start again at 0 after `i32::MAX`.
    fn last(self) -> i32 {
        advance(self.first, self.delta)
    }
}

fn advance(sequence: i32, by: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(by);
    (sum % (1 << 31)) as i32
}

/// What is to be done with a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is the next one: append it.
    Append,
    /// It is stored already.
    Stored {
        /// Offset of its first record.
        base: i64,
        /// Offset of its last record.
        last: i64,
    },
}

/// Why a batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// A newer instance of the producer has written.
    #[error("producer epoch {got} is older than {current}")]
    Fenced {
        /// Of the batch.
        got: i16,
        /// Of the producer's last batch.
        current: i16,
    },
    /// A batch before this one is missing.
    #[error("sequence number {got} follows {after}")]
    OutOfOrder {
        /// Of the batch's first record.
        got: i32,
        /// Of the last stored record; -1 if the epoch has none.
        after: i32,
    },
    /// It was stored more than five batches ago.
    #[error("sequence number {got} was stored before")]
    Duplicate {
        /// Of the batch's first record.
        got: i32,
    },
}

#[derive(Debug, Clone, Copy)]
struct Batch {
    first: i32,
    last: i32,
    base_offset: i64,
    last_offset: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    /// Oldest first, at most [`BATCHES_MAX`], never empty, all of `epoch`.
    batches: VecDeque<Batch>,
    /// Milliseconds since the epoch of the newest batch.
    time_ms: i64,
}

/// The producers of a partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    producers: HashMap<i64, Producer>,
}

impl Producers {
    /// What is to be done with a batch of this stamp.
    pub(crate) fn check(&self, stamp: Stamp) -> Result<Verdict, Refused> {
        // Unknown: the first batch, or all its batches have fallen to retention. Either way any number will do.
        let Some(producer) = self.producers.get(&stamp.id) else { return Ok(Verdict::Append) };
        if stamp.epoch < producer.epoch {
            return Err(Refused::Fenced { got: stamp.epoch, current: producer.epoch });
        }
        if stamp.epoch > producer.epoch {
            let starts_anew = stamp.first == 0;
            return if starts_anew {
                Ok(Verdict::Append)
            } else {
                Err(Refused::OutOfOrder { got: stamp.first, after: -1 })
            };
        }
        producer.check_in_epoch(stamp)
    }

    /// Notes that a batch was appended; also used to rebuild the state from the log.
    pub(crate) fn appended(&mut self, stamp: Stamp, base_offset: i64, time_ms: i64) {
        let batch = Batch {
            first: stamp.first,
            last: stamp.last(),
            base_offset,
            last_offset: base_offset + i64::from(stamp.delta),
        };
        if !self.producers.contains_key(&stamp.id) && self.producers.len() >= PRODUCERS_MAX {
            self.forget_oldest();
        }
        let producer = self.producers.entry(stamp.id).or_insert_with(|| Producer {
            epoch: stamp.epoch,
            batches: VecDeque::new(),
            time_ms,
        });
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == BATCHES_MAX {
            producer.batches.pop_front();
        }
        producer.batches.push_back(batch);
        producer.time_ms = time_ms;
    }

    /// Forgets the producers whose newest batch is older than `before_ms` (`producer.id.expiration.ms`).
    pub(crate) fn expire(&mut self, before_ms: i64) {
        self.producers.retain(|_, producer| producer.time_ms >= before_ms);
    }

    fn forget_oldest(&mut self) {
        let oldest = self.producers.iter().min_by_key(|(_, producer)| producer.time_ms).map(|(id, _)| *id);
        if let Some(id) = oldest {
            self.producers.remove(&id);
        }
    }
}

impl Producer {
    fn check_in_epoch(&self, stamp: Stamp) -> Result<Verdict, Refused> {
        let same = |batch: &&Batch| batch.first == stamp.first && batch.last == stamp.last();
        if let Some(batch) = self.batches.iter().find(same) {
            return Ok(Verdict::Stored { base: batch.base_offset, last: batch.last_offset });
        }
        let after = self.batches.back().map_or(-1, |batch| batch.last);
        if after == -1 || stamp.first == advance(after, 1) {
            return Ok(Verdict::Append);
        }
        // Numbers wrap: what lies at most half the circle back is old, the rest is a gap.
        let behind = i64::from(after) - i64::from(stamp.last());
        let behind = behind.rem_euclid(1 << 31);
        if behind < 1 << 30 {
            Err(Refused::Duplicate { got: stamp.first })
        } else {
            Err(Refused::OutOfOrder { got: stamp.first, after })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stamp(epoch: i16, first: i32, count: i32) -> Stamp {
        Stamp { id: 7, epoch, first, delta: count - 1 }
    }

    #[test]
    fn the_next_batch_is_appended_and_a_gap_is_refused() {
        let mut producers = Producers::default();
        assert_eq!(producers.check(stamp(0, 0, 10)), Ok(Verdict::Append));
        producers.appended(stamp(0, 0, 10), 100, 1);
        assert_eq!(producers.check(stamp(0, 10, 1)), Ok(Verdict::Append));
        assert_eq!(producers.check(stamp(0, 12, 1)), Err(Refused::OutOfOrder { got: 12, after: 9 }));
    }

    #[test]
    fn a_repeat_gets_its_first_offset_for_five_batches() {
        let mut producers = Producers::default();
        for n in 0..6 {
            producers.appended(stamp(0, n * 2, 2), i64::from(n) * 2 + 50, 1);
        }
        for n in 1..6 {
            let base = i64::from(n) * 2 + 50;
            assert_eq!(producers.check(stamp(0, n * 2, 2)), Ok(Verdict::Stored { base, last: base + 1 }));
        }
        assert_eq!(producers.check(stamp(0, 0, 2)), Err(Refused::Duplicate { got: 0 }));
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old() {
        let mut producers = Producers::default();
        producers.appended(stamp(3, 0, 5), 0, 1);
        assert_eq!(producers.check(stamp(4, 5, 1)), Err(Refused::OutOfOrder { got: 5, after: -1 }));
        assert_eq!(producers.check(stamp(4, 0, 1)), Ok(Verdict::Append));
        producers.appended(stamp(4, 0, 1), 5, 1);
        assert_eq!(producers.check(stamp(3, 5, 1)), Err(Refused::Fenced { got: 3, current: 4 }));
    }

    #[test]
    fn numbers_wrap_after_the_largest() {
        let mut producers = Producers::default();
        let last = Stamp { id: 7, epoch: 0, first: i32::MAX - 1, delta: 1 };
        producers.appended(last, 0, 1);
        assert_eq!(producers.check(stamp(0, 0, 3)), Ok(Verdict::Append));
        let across = Stamp { id: 7, epoch: 0, first: i32::MAX, delta: 2 };
        assert_eq!(across.last(), 1);
    }

    #[test]
    fn silent_producers_are_forgotten() {
        let mut producers = Producers::default();
        producers.appended(stamp(9, 0, 1), 0, 1_000);
        producers.expire(1_001);
        assert_eq!(producers.check(stamp(0, 55, 1)), Ok(Verdict::Append));
        for id in 0..=PRODUCERS_MAX as i64 {
            producers.appended(Stamp { id, epoch: 0, first: 0, delta: 0 }, id, id);
        }
        assert_eq!(producers.producers.len(), PRODUCERS_MAX);
        assert!(!producers.producers.contains_key(&0));
    }

    proptest! {
        /// Whatever is repeated or lost on the way, the log holds each batch at most once and in order.
        #[test]
        fn every_batch_is_stored_at_most_once(arrivals in proptest::collection::vec(0_i32..20, 0..100)) {
            let mut producers = Producers::default();
            let mut log = Vec::new();
            for n in arrivals {
                let stamp = stamp(0, n * 3, 3);
                if producers.check(stamp) == Ok(Verdict::Append) {
                    producers.appended(stamp, log.len() as i64 * 3, 0);
                    log.push(n);
                }
            }
            prop_assert!(log.windows(2).all(|pair| pair[1] == pair[0] + 1), "{:?}", log);
        }
    }
}
