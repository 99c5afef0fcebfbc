//! The log through its public face, on the machine's own disk and on the simulated one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiln_log::batch::{Builder, Record, batches, records};
use kiln_log::{AppendError, Log, ReadError, Settings, Upto, Volume};
use kiln_types::{Offset, Timestamp};
use kiln_world::{Clock, Disk, Open, RealClock, RealDisk, SimClock, SimDisk};

fn batch(values: &[&str], time_ms: i64) -> Vec<u8> {
    let mut builder = Builder::new(time_ms);
    for value in values {
        builder.push(&Record { value: Some(value.as_bytes()), time_ms, ..Record::default() });
    }
    builder.finish()
}

fn values(bytes: &[u8]) -> Vec<(i64, String)> {
    let each = batches(bytes).flat_map(|(_, batch)| records(batch));
    each.map(|record| {
        let record = record.expect("sound");
        (record.offset.0, String::from_utf8(record.value.expect("value").to_vec()).expect("text"))
    })
    .collect()
}

fn simulated() -> (SimDisk, Arc<SimClock>, Volume) {
    let disk = SimDisk::new(1);
    let clock = Arc::new(SimClock::new(Timestamp(1_000_000)));
    let volume = Volume::manual(Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>);
    (disk, clock, volume)
}

fn tiny() -> Settings {
    Settings { segment_bytes_max: 300, index_interval_bytes: 100, ..Settings::default() }
}

fn fill(log: &Log, count: i64) {
    for number in 0..count {
        log.append(&mut batch(&[&format!("record {number}")], number * 1000), 0).expect("append");
    }
}

#[tokio::test]
async fn what_was_appended_becomes_durable_and_is_read_back() {
    let dir = tempfile::tempdir().expect("tempdir");
    let disk = Arc::new(RealDisk::new(dir.path()).expect("disk"));
    let volume = Volume::start(disk, Arc::new(RealClock::new()));
    let log = volume.open(Path::new("topics/t-0"), Settings::default()).expect("open");
    let appended = log.append(&mut batch(&["a", "b"], 5), 7).expect("append");
    assert_eq!((appended.base, appended.last), (Offset(0), Offset(1)));
    let second = log.append(&mut batch(&["c"], 6), 7).expect("append");
    log.durable(second.last).await.expect("durable");
    assert_eq!(log.watermarks().durable, Offset(3));
    let bytes = log.read(Offset(1), Upto::Durable, 1 << 20).expect("read");
    assert_eq!(values(&bytes), [(0, "a".into()), (1, "b".into()), (2, "c".into())]);
    assert_eq!(batches(&bytes).next().expect("one").0.leader_epoch, 7);
    volume.close();
    assert!(matches!(log.append(&mut batch(&["d"], 7), 7), Err(AppendError::Failed(_))));
}

#[test]
fn nothing_is_durable_before_the_round() {
    let (_, _, volume) = simulated();
    let log = volume.open(Path::new("t"), Settings::default()).expect("open");
    fill(&log, 3);
    assert_eq!(log.watermarks().durable, Offset(0));
    assert!(log.read(Offset(0), Upto::Durable, 1000).expect("read").is_empty());
    assert_eq!(values(&log.read(Offset(0), Upto::End, 1000).expect("read")).len(), 3);
    assert_eq!(volume.flush_round(), 1);
    assert_eq!(volume.flush_round(), 0);
    assert_eq!(log.watermarks().durable, Offset(3));
}

#[test]
fn segments_rotate_and_every_offset_and_time_is_found() {
    let (_, _, volume) = simulated();
    let log = volume.open(Path::new("t"), tiny()).expect("open");
    fill(&log, 50);
    volume.flush_round();
    assert!(log.segments().len() > 10, "{:?}", log.segments().len());
    for number in 0..50 {
        let bytes = log.read(Offset(number), Upto::End, 1).expect("read");
        assert_eq!(values(&bytes), [(number, format!("record {number}"))]);
        let found = log.offset_at(number * 1000 - 500).expect("offset_at");
        assert_eq!(found, Some((Offset(number), number * 1000)));
    }
    assert_eq!(log.offset_at(49_001).expect("offset_at"), None);
    assert!(log.read(Offset(50), Upto::End, 1).expect("read").is_empty());
    assert!(matches!(log.read(Offset(51), Upto::End, 1), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn a_start_that_was_moved_stays_moved_after_a_crash() {
    let (disk, clock, volume) = simulated();
    let log = volume.open(Path::new("t"), tiny()).expect("open");
    fill(&log, 50);
    volume.flush_round();
    log.set_start(Offset(33)).expect("set_start");
    assert_eq!(log.watermarks().start, Offset(33));
    disk.crash();
    let volume = Volume::manual(Arc::new(disk), clock);
    let log = volume.open(Path::new("t"), tiny()).expect("open");
    let marks = log.watermarks();
    assert_eq!((marks.start, marks.durable, marks.end), (Offset(33), Offset(50), Offset(50)));
    assert!(matches!(log.read(Offset(32), Upto::End, 1), Err(ReadError::OutOfRange { .. })));
}

#[test]
fn a_segment_is_sealed_when_it_is_old_and_not_when_the_clock_is_set_back() {
    let (_, clock, volume) = simulated();
    let settings = Settings { segment_age_max: Some(Duration::from_secs(10)), ..Settings::default() };
    let log = volume.open(Path::new("t"), settings).expect("open");
    fill(&log, 1);
    clock.set(Timestamp(0));
    fill(&log, 1);
    assert_eq!(log.segments().len(), 1);
    clock.set(Timestamp(12_000_000));
    fill(&log, 2);
    assert_eq!(log.segments().len(), 2);
}

#[test]
fn retention_by_age_takes_the_written_segment_too() {
    let (_, _, volume) = simulated();
    let settings = Settings { retention_age: Some(Duration::from_secs(10)), ..tiny() };
    let log = volume.open(Path::new("t"), settings).expect("open");
    fill(&log, 50);
    volume.flush_round();
    assert!(log.retain(Timestamp::from_millis(30_000)).expect("retain") > 0);
    assert!(log.watermarks().start <= Offset(20));
    log.retain(Timestamp::from_millis(100_000)).expect("retain");
    let marks = log.watermarks();
    assert_eq!((marks.start, marks.end, log.bytes()), (Offset(50), Offset(50), 0));
}

#[test]
fn retention_by_size_leaves_the_newest() {
    let (_, _, volume) = simulated();
    let settings = Settings { retention_bytes: Some(1000), ..tiny() };
    let log = volume.open(Path::new("t"), settings).expect("open");
    fill(&log, 50);
    volume.flush_round();
    log.retain(Timestamp(0)).expect("retain");
    assert!(log.bytes() > 600 && log.bytes() <= 1300, "{}", log.bytes());
    assert_eq!(values(&log.read(Offset(49), Upto::End, 1).expect("read")).len(), 1);
}

#[test]
fn segments_in_the_middle_may_go_and_reading_steps_over_the_gap() {
    let (_, _, volume) = simulated();
    let log = volume.open(Path::new("t"), tiny()).expect("open");
    fill(&log, 50);
    volume.flush_round();
    let inner = log.segments()[3];
    let dropped = log.drop_segments(&mut |segment| segment.base == inner.base).expect("drop");
    assert_eq!(dropped, 1);
    assert_eq!(log.watermarks().start, Offset(0));
    let next = values(&log.read(inner.base, Upto::End, 1).expect("read"));
    assert_eq!(next[0].0, inner.last.0 + 1);
}

#[test]
fn a_removed_log_can_be_made_anew() {
    let (_, _, volume) = simulated();
    let log = volume.open(Path::new("a/t"), tiny()).expect("open");
    fill(&log, 5);
    volume.flush_round();
    let other = log.clone();
    log.remove().expect("remove");
    assert!(matches!(other.append(&mut batch(&["x"], 0), 0), Err(AppendError::Failed(_))));
    let log = volume.open(Path::new("a/t"), tiny()).expect("open");
    assert_eq!(log.watermarks().end, Offset(0));
}

#[test]
fn zeros_ahead_are_no_part_of_the_log() {
    let (disk, _, volume) = simulated();
    let settings = Settings { fill_ahead_bytes: 120, ..tiny() };
    let size = |disk: &SimDisk| {
        let files = disk.list(Path::new("t")).expect("list").into_iter().map(|entry| entry.name);
        let logs = files.filter(|name| name.to_string_lossy().ends_with(".log"));
        let len =
            |name| disk.open(&Path::new("t").join(name), Open::Existing).expect("open").len().expect("len");
        logs.map(len).sum::<u64>()
    };
    let log = volume.open(Path::new("t"), settings.clone()).expect("open");
    for n in 0..20 {
        log.append(&mut batch(&["a record"], n), 0).expect("append");
    }
    volume.flush_round();
    assert!(log.segments().len() > 2, "segments were sealed");
    assert!(size(&disk) > log.bytes(), "zeros lie behind the end");
    assert!(size(&disk) <= log.bytes() + 120, "and nowhere else");
    let before = values(&log.read(Offset(0), Upto::End, 1 << 20).expect("read"));
    drop((log, volume));
    disk.crash();
    let volume = Volume::manual(Arc::new(disk.clone()), Arc::new(SimClock::new(Timestamp(1_000_000))));
    let log = volume.open(Path::new("t"), settings).expect("open");
    assert_eq!(values(&log.read(Offset(0), Upto::End, 1 << 20).expect("read")), before);
    assert_eq!(size(&disk), log.bytes(), "recovery has cut them");
}
