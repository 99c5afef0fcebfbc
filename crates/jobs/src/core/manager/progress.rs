//! How a job goes on from the state that it is in (Flux RFC 21).
//!
//! [`Manager::advance`] looks only at what is recorded. So it may be called at any time, also after a restart in the
//! middle of anything, and does what is missing.

use super::{Effect, Manager, Timer};
use crate::{
    core::{
        event::{Allocation, ExecEvent, JobEvent},
        job::{Job, priority_of},
        plan::{Waiting, plan},
    },
    proto::{JobResult, JobState, RaisedException, ShellNode, ShellStart, ToAgent},
    spec::{Condition, Dependency},
};
use kiln_types::{JobId, Rank, Timestamp};

const SIGKILL: i32 = 9;
const SIGALRM: i32 = 14;
const SIGTERM: i32 = 15;

/// Whether a job's dependency is met.
enum Standing {
    Met,
    Open,
    Hopeless,
}

impl Manager {
    /// Does what is next for a job.
    pub(super) fn advance(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        self.touch_dependents(id);
        loop {
            let Some(job) = self.active.get(&id) else { return };
            let before = (job.state(), job.main.len(), job.exec.entries.len());
            match job.state() {
                JobState::New => self.validate(id, now, effects),
                JobState::Depend => self.check_dependencies(id, now, effects),
                JobState::Priority => {
                    let priority = priority_of(job.row.urgency);
                    self.append_job(now, id, JobEvent::Priority(priority), effects);
                }
                JobState::Sched => self.check_feasible(id, now, effects),
                JobState::Run => self.finish_if_done(id, now, effects),
                JobState::Cleanup => self.clean_up(id, now, effects),
                JobState::Inactive => return,
            }
            let Some(job) = self.active.get(&id) else { return };
            if (job.state(), job.main.len(), job.exec.entries.len()) == before {
                return;
            }
        }
    }

    fn touch_dependents(&mut self, id: JobId) {
        let waits = |job: &&Job| {
            let about = |dependency: &Dependency| target(dependency) == Some(id);
            job.state() == JobState::Depend && job.waits_for.iter().any(about)
        };
        let waiting: Vec<JobId> = self.dependents.get(&id).into_iter().flatten().copied().collect();
        let waiting = waiting.into_iter().filter(|id| self.active.get(id).as_ref().is_some_and(waits));
        self.touched.extend(waiting);
    }

    fn validate(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(job) = self.active.get(&id) else { return };
        let known = &job.row.dependencies;
        let missing: Vec<String> = job
            .spec
            .dependencies
            .iter()
            .map(Dependency::description)
            .filter(|description| !known.contains(description))
            .collect();
        for description in missing {
            self.append_job(now, id, JobEvent::DependencyAdd(description), effects);
        }
        self.append_job(now, id, JobEvent::Validate, effects);
    }

    fn check_dependencies(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(job) = self.active.get(&id) else { return };
        for dependency in job.waits_for.clone() {
            let description = dependency.description();
            match self.standing(&dependency, now) {
                Standing::Met => self.append_job(now, id, JobEvent::DependencyRemove(description), effects),
                Standing::Hopeless => {
                    let note = format!("dependency {description} can never be satisfied");
                    return self.raise(id, 0, exception("dependency", note), now, effects);
                }
                Standing::Open => self.remind(id, &dependency),
            }
        }
        if self.active.get(&id).is_some_and(|job| job.waits_for.is_empty()) {
            self.append_job(now, id, JobEvent::Depend, effects);
        }
    }

    fn remind(&mut self, id: JobId, dependency: &Dependency) {
        if let Condition::Begin(at) = dependency.condition {
            self.timers.insert((Timestamp::from_seconds_f64(at), Timer::Begin(id)));
        }
        if let Some(other) = target(dependency) {
            self.dependents.entry(other).or_default().insert(id);
        }
    }

    fn standing(&self, dependency: &Dependency, now: Timestamp) -> Standing {
        let Some(other) = target(dependency) else {
            let Condition::Begin(at) = dependency.condition else { return Standing::Open };
            return if Timestamp::from_seconds_f64(at) <= now { Standing::Met } else { Standing::Open };
        };
        // A job that is no longer listed ended long ago; how it ended is not known any more.
        let Some(row) = self.row(other) else { return Standing::Hopeless };
        let success = row.result.map(|result| result == JobResult::Completed);
        match (dependency.condition, success) {
            (Condition::Started(_), _) if row.t_run.is_some() => Standing::Met,
            (Condition::Ended(_), Some(_))
            | (Condition::Succeeded(_), Some(true))
            | (Condition::Failed(_), Some(false)) => Standing::Met,
            (_, Some(_)) => Standing::Hopeless,
            (_, None) => Standing::Open,
        }
    }

    fn check_feasible(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(job) = self.active.get(&id) else { return };
        if let Err(why) = self.graph.feasible(&job.spec.shape, job.spec.constraint.as_ref()) {
            let hint = self.graph.exclusion_hint(&job.spec.shape, job.spec.constraint.as_ref());
            self.raise(id, self.config.owner, exception("alloc", format!("{why}{hint}")), now, effects);
        }
    }

    /// Starts what fits.
    pub(super) fn schedule(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.scheduling || self.queue.is_empty() {
            return;
        }
        let waiting = self.queue.iter().filter_map(|(_, id)| self.active.get(id)).map(|job| Waiting {
            id: job.id(),
            shape: job.spec.shape,
            constraint: job.spec.constraint.as_ref(),
            duration: job.spec.duration,
        });
        for decision in plan(waiting, &mut self.graph.clone(), now) {
            self.start(decision.id, decision.allocation, now, effects);
        }
    }

    fn start(&mut self, id: JobId, allocation: Allocation, now: Timestamp, effects: &mut Vec<Effect>) {
        self.timers.extend(allocation.expiration.map(|at| (at, Timer::Expire(id))));
        let ranks: Vec<Rank> = allocation.nodes.iter().map(|node| node.rank).collect();
        self.append_job(now, id, JobEvent::Alloc(allocation), effects);
        self.append_job(now, id, JobEvent::Start, effects);
        self.append_exec(now, id, ExecEvent::Init, None, effects);
        self.append_exec(now, id, ExecEvent::Starting, None, effects);
        for rank in ranks {
            self.send_start(id, rank, effects);
        }
    }

    /// Tells an agent to start its part of a job.
    pub(super) fn send_start(&self, id: JobId, rank: Rank, effects: &mut Vec<Effect>) {
        let message = self.active.get(&id).and_then(|job| shell_start(job, rank));
        effects.extend(message.map(|start| Effect::Send { rank, message: ToAgent::Start(Box::new(start)) }));
    }

    fn finish_if_done(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(job) = self.active.get(&id) else { return };
        if !job.started() || !job.shells_done() {
            return;
        }
        let worst = job.worst;
        self.append_exec(now, id, ExecEvent::Complete(worst), None, effects);
        self.append_exec(now, id, ExecEvent::Done, None, effects);
        self.append_job(now, id, JobEvent::Finish(worst), effects);
    }

    fn clean_up(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        let Some(job) = self.active.get(&id) else { return };
        if job.started() && !job.shells_done() {
            return;
        }
        let (started, allocated) = (job.started(), job.allocation.is_some());
        if started && job.row.waitstatus.is_none() {
            return self.finish_if_done(id, now, effects);
        }
        if allocated {
            self.append_job(now, id, JobEvent::Release, effects);
            self.append_job(now, id, JobEvent::Free, effects);
        }
        self.append_job(now, id, JobEvent::Clean, effects);
        self.touch_dependents(id);
        self.dependents.remove(&id);
    }

    /// Raises an exception; a fatal one ends the job, and its tasks are told so.
    pub(super) fn raise(
        &mut self,
        id: JobId,
        userid: u32,
        raised: RaisedException,
        now: Timestamp,
        effects: &mut Vec<Effect>,
    ) {
        let Some(job) = self.active.get(&id) else { return };
        let first_fatal = raised.severity == 0 && job.fatal.is_none();
        let signal = if raised.kind == "timeout" { SIGALRM } else { SIGTERM };
        self.append_job(now, id, JobEvent::Exception { userid, raised }, effects);
        if first_fatal {
            self.signal(id, signal, effects);
            self.timers.insert((now + self.config.kill_grace, Timer::Kill(id)));
        }
    }

    /// Sends a signal to what is left of a job's tasks; tells whether anything was.
    pub(super) fn signal(&self, id: JobId, signal: i32, effects: &mut Vec<Effect>) -> bool {
        let Some(job) = self.active.get(&id) else { return false };
        let nodes = job.allocation.iter().flat_map(|allocation| &allocation.nodes);
        let left: Vec<Rank> =
            nodes.zip(&job.shells).filter(|(_, shell)| !shell.done).map(|(node, _)| node.rank).collect();
        let message = ToAgent::Kill { job: id, signal };
        effects.extend(left.iter().map(|&rank| Effect::Send { rank, message: message.clone() }));
        !left.is_empty()
    }

    /// A job's tasks did not end in time.
    pub(super) fn kill_left(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        if self.signal(id, SIGKILL, effects) {
            self.timers.insert((now + self.config.kill_grace, Timer::Kill(id)));
        }
    }

    /// A job's time is up.
    pub(super) fn expire(&mut self, id: JobId, now: Timestamp, effects: &mut Vec<Effect>) {
        let runs = self.active.get(&id).is_some_and(|job| job.state() == JobState::Run);
        if runs {
            let raised = exception("timeout", "resource allocation expired".to_owned());
            self.raise(id, self.config.owner, raised, now, effects);
        }
    }
}

/// A fatal exception.
pub(super) fn exception(kind: &str, note: String) -> RaisedException {
    RaisedException { kind: kind.to_owned(), severity: 0, note }
}

fn target(dependency: &Dependency) -> Option<JobId> {
    match dependency.condition {
        Condition::Started(id) | Condition::Succeeded(id) | Condition::Failed(id) | Condition::Ended(id) => {
            Some(id)
        }
        Condition::Begin(_) => None,
    }
}

fn shell_start(job: &Job, rank: Rank) -> Option<ShellStart> {
    let allocation = job.allocation.as_ref()?;
    Some(ShellStart {
        job: job.id(),
        userid: job.row.userid,
        jobspec: job.text.to_string(),
        r: allocation.r(job.row.t_run.unwrap_or_default()).to_json(),
        nodes: shell_nodes(job, allocation),
        node: allocation.place(rank)?,
    })
}

/// The nodes of a job with the tasks that each has.
pub(super) fn shell_nodes(job: &Job, allocation: &Allocation) -> Vec<ShellNode> {
    let sizes: Vec<(u32, u32)> =
        allocation.nodes.iter().map(|node| (node.slots, node.cores.len() as u32)).collect();
    let tasks = job.spec.layout(&sizes);
    let shell = |(node, tasks): (&crate::core::event::AllocatedNode, _)| ShellNode {
        rank: node.rank,
        host: node.host.clone(),
        cores: node.cores.clone(),
        tasks,
    };
    allocation.nodes.iter().zip(tasks).map(shell).collect()
}
