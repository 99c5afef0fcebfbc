//! What outlives the process, and what the power.

use super::*;

/// Records that come as a whole lie where they belong before they are committed, and the log only names them.
#[test]
fn what_came_as_a_whole_outlives_the_process_and_what_was_synced_the_power() {
    for shape in [SINGLE, RAIDZ] {
        let (disk, pool, dataset) = made(shape, 5);
        let bytes = pattern(0, 200_000, 9);
        pool.write(dataset, 1, 0, &bytes).expect("there is room");
        pool.write(dataset, 1, 50_000, &[5; 3]).expect("a placed record is changed in the middle");
        pool.sync(dataset, &[1]).expect("the disks are on");
        assert!(pool.shared.log.taken_bytes() < 100_000, "the bytes are not in the log");
        pool.write(dataset, 2, 0, &bytes).expect("there is room");
        pool.keep(dataset, 2).expect("the disks are on");
        pool.write(dataset, 3, 0, &bytes).expect("there is room");
        drop(pool);
        let mut expected = bytes.clone();
        expected[50_000..50_003].fill(5);
        let pool = shape.open(&disk, &[]).expect("it is there");
        assert_eq!(contents(&pool, dataset, 1).as_ref(), Some(&expected));
        assert_eq!(contents(&pool, dataset, 2).as_ref(), Some(&bytes), "it was with the system");
        assert_eq!(contents(&pool, dataset, 3), None, "nobody asked for that");
        is_whole(&pool);
        // Again, with a loss of power.
        pool.write(dataset, 4, 0, &bytes).expect("there is room");
        pool.sync(dataset, &[4]).expect("the disks are on");
        pool.write(dataset, 4, 8192, &bytes).expect("there is room");
        pool.keep(dataset, 4).expect("the disks are on");
        drop(pool);
        disk.crash();
        let pool = shape.open(&disk, &[]).expect("it is there");
        let found = contents(&pool, dataset, 4).expect("it was synced");
        let longer = [&bytes[..8192], &bytes[..]].concat();
        assert!(found == bytes || found == longer, "it is as it was at one moment: {} bytes", found.len());
        is_whole(&pool);
        pool.destroy_dataset(dataset).expect("it is there");
        is_whole(&pool);
    }
}

/// Several at the same time, of whom some want it durable and some do not: nobody waits for ever.
#[test]
fn nobody_is_forgotten_who_waits_for_the_log() {
    const ROUNDS: u64 = 200;
    for writers in [2, 3, 4, 16] {
        let (disk, pool, dataset) = made(MIRROR, 6);
        disk.slow_down_syncs(Duration::from_micros(100));
        std::thread::scope(|scope| {
            for writer in 0..writers {
                let pool = &pool;
                scope.spawn(move || {
                    let object = 10 + writer;
                    for round in 0..ROUNDS {
                        pool.write(dataset, object, round * 8, &round.to_be_bytes()).expect("there is room");
                        match (writer * 7 + round * 5) % 3 {
                            0 => pool.keep(dataset, object).expect("the disks are on"),
                            1 => pool.sync(dataset, &[object]).expect("the disks are on"),
                            // Nothing is new of this one.
                            _ => pool.sync(dataset, &[1]).expect("the disks are on"),
                        }
                    }
                    pool.sync(dataset, &[object]).expect("the disks are on");
                });
            }
        });
        drop(pool);
        disk.crash();
        let pool = MIRROR.open(&disk, &[]).expect("it is there");
        let expected: Vec<u8> = (0..ROUNDS).flat_map(u64::to_be_bytes).collect();
        for writer in 0..writers {
            assert_eq!(contents(&pool, dataset, 10 + writer).as_ref(), Some(&expected), "{writer}");
        }
    }
}
