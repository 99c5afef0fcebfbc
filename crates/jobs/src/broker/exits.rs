//! Ends jobs whose tasks end one after the other: when the first task of several has ended, the others have the time of
//! the shell option `exit-timeout`, by default 30 seconds. So an MPI program that lost a rank does not hang for ever.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use kiln_types::{JobId, Timestamp};

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
    tasks_left: u64,
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
            let watched = Watched { timeout, tasks_left: start.size(), deadline: None, note: String::new() };
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
            watched.tasks_left = watched.tasks_left.saturating_sub(1);
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
        if watched.tasks_left == 0 {
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
