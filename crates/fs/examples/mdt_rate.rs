//! How many creates, lookups, listings and unlinks an MDT does in a second, in one directory that grows.
//!
//! `cargo run --release -p kiln-fs --example mdt_rate -- DIR [--changelog] [ENTRIES..]` (1,000, 100,000 and 1,000,000 if none
//! are said). With `--changelog` changes are recorded, and the records taken away in batches.
//! Calls go to the MDT directly, one at a time: no sockets, no leases. Checkpoints run on a thread of their own, as in the
//! server. Times are of the clock; CPU is that of all threads.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use kiln_fs::core::layout::Stripes;
use kiln_fs::core::namespace::{Command, What};
use kiln_fs::core::{Attr, Ino, SessionId, Spread, Time, Xid};
use kiln_fs::mds::mdt::{Format, Label, Mdt, Settings};
use kiln_fs::wire::mds::{Act, Answer, Ask, Change, Cred, Make};
use kiln_log::Volume;
use kiln_world::{RealClock, RealDisk};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const SESSION: SessionId = SessionId(7);
/// Lookups and unlinks that are measured at each size.
const SAMPLES: u64 = 50_000;
/// Records that are taken away at once.
const BATCH_RECORDS: u64 = 1000;
const CHECKPOINT_POLL: Duration = Duration::from_millis(20);

struct Bench {
    mdt: Arc<Mutex<Mdt>>,
    xid: u64,
    /// Changes are recorded.
    records: bool,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("say a directory to work in")?;
    let (flags, sizes): (Vec<String>, Vec<String>) = args.partition(|arg| arg == "--changelog");
    let mut sizes: Vec<u64> = sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>()?;
    if sizes.is_empty() {
        sizes = vec![1_000, 100_000, 1_000_000];
    }
    let volume = Volume::start(Arc::new(RealDisk::new(&dir)?), Arc::new(RealClock::new()));
    let format = Format {
        label: Label { uuid: [1; 16], fs: "rate".into(), mdt: 0 },
        spread: Spread::plain(64 << 10, 1 << 20, Stripes { count: Some(1), first: None }),
        now: Time::default(),
    };
    let mdt = Arc::new(Mutex::new(Mdt::open(&volume, Path::new("mdt"), &format, Settings::default())?));
    let checkpointer = Arc::clone(&mdt);
    thread::spawn(move || checkpoints(&checkpointer));
    let mut bench = Bench { mdt, xid: 0, records: !flags.is_empty() };
    bench.command(What::Begin { session: SESSION, host: "here".into() });
    bench.command(What::Record { on: bench.records });
    let parent = bench.make(Ino::ROOT, b"d", Make::Directory).ino;
    let mut count = 0;
    for size in sizes {
        bench.measure(parent, &mut count, size);
    }
    Ok(())
}

fn checkpoints(mdt: &Mutex<Mdt>) {
    let started = Instant::now();
    loop {
        thread::sleep(CHECKPOINT_POLL);
        let checkpoint = mdt.lock().expect("nobody panics").checkpoint_due(started.elapsed());
        if let Some(checkpoint) = checkpoint {
            checkpoint.run();
        }
    }
}

fn name(number: u64) -> Vec<u8> {
    format!("file-{number:09}").into_bytes()
}

/// Numbers below `below` in no order, the same each time.
fn scattered(below: u64) -> impl Iterator<Item = u64> {
    (0..SAMPLES.min(below)).map(move |n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % below)
}

fn file() -> Make {
    Make::File { spread: None, open: true, exclusive: false }
}

impl Bench {
    fn measure(&mut self, parent: Ino, count: &mut u64, size: u64) {
        println!("{size} entries");
        let grown = size - *count;
        timed("create", grown, || {
            for n in *count..size {
                self.make(parent, &name(n), file());
            }
        });
        *count = size;
        timed("what is left to save", grown, || self.save());
        let looked_up = SAMPLES.min(size);
        for what in ["lookup, first time", "lookup"] {
            timed(what, looked_up, || scattered(size).for_each(|n| self.lookup(parent, name(n), true)));
        }
        timed("lookup, not there", looked_up, || {
            scattered(size).for_each(|n| self.lookup(parent, [name(n), b"x".to_vec()].concat(), false));
        });
        timed("readdir with attributes", size, || self.list(parent));
        let removed = SAMPLES.min(size / 2);
        timed("unlink", removed, || (0..removed).for_each(|n| self.unlink(parent, name(n))));
        timed("what is left to save", removed, || self.save());
        timed("create again", removed, || {
            for n in 0..removed {
                self.make(parent, &name(n), file());
            }
        });
    }

    /// Waits until every row is in the table.
    fn save(&self) {
        loop {
            let checkpoint = self.mdt.lock().expect("nobody panics").checkpoint();
            match checkpoint {
                Some(checkpoint) => checkpoint.run(),
                None if self.mdt.lock().expect("nobody panics").is_saved() => return,
                None => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn act(&mut self, act: Act) -> Answer {
        self.xid += 1;
        if self.records && self.xid.is_multiple_of(BATCH_RECORDS) {
            self.take_records();
        }
        let change = Change {
            xid: Xid(self.xid),
            done_below: Xid(self.xid),
            cred: Cred { uid: 1000, gid: 1000, job: String::new() },
            act,
        };
        self.command(What::Change { session: SESSION, change, osts: Vec::new(), victim_open: false })
    }

    /// As the server does, but for sending them anywhere.
    fn take_records(&mut self) {
        let taken = self.mdt.lock().expect("nobody panics").records(BATCH_RECORDS as usize);
        if let Some(last) = taken.expect("they are there").last() {
            self.command(What::Recorded { below: last.index + 1 });
        }
    }

    fn command(&mut self, what: What) -> Answer {
        let command = Command { now: Time { secs: 1_700_000_000, nanos: 5 }, what };
        self.mdt.lock().expect("nobody panics").change(&command, &[]).answer.expect("it is allowed")
    }

    fn make(&mut self, parent: Ino, name: &[u8], what: Make) -> Attr {
        match self.act(Act::Make { parent, name: name.to_vec(), mode: 0o644, umask: 0o022, what }) {
            Answer::Entry(attr) | Answer::Opened { attr, .. } => attr,
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn unlink(&mut self, parent: Ino, name: Vec<u8>) {
        self.act(Act::Unlink { parent, name });
    }

    fn lookup(&self, parent: Ino, name: Vec<u8>, is_there: bool) {
        let found = self.mdt.lock().expect("nobody panics").ask(&Ask::Lookup { parent, name });
        assert_eq!(found.is_ok(), is_there);
    }

    fn list(&self, ino: Ino) {
        let mut after = 0;
        loop {
            let ask = Ask::Readdir { ino, after, bytes_max: 128 << 10, plus: true };
            let found = self.mdt.lock().expect("nobody panics").ask(&ask).expect("it is a directory");
            let Answer::Names { names, end, .. } = found.answer else { panic!("not names") };
            after = names.last().map_or(after, |name| name.cursor);
            if end {
                return;
            }
        }
    }
}

fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("it is always there");
    Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds() as u64)
}

fn timed(what: &str, count: u64, run: impl FnOnce()) {
    let (begun, cpu_begun) = (Instant::now(), cpu());
    run();
    let (took, cpu_took) = (begun.elapsed(), cpu().saturating_sub(cpu_begun));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "  {what:24} {:8.0}/s {:7.2} us, CPU {:7.2} us",
        count as f64 / took.as_secs_f64(),
        each(took),
        each(cpu_took)
    );
}
