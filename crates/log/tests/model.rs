//! Random operations on a log and on a plain vector; both must always agree.

mod common;

use common::{Stored, batch, everything, open, stored, tiny, volume};
use kiln_log::batch::batches;
use kiln_log::{ChangeError, Log, ReadError, SegmentInfo, Upto, Volume};
use kiln_types::Offset;
use kiln_world::SimDisk;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    /// Batches back to back: records and value size of each.
    Append(Vec<(u8, u16)>),
    Flush,
    Read {
        from: u8,
        upto_end: bool,
        bytes_max: u16,
    },
    OffsetAt {
        back_ms: u8,
    },
    SetStart {
        permille: u16,
    },
    /// Drops the sealed segments whose bit is set.
    Drop {
        mask: u16,
    },
    /// The process is killed and a new one opens the log.
    Reopen,
    /// The power fails.
    Crash,
    /// The index files vanish, and the log is opened anew.
    LoseIndexes,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let batch = (1_u8..4, 0_u16..600);
    let op = prop_oneof![
        6 => prop::collection::vec(batch, 1..4).prop_map(Op::Append),
        3 => Just(Op::Flush),
        4 => (any::<u8>(), any::<bool>(), 0_u16..3000)
            .prop_map(|(from, upto_end, bytes_max)| Op::Read { from, upto_end, bytes_max }),
        2 => any::<u8>().prop_map(|back_ms| Op::OffsetAt { back_ms }),
        1 => (0_u16..1000).prop_map(|permille| Op::SetStart { permille }),
        1 => any::<u16>().prop_map(|mask| Op::Drop { mask }),
        1 => Just(Op::Reopen),
        1 => Just(Op::Crash),
        1 => Just(Op::LoseIndexes),
    ];
    prop::collection::vec(op, 1..60)
}

/// The plain vector.
#[derive(Default)]
struct Model {
    records: Vec<Stored>,
    start: i64,
    durable: i64,
    end: i64,
}

struct System {
    disk: SimDisk,
    volume: Volume,
    log: Log,
    model: Model,
    time_ms: i64,
}

impl System {
    fn new(seed: u64) -> System {
        let disk = SimDisk::new(seed);
        let volume = volume(&disk);
        let log = open(&volume, tiny()).expect("open");
        System { disk, volume, log, model: Model::default(), time_ms: 1_000 }
    }

    fn reopen(&mut self) {
        self.volume = volume(&self.disk);
        self.log = open(&self.volume, tiny()).expect("open");
        self.model.durable = self.model.end;
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Append(sizes) => self.append(sizes),
            Op::Flush => {
                self.volume.flush_round();
                self.model.durable = self.model.end;
            }
            Op::Read { from, upto_end, bytes_max } => {
                let limit = if *upto_end { Upto::End } else { Upto::Durable };
                self.read(i64::from(*from), limit, usize::from(*bytes_max));
            }
            Op::OffsetAt { back_ms } => self.offset_at(self.time_ms - i64::from(*back_ms)),
            Op::SetStart { permille } => self.set_start(self.model.end * i64::from(*permille) / 1000),
            Op::Drop { mask } => self.drop_segments(*mask),
            Op::Reopen => self.reopen(),
            Op::Crash => self.crash(),
            Op::LoseIndexes => self.lose_indexes(),
        }
        self.compare();
    }

    fn append(&mut self, sizes: &[(u8, u16)]) {
        let mut bytes = Vec::new();
        for (count, size) in sizes {
            self.time_ms += 7;
            let value = vec![self.time_ms as u8; usize::from(*size)];
            let values: Vec<&[u8]> = (0..*count).map(|_| &value[..]).collect();
            bytes.extend(batch(&values, self.time_ms));
        }
        let appended = self.log.append(&mut bytes, 3).expect("append");
        assert_eq!(appended.base.0, self.model.end);
        self.model.records.extend(stored(&bytes));
        self.model.end = appended.last.0 + 1;
    }

    fn read(&self, from: i64, limit: Upto, bytes_max: usize) {
        let model = &self.model;
        let end = if limit == Upto::End { model.end } else { model.durable };
        let outcome = self.log.read(Offset(from), limit, bytes_max);
        if from < model.start || from > end {
            assert!(matches!(outcome, Err(ReadError::OutOfRange { .. })));
            return;
        }
        let bytes = outcome.expect("read");
        let found: Vec<_> = stored(&bytes).into_iter().filter(|record| record.offset >= from).collect();
        let all = model.records.iter().filter(|record| record.offset >= from && record.offset < end);
        let expected: Vec<_> = all.take(found.len()).cloned().collect();
        assert_eq!(found, expected);
        let more = model.records.iter().any(|record| record.offset >= from && record.offset < end);
        assert_eq!(more, !found.is_empty(), "at least one batch is read where there is one");
        let first = batches(&bytes).next().map_or(0, |(header, _)| header.bytes);
        assert!(bytes.len() <= bytes_max.max(first), "a read keeps to its limit");
    }

    fn offset_at(&self, time_ms: i64) {
        let model = &self.model;
        let mut durable = model
            .records
            .iter()
            .filter(|record| record.offset >= model.start && record.offset < model.durable);
        let expected = durable.find(|record| record.time_ms >= time_ms);
        let found = self.log.offset_at(time_ms).expect("offset_at");
        assert_eq!(found, expected.map(|record| (Offset(record.offset), record.time_ms)));
    }

    fn set_start(&mut self, to: i64) {
        match self.log.set_start(Offset(to)) {
            Ok(()) => self.model.start = self.model.start.max(to),
            Err(ChangeError::OutOfRange { .. }) => assert!(to > self.model.durable),
            Err(error) => panic!("{error}"),
        }
        self.forget_lost_front();
    }

    fn drop_segments(&mut self, mask: u16) {
        let mut asked = 0;
        let mut gone: Vec<SegmentInfo> = Vec::new();
        let dropped = self.log.drop_segments(&mut |segment| {
            let dies = mask >> (asked % 16) & 1 == 1;
            asked += 1;
            if dies {
                gone.push(segment);
            }
            dies
        });
        assert_eq!(dropped.expect("drop"), gone.len());
        let is_gone =
            |offset| gone.iter().any(|segment| segment.base.0 <= offset && offset <= segment.last.0);
        self.model.records.retain(|record| !is_gone(record.offset));
        self.forget_lost_front();
    }

    /// The start moves behind segments that are gone from the front.
    fn forget_lost_front(&mut self) {
        let first = self.log.segments()[0].base.0;
        self.model.start = self.model.start.max(first);
        let start = self.model.start;
        self.model.records.retain(|record| record.offset >= start);
    }

    fn crash(&mut self) {
        self.disk.crash();
        let durable = self.model.durable;
        self.reopen();
        let end = self.log.watermarks().end.0;
        assert!(end >= durable, "a durable record is gone");
        self.model.records.retain(|record| record.offset < end);
        self.model.end = end;
        self.model.durable = end;
    }

    fn lose_indexes(&mut self) {
        let dir = std::path::Path::new(common::DIR);
        for entry in kiln_world::Disk::list(&self.disk, dir).expect("list") {
            if entry.name.to_string_lossy().ends_with(".index") {
                kiln_world::Disk::remove(&self.disk, &dir.join(entry.name)).expect("remove");
            }
        }
        self.reopen();
    }

    fn compare(&self) {
        let marks = self.log.watermarks();
        let model = &self.model;
        assert_eq!((marks.start.0, marks.durable.0, marks.end.0), (model.start, model.durable, model.end));
        let segments = self.log.segments();
        assert!(segments.windows(2).all(|pair| pair[0].last < pair[1].base), "segments overlap");
        assert_eq!(segments.iter().map(|segment| segment.bytes).sum::<u64>(), self.log.bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_agrees_with_a_plain_vector(seed in any::<u64>(), ops in ops()) {
        let mut system = System::new(seed);
        for op in &ops {
            system.apply(op);
        }
        let start = system.model.start;
        let expected: Vec<_> = system.model.records.iter().filter(|record| record.offset >= start).cloned().collect();
        prop_assert_eq!(everything(&system.log, Upto::End), expected);
    }
}
