//! `kiln up` and `kiln down`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{exit, say};
use crate::cli::Up;
use crate::paths::DataDir;
use crate::settings::{self, Flags};
use crate::supervisor::{self, Ended, OFF, Picture};

/// How often a waiting command looks again. Only people wait here.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long `--detach` waits for readiness before it says that something is wrong.
const READY_WITHIN: Duration = Duration::from_mins(1);

pub(super) fn up(data: &DataDir, arguments: &Up, mut flags: Flags) -> anyhow::Result<ExitCode> {
    if let Some(nodes) = arguments.nodes {
        flags.push(("cluster.nodes".to_owned(), nodes.to_string()));
    }
    let (loaded, sources) = settings::load(data, arguments.config.as_deref(), flags)?;
    crate::wiring::flows::check(&loaded.config)?;
    data.prepare()?;
    if arguments.detach {
        return detach(data);
    }
    let hosts = hosts(&loaded.config);
    crate::log_to_stderr(&loaded.config);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hand_over = || settings::hand_over(data, sources);
    let ended =
        runtime.block_on(supervisor::run(data, &hosts, hand_over, |picture| announce(data, picture)))?;
    match ended {
        Ended::Stopped => Ok(ExitCode::SUCCESS),
        Ended::StartFailed { host, why } => anyhow::bail!("{host} failed to start: {why}"),
    }
}

/// The node names, rank 0 first.
fn hosts(config: &kiln_config::Config) -> Vec<String> {
    (1..=config.cluster.nodes).map(|n| format!("{}{n}", config.cluster.host_prefix)).collect()
}

fn announce(data: &DataDir, picture: &Picture) {
    let mut out = std::io::stdout().lock();
    // Nobody may be reading any more, and the instance runs all the same.
    let _ = out.write_all(summary(data, picture).as_bytes()).and_then(|()| out.flush());
}

/// What runs, what listens where, and what to type next.
fn summary(data: &DataDir, picture: &Picture) -> String {
    let nothing = crate::supervisor::Listeners::default();
    let listeners = picture.listeners.as_ref().unwrap_or(&nothing);
    let first = picture.nodes.first().map_or("", |n| n.host.as_str());
    let nodes = match picture.nodes.last() {
        Some(last) if picture.nodes.len() > 1 => {
            format!("{} nodes, {first} to {}", picture.nodes.len(), last.host)
        }
        _ => format!("1 node, {first}"),
    };
    format!(
        "kiln is ready: {nodes}; data in {data}\n\
         \n  kafka    {}\n  amqp     {}\n  syslog   {}\n  console  {}\n  flux     export FLUX_URI=local://{}\n\
         \nNext:  kiln status  |  kiln flux run -n{n} hostname  |  kiln topic list  |  kiln tasks  |  kiln down\n",
        listeners.kafka,
        around("amqp://guest:guest@", &listeners.amqp, "/"),
        around("", &listeners.syslog, "  (UDP, TCP, RELP)"),
        around("http://", &listeners.console, "/api/status"),
        data.broker_socket(0).display(),
        n = picture.nodes.len(),
        data = data.root().display(),
    )
}

/// What a client types to reach a listener; one that is off has nothing around it.
fn around(before: &str, address: &str, after: &str) -> String {
    if address == OFF { OFF.to_owned() } else { format!("{before}{address}{after}") }
}

/// Starts this same command again in a process group of its own, and returns when it is ready.
fn detach(data: &DataDir) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        !supervisor::is_running(data),
        "an instance already runs on {0}; `kiln --data {0} down` stops it",
        data.root().display()
    );
    let log = data.logs().join("supervisor.log");
    let out = std::fs::File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
    let again = std::env::args_os().skip(1).filter(|a| a != "--detach");
    let mut child = Command::new(std::env::current_exe()?)
        .args(again)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(out)
        .process_group(0)
        .spawn()
        .context("failed to start the background process")?;
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            anyhow::bail!("the instance ended while it started ({status}):\n{said}");
        }
        if let Some(picture) = Picture::load(data)?.filter(Picture::ready) {
            announce(data, &picture);
            return Ok(ExitCode::SUCCESS);
        }
        if started.elapsed() > READY_WITHIN {
            eprintln!(
                "kiln: not ready after {} s; it goes on in the background: see `kiln status` and {}",
                READY_WITHIN.as_secs(),
                log.display()
            );
            return Ok(ExitCode::from(exit::NOT_READY));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

pub(super) fn down(data: &DataDir, patience: Duration) -> anyhow::Result<ExitCode> {
    let Some(picture) = Picture::load(data)? else {
        eprintln!("kiln: no instance runs on {}", data.root().display());
        return Ok(ExitCode::from(exit::NOT_RUNNING));
    };
    let supervisor = Pid::from_raw(picture.supervisor_pid);
    kill(supervisor, Signal::SIGTERM)
        .with_context(|| format!("failed to signal the supervisor, process {supervisor}"))?;
    let started = Instant::now();
    while supervisor::is_running(data) {
        if started.elapsed() > patience {
            // The second request ends the nodes at once; what was acknowledged is on disk all the same.
            eprintln!("kiln: not stopped after {} s; ending its processes", patience.as_secs());
            kill(supervisor, Signal::SIGTERM).ok();
            std::thread::sleep(LOOK_AGAIN * 25);
            break;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    if supervisor::is_running(data) {
        anyhow::bail!("the supervisor, process {supervisor}, does not stop; see {}", data.logs().display());
    }
    say(&format!("kiln is stopped; data stays in {}", data.root().display()))?;
    Ok(ExitCode::SUCCESS)
}
