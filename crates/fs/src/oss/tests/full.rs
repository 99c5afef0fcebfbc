//! Targets that have no room: a tmpfs of a few mebibytes, for which the tests must run as root.

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
    /// `None`, with a note, where it cannot be mounted.
    fn mount(options: &str) -> Option<Small> {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path());
        match mount.output() {
            Ok(output) if output.status.success() => Some(Small { dir }),
            other => {
                println!("skipped: no tmpfs can be mounted here: {other:?}");
                None
            }
        }
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
