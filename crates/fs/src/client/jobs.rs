//! Which job a program belongs to, and what each job did on this mount.
//!
//! A job's id is in the environment of its processes; where there is none, the process's name and user stand for it, as
//! Lustre has it (`procname.uid`). Reading that would cost some 20 microseconds for each request, so what was found is kept
//! for each process, in one of a fixed number of slots. A process is looked at again soon when it is new, for it may be about
//! to become another program (execve(2)) with another environment, and rarely when it has stayed what it was.
//!
//! **Must hold:** no thread that serves the kernel reads of a process in /proc. Some of that waits while the process executes
//! another program; the kernel closes its files in the midst of that, and so waits for this mount: neither would ever go on.
//! A thread that serves nobody reads ([`find_jobs`]). Requests wait for it for a moment at most, and those that the kernel
//! makes when it closes files not at all; what is counted before the job is known goes to it later.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_net::blocking::{Waits, waits};

use super::fuse::{Op, Reply, Request};
use crate::core::Errno;
use crate::core::jobs::{Counter, Counts, JobDelta, Operation, is_job};
use crate::wire::JOB_BYTES_MAX;

/// Variables that hold the id of a job, the first that is set counts.
const VARIABLES: [&str; 3] = ["FLUX_JOB_ID", "KILN_JOB_ID", "SLURM_JOB_ID"];
/// Bytes of an environment that are looked at.
const ENVIRON_BYTES_MAX: u64 = 256 << 10;
/// Processes that are remembered; the number of one is its slot.
const SLOTS: usize = 1024;
/// Processes that have lost their slot, and whose counts were not told yet; of more nothing is counted.
const RETIRED_MAX: usize = 16 << 10;
/// Processes that wait to be looked at; more are not.
const ASKED_MAX: usize = 256;
/// What was found of a process that was not seen before is relied on for so long,
const TRUSTED_MIN: Duration = Duration::from_millis(5);
/// then twice as long each time that nothing has changed, but no longer than this: its number may become another's.
const TRUSTED_MAX: Duration = Duration::from_secs(5);
/// The longest that a request waits for its job. It is there in a hundredth of that, as a rule.
const PATIENCE: Duration = Duration::from_millis(10);
/// A process about which nothing is heard is asked for again after so long.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// A process, and what it did since that was last taken. Counted without a lock.
#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    uid: u32,
    /// When it was asked for.
    asked: Instant,
    /// What it was found to be before.
    before: Option<Found>,
    found: Mutex<Option<Found>>,
    changed: Condvar,
    samples: [AtomicU64; Operation::ALL.len()],
    read: Bytes,
    write: Bytes,
}

/// What was found of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    /// The id of its job.
    job: String,
    /// How long that is relied on.
    trusted: Duration,
}

#[derive(Debug)]
struct Bytes {
    sum: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
}

impl Bytes {
    fn new() -> Bytes {
        Bytes { sum: AtomicU64::new(0), min: AtomicU64::new(u64::MAX), max: AtomicU64::new(0) }
    }
}

impl Process {
    fn new(pid: u32, uid: u32, before: Option<Found>) -> Process {
        Process {
            pid,
            uid,
            asked: Instant::now(),
            before,
            found: Mutex::default(),
            changed: Condvar::new(),
            samples: std::array::from_fn(|_| AtomicU64::new(0)),
            read: Bytes::new(),
            write: Bytes::new(),
        }
    }

    /// The id of its job; empty while that is not known.
    pub(crate) fn job(&self) -> String {
        lock(&self.found).as_ref().map_or_else(String::new, |found| found.job.clone())
    }

    fn is_trusted(&self, now: Instant) -> bool {
        let trusted = lock(&self.found).as_ref().map_or(ASKED_AGAIN, |found| found.trusted);
        now.duration_since(self.asked) < trusted
    }

    /// It was looked at; `None` when it has ended, and then it is what it was.
    fn settle(&self, job: Option<String>) {
        let found = match (job, &self.before) {
            (Some(job), Some(before)) if before.job == job => {
                Found { job, trusted: (before.trusted * 2).min(TRUSTED_MAX) }
            }
            (Some(job), _) => Found { job, trusted: TRUSTED_MIN },
            (None, Some(before)) => before.clone(),
            (None, None) => Found { job: id_by_name("unknown", self.uid), trusted: TRUSTED_MIN },
        };
        *lock(&self.found) = Some(found);
        self.changed.notify_all();
    }

    fn wait_settled(&self) {
        let unknown = |found: &mut Option<Found>| found.is_none();
        let found = lock(&self.found);
        if found.is_none() {
            waits(Waits::Asleep);
            drop(self.changed.wait_timeout_while(found, PATIENCE, unknown));
        }
    }

    fn count(&self, operation: Operation) {
        self.samples[operation as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn count_bytes(&self, operation: Operation, bytes: u64) {
        let counted = if operation == Operation::ReadBytes { &self.read } else { &self.write };
        counted.sum.fetch_add(bytes, Ordering::Relaxed);
        counted.min.fetch_min(bytes, Ordering::Relaxed);
        counted.max.fetch_max(bytes, Ordering::Relaxed);
        self.count(operation);
    }

    /// Takes what was counted. What is counted at the same moment may be split over two takings.
    fn take(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in Operation::ALL {
            let samples = self.samples[operation as usize].swap(0, Ordering::Relaxed);
            if samples == 0 {
                continue;
            }
            let mut counter = Counter { samples, ..Counter::default() };
            if operation.has_bytes() {
                let bytes = if operation == Operation::ReadBytes { &self.read } else { &self.write };
                counter.sum = bytes.sum.swap(0, Ordering::Relaxed);
                counter.max = bytes.max.swap(0, Ordering::Relaxed);
                counter.min = bytes.min.swap(u64::MAX, Ordering::Relaxed).min(counter.max);
            }
            counts.0.insert(operation, counter);
        }
        counts
    }
}

/// Processes that are to be looked at.
pub(crate) type Asked = Receiver<Arc<Process>>;

/// The processes that use a mount.
pub(crate) struct Jobs {
    slots: Vec<Mutex<Option<Arc<Process>>>>,
    /// Processes that have lost their slot. **Bounded** by [`RETIRED_MAX`].
    retired: Mutex<Vec<Arc<Process>>>,
    ask: SyncSender<Arc<Process>>,
}

impl Jobs {
    /// None yet; and those that [`find_jobs`] is to look at.
    pub(crate) fn new() -> (Jobs, Asked) {
        let slots = (0..SLOTS).map(|_| Mutex::default()).collect();
        let (ask, asked) = sync_channel(ASKED_MAX);
        (Jobs { slots, retired: Mutex::default(), ask }, asked)
    }

    /// The process that made a request; `None` of the kernel itself.
    pub(crate) fn of(&self, request: &Request<'_>) -> Option<Arc<Process>> {
        self.process(request.pid, request.uid, !comes_with_exec(&request.op))
    }

    /// A process; if it `may_wait`, its job is known, as a rule.
    fn process(&self, pid: u32, uid: u32, may_wait: bool) -> Option<Arc<Process>> {
        if pid == 0 {
            return None;
        }
        let mut slot = lock(&self.slots[pid as usize % SLOTS]);
        let known = match slot.take() {
            Some(other) if other.pid != pid => {
                self.retire(other);
                None
            }
            known => known,
        };
        let process = match known {
            Some(known) if known.is_trusted(Instant::now()) => known,
            known => self.ask_for(pid, uid, known),
        };
        *slot = Some(Arc::clone(&process));
        drop(slot);
        if may_wait {
            process.wait_settled();
        }
        Some(process)
    }

    /// Has a process looked at; `known` is what it was.
    fn ask_for(&self, pid: u32, uid: u32, known: Option<Arc<Process>>) -> Arc<Process> {
        let before = known.and_then(|known| {
            let found = lock(&known.found).clone();
            self.retire(known);
            found
        });
        let process = Arc::new(Process::new(pid, uid, before));
        if self.ask.try_send(Arc::clone(&process)).is_err() {
            process.settle(None);
        }
        process
    }

    /// Keeps the counts of a process that loses its slot until they are told.
    fn retire(&self, process: Arc<Process>) {
        let mut retired = lock(&self.retired);
        if retired.len() < RETIRED_MAX {
            retired.push(process);
        }
    }

    /// Takes what every job did since this was last called.
    pub(crate) fn take(&self) -> Vec<JobDelta> {
        let now = Instant::now();
        let mut all = std::mem::take(&mut *lock(&self.retired));
        for slot in &self.slots {
            let mut slot = lock(slot);
            let is_old = |process: &Arc<Process>| now.duration_since(process.asked) > TRUSTED_MAX;
            let old = slot.take_if(|process| is_old(process));
            all.extend(old.or_else(|| slot.clone()));
        }
        let mut jobs: BTreeMap<String, Counts> = BTreeMap::new();
        for process in all {
            let Some(Found { job, .. }) = lock(&process.found).clone() else {
                self.keep_unknown(process, now);
                continue;
            };
            let counts = process.take();
            if !counts.0.is_empty() {
                jobs.entry(job).or_default().add(&counts);
            }
        }
        jobs.into_iter().map(|(job, counts)| JobDelta { job, counts }).collect()
    }

    /// A process whose job is not known yet is told of the next time, unless its slot still has it.
    fn keep_unknown(&self, process: Arc<Process>, now: Instant) {
        let slot = lock(&self.slots[process.pid as usize % SLOTS]);
        let has_slot = slot.as_ref().is_some_and(|known| Arc::ptr_eq(known, &process));
        drop(slot);
        if !has_slot && now.duration_since(process.asked) < TRUSTED_MAX * 2 {
            self.retire(process);
        }
    }
}

/// Looks at processes until the mount is gone. On a thread of its own: see the module.
pub(crate) fn find_jobs(asked: &Asked) {
    for process in asked {
        process.settle(id_of(process.pid, process.uid));
    }
}

/// Whether the kernel may make such a request while a process executes another program: it closes files then.
fn comes_with_exec(op: &Op<'_>) -> bool {
    matches!(
        op,
        Op::Flush { .. } | Op::Release { .. } | Op::Releasedir { .. } | Op::Setlk { .. } | Op::Forget { .. }
    )
}

/// Counts a request that was served.
pub(crate) fn count(job: &Process, request: &Request<'_>, outcome: Result<&Reply, Errno>) {
    match (&request.op, outcome) {
        (Op::Read { .. }, Ok(Reply::Bytes(bytes))) => {
            job.count_bytes(Operation::ReadBytes, bytes.len() as u64);
        }
        (Op::Write { .. }, Ok(Reply::Written(bytes))) => {
            job.count_bytes(Operation::WriteBytes, u64::from(*bytes));
        }
        (op, _) => operations(op).iter().for_each(|operation| job.count(*operation)),
    }
}

/// What a request counts as, but for reads and writes.
fn operations(op: &Op<'_>) -> &'static [Operation] {
    match op {
        Op::Open { .. } => &[Operation::Open],
        Op::Create { .. } | Op::Tmpfile { .. } => &[Operation::Mknod, Operation::Open],
        // One for each close(2); what the kernel says when the last is done names no process.
        Op::Flush { .. } => &[Operation::Close],
        Op::Mknod { .. } | Op::Symlink { .. } => &[Operation::Mknod],
        Op::Link { .. } => &[Operation::Link],
        Op::Unlink { .. } => &[Operation::Unlink],
        Op::Mkdir { .. } => &[Operation::Mkdir],
        Op::Rmdir { .. } => &[Operation::Rmdir],
        Op::Rename { .. } => &[Operation::Rename],
        Op::Getattr | Op::Lookup { .. } => &[Operation::Getattr],
        Op::Setattr(_) => &[Operation::Setattr],
        Op::Getxattr { .. } | Op::Listxattr { .. } => &[Operation::Getxattr],
        Op::Setxattr { .. } | Op::Removexattr { .. } => &[Operation::Setxattr],
        Op::Statfs => &[Operation::Statfs],
        Op::Fsync { .. } | Op::Fsyncdir => &[Operation::Sync],
        _ => &[],
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn id_of(pid: u32, uid: u32) -> Option<String> {
    let mut environ = Vec::new();
    // That of another user's process may not be readable.
    let _ = File::open(format!("/proc/{pid}/environ"))
        .and_then(|file| file.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ));
    if let Some(id) = id_in(&environ) {
        return Some(id);
    }
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(id_by_name(&String::from_utf8_lossy(&name), uid))
}

/// The id of a job in an environment.
fn id_in(environ: &[u8]) -> Option<String> {
    let value = |name: &str| {
        let found = environ
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        found.and_then(|value| std::str::from_utf8(value).ok()).filter(|value| is_job(value))
    };
    VARIABLES.iter().find_map(|name| value(name)).map(str::to_owned)
}

/// What stands for a job where there is none.
fn id_by_name(name: &str, uid: u32) -> String {
    let plain = |c: char| if c.is_control() || c.is_whitespace() { '_' } else { c };
    let mut id: String = name.trim_end_matches('\n').chars().map(plain).collect();
    let user = format!(".{uid}");
    while id.len() + user.len() > JOB_BYTES_MAX {
        id.pop();
    }
    id + &user
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_found_in_the_environment_or_named_after_the_process() {
        assert_eq!(id_in(b"A=1\0KILN_JOB_ID=k7\0FLUX_JOB_ID=\xc6\x92x\0"), Some("ƒx".to_owned()));
        assert_eq!(id_in(b"KILN_JOB_ID=k7\0XFLUX_JOB_ID=no"), Some("k7".to_owned()));
        for bad in [&b""[..], b"FLUX_JOB_ID=", b"FLUX_JOB_ID=a b\0", b"FLUX_JOB_ID=\xff\0", b"FLUX_JOB_IDX=1"]
        {
            assert_eq!(id_in(bad), None, "{bad:?}");
        }
        assert_eq!(id_by_name("my prog\n", 1000), "my_prog.1000");
        assert!(is_job(&id_by_name(&"ü".repeat(60), u32::MAX)));
    }

    fn jobs() -> (Arc<Jobs>, std::thread::JoinHandle<()>) {
        let (jobs, asked) = Jobs::new();
        (Arc::new(jobs), std::thread::spawn(move || find_jobs(&asked)))
    }

    #[test]
    fn a_process_has_one_job_and_the_kernel_none() {
        let (jobs, finder) = jobs();
        let pid = std::process::id();
        let process = jobs.process(pid, 7, true).unwrap();
        let found =
            process.changed.wait_while(lock(&process.found), |found| found.is_none()).unwrap().clone();
        assert_eq!(Some(found.unwrap().job), id_of(pid, 7));
        assert!(jobs.process(0, 0, true).is_none());
        drop(jobs);
        finder.join().unwrap();
    }

    #[test]
    fn a_process_that_stays_what_it_was_is_looked_at_less_and_less() {
        let found = |job: &str, trusted| Found { job: job.to_owned(), trusted };
        let settled = |before: Option<Found>, job: Option<&str>| {
            let process = Process::new(1, 7, before);
            process.settle(job.map(str::to_owned));
            let found = lock(&process.found).clone().unwrap();
            (process, found)
        };
        let (first, known) = settled(None, Some("a"));
        assert_eq!(known, found("a", TRUSTED_MIN));
        assert!(first.is_trusted(first.asked) && !first.is_trusted(first.asked + TRUSTED_MIN));
        assert_eq!(settled(Some(known), Some("a")).1, found("a", TRUSTED_MIN * 2));
        assert_eq!(settled(Some(found("a", TRUSTED_MAX)), Some("a")).1, found("a", TRUSTED_MAX));
        // It has become another program; it has ended; it was never seen.
        assert_eq!(settled(Some(found("a", TRUSTED_MAX)), Some("b")).1, found("b", TRUSTED_MIN));
        assert_eq!(settled(Some(found("a", TRUSTED_MAX)), None).1, found("a", TRUSTED_MAX));
        assert_eq!(settled(None, None).1, found("unknown.7", TRUSTED_MIN));
    }

    /// While a process cannot be looked at, requests go on; what they did is told when it could.
    #[test]
    fn nobody_waits_for_a_process_that_cannot_be_looked_at() {
        let (jobs, asked) = Jobs::new();
        let closing = jobs.process(5, 7, false).unwrap();
        closing.count(Operation::Close);
        // This returns, though nobody looks.
        let opening = jobs.process(5, 7, true).unwrap();
        assert!(Arc::ptr_eq(&closing, &opening));
        assert_eq!(opening.job(), "");
        opening.count(Operation::Open);
        assert_eq!(jobs.take(), []);
        asked.recv().unwrap().settle(Some("a".to_owned()));
        let told = jobs.take();
        assert_eq!((told.len(), told[0].job.as_str(), told[0].counts.weight()), (1, "a", 2));
        assert_eq!(jobs.take(), []);
    }

    #[test]
    fn counts_of_a_process_that_lost_its_slot_are_told() {
        let (jobs, asked) = Jobs::new();
        let pid = 5;
        jobs.process(pid, 7, false).unwrap().count(Operation::Mkdir);
        let other = jobs.process(pid + SLOTS as u32, 7, false).unwrap();
        for bytes in [10, 30, 20] {
            other.count_bytes(Operation::WriteBytes, bytes);
        }
        assert_eq!(jobs.take(), []);
        for _ in 0..2 {
            asked.recv().unwrap().settle(Some("a".to_owned()));
        }
        let told = jobs.take();
        assert_eq!(told.len(), 1, "both are in one job");
        assert_eq!(told[0].counts.get(Operation::Mkdir).samples, 1);
        let written = Counter { samples: 3, min: 10, max: 30, sum: 60 };
        assert_eq!(told[0].counts.get(Operation::WriteBytes), written);
        assert_eq!(jobs.take(), []);
    }

    #[test]
    fn operations_are_in_the_order_of_their_numbers() {
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
        }
    }
}
