//! `kiln demo`: the whole chain on four virtual nodes, from lines of syslog to the recorder's table, and the jobs' results on a filesystem.

mod filesystem;

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kiln_flow::core::{Flow, TaskRequest};
use kiln_flow::generator::{self, Spec};
use kiln_flow::replay::{self, Transport};
use kiln_flow::syslog::Received;
use kiln_net::shutdown_pair;
use kiln_world::{Clock, RealClock};
use serde::Serialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal, SignalKind, signal};

use filesystem::{Kept, Mounts};

use super::{Usage, exit, flow, say, status, tasks};
use crate::api::client::get;
use crate::api::model::{Services, Status, TaskTotals, Tasks};
use crate::cli::Demo;
use crate::paths::DataDir;
use crate::table;
use crate::wiring::flows;

/// The settings of the demo's cluster.
const SETTINGS: &str = include_str!("../demo/kiln.toml");
/// The cluster is to be ready within this time.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often the demo looks how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Unacknowledged lines on the way.
const WINDOW: usize = 256;
/// Lines a second: a busy machine room, and slow enough to watch.
const RATE: f64 = 2500.0;
/// Rows shown at the beginning and at the end of the table.
const ROWS_SHOWN: usize = 8;
/// What the cluster's supervisor writes to, in its data directory.
const LOG: &str = "supervisor.log";
/// The seed of the generated lines.
const SEED: u64 = 20_261_122;
/// What a shell reports for a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// The object that `--json` ends with.
#[derive(Debug, PartialEq, Serialize)]
struct Outcome {
    issued: u64,
    completed: u64,
    lost: u64,
    duplicated: u64,
    latency_ms_p50: f64,
    latency_ms_p99: f64,
    /// The results of the tasks on the demo's filesystem.
    filesystem: Kept,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.lost == 0 && self.duplicated == 0 && self.filesystem.is_complete(self.completed)
    }
}

pub(super) async fn run(arguments: &Demo) -> anyhow::Result<ExitCode> {
    let lines = lines(arguments)?;
    let interrupts = Interrupts::listen()?;
    let mut cluster = Cluster::start(arguments).await?;
    let mut mounts = Mounts::default();
    let done = tokio::select! {
        done = show(arguments, &cluster.data, lines, &mut mounts) => done,
        () = interrupts.next() => Ok(None),
        died = cluster.child.wait() => Err(anyhow::anyhow!("the cluster ended by itself: {}\n{}", died?, cluster.said())),
    };
    if let (Ok(Some(outcome)), true) = (&done, arguments.keep) {
        cluster.keep(mounts, arguments.json, outcome.filesystem.skipped.is_none())?;
    } else {
        // The directory stays if something is still mounted in it: its removal would go there too.
        let unmounted = mounts.take_away(&cluster.data).await;
        cluster.stop(unmounted).await?;
    }
    Ok(match done? {
        Some(outcome) if outcome.is_good() => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(exit::FAILED),
        None => ExitCode::from(INTERRUPTED),
    })
}

/// Ctrl-C, SIGTERM and the end of the terminal, heard from before the cluster is there, so that none is left behind.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Interrupts {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("failed to listen for signals");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
        // The terminal may be gone.
        let _ = writeln!(std::io::stderr(), "kiln: interrupted; stopping the cluster");
    }
}

/// The lines to send: those of a file, or generated ones.
fn lines(arguments: &Demo) -> anyhow::Result<Vec<String>> {
    if let Some(file) = &arguments.replay {
        let bytes = std::fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        return Ok(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect());
    }
    if arguments.tasks > arguments.lines {
        let Demo { tasks, lines, .. } = arguments;
        return Err(
            Usage(format!("--tasks {tasks} is more than --lines {lines}: each task is a line")).into()
        );
    }
    let commands = ["checksum path=/etc/hostname", "primes number={}", "wait seconds=0.02"];
    let spec = Spec {
        lines: u64::from(arguments.lines),
        tasks: u64::from(arguments.tasks),
        seed: SEED,
        start: RealClock::new().now(),
        spacing: Duration::from_secs_f64(1.0 / RATE),
        commands: commands.map(str::to_owned).to_vec(),
    };
    Ok(generator::generate(spec).collect())
}

/// Sends the lines, waits for the last task, and prints what came of it.
async fn show(
    arguments: &Demo,
    data: &DataDir,
    lines: Vec<String>,
    mounts: &mut Mounts,
) -> anyhow::Result<Option<Outcome>> {
    let expected = expected_tasks(&lines)?;
    let ready = wait_ready(data).await?;
    if !arguments.json {
        say(&format!("{} nodes are ready: {}", ready.nodes.len(), hosts(&ready)))?;
    }
    let prepared = filesystem::prepare(data, mounts).await?;
    if !arguments.json {
        say(&match &prepared {
            Ok(ready) => ready.clone(),
            Err(why) => format!("note: no filesystem is mounted here, and the jobs only run: {why}"),
        })?;
        let (count, to) = (lines.len(), &ready.listeners.syslog);
        say(&format!("replaying {count} lines of syslog with {expected} tasks to {to} (RELP)"))?;
    }
    let started = Instant::now();
    let progress = Progress::new(arguments.json, expected);
    let sent = send(lines, ready.listeners.syslog.clone());
    let watched = watch(data, expected, Duration::from_secs(arguments.timeout), &progress);
    let (sent, totals) = tokio::join!(sent, watched);
    progress.end();
    let (sent, totals) = (sent?, totals?);
    let filesystem = match prepared {
        Ok(_) => filesystem::read_back(data, mounts).await?,
        Err(why) => Kept { skipped: Some(why), ..Kept::default() },
    };
    let outcome = Outcome {
        issued: expected,
        completed: totals.completed,
        lost: expected.saturating_sub(totals.completed),
        duplicated: totals.duplicated,
        latency_ms_p50: rounded(totals.latency_ms_p50),
        latency_ms_p99: rounded(totals.latency_ms_p99),
        filesystem,
    };
    if arguments.json {
        say(&serde_json::to_string(&outcome)?)?;
    } else {
        print(data, &outcome, sent, started.elapsed()).await?;
    }
    Ok(Some(outcome))
}

fn rounded(ms: f64) -> f64 {
    (ms * 10.0).round() / 10.0
}

/// How many different tasks the lines name, by the demo's own flow.
fn expected_tasks(lines: &[String]) -> anyhow::Result<u64> {
    let config = kiln_config::parse(Path::new("the demo's kiln.toml"), SETTINGS)?.config;
    let chain = flows::chain(&config)?;
    let flow: &Flow =
        chain.flows.iter().find(|flow| flow.name() == "tasks").context("the demo has a flow `tasks`")?;
    let received = Received::at(RealClock::new().now());
    let mut batch = kiln_flow::core::Batch::default();
    for line in lines {
        flow.take_message(&kiln_flow::syslog::parse(line, received), &mut batch);
    }
    let ids = batch
        .records
        .iter()
        .filter_map(|r| serde_json::from_slice::<TaskRequest>(r.value).ok())
        .map(|r| r.id);
    Ok(ids.collect::<HashSet<_>>().len() as u64)
}

async fn wait_ready(data: &DataDir) -> anyhow::Result<Status> {
    let started = Instant::now();
    loop {
        if let Some(status) = status::gather(data).await?.filter(|status| status.ready) {
            return Ok(status);
        }
        anyhow::ensure!(
            started.elapsed() < READY_WITHIN,
            "the cluster is not ready after {} s; see {}",
            READY_WITHIN.as_secs(),
            data.logs().display()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn hosts(status: &Status) -> String {
    let (first, last) = (status.nodes.first(), status.nodes.last());
    match (first, last) {
        (Some(first), Some(last)) => format!("{} (management) to {}", first.host, last.host),
        _ => String::new(),
    }
}

/// Sends every line until the receiver has it on disk, also over a restart of the receiver.
async fn send(lines: Vec<String>, address: String) -> anyhow::Result<u64> {
    let settings = replay::Settings {
        address,
        transport: Transport::Relp,
        rate: Some(RATE),
        window: WINDOW,
        restamp: true,
    };
    let clock: Arc<dyn Clock> = Arc::new(RealClock::new());
    let (_trigger, stop) = shutdown_pair();
    let progress = replay::replay(lines.into_iter(), &settings, &*clock, stop, &mut |_| {}).await?;
    Ok(progress.acknowledged)
}

/// Follows the recorder until every task is completed, or patience ends. A leader that is being started again only costs time.
async fn watch(
    data: &DataDir,
    expected: u64,
    patience: Duration,
    progress: &Progress,
) -> anyhow::Result<TaskTotals> {
    let started = Instant::now();
    let mut totals = TaskTotals::default();
    loop {
        if let Ok(page) = get::<Tasks>(data, "/api/tasks?max=0").await {
            totals = page.totals;
            progress.show(&totals);
        }
        if totals.completed >= expected && totals.issued >= expected || started.elapsed() > patience {
            return Ok(totals);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// One line that is written over and over, on a terminal.
struct Progress {
    live: bool,
    expected: u64,
}

impl Progress {
    fn new(silent: bool, expected: u64) -> Self {
        Self { live: !silent && std::io::stderr().is_terminal(), expected }
    }

    fn show(&self, totals: &TaskTotals) {
        const WIDTH: u64 = 40;
        if self.live {
            let filled =
                (totals.completed * WIDTH).checked_div(self.expected).unwrap_or(WIDTH).min(WIDTH) as usize;
            let bar = format!("{:<width$}", "#".repeat(filled), width = WIDTH as usize);
            eprint!(
                "\r  [{bar}] {} issued, {} started, {} completed ",
                totals.issued, totals.started, totals.completed
            );
        }
    }

    fn end(&self) {
        if self.live {
            eprintln!();
        }
    }
}

async fn print(data: &DataDir, outcome: &Outcome, sent: u64, took: Duration) -> anyhow::Result<()> {
    let page: Tasks = get(data, "/api/tasks?max=10000").await?;
    let services: Services = get(data, "/api/services").await?;
    let change = filesystem::last_change(data).await?;
    let mut out = std::io::stdout().lock();
    writeln!(out)?;
    tasks::print(&mut out, &shortened(page))?;
    writeln!(out, "\nat every hop:")?;
    flow::print_flows(&mut out, &services.flows)?;
    let Outcome { issued, completed, lost, duplicated, latency_ms_p50, latency_ms_p99, filesystem } = outcome;
    let seconds = took.as_secs_f64();
    let rows = [
        ("lines acknowledged", sent.to_string()),
        ("tasks issued", issued.to_string()),
        ("tasks completed", completed.to_string()),
        ("lost", lost.to_string()),
        ("doubled", duplicated.to_string()),
        ("latency p50 / p99", format!("{latency_ms_p50} / {latency_ms_p99} ms")),
        ("results on the filesystem", filesystem.shown()),
        ("in all", format!("{seconds:.1} s, {:.0} tasks/s", *completed as f64 / seconds.max(0.001))),
    ];
    writeln!(out)?;
    table::write(&mut out, &["RESULT", ""], &rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    if let Some((count, last)) = change {
        writeln!(out, "\nthe filesystem's changelog has {count} records, the last of them:\n  {last}")?;
    }
    Ok(())
}

/// The first and the last rows.
fn shortened(mut page: Tasks) -> Tasks {
    let count = page.tasks.len();
    if count > 2 * ROWS_SHOWN {
        page.tasks.drain(ROWS_SHOWN..count - ROWS_SHOWN);
    }
    page
}

/// The demo's own instance, in a directory of its own.
struct Cluster {
    child: Child,
    data: DataDir,
    dir: TempDir,
}

impl Cluster {
    async fn start(arguments: &Demo) -> anyhow::Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("kiln-demo-").tempdir().context("failed to make a directory")?;
        let data = DataDir::new(dir.path())?;
        let settings: PathBuf = data.root().join("kiln.toml");
        tokio::fs::write(&settings, SETTINGS).await?;
        let (name, script) = filesystem::SCRIPT;
        tokio::fs::write(data.root().join(name), script).await?;
        let log = std::fs::File::create(data.root().join(LOG))?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--data").arg(data.root()).arg("up");
        for key in ["kafka", "amqp", "syslog", "console"] {
            command.arg(format!("--{key}-listen=127.0.0.1:0"));
        }
        // Its own process group: Ctrl-C is for the demo, which then stops the cluster in order.
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the cluster")?;
        let cluster = Self { child, data, dir };
        if !arguments.json
            && let Err(error) = say(&format!("starting the cluster in {}", cluster.data.root().display()))
        {
            cluster.stop(Ok(())).await?;
            return Err(error.into());
        }
        Ok(cluster)
    }

    /// Stops it, and removes its directory if everything that was mounted there was unmounted.
    async fn stop(mut self, unmounted: anyhow::Result<()>) -> anyhow::Result<()> {
        if let Some(pid) = self.child.id() {
            let pid = nix::unistd::Pid::from_raw(pid as i32);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM); // it may have just ended
        }
        self.child.wait().await.context("failed to wait for the cluster's end")?;
        if let Err(error) = unmounted {
            let dir = self.dir.keep();
            return Err(error.context(format!("{} stays", dir.display())));
        }
        self.dir.close().context("failed to remove the demo's directory")
    }

    /// What the supervisor has complained about.
    fn said(&self) -> String {
        let log = std::fs::read(self.data.root().join(LOG)).unwrap_or_default();
        String::from_utf8_lossy(&log).trim_end().to_owned()
    }

    fn keep(self, mounts: Mounts, silent: bool, is_mounted: bool) -> std::io::Result<()> {
        let data = self.dir.keep();
        // Left running on purpose: without this the handle would end it.
        std::mem::forget(self.child);
        mounts.keep();
        if silent {
            return Ok(());
        }
        let data = data.display();
        let (look, unmount) = if is_mounted {
            let (fs, mount) = (filesystem::NAME, filesystem::MOUNTS[0]);
            let topic = crate::fs::changelog::topic(fs);
            let look = format!(
                "\n  ls {data}/{mount}/results\n  kiln --data {data} fs status {fs}\n  kiln --data {data} topic read {topic}"
            );
            let unmount =
                filesystem::MOUNTS.map(|dir| format!("kiln --data {data} fs umount {data}/{dir}; "));
            (look, unmount.concat())
        } else {
            Default::default()
        };
        say(&format!(
            "\nIt goes on running. Where to look next:\n  kiln --data {data} status\n  kiln --data {data} tasks --watch\n  kiln --data {data} topic read task-events\n  kiln --data {data} amqp list queues\n  export FLUX_URI=local://{data}/run/broker-0.sock; kiln flux jobs -a{look}\n  {unmount}kiln --data {data} down; rm -r {data}"
        ))
    }
}
