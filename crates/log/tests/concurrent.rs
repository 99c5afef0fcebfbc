//! Writers, readers and retention at once, on the machine's own disk with the flusher's thread.

#[expect(dead_code, reason = "the other test files use the rest of it")]
mod common;

use std::path::Path;
use std::sync::Arc;

use common::{batch, stored};
use kiln_log::{Log, Settings, Upto, Volume};
use kiln_types::Offset;
use kiln_world::{Disk, Open, RealClock, RealDisk};

const WRITERS: usize = 8;
const APPENDS: usize = 200;

fn start() -> (tempfile::TempDir, Volume) {
    let dir = tempfile::tempdir().expect("tempdir");
    let disk = Arc::new(RealDisk::new(dir.path()).expect("disk"));
    (dir, Volume::start(disk, Arc::new(RealClock::new())))
}

async fn write(log: Log, fill: u8) {
    for number in 0..APPENDS {
        let last = log.append(&mut batch(&[&[fill; 50], &[fill; 9]], number as i64), 0).expect("append").last;
        if number % 3 == 0 {
            log.durable(last).await.expect("durable");
            assert!(log.watermarks().durable > last);
        }
    }
}

/// Follows the log as a consumer does, until it has seen `until`; every offset must come once and in order.
async fn follow(log: Log, until: Offset) {
    let mut watch = log.watch();
    let mut next = Offset(0);
    while next < until {
        let bytes = log.read(next, Upto::Durable, 2000).expect("read");
        let from = next.0;
        for record in stored(&bytes).iter().filter(|record| record.offset >= from) {
            assert_eq!(record.offset, next.0);
            next = next.next();
        }
        if bytes.is_empty() {
            let more = watch.wait_for(|marks| marks.durable > next).await.expect("the log lives").durable;
            assert!(more > next);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_follow_while_writers_append_and_segments_turn() {
    let (_dir, volume) = start();
    let settings = Settings { segment_bytes_max: 20_000, index_interval_bytes: 500, ..Settings::default() };
    let log = volume.open(Path::new("t"), settings).expect("open");
    let end = Offset((WRITERS * APPENDS * 2) as i64);
    let readers: Vec<_> = (0..3).map(|_| tokio::spawn(follow(log.clone(), end))).collect();
    let writers: Vec<_> = (0..WRITERS).map(|fill| tokio::spawn(write(log.clone(), fill as u8))).collect();
    for task in writers.into_iter().chain(readers) {
        task.await.expect("no panic");
    }
    assert!(log.segments().len() > 5);
    volume.close();
}

#[tokio::test]
async fn what_nobody_waits_for_is_flushed_soon_all_the_same() {
    let (_dir, volume) = start();
    let log = volume.open(Path::new("t"), Settings::default()).expect("open");
    let mut watch = log.watch();
    log.append(&mut batch(&[b"unasked"], 0), 0).expect("append");
    watch.wait_for(|marks| marks.durable == Offset(1)).await.expect("the log lives");
}

#[tokio::test]
async fn one_volume_serves_many_logs_and_survives_the_removal_of_some() {
    let (_dir, volume) = start();
    let open = |number: usize| volume.open(Path::new(&format!("many/{number}")), Settings::default());
    let logs: Vec<Log> = (0..200).map(|number| open(number).expect("open")).collect();
    let appended = logs.iter().map(|log| log.append(&mut batch(&[b"x"], 0), 0).expect("append").last);
    let waiting: Vec<_> = appended.zip(&logs).map(|(last, log)| log.durable(last)).collect();
    logs[7].clone().remove().expect("remove");
    for (number, outcome) in futures(waiting).await.into_iter().enumerate() {
        assert!(outcome || number == 7, "log {number}");
    }
    assert_eq!(open(7).expect("made anew").watermarks().end, Offset(0));
}

async fn futures(
    waiting: Vec<impl Future<Output = Result<(), kiln_log::Failed>> + Send + 'static>,
) -> Vec<bool> {
    let tasks: Vec<_> = waiting.into_iter().map(tokio::spawn).collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no panic").is_ok());
    }
    outcomes
}

#[tokio::test]
async fn a_closed_volume_leaves_everything_durable_and_the_logs_readable() {
    let (dir, volume) = start();
    let log = volume.open(Path::new("t"), Settings::default()).expect("open");
    let last = log.append(&mut batch(&[b"last words"], 0), 0).expect("append").last;
    volume.close();
    assert_eq!(log.watermarks().durable, last.next());
    assert!(log.append(&mut batch(&[b"too late"], 0), 0).is_err());
    assert_eq!(stored(&log.read(Offset(0), Upto::Durable, 99).expect("read")).len(), 1);
    drop((log, volume));

    let disk = Arc::new(RealDisk::new(dir.path()).expect("disk"));
    disk.open(Path::new("t/log.meta"), Open::Existing).expect("a clean end wrote it");
    let volume = Volume::start(disk, Arc::new(RealClock::new()));
    let log = volume.open(Path::new("t"), Settings::default()).expect("open");
    assert_eq!(log.watermarks().end, last.next());
}
