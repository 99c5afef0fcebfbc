//! What jobs do to a filesystem, counted: Lustre's job statistics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::wire::JOB_BYTES_MAX;

/// Jobs that an MDS keeps counts of; the one that was active longest ago gives way.
pub const JOBS_MAX: usize = 4096;
/// A job that did nothing for so long is forgotten, in seconds.
pub const JOB_IDLE_SECS: i64 = 3600;

/// What is counted; names and order are those of Lustre's `job_stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operation {
    /// open(2).
    Open,
    /// close(2).
    Close,
    /// A file, link, pipe, socket or device was made.
    Mknod,
    /// link(2).
    Link,
    /// unlink(2).
    Unlink,
    /// mkdir(2).
    Mkdir,
    /// rmdir(2).
    Rmdir,
    /// rename(2).
    Rename,
    /// Attributes were read, or a name looked up.
    Getattr,
    /// Attributes were set.
    Setattr,
    /// Extended attributes were read.
    Getxattr,
    /// Extended attributes were set.
    Setxattr,
    /// statfs(2).
    Statfs,
    /// fsync(2).
    Sync,
    /// Bytes were read.
    ReadBytes,
    /// Bytes were written.
    WriteBytes,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 16] = [
        Operation::Open,
        Operation::Close,
        Operation::Mknod,
        Operation::Link,
        Operation::Unlink,
        Operation::Mkdir,
        Operation::Rmdir,
        Operation::Rename,
        Operation::Getattr,
        Operation::Setattr,
        Operation::Getxattr,
        Operation::Setxattr,
        Operation::Statfs,
        Operation::Sync,
        Operation::ReadBytes,
        Operation::WriteBytes,
    ];

    /// As Lustre calls it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Open => "open",
            Operation::Close => "close",
            Operation::Mknod => "mknod",
            Operation::Link => "link",
            Operation::Unlink => "unlink",
            Operation::Mkdir => "mkdir",
            Operation::Rmdir => "rmdir",
            Operation::Rename => "rename",
            Operation::Getattr => "getattr",
            Operation::Setattr => "setattr",
            Operation::Getxattr => "getxattr",
            Operation::Setxattr => "setxattr",
            Operation::Statfs => "statfs",
            Operation::Sync => "sync",
            Operation::ReadBytes => "read_bytes",
            Operation::WriteBytes => "write_bytes",
        }
    }

    /// Whether bytes are counted, not only how often.
    pub fn has_bytes(self) -> bool {
        matches!(self, Operation::ReadBytes | Operation::WriteBytes)
    }
}

/// How often something was done; of reads and writes, also how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// How often.
    pub samples: u64,
    /// The smallest, in bytes.
    pub min: u64,
    /// The largest.
    pub max: u64,
    /// All together.
    pub sum: u64,
}

impl Counter {
    /// Counts what another one has counted.
    pub fn add(&mut self, more: &Counter) {
        if more.samples == 0 {
            return;
        }
        self.min = if self.samples == 0 { more.min } else { self.min.min(more.min) };
        self.max = self.max.max(more.max);
        self.samples = self.samples.saturating_add(more.samples);
        self.sum = self.sum.saturating_add(more.sum);
    }
}

/// What a job did, in some time or in all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts(pub BTreeMap<Operation, Counter>);

impl Counts {
    /// The counter of an operation; all zero if it was not done.
    pub fn get(&self, operation: Operation) -> Counter {
        self.0.get(&operation).copied().unwrap_or_default()
    }

    /// How much was done, for who is to be shown first.
    pub fn weight(&self) -> u64 {
        self.0.values().map(|counter| counter.samples).fold(0, u64::saturating_add)
    }

    /// Counts what others have counted.
    pub fn add(&mut self, more: &Counts) {
        for (operation, counter) in &more.0 {
            self.0.entry(*operation).or_default().add(counter);
        }
    }
}

/// What a job did on one mount since that was last told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobDelta {
    /// The job's id.
    pub job: String,
    /// What it did.
    pub counts: Counts,
}

/// A job as the MDS knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStats {
    /// The job's id.
    pub job: String,
    /// When it was first heard of.
    pub since: Time,
    /// When it was last heard of.
    pub last: Time,
    /// What it did in between, on all mounts.
    pub counts: Counts,
}

/// The jobs of a filesystem.
#[derive(Debug, Default)]
pub struct JobTable {
    /// **Invariant:** at most [`JOBS_MAX`].
    jobs: BTreeMap<String, JobStats>,
}

impl JobTable {
    /// Counts what a mount tells.
    pub fn add(&mut self, deltas: &[JobDelta], now: Time) {
        for JobDelta { job, counts } in deltas.iter().filter(|delta| is_job(&delta.job)) {
            if !self.jobs.contains_key(job) {
                self.make_room(now);
            }
            let fresh = || JobStats { job: job.clone(), since: now, last: now, counts: Counts::default() };
            let stats = self.jobs.entry(job.clone()).or_insert_with(fresh);
            stats.last = now;
            stats.counts.add(counts);
        }
    }

    /// Every job that was active lately, those that did most first.
    pub fn list(&mut self, now: Time) -> Vec<JobStats> {
        self.forget_idle(now);
        let mut all: Vec<JobStats> = self.jobs.values().cloned().collect();
        all.sort_by(|a, b| b.counts.weight().cmp(&a.counts.weight()).then_with(|| a.job.cmp(&b.job)));
        all
    }

    fn forget_idle(&mut self, now: Time) {
        self.jobs.retain(|_, stats| now.secs.saturating_sub(stats.last.secs) <= JOB_IDLE_SECS);
    }

    fn make_room(&mut self, now: Time) {
        if self.jobs.len() < JOBS_MAX {
            return;
        }
        self.forget_idle(now);
        if self.jobs.len() >= JOBS_MAX {
            let oldest = self.jobs.values().min_by_key(|stats| (stats.last.secs, stats.last.nanos));
            let oldest = oldest.map(|stats| stats.job.clone());
            oldest.map(|job| self.jobs.remove(&job));
        }
    }
}

/// Whether this may be the id of a job: text that can stand in a line.
pub fn is_job(text: &str) -> bool {
    (1..=JOB_BYTES_MAX).contains(&text.len()) && !text.contains(|c: char| c.is_control() || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Time {
        Time { secs, nanos: 0 }
    }

    fn delta(job: &str, operation: Operation, counter: Counter) -> JobDelta {
        JobDelta { job: job.to_owned(), counts: Counts([(operation, counter)].into()) }
    }

    fn once(job: &str) -> JobDelta {
        delta(job, Operation::Open, Counter { samples: 1, ..Counter::default() })
    }

    #[test]
    fn counts_of_all_mounts_are_added() {
        let mut table = JobTable::default();
        let some = |samples, min, max, sum| Counter { samples, min, max, sum };
        table.add(&[delta("a", Operation::ReadBytes, some(2, 10, 20, 30))], at(1));
        table.add(&[delta("a", Operation::ReadBytes, some(1, 5, 5, 5)), once("a"), once("b")], at(2));
        let all = table.list(at(2));
        assert_eq!(all.iter().map(|stats| stats.job.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(all[0].counts.get(Operation::ReadBytes), some(3, 5, 20, 35));
        assert_eq!(all[0].counts.get(Operation::Open).samples, 1);
        assert_eq!((all[0].since, all[0].last), (at(1), at(2)));
    }

    #[test]
    fn a_job_that_does_nothing_is_forgotten() {
        let mut table = JobTable::default();
        table.add(&[once("old")], at(0));
        table.add(&[once("new")], at(JOB_IDLE_SECS));
        assert_eq!(table.list(at(JOB_IDLE_SECS)).len(), 2);
        let left = table.list(at(JOB_IDLE_SECS + 1));
        assert_eq!(left.iter().map(|stats| stats.job.as_str()).collect::<Vec<_>>(), ["new"]);
    }

    #[test]
    fn the_one_that_was_active_longest_ago_gives_way() {
        let mut table = JobTable::default();
        for n in 0..JOBS_MAX {
            table.add(&[once(&format!("job{n}"))], at(n as i64 / 10));
        }
        table.add(&[once("job0")], at(500));
        table.add(&[once("one-more")], at(501));
        assert_eq!(table.jobs.len(), JOBS_MAX);
        assert!(table.jobs.contains_key("job0") && table.jobs.contains_key("one-more"));
        assert!(!table.jobs.contains_key("job1"), "the oldest that is left");
    }

    #[test]
    fn what_cannot_stand_in_a_line_is_no_job() {
        assert!(is_job("ƒ2kY") && is_job("dd.1000"));
        let long = "x".repeat(JOB_BYTES_MAX + 1);
        for bad in ["", "a b", "a\nb", "a\0", &long] {
            assert!(!is_job(bad), "{bad:?}");
        }
        let mut table = JobTable::default();
        table.add(&[once("a b")], at(0));
        assert!(table.list(at(0)).is_empty());
    }
}
