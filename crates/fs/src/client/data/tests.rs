//! Against servers in memory, over real sockets.

use std::slice::from_ref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::core::OstIndex;
use crate::core::layout::STRIPE_BYTES_MIN;

mod fake;
mod model;
mod quota;

use fake::{Cluster, Event, SESSION};

const KIB64: u64 = 64 << 10;
const MIB: u64 = 1 << 20;
const INO: Ino = Ino(5);

/// Nothing is written back because of its age.
fn patient() -> Settings {
    Settings { write_back_after: Duration::from_hours(1), ..Settings::default() }
}

/// A file of a cluster, on a mount of its own.
fn file_on(cluster: &Cluster, settings: Settings, inline: u64) -> (Arc<DataPath>, Arc<FileData>) {
    let (attr, layout) = cluster.mds.make(INO, inline, STRIPE_BYTES_MIN);
    let mount = cluster.mount(settings);
    let file = mount.file(INO, &attr, layout, None);
    (mount, file)
}

/// The same file as another mount sees it.
fn seen_elsewhere(cluster: &Cluster) -> Vec<u8> {
    let mount = cluster.mount(patient());
    let (attr, layout) = cluster.mds.get(INO);
    let file = mount.file(INO, &attr, layout, None);
    file.read(0, 64 << 20, Mode::Direct).unwrap().to_vec()
}

fn pattern(len: usize, seed: u64) -> Vec<u8> {
    (0..len as u64).map(|n| (n.wrapping_mul(2_654_435_761).wrapping_add(seed * 977) >> 7) as u8).collect()
}

fn writes(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| if let Event::Write { bytes, .. } = event { Some(*bytes) } else { None })
        .collect()
}

fn reads(events: &[Event]) -> Vec<u64> {
    events
        .iter()
        .filter_map(|event| if let Event::Read { bytes } = event { Some(*bytes) } else { None })
        .collect()
}

#[test]
fn a_small_file_costs_no_call_until_it_is_flushed_and_then_one() {
    let cluster = Cluster::new(2);
    let (_mount, file) = file_on(&cluster, patient(), KIB64);
    let data = pattern(4096, 1);
    file.write(0, &data[..1000], Mode::Cached, false).unwrap();
    file.write(1000, &data[1000..], Mode::Cached, false).unwrap();
    assert_eq!(cluster.oss.events(), []);
    assert_eq!(file.attr_changes().and_then(|changes| changes.size), Some(4096));
    file.flush().unwrap();
    assert_eq!(cluster.oss.events(), [Event::Inline { bytes: 4096 }]);
    assert_eq!(file.attr_changes(), None);
    assert_eq!(cluster.mds.inline(INO), data);
    file.sync().unwrap();
    assert_eq!(cluster.oss.events(), [Event::MdsSync], "there is nothing that an OST could make durable");
}

#[test]
fn an_fsync_of_a_piece_within_the_file_costs_one_call_of_the_ost_and_one_of_the_mds() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(1 << 20, 1), Mode::Cached, false).unwrap();
    file.sync().unwrap();
    cluster.oss.events();
    for at in [5000, 700_000] {
        file.write(at, &pattern(4096, 2), Mode::Cached, false).unwrap();
        file.sync().unwrap();
        let mut events = cluster.oss.events();
        events.sort_by_key(|event| matches!(event, Event::Write { .. }));
        // The time only: how long the file is, the MDS knows.
        let told = [Event::Told { size: 0 }, Event::MdsSync];
        assert_eq!(events[..2], told, "the MDS is told while the OST writes");
        assert_eq!(events[2..], [Event::Write { bytes: 4096, sync: true }]);
        assert_eq!(file.attr_changes(), None);
    }
    assert_eq!(seen_elsewhere(&cluster)[700_000..704_096], pattern(4096, 2));
}

#[test]
fn an_fdatasync_costs_one_call_of_the_ost_where_the_mdt_has_size_and_layout_on_its_disk() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), KIB64);
    let write = |at: u64| file.write(at, &pattern(4096, 2), Mode::Cached, false).expect("there is memory");
    let synced = || {
        file.sync_data().expect("the servers answer");
        cluster.oss.events()
    };
    let on_ost = Event::Write { bytes: 4096, sync: true };
    file.write(0, &pattern(1 << 20, 1), Mode::Cached, false).expect("there is memory");
    assert!(synced().contains(&Event::MdsSync), "a new file");
    for at in [100_000, 700_000] {
        write(at);
        assert_eq!(synced(), from_ref(&on_ost));
    }
    assert!(file.attr_changes().is_some_and(|changes| changes.mtime.is_some()), "the time is told later");
    // What the MDS was told since is not on its disk.
    file.flush().expect("the servers answer");
    cluster.oss.events();
    write(200_000);
    assert!(synced().contains(&Event::MdsSync));
    write(200_000);
    assert_eq!(synced(), from_ref(&on_ost));
    // Of the part that is on the MDT, and of what makes the file longer, the MDS must know.
    write(10);
    assert!(synced().contains(&Event::MdsSync));
    write(2 * MIB);
    assert_eq!(synced()[1..], [Event::Told { size: 2 * MIB + 4096 }, Event::MdsSync]);
    // fsync(2) tells the time.
    file.sync().expect("the servers answer");
    write(200_000);
    file.sync().expect("the servers answer");
    assert!(cluster.oss.events().contains(&Event::MdsSync));
    assert_eq!(file.attr_changes(), None);
}

#[test]
fn an_fsync_tells_a_size_only_when_the_data_is_durable() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(4096, 1), Mode::Cached, false).unwrap();
    file.sync().unwrap();
    let write = Event::Write { bytes: 4096, sync: true };
    assert_eq!(cluster.oss.events(), [write, Event::Told { size: 4096 }, Event::MdsSync]);
    // Several pieces are written first, and synced together.
    file.write(10_000, &pattern(100, 2), Mode::Cached, false).unwrap();
    file.write(20_000, &pattern(100, 3), Mode::Cached, false).unwrap();
    file.sync().unwrap();
    let events = cluster.oss.events();
    assert_eq!(writes(&events), [100, 100]);
    assert_eq!(events[2..], [Event::Sync, Event::Told { size: 20_100 }, Event::MdsSync]);
}

#[test]
fn what_is_old_enough_is_written_back_without_being_asked() {
    let cluster = Cluster::new(1);
    let settings = Settings { write_back_after: Duration::from_millis(1), ..Settings::default() };
    let (mount, file) = file_on(&cluster, settings, KIB64);
    file.write(0, &pattern(100, 1), Mode::Cached, false).unwrap();
    file.write(3 * MIB, &pattern(100, 2), Mode::Cached, false).unwrap();
    drop(file); // The mount keeps it until then.
    while cluster.mds.get(INO).0.size < 3 * MIB + 100 || mount.dirty_bytes() > 0 {
        thread::yield_now();
    }
    let seen = seen_elsewhere(&cluster);
    assert_eq!(seen[3 << 20..], pattern(100, 2));
    assert_eq!(seen[..100], pattern(100, 1));
}

#[test]
fn sequential_writes_become_large_ones_and_the_size_is_told_once_after_them() {
    let cluster = Cluster::new(2);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    let data = pattern(8 << 20, 3);
    for (n, part) in data.chunks(100_000).enumerate() {
        file.write(n as u64 * 100_000, part, Mode::Cached, false).unwrap();
    }
    file.flush().unwrap();
    let events = cluster.oss.events();
    let (last, before) = events.split_last().unwrap();
    assert_eq!(*last, Event::Told { size: 8 * MIB });
    let sizes = writes(before);
    assert_eq!((sizes.iter().sum::<u64>(), before.len()), (8 * MIB, sizes.len()), "{events:?}");
    assert!(sizes.iter().all(|bytes| *bytes >= 512 << 10), "{sizes:?}");
    assert_eq!(seen_elsewhere(&cluster), data);
    assert_eq!(cluster.mds.get(INO).0.blocks, 8 * MIB / 512);
}

#[test]
fn writing_the_same_place_again_costs_the_ost_nothing() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    for seed in 0..100 {
        file.write(8192, &pattern(4096, seed), Mode::Cached, false).unwrap();
    }
    file.sync().unwrap();
    let events = cluster.oss.events();
    assert_eq!(writes(&events), [4096]);
    assert!(events.contains(&Event::Write { bytes: 4096, sync: true }));
    assert_eq!(seen_elsewhere(&cluster)[8192..], pattern(4096, 99));
}

#[test]
fn direct_writes_are_at_the_servers_when_they_are_answered() {
    let cluster = Cluster::new(2);
    let (_mount, file) = file_on(&cluster, patient(), 4096);
    let data = pattern(300_000, 4);
    file.write(0, &data, Mode::Direct, false).unwrap();
    assert_eq!(seen_elsewhere(&cluster), data);
    cluster.oss.events();
    file.write(100_000, b"in the middle", Mode::Cached, true).unwrap();
    assert_eq!(
        cluster.oss.events(),
        [Event::Write { bytes: 13, sync: true }],
        "it does not grow: nothing is told"
    );
    assert_eq!(file.read(100_000, 13, Mode::Cached).unwrap(), &b"in the middle"[..]);
}

#[test]
fn what_another_mount_does_to_a_shared_file_is_seen_by_direct_reads() {
    let cluster = Cluster::new(2);
    let (_mount, file) = file_on(&cluster, patient(), 4096);
    let elsewhere = cluster.mount(patient());
    let (attr, layout) = cluster.mds.get(INO);
    let other = elsewhere.file(INO, &attr, layout, None);
    assert_eq!(file.read(0, 100, Mode::Direct).unwrap(), &b""[..]);
    let data = pattern(200_000, 5);
    other.write(0, &data, Mode::Direct, false).unwrap();
    assert_eq!(
        file.read(0, 1 << 20, Mode::Direct).unwrap(),
        data,
        "with objects that came after it was opened"
    );
    cluster.mds.set_size(INO, 150_000);
    assert_eq!(file.read(100_000, 1 << 20, Mode::Direct).unwrap(), data[100_000..150_000]);
    assert_eq!(file.size(), 150_000);
}

#[test]
fn a_sequential_reader_is_read_ahead_for_and_a_random_one_is_not() {
    let cluster = Cluster::new(1);
    let (_writer, file) = file_on(&cluster, patient(), 0);
    let data = pattern(16 << 20, 6);
    file.write(0, &data, Mode::Cached, false).unwrap();
    file.flush().unwrap();
    let (attr, layout) = cluster.mds.get(INO);
    let mount = cluster.mount(patient());
    let file = mount.file(INO, &attr, layout, None);
    cluster.oss.events();
    for n in 0..128 {
        let part = file.read(n * (128 << 10), 128 << 10, Mode::Cached).unwrap();
        assert!(part == data[(n << 17) as usize..((n + 1) << 17) as usize], "part {n}");
    }
    let sizes = reads(&cluster.oss.events());
    assert!(sizes.iter().sum::<u64>() == 16 * MIB && sizes.len() <= 24, "{sizes:?}");
    assert_eq!(mount.mount.clean_bytes(), 0, "what was read is not kept");
    for n in 0..100 {
        let at = (n * 2_654_435_761 % (16 << 20)) & !4095;
        let page = file.read(at, 4096, Mode::Cached).unwrap();
        assert!(page == data[at as usize..at as usize + 4096]);
    }
    assert_eq!(reads(&cluster.oss.events()), [4096; 100]);
}

#[test]
fn the_head_that_came_with_the_open_is_read_without_a_call_and_forgotten_when_told() {
    let cluster = Cluster::new(1);
    let (mount, file) = file_on(&cluster, patient(), KIB64);
    file.write(0, b"old", Mode::Cached, false).unwrap();
    file.flush().unwrap();
    drop(file);
    let (attr, layout) = cluster.mds.get(INO);
    let file = mount.file(INO, &attr, layout.clone(), Some(Bytes::from_static(b"head")));
    assert_eq!(file.read(0, 100, Mode::Cached).unwrap(), &b"hea"[..], "the size is the size");
    assert_eq!(file.read(0, 100, Mode::Direct).unwrap(), &b"old"[..]);
    file.forget_clean();
    assert_eq!(file.read(0, 100, Mode::Cached).unwrap(), &b"old"[..]);
    file.write(0, b"new", Mode::Cached, false).unwrap();
    file.flush().unwrap();
    let again = mount.file(INO, &attr, layout, Some(Bytes::from_static(b"old")));
    assert!(Arc::ptr_eq(&file, &again));
    assert_eq!(
        file.read(0, 100, Mode::Cached).unwrap(),
        &b"new"[..],
        "a head that is older than what is known"
    );
}

#[test]
fn what_was_read_ahead_gives_way_to_what_is_written() {
    let cluster = Cluster::new(2);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &vec![1; 4 << 20], Mode::Direct, false).unwrap();
    for (written, mode) in [(2, Mode::Cached), (3, Mode::Direct)] {
        file.read(0, 128 << 10, Mode::Cached).unwrap();
        file.read(128 << 10, 128 << 10, Mode::Cached).unwrap();
        while file.lock().clean.bytes() == 0 {
            thread::yield_now();
        }
        file.write(0, &vec![written; 4 << 20], mode, false).unwrap();
        file.flush().unwrap();
        let seen = file.read(0, 4 << 20, Mode::Cached).unwrap();
        assert!(seen.iter().all(|byte| *byte == written), "{mode:?}");
    }
    file.read(0, 128 << 10, Mode::Cached).unwrap();
    file.punch(0, 4 << 20, Mode::Cached).unwrap();
    assert!(file.read(0, 4 << 20, Mode::Cached).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn a_full_ost_is_told_once_by_flush_and_by_writes_until_then() {
    let cluster = Cluster::new(1);
    let (mount, file) = file_on(&cluster, patient(), 0);
    cluster.oss.store().full.insert(OstIndex(0));
    file.write(0, b"lost", Mode::Cached, false).unwrap();
    assert_eq!(file.write(0, b"x", Mode::Direct, false), Err(Errno::ENOSPC));
    assert_eq!(file.flush(), Err(Errno::ENOSPC));
    assert_eq!(file.flush(), Ok(()), "it was told");
    assert_eq!(mount.dirty_bytes(), 0);
    for n in 0.. {
        // The chunk is complete, is written back, and fails: a write says so at last.
        match file.write(n * 4096 % MIB, &[1; 4096], Mode::Cached, false) {
            Ok(()) => thread::yield_now(),
            Err(error) => {
                assert_eq!(error, Errno::ENOSPC);
                break;
            }
        }
    }
    assert_eq!(file.read(0, 1, Mode::Cached).unwrap(), &[1][..], "it is there until it was told");
    assert_eq!(file.sync(), Err(Errno::ENOSPC));
    cluster.oss.store().full.clear();
    file.write(0, b"kept", Mode::Cached, false).unwrap();
    file.sync().unwrap();
    assert_eq!(seen_elsewhere(&cluster)[..4], *b"kept");
}

#[test]
fn dirty_data_is_bounded_and_writers_wait() {
    let cluster = Cluster::new(2);
    let settings = Settings { dirty_bytes_max: 3 * MIB, dirty_bytes_per_file_max: 2 * MIB, ..patient() };
    let (mount, file) = file_on(&cluster, settings, 0);
    cluster.oss.hold_writes(true);
    let writer = thread::spawn({
        let file = Arc::clone(&file);
        move || {
            for n in 0..300_u64 {
                // Every second page, so that no chunk ever is complete.
                file.write(n * 8192, &pattern(4096, n), Mode::Cached, false).unwrap();
                file.write(n * 8192 + 100 * MIB, &pattern(4096, n), Mode::Cached, false).unwrap();
            }
        }
    });
    cluster.oss.await_writes(1);
    assert!(mount.dirty_bytes() <= 2 * MIB && !writer.is_finished());
    cluster.oss.hold_writes(false);
    while !writer.is_finished() {
        assert!(mount.dirty_bytes() <= 2 * MIB);
    }
    writer.join().unwrap();
    file.flush().unwrap();
    assert_eq!(mount.dirty_bytes(), 0);
    let seen = file.read(299 * 8192, 4096, Mode::Direct).unwrap();
    assert_eq!(seen, pattern(4096, 299));
}

#[test]
fn readahead_is_bounded_for_the_mount() {
    let cluster = Cluster::new(1);
    let settings = Settings { clean_bytes_max: 2 * MIB, ..patient() };
    let (mount, file) = file_on(&cluster, settings, 0);
    file.write(0, &pattern(32 << 20, 1), Mode::Direct, false).unwrap();
    for n in 0..64 {
        // Four readers that never finish.
        for reader in 0..4_u64 {
            file.read(reader * 8 * MIB + n * 65_536, 65_536, Mode::Cached).unwrap();
            assert!(
                mount.mount.clean_bytes() <= 2 * MIB + 5 * MIB,
                "the bound, and what arrives on each thread"
            );
        }
    }
}

#[test]
fn connections_that_nobody_uses_are_closed_and_come_again() {
    let cluster = Cluster::on_disk(2);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(3_000_000, 1), Mode::Direct, false).expect("it is written");
    let moved = file.mount.osts.moved();
    assert!(moved > 0 && cluster.connections() > 0);
    file.mount.osts.close_idle();
    cluster.await_no_connection();
    assert_eq!(file.read(0, 3_000_000, Mode::Direct), Ok(pattern(3_000_000, 1).into()));
    assert!(file.mount.osts.moved() > moved);
}

#[test]
fn damaged_bytes_are_asked_for_again_and_are_an_error_in_the_end() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    cluster.oss.store().damaged_writes = 2;
    file.write(0, &pattern(5000, 1), Mode::Direct, false).unwrap();
    cluster.oss.store().damaged_reads = 2;
    assert_eq!(file.read(0, 5000, Mode::Direct).unwrap(), pattern(5000, 1));
    cluster.oss.store().damaged_reads = 3;
    assert_eq!(file.read(0, 5000, Mode::Direct), Err(Errno::EIO));
    cluster.oss.store().unsummed_reads = 2;
    assert_eq!(file.read(0, 5000, Mode::Direct), Ok(pattern(5000, 1).into()));
    cluster.oss.store().unsummed_reads = 3;
    assert_eq!(file.read(0, 5000, Mode::Direct), Err(Errno::EIO));
    cluster.oss.store().damaged_writes = 3;
    assert_eq!(file.write(0, b"x", Mode::Direct, false), Err(Errno::EIO));
}

#[test]
fn an_ost_that_dies_and_comes_back_under_load_costs_nothing_but_time() {
    let mut cluster = Cluster::new(2);
    let settings = Settings { dirty_bytes_max: 4 * MIB, ..patient() };
    let (_mount, file) = file_on(&cluster, settings, 4096);
    let data = pattern(24 << 20, 9);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for (n, part) in data.chunks(300_000).enumerate() {
                let at = n as u64 * 300_000;
                let mode = if n % 7 == 0 { Mode::Direct } else { Mode::Cached };
                file.write(at, part, mode, false).unwrap();
                let back = file.read(at, 300_000, Mode::Cached).unwrap();
                assert!(back == part);
                if n % 20 == 0 {
                    file.sync().unwrap();
                }
            }
            file.sync().unwrap();
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            cluster.kill();
            cluster.start();
            thread::sleep(Duration::from_millis(20)); // So that some of it is done in between.
        }
    });
    assert!(seen_elsewhere(&cluster) == data);
}

#[test]
fn an_ost_that_moves_is_found_at_its_new_place_by_calls_that_wait() {
    let mut cluster = Cluster::new(1);
    let (attr, layout) = cluster.mds.make(INO, 0, STRIPE_BYTES_MIN);
    cluster.kill();
    let osts = Osts::new(&cluster.config, SESSION);
    let mount = DataPath::new(Arc::clone(&cluster.mds) as _, Arc::clone(&osts), patient());
    let file = mount.file(INO, &attr, layout, None);
    let elsewhere = Cluster::new(1);
    thread::scope(|scope| {
        let writer = scope.spawn(|| file.write(0, b"moved", Mode::Direct, false));
        osts.replace(&elsewhere.config);
        assert_eq!(writer.join().unwrap(), Ok(()));
    });
    assert_eq!(writes(&elsewhere.oss.events()), [5]);
}

#[test]
fn a_fenced_session_loses_what_it_held_back() {
    let cluster = Cluster::new(1);
    let (mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, b"late", Mode::Cached, false).unwrap();
    cluster.oss.store().fenced.insert(SESSION);
    assert_eq!(file.flush(), Err(Errno::EIO));
    assert_eq!(mount.dirty_bytes(), 0);
    assert_eq!(file.read(0, 4, Mode::Cached), Err(Errno::EIO));
    assert_eq!(file.write(0, b"x", Mode::Cached, false), Err(Errno::EIO));
    let (attr, layout) = cluster.mds.get(INO);
    assert!(!Arc::ptr_eq(&file, &mount.file(INO, &attr, layout, None)), "a new open has new data");
}

#[test]
fn a_discard_ends_calls_that_wait_for_a_dead_ost() {
    let mut cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    cluster.kill();
    thread::scope(|scope| {
        let flusher = scope.spawn(|| {
            // The discard may come before this returns: then it says so already.
            file.write(0, b"never", Mode::Cached, false)?;
            file.flush()
        });
        while file.size() == 0 {
            thread::yield_now();
        }
        file.discard();
        assert_eq!(flusher.join().unwrap(), Err(Errno::EIO));
    });
}

#[test]
fn nothing_that_was_on_its_way_arrives_behind_a_cut() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    cluster.oss.hold_writes(true);
    file.write(0, &pattern(MIB as usize, 1), Mode::Cached, false).unwrap();
    cluster.oss.await_writes(1); // The chunk is complete, and on its way.
    let cut = thread::spawn({
        let (file, mds) = (Arc::clone(&file), Arc::clone(&cluster.mds));
        move || {
            file.resize(100, || {
                assert_eq!(mds.oss_bytes(), MIB, "the flight has arrived before the objects are cut");
                Ok(mds.set_size(INO, 100))
            })
        }
    });
    cluster.oss.hold_writes(false);
    cut.join().unwrap().unwrap();
    assert_eq!(file.size(), 100);
    file.resize(200, || Ok(cluster.mds.set_size(INO, 200))).unwrap();
    file.flush().unwrap();
    let mut expected = pattern(100, 1);
    expected.resize(200, 0);
    assert_eq!(file.read(0, 1000, Mode::Cached).unwrap(), expected);
    assert_eq!(seen_elsewhere(&cluster), expected);
}

#[test]
fn a_lease_can_be_given_back_while_a_cut_waits_for_the_mds() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(1000, 1), Mode::Cached, false).unwrap();
    file.resize(500, || {
        // The MDS calls the lease back before it answers.
        file.flush().unwrap();
        assert_eq!(cluster.mds.get(INO).0.size, 500, "what is cut is not told");
        Ok(cluster.mds.set_size(INO, 500))
    })
    .unwrap();
    assert_eq!(seen_elsewhere(&cluster), pattern(1000, 1)[..500]);
}

#[test]
fn data_is_held_back_also_when_the_mds_knows_everything_else() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(4096, 1), Mode::Cached, false).unwrap();
    file.flush().unwrap();
    assert!(!file.holds_back());
    file.write(0, b"new", Mode::Cached, false).unwrap();
    file.resize(4096, || {
        cluster.mds.set_mtime(INO, Time { secs: 1_000_000, nanos: 5 });
        Ok(cluster.mds.set_size(INO, 4096))
    })
    .unwrap();
    assert_eq!(file.attr_changes(), None, "size, time and space are as the MDS has them");
    assert!(file.holds_back());
}

#[test]
fn a_time_that_was_set_is_not_overwritten_by_data_that_was_written_before() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), KIB64);
    file.write(0, b"written", Mode::Cached, false).unwrap();
    let set = Time { secs: 1_000_000, nanos: 5 };
    file.set_times(|| Ok(cluster.mds.set_mtime(INO, set))).unwrap();
    assert_eq!(file.size(), 7, "what was written and not told stays");
    file.flush().unwrap();
    assert_eq!(cluster.mds.get(INO).0.mtime, set);
}

#[test]
fn a_time_that_another_mount_has_set_is_not_told_otherwise_later() {
    let cluster = Cluster::new(1);
    let (mount, file) = file_on(&cluster, patient(), KIB64);
    file.write(0, b"written", Mode::Cached, false).unwrap();
    file.flush().unwrap();
    let set = Time { secs: 1_000_000, nanos: 5 };
    cluster.mds.set_mtime(INO, set);
    let (attr, layout) = cluster.mds.get(INO);
    let again = mount.file(INO, &attr, layout, None);
    assert!(Arc::ptr_eq(&file, &again));
    assert_eq!(file.attr_changes(), None);
    file.flush().unwrap();
    assert_eq!(cluster.mds.get(INO).0.mtime, set);
}

#[test]
fn the_mds_knows_the_time_of_a_direct_write() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(1000, 1), Mode::Direct, false).unwrap();
    let long_ago = Time { secs: 1_000_000, nanos: 5 };
    file.set_times(|| Ok(cluster.mds.set_mtime(INO, long_ago))).unwrap();
    file.write(0, &pattern(1000, 2), Mode::Direct, false).unwrap();
    assert!(cluster.mds.get(INO).0.mtime > long_ago, "it does not grow, and is told all the same");
    assert_eq!(file.attr_changes().and_then(|changes| changes.mtime), None);
}

#[test]
fn a_size_that_was_told_is_not_claimed_again() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(1000, 1), Mode::Direct, false).unwrap();
    cluster.mds.set_size(INO, 10);
    assert_eq!(file.attr_changes().and_then(|changes| changes.size), None, "another mount may have cut it");
}

#[test]
fn a_flush_tells_no_size_that_was_told_before() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(1000, 1), Mode::Direct, false).unwrap();
    cluster.mds.set_size(INO, 10);
    file.write(0, b"short", Mode::Direct, false).unwrap();
    file.flush().unwrap();
    file.sync().unwrap();
    assert_eq!(cluster.mds.get(INO).0.size, 10, "another mount has cut it");
}

#[test]
fn a_direct_write_tells_its_end_also_within_a_size_that_was_told() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    file.write(0, &pattern(1000, 1), Mode::Direct, false).unwrap();
    cluster.mds.set_size(INO, 10);
    file.write(100, b"more", Mode::Direct, false).unwrap();
    assert_eq!(cluster.mds.get(INO).0.size, 104, "another mount has cut it meanwhile");
}

#[test]
fn data_that_is_held_back_takes_space() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), KIB64);
    file.resize(10 * MIB, || Ok(cluster.mds.set_size(INO, 10 * MIB))).unwrap();
    assert_eq!(file.attr_changes(), None);
    file.write(5 * MIB, &pattern(100_000, 1), Mode::Cached, false).unwrap();
    let blocks = file.attr_changes().unwrap().blocks;
    assert!((196..250).contains(&blocks), "{blocks} blocks of 100,000 bytes");
    file.flush().unwrap();
    let told = cluster.mds.get(INO).0.blocks;
    assert!((196..250).contains(&told), "{told} blocks of 100,000 bytes");
    assert_eq!(file.attr_changes(), None);
    file.punch(5 * MIB, 100_000, Mode::Cached).unwrap();
    assert!(cluster.mds.get(INO).0.blocks < told);
}

#[test]
fn a_hole_that_one_mount_makes_where_another_has_written_is_one() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), 0);
    let mount = cluster.mount(patient());
    let (attr, layout) = cluster.mds.get(INO);
    let other = mount.file(INO, &attr, layout, None);
    file.write(0, &pattern(3000, 1), Mode::Direct, false).unwrap();
    assert_eq!(other.seek(0, Seek::Data, Mode::Direct), Ok(0));
    other.punch(0, 3000, Mode::Direct).unwrap();
    assert_eq!(file.read(0, 3000, Mode::Direct).unwrap(), vec![0; 3000]);
}

#[test]
fn zeros_on_the_mdt_are_a_hole() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), KIB64);
    file.write(10_000, b"data", Mode::Cached, false).unwrap();
    file.flush().unwrap();
    file.resize(MIB, || Ok(cluster.mds.set_size(INO, MIB))).unwrap();
    assert_eq!(file.seek(0, Seek::Hole, Mode::Cached), Ok(0));
    assert_eq!(file.seek(0, Seek::Data, Mode::Cached), Ok(8192));
    assert_eq!(file.seek(8192, Seek::Hole, Mode::Cached), Ok(12_288));
    assert_eq!(file.seek(12_288, Seek::Data, Mode::Cached), Err(Errno::ENXIO));
}

#[test]
fn a_time_that_is_set_while_data_is_written_back_stays() {
    let cluster = Cluster::new(1);
    let (_mount, file) = file_on(&cluster, patient(), KIB64);
    file.write(0, b"written", Mode::Cached, false).unwrap();
    let set = Time { secs: 1_000_000, nanos: 5 };
    file.set_times(|| {
        let attr = cluster.mds.set_mtime(INO, set);
        file.flush().unwrap(); // By another thread, after the MDS has set the time and before it has said so.
        assert_ne!(cluster.mds.get(INO).0.mtime, set);
        Ok(attr)
    })
    .unwrap();
    assert_eq!(file.attr_changes().and_then(|changes| changes.mtime), Some(set));
    file.flush().unwrap();
    assert_eq!((cluster.mds.get(INO).0.mtime, file.attr_changes()), (set, None));
}

/// Each write fills a range with one byte, over the borders of chunks and stripes; a read of the range sees one byte only.
#[test]
fn requests_are_atomic_among_each_other() {
    let cluster = Cluster::new(2);
    let settings = Settings { write_back_after: Duration::from_millis(1), ..Settings::default() };
    let (_mount, file) = file_on(&cluster, settings, KIB64);
    let ranges = [(30_000, 100_000), (MIB - 50_000, 130_000)];
    for (at, len) in ranges {
        file.write(at, &vec![1; len], Mode::Cached, false).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = (0..3_u64)
            .map(|writer| {
                let file = &file;
                scope.spawn(move || {
                    for n in 0..150_u64 {
                        let (at, len) = ranges[(n + writer) as usize % 2];
                        let value = (n * 3 + writer + 1) as u8;
                        let mode = if n % 5 == writer { Mode::Direct } else { Mode::Cached };
                        match n % 11 {
                            0 => file.punch(at, len as u64, mode).unwrap(),
                            1 => file.flush().unwrap(),
                            _ => file.write(at, &vec![value; len], mode, false).unwrap(),
                        }
                    }
                })
            })
            .collect();
        for reader in 0..2 {
            let (file, done) = (&file, &done);
            scope.spawn(move || {
                for n in 0.. {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let (at, len) = ranges[n % 2];
                    let mode = if reader == 0 { Mode::Direct } else { Mode::Cached };
                    let seen = file.read(at, len as u32, mode).unwrap();
                    let torn = seen.iter().position(|byte| *byte != seen[0]);
                    assert_eq!((seen.len(), torn), (len, None), "{mode:?}");
                }
            });
        }
        let ended: Vec<_> = writers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        for ended in ended {
            ended.unwrap();
        }
    });
}
