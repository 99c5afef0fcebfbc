//! What the tests stand on: a server that can be killed, raw clients, and an OSS that only takes notes.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use kiln_log::Volume;
use kiln_net::blocking::{Call, Connection, Listener, Replies, ServeLimits, Server, Service, serve};
use kiln_net::{CallError, Fault};
use kiln_world::{RealClock, RealDisk};

use crate::core::changelog::Entry;
use crate::core::layout::{STRIPE_BYTES_MIN, Stripes};
use crate::core::{Attr, Errno, FileKind, Ino, Layout, OstIndex, SessionId, Spread, Time, Xid};
use crate::mds::mdt::{self, Format, Label, Mdt};
use crate::mds::{Changelog, Mds, Parts, Settings};
use crate::wire::mds::{
    Acked, Act, Answer, Ask, Callback, Change, Cred, DataLease, Held, HeldLock, Hello, Leases, Lock, Make,
    Op, Reply, Request, Take, Welcome,
};
use crate::wire::mgs::{Address, FsId, Ost};
use crate::wire::{self, VERSION, oss};

/// Nothing in a test takes so long, unless it hangs.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// Of the filesystem.
pub(super) const FS_ID: FsId = FsId(7);

pub(super) const META: Leases = Leases { meta: true, names: false, data: DataLease::None };

/// No limit ends within a test.
pub(super) const PATIENT: Settings = Settings {
    session_limit: Duration::from_mins(10),
    recovery_limit: Duration::from_mins(10),
    leases_per_session_max: 1000,
};

/// Who does not answer is soon gone.
pub(super) const STRICT: Settings = Settings {
    session_limit: Duration::from_secs(2),
    recovery_limit: Duration::from_millis(1500),
    leases_per_session_max: 1000,
};

/// Readers of the changelog, who are away at times.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<(Mutex<Read>, Condvar)>);

#[derive(Default)]
pub(super) struct Read {
    pub(super) away: bool,
    /// They take what comes, and do not say so.
    pub(super) mute: bool,
    pub(super) entries: Vec<Entry>,
    /// How often they were asked.
    pub(super) asked: u64,
}

impl Readers {
    pub(super) fn read(&self) -> MutexGuard<'_, Read> {
        self.0.0.lock().unwrap()
    }

    /// Waits until it is so.
    pub(super) fn wait_until(&self, is_so: impl Fn(&Read) -> bool) -> MutexGuard<'_, Read> {
        let waited = self.0.1.wait_timeout_while(self.read(), LONG, |read| !is_so(read)).unwrap();
        assert!(!waited.1.timed_out(), "{:?}", waited.0.entries);
        waited.0
    }
}

impl Changelog for Readers {
    fn write(&self, fs: &str, entries: Vec<Entry>) -> Result<(), String> {
        assert_eq!(fs, "scratch");
        let mut read = self.read();
        read.asked += 1;
        self.0.1.notify_all();
        if read.away {
            return Err("nobody is there".to_owned());
        }
        read.entries.extend(entries);
        if read.mute { Err("it is not known".to_owned()) } else { Ok(()) }
    }
}

/// A filesystem without clients.
pub(super) struct World {
    dir: tempfile::TempDir,
    pub(super) osts: Vec<Ost>,
    pub(super) readers: Readers,
    running: Option<Running>,
}

struct Running {
    mds: Arc<Mds>,
    server: Server,
    volume: Volume,
}

impl World {
    pub(super) fn new(settings: Settings, osts: u16) -> World {
        let dir = tempfile::tempdir().unwrap();
        let ost = |n| Ost {
            index: OstIndex(n),
            uuid: format!("scratch-OST{n:04x}_UUID"),
            rank: 0,
            address: Address::Unix(dir.path().join(format!("oss{n}.sock"))),
            draining: false,
        };
        let osts = (0..osts).map(ost).collect();
        let mut world = World { dir, osts, readers: Readers::default(), running: None };
        world.start(settings);
        world
    }

    pub(super) fn start(&mut self, settings: Settings) {
        self.start_as(settings, None, false);
    }

    /// Serves what there is as a snapshot under this name.
    pub(super) fn start_snapshot(&mut self, settings: Settings, fs: &str, is_new: bool) {
        self.start_as(settings, Some(fs.to_owned()), is_new);
    }

    fn start_as(&mut self, settings: Settings, snapshot: Option<String>, is_of_old: bool) {
        let clock = Arc::new(RealClock::new());
        let disk = Arc::new(RealDisk::new(self.dir.path().join("disk")).unwrap());
        let volume = Volume::start(disk, clock.clone());
        let stripes = Stripes { count: Some(1), first: None };
        let format = Format {
            label: Label { uuid: FS_ID.0.to_be_bytes(), fs: "scratch".into(), mdt: 0 },
            spread: Spread::plain(4096, STRIPE_BYTES_MIN, stripes),
            now: Time::default(),
        };
        let mdt = Mdt::open(&volume, Path::new("mdt"), &format, mdt::Settings::default()).unwrap();
        let changelog = Some(Box::new(self.readers.clone()) as Box<dyn Changelog>);
        let changelog = changelog.filter(|_| snapshot.is_none());
        let parts = Parts { mdt, osts: self.osts.clone(), clock, changelog, snapshot, is_of_old };
        let mds = Arc::new(Mds::start(parts, settings).unwrap());
        let _ = std::fs::remove_file(self.socket());
        let listener = Listener::Unix(UnixListener::bind(self.socket()).unwrap());
        let server = serve(listener, ServeLimits::default(), Arc::clone(&mds));
        self.running = Some(Running { mds, server, volume });
    }

    /// Whether everything that was changed is on the disk.
    pub(super) fn is_synced(&self) -> bool {
        let syncing = self.running.as_ref().unwrap().mds.server.lock().mdt.sync();
        let (done, seen) = std::sync::mpsc::channel();
        syncing.then(move |outcome| done.send(outcome).expect("it is asked below"));
        // What is durable already is told at once.
        seen.try_recv() == Ok(Ok(()))
    }

    /// Ends the server without letting it put anything in order.
    pub(super) fn kill(&mut self) {
        let Some(Running { mds, server, volume }) = self.running.take() else { return };
        mds.stop();
        assert_eq!(server.stop(LONG), 0, "a request did not end when the server stopped");
        drop(mds);
        volume.close();
    }

    pub(super) fn mds(&self) -> &Mds {
        &self.running.as_ref().unwrap().mds
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join("mds.sock")
    }

    /// A client that said hello.
    pub(super) fn client(&self, session: u128) -> Client {
        let mut client = self.silent_client(session);
        assert!(!client.hello(&[], &[]).resumed);
        client
    }

    pub(super) fn silent_client(&self, session: u128) -> Client {
        let (path, fs, session) = (self.socket(), "scratch".to_owned(), SessionId(session));
        Client { path, fs, session, xid: 0, done_below: 0, connection: None }
    }

    /// The OSS of an OST begins to listen.
    pub(super) fn oss(&self, index: u16) -> FakeOss {
        let Address::Unix(path) = &self.osts[usize::from(index)].address else { unreachable!() };
        FakeOss::start(path)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.kill();
        }
    }
}

/// A client with one connection for requests.
pub(super) struct Client {
    path: PathBuf,
    pub(super) fs: String,
    pub(super) session: SessionId,
    xid: u64,
    /// The answers below it are not asked for again.
    done_below: u64,
    connection: Option<Connection>,
}

impl Client {
    /// The same session on a connection of its own.
    pub(super) fn again(&mut self) -> Client {
        self.xid += 1000;
        let Client { session, xid, done_below, .. } = *self;
        let (path, fs) = (self.path.clone(), self.fs.clone());
        Client { path, fs, session, xid, done_below, connection: None }
    }

    /// It will not repeat what it asked for so far.
    pub(super) fn has_answers(&mut self) {
        self.done_below = self.xid + 1;
    }

    pub(super) fn disconnect(&mut self) {
        self.connection = None;
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        let path = &self.path;
        self.connection.get_or_insert_with(|| {
            let mut connection = Connection::connect_unix(path).unwrap();
            connection.set_timeout(Some(LONG)).unwrap();
            connection
        })
    }

    pub(super) fn request(&self, op: Op) -> wire::Request {
        wire::Request::Mds(Request { fs: self.fs.clone(), id: FS_ID, session: self.session, op })
    }

    pub(super) fn try_call(&mut self, op: Op, bulk: &[u8]) -> Result<(Reply, Bytes), CallError> {
        let request = self.request(op);
        self.connection().call(&request, &[bulk])
    }

    pub(super) fn call(&mut self, op: Op) -> Reply {
        self.try_call(op, &[]).unwrap().0
    }

    pub(super) fn hello(&mut self, held: &[Held], locks: &[HeldLock]) -> Welcome {
        let hello =
            Hello { version: VERSION, host: "node1".into(), held: held.to_vec(), locks: locks.to_vec() };
        match self.call(Op::Hello(hello)).outcome {
            Ok(Answer::Welcome(welcome)) => welcome,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn ask(&mut self, ask: Ask) -> Reply {
        self.call(Op::Ask(ask))
    }

    pub(super) fn lock(&mut self, lock: Lock) -> Result<Answer, Errno> {
        self.call(Op::Lock(lock)).outcome
    }

    pub(super) fn change_of(&mut self, act: Act) -> Change {
        self.xid += 1;
        Change {
            xid: Xid(self.xid),
            done_below: Xid(self.done_below),
            cred: Cred { uid: 1, gid: 1, job: String::new() },
            act,
        }
    }

    pub(super) fn change(&mut self, act: Act) -> Reply {
        let change = self.change_of(act);
        self.call(Op::Change(change))
    }

    pub(super) fn lookup(&mut self, name: &str) -> Reply {
        self.ask(Ask::Lookup { parent: Ino::ROOT, name: name.into() })
    }

    /// Makes a file in the root, and closes it.
    pub(super) fn file(&mut self, name: &str) -> Ino {
        let ino = attr(&self.change(make(name, file(false)))).ino;
        self.drop_leases(ino);
        ino
    }

    /// Gives everything back that it has of an inode, and of the root.
    pub(super) fn drop_leases(&mut self, ino: Ino) {
        let all = Leases { meta: true, names: true, data: DataLease::Write };
        assert_eq!(done(&self.ask(Ask::Release { leases: vec![(ino, all), (Ino::ROOT, all)] })), Ok(()));
    }

    pub(super) fn open(&mut self, ino: Ino, write: bool) -> Reply {
        self.ask(Ask::Open { ino, write, data_max: 0 })
    }

    pub(super) fn lease(&mut self, ino: Ino, want: DataLease) -> Reply {
        self.ask(Ask::Lease { ino, want })
    }

    /// Makes a request on a connection of its own, in the background.
    pub(super) fn later(&mut self, op: Op) -> Later {
        let mut client = self.again();
        let (sender, answer) = channel();
        thread::spawn(move || {
            let _ = sender.send(client.try_call(op, &[]).map(|(reply, _)| reply));
        });
        Later(answer)
    }

    pub(super) fn change_later(&mut self, act: Act) -> Later {
        let change = self.change_of(act);
        self.later(Op::Change(change))
    }

    pub(super) fn callbacks(&mut self) -> Callbacks {
        let mut connection = Connection::connect_unix(&self.path).unwrap();
        connection.set_timeout(Some(LONG)).unwrap();
        connection.send(&self.request(Op::Callbacks), &[]).unwrap();
        Callbacks { connection, acks: self.again() }
    }
}

/// A request that is under way.
pub(super) struct Later(Receiver<Result<Reply, CallError>>);

impl Later {
    pub(super) fn waits(&self) -> bool {
        self.0.try_recv().is_err()
    }

    pub(super) fn reply(self) -> Reply {
        self.outcome().unwrap()
    }

    pub(super) fn outcome(self) -> Result<Reply, CallError> {
        self.0.recv_timeout(LONG).expect("an answer, or the end of the connection")
    }
}

pub(super) struct Callbacks {
    connection: Connection,
    acks: Client,
}

impl Callbacks {
    pub(super) fn next(&mut self) -> Callback {
        self.try_next().unwrap().expect("the stream goes on")
    }

    pub(super) fn try_next(&mut self) -> Result<Option<Callback>, CallError> {
        Ok(self.connection.receive_item::<Callback>()?.map(|(callback, _)| callback))
    }

    pub(super) fn ack(&mut self, callback: &Callback, open: bool) {
        let acked = Acked { seq: callback.seq, ino: callback.ino, open };
        assert_eq!(done(&self.acks.call(Op::Ack(vec![acked]))), Ok(()));
    }

    /// As `ack`, of a session that may be over.
    pub(super) fn try_ack(&mut self, callback: &Callback) {
        self.acks.call(Op::Ack(vec![Acked { seq: callback.seq, ino: callback.ino, open: false }]));
    }

    /// Acknowledges the next one, which must be this.
    pub(super) fn give(&mut self, ino: Ino, take: &Take) -> Callback {
        let callback = self.next();
        assert_eq!((callback.ino, &callback.take), (ino, take));
        self.ack(&callback, false);
        callback
    }

    /// Acknowledges these, in whichever order they come.
    pub(super) fn give_all(&mut self, takes: &[(Ino, Take)]) {
        let mut missing = takes.to_vec();
        while !missing.is_empty() {
            let callback = self.next();
            let at = missing.iter().position(|(ino, take)| (*ino, take) == (callback.ino, &callback.take));
            missing.remove(at.unwrap_or_else(|| panic!("{callback:?} is none of {missing:?}")));
            self.ack(&callback, false);
        }
    }
}

pub(super) fn file(open: bool) -> Make {
    Make::File { spread: None, open, exclusive: false }
}

pub(super) fn make(name: &str, what: Make) -> Act {
    Act::Make { parent: Ino::ROOT, name: name.into(), mode: 0o644, umask: 0, what }
}

pub(super) fn unlink(name: &str) -> Act {
    Act::Unlink { parent: Ino::ROOT, name: name.into() }
}

pub(super) fn done(reply: &Reply) -> Result<(), Errno> {
    reply.outcome.as_ref().map(|_| ()).map_err(|errno| *errno)
}

pub(super) fn attr(reply: &Reply) -> &Attr {
    match &reply.outcome {
        Ok(Answer::Entry(attr) | Answer::Attr(attr) | Answer::Opened { attr, .. }) => attr,
        other => panic!("{other:?}"),
    }
}

pub(super) fn is_shared(reply: &Reply) -> bool {
    match &reply.outcome {
        Ok(Answer::Opened { shared, .. }) => *shared,
        other => panic!("{other:?}"),
    }
}

pub(super) fn layout(reply: &Reply) -> &Layout {
    match &reply.outcome {
        Ok(Answer::Layout(layout) | Answer::Opened { layout, .. }) => layout,
        other => panic!("{other:?}"),
    }
}

/// What a reply grants on an inode.
pub(super) fn granted(reply: &Reply, ino: Ino) -> Leases {
    let mut all = Leases::default();
    for grant in reply.grants.iter().filter(|grant| grant.ino == ino) {
        all.meta |= grant.leases.meta;
        all.names |= grant.leases.names;
        all.data = all.data.max(grant.leases.data);
    }
    all
}

pub(super) fn is_regular(attr: &Attr) -> bool {
    attr.kind == FileKind::Regular
}

/// An OSS that does nothing but remember what it was asked.
pub(super) struct FakeOss {
    pub(super) asked: Arc<Asked>,
    server: Option<Server>,
}

#[derive(Default)]
pub(super) struct Asked {
    ops: Mutex<Vec<oss::Op>>,
    fenced: Mutex<BTreeSet<SessionId>>,
    full: std::sync::atomic::AtomicBool,
}

impl FakeOss {
    fn start(path: &Path) -> FakeOss {
        let asked = Arc::new(Asked::default());
        let _ = std::fs::remove_file(path);
        let listener = Listener::Unix(UnixListener::bind(path).unwrap());
        let server = serve(listener, ServeLimits::default(), Arc::clone(&asked));
        FakeOss { asked, server: Some(server) }
    }

    pub(super) fn fill(&self) {
        self.asked.full.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    pub(super) fn ops(&self) -> Vec<oss::Op> {
        self.asked.ops.lock().unwrap().clone()
    }

    pub(super) fn has_fenced(&self, session: SessionId) -> bool {
        self.asked.fenced.lock().unwrap().contains(&session)
    }
}

impl Drop for FakeOss {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop(Duration::ZERO);
        }
    }
}

impl Service for Asked {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let wire::Request::Oss(request) = call.decode()? else { panic!("no request to an OSS") };
        let reply = match &request.op {
            oss::Op::Statfs => {
                let available_bytes =
                    if self.full.load(std::sync::atomic::Ordering::SeqCst) { 0 } else { 1 << 30 };
                oss::Reply::Space(oss::Space {
                    total_bytes: 1 << 30,
                    free_bytes: available_bytes,
                    available_bytes,
                    inodes: 1000,
                    free_inodes: 1000,
                })
            }
            oss::Op::Fence { session } => {
                self.fenced.lock().unwrap().insert(*session);
                oss::Reply::Done
            }
            _ => oss::Reply::Done,
        };
        if !matches!(request.op, oss::Op::Statfs | oss::Op::Hello { .. }) {
            self.ops.lock().unwrap().push(request.op);
        }
        replies.last(&reply, &[])
    }
}

/// Waits for something that happens by itself, for as long as a test may take.
pub(super) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < LONG, "{what} did not happen");
        thread::yield_now();
        thread::park_timeout(Duration::from_millis(2));
    }
}
