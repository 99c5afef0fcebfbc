//! Small commands: `version`, `getattr`, `lsattr`, `uptime`, `queue`, `uri`.

use super::{
    connect::{Address, Broker, unexpected},
    fail::{Code, Fail},
    fields::username,
    format::local,
    jobs::now,
    resource,
    terminal::say,
};
use kiln_jobs::proto::{Failure, Reply, Request};
use kiln_types::{Fsd, Timestamp};
use std::{collections::BTreeMap, fmt::Write, fs, io::IsTerminal, time::UNIX_EPOCH};

/// The version of flux-core whose command line this is; programs that call `flux` look at it.
const FLUX_VERSION: &str = "0.88.0";

/// `flux version`.
pub(super) fn version() -> Code {
    for (what, blanks) in [("commands:", "    \t\t"), ("libflux-core:", "\t\t"), ("broker:", "  \t\t")] {
        say!("{what}{blanks}{FLUX_VERSION}");
    }
    if let Ok(address) = Address::from_environment() {
        say!("FLUX_URI:\t\t{}", address.uri());
    }
    say!("build-options:\t\t+kiln=={}", env!("CARGO_PKG_VERSION"));
    0
}

async fn attributes(broker: &Broker) -> Result<BTreeMap<String, String>, Failure> {
    match broker.ask_again(&Request::Attributes).await? {
        Reply::Attributes(pairs) => Ok(pairs.into_iter().collect()),
        other => Err(unexpected(&other)),
    }
}

/// `flux getattr NAME`.
pub(super) async fn getattr(words: &[String]) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-getattr";
    let [name] = words else { return Err(Fail::bare("Usage: flux-getattr name")) };
    let broker = Broker::open(PROGRAM).await?;
    let attributes = attributes(&broker).await.map_err(|failure| Fail::plain(PROGRAM, failure))?;
    let value = attributes
        .get(name)
        .ok_or_else(|| Fail::plain(PROGRAM, format!("{name}: No such file or directory")))?;
    say!("{value}");
    Ok(0)
}

/// `flux lsattr [-v]`.
pub(super) async fn lsattr(words: &[String]) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-lsattr";
    let values = words.iter().any(|word| word == "-v" || word == "--values");
    let broker = Broker::open(PROGRAM).await?;
    for (name, value) in attributes(&broker).await.map_err(|failure| Fail::plain(PROGRAM, failure))? {
        if values { say!("{name:<40}{value}") } else { say!("{name}") }
    }
    Ok(0)
}

/// `flux uptime`.
pub(super) async fn uptime() -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-uptime";
    let broker = Broker::open(PROGRAM).await?;
    let error = |failure: Failure| Fail::error(PROGRAM, failure);
    let attributes = attributes(&broker).await.map_err(error)?;
    let nodes = resource::rows(&broker).await.map_err(error)?;
    let get = |name: &str| attributes.get(name).map(String::as_str);
    let now = now();
    let started = started(get("broker.starttime"), get("broker.pid")).unwrap_or(now);
    let owner = get("security.owner").and_then(|owner| owner.parse().ok()).unwrap_or(0);
    let drained = nodes.iter().filter(|node| node.drained.is_some()).count();
    let offline = nodes.iter().filter(|node| !node.online).count();
    say!(
        "{}",
        uptime_line(
            now,
            started,
            &username(owner),
            get("instance-level").unwrap_or("0"),
            nodes.len(),
            [drained, offline]
        )
    );
    if !scheduling(&broker).await.map_err(error)?.on {
        say!("  scheduler disabled");
    }
    Ok(0)
}

/// From the attribute, else from when the broker's process began.
fn started(starttime: Option<&str>, pid: Option<&str>) -> Option<Timestamp> {
    if let Some(seconds) = starttime.and_then(|time| time.parse().ok()) {
        return Some(Timestamp::from_seconds_f64(seconds));
    }
    let began = fs::metadata(format!("/proc/{}", pid?)).and_then(|process| process.modified()).ok()?;
    Some(Timestamp::EPOCH + began.duration_since(UNIX_EPOCH).ok()?)
}

fn uptime_line(
    now: Timestamp,
    started: Timestamp,
    owner: &str,
    depth: &str,
    size: usize,
    away: [usize; 2],
) -> String {
    let time = local(now, "%T");
    let run = Fsd::from_seconds(now.since(started).as_secs_f64()).rounded(2);
    let mut line = format!(" {time} run {run},  owner {owner},  depth {depth},  size {size}");
    for (count, what) in away.into_iter().zip(["drained", "offline"]).filter(|(count, _)| *count > 0) {
        // Writing to a String cannot fail.
        let _ = write!(line, ",  {count} {what}");
    }
    line
}

/// What the scheduler does.
struct Scheduling {
    on: bool,
    pending: u32,
    running: u32,
}

async fn scheduling(broker: &Broker) -> Result<Scheduling, Failure> {
    match broker.ask_again(&Request::SchedulingStatus).await? {
        Reply::Scheduling { on, pending, running } => Ok(Scheduling { on, pending, running }),
        other => Err(unexpected(&other)),
    }
}

/// `flux queue list|status|start|stop`.
pub(super) async fn queue(words: &[String]) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-queue";
    let error = |failure: Failure| Fail::error(PROGRAM, failure);
    let (command, verbose) =
        (words.first().map_or("", String::as_str), words.iter().any(|word| word == "-v"));
    let on = match command {
        "list" => return queue_list().await,
        "status" => None,
        "start" => Some(true),
        "stop" => Some(false),
        other => {
            let text = format!("'{other}' is not supported here; list, status, start and stop are");
            return Err(Fail::error(PROGRAM, text));
        }
    };
    let broker = Broker::open(PROGRAM).await?;
    if let Some(on) = on {
        broker.ask(&Request::Scheduling { on }).await.map_err(error)?;
        say!("{}", scheduling_line(on));
        return Ok(0);
    }
    let Scheduling { on, pending, running } = scheduling(&broker).await.map_err(error)?;
    say!("Job submission is enabled\n{}", scheduling_line(on));
    if verbose {
        say!(
            "{pending} alloc requests queued\n0 alloc requests pending to scheduler\n{running} running jobs"
        );
    }
    Ok(0)
}

/// `flux queue list`: the one queue there is, and what a job in it may ask for.
async fn queue_list() -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-queue";
    let error = |failure: Failure| Fail::error(PROGRAM, failure);
    let broker = Broker::open(PROGRAM).await?;
    let on = scheduling(&broker).await.map_err(error)?.on;
    let nodes = resource::rows(&broker).await.map_err(error)?;
    let offered = nodes.iter().filter(|node| !node.excluded);
    let cores = offered.clone().map(|node| node.cores.len()).sum();
    say!(" EN ST TDEFAULT   TLIMIT     NNODES     NCORES      NGPUS");
    say!("{}", queue_line(on, offered.count(), cores, std::io::stdout().is_terminal()));
    Ok(0)
}

fn queue_line(on: bool, nodes: usize, cores: u64, colour: bool) -> String {
    let mark = |yes: bool| {
        let sign = if yes { '✔' } else { '✗' };
        match (colour, yes) {
            (false, _) => format!(" {sign}"),
            (true, true) => format!("\x1b[01;32m {sign}\x1b[0;0m"),
            (true, false) => format!("\x1b[01;31m {sign}\x1b[0;0m"),
        }
    };
    let (nodes, cores) = (format!("0-{nodes}"), format!("0-{cores}"));
    format!(" {} {} {:>8} {:>8} {nodes:>10} {cores:>10} {:>10}", mark(true), mark(on), "inf", "inf", "0-0")
}

fn scheduling_line(on: bool) -> &'static str {
    if on { "Scheduling is started" } else { "Scheduling is stopped" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_three_numbers_and_new_enough() {
        let numbers: Vec<u32> = FLUX_VERSION.split('.').map(|part| part.parse().unwrap()).collect();
        assert!(numbers.len() == 3 && (numbers[0], numbers[1]) >= (0, 48));
    }

    #[test]
    fn the_queue_is_as_large_as_the_instance() {
        let line = queue_line(false, 4, 8, false);
        assert_eq!(line, "  ✔  ✗      inf      inf        0-4        0-8        0-0");
        let on = "\x1b[01;32m ✔\x1b[0;0m";
        assert!(queue_line(true, 4, 8, true).starts_with(&format!(" {on} {on}      inf")));
    }

    #[test]
    fn uptime_counts_those_away() {
        let (now, started) = (Timestamp(1_795_373_345_000_000), Timestamp(1_795_373_135_000_000));
        let line = uptime_line(now, started, "root", "0", 4, [0, 0]);
        assert!(line.ends_with(" run 3.5m,  owner root,  depth 0,  size 4"), "{line}");
        assert!(uptime_line(now, started, "root", "0", 4, [1, 0]).ends_with("size 4,  1 drained"));
    }
}
