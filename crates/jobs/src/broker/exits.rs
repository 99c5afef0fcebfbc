//! Ends jobs whose tasks end one after the other: when the first task of several has ended, the others have the time of
//! the shell option `exit-timeout`, by default 30 seconds. So an MPI program that lost a rank does not hang for ever.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kiln_types::{IdSet, JobId, Timestamp};

use crate::core::JobEvent;
use crate::core::Record;
use crate::core::{Caller, Effect, Input};
use crate::proto::{FromAgent, Request, ShellEvent, ShellStart, ToAgent};
use crate::spec::Jobspec;

/// How long a job may go on after its first task ended, unless it says otherwise; Flux's value.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);
/// The caller of what is decided here; its answers are dropped.
pub(super) const NOBODY: Caller = Caller(0);

/// A job of several tasks that runs.
struct Watched {
    timeout: Duration,
    size: u64,
    /// The tasks that ended; a report may come twice, so a count would not do.
    ended: IdSet,
    deadline: Option<Timestamp>,
    note: String,
}

/// The jobs of several tasks that this leader has started. Those that an earlier leader started are not among them.
#[derive(Default)]
pub(super) struct Exits {
    jobs: HashMap<JobId, Watched>,
    deadlines: BTreeSet<(Timestamp, JobId)>,
}

impl Exits {
    /// Notes jobs that start and end among the manager's decisions.
    pub(super) fn watch(&mut self, decided: &[Effect]) {
        for effect in decided {
            match effect {
                Effect::Send { message: ToAgent::Start(start), .. } if start.size() > 1 => self.begin(start),
                Effect::Append(stamped) => {
                    if let Record::Job { id, event: JobEvent::Finish(_) } = stamped.record {
                        self.end(id);
                    }
                }
                _ => {}
            }
        }
    }

    fn begin(&mut self, start: &ShellStart) {
        if self.jobs.contains_key(&start.job) {
            return;
        }
        if let Some(timeout) = exit_timeout(&start.jobspec) {
            let watched = Watched {
                timeout,
                size: start.size(),
                ended: IdSet::new(),
                deadline: None,
                note: String::new(),
            };
            self.jobs.insert(start.job, watched);
        }
    }

    fn end(&mut self, id: JobId) {
        if let Some(deadline) = self.jobs.remove(&id).and_then(|watched| watched.deadline) {
            self.deadlines.remove(&(deadline, id));
        }
    }

    /// Notes tasks that ended.
    pub(super) fn hear(&mut self, message: &FromAgent, now: Timestamp) {
        let FromAgent::Report(report) = message else { return };
        let Some(watched) = self.jobs.get_mut(&report.job) else { return };
        for event in &report.events {
            let ShellEvent::TaskExit { task, .. } = event.what else { continue };
            watched.ended.insert(task);
            if watched.deadline.is_none() {
                let deadline = now + watched.timeout;
                watched.deadline = Some(deadline);
                watched.note = format!(
                    "task {task} ended and exit-timeout={}s has expired",
                    watched.timeout.as_secs_f64()
                );
                self.deadlines.insert((deadline, report.job));
            }
        }
        if watched.ended.len() >= watched.size {
            self.end(report.job);
        }
    }

    /// When [`Exits::due`] has something to say.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Exceptions to raise.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<Input> {
        let mut inputs = Vec::new();
        while let Some((_, id)) = self.deadlines.first().copied().filter(|(at, _)| *at <= now) {
            let note = self.jobs.get(&id).map(|watched| watched.note.clone()).unwrap_or_default();
            self.end(id);
            let request = Request::Raise { id, kind: "exec".into(), severity: 0, note };
            inputs.push(Input::Request { caller: NOBODY, userid: nix::unistd::geteuid().as_raw(), request });
        }
        inputs
    }
}

/// The option of a jobspec; none when the job wants no timeout.
fn exit_timeout(jobspec: &str) -> Option<Duration> {
    let spec = Jobspec::parse(jobspec).ok()?;
    match spec.options.get("exit-timeout") {
        None => Some(EXIT_TIMEOUT),
        Some(value) if value == "none" => None,
        Some(value) => match (value.as_str(), value.as_f64()) {
            (Some(text), _) => {
                text.parse::<kiln_types::Fsd>().map_or(Some(EXIT_TIMEOUT), kiln_types::Fsd::duration)
            }
            (None, Some(seconds)) => Duration::try_from_secs_f64(seconds).ok(),
            (None, None) => Some(EXIT_TIMEOUT),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{ShellNode, ShellReport, Timed};
    use crate::spec::build::NewJob;
    use kiln_types::Rank;
    use serde_json::json;

    const ID: JobId = JobId::new(58);

    fn exits(timeout: &serde_json::Value) -> Exits {
        let job = NewJob {
            command: vec!["true".into()],
            ntasks: 2,
            cores_per_task: 1,
            options: vec![("exit-timeout".into(), timeout.clone())],
            ..NewJob::default()
        };
        let tasks = IdSet::range(0..=1);
        let start = ShellStart {
            job: ID,
            userid: 0,
            jobspec: job.jobspec().expect("a jobspec").to_string(),
            r: String::new(),
            nodes: vec![ShellNode { rank: Rank(0), host: "n0".into(), cores: tasks.clone(), tasks }],
            node: 0,
        };
        let mut exits = Exits::default();
        exits.watch(&[Effect::Send { rank: Rank(0), message: ToAgent::Start(Box::new(start)) }]);
        exits
    }

    fn exit(exits: &mut Exits, task: u32, now: Timestamp) {
        let what = ShellEvent::TaskExit { task, localid: task, pid: 7, wait_status: 0 };
        let report = ShellReport { job: ID, first: 0, events: vec![Timed { at: now, what }] };
        exits.hear(&FromAgent::Report(report), now);
    }

    #[test]
    fn the_others_have_the_time_that_the_job_says() {
        let mut exits = exits(&json!("5s"));
        assert_eq!(exits.wake_at(), None);
        exit(&mut exits, 1, Timestamp(1_000_000));
        assert_eq!(exits.wake_at(), Some(Timestamp(6_000_000)));
        assert!(exits.due(Timestamp(5_999_999)).is_empty());
        let due = exits.due(Timestamp(6_000_000));
        assert!(matches!(
            &due[..],
            [Input::Request { request: Request::Raise { id: ID, severity: 0, .. }, .. }]
        ));
        assert_eq!((exits.wake_at(), exits.due(Timestamp(i64::MAX)).len()), (None, 0));
    }

    #[test]
    fn a_job_whose_tasks_all_ended_is_left_alone() {
        let mut exits = exits(&json!(1.5));
        exit(&mut exits, 0, Timestamp(0));
        assert_eq!(exits.wake_at(), Some(Timestamp(1_500_000)));
        exit(&mut exits, 1, Timestamp(1));
        assert_eq!(exits.wake_at(), None);
    }

    #[test]
    fn a_job_may_want_no_timeout() {
        let mut exits = exits(&json!("none"));
        exit(&mut exits, 0, Timestamp(0));
        assert_eq!(exits.wake_at(), None);
    }
}
