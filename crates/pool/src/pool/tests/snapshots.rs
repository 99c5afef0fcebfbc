//! Snapshots, clones and what is rolled back, against copies of everything.

use super::*;

/// What the objects of a dataset are.
type Contents = BTreeMap<u64, Vec<u8>>;

fn contents_of(pool: &Pool, dataset: DatasetId) -> Contents {
    let objects = (0..OBJECTS).filter_map(|object| Some((object, contents(pool, dataset, object)?)));
    objects.collect()
}

/// Makes a snapshot of a dataset.
fn take(pool: &Pool, dataset: DatasetId, name: &str) -> DatasetId {
    pool.snapshot(&[dataset], name).expect("there is room");
    of(pool, dataset, name).expect("it was made")
}

/// The snapshot of a name of a dataset.
fn of(pool: &Pool, dataset: DatasetId, name: &str) -> Option<DatasetId> {
    let (_, of) = pool.datasets().into_iter().find(|(id, _)| *id == dataset)?;
    pool.snapshot_of(&of, name)
}

fn now(model: &Model) -> Contents {
    (0..OBJECTS).filter_map(|object| Some((object, model.now(object)?.clone()))).collect()
}

#[test]
fn a_snapshot_stays_what_it_is_and_costs_what_changes() {
    for shape in [SINGLE, RAIDZ, TWO] {
        let (disk, pool, dataset, mut model) = filled(shape);
        let taken = |pool: &Pool| pool.status().allocated_bytes;
        // The first group that is committed when there is one takes room for the log.
        pool.set_properties(pool.properties()).expect("the disks are on");
        let before = taken(&pool);
        let then = now(&model);
        let made = take(&pool, dataset, "noon");
        assert!(taken(&pool) - before <= 64 << 10, "nothing is copied");
        assert_eq!(pool.snapshot(&[dataset], "noon"), Err(PoolError::DatasetExists));
        assert_eq!(pool.snapshot_bytes(made), Ok(0));
        for op in [Op::Write(1, 5000, 20_000, 99), Op::Destroy(2), Op::SetLen(3, 1000), Op::Commit] {
            model.apply(&op);
            run(&pool, dataset, &op).expect("there is room");
        }
        assert_eq!(contents_of(&pool, made), then);
        assert_eq!(contents_of(&pool, dataset), now(&model));
        assert!(pool.snapshot_bytes(made).expect("it is there") > 150_000);
        for refused in [
            pool.write(made, 1, 0, b"new"),
            pool.set_len(made, 1, 5),
            pool.punch(made, 1, 0, 5),
            pool.destroy(made, 1),
        ] {
            assert_eq!(refused, Err(PoolError::ReadOnly));
        }
        assert_eq!(pool.snapshot(&[made], "again"), Err(PoolError::ReadOnly));
        assert_eq!(pool.destroy_dataset(dataset), Err(PoolError::HasSnapshots));
        is_whole(&pool);
        drop(pool);
        disk.crash();
        let pool = shape.open(&disk, &[]).expect("it is there");
        let names: Vec<String> = pool.datasets().into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["objects", "objects@noon"]);
        assert_eq!(pool.dataset("objects@noon"), Some(made));
        assert_eq!(contents_of(&pool, made), then);
        let with_it = taken(&pool);
        pool.destroy_dataset(made).expect("it is there");
        pool.commit().expect("the disks are on");
        assert!(taken(&pool) < with_it - 150_000, "what only it had is free");
        assert_eq!(contents_of(&pool, dataset), now(&model));
        is_whole(&pool);
        pool.destroy_dataset(dataset).expect("it has no snapshots");
        is_whole(&pool);
    }
}

#[test]
fn a_clone_goes_its_own_way_and_a_dataset_goes_back() {
    let (_, pool, dataset, mut model) = filled(MIRROR);
    let then = now(&model);
    let first = take(&pool, dataset, "first");
    let clone = pool.clone_snapshot(first, "clone").expect("there is room");
    assert_eq!(pool.clone_snapshot(first, "clone"), Err(PoolError::DatasetExists));
    assert_eq!(pool.clone_snapshot(dataset, "other"), Err(PoolError::NoDataset), "it is no snapshot");
    let mut of_clone = model.clone();
    for op in [Op::Write(1, 9000, 40_000, 77), Op::Destroy(0)] {
        of_clone.apply(&op);
        run(&pool, clone, &op).expect("there is room");
    }
    let op = Op::Write(1, 5000, 40_000, 99);
    model.apply(&op);
    run(&pool, dataset, &op).expect("there is room");
    let of_it = take(&pool, clone, "own");
    assert_eq!(contents_of(&pool, clone), now(&of_clone));
    assert_eq!(contents_of(&pool, of_it), now(&of_clone));
    assert_eq!(contents_of(&pool, dataset), now(&model));
    assert_eq!(pool.destroy_dataset(first), Err(PoolError::HasClone("clone".into())));
    is_whole(&pool);
    let second = take(&pool, dataset, "second");
    assert_eq!(pool.roll_back(&[first]), Err(PoolError::NotNewest));
    pool.destroy_dataset(second).expect("it has no clones");
    // What is not committed goes too, also what has its place already.
    pool.write(dataset, 3, 0, &pattern(0, 60_000, 5)).expect("there is room");
    pool.roll_back(&[first]).expect("it is the newest");
    assert_eq!(contents_of(&pool, dataset), then);
    assert_eq!(contents_of(&pool, clone), now(&of_clone));
    is_whole(&pool);
    pool.write(clone, 3, 0, &pattern(0, 60_000, 5)).expect("there is room");
    pool.destroy_dataset(of_it).expect("it has no clones");
    pool.destroy_dataset(clone).expect("it has no snapshots");
    is_whole(&pool);
    pool.destroy_dataset(first).expect("it has no clones");
    assert_eq!(contents_of(&pool, dataset), then);
    is_whole(&pool);
}

#[test]
fn several_datasets_are_kept_at_one_moment() {
    let (_, pool, dataset, _) = filled(MIRROR);
    let other = pool.create_dataset("other", RECORD, DatasetKind::Files).expect("there is room");
    pool.write(other, 0, 0, b"names").expect("there is room");
    pool.snapshot(&[dataset, other], "both").expect("there is room");
    let made = [dataset, other].map(|dataset| of(&pool, dataset, "both").expect("it was made"));
    let created = made.map(|snapshot| pool.shared.roots().datasets[&snapshot.0].created);
    assert_eq!(created[0], created[1]);
    assert_eq!(contents(&pool, made[1], 0), Some(b"names".to_vec()), "it was not committed before");
    // One that is taken, and nothing is made.
    take(&pool, other, "later");
    assert_eq!(pool.snapshot(&[dataset, other], "later"), Err(PoolError::DatasetExists));
    assert_eq!(of(&pool, dataset, "later"), None);
    for name in ["", "a@b"] {
        assert_eq!(pool.snapshot(&[dataset], name), Err(PoolError::DatasetName));
    }
    let odd = pool.create_dataset("objects@mine", RECORD, DatasetKind::Objects);
    assert_eq!(odd, Err(PoolError::DatasetName));
}

#[test]
fn damage_is_told_of_all_that_lead_to_it() {
    let (disk, pool, dataset, _) = filled(SINGLE);
    let sectors = u64::from(RECORD) / SECTOR_BYTES as u64;
    let hit = record_place(&pool, dataset, 1, 3 * sectors).sector;
    let snapshot = take(&pool, dataset, "noon");
    let clone = pool.clone_snapshot(snapshot, "clone").expect("there is room");
    // The clone has another record there by now.
    let changed = pool.clone_snapshot(snapshot, "changed").expect("there is room");
    pool.write(changed, 1, 3 * u64::from(RECORD), &pattern(0, RECORD as usize, 9)).expect("there is room");
    pool.commit().expect("the disks are on");
    drop(pool);
    rot(&disk, 0, SINGLE.disk_bytes, hit..=hit);
    let pool = SINGLE.open(&disk, &[]).expect("it is there");
    let report = pool.scrub().run().expect("it can be read");
    assert_eq!(report.damaged_records, 1);
    let of =
        |dataset| DamagedRecord { dataset: Some(dataset), object: Some(1), offset: 3 * u64::from(RECORD) };
    let damaged: BTreeSet<DamagedRecord> = report.damaged.into_iter().collect();
    assert_eq!(damaged, BTreeSet::from([of(dataset), of(snapshot), of(clone)]));
}

#[test]
fn a_full_pool_with_snapshots_goes_on() {
    for shape in [SINGLE, RAIDZ] {
        let (disk, pool, dataset) = made(shape, 5);
        let mut written = 0;
        while pool.write(dataset, written, 0, &pattern(0, 50_000, 1)).is_ok() {
            written += 1;
        }
        let snapshot = take(&pool, dataset, "full");
        // Nothing is freed by it, and yet it works.
        for object in 0..written {
            pool.destroy(dataset, object).expect("that always works");
        }
        pool.commit().expect("that always works");
        assert_eq!(pool.write(dataset, 0, 0, &pattern(0, 50_000, 2)), Err(PoolError::NoSpace));
        assert_eq!(contents(&pool, snapshot, written - 1), Some(pattern(0, 50_000, 1)));
        is_whole(&pool);
        pool.destroy_dataset(snapshot).expect("that always works");
        pool.write(dataset, 0, 0, &pattern(0, 50_000, 2)).expect("there is room again");
        pool.commit().expect("what was acknowledged fits");
        is_whole(&pool);
        drop(pool);
        let pool = shape.open(&disk, &[]).expect("it is there");
        is_whole(&pool);
    }
}

/// What is done with datasets.
#[derive(Clone, Debug)]
enum Step {
    Object(Op),
    Snapshot,
    /// The one of that number among those that there are.
    Destroy(usize),
    RollBack,
    /// Of the one of that number, which is changed and goes when there is a next one.
    Clone(usize),
    InClone(Op),
    DestroyClone,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => op().prop_map(Step::Object),
        3 => Just(Step::Snapshot),
        2 => any::<usize>().prop_map(Step::Destroy),
        1 => Just(Step::RollBack),
        2 => any::<usize>().prop_map(Step::Clone),
        4 => op().prop_map(Step::InClone),
        1 => Just(Step::DestroyClone),
    ]
}

/// A pool with all that there should be of it.
struct World {
    pool: Pool,
    dataset: DatasetId,
    model: Model,
    /// The oldest first.
    snapshots: Vec<(DatasetId, Contents)>,
    clone: Option<(DatasetId, Model, DatasetId)>,
    made: usize,
}

impl World {
    fn new(shape: Shape, seed: u64) -> (SimDisk, World) {
        let (disk, pool, dataset) = made(shape, seed);
        let model = Model::new();
        (disk, World { pool, dataset, model, snapshots: Vec::new(), clone: None, made: 0 })
    }

    /// Does a step; it is in the model when that succeeds, but for operations on objects, which may have been done.
    fn run(&mut self, step: &Step) -> Result<(), PoolError> {
        let pool = &self.pool;
        match step {
            Step::Object(op) => {
                self.model.apply(op);
                run(pool, self.dataset, op)?;
                self.model.succeeded(op);
            }
            Step::InClone(op) => {
                if let Some((clone, model, _)) = &mut self.clone {
                    model.apply(op);
                    run(pool, *clone, op)?;
                    model.succeeded(op);
                }
            }
            Step::Snapshot => {
                self.made += 1;
                let name = format!("s{}", self.made);
                pool.snapshot(&[self.dataset], &name)?;
                let made = of(pool, self.dataset, &name).expect("it was made");
                self.model.succeeded(&Op::Commit);
                self.clone.iter_mut().for_each(|(_, model, _)| model.succeeded(&Op::Commit));
                self.snapshots.push((made, now(&self.model)));
            }
            Step::Destroy(which) => {
                if self.snapshots.is_empty() {
                    return Ok(());
                }
                let (snapshot, _) = self.snapshots[which % self.snapshots.len()];
                if self.clone.as_ref().is_some_and(|(.., of)| *of == snapshot) {
                    assert!(matches!(pool.destroy_dataset(snapshot), Err(PoolError::HasClone(_))));
                    return Ok(());
                }
                pool.destroy_dataset(snapshot)?;
                self.snapshots.retain(|(other, _)| *other != snapshot);
            }
            Step::RollBack => {
                if let Some((snapshot, then)) = self.snapshots.last() {
                    for object in 0..OBJECTS {
                        self.model.change(object, |state| *state = then.get(&object).cloned());
                    }
                    pool.roll_back(&[*snapshot])?;
                    self.model.succeeded(&Op::Commit);
                }
            }
            Step::Clone(which) => {
                if self.snapshots.is_empty() {
                    return Ok(());
                }
                if let Some((clone, ..)) = self.clone.take() {
                    pool.destroy_dataset(clone)?;
                }
                let (snapshot, then) = &self.snapshots[which % self.snapshots.len()];
                let clone = pool.clone_snapshot(*snapshot, "clone")?;
                let mut model = Model::new();
                for (object, bytes) in then {
                    model.change(*object, |state| *state = Some(bytes.clone()));
                    model.durable(*object);
                }
                self.clone = Some((clone, model, *snapshot));
            }
            Step::DestroyClone => {
                if let Some((clone, ..)) = self.clone.take() {
                    pool.destroy_dataset(clone)?;
                }
            }
        }
        Ok(())
    }

    /// Everything is what it should be.
    fn check(&mut self) {
        self.model.settle(&self.pool, self.dataset);
        for (snapshot, then) in &self.snapshots {
            assert_eq!(&contents_of(&self.pool, *snapshot), then);
        }
        if let Some((clone, model, _)) = &mut self.clone {
            model.settle(&self.pool, *clone);
        }
        is_whole(&self.pool);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn snapshots_and_clones_outlive_a_crash(
        shape in prop::sample::select(vec![SINGLE, MIRROR, RAIDZ, TWO]),
        seed in any::<u64>(),
        steps in prop::collection::vec(step(), 1..40),
        crash_after in 0..200_u64,
    ) {
        let (disk, mut world) = World::new(shape, seed);
        disk.crash_after_syncs(crash_after);
        let mut failed = None;
        for step in &steps {
            if let Err(error) = world.run(step) {
                prop_assert!(disk.is_off(), "{:?}: {}", step, error);
                failed = Some(step);
                break;
            }
        }
        disk.crash();
        world.pool = shape.open(&disk, &[]).expect("the uberblock is there");
        nothing_leaks(&world.pool);
        // Of what was being flushed a disk may lack something: nothing is lost by that, and the scrub mends it.
        let report = world.pool.scrub().run().expect("it can be read");
        prop_assert_eq!(report.damaged, []);
        // What failed is done or not.
        let there = world.pool.datasets();
        let is_there = |id: DatasetId| there.iter().any(|(there, _)| *there == id);
        if matches!(failed, Some(Step::Destroy(_))) {
            world.snapshots.retain(|(snapshot, _)| is_there(*snapshot));
        }
        if matches!(failed, Some(Step::Clone(_) | Step::DestroyClone)) {
            world.clone = None;
            if let Some(clone) = world.pool.dataset("clone") {
                world.pool.destroy_dataset(clone).expect("it has no snapshots");
            }
        }
        world.check();
        if matches!(failed, Some(Step::Snapshot))
            && let Some(made) = of(&world.pool, world.dataset, &format!("s{}", world.made))
        {
            world.snapshots.push((made, contents_of(&world.pool, made)));
        }
        for step in steps.iter().rev() {
            world.run(step).expect("the disks are on");
        }
        world.check();
    }
}
