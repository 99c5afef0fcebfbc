//! The agent of one rank: starts tasks when the leader says so, and reports what becomes of them.
//!
//! One task owns all state. It waits for the next event (from the uplink, the tasks or the launcher), applies it
//! without waiting, and hands what it has to say to the uplink whenever that has room.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_types::{IdSet, JobId, Rank};
use kiln_world::Clock;
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::uplink::{FromUplink, Outgoing};
use crate::pmi::{self, Asked};
use crate::proto::{Exchange, FromAgent, Hello, PROTOCOL, Running, ShellStart, Stream, ToAgent};
use crate::shell::environment::Surroundings;
use crate::shell::launch::{Launched, Launcher, Started, Work};
use crate::shell::outbox::Outbox;
use crate::shell::state::{Effect, SharedPath, Shell};
use crate::shell::streams::{Input, SharedFile, UNACKED_BYTES_MAX, read_pipe, write_stdin};

/// Events of tasks that wait for the agent.
pub(crate) const EVENTS_MAX: usize = 1024;
/// Events applied before the agent looks at what it has to say, so that reports carry many events under load.
const EVENTS_PER_TURN: usize = 256;
/// Messages in one call to the leader.
const MESSAGES_MAX: usize = 64;

/// What an agent is told when it starts.
pub(crate) struct AgentSettings {
    pub(crate) rank: Rank,
    pub(crate) host: String,
    pub(crate) cores: IdSet,
    /// Random, drawn at the start of the process.
    pub(crate) boot: u64,
    /// Where jobs get their directories.
    pub(crate) tmp: PathBuf,
    pub(crate) around: Surroundings,
    pub(crate) clock: Arc<dyn Clock>,
}

/// Something that happened to a job on this node.
#[derive(Debug)]
pub(crate) enum Happening {
    Truncated(Result<(), String>),
    Launched(Launched),
    Output {
        task: u32,
        stream: Stream,
        data: Bytes,
        eof: bool,
    },
    Exited {
        task: u32,
        wait_status: i32,
    },
    Pmi {
        task: u32,
        asked: Asked,
    },
    /// A shared file cannot be written.
    Unwritten(String),
}

type Event = (JobId, Happening);

/// A job on this node.
enum Entry {
    Live {
        shell: Box<Shell>,
        window: Arc<Semaphore>,
    },
    /// A job that could not begin; only its outbox is left.
    Refused(Outbox),
}

impl Entry {
    fn outbox(&mut self) -> &mut Outbox {
        match self {
            Entry::Live { shell, .. } => &mut shell.outbox,
            Entry::Refused(outbox) => outbox,
        }
    }

    fn is_through(&self) -> bool {
        match self {
            Entry::Live { shell, .. } => shell.is_through(),
            Entry::Refused(outbox) => outbox.is_empty(),
        }
    }
}

pub(crate) struct Agent {
    settings: AgentSettings,
    launcher: Launcher,
    entries: BTreeMap<JobId, Entry>,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    from_uplink: mpsc::Receiver<FromUplink>,
    to_uplink: mpsc::Sender<Outgoing>,
    /// Counts connections; what is said for an older one is not sent.
    connection: u64,
    /// Whether the leader of this connection has welcomed us.
    welcomed: bool,
    /// How long tasks go on without a leader; as the last leader said.
    lease: Duration,
    /// When the tasks are killed because no leader came back.
    lease_ends: Option<Instant>,
    /// Exchanges to send; bounded by the jobs, since each has at most two open.
    exchanges: Vec<Exchange>,
}

impl Agent {
    pub(crate) fn new(
        settings: AgentSettings,
        launcher: Launcher,
        from_uplink: mpsc::Receiver<FromUplink>,
        to_uplink: mpsc::Sender<Outgoing>,
    ) -> Agent {
        let (events_in, events) = mpsc::channel(EVENTS_MAX);
        Agent {
            settings,
            launcher,
            entries: BTreeMap::new(),
            events,
            events_in,
            from_uplink,
            to_uplink,
            connection: 0,
            welcomed: false,
            lease: Duration::MAX,
            lease_ends: None,
            exchanges: Vec::new(),
        }
    }

    /// Runs until the uplink is gone or `shutdown` fires; what still runs is killed then.
    pub(crate) async fn run(mut self, mut shutdown: kiln_net::Shutdown) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => break,
                message = self.from_uplink.recv() => match message {
                    Some(message) => self.hear(message),
                    None => break,
                },
                Some(event) = self.events.recv() => self.turn(event),
                () = sleep_until(self.lease_ends) => self.lease_over(),
                Ok(permit) = self.to_uplink.clone().reserve_owned(), if self.has_something_to_say() => {
                    let messages = self.messages();
                    permit.send(Outgoing { connection: self.connection, messages });
                }
            }
        }
        self.kill_all();
    }

    /// Applies an event and those that wait behind it.
    fn turn(&mut self, first: Event) {
        self.happened(first);
        for _ in 1..EVENTS_PER_TURN {
            match self.events.try_recv() {
                Ok(event) => self.happened(event),
                Err(_) => return,
            }
        }
    }

    fn has_something_to_say(&mut self) -> bool {
        self.welcomed
            && (!self.exchanges.is_empty()
                || self.entries.values_mut().any(|entry| entry.outbox().has_unsent()))
    }

    fn messages(&mut self) -> Vec<FromAgent> {
        let mut messages: Vec<_> = self.exchanges.drain(..).map(FromAgent::Exchange).collect();
        let reports = self.entries.iter_mut().filter_map(|(job, entry)| entry.outbox().take(*job));
        messages.extend(reports.take(MESSAGES_MAX).map(FromAgent::Report));
        messages
    }

    fn hear(&mut self, message: FromUplink) {
        match message {
            FromUplink::Connected(say) => self.connected(say),
            FromUplink::Lost => self.lost(),
            FromUplink::Message(message) => self.obey(message),
        }
    }

    fn connected(&mut self, say: oneshot::Sender<Box<Hello>>) {
        self.connection += 1;
        self.welcomed = false;
        let mut running = Vec::with_capacity(self.entries.len());
        for (job, entry) in &mut self.entries {
            entry.outbox().disconnected();
            running.push(Running { job: *job, next: entry.outbox().next() });
        }
        let AgentSettings { rank, host, cores, boot, .. } = &self.settings;
        let hello = Hello {
            protocol: PROTOCOL,
            rank: *rank,
            host: host.clone(),
            cores: cores.clone(),
            boot: *boot,
            running,
        };
        let _ = say.send(Box::new(hello));
    }

    fn lost(&mut self) {
        if std::mem::take(&mut self.welcomed) {
            self.lease_ends = Instant::now().checked_add(self.lease);
        }
        for entry in self.entries.values_mut() {
            entry.outbox().disconnected();
        }
    }

    /// No leader came back: from now on it may give our jobs to others, so nothing of them may go on here.
    fn lease_over(&mut self) {
        self.lease_ends = None;
        tracing::warn!("the leader was away for {:?}: this node's tasks are killed", self.lease);
        let now = self.settings.clock.now();
        let jobs: Vec<JobId> = self.entries.keys().copied().collect();
        for job in jobs {
            self.with(job, |shell| shell.kill(now, Signal::SIGKILL as i32));
        }
    }

    fn obey(&mut self, message: ToAgent) {
        match message {
            ToAgent::Welcome { lease_ms, .. } => {
                self.lease = Duration::from_millis(u64::from(lease_ms));
                self.lease_ends = None;
                self.welcomed = true;
                self.resend_exchanges();
            }
            ToAgent::Refused(why) => tracing::error!(%why, "the leader refuses this node"),
            ToAgent::Start(start) => self.start(&start),
            ToAgent::Acked { job, next } => self.acknowledged(job, next),
            ToAgent::Kill { job, signal } => {
                let now = self.settings.clock.now();
                self.with(job, |shell| shell.kill(now, signal));
            }
            ToAgent::Stdin { job, tasks, data, eof } => {
                let now = self.settings.clock.now();
                self.with(job, |shell| {
                    shell.stdin(now, tasks, data.0, eof);
                    Vec::new()
                });
            }
            ToAgent::Exchanged(Exchange { job, round, pairs }) => {
                self.with(job, |shell| shell.exchanged(round, pairs));
            }
            ToAgent::Forget { job } => self.forget(job),
        }
    }

    fn resend_exchanges(&mut self) {
        self.exchanges.clear();
        for (job, entry) in &self.entries {
            if let Entry::Live { shell, .. } = entry {
                let again = shell.resend().into_iter();
                self.exchanges.extend(again.map(|(round, pairs)| Exchange { job: *job, round, pairs }));
            }
        }
    }

    fn start(&mut self, start: &ShellStart) {
        let job = start.job;
        if self.entries.contains_key(&job) {
            return tracing::warn!(%job, "the leader starts a job that is here already");
        }
        let AgentSettings { tmp, around, clock, .. } = &self.settings;
        match Shell::begin(start, clock.now(), around, tmp) {
            Err(outbox) => {
                self.entries.insert(job, Entry::Refused(outbox));
            }
            Ok((shell, effects)) => {
                let window = Arc::new(Semaphore::new(UNACKED_BYTES_MAX));
                self.entries.insert(job, Entry::Live { shell: Box::new(shell), window });
                self.carry_out(job, effects);
            }
        }
    }

    fn acknowledged(&mut self, job: JobId, next: u64) {
        let Some(entry) = self.entries.get_mut(&job) else { return };
        let freed = entry.outbox().acknowledged(next);
        if let Entry::Live { window, .. } = entry {
            window.add_permits(freed);
        }
        if entry.is_through() {
            self.entries.remove(&job);
        }
    }

    fn forget(&mut self, job: JobId) {
        if let Some(Entry::Live { shell, window }) = self.entries.remove(&job) {
            window.close();
            self.carry_out(job, shell.forget());
        }
    }

    /// Lets a job's shell act, and carries out what it says.
    fn with(&mut self, job: JobId, act: impl FnOnce(&mut Shell) -> Vec<Effect>) {
        if let Some(Entry::Live { shell, .. }) = self.entries.get_mut(&job) {
            let effects = act(shell);
            self.carry_out(job, effects);
        }
    }

    fn happened(&mut self, (job, happening): Event) {
        let now = self.settings.clock.now();
        match happening {
            Happening::Truncated(outcome) => self.with(job, |shell| shell.truncated(now, outcome)),
            Happening::Launched(launched) => self.launched(job, launched),
            Happening::Output { task, stream, data, eof } => {
                self.with(job, |shell| shell.output(now, task, stream, &data, eof));
            }
            Happening::Exited { task, wait_status } => {
                self.with(job, |shell| shell.exited(now, task, wait_status));
            }
            Happening::Pmi { task, asked } => self.with(job, |shell| shell.asked(now, task, asked)),
            Happening::Unwritten(text) => self.with(job, |shell| {
                shell.complain(now, text);
                Vec::new()
            }),
        }
    }

    fn carry_out(&mut self, job: JobId, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Truncate(paths) => {
                    let events = self.events_in.clone();
                    self.work(Work::Truncate(
                        paths,
                        Box::new(move |outcome| {
                            let _ = events.blocking_send((job, Happening::Truncated(outcome)));
                        }),
                    ));
                }
                Effect::Launch(plan) => {
                    let events = self.events_in.clone();
                    self.work(Work::Launch(
                        plan,
                        Box::new(move |launched| {
                            let _ = events.blocking_send((job, Happening::Launched(launched)));
                        }),
                    ));
                }
                Effect::Exchange(round, pairs) => self.exchanges.push(Exchange { job, round, pairs }),
                Effect::Signal(groups, signal) => send_signal(&groups, signal),
                Effect::Clean(dir) => self.work(Work::Clean(dir)),
            }
        }
    }

    fn work(&self, work: Work) {
        if self.launcher.send(work).is_err() {
            tracing::error!("the launcher is gone: no task can be started any more");
        }
    }

    /// Connects the streams of tasks that were started. Those of a job that was forgotten meanwhile are killed.
    fn launched(&mut self, job: JobId, launched: Launched) {
        let Launched { started, failed, warning } = launched;
        let Some(Entry::Live { shell, window }) = self.entries.get_mut(&job) else {
            let groups: Vec<u32> = started.iter().map(|started| started.child.pid()).collect();
            send_signal(&groups, Signal::SIGKILL as i32);
            return started.into_iter().for_each(|started| drop(tokio::spawn(started.child.wait())));
        };
        let now = self.settings.clock.now();
        let streams = match Streams::open(shell, job, Arc::clone(window), self.events_in.clone()) {
            Ok(streams) => streams,
            Err(text) => {
                shell.complain(now, text);
                Streams::without_files(shell, job, Arc::clone(window), self.events_in.clone())
            }
        };
        let started = started.into_iter().map(|started| streams.connect(started)).collect();
        let effects = shell.launched(now, started, failed.as_ref(), warning);
        self.carry_out(job, effects);
    }

    fn kill_all(&mut self) {
        let jobs: Vec<JobId> = self.entries.keys().copied().collect();
        for job in jobs {
            self.forget(job);
        }
    }
}

/// Never returns without a time.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// Sends a signal to process groups; one that is gone already is no error.
fn send_signal(groups: &[u32], signal: i32) {
    let Ok(signal) = Signal::try_from(signal) else { return };
    for group in groups {
        match killpg(Pid::from_raw(*group as i32), signal) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => tracing::warn!(%error, group, %signal, "a signal was not sent"),
        }
    }
}

/// What the streams of a job's tasks have in common.
struct Streams {
    job: JobId,
    window: Arc<Semaphore>,
    events: mpsc::Sender<Event>,
    /// For standard output and standard error: the shared file, and whether bytes are passed on at once.
    outputs: [(Option<SharedFile>, bool); 2],
}

impl Streams {
    fn open(
        shell: &Shell,
        job: JobId,
        window: Arc<Semaphore>,
        events: mpsc::Sender<Event>,
    ) -> Result<Streams, String> {
        let mut streams = Streams::without_files(shell, job, window, events);
        let paths = [Stream::Stdout, Stream::Stderr].map(|stream| shell.shared_path(stream));
        let [stdout, stderr] = paths;
        streams.outputs[0].0 = stdout.as_ref().map(open_shared).transpose()?;
        let same = stderr == stdout;
        streams.outputs[1].0 =
            if same { streams.outputs[0].0.clone() } else { stderr.as_ref().map(open_shared).transpose()? };
        Ok(streams)
    }

    fn without_files(
        shell: &Shell,
        job: JobId,
        window: Arc<Semaphore>,
        events: mpsc::Sender<Event>,
    ) -> Streams {
        let outputs = [Stream::Stdout, Stream::Stderr].map(|stream| (None, shell.is_unbuffered(stream)));
        Streams { job, window, events, outputs }
    }

    /// Reads what a task writes, answers its PMI requests and waits for its end. Gives back its number, its process
    /// and the way to its standard input.
    fn connect(&self, started: Started) -> (u32, u32, Option<mpsc::UnboundedSender<Input>>) {
        let Started { task, child, stdin, stdout, stderr, pmi } = started;
        let pid = child.pid();
        for (stream, pipe) in [(Stream::Stdout, stdout), (Stream::Stderr, stderr)] {
            match pipe.map(pipe::Receiver::from_owned_fd) {
                None => {}
                Some(Ok(pipe)) => self.read(task, stream, pipe),
                // The end of the stream is still due.
                Some(Err(error)) => {
                    tracing::error!(%error, job = %self.job, task, "a task's output cannot be read");
                    self.read(task, stream, tokio::io::empty());
                }
            }
        }
        let stdin = stdin.and_then(|pipe| pipe::Sender::from_owned_fd(pipe).ok()).map(|pipe| {
            let (input, data) = mpsc::unbounded_channel();
            tokio::spawn(write_stdin(pipe, data));
            input
        });
        if let Some(socket) = pmi {
            self.answer(task, socket);
        }
        let (job, events) = (self.job, self.events.clone());
        tokio::spawn(async move {
            let wait_status = match child.wait().await {
                Ok(status) => status,
                Err(error) => {
                    tracing::error!(%error, %job, task, "a task's end was not seen");
                    Signal::SIGKILL as i32
                }
            };
            let _ = events.send((job, Happening::Exited { task, wait_status })).await;
        });
        (task, pid, stdin)
    }

    fn read(&self, task: u32, stream: Stream, pipe: impl tokio::io::AsyncRead + Unpin + Send + 'static) {
        let (file, unbuffered) = self.outputs[stream as usize].clone();
        let (job, events) = (self.job, self.events.clone());
        let window = Arc::clone(&self.window);
        tokio::spawn(read_pipe(pipe, unbuffered, Arc::clone(&window), move |data, eof| {
            let (events, file, window) = (events.clone(), file.clone(), Arc::clone(&window));
            async move {
                let Some(file) = file else {
                    return events.send((job, Happening::Output { task, stream, data, eof })).await.is_ok();
                };
                // What goes to a file is not acknowledged by anybody, so the window gets its part back at once.
                window.add_permits(data.len() + crate::shell::streams::PIECE_BYTES);
                let written = tokio::task::spawn_blocking(move || file.write(task, &data)).await;
                if let Ok(Err(error)) = written {
                    let text = format!("{} of task {task} is lost: {error}", stream.name());
                    let _ = events.send((job, Happening::Unwritten(text))).await;
                }
                let data = Bytes::new();
                !eof || events.send((job, Happening::Output { task, stream, data, eof })).await.is_ok()
            }
        }));
    }

    fn answer(&self, task: u32, socket: std::os::unix::net::UnixStream) {
        let (job, events) = (self.job, self.events.clone());
        tokio::spawn(async move {
            let deliver = |asked| {
                let sent = events.send((job, Happening::Pmi { task, asked }));
                async { sent.await.is_ok() }
            };
            if let Err(error) = pmi::serve(socket, deliver).await {
                tracing::debug!(%error, %job, task, "a task's PMI socket");
            }
        });
    }
}

fn open_shared(shared: &SharedPath) -> Result<SharedFile, String> {
    SharedFile::open(&shared.path, shared.label)
        .map_err(|error| format!("{}: {error}", shared.path.display()))
}
