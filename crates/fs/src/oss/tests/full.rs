//! Targets that have no room, and one whose disk fails: small filesystems, for which the tests must run as root.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::super::Ost;
use super::{ObjectId, ask, label, read, refused, stat, write};
use crate::core::Errno;
use crate::wire::oss::{Op, Reply};

const PIECE: usize = 100_000;

/// A small filesystem of its own.
struct Small {
    dir: TempDir,
}

impl Small {
    /// Memory; `None`, with a note, where it cannot be mounted.
    fn mount(options: &str) -> Option<Small> {
        Small::mount_from(&["-t", "tmpfs", "-o", options], Path::new("tmpfs"))
    }

    /// An ext4 of 64 MiB on a disk that fails from a quarter of it on.
    fn mount_failing(disk: &Small) -> Option<Small> {
        let image = disk.path().join("image");
        let file = std::fs::File::create(&image).expect("there is room");
        file.set_len(64 << 20).expect("a hole needs no room");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=1"]).arg(&image))?;
        Small::mount_from(&["-o", "loop"], &image)
    }

    fn mount_from(options: &[&str], source: &Path) -> Option<Small> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        run(Command::new("mount").args(options).arg(source).arg(dir.path()))?;
        Some(Small { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// `None`, with a note, where it does not work.
fn run(command: &mut Command) -> Option<()> {
    match command.output() {
        Ok(output) if output.status.success() => Some(()),
        other => {
            println!("skipped, because this is not possible here: {command:?}: {other:?}");
            None
        }
    }
}

fn piece(object: u64) -> Vec<u8> {
    vec![object as u8 + 1; PIECE]
}

#[test]
fn a_full_target_says_so_and_keeps_what_it_has() {
    let Some(small) = Small::mount("size=4m") else { return };
    Ost::format(small.path(), &label()).expect("it is empty");
    let ost = Ost::open(small.path(), &label()).expect("it is a target");
    let first_without =
        (0..100).find(|object| write(&ost, ObjectId(*object), 0, &piece(*object)) != Reply::Done);
    let full = first_without.expect("it has less than 10 MB");
    assert_eq!(write(&ost, ObjectId(full), 0, &piece(full)), refused(Errno::ENOSPC));
    assert_eq!(write(&ost, ObjectId(0), 1 << 20, &piece(0)), refused(Errno::ENOSPC));
    let allocate = Op::Allocate { object: ObjectId(1), offset: 0, len: 8 << 20 };
    assert_eq!(ask(&ost, allocate), refused(Errno::ENOSPC));
    let Reply::Space(space) = ask(&ost, Op::Statfs) else { unreachable!("asked for") };
    assert!(space.available_bytes < PIECE as u64, "{space:?}");

    let check = |ost: &Ost| {
        for object in 0..full {
            assert!(read(ost, ObjectId(object), 0, PIECE as u32) == piece(object), "{object}");
        }
        // Of what was refused any part may be there, and nothing else.
        let part = read(ost, ObjectId(full), 0, PIECE as u32);
        assert!(piece(full).starts_with(&part) && part.len() < PIECE);
    };
    check(&ost);
    drop(ost);
    let ost = Ost::open(small.path(), &label()).expect("it opens without room");
    check(&ost);
    // What is there may be written over, and what is given back may be used.
    assert_eq!(write(&ost, ObjectId(0), 0, &piece(0)), Reply::Done);
    assert_eq!(ask(&ost, Op::Destroy { objects: vec![ObjectId(0), ObjectId(1)] }), Reply::Done);
    assert_eq!(write(&ost, ObjectId(full), 0, &piece(full)), Reply::Done);
    assert_eq!(stat(&ost, ObjectId(full)).len, PIECE as u64);
}

#[test]
fn a_target_without_inodes_says_so() {
    let Some(small) = Small::mount("size=4m,nr_inodes=60") else { return };
    Ost::format(small.path(), &label()).expect("it is empty");
    let ost = Ost::open(small.path(), &label()).expect("it is a target");
    let replies: Vec<_> = (0..60).map(|object| write(&ost, ObjectId(object), 0, b"x")).collect();
    let made = replies.iter().take_while(|reply| **reply == Reply::Done).count();
    assert!(made > 5 && replies[made..].iter().all(|reply| *reply == refused(Errno::ENOSPC)), "{replies:?}");
    assert_eq!(ask(&ost, Op::Fence { session: crate::core::SessionId(1) }), refused(Errno::ENOSPC));
    assert_eq!(ask(&ost, Op::Destroy { objects: vec![ObjectId(0)] }), Reply::Done);
    assert_eq!(ask(&ost, Op::Fence { session: crate::core::SessionId(1) }), Reply::Done);
}

#[test]
fn a_target_that_has_no_room_to_be_made_is_none() {
    let Some(small) = Small::mount("size=4m,nr_inodes=20") else { return };
    assert!(Ost::format(small.path(), &label()).is_err());
    assert!(Ost::open(small.path(), &label()).is_err());
}

#[test]
fn a_sync_that_failed_fails_for_everybody_who_asks() {
    let Some(disk) = Small::mount("size=16m") else { return };
    let Some(small) = Small::mount_failing(&disk) else { return };
    Ost::format(small.path(), &label()).expect("it is empty");
    let ost = Ost::open(small.path(), &label()).expect("it is a target");
    let sync = |object| ask(&ost, Op::Sync { objects: vec![ObjectId(object)] });
    assert_eq!(write(&ost, ObjectId(1), 0, b"early"), Reply::Done);
    assert_eq!(sync(1), Reply::Done);
    for nth in 0..10 {
        // The kernel has memory for it.
        assert_eq!(write(&ost, ObjectId(2), nth << 22, &vec![1; 4 << 20]), Reply::Done);
    }
    assert_ne!(sync(2), Reply::Done, "40 MiB do not fit");
    // The kernel tells it once or twice, and says then that all is well.
    for _ in 0..5 {
        assert_eq!(sync(2), refused(Errno::EIO));
    }
}
