//! Golden bytes: rows as they lie on disks. docs/formats/fs-mdt.md describes them.

use super::super::accounts::Quotas;
use super::super::directory::{Entry, Named};
use super::super::filesystem::{Counters, Filesystem};
use super::super::inode::{Body, Directory, File, Home, Inode, Link};
use super::super::log::{Head, Noted};
use super::super::rows::Row;
use super::*;
use crate::core::FileKind;
use crate::core::changelog::{Kind, Place, Record};
use crate::core::quota::{Account, Limits, QuotaKind, Tally};

/// Bytes as the page of the format writes them.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

fn attr(kind: FileKind) -> Attr {
    let time = |secs| Time { secs, nanos: 1 };
    Attr {
        ino: Ino(2),
        kind,
        mode: 0o644,
        nlink: 1,
        uid: 3,
        gid: 4,
        project: 5,
        rdev: 6,
        size: 300,
        blocks: 8,
        atime: time(7),
        mtime: time(-8),
        ctime: time(9),
        btime: time(10),
        version: 11,
        flags: Attr::NO_XATTR,
    }
}

const ATTR: &str = "02 00 a4 03 01 03 04 05 06 ac 02 08 0e 01 0f 01 12 01 14 01 0b 01";

fn golden<T: Row + PartialEq + std::fmt::Debug>(row: &T, bytes: &str) {
    assert_eq!(hex(&row.encode()), bytes);
    assert_eq!(&T::decode(&row.encode()).unwrap(), row);
}

#[test]
fn inodes() {
    let spread = Spread::plain(4096, 65536, Stripes { count: Some(1), first: None });
    let home = Home::Name(Link { parent: Ino::ROOT, cursor: 12 });
    let layout = spread.to_layout();
    let file = Inode { attr: attr(FileKind::Regular), home, body: Body::File(File { layout, pages: 1 }) };
    let inline = "01 00 80 20 00 00 00";
    let raid = "02 80 20 ff ff ff ff ff ff ff ff ff 01 01 80 80 04 00 01 01 00";
    golden(&file, &format!("01 {ATTR} 01 01 0c 00 01 02 {inline} {raid} 01"));
    let directory = Directory { cursor_next: 13, entries: 2, default: None };
    let directory =
        Inode { attr: attr(FileKind::Directory), home: Home::Root, body: Body::Directory(directory) };
    let dir_attr = ATTR.replacen("02 00", "02 01", 1);
    golden(&directory, &format!("01 {dir_attr} 00 01 0d 02 00"));
    let link =
        Inode { attr: attr(FileKind::Symlink), home: Home::Unnamed, body: Body::Symlink(b"ab".to_vec()) };
    golden(&link, &format!("01 {} 02 02 02 61 62", ATTR.replacen("02 00", "02 02", 1)));
    let node = Inode { attr: attr(FileKind::Fifo), home: Home::Gone, body: Body::Node };
    golden(&node, &format!("01 {} 03 03", ATTR.replacen("02 00", "02 03", 1)));
}

#[test]
fn entries_and_the_rest() {
    golden(&Entry { ino: Ino(2), kind: FileKind::Directory, cursor: 12 }, "01 02 01 0c");
    golden(&Named { ino: Ino(2), kind: FileKind::Regular, name: b"ab".to_vec() }, "01 02 00 02 61 62");
    golden(&Todo::Destroy { ost: OstIndex(1), object: crate::core::ObjectId(2) }, "01 00 01 02");
    golden(&Todo::Cut { ost: OstIndex(1), object: crate::core::ObjectId(2), len: 3 }, "01 01 01 02 03");
    golden(&Counters { mdt: 0, ino_next: 2, object_next: 3, todo_next: 4, inodes: 5 }, "01 00 02 03 04 05");
    golden(&Head { recording: true, first: 5, next: 300 }, "01 01 05 ac 02");
    let spread = Spread::plain(0, 65536, Stripes { count: None, first: Some(OstIndex(2)) });
    let tally = |used, grace_ends| Tally { used, limits: Limits { soft: 1, hard: 300 }, grace_ends };
    let account = Account { space: tally(8, Some(9)), inodes: tally(1, None) };
    golden(&account, "01 08 01 ac 02 01 12 01 01 ac 02 00");
    assert_eq!(hex(&Quotas::default().encode()), format!("01 {}00", "80 f5 24 ".repeat(6)));
    golden(&Filesystem { spread }, "01 01 ff ff ff ff ff ff ff ff ff 01 01 80 80 04 00 01 02");
}

#[test]
fn records_of_changes() {
    let place = |name: &str| Some(Place { parent: Ino::ROOT, name: name.into() });
    let record = Record {
        kind: Kind::Rename,
        time: Time { secs: 7, nanos: 1 },
        target: Ino(2),
        place: place("b"),
        source: place("a"),
        unlinked: Some(Ino(3)),
        session: SessionId(5),
        cred: Some(Cred { uid: 6, gid: 7, job: "j".into() }),
    };
    let bytes = "01 01 68 07 0e 01 02 01 01 01 62 01 01 01 61 01 03 05 01 06 07 01 6a";
    golden(&Noted { client: "h".into(), record }, bytes);
}

#[test]
fn keys_in_their_order() {
    let link = Link { parent: Ino(0x0102), cursor: 3 };
    let ino = "00 00 00 00 00 00 01 02";
    assert_eq!(hex(&keys::inode(Ino(0x0102))), format!("49 {ino}"));
    assert_eq!(hex(&keys::name(Ino(0x0102), b"ab")), format!("4e {ino} 61 62"));
    assert_eq!(hex(&keys::entry(link)), format!("45 {ino} 00 00 00 00 00 00 00 03"));
    assert_eq!(
        hex(&keys::link(Ino(9), link)),
        format!("4c 00 00 00 00 00 00 00 09 {ino} 00 00 00 00 00 00 00 03")
    );
    assert_eq!(hex(&keys::orphan(Ino(0x0102))), format!("4f {ino}"));
    assert_eq!(hex(&keys::page(Ino(0x0102), 4)), format!("44 {ino} 00 00 00 04"));
    assert_eq!(hex(&keys::xattr(Ino(0x0102), b"user.a")), format!("58 {ino} 75 73 65 72 2e 61"));
    assert_eq!(hex(&keys::session(SessionId(5))), format!("53 {}05", "00 ".repeat(15)));
    assert_eq!(hex(&keys::todo(TodoId(0x0102))), format!("54 {ino}"));
    assert_eq!(hex(&keys::account(QuotaKind::Group, 258)), "55 01 00 00 01 02");
    let single = (keys::COUNTERS, keys::FILESYSTEM, keys::QUOTAS);
    assert_eq!(single, (&b"C"[..], &b"F"[..], &b"Q"[..]));
    assert_eq!(hex(&keys::record(0x0102)), format!("52 {ino}"));
    assert_eq!(keys::LOG_HEAD, b"G");
}

#[test]
fn sessions_with_their_answers() {
    let mut fs = Fs::new();
    let file = fs.file(Ino::ROOT, "f");
    let act = Act::SetXattr { ino: file, name: b"user.a".to_vec(), value: b"1".to_vec(), how: XattrHow::Set };
    assert_eq!(fs.act(act), Ok(Answer::Done));
    let row = &fs.rows.0[&keys::session(SESSION)[..]];
    let done_below = "02 00 00 00 00 00 00 00";
    let host = "04 00 68 6f 73 74";
    let reply = "02 00 00 00 00 00 00 00 01 00 00 00 00";
    assert_eq!(hex(row), format!("01 {done_below} {host} {reply}"));
}

#[test]
fn damaged_rows_are_errors() {
    let bytes = Entry { ino: Ino(2), kind: FileKind::Directory, cursor: 12 }.encode();
    assert_eq!(Entry::decode(&[]), Err(Errno::EIO));
    assert_eq!(Entry::decode(&bytes[..3]), Err(Errno::EIO));
    assert_eq!(Entry::decode(&[&bytes[..], &[0]].concat()), Err(Errno::EIO));
    assert_eq!(Entry::decode(&[2, 2, 1, 12]), Err(Errno::EIO), "of a newer version");
    let mut fs = Fs::new();
    let row = fs.rows.0.get_mut(&keys::session(SESSION)[..]).unwrap();
    row.push(9);
    assert_eq!(fs.make(Ino::ROOT, "x", 0, Make::Directory), Err(Errno::EIO));
}
