//! How fast the data path of a client is: sequential writes and reads by the size of a request, and small ones at random.
//!
//! `cargo run --release -p kiln-fs --example data_rate -- DIR [CASE]`; DIR is on the filesystem that the two OSTs shall be
//! on, CASE the beginning of what shall be measured. Everything runs in this process; the OSTs are reached over unix sockets.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_fs::client::data::{DataPath, FileData, Mds, Mode, Osts, Settings, Written};
use kiln_fs::core::layout::{Pattern, Spread, Stripes};
use kiln_fs::core::{Attr, Errno, FileKind, Ino, Layout, ObjectId, OstIndex, SessionId, Time};
use kiln_fs::oss::{Label, Oss, Ost};
use kiln_fs::wire::Request;
use kiln_fs::wire::mgs::{self, Address, FsConfig};
use kiln_net::Status;
use kiln_net::blocking::{Call, Listener, Replies, ServeLimits, Server, Service, serve};
use kiln_net::{Fault, Peer};

const OSTS: u16 = 2;
const STRIPE_BYTES: u32 = 1 << 20;
const LARGE: u32 = 1 << 20;
const MIDDLE: u32 = 128 << 10;
const SMALL: u32 = 4096;
/// The file that is written and read.
const FILE_BYTES: u64 = 512 << 20;
/// How long small requests are measured.
const SPAN: Duration = Duration::from_secs(2);

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

struct Node(Oss);

impl Service for Node {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        match call.decode()? {
            Request::Oss(request) => self.0.handle(&request, &call, replies),
            _ => Err(Fault::new(Status::BadRequest, "this is an OSS")),
        }
    }

    fn takes_memory(&self, _: Peer) -> bool {
        true
    }
}

/// The MDS of one file, in memory.
struct OneFile(Mutex<(Attr, Layout)>);

impl OneFile {
    fn get(&self) -> (Attr, Layout) {
        self.0.lock().expect("nobody panics").clone()
    }
}

impl Mds for OneFile {
    fn sync(&self) -> Result<(), Errno> {
        Ok(())
    }

    fn place(&self, _: Ino, _: u64) -> Result<Layout, Errno> {
        Ok(self.get().1)
    }

    fn layout(&self, _: Ino) -> Result<Layout, Errno> {
        Ok(self.get().1)
    }

    fn read_inline(&self, _: Ino, _: u64, _: u32) -> Result<Bytes, Errno> {
        Err(Errno::EIO)
    }

    fn write_inline(&self, _: Ino, _: u64, _: &[u8], _: Time) -> Result<Attr, Errno> {
        Err(Errno::EIO)
    }

    fn zero_inline(&self, _: Ino, _: u64, _: u64) -> Result<(), Errno> {
        Err(Errno::EIO)
    }

    fn written(&self, _: Ino, written: Written) -> Result<Attr, Errno> {
        let (attr, _) = &mut *self.0.lock().expect("nobody panics");
        attr.size = attr.size.max(written.size);
        attr.mtime = written.mtime.unwrap_or(attr.mtime);
        attr.blocks = written.blocks.unwrap_or(attr.blocks);
        attr.version += 1;
        Ok(attr.clone())
    }
}

fn main() -> Outcome<()> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let wanted = std::env::args().nth(2).unwrap_or_default();
    let dir = dir.join(format!("data-rate-{}", std::process::id()));
    let (config, servers) = start(&dir)?;
    let osts = Osts::new(&config, SessionId(1));
    let mds = Arc::new(OneFile(Mutex::new(one_file())));
    let path = DataPath::new(Arc::clone(&mds) as _, osts, Settings::default());
    let (attr, layout) = mds.get();
    let file = path.file(attr.ino, &attr, layout, None);
    let measured = measure(&file, &wanted);
    drop(path);
    for server in servers {
        server.stop(Duration::from_secs(5));
    }
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn start(dir: &Path) -> Outcome<(FsConfig, Vec<Server>)> {
    let (mut osts, mut servers) = (Vec::new(), Vec::new());
    for index in (0..OSTS).map(OstIndex) {
        let label = Label { id: 1, fs: "rate".to_owned(), index };
        let target = dir.join(format!("ost{}", index.0));
        Ost::format(&target, &label)?;
        let node = Node(Oss::new());
        node.0.add(Ost::open(&target, &label)?);
        let socket = target.join("sock");
        servers.push(serve(Listener::bind_unix(&socket)?, ServeLimits::default(), Arc::new(node)));
        osts.push(mgs::Ost {
            index,
            uuid: String::new(),
            rank: 0,
            address: Address::Unix(socket),
            draining: false,
        });
    }
    let mdt = Address::Unix(dir.join("none"));
    Ok((
        FsConfig {
            name: "rate".to_owned(),
            id: mgs::FsId(1),
            version: 1,
            mdt_rank: 0,
            mdt,
            osts,
            snapshots: Vec::new(),
        },
        servers,
    ))
}

fn one_file() -> (Attr, Layout) {
    let mut layout = Spread::plain(0, STRIPE_BYTES, Stripes { count: None, first: None }).to_layout();
    if let Pattern::Raid0 { objects, .. } = &mut layout.components[0].pattern {
        objects.extend((0..OSTS).map(|n| (OstIndex(n), ObjectId(1))));
    }
    let attr = Attr::new(Ino(2), FileKind::Regular, 0o644, Time::default());
    (attr, layout)
}

/// Answers bytes and calls.
type Case = (&'static str, fn(&FileData) -> Outcome<(u64, u64)>);

const CASES: [Case; 9] = [
    ("write 1 MiB + sync", |file| write_all(file, LARGE)),
    ("write 1 MiB + sync, again", |file| write_all(file, LARGE)),
    ("write 128 KiB + sync", |file| write_all(file, MIDDLE)),
    ("read 1 MiB", |file| read_all(file, LARGE)),
    ("read 128 KiB", |file| read_all(file, MIDDLE)),
    ("read 4 KiB at random", |file| read_random(file, 1)),
    ("read 4 KiB at random, 4 threads", |file| read_random(file, 4)),
    ("write 4 KiB at random + sync", |file| write_random(file, Mode::Cached)),
    ("write 4 KiB at random, direct", |file| write_random(file, Mode::Direct)),
];

fn measure(file: &FileData, wanted: &str) -> Outcome<()> {
    println!("{:<34} {:>12} {:>10}", "", "calls/s", "MB/s");
    write_all(file, LARGE)?; // What is read must be there.
    for (name, case) in CASES.into_iter().filter(|case| case.0.starts_with(wanted)) {
        file.forget_clean();
        let started = Instant::now();
        let (bytes, calls) = case(file)?;
        let secs = started.elapsed().as_secs_f64();
        println!("{name:<34} {:>12.0} {:>10.0}", calls as f64 / secs, bytes as f64 / 1e6 / secs);
    }
    Ok(())
}

fn write_all(file: &FileData, len: u32) -> Outcome<(u64, u64)> {
    let data = vec![7; len as usize];
    let calls = FILE_BYTES / u64::from(len);
    for n in 0..calls {
        file.write(n * u64::from(len), &data, Mode::Cached, false)?;
    }
    file.sync()?;
    Ok((FILE_BYTES, calls))
}

fn read_all(file: &FileData, len: u32) -> Outcome<(u64, u64)> {
    let calls = FILE_BYTES / u64::from(len);
    for n in 0..calls {
        file.read(n * u64::from(len), len, Mode::Cached)?;
    }
    Ok((FILE_BYTES, calls))
}

/// Offsets that look random.
fn places(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::from_fn(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Some((state >> 33) % (FILE_BYTES / u64::from(SMALL)) * u64::from(SMALL))
    })
}

fn read_random(file: &FileData, threads: u64) -> Outcome<(u64, u64)> {
    let calls = std::thread::scope(|scope| {
        let one = |seed| {
            let started = Instant::now();
            let mut calls = 0;
            for at in places(seed).take_while(|_| started.elapsed() < SPAN) {
                file.read(at, SMALL, Mode::Cached)?;
                calls += 1;
            }
            Ok(calls)
        };
        let readers: Vec<_> = (0..threads).map(|seed| scope.spawn(move || one(seed))).collect();
        readers.into_iter().map(|reader| reader.join().expect("nobody panics")).sum::<Outcome<u64>>()
    })?;
    Ok((calls * u64::from(SMALL), calls))
}

fn write_random(file: &FileData, mode: Mode) -> Outcome<(u64, u64)> {
    let (started, data) = (Instant::now(), [9; SMALL as usize]);
    let mut calls = 0;
    for at in places(3).take_while(|_| started.elapsed() < SPAN) {
        file.write(at, &data, mode, false)?;
        calls += 1;
    }
    file.sync()?;
    Ok((calls * u64::from(SMALL), calls))
}
