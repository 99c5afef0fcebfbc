//! Both sides against each other over real sockets, and against peers that misbehave.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{Call, ConnId, Connection, Listener, Replies, ServeLimits, Server, Service, serve};
use crate::client::CallError;
use crate::listen::Peer;
use crate::server::Fault;
use crate::wire::{self, Frame, Kind, Limits, Status};

mod memory;

/// Longer than anything here takes.
const PLENTY: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
enum Ask {
    Echo(String),
    WhoAmI,
    Count {
        items: u32,
        bytes: usize,
    },
    Nothing,
    Refuse,
    TooLong,
    Panic,
    /// Waits until the caller is gone.
    Wait,
    /// Waits until [`Desk::let_go`].
    Hold,
}

/// What tests wait for.
#[derive(Default)]
struct Desk {
    waiting: AtomicUsize,
    closed: Mutex<Vec<ConnId>>,
    changed: Condvar,
    let_go: Mutex<bool>,
    freed: Condvar,
}

impl Desk {
    fn enter(&self) {
        let _guard = self.closed.lock().expect("no panic holds it");
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Ends every [`Ask::Hold`].
    fn let_go(&self) {
        *self.let_go.lock().expect("no panic holds it") = true;
        self.freed.notify_all();
    }

    /// Waits until `holds`.
    fn until(&self, holds: impl Fn(&Desk, &[ConnId]) -> bool) {
        let closed = self.closed.lock().expect("no panic holds it");
        let (_closed, late) = self
            .changed
            .wait_timeout_while(closed, PLENTY, |closed| !holds(self, closed))
            .expect("no panic holds it");
        assert!(!late.timed_out(), "it did not happen");
    }
}

impl Service for Desk {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        match call.decode()? {
            Ask::Echo(text) => replies.last(&text, &[&call.bulk]),
            Ask::WhoAmI => match call.peer {
                Peer::Local { uid, pid } => replies.last(&(uid, pid), &[]),
                Peer::Remote(address) => replies.last(&address.port(), &[]),
            },
            Ask::Count { items, bytes } => {
                let bulk = vec![7; bytes];
                let halves = bulk.split_at(bytes / 2);
                (0..items).try_for_each(|item| replies.item(&item, &[halves.0, halves.1]))
            }
            Ask::Nothing => Ok(()),
            Ask::Refuse => Err(Fault::new(Status::Denied, "not for you")),
            Ask::TooLong => replies.last(&(), &[&vec![0; 17 << 20]]),
            Ask::Panic => panic!("as asked"),
            Ask::Wait => {
                self.enter();
                while !replies.is_closed() {
                    std::thread::yield_now();
                }
                Ok(())
            }
            Ask::Hold => {
                self.enter();
                let held = self.let_go.lock().expect("no panic holds it");
                let _held = self.freed.wait_while(held, |let_go| !*let_go).expect("no panic holds it");
                replies.last(&"held", &[])
            }
        }
    }

    fn closed(&self, conn: ConnId) {
        self.closed.lock().expect("no panic holds it").push(conn);
        self.changed.notify_all();
    }
}

struct House {
    server: Server,
    desk: Arc<Desk>,
    path: PathBuf,
    _scratch: tempfile::TempDir,
}

fn house(limits: ServeLimits) -> House {
    let scratch = tempfile::tempdir().expect("a scratch directory");
    let path = scratch.path().join("sock");
    let listener = Listener::bind_unix(&path).expect("a free path");
    let desk = Arc::new(Desk::default());
    let server = serve(listener, limits, Arc::clone(&desk));
    House { server, desk, path, _scratch: scratch }
}

impl House {
    fn connect(&self) -> Connection {
        Connection::connect_unix(&self.path).expect("the server listens")
    }

    fn connect_raw(&self) -> UnixStream {
        UnixStream::connect(&self.path).expect("the server listens")
    }
}

fn echo(connection: &mut Connection, text: &str, bulk: &[&[u8]]) -> Result<(String, Bytes), CallError> {
    connection.call(&Ask::Echo(text.to_owned()), bulk)
}

fn frame_bytes(frame: &Frame) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    frame.header().encode(&mut bytes);
    [&bytes[..], &frame.body, &frame.bulk].concat()
}

fn request(ask: &Ask) -> Frame {
    let body = Bytes::from(postcard::to_stdvec(ask).expect("it encodes"));
    Frame { kind: Kind::Request, call: 1, detail: 0, body, bulk: Bytes::new() }
}

#[test]
fn bodies_and_bulks_of_all_sizes_come_back() {
    let house = house(ServeLimits::default());
    let mut connection = house.connect();
    for len in [0, 1, 4096, 8163, 8164, 8165, 65_536, 1 << 20, (1 << 20) + 1, 5_000_001, 16 << 20] {
        let bulk: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        let (front, back) = bulk.split_at(len / 3);
        let text = "t".repeat(len.min(100_000));
        let (answer, echoed) = echo(&mut connection, &text, &[front, &[], back]).expect("it echoes");
        assert!(answer == text && echoed == bulk, "{len} bytes");
    }
}

#[test]
fn more_slices_than_one_system_call_takes() {
    let house = house(ServeLimits::default());
    let bytes: Vec<u8> = (0..5000_u32).map(|at| at as u8).collect();
    let slices: Vec<&[u8]> = bytes.chunks(1).collect();
    let (_, echoed) = echo(&mut house.connect(), "many", &slices).expect("it echoes");
    assert_eq!(echoed, bytes);
}

#[test]
fn tcp_works_as_well_and_each_peer_is_named() {
    let desk = Arc::new(Desk::default());
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = serve(Listener::Tcp(listener), ServeLimits::default(), desk);
    let mut connection = Connection::connect_tcp(&address, PLENTY).expect("the server listens");
    let (port, _): (u16, Bytes) = connection.call(&Ask::WhoAmI, &[]).expect("an answer");
    assert_ne!(port, 0);
    let bulk = vec![3; 3 << 20];
    assert_eq!(echo(&mut connection, "tcp", &[&bulk]).expect("it echoes").1, bulk);
    assert_eq!(server.stop(PLENTY), 0);
    TcpListener::bind(&address).expect("the port is free again");

    let house = house(ServeLimits::default());
    let ((uid, pid), _): ((u32, i32), Bytes) = house.connect().call(&Ask::WhoAmI, &[]).expect("an answer");
    assert_eq!((uid, pid), (nix::unistd::geteuid().as_raw(), std::process::id() as i32));
}

#[test]
fn a_stream_ends_and_the_next_call_follows() {
    let house = house(ServeLimits::default());
    let mut connection = house.connect();
    for items in [0, 1, 500] {
        connection.send(&Ask::Count { items, bytes: 10_000 }, &[]).expect("it is sent");
        for expected in 0..items {
            let (item, bulk): (u32, Bytes) = connection.receive_item().expect("it counts").expect("more");
            assert!(item == expected && bulk == vec![7; 10_000]);
        }
        assert!(connection.receive_item::<u32>().expect("it ends").is_none());
    }
    connection.send(&Ask::Echo("last".to_owned()), &[]).expect("it is sent");
    let (only, _) = connection.receive_item::<String>().expect("an answer").expect("one");
    assert!(only == "last" && connection.receive_item::<String>().expect("it ends").is_none());
    echo(&mut connection, "and on", &[]).expect("it echoes");
}

#[test]
fn refusals_leave_the_connection_as_it_was() {
    let house = house(ServeLimits::default());
    let mut connection = house.connect();
    let refused = connection.call::<_, ()>(&Ask::Refuse, &[]).expect_err("a refusal");
    assert!(
        matches!(refused, CallError::Refused { status: Status::Denied, ref text } if text == "not for you")
    );
    let unread = connection.call::<_, ()>(&250_u8, &[]).expect_err("it is no request");
    assert!(matches!(unread, CallError::Refused { status: Status::BadRequest, .. }), "{unread}");
    let too_long = connection.call::<_, ()>(&Ask::TooLong, &[]).expect_err("over the limit");
    assert!(matches!(too_long, CallError::Refused { status: Status::Internal, .. }), "{too_long}");
    let empty = connection.call::<_, ()>(&Ask::Nothing, &[]).expect_err("no answer");
    assert!(matches!(empty, CallError::Empty), "{empty}");
    let wrong =
        connection.call::<_, (u64, u64, String)>(&Ask::Echo("\u{80}".into()), &[]).expect_err("a text");
    assert!(matches!(wrong, CallError::Decode(_)), "{wrong}");
    let long = echo(&mut connection, "x", &[&vec![0; 17 << 20]]).expect_err("over the limit");
    assert!(matches!(long, CallError::Encode(_)), "{long}");
    echo(&mut connection, "still here", &[]).expect("it echoes");
}

#[test]
fn a_second_request_before_the_answer_and_an_answer_without_a_request_are_errors() {
    let house = house(ServeLimits::default());
    let mut connection = house.connect();
    assert!(matches!(connection.receive::<String>(), Err(CallError::Encode(_))));
    connection.send(&Ask::Echo("one".to_owned()), &[]).expect("it is sent");
    assert!(matches!(echo(&mut connection, "two", &[]), Err(CallError::Encode(_))));
    assert_eq!(connection.receive::<String>().expect("it echoes").0, "one");
}

#[test]
fn a_panic_ends_its_connection_only() {
    let house = house(ServeLimits::default());
    let (mut one, mut other) = (house.connect(), house.connect());
    echo(&mut other, "before", &[]).expect("it echoes");
    assert!(matches!(one.call::<_, ()>(&Ask::Panic, &[]), Err(CallError::Closed)));
    house.desk.until(|_, closed| closed.len() == 1);
    echo(&mut other, "after", &[]).expect("it echoes");
    echo(&mut house.connect(), "and anew", &[]).expect("it echoes");
}

#[test]
fn garbage_and_what_only_a_server_sends_close_the_connection() {
    let house = house(ServeLimits::default());
    let item = Frame { kind: Kind::Item, ..request(&Ask::Nothing) };
    let mut long = frame_bytes(&request(&Ask::Nothing));
    long[24..28].copy_from_slice(&u32::MAX.to_be_bytes());
    for bytes in [b"GET / HTTP/1.1\r\nhost: kiln\r\n\r\n".to_vec(), frame_bytes(&item), long] {
        let mut raw = house.connect_raw();
        raw.write_all(&bytes).expect("the socket takes it");
        let mut rest = Vec::new();
        // A reset is as good as an end: the server did not read all of it.
        let _ = raw.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    }
    house.desk.until(|_, closed| closed.len() == 3);
    echo(&mut house.connect(), "unharmed", &[]).expect("it echoes");
}

#[test]
fn a_frame_cut_anywhere_does_nothing() {
    let house = house(ServeLimits::default());
    let whole = frame_bytes(&Frame { bulk: Bytes::from_static(b"bulk"), ..request(&Ask::Echo("x".into())) });
    for cut in 0..whole.len() {
        let mut raw = house.connect_raw();
        raw.write_all(&whole[..cut]).expect("the socket takes it");
        raw.shutdown(std::net::Shutdown::Write).expect("it is open");
        let mut rest = Vec::new();
        raw.read_to_end(&mut rest).expect("the server closes");
        assert!(rest.is_empty(), "cut at {cut}: {rest:?}");
    }
}

#[test]
fn a_frame_that_comes_byte_by_byte_is_answered_and_so_are_two_at_once() {
    let house = house(ServeLimits::default());
    let whole = frame_bytes(&request(&Ask::Echo("slow".into())));
    let mut raw = house.connect_raw();
    for byte in &whole {
        raw.write_all(std::slice::from_ref(byte)).expect("the socket takes it");
    }
    raw.write_all(&[&whole[..], &whole].concat()).expect("the socket takes it");
    raw.shutdown(std::net::Shutdown::Write).expect("it is open");
    let mut answers = Vec::new();
    raw.read_to_end(&mut answers).expect("the server answers and closes");
    let mut answers = BytesMut::from(&answers[..]);
    for _ in 0..3 {
        let frame = wire::decode(&mut answers, &Limits::default()).expect("a frame").expect("whole");
        assert_eq!((frame.kind, frame.call, &frame.body[1..]), (Kind::Last, 1, &b"slow"[..]));
    }
    assert!(answers.is_empty());
}

#[test]
fn cancels_and_credits_of_the_asynchronous_client_are_passed_over() {
    let house = house(ServeLimits::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let client = crate::Client::connect_unix(&house.path).await.expect("the server listens");
        let mut stream =
            client.stream::<_, u32>(&Ask::Count { items: 3, bytes: 10 }).await.expect("it is sent");
        assert_eq!(stream.next().await.expect("an item").expect("it counts").0, 0);
        drop(stream);
        let text: String = client.call(&Ask::Echo("both".to_owned())).await.expect("it echoes");
        assert_eq!(text, "both");
    });
}

/// A server that answers any request with these bytes, and closes.
fn lying_server(answer: Vec<u8>) -> Connection {
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    std::thread::spawn(move || {
        let mut first = [0; 1];
        theirs.read_exact(&mut first).expect("a request");
        theirs.write_all(&answer).expect("the socket takes it");
        theirs.shutdown(std::net::Shutdown::Write).expect("it is open");
        let _ = theirs.read_to_end(&mut Vec::new());
    });
    Connection::over_pair(ours)
}

#[test]
fn a_server_that_lies_closes_the_connection() {
    let honest = Frame { kind: Kind::Last, call: 1, detail: 0, body: Bytes::new(), bulk: Bytes::new() };
    let of = |frame: Frame| frame_bytes(&frame);
    let answers = [
        of(Frame { call: 2, ..honest.clone() }),
        of(Frame { kind: Kind::Request, ..honest.clone() }),
        of(Frame { kind: Kind::Item, ..honest.clone() }),
        of(Frame { kind: Kind::Error, call: 7, ..honest.clone() }),
        of(Frame { bulk: Bytes::from_static(b"x"), ..honest })[..28].to_vec(),
        b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n".to_vec(),
        Vec::new(),
    ];
    for (nth, answer) in answers.into_iter().enumerate() {
        let mut connection = lying_server(answer);
        connection.send(&Ask::Nothing, &[]).expect("it is sent");
        let closed = connection.receive::<()>().expect_err("no answer");
        assert!(matches!(closed, CallError::Closed), "{nth}: {closed}");
        assert!(connection.is_closed());
        assert!(matches!(connection.call::<_, ()>(&Ask::Nothing, &[]), Err(CallError::Closed)));
    }
}

#[test]
fn an_answer_that_does_not_come_in_time_ends_the_connection() {
    let house = house(ServeLimits::default());
    let mut connection = house.connect();
    let limit = Duration::from_millis(10);
    connection.set_timeout(Some(limit)).expect("the socket has one");
    let late = connection.call::<_, ()>(&Ask::Wait, &[]).expect_err("it waits");
    assert!(matches!(late, CallError::Deadline(waited) if waited == limit), "{late}");
    assert!(matches!(echo(&mut connection, "again", &[]), Err(CallError::Closed)));
    house.desk.until(|_, closed| closed.len() == 1);
}

#[test]
fn another_thread_ends_a_wait_and_a_caller_that_is_gone_is_noticed() {
    let house = house(ServeLimits::default());
    let mut connection = house.connect();
    let closer = connection.shutdown_handle().expect("a descriptor");
    let waits = std::thread::spawn(move || connection.call::<_, ()>(&Ask::Wait, &[]));
    house.desk.until(|desk, _| desk.waiting.load(Ordering::SeqCst) == 1);
    closer.close();
    assert!(matches!(waits.join().expect("no panic"), Err(CallError::Closed)));
    house.desk.until(|_, closed| closed.len() == 1);
}

#[test]
fn connections_beyond_the_bound_are_told_so() {
    let house = house(ServeLimits { connections_max: 2, ..ServeLimits::default() });
    let (mut first, mut second) = (house.connect(), house.connect());
    echo(&mut first, "1", &[]).expect("it echoes");
    echo(&mut second, "2", &[]).expect("it echoes");
    for _ in 0..50 {
        let refused = echo(&mut house.connect(), "3", &[]).expect_err("no room");
        assert!(matches!(refused, CallError::Refused { status: Status::Busy, .. }), "{refused}");
    }
    drop(first);
    house.desk.until(|_, closed| closed.len() == 1);
    while house.server.connections() == 2 {
        std::thread::yield_now();
    }
    echo(&mut house.connect(), "room again", &[]).expect("it echoes");
}

#[test]
fn many_connections_are_served_at_once() {
    let house = house(ServeLimits::default());
    let mut connections: Vec<_> = (0..200).map(|_| house.connect()).collect();
    for connection in &mut connections {
        connection.send(&Ask::Hold, &[]).expect("it is sent");
    }
    house.desk.until(|desk, _| desk.waiting.load(Ordering::SeqCst) == 200);
    assert_eq!(house.server.connections(), 200);
    house.desk.let_go();
    for connection in &mut connections {
        assert_eq!(connection.receive::<String>().expect("an answer").0, "held");
    }
    drop(connections);
    house.desk.until(|_, closed| closed.len() == 200);
}

#[test]
fn a_stop_lets_answers_out_and_ends_what_is_idle_and_what_listens_to_it() {
    let house = house(ServeLimits::default());
    let (mut idle, mut waits, mut held) = (house.connect(), house.connect(), house.connect());
    echo(&mut idle, "idle", &[]).expect("it echoes");
    waits.send(&Ask::Wait, &[]).expect("it is sent");
    held.send(&Ask::Hold, &[]).expect("it is sent");
    house.desk.until(|desk, _| desk.waiting.load(Ordering::SeqCst) == 2);
    let desk = Arc::clone(&house.desk);
    let stopped = std::thread::spawn(move || house.server.stop(PLENTY));
    // Both have ended because of the stop; only then is the third let go.
    desk.until(|_, closed| closed.len() == 2);
    assert!(matches!(waits.receive::<()>(), Err(CallError::Empty | CallError::Closed)));
    desk.let_go();
    assert_eq!(held.receive::<String>().expect("it is answered").0, "held");
    assert_eq!(stopped.join().expect("no panic"), 0);
    assert_eq!(desk.closed.lock().expect("no panic holds it").len(), 3);
    assert!(Connection::connect_unix(&house.path).is_err());
    assert!(echo(&mut idle, "idle", &[]).is_err());
}

#[test]
fn a_call_that_does_not_end_is_cut_at_the_deadline() {
    let house = house(ServeLimits::default());
    let mut held = house.connect();
    held.send(&Ask::Hold, &[]).expect("it is sent");
    house.desk.until(|desk, _| desk.waiting.load(Ordering::SeqCst) == 1);
    assert_eq!(house.server.stop(Duration::from_millis(10)), 1);
    assert!(matches!(held.receive::<String>(), Err(CallError::Closed)));
    house.desk.let_go();
    house.desk.until(|_, closed| closed.len() == 1);
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_not() {
    let house = house(ServeLimits::default());
    assert_eq!(Listener::bind_unix(&house.path).expect_err("in use").kind(), std::io::ErrorKind::AddrInUse);
    drop(house.server);
    while Connection::connect_unix(&house.path).is_ok() {}
    Listener::bind_unix(&house.path).expect("the stale file is replaced");
}
