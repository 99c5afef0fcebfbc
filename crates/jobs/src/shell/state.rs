//! One job on this node: takes what happened, says what to do, and numbers what must be reported.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use kiln_types::{IdSet, Timestamp};
use nix::sys::signal::Signal;
use pmi::wire::Response;
use tokio::sync::{mpsc, oneshot};

use super::environment::{self, Surroundings};
use super::launch::{Plan, Sink, Source, StartError, TaskPlan};
use super::leftovers::PREFIX;
use super::options::{Affinity, Options};
use super::outbox::Outbox;
use super::streams::{Input, StdinRoom};
use super::template::{JobNames, TaskNames, fill, is_per_node, is_per_task};
use crate::core::worse;
use crate::pmi::{Asked, Node, Outcome, Pairs};
use crate::proto::{Blob, LogLevel, OutputEvent, ShellEvent, ShellNode, ShellStart, Stream};

/// Number of the exchange by which the nodes of a job wait until the first has begun the shared files anew.
const FILES_ROUND: u64 = 0;

/// What must be done for a job.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Begin these files anew, then [`Shell::truncated`].
    Truncate(Vec<PathBuf>),
    /// Start the tasks, then [`Shell::launched`].
    Launch(Box<Plan>),
    /// Send what was put to the leader.
    Exchange(u64, Pairs),
    /// Send a signal to these process groups.
    Signal(Vec<u32>, i32),
    /// Remove the job's directory.
    Clean(PathBuf),
}

/// How far a job is on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waits for the shared files to be begun anew.
    Opening,
    /// The launcher has the plan.
    Launching,
    /// Tasks run or have run.
    Running,
    /// [`ShellEvent::Done`] is said.
    Done,
}

#[derive(Debug)]
struct Task {
    localid: u32,
    pid: u32,
    /// Pipes that are not at their end.
    open_streams: u8,
    exited: bool,
    stdin: Option<mpsc::UnboundedSender<Input>>,
}

impl Task {
    fn is_over(&self) -> bool {
        self.exited && self.open_streams == 0
    }
}

/// A file that several tasks write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SharedPath {
    pub(crate) path: PathBuf,
    pub(crate) label: bool,
}

/// A job on this node.
#[derive(Debug)]
pub(crate) struct Shell {
    own: ShellNode,
    options: Options,
    names: JobNames,
    tmpdir: PathBuf,
    phase: Phase,
    plan: Option<Box<Plan>>,
    tasks: BTreeMap<u32, Task>,
    pmi: Node,
    waiting: HashMap<u32, oneshot::Sender<Response>>,
    /// Signals that came before the tasks were there.
    early_signals: Vec<i32>,
    early_stdin: Vec<(Option<IdSet>, Input, bool)>,
    stdin: StdinRoom,
    /// The worst exit so far.
    worst: i32,
    /// Files that this node begins anew before tasks start.
    truncates: Vec<PathBuf>,
    /// Whether the nodes wait for each other before tasks start.
    meets: bool,
    pub(crate) outbox: Outbox,
}

impl Shell {
    /// Takes a job in. `Err` when the leader sent what cannot be a job; it says so in the outbox all the same.
    pub(crate) fn begin(
        start: &ShellStart,
        now: Timestamp,
        around: &Surroundings,
        tmp: &std::path::Path,
    ) -> Result<(Shell, Vec<Effect>), Outbox> {
        let own = start.own().cloned();
        let read = Options::read(&start.jobspec).map_err(|error| error.to_string());
        let (own, options) = match (own, read) {
            (Some(own), Ok(options)) => (own, options),
            (None, _) => return Err(refusal(now, "the leader named no node".into())),
            (_, Err(note)) => return Err(refusal(now, note)),
        };
        let tmpdir = tmp.join(format!("{PREFIX}{}-{}", start.node, start.job));
        let names = JobNames {
            id: start.job,
            name: options.name.clone(),
            size: start.size(),
            nnodes: start.nodes.len(),
            node: start.node,
            host: own.host.clone(),
            tmpdir: tmpdir.display().to_string(),
        };
        let mut shell = Shell {
            pmi: Node::new(String::new(), 0, 0, 0, Vec::new()),
            own,
            options,
            names,
            tmpdir,
            phase: Phase::Opening,
            plan: None,
            tasks: BTreeMap::new(),
            waiting: HashMap::new(),
            early_signals: Vec::new(),
            early_stdin: Vec::new(),
            stdin: StdinRoom::default(),
            worst: 0,
            truncates: Vec::new(),
            meets: false,
            outbox: Outbox::new(),
        };
        shell.outbox.push(now, ShellEvent::Init);
        shell.find_shared_files();
        shell.pmi = shell.new_pmi(start, around);
        shell.plan = Some(Box::new(shell.new_plan(around)));
        shell.report_redirects(now);
        let effects = match (shell.truncates.is_empty(), shell.meets) {
            (false, _) => vec![Effect::Truncate(shell.truncates.clone())],
            (true, true) => vec![Effect::Exchange(FILES_ROUND, Pairs::new())],
            (true, false) => shell.launch(),
        };
        Ok((shell, effects))
    }

    fn new_pmi(&self, start: &ShellStart, around: &Surroundings) -> Node {
        let level = around.jobid_path.matches('/').count();
        let preset = vec![
            (
                pmi::mapping::KEY.to_owned(),
                crate::spec::process_mapping(start.nodes.iter().map(|node| &node.tasks)),
            ),
            ("flux.instance-level".to_owned(), level.to_string()),
            ("flux.taskmap".to_owned(), start.taskmap()),
        ];
        let (size, local) = (self.names.size as u32, self.own.tasks.len() as usize);
        Node::new(self.names.id.to_f58_plain(), size, local, FILES_ROUND + 1, preset)
    }

    fn find_shared_files(&mut self) {
        let shared: Vec<_> = [Stream::Stdout, Stream::Stderr]
            .into_iter()
            .filter(|stream| !self.options.output(*stream).append)
            .filter_map(|stream| self.shared_path(stream).map(|shared| (shared, self.is_of_node(stream))))
            .collect();
        for (shared, of_node) in shared {
            self.meets |= self.names.nnodes > 1 && !of_node;
            if (of_node || self.names.node == 0) && !self.truncates.contains(&shared.path) {
                self.truncates.push(shared.path);
            }
        }
    }

    fn is_of_node(&self, stream: Stream) -> bool {
        self.options.output(stream).path.as_deref().is_some_and(is_per_node)
    }

    /// The file to which this broker writes what tasks send through `stream`'s pipe; none when it goes to the job's
    /// output log or the task has the file itself.
    pub(crate) fn shared_path(&self, stream: Stream) -> Option<SharedPath> {
        let output = self.options.output(stream);
        let template = output.path.as_deref()?;
        if is_per_task(template) || (self.names.size == 1 && !output.label) {
            return None;
        }
        let path = PathBuf::from(&self.options.cwd).join(fill(template, &self.names, None));
        Some(SharedPath { path, label: output.label })
    }

    /// Whether bytes of `stream` are passed on before their line is whole.
    pub(crate) fn is_unbuffered(&self, stream: Stream) -> bool {
        self.options.output(stream).unbuffered
    }

    fn new_plan(&self, around: &Surroundings) -> Plan {
        let Options { command, cwd, environment, rlimits, files, input, pmi, .. } = &self.options;
        let count = self.own.tasks.len();
        let tasks = (0..).zip(self.own.tasks.iter()).map(|(localid, task)| {
            let names = TaskNames { task, localid };
            TaskPlan {
                names,
                command: command.iter().map(|word| fill(word, &self.names, Some(names))).collect(),
                stdout: self.sink(Stream::Stdout, names),
                stderr: self.sink(Stream::Stderr, names),
                processors: self.processors(localid, count),
            }
        });
        Plan {
            host: self.names.host.clone(),
            tmpdir: self.tmpdir.clone(),
            files: files.clone(),
            cwd: cwd.clone(),
            environment: environment::of_job(environment, &self.names, around, *pmi),
            rlimits: rlimits.clone(),
            input: input
                .as_ref()
                .map_or(Source::Pipe, |path| Source::File(fill(path, &self.names, None).into())),
            pmi: *pmi,
            tasks: tasks.collect(),
        }
    }

    fn sink(&self, stream: Stream, task: TaskNames) -> Sink {
        let output = self.options.output(stream);
        match &output.path {
            Some(template) if self.shared_path(stream).is_none() => {
                Sink::File { path: fill(template, &self.names, Some(task)).into(), append: output.append }
            }
            _ => Sink::Pipe,
        }
    }

    fn processors(&self, localid: u32, count: u64) -> Vec<u32> {
        let cores: Vec<u32> = self.own.cores.iter().collect();
        match self.options.affinity {
            Affinity::Off => Vec::new(),
            Affinity::Job => cores,
            Affinity::PerTask => {
                let share = (cores.len() / count.max(1) as usize).max(1);
                cores
                    .iter()
                    .copied()
                    .cycle()
                    .skip(localid as usize * share)
                    .take(share.min(cores.len()))
                    .collect()
            }
        }
    }

    /// The first shell tells for all tasks of the job which files their output is in.
    fn report_redirects(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(template) = self.options.output(stream).path.clone() else { continue };
            let of_node = is_per_node(&template);
            if self.names.node > 0 && !of_node {
                continue;
            }
            let tasks = if of_node {
                self.own.tasks.clone()
            } else {
                IdSet::range(0..=(self.names.size as u32).max(1) - 1)
            };
            let path = fill(&template, &self.names, None);
            self.outbox.push(now, ShellEvent::Output(OutputEvent::Redirect { stream, tasks, path }));
        }
    }

    fn launch(&mut self) -> Vec<Effect> {
        self.phase = Phase::Launching;
        self.plan.take().map(Effect::Launch).into_iter().collect()
    }

    /// The shared files are begun anew, or cannot be.
    pub(crate) fn truncated(&mut self, now: Timestamp, outcome: Result<(), String>) -> Vec<Effect> {
        if self.phase != Phase::Opening {
            return Vec::new();
        }
        match outcome {
            Err(text) => {
                self.fail(now, &format!("error opening output file: {text}"), 1 << 8);
                self.finish(now)
            }
            Ok(()) if self.meets => vec![Effect::Exchange(FILES_ROUND, Pairs::new())],
            Ok(()) => self.launch(),
        }
    }

    /// Tasks run, or one did not start. `stdin` are the writers of those that have a pipe.
    pub(crate) fn launched(
        &mut self,
        now: Timestamp,
        started: Vec<(u32, u32, Option<mpsc::UnboundedSender<Input>>)>,
        failed: Option<&StartError>,
        warning: Option<String>,
    ) -> Vec<Effect> {
        self.phase = Phase::Running;
        let pids = started.iter().map(|(_, pid, _)| *pid).collect();
        for (task, pid, stdin) in started {
            let localid = self.own.tasks.iter().position(|own| own == task).unwrap_or(0) as u32;
            let names = TaskNames { task, localid };
            let pipes = [Stream::Stdout, Stream::Stderr]
                .map(|stream| u8::from(matches!(self.sink(stream, names), Sink::Pipe)));
            let task_state = Task { localid, pid, open_streams: pipes[0] + pipes[1], exited: false, stdin };
            self.tasks.insert(task, task_state);
        }
        if let Some(text) = warning {
            self.log(now, LogLevel::Warning, text);
        }
        match failed {
            Some(error) => self.fail(now, &error.to_string(), error.code << 8),
            None => self.outbox.push(now, ShellEvent::Started { pids }),
        }
        for (tasks, input, eof) in std::mem::take(&mut self.early_stdin) {
            self.pass_stdin(tasks, &input, eof);
        }
        let signals = std::mem::take(&mut self.early_signals);
        let mut effects: Vec<_> = signals.into_iter().flat_map(|signal| self.kill(now, signal)).collect();
        effects.extend(self.finish(now));
        effects
    }

    fn log(&mut self, now: Timestamp, level: LogLevel, text: String) {
        let log = OutputEvent::Log { level, node: self.names.node, text };
        self.outbox.push(now, ShellEvent::Output(log));
    }

    /// Something for the user to know, and no reason to stop.
    pub(crate) fn complain(&mut self, now: Timestamp, text: String) {
        self.log(now, LogLevel::Error, text);
    }

    fn fail(&mut self, now: Timestamp, note: &str, wait_status: i32) {
        self.log(now, LogLevel::Fatal, note.to_owned());
        self.raise(now, note, wait_status);
        self.worst = worse(self.worst, wait_status);
    }

    fn raise(&mut self, now: Timestamp, note: &str, wait_status: i32) {
        self.outbox.push(
            now,
            ShellEvent::Exception { kind: "exec".into(), severity: 0, note: note.into(), wait_status },
        );
    }

    /// A piece of output; an empty one that is not the end says nothing.
    pub(crate) fn output(
        &mut self,
        now: Timestamp,
        task: u32,
        stream: Stream,
        data: &Bytes,
        eof: bool,
    ) -> Vec<Effect> {
        if self.options.output(stream).path.is_none() && (eof || !data.is_empty()) {
            let data = Blob(data.to_vec());
            self.outbox.push(now, ShellEvent::Output(OutputEvent::Data { stream, task, data, eof }));
        }
        if let Some(state) = self.tasks.get_mut(&task).filter(|_| eof) {
            state.open_streams = state.open_streams.saturating_sub(1);
        }
        self.finish(now)
    }

    /// A task ended.
    pub(crate) fn exited(&mut self, now: Timestamp, task: u32, wait_status: i32) -> Vec<Effect> {
        let Some(state) = self.tasks.get_mut(&task) else { return Vec::new() };
        state.exited = true;
        state.stdin = None;
        let (localid, pid) = (state.localid, state.pid);
        self.worst = worse(self.worst, wait_status);
        self.outbox.push(now, ShellEvent::TaskExit { task, localid, pid, wait_status });
        self.finish(now)
    }

    /// Says [`ShellEvent::Done`] once nothing is left that could be said.
    fn finish(&mut self, now: Timestamp) -> Vec<Effect> {
        if matches!(self.phase, Phase::Launching | Phase::Done) || !self.tasks.values().all(Task::is_over) {
            return Vec::new();
        }
        self.phase = Phase::Done;
        self.waiting.clear();
        self.outbox.push(now, ShellEvent::Done { wait_status: self.worst });
        vec![Effect::Clean(self.tmpdir.clone())]
    }

    /// A request of a task on its PMI socket.
    pub(crate) fn asked(&mut self, now: Timestamp, task: u32, asked: Asked) -> Vec<Effect> {
        let Asked { request, answer } = asked;
        match self.pmi.ask(task, request) {
            Outcome::Answer(response) => {
                let _ = answer.send(response);
            }
            Outcome::Wait => {
                self.waiting.insert(task, answer);
            }
            Outcome::Release => {
                self.waiting.insert(task, answer);
                self.release();
            }
            Outcome::Exchange(round, pairs) => {
                self.waiting.insert(task, answer);
                return vec![Effect::Exchange(round, pairs)];
            }
            Outcome::Abort(_) => self.raise(now, "PMI_Abort: aborted", Signal::SIGTERM as i32),
        }
        Vec::new()
    }

    fn release(&mut self) {
        for (_, answer) in self.waiting.drain() {
            let _ = answer.send(Response::BarrierOut { rc: 0 });
        }
    }

    /// All nodes have come to `round`.
    pub(crate) fn exchanged(&mut self, round: u64, pairs: Pairs) -> Vec<Effect> {
        if round == FILES_ROUND {
            return if self.phase == Phase::Opening { self.launch() } else { Vec::new() };
        }
        if self.pmi.exchanged(round, pairs) {
            self.release();
        }
        Vec::new()
    }

    /// The exchanges to send to a leader that may not have them any more.
    pub(crate) fn resend(&self) -> Vec<(u64, Pairs)> {
        let files = (self.meets && self.phase != Phase::Done).then(|| (FILES_ROUND, Pairs::new()));
        files.into_iter().chain(self.pmi.resend().map(|(round, pairs)| (round, pairs.clone()))).collect()
    }

    /// A signal for all that runs. One that comes before anything runs waits; one that comes while the nodes wait for
    /// each other ends the job here, where nothing ran.
    pub(crate) fn kill(&mut self, now: Timestamp, signal: i32) -> Vec<Effect> {
        match self.phase {
            Phase::Opening => self.finish(now),
            Phase::Launching => {
                self.early_signals.push(signal);
                Vec::new()
            }
            Phase::Running => vec![Effect::Signal(self.living(), signal)],
            Phase::Done => Vec::new(),
        }
    }

    /// Process groups with something left in them.
    fn living(&self) -> Vec<u32> {
        self.tasks.values().filter(|task| !task.is_over() && task.pid > 0).map(|task| task.pid).collect()
    }

    /// The leader wants no more of this job: what to do with what is left.
    pub(crate) fn forget(&self) -> Vec<Effect> {
        match self.phase {
            Phase::Done => Vec::new(),
            _ => vec![
                Effect::Signal(self.living(), Signal::SIGKILL as i32),
                Effect::Clean(self.tmpdir.clone()),
            ],
        }
    }

    /// Passes standard input on to the tasks that still read it. Too much that nobody reads ends the job.
    pub(crate) fn stdin(&mut self, now: Timestamp, tasks: Option<IdSet>, data: Vec<u8>, eof: bool) {
        match self.stdin.hold(data) {
            Some(input) => self.pass_stdin(tasks, &input, eof),
            None => {
                self.raise(now, "standard input is not read: too much of it waits", Signal::SIGTERM as i32);
            }
        }
    }

    fn pass_stdin(&mut self, tasks: Option<IdSet>, input: &Input, eof: bool) {
        if matches!(self.phase, Phase::Opening | Phase::Launching) {
            self.early_stdin.push((tasks, input.clone(), eof));
            return;
        }
        for (number, task) in &mut self.tasks {
            if tasks.as_ref().is_some_and(|tasks| !tasks.contains(*number)) {
                continue;
            }
            if let Some(stdin) = &task.stdin {
                let _ = stdin.send(input.clone());
            }
            if eof {
                task.stdin = None;
            }
        }
    }

    /// Whether the job's last word here is said and acknowledged.
    pub(crate) fn is_through(&self) -> bool {
        self.phase == Phase::Done && self.outbox.is_empty()
    }
}

/// What to say of a job that cannot begin.
fn refusal(now: Timestamp, note: String) -> Outbox {
    let mut outbox = Outbox::new();
    let wait_status = 1 << 8;
    outbox.push(now, ShellEvent::Init);
    outbox.push(now, ShellEvent::Exception { kind: "exec".into(), severity: 0, note, wait_status });
    outbox.push(now, ShellEvent::Done { wait_status });
    outbox
}

#[cfg(test)]
mod tests;
