//! How the simulated disk fails.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use kiln_world::{Disk, Fault, File, Open, SECTOR_BYTES, SimDisk};

fn create(disk: &SimDisk, path: &str, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(Path::new(path), Open::New).expect("open");
    file.write_all_at(&[bytes], 0).expect("write");
    file
}

fn sync_root(disk: &SimDisk) {
    disk.sync_dir(Path::new("")).expect("sync");
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.contents(Path::new(path))
}

/// What `outcome` gives for 64 seeds.
fn outcomes<T>(outcome: impl Fn(u64) -> T) -> Vec<T> {
    (0..64).map(outcome).collect()
}

#[test]
fn what_was_synced_survives_with_its_name() {
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        create(&disk, "f", b"kept").sync().expect("sync");
        sync_root(&disk);
        disk.crash();
        assert_eq!(read(&disk, "f").as_deref(), Some(&b"kept"[..]), "seed {seed}");
    }
}

#[test]
fn syncing_everything_covers_files_and_names() {
    for seed in 0..64 {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("a/b")).expect("create");
        create(&disk, "a/b/f", b"kept");
        disk.sync_all().expect("sync");
        disk.crash();
        assert_eq!(read(&disk, "a/b/f").as_deref(), Some(&b"kept"[..]), "seed {seed}");
    }
}

#[test]
fn a_synced_file_without_a_synced_name_may_be_gone() {
    let there = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        create(&disk, "f", b"kept").sync().expect("sync");
        disk.crash();
        read(&disk, "f").is_some()
    });
    assert!(there.contains(&true) && there.contains(&false));
}

#[test]
fn a_directory_whose_name_was_not_synced_takes_its_files_along() {
    let there = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("d")).expect("create");
        create(&disk, "d/f", b"kept").sync().expect("sync");
        disk.sync_dir(Path::new("d")).expect("sync");
        disk.crash();
        let dir = disk.list(Path::new("")).expect("list").len();
        assert_eq!(dir == 1, read(&disk, "d/f").is_some(), "the name in the directory was synced");
        dir == 1
    });
    assert!(there.contains(&true) && there.contains(&false));
}

#[test]
fn unsynced_writes_are_kept_lost_or_torn_in_sectors() {
    let found = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        let file = create(&disk, "f", &vec![1; 4 * SECTOR_BYTES]);
        file.sync().expect("sync");
        sync_root(&disk);
        file.write_all_at(&[&vec![2; 4 * SECTOR_BYTES]], 0).expect("write");
        disk.crash();
        let bytes = read(&disk, "f").expect("there");
        for sector in bytes.chunks(SECTOR_BYTES) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
        }
        bytes.chunks(SECTOR_BYTES).filter(|sector| sector[0] == 2).count()
    });
    assert!((0..=4).all(|sectors| found.contains(&sectors)), "{found:?}");
}

#[test]
fn a_rename_is_seen_whole_or_not_at_all() {
    let renamed = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        create(&disk, "a", b"new").sync().expect("sync");
        create(&disk, "b", b"old").sync().expect("sync");
        sync_root(&disk);
        disk.rename(Path::new("a"), Path::new("b")).expect("rename");
        disk.crash();
        match (read(&disk, "a").as_deref(), read(&disk, "b").as_deref()) {
            (Some(b"new"), Some(b"old")) => false,
            (None, Some(b"new")) => true,
            other => panic!("seed {seed}: {other:?}"),
        }
    });
    assert!(renamed.contains(&true) && renamed.contains(&false));
}

#[test]
fn a_removal_that_was_not_synced_may_come_undone() {
    let there = outcomes(|seed| {
        let disk = SimDisk::new(seed);
        create(&disk, "f", b"kept").sync().expect("sync");
        sync_root(&disk);
        disk.remove(Path::new("f")).expect("remove");
        disk.crash();
        let found = read(&disk, "f");
        assert!(found.is_none() || found.as_deref() == Some(b"kept"));
        found.is_some()
    });
    assert!(there.contains(&true) && there.contains(&false));
}

#[test]
fn the_power_fails_at_the_chosen_sync_and_stays_off() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f", b"x");
    disk.crash_after_syncs(2);
    file.sync().expect("first");
    sync_root(&disk);
    assert!(!disk.is_off());
    assert!(file.sync().is_err());
    assert!(disk.is_off());
    assert!(disk.list(Path::new("")).is_err());
    disk.crash();
    assert_eq!(disk.syncs(), 2);
    assert_eq!(read(&disk, "f").as_deref(), Some(&b"x"[..]));
    assert!(file.sync().is_err(), "a handle from before the crash is dead");
}

#[test]
fn a_full_disk_takes_what_fits_and_says_so() {
    let disk = SimDisk::new(1);
    create(&disk, "a", &[1; 60]);
    disk.set_capacity(Some(100));
    let file = disk.open(Path::new("b"), Open::New).expect("open");
    let error = file.write_all_at(&[&[2; 50]], 0).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(read(&disk, "b"), Some(vec![2; 40]));
    file.write_all_at(&[&[3; 40]], 0).expect("overwriting needs no space");
    file.set_len(0).expect("cut");
    file.write_all_at(&[&[4; 40]], 0).expect("space is back");
    assert_eq!(disk.used_bytes(), 100);
}

#[test]
fn the_chosen_operation_fails_once() {
    let disk = SimDisk::new(1);
    let file = create(&disk, "f", b"x");
    disk.fail_nth(Fault::Read, 1);
    let mut buf = [0];
    file.read_at(&mut buf, 0).expect("not yet");
    assert!(file.read_at(&mut buf, 0).is_err());
    file.read_at(&mut buf, 0).expect("no more");
    disk.fail_nth(Fault::Write, 0);
    assert!(file.write_all_at(&[b"y"], 0).is_err());
    assert_eq!(read(&disk, "f").as_deref(), Some(&b"x"[..]));
}

#[test]
fn a_failed_sync_loses_what_it_covered_whatever_comes_after() {
    for seed in 0..16 {
        let disk = SimDisk::new(seed);
        let file = create(&disk, "f", b"old");
        file.sync().expect("sync");
        sync_root(&disk);
        file.write_all_at(&[b"new"], 0).expect("write");
        disk.fail_nth(Fault::Sync, 0);
        assert!(file.sync().is_err());
        file.sync().expect("a later sync finds nothing to do");
        disk.crash();
        assert_eq!(read(&disk, "f").as_deref(), Some(&b"old"[..]));
    }
}

#[test]
fn rot_flips_bits_behind_every_sync() {
    let disk = SimDisk::new(1);
    create(&disk, "f", b"abc").sync().expect("sync");
    sync_root(&disk);
    disk.rot(Path::new("f"), 1, 0x20).expect("rot");
    disk.crash();
    assert_eq!(read(&disk, "f").as_deref(), Some(&b"aBc"[..]));
    assert!(disk.rot(Path::new("f"), 3, 1).is_err());
}

#[test]
fn equal_seeds_crash_alike() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        for number in 0..20 {
            create(&disk, &format!("f{number}"), &vec![number; 3000]);
        }
        disk.crash();
        (0..20).map(|number| read(&disk, &format!("f{number}"))).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn space_is_what_the_limit_leaves() {
    let disk = SimDisk::new(1);
    create(&disk, "f", &[0; 100]);
    disk.set_capacity(Some(300));
    let space = disk.space().expect("space");
    assert_eq!((space.total_bytes, space.free_bytes, space.available_bytes), (300, 200, 200));
    disk.set_capacity(Some(50));
    assert_eq!(disk.space().expect("space").free_bytes, 0);
}
