//! How fast one client is served by an OSS over a unix socket: small calls per second, and the throughput of large ones.
//!
//! `cargo run --release -p kiln-fs --example oss_rate -- DIR [CASE]`; DIR is on the filesystem that the target shall be on,
//! CASE the beginning of what shall be measured.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_fs::core::{ObjectId, OstIndex, SessionId};
use kiln_fs::oss::{Label, Oss, Ost};
use kiln_fs::wire::VERSION;
use kiln_fs::wire::mgs::FsId;
use kiln_fs::wire::oss::{Op, Reply, Request};
use kiln_net::Fault;
use kiln_net::blocking::{Call, Connection, Listener, Replies, ServeLimits, Service, serve};

const LARGE: u32 = 1 << 20;
const SMALL: u32 = 4096;
/// Bytes of the object that is read and written: it stays in the page cache.
const OBJECT_BYTES: u64 = 128 << 20;
/// How long each figure is measured.
const SPAN: Duration = Duration::from_secs(2);

struct Node(Oss);

impl Service for Node {
    fn handle(&self, call: Call, replies: &mut Replies) -> Result<(), Fault> {
        self.0.handle(&call.decode()?, &call, replies)
    }
}

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let wanted = std::env::args().nth(2).unwrap_or_default();
    let dir = dir.join(format!("oss-rate-{}", std::process::id()));
    let label = Label { id: 1, fs: "rate".to_owned(), index: OstIndex(0) };
    Ost::format(&dir, &label)?;
    let node = Node(Oss::new());
    node.0.add(Ost::open(&dir, &label)?);
    let path = dir.join("sock");
    let server = serve(Listener::bind_unix(&path)?, ServeLimits::default(), Arc::new(node));
    let measured = measure(&path, &wanted);
    server.stop(Duration::from_secs(5));
    std::fs::remove_dir_all(&dir)?;
    measured
}

/// Clients, bytes of a call, and the operation at an offset.
type Case = (&'static str, usize, u32, fn(u64, u32) -> Op);

const CASES: [Case; 6] = [
    ("hello", 1, 0, |_, _| Op::Hello { version: VERSION }),
    ("write 1 MiB", 1, LARGE, write_op),
    ("read 1 MiB", 1, LARGE, read_op),
    ("write 4 KiB", 1, SMALL, write_op),
    ("read 4 KiB", 1, SMALL, read_op),
    ("read 1 MiB, two clients", 2, LARGE, read_op),
];

fn measure(path: &Path, wanted: &str) -> Outcome<()> {
    println!("{:<28} {:>12} {:>10} {:>10}", "", "calls/s", "us/call", "MB/s");
    // What is read must be there.
    run(path, LARGE, write_op)?;
    for (name, clients, bytes, op) in CASES.into_iter().filter(|case| case.0.starts_with(wanted)) {
        let rate = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..clients).map(|_| scope.spawn(|| run(path, bytes, op))).collect();
            clients.into_iter().map(|client| client.join().expect("no panic")).sum::<Outcome<f64>>()
        })?;
        println!("{name:<28} {rate:>12.0} {:>10.1} {:>10.0}", 1e6 / rate, rate * f64::from(bytes) / 1e6);
    }
    Ok(())
}

fn read_op(offset: u64, len: u32) -> Op {
    Op::Read { object: ObjectId(1), offset, len }
}

fn write_op(offset: u64, len: u32) -> Op {
    let crc = Some(crc32c::crc32c(&vec![7; len as usize]));
    Op::Write { object: ObjectId(1), offset, crc, sync: false }
}

/// Calls per second of one client that asks at one offset after the other.
fn run(path: &Path, len: u32, op: fn(u64, u32) -> Op) -> Outcome<f64> {
    let mut connection = Connection::connect_unix(path)?;
    let data = vec![7; len as usize];
    let mut asked = Request {
        fs: "rate".to_owned(),
        id: FsId(1),
        ost: OstIndex(0),
        session: SessionId(1),
        op: op(0, len),
    };
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < SPAN {
        move_to(&mut asked.op, calls * u64::from(len) % OBJECT_BYTES);
        let bulk: &[&[u8]] = if matches!(asked.op, Op::Write { .. }) { &[&data] } else { &[] };
        connection.send(&asked, bulk)?;
        let (reply, _): (Reply, Bytes) = connection.receive()?;
        if matches!(reply, Reply::Refused(_)) {
            return Err(format!("{:?}: {reply:?}", asked.op).into());
        }
        calls += 1;
    }
    Ok(calls as f64 / started.elapsed().as_secs_f64())
}

/// The operation at another offset; its checksum stays right.
fn move_to(op: &mut Op, to: u64) {
    if let Op::Read { offset, .. } | Op::Write { offset, .. } = op {
        *offset = to;
    }
}
