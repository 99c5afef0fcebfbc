//! Jobs that are over: rows of the newest, the places in the log of the others, and keys that recognise repeats.

use super::job::Span;
use crate::proto::{JobResult, JobRow, Stats};
use kiln_types::{JobId, Offset};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// What the archive keeps in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// How many inactive jobs are listed; older ones are found by their id only.
    pub rows_max: usize,
    /// How many inactive jobs are found at all. When there are an eighth more, the oldest are forgotten with their
    /// keys, and the log begins behind them. A replay takes about 0.3 ms for each, and must take less than a lease.
    pub jobs_max: usize,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self { rows_max: 10_000, jobs_max: 20_000 }
    }
}

/// A job that is over and still listed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Inactive {
    pub(super) row: JobRow,
    pub(super) span: Span,
    /// Whether somebody may still wait for it.
    pub(super) waitable: bool,
}

/// All jobs that are over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Archive {
    limits: Option<ArchiveLimits>,
    rows: BTreeMap<JobId, Inactive>,
    /// The listed ones, oldest end first.
    order: VecDeque<JobId>,
    /// Places in the log, of those that are no longer listed.
    spans: BTreeMap<JobId, Span>,
    /// The job of each key, active ones among them.
    keys: HashMap<Key, JobId>,
    stats: Stats,
}

/// A key counts for its user.
type Key = (u32, String);

impl Archive {
    pub(super) fn new(limits: ArchiveLimits) -> Self {
        Self { limits: Some(limits), ..Self::default() }
    }

    fn limits(&self) -> ArchiveLimits {
        self.limits.unwrap_or_default()
    }

    /// Takes in a job that has just ended. Its key is forgotten if the job was lost with its node.
    pub(super) fn insert(&mut self, ended: Inactive, key: Option<String>) {
        let id = ended.row.id;
        self.count(&ended.row);
        if let Some(key) = key.filter(|_| lost_with_node(&ended.row)) {
            let key = (ended.row.userid, key);
            if self.keys.get(&key) == Some(&id) {
                self.keys.remove(&key);
            }
        }
        self.order.push_back(id);
        self.rows.insert(id, ended);
        if self.order.len() > self.limits().rows_max {
            self.drop_oldest_row();
        }
    }

    fn count(&mut self, row: &JobRow) {
        match row.result {
            Some(JobResult::Completed) => self.stats.successful += 1,
            Some(JobResult::Canceled) => self.stats.canceled += 1,
            Some(JobResult::Timeout) => self.stats.timeout += 1,
            Some(JobResult::Failed) | None => {}
        }
        if row.result != Some(JobResult::Completed) {
            self.stats.failed += 1;
        }
    }

    fn drop_oldest_row(&mut self) {
        let Some(old) = self.order.pop_front().and_then(|id| self.rows.remove(&id)) else { return };
        self.spans.insert(old.row.id, old.span);
    }

    /// When there are too many jobs: the record before which they have to be submitted to be forgotten.
    pub(super) fn too_old(&self) -> Option<Offset> {
        let (kept, most) = (self.rows.len() + self.spans.len(), self.limits().jobs_max);
        if kept <= most + most / 8 {
            return None;
        }
        let spans = self.rows.values().map(|job| &job.span).chain(self.spans.values());
        let mut firsts: Vec<Offset> = spans.map(|span| span.first).collect();
        Some(*firsts.select_nth_unstable(kept - most).1)
    }

    /// Forgets the jobs that were submitted before a record, and all keys but theirs and those of `active` jobs.
    pub(super) fn forget(&mut self, before: Offset, active: impl Fn(JobId) -> bool) {
        self.rows.retain(|_, job| job.span.first >= before);
        self.order.retain(|id| self.rows.contains_key(id));
        self.spans.retain(|_, span| span.first >= before);
        self.keys.retain(|_, id| active(*id) || self.rows.contains_key(id) || self.spans.contains_key(id));
    }

    /// How many jobs ended: well, badly, canceled, timed out.
    pub(super) fn ended(&self) -> [u64; 4] {
        let Stats { successful, failed, canceled, timeout, .. } = self.stats;
        [successful, failed, canceled, timeout]
    }

    /// The counterpart of [`Archive::ended`].
    pub(super) fn set_ended(&mut self, ended: [u64; 4]) {
        let [successful, failed, canceled, timeout] = ended;
        self.stats = Stats { successful, failed, canceled, timeout, ..self.stats };
    }

    pub(super) fn get(&self, id: JobId) -> Option<&Inactive> {
        self.rows.get(&id)
    }

    /// Where the records of an ended job are.
    pub(super) fn span(&self, id: JobId) -> Option<Span> {
        self.rows.get(&id).map(|job| job.span).or_else(|| self.spans.get(&id).copied())
    }

    /// A job was waited for; the record that says so is not part of its span.
    pub(super) fn waited(&mut self, id: JobId) {
        if let Some(job) = self.rows.get_mut(&id) {
            job.waitable = false;
        }
    }

    /// The listed jobs, newest end first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Inactive> {
        self.order.iter().rev().filter_map(|id| self.rows.get(id))
    }

    pub(super) fn set_key(&mut self, userid: u32, key: String, id: JobId) {
        self.keys.insert((userid, key), id);
    }

    pub(super) fn job_of_key(&self, userid: u32, key: &str) -> Option<JobId> {
        self.keys.get(&(userid, key.to_owned())).copied()
    }

    /// Counts of ended jobs.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.stats;
        let listed = self.rows.len() as u64;
        stats.states[6] = listed;
        stats.inactive_purged = (stats.successful + stats.failed).saturating_sub(listed);
        stats
    }
}

/// The exception type of a job whose node went away while it ran there.
pub const NODE_LOST: &str = "node-lost";

fn lost_with_node(row: &JobRow) -> bool {
    row.exception.as_ref().is_some_and(|raised| raised.kind == NODE_LOST && raised.severity == 0)
}
