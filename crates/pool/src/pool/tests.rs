//! Pools on simulated disks that lose power, rot, fill up and go away, against objects that are plain bytes.

mod disks;
mod leaks;
mod log;
mod removing;
mod snapshots;
mod versions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_types::Timestamp;
use kiln_world::{Disk, Open, SimClock, SimDisk, SimRng};
use proptest::prelude::*;

use super::store::{Reading, pointer_of};
use super::*;
use crate::core::tree::Tree;
use crate::format::{ScrubPosition, ScrubRecord, ScrubState, VdevKind, record_key};
use leaks::nothing_leaks;

/// Short records, so that an object has many.
const RECORD: u32 = 8192;
const OBJECTS: u64 = 4;

#[derive(Clone, Copy, Debug)]
struct Shape {
    vdevs: &'static [(VdevKind, usize)],
    disk_bytes: u64,
}

const SINGLE: Shape = Shape { vdevs: &[(VdevKind::Mirror, 1)], disk_bytes: 8 << 20 };
const MIRROR: Shape = Shape { vdevs: &[(VdevKind::Mirror, 2)], disk_bytes: 8 << 20 };
const RAIDZ: Shape = Shape { vdevs: &[(VdevKind::Raidz(1), 4)], disk_bytes: 4 << 20 };
const RAIDZ2: Shape = Shape { vdevs: &[(VdevKind::Raidz(2), 5)], disk_bytes: 4 << 20 };
const TWO: Shape = Shape { vdevs: &[(VdevKind::Mirror, 2), (VdevKind::Raidz(1), 3)], disk_bytes: 6 << 20 };

fn path(disk: usize) -> PathBuf {
    PathBuf::from(format!("disk{disk}"))
}

impl Shape {
    fn disks(&self) -> usize {
        self.vdevs.iter().map(|(_, width)| width).sum()
    }

    fn files(&self, disk: &SimDisk, lost: &[usize]) -> Vec<DiskFile> {
        (0..self.disks())
            .filter(|index| !lost.contains(index))
            .filter_map(|index| {
                let file = disk.open(&path(index), Open::OrCreate).ok()?;
                Some(DiskFile { path: path(index).display().to_string(), file })
            })
            .collect()
    }

    fn create(&self, disk: &SimDisk) -> Pool {
        let mut files = self.files(disk, &[]).into_iter();
        for file in self.files(disk, &[]) {
            file.file.set_len(self.disk_bytes).expect("the disk is on");
        }
        disk.sync_all().expect("the disk is on");
        let vdevs = self
            .vdevs
            .iter()
            .map(|(kind, width)| VdevSpec { kind: *kind, disks: files.by_ref().take(*width).collect() });
        Pool::create("tank", vdevs.collect(), &host(), SETTINGS, false).expect("the disks are empty")
    }

    fn open(&self, disk: &SimDisk, lost: &[usize]) -> Result<Pool, OpenError> {
        Pool::open(self.files(disk, lost), &host(), SETTINGS, false)
    }
}

const SETTINGS: Settings = Settings {
    dirty_bytes_max: 1 << 20,
    cache_bytes: 8 << 20,
    placed_bytes_min: 16 << 10,
    removed_max: 1000,
    commit_every: None,
    threads: 1,
};

fn host() -> Host {
    Host {
        name: "silicon1".into(),
        clock: Arc::new(SimClock::new(Timestamp(0))),
        rng: Arc::new(SimRng::new(7)),
    }
}

/// What happens to objects.
#[derive(Clone, Debug)]
enum Op {
    Write(u64, u64, usize, u8),
    SetLen(u64, u64),
    Punch(u64, u64, u64),
    Destroy(u64),
    Sync(u64),
    Commit,
}

fn op() -> impl Strategy<Value = Op> {
    let object = 0..OBJECTS;
    prop_oneof![
        6 => (object.clone(), 0..60_000_u64, 1..30_000_usize, 1..=255_u8).prop_map(|(o, at, len, byte)| Op::Write(o, at, len, byte)),
        2 => (object.clone(), 0..80_000_u64).prop_map(|(o, len)| Op::SetLen(o, len)),
        2 => (object.clone(), 0..60_000_u64, 1..40_000_u64).prop_map(|(o, at, len)| Op::Punch(o, at, len)),
        1 => object.clone().prop_map(Op::Destroy),
        4 => object.prop_map(Op::Sync),
        1 => Just(Op::Commit),
    ]
}

/// Bytes that say where they are.
fn pattern(at: u64, len: usize, byte: u8) -> Vec<u8> {
    (at..at + len as u64).map(|position| byte ^ (position / 512) as u8 | 1).collect()
}

/// What an object may be: its states since it was durable the last time, the newest last. `None` when it is not there.
#[derive(Clone, Debug, Default)]
struct History(Vec<Option<Vec<u8>>>);

/// What objects may be.
#[derive(Clone, Debug)]
struct Model(BTreeMap<u64, History>);

impl Model {
    fn new() -> Model {
        Model((0..OBJECTS).map(|object| (object, History(vec![None]))).collect())
    }

    fn now(&self, object: u64) -> Option<&Vec<u8>> {
        self.0[&object].0.last().expect("there is a state").as_ref()
    }

    fn change(&mut self, object: u64, change: impl FnOnce(&mut Option<Vec<u8>>)) {
        let states = &mut self.0.get_mut(&object).expect("it is one of them").0;
        let mut next = states.last().expect("there is a state").clone();
        change(&mut next);
        states.push(next);
    }

    fn durable(&mut self, object: u64) {
        let states = &mut self.0.get_mut(&object).expect("it is one of them").0;
        states.drain(..states.len() - 1);
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::Write(object, at, len, byte) => self.change(*object, |state| {
                let bytes = state.get_or_insert_default();
                let end = *at as usize + len;
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*at as usize..end].copy_from_slice(&pattern(*at, *len, *byte));
            }),
            Op::SetLen(object, len) => {
                self.change(*object, |state| state.get_or_insert_default().resize(*len as usize, 0));
            }
            Op::Punch(object, at, len) => self.change(*object, |state| {
                if let Some(bytes) = state {
                    let end = (at + len).min(bytes.len() as u64) as usize;
                    if (*at as usize) < end {
                        bytes[*at as usize..end].fill(0);
                    }
                }
            }),
            Op::Destroy(object) => self.change(*object, |state| *state = None),
            Op::Sync(_) | Op::Commit => {}
        }
    }

    fn succeeded(&mut self, op: &Op) {
        match op {
            Op::Sync(object) => self.durable(*object),
            Op::Commit => (0..OBJECTS).for_each(|object| self.durable(object)),
            _ => {}
        }
    }

    /// The objects are what they may be, and from now on exactly that.
    fn settle(&mut self, pool: &Pool, dataset: DatasetId) {
        for (object, history) in &mut self.0 {
            let found = contents(pool, dataset, *object);
            assert!(
                history.0.contains(&found),
                "object {object} has {:?} bytes, and may have {:?}",
                found.as_ref().map(Vec::len),
                history.0.iter().map(|state| state.as_ref().map(Vec::len)).collect::<Vec<_>>()
            );
            history.0 = vec![found];
        }
    }
}

fn run(pool: &Pool, dataset: DatasetId, op: &Op) -> Result<(), PoolError> {
    match op {
        Op::Write(object, at, len, byte) => pool.write(dataset, *object, *at, &pattern(*at, *len, *byte)),
        Op::SetLen(object, len) => pool.set_len(dataset, *object, *len),
        Op::Punch(object, at, len) => pool.punch(dataset, *object, *at, *len),
        Op::Destroy(object) => pool.destroy(dataset, *object),
        Op::Sync(object) => pool.sync(dataset, &[*object]),
        Op::Commit => pool.commit(),
    }
}

fn contents(pool: &Pool, dataset: DatasetId, object: u64) -> Option<Vec<u8>> {
    let stat = pool.stat(dataset, object).expect("it can be read")?;
    let mut bytes = vec![0xee; stat.len as usize + 10];
    let read = pool.read(dataset, object, 0, &mut bytes).expect("it can be read");
    assert_eq!(read as u64, stat.len);
    bytes.truncate(read);
    Some(bytes)
}

/// A pool with an empty dataset.
fn made(shape: Shape, seed: u64) -> (SimDisk, Pool, DatasetId) {
    let disk = SimDisk::new(seed);
    let pool = shape.create(&disk);
    let dataset = pool.create_dataset("objects", RECORD, DatasetKind::Objects).expect("there is room");
    (disk, pool, dataset)
}

/// Everything is right, and nothing had to be mended.
fn is_whole(pool: &Pool) {
    let report = pool.scrub().run().expect("it can be read");
    assert_eq!((report.mended, &report.damaged[..]), (0, &[][..]));
    nothing_leaks(pool);
}

#[test]
fn objects_are_what_was_written() {
    for shape in [SINGLE, MIRROR, RAIDZ, RAIDZ2, TWO] {
        let (disk, pool, dataset) = made(shape, 1);
        let bytes = pattern(0, 100_000, 7);
        pool.write(dataset, 5, 3, &bytes).expect("there is room");
        let mut read = vec![0; 200_000];
        assert_eq!(pool.read(dataset, 5, 0, &mut read), Ok(100_003));
        assert_eq!((&read[..3], &read[3..100_003]), (&[0; 3][..], &bytes[..]));
        pool.commit().expect("the disks are on");
        assert_eq!(pool.read(dataset, 5, 3, &mut read), Ok(100_000));
        assert_eq!(read[..100_000], bytes);
        is_whole(&pool);
        drop(pool);
        let pool = shape.open(&disk, &[]).expect("it is there");
        assert_eq!(pool.dataset("objects"), Some(dataset));
        assert_eq!(pool.objects(dataset, 0, 10), Ok(vec![5]));
        assert_eq!(pool.read(dataset, 5, 3, &mut read), Ok(100_000));
        assert_eq!(read[..100_000], bytes, "{shape:?}");
        is_whole(&pool);
    }
}

/// Runs operations until the power fails at the sync of that number, or there are no more; then what was acknowledged is there.
fn survives(shape: Shape, seed: u64, ops: &[Op], crash_after: u64) {
    let (disk, mut pool, dataset) = made(shape, seed);
    let mut model = Model::new();
    disk.crash_after_syncs(crash_after);
    for op in ops {
        model.apply(op);
        match run(&pool, dataset, op) {
            Ok(()) => model.succeeded(op),
            Err(error) => {
                assert!(disk.is_off(), "{op:?}: {error}");
                break;
            }
        }
        if let Op::Write(object, ..) | Op::SetLen(object, _) | Op::Punch(object, ..) = op
            && !disk.is_off()
        {
            assert_eq!(contents(&pool, dataset, *object).as_ref(), model.now(*object), "{op:?}");
        }
    }
    drop(pool);
    disk.crash();
    pool = shape.open(&disk, &[]).expect("the uberblock is there");
    model.settle(&pool, dataset);
    nothing_leaks(&pool);
    let report = pool.scrub().run().expect("it can be read");
    assert_eq!(report.damaged, []);
    // It goes on as if nothing had been.
    for op in ops.iter().rev() {
        model.apply(op);
        run(&pool, dataset, op).expect("the disks are on");
        model.succeeded(op);
    }
    pool.commit().expect("the disks are on");
    model.succeeded(&Op::Commit);
    is_whole(&pool);
    drop(pool);
    let pool = shape.open(&disk, &[]).expect("it is there");
    model.settle(&pool, dataset);
    is_whole(&pool);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_was_synced_outlives_a_crash(
        shape in prop::sample::select(vec![SINGLE, MIRROR, RAIDZ, RAIDZ2, TWO]),
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..25),
        crash_after in 0..60_u64,
    ) {
        survives(shape, seed, &ops, crash_after);
    }
}

/// Flips a bit in each of some sectors of a disk where records lie.
fn rot(disk: &SimDisk, index: usize, bytes: u64, sectors: impl Iterator<Item = u64>) {
    let areas = crate::vdev::labels::Areas::of(bytes).expect("it is large enough");
    for sector in sectors.filter(|sector| *sector < areas.data_sectors()) {
        let at = areas.data_start() + sector * SECTOR_BYTES as u64 + sector % 4096;
        let _ = disk.rot(&path(index), at, 0x20);
    }
}

/// A dataset with a few objects, committed.
fn filled(shape: Shape) -> (SimDisk, Pool, DatasetId, Model) {
    let (disk, pool, dataset) = made(shape, 3);
    let mut model = Model::new();
    for object in 0..OBJECTS {
        let op = Op::Write(object, object * 1000, 150_000, object as u8 + 3);
        model.apply(&op);
        run(&pool, dataset, &op).expect("there is room");
    }
    pool.commit().expect("the disks are on");
    (0..OBJECTS).for_each(|object| model.durable(object));
    (disk, pool, dataset, model)
}

/// Where a record begins.
fn record_place(pool: &Pool, dataset: DatasetId, object: u64, sector: u64) -> Place {
    let roots = pool.shared.roots();
    let mut reading = Reading(&pool.shared.store);
    let root = roots.datasets[&dataset.0].root.clone();
    let value = Tree::new(&mut reading, NODE_BYTES).get(root.as_ref(), record_key(object, sector));
    pointer_of(&value.expect("it can be read").expect("it is there")).expect("a pointer").places[0]
}

#[test]
fn a_rotten_disk_is_mended_by_reading_and_by_a_scrub() {
    for shape in [MIRROR, RAIDZ, RAIDZ2] {
        let (disk, pool, dataset, mut model) = filled(shape);
        drop(pool);
        rot(&disk, 1, shape.disk_bytes, 0..2000);
        let pool = shape.open(&disk, &[]).expect("one disk may be bad");
        model.settle(&pool, dataset);
        let report = pool.scrub().run().expect("it can be read");
        assert_eq!(report.damaged, []);
        is_whole(&pool);
        drop(pool);
        // The maps that were rotten were mended too, or the other disks have them.
        let pool = shape.open(&disk, &[]).expect("it is whole");
        model.settle(&pool, dataset);
    }
}

#[test]
fn a_scrub_goes_on_where_it_was_when_the_power_fails() {
    let shape = Shape { disk_bytes: 16 << 20, ..MIRROR };
    let (disk, mut pool, dataset, _) = filled(shape);
    // More than a scrub looks at in one step.
    for at in (0..5 << 20).step_by(1 << 19) {
        pool.write(dataset, OBJECTS, at, &pattern(at, 1 << 19, 9)).expect("there is room");
    }
    pool.commit().expect("the disks are on");
    let records = pool.scrub().run().expect("it can be read").records;
    drop(pool);
    rot(&disk, 1, shape.disk_bytes, 0..4000);
    pool = shape.open(&disk, &[]).expect("one disk may be bad");
    let own = pool.create_dataset("own", RECORD, DatasetKind::Files).expect("there is room");
    let mut saved = ScrubRecord {
        state: ScrubState::Running,
        began_secs: 0,
        ran_ms: 0,
        rate: 0,
        began: Txg(0),
        position: ScrubPosition::Done,
        report: ScrubReport::default(),
    };
    (saved.position, saved.began) = pool.scrub().position();
    let mut rounds = 0;
    while saved.position != ScrubPosition::Done {
        let mut scrub = pool.scrub_from(&saved);
        scrub.step(STEP_RECORDS).expect("it can be read");
        (saved.position, saved.began) = scrub.position();
        saved.report = scrub.report().clone();
        pool.write(own, 0, 0, &saved.encode()).expect("there is room");
        pool.commit().expect("the disks are on");
        drop(pool);
        disk.crash();
        pool = shape.open(&disk, &[]).expect("one disk may be bad");
        let bytes = contents(&pool, own, 0).expect("it was committed");
        assert_eq!(ScrubRecord::decode(&bytes), Ok(saved.clone()));
        rounds += 1;
    }
    assert!(rounds > 4, "{rounds} steps");
    assert!(saved.report.mended > 0 && saved.report.records >= records, "{:?} of {records}", saved.report);
    is_whole(&pool);
}

#[test]
fn with_one_disk_away_and_another_rotten_exactly_what_is_hit_twice_is_lost() {
    let (disk, pool, dataset, model) = filled(RAIDZ);
    // Two records that follow one another.
    let sectors = u64::from(RECORD) / SECTOR_BYTES as u64;
    let first = record_place(&pool, dataset, 1, 3 * sectors).sector / 4;
    let last = record_place(&pool, dataset, 1, 4 * sectors).sector / 4;
    drop(pool);
    rot(&disk, 2, RAIDZ.disk_bytes, first..=last);
    let pool = RAIDZ.open(&disk, &[0]).expect("one disk may be away");
    let report = pool.scrub().run().expect("it can be read");
    assert!(!report.damaged.is_empty(), "the test hits something");
    let lost: BTreeSet<(u64, u64)> = report
        .damaged
        .iter()
        .map(|record| (record.object.expect("no node lies there"), record.offset / u64::from(RECORD)))
        .collect();
    for object in 0..OBJECTS {
        let right = model.now(object).expect("it is there");
        for number in 0..(right.len() as u64).div_ceil(u64::from(RECORD)) {
            let at = number * u64::from(RECORD);
            let mut bytes = vec![0; RECORD as usize];
            match pool.read(dataset, object, at, &mut bytes) {
                Ok(read) => {
                    assert_eq!(bytes[..read], right[at as usize..at as usize + read]);
                    assert!(!lost.contains(&(object, number)));
                }
                Err(error) => {
                    assert_eq!(error, PoolError::Damaged);
                    assert!(lost.contains(&(object, number)), "{object} {number}");
                }
            }
        }
    }
    // The disk is back: what it has mends the rest, since it missed nothing of that.
    drop(pool);
    let pool = RAIDZ.open(&disk, &[]).expect("all are there");
    let report = pool.resilver(&|_| true).expect("it can be read").expect("a disk was away");
    assert_eq!(report.damaged, []);
    assert_eq!(pool.scrub().run().expect("it can be read").damaged, []);
    is_whole(&pool);
}

#[test]
fn a_disk_that_was_away_gets_what_it_missed_and_then_stands_alone() {
    for (shape, away) in [(MIRROR, 0), (MIRROR, 1), (RAIDZ, 3)] {
        let (disk, pool, dataset, mut model) = filled(shape);
        drop(pool);
        let pool = shape.open(&disk, &[away]).expect("one disk may be away");
        for op in
            [Op::Write(1, 5000, 90_000, 99), Op::Destroy(2), Op::Commit, Op::SetLen(3, 10_001), Op::Sync(1)]
        {
            model.apply(&op);
            run(&pool, dataset, &op).expect("there is room");
            model.succeeded(&op);
        }
        // The power fails, and it comes back with the other disks.
        disk.crash();
        drop(pool);
        let pool = shape.open(&disk, &[]).expect("all are there");
        (0..OBJECTS).for_each(|object| model.0.get_mut(&object).expect("it is one").0.insert(0, None));
        for (object, history) in &mut model.0 {
            let found = contents(&pool, dataset, *object);
            if *object == 1 {
                assert_eq!(found.as_ref(), history.0.last().expect("there is one").as_ref());
            }
            history.0 = vec![found];
        }
        let before = pool.config().vdevs[0].leaves[away].missed.clone();
        assert!(!before.is_empty());
        let report = pool.resilver(&|_| true).expect("it can be read").expect("a disk was away");
        assert!(report.mended > 0 && report.damaged.is_empty());
        assert!(pool.config().vdevs[0].leaves[away].missed.is_empty());
        assert_eq!(pool.resilver(&|_| true), Ok(None));
        is_whole(&pool);
        drop(pool);
        // Now any other may be away.
        let others = (0..shape.disks()).filter(|other| *other != away);
        for other in others {
            let pool = shape.open(&disk, &[other]).expect("one disk may be away");
            model.settle(&pool, dataset);
            nothing_leaks(&pool);
            drop(pool);
            let pool = shape.open(&disk, &[]).expect("all are there");
            pool.resilver(&|_| true).expect("it can be read").expect("a disk was away");
        }
    }
}

/// Bytes that come over a disk, anywhere on it: labels, uberblocks, maps, the log, nodes and data.
fn damage() -> impl Strategy<Value = (usize, u64, Vec<u8>)> {
    (any::<usize>(), any::<u64>(), prop::collection::vec(any::<u8>(), 1..20_000))
}

fn come_over(disk: &SimDisk, shape: Shape, index: usize, at: u64, bytes: &[u8]) {
    let file = disk.open(&path(index), Open::Existing).expect("it was made");
    let at = at % (shape.disk_bytes - bytes.len() as u64);
    file.write_all_at(&[bytes], at).expect("the disk is on");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn one_disk_may_have_anything(
        shape in prop::sample::select(vec![MIRROR, RAIDZ, RAIDZ2]),
        index in any::<usize>(),
        damage in prop::collection::vec(damage(), 1..30),
    ) {
        let (disk, pool, dataset, mut model) = filled(shape);
        let op = Op::Write(1, 7000, 9000, 42);
        model.apply(&op);
        run(&pool, dataset, &op).expect("there is room");
        pool.sync(dataset, &[1]).expect("it is logged");
        disk.crash();
        drop(pool);
        for (_, at, bytes) in &damage {
            come_over(&disk, shape, index % shape.disks(), *at, bytes);
        }
        let pool = shape.open(&disk, &[]).expect("the other disks have everything");
        for object in 0..OBJECTS {
            let found = contents(&pool, dataset, object);
            prop_assert_eq!(found.as_ref(), model.now(object));
        }
        prop_assert_eq!(pool.scrub().run().expect("it can be read").damaged, []);
        nothing_leaks(&pool);
    }

    #[test]
    fn whatever_the_disks_have_nothing_wrong_is_read(
        shape in prop::sample::select(vec![SINGLE, MIRROR, RAIDZ, TWO]),
        damage in prop::collection::vec(damage(), 1..60),
    ) {
        let (disk, pool, dataset, model) = filled(shape);
        drop(pool);
        for (index, at, bytes) in &damage {
            come_over(&disk, shape, index % shape.disks(), *at, bytes);
        }
        let Ok(pool) = shape.open(&disk, &[]) else { return Ok(()) };
        for object in 0..OBJECTS {
            let right = model.now(object).expect("it is there");
            let mut bytes = vec![0; RECORD as usize];
            for at in (0..right.len()).step_by(RECORD as usize) {
                match pool.read(dataset, object, at as u64, &mut bytes) {
                    Ok(read) => prop_assert_eq!(&bytes[..read], &right[at..right.len().min(at + RECORD as usize)]),
                    Err(error) => prop_assert_eq!(error, PoolError::Damaged),
                }
            }
        }
        let _ = pool.scrub().run();
        let _ = pool.commit();
    }
}

#[test]
fn a_full_pool_says_so_and_has_room_again_when_something_is_destroyed() {
    for shape in [SINGLE, RAIDZ, TWO] {
        let (disk, pool, dataset) = made(shape, 5);
        let mut written = 0;
        let full = loop {
            match pool.write(dataset, written, 0, &pattern(0, 50_000, 1)) {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full, PoolError::NoSpace);
        pool.commit().expect("what was acknowledged fits");
        let space = pool.space(DatasetKind::Objects);
        assert!(space.free_bytes < space.total_bytes / 8, "{space:?}");
        // Overwriting needs room for a while, and so does destroying, which must work.
        for object in 0..written {
            let rewritten = pool.write(dataset, object, 0, &pattern(0, 8000, 2));
            assert!(matches!(rewritten, Ok(()) | Err(PoolError::NoSpace)), "{rewritten:?}");
        }
        pool.commit().expect("what was acknowledged fits");
        is_whole(&pool);
        for object in 0..written / 2 {
            pool.destroy(dataset, object).expect("that always works");
        }
        pool.commit().expect("that always works");
        pool.write(dataset, 1 << 40, 0, &pattern(0, 50_000, 3)).expect("there is room again");
        pool.sync(dataset, &[1 << 40]).expect("there is room");
        drop(pool);
        let pool = shape.open(&disk, &[]).expect("it is there");
        assert_eq!(contents(&pool, dataset, 1 << 40), Some(pattern(0, 50_000, 3)));
        assert_eq!(pool.stat(dataset, 0), Ok(None));
        is_whole(&pool);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    /// Whatever happens to a full pool: what is accepted is there, and what is refused has changed nothing.
    #[test]
    fn a_full_pool_goes_on(
        shape in prop::sample::select(vec![SINGLE, MIRROR, RAIDZ, TWO]),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let (disk, pool, dataset) = made(shape, 5);
        let mut model = Model::new();
        let mut other = OBJECTS;
        while pool.write(dataset, other, 0, &pattern(0, 50_000, 1)).is_ok() {
            other += 1;
        }
        for op in &ops {
            // What is punched in part may be refused for one part of it.
            let op = match op {
                Op::Punch(object, at, len) => {
                    let record = u64::from(RECORD);
                    Op::Punch(*object, at / record * record, len.next_multiple_of(record))
                }
                op => op.clone(),
            };
            match run(&pool, dataset, &op) {
                Ok(()) => {
                    model.apply(&op);
                    model.succeeded(&op);
                }
                Err(error) => prop_assert_eq!(error, PoolError::NoSpace, "{:?}", op),
            }
        }
        for object in 0..OBJECTS {
            let found = contents(&pool, dataset, object);
            prop_assert_eq!(found.as_ref(), model.now(object));
        }
        // The power fails: what was synced is there.
        disk.crash();
        drop(pool);
        let pool = shape.open(&disk, &[]).expect("it is there");
        model.settle(&pool, dataset);
        is_whole(&pool);
    }
}

#[test]
fn who_may_open_it() {
    let (disk, pool, _) = made(MIRROR, 1);
    let other = Host { name: "silicon2".into(), ..host() };
    let opened = Pool::open(MIRROR.files(&disk, &[]), &other, SETTINGS, false);
    assert!(matches!(&opened, Err(OpenError::InUse { host, .. }) if host == "silicon1"), "{opened:?}");
    let again = Pool::create(
        "other",
        vec![VdevSpec { kind: VdevKind::Mirror, disks: MIRROR.files(&disk, &[]) }],
        &host(),
        SETTINGS,
        false,
    );
    assert!(matches!(&again, Err(CreateError::InUse { pool, .. }) if pool == "tank"), "{again:?}");
    pool.export().expect("the disks are on");
    let pool = Pool::open(MIRROR.files(&disk, &[]), &other, SETTINGS, false).expect("it was exported");
    assert_eq!(pool.config().host, "silicon2");
    pool.destroy_pool().expect("the disks are on");
    let opened = Pool::open(MIRROR.files(&disk, &[]), &other, SETTINGS, false);
    assert!(matches!(&opened, Err(OpenError::Destroyed(name)) if name == "tank"), "{opened:?}");
    // Nothing of the old pool is taken for the new one's, though it is newer.
    let mirror = VdevSpec { kind: VdevKind::Mirror, disks: MIRROR.files(&disk, &[]) };
    let fresh = Host { rng: Arc::new(SimRng::new(8)), ..host() };
    drop(Pool::create("tank", vec![mirror], &fresh, SETTINGS, false).expect("the other pool was destroyed"));
    let opened = RAIDZ.open(&disk, &[]);
    assert!(opened.is_ok(), "disks without labels do not matter: {opened:?}");
    let opened = MIRROR.open(&disk, &[0, 1]);
    assert!(matches!(opened, Err(OpenError::NoDisks)), "{opened:?}");
}

#[test]
fn disks_are_taken_out_brought_back_and_replaced_while_it_is_used() {
    for shape in [MIRROR, RAIDZ, RAIDZ2] {
        let (disk, pool, dataset, mut model) = filled(shape);
        let name = |index: usize| path(index).display().to_string();
        let file = |index: usize| {
            let file = disk.open(&path(index), Open::OrCreate).expect("the disk is on");
            DiskFile { path: name(index), file }
        };
        let unknown = pool.offline("nothing");
        assert!(matches!(unknown, Err(DiskError::Unknown(_))), "{unknown:?}");
        pool.offline(&name(0)).expect("the others have everything");
        if shape.vdevs[0].0 != VdevKind::Raidz(2) {
            let needed = pool.offline(&name(1));
            assert!(matches!(needed, Err(DiskError::Needed { missing: 1, tolerates: 1, .. })), "{needed:?}");
        }
        assert_eq!(pool.status().health, Health::Degraded);
        for op in [Op::Write(1, 5000, 90_000, 99), Op::Destroy(2), Op::Sync(1)] {
            model.apply(&op);
            run(&pool, dataset, &op).expect("there is room");
        }
        let other = pool.online(&name(0), file(1));
        assert!(matches!(other, Err(DiskError::Other(_))), "{other:?}");
        pool.online(&name(0), file(0)).expect("it is the one");
        assert!(matches!(pool.online(&name(0), file(0)), Err(DiskError::Online(_))));
        pool.resilver(&|_| true).expect("it can be read").expect("it lacks something");
        assert_eq!(pool.status().health, Health::Online);
        is_whole(&pool);
        // A new disk in the place of another.
        let new = file(shape.disks());
        new.file.set_len(shape.disk_bytes / 2).expect("there is room");
        let small = pool.replace(&name(1), &file(shape.disks()), &SimRng::new(9), false);
        assert!(matches!(small, Err(DiskError::TooSmall { .. })), "{small:?}");
        new.file.set_len(shape.disk_bytes).expect("there is room");
        disk.sync_all().expect("the disk is on");
        let used = pool.replace(&name(1), &file(0), &SimRng::new(9), false);
        assert!(matches!(used, Err(DiskError::Unfit(CreateError::InUse { .. }))), "{used:?}");
        pool.replace(&name(1), &new, &SimRng::new(9), false).expect("it is empty");
        let report = pool.resilver(&|_| true).expect("it can be read").expect("it lacks everything");
        assert!(report.mended > 0 && report.damaged.is_empty());
        is_whole(&pool);
        let counts = pool.status().vdevs[0].leaves[1].counts;
        assert_eq!(counts, crate::vdev::Counts::default(), "nobody is to blame");
        pool.commit().expect("the disks are on");
        drop(pool);
        disk.crash();
        // Without another disk, and with the new one.
        let mut files = shape.files(&disk, &[0, 1]);
        files.push(file(shape.disks()));
        let pool = Pool::open(files, &host(), SETTINGS, false).expect("one disk may be away");
        for object in 0..OBJECTS {
            assert_eq!(contents(&pool, dataset, object).as_ref(), model.now(object));
        }
        nothing_leaks(&pool);
    }
}

/// The system tells a failed flush once; what it lost must not count as durable afterwards.
#[test]
fn a_disk_that_failed_a_flush_is_not_believed_until_it_is_opened_again() {
    let (disk, pool, dataset, _) = filled(SINGLE);
    pool.write(dataset, 1, 0, &pattern(0, 100, 9)).expect("there is room");
    disk.fail_nth(kiln_world::Fault::Sync, 0);
    // The log fails, and so does the commit that was to stand in for it.
    let failed = pool.sync(dataset, &[1]);
    assert!(matches!(failed, Err(PoolError::Suspended(_))), "{failed:?}");
    assert!(matches!(pool.sync(dataset, &[1]), Err(PoolError::Suspended(_))));
    drop(pool);

    let (disk, pool, dataset, mut model) = filled(MIRROR);
    let op = Op::Write(1, 0, 100, 9);
    model.apply(&op);
    run(&pool, dataset, &op).expect("there is room");
    disk.fail_nth(kiln_world::Fault::Sync, 0);
    pool.sync(dataset, &[1]).expect("the other disk has it");
    pool.commit().expect("the other disk has it");
    let behind = |pool: &Pool| pool.status().vdevs[0].leaves.iter().filter(|leaf| leaf.behind).count();
    assert_eq!(behind(&pool), 1);
    pool.resilver(&|_| true).expect("it can be read");
    assert_eq!(behind(&pool), 1, "its flushes still fail");
    drop(pool);
    disk.crash();
    let pool = MIRROR.open(&disk, &[]).expect("it is there");
    pool.resilver(&|_| true).expect("it can be read").expect("a disk is behind");
    assert_eq!(behind(&pool), 0);
    for object in 0..OBJECTS {
        assert_eq!(contents(&pool, dataset, object).as_ref(), model.now(object));
    }
    is_whole(&pool);
}

/// A resilver that the power ends again and again goes on in the end.
#[test]
fn a_resilver_that_is_interrupted_ends_right() {
    let (disk, pool, dataset, model) = filled(RAIDZ);
    drop(pool);
    disk.crash();
    drop(RAIDZ.open(&disk, &[2]).expect("one disk may be away"));
    for syncs in 0.. {
        let pool = RAIDZ.open(&disk, &[]).expect("all are there");
        disk.crash_after_syncs(syncs);
        let ended = pool.resilver(&|_| true).is_ok();
        drop(pool);
        disk.crash();
        if ended {
            break;
        }
    }
    let pool = RAIDZ.open(&disk, &[]).expect("all are there");
    assert_eq!(pool.resilver(&|_| true), Ok(None));
    is_whole(&pool);
    drop(pool);
    let pool = RAIDZ.open(&disk, &[0]).expect("one disk may be away");
    for object in 0..OBJECTS {
        assert_eq!(contents(&pool, dataset, object).as_ref(), model.now(object));
    }
}
