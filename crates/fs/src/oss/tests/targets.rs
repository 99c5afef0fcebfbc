//! Making, opening and closing targets; what must survive; who is kept out.

use std::fs;
use std::path::Path;
use std::sync::mpsc;

use super::super::directory::DirectoryObjects;
use super::super::objects::Objects;
use super::super::shelf::OPEN_MAX;
use super::super::{Label, Ost, TargetError};
use super::{A, Home, SESSION, ask, home, label, read, refused, request, write};
use crate::core::{Errno, ObjectId, OstIndex, SessionId};
use crate::wire::oss::{ObjectStat, Op, Reply, Request, Space};

#[test]
fn a_restart_keeps_everything() {
    let mut home = home();
    for object in 0..100 {
        write(&home.ost, ObjectId(object), object * 1000, &object.to_be_bytes());
    }
    for _ in 0..2 {
        home = home.restarted();
        for object in 0..100 {
            assert_eq!(read(&home.ost, ObjectId(object), object * 1000, 99), object.to_be_bytes());
        }
    }
}

#[test]
fn ten_thousand_objects_need_few_open_files() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    DirectoryObjects::format(dir.path(), &label()).expect("it is empty");
    let objects = DirectoryObjects::open(dir.path(), &label()).expect("it is a target");
    for object in 0..10_000_u64 {
        objects.write(ObjectId(object), 0, &object.to_be_bytes()).expect("there is room");
    }
    assert_eq!(objects.open_files(), 32 * OPEN_MAX);
    for object in (0..10_000_u64).rev() {
        let mut bytes = [0; 9];
        assert_eq!(objects.read(ObjectId(object), 0, &mut bytes), Ok(8));
        assert_eq!(bytes[..8], object.to_be_bytes());
    }
    assert_eq!(objects.open_files(), 32 * OPEN_MAX);
    (0..10_000).for_each(|object| objects.destroy(ObjectId(object)).expect("it is there"));
    assert_eq!(objects.open_files(), 0);
}

#[test]
fn the_files_that_are_in_use_stay_open() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    DirectoryObjects::format(dir.path(), &label()).expect("it is empty");
    let objects = DirectoryObjects::open(dir.path(), &label()).expect("it is a target");
    objects.write(ObjectId(0), 0, b"kept").expect("there is room");
    // Taken from under the server: only an open file still has it.
    fs::remove_file(dir.path().join("O/d0/0")).expect("it is there");
    for other in 1..10 * OPEN_MAX as u64 {
        objects.write(ObjectId(32 * other), 0, b"x").expect("there is room");
        assert_eq!(objects.stat(ObjectId(0)), Ok(ObjectStat::default()));
        assert_eq!(objects.read(ObjectId(0), 0, &mut [0; 9]), Ok(4), "after {other} others");
    }
}

#[test]
fn no_file_stays_open_under_a_name_that_was_removed_meanwhile() {
    let home = home();
    let (ost, objects) = (&home.ost, (0..8).map(|n| ObjectId(32 * n)).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let objects = &objects;
            scope.spawn(move || {
                for round in 0..500 {
                    let object = objects[(round * (thread + 1)) % objects.len()];
                    assert_eq!(write(ost, object, 0, b"raced"), Reply::Done);
                    assert_eq!(ask(ost, Op::Destroy { objects: vec![object] }), Reply::Done);
                }
            });
        }
    });
    for object in &objects {
        write(ost, *object, 0, b"last");
    }
    let home = home.restarted();
    assert!(objects.iter().all(|object| read(&home.ost, *object, 0, 9) == b"last"));
}

#[test]
fn a_target_is_served_once() {
    let home = home();
    let again = Ost::open(home.dir.path(), &label()).expect_err("it is served");
    let text = again.to_string();
    assert!(matches!(again, TargetError::Taken { .. }), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())) && text.contains("stop"), "{text}");
    assert!(matches!(Ost::format(home.dir.path(), &label()), Err(TargetError::Taken { .. })));
    let (path, dir) = (home.dir.path().to_owned(), home.dir);
    drop(home.ost);
    Ost::open(&path, &label()).expect("it is free again");
    drop(dir);
}

#[test]
fn only_the_target_that_is_wanted_is_opened() {
    let Home { ost, dir, .. } = home();
    drop(ost);
    let others = [
        Label { id: 78, ..label() },
        Label { fs: "scratch2".to_owned(), ..label() },
        Label { index: OstIndex(4), ..label() },
    ];
    for other in others {
        let error = Ost::open(dir.path(), &other).expect_err("it is another");
        assert!(matches!(error, TargetError::Other { .. }), "{error}");
        assert!(error.to_string().contains("scratch-OST0003"), "{error}");
        assert!(matches!(Ost::format(dir.path(), &other), Err(TargetError::Other { .. })));
    }
    Ost::format(dir.path(), &label()).expect("it is that already");
    Ost::open(dir.path(), &label()).expect("nothing was changed");
}

#[test]
fn a_directory_without_a_label_is_no_target_and_is_left_alone() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    assert!(matches!(Ost::open(dir.path(), &label()), Err(TargetError::NotATarget(_))));
    assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 0);
    fs::write(dir.path().join("thesis.tex"), "precious").expect("there is room");
    let error = Ost::format(dir.path(), &label()).expect_err("it is not empty");
    assert!(matches!(&error, TargetError::NotEmpty { entry, .. } if entry == "thesis.tex"), "{error}");
}

#[test]
fn a_target_is_made_where_nothing_is_yet() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let deep = dir.path().join("a/b/c");
    Ost::format(&deep, &label()).expect("there is room");
    Ost::open(&deep, &label()).expect("it is a target");
    fs::write(dir.path().join("file"), "").expect("there is room");
    for path in ["file", "file/below"] {
        let error = Ost::format(&dir.path().join(path), &label()).expect_err("it is a file");
        assert!(matches!(error, TargetError::Io { .. }), "{error}");
    }
}

#[test]
fn a_target_that_was_half_made_is_made() {
    let Home { ost, dir, .. } = home();
    drop(ost);
    fs::rename(dir.path().join("label"), dir.path().join("label.new")).expect("it is there");
    fs::remove_dir(dir.path().join("O/d31")).expect("it is empty");
    fs::create_dir(dir.path().join("lost+found")).expect("there is room");
    Ost::format(dir.path(), &label()).expect("nothing is in the way");
    write(&Ost::open(dir.path(), &label()).expect("it is a target"), ObjectId(31), 0, b"x");
}

/// Opens the target with each byte of `file` changed in turn, and cut at each length; returns the errors.
fn damaged(dir: &Path, file: &str) -> Vec<TargetError> {
    let path = dir.join(file);
    let sound = fs::read(&path).expect("it is there");
    let flips = (0..sound.len()).map(|at| {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        bytes
    });
    let cuts = (0..sound.len()).map(|len| sound[..len].to_vec());
    let errors = flips.chain(cuts).map(|bytes| {
        fs::write(&path, bytes).expect("there is room");
        Ost::open(dir, &label()).expect_err("it is damaged")
    });
    let errors = errors.collect();
    fs::write(&path, sound).expect("there is room");
    Ost::open(dir, &label()).expect("it is sound again");
    errors
}

#[test]
fn a_damaged_label_and_damaged_fences_are_noticed() {
    let Home { ost, dir, .. } = home();
    assert_eq!(ask(&ost, Op::Fence { session: SessionId(9) }), Reply::Done);
    drop(ost);
    for file in ["label", "fences"] {
        for error in damaged(dir.path(), file) {
            assert!(matches!(error, TargetError::Damaged { .. } | TargetError::Newer { .. }), "{error}");
        }
    }
}

#[test]
fn a_newer_format_is_refused() {
    let Home { ost, dir, .. } = home();
    drop(ost);
    let path = dir.path().join("label");
    let mut bytes = fs::read(&path).expect("it is there");
    bytes[11] = 2;
    bytes.extend_from_slice(b"what nobody knows yet");
    fs::write(&path, bytes).expect("there is room");
    for error in [Ost::open(dir.path(), &label()).err(), Ost::format(dir.path(), &label()).err()] {
        assert!(matches!(error, Some(TargetError::Newer { version: 2, .. })), "{error:?}");
    }
}

#[test]
fn a_session_that_is_kept_out_stays_out_over_a_restart() {
    let mut home = home();
    let of = |session, op| Request { session, ..request(op) };
    let evicted = SessionId(666);
    assert_eq!(
        *home.ost.answer(&of(evicted, super::write_op(A, 0, b"in time")), b"in time").reply(),
        Reply::Done
    );
    for _ in 0..2 {
        assert_eq!(ask(&home.ost, Op::Fence { session: evicted }), Reply::Done);
        for op in [Op::Statfs, super::write_op(A, 0, b"late"), Op::Fence { session: SESSION }] {
            assert_eq!(*home.ost.answer(&of(evicted, op), b"late").reply(), refused(Errno::ESTALE));
        }
        assert_eq!(read(&home.ost, A, 0, 100), b"in time");
        home = home.restarted();
    }
    // Even oneself, without waiting for oneself.
    assert_eq!(ask(&home.ost, Op::Fence { session: SESSION }), Reply::Done);
    assert_eq!(ask(&home.ost, Op::Statfs), refused(Errno::ESTALE));
}

/// Objects whose writes wait until the test lets them.
#[derive(Debug)]
struct Gate {
    begun: mpsc::SyncSender<()>,
    go: std::sync::Mutex<mpsc::Receiver<()>>,
    over: std::sync::Arc<std::sync::atomic::AtomicBool>,
}

impl Objects for Gate {
    fn write(&self, _: ObjectId, _: u64, _: &[u8]) -> Result<(), Errno> {
        self.begun.send(()).expect("the test waits");
        self.go.lock().expect("no panic holds it").recv().expect("the test goes on");
        self.over.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    fn read(&self, _: ObjectId, _: u64, _: &mut [u8]) -> Result<usize, Errno> {
        Ok(0)
    }
    fn truncate(&self, _: ObjectId, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn punch(&self, _: ObjectId, _: u64, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn allocate(&self, _: ObjectId, _: u64, _: u64) -> Result<(), Errno> {
        Ok(())
    }
    fn seek(&self, _: ObjectId, offset: u64, _: bool) -> Result<u64, Errno> {
        Ok(offset)
    }
    fn sync(&self, _: &[ObjectId]) -> Result<(), Errno> {
        Ok(())
    }
    fn stat(&self, _: ObjectId) -> Result<ObjectStat, Errno> {
        Ok(ObjectStat::default())
    }
    fn destroy(&self, _: ObjectId) -> Result<(), Errno> {
        Ok(())
    }
    fn space(&self) -> Result<Space, Errno> {
        Ok(Space::default())
    }
}

#[test]
fn a_fence_waits_for_what_was_begun_and_for_nobody_else() {
    use std::sync::atomic::Ordering;
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (begun, begins) = mpsc::sync_channel(0);
    let (go, goes) = mpsc::channel();
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = Gate { begun, go: goes.into(), over: std::sync::Arc::clone(&over) };
    let ost = Ost::over(label(), Box::new(gate), dir.path()).expect("there is room");
    let by = |session, op| ost.answer(&Request { session, ..request(op) }, b"x").reply().clone();
    let write = super::write_op(A, 0, b"x");
    std::thread::scope(|scope| {
        let writes = scope.spawn(|| by(SessionId(1), write.clone()));
        begins.recv().expect("it begins");
        // Nothing of these is under way.
        assert_eq!(by(SESSION, Op::Fence { session: SessionId(2) }), Reply::Done);
        let fences = scope.spawn(|| {
            let reply = by(SESSION, Op::Fence { session: SessionId(1) });
            (reply, over.load(Ordering::SeqCst))
        });
        // It is kept out at once, while its write goes on; and so that a fence that did not wait would be over.
        while by(SessionId(1), Op::Statfs) != refused(Errno::ESTALE) {}
        while fs::read(dir.path().join("fences")).expect("it is there").len() != 52 {}
        (0..1000).for_each(|_| std::thread::yield_now());
        assert!(!fences.is_finished() && !writes.is_finished());
        go.send(()).expect("it waits");
        assert_eq!(writes.join().expect("no panic"), Reply::Done);
        assert_eq!(fences.join().expect("no panic"), (Reply::Done, true));
    });
}
