//! The power fails at every sync point; what was acknowledged is there afterwards, whole and in order.

mod common;

use common::{DIR, Stored, batch, everything, open, stored, tiny, volume};
use kiln_log::{ChangeError, Log, SegmentInfo, Settings, Upto};
use kiln_types::Offset;
use kiln_world::{SimDisk, SimRng};

/// Seeds of the simulated disk: each tears the unsynced writes in another way.
const SEEDS: u64 = 12;
/// Steps of the script.
const STEPS: u64 = 60;

/// What the script knows it did.
#[derive(Default)]
struct Known {
    /// All that was appended, acknowledged or not.
    appended: Vec<Stored>,
    /// Below this everything was acknowledged as durable.
    acknowledged: i64,
    /// The start as far as it was acknowledged, and as far as it was asked for.
    start: i64,
    start_asked: i64,
    /// Segments that were to be dropped since the log was opened: they may be there or not.
    dropped: Vec<SegmentInfo>,
}

impl Known {
    fn append(&mut self, log: &Log, rng: &SimRng, step: u64) {
        let count = 1 + rng.below(3);
        let value = vec![step as u8; (1 + rng.below(900)) as usize];
        let values: Vec<&[u8]> = (0..count).map(|_| &value[..]).collect();
        let mut bytes = batch(&values, step as i64);
        if log.append(&mut bytes, 0).is_ok() {
            self.appended.extend(stored(&bytes));
        }
    }

    fn flush(&mut self, log: &Log, volume: &kiln_log::Volume) {
        volume.flush_round();
        let durable = log.watermarks().durable.0;
        assert!(durable >= self.acknowledged, "durable goes back");
        self.acknowledged = durable;
    }

    fn set_start(&mut self, log: &Log, rng: &SimRng) {
        let to = rng.below(self.acknowledged as u64 + 1) as i64;
        self.start_asked = self.start_asked.max(to);
        match log.set_start(Offset(to)) {
            Ok(()) => self.start = self.start.max(to),
            Err(ChangeError::Io { .. } | ChangeError::Failed(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn drop_segments(&mut self, log: &Log, rng: &SimRng) {
        // An error means that the power failed.
        let _ = log.drop_segments(&mut |segment| {
            let dies = rng.below(4) == 0;
            if dies {
                self.dropped.push(segment);
            }
            dies
        });
    }

    fn is_dropped(&self, offset: i64) -> bool {
        self.dropped.iter().any(|segment| segment.base.0 <= offset && offset <= segment.last.0)
    }

    /// The log holds a prefix of what was appended, with all that was acknowledged.
    fn check(&mut self, log: &Log, context: &str) {
        let marks = log.watermarks();
        assert!(marks.end.0 >= self.acknowledged, "{context}: acknowledged records are gone: {marks:?}");
        assert_eq!(marks.durable, marks.end, "{context}");
        assert!(marks.start.0 >= self.start, "{context}: the start went back");
        let unasked = self.start_asked.max(self.start)..marks.start.0;
        let mut skipped = self.appended.iter().filter(|record| unasked.contains(&record.offset));
        assert!(skipped.all(|record| self.is_dropped(record.offset)), "{context}: {marks:?}");
        let in_log = marks.start.0..marks.end.0;
        self.appended.retain(|record| in_log.contains(&record.offset));
        let found = everything(log, Upto::Durable);
        assert!(found.iter().all(|record| self.appended.contains(record)), "{context}: {found:?}");
        let kept = |records: &[Stored]| -> Vec<Stored> {
            records.iter().filter(|record| !self.is_dropped(record.offset)).cloned().collect()
        };
        assert_eq!(kept(&found), kept(&self.appended), "{context}");
        *self = Known {
            appended: found,
            acknowledged: marks.end.0,
            start: marks.start.0,
            start_asked: marks.start.0,
            dropped: Vec::new(),
        };
    }
}

/// Opens the log and works on it until the script ends or the power fails.
fn work(disk: &SimDisk, rng: &SimRng, known: &mut Known, context: &str) {
    let volume = volume(disk);
    let settings = Settings { fill_ahead_bytes: [0, 200, 2000][rng.below(3) as usize], ..tiny() };
    let log = match open(&volume, settings) {
        Ok(log) => log,
        Err(error) => {
            assert!(disk.is_off(), "{context}: {error}");
            return;
        }
    };
    known.check(&log, context);
    for step in 0..STEPS {
        match rng.below(12) {
            0..=6 => known.append(&log, rng, step),
            7..=9 => known.flush(&log, &volume),
            10 => known.set_start(&log, rng),
            _ => known.drop_segments(&log, rng),
        }
        if disk.is_off() {
            return;
        }
    }
}

/// Runs the script with the power failing after `syncs`; false when the script needed fewer.
fn crash_once(seed: u64, syncs: u64) -> bool {
    let context = format!("reproduce with crash_once({seed}, {syncs})");
    let disk = SimDisk::new(seed);
    let rng = SimRng::new(seed);
    let mut known = Known::default();
    disk.crash_after_syncs(syncs);
    work(&disk, &rng, &mut known, &context);
    let failed = disk.is_off();
    // Four lives more, so that what recovery wrote meets a crash too.
    for life in 0..4 {
        if disk.is_off() || rng.below(2) == 0 {
            disk.crash();
        } // else only the process is killed: the page cache stays
        disk.crash_after_syncs((syncs + life * 7) % 11);
        work(&disk, &rng, &mut known, &context);
    }
    disk.crash();
    let log = open(&volume(&disk), tiny()).unwrap_or_else(|error| panic!("{context}: {error}"));
    known.check(&log, &context);
    failed
}

#[test]
fn acknowledged_records_survive_a_crash_at_every_sync_point() {
    for seed in 0..SEEDS {
        let mut syncs = 0;
        while crash_once(seed, syncs) {
            syncs += 1;
        }
        assert!(syncs > 20, "the script of seed {seed} has only {syncs} syncs");
    }
}

/// Losing the power right after a kill: what a new process served from the page cache must not vanish.
#[test]
fn what_was_served_after_a_kill_survives_the_power_failure_that_follows() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let first = volume(&disk);
        let log = open(&first, tiny()).expect("open");
        for step in 0..20 {
            log.append(&mut batch(&[&[step; 300]], 0), 0).expect("append");
        }
        // The process is killed: the page cache stays, nothing was flushed.
        let log = open(&volume(&disk), tiny()).expect("open");
        let served = everything(&log, Upto::Durable);
        assert_eq!(served.len(), 20);
        disk.crash();
        let log = open(&volume(&disk), tiny()).expect("open");
        assert_eq!(everything(&log, Upto::Durable), served, "seed {seed}");
    }
}

#[test]
fn a_torn_tail_in_an_earlier_segment_takes_the_later_segments_with_it() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let first = volume(&disk);
        let log = open(&first, tiny()).expect("open");
        log.append(&mut batch(&[b"kept"], 0), 0).expect("append");
        first.flush_round();
        for step in 0..30 {
            log.append(&mut batch(&[&[step; 700]], 0), 0).expect("append");
        }
        assert!(log.segments().len() > 5);
        disk.crash();
        let second = volume(&disk);
        let log = open(&second, tiny()).expect("open");
        let found = everything(&log, Upto::End);
        assert_eq!(found[0].value, b"kept", "seed {seed}");
        assert!(found.iter().enumerate().all(|(at, record)| record.offset == at as i64), "seed {seed}");
        let names = kiln_world::Disk::list(&disk, std::path::Path::new(DIR)).expect("list");
        let logs = names.iter().filter(|entry| entry.name.to_string_lossy().ends_with(".log")).count();
        assert_eq!(logs, log.segments().len(), "seed {seed}: no stray segment is left");
    }
}
