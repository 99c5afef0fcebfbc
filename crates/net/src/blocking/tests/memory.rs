//! Memory that clients lend, and what is said of it that is not so.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::super::memory::{PIECE_BYTES, PIECES, SENT_BYTES_MAX, SHARED_BYTES_MIN, TAKEN_BYTES_MAX};
use super::super::socket::Socket;
use super::*;
use crate::wire::HEADER_BYTES;

/// Lengths of bulk parts about where it matters.
const LENGTHS: [usize; 9] = [
    0,
    1,
    SHARED_BYTES_MIN - 1,
    SHARED_BYTES_MIN,
    PIECE_BYTES - 1,
    PIECE_BYTES,
    PIECE_BYTES + 1,
    SENT_BYTES_MAX,
    SENT_BYTES_MAX + 1,
];

#[derive(Serialize, Deserialize)]
enum Want {
    /// Keep the bulk part.
    Keep,
    /// Give so many bytes of a pattern that begins with this one; answered with whether they lie in lent memory.
    Give(usize, u8),
}

#[derive(Default)]
struct Shelf {
    kept: Mutex<Vec<u8>>,
    takes_none: bool,
}

fn pattern(len: usize, first: u8) -> Vec<u8> {
    (0..len).map(|at| first.wrapping_add((at % 251) as u8)).collect()
}

impl Service for Shelf {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let (len, first) = match call.decode()? {
            Want::Keep => {
                *self.kept.lock().expect("no panic holds it") = call.bulk.to_vec();
                return replies.last(&true, &[]);
            }
            Want::Give(len, first) => (len, first),
        };
        match replies.room(len) {
            Some(mut span) => {
                span.as_mut().copy_from_slice(&pattern(len, first));
                replies.last_in(&true, span)
            }
            None => replies.last(&false, &[&pattern(len, first)]),
        }
    }

    fn takes_memory(&self, peer: Peer) -> bool {
        !self.takes_none && matches!(peer, Peer::Local { .. })
    }
}

/// A server, and a connection to it that has lent memory, or has tried to.
fn lending(takes_none: bool) -> (Arc<Shelf>, Server, Connection, tempfile::TempDir) {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let path = scratch.path().join("sock");
    let shelf = Arc::new(Shelf { takes_none, ..Shelf::default() });
    let listener = Listener::bind_unix(&path).expect("a free path");
    let server = serve(listener, ServeLimits::default(), Arc::clone(&shelf));
    let mut connection = Connection::connect_unix(&path).expect("the server listens");
    connection.lend().expect("the server answers");
    (shelf, server, connection, scratch)
}

/// What is given, and whether it lies in lent memory.
fn give(connection: &mut Connection, len: usize, first: u8) -> (bool, Bytes) {
    connection.send_asking(&Want::Give(len, first), len).expect("it is sent");
    connection.receive().expect("it is given")
}

fn keep(connection: &mut Connection, shelf: &Shelf, len: usize) {
    let bulk = pattern(len, len as u8);
    let (front, back) = bulk.split_at(len / 3);
    connection.call::<_, bool>(&Want::Keep, &[front, &[], back]).expect("it is kept");
    assert!(*shelf.kept.lock().expect("no panic holds it") == bulk, "{len} bytes");
}

#[test]
fn long_parts_lie_in_the_memory_and_others_go_through_the_socket() {
    let (shelf, _server, mut connection, _scratch) = lending(false);
    for first in [3, 200] {
        for len in LENGTHS {
            keep(&mut connection, &shelf, len);
            assert_eq!(connection.lends(len), (SHARED_BYTES_MIN..=SENT_BYTES_MAX).contains(&len), "{len}");
            let (lent, given) = give(&mut connection, len, first);
            assert!(given == pattern(len, first), "{len} bytes");
            assert_eq!(lent, (SHARED_BYTES_MIN..=PIECE_BYTES).contains(&len), "{len}");
        }
    }
    // Shorter than what there was room for.
    connection.send_asking(&Want::Give(70_000, 9), PIECE_BYTES).expect("it is sent");
    assert_eq!(connection.receive().expect("it is given"), (true, Bytes::from(pattern(70_000, 9))));
}

#[test]
fn an_answer_has_its_piece_until_it_is_dropped() {
    let (_shelf, server, mut connection, _scratch) = lending(false);
    let mut held: Vec<(u8, Bytes)> = Vec::new();
    for first in 0..2 * PIECES as u8 {
        let (lent, given) = give(&mut connection, PIECE_BYTES, first);
        assert_eq!(lent, usize::from(first) < PIECES, "{first}: one for each piece, and then there is none");
        held.push((first, given));
    }
    drop(held.remove(1));
    let (lent, again) = give(&mut connection, SHARED_BYTES_MIN, 99);
    assert!(lent && again == pattern(SHARED_BYTES_MIN, 99));
    // Also when nobody else has the memory any more.
    drop(connection);
    assert_eq!(server.stop(PLENTY), 0);
    for (first, given) in held {
        assert!(given == pattern(PIECE_BYTES, first), "{first}");
    }
    assert!(again == pattern(SHARED_BYTES_MIN, 99));
}

#[test]
fn where_memory_is_not_taken_all_goes_through_the_socket() {
    let (shelf, _server, refused, _scratch) = lending(true);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let _by_tcp = serve(Listener::Tcp(listener), ServeLimits::default(), Arc::clone(&shelf));
    let mut by_tcp = Connection::connect_tcp(&address, PLENTY).expect("the server listens");
    by_tcp.lend().expect("there is nothing to ask");
    for mut connection in [refused, by_tcp] {
        for len in LENGTHS {
            assert!(!connection.lends(len));
            keep(&mut connection, &shelf, len);
            assert_eq!(give(&mut connection, len, 5), (false, Bytes::from(pattern(len, 5))), "{len}");
        }
    }
}

/// A peer that writes frames by hand.
struct Raw(UnixStream);

impl Raw {
    fn new(scratch: &tempfile::TempDir) -> Raw {
        Raw(UnixStream::connect(scratch.path().join("sock")).expect("the server listens"))
    }

    fn send(&mut self, frame: &Frame, place: u16, bulk_len: u32) {
        let mut bytes = frame_bytes(frame);
        bytes[6..8].copy_from_slice(&place.to_be_bytes());
        bytes[24..HEADER_BYTES].copy_from_slice(&bulk_len.to_be_bytes());
        self.0.write_all(&bytes).expect("the socket takes it");
    }

    /// The kind of the next answer and its place; `None` at the end.
    fn answer(&mut self) -> Option<(Kind, u16)> {
        let mut head = [0; HEADER_BYTES];
        self.0.read_exact(&mut head).ok()?;
        let header = wire::Header::parse(&head, &Limits::default()).expect("a header");
        let behind = if header.place == 0 { header.bulk_len } else { 0 };
        let mut rest = vec![0; (header.body_len + behind) as usize];
        self.0.read_exact(&mut rest).expect("the whole frame");
        Some((header.kind, header.place))
    }

    /// Lends what may not be what it is said to be; the kind of the answer.
    fn lend(&mut self, file: Option<OwnedFd>, len: u32) -> Option<Kind> {
        self.send(&Frame::bare(Kind::Lend, 1, len), 0, 0);
        let (kind, _) = self.answer()?;
        if kind != Kind::Item {
            return Some(kind);
        }
        match file {
            Some(file) => {
                let socket = Socket::Unix(self.0.try_clone().expect("a descriptor"));
                socket.send_descriptor(file.as_fd()).expect("the socket takes it");
            }
            None => self.0.write_all(&[0]).expect("the socket takes it"),
        }
        self.answer().map(|(kind, _)| kind)
    }
}

fn memory(len: u64, seals: SealFlags) -> OwnedFd {
    let file = memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).expect("a file");
    ftruncate(&file, len).expect("it is memory");
    fcntl_add_seals(&file, seals).expect("it can be sealed");
    file
}

fn want(want: &Want) -> Frame {
    let body = Bytes::from(postcard::to_stdvec(want).expect("it encodes"));
    Frame { kind: Kind::Request, call: 2, detail: 0, body, bulk: Bytes::new() }
}

#[test]
fn what_is_no_memory_of_the_length_that_is_said_is_not_taken() {
    let (_shelf, _server, _connection, scratch) = lending(false);
    let mib = 1 << 20;
    let plain: OwnedFd = File::open("/proc/self/exe").expect("this program").into();
    let cases = [
        ("no descriptor", None, mib),
        ("a file", Some(plain), mib),
        ("it may be cut", Some(memory(mib.into(), SealFlags::GROW)), mib),
        ("it is shorter", Some(memory(4096, SealFlags::SHRINK)), mib),
        ("it is longer", Some(memory(2 << 20, SealFlags::SHRINK)), mib),
        ("nothing", Some(memory(0, SealFlags::SHRINK)), 0),
        ("too much", Some(memory(1 << 27, SealFlags::SHRINK)), TAKEN_BYTES_MAX as u32 + 1),
    ];
    for (name, file, len) in cases {
        let mut raw = Raw::new(&scratch);
        assert_eq!(raw.lend(file, len), Some(Kind::Error), "{name}");
        // Nothing is lost by that but the memory.
        raw.send(&want(&Want::Give(10, 1)), 0, 0);
        assert_eq!(raw.answer(), Some((Kind::Last, 0)), "{name}");
        raw.send(&want(&Want::Keep), 1, 4096);
        assert_eq!(raw.answer(), None, "{name}: no bulk part can lie in it");
    }
}

#[test]
fn places_outside_of_the_memory_are_refused() {
    let (shelf, _server, _connection, scratch) = lending(false);
    let lent = || {
        let mut raw = Raw::new(&scratch);
        assert_eq!(raw.lend(Some(memory(1 << 20, SealFlags::SHRINK)), 1 << 20), Some(Kind::Last));
        raw
    };
    for (place, len) in [(2, 1 << 20), (257, 1), (u16::MAX, 16 << 20)] {
        let mut raw = lent();
        raw.send(&want(&Want::Keep), place, len);
        assert_eq!(raw.answer(), None, "{len} bytes at {place}");
    }
    let mut raw = lent();
    raw.send(&want(&Want::Keep), 256, 4096);
    assert_eq!(raw.answer(), Some((Kind::Last, 0)), "its last page");
    assert_eq!(*shelf.kept.lock().expect("no panic holds it"), [0; 4096]);
    // An answer for which there is no room comes through the socket.
    for (place, answered) in [(256, 256), (257, 0), (u16::MAX, 0)] {
        raw.send(&want(&Want::Give(4096, 1)), place, 0);
        assert_eq!(raw.answer(), Some((Kind::Last, answered)), "at {place}");
    }
    assert_eq!(raw.lend(None, 1 << 20), Some(Kind::Error), "it has lent already");
}

#[test]
fn an_answer_that_lies_where_no_room_was_given_closes_the_connection() {
    let mut answer = frame_bytes(&Frame::bare(Kind::Last, 1, 0));
    answer[7] = 1;
    let mut connection = lying_server(answer);
    connection.send_asking(&Ask::Nothing, PIECE_BYTES).expect("it is sent");
    assert!(matches!(connection.receive::<()>(), Err(CallError::Closed)));
    assert!(connection.is_closed());
}

#[test]
fn a_server_that_dies_before_it_has_the_memory_is_noticed() {
    for answer in [Vec::new(), frame_bytes(&Frame::bare(Kind::End, 1, 0))] {
        let mut connection = lying_server(answer);
        assert!(matches!(connection.lend(), Err(CallError::Closed)));
        assert!(connection.is_closed() && !connection.lends(SENT_BYTES_MAX));
    }
}
