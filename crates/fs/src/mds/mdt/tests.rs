//! The MDT on the simulated disk: power lost at every sync, kill -9, full disks, failing ones.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use kiln_types::Timestamp;
use kiln_world::{Fault, SimClock, SimDisk};

use super::*;
use crate::core::layout::Stripes;
use crate::core::{OstIndex, SetAttr};
use crate::wire::mds::{Change, Cred, Make, XattrHow};

const SESSION: SessionId = SessionId(9);
const DIR: &str = "mdt";

/// An MDT that is opened again and again on one disk, each time as a new process would.
struct Bench {
    disk: SimDisk,
    settings: Settings,
}

/// A running one.
struct Running {
    volume: Volume,
    mdt: Mdt,
}

impl Bench {
    fn new(disk: SimDisk) -> Bench {
        let settings = Settings { journal_segment_bytes: 500, reserve_bytes: 0, ..Settings::default() };
        Bench { disk, settings }
    }

    fn try_open(&self) -> Result<Running, OpenError> {
        let volume = Volume::start(Arc::new(self.disk.clone()), Arc::new(SimClock::new(Timestamp(1))));
        match Mdt::open(&volume, Path::new(DIR), &format(), self.settings) {
            Ok(mdt) => Ok(Running { volume, mdt }),
            Err(error) => {
                volume.close();
                Err(error)
            }
        }
    }

    fn open(&self) -> Running {
        self.try_open().unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Running {
    /// Ends it as it is, whatever became of the disk.
    fn abandon(self) {
        drop(self.mdt);
        self.volume.close();
    }

    fn checkpoint(&mut self) {
        self.mdt.checkpoint().expect("there is something to save").run();
    }
}

fn format() -> Format {
    Format {
        label: Label { uuid: [7; 16], fs: "scratch".into(), mdt: 0 },
        spread: Spread::plain(64 << 10, 1 << 20, Stripes { count: Some(1), first: None }),
        now: Time::default(),
    }
}

/// Every row, in their order.
fn dump(mdt: &Mdt) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut all = BTreeMap::new();
    let read = mdt.read(|rows| {
        rows.scan(&[], &[0xff], &mut |key, value| {
            assert!(all.insert(key.to_vec(), value.to_vec()).is_none());
            ControlFlow::Continue(())
        })
    });
    read.unwrap();
    all
}

fn change(xid: u64, act: Act) -> What {
    let change = Change { xid: Xid(xid), done_below: Xid(xid.saturating_sub(2)), cred: Cred::default(), act };
    What::Change { session: SESSION, change, osts: vec![OstIndex(0)], victim_open: false }
}

fn make(name: &str, what: Make) -> Act {
    Act::Make { parent: Ino::ROOT, name: name.into(), mode: 0o644, umask: 0, what }
}

fn file() -> Make {
    Make::File { spread: None, open: true, exclusive: true }
}

const BULK: &[u8] = &[0x5a; 5000];

/// Some of everything: each line is a command with its bulk.
fn script() -> Vec<(Command, &'static [u8])> {
    let inode = |counter| Ino(counter);
    let write =
        Act::WriteInline { ino: inode(3), offset: 0, crc: crc32c::crc32c(BULK), mtime: Time::default() };
    let cut = SetAttr { size: Some(1 << 20), ..SetAttr::default() };
    let rename = Act::Rename {
        from: Ino::ROOT,
        from_name: b"f".to_vec(),
        to: inode(2),
        to_name: b"g".to_vec(),
        how: crate::wire::mds::Rename::Replace,
    };
    let written =
        Act::Written { ino: inode(3), size: 4 << 20, mtime: None, blocks: None, kill_suid_sgid: true };
    let xattr =
        Act::SetXattr { ino: inode(3), name: b"user.x".to_vec(), value: vec![1; 300], how: XattrHow::Set };
    let acts: [(Act, &[u8]); 12] = [
        (make("d", Make::Directory), &[]),
        (make("f", file()), &[]),
        (write, BULK),
        (Act::Place { ino: inode(3), offset: 1 << 20 }, &[]),
        (written, &[]),
        (rename, &[]),
        (Act::Setattr { ino: inode(3), set: cut }, &[]),
        (xattr, &[]),
        (Act::Link { ino: inode(3), parent: Ino::ROOT, name: b"h".to_vec() }, &[]),
        (Act::Unlink { parent: inode(2), name: b"g".to_vec() }, &[]),
        (Act::Rmdir { parent: Ino::ROOT, name: b"d".to_vec() }, &[]),
        (Act::Unlink { parent: Ino::ROOT, name: b"h".to_vec() }, &[]),
    ];
    let begin = (What::Begin { session: SESSION, host: "here".into() }, &[][..]);
    let changes = acts.into_iter().zip(1..).map(|((act, bulk), xid)| (change(xid, act), bulk));
    let whats = [begin].into_iter().chain(changes).chain([(What::Done { todo: vec![TodoId(1)] }, &[][..])]);
    whats
        .zip(1..)
        .map(|((what, bulk), secs)| (Command { now: Time { secs, nanos: 0 }, what }, bulk))
        .collect()
}

/// What the rows are after each number of commands of the script.
fn states() -> Vec<BTreeMap<Vec<u8>, Vec<u8>>> {
    let running = Bench::new(SimDisk::new(0)).open();
    let mut mdt = running.mdt;
    let mut states = vec![dump(&mdt)];
    for (command, bulk) in script() {
        let outcome = mdt.change(&command, bulk);
        assert!(outcome.answer.is_ok(), "{command:?}: {outcome:?}");
        states.push(dump(&mdt));
    }
    running.volume.close();
    states
}

/// What somebody was told who ran the script.
#[derive(Debug, Default)]
struct Told {
    answered: usize,
    durable: usize,
}

/// Runs the script until something fails, with a sync after each third command and a checkpoint after each so many.
fn run_script(bench: &Bench, checkpoint_every: usize) -> Told {
    let mut told = Told::default();
    let Ok(mut running) = bench.try_open() else { return told };
    for (nth, (command, bulk)) in script().into_iter().enumerate() {
        if running.mdt.change(&command, bulk).answer.is_err() {
            break;
        }
        told.answered += 1;
        if nth % 3 == 1 {
            match running.mdt.sync().wait() {
                Ok(()) => told.durable = told.answered,
                Err(_) => break,
            }
        }
        if nth % checkpoint_every == checkpoint_every - 1
            && let Some(checkpoint) = running.mdt.checkpoint()
        {
            checkpoint.run();
        }
    }
    running.abandon();
    told
}

fn lose_power_at_every_sync(checkpoint_every: usize, seeds: u64) {
    let states = states();
    let whole = SimDisk::new(0);
    let told = run_script(&Bench::new(whole.clone()), checkpoint_every);
    assert_eq!(told.answered, states.len() - 1, "the script ends when nothing fails");
    let syncs = whole.syncs();
    for at in 0..=syncs {
        for seed in 0..seeds {
            let what = format!("checkpoint every {checkpoint_every}, {at} of {syncs} syncs, seed {seed}");
            let disk = SimDisk::new(seed);
            let bench = Bench::new(disk.clone());
            disk.crash_after_syncs(at);
            let told = run_script(&bench, checkpoint_every);
            disk.crash();
            let running = bench.try_open().unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = dump(&running.mdt);
            let count = states.iter().position(|state| *state == found);
            let count = count.unwrap_or_else(|| panic!("{what}: half a command is there"));
            assert!((told.durable..=told.answered + 1).contains(&count), "{what}: {count} of {told:?}");
            running.abandon();
        }
    }
}

#[test]
fn what_was_durable_survives_a_loss_of_power_at_every_sync() {
    lose_power_at_every_sync(usize::MAX, 3);
}

#[test]
fn so_it_does_with_checkpoints_between() {
    lose_power_at_every_sync(4, 2);
    lose_power_at_every_sync(1, 1);
}

#[test]
fn every_answered_change_survives_a_kill() {
    let states = states();
    for checkpoint_after in 0..states.len() {
        let disk = SimDisk::new(1);
        let bench = Bench::new(disk.clone());
        let volume = Volume::manual(Arc::new(disk), Arc::new(SimClock::new(Timestamp(1))));
        let mut mdt = Mdt::open(&volume, Path::new(DIR), &format(), bench.settings).unwrap();
        for (nth, (command, bulk)) in script().into_iter().enumerate() {
            if nth == checkpoint_after
                && let Some(checkpoint) = mdt.checkpoint()
            {
                volume.flush_round();
                checkpoint.run();
            }
            assert!(mdt.change(&command, bulk).answer.is_ok());
        }
        // The process is gone: nothing of it runs any more, not even to close a file.
        std::mem::forget((mdt, volume));
        let running = bench.open();
        assert!(dump(&running.mdt) == states[states.len() - 1], "checkpoint after {checkpoint_after}");
        running.abandon();
    }
}

#[test]
fn a_change_that_comes_again_is_answered_as_before_also_by_the_next_process() {
    let bench = Bench::new(SimDisk::new(1));
    let mut running = bench.open();
    let commands: Vec<_> = script().into_iter().take(3).collect();
    let answers: Vec<_> =
        commands.iter().map(|(command, bulk)| running.mdt.change(command, bulk).answer).collect();
    let before = dump(&running.mdt);
    for _ in 0..2 {
        let outcome = running.mdt.change(&commands[2].0, &[]);
        assert_eq!((outcome.answer.as_ref(), outcome.repeated), (answers[2].as_ref(), true));
        assert_eq!(running.mdt.reply_to(SESSION, Xid(2)).unwrap().as_ref(), answers[2].as_ref().ok());
        assert_eq!(running.mdt.reply_to(SESSION, Xid(77)), Ok(None));
        assert_eq!(running.mdt.sessions().unwrap(), [(SESSION, "here".to_owned())]);
        assert!(dump(&running.mdt) == before);
        running.abandon();
        running = bench.open();
    }
    running.abandon();
}

#[test]
fn rows_are_the_same_wherever_they_are_on_their_way() {
    let states = states();
    let bench = Bench::new(SimDisk::new(1));
    let mut running = bench.open();
    let mut pending = None;
    for (nth, (command, bulk)) in script().into_iter().enumerate() {
        assert!(running.mdt.change(&command, bulk).answer.is_ok());
        assert!(dump(&running.mdt) == states[nth + 1], "after {nth}");
        match nth % 4 {
            0 => pending = running.mdt.checkpoint(),
            1 => assert!(running.mdt.checkpoint().is_none(), "one is under way"),
            2 => pending.take().expect("it was begun").run(),
            _ => {}
        }
        assert!(dump(&running.mdt) == states[nth + 1], "after {nth}");
    }
    // One that was dropped is begun again, and what came since is the next.
    drop(pending);
    running.checkpoint();
    running.checkpoint();
    assert!(running.mdt.checkpoint().is_none());
    running.mdt.close().unwrap();
    running.volume.close();
    let running = bench.open();
    assert_eq!(running.mdt.fresh.commands, 0, "nothing was left to be applied again");
    assert!(dump(&running.mdt) == states[states.len() - 1]);
    running.abandon();
}

#[test]
fn checkpoints_are_due_by_commands_bytes_and_age() {
    let age = Duration::from_secs(5);
    let settings = Settings {
        checkpoint_commands: 3,
        checkpoint_bytes: 20_000,
        checkpoint_age: age,
        ..Bench::new(SimDisk::new(0)).settings
    };
    let bench = Bench { disk: SimDisk::new(0), settings };
    let mut running = bench.open();
    let mdt = &mut running.mdt;
    assert!(mdt.checkpoint_due(Duration::from_secs(1000)).is_none(), "there is nothing to save");
    let mut commands = script().into_iter();
    let mut next = |mdt: &mut Mdt| {
        let (command, bulk) = commands.next().unwrap();
        assert!(mdt.change(&command, bulk).answer.is_ok());
    };
    next(mdt);
    assert!(mdt.checkpoint_due(Duration::from_secs(1000)).is_none());
    assert!(mdt.checkpoint_due(Duration::from_secs(1004)).is_none());
    mdt.checkpoint_due(Duration::from_secs(1005)).expect("it is old").run();
    next(mdt);
    next(mdt);
    assert!(mdt.checkpoint_due(Duration::from_secs(1005)).is_none());
    next(mdt);
    mdt.checkpoint_due(Duration::from_secs(1005)).expect("it is much").run();
    running.abandon();
}

#[test]
fn memory_is_bounded_when_nobody_runs_checkpoints() {
    let settings = Settings { checkpoint_bytes: 4000, ..Bench::new(SimDisk::new(0)).settings };
    let bench = Bench { disk: SimDisk::new(1), settings };
    let mut running = bench.open();
    running.mdt.change(&script()[0].0, &[]);
    let mut bytes_max = 0;
    for xid in 1..200 {
        let what = change(xid, make(&format!("file {xid}"), file()));
        let outcome = running.mdt.change(&Command { now: Time::default(), what }, &[]);
        assert!(outcome.answer.is_ok());
        bytes_max = bytes_max.max(running.mdt.fresh.bytes);
    }
    assert!((4000..10_000).contains(&bytes_max), "{bytes_max}");
    let before = dump(&running.mdt);
    running.abandon();
    let running = bench.open();
    assert!(dump(&running.mdt) == before);
    assert_eq!(running.mdt.usage().unwrap().inodes, 200);
    running.abandon();
}

#[test]
fn a_full_disk_refuses_and_changes_nothing() {
    let disk = SimDisk::new(1);
    let bench = Bench::new(disk.clone());
    let mut running = bench.open();
    let script = script();
    for (command, bulk) in &script[..3] {
        running.mdt.change(command, bulk).answer.unwrap();
    }
    let before = dump(&running.mdt);
    disk.set_capacity(Some(disk.used_bytes()));
    let (command, bulk) = &script[3];
    assert_eq!(running.mdt.change(command, bulk).answer, Err(Errno::ENOSPC));
    assert!(dump(&running.mdt) == before);
    assert!(running.mdt.failed().is_none());
    disk.set_capacity(None);
    running.mdt.change(command, bulk).answer.unwrap();
    assert_ne!(dump(&running.mdt), before);
    running.abandon();
}

#[test]
fn the_reserve_is_for_removing() {
    let disk = SimDisk::new(1);
    let settings = Settings { reserve_bytes: 1 << 20, ..Bench::new(disk.clone()).settings };
    let bench = Bench { disk: disk.clone(), settings };
    let mut running = bench.open();
    let script = script();
    for (command, bulk) in &script[..3] {
        running.mdt.change(command, bulk).answer.unwrap();
    }
    running.mdt.space_left = 0;
    disk.set_capacity(Some(disk.used_bytes() + (1 << 20) - 1));
    // Data of a file that is there may take a quarter of it.
    let crc = crc32c::crc32c(BULK);
    let write = |xid| {
        let act = Act::WriteInline { ino: Ino(3), offset: 0, crc, mtime: Time::default() };
        Command { now: Time::default(), what: change(xid, act) }
    };
    assert!(running.mdt.change(&write(8), BULK).answer.is_ok());
    disk.set_capacity(Some(disk.used_bytes() + (1 << 20) / 4 * 3 - 1));
    running.mdt.space_left = 0;
    assert_eq!(running.mdt.change(&write(9), BULK).answer, Err(Errno::ENOSPC));
    disk.set_capacity(Some(disk.used_bytes() + (1 << 20) - 1));
    let mut act =
        |xid, act| running.mdt.change(&Command { now: Time::default(), what: change(xid, act) }, &[]).answer;
    assert_eq!(act(10, make("new", file())), Err(Errno::ENOSPC));
    assert_eq!(act(11, Act::Unlink { parent: Ino::ROOT, name: b"f".to_vec() }), Ok(Answer::Done));
    disk.set_capacity(None);
    assert!(act(12, make("new", file())).is_ok());
    running.abandon();
}

#[test]
fn a_failing_disk_is_latched_and_told_to_everybody() {
    let script = script();
    for fault in [Fault::Write, Fault::Sync] {
        let disk = SimDisk::new(1);
        let bench = Bench::new(disk.clone());
        let mut running = bench.open();
        running.mdt.change(&script[0].0, &[]).answer.unwrap();
        running.mdt.sync().wait().unwrap();
        let before = dump(&running.mdt);
        disk.fail_nth(fault, 0);
        let answer = running.mdt.change(&script[1].0, &[]).answer;
        if fault == Fault::Write {
            assert_eq!(answer, Err(Errno::EIO));
        } else {
            assert_eq!(running.mdt.sync().wait(), Err(Errno::EIO));
        }
        assert_eq!(running.mdt.change(&script[2].0, &[]).answer, Err(Errno::EIO));
        assert_eq!(running.mdt.ask(&Ask::Getattr { ino: Ino::ROOT }), Err(Errno::EIO));
        assert!(running.mdt.failed().is_some());
        running.abandon();
        let running = bench.open();
        let found = dump(&running.mdt);
        assert!(found == before || fault == Fault::Sync);
        running.abandon();
    }
}

#[test]
fn a_checkpoint_that_fails_stops_the_mdt_and_the_next_start_has_everything() {
    let states = states();
    let disk = SimDisk::new(1);
    let mut bench = Bench::new(disk.clone());
    // One file, so that nothing but the checkpoint writes when the disk fails.
    bench.settings.journal_segment_bytes = 1 << 20;
    let mut running = bench.open();
    for (command, bulk) in script() {
        running.mdt.change(&command, bulk).answer.unwrap();
    }
    running.mdt.sync().wait().unwrap();
    let checkpoint = running.mdt.checkpoint().unwrap();
    disk.fail_nth(Fault::Write, 0);
    checkpoint.run();
    assert_eq!(running.mdt.ask(&Ask::Getattr { ino: Ino::ROOT }), Err(Errno::EIO));
    running.abandon();
    let running = bench.open();
    assert!(dump(&running.mdt) == states[states.len() - 1]);
    running.abandon();
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let disk = SimDisk::new(1);
    let bench = Bench::new(disk.clone());
    let mut running = bench.open();
    assert_eq!(*running.mdt.label(), format().label);
    let mut other = format();
    other.label.mdt = 1;
    let opened = Mdt::open(&running.volume, Path::new(DIR), &other, bench.settings);
    assert!(matches!(opened, Err(OpenError::Foreign { .. })));
    running.mdt.change(&script()[0].0, &[]).answer.unwrap();
    running.checkpoint();
    running.abandon();
    disk.remove_dir_all(Path::new("mdt/journal")).unwrap();
    assert!(matches!(bench.try_open(), Err(OpenError::Apart { .. })));
}

#[test]
fn the_label_counts_whatever_uuid_is_asked_for() {
    let bench = Bench::new(SimDisk::new(1));
    bench.open().abandon();
    let volume = Volume::start(Arc::new(bench.disk.clone()), Arc::new(SimClock::new(Timestamp(1))));
    let mut again = format();
    again.label.uuid = [8; 16];
    let mdt = Mdt::open(&volume, Path::new(DIR), &again, bench.settings).unwrap();
    assert_eq!(mdt.label().uuid, [7; 16]);
    drop(mdt);
    volume.close();
}

/// Checkpoints on a thread of their own, as the server runs them, lose nothing and are noticed by nobody.
#[test]
fn checkpoints_run_beside_the_changes() {
    let settings = Settings { checkpoint_commands: 20, ..Bench::new(SimDisk::new(0)).settings };
    let bench = Bench { disk: SimDisk::new(1), settings };
    let Running { volume, mut mdt } = bench.open();
    mdt.change(&script()[0].0, &[]).answer.unwrap();
    let mdt = std::sync::Mutex::new(mdt);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let checkpoint = mdt.lock().unwrap().checkpoint_due(Duration::ZERO);
                checkpoint.map_or_else(std::thread::yield_now, Checkpoint::run);
            }
        });
        for xid in 1..300 {
            let what = change(xid, make(&format!("file {xid}"), file()));
            let outcome = mdt.lock().unwrap().change(&Command { now: Time::default(), what }, &[]);
            assert!(outcome.answer.is_ok());
            let name = format!("file {}", xid.div_ceil(2)).into_bytes();
            let asked = mdt.lock().unwrap().ask(&Ask::Lookup { parent: Ino::ROOT, name });
            assert!(asked.is_ok(), "after {xid}");
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let mdt = mdt.into_inner().unwrap();
    let before = dump(&mdt);
    Running { volume, mdt }.abandon();
    let running = bench.open();
    assert!(dump(&running.mdt) == before);
    running.abandon();
}

/// A client of an MDT on a small disk, which makes files and removes them, and the server's thread for checkpoints.
struct Filler {
    bench: Bench,
    running: Running,
    xid: u64,
    now: Duration,
    names: Vec<String>,
}

impl Filler {
    fn new(capacity_bytes: u64, settings: Settings) -> Filler {
        let disk = SimDisk::new(1);
        disk.set_capacity(Some(capacity_bytes));
        let bench = Bench { disk, settings };
        let mut running = bench.open();
        running.mdt.change(&script()[0].0, &[]).answer.unwrap();
        Filler { bench, running, xid: 0, now: Duration::ZERO, names: Vec::new() }
    }

    fn act(&mut self, act: Act) -> Result<Answer, Errno> {
        self.xid += 1;
        self.now += Duration::from_micros(200);
        let command = Command { now: Time::default(), what: change(self.xid, act) };
        let answer = self.running.mdt.change(&command, &[]).answer;
        self.checkpoint();
        answer
    }

    fn checkpoint(&mut self) {
        if let Some(checkpoint) = self.running.mdt.checkpoint_due(self.now) {
            checkpoint.run();
        }
        assert!(self.running.mdt.failed().is_none(), "{:?}", self.running.mdt.failed());
    }

    /// Makes so many files.
    fn make(&mut self, count: usize) {
        for _ in 0..count {
            let name = format!("made {}", self.xid);
            self.act(make(&name, file())).unwrap();
            self.names.push(name);
        }
    }

    /// Makes files until there is no room.
    fn fill(&mut self) -> usize {
        loop {
            let name = format!("{} {}", self.xid, "n".repeat(200));
            match self.act(make(&name, file())) {
                Ok(_) => self.names.push(name),
                Err(errno) => {
                    assert_eq!(errno, Errno::ENOSPC);
                    return self.names.len();
                }
            }
        }
    }

    /// Removes so many files.
    fn empty(&mut self, count: usize) {
        for name in self.names.split_off(self.names.len() - count) {
            assert_eq!(self.act(Act::Unlink { parent: Ino::ROOT, name: name.into() }), Ok(Answer::Done));
        }
    }

    /// Some seconds in which nobody wants anything.
    fn rest(&mut self) {
        for _ in 0..3 {
            self.now += Duration::from_secs(1);
            self.checkpoint();
        }
    }

    fn free_inodes(&self) -> usize {
        self.running.mdt.space().unwrap().free_inodes as usize
    }

    /// The process is killed, and the next one starts.
    fn kill(self) -> Filler {
        let Filler { bench, running, xid, now, names } = self;
        std::mem::forget(running);
        let running = bench.open();
        let next = Filler { bench, running, xid, now, names };
        next.check();
        next
    }

    /// All files are there, and no others.
    fn check(&self) {
        let mdt = &self.running.mdt;
        assert_eq!(mdt.usage().unwrap().inodes as usize, self.names.len() + 1);
        for name in self.names.iter().step_by(100) {
            mdt.ask(&Ask::Lookup { parent: Ino::ROOT, name: name.clone().into_bytes() }).unwrap();
        }
    }
}

#[test]
fn a_full_mdt_that_was_emptied_is_filled_again() {
    let mut filler = Filler::new(5 << 20, Settings::default());
    let first = filler.fill();
    assert!(first > 1000, "{first} files");
    filler.rest();
    let full = filler.free_inodes();
    filler.empty(first / 2);
    filler.rest();
    filler.fill();
    filler.check();
    filler.empty(filler.names.len());
    filler.rest();
    let free = filler.free_inodes();
    assert!(free > full + first / 2, "{free} free, {full} when it was full with {first} files");
    let again = filler.fill();
    assert!(again * 10 >= first * 7, "{again} files, {first} before");
    filler.check();
    filler.running.abandon();
}

/// The disk may be full of others' bytes, so that free pages help only when it gets them back.
#[test]
fn a_table_gives_back_what_is_free_when_the_disk_has_nothing_else() {
    const RESERVE: u64 = 256 << 10;
    let settings = Settings { reserve_bytes: RESERVE, journal_segment_bytes: 10_000, ..Settings::default() };
    let mut filler = Filler::new(64 << 20, settings);
    filler.make(2000);
    filler.running.checkpoint();
    filler.empty(1900);
    filler.running.checkpoint();
    let disk = filler.bench.disk.clone();
    let before = disk.used_bytes();
    disk.set_capacity(Some(before + RESERVE / 4));
    // What is free in the table is not known yet.
    filler.running.mdt.space_left = 0;
    assert_eq!(filler.act(make("refused", file())), Err(Errno::ENOSPC));
    filler.rest();
    let free_bytes = filler.running.mdt.space().unwrap().free_bytes;
    assert!(free_bytes > 2 * RESERVE, "{free_bytes}");
    filler.make(1);
    let after = disk.used_bytes();
    assert!(after + RESERVE < before, "{after} bytes, {before} before");
    filler.check();
    filler = filler.kill();
    filler.make(100);
    filler.kill().running.abandon();
}

#[test]
fn so_it_is_when_its_server_is_killed_while_it_is_full() {
    let mut filler = Filler::new(5 << 20, Settings::default());
    let first = filler.fill();
    filler = filler.kill();
    filler.fill();
    filler = filler.kill();
    filler.empty(first / 3);
    filler = filler.kill();
    filler.empty(filler.names.len());
    filler = filler.kill();
    filler.rest();
    let again = filler.fill();
    assert!(again * 10 >= first * 7, "{again} files, {first} before");
    filler.kill().running.abandon();
}
