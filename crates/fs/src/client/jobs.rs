//! Which job a program belongs to, and what each job did on this mount.
//!
//! A job's id is in the environment of its processes; where there is none, the process's name and user stand for it, as
//! Lustre has it (`procname.uid`). Reading that takes some 20 microseconds and would be done for each request, so what was
//! found is kept for each process, in one of a fixed number of slots.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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
/// After so long it is looked whether the process is still the same.
const TRUSTED: Duration = Duration::from_secs(5);
/// A process that did nothing for so long is forgotten.
const IDLE: Duration = Duration::from_secs(30);

/// What a job did since that was last taken. Counted without a lock.
#[derive(Debug)]
pub(crate) struct Job {
    id: String,
    samples: [AtomicU64; Operation::ALL.len()],
    read: Bytes,
    write: Bytes,
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

impl Job {
    fn new(id: String) -> Job {
        let samples = std::array::from_fn(|_| AtomicU64::new(0));
        Job { id, samples, read: Bytes::new(), write: Bytes::new() }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
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

/// What was found of a process.
struct Known {
    pid: u32,
    /// When the process began, in the kernel's ticks: its number may become another's.
    began: u64,
    checked: Instant,
    job: Arc<Job>,
}

/// The jobs of a mount.
pub(crate) struct Jobs {
    slots: Vec<Mutex<Option<Known>>>,
    /// By their ids. A job goes when it did nothing, and no slot has it. **Bounded** by the slots, and by what came within one
    /// interval of telling.
    jobs: Mutex<HashMap<String, Arc<Job>>>,
}

impl Jobs {
    pub(crate) fn new() -> Jobs {
        let slots = (0..SLOTS).map(|_| Mutex::default()).collect();
        Jobs { slots, jobs: Mutex::default() }
    }

    /// The job of a process; `None` of the kernel itself.
    pub(crate) fn of(&self, pid: u32, uid: u32) -> Option<Arc<Job>> {
        if pid == 0 {
            return None;
        }
        let now = Instant::now();
        let mut slot = lock(&self.slots[pid as usize % SLOTS]);
        if let Some(known) = slot.as_mut().filter(|known| known.pid == pid) {
            if now.duration_since(known.checked) < TRUSTED || began(pid) == Some(known.began) {
                known.checked = now;
                return Some(Arc::clone(&known.job));
            }
        }
        let began = began(pid)?;
        let job = self.named(id_of(pid, uid)?);
        *slot = Some(Known { pid, began, checked: now, job: Arc::clone(&job) });
        Some(job)
    }

    fn named(&self, id: String) -> Arc<Job> {
        let mut jobs = lock(&self.jobs);
        if let Some(job) = jobs.get(&id) {
            return Arc::clone(job);
        }
        let job = Arc::new(Job::new(id.clone()));
        jobs.insert(id, Arc::clone(&job));
        job
    }

    /// Takes what every job did since this was last called.
    pub(crate) fn take(&self) -> Vec<JobDelta> {
        let now = Instant::now();
        for slot in &self.slots {
            let mut slot = lock(slot);
            if slot.as_ref().is_some_and(|known| now.duration_since(known.checked) > IDLE) {
                *slot = None;
            }
        }
        let mut deltas = Vec::new();
        lock(&self.jobs).retain(|id, job| {
            // Before the counts are taken: who finds it afterwards finds it here.
            let is_used = Arc::strong_count(job) > 1;
            let counts = job.take();
            let is_idle = counts.0.is_empty();
            if !is_idle {
                deltas.push(JobDelta { job: id.clone(), counts });
            }
            is_used || !is_idle
        });
        deltas
    }
}

/// Counts a request that was served.
pub(crate) fn count(job: &Job, request: &Request<'_>, outcome: Result<&Reply, Errno>) {
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

/// When a process began (proc_pid_stat(5), field 22).
fn began(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may have blanks and parentheses in it; the state behind it is field 3.
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
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

    #[test]
    fn this_process_is_found_once() {
        let jobs = Jobs::new();
        let pid = std::process::id();
        let first = jobs.of(pid, 0).unwrap();
        assert!(Arc::ptr_eq(&first, &jobs.of(pid, 0).unwrap()));
        assert!(jobs.of(0, 0).is_none(), "the kernel is in no job");
        assert!(jobs.of(u32::MAX, 0).is_none(), "there is no such process");
    }

    #[test]
    fn what_was_counted_is_taken_once_and_an_idle_job_is_forgotten() {
        let jobs = Jobs::new();
        let job = jobs.named("a".to_owned());
        job.count(Operation::Mkdir);
        for bytes in [10, 30, 20] {
            job.count_bytes(Operation::WriteBytes, bytes);
        }
        let taken = jobs.take();
        assert_eq!(taken.len(), 1);
        let written = Counter { samples: 3, min: 10, max: 30, sum: 60 };
        assert_eq!(taken[0].counts.get(Operation::WriteBytes), written);
        assert_eq!(taken[0].counts.get(Operation::Mkdir).samples, 1);
        assert!(jobs.take().is_empty());
        job.count_bytes(Operation::ReadBytes, 0);
        drop(job);
        assert_eq!(jobs.take()[0].counts.get(Operation::ReadBytes).samples, 1, "nobody has it any more");
        assert_eq!(jobs.take(), []);
        assert!(lock(&jobs.jobs).is_empty());
    }

    #[test]
    fn operations_are_in_the_order_of_their_numbers() {
        for (number, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, number);
        }
    }
}
