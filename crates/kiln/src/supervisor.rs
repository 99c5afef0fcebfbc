//! `kiln up`: one process per node, started again whenever it dies.
//!
//! The supervisor holds no data and does nothing but wait, so that it is the last thing to fail. Each node tells it over standard output when it is ready.
//! Events are chosen in one place ([`Supervisor::run`]) and handled synchronously ([`Supervisor::apply`]).

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::paths::{self, DataDir};

/// A node that dies sooner than this after its start is started again more slowly each time.
const QUICK_DEATH: Duration = Duration::from_secs(2);
/// So often a node is started again that a signal ended before everything was ready once.
const STARTS_MAX: u32 = 5;
/// The shortest and the longest pause before a restart.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(5));
/// Members may take this share of the time to stop; the leader has the rest.
const MEMBERS_SHARE: u32 = 3;
/// How long a whole instance may take to drain before its processes are killed.
const DRAIN: Duration = Duration::from_secs(15);
/// How often, and how many times, the lock is tried: a command that looks whether an instance runs holds it for a moment.
const LOCK_TRIES: (Duration, u32) = (Duration::from_millis(10), 10);
/// Longest line a node may send as its report, in bytes.
const REPORT_BYTES_MAX: u64 = 64 * 1024;

/// What stands for the address of a listener that is off.
pub(crate) const OFF: &str = "off";

/// Where clients connect; written by the leader once it listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listeners {
    /// Kafka protocol.
    pub kafka: String,
    /// AMQP 0-9-1.
    pub amqp: String,
    /// Syslog over UDP and TCP.
    pub syslog: String,
    /// HTTP.
    pub console: String,
}

/// The line a node prints on standard output once it serves.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// The leader's listeners; members have none.
    pub listeners: Option<Listeners>,
}

impl Report {
    /// Tells the supervisor, if there is one.
    pub(crate) fn send(&self) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(self)?;
        line.push('\n');
        std::io::stdout()
            .write_all(line.as_bytes())
            .context("failed to tell the supervisor that this node is ready")
    }
}

/// What a node is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Started, not yet serving.
    Starting,
    /// Serving.
    Ready,
    /// Died; will be started again.
    Restarting,
    /// Stopped on request.
    Stopped,
}

/// One node as the supervisor sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeStatus {
    /// Rank 0 leads.
    pub rank: u32,
    /// The host name it runs under.
    pub host: String,
    /// Its process, while there is one.
    pub pid: Option<i32>,
    /// What it is doing.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
}

/// The whole picture, kept in `run/supervisor.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Picture {
    /// The supervisor's process.
    pub supervisor_pid: i32,
    /// One entry per rank, in order.
    pub nodes: Vec<NodeStatus>,
    /// Set once the leader listens.
    pub listeners: Option<Listeners>,
}

impl Picture {
    /// Reads what a supervisor wrote, if that supervisor still lives. What one left that was killed says nothing about the next.
    pub(crate) fn load(data: &DataDir) -> anyhow::Result<Option<Self>> {
        let file = data.supervisor_file();
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("failed to read {}", file.display())),
        };
        let picture: Self = serde_json::from_str(&text).with_context(|| {
            format!("failed to read {}: it was written by another version of kiln", file.display())
        })?;
        let alive = kill(Pid::from_raw(picture.supervisor_pid), None) != Err(Errno::ESRCH);
        Ok((alive && is_running(data)).then_some(picture))
    }

    /// Whether every node serves.
    pub(crate) fn ready(&self) -> bool {
        self.listeners.is_some() && self.nodes.iter().all(|n| n.state == State::Ready)
    }
}

/// Whether a supervisor holds the instance's lock.
pub(crate) fn is_running(data: &DataDir) -> bool {
    let Ok(file) = File::open(data.lock()) else { return false };
    // A shared lock is refused exactly while a supervisor holds the exclusive one.
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

enum Event {
    Report { rank: u32, report: Report },
    Exited { rank: u32, death: Death },
    Restart { rank: u32 },
    Stop,
    DrainOver,
}

/// How a process ended.
#[derive(Debug)]
struct Death {
    /// In words.
    how: String,
    /// By itself, with a status; otherwise a signal ended it, which says nothing about its settings.
    by_itself: bool,
}

struct Node {
    status: NodeStatus,
    started: Instant,
    pause: Duration,
}

/// Whether the instance is coming up, serving or going away.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A node that ends by itself before everything was ready once has a mistake in its settings: give up and say so.
    Starting,
    /// A node that dies is started again.
    Serving,
    /// Members are asked to stop; the leader follows.
    StoppingMembers,
    /// The leader is asked to stop.
    StoppingLeader,
}

/// How an instance ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// On request.
    Stopped,
    /// A node died before everything was ready once.
    StartFailed {
        /// Which.
        host: String,
        /// How, and what its log says last.
        why: String,
    },
}

/// Runs an instance of `hosts` (rank = index) until it is told to stop. `prepare` is called once nobody else runs here, `announce` once everything is ready.
pub(crate) async fn run(
    data: &DataDir,
    hosts: &[String],
    prepare: impl FnOnce() -> anyhow::Result<()>,
    announce: impl FnOnce(&Picture),
) -> anyhow::Result<Ended> {
    let _lock = lock(data)?;
    prepare()?;
    let (events, inbox) = mpsc::channel(64);
    let mut supervisor = Supervisor {
        data: data.clone(),
        nodes: hosts.iter().enumerate().map(|(rank, host)| Node::new(rank as u32, host)).collect(),
        listeners: None,
        phase: Phase::Starting,
        events,
    };
    let before = paths::publish_instance(data);
    let ended = supervisor.run(inbox, announce).await;
    paths::withdraw_instance(data, before.filter(is_running));
    ended
}

fn lock(data: &DataDir) -> anyhow::Result<Flock<File>> {
    let path = data.lock();
    let mut file = File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    let (pause, tries) = LOCK_TRIES;
    for _ in 0..tries {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((unlocked, _)) => file = unlocked,
        }
        std::thread::sleep(pause);
    }
    anyhow::bail!(
        "an instance already runs on {}; `kiln --data {0} status` shows it, `kiln --data {0} down` stops it",
        data.root().display()
    )
}

impl Node {
    fn new(rank: u32, host: &str) -> Self {
        let status =
            NodeStatus { rank, host: host.to_owned(), pid: None, state: State::Starting, restarts: 0 };
        Self { status, started: Instant::now(), pause: BACKOFF.0 }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.status.pid {
            let _ = kill(Pid::from_raw(pid), signal); // ESRCH: it has just died, which is what was wanted
        }
    }
}

struct Supervisor {
    data: DataDir,
    nodes: Vec<Node>,
    listeners: Option<Listeners>,
    phase: Phase,
    events: mpsc::Sender<Event>,
}

impl Supervisor {
    async fn run(
        &mut self,
        mut inbox: mpsc::Receiver<Event>,
        announce: impl FnOnce(&Picture),
    ) -> anyhow::Result<Ended> {
        self.watch_signals()?;
        self.save(&self.picture())?;
        for rank in 0..self.nodes.len() {
            self.start(rank)?;
        }
        self.save(&self.picture())?;
        let mut announce = Some(announce);
        loop {
            let event = inbox.recv().await.expect("the supervisor holds a sender itself");
            let ended = self.apply(event)?;
            let picture = self.picture();
            self.save(&picture)?;
            if let Some(ended) = ended {
                return Ok(ended);
            }
            if self.phase == Phase::Starting && picture.ready() {
                self.phase = Phase::Serving;
                if let Some(announce) = announce.take() {
                    announce(&picture);
                }
            }
        }
    }

    fn apply(&mut self, event: Event) -> anyhow::Result<Option<Ended>> {
        match event {
            Event::Report { rank, report } => {
                self.nodes[rank as usize].status.state = State::Ready;
                self.listeners = report.listeners.or(self.listeners.take());
            }
            Event::Exited { rank, death } => return Ok(self.exited(rank, &death)),
            Event::Restart { rank } if !self.stopping() => self.start(rank as usize)?,
            Event::Restart { .. } => {}
            Event::Stop => self.stop(),
            Event::DrainOver => self.nodes.iter().for_each(|n| n.signal(Signal::SIGKILL)),
        }
        Ok(None)
    }

    fn exited(&mut self, rank: u32, death: &Death) -> Option<Ended> {
        let phase = self.phase;
        let node = &mut self.nodes[rank as usize];
        node.status.pid = None;
        node.status.state = State::Stopped;
        match phase {
            Phase::Starting if death.by_itself || node.status.restarts >= STARTS_MAX => {
                let host = node.status.host.clone();
                let why = format!("{}\n{}", death.how, log_tail(&self.data, &host));
                self.nodes.iter().for_each(|n| n.signal(Signal::SIGKILL));
                return Some(Ended::StartFailed { host, why });
            }
            Phase::Starting | Phase::Serving => {
                node.pause = if node.started.elapsed() < QUICK_DEATH {
                    (node.pause * 2).min(BACKOFF.1)
                } else {
                    BACKOFF.0
                };
                node.status.state = State::Restarting;
                node.status.restarts += 1;
                tracing::warn!(host = node.status.host, how = death.how, pause = ?node.pause, "a node died; starting it again");
                let (pause, events) = (node.pause, self.events.clone());
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    let _ = events.send(Event::Restart { rank }).await;
                });
            }
            Phase::StoppingMembers | Phase::StoppingLeader => {}
        }
        let members_gone = self.nodes.iter().skip(1).all(|n| n.status.pid.is_none());
        if self.phase == Phase::StoppingMembers && members_gone {
            self.phase = Phase::StoppingLeader;
            self.nodes[0].signal(Signal::SIGTERM);
        }
        (self.stopping() && members_gone && self.nodes[0].status.pid.is_none()).then_some(Ended::Stopped)
    }

    fn stopping(&self) -> bool {
        matches!(self.phase, Phase::StoppingMembers | Phase::StoppingLeader)
    }

    fn stop(&mut self) {
        if self.stopping() {
            // A second request: no more waiting.
            self.nodes.iter().for_each(|n| n.signal(Signal::SIGKILL));
            return;
        }
        self.phase = Phase::StoppingMembers;
        let events = self.events.clone();
        let members_alive = self.nodes.iter().skip(1).any(|n| n.status.pid.is_some());
        if members_alive {
            self.nodes.iter().skip(1).for_each(|n| n.signal(Signal::SIGTERM));
            let members: Vec<i32> = self.nodes.iter().skip(1).filter_map(|n| n.status.pid).collect();
            tokio::spawn(async move {
                tokio::time::sleep(DRAIN / MEMBERS_SHARE).await;
                for pid in members {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            });
        } else {
            self.phase = Phase::StoppingLeader;
            self.nodes[0].signal(Signal::SIGTERM);
        }
        tokio::spawn(async move {
            tokio::time::sleep(DRAIN).await;
            let _ = events.send(Event::DrainOver).await;
        });
        if self.nodes.iter().all(|n| n.status.pid.is_none()) {
            // Between a death and a restart nothing is there to wait for.
            let events = self.events.clone();
            tokio::spawn(async move {
                let death = Death { how: "it was not running".to_owned(), by_itself: true };
                let _ = events.send(Event::Exited { rank: 0, death }).await;
            });
        }
    }

    fn start(&mut self, rank: usize) -> anyhow::Result<()> {
        let node = &mut self.nodes[rank];
        let log = log_file(&self.data, &node.status.host)?;
        // The running file itself, also after an upgrade has put another one in its place.
        let spawned = Command::new("/proc/self/exe")
            .arg0("kiln")
            .arg("--data")
            .arg(self.data.root())
            .args(["node", "--rank", &rank.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn();
        let events = self.events.clone();
        node.started = Instant::now();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                // Out of memory or of processes: what passes by itself is tried again, more slowly each time.
                let death = Death { how: format!("not started: {error}"), by_itself: false };
                let rank = rank as u32;
                tokio::spawn(async move { events.send(Event::Exited { rank, death }).await });
                return Ok(());
            }
        };
        node.status.pid = child.id().map(|pid| pid as i32);
        node.status.state = State::Starting;
        let rank = rank as u32;
        tokio::spawn(async move {
            if let Some(stdout) = child.stdout.take() {
                forward_reports(rank, stdout, &events).await;
            }
            let death = match child.wait().await {
                Ok(status) => Death { how: status.to_string(), by_itself: status.code().is_some() },
                Err(error) => Death { how: format!("lost: {error}"), by_itself: false },
            };
            let _ = events.send(Event::Exited { rank, death }).await;
        });
        Ok(())
    }

    fn watch_signals(&self) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        for kind in [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()] {
            let mut arrivals = signal(kind).context("failed to listen for signals")?;
            let events = self.events.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() {
                    let _ = events.send(Event::Stop).await;
                }
            });
        }
        Ok(())
    }

    fn picture(&self) -> Picture {
        Picture {
            supervisor_pid: std::process::id() as i32,
            nodes: self.nodes.iter().map(|n| n.status.clone()).collect(),
            listeners: self.listeners.clone(),
        }
    }

    fn save(&self, picture: &Picture) -> anyhow::Result<()> {
        let file = self.data.supervisor_file();
        write_whole(&file, &serde_json::to_vec_pretty(picture)?)
            .with_context(|| format!("failed to write {}", file.display()))
    }
}

async fn forward_reports(rank: u32, stdout: tokio::process::ChildStdout, events: &mpsc::Sender<Event>) {
    use tokio::io::AsyncReadExt as _;
    let mut lines = BufReader::new(stdout.take(REPORT_BYTES_MAX)).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match serde_json::from_str(&line) {
            Ok(report) => {
                let _ = events.send(Event::Report { rank, report }).await;
            }
            Err(error) => {
                tracing::warn!(rank, %error, line, "a node said something on standard output that is no report");
            }
        }
    }
}

/// Replaces a small file so that a reader sees the old or the new one, never half of it. Not synced: it describes processes, which do not outlive power either.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Several nodes may write the same file at the same time, each with its own draft.
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    std::fs::write(&fresh, bytes)?;
    std::fs::rename(fresh, path)
}

fn log_file(data: &DataDir, host: &str) -> anyhow::Result<File> {
    let path = data.logs().join(format!("{host}.log"));
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("failed to open {}", path.display()))
}

/// The last lines of a node's log: what a person would look at first.
fn log_tail(data: &DataDir, host: &str) -> String {
    let path = data.logs().join(format!("{host}.log"));
    let text = std::fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(5)..].join("\n");
    format!("{tail}\n(its log: {})", path.display())
}
