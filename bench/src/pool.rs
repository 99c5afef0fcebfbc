//! Pools on files, beside plain files on the same disk in the same run.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kiln_pool::format::{DatasetKind, VdevKind};
use kiln_pool::pool::{DatasetId, DiskFile, Host, Pool, RECORD_BYTES, Settings, VdevSpec};
use kiln_world::{Disk as _, File, Open, RealClock, RealDisk, RealRng};
use serde_json::json;

/// What is written and read at once.
const REQUEST_BYTES: usize = 1 << 20;
/// What is made durable at once, where that is measured.
const SYNCED_BYTES: usize = 4096;
/// What a disk has besides its share of the data, for the intent log and for what is written again.
const DISK_BYTES_MORE: u64 = 512 << 20;
/// Those who make something durable at the same time.
const WRITERS: [usize; 2] = [1, 64];

/// What to measure on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An empty directory on the disk that is measured
    dir: std::path::PathBuf,
    /// Mebibytes that are written and read
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Seconds for each figure of synchronous writes
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Only this layout, beside the plain file: "one disk", "mirror of 2" or "raidz1 of 4"
    #[arg(long)]
    layout: Option<String>,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Figures of one layout.
struct Figures {
    name: &'static str,
    /// What the disks take for a byte of data.
    overhead: f64,
    write: f64,
    read: f64,
    scrub: Option<f64>,
    synced: [f64; WRITERS.len()],
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let disk = RealDisk::new(&args.dir).with_context(|| format!("failed to use {}", args.dir.display()))?;
    let mut rows = vec![plain(args, &disk)?];
    let layouts = [
        ("one disk", VdevKind::Mirror, 1, 1.0),
        ("mirror of 2", VdevKind::Mirror, 2, 2.0),
        ("raidz1 of 4", VdevKind::Raidz(1), 4, 4.0 / 3.0),
    ];
    let wanted = |name: &str| args.layout.as_deref().is_none_or(|layout| layout == name);
    for (name, kind, width, overhead) in layouts.into_iter().filter(|(name, ..)| wanted(name)) {
        rows.push(pooled(args, &disk, (name, kind, width, overhead))?);
    }
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                json!({"layout": row.name, "overhead": row.overhead, "write_mb_s": row.write, "read_mb_s": row.read,
                       "scrub_mb_s": row.scrub, "synced_per_s": row.synced})
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    println!("MB/s of data (and of the disks), synchronous writes of 4 KiB per second by 1 and by 64\n");
    println!("{:14} {:>16} {:>16} {:>16} {:>9} {:>9}", "", "write", "read", "scrub", "by 1", "by 64");
    for row in rows {
        let both = |rate: f64| format!("{rate:.0} ({:.0})", rate * row.overhead);
        let scrub = row.scrub.map_or(String::new(), both);
        println!(
            "{:14} {:>16} {:>16} {:>16} {:>9.0} {:>9.0}",
            row.name,
            both(row.write),
            format!("{:.0}", row.read),
            scrub,
            row.synced[0],
            row.synced[1]
        );
    }
    Ok(())
}

/// What is read next comes from the disk, if this is root.
fn forget_pages() {
    if let Err(error) = std::fs::write("/proc/sys/vm/drop_caches", "3") {
        eprintln!("what is read may come from memory: {error}");
    }
}

/// Megabytes per second.
fn rate(bytes: u64, begun: Instant) -> f64 {
    bytes as f64 / begun.elapsed().as_secs_f64() / 1e6
}

/// Gives a file blocks of the disk, as a block device has them: what is measured is not how the filesystem below finds some.
fn fill(file: &dyn File, bytes: u64) -> anyhow::Result<()> {
    let zeros = vec![0; REQUEST_BYTES];
    for at in (0..bytes).step_by(REQUEST_BYTES) {
        file.write_all_at(&[&zeros], at)?;
    }
    Ok(file.sync()?)
}

fn pattern() -> Vec<u8> {
    let mut state = 1_u64;
    let word = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    (0..REQUEST_BYTES).map(word).collect()
}

fn plain(args: &Args, disk: &RealDisk) -> anyhow::Result<Figures> {
    let (name, bytes) = (Path::new("plain"), args.mib << 20);
    let file = disk.open(name, Open::OrCreate)?;
    fill(&*file, bytes)?;
    let data = pattern();
    let begun = Instant::now();
    for at in (0..bytes).step_by(REQUEST_BYTES) {
        file.write_all_at(&[&data], at)?;
    }
    file.sync()?;
    let write = rate(bytes, begun);
    forget_pages();
    let mut into = vec![0; REQUEST_BYTES];
    let begun = Instant::now();
    for at in (0..bytes).step_by(REQUEST_BYTES) {
        anyhow::ensure!(file.read_at(&mut into, at)? == REQUEST_BYTES, "it was written");
    }
    let read = rate(bytes, begun);
    let synced = |writers: usize| {
        synced_per_second(args, writers, |writer, round| {
            let at = (writer as u64 * 1024 + round % 1024) * SYNCED_BYTES as u64;
            file.write_all_at(&[&data[..SYNCED_BYTES]], at)?;
            Ok(file.sync()?)
        })
    };
    let synced = [synced(WRITERS[0])?, synced(WRITERS[1])?];
    disk.remove(name)?;
    Ok(Figures { name: "plain file", overhead: 1.0, write, read, scrub: None, synced })
}

fn pooled(
    args: &Args,
    disk: &RealDisk,
    (name, kind, width, overhead): (&'static str, VdevKind, usize, f64),
) -> anyhow::Result<Figures> {
    let bytes = args.mib << 20;
    let open = |index: usize| {
        let path = format!("disk{index}");
        let file = disk.open(Path::new(&path), Open::OrCreate)?;
        fill(&*file, (bytes as f64 * overhead / width as f64 * 1.2) as u64 + DISK_BYTES_MORE)?;
        Ok(DiskFile { path, file })
    };
    let disks = (0..width).map(open).collect::<anyhow::Result<_>>()?;
    let (clock, rng) = (Arc::new(RealClock::new()), Arc::new(RealRng));
    let host = Host { name: "bench".into(), clock, rng };
    let pool = Pool::create("bench", vec![VdevSpec { kind, disks }], &host, Settings::default(), true)?;
    let dataset = pool.create_dataset("data", RECORD_BYTES, DatasetKind::Objects)?;
    let data = pattern();
    let begun = Instant::now();
    for at in (0..bytes).step_by(REQUEST_BYTES) {
        pool.write(dataset, 1, at, &data)?;
    }
    pool.commit()?;
    let write = rate(bytes, begun);
    forget_pages();
    let mut into = vec![0; REQUEST_BYTES];
    let begun = Instant::now();
    for at in (0..bytes).step_by(REQUEST_BYTES) {
        anyhow::ensure!(pool.read(dataset, 1, at, &mut into)? == REQUEST_BYTES, "it was written");
    }
    let read = rate(bytes, begun);
    forget_pages();
    let begun = Instant::now();
    let report = pool.scrub().run()?;
    anyhow::ensure!(report.mended == 0 && report.damaged_records == 0, "it is whole");
    let scrub = Some(rate(bytes, begun));
    let synced = |writers: usize| {
        synced_per_second(args, writers, |writer, round| write_synced(&pool, dataset, &data, writer, round))
    };
    let synced = [synced(WRITERS[0])?, synced(WRITERS[1])?];
    drop(pool);
    (0..width).try_for_each(|index| disk.remove(Path::new(&format!("disk{index}"))))?;
    Ok(Figures { name, overhead, write, read, scrub, synced })
}

fn write_synced(
    pool: &Pool,
    dataset: DatasetId,
    data: &[u8],
    writer: usize,
    round: u64,
) -> anyhow::Result<()> {
    let object = 100 + writer as u64;
    pool.write(dataset, object, round % 1024 * SYNCED_BYTES as u64, &data[..SYNCED_BYTES])?;
    Ok(pool.sync(dataset, &[object])?)
}

/// How often `act` is done in a second by so many at the same time.
fn synced_per_second(
    args: &Args,
    writers: usize,
    act: impl Fn(usize, u64) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<f64> {
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let work = |writer: usize| {
            let (stop, done, act) = (&stop, &done, &act);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    act(writer, round)?;
                    round += 1;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            })
        };
        let threads: Vec<_> = (0..writers).map(work).collect();
        // For so long it is measured.
        std::thread::sleep(Duration::from_secs_f64(args.seconds));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a writer panicked")))
        })
    })?;
    Ok(done.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64())
}
