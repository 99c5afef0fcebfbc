//! Any requests to one file, against the bytes that it should have.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize, Mode, bool),
    Read(u64, u32, Mode),
    Resize(u64),
    Punch(u64, u64),
    Zero(u64, u64, bool),
    Allocate(u64, u64),
    Seek(u64, Seek),
    Flush,
    Sync,
    SyncData,
    Forget,
    Age,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || prop_oneof![0..3 * MIB, (0..48_u64).prop_map(|n| n * KIB64), Just(MIB - 7)];
    let len = || prop_oneof![1..300_u64, 4096..4097_u64, 1..400_000_u64];
    let mode = || prop_oneof![3 => Just(Mode::Cached), 1 => Just(Mode::Direct)];
    let seek = prop_oneof![Just(Seek::Data), Just(Seek::Hole)];
    prop_oneof![
        8 => (at(), len(), mode(), prop::bool::weighted(0.1)).prop_map(|(at, len, mode, sync)| Step::Write(at, len as usize, mode, sync)),
        6 => (at(), len(), mode()).prop_map(|(at, len, mode)| Step::Read(at, len as u32, mode)),
        1 => at().prop_map(Step::Resize),
        1 => (at(), len()).prop_map(|(at, len)| Step::Punch(at, len)),
        1 => (at(), len(), any::<bool>()).prop_map(|(at, len, keep)| Step::Zero(at, len, keep)),
        1 => (at(), len()).prop_map(|(at, len)| Step::Allocate(at, len)),
        2 => (at(), seek).prop_map(|(at, what)| Step::Seek(at, what)),
        1 => Just(Step::Flush),
        1 => Just(Step::Sync),
        1 => Just(Step::SyncData),
        1 => Just(Step::Forget),
        1 => Just(Step::Age),
    ]
}

fn grow(model: &mut Vec<u8>, end: u64) {
    model.resize(model.len().max(end as usize), 0);
}

fn fill(model: &mut [u8], at: u64, len: u64) {
    let end = model.len().min((at + len) as usize);
    let start = end.min(at as usize);
    model[start..end].fill(0);
}

/// What lies between is a hole, and a hole has zeros.
fn check_seek(model: &[u8], at: u64, what: Seek, found: Result<u64, Errno>) {
    let len = model.len() as u64;
    let (skipped, zeros) = match (what, found) {
        (_, Err(error)) => {
            assert_eq!(error, Errno::ENXIO);
            (at.min(len)..len, at < len)
        }
        (Seek::Data, Ok(found)) => (at..found, true),
        (Seek::Hole, Ok(found)) => (found..(found + 1).min(len), true),
    };
    assert!(!zeros || model[skipped.start as usize..skipped.end as usize].iter().all(|byte| *byte == 0));
    assert!(found.is_err() || found.is_ok_and(|found| (at..=len).contains(&found)));
}

fn run(cluster: &Cluster, file: &FileData, model: &mut Vec<u8>, step: &Step, n: u64) {
    match *step {
        Step::Write(at, len, mode, sync) => {
            let data = pattern(len, n);
            file.write(at, &data, mode, sync).unwrap();
            grow(model, at + len as u64);
            model[at as usize..at as usize + len].copy_from_slice(&data);
        }
        Step::Read(at, len, mode) => {
            let seen = file.read(at, len, mode).unwrap();
            let start = model.len().min(at as usize);
            assert!(seen == model[start..model.len().min(start + len as usize)], "{step:?} differs");
        }
        Step::Resize(size) => {
            file.resize(size, || Ok(cluster.mds.set_size(INO, size))).unwrap();
            model.resize(size as usize, 0);
        }
        Step::Punch(at, len) => {
            file.fallocate(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, at, len, Mode::Cached)
                .unwrap();
            fill(model, at, len);
        }
        Step::Zero(at, len, keep_size) => {
            file.zero(at, len, keep_size, Mode::Cached).unwrap();
            fill(model, at, len);
            grow(model, if keep_size { 0 } else { at + len });
        }
        Step::Allocate(at, len) => {
            file.fallocate(0, at, len, Mode::Cached).unwrap();
            grow(model, at + len);
        }
        Step::Seek(at, what) => check_seek(model, at, what, file.seek(at, what, Mode::Cached)),
        Step::Flush => file.flush().unwrap(),
        Step::Sync => file.sync().unwrap(),
        Step::SyncData => file.sync_data().expect("the servers answer"),
        Step::Forget => file.forget_clean(),
        Step::Age => file.flush_in_background(),
    }
    assert_eq!(file.size(), model.len() as u64, "after {step:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_file_is_what_was_written_to_it(
        osts in 1..4_u16,
        on_disk in any::<bool>(),
        inline in prop::sample::select(vec![0, 4096, KIB64, MIB]),
        tight in any::<bool>(),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let cluster = if on_disk { Cluster::on_disk(osts) } else { Cluster::new(osts) };
        let dirty_bytes_max = if tight { 200_000 } else { 64 * MIB };
        let (mount, file) = file_on(&cluster, Settings { dirty_bytes_max, ..patient() }, inline);
        let mut model = Vec::new();
        for (n, step) in (1..).zip(&steps) {
            run(&cluster, &file, &mut model, step, n);
        }
        file.flush().unwrap();
        prop_assert_eq!(mount.dirty_bytes(), 0);
        prop_assert_eq!(file.attr_changes(), None);
        prop_assert_eq!(cluster.mds.get(INO).0.size, model.len() as u64);
        prop_assert!(seen_elsewhere(&cluster) == model);
    }
}
