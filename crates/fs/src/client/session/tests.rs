//! The session against an MDS that breaks off, forgets and evicts.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kiln_net::Fault;
use kiln_net::blocking::{Call, Listener, Replies, ServeLimits, Server, Service, serve};
use kiln_world::SimRng;

use super::*;
use crate::core::Ino;
use crate::wire::mds::{Callback, Held, HeldLock, Welcome};
use crate::wire::mgs::FsId;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// An MDS that answers each change with how often it was done before.
#[derive(Default)]
struct FakeMds {
    /// How often each change was done, which it must be once.
    done: Mutex<HashMap<(SessionId, Xid), u32>>,
    /// So many answers to changes are still to be lost after the change was done.
    lose: AtomicU32,
    /// Sessions that said hello.
    known: Mutex<Vec<SessionId>>,
    lowest: Mutex<Vec<(Xid, Xid)>>,
    evict: AtomicBool,
}

impl Service for FakeMds {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let wire::Request::Mds(wire::mds::Request { session, op, .. }) = call.decode()? else {
            return Err(Fault::new(Status::BadRequest, "not for an MDS"));
        };
        let outcome = match op {
            Op::Hello(_) => Ok(self.hello(session)),
            Op::Callbacks => loop {
                if replies.is_closed() || self.evict.load(Ordering::SeqCst) {
                    return Ok(());
                }
                thread::yield_now();
            },
            Op::Change(change) => {
                let mut done = self.done.lock().unwrap();
                let before = done.entry((session, change.xid)).or_default();
                if *before == 0 {
                    *before += 1;
                    self.lowest.lock().unwrap().push((change.xid, change.done_below));
                }
                drop(done);
                if self.lose.load(Ordering::SeqCst) > 0 {
                    self.lose.fetch_sub(1, Ordering::SeqCst);
                    panic!("the answer is lost, and the connection with it");
                }
                Ok(Answer::Done)
            }
            Op::Lock(_) => loop {
                if replies.is_closed() {
                    return Ok(());
                }
                thread::yield_now();
            },
            _ => Ok(Answer::Done),
        };
        replies.last(&Reply { outcome, grants: Vec::new(), seq: 1, dirs: Vec::new(), room: None }, &[])
    }
}

impl FakeMds {
    fn hello(&self, session: SessionId) -> Answer {
        let mut known = self.known.lock().unwrap();
        let resumed = known.contains(&session) && !self.evict.swap(false, Ordering::SeqCst);
        if !resumed {
            known.push(session);
        }
        Answer::Welcome(Welcome { resumed, session_secs: 60, mdt: 0 })
    }
}

/// Notes what it is told.
#[derive(Default)]
struct Noted {
    evicted: Mutex<Vec<SessionId>>,
    hellos: AtomicU32,
}

impl Holder for Noted {
    fn held(&self) -> (Vec<Held>, Vec<HeldLock>) {
        self.hellos.fetch_add(1, Ordering::SeqCst);
        (Vec::new(), Vec::new())
    }

    fn called(&self, _callback: Callback) {}

    fn evicted(&self, next: SessionId) {
        self.evicted.lock().unwrap().push(next);
    }
}

struct World {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    mds: Arc<FakeMds>,
    server: Option<Server>,
    session: Arc<Session>,
    noted: Arc<Noted>,
    keeper: Option<thread::JoinHandle<()>>,
}

impl World {
    fn start() -> World {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("mds");
        let fs = ("scratch".into(), FsId(1));
        let session = Arc::new(Session::new(fs, Address::Unix(socket.clone()), SessionId(1)));
        let noted = Arc::new(Noted::default());
        let holder = Arc::clone(&noted) as Arc<dyn Holder>;
        let keeper =
            Keeper::start(Arc::clone(&session), holder, "host".into(), Arc::new(SimRng::new(1))).unwrap();
        let mds = Arc::new(FakeMds::default());
        let mut world = World { _dir: dir, socket, mds, server: None, session, noted, keeper: Some(keeper) };
        world.serve();
        assert!(world.session.wait_up(LONG));
        world
    }

    fn serve(&mut self) {
        let listener = Listener::bind_unix(&self.socket).unwrap();
        self.server = Some(serve(listener, ServeLimits::default(), Arc::clone(&self.mds)));
    }

    fn change(&self) -> Result<(), Errno> {
        change(&self.session)
    }
}

fn change(session: &Session) -> Result<(), Errno> {
    let act = Act::Rmdir { parent: Ino::ROOT, name: b"d".to_vec() };
    session.change(Cred::default(), act, &[], Waiter::MOUNT)?.outcome.map(drop)
}

impl Drop for World {
    fn drop(&mut self) {
        self.session.end(Errno::ENOTCONN);
        if let Some(keeper) = self.keeper.take() {
            keeper.join().unwrap();
        }
        if let Some(server) = self.server.take() {
            server.stop(LONG);
        }
    }
}

#[test]
fn a_change_whose_answer_is_lost_is_sent_again_under_its_number() {
    let world = World::start();
    world.mds.lose.store(3, Ordering::SeqCst);
    assert_eq!(world.change(), Ok(()));
    assert_eq!(world.change(), Ok(()));
    let done = world.mds.done.lock().unwrap();
    assert_eq!(done.len(), 2, "two changes, whatever was lost");
    assert!(done.values().all(|times| *times == 1));
    assert!(world.noted.hellos.load(Ordering::SeqCst) >= 1, "the session was resumed with what is held");
    assert!(world.noted.evicted.lock().unwrap().is_empty());
    let lowest = world.mds.lowest.lock().unwrap();
    assert!(lowest.iter().all(|(xid, below)| below <= xid), "nothing that waits counts as answered");
}

#[test]
fn calls_wait_while_nobody_serves() {
    let mut world = World::start();
    let epoch = world.session.epoch();
    world.server.take().unwrap().stop(LONG);
    let session = Arc::clone(&world.session);
    let waiting = thread::spawn(move || change(&session));
    world.serve();
    assert_eq!(waiting.join().unwrap(), Ok(()));
    // The call may have come to the new server before the keeper has seen that the old one is gone.
    let end = Instant::now() + LONG;
    while world.session.epoch() == epoch {
        assert!(Instant::now() < end, "the loss of the link begins a new epoch");
        thread::yield_now();
    }
    assert!(world.session.wait_up(LONG));
    assert!(world.noted.hellos.load(Ordering::SeqCst) >= 1, "the session was resumed at the new server");
}

/// The thread that acknowledges is the one that mends the link.
#[test]
fn an_acknowledgement_does_not_wait_for_the_link() {
    let mut world = World::start();
    world.server.take().unwrap().stop(LONG);
    let (session, done) = (Arc::clone(&world.session), std::sync::mpsc::channel());
    let tell = done.0;
    thread::spawn(move || {
        session.acknowledge(vec![Acked { seq: 1, ino: Ino(1), open: false }]);
        let _ = tell.send(());
    });
    done.1.recv_timeout(LONG).expect("it gives up at once");
    world.serve();
    assert_eq!(world.change(), Ok(()));
}

#[test]
fn an_evicted_session_begins_anew_and_its_calls_end() {
    let world = World::start();
    world.mds.evict.store(true, Ordering::SeqCst);
    while world.noted.evicted.lock().unwrap().is_empty() {
        thread::yield_now();
    }
    let next = world.noted.evicted.lock().unwrap()[0];
    assert_ne!(next, SessionId(1));
    // The first calls may still come into the eviction.
    while world.change() == Err(Errno::ESTALE) {
        thread::yield_now();
    }
    assert!(world.mds.done.lock().unwrap().keys().any(|(session, _)| *session == next));
}

#[test]
fn a_wait_for_a_lock_ends_when_the_program_is_interrupted() {
    let world = World::start();
    let interrupt = Arc::new(Interrupt::default());
    let (session, heard) = (Arc::clone(&world.session), Arc::clone(&interrupt));
    let waiting = thread::spawn(move || {
        let lock = wire::mds::RecordLock {
            start: 0,
            last: u64::MAX,
            kind: wire::mds::LockKind::Exclusive,
            owner: 1,
            pid: 1,
        };
        let lock = Lock::Set { ino: Ino(5), flock: true, lock, wait: true };
        session.lock(lock, Waiter::program(&heard, std::process::id())).err()
    });
    interrupt.raise_now();
    assert_eq!(waiting.join().unwrap(), Some(Errno::EINTR));
    assert_eq!(world.change(), Ok(()), "the session is none the worse");
}

#[test]
fn the_end_of_the_mount_ends_every_wait() {
    let mut world = World::start();
    world.server.take().unwrap().stop(LONG);
    let session = Arc::clone(&world.session);
    let waiting = thread::spawn(move || change(&session));
    world.session.end(Errno::ENOTCONN);
    assert_eq!(waiting.join().unwrap(), Err(Errno::ENOTCONN));
}
