//! `flux job`: one job's documents, events and signals.

use super::{
    attach::{self, Stdin, View},
    connect::{Broker, unexpected},
    events::{self, EventOptions},
    fail::{Code, Fail},
    ids, jobs, request, signals,
    terminal::say,
};
use clap::{Args, Parser, Subcommand};
use kiln_jobs::{
    core::as_json,
    proto::{Failure, FailureKind, Filter, InfoKey, JobRow, LogName, Reply, Request, WAIT_MS_MAX},
};
use kiln_types::{JobId, Timestamp};
use serde_json::Value;

const PROGRAM: &str = "flux-job";

/// What `flux job timeleft` prints without a limit: 2^32 - 1, as Flux does.
const NO_LIMIT: u64 = u32::MAX as u64;

/// `flux job COMMAND`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-job",
    about = "get job status, info, etc",
    no_binary_name = true,
    disable_help_subcommand = true
)]
pub(super) struct Job {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
#[command(args_override_self = true)]
enum Command {
    /// Interactively attach to job
    Attach(Attach),
    /// Cancel jobs
    #[command(hide = true)]
    Cancel(super::cancel::Cancel),
    /// Display eventlog for a job
    Eventlog(events::Eventlog),
    /// Print host:pid pairs for tasks
    Hostpids {
        /// Which job
        id: String,
    },
    /// Convert jobids to another form
    Id {
        /// dec, hex, kvs, f58, f58plain, dothex
        #[arg(long, value_name = "FORM", default_value = "f58")]
        to: String,
        /// Ids in any form
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Display info for a job
    Info {
        /// Which job
        id: String,
        /// jobspec, R, eventlog, guest.exec.eventlog
        #[arg(required = true)]
        keys: Vec<String>,
    },
    /// Send a signal to running jobs
    Kill {
        /// Name or number
        #[arg(short, long, default_value = "TERM")]
        signal: String,
        /// Which jobs
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// List my most recently submitted job ids
    Last {
        /// How many
        #[arg(default_value_t = 1)]
        count: u32,
    },
    /// Raise an exception on jobs
    Raise(Raise),
    /// Wait for jobs to complete and exit with the largest exit code
    Status {
        /// Say how each ended
        #[arg(short, long, action = clap::ArgAction::Count)]
        verbose: u8,
        /// Which jobs
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Show which task runs where
    Taskmap {
        /// Which job
        id: String,
    },
    /// Find the remaining runtime of a job
    Timeleft {
        /// Which job; by default the one around
        id: Option<String>,
        /// In Flux Standard Duration
        #[arg(short = 'H', long)]
        human: bool,
    },
    /// Set the urgency of jobs
    Urgency {
        /// Which job
        id: String,
        /// 0 to 31, hold, expedite, default
        urgency: String,
        /// Show the old one
        #[arg(short, long)]
        verbose: bool,
    },
    /// Wait for jobs to complete
    Wait {
        /// All waitable jobs
        #[arg(short, long)]
        all: bool,
        /// Which job
        id: Option<String>,
    },
    /// Wait for an event
    WaitEvent(events::WaitEvent),
}

#[derive(Debug, Clone, Args)]
struct Attach {
    /// Show job events on stderr
    #[arg(short = 'E', long)]
    show_events: bool,
    /// Show exec events on stderr
    #[arg(short = 'X', long)]
    show_exec: bool,
    /// Say so when the job waits for resources
    #[arg(long)]
    show_status: bool,
    /// Label output by rank
    #[arg(short, long)]
    label_io: bool,
    /// Show more
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Suppress warnings
    #[arg(short, long)]
    quiet: bool,
    /// Do not read stdin and capture signals
    #[arg(short, long)]
    read_only: bool,
    /// Disable buffering of stdin, which is never buffered here
    #[arg(short, long)]
    unbuffered: bool,
    /// Send standard input to these tasks only
    #[arg(short = 'i', long, value_name = "RANKS")]
    stdin_ranks: Option<String>,
    /// Follow the job's events up to this one only; before finish, the exit code is 1
    #[arg(short, long, value_name = "NAME")]
    wait_event: Option<String>,
    /// Which job
    id: String,
}

#[derive(Debug, Clone, Args)]
struct Raise {
    /// Set exception severity
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    severity: u8,
    /// Set exception type
    #[arg(short = 't', long = "type", value_name = "TYPE", default_value = "cancel")]
    kind: String,
    /// Set exception note
    #[arg(short, long, value_name = "NOTE")]
    message: Option<String>,
    /// Jobs, then words of the note
    #[arg(required = true, value_name = "ID... [NOTE...]")]
    words: Vec<String>,
}

/// `flux job`.
pub(super) async fn job(job: Job) -> Result<Code, Fail> {
    match job.command {
        Command::Attach(options) => attach_to(options).await,
        Command::Cancel(cancel) => super::cancel::cancel(cancel).await,
        Command::Eventlog(options) => events::eventlog(options).await,
        Command::Hostpids { id } => hostpids(&id).await,
        Command::Id { to, ids } => convert(&to, &ids),
        Command::Info { id, keys } => info(&id, &keys).await,
        Command::Kill { signal, ids } => kill(&signal, &ids).await,
        Command::Last { count } => last(count).await,
        Command::Raise(options) => raise(options).await,
        Command::Status { verbose, ids } => status(verbose, &ids).await,
        Command::Taskmap { id } => taskmap(&id).await,
        Command::Timeleft { id, human } => timeleft(id.as_deref(), human).await,
        Command::Urgency { id, urgency, verbose } => set_urgency(&id, &urgency, verbose).await,
        Command::Wait { all, id } => wait(all, id.as_deref()).await,
        Command::WaitEvent(options) => events::wait_event(options).await,
    }
}

pub(super) fn plain(failure: Failure) -> Fail {
    Fail::plain(PROGRAM, failure)
}

/// The job of this name, and a connection to its broker.
pub(super) async fn named(text: &str) -> Result<(Broker, JobId), Fail> {
    let id = ids::parse(PROGRAM, text)?;
    Ok((Broker::open(PROGRAM).await?, id))
}

async fn attach_to(options: Attach) -> Result<Code, Fail> {
    let (broker, id) = named(&options.id).await?;
    let stdin = match options.stdin_ranks.as_deref() {
        _ if options.read_only => None,
        None | Some("all") => Some(Stdin::All),
        Some("none") => None,
        Some(ranks) => Some(Stdin::Tasks(ranks.parse().map_err(|bad| Fail::plain(PROGRAM, bad))?)),
    };
    let view = View {
        label: options.label_io,
        events: options.show_events || options.verbose > 0,
        exec: options.show_exec || options.verbose > 1,
        stdin,
        quiet: false,
        wait_event: options.wait_event,
        status: options.show_status,
    };
    attach::attach(&broker, id, &view).await
}

fn convert(to: &str, words: &[String]) -> Result<Code, Fail> {
    for word in words {
        let id = ids::parse(PROGRAM, word)?;
        let text = match to {
            "dec" => id.number().to_string(),
            "hex" => id.to_hex(),
            "kvs" => id.to_kvs(),
            "f58" => ids::show(id),
            "f58plain" => id.to_f58_plain(),
            "dothex" => id.to_dothex(),
            "words" | "emoji" => {
                return Err(Fail::plain(
                    PROGRAM,
                    format!("--to={to} is not supported, use dec, hex, kvs, f58, f58plain or dothex"),
                ));
            }
            other => return Err(Fail::plain(PROGRAM, format!("Unknown output format {other}"))),
        };
        say!("{text}");
    }
    Ok(0)
}

async fn info(id: &str, keys: &[String]) -> Result<Code, Fail> {
    let (broker, id) = named(id).await?;
    for key in keys {
        match key.as_str() {
            "jobspec" => say!("{}", document(&broker, id, InfoKey::Jobspec).await?),
            "R" => say!("{}", document(&broker, id, InfoKey::R).await?),
            "eventlog" => print_events(&broker, id, LogName::Main).await?,
            "guest.exec.eventlog" => print_events(&broker, id, LogName::Exec).await?,
            other => return Err(Fail::plain(PROGRAM, format!("{other}: key not found"))),
        }
    }
    Ok(0)
}

async fn document(broker: &Broker, id: JobId, key: InfoKey) -> Result<String, Fail> {
    match broker.ask_again(&Request::Info { id, key }).await.map_err(plain)? {
        Reply::Document(text) => Ok(text),
        other => Err(plain(unexpected(&other))),
    }
}

async fn print_events(broker: &Broker, id: JobId, log: LogName) -> Result<(), Fail> {
    let entries = events::so_far(broker, id, log).await.map_err(plain)?;
    for entry in &entries {
        say!("{}", as_json(entry));
    }
    say!("");
    Ok(())
}

async fn kill(signal: &str, words: &[String]) -> Result<Code, Fail> {
    let number = signals::number(signal)
        .ok_or_else(|| Fail::plain(PROGRAM, format!("kill: Invalid signal {signal}")))?;
    let mut code = 0;
    for word in words {
        let (broker, id) = named(word).await?;
        if let Err(failure) = broker.ask(&Request::Kill { id, signal: number }).await {
            eprintln!("{PROGRAM}: {word}: {failure}");
            code = 1;
        }
    }
    Ok(code)
}

async fn last(count: u32) -> Result<Code, Fail> {
    let broker = Broker::open(PROGRAM).await?;
    match broker.ask_again(&Request::Last { count }).await.map_err(plain)? {
        Reply::Ids(found) if found.is_empty() => Err(Fail::plain(PROGRAM, "job history is empty")),
        Reply::Ids(found) => {
            for id in &found {
                say!("{}", ids::show(*id));
            }
            Ok(0)
        }
        other => Err(plain(unexpected(&other))),
    }
}

async fn raise(options: Raise) -> Result<Code, Fail> {
    let targets: Vec<JobId> = options.words.iter().map_while(|word| word.parse().ok()).collect();
    let Some(first) = options.words.first().filter(|_| targets.is_empty()) else {
        let note = options.message.unwrap_or_else(|| options.words[targets.len()..].join(" "));
        return raise_all(&targets, &options.kind, options.severity, &note).await;
    };
    Err(Fail::plain(PROGRAM, format!("{first}: malformed input")))
}

async fn raise_all(targets: &[JobId], kind: &str, severity: u8, note: &str) -> Result<Code, Fail> {
    let broker = Broker::open(PROGRAM).await?;
    let mut code = 0;
    for &id in targets {
        let request = Request::Raise { id, kind: kind.to_owned(), severity, note: note.to_owned() };
        if let Err(failure) = broker.ask(&request).await {
            eprintln!("{PROGRAM}: {}: {failure}", ids::show(id));
            code = 1;
        }
    }
    Ok(code)
}

async fn status(verbose: u8, words: &[String]) -> Result<Code, Fail> {
    let mut worst = 0;
    for word in words {
        let (broker, id) = named(word).await?;
        let (code, wait_status) = attach::wait(&broker, id).await.map_err(plain)?;
        worst = worst.max(code);
        if verbose > 0 {
            let text = match wait_status {
                Some(status) => {
                    attach::end_text(status).unwrap_or_else(|| "exited with exit code 0".to_owned())
                }
                None => "exception before it ran".to_owned(),
            };
            eprintln!("{PROGRAM}: {}: {text}", ids::show(id));
        }
    }
    Ok(worst)
}

async fn wait(all: bool, id: Option<&str>) -> Result<Code, Fail> {
    let id = id.map(|text| ids::parse(PROGRAM, text)).transpose()?;
    let broker = Broker::open(PROGRAM).await?;
    let mut code = 0;
    loop {
        match broker.ask(&Request::Wait { id, wait_ms: WAIT_MS_MAX }).await {
            Ok(Reply::Waited(None)) => {}
            Ok(Reply::Waited(Some(waited))) => {
                if id.is_none() && !all {
                    say!("{}", ids::show(waited.id));
                }
                if !waited.success {
                    let which = if all { format!("{}: ", ids::show(waited.id)) } else { String::new() };
                    eprintln!("{PROGRAM}: {which}{}", waited.text);
                    code = 1;
                }
                if !all {
                    return Ok(code);
                }
            }
            Ok(other) => return Err(plain(unexpected(&other))),
            Err(failure) if failure.kind == FailureKind::NotWaitable && all => return Ok(code),
            Err(failure) if failure.kind == FailureKind::NotWaitable => {
                return Err(plain(failure).with_code(2));
            }
            Err(failure) => return Err(plain(failure)),
        }
    }
}

async fn set_urgency(id: &str, urgency: &str, verbose: bool) -> Result<Code, Fail> {
    let urgency = request::urgency(urgency).map_err(|text| Fail::plain(PROGRAM, text))?;
    let (broker, id) = named(id).await?;
    match broker.ask(&Request::Urgency { id, urgency }).await.map_err(plain)? {
        Reply::Urgency(before) if verbose => eprintln!("old urgency: {before}"),
        _ => {}
    }
    Ok(0)
}

async fn row(broker: &Broker, id: JobId) -> Result<JobRow, Fail> {
    let rows = jobs::list(broker, Filter { ids: vec![id], ..Filter::default() }).await.map_err(plain)?;
    rows.into_iter().next().ok_or_else(|| Fail::plain(PROGRAM, "invalid job id"))
}

async fn timeleft(id: Option<&str>, human: bool) -> Result<Code, Fail> {
    let around = std::env::var("FLUX_JOB_ID").ok();
    let broker = Broker::open(PROGRAM).await?;
    let expiration: Option<Timestamp> = match id.or(around.as_deref()) {
        Some(id) => row(&broker, ids::parse(PROGRAM, id)?).await?.expiration,
        None => None,
    };
    match expiration.map(|until| until.since(jobs::now()).as_secs_f64()) {
        Some(left) if human => say!("{}", kiln_types::Fsd::from_seconds(left)),
        Some(left) => say!("{}", left as u64),
        None if human => say!("infinity"),
        None => say!("{NO_LIMIT}"),
    }
    Ok(0)
}

async fn taskmap(id: &str) -> Result<Code, Fail> {
    let (broker, id) = named(id).await?;
    let options = EventOptions { name: "shell.start", log: LogName::Exec };
    let entry = events::first(&broker, id, &options).await.map_err(plain)?;
    let context: Value =
        entry.and_then(|entry| serde_json::from_str(&entry.context).ok()).unwrap_or_default();
    match &context["taskmap"]["map"] {
        Value::Null => Err(Fail::plain(PROGRAM, "the job has no task map, it never started")),
        map => {
            say!("{map}");
            Ok(0)
        }
    }
}

async fn hostpids(id: &str) -> Result<Code, Fail> {
    let (broker, id) = named(id).await?;
    let options = EventOptions { name: "shell.start", log: LogName::Exec };
    if events::first(&broker, id, &options).await.map_err(plain)?.is_none() {
        return Err(Fail::plain(PROGRAM, "the job never started"));
    }
    say!("{}", document(&broker, id, InfoKey::Hostpids).await?);
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raise_takes_ids_then_words() {
        let Command::Raise(raise) =
            Job::try_parse_from(["raise", "--severity=1", "--type=foo", "f1", "note", "text"])
                .unwrap()
                .command
        else {
            panic!("another command")
        };
        assert_eq!((raise.kind.as_str(), raise.severity), ("foo", 1));
        assert_eq!(raise.words, ["f1", "note", "text"]);
    }

    #[test]
    fn ids_that_are_none_are_refused_in_flux_words() {
        assert_eq!(
            convert("dec", &["xyz".into()]).unwrap_err().to_string(),
            "flux-job: xyz: malformed input"
        );
        assert!(convert("emoji", &["1".into()]).unwrap_err().to_string().contains("not supported"));
    }
}
