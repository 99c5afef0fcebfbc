//! Targets in real directories.

mod full;
mod model;
mod served;
mod targets;

use std::path::Path;
use std::sync::Arc;

use kiln_pool::format::VdevKind;
use kiln_pool::pool::{DiskFile, Host, Pool, Settings as PoolSettings, VdevSpec};
use kiln_world::{Disk, Open, RealDisk};
use tempfile::TempDir;

use super::{Label, Ost, PoolObjects};
use crate::core::{Errno, ObjectId, OstIndex, SessionId};
use crate::wire::mgs::FsId;
use crate::wire::oss::{ObjectStat, Op, Reply, Request};

const SESSION: SessionId = SessionId(7);
const A: ObjectId = ObjectId(0xabc);

/// A target of its own, gone with the test.
struct Home {
    ost: Ost,
    dir: TempDir,
    /// What it stands on, unless that is a directory.
    pool: Option<Arc<Pool>>,
}

fn label() -> Label {
    Label { id: 77, fs: "scratch".to_owned(), index: OstIndex(3) }
}

fn home() -> Home {
    let dir = tempfile::tempdir().expect("a scratch directory");
    Ost::format(dir.path(), &label()).expect("it is empty");
    let ost = Ost::open(dir.path(), &label()).expect("it is a target");
    Home { ost, dir, pool: None }
}

/// The same on a pool.
fn home_on_pool() -> Home {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let files = disks(dir.path());
    for disk in &files {
        disk.file.set_len(POOL_DISK_BYTES).expect("there is room");
    }
    let vdevs = vec![VdevSpec { kind: VdevKind::Raidz(1), disks: files }];
    let pool =
        Pool::create("tank", vdevs, &host(), PoolSettings::default(), false).expect("the disks are empty");
    PoolObjects::format(&pool, &label()).expect("there is room");
    let pool = Arc::new(pool);
    Home { ost: over(&pool, dir.path()), dir, pool: Some(pool) }
}

const POOL_DISK_BYTES: u64 = 32 << 20;

fn over(pool: &Arc<Pool>, dir: &Path) -> Ost {
    let objects = PoolObjects::open(Arc::clone(pool), &label()).expect("it was made");
    Ost::over(label(), Box::new(objects), dir).expect("nobody is kept out")
}

fn host() -> Host {
    let (clock, rng) = (Arc::new(kiln_world::RealClock::new()), Arc::new(kiln_world::RealRng));
    Host { name: "silicon1".into(), clock, rng }
}

fn disks(dir: &Path) -> Vec<DiskFile> {
    let disk = RealDisk::new(dir).expect("a directory");
    let file = |name: &str| DiskFile {
        path: name.into(),
        file: disk.open(Path::new(name), Open::OrCreate).expect("it can be opened"),
    };
    ["a", "b", "c"].map(file).into()
}

impl Home {
    /// The target after its server was stopped and started.
    fn restarted(self) -> Home {
        drop(self.ost);
        let Some(pool) = self.pool else {
            let ost = Ost::open(self.dir.path(), &label()).expect("it is a target");
            return Home { ost, dir: self.dir, pool: None };
        };
        pool.commit().expect("the disks are there");
        drop(pool);
        let pool = Pool::open(disks(self.dir.path()), &host(), PoolSettings::default(), false);
        let pool = Arc::new(pool.expect("it is there"));
        Home { ost: over(&pool, self.dir.path()), dir: self.dir, pool: Some(pool) }
    }
}

fn request(op: Op) -> Request {
    Request { fs: "scratch".to_owned(), id: FsId(77), ost: OstIndex(3), session: SESSION, op }
}

fn ask(ost: &Ost, op: Op) -> Reply {
    ost.answer(&request(op), &[]).reply().clone()
}

fn write_op(object: ObjectId, offset: u64, bytes: &[u8]) -> Op {
    Op::Write { object, offset, crc: Some(crc32c::crc32c(bytes)), sync: false }
}

fn write(ost: &Ost, object: ObjectId, offset: u64, bytes: &[u8]) -> Reply {
    ost.answer(&request(write_op(object, offset, bytes)), bytes).reply().clone()
}

fn read(ost: &Ost, object: ObjectId, offset: u64, len: u32) -> Vec<u8> {
    let answer = ost.answer(&request(Op::Read { object, offset, len }), &[]);
    assert_eq!(*answer.reply(), Reply::Data { crc: Some(crc32c::crc32c(answer.bulk())) });
    answer.bulk().to_vec()
}

fn stat(ost: &Ost, object: ObjectId) -> ObjectStat {
    let Reply::Stats(stats) = ask(ost, Op::Stat { objects: vec![object] }) else { unreachable!("asked for") };
    stats[0]
}

fn refused(errno: Errno) -> Reply {
    Reply::Refused(errno)
}

#[test]
fn what_was_never_written_is_empty() {
    let Home { ost, dir, .. } = home();
    assert_eq!(read(&ost, A, 0, 4096), b"");
    assert_eq!(read(&ost, A, 1 << 40, 1), b"");
    assert_eq!(stat(&ost, A), ObjectStat::default());
    assert_eq!(ask(&ost, Op::Seek { object: A, offset: 0, hole: true }), refused(Errno::ENXIO));
    for op in [
        Op::Truncate { object: A, len: 0 },
        Op::Truncate { object: A, len: 1000 },
        Op::Punch { object: A, offset: 0, len: 1000 },
        Op::Sync { objects: vec![A, ObjectId(1)] },
        Op::Destroy { objects: vec![A] },
        write_op(A, 5, b""),
    ] {
        assert_eq!(ask(&ost, op), Reply::Done);
    }
    let shelf = dir.path().join(format!("O/d{}", A.0 % 32));
    assert_eq!(std::fs::read_dir(shelf).expect("it is there").count(), 0, "nothing made it");
}

#[test]
fn holes_read_as_zeros_and_cost_nothing() {
    let Home { ost, dir: _dir, .. } = home();
    let far = 1 << 32;
    assert_eq!(write(&ost, A, far, b"end"), Reply::Done);
    assert_eq!(read(&ost, A, 5, 1000), [0; 1000]);
    assert_eq!(read(&ost, A, far - 2, 4096), b"\0\0end");
    let stat = stat(&ost, A);
    assert!(stat.len == far + 3 && stat.blocks < 64, "{stat:?}");
    assert_eq!(ask(&ost, Op::Seek { object: A, offset: 0, hole: true }), Reply::Offset(0));
    let Reply::Offset(data) = ask(&ost, Op::Seek { object: A, offset: 0, hole: false }) else {
        unreachable!("there is data")
    };
    assert!(data > 0 && data <= far, "{data}");
    assert_eq!(ask(&ost, Op::Seek { object: A, offset: far, hole: true }), Reply::Offset(far + 3));
    for hole in [true, false] {
        let behind = Op::Seek { object: A, offset: far + 3, hole };
        assert_eq!(ask(&ost, behind), refused(Errno::ENXIO));
    }
}

#[test]
fn a_punched_hole_gives_its_space_back() {
    let Home { ost, dir: _dir, .. } = home();
    write(&ost, A, 0, &vec![1; 1 << 20]);
    ask(&ost, Op::Sync { objects: vec![A] });
    let before = stat(&ost, A);
    assert_eq!(ask(&ost, Op::Punch { object: A, offset: 65_536, len: 524_288 + 5 }), Reply::Done);
    let after = stat(&ost, A);
    assert!(after.len == 1 << 20 && after.blocks + 1024 <= before.blocks, "{before:?} {after:?}");
    assert_eq!(read(&ost, A, 65_535, 3), [1, 0, 0]);
    assert_eq!(read(&ost, A, 65_536 + 524_288 + 4, 2), [0, 1]);
    // To the end of everything.
    assert_eq!(ask(&ost, Op::Punch { object: A, offset: 1, len: u64::MAX }), Reply::Done);
    assert_eq!(read(&ost, A, 0, 3), [1, 0, 0]);
    assert_eq!(stat(&ost, A).len, 1 << 20);
}

#[test]
fn space_that_is_set_aside_is_there_and_reads_as_zeros() {
    let Home { ost, dir: _dir, .. } = home();
    write(&ost, A, 0, b"front");
    assert_eq!(ask(&ost, Op::Allocate { object: A, offset: 3, len: 1 << 20 }), Reply::Done);
    let stat = stat(&ost, A);
    assert!(stat.len == (1 << 20) + 3 && stat.blocks >= 2048, "{stat:?}");
    assert_eq!(read(&ost, A, 3, 4), b"nt\0\0");
}

#[test]
fn a_cut_object_is_shorter_and_never_longer() {
    let Home { ost, dir: _dir, .. } = home();
    write(&ost, A, 0, b"0123456789");
    ask(&ost, Op::Truncate { object: A, len: 20 });
    assert_eq!(stat(&ost, A).len, 10);
    ask(&ost, Op::Truncate { object: A, len: 4 });
    write(&ost, A, 8, b"x");
    assert_eq!(read(&ost, A, 0, 100), b"0123\0\0\0\0x");
}

#[test]
fn a_destroyed_object_is_empty_and_may_be_written_again() {
    let Home { ost, dir: _dir, .. } = home();
    write(&ost, A, 0, &[1; 10_000]);
    let objects = vec![A, ObjectId(5)];
    assert_eq!(ask(&ost, Op::Destroy { objects: objects.clone() }), Reply::Done);
    assert_eq!(ask(&ost, Op::Destroy { objects: objects.clone() }), Reply::Done);
    assert_eq!(ask(&ost, Op::Sync { objects }), Reply::Done);
    assert_eq!((read(&ost, A, 0, 10), stat(&ost, A)), (vec![], ObjectStat::default()));
    write(&ost, A, 2, b"new");
    assert_eq!(read(&ost, A, 0, 10), b"\0\0new");
}

#[test]
fn a_write_may_ask_to_be_on_the_disk() {
    let home = home();
    let op = Op::Write { object: A, offset: 0, crc: Some(crc32c::crc32c(b"sure")), sync: true };
    assert_eq!(*home.ost.answer(&request(op), b"sure").reply(), Reply::Done);
    assert_eq!(read(&home.ost, A, 0, 4), b"sure");
}

#[test]
fn bytes_that_arrive_damaged_are_refused_and_change_nothing() {
    let Home { ost, dir: _dir, .. } = home();
    write(&ost, A, 0, b"good");
    let answer = ost.answer(&request(write_op(A, 0, b"what was sent")), b"what arrived!");
    assert_eq!(*answer.reply(), refused(Errno::EIO));
    assert_eq!(read(&ost, A, 0, 100), b"good");
}

#[test]
fn what_is_out_of_bounds_is_refused() {
    let Home { ost, dir, .. } = home();
    let max = i64::MAX as u64;
    let many = vec![A; 4097];
    let cases = [
        (Op::Read { object: A, offset: 0, len: (4 << 20) + 1 }, Errno::EINVAL),
        (Op::Read { object: A, offset: 0, len: u32::MAX }, Errno::EINVAL),
        (Op::Read { object: A, offset: max, len: 1 }, Errno::EINVAL),
        (Op::Read { object: A, offset: u64::MAX, len: 1 }, Errno::EINVAL),
        (Op::Allocate { object: A, offset: 0, len: 0 }, Errno::EINVAL),
        (Op::Allocate { object: A, offset: 1, len: max }, Errno::EFBIG),
        (Op::Allocate { object: A, offset: u64::MAX, len: u64::MAX }, Errno::EFBIG),
        (Op::Seek { object: A, offset: u64::MAX, hole: false }, Errno::ENXIO),
        (Op::Sync { objects: many.clone() }, Errno::EINVAL),
        (Op::Stat { objects: many.clone() }, Errno::EINVAL),
        (Op::Destroy { objects: many }, Errno::EINVAL),
        (Op::Hello { version: 999 }, Errno::EPROTO),
    ];
    for (op, errno) in cases {
        assert_eq!(ask(&ost, op.clone()), refused(errno), "{op:?}");
    }
    for offset in [max, u64::MAX - 2, u64::MAX] {
        assert_eq!(write(&ost, A, offset, b"xyz"), refused(Errno::EFBIG), "{offset}");
    }
    assert_eq!(write(&ost, A, 0, &vec![0; (4 << 20) + 1]), refused(Errno::EINVAL));
    for op in [
        Op::Punch { object: A, offset: u64::MAX, len: u64::MAX },
        Op::Punch { object: A, offset: 0, len: 0 },
        Op::Truncate { object: A, len: u64::MAX },
        Op::Hello { version: crate::wire::VERSION },
    ] {
        assert_eq!(ask(&ost, op.clone()), Reply::Done, "{op:?}");
    }
    let ids = [0, u64::MAX, 1 << 63];
    for object in ids.map(ObjectId) {
        assert_eq!(write(&ost, object, 0, b"any number is a name"), Reply::Done);
    }
    assert_eq!(std::fs::read_dir(dir.path().join("O")).expect("it is there").count(), 32);
}

#[test]
fn requests_for_another_target_are_told_so() {
    let Home { ost, dir: _dir, .. } = home();
    let asked = request(Op::Statfs);
    let others = [
        Request { ost: OstIndex(4), ..asked.clone() },
        Request { id: FsId(78), ..asked.clone() },
        Request { fs: "home".to_owned(), ..asked },
    ];
    for other in others {
        assert_eq!(*ost.answer(&other, &[]).reply(), refused(Errno::ENODEV));
    }
}

#[test]
fn the_space_of_the_target_is_that_of_its_filesystem() {
    let Home { ost, dir: _dir, .. } = home();
    let Reply::Space(space) = ask(&ost, Op::Statfs) else { unreachable!("asked for") };
    assert!(space.total_bytes >= space.free_bytes && space.free_bytes >= space.available_bytes);
    assert!(space.total_bytes > 1 << 20 && space.inodes >= space.free_inodes);
}
