//! An active job: its state by RFC 21, and what is known about its execution.

use super::{
    event::{Allocation, ExecEvent, JobEvent, worse},
    record::{Record, Source, Stamped, Submitted},
};
use crate::{
    proto::{Entry, JobResult, JobRow, JobState, OutputEvent, RaisedException, SubmitFlags, Timed},
    spec::{Dependency, Jobspec},
};
use kiln_types::{JobId, Offset, Timestamp};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

/// How many bytes of a running job's output stay in memory for those who follow it; the rest is on disk.
pub const OUTPUT_TAIL_BYTES_MAX: usize = 1 << 20;

/// The priority of urgency 31, which goes before everything.
const PRIORITY_EXPEDITE: i64 = 4_294_967_295;

/// The place in the queue that an urgency gives.
#[must_use]
pub fn priority_of(urgency: u8) -> i64 {
    if urgency == 31 { PRIORITY_EXPEDITE } else { i64::from(urgency) }
}

/// First and last record of a job in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// That of its submission.
    pub first: Offset,
    /// The newest.
    pub last: Offset,
}

/// A job that is not over.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Job {
    pub(super) row: JobRow,
    pub(super) spec: Jobspec,
    /// The jobspec as submitted.
    pub(super) text: Arc<str>,
    pub(super) flags: SubmitFlags,
    pub(super) key: Option<String>,
    pub(super) span: Span,
    /// What it still waits for; filled by `DependencyAdd` and emptied by `DependencyRemove`.
    pub(super) waits_for: Vec<Dependency>,
    pub(super) allocation: Option<Allocation>,
    /// One for each node of the allocation.
    pub(super) shells: Vec<Shell>,
    /// The exception that ends it.
    pub(super) fatal: Option<RaisedException>,
    /// The worst wait status so far.
    pub(super) worst: i32,
    pub(super) main: Vec<Entry>,
    pub(super) exec: ExecLog,
    pub(super) output: Tail,
    pub(super) barriers: Barriers,
}

/// A shell of a job, as far as the manager knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shell {
    /// Number of the next report wanted.
    pub(super) next: u64,
    pub(super) pids: Vec<u32>,
    pub(super) done: bool,
}

/// A job's execution log, and which of its milestones were reached.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ExecLog {
    pub(super) entries: Vec<Entry>,
    pub(super) shell_init: bool,
    pub(super) shell_start: bool,
    pub(super) task_exit: bool,
    pub(super) done: bool,
}

/// The PMI barriers that a job's shells are in. Not kept on disk: agents send theirs again.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Barriers {
    /// By round. No node is more than one ahead of another, so there are few.
    pub(super) open: BTreeMap<u64, Barrier>,
    /// The newest that is over, and what all put, for those who missed its end.
    pub(super) last: Option<(u64, Vec<(String, String)>)>,
}

/// A barrier that not all nodes are in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Barrier {
    /// By place in the job: who is in.
    pub(super) present: Vec<bool>,
    pub(super) pairs: Vec<(String, String)>,
}

/// The newest pieces of a job's output.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Tail {
    /// Number of the first piece that is still here.
    pub(super) first: u64,
    pub(super) pieces: VecDeque<Timed<OutputEvent>>,
    bytes: usize,
}

pub(super) fn weight(event: &OutputEvent) -> usize {
    64 + match event {
        OutputEvent::Data { data, .. } => data.0.len(),
        OutputEvent::Redirect { path, .. } => path.len(),
        OutputEvent::Log { text, .. } => text.len(),
    }
}

impl Tail {
    fn push(&mut self, at: Timestamp, event: OutputEvent) {
        self.bytes += weight(&event);
        self.pieces.push_back(Timed { at, what: event });
        while self.bytes > OUTPUT_TAIL_BYTES_MAX && self.pieces.len() > 1 {
            if let Some(old) = self.pieces.pop_front() {
                self.bytes -= weight(&old.what);
                self.first += 1;
            }
        }
    }
}

impl Job {
    pub(super) fn new(at: Timestamp, offset: Offset, submitted: Submitted, spec: Jobspec) -> Self {
        let Submitted { id, userid, urgency, flags, key, jobspec } = submitted;
        let submit = JobEvent::Submit { userid, urgency, flags: flags.bits() };
        Self {
            row: new_row(id, userid, urgency, at, &spec),
            spec,
            text: jobspec.into(),
            flags,
            key,
            span: Span { first: offset, last: offset },
            waits_for: Vec::new(),
            allocation: None,
            shells: Vec::new(),
            fatal: None,
            worst: 0,
            main: vec![submit.entry(at)],
            exec: ExecLog::default(),
            output: Tail::default(),
            barriers: Barriers::default(),
        }
    }

    pub(super) fn id(&self) -> JobId {
        self.row.id
    }

    pub(super) fn state(&self) -> JobState {
        self.row.state
    }

    /// Whether its shells were told to start.
    pub(super) fn started(&self) -> bool {
        !self.shells.is_empty()
    }

    /// Whether no shell has anything left to do.
    pub(super) fn shells_done(&self) -> bool {
        self.shells.iter().all(|shell| shell.done)
    }

    /// Takes note of a record about this job, which is at `offset` in the log.
    pub(super) fn apply(&mut self, offset: Offset, stamped: Stamped) {
        let Stamped { at, record } = stamped;
        self.span.last = offset;
        if let Some(Source { node, seq }) = record.source()
            && let Some(shell) = self.shells.get_mut(node as usize)
        {
            shell.next = shell.next.max(seq + 1);
        }
        match record {
            Record::Job { event, .. } => self.apply_main(at, event),
            Record::Exec { event, .. } => self.apply_exec(at, &event),
            Record::Output { event, .. } => self.output.push(at, event),
            Record::Pids { pids, source, .. } => {
                if let Some(shell) = self.shells.get_mut(source.node as usize) {
                    shell.pids = pids;
                }
            }
            Record::Seen { wait_status, .. } => self.worst = worse(self.worst, wait_status),
            Record::Waited { .. } => self.flags.waitable = false,
            _ => {}
        }
    }

    fn apply_main(&mut self, at: Timestamp, event: JobEvent) {
        self.main.push(event.entry(at));
        match event {
            JobEvent::Submit { .. } | JobEvent::Release | JobEvent::Free => {}
            JobEvent::DependencyAdd(what) => self.wait_for(what),
            JobEvent::DependencyRemove(what) => self.wait_no_more(&what),
            JobEvent::Validate => self.enter(JobState::Depend, at),
            JobEvent::Depend => self.enter(JobState::Priority, at),
            JobEvent::Priority(priority) => {
                self.row.priority = Some(priority);
                self.enter(JobState::Sched, at);
            }
            JobEvent::Urgency { urgency, .. } => self.row.urgency = urgency,
            JobEvent::Alloc(allocation) => self.allocated(at, allocation),
            JobEvent::Start => self.shells = vec![Shell::default(); self.nodes()],
            JobEvent::Finish(status) => {
                self.row.waitstatus = Some(status);
                self.enter(JobState::Cleanup, at);
            }
            JobEvent::Clean => {
                self.row.result = Some(self.result());
                self.enter(JobState::Inactive, at);
            }
            JobEvent::Exception { raised, .. } => self.raised(at, raised),
        }
    }

    /// Goes on to `state`; never back.
    fn enter(&mut self, state: JobState, at: Timestamp) {
        if state <= self.row.state {
            return;
        }
        self.row.state = state;
        let moment = match state {
            JobState::New => return,
            JobState::Depend => &mut self.row.t_depend,
            JobState::Priority => &mut self.row.t_priority,
            JobState::Sched => &mut self.row.t_sched,
            JobState::Run => &mut self.row.t_run,
            JobState::Cleanup => &mut self.row.t_cleanup,
            JobState::Inactive => &mut self.row.t_inactive,
        };
        *moment = Some(at);
    }

    fn nodes(&self) -> usize {
        self.allocation.as_ref().map_or(0, |allocation| allocation.nodes.len())
    }

    fn wait_for(&mut self, what: String) {
        let found = self.spec.dependencies.iter().find(|dependency| dependency.description() == what);
        self.waits_for.extend(found.cloned());
        self.row.dependencies.push(what);
    }

    fn wait_no_more(&mut self, what: &str) {
        self.waits_for.retain(|dependency| dependency.description() != what);
        self.row.dependencies.retain(|description| description != what);
    }

    fn allocated(&mut self, at: Timestamp, allocation: Allocation) {
        let hosts: kiln_types::Hostlist = allocation.nodes.iter().map(|node| node.host.as_str()).collect();
        self.row.nodelist = hosts.to_string();
        self.row.ranks = allocation.ranks();
        self.row.nnodes = Some(allocation.nodes.len() as u32);
        self.row.ncores = Some(allocation.cores());
        self.row.ntasks = self.spec.ntasks(allocation.nodes.len() as u32, allocation.cores());
        self.row.resource_summary = allocation.summary();
        self.row.expiration = allocation.expiration;
        self.allocation = Some(allocation);
        self.enter(JobState::Run, at);
    }

    fn raised(&mut self, at: Timestamp, raised: RaisedException) {
        let graver = self.row.exception.as_ref().is_none_or(|known| raised.severity < known.severity);
        if graver {
            self.row.exception = Some(raised.clone());
        }
        if raised.severity == 0 {
            self.enter(JobState::Cleanup, at);
            self.fatal.get_or_insert(raised);
        }
    }

    fn result(&self) -> JobResult {
        match self.fatal.as_ref().map(|fatal| fatal.kind.as_str()) {
            Some("cancel") => JobResult::Canceled,
            Some("timeout") => JobResult::Timeout,
            None if self.row.waitstatus == Some(0) => JobResult::Completed,
            Some(_) | None => JobResult::Failed,
        }
    }

    fn apply_exec(&mut self, at: Timestamp, event: &ExecEvent) {
        let nodes = self.allocation.as_ref().map_or(&[][..], |allocation| &allocation.nodes);
        self.exec.entries.push(event.entry(self.row.id, nodes, at));
        match event {
            ExecEvent::ShellInit { .. } => self.exec.shell_init = true,
            ExecEvent::ShellStart { .. } => self.exec.shell_start = true,
            ExecEvent::TaskExit { wait_status, .. } => {
                self.exec.task_exit = true;
                self.worst = worse(self.worst, *wait_status);
            }
            ExecEvent::ShellExit { node, wait_status } => {
                self.worst = worse(self.worst, *wait_status);
                if let Some(shell) = self.shells.get_mut(*node as usize) {
                    shell.done = true;
                }
            }
            ExecEvent::Done => self.exec.done = true,
            ExecEvent::Init | ExecEvent::Starting | ExecEvent::Complete(_) => {}
        }
    }
}

fn new_row(id: JobId, userid: u32, urgency: u8, at: Timestamp, spec: &Jobspec) -> JobRow {
    let cores = u32::try_from(spec.shape.slots_total() * u64::from(spec.shape.cores)).ok();
    JobRow {
        id,
        userid,
        state: JobState::New,
        result: None,
        urgency,
        priority: None,
        name: spec.name.clone(),
        cwd: spec.cwd.clone(),
        queue: spec.queue.clone(),
        ntasks: spec.ntasks_asked(),
        ncores: cores.filter(|_| !spec.shape.exclusive),
        nnodes: spec.shape.nodes,
        ranks: kiln_types::IdSet::new(),
        nodelist: String::new(),
        duration: spec.duration,
        expiration: None,
        t_submit: at,
        t_depend: None,
        t_priority: None,
        t_sched: None,
        t_run: None,
        t_cleanup: None,
        t_inactive: None,
        waitstatus: None,
        exception: None,
        dependencies: Vec::new(),
        resource_summary: String::new(),
    }
}
