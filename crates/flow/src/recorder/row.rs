//! A task's row, and what a sighting changes in it. Pure.

use super::histogram::Histogram;
use crate::core::{EventKind, TaskEvent, TaskId, TaskRequest};
use kiln_types::{JobId, Timestamp};
use serde::{Deserialize, Serialize};

/// Longest text that a row keeps, in bytes; the rest is cut.
pub(super) const TEXT_BYTES_MAX: usize = 2048;
/// Jobs of one task that are remembered, to tell a repeat from a second run.
const JOBS_MAX: usize = 16;

/// One task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its id.
    pub id: TaskId,
    /// Its place in the order in which tasks were first seen, from 1.
    pub number: u64,
    /// Its name in the catalogue.
    pub task: String,
    /// Its arguments as `name=value ...`; `None` until its request was seen.
    pub args: Option<String>,
    /// When its line was written, by the sender's clock.
    pub issued: Option<Timestamp>,
    /// When its request was in the topic.
    pub logged: Option<Timestamp>,
    /// When it was put on the queue, as its agent tells.
    pub queued: Option<Timestamp>,
    /// When its job started; the last one, if there were several.
    pub started: Option<Timestamp>,
    /// When its first completed job ended.
    pub completed: Option<Timestamp>,
    /// The host of the agent that ran it.
    pub agent: Option<String>,
    /// Its job; the completed one, if there is one.
    pub job: Option<JobId>,
    /// Exit status.
    pub status: Option<i32>,
    /// Why it was not run, or why a job of it was lost.
    pub reason: Option<String>,
    /// Jobs that were started for it.
    pub started_jobs: Vec<JobId>,
    /// Jobs that ran to completion; more than one is a task that was doubled.
    pub completed_jobs: Vec<JobId>,
}

impl Row {
    fn new(id: TaskId, number: u64, task: String) -> Row {
        Row {
            id,
            number,
            task,
            args: None,
            issued: None,
            logged: None,
            queued: None,
            started: None,
            completed: None,
            agent: None,
            job: None,
            status: None,
            reason: None,
            started_jobs: Vec::new(),
            completed_jobs: Vec::new(),
        }
    }

    /// From the line that issued it to the end of its job.
    pub fn latency(&self) -> Option<std::time::Duration> {
        Some(self.completed?.since(self.issued?))
    }
}

/// Counts over all tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Tasks that were seen at all; numbers the rows.
    pub rows: u64,
    /// Tasks whose request is in the topic.
    pub issued: u64,
    /// Tasks known to have been on a queue.
    pub queued: u64,
    /// Tasks with a job that started.
    pub started: u64,
    /// Tasks with a job that ended.
    pub completed: u64,
    /// Of these, with a status other than 0.
    pub failed: u64,
    /// Tasks that an agent refused.
    pub refused: u64,
    /// Jobs that ran to completion for a task that was completed already.
    pub duplicated: u64,
    /// Jobs that were lost with their node, and whose task was queued again.
    pub lost_jobs: u64,
    /// Records that told nothing new: the same request or event again.
    pub repeats: u64,
    /// From issue to completion.
    pub latency: Histogram,
}

impl Totals {
    /// Tasks that were issued and neither completed nor refused: on their way, and lost once nothing is on its way any more.
    pub fn outstanding(&self) -> u64 {
        self.issued.saturating_sub(self.completed + self.refused)
    }
}

/// What one record of a topic tells about a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sighting {
    /// Its request is in the topic.
    Logged {
        /// The task.
        id: TaskId,
        /// Its name in the catalogue.
        task: String,
        /// Its arguments.
        args: String,
        /// When its line was written.
        issued: Timestamp,
        /// When the record was appended.
        logged: Timestamp,
    },
    /// Its job has started.
    Started {
        /// Who tells.
        by: Told,
        /// The job.
        job: JobId,
        /// When.
        at: Timestamp,
    },
    /// Its job has ended.
    Completed {
        /// Who tells.
        by: Told,
        /// The job.
        job: JobId,
        /// When it started.
        started: Option<Timestamp>,
        /// When it ended.
        at: Timestamp,
        /// Exit status.
        status: i32,
    },
    /// Its job was lost.
    Lost {
        /// Who tells.
        by: Told,
        /// The job.
        job: JobId,
        /// What is known.
        reason: String,
    },
    /// It cannot be run.
    Refused {
        /// Who tells.
        by: Told,
        /// Why.
        reason: String,
    },
}

/// What every event of an agent tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The task.
    pub id: TaskId,
    /// Its name in the catalogue.
    pub task: String,
    /// The host of the agent.
    pub agent: String,
    /// When the task was put on the queue.
    pub queued: Option<Timestamp>,
}

impl Sighting {
    /// A request that was read from its topic at `logged`.
    pub fn of_request(request: TaskRequest, logged: Timestamp) -> Sighting {
        let args: Vec<String> = request.args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        Sighting::Logged {
            id: request.id,
            task: cut(request.task),
            args: cut(args.join(" ")),
            issued: request.issued,
            logged,
        }
    }

    /// An agent's event.
    pub fn of_event(event: TaskEvent) -> Sighting {
        let at = event.at;
        let by = Told { id: event.id, task: cut(event.task), agent: cut(event.agent), queued: event.queued };
        match event.kind {
            EventKind::Started { job } => Sighting::Started { by, job, at },
            EventKind::Completed { job, started, status } => {
                Sighting::Completed { by, job, started, at, status }
            }
            EventKind::Lost { job, reason } => Sighting::Lost { by, job, reason: cut(reason) },
            EventKind::Refused { reason } => Sighting::Refused { by, reason: cut(reason) },
        }
    }

    /// Which task.
    pub fn id(&self) -> &TaskId {
        match self {
            Sighting::Logged { id, .. } => id,
            Sighting::Started { by, .. }
            | Sighting::Completed { by, .. }
            | Sighting::Lost { by, .. }
            | Sighting::Refused { by, .. } => &by.id,
        }
    }

    fn task(&self) -> &str {
        match self {
            Sighting::Logged { task, .. } => task,
            Sighting::Started { by, .. }
            | Sighting::Completed { by, .. }
            | Sighting::Lost { by, .. }
            | Sighting::Refused { by, .. } => &by.task,
        }
    }
}

/// Applies a sighting to the task's row, which may be new, and to the totals.
pub(super) fn apply(row: Option<Row>, totals: &mut Totals, sighting: Sighting) -> Row {
    let mut row = row.unwrap_or_else(|| {
        totals.rows += 1;
        Row::new(sighting.id().clone(), totals.rows, sighting.task().to_owned())
    });
    let had_latency = row.latency().is_some();
    match sighting {
        Sighting::Logged { args, issued, logged, .. } => log(&mut row, totals, args, issued, logged),
        Sighting::Started { by, job, at } => {
            told(&mut row, totals, &by);
            start(&mut row, totals, job, at);
        }
        Sighting::Completed { by, job, started, at, status } => {
            told(&mut row, totals, &by);
            if let Some(started) = started {
                start(&mut row, totals, job, started);
            }
            complete(&mut row, totals, by.agent, job, at, status);
        }
        Sighting::Lost { by, job, reason } => {
            told(&mut row, totals, &by);
            totals.lost_jobs += 1;
            row.reason = Some(format!("job {job} was lost: {reason}"));
        }
        Sighting::Refused { by, reason } => {
            told(&mut row, totals, &by);
            refuse(&mut row, totals, reason);
        }
    }
    if let Some(latency) = row.latency().filter(|_| !had_latency) {
        totals.latency.add(latency);
    }
    row
}

fn log(row: &mut Row, totals: &mut Totals, args: String, issued: Timestamp, logged: Timestamp) {
    if row.logged.is_some() {
        totals.repeats += 1;
        return;
    }
    totals.issued += 1;
    (row.args, row.issued, row.logged) = (Some(args), Some(issued), Some(logged));
}

fn told(row: &mut Row, totals: &mut Totals, by: &Told) {
    if row.queued.is_none() && by.queued.is_some() {
        row.queued = by.queued;
        totals.queued += 1;
    }
    if row.agent.is_none() {
        row.agent = Some(by.agent.clone());
    }
}

fn start(row: &mut Row, totals: &mut Totals, job: JobId, at: Timestamp) {
    if row.started_jobs.contains(&job) {
        return;
    }
    totals.started += u64::from(row.started_jobs.is_empty());
    remember(&mut row.started_jobs, job);
    if row.completed.is_none() {
        (row.started, row.job) = (Some(at), Some(job));
    }
}

fn complete(row: &mut Row, totals: &mut Totals, agent: String, job: JobId, at: Timestamp, status: i32) {
    if row.completed_jobs.contains(&job) {
        totals.repeats += 1;
        return;
    }
    let doubled = !row.completed_jobs.is_empty();
    remember(&mut row.completed_jobs, job);
    if doubled {
        totals.duplicated += 1;
        return;
    }
    totals.completed += 1;
    totals.failed += u64::from(status != 0);
    (row.completed, row.status, row.job, row.agent) = (Some(at), Some(status), Some(job), Some(agent));
}

fn refuse(row: &mut Row, totals: &mut Totals, reason: String) {
    if row.reason.as_ref() == Some(&reason) {
        totals.repeats += 1;
        return;
    }
    totals.refused += u64::from(row.completed.is_none() && row.reason.is_none());
    row.reason = Some(reason);
}

/// The first `TEXT_BYTES_MAX` bytes: anybody may write to a topic, and a row stays small.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

/// Keeps the newest `JOBS_MAX`.
fn remember(jobs: &mut Vec<JobId>, job: JobId) {
    if jobs.len() == JOBS_MAX {
        jobs.remove(0);
    }
    jobs.push(job);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(queued: i64) -> Told {
        let id = TaskId::try_from("t-1".to_owned()).unwrap();
        Told { id, task: "c".to_owned(), agent: "silicon2".to_owned(), queued: Some(Timestamp(queued)) }
    }

    fn logged() -> Sighting {
        let id = by(0).id;
        Sighting::Logged {
            id,
            task: "c".to_owned(),
            args: "a=1".to_owned(),
            issued: Timestamp(10),
            logged: Timestamp(20),
        }
    }

    fn started(job: u64) -> Sighting {
        Sighting::Started { by: by(30), job: JobId::new(job), at: Timestamp(40) }
    }

    fn completed(job: u64, status: i32) -> Sighting {
        Sighting::Completed {
            by: by(30),
            job: JobId::new(job),
            started: Some(Timestamp(40)),
            at: Timestamp(50),
            status,
        }
    }

    fn run(sightings: impl IntoIterator<Item = Sighting>) -> (Row, Totals) {
        let mut totals = Totals::default();
        let row = sightings.into_iter().fold(None, |row, sighting| Some(apply(row, &mut totals, sighting)));
        (row.unwrap(), totals)
    }

    #[test]
    fn a_task_from_issue_to_completion() {
        let (row, totals) = run([logged(), started(1), completed(1, 0)]);
        assert_eq!(
            (row.issued, row.logged, row.queued),
            (Some(Timestamp(10)), Some(Timestamp(20)), Some(Timestamp(30)))
        );
        assert_eq!(
            (row.started, row.completed, row.status),
            (Some(Timestamp(40)), Some(Timestamp(50)), Some(0))
        );
        assert_eq!(row.latency(), Some(std::time::Duration::from_micros(40)));
        assert_eq!((totals.issued, totals.queued, totals.started, totals.completed), (1, 1, 1, 1));
        assert_eq!((totals.failed, totals.duplicated, totals.repeats, totals.outstanding()), (0, 0, 0, 0));
        assert_eq!(totals.latency.count(), 1);
    }

    #[test]
    fn the_order_in_which_topics_are_read_changes_nothing() {
        let (mut late, late_totals) = run([completed(1, 3), started(1), logged()]);
        let (row, totals) = run([logged(), started(1), completed(1, 3)]);
        late.number = row.number;
        assert_eq!(late, row);
        assert_eq!((late_totals.failed, late_totals.started, late_totals.latency.count()), (1, 1, 1));
        assert_eq!(late_totals, totals);
    }

    #[test]
    fn the_same_again_is_a_repeat_and_another_job_is_a_duplicate() {
        let (_, totals) = run([logged(), logged(), started(1), started(1), completed(1, 0), completed(1, 0)]);
        assert_eq!(
            (totals.issued, totals.started, totals.completed, totals.duplicated, totals.repeats),
            (1, 1, 1, 0, 2)
        );
        let (row, totals) = run([logged(), completed(1, 0), completed(2, 1), completed(2, 1)]);
        assert_eq!((totals.completed, totals.duplicated, totals.repeats, totals.failed), (1, 1, 1, 0));
        assert_eq!((row.status, row.completed_jobs.len()), (Some(0), 2));
    }

    #[test]
    fn a_lost_job_is_followed_by_another() {
        let lost = Sighting::Lost { by: by(30), job: JobId::new(1), reason: "node down".to_owned() };
        let (row, totals) = run([logged(), started(1), lost, started(2), completed(2, 0)]);
        assert_eq!((totals.started, totals.completed, totals.duplicated, totals.lost_jobs), (1, 1, 0, 1));
        assert_eq!((row.started_jobs.len(), row.job), (2, Some(JobId::new(2))));
    }

    #[test]
    fn texts_of_strangers_are_cut() {
        let args = [("a".to_owned(), "é".repeat(5000))].into();
        let (task, node) = ("c".to_owned(), "any".to_owned());
        let request = TaskRequest { id: by(0).id, task, args, node, issued: Timestamp(1) };
        let Sighting::Logged { args, .. } = Sighting::of_request(request, Timestamp(2)) else {
            unreachable!()
        };
        assert!(args.len() <= TEXT_BYTES_MAX && args.starts_with("a=é"));
    }

    #[test]
    fn a_refused_task_is_not_outstanding() {
        let refused = || Sighting::Refused { by: by(30), reason: "unknown".to_owned() };
        let (_, totals) = run([logged(), refused(), refused()]);
        assert_eq!((totals.refused, totals.outstanding(), totals.repeats), (1, 0, 1));
    }
}
