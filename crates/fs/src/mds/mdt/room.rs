//! What room there is: on the disk, and in the table's file.
//!
//! redb's file keeps the pages that no row needs any more, and uses them again; it hardly ever shrinks. So an MDT that was
//! full and was emptied has its room in there, and the disk has none. How much that is only redb knows, and it tells it only
//! together with a walk through the whole table. So it is measured with a checkpoint, without the MDT's lock, when the disk
//! is nearly full, and not more often than such a walk is worth.
//!
//! A checkpoint writes pages elsewhere before it frees the old ones, and redb may take pages for that which the disk has never
//! given yet. So what is free in the file lets more be made, but never below the half of the reserve, which only
//! the disk itself counts for ([`Room::takes_more`]). Where free pages do not help because of that, and where there are so
//! many that it is worth it, the table is compacted, which gives them back to the disk ([`Room::is_compaction_due`]).

use std::time::Duration;

/// The disk is nearly full when it has less than so many times the reserve.
const SHORT_SHARE: u64 = 2;
/// One part in so many of the reserve is for checkpoints alone.
const FLOOR_SHARE: u64 = 2;
/// One part in so many of the reserve is for data of files that are there: mounts hold some back that programs have written already.
const DATA_SHARE: u64 = 4;
/// One part in so many of the reserve is what one small checkpoint may take: there is one under way, and one that fills up.
const CHECKPOINT_SHARE: u64 = 4;
/// What a checkpoint writes for one command at most, roughly, in bytes: pages of the table that it changes are written
/// elsewhere, and the old ones are free only afterwards.
const COMMAND_DISK_BYTES: u64 = 32 << 10;
/// A checkpoint is worth it for so many commands.
const COMMANDS_MIN: u64 = 16;
/// A table is measured no more often than this.
const MEASURE_EVERY_MIN: Duration = Duration::from_millis(100);
/// And no more often than once in so long for each MiB of it: a walk reads it some twenty times faster.
const MEASURE_EVERY_PER_MIB: Duration = Duration::from_millis(20);
/// A table is compacted before that is needed when it gets smaller by one part in so many,
const COMPACT_GAIN_SHARE: u64 = 4;
/// and when it has no more than this, in bytes: everybody waits for it.
const COMPACT_LIVE_BYTES_MAX: u64 = 1 << 30;

/// How the table's file is used, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Measure {
    /// Pages that rows are in, or that belong to the table otherwise.
    pub(super) live_bytes: u64,
    /// What the disk has given to the file beside that.
    pub(super) free_bytes: u64,
}

/// What is known of the room.
pub(super) struct Room {
    reserve_bytes: u64,
    /// What the disk had when it was looked at last.
    available_bytes: u64,
    measure: Measure,
    /// When that was asked for, by the monotonic time; none before the first.
    measured_at: Option<Duration>,
    /// A checkpoint was made since.
    is_stale: bool,
    /// What was free in the file when it was compacted last: so much no compaction gives back.
    left_bytes: u64,
}

impl Room {
    pub(super) fn new(reserve_bytes: u64) -> Room {
        Room {
            reserve_bytes,
            available_bytes: u64::MAX,
            measure: Measure::default(),
            measured_at: None,
            is_stale: true,
            left_bytes: 0,
        }
    }

    /// Takes notice of what the disk has.
    pub(super) fn look(&mut self, available_bytes: u64) {
        self.available_bytes = available_bytes;
    }

    /// The disk is nearly full: checkpoints are small, and come soon, since they let go of the journal and of pages of the
    /// table.
    pub(super) fn is_short(&self) -> bool {
        self.available_bytes < self.reserve_bytes * SHORT_SHARE
    }

    /// How many commands one checkpoint takes when the disk is nearly full: two of them leave the floor untouched, or fit
    /// into it.
    pub(super) fn short_commands(&self) -> usize {
        let above_floor = self.available_bytes.saturating_sub(self.reserve_bytes / FLOOR_SHARE);
        let bytes = (above_floor / 2).max(self.reserve_bytes / CHECKPOINT_SHARE);
        (bytes / COMMAND_DISK_BYTES).max(COMMANDS_MIN) as usize
    }

    /// What is free in the table's file, as far as it is known.
    pub(super) fn reusable_bytes(&self) -> u64 {
        self.measure.free_bytes
    }

    /// Whether what needs space may be done.
    pub(super) fn takes_more(&self, available_bytes: u64) -> bool {
        self.leaves(self.reserve_bytes, available_bytes)
    }

    /// The same for data of a file that is there.
    pub(super) fn takes_data(&self, available_bytes: u64) -> bool {
        self.leaves(self.reserve_bytes - self.reserve_bytes / DATA_SHARE, available_bytes)
    }

    fn leaves(&self, bytes: u64, available_bytes: u64) -> bool {
        available_bytes >= self.reserve_bytes / FLOOR_SHARE
            && available_bytes + self.reusable_bytes() >= bytes
    }

    /// Whether the next checkpoint should measure the table, at the monotonic time `now`.
    pub(super) fn is_measure_due(&self, now: Duration) -> bool {
        let every = MEASURE_EVERY_PER_MIB * u32::try_from(self.measure.live_bytes >> 20).unwrap_or(u32::MAX);
        let is_old = |at| now.saturating_sub(at) >= every.max(MEASURE_EVERY_MIN);
        let is_worth_it = self.is_short() || self.measure.free_bytes > self.left_bytes;
        is_worth_it && self.is_stale && self.measured_at.is_none_or(is_old)
    }

    /// The table is measured from `now` on.
    pub(super) fn measuring(&mut self, now: Duration) {
        self.measured_at = Some(now);
    }

    /// A checkpoint is done, perhaps with a measure.
    pub(super) fn saved(&mut self, measure: Option<Measure>) {
        self.is_stale = measure.is_none();
        self.measure = measure.unwrap_or(self.measure);
    }

    /// Whether a compaction gives so much back that everybody can wait for it.
    pub(super) fn is_compaction_due(&self, available_bytes: u64) -> bool {
        let Measure { live_bytes, free_bytes } = self.measure;
        let gain = free_bytes.saturating_sub(self.left_bytes);
        let floor = self.reserve_bytes / FLOOR_SHARE;
        let is_needed = available_bytes < floor && gain >= floor;
        let is_cheap = live_bytes <= COMPACT_LIVE_BYTES_MAX && gain >= live_bytes / COMPACT_GAIN_SHARE;
        let is_worth_it = is_cheap && gain >= self.reserve_bytes * SHORT_SHARE;
        self.reserve_bytes > 0 && self.is_short() && (is_needed || is_worth_it)
    }

    /// The table was compacted.
    pub(super) fn compacted(&mut self, measure: Measure) {
        self.left_bytes = measure.free_bytes;
        self.saved(Some(measure));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: u64 = 64 << 20;

    fn room(available: u64, live_bytes: u64, free_bytes: u64) -> Room {
        let mut room = Room::new(RESERVE);
        room.look(available);
        room.saved(Some(Measure { live_bytes, free_bytes }));
        room
    }

    #[test]
    fn free_pages_count_as_room_but_not_for_the_floor() {
        assert!(room(RESERVE, 0, 0).takes_more(RESERVE));
        assert!(!room(RESERVE - 1, 0, 0).takes_more(RESERVE - 1));
        assert!(room(RESERVE - 1, 0, 1).takes_more(RESERVE - 1));
        assert!(room(RESERVE / 2, 0, RESERVE).takes_more(RESERVE / 2));
        assert!(!room(RESERVE / 2 - 1, 0, 1 << 40).takes_more(RESERVE / 2 - 1));
        let for_data = RESERVE / 4 * 3;
        assert!(room(for_data, 0, 0).takes_data(for_data));
        assert!(!room(for_data - 1, 0, 0).takes_data(for_data - 1));
        assert!(!room(RESERVE / 2 - 1, 0, 1 << 40).takes_data(RESERVE / 2 - 1));
    }

    #[test]
    fn checkpoints_under_way_fit_into_the_floor() {
        // One is under way, and the next takes no more than that.
        let both = |available| 2 * room(available, 0, 0).short_commands() as u64 * COMMAND_DISK_BYTES;
        assert!(both(0) <= RESERVE / FLOOR_SHARE);
        assert!(both(RESERVE) <= RESERVE / FLOOR_SHARE);
        assert!(both(2 * RESERVE) <= 2 * RESERVE - RESERVE / FLOOR_SHARE);
    }

    #[test]
    fn a_table_is_measured_when_it_matters_and_not_all_the_time() {
        let secs = Duration::from_secs;
        let mut room = Room::new(RESERVE);
        assert!(!room.is_measure_due(secs(10)), "the disk has room");
        room.look(RESERVE);
        assert!(room.is_measure_due(secs(10)));
        room.measuring(secs(10));
        room.saved(Some(Measure { live_bytes: 1 << 30, free_bytes: 5 }));
        assert!(!room.is_measure_due(secs(1000)), "nothing was saved since");
        room.saved(None);
        assert!(!room.is_measure_due(secs(30)), "a walk through 1 GiB takes a second or more");
        assert!(room.is_measure_due(secs(31)));
        room.look(RESERVE * 2);
        assert!(room.is_measure_due(secs(31)), "what is told as free becomes less");
        room.saved(Some(Measure::default()));
        room.saved(None);
        assert!(!room.is_measure_due(secs(1000)));
    }

    #[test]
    fn a_table_is_compacted_when_that_is_needed_or_cheap() {
        let due = |available, live, free| room(available, live, free).is_compaction_due(available);
        assert!(due(RESERVE, 4 * RESERVE, 2 * RESERVE));
        assert!(!due(2 * RESERVE, 4 * RESERVE, 2 * RESERVE), "the disk has room");
        assert!(!due(RESERVE, 4 * RESERVE, 2 * RESERVE - 1), "the disk would still be short");
        assert!(!due(RESERVE, 9 * RESERVE, 2 * RESERVE), "much is moved for that");
        assert!(!due(RESERVE, 64 * RESERVE, 60 * RESERVE), "everybody would wait for long");
        assert!(due(RESERVE / 2 - 1, 64 * RESERVE, RESERVE / 2), "there is no other way");
        assert!(!due(RESERVE / 2 - 1, 64 * RESERVE, RESERVE / 2 - 1));
        let mut again = room(RESERVE, 4 * RESERVE, 2 * RESERVE);
        again.compacted(Measure { live_bytes: 0, free_bytes: 2 * RESERVE });
        assert!(!again.is_compaction_due(RESERVE), "it did not help");
    }
}
