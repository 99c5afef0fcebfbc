//! Produces and consumes over Kafka's wire as fast as it goes, and counts what the broker's processor spends on it.
//!
//! The generator speaks `Produce` 7 and `Fetch` 11 itself, with batches that are built once, so that on two cores the
//! broker and not the client is measured. Without `--connect` it starts a broker of its own in another process, on
//! a directory that is removed afterwards.

use anyhow::{Context, Result, bail, ensure};
use kiln_log::batch::{Builder, Record, batches, records};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::own::{self, Own, cpu_time};

/// What is measured, and against whom.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A broker that is running: HOST:PORT.
    #[arg(long)]
    connect: Option<String>,
    /// Its process, to count its processor time.
    #[arg(long)]
    pid: Option<u32>,
    /// Be the broker: serve this directory on a free port.
    #[arg(long, hide = true)]
    serve: Option<PathBuf>,
    /// Where the own broker keeps its data.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Bytes to produce and to consume in each run, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Connections, each to a partition of its own.
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Requests in flight on each connection.
    #[arg(long, default_value_t = 5)]
    in_flight: usize,
    /// One JSON object instead of the table.
    #[arg(long)]
    json: bool,
}

/// One way to produce.
struct Load {
    name: &'static str,
    record_bytes: usize,
    records_per_batch: usize,
    acks: i16,
    in_flight: usize,
    /// Share of the bytes of a run, so that slow ways end too.
    share: f64,
}

const KIB: usize = 1 << 10;

/// Messages per second, and in all, of the measurement of delays.
const PACE_PER_SECOND: u32 = 1_000;
const PACED_MESSAGES: u32 = 5_000;

fn loads(in_flight: usize) -> Vec<Load> {
    let load = |name, record_bytes, records_per_batch, acks, in_flight, share| Load {
        name,
        record_bytes,
        records_per_batch,
        acks,
        in_flight,
        share,
    };
    vec![
        load("1 KiB x 900, acks=all", KIB, 900, -1, in_flight, 1.0),
        load("1 KiB x 100, acks=all", KIB, 100, -1, in_flight, 0.5),
        load("1 KiB x 900, acks=1", KIB, 900, 1, in_flight, 1.0),
        load("100 B x 8000, acks=all", 100, 8000, -1, in_flight, 0.25),
        load("100 B x 1, acks=1, one in flight", 100, 1, 1, 1, 0.002),
        load("100 B x 1, acks=all, one in flight", 100, 1, -1, 1, 0.0005),
    ]
}

/// Runs the benchmark, or the broker of one.
pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(dir) = &args.serve {
        return serve(dir);
    }
    let own = if args.connect.is_none() { Some(Own::start("kafka", &args.dir)?) } else { None };
    let address = match (&args.connect, &own) {
        (Some(address), _) => address.clone(),
        (None, Some(own)) => own.address().to_owned(),
        (None, None) => bail!("no broker"),
    };
    let pid = args.pid.or_else(|| own.as_ref().map(Own::pid));
    let mut rows = Vec::new();
    for (n, load) in loads(args.in_flight).iter().enumerate() {
        let topic = format!("bench-{}-{n}", std::process::id());
        let bytes = (args.mib as f64 * load.share * 1_048_576.0) as usize / args.connections;
        rows.push(measure(&format!("produce {}", load.name), pid, args.connections, |n| {
            produce(&address, &format!("{topic}-{n}"), load, bytes)
        })?);
        if load.records_per_batch > 1 {
            let count = rows.last().map_or(0, |row: &Row| row.messages) / args.connections as u64;
            let what = format!("consume {} B", load.record_bytes);
            rows.push(measure(&what, pid, args.connections, |n| {
                consume(&address, &format!("{topic}-{n}"), count)
            })?);
        }
    }
    let topic = format!("bench-{}-latency", std::process::id());
    let delays = end_to_end(&address, &topic)?;
    report(&rows, &delays, args.json);
    Ok(())
}

/// What one run came to.
struct Row {
    what: String,
    messages: u64,
    bytes: u64,
    elapsed: Duration,
    broker_cpu: Option<Duration>,
}

fn measure(
    what: &str,
    pid: Option<u32>,
    connections: usize,
    work: impl Fn(usize) -> Result<(u64, u64)> + std::marker::Sync,
) -> Result<Row> {
    let cpu_before = pid.map(cpu_time).transpose()?;
    let started = Instant::now();
    let done: Vec<Result<(u64, u64)>> = thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..connections).map(|n| scope.spawn(move || work(n))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    });
    let elapsed = started.elapsed();
    let broker_cpu = match (pid, cpu_before) {
        (Some(pid), Some(before)) => Some(cpu_time(pid)?.saturating_sub(before)),
        _ => None,
    };
    let (mut messages, mut bytes) = (0, 0);
    for one in done {
        let (m, b) = one?;
        messages += m;
        bytes += b;
    }
    Ok(Row { what: what.to_owned(), messages, bytes, elapsed, broker_cpu })
}

fn report(rows: &[Row], delays: &[Duration], as_json: bool) {
    let figures = |row: &Row| {
        let seconds = row.elapsed.as_secs_f64();
        let cpu = row.broker_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / row.messages as f64);
        (row.bytes as f64 / 1e6 / seconds, row.messages as f64 / seconds, cpu)
    };
    if as_json {
        let object = |row: &Row| {
            let (mb, messages, cpu) = figures(row);
            json!({"what": row.what, "mb_per_s": mb, "messages_per_s": messages, "broker_us_per_message": cpu})
        };
        let (p50, p99) = (millis(delays, 0.5), millis(delays, 0.99));
        let runs: Vec<Value> = rows.iter().map(object).collect();
        println!("{}", json!({"runs": runs, "end_to_end_ms_p50": p50, "end_to_end_ms_p99": p99}));
        return;
    }
    println!("{:<46} {:>9} {:>12} {:>16}", "", "MB/s", "messages/s", "broker us/msg");
    for row in rows {
        let (mb, messages, cpu) = figures(row);
        let cpu = cpu.map_or("-".into(), |cpu| format!("{cpu:.2}"));
        println!("{:<46} {mb:>9.1} {messages:>12.0} {cpu:>16}", row.what);
    }
    let (p50, p99) = (millis(delays, 0.5), millis(delays, 0.99));
    println!("end to end, 100 B at {PACE_PER_SECOND}/s, acks=all: p50 {p50:.2} ms, p99 {p99:.2} ms");
}

/// The delay that this share of all do not exceed, in milliseconds; `delays` is sorted.
fn millis(delays: &[Duration], share: f64) -> f64 {
    let at = (delays.len() as f64 * share) as usize;
    delays.get(at.min(delays.len().saturating_sub(1))).map_or(0.0, |delay| delay.as_secs_f64() * 1e3)
}

/// From a producer's send to a consumer's receipt, at a steady pace; sorted.
fn end_to_end(address: &str, topic: &str) -> Result<Vec<Duration>> {
    let mut stream = connect(address)?;
    create(&mut stream, topic)?;
    let epoch = Instant::now();
    thread::scope(|scope| {
        let consumer = scope.spawn(|| receive_stamps(address, topic, epoch));
        let mut answers = stream.try_clone()?;
        let drain = scope.spawn(move || {
            let mut buffer = Vec::new();
            (0..PACED_MESSAGES).try_for_each(|_| response(&mut answers, &mut buffer).map(drop))
        });
        for n in 0..PACED_MESSAGES {
            let due = Duration::from_secs_f64(f64::from(n) / f64::from(PACE_PER_SECOND));
            thread::sleep(due.saturating_sub(epoch.elapsed()));
            let mut value = [0_u8; 100];
            value[..8].copy_from_slice(&(epoch.elapsed().as_nanos() as u64).to_be_bytes());
            let mut builder = Builder::new(now_ms());
            builder.push(&Record { value: Some(&value), time_ms: now_ms(), ..Record::default() });
            stream.write_all(&produce_request(topic, -1, &builder.finish()))?;
        }
        drain.join().unwrap_or_else(|_| bail!("a thread panicked"))?;
        consumer.join().unwrap_or_else(|_| bail!("a thread panicked"))
    })
}

fn receive_stamps(address: &str, topic: &str, epoch: Instant) -> Result<Vec<Duration>> {
    let mut stream = connect(address)?;
    let mut delays = Vec::with_capacity(PACED_MESSAGES as usize);
    let mut buffer = Vec::new();
    while delays.len() < PACED_MESSAGES as usize {
        stream.write_all(&fetch_request(topic, delays.len() as i64))?;
        let answer = response(&mut stream, &mut buffer)?;
        let arrived = epoch.elapsed();
        for (_, batch) in batches(&answer[fetched_records_at(topic)..]) {
            for record in records(batch) {
                let value = record?.value.unwrap_or_default();
                let sent = u64::from_be_bytes(*value.first_chunk().context("a stamp of 8 bytes")?);
                delays.push(arrived.saturating_sub(Duration::from_nanos(sent)));
            }
        }
    }
    delays.sort_unstable();
    Ok(delays)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as i64
}

/// Records of random-looking bytes, as one batch.
fn batch(load: &Load) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_u32;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    })
    .take(load.record_bytes)
    .collect();
    // Of now, so that retention leaves the records alone while they are measured.
    let time_ms = now_ms();
    let mut builder = Builder::new(time_ms);
    for _ in 0..load.records_per_batch {
        builder.push(&Record { value: Some(&value), time_ms, ..Record::default() });
    }
    builder.finish()
}

fn header(out: &mut Vec<u8>, key: i16, version: i16) {
    out.extend(key.to_be_bytes());
    out.extend(version.to_be_bytes());
    out.extend(1_i32.to_be_bytes());
    string(out, "kiln-bench");
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i16).to_be_bytes());
    out.extend(text.as_bytes());
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes(), body].concat()
}

fn connect(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads one response into `buffer`; its body without the correlation id.
fn response<'b>(stream: &mut TcpStream, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    buffer.resize(i32::from_be_bytes(len) as usize, 0);
    stream.read_exact(buffer)?;
    Ok(&buffer[4..])
}

/// `Metadata` 1 for the topic, which creates it.
fn create(stream: &mut TcpStream, topic: &str) -> Result<()> {
    let mut body = Vec::new();
    header(&mut body, 3, 1);
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    stream.write_all(&framed(&body))?;
    response(stream, &mut Vec::new()).map(drop)
}

fn produce(address: &str, topic: &str, load: &Load, bytes: usize) -> Result<(u64, u64)> {
    let mut stream = connect(address)?;
    create(&mut stream, topic)?;
    let request = produce_request(topic, load.acks, &batch(load));
    let requests = bytes.div_ceil(load.record_bytes * load.records_per_batch).max(1);
    let (mut sent, mut answered) = (0, 0);
    let mut buffer = Vec::new();
    while answered < requests {
        while sent < requests && sent - answered < load.in_flight {
            stream.write_all(&request)?;
            sent += 1;
        }
        let answer = response(&mut stream, &mut buffer)?;
        // One topic, its name, one partition, its number; then the error.
        let at = 4 + 2 + topic.len() + 4 + 4;
        let error = i16::from_be_bytes([answer[at], answer[at + 1]]);
        ensure!(error == 0, "the broker answers with error {error}");
        answered += 1;
    }
    let messages = (requests * load.records_per_batch) as u64;
    Ok((messages, messages * load.record_bytes as u64))
}

fn produce_request(topic: &str, acks: i16, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(batch.len() + 100);
    header(&mut body, 0, 7);
    body.extend((-1_i16).to_be_bytes());
    body.extend(acks.to_be_bytes());
    body.extend(30_000_i32.to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend((batch.len() as i32).to_be_bytes());
    body.extend(batch);
    framed(&body)
}

/// From a partition's error to its records: error, three offsets, no aborted transactions, preferred replica, length.
const FETCHED_FIXED_BYTES: usize = 2 + 24 + 4 + 4 + 4;

/// Where the records begin in the answer to [`fetch_request`]: behind throttle, error, session, one topic, its name, one
/// partition and its number.
fn fetched_records_at(topic: &str) -> usize {
    4 + 2 + 4 + 4 + 2 + topic.len() + 4 + 4 + FETCHED_FIXED_BYTES
}

fn consume(address: &str, topic: &str, count: u64) -> Result<(u64, u64)> {
    let mut stream = connect(address)?;
    let (mut offset, mut bytes) = (0_i64, 0);
    let mut buffer = Vec::new();
    while (offset as u64) < count {
        stream.write_all(&fetch_request(topic, offset))?;
        let answer = response(&mut stream, &mut buffer)?;
        let at = fetched_records_at(topic) - FETCHED_FIXED_BYTES;
        let error = i16::from_be_bytes([answer[at], answer[at + 1]]);
        ensure!(error == 0, "the broker answers with error {error}");
        for (header, batch) in batches(&answer[fetched_records_at(topic)..]) {
            offset = header.last().0 + 1;
            bytes += batch.len() as u64;
        }
    }
    Ok((offset as u64, bytes))
}

fn fetch_request(topic: &str, offset: i64) -> Vec<u8> {
    let mut body = Vec::new();
    header(&mut body, 1, 11);
    for number in [-1_i32, 500, 1, 50 << 20] {
        body.extend(number.to_be_bytes());
    }
    body.push(0);
    body.extend(0_i32.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(1_i32.to_be_bytes());
    string(&mut body, topic);
    body.extend(1_i32.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    body.extend((-1_i32).to_be_bytes());
    body.extend(offset.to_be_bytes());
    body.extend((-1_i64).to_be_bytes());
    body.extend((1_i32 << 20).to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    string(&mut body, "");
    framed(&body)
}

#[tokio::main]
async fn serve(dir: &Path) -> Result<()> {
    use kiln_kafka::{Broker, KafkaMachine, Parts, Settings};
    use kiln_world::{RealClock, RealDisk, RealRng};
    use std::sync::Arc;
    let volume = kiln_log::Volume::start(Arc::new(RealDisk::new(dir)?), Arc::new(RealClock::new()));
    let store = kiln_store::Store::builder(volume.clone(), "store").machine(KafkaMachine).open()?;
    let parts = Parts { volume, store: store.handle(), auth: None, rng: Arc::new(RealRng) };
    let broker = Broker::start(parts, Settings::default()).await?;
    let (_trigger, shutdown) = kiln_net::shutdown_pair();
    let handle = broker.serve(tokio::net::TcpListener::bind("127.0.0.1:0").await?, shutdown);
    own::announce(handle.address().context("it listens")?)?;
    own::parent_gone().await;
    Ok(())
}
