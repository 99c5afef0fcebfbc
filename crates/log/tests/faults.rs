//! Full disks, I/O errors, rot, and versions from the future.

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::{DIR, batch, everything, open, stored, tiny, volume};
use kiln_log::{AppendError, Failed, Log, OpenError, ReadError, Settings, Upto};
use kiln_types::Offset;
use kiln_world::{Disk, Fault, Open, SimDisk};

fn append(log: &Log, fill: u8, bytes: usize) -> Result<Offset, AppendError> {
    log.append(&mut batch(&[&vec![fill; bytes]], 0), 0).map(|appended| appended.last)
}

/// A log of `count` durable records of 300 bytes in tiny segments.
fn filled(disk: &SimDisk, count: u8) -> Log {
    let volume = volume(disk);
    let log = open(&volume, tiny()).expect("open");
    for fill in 0..count {
        append(&log, fill, 300).expect("append");
        volume.flush_round();
    }
    log
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(DIR).join(name)
}

/// Collects the outcome of `on_durable`.
fn listen(log: &Log, last: Offset) -> Arc<Mutex<Option<Result<(), Failed>>>> {
    let outcome = Arc::new(Mutex::new(None));
    let inside = Arc::clone(&outcome);
    log.on_durable(last, Box::new(move |result| *inside.lock().expect("lock") = Some(result)));
    outcome
}

#[test]
fn a_full_disk_refuses_the_append_and_the_log_goes_on_when_there_is_space() {
    for free in 0..400 {
        let disk = SimDisk::new(free);
        let volume = volume(&disk);
        let log = open(&volume, tiny()).expect("open");
        append(&log, 1, 300).expect("append");
        disk.set_capacity(Some(disk.used_bytes() + free));
        let outcome = append(&log, 2, 300);
        if free < 300 {
            assert!(matches!(outcome, Err(AppendError::Full)), "{outcome:?}");
            let file = disk.contents(&path("00000000000000000000.log")).expect("file");
            assert_eq!(stored(&file).len(), 1, "the torn part is cut");
        }
        disk.set_capacity(None);
        append(&log, 3, 300).expect("goes on");
        volume.flush_round();
        disk.crash();
        let log = open(&common::volume(&disk), tiny()).expect("open");
        let fills: Vec<u8> = everything(&log, Upto::Durable).iter().map(|record| record.value[0]).collect();
        assert!(fills == [1, 3] || (free >= 300 && fills == [1, 2, 3]), "{free}: {fills:?}");
    }
}

#[test]
fn a_full_disk_at_the_turn_of_a_segment_is_no_end_either() {
    let disk = SimDisk::new(1);
    let volume = volume(&disk);
    let log = open(&volume, tiny()).expect("open");
    append(&log, 1, 1200).expect("append");
    disk.set_capacity(Some(disk.used_bytes()));
    for _ in 0..3 {
        assert!(matches!(append(&log, 2, 1200), Err(AppendError::Full)));
    }
    disk.set_capacity(None);
    append(&log, 3, 1200).expect("goes on");
    volume.flush_round();
    assert_eq!(everything(&log, Upto::Durable).len(), 2);
}

#[test]
fn a_failed_flush_is_told_to_every_waiter_and_every_later_caller() {
    let disk = SimDisk::new(1);
    let volume = volume(&disk);
    let log = open(&volume, tiny()).expect("open");
    let first = append(&log, 1, 100).expect("append");
    volume.flush_round();
    let second = append(&log, 2, 100).expect("append");
    let (served, one, two) = (listen(&log, first), listen(&log, second), listen(&log, second));
    disk.fail_nth(Fault::Sync, 0);
    volume.flush_round();
    assert!(matches!(*served.lock().expect("lock"), Some(Ok(()))));
    assert!(matches!(*one.lock().expect("lock"), Some(Err(_))));
    assert!(matches!(*two.lock().expect("lock"), Some(Err(_))));
    // The disk works again, but what it lost stays lost: a second flush must not pretend.
    assert!(matches!(append(&log, 3, 100), Err(AppendError::Failed(_))));
    volume.flush_round();
    assert_eq!(log.watermarks().durable, first.next());
    assert!(matches!(*listen(&log, second).lock().expect("lock"), Some(Err(_))));
    assert!(log.set_start(first).is_err());
    assert_eq!(everything(&log, Upto::Durable).len(), 1, "what was durable can still be read");
    disk.crash();
    let log = open(&common::volume(&disk), tiny()).expect("open");
    assert_eq!(everything(&log, Upto::Durable)[0].value[0], 1);
}

#[test]
fn one_failed_flush_stops_every_log_of_its_round_and_no_other() {
    let disk = SimDisk::new(1);
    let volume = volume(&disk);
    let named = |name: &str| volume.open(Path::new(name), Settings::default()).expect("open");
    let (one, two, idle) = (named("one"), named("two"), named("idle"));
    append(&one, 1, 10).expect("append");
    append(&two, 1, 10).expect("append");
    disk.fail_nth(Fault::Sync, 1);
    volume.flush_round();
    assert!(append(&one, 2, 10).is_err());
    assert!(append(&two, 2, 10).is_err());
    append(&idle, 2, 10).expect("untouched");
}

#[test]
fn a_failed_write_stops_the_log() {
    let disk = SimDisk::new(1);
    let volume = volume(&disk);
    let log = open(&volume, tiny()).expect("open");
    let first = append(&log, 1, 100).expect("append");
    let outcome = listen(&log, first);
    // The write fails for another reason than space, and so does the cut that follows it.
    disk.fail_nth(Fault::Write, 0);
    assert!(matches!(append(&log, 2, 100), Err(AppendError::Failed(_))));
    assert!(matches!(*outcome.lock().expect("lock"), Some(Err(_))));
    assert!(matches!(append(&log, 3, 100), Err(AppendError::Failed(_))));
}

#[test]
fn rot_in_a_sealed_segment_is_reported_with_its_place_and_nothing_is_cut() {
    let disk = SimDisk::new(1);
    let log = filled(&disk, 20);
    let victim = log.segments()[2];
    let name = format!("{:020}.log", victim.base.0);
    let batch_bytes = batch(&[&[0; 300]], 0).len() as u64;
    disk.rot(&path(&name), batch_bytes + 200, 0x10).expect("rot");
    let before = disk.contents(&path(&name));
    let log = open(&volume(&disk), tiny()).expect("a saved index spares the scan");
    let outcome = log.read(victim.base.next(), Upto::Durable, 10);
    let Err(ReadError::Corrupt { file, position, .. }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((file, position), (path(&name), batch_bytes));
    assert!(log.read(victim.base, Upto::Durable, 10).is_ok(), "its neighbours are readable");
    assert!(log.read(victim.last.next(), Upto::Durable, 10).is_ok());
    assert_eq!(disk.contents(&path(&name)), before);

    disk.remove(&path(&name.replace(".log", ".index"))).expect("remove");
    let outcome = open(&volume(&disk), tiny());
    let Err(OpenError::Corrupt { file, position, .. }) = outcome.map(|_| ()) else { panic!("opened") };
    assert_eq!((file, position), (path(&name), batch_bytes));
    assert_eq!(disk.contents(&path(&name)), before);
}

#[test]
fn rot_in_the_durable_part_of_the_last_segment_is_no_torn_tail() {
    let disk = SimDisk::new(1);
    drop(filled(&disk, 3));
    let volume = volume(&disk);
    let log = open(&volume, tiny()).expect("open");
    assert_eq!(log.segments().len(), 1);
    volume.close(); // a clean end writes down what is durable
    disk.rot(&path("00000000000000000000.log"), 400, 1).expect("rot");
    let outcome = open(&common::volume(&disk), tiny()).map(|_| ());
    assert!(matches!(outcome, Err(OpenError::Corrupt { .. })), "{outcome:?}");
}

#[test]
fn a_segment_that_was_durable_and_is_gone_is_reported() {
    let disk = SimDisk::new(1);
    let log = filled(&disk, 20);
    let last = *log.segments().last().expect("one");
    let sealed = log.segments()[log.segments().len() - 2];
    for base in [last.base, sealed.base] {
        disk.remove(&path(&format!("{:020}.log", base.0))).expect("remove");
    }
    let outcome = open(&volume(&disk), tiny()).map(|_| ());
    assert!(matches!(outcome, Err(OpenError::Corrupt { .. })), "{outcome:?}");
}

#[test]
fn a_gap_where_segments_were_dropped_is_never_taken_for_a_lost_tail() {
    let disk = SimDisk::new(1);
    let volume = volume(&disk);
    let log = open(&volume, tiny()).expect("open");
    for fill in 0..4 {
        append(&log, fill, 1200).expect("append");
    }
    // Three segments are sealed: each index is cut and written, then comes log.meta, which fails.
    disk.fail_nth(Fault::Write, 6);
    volume.flush_round();
    assert!(disk.contents(&path("log.meta")).is_none_or(|bytes| bytes.is_empty()));
    let dropped = log.drop_segments(&mut |segment| segment.base == Offset(1));
    assert_eq!(dropped.expect("drop"), 1);
    disk.crash();
    let log = open(&common::volume(&disk), tiny()).expect("open");
    let fills: Vec<u8> = everything(&log, Upto::Durable).iter().map(|record| record.value[0]).collect();
    assert_eq!(fills, [0, 2, 3]);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let disk = SimDisk::new(1);
    drop(filled(&disk, 20));
    let meta = disk.open(&path("log.meta"), Open::Existing).expect("open");
    for slot in [0, 512] {
        meta.write_all_at(&[&2_u32.to_be_bytes()], slot + 8).expect("write");
    }
    let outcome = open(&volume(&disk), tiny()).map(|_| ());
    assert!(matches!(outcome, Err(OpenError::NewerFormat { found: 2, known: 1, .. })), "{outcome:?}");
}

#[test]
fn one_spoilt_slot_of_the_meta_file_is_survived_two_are_reported() {
    let disk = SimDisk::new(1);
    let log = filled(&disk, 20);
    log.set_start(Offset(2)).expect("set_start");
    disk.rot(&path("log.meta"), 20, 1).expect("rot");
    assert!(open(&volume(&disk), tiny()).is_ok());
    disk.rot(&path("log.meta"), 532, 1).expect("rot");
    let outcome = open(&volume(&disk), tiny()).map(|_| ());
    assert!(matches!(outcome, Err(OpenError::Corrupt { .. })), "{outcome:?}");
}

#[test]
fn unsound_batches_are_refused_whole() {
    let disk = SimDisk::new(1);
    let volume = volume(&disk);
    let settings = Settings { batch_bytes_max: 1000, ..tiny() };
    let log = open(&volume, settings).expect("open");
    let mut bytes = [batch(&[b"sound"], 0), batch(&[b"spoilt"], 0)].concat();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert!(matches!(log.append(&mut bytes, 0), Err(AppendError::Bad(_))));
    assert!(matches!(log.append(&mut [], 0), Err(AppendError::Bad(_))));
    assert!(matches!(append(&log, 1, 1000), Err(AppendError::TooLarge { max: 1000, .. })));
    assert_eq!(log.watermarks().end, Offset(0));
    assert_eq!(log.bytes(), 0);
}
