//! What an operation on a pool costs when there are ever more records in it.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use kiln_pool::format::{DatasetKind, VdevKind};
use kiln_pool::pool::{DatasetId, DiskFile, Host, Pool, Settings, VdevSpec};
use kiln_world::{Disk as _, Open, RealClock, RealDisk, RealRng};

/// The length of records, and of what is written, in bytes.
const RECORD_BYTES: u32 = 4096;
/// Records of one object.
const OBJECT_RECORDS: u64 = 1 << 20;
/// Operations that are measured.
const MEASURED: u64 = 20_000;
/// Room besides the records: nodes, copies of both while a group is written, the intent log.
const DISK_BYTES_MORE: u64 = 4 << 30;

/// What to measure on.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// An empty directory on the disk that is measured; it needs some 6 KiB for each record
    dir: std::path::PathBuf,
    /// Records at the end, in thousands
    #[arg(long, default_value_t = 1000)]
    thousands: u64,
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let disk = RealDisk::new(&args.dir).with_context(|| format!("failed to use {}", args.dir.display()))?;
    let name = Path::new("disk");
    let file = disk.open(name, Open::OrCreate)?;
    let most = args.thousands * 1000;
    file.set_len(most * u64::from(RECORD_BYTES) * 3 / 2 + DISK_BYTES_MORE)?;
    let host = Host { name: "bench".into(), clock: Arc::new(RealClock::new()), rng: Arc::new(RealRng) };
    let plain = disk.open(name, Open::Existing)?;
    let vdev = VdevSpec { kind: VdevKind::Mirror, disks: vec![DiskFile { path: "disk".into(), file }] };
    let pool = Pool::create("bench", vec![vdev], &host, Settings::default(), true)?;
    let dataset = pool.create_dataset("data", RECORD_BYTES, DatasetKind::Objects)?;
    println!(
        "microseconds for each record of {RECORD_BYTES} bytes; beside it a read of as much of the pool's disk\n\n\
         {:>12} {:>10} {:>12} {:>12} {:>12}",
        "records", "append", "overwrite", "read", "of the disk"
    );
    let (mut count, mut next) = (0, 10_000.min(most));
    while count < most {
        let append = measure(count..next, |number| write(&pool, dataset, number))?;
        pool.commit()?;
        count = next;
        let random = |step: u64| step.wrapping_mul(0x9e37_79b9_7f4a_7c15) % count;
        let begun = Instant::now();
        for step in 0..MEASURED {
            write(&pool, dataset, random(step))?;
        }
        pool.commit()?;
        let overwrite = begun.elapsed().as_secs_f64() * 1e6 / MEASURED as f64;
        let read = measure(0..MEASURED, |step| {
            let mut into = [0; RECORD_BYTES as usize];
            let (object, offset) = place(random(step + MEASURED));
            anyhow::ensure!(pool.read(dataset, object, offset, &mut into)? == into.len(), "it was written");
            Ok(())
        })?;
        let of_disk = measure(0..MEASURED, |step| {
            let mut into = [0; RECORD_BYTES as usize];
            // Other places than those that were read just now.
            let offset = random(step + 2 * MEASURED) * u64::from(RECORD_BYTES);
            anyhow::ensure!(plain.read_at(&mut into, offset)? == into.len(), "the disk is longer");
            Ok(())
        })?;
        println!("{count:>12} {append:>10.1} {overwrite:>12.1} {read:>12.1} {of_disk:>12.1}");
        next = (count * 10).min(most);
    }
    pool.snapshot(&[dataset], "all")?;
    let begun = Instant::now();
    for object in 0..=place(most).0 {
        pool.destroy(dataset, object)?;
    }
    pool.commit()?;
    let destroyed = begun.elapsed().as_secs_f64();
    let snapshot = pool.snapshot_of("data", "all").context("the snapshot was made")?;
    let begun = Instant::now();
    pool.destroy_dataset(snapshot)?;
    pool.commit()?;
    let freed = begun.elapsed().as_secs_f64();
    println!(
        "\nall objects destroyed beside a snapshot of them in {destroyed:.1} s, the snapshot in {freed:.1} s; \
         memory at most {} MiB",
        memory_mib_max()?
    );
    drop(pool);
    disk.remove(name)?;
    Ok(())
}

/// The most memory that this process has had, in MiB.
fn memory_mib_max() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? >> 10)
}

/// The object of a record, and where in it the record lies.
fn place(number: u64) -> (u64, u64) {
    (number / OBJECT_RECORDS, number % OBJECT_RECORDS * u64::from(RECORD_BYTES))
}

fn write(pool: &Pool, dataset: DatasetId, number: u64) -> anyhow::Result<()> {
    let (object, offset) = place(number);
    let bytes = [number as u8 | 1; RECORD_BYTES as usize];
    Ok(pool.write(dataset, object, offset, &bytes)?)
}

/// Microseconds for each.
fn measure(
    numbers: std::ops::Range<u64>,
    mut act: impl FnMut(u64) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let (begun, count) = (Instant::now(), numbers.end - numbers.start);
    for number in numbers {
        act(number)?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / count as f64)
}
