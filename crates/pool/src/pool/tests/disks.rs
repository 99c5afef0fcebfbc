//! Disks, vdevs and spares that come and go.

use super::*;
use crate::format::{ChecksumKind, Compression, Properties};
use crate::pool::disks::Care;
use crate::vdev::labels::read_label;

fn name(index: usize) -> String {
    path(index).display().to_string()
}

fn file(disk: &SimDisk, index: usize) -> DiskFile {
    let file = disk.open(&path(index), Open::OrCreate).expect("the disk is on");
    DiskFile { path: name(index), file }
}

/// A new disk of that size.
fn new_disk(disk: &SimDisk, index: usize, bytes: u64) -> DiskFile {
    let new = file(disk, index);
    new.file.set_len(bytes).expect("there is room");
    disk.sync_all().expect("the disk is on");
    new
}

fn check(pool: &Pool, dataset: DatasetId, model: &Model) {
    for object in 0..OBJECTS {
        assert_eq!(contents(pool, dataset, object).as_ref(), model.now(object), "object {object}");
    }
}

fn changed(pool: &Pool, dataset: DatasetId, model: &mut Model) {
    for op in [Op::Write(1, 5000, 90_000, 99), Op::Destroy(2), Op::Write(0, 0, 30_000, 3), Op::Sync(1)] {
        model.apply(&op);
        run(pool, dataset, &op).expect("there is room");
    }
}

#[test]
fn a_single_disk_becomes_a_mirror_and_moves_to_another_disk() {
    let (disk, pool, dataset, mut model) = filled(SINGLE);
    let new = new_disk(&disk, 1, SINGLE.disk_bytes);
    assert!(matches!(pool.detach(&name(0)), Err(DiskError::OnlyDisk(_))));
    pool.attach(&name(0), new, &SimRng::new(9), false).expect("it is empty");
    let needed = pool.detach(&name(0));
    assert!(matches!(needed, Err(DiskError::Needed { .. })), "the new one has nothing yet: {needed:?}");
    changed(&pool, dataset, &mut model);
    let report = pool.resilver(&|_| true).expect("it can be read").expect("it lacks everything");
    assert!(report.mended > 0 && report.damaged.is_empty());
    assert_eq!(pool.status().health, Health::Online);
    is_whole(&pool);
    pool.detach(&name(0)).expect("the other one has everything");
    assert!(read_label(&*file(&disk, 0).file).is_err(), "it is nobody's now");
    changed(&pool, dataset, &mut model);
    pool.commit().expect("the disks are on");
    drop(pool);
    disk.crash();
    let pool = Pool::open(vec![file(&disk, 0), file(&disk, 1)], &host(), SETTINGS, false);
    let pool = pool.expect("one disk is all of it");
    assert_eq!(pool.status().vdevs[0].leaves.len(), 1);
    check(&pool, dataset, &model);
    is_whole(&pool);
}

#[test]
fn raidz_keeps_its_width() {
    let (disk, pool, ..) = filled(RAIDZ);
    let new = new_disk(&disk, 9, RAIDZ.disk_bytes);
    let refused = pool.attach(&name(1), new, &SimRng::new(9), false);
    assert!(matches!(&refused, Err(DiskError::NoMirror(disk)) if *disk == name(1)), "{refused:?}");
    assert!(matches!(pool.detach(&name(1)), Err(DiskError::NoMirror(_))));
}

fn vdev_of(disk: &SimDisk, kind: VdevKind, indices: std::ops::Range<usize>) -> VdevSpec {
    VdevSpec { kind, disks: indices.map(|index| new_disk(disk, index, MIRROR.disk_bytes)).collect() }
}

/// Whatever moment the power fails at, the vdev is there or it is not, and nothing is lost.
#[test]
fn a_vdev_is_added_at_once_or_not_at_all() {
    let mut outcomes = BTreeSet::new();
    for syncs in 0.. {
        let (disk, pool, dataset, mut model) = filled(MIRROR);
        let before = pool.space(DatasetKind::Objects).total_bytes;
        let weaker = vdev_of(&disk, VdevKind::Mirror, 2..3);
        let refused = pool.add(&[weaker], &SimRng::new(9), false);
        assert!(matches!(refused, Err(DiskError::Weaker { there: 1, new: 0 })), "{refused:?}");
        let vdev = vdev_of(&disk, VdevKind::Mirror, 2..4);
        disk.crash_after_syncs(syncs);
        let added = pool.add(&[vdev], &SimRng::new(9), false).is_ok();
        drop(pool);
        disk.crash();
        let files = (0..4).map(|index| file(&disk, index)).collect();
        let pool = Pool::open(files, &host(), SETTINGS, false).expect("all disks are there");
        let vdevs = pool.status().vdevs.len();
        let again = pool.add(&[vdev_of(&disk, VdevKind::Mirror, 2..4)], &SimRng::new(8), false);
        assert_eq!(again.is_ok(), vdevs == 1, "disks that were to be added are nobody's: {again:?}");
        assert!(!added || vdevs == 2, "what was acknowledged is so");
        check(&pool, dataset, &model);
        is_whole(&pool);
        changed(&pool, dataset, &mut model);
        pool.commit().expect("the disks are on");
        check(&pool, dataset, &model);
        is_whole(&pool);
        let grown = pool.space(DatasetKind::Objects).total_bytes > before * 3 / 2;
        assert!(grown, "{vdevs} vdevs at first");
        outcomes.insert((added, vdevs));
        if added {
            break;
        }
    }
    assert!(outcomes.contains(&(false, 1)) && outcomes.contains(&(true, 2)), "{outcomes:?}");
}

#[test]
fn new_records_go_to_the_vdev_that_was_added() {
    let (disk, pool, dataset, model) = filled(MIRROR);
    let vdev = vdev_of(&disk, VdevKind::Raidz(1), 2..5);
    pool.add(&[vdev], &SimRng::new(9), false).expect("it stands as much as the other");
    for object in 10..20 {
        pool.write(dataset, object, 0, &pattern(0, 500_000, 1)).expect("there is room on both");
        pool.commit().expect("there is room on both");
    }
    drop(pool);
    let files = |lost: &[usize]| {
        (0..5).filter(|index| !lost.contains(index)).map(|index| file(&disk, index)).collect::<Vec<_>>()
    };
    let alone = Pool::open(files(&[2, 3, 4]), &host(), SETTINGS, false);
    assert!(matches!(alone, Err(OpenError::TooFewDisks { vdev: 1, .. })), "{alone:?}");
    let pool = Pool::open(files(&[0, 3]), &host(), SETTINGS, false).expect("each vdev can do without one");
    check(&pool, dataset, &model);
    let mut read = vec![0; 500_000];
    assert_eq!(pool.read(dataset, 15, 0, &mut read), Ok(500_000));
    assert_eq!(read, pattern(0, 500_000, 1));
}

#[test]
fn a_spare_steps_in_for_a_disk_that_fails_and_for_one_that_is_gone() {
    let (disk, pool, dataset, mut model) = filled(RAIDZ);
    let small = new_disk(&disk, 10, RAIDZ.disk_bytes / 2);
    let spares = vec![small, new_disk(&disk, 11, RAIDZ.disk_bytes), new_disk(&disk, 12, RAIDZ.disk_bytes)];
    pool.add_spares(spares, &SimRng::new(9), false).expect("they are empty");
    let used = pool.add_spares(vec![file(&disk, 11)], &SimRng::new(9), false);
    assert!(matches!(used, Err(DiskError::Unfit(CreateError::InUse { .. }))), "{used:?}");
    assert_eq!(pool.care().expect("all is well"), []);
    // A flush of one fails, and it is not believed any more.
    changed(&pool, dataset, &mut model);
    disk.fail_nth(kiln_world::Fault::Sync, 0);
    pool.commit().expect("the others have it");
    let care = pool.care().expect("the others have everything");
    let Some(Care::Faulted { disk: failed }) = care.first() else { panic!("one failed: {care:?}") };
    let spared = Care::SparedIn { disk: failed.clone(), spare: name(11) };
    assert_eq!(care, [Care::Faulted { disk: failed.clone() }, spared]);
    assert_eq!(pool.status().spares, [(name(10), true), (name(12), true)]);
    assert_eq!(pool.care().expect("all is well"), [], "the other is kept for what comes");
    pool.resilver(&|_| true).expect("it can be read").expect("the spare lacks everything");
    assert_eq!(pool.status().health, Health::Online);
    is_whole(&pool);
    changed(&pool, dataset, &mut model);
    pool.commit().expect("the disks are on");
    drop(pool);
    disk.crash();
    // Another is gone when the pool is opened.
    let gone = (0..4).find(|index| name(*index) != *failed).expect("there are four");
    let files: Vec<DiskFile> = [0, 1, 2, 3, 10, 11, 12]
        .into_iter()
        .filter(|index| *index != gone)
        .map(|index| file(&disk, index))
        .collect();
    let pool = Pool::open(files, &host(), SETTINGS, false).expect("one disk may be away");
    let spared = Care::SparedIn { disk: name(gone), spare: name(12) };
    assert_eq!(pool.care().expect("it steps in"), [spared]);
    pool.resilver(&|_| true).expect("it can be read").expect("the spare lacks everything");
    check(&pool, dataset, &model);
    is_whole(&pool);
    pool.remove_spare(&name(10)).expect("it is one");
    assert!(read_label(&*file(&disk, 10).file).is_err(), "it is nobody's now");
    assert!(matches!(pool.remove_spare(&name(10)), Err(DiskError::Unknown(_))));
}

#[test]
fn records_are_kept_as_the_pool_says() {
    for compression in [Compression::Lz4, Compression::Zstd] {
        let (disk, pool, dataset, model) = filled(RAIDZ);
        let line = b"a line that is much like the next one\n".repeat(10_000);
        pool.write(dataset, 20, 0, &line).expect("there is room");
        pool.commit().expect("there is room");
        let properties = Properties { compression, checksum: ChecksumKind::Blake3 };
        pool.set_properties(properties).expect("the disks are on");
        pool.write(dataset, 21, 0, &line).expect("there is room");
        pool.write(dataset, 21, 100_000, b"something in the middle").expect("there is room");
        pool.commit().expect("there is room");
        let taken =
            |object| pool.stat(dataset, object).expect("it can be read").expect("it is there").disk_bytes;
        assert!(taken(21) * 3 / 2 < taken(20), "{compression:?}: {} of {}", taken(21), taken(20));
        drop(pool);
        disk.crash();
        rot(&disk, 1, RAIDZ.disk_bytes, 128..1000);
        let pool = RAIDZ.open(&disk, &[]).expect("it is there");
        assert_eq!(pool.properties(), properties);
        let report = pool.scrub().run().expect("it can be read");
        assert!(report.mended > 0 && report.damaged.is_empty());
        let mut expected = line.clone();
        expected[100_000..100_023].copy_from_slice(b"something in the middle");
        assert_eq!(contents(&pool, dataset, 21), Some(expected));
        check(&pool, dataset, &model);
        is_whole(&pool);
    }
}
