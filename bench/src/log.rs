//! The log against its disk: durable appends by many writers beside a bare write-and-fdatasync loop, and big batches
//! beside plain sequential writing, alternating in the same run so that both meet the same disk.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use kiln_log::batch::{Builder, Record};
use kiln_log::{Log, Settings, Volume};
use kiln_types::Offset;
use kiln_world::{RealClock, RealDisk};
use serde_json::{Value, json};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// How many writers share one log.
const WRITERS: [usize; 3] = [1, 16, 256];
/// Big batches that may wait for the disk at once.
const WINDOW: usize = 16;

/// What and how long to measure.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A directory on the disk to measure; what is written there is removed again
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Seconds for each measurement of single appends
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Mebibytes for each measurement of sequential writing
    #[arg(long, default_value_t = 512)]
    mebibytes: usize,
    /// Rounds; the median is reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Print one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Rates of one round.
struct Round {
    fdatasync: Latencies,
    appends: Vec<Latencies>,
    disk_mb_s: f64,
    log_mb_s: f64,
}

/// Operations in a stretch of time.
struct Latencies {
    per_second: f64,
    /// Sorted.
    each: Vec<Duration>,
}

impl Latencies {
    fn new(mut each: Vec<Duration>, elapsed: Duration) -> Latencies {
        each.sort_unstable();
        Latencies { per_second: each.len() as f64 / elapsed.as_secs_f64(), each }
    }

    /// In microseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.each.len() * percent / 100).min(self.each.len().saturating_sub(1));
        self.each.get(at).map_or(0.0, |each| each.as_secs_f64() * 1e6)
    }
}

/// Runs the benchmark and prints its figures.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    // The first bytes ever written to a part of a virtual disk can be several times slower than later ones.
    write_through(&Scratch::new(&args.dir)?.0.join("warm-up"), args.mebibytes)?;
    let rounds =
        (0..args.rounds.max(1)).map(|number| round(args, number)).collect::<anyhow::Result<Vec<_>>>()?;
    let report = Report::new(&rounds);
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

fn round(args: &Args, number: usize) -> anyhow::Result<Round> {
    let scratch = Scratch::new(&args.dir)?;
    let time = Duration::from_secs_f64(args.seconds);
    let fdatasync = write_and_sync(&scratch.0.join("plain"), time)?;
    let appends =
        WRITERS.iter().map(|writers| append(&scratch.0, *writers, time)).collect::<Result<_, _>>()?;
    let plain = || write_through(&scratch.0.join("big"), args.mebibytes);
    let log = || append_big(&scratch.0, args.mebibytes);
    // Whoever comes second finds the disk busier or its cache fuller: they take turns.
    let (disk_mb_s, log_mb_s) = if number.is_multiple_of(2) {
        let disk = plain()?;
        (disk, log()?)
    } else {
        let log = log()?;
        (plain()?, log)
    };
    Ok(Round { fdatasync, appends, disk_mb_s, log_mb_s })
}

/// A directory that is removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(parent: &Path) -> anyhow::Result<Scratch> {
        let dir = parent.join(format!("kiln-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("failed to create {}", dir.display()))?;
        Ok(Scratch(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is the end of the run either way; a leftover directory is visible and harmless.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The limit for one writer: 1 KiB at the end of a file, and fdatasync, again and again.
fn write_and_sync(path: &Path, time: Duration) -> anyhow::Result<Latencies> {
    let mut file = fs::File::create(path)?;
    let block = vec![7; KIB];
    let mut each = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < time {
        let one = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        each.push(one.elapsed());
    }
    Ok(Latencies::new(each, begin.elapsed()))
}

/// The limit for big batches: a new file written from front to end, and one fdatasync. In MB/s (10^6).
fn write_through(path: &Path, mebibytes: usize) -> anyhow::Result<f64> {
    let mut file = fs::File::create(path)?;
    let block = vec![7; MIB];
    let begin = Instant::now();
    for _ in 0..mebibytes {
        file.write_all(&block)?;
    }
    file.sync_data()?;
    let rate = megabytes(mebibytes) / begin.elapsed().as_secs_f64();
    drop(file);
    fs::remove_file(path)?;
    Ok(rate)
}

/// `writers` tasks, each appending 1 KiB and waiting until it is durable, again and again.
fn append(scratch: &Path, writers: usize, time: Duration) -> anyhow::Result<Latencies> {
    let (volume, log) = open(scratch, &format!("appends-{writers}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let begin = Instant::now();
    let tasks: Vec<_> = (0..writers).map(|_| runtime.spawn(writer(log.clone(), begin + time))).collect();
    let mut each = Vec::new();
    for task in tasks {
        each.extend(runtime.block_on(task)??);
    }
    let elapsed = begin.elapsed();
    volume.close();
    Ok(Latencies::new(each, elapsed))
}

async fn writer(log: Log, until: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut batch = batch(KIB);
    let mut each = Vec::new();
    while Instant::now() < until {
        let one = Instant::now();
        let appended = log.append(&mut batch, 0)?;
        log.durable(appended.last).await?;
        each.push(one.elapsed());
    }
    Ok(each)
}

/// One task that appends batches of 1 MiB, some of them waiting for the disk at once. In MB/s (10^6).
fn append_big(scratch: &Path, mebibytes: usize) -> anyhow::Result<f64> {
    let (volume, log) = open(scratch, "big-batches")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().build()?;
    let begin = Instant::now();
    runtime.block_on(async {
        let mut batch = batch(MIB);
        let mut last = Offset(-1);
        for number in 0..mebibytes {
            last = log.append(&mut batch, 0)?.last;
            if number >= WINDOW {
                log.durable(Offset(last.0 - WINDOW as i64)).await?;
            }
        }
        log.durable(last).await?;
        anyhow::Ok(())
    })?;
    let rate = megabytes(mebibytes) / begin.elapsed().as_secs_f64();
    volume.close();
    log.remove()?;
    Ok(rate)
}

fn open(scratch: &Path, name: &str) -> anyhow::Result<(Volume, Log)> {
    let disk = Arc::new(RealDisk::new(scratch)?);
    let volume = Volume::start(disk, Arc::new(RealClock::new()));
    let log = volume.open(Path::new(name), Settings::default())?;
    Ok((volume, log))
}

/// A batch of one record with a value of `bytes` bytes.
fn batch(bytes: usize) -> Vec<u8> {
    let value = vec![7; bytes];
    let mut builder = Builder::new(0);
    builder.push(&Record { value: Some(&value), ..Record::default() });
    builder.finish()
}

fn megabytes(mebibytes: usize) -> f64 {
    (mebibytes * MIB) as f64 / 1e6
}

/// One line of the table.
struct Line {
    what: String,
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

/// Medians over the rounds.
struct Report {
    fdatasync: Line,
    appends: Vec<Line>,
    disk_mb_s: f64,
    log_mb_s: f64,
}

impl Report {
    fn new(rounds: &[Round]) -> Report {
        let line = |what: String, of: &dyn Fn(&Round) -> &Latencies| Line {
            what,
            per_second: median(rounds, |round| of(round).per_second),
            p50_us: median(rounds, |round| of(round).percentile(50)),
            p99_us: median(rounds, |round| of(round).percentile(99)),
        };
        let appends = WRITERS.iter().enumerate();
        Report {
            fdatasync: line("1 KiB write + fdatasync".to_owned(), &|round| &round.fdatasync),
            appends: appends
                .map(|(at, count)| line(format!("log, {count} writers"), &|round| &round.appends[at]))
                .collect(),
            disk_mb_s: median(rounds, |round| round.disk_mb_s),
            log_mb_s: median(rounds, |round| round.log_mb_s),
        }
    }

    /// How many times the rate of one writer the most writers reach.
    fn gain(&self) -> f64 {
        match (self.appends.first(), self.appends.last()) {
            (Some(one), Some(most)) => most.per_second / one.per_second,
            _ => 0.0,
        }
    }

    fn table(&self) -> String {
        let mut rows =
            vec![format!("{:<26} {:>10} {:>10} {:>10}", "durable, 1 KiB", "per second", "p50 us", "p99 us")];
        for line in std::iter::once(&self.fdatasync).chain(&self.appends) {
            let Line { what, per_second, p50_us, p99_us } = line;
            rows.push(format!("{what:<26} {per_second:>10.0} {p50_us:>10.0} {p99_us:>10.0}"));
        }
        rows.extend([
            format!("{:<26} {:>9.1}x", "most writers / one writer", self.gain()),
            String::new(),
            format!("{:<26} {:>10}", "sequential, 1 MiB", "MB/s"),
            format!("{:<26} {:>10.0}", "plain file, one fdatasync", self.disk_mb_s),
            format!("{:<26} {:>10.0}", "log, durable", self.log_mb_s),
            format!("{:<26} {:>9.0}%", "log / plain file", 100.0 * self.log_mb_s / self.disk_mb_s),
            String::new(),
        ]);
        rows.join("\n")
    }

    fn json(&self) -> Value {
        let line = |line: &Line| json!({"per_second": line.per_second, "p50_us": line.p50_us, "p99_us": line.p99_us});
        let appends = WRITERS.iter().zip(&self.appends);
        let appends: serde_json::Map<_, _> =
            appends.map(|(writers, rate)| (writers.to_string(), line(rate))).collect();
        json!({
            "write_fdatasync_1kib": line(&self.fdatasync),
            "append_1kib_by_writers": appends,
            "gain_most_writers": self.gain(),
            "disk_sequential_mb_s": self.disk_mb_s,
            "log_sequential_mb_s": self.log_mb_s,
        })
    }
}

fn median<T>(of: &[T], value: impl Fn(&T) -> f64) -> f64 {
    let mut values: Vec<f64> = of.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
