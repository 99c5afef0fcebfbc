//! Random operations against a vector of bytes for each object.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Home, ask, home, home_on_pool, read, stat, write};
use crate::core::{Errno, ObjectId};
use crate::wire::oss::{Op, Reply};

/// Objects reach about so far; blocks of the disk are much smaller.
const REACH: u64 = 200_000;

#[derive(Clone, Copy, Debug)]
enum Step {
    Write { object: u64, offset: u64, len: usize, byte: u8 },
    Read { object: u64, offset: u64, len: u32 },
    Truncate { object: u64, len: u64 },
    Punch { object: u64, offset: u64, len: u64 },
    Allocate { object: u64, offset: u64, len: u64 },
    Seek { object: u64, offset: u64, hole: bool },
    Sync { object: u64 },
    Destroy { object: u64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let object = || prop_oneof![Just(1_u64), Just(33), Just(u64::MAX)];
    let step = prop_oneof![
        6 => (object(), 0..REACH, 0..30_000_usize, 1_u8..)
            .prop_map(|(object, offset, len, byte)| Step::Write { object, offset, len, byte }),
        4 => (object(), 0..2 * REACH, 0..100_000_u32)
            .prop_map(|(object, offset, len)| Step::Read { object, offset, len }),
        2 => (object(), 0..2 * REACH).prop_map(|(object, len)| Step::Truncate { object, len }),
        2 => (object(), 0..2 * REACH, 0..REACH)
            .prop_map(|(object, offset, len)| Step::Punch { object, offset, len }),
        1 => (object(), 0..REACH, 1..30_000_u64)
            .prop_map(|(object, offset, len)| Step::Allocate { object, offset, len }),
        2 => (object(), 0..2 * REACH, any::<bool>())
            .prop_map(|(object, offset, hole)| Step::Seek { object, offset, hole }),
        1 => object().prop_map(|object| Step::Sync { object }),
        1 => object().prop_map(|object| Step::Destroy { object }),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

type Model = BTreeMap<u64, Vec<u8>>;

/// The bytes of `object` from `offset`, at most `len`.
fn expected(model: &Model, object: u64, offset: u64, len: usize) -> &[u8] {
    let bytes = model.get(&object).map_or(&[][..], Vec::as_slice);
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    &rest[..len.min(rest.len())]
}

fn reaches(model: &mut Model, object: u64, end: u64) -> &mut Vec<u8> {
    let bytes = model.entry(object).or_default();
    bytes.resize(bytes.len().max(end as usize), 0);
    bytes
}

fn check_seek(home: &Home, bytes: &[u8], object: u64, offset: u64, hole: bool) {
    let object = ObjectId(object);
    match ask(&home.ost, Op::Seek { object, offset, hole }) {
        Reply::Offset(found) => {
            assert!(offset <= found && offset < bytes.len() as u64);
            let passed = &bytes[offset as usize..found as usize];
            if hole {
                assert!(found <= bytes.len() as u64);
            } else {
                assert!(passed.iter().all(|byte| *byte == 0), "data at {offset} was passed over");
            }
        }
        Reply::Refused(Errno::ENXIO) => {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            assert!(rest.is_empty() || !hole && rest.iter().all(|byte| *byte == 0));
        }
        other => panic!("{other:?}"),
    }
}

fn apply(mut home: Home, model: &mut Model, step: Step) -> Home {
    let done = |reply: Reply| assert_eq!(reply, Reply::Done);
    match step {
        Step::Write { object, offset, len, byte } => {
            done(write(&home.ost, ObjectId(object), offset, &vec![byte; len]));
            if len > 0 {
                let end = offset + len as u64;
                reaches(model, object, end)[offset as usize..end as usize].fill(byte);
            }
        }
        Step::Read { object, offset, len } => {
            let got = read(&home.ost, ObjectId(object), offset, len);
            assert!(got == expected(model, object, offset, len as usize), "{object} at {offset}");
        }
        Step::Truncate { object, len } => {
            done(ask(&home.ost, Op::Truncate { object: ObjectId(object), len }));
            if let Some(bytes) = model.get_mut(&object) {
                bytes.truncate(len as usize);
            }
        }
        Step::Punch { object, offset, len } => {
            done(ask(&home.ost, Op::Punch { object: ObjectId(object), offset, len }));
            let bytes = model.entry(object).or_default();
            let (from, to) = (bytes.len().min(offset as usize), bytes.len().min((offset + len) as usize));
            bytes[from..to].fill(0);
        }
        Step::Allocate { object, offset, len } => {
            done(ask(&home.ost, Op::Allocate { object: ObjectId(object), offset, len }));
            reaches(model, object, offset + len);
        }
        Step::Seek { object, offset, hole } => {
            check_seek(&home, expected(model, object, 0, usize::MAX), object, offset, hole);
        }
        Step::Sync { object } => done(ask(&home.ost, Op::Sync { objects: vec![ObjectId(object)] })),
        Step::Destroy { object } => {
            done(ask(&home.ost, Op::Destroy { objects: vec![ObjectId(object)] }));
            model.remove(&object);
        }
        Step::Restart => home = home.restarted(),
    }
    home
}

fn hold_what_was_written(mut home: Home, steps: Vec<Step>) {
    let mut model = Model::new();
    for step in steps {
        home = apply(home, &mut model, step);
    }
    for object in [1, 33, u64::MAX] {
        let bytes = expected(&model, object, 0, usize::MAX);
        assert!(read(&home.ost, ObjectId(object), 0, 1 << 20) == bytes);
        assert_eq!(stat(&home.ost, ObjectId(object)).len, bytes.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn objects_hold_what_was_written(steps in steps()) {
        hold_what_was_written(home(), steps);
    }

    #[test]
    fn objects_of_a_pool_hold_what_was_written(steps in steps()) {
        hold_what_was_written(home_on_pool(), steps);
    }
}
