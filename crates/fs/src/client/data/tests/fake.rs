//! An OSS and an MDS in memory. The OSS is reached over real sockets.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_net::blocking::{Call, Connection, Listener, Replies, ServeLimits, Server, Service, serve};
use kiln_net::{Fault, Peer};

use super::super::{DataPath, Mds, Osts, Settings, Written};
use crate::core::layout::{Layout, Pattern, Spread, Stripes};
use crate::core::quota::Owner;
use crate::core::{Attr, Errno, Ino, ObjectId, OstIndex, SessionId, Time};
use crate::oss::{Label, Oss, Ost};
use crate::wire;
use crate::wire::mgs::{self, Address, FsConfig, FsId};
use crate::wire::oss::{ObjectStat, Op, Reply, Request};

/// The fake's disk has blocks of this size.
const BLOCK: usize = 4096;
const FS: &str = "test";
pub(super) const SESSION: SessionId = SessionId(7);

#[derive(Default, Clone)]
struct Object {
    bytes: Vec<u8>,
    /// Blocks that were written.
    written: HashSet<usize>,
}

/// What went on, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Write {
        bytes: u64,
        sync: bool,
    },
    Read {
        bytes: u64,
    },
    Sync,
    Inline {
        bytes: u64,
    },
    Told {
        size: u64,
    },
    /// What the MDS was told before is durable.
    MdsSync,
}

#[derive(Default)]
pub(super) struct Store {
    objects: BTreeMap<(OstIndex, ObjectId), Object>,
    pub(super) events: Vec<Event>,
    /// These have no space.
    pub(super) full: HashSet<OstIndex>,
    pub(super) fenced: HashSet<SessionId>,
    /// So many answers to reads arrive damaged.
    pub(super) damaged_reads: u32,
    /// So many have no checksum.
    pub(super) unsummed_reads: u32,
    /// So many writes arrive damaged.
    pub(super) damaged_writes: u32,
    /// Writes wait while this is set.
    held: bool,
    /// Writes that wait.
    waiting: usize,
}

#[derive(Default)]
pub(super) struct FakeOss {
    store: Mutex<Store>,
    changed: Condvar,
}

impl FakeOss {
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Writes wait from now on, until they may go.
    pub(super) fn hold_writes(&self, held: bool) {
        self.store().held = held;
        self.changed.notify_all();
    }

    /// Waits until so many writes wait.
    pub(super) fn await_writes(&self, count: usize) {
        let store = self.store();
        drop(self.changed.wait_while(store, |store| store.waiting < count).unwrap());
    }

    pub(super) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.store().events)
    }

    fn write(&self, key: (OstIndex, ObjectId), offset: u64, sync: bool, bulk: &[u8]) -> Reply {
        let mut store = self.store();
        store.waiting += 1;
        self.changed.notify_all();
        store = self.changed.wait_while(store, |store| store.held).unwrap();
        store.waiting -= 1;
        if store.full.contains(&key.0) {
            return Reply::Refused(Errno::ENOSPC);
        }
        store.events.push(Event::Write { bytes: bulk.len() as u64, sync });
        store.objects.entry(key).or_default().write(offset as usize, bulk);
        Reply::Done
    }

    fn serve(&self, request: Request, bulk: &[u8]) -> (Reply, Vec<u8>) {
        let mut store = self.store();
        if store.fenced.contains(&request.session) {
            return (Reply::Refused(Errno::ESTALE), Vec::new());
        }
        let ost = request.ost;
        let reply = match request.op {
            Op::Hello { version } => {
                assert_eq!(version, wire::VERSION);
                Reply::Done
            }
            Op::Read { object, offset, len } => {
                store.events.push(Event::Read { bytes: len.into() });
                let data =
                    store.objects.get(&(ost, object)).map_or(Vec::new(), |object| object.read(offset, len));
                let damage = u32::from(store.damaged_reads > 0);
                store.damaged_reads -= damage;
                let unsummed = store.unsummed_reads > 0;
                store.unsummed_reads -= u32::from(unsummed);
                let crc = Some(crc32c::crc32c(&data) ^ damage).filter(|_| !unsummed);
                return (Reply::Data { crc }, data);
            }
            Op::Write { object, offset, crc, sync } => {
                let damaged = store.damaged_writes > 0;
                store.damaged_writes -= u32::from(damaged);
                drop(store);
                assert_eq!(crc, Some(crc32c::crc32c(bulk)));
                if damaged {
                    Reply::Refused(Errno::EIO)
                } else {
                    self.write((ost, object), offset, sync, bulk)
                }
            }
            Op::Punch { object, offset, len } => {
                if let Some(object) = store.objects.get_mut(&(ost, object)) {
                    object.punch(offset as usize, len as usize);
                }
                Reply::Done
            }
            Op::Truncate { object, len } => {
                if let Some(object) = store.objects.get_mut(&(ost, object)) {
                    object.cut(len as usize);
                }
                Reply::Done
            }
            Op::Allocate { object, offset, len } => {
                let object = store.objects.entry((ost, object)).or_default();
                let end = (offset + len) as usize;
                object.bytes.resize(object.bytes.len().max(end), 0);
                Reply::Done
            }
            Op::Seek { object, offset, hole } => {
                let found =
                    store.objects.get(&(ost, object)).and_then(|object| object.seek(offset as usize, hole));
                found.map_or(Reply::Refused(Errno::ENXIO), |offset| Reply::Offset(offset as u64))
            }
            Op::Sync { .. } => {
                store.events.push(Event::Sync);
                Reply::Done
            }
            Op::Stat { objects } => {
                let stat =
                    |object| store.objects.get(&(ost, object)).map_or(ObjectStat::default(), Object::stat);
                Reply::Stats(objects.into_iter().map(stat).collect())
            }
            other => panic!("the data path does not ask {other:?}"),
        };
        (reply, Vec::new())
    }
}

impl Service for FakeOss {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let wire::Request::Oss(request) = call.decode()? else { panic!("this is an OSS") };
        let (reply, bulk) = self.serve(request, &call.bulk);
        replies.last(&reply, &[&bulk])
    }
}

impl Object {
    fn write(&mut self, offset: usize, data: &[u8]) {
        let end = offset + data.len();
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[offset..end].copy_from_slice(data);
        self.written.extend(offset / BLOCK..end.div_ceil(BLOCK));
    }

    fn read(&self, offset: u64, len: u32) -> Vec<u8> {
        let start = self.bytes.len().min(offset as usize);
        self.bytes[start..self.bytes.len().min(start + len as usize)].to_vec()
    }

    fn punch(&mut self, offset: usize, len: usize) {
        let (start, end) = (self.bytes.len().min(offset), self.bytes.len().min(offset.saturating_add(len)));
        self.bytes[start..end].fill(0);
        self.written.retain(|block| !(start.div_ceil(BLOCK)..end / BLOCK).contains(block));
    }

    fn cut(&mut self, len: usize) {
        self.bytes.truncate(len);
        self.written.retain(|block| *block < len.div_ceil(BLOCK));
    }

    fn seek(&self, offset: usize, hole: bool) -> Option<usize> {
        let len = self.bytes.len();
        let found = (offset..len).find(|at| self.written.contains(&(at / BLOCK)) != hole);
        if hole && offset < len { found.or(Some(len)) } else { found }
    }

    fn stat(&self) -> ObjectStat {
        ObjectStat { len: self.bytes.len() as u64, blocks: (self.written.len() * BLOCK / 512) as u64 }
    }
}

/// One file on an MDT.
struct File {
    attr: Attr,
    layout: Layout,
    inline: Vec<u8>,
}

/// An MDS whose OSTs are in the fake OSS.
pub(super) struct FakeMds {
    files: Mutex<HashMap<Ino, File>>,
    oss: Arc<FakeOss>,
    osts: u16,
    socket: PathBuf,
    /// What all files together may use, in units of 512 bytes.
    limit: Mutex<Option<u64>>,
}

impl FakeMds {
    pub(super) fn limit(&self, blocks: Option<u64>) {
        *self.limit.lock().unwrap() = blocks;
    }

    fn with<T>(&self, ino: Ino, change: impl FnOnce(&mut File) -> T) -> T {
        let mut files = self.files.lock().unwrap();
        let file = files.get_mut(&ino).expect("the file was made");
        file.attr.version += 1;
        change(file)
    }

    pub(super) fn make(&self, ino: Ino, inline: u64, stripe_bytes: u32) -> (Attr, Layout) {
        let stripes = Stripes { count: None, first: None };
        let layout = Spread::plain(inline, stripe_bytes, stripes).to_layout();
        let attr = Attr::of_empty_file(ino, 1);
        let file = File { attr: attr.clone(), layout: layout.clone(), inline: Vec::new() };
        self.files.lock().unwrap().insert(ino, file);
        (attr, layout)
    }

    pub(super) fn get(&self, ino: Ino) -> (Attr, Layout) {
        self.with(ino, |file| (file.attr.clone(), file.layout.clone()))
    }

    pub(super) fn inline(&self, ino: Ino) -> Vec<u8> {
        self.with(ino, |file| file.inline.clone())
    }

    pub(super) fn set_mtime(&self, ino: Ino, mtime: Time) -> Attr {
        self.with(ino, |file| {
            file.attr.mtime = mtime;
            file.attr.clone()
        })
    }

    /// Bytes of all objects.
    pub(super) fn oss_bytes(&self) -> u64 {
        self.oss.store().objects.values().map(|object| object.bytes.len() as u64).sum()
    }

    /// As Setattr does: objects of a file that was longer, as far as the MDT knows, are cut before it is answered.
    pub(super) fn set_size(&self, ino: Ino, size: u64) -> (Attr, Option<Layout>) {
        self.with(ino, |file| {
            file.inline.truncate(size as usize);
            let mut connection = Connection::connect_unix(&self.socket).unwrap();
            let cuts = if size < file.attr.size { file.layout.cut(size) } else { Vec::new() };
            for (ost, object, len) in cuts {
                let op = Op::Truncate { object, len };
                let request = Request { fs: FS.to_owned(), id: FsId(1), ost, session: SessionId(0), op };
                let (reply, _): (Reply, _) = connection.call(&wire::Request::Oss(request), &[]).unwrap();
                assert_eq!(reply, Reply::Done);
            }
            file.attr.size = size;
            (file.attr.clone(), None)
        })
    }
}

impl Mds for FakeMds {
    fn place(&self, ino: Ino, offset: u64) -> Result<Layout, Errno> {
        Ok(self.with(ino, |file| {
            let around = |extent: &crate::core::Extent| extent.start <= offset && offset < extent.end;
            for component in file.layout.components.iter_mut().filter(|component| around(&component.extent)) {
                if let Pattern::Raid0 { objects, .. } = &mut component.pattern
                    && objects.is_empty()
                {
                    objects.extend(
                        (0..self.osts)
                            .map(|n| (OstIndex(n), ObjectId(ino.0 * 100 + u64::from(component.id)))),
                    );
                    file.layout.generation += 1;
                }
            }
            file.layout.clone()
        }))
    }

    fn layout(&self, ino: Ino) -> Result<Layout, Errno> {
        Ok(self.get(ino).1)
    }

    fn read_inline(&self, ino: Ino, offset: u64, len: u32) -> Result<Bytes, Errno> {
        Ok(self.with(ino, |file| {
            let start = file.inline.len().min(offset as usize);
            let end = file.inline.len().min(start + len as usize);
            Bytes::copy_from_slice(&file.inline[start..end])
        }))
    }

    fn write_inline(&self, ino: Ino, offset: u64, data: &[u8], mtime: Time) -> Result<Attr, Errno> {
        self.oss.store().events.push(Event::Inline { bytes: data.len() as u64 });
        Ok(self.with(ino, |file| {
            let end = offset as usize + data.len();
            assert!(end as u64 <= file.layout.inline_bytes());
            file.inline.resize(file.inline.len().max(end), 0);
            file.inline[offset as usize..end].copy_from_slice(data);
            file.attr.size = file.attr.size.max(end as u64);
            file.attr.mtime = mtime;
            file.attr.clone()
        }))
    }

    fn zero_inline(&self, ino: Ino, offset: u64, len: u64) -> Result<(), Errno> {
        self.with(ino, |file| {
            let end = file.inline.len().min((offset + len) as usize);
            let start = end.min(offset as usize);
            file.inline[start..end].fill(0);
        });
        Ok(())
    }

    fn written(&self, ino: Ino, written: Written) -> Result<Attr, Errno> {
        self.oss.store().events.push(Event::Told { size: written.size });
        if written.durably {
            self.oss.store().events.push(Event::MdsSync);
        }
        Ok(self.with(ino, |file| {
            file.attr.size = file.attr.size.max(written.size);
            file.attr.mtime = written.mtime.unwrap_or(file.attr.mtime);
            let inline = (file.inline.len().div_ceil(BLOCK) * BLOCK / 512) as u64;
            file.attr.blocks = written.blocks.map_or(file.attr.blocks, |blocks| blocks + inline);
            file.attr.clone()
        }))
    }

    fn sync(&self) -> Result<(), Errno> {
        self.oss.store().events.push(Event::MdsSync);
        Ok(())
    }

    fn attr(&self, ino: Ino) -> Result<Attr, Errno> {
        Ok(self.get(ino).0)
    }

    fn room(&self, _owner: Owner) -> Option<u64> {
        let used: u64 = self.files.lock().unwrap().values().map(|file| file.attr.blocks).sum();
        self.limit.lock().unwrap().map(|limit| limit.saturating_sub(used) * 512)
    }
}

/// The real OSS.
struct Disk(Oss);

impl Service for Disk {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        let wire::Request::Oss(request) = call.decode()? else { panic!("this is an OSS") };
        self.0.handle(&request, &call, replies)
    }

    fn takes_memory(&self, _: Peer) -> bool {
        true
    }
}

/// A filesystem whose servers are in memory, except its OSS perhaps.
pub(super) struct Cluster {
    pub(super) oss: Arc<FakeOss>,
    pub(super) mds: Arc<FakeMds>,
    pub(super) config: FsConfig,
    server: Option<Server>,
    dir: tempfile::TempDir,
}

impl Cluster {
    pub(super) fn new(osts: u16) -> Cluster {
        let mut cluster = Cluster::without_oss(osts);
        cluster.start();
        cluster
    }

    /// With the real OSS; what is told and asked of the one in memory tells nothing then.
    pub(super) fn on_disk(osts: u16) -> Cluster {
        let mut cluster = Cluster::without_oss(osts);
        let oss = Oss::new();
        for index in (0..osts).map(OstIndex) {
            let label = Label { id: 1, fs: FS.to_owned(), index };
            let dir = cluster.dir.path().join(index.0.to_string());
            Ost::format(&dir, &label).unwrap();
            oss.add(Ost::open(&dir, &label).unwrap());
        }
        cluster.serve(Arc::new(Disk(oss)));
        cluster
    }

    fn without_oss(osts: u16) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("oss");
        let oss = Arc::new(FakeOss::default());
        let mds = FakeMds {
            files: Mutex::default(),
            oss: Arc::clone(&oss),
            osts,
            socket: socket.clone(),
            limit: Mutex::default(),
        };
        let address = Address::Unix(socket);
        let ost = |n| mgs::Ost {
            index: OstIndex(n),
            uuid: String::new(),
            rank: 0,
            address: address.clone(),
            draining: false,
        };
        let osts = (0..osts).map(ost).collect();
        let mdt = address.clone();
        let config = FsConfig {
            name: FS.to_owned(),
            id: FsId(1),
            version: 1,
            mdt_rank: 0,
            mdt,
            osts,
            snapshots: Vec::new(),
        };
        Cluster { oss, mds: Arc::new(mds), config, server: None, dir }
    }

    pub(super) fn start(&mut self) {
        self.serve(Arc::clone(&self.oss));
    }

    fn serve<S: Service>(&mut self, service: Arc<S>) {
        let listener = Listener::bind_unix(&self.dir.path().join("oss")).unwrap();
        self.server = Some(serve(listener, ServeLimits::default(), service));
    }

    /// Connections that the OSS has.
    pub(super) fn connections(&self) -> usize {
        self.server.as_ref().map_or(0, Server::connections)
    }

    /// Waits until it has none any more.
    pub(super) fn await_no_connection(&self) {
        let begun = Instant::now();
        while self.connections() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(30), "connections stay open");
            std::thread::yield_now();
        }
    }

    /// The OSS dies; what it has stays.
    pub(super) fn kill(&mut self) {
        self.server.take().expect("it runs").stop(Duration::ZERO);
    }

    pub(super) fn mount(&self, settings: Settings) -> Arc<DataPath> {
        let mds: Arc<dyn Mds> = Arc::clone(&self.mds) as _;
        DataPath::new(mds, Osts::new(&self.config, SESSION), settings)
    }
}
