//! Pools on simulated disks that lose power, rot, fill up and go away, against objects that are plain bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_types::Timestamp;
use kiln_world::{Disk, Open, SimClock, SimDisk, SimRng};
use proptest::prelude::*;

use super::*;
use crate::core::tree::Load;
use crate::format::{Kind, Pointer, VdevKind, is_record};
use super::store::sectors_of;

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
        let vdevs = self.vdevs.iter().map(|(kind, width)| VdevSpec { kind: *kind, disks: files.by_ref().take(*width).collect() });
        Pool::create("tank", vdevs.collect(), &host(), SETTINGS, false).expect("the disks are empty")
    }

    fn open(&self, disk: &SimDisk, lost: &[usize]) -> Result<Pool, OpenError> {
        Pool::open(self.files(disk, lost), &host(), SETTINGS, false)
    }
}

const SETTINGS: Settings = Settings { dirty_bytes_max: 1 << 20, commit_every: None };

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

/// What is taken is exactly what the root leads to, and the log.
fn nothing_leaks(pool: &Pool) {
    let shared = &pool.shared;
    let mut reached: BTreeSet<(Place, u64)> = BTreeSet::new();
    let space = shared.store.space().clone();
    let mut note = |place: Place, sectors: u32| {
        for sector in 0..space.allocated(place.vdev, sectors) {
            let fresh = reached.insert((Place { sector: place.sector + sector, ..place }, 1));
            assert!(fresh, "{place:?} is used twice");
        }
    };
    for place in locked(&shared.root_places).iter() {
        note(*place, 1);
    }
    let roots = shared.roots();
    let trees = roots.tree.iter().chain(roots.datasets.values().filter_map(|dataset| dataset.root.as_ref()));
    let mut pointers = Vec::new();
    for (index, root) in trees.enumerate() {
        gather(&shared.store, root, index > 0, &mut pointers);
    }
    for pointer in pointers {
        pointer.places.iter().for_each(|place| note(*place, sectors_of(pointer.stored_bytes as usize)));
    }
    for (slot, sectors) in space.slots() {
        for sector in 0..*sectors {
            assert!(reached.insert((Place { sector: slot.sector + sector, ..*slot }, 1)), "{slot:?} is used twice");
        }
    }
    let taken = space.taken().into_iter().flat_map(|(place, len)| {
        (0..len).map(move |sector| (Place { sector: place.sector + sector, ..place }, 1))
    });
    assert_eq!(taken.collect::<BTreeSet<_>>(), reached);
}

fn gather(store: &Store, root: &Root, objects: bool, into: &mut Vec<Pointer>) {
    into.push(pointer_of(&root.place).expect("a pointer"));
    let node = Reading(store).load(&root.place).expect("it is whole");
    for entry in &node.entries {
        match root.level.checked_sub(1) {
            Some(level) => gather(store, &Root { level, place: entry.value.clone() }, objects, into),
            None if objects && is_record(entry.key) => {
                let pointer = pointer_of(&entry.value).expect("a pointer");
                assert_eq!(pointer.kind, Kind::Data);
                into.push(pointer);
            }
            None => {}
        }
    }
}

/// A pool with an empty dataset.
fn made(shape: Shape, seed: u64) -> (SimDisk, Pool, DatasetId) {
    let disk = SimDisk::new(seed);
    let pool = shape.create(&disk);
    let dataset = pool.create_dataset("objects", RECORD).expect("there is room");
    (disk, pool, dataset)
}

/// Everything is right, and nothing had to be mended.
fn is_whole(pool: &Pool) {
    let report = pool.scrub(Scrub::All).expect("it can be read");
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
    let report = pool.scrub(Scrub::All).expect("it can be read");
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
