//! What clients ask.

use super::{Caller, Effect, Manager};
use crate::{
    core::{
        event::JobEvent,
        history::{Lookup, Want, hostpids, not_found},
        job::{Job, priority_of},
        record::{Record, Submitted},
    },
    proto::{
        Answer, Failure, FailureKind, InfoKey, JobResult, JobState, KEY_BYTES_MAX, RaisedException, Reply,
        Request, Submit, ToAgent, WhichNodes,
    },
    spec::{Condition, Dependency, Jobspec},
};
use kiln_types::{IdSet, JobId, Rank, Timestamp};

/// The greatest urgency.
const URGENCY_MAX: u8 = 31;

/// The longest note or reason that is kept, in bytes.
const NOTE_BYTES_MAX: usize = 4096;

/// What to do about a request: answer now, or not yet.
pub(super) enum Outcome {
    Now(Answer),
    /// Another effect or a later event answers.
    Later,
}

impl From<Answer> for Outcome {
    fn from(answer: Answer) -> Self {
        Self::Now(answer)
    }
}

impl Manager {
    pub(super) fn request(
        &mut self,
        caller: Caller,
        userid: u32,
        request: Request,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let outcome = self.outcome(caller, userid, request, now, effects);
        if let Outcome::Now(answer) = outcome {
            effects.push(Effect::Reply { to: caller, answer });
        }
    }

    fn outcome(
        &mut self,
        to: Caller,
        userid: u32,
        request: Request,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        match request {
            Request::Submit(submit) => self.submit(userid, *submit, now, effects).into(),
            Request::List(filter) => Ok(Reply::Jobs(self.list(&filter))).into(),
            Request::Last { count } => Ok(Reply::Ids(self.last(userid, count as usize))).into(),
            Request::Stats => Ok(Reply::Stats(self.stats())).into(),
            Request::Info { id, key } => self.info(to, id, key, effects),
            Request::Events { id, log, from, wait_ms } => {
                self.poll_job(to, id, Want::Events(log, from), wait_ms, now, effects)
            }
            Request::Output { id, from, wait_ms } => {
                self.poll_job(to, id, Want::Output(from), wait_ms, now, effects)
            }
            Request::Raise { id, kind, severity, note } => {
                let raised = RaisedException { kind, severity, note };
                self.raise_for(userid, id, raised, now, effects).into()
            }
            Request::Kill { id, signal } => self.kill(userid, id, signal, effects).into(),
            Request::Stdin { id, tasks, data, eof } => {
                let message = ToAgent::Stdin { job: id, tasks, data, eof };
                self.stdin(userid, id, &message, effects).into()
            }
            Request::Urgency { id, urgency } => self.set_urgency(userid, id, urgency, now, effects).into(),
            Request::Wait { id, wait_ms } => self.poll_wait(to, userid, id, wait_ms, now, effects),
            Request::Resources => Ok(Reply::Nodes(self.graph.rows())).into(),
            Request::Drain { nodes, reason } => self.drain(userid, &nodes, reason, now, effects).into(),
            Request::Undrain { nodes } => self.undrain(userid, &nodes, now, effects).into(),
            Request::Attributes => Ok(Reply::Attributes(self.attributes())).into(),
            Request::Scheduling { on } => self.set_scheduling(userid, on, now, effects).into(),
            Request::SchedulingStatus => Ok(self.scheduling_status()).into(),
        }
    }

    fn submit(&mut self, userid: u32, submit: Submit, now: Timestamp, effects: &mut Vec<Effect>) -> Answer {
        let Submit { jobspec, urgency, flags, key } = submit;
        self.privileged(userid).map_err(|_| {
            Failure::new(FailureKind::Permission, "only the owner of this instance may submit jobs to it")
        })?;
        if let Some(id) = key.as_ref().and_then(|key| self.archive.job_of_key(userid, key)) {
            return Ok(Reply::Submitted { id, known: true });
        }
        self.check_room(&jobspec)?;
        check_urgency(urgency)?;
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > KEY_BYTES_MAX) {
            return Err(invalid(format!("a key must have 1 to {KEY_BYTES_MAX} bytes")));
        }
        let spec = Jobspec::parse(&jobspec).map_err(|error| invalid(error.to_string()))?;
        spec.dependencies.iter().try_for_each(|dependency| self.check_dependency(dependency))?;
        let id = self.ids.next(now);
        let submitted = Submitted { id, userid, urgency, flags, key, jobspec };
        self.append(now, Record::Submitted(Box::new(submitted)), effects);
        Ok(Reply::Submitted { id, known: false })
    }

    fn check_room(&self, jobspec: &str) -> Result<(), Failure> {
        let full = self.active.len() >= self.config.active_max
            || self.jobspec_bytes + jobspec.len() > self.config.jobspec_bytes_max;
        if full {
            let text = format!("the queue is full with {} active jobs, try again later", self.active.len());
            return Err(Failure::new(FailureKind::Busy, text));
        }
        Ok(())
    }

    /// Refuses what can already be seen never to be met. The texts are Flux's.
    fn check_dependency(&self, dependency: &Dependency) -> Result<(), Failure> {
        let (Condition::Started(id)
        | Condition::Succeeded(id)
        | Condition::Failed(id)
        | Condition::Ended(id)) = dependency.condition
        else {
            return Ok(());
        };
        let Dependency { scheme, value, .. } = dependency;
        let Some(row) = self.row(id) else {
            return Err(Failure::new(
                FailureKind::NotFound,
                format!("dependency: {scheme}: id {value}: job not found"),
            ));
        };
        match (dependency.condition, row.result) {
            (Condition::Succeeded(_), Some(result)) if result != JobResult::Completed => {
                Err(invalid(format!("dependency: {scheme}: job {id} failed or was canceled")))
            }
            (Condition::Failed(_), Some(JobResult::Completed)) => {
                Err(invalid(format!("dependency: {scheme}: job {id} succeeded")))
            }
            _ => Ok(()),
        }
    }

    /// The newest jobs of a user.
    fn last(&self, userid: u32, count: usize) -> Vec<JobId> {
        let rows = self.active_rows().chain(self.inactive_rows());
        let mut ids: Vec<JobId> = rows.filter(|row| row.userid == userid).map(|row| row.id).collect();
        ids.sort_unstable_by(|one, other| other.cmp(one));
        ids.truncate(count);
        ids
    }

    fn info(&mut self, to: Caller, id: JobId, key: InfoKey, effects: &mut Vec<Effect>) -> Outcome {
        if let Some(job) = self.active.get(&id) {
            return document(job, key).map(Reply::Document).ok_or_else(|| not_found(key)).into();
        }
        match self.archive.span(id) {
            Some(span) => {
                effects.push(Effect::Lookup(Lookup { to, id, span, want: Want::Info(key), over: true }));
                Outcome::Later
            }
            None => Err(unknown_job()).into(),
        }
    }

    fn raise_for(
        &mut self,
        userid: u32,
        id: JobId,
        raised: RaisedException,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        self.check_owner(userid, id)?;
        let RaisedException { kind, severity, note } = &raised;
        if kind.is_empty() || kind.len() > NOTE_BYTES_MAX || kind.contains(char::is_whitespace) {
            return Err(invalid("the exception type must be one word"));
        }
        if *severity > 7 {
            return Err(invalid("the severity must be from 0 to 7"));
        }
        if note.len() > NOTE_BYTES_MAX {
            return Err(invalid(format!("the note must have at most {NOTE_BYTES_MAX} bytes")));
        }
        self.raise(id, userid, raised, now, effects);
        Ok(Reply::Done)
    }

    fn kill(&mut self, userid: u32, id: JobId, signal: i32, effects: &mut Vec<Effect>) -> Answer {
        self.check_owner(userid, id)?;
        if !(1..=64).contains(&signal) {
            return Err(invalid(format!("signal {signal} is not one")));
        }
        if self.signal(id, signal, effects) { Ok(Reply::Done) } else { Err(not_running()) }
    }

    fn stdin(&mut self, userid: u32, id: JobId, message: &ToAgent, effects: &mut Vec<Effect>) -> Answer {
        self.check_owner(userid, id)?;
        let job = self.active.get(&id).filter(|job| job.started()).ok_or_else(not_running)?;
        let ranks = job.allocation.iter().flat_map(|allocation| &allocation.nodes).map(|node| node.rank);
        let left = ranks.zip(&job.shells).filter(|(_, shell)| !shell.done);
        effects.extend(left.map(|(rank, _)| Effect::Send { rank, message: message.clone() }));
        Ok(Reply::Done)
    }

    fn set_urgency(
        &mut self,
        userid: u32,
        id: JobId,
        urgency: u8,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        self.check_owner(userid, id)?;
        check_urgency(urgency)?;
        let Some(job) = self.active.get(&id) else { return Err(unknown_job()) };
        let (before, state) = (job.row.urgency, job.state());
        if state >= JobState::Run {
            return Err(Failure::new(
                FailureKind::State,
                "urgency cannot be changed once resources are allocated",
            ));
        }
        self.append_job(now, id, JobEvent::Urgency { userid, urgency }, effects);
        if state == JobState::Sched {
            self.append_job(now, id, JobEvent::Priority(priority_of(urgency)), effects);
        }
        Ok(Reply::Urgency(before))
    }

    fn drain(
        &mut self,
        userid: u32,
        nodes: &WhichNodes,
        reason: String,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        self.privileged(userid)?;
        if reason.len() > NOTE_BYTES_MAX {
            return Err(invalid(format!("the reason must have at most {NOTE_BYTES_MAX} bytes")));
        }
        let ranks = self.ranks(nodes)?;
        let already = ranks.intersection(&self.graph.drained());
        if !already.is_empty() {
            return Err(invalid(format!("{} {already} already drained", rank_word(&already))));
        }
        self.append(now, Record::Drained { ranks, reason }, effects);
        Ok(Reply::Done)
    }

    fn undrain(
        &mut self,
        userid: u32,
        nodes: &WhichNodes,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        self.privileged(userid)?;
        let ranks = self.ranks(nodes)?;
        let not = ranks.difference(&self.graph.drained());
        if !not.is_empty() {
            return Err(invalid(format!("{} {not} not drained", rank_word(&not))));
        }
        self.append(now, Record::Undrained { ranks }, effects);
        Ok(Reply::Done)
    }

    fn ranks(&self, nodes: &WhichNodes) -> Result<IdSet, Failure> {
        let (ranks, unknown) = match nodes {
            WhichNodes::Ranks(ranks) => {
                let unknown = ranks.iter().take(1 << 16).find(|&rank| !self.graph.has(Rank(rank)));
                (ranks.clone(), unknown.map(|rank| rank.to_string()))
            }
            WhichNodes::Hosts(hosts) => {
                let ranks = self.graph.ranks_of(hosts);
                let rows = self.graph.rows();
                let unknown = hosts.iter().find(|host| rows.iter().all(|row| row.host != *host));
                (ranks, unknown.map(str::to_owned))
            }
        };
        match unknown {
            Some(name) => Err(Failure::new(FailureKind::NotFound, format!("{name}: there is no such node"))),
            None if ranks.is_empty() => Err(invalid("no nodes are named")),
            None => Ok(ranks),
        }
    }

    fn set_scheduling(&mut self, userid: u32, on: bool, now: Timestamp, effects: &mut Vec<Effect>) -> Answer {
        self.privileged(userid)?;
        if on != self.scheduling {
            self.append(now, Record::Scheduling { on }, effects);
        }
        Ok(Reply::Done)
    }

    fn scheduling_status(&self) -> Reply {
        let running = self.active.values().filter(|job| job.state() == JobState::Run).count();
        Reply::Scheduling { on: self.scheduling, pending: self.queue.len() as u32, running: running as u32 }
    }

    fn attributes(&self) -> Vec<(String, String)> {
        let mut all = self.config.attributes.clone();
        all.push(("size".to_owned(), self.graph.size().to_string()));
        all.sort();
        all
    }

    fn privileged(&self, userid: u32) -> Result<(), Failure> {
        if userid == 0 || userid == self.config.owner {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Permission, "only the owner of this instance may do that"))
    }

    /// Whether the user may change this job, which must be active.
    fn check_owner(&self, userid: u32, id: JobId) -> Result<(), Failure> {
        let Some(job) = self.active.get(&id) else {
            return match self.archive.span(id) {
                Some(_) => Err(Failure::new(FailureKind::State, "job is inactive")),
                None => Err(Failure::new(FailureKind::NotFound, "unknown job id")),
            };
        };
        if job.row.userid == userid || self.privileged(userid).is_ok() {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Permission, "the job belongs to another user"))
    }
}

fn document(job: &Job, key: InfoKey) -> Option<String> {
    let allocation = job.allocation.as_ref();
    match key {
        InfoKey::Jobspec => Some(job.text.to_string()),
        InfoKey::R => Some(allocation?.r(job.row.t_run.unwrap_or_default()).to_json()),
        InfoKey::Hostpids if job.exec.shell_start => {
            Some(hostpids(&allocation?.nodes, job.shells.iter().map(|shell| shell.pids.as_slice())))
        }
        InfoKey::Hostpids => None,
    }
}

fn check_urgency(urgency: u8) -> Result<(), Failure> {
    if urgency > URGENCY_MAX { Err(invalid("urgency range is [0:31]")) } else { Ok(()) }
}

fn rank_word(ranks: &IdSet) -> &'static str {
    if ranks.len() == 1 { "rank" } else { "ranks" }
}

pub(super) fn invalid(text: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Invalid, text)
}

pub(super) fn unknown_job() -> Failure {
    Failure::new(FailureKind::NotFound, "invalid job id")
}

fn not_running() -> Failure {
    Failure::new(FailureKind::State, "job is not running")
}
