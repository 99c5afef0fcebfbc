//! Pools that an older Kiln has written, and a newer one.

use super::super::store::{NewRecord, ROOT_COPIES};
use super::*;
use crate::core::allocator::Purpose;
use crate::format::{ChecksumKind, Kind, LogStart, Place, PoolRoot, Txg, Uberblock, VdevId};
use crate::vdev::labels::write_uberblock;

/// A pool of one disk whose root has version 3: dataset `data` with objects 1 to 3 of [`LEN`] bytes, its snapshot `noon`, and after that
/// [`LATER`] written into object 2.
const VERSION_3: &[u8] = include_bytes!("version-3.zst");
const LEN: usize = 700_000;
const LATER: std::ops::Range<usize> = 100..5100;

/// What object `object` was written with.
fn written(object: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at * 31 + at / 251 + object) as u8).collect()
}

fn read(pool: &Pool, dataset: DatasetId, object: u64) -> Vec<u8> {
    let mut into = vec![0; LEN + 1];
    let len = pool.read(dataset, object, 0, &mut into).expect("it can be read");
    into.truncate(len);
    into
}

#[test]
fn a_pool_whose_pointers_are_not_packed_is_read_and_changed() {
    let disk = SimDisk::new(1);
    let image = zstd::bulk::decompress(VERSION_3, SINGLE.disk_bytes as usize).expect("it was packed by zstd");
    let root = b"KILNROT\0\0\0\0\x03";
    assert!(image.windows(root.len()).any(|bytes| bytes == root), "it has a root of version 3");
    let file = disk.open(&path(0), Open::New).expect("there is none yet");
    file.write_all_at(&[&image], 0).expect("there is room");
    file.sync().expect("the disk is on");

    let mut now: BTreeMap<u64, Vec<u8>> = (1..=3).map(|object| (object, written(object, LEN))).collect();
    let then = now.clone();
    now.get_mut(&2).expect("one of them")[LATER].copy_from_slice(&written(77, LATER.len()));
    for round in 0..3_u8 {
        let pool = SINGLE.open(&disk, &[]).expect("the version is known");
        let data = pool.dataset("data").expect("it is there");
        let noon = pool.snapshot_of("data", "noon").expect("it is there");
        assert!(now.iter().all(|(object, bytes)| read(&pool, data, *object) == *bytes), "round {round}");
        assert!(then.iter().all(|(object, bytes)| read(&pool, noon, *object) == *bytes), "round {round}");
        // Packed pointers come beside the others, in nodes that are not all written anew.
        let at = 8192 * 40 * usize::from(round);
        pool.write(data, 1, at as u64, &[round; 9000]).expect("there is room");
        now.get_mut(&1).expect("one of them")[at..at + 9000].fill(round);
        pool.commit().expect("the disk is on");
        is_whole(&pool);
        nothing_leaks(&pool);
    }
    let pool = SINGLE.open(&disk, &[]).expect("the version is known");
    pool.destroy_dataset(pool.snapshot_of("data", "noon").expect("it is there")).expect("there is room");
    pool.commit().expect("the disk is on");
    nothing_leaks(&pool);
}

#[test]
fn a_pool_of_a_newer_kiln_is_left_alone() {
    let (disk, pool, _) = made(SINGLE, 1);
    let store = &pool.shared.store;
    let root = pool.shared.roots().txg;
    let slot = Place { vdev: VdevId(0), sector: 0 };
    let log = LogStart { chain: 0, seq: 0, slot, slot_sectors: 0, offset: 0 };
    let root =
        PoolRoot { txg: root, next_dataset: 1, datasets: None, log, properties: Properties::default() };
    let mut bytes = root.encode();
    bytes[11] += 1;
    // Later than anything that the pool writes when it is dropped.
    let txg = Txg(root.txg.0 + 100);
    let places = store.room(Purpose::Node, bytes.len(), ROOT_COPIES).expect("there is room");
    let record = NewRecord::plain(Kind::Root, &bytes, txg, ChecksumKind::Blake3);
    let root = store.write_at(record, places).expect("the disk is on");
    let uberblock = Uberblock { pool: pool.shared.id, txg, time: 0, root };
    drop(pool);
    let file = disk.open(&path(0), Open::Existing).expect("it is there");
    write_uberblock(&*file, &uberblock).expect("the disk is on");
    let opened = SINGLE.open(&disk, &[]).expect_err("its version is not known");
    let told = "pool 'tank' was written by a newer Kiln: its root has version 5";
    assert!(opened.to_string().starts_with(told), "{opened}");
}
