use std::io::ErrorKind;
use std::path::PathBuf;

use kiln_types::Timestamp;
use kiln_world::{SimClock, SimDisk, SimRng};
use proptest::prelude::*;

use super::*;
use crate::format::VdevKind;
use crate::pool::{DiskFile, Host, Settings, VdevSpec};

const DISK_BYTES: u64 = 24 << 20;

fn host() -> Host {
    Host {
        name: "silicon1".into(),
        clock: Arc::new(SimClock::new(Timestamp(0))),
        rng: Arc::new(SimRng::new(7)),
    }
}

fn files(sim: &SimDisk) -> Vec<DiskFile> {
    let disk = |name: &str| {
        let file = sim.open(Path::new(name), Open::OrCreate).expect("its name is fine");
        file.set_len(DISK_BYTES).expect("there is room");
        DiskFile { path: name.into(), file }
    };
    vec![disk("a"), disk("b")]
}

const SETTINGS: Settings = Settings {
    dirty_bytes_max: 1 << 20,
    cache_bytes: 8 << 20,
    placed_bytes_min: 24 << 10,
    removed_max: 1000,
    commit_every: None,
    threads: 1,
};

fn made(sim: &SimDisk) -> Arc<Pool> {
    let vdev = VdevSpec { kind: VdevKind::Mirror, disks: files(sim) };
    let pool = Pool::create("tank", vec![vdev], &host(), SETTINGS, false).expect("the disks are empty");
    sim.sync_all().expect("it works");
    Arc::new(pool)
}

fn reopened(sim: &SimDisk) -> PoolDisk {
    let pool = Pool::open(files(sim), &host(), SETTINGS, false).expect("the disks are there");
    PoolDisk::open(Arc::new(pool), "files").expect("it was made")
}

fn contents(disk: &PoolDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(Path::new(path), Open::Existing).ok()?;
    let mut bytes = vec![0; file.len().expect("it can be read") as usize];
    assert_eq!(file.read_at(&mut bytes, 0).expect("it can be read"), bytes.len());
    Some(bytes)
}

fn write(disk: &PoolDisk, path: &str, bytes: &[u8]) {
    let file = disk.open(Path::new(path), Open::OrCreate).expect("it can be made");
    file.write_all_at(&[bytes], 0).expect("there is room");
}

#[test]
fn a_process_that_ends_loses_nothing_and_a_crash_what_was_not_synced() {
    let sim = SimDisk::new(3);
    let disk = PoolDisk::make(made(&sim), "files").expect("there is room");
    disk.create_dir_all(Path::new("log")).expect("it can be made");
    write(&disk, "log/a", b"first");
    disk.sync_dir(Path::new("log")).expect("it works");
    disk.open(Path::new("log/a"), Open::Existing).expect("it is there").sync().expect("it works");
    let large = vec![7; 300_000];
    write(&disk, "log/b", &large);
    drop(disk);
    let disk = reopened(&sim);
    assert_eq!(contents(&disk, "log/a").as_deref(), Some(&b"first"[..]));
    assert_eq!(contents(&disk, "log/b"), Some(large), "it was not synced, and the system had it");
    write(&disk, "log/c", b"lost");
    drop(disk);
    sim.crash();
    let disk = reopened(&sim);
    assert_eq!(contents(&disk, "log/a").as_deref(), Some(&b"first"[..]));
    assert!(contents(&disk, "log/c").is_none_or(|bytes| bytes.is_empty() || bytes == b"lost"));
}

#[test]
fn a_file_without_a_name_is_there_until_it_is_closed() {
    let sim = SimDisk::new(4);
    let disk = PoolDisk::make(made(&sim), "files").expect("there is room");
    let file = disk.open(Path::new("a"), Open::New).expect("it is new");
    file.write_all_at(&[b"12", b"34"], 1).expect("there is room");
    disk.remove(Path::new("a")).expect("it is there");
    write(&disk, "b", b"another");
    let mut bytes = [9; 5];
    assert_eq!(file.read_at(&mut bytes, 0).expect("it is there"), 5);
    assert_eq!(&bytes, b"\x001234");
    drop(file);
    write(&disk, "c", b"");
    assert_eq!(contents(&disk, "c"), Some(Vec::new()), "nothing is left of what had its number");
    let pool = Arc::clone(&disk.shared.pool);
    disk.sync_all().expect("it works");
    let objects = pool.objects(disk.shared.dataset, 0, 10).expect("it can be read");
    assert_eq!(objects.len(), 2, "the table and one file: {objects:?}");
}

#[test]
fn names_keep_to_the_contract() {
    let sim = SimDisk::new(5);
    let disk = PoolDisk::make(made(&sim), "files").expect("there is room");
    let kind = |outcome: io::Result<()>| outcome.map_err(|error| error.kind());
    let open = |path: &str, how| disk.open(Path::new(path), how).map(drop).map_err(|error| error.kind());
    assert_eq!(open("a", Open::Existing), Err(ErrorKind::NotFound));
    assert_eq!(open("a", Open::New), Ok(()));
    assert_eq!(open("a", Open::New), Err(ErrorKind::AlreadyExists));
    assert_eq!(open("a/b", Open::New), Err(ErrorKind::NotFound));
    assert_eq!(open("../a", Open::New), Err(ErrorKind::InvalidInput));
    assert_eq!(open(&"x".repeat(2000), Open::New), Err(ErrorKind::InvalidFilename));
    disk.create_dir_all(Path::new("d/e/f")).expect("it can be made");
    assert_eq!(open("d", Open::OrCreate), Err(ErrorKind::IsADirectory));
    assert_eq!(kind(disk.create_dir_all(Path::new("a/b"))), Err(ErrorKind::NotADirectory));
    write(&disk, "d/e/new", b"new");
    disk.rename(Path::new("d/e/new"), Path::new("a")).expect("it replaces");
    assert_eq!(contents(&disk, "a").as_deref(), Some(&b"new"[..]));
    assert_eq!(kind(disk.rename(Path::new("d/e/new"), Path::new("a"))), Err(ErrorKind::NotFound));
    let names = |dir: &str| {
        let entries = disk.list(Path::new(dir)).expect("it can be read");
        entries
            .into_iter()
            .map(|entry| (entry.name.into_string().expect("text"), entry.is_dir))
            .collect::<Vec<_>>()
    };
    assert_eq!(names(""), [("a".to_owned(), false), ("d".to_owned(), true)]);
    assert_eq!(names("d"), [("e".to_owned(), true)]);
    assert!(names("nowhere").is_empty());
    assert_eq!(kind(disk.sync_dir(Path::new("nowhere"))), Err(ErrorKind::NotFound));
    disk.remove_dir_all(Path::new("d")).expect("it is there");
    assert_eq!(kind(disk.remove_dir_all(Path::new("d"))), Err(ErrorKind::NotFound));
    assert_eq!(names(""), [("a".to_owned(), false)]);
}

#[test]
fn files_go_on_where_objects_have_filled_the_pool() {
    let sim = SimDisk::new(6);
    let pool = made(&sim);
    let disk = PoolDisk::make(Arc::clone(&pool), "files").expect("there is room");
    write(&disk, "journal", b"begin");
    let objects = pool.create_dataset("ost", 128 << 10, DatasetKind::Objects).expect("there is room");
    let chunk = vec![1; 128 << 10];
    let full = (0..1000).find_map(|n| pool.write(objects, 1, n * chunk.len() as u64, &chunk).err());
    assert_eq!(full, Some(PoolError::NoSpace));
    let full = (2..5000).find_map(|object| pool.write(objects, object, 0, b"little").err());
    assert_eq!(full, Some(PoolError::NoSpace));
    for n in 0..20_u8 {
        let file = disk.open(Path::new("journal"), Open::Existing).expect("it is there");
        file.write_all_at(&[&[n; 100]], u64::from(n) * 100).expect("the last room is for files");
        file.sync().expect("it works");
    }
    write(&disk, "grown", &vec![3; 128 << 10]);
    disk.sync_all().expect("what was taken has its room");
    disk.remove(Path::new("journal")).expect("something can be removed");
    pool.destroy(objects, 1).expect("it can be destroyed");
    pool.commit().expect("it works");
    pool.write(objects, 1, 0, &chunk).expect("there is room again");
}

/// What is done to the names and files of a disk.
#[derive(Clone, Debug)]
enum Op {
    Write(usize, u8),
    Rename(usize, usize),
    Remove(usize),
    SyncAll,
}

fn op() -> impl Strategy<Value = Op> {
    let name = 0..4_usize;
    prop_oneof![
        4 => (name.clone(), any::<u8>()).prop_map(|(name, byte)| Op::Write(name, byte)),
        3 => (name.clone(), name.clone()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => name.prop_map(Op::Remove),
        1 => Just(Op::SyncAll),
    ]
}

fn path_of(name: usize) -> PathBuf {
    format!("d/{name}").into()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Names and files are as they were after some prefix of what was done since the last sync, however many crashes there are.
    #[test]
    fn after_a_crash_names_are_as_they_were_at_some_moment(
        seed in any::<u64>(),
        rounds in prop::collection::vec(prop::collection::vec(op(), 1..12), 1..4),
    ) {
        let sim = SimDisk::new(seed);
        let mut disk = PoolDisk::make(made(&sim), "files").expect("there is room");
        disk.create_dir_all(Path::new("d")).expect("it can be made");
        disk.sync_all().expect("it works");
        let mut model: [Option<u8>; 4] = [None; 4];
        for ops in rounds {
            let mut moments = vec![model];
            for op in &ops {
                match *op {
                    Op::Write(name, byte) => {
                        let file = disk.open(&path_of(name), Open::OrCreate).expect("it can be made");
                        if model[name].is_none() {
                            // The name is there before the content.
                            moments.push({ let mut moment = model; moment[name] = Some(0); moment });
                        }
                        file.write_all_at(&[&[byte]], 0).expect("there is room");
                        model[name] = Some(byte);
                    }
                    Op::Rename(from, to) if model[from].is_some() => {
                        disk.rename(&path_of(from), &path_of(to)).expect("it is there");
                        let moved = model[from].take();
                        model[to] = moved;
                    }
                    Op::Remove(name) if model[name].is_some() => {
                        disk.remove(&path_of(name)).expect("it is there");
                        model[name] = None;
                    }
                    Op::SyncAll => {
                        disk.sync_all().expect("it works");
                        moments.clear();
                    }
                    Op::Rename(..) | Op::Remove(_) => {}
                }
                moments.push(model);
            }
            drop(disk);
            sim.crash();
            disk = reopened(&sim);
            let found: Vec<Option<u8>> = (0..4)
                .map(|name| contents(&disk, &path_of(name).to_string_lossy()))
                .map(|bytes| bytes.map(|bytes| bytes.first().copied().unwrap_or(0)))
                .collect();
            prop_assert!(moments.iter().any(|moment| moment[..] == found[..]), "{found:?} of {moments:?}");
            model.copy_from_slice(&found);
            disk.sync_all().expect("it works");
        }
    }
}
