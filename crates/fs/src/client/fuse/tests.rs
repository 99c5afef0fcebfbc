//! The bytes between the kernel and this client.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::core::{Attr, FileKind, Ino, SetTime, Time};
use crate::wire::mds::{LockKind, RecordLock};

/// A request as the kernel lays it out.
fn message(opcode: u32, node: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&(40 + body.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(&opcode.to_ne_bytes());
    bytes.extend_from_slice(&77_u64.to_ne_bytes());
    bytes.extend_from_slice(&node.to_ne_bytes());
    for id in [1000_u32, 100, 4242, 0] {
        bytes.extend_from_slice(&id.to_ne_bytes());
    }
    bytes.extend_from_slice(body);
    bytes
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

/// Takes messages instead of the kernel.
#[derive(Default)]
struct Taken(Mutex<Vec<Vec<u8>>>);

impl Carrier for Taken {
    fn carry(&self, parts: &[io::IoSlice<'_>]) -> io::Result<()> {
        self.0.lock().unwrap().push(parts.iter().flat_map(|part| part.to_vec()).collect());
        Ok(())
    }
}

fn answered(outcome: Result<&Reply, Errno>) -> Vec<u8> {
    let (taken, bytes) = (Taken::default(), message(abi::op::STATFS, 1, &[]));
    let request = Request::decode(&bytes).unwrap();
    Answer::new(&taken, &request, &Interrupt::default()).send(outcome);
    taken.0.into_inner().unwrap().remove(0)
}

#[test]
fn names_and_who_asks_are_read() {
    let bytes = message(abi::op::LOOKUP, 5, b"name\0");
    let request = Request::decode(&bytes).unwrap();
    assert_eq!(
        (request.unique, request.ino, request.uid, request.gid, request.pid),
        (77, Ino(5), 1000, 100, 4242)
    );
    assert!(matches!(request.op, Op::Lookup { name: b"name" }));
    let body = [longs(&[9]), words(&[2, 0]), b"old\0new\0".to_vec()].concat();
    let bytes = message(abi::op::RENAME2, 5, &body);
    let op = Request::decode(&bytes).unwrap().op;
    assert!(matches!(op, Op::Rename { name: b"old", to: Ino(9), to_name: b"new", flags: 2 }));
}

#[test]
fn setattr_says_what_it_changes() {
    // FATTR_SIZE, FATTR_MTIME, FATTR_ATIME with FATTR_ATIME_NOW, FATTR_KILL_SUIDGID
    let valid = 1 << 3 | 1 << 5 | 1 << 4 | 1 << 7 | 1 << 11;
    let times = longs(&[0, 12, 0, 0, -5_i64 as u64, 0]);
    let body = [words(&[valid, 0]), times, words(&[0, 7, 0, 0o600, 0, 1, 2, 0])].concat();
    let bytes = message(abi::op::SETATTR, 5, &body);
    let Op::Setattr(set) = Request::decode(&bytes).unwrap().op else { panic!("it is setattr") };
    assert_eq!((set.size, set.mode, set.uid), (Some(12), None, None));
    assert_eq!(set.mtime, Some(SetTime::To(Time { secs: -5, nanos: 7 })));
    assert_eq!(set.atime, Some(SetTime::Now));
    assert!(set.kill_suid_sgid);
}

#[test]
fn reads_of_programs_and_of_the_page_cache_differ() {
    for (flags, paged) in [(0, true), (2, false)] {
        let body = [longs(&[3, 4096]), words(&[100, flags]), longs(&[0, 0])].concat();
        let bytes = message(abi::op::READ, 5, &body);
        let op = Request::decode(&bytes).unwrap().op;
        assert!(matches!(op, Op::Read { handle: 3, offset: 4096, size: 100, paged: was } if was == paged));
    }
}

#[test]
fn writes_carry_their_data() {
    let body = [longs(&[3, 8]), words(&[5, 4]), longs(&[0]), words(&[0o2001, 0]), b"bytes".to_vec()].concat();
    let bytes = message(abi::op::WRITE, 5, &body);
    let op = Request::decode(&bytes).unwrap().op;
    let Op::Write { handle: 3, offset: 8, data, paged: false, kill_suid_sgid: true, flags: 0o2001 } = op
    else {
        panic!("{op:?}")
    };
    assert_eq!(data, b"bytes");
}

#[test]
fn locks_to_the_end_of_the_file_end_there() {
    let body = [longs(&[3, 99, 10, i64::MAX as u64]), words(&[libc::F_WRLCK as u32, 7, 0, 0])].concat();
    let bytes = message(abi::op::SETLKW, 5, &body);
    let Op::Setlk { lock, flock: false, wait: true, .. } = Request::decode(&bytes).unwrap().op else {
        panic!("it is a lock that waits")
    };
    let wanted = RecordLock { start: 10, last: u64::MAX, kind: LockKind::Exclusive, owner: 99, pid: 7 };
    assert_eq!(lock, wanted);
}

#[test]
fn forgets_come_alone_and_in_batches() {
    let bytes = message(abi::op::FORGET, 5, &longs(&[3]));
    let request = Request::decode(&bytes).unwrap();
    let Op::Forget { counts } = request.op else { panic!("it is a forget") };
    assert_eq!(counts.collect::<Vec<_>>(), [(Ino(5), 3)]);
    let bytes = message(abi::op::BATCH_FORGET, 0, &[words(&[2, 0]), longs(&[5, 1, 6, 2])].concat());
    let request = Request::decode(&bytes).unwrap();
    assert!(!request.wants_answer());
    let Op::Forget { counts } = request.op else { panic!("it is a forget") };
    assert_eq!(counts.collect::<Vec<_>>(), [(Ino(5), 1), (Ino(6), 2)]);
}

#[test]
fn messages_that_are_cut_short_are_refused() {
    let body = [longs(&[3, 8]), words(&[5, 4]), longs(&[0]), words(&[0, 0]), b"by".to_vec()].concat();
    for bytes in [message(abi::op::WRITE, 5, &body), message(abi::op::LOOKUP, 5, b"no end"), vec![1, 2, 3]] {
        assert_eq!(Request::decode(&bytes).err(), Some(Errno::EIO));
    }
}

#[test]
fn answers_have_the_kernels_lengths() {
    let attr = Attr {
        ino: Ino(6),
        kind: FileKind::Regular,
        mode: 0o644,
        nlink: 1,
        uid: 1,
        gid: 2,
        project: 0,
        rdev: 0,
        size: 10,
        blocks: 8,
        atime: Time::default(),
        mtime: Time { secs: 5, nanos: 6 },
        ctime: Time::default(),
        btime: Time::default(),
        version: 1,
        flags: 0,
    };
    let entry = Entry {
        attr: attr.clone(),
        keep_name: Duration::from_secs(2),
        keep_attr: Duration::from_millis(1500),
    };
    let opened = Opened { handle: 4, flags: 1 };
    // struct fuse_out_header is 16 bytes, fuse_attr 88, fuse_attr_out 104, fuse_entry_out 128, fuse_open_out 16.
    let cases = [
        (Reply::Done, 16),
        (Reply::Attr { attr, keep: Duration::ZERO }, 16 + 104),
        (Reply::Entry(entry.clone()), 16 + 128),
        (Reply::NoEntry(Duration::ZERO), 16 + 128),
        (Reply::Created(entry, opened), 16 + 144),
        (Reply::Statfs(Statfs::default()), 16 + 80),
        (Reply::Lock(None), 16 + 24),
        (Reply::Bytes(b"abc".as_slice().into()), 16 + 3),
    ];
    for (reply, len) in cases {
        let bytes = answered(Ok(&reply));
        assert_eq!(bytes.len(), len, "{reply:?}");
        assert_eq!(bytes[..4], (len as u32).to_ne_bytes());
        assert_eq!(bytes[8..16], 77_u64.to_ne_bytes());
    }
    let refusal = answered(Err(Errno::ENOENT));
    assert_eq!(refusal[4..8], (-libc::ENOENT).to_ne_bytes());
}

#[test]
fn an_answer_that_nobody_sends_is_an_error() {
    let (taken, bytes) = (Taken::default(), message(abi::op::STATFS, 1, &[]));
    drop(Answer::new(&taken, &Request::decode(&bytes).unwrap(), &Interrupt::default()));
    assert_eq!(taken.0.into_inner().unwrap()[0][4..8], (-libc::EIO).to_ne_bytes());
}

#[test]
fn entries_fill_the_room_that_there_is() {
    let mut entries = Entries::new(100, Tree::MOUNTED);
    assert!(entries.push(Ino(5), FileKind::Regular, b"abc", 9));
    assert!(entries.push(Ino(6), FileKind::Directory, b"a longer name", 10));
    assert!(!entries.push(Ino(7), FileKind::Regular, b"one that has no room", 11));
    assert_eq!(entries.bytes().len(), 32 + 40);
    assert_eq!(entries.bytes()[8..16], 9_u64.to_ne_bytes(), "where to go on");
    assert!(!Entries::new(100, Tree::MOUNTED).push_plus(Ino(5), FileKind::Regular, b"a", 9, None));
}

#[test]
fn an_interrupt_reaches_the_request_it_is_for() {
    let (interrupt, heard) = (Interrupt::default(), std::sync::Arc::new(Mutex::new(0)));
    interrupt.begin(5);
    assert!(!interrupt.raise(4));
    let count = std::sync::Arc::clone(&heard);
    interrupt.on_raise(move || *count.lock().unwrap() += 1);
    assert!(interrupt.raise(5) && interrupt.is_raised());
    assert_eq!(*heard.lock().unwrap(), 1);
    let count = std::sync::Arc::clone(&heard);
    interrupt.on_raise(move || *count.lock().unwrap() += 1);
    assert_eq!(*heard.lock().unwrap(), 2, "one that comes too late is told at once");
    interrupt.begin(6);
    assert!(!interrupt.is_raised());
}
