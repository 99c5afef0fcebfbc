//! Rules of POSIX and Linux that the model does not know.

use super::super::acl;
use super::super::acl::tests::value;
use super::super::inode::{self, LINKS_MAX};
use super::super::rows::Row;
use super::*;
use crate::core::{FileKind, SetTime};

const NO_ID: u32 = u32::MAX;

fn at(secs: i64) -> Time {
    Time { secs, nanos: 7 }
}

/// Writes a row past all rules.
fn force(fs: &mut Fs, ino: Ino, change: impl FnOnce(&mut Attr)) {
    let mut row = inode::get(&fs.rows, ino).unwrap();
    change(&mut row.attr);
    fs.rows.0.insert(keys::inode(ino).to_vec(), row.encode());
}

#[test]
fn a_new_file_is_its_makers_and_its_directory_changes() {
    let mut fs = Fs::new();
    let before = fs.attr(Ino::ROOT).unwrap();
    let file = fs.file(Ino::ROOT, "file");
    let attr = fs.attr(file).unwrap();
    assert_eq!((attr.uid, attr.gid, attr.mode, attr.nlink, attr.size), (10, 20, 0o644, 1, 0));
    assert_eq!([attr.atime, attr.mtime, attr.ctime, attr.btime], [fs.now; 4]);
    let after = fs.attr(Ino::ROOT).unwrap();
    assert_eq!((after.mtime, after.ctime, after.atime), (fs.now, fs.now, before.atime));
    assert!(after.version > before.version);
    assert_eq!((before.nlink, after.nlink), (2, 2));
    fs.dir(Ino::ROOT, "dir");
    assert_eq!(fs.attr(Ino::ROOT).unwrap().nlink, 3);
}

#[test]
fn a_directory_with_setgid_passes_its_group_on() {
    let mut fs = Fs::new();
    let shared = fs.dir(Ino::ROOT, "shared");
    fs.set(shared, SetAttr { gid: Some(99), mode: Some(0o2775), ..SetAttr::default() }).unwrap();
    let file = fs.file(shared, "file");
    let dir = fs.dir(shared, "dir");
    assert_eq!((fs.attr(file).unwrap().gid, fs.attr(file).unwrap().mode), (99, 0o644));
    assert_eq!((fs.attr(dir).unwrap().gid, fs.attr(dir).unwrap().mode), (99, 0o2755));
}

#[test]
fn a_directory_with_a_project_passes_it_on_and_takes_nothing_of_another() {
    let mut fs = Fs::new();
    let home = fs.dir(Ino::ROOT, "home");
    let other = fs.file(Ino::ROOT, "other");
    let to = |project, inherit| SetAttr {
        project: Some(project),
        project_inherit: Some(inherit),
        ..SetAttr::default()
    };
    assert_eq!(fs.set(home, to(5, true)), Err(Errno::EPERM), "for root alone");
    fs.cred.uid = 0;
    fs.set(home, to(5, true)).unwrap();
    let dir = fs.dir(home, "dir");
    let file = fs.file(dir, "file");
    assert_eq!(fs.attr(file).unwrap().project, 5);
    assert_eq!(fs.link(other, home, "link"), Err(Errno::EXDEV));
    assert_eq!(fs.rename((Ino::ROOT, "other"), (home, "other"), Rename::Replace), Err(Errno::EXDEV));
    assert_eq!(fs.rename((dir, "file"), (home, "file"), Rename::Replace), Ok(Answer::Done));
    assert_eq!(fs.rename((home, "file"), (Ino::ROOT, "file"), Rename::Replace), Ok(Answer::Done));
    fs.set(home, to(5, false)).unwrap();
    assert!(fs.link(other, home, "link").is_ok());
}

#[test]
fn a_default_acl_stands_in_for_the_umask_and_is_passed_on() {
    let mut fs = Fs::new();
    let dir = fs.dir(Ino::ROOT, "dir");
    let default = value(&[(1, 7, NO_ID), (2, 7, 5), (4, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 0, NO_ID)]);
    fs.set_xattr(dir, acl::DEFAULT, &default).unwrap();
    let what = Make::File { spread: None, open: false, exclusive: true };
    let file = fs.make(dir, "file", 0o666, what).unwrap();
    assert_eq!((file.mode, file.flags & Attr::NO_XATTR), (0o660, 0), "no umask of 022");
    let access = value(&[(1, 6, NO_ID), (2, 7, 5), (4, 5, NO_ID), (0x10, 6, NO_ID), (0x20, 0, NO_ID)]);
    let get = |fs: &Fs, ino, name: &[u8]| fs.ask(&Ask::GetXattr { ino, name: name.to_vec() });
    assert_eq!(get(&fs, file.ino, acl::ACCESS), Ok(Answer::Bytes(access)));
    assert_eq!(get(&fs, file.ino, acl::DEFAULT), Err(Errno::ENODATA));
    let below = fs.dir(dir, "below");
    assert_eq!(get(&fs, below, acl::DEFAULT), Ok(Answer::Bytes(default)));
    let link = fs.make(dir, "link", 0o777, Make::Symlink { target: b"x".to_vec() }).unwrap();
    assert_eq!((link.mode, link.flags & Attr::NO_XATTR), (0o777, Attr::NO_XATTR));
    invariants::check(&fs.rows);
}

#[test]
fn a_minimal_default_acl_leaves_no_acl_on_new_files() {
    let mut fs = Fs::new();
    let dir = fs.dir(Ino::ROOT, "dir");
    let default = value(&[(1, 7, NO_ID), (4, 7, NO_ID), (0x20, 4, NO_ID)]);
    fs.set_xattr(dir, acl::DEFAULT, &default).unwrap();
    let what = Make::File { spread: None, open: false, exclusive: true };
    let file = fs.make(dir, "file", 0o666, what).unwrap();
    assert_eq!((file.mode, file.flags & Attr::NO_XATTR), (0o664, Attr::NO_XATTR));
}

#[test]
fn mode_and_acl_follow_each_other() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let minimal = value(&[(1, 6, NO_ID), (4, 4, NO_ID), (0x20, 0, NO_ID)]);
    fs.set_xattr(file, acl::ACCESS, &minimal).unwrap();
    let attr = fs.attr(file).unwrap();
    assert_eq!((attr.mode, attr.flags & Attr::NO_XATTR), (0o640, Attr::NO_XATTR), "the mode says it all");
    let named = value(&[(1, 7, NO_ID), (2, 6, 5), (4, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 1, NO_ID)]);
    fs.set_xattr(file, acl::ACCESS, &named).unwrap();
    assert_eq!(fs.attr(file).unwrap().mode, 0o771);
    fs.set(file, SetAttr { mode: Some(0o604), ..SetAttr::default() }).unwrap();
    let masked = value(&[(1, 6, NO_ID), (2, 6, 5), (4, 5, NO_ID), (0x10, 0, NO_ID), (0x20, 4, NO_ID)]);
    let ask = Ask::GetXattr { ino: file, name: acl::ACCESS.to_vec() };
    assert_eq!(fs.ask(&ask), Ok(Answer::Bytes(masked)));
    fs.set_xattr(file, acl::ACCESS, &value(&[])).unwrap();
    assert_eq!(fs.ask(&ask), Err(Errno::ENODATA), "an ACL without entries is none");
    assert_eq!(fs.attr(file).unwrap().flags & Attr::NO_XATTR, Attr::NO_XATTR);
}

#[test]
fn acls_are_refused_where_they_cannot_be() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let link = fs.make(Ino::ROOT, "link", 0o777, Make::Symlink { target: b"x".to_vec() }).unwrap().ino;
    let minimal = value(&[(1, 6, NO_ID), (4, 4, NO_ID), (0x20, 0, NO_ID)]);
    assert_eq!(fs.set_xattr(file, acl::DEFAULT, &minimal), Err(Errno::EACCES));
    assert_eq!(fs.set_xattr(link, acl::ACCESS, &minimal), Err(Errno::EOPNOTSUPP));
    assert_eq!(fs.set_xattr(file, acl::ACCESS, b"\x02\0\0\0rubbish"), Err(Errno::EINVAL));
}

#[test]
fn extended_attributes_have_families_and_limits() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let long = [b"user.".as_slice(), &[b'x'; 251]].concat();
    let cases: [(&[u8], usize, Errno); 6] = [
        (b"lustre.lov", 1, Errno::EOPNOTSUPP),
        (b"", 1, Errno::EOPNOTSUPP),
        (b"user.", 1, Errno::EINVAL),
        (b"user.a\0b", 1, Errno::EINVAL),
        (&long, 1, Errno::ERANGE),
        (b"user.a", (64 << 10) + 1, Errno::E2BIG),
    ];
    for (name, len, errno) in cases {
        assert_eq!(fs.set_xattr(file, name, &vec![1; len]), Err(errno), "{}", name.escape_ascii());
    }
    fs.set_xattr(file, b"user.b", &vec![1; 64 << 10]).unwrap();
    fs.set_xattr(file, b"trusted.a", b"").unwrap();
    let names = Answer::Bytes(b"trusted.a\0user.b\0".to_vec());
    assert_eq!(fs.ask(&Ask::ListXattr { ino: file }), Ok(names));
    let many = (0..1000).find(|n| fs.set_xattr(file, format!("user.{n:0>250}").as_bytes(), b"").is_err());
    assert_eq!(many, Some(255), "the list of names is at most 64 KiB");
}

#[test]
fn owners_and_writers_drop_set_id_bits_of_programs() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let mut mode_after = |mode: u16, act: &mut dyn FnMut(&mut Fs)| {
        fs.set(file, SetAttr { mode: Some(mode), ..SetAttr::default() }).unwrap();
        act(&mut fs);
        fs.attr(file).unwrap().mode
    };
    let mut chown = |fs: &mut Fs| {
        let set = SetAttr { uid: Some(1), kill_suid_sgid: true, ..SetAttr::default() };
        fs.set(file, set).unwrap();
    };
    assert_eq!(mode_after(0o6755, &mut chown), 0o755);
    assert_eq!(mode_after(0o6744, &mut chown), 0o2744, "without group execution setgid means something else");
    let mut write = |fs: &mut Fs| drop(fs.write(file, 0, b"x").unwrap());
    assert_eq!(mode_after(0o4755, &mut write), 0o755);
    let mut write_as_root = |fs: &mut Fs| {
        fs.cred.uid = 0;
        fs.write(file, 0, b"x").unwrap();
    };
    assert_eq!(mode_after(0o4755, &mut write_as_root), 0o4755);
    let mut written = |fs: &mut Fs| {
        let act =
            Act::Written { ino: file, size: 9, mtime: Some(at(5)), blocks: Some(16), kill_suid_sgid: true };
        fs.act(act).unwrap();
    };
    assert_eq!(mode_after(0o4755, &mut written), 0o755);
    let attr = fs.attr(file).unwrap();
    assert_eq!((attr.size, attr.mtime, attr.blocks), (9, at(5), 16 + 8), "objects, and a page on the MDT");
}

#[test]
fn times_are_set_as_asked_and_a_change_shows_in_ctime() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let set = SetAttr { atime: Some(SetTime::To(at(-3))), mtime: Some(SetTime::Now), ..SetAttr::default() };
    let attr = fs.set(file, set).unwrap();
    assert_eq!((attr.atime, attr.mtime, attr.ctime), (at(-3), fs.now, fs.now));
    let bad = SetTime::To(Time { secs: 0, nanos: 1_000_000_000 });
    assert_eq!(fs.set(file, SetAttr { mtime: Some(bad), ..SetAttr::default() }), Err(Errno::EINVAL));
    let set = SetAttr { size: Some(5), mtime: Some(SetTime::To(at(9))), ..SetAttr::default() };
    let attr = fs.set(file, set).unwrap();
    assert_eq!((attr.size, attr.mtime, attr.ctime), (5, at(9), fs.now), "what was asked for goes before");
}

#[test]
fn lengths_have_a_limit_and_only_files_have_one() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let fifo = fs.make(Ino::ROOT, "fifo", 0o644, Make::Node { kind: FileKind::Fifo, rdev: 0 }).unwrap().ino;
    let resize = |size| SetAttr { size: Some(size), ..SetAttr::default() };
    assert_eq!(fs.set(file, resize(1 << 63)), Err(Errno::EFBIG));
    assert_eq!(fs.set(file, resize((1 << 63) - 1)).unwrap().size, (1 << 63) - 1);
    assert_eq!(fs.set(Ino::ROOT, resize(0)), Err(Errno::EISDIR));
    assert_eq!(fs.set(fifo, resize(0)), Err(Errno::EINVAL));
}

#[test]
fn nodes_and_links_are_what_was_asked_for() {
    let mut fs = Fs::new();
    let device = Make::Node { kind: FileKind::CharDevice, rdev: 0x0103 };
    let attr = fs.make(Ino::ROOT, "null", 0o666, device).unwrap();
    assert_eq!((attr.kind, attr.rdev, attr.mode), (FileKind::CharDevice, 0x0103, 0o644));
    let link = fs.make(Ino::ROOT, "link", 0, Make::Symlink { target: b"to/there".to_vec() }).unwrap();
    assert_eq!((link.size, link.mode), (8, 0o777));
    assert_eq!(fs.ask(&Ask::Readlink { ino: link.ino }), Ok(Answer::Bytes(b"to/there".to_vec())));
    assert_eq!(fs.ask(&Ask::Readlink { ino: Ino::ROOT }), Err(Errno::EINVAL));
    let chmod = SetAttr { mode: Some(0o600), ..SetAttr::default() };
    assert_eq!(fs.set(link.ino, chmod), Err(Errno::EOPNOTSUPP));
    for (target, errno) in
        [(vec![], Errno::ENOENT), (vec![b'x'; 4096], Errno::ENAMETOOLONG), (vec![b'x', 0], Errno::EINVAL)]
    {
        assert_eq!(fs.make(Ino::ROOT, "bad", 0, Make::Symlink { target }), Err(errno));
    }
    let what = Make::Node { kind: FileKind::Directory, rdev: 0 };
    assert_eq!(fs.make(Ino::ROOT, "bad", 0, what), Err(Errno::EINVAL));
}

#[test]
fn links_are_counted_up_to_a_limit() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    let dir = fs.dir(Ino::ROOT, "dir");
    fs.dir(Ino::ROOT, "moved");
    force(&mut fs, file, |attr| attr.nlink = LINKS_MAX);
    assert_eq!(fs.link(file, dir, "link"), Err(Errno::EMLINK));
    force(&mut fs, dir, |attr| attr.nlink = LINKS_MAX);
    assert_eq!(fs.make(dir, "below", 0o755, Make::Directory), Err(Errno::EMLINK));
    assert_eq!(fs.rename((Ino::ROOT, "moved"), (dir, "moved"), Rename::Replace), Err(Errno::EMLINK));
    fs.file(dir, "file");
}

#[test]
fn opening_by_making_takes_the_file_that_is_there() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "file");
    fs.dir(Ino::ROOT, "dir");
    fs.make(Ino::ROOT, "link", 0, Make::Symlink { target: b"file".to_vec() }).unwrap();
    let before = fs.rows.clone();
    let open = |exclusive| Make::File { spread: None, open: true, exclusive };
    let act = |name: &str, what| Act::Make { parent: Ino::ROOT, name: name.into(), mode: 0, umask: 0, what };
    let Ok(Answer::Opened { attr, made: false, .. }) = fs.act(act("file", open(false))) else { panic!() };
    assert_eq!(attr.ino, file);
    assert_eq!(fs.act(act("file", open(true))), Err(Errno::EEXIST));
    assert_eq!(fs.act(act("dir", open(false))), Err(Errno::EISDIR));
    assert_eq!(fs.act(act("link", open(false))), Err(Errno::EEXIST));
    assert_eq!(fs.rows, before, "an open changes nothing");
}

#[test]
fn a_cursor_stays_good_whatever_is_added_and_removed() {
    let mut fs = Fs::new();
    for n in 0..20 {
        fs.file(Ino::ROOT, &format!("f{n:02}"));
    }
    let ask = |after, bytes_max| Ask::Readdir { ino: Ino::ROOT, after, bytes_max, plus: false };
    let Ok(Answer::Names { names, end: false, .. }) = fs.ask(&ask(0, 350)) else { panic!() };
    assert_eq!(names.len(), 10);
    let after = names.last().unwrap().cursor;
    for name in ["f03", "f09", "f10"] {
        fs.unlink(Ino::ROOT, name);
    }
    fs.rename((Ino::ROOT, "f04"), (Ino::ROOT, "f15"), Rename::Replace).unwrap();
    fs.file(Ino::ROOT, "new");
    let Ok(Answer::Names { names, end: true, .. }) = fs.ask(&ask(after, 1 << 20)) else { panic!() };
    let names: Vec<_> = names.iter().map(|name| std::str::from_utf8(&name.name).unwrap()).collect();
    assert_eq!(names, ["f11", "f12", "f13", "f14", "f15", "f16", "f17", "f18", "f19", "new"]);
    let Ok(Answer::Names { names, .. }) = fs.ask(&ask(0, 0)) else { panic!() };
    assert_eq!(names.len(), 1, "at least one, so that a listing goes on");
    assert_eq!(
        fs.ask(&ask(u64::MAX, 100)),
        Ok(Answer::Names { names: Vec::new(), end: true, parent: Ino::ROOT })
    );
}

#[test]
fn a_directory_without_a_name_takes_no_entries() {
    let mut fs = Fs::new();
    let dir = fs.dir(Ino::ROOT, "dir");
    let file = fs.file(Ino::ROOT, "file");
    fs.victim_open = true;
    let outcome = fs.outcome(Act::Rmdir { parent: Ino::ROOT, name: b"dir".to_vec() }, &[]);
    assert_eq!((outcome.answer, outcome.unlinked), (Ok(Answer::Done), Some(dir)));
    assert_eq!(fs.attr(dir).unwrap().nlink, 0);
    assert!(fs.names(dir).is_empty());
    assert_eq!(fs.make(dir, "x", 0o755, Make::Directory), Err(Errno::ENOENT));
    assert_eq!(fs.link(file, dir, "x"), Err(Errno::ENOENT));
    assert_eq!(fs.lookup(dir, "x"), Err(Errno::ENOENT));
    assert_eq!(fs.lookup(file, "x"), Err(Errno::ENOTDIR));
    assert_eq!(fs.lookup(Ino(99), "x"), Err(Errno::ESTALE));
    assert_eq!(fs.lookup(Ino::ROOT, &"x".repeat(256)), Err(Errno::ENAMETOOLONG));
}
