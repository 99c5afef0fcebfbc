//! `flux job eventlog` and `flux job wait-event`.

use super::{
    attach,
    connect::{Broker, unexpected},
    fail::{Code, Fail},
    format::local,
    job::{named, plain},
    terminal::say,
};
use clap::Args;
use kiln_jobs::{
    core::{as_json, as_text, context_text, output_entry, output_header},
    proto::{Entry, Failure, Filter, LogName, Reply, Request},
};
use kiln_types::{Fsd, JobId, Timestamp};
use serde_json::Value;
use std::time::Duration;

const PROGRAM: &str = "flux-job";

/// Options of `flux job eventlog`.
#[derive(Debug, Clone, Args)]
pub(super) struct Eventlog {
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    format: String,
    /// raw, iso, offset or human
    #[arg(short = 'T', long, value_name = "FORMAT", default_value = "raw")]
    time_format: String,
    /// Times for people
    #[arg(short = 'H', long)]
    human: bool,
    /// Accepted for compatibility
    #[arg(short = 'L', long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "auto", require_equals = true, hide = true)]
    color: Option<String>,
    /// Follow until the job is over
    #[arg(short = 'F', long)]
    follow: bool,
    /// Another log: exec or output
    #[arg(short, long, value_name = "PATH")]
    path: Option<String>,
    /// Which job
    id: String,
}

/// Options of `flux job wait-event`.
#[derive(Debug, Clone, Args)]
pub(super) struct WaitEvent {
    /// text or json
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    format: String,
    /// raw, iso, offset or human
    #[arg(short = 'T', long, value_name = "FORMAT", default_value = "raw")]
    time_format: String,
    /// Times for people
    #[arg(short = 'H', long)]
    human: bool,
    /// Give up after this
    #[arg(short, long, value_name = "DURATION")]
    timeout: Option<String>,
    /// Wait for the event to come so often
    #[arg(short, long, value_name = "COUNT", default_value_t = 1)]
    count: u32,
    /// Wait for an event with this in its context
    #[arg(short, long, value_name = "KEY=VAL")]
    match_context: Option<String>,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Print all events until then
    #[arg(short, long)]
    verbose: bool,
    /// Another log: exec
    #[arg(short, long, value_name = "PATH")]
    path: Option<String>,
    /// Which job
    id: String,
    /// Which event
    event: String,
}

/// The logs of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Events(LogName),
    Output,
}

fn which(path: Option<&str>) -> Result<Which, Fail> {
    match path {
        None | Some("eventlog") => Ok(Which::Events(LogName::Main)),
        Some("exec" | "guest.exec.eventlog") => Ok(Which::Events(LogName::Exec)),
        Some("output" | "guest.output") => Ok(Which::Output),
        Some(other) => Err(Fail::plain(PROGRAM, format!("eventlog path {other} not found"))),
    }
}

/// How events are shown.
struct Style {
    json: bool,
    time: Time,
    first: Option<Timestamp>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    Raw,
    Iso,
    Offset,
    Human,
}

impl Style {
    fn new(format: &str, time: &str, human: bool) -> Result<Self, Fail> {
        let json = match format {
            "text" => false,
            "json" => true,
            other => return Err(Fail::plain(PROGRAM, format!("invalid format type {other}"))),
        };
        let time = match time {
            _ if human => Time::Human,
            "raw" => Time::Raw,
            "iso" => Time::Iso,
            "offset" => Time::Offset,
            "human" => Time::Human,
            other => return Err(Fail::plain(PROGRAM, format!("invalid time-format type {other}"))),
        };
        Ok(Self { json, time, first: None })
    }

    fn line(&mut self, entry: &Entry) -> String {
        if self.json {
            return as_json(entry);
        }
        let known = self.first;
        let first = *self.first.get_or_insert(entry.at);
        let offset = entry.at.since(first).as_secs_f64();
        let time = match self.time {
            Time::Raw => return as_text(entry),
            Time::Iso => local(entry.at, "%FT%T.%6f%:z"),
            Time::Offset => format!("{offset:.6}"),
            Time::Human if known.is_none() => local(entry.at, "[%b%d %H:%M]"),
            Time::Human => format!("[{offset:>+11.6}]"),
        };
        format!("{time} {}{}", entry.name, context_text(entry))
    }
}

/// `flux job eventlog`.
pub(super) async fn eventlog(options: Eventlog) -> Result<Code, Fail> {
    let mut style = Style::new(&options.format, &options.time_format, options.human)?;
    let log = which(options.path.as_deref())?;
    let (broker, id) = named(&options.id).await?;
    let entries = match log {
        Which::Output => output(&broker, id).await,
        Which::Events(log) if options.follow => return follow(&broker, id, log, &mut style).await,
        Which::Events(log) => so_far(&broker, id, log).await,
    };
    for entry in entries.map_err(plain)? {
        say!("{}", style.line(&entry));
    }
    Ok(0)
}

async fn follow(broker: &Broker, id: JobId, log: LogName, style: &mut Style) -> Result<Code, Fail> {
    let mut from = 0;
    loop {
        let (entries, finished) = attach::events(broker, id, log, from).await.map_err(plain)?;
        from += entries.len() as u64;
        for entry in &entries {
            say!("{}", style.line(entry));
        }
        if finished {
            return Ok(0);
        }
    }
}

/// The events that there are now.
pub(super) async fn so_far(broker: &Broker, id: JobId, log: LogName) -> Result<Vec<Entry>, Failure> {
    match broker.ask_again(&Request::Events { id, log, from: 0, wait_ms: 0 }).await? {
        Reply::Events { entries, .. } => Ok(entries),
        other => Err(unexpected(&other)),
    }
}

/// The output that there is now, as RFC 24 has it.
async fn output(broker: &Broker, id: JobId) -> Result<Vec<Entry>, Failure> {
    let rows = super::jobs::list(broker, Filter { ids: vec![id], ..Filter::default() }).await?;
    let ntasks = rows.first().map_or(0, |row| row.ntasks);
    let mut entries = Vec::new();
    let mut from = 0;
    loop {
        let (pieces, finished) = match broker.ask_again(&Request::Output { id, from, wait_ms: 0 }).await? {
            Reply::Output { pieces, finished } => (pieces, finished),
            other => return Err(unexpected(&other)),
        };
        from += pieces.len() as u64;
        entries.extend(pieces.iter().map(|piece| output_entry(piece.at, &piece.what)));
        if finished || pieces.is_empty() {
            break;
        }
    }
    let begin = entries.first().map(|entry: &Entry| output_header(entry.at, ntasks));
    Ok(begin.into_iter().chain(entries).collect())
}

/// An event to look for.
pub(super) struct EventOptions {
    pub(super) name: &'static str,
    pub(super) log: LogName,
}

/// Waits for the first event of that name; none when the job ends without.
pub(super) async fn first(
    broker: &Broker,
    id: JobId,
    options: &EventOptions,
) -> Result<Option<Entry>, Failure> {
    let mut from = 0;
    loop {
        let (entries, finished) = attach::events(broker, id, options.log, from).await?;
        from += entries.len() as u64;
        let found = entries.into_iter().find(|entry| entry.name == options.name);
        if found.is_some() || finished {
            return Ok(found);
        }
    }
}

/// `flux job wait-event`.
pub(super) async fn wait_event(options: WaitEvent) -> Result<Code, Fail> {
    let limit = match options.timeout.as_deref().map(str::parse::<Fsd>) {
        Some(Ok(limit)) => limit.duration().unwrap_or(Duration::MAX),
        Some(Err(bad)) => return Err(Fail::plain(PROGRAM, bad)),
        None => Duration::MAX,
    };
    let event = options.event.clone();
    let waited = tokio::time::timeout(limit, wait_for(options)).await;
    waited.unwrap_or_else(|_| Err(Fail::plain(PROGRAM, format!("wait-event timeout on event '{event}'"))))
}

async fn wait_for(options: WaitEvent) -> Result<Code, Fail> {
    let mut style = Style::new(&options.format, &options.time_format, options.human)?;
    let Which::Events(log) = which(options.path.as_deref())? else {
        return Err(Fail::plain(PROGRAM, "wait-event does not look into the output"));
    };
    let (broker, id) = named(&options.id).await?;
    let (mut from, mut left) = (0, options.count);
    loop {
        let (entries, finished) = attach::events(&broker, id, log, from).await.map_err(plain)?;
        from += entries.len() as u64;
        for entry in &entries {
            let hit = entry.name == options.event && matches(entry, options.match_context.as_deref());
            left -= u32::from(hit).min(left);
            if !options.quiet && (options.verbose || (hit && left == 0)) {
                say!("{}", style.line(entry));
            }
            if hit && left == 0 {
                return Ok(0);
            }
        }
        if finished {
            return Err(Fail::plain(PROGRAM, format!("event '{}' never received", options.event)));
        }
    }
}

/// Whether the context has this `key=value`.
fn matches(entry: &Entry, wanted: Option<&str>) -> bool {
    let Some((key, value)) = wanted.and_then(|wanted| wanted.split_once('=')) else { return true };
    let context: Value = serde_json::from_str(&entry.context).unwrap_or_default();
    match &context[key] {
        Value::String(text) => text == value,
        Value::Null => false,
        other => serde_json::from_str::<Value>(value).is_ok_and(|value| value == *other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(micros: i64, name: &str, context: &str) -> Entry {
        Entry { at: Timestamp(1_795_373_242_128_681 + micros), name: name.into(), context: context.into() }
    }

    #[test]
    fn times_for_people_count_from_the_first_event() {
        let mut style = Style::new("text", "raw", true).ok().unwrap();
        assert!(style.line(&entry(0, "submit", r#"{"userid":0}"#)).ends_with("] submit userid=0"));
        assert_eq!(style.line(&entry(19_760, "validate", "")), "[  +0.019760] validate");
        assert_eq!(style.line(&entry(1_961_015, "depend", "")), "[  +1.961015] depend");
    }

    #[test]
    fn raw_offset_and_json() {
        let shown = |format, time| Style::new(format, time, false).ok().unwrap().line(&entry(0, "start", ""));
        assert_eq!(shown("text", "raw"), "1795373242.128681 start");
        assert_eq!(shown("text", "offset"), "0.000000 start");
        assert_eq!(shown("json", "raw"), r#"{"timestamp":1795373242.128681,"name":"start"}"#);
        assert!(Style::new("xml", "raw", false).is_err());
    }

    #[test]
    fn contexts_match_by_value() {
        let entry = entry(0, "exception", r#"{"type":"cancel","severity":0}"#);
        assert!(
            matches(&entry, Some("type=cancel"))
                && matches(&entry, Some("severity=0"))
                && matches(&entry, None)
        );
        assert!(!matches(&entry, Some("severity=1")) && !matches(&entry, Some("x=")));
    }
}
