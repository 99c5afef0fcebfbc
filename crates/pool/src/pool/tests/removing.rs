//! Objects of which so much is removed that it takes several groups.

use super::*;

const RECORDS: u64 = 30;
/// What one group removes of an object.
const AT_ONCE: usize = 4;

/// A pool whose objects 1 and 2 have [`RECORDS`] records each, that a snapshot has too, and which removes few records at once.
fn with_long_objects() -> (SimDisk, Pool, DatasetId) {
    let (disk, pool, dataset) = made(SINGLE, 1);
    for object in [1, 2] {
        pool.write(dataset, object, 0, &written(object)).expect("there is room");
    }
    pool.snapshot(&[dataset], "noon").expect("there is room");
    drop(pool);
    let pool = opened(&disk);
    (disk, pool, dataset)
}

fn opened(disk: &SimDisk) -> Pool {
    opened_with(disk, Settings { removed_max: AT_ONCE, ..SETTINGS })
}

fn opened_with(disk: &SimDisk, settings: Settings) -> Pool {
    Pool::open(SINGLE.files(disk, &[]), &host(), settings, false).expect("it is there")
}

fn written(object: u64) -> Vec<u8> {
    pattern(0, RECORDS as usize * RECORD as usize, object as u8)
}

/// The snapshot has what was written, and nothing leaks.
fn is_sound(pool: &Pool) {
    let noon = pool.snapshot_of("objects", "noon").expect("it was made");
    for object in [1, 2] {
        assert!(contents(pool, noon, object) == Some(written(object)), "object {object} of the snapshot");
    }
    is_whole(pool);
}

/// How many groups are committed by something.
fn groups(pool: &Pool, act: impl FnOnce()) -> u64 {
    let before = pool.shared.roots().txg.0;
    act();
    pool.commit().expect("the disk is on");
    pool.shared.roots().txg.0 - before
}

#[test]
fn much_is_removed_by_several_groups() {
    let (_disk, pool, data) = with_long_objects();
    let record = u64::from(RECORD);
    let cut = 5 * record + 7;
    let took = groups(&pool, || pool.set_len(data, 1, cut).expect("there is room"));
    assert_eq!(took, 6, "24 records");
    assert!(contents(&pool, data, 1).as_deref() == Some(&written(1)[..cut as usize]));
    is_sound(&pool);

    let took = groups(&pool, || pool.punch(data, 2, 3 * record - 9, 12 * record).expect("there is room"));
    assert_eq!(took, 3, "11 records");
    let mut holed = written(2);
    holed[(3 * record - 9) as usize..(15 * record - 9) as usize].fill(0);
    assert!(contents(&pool, data, 2) == Some(holed));
    let took = groups(&pool, || pool.destroy(data, 2).expect("there is room"));
    assert_eq!(took, 5, "19 records, and a hole");
    assert_eq!(contents(&pool, data, 2), None);
    is_sound(&pool);

    let took = groups(&pool, || pool.punch(data, 1, 0, 4 * record).expect("there is room"));
    assert_eq!(took, 1, "no more than one group may remove");
    let noon = pool.snapshot_of("objects", "noon").expect("it was made");
    pool.destroy_dataset(noon).expect("there is room");
    is_whole(&pool);
}

#[test]
fn objects_that_are_not_long_are_too_much_for_one_group_together() {
    let (disk, pool, data) = with_long_objects();
    drop(pool);
    for (dirty_bytes_max, wanted) in [(16 << 10, 2), (1 << 20, 1)] {
        let pool = opened_with(&disk, Settings { dirty_bytes_max, ..SETTINGS });
        let took = groups(&pool, || {
            for object in [1, 2] {
                pool.destroy(data, object).expect("there is room");
            }
        });
        assert_eq!(took, wanted, "30 records each, {dirty_bytes_max} bytes of memory");
        is_sound(&pool);
        for object in [1, 2] {
            pool.write(data, object, 0, &written(object)).expect("there is room");
        }
        pool.commit().expect("the disk is on");
    }
}

#[test]
fn much_is_removed_from_a_full_pool() {
    let (_disk, pool, data) = with_long_objects();
    let room = pool.status().allocated_bytes;
    let piece = vec![9; RECORD as usize];
    let outcome = (0..).try_for_each(|number| pool.write(data, 3, number * u64::from(RECORD), &piece));
    assert_eq!(outcome, Err(PoolError::NoSpace));
    pool.commit().expect("what was admitted has room");
    pool.snapshot(&[data], "full").expect("there is room for that");
    for object in [1, 3] {
        pool.destroy(data, object).expect("what only frees always works");
    }
    pool.commit().expect("what only frees always works");
    is_sound(&pool);
    for snapshot in ["full", "noon"] {
        let snapshot = pool.snapshot_of("objects", snapshot).expect("it was made");
        pool.destroy_dataset(snapshot).expect("what only frees always works");
    }
    pool.commit().expect("there is room");
    is_whole(&pool);
    assert!(pool.status().allocated_bytes < room, "only object 2 is left");
}

#[test]
fn a_crash_while_much_is_removed_leaves_zeros_in_front_or_nothing() {
    let mut states = BTreeSet::new();
    for syncs in 0.. {
        let (disk, pool, data) = with_long_objects();
        disk.crash_after_syncs(syncs);
        let outcome = pool.destroy(data, 1).and_then(|()| pool.commit());
        let crashed = disk.is_off();
        assert!(crashed || outcome.is_ok(), "{outcome:?}");
        drop(pool);
        disk.crash();
        let pool = opened(&disk);
        let left = contents(&pool, data, 1);
        let zeros = left.as_ref().map(|left| {
            let zeros = left.iter().take_while(|byte| **byte == 0).count();
            assert!(left[zeros..] == written(1)[zeros..], "what is not removed yet is there");
            assert!(zeros.is_multiple_of(AT_ONCE * RECORD as usize), "{zeros} zeros");
            zeros
        });
        is_sound(&pool);
        states.insert(zeros);
        if !crashed {
            assert_eq!(left, None);
            break;
        }
    }
    assert_eq!(states.len(), 9, "whole, after 7 steps, and gone: {states:?}");
}
