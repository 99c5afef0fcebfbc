//! Answers that are held until there is something to say.

use super::{Caller, Effect, Manager, Outcome, Timer, requests::unknown_job};
use crate::{
    core::{
        event::{exit_code, signal_of},
        history::{Lookup, Want},
        job::Job,
        record::Record,
    },
    proto::{Answer, Failure, FailureKind, JobResult, JobRow, LogName, Reply, WAIT_MS_MAX, Waited},
};
use kiln_types::{JobId, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Held answers.
#[derive(Clone, Debug, Default)]
pub(super) struct Polls {
    held: BTreeMap<Caller, Held>,
    by_job: BTreeMap<JobId, BTreeSet<Caller>>,
    /// Those who wait for any waitable job.
    any: BTreeSet<Caller>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    what: What,
    deadline: Timestamp,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Job(JobId, Want),
    Wait { id: Option<JobId>, userid: u32 },
}

impl What {
    fn job(self) -> Option<JobId> {
        match self {
            Self::Job(id, _) => Some(id),
            Self::Wait { id, .. } => id,
        }
    }
}

impl Polls {
    fn hold(&mut self, caller: Caller, held: Held) {
        match held.what.job() {
            Some(id) => self.by_job.entry(id).or_default().insert(caller),
            None => self.any.insert(caller),
        };
        self.held.insert(caller, held);
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&mut self, caller: Caller) {
        self.release(caller);
    }

    fn release(&mut self, caller: Caller) -> Option<Held> {
        let held = self.held.remove(&caller)?;
        self.any.remove(&caller);
        if let Some(id) = held.what.job()
            && let Some(callers) = self.by_job.get_mut(&id)
        {
            callers.remove(&caller);
            if callers.is_empty() {
                self.by_job.remove(&id);
            }
        }
        Some(held)
    }

    /// Everybody whose answer may have changed with one of these jobs.
    fn concerned(&self, changed: &BTreeSet<JobId>) -> Vec<Caller> {
        if self.held.is_empty() || changed.is_empty() {
            return Vec::new();
        }
        let of_jobs = changed.iter().filter_map(|id| self.by_job.get(id)).flatten();
        of_jobs.chain(&self.any).copied().collect()
    }
}

impl Manager {
    /// Answers, looks up, or holds a question about a job's logs.
    pub(super) fn poll_job(
        &mut self,
        to: Caller,
        id: JobId,
        want: Want,
        wait_ms: u32,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        let what = What::Job(id, want);
        match self.try_job(to, id, want, effects) {
            Some(outcome) => outcome,
            None => self.hold(to, what, wait_ms, now),
        }
    }

    /// Answers or holds a wait for a waitable job.
    pub(super) fn poll_wait(
        &mut self,
        to: Caller,
        userid: u32,
        id: Option<JobId>,
        wait_ms: u32,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        match self.try_wait(userid, id, now, effects) {
            Some(answer) => answer.into(),
            None => self.hold(to, What::Wait { id, userid }, wait_ms, now),
        }
    }

    fn hold(&mut self, to: Caller, what: What, wait_ms: u32, now: Timestamp) -> Outcome {
        if wait_ms == 0 {
            return Ok(nothing_yet(what)).into();
        }
        let deadline = now + Duration::from_millis(u64::from(wait_ms.min(WAIT_MS_MAX)));
        self.timers.insert((deadline, Timer::Poll(to)));
        self.polls.hold(to, Held { what, deadline });
        Outcome::Later
    }

    /// An answer was held long enough.
    pub(super) fn poll_over(&mut self, caller: Caller, effects: &mut Vec<Effect>) {
        if let Some(held) = self.polls.release(caller) {
            effects.push(Effect::Reply { to: caller, answer: Ok(nothing_yet(held.what)) });
        }
    }

    /// Answers those for whom there is something to say now.
    pub(super) fn answer_polls(&mut self, changed: &BTreeSet<JobId>, effects: &mut Vec<Effect>) {
        for caller in self.polls.concerned(changed) {
            let Some(Held { what, deadline }) = self.polls.held.get(&caller).copied() else { continue };
            let outcome = match what {
                What::Job(id, want) => self.try_job(caller, id, want, effects),
                What::Wait { id, userid } => self.try_wait(userid, id, deadline, effects).map(Outcome::from),
            };
            let Some(outcome) = outcome else { continue };
            self.polls.release(caller);
            self.timers.remove(&(deadline, Timer::Poll(caller)));
            if let Outcome::Now(answer) = outcome {
                effects.push(Effect::Reply { to: caller, answer });
            }
        }
    }

    /// What there is to say about a job's logs; none when there is nothing yet.
    fn try_job(&mut self, to: Caller, id: JobId, want: Want, effects: &mut Vec<Effect>) -> Option<Outcome> {
        let (reply, span, over) = match self.active.get(&id) {
            Some(job) => (from_memory(job, want)?, job.span, false),
            None => match self.archive.span(id) {
                Some(span) => (None, span, true),
                None => return Some(Err(unknown_job()).into()),
            },
        };
        if let Some(reply) = reply {
            return Some(Ok(reply).into());
        }
        effects.push(Effect::Lookup(Lookup { to, id, span, want, over }));
        Some(Outcome::Later)
    }

    fn try_wait(
        &mut self,
        userid: u32,
        id: Option<JobId>,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Option<Answer> {
        let ended = |row: &&JobRow| row.userid == userid && id.is_none_or(|id| row.id == id);
        let waitable = self.archive.newest_first().filter(|job| job.waitable).map(|job| &job.row);
        if let Some(row) = waitable.filter(ended).last() {
            let waited =
                Waited { id: row.id, success: row.result == Some(JobResult::Completed), text: end_text(row) };
            self.append(now, Record::Waited { id: waited.id }, effects);
            return Some(Ok(Reply::Waited(Some(waited))));
        }
        let comes = self.active.values().any(|job| job.flags.waitable && ended(&&job.row));
        if comes {
            return None;
        }
        let text = match id {
            Some(_) => "invalid job id, or job may be inactive and not waitable",
            None => "there are no more waitable jobs",
        };
        Some(Err(Failure::new(FailureKind::NotWaitable, text)))
    }
}

/// The answer when the time is up.
fn nothing_yet(what: What) -> Reply {
    match what {
        What::Job(_, Want::Output(_)) => Reply::Output { pieces: Vec::new(), finished: false },
        What::Job(..) => Reply::Events { entries: Vec::new(), finished: false },
        What::Wait { .. } => Reply::Waited(None),
    }
}

/// What memory says about an active job's logs: none when nothing is there yet, `Some(None)` when only the log knows.
#[expect(clippy::option_option, reason = "three answers: nothing yet, ask the log, this")]
fn from_memory(job: &Job, want: Want) -> Option<Option<Reply>> {
    match want {
        // Documents do not wait.
        Want::Info(_) => Some(None),
        Want::Events(log, from) => {
            let (all, finished) = match log {
                LogName::Main => (&job.main, false),
                LogName::Exec => (&job.exec.entries, job.exec.done),
            };
            let entries = all.get(from as usize..).unwrap_or_default().to_vec();
            (finished || !entries.is_empty()).then_some(Some(Reply::Events { entries, finished }))
        }
        Want::Output(from) if from < job.output.first => Some(None),
        Want::Output(from) => {
            let skip = usize::try_from(from - job.output.first).unwrap_or(usize::MAX);
            let pieces: Vec<_> = job.output.pieces.iter().skip(skip).cloned().collect();
            let finished = job.started() && job.shells_done();
            (finished || !pieces.is_empty()).then_some(Some(Reply::Output { pieces, finished }))
        }
    }
}

/// How a job ended, in the words of `flux job wait`.
fn end_text(row: &JobRow) -> String {
    match (row.result, row.waitstatus, &row.exception) {
        (Some(JobResult::Completed), ..) => String::new(),
        (_, Some(status), _) if signal_of(status).is_some() || exit_code(status) > 0 => {
            format!("task(s) exited with exit code {}", exit_code(status))
        }
        (_, _, Some(raised)) => format!("Fatal exception type={} {}", raised.kind, raised.note),
        _ => "job failed".to_owned(),
    }
}
