//! `flux jobs` and `flux pgrep`.

use super::{
    connect::{Broker, unexpected},
    fail::{Code, Fail},
    fields,
    format::Format,
    ids,
    terminal::say,
};
use clap::Parser;
use kiln_jobs::proto::{Failure, Filter, JobResult, JobRow, JobState, Reply, Request, Stats};
use kiln_types::{Fsd, JobId, Timestamp};
use std::{
    fmt::Write,
    time::{SystemTime, UNIX_EPOCH},
};

const PROGRAM: &str = "flux-jobs";

/// Named formats, what they are for, and what they are.
const FORMATS: &[(&str, &str, &str)] = &[
    (
        "default",
        "Default flux-jobs format string",
        "{id.f58:>12} {username:<8.8} {name:<10.10+} {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} {contextual_time!F:>8h} {contextual_info}",
    ),
    (
        "cute",
        "Cute flux-jobs format string (default with emojis)",
        "{id.f58:>12} {username:<8.8} {name:<10.10+} {status_abbrev:>2.2} {ntasks:>6} {nnodes:>6h} {contextual_time!F:>8h} {contextual_info}",
    ),
    (
        "long",
        "Extended flux-jobs format string",
        "{id.f58:>12} {username:<8.8} {name:<10.10+} {status:>9.9} {ntasks:>6} {nnodes:>6h} {t_submit!d:%b%d %R::>12} {t_remaining!F:>12h} {contextual_time!F:>8h} {contextual_info}",
    ),
    (
        "deps",
        "Show job urgency, priority, and dependencies",
        "{id.f58:>12} {name:<10.10+} {urgency:<3} {priority:<12} {state:<8.8} {dependencies}",
    ),
    (
        "endreason",
        "Show why each job ended",
        "{id.f58:>12} {username:<8.8} {name:<10.10+} {status_abbrev:>2.2} {t_inactive!d:%b%d %R::>12h} {inactive_reason}",
    ),
];

/// Lists jobs.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-jobs",
    about = "list jobs submitted to Flux",
    no_binary_name = true,
    args_override_self = true
)]
pub(super) struct Jobs {
    /// Jobs in all states
    #[arg(short)]
    all: bool,
    /// Jobs of all users
    #[arg(short = 'A')]
    all_users: bool,
    /// At most N jobs
    #[arg(short, long, value_name = "N", default_value_t = 1000)]
    count: u32,
    /// States or results, comma separated: pending, running, inactive, failed, ...
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Option<String>,
    /// Jobs that are active or ended after this: -15m, or seconds since the epoch
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    since: Option<String>,
    /// No header
    #[arg(short = 'n', long, visible_alias = "suppress-header")]
    no_header: bool,
    /// Jobs of this user
    #[arg(short, long, value_name = "USERNAME|UID")]
    user: Option<String>,
    /// Jobs of this name
    #[arg(long, value_name = "JOB-NAME")]
    name: Option<String>,
    /// Jobs of these queues
    #[arg(short, long, value_name = "QUEUE,...")]
    queue: Option<String>,
    /// Format: a name (see -o help) or fields like "{id} {name}"
    #[arg(short = 'o', long, value_name = "FORMAT", default_value = "default")]
    format: String,
    /// JSON
    #[arg(long)]
    json: bool,
    /// Color; accepted for compatibility
    #[arg(long, value_name = "WHEN", num_args = 0..=1, default_missing_value = "auto", hide = true)]
    color: Option<String>,
    /// Counts before the list
    #[arg(long)]
    stats: bool,
    /// Counts and nothing else
    #[arg(long)]
    stats_only: bool,
    /// These jobs
    #[arg(value_name = "JOBID")]
    jobids: Vec<String>,
}

/// `flux jobs`.
pub(super) async fn jobs(jobs: Jobs) -> Result<Code, Fail> {
    if jobs.format == "help" {
        super::terminal::text(&formats_help());
        return Ok(0);
    }
    let format = format(&jobs.format)?;
    let now = now();
    let filter = filter(&jobs, now)?;
    let broker = Broker::open(PROGRAM).await?;
    let error = |failure: Failure| Fail::error(PROGRAM, failure);
    if jobs.stats || jobs.stats_only {
        say!("{}", stats_line(&stats(&broker).await.map_err(error)?));
        if jobs.stats_only {
            return Ok(0);
        }
    }
    let rows = list(&broker, filter.clone()).await.map_err(error)?;
    if jobs.json {
        say!("{}", fields::to_json(&rows, now));
        return Ok(0);
    }
    tell_unknown(&jobs.jobids, &filter.ids, &rows);
    if filter.ids.is_empty() || !rows.is_empty() {
        super::terminal::text(&table(format, &rows, !jobs.no_header, now));
    }
    Ok(0)
}

fn table(format: Format, rows: &[JobRow], header: bool, now: Timestamp) -> String {
    let format = format.without_empty(&rows.iter(), |row, name| fields::value(row, name, now));
    let mut text = String::new();
    if header {
        text.push_str(&format.header(fields::heading));
        text.push('\n');
    }
    for row in rows {
        text.push_str(&format.row(|name| fields::value(row, name, now)));
        text.push('\n');
    }
    text
}

/// Says which of the jobs asked for are not there. No error, as in Flux: programs ask for jobs that may be gone.
fn tell_unknown(words: &[String], ids: &[JobId], rows: &[JobRow]) {
    for (word, _) in words.iter().zip(ids).filter(|(_, id)| rows.iter().all(|row| row.id != **id)) {
        eprintln!("JobID {word} unknown");
    }
}

fn formats_help() -> String {
    let mut text = "\nConfigured flux-jobs output formats:\n\n".to_owned();
    for (name, about, _) in FORMATS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<12} {about}");
    }
    text
}

fn format(name: &str) -> Result<Format, Fail> {
    let error = |text: String| Fail::error(PROGRAM, format!("--format: {text}"));
    let named = FORMATS.iter().find(|(known, ..)| *known == name).map(|(_, _, format)| *format);
    let text = match named {
        Some(format) => format,
        None if name.contains('{') => name,
        None => return Err(error(format!("No such format {name} (Did you mean '{{{name}}}'?)"))),
    };
    Format::parse(text, fields::heading).map_err(|bad| error(bad.0))
}

pub(super) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::EPOCH + since
}

fn filter(jobs: &Jobs, now: Timestamp) -> Result<Filter, Fail> {
    let error = |text: String| Fail::error(PROGRAM, text);
    if jobs.all && jobs.filter.is_some() {
        eprintln!("{PROGRAM}: WARNING: Both -a and --filter specified, ignoring -a");
    }
    let since = jobs.since.as_deref().map(|text| moment(text, now)).transpose().map_err(error)?;
    let words = match &jobs.filter {
        Some(words) => words.as_str(),
        None if jobs.all || since.is_some() || !jobs.jobids.is_empty() => "",
        None => "pending,running",
    };
    let (states, results) = phases(words).map_err(error)?;
    let everybody = jobs.all_users || jobs.user.as_deref() == Some("all") || !jobs.jobids.is_empty();
    let userid = match &jobs.user {
        _ if everybody => None,
        Some(user) => Some(userid(user).map_err(error)?),
        None => Some(nix::unistd::getuid().as_raw()),
    };
    let ids = jobs.jobids.iter().map(|text| ids::parse_python(PROGRAM, text)).collect::<Result<_, _>>()?;
    Ok(Filter { ids, states, results, userid, name: jobs.name.clone(), since, max: jobs.count })
}

/// Reads states and results as `--filter` has them.
pub(super) fn phases(words: &str) -> Result<(Vec<JobState>, Vec<JobResult>), String> {
    let (mut states, mut results) = (Vec::new(), Vec::new());
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let upper = word.to_ascii_uppercase();
        let state = JobState::ALL.into_iter().find(|state| state.name() == upper);
        let result = JobResult::ALL.into_iter().find(|result| result.name() == upper);
        match (upper.as_str(), state, result) {
            ("PENDING", ..) => {
                states.extend([JobState::New, JobState::Depend, JobState::Priority, JobState::Sched]);
            }
            ("RUNNING", ..) => states.extend([JobState::Run, JobState::Cleanup]),
            ("ACTIVE", ..) => states.extend(&JobState::ALL[..6]),
            (_, Some(state), _) => states.push(state),
            (_, _, Some(result)) => results.push(result),
            _ => return Err(format!("Invalid filter specified: {word}")),
        }
    }
    Ok((states, results))
}

/// `-15m` is that long ago; a number is seconds since the epoch.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let ago = text.strip_prefix('-').and_then(|ago| ago.parse::<Fsd>().ok()).and_then(Fsd::duration);
    match (ago, text.parse::<f64>()) {
        (Some(ago), _) => Ok(now - ago),
        (None, Ok(seconds)) if seconds >= 0.0 => Ok(Timestamp::from_seconds_f64(seconds)),
        _ => Err(format!(
            "--since: invalid value '{text}', expected -DURATION like -15m, or seconds since the epoch"
        )),
    }
}

/// Number of a user given by number or name.
pub(super) fn userid(user: &str) -> Result<u32, String> {
    if let Ok(number) = user.parse() {
        return Ok(number);
    }
    let found = nix::unistd::User::from_name(user).ok().flatten();
    found.map(|user| user.uid.as_raw()).ok_or_else(|| format!("unknown user {user}"))
}

/// Jobs of the broker.
pub(super) async fn list(broker: &Broker, filter: Filter) -> Result<Vec<JobRow>, Failure> {
    match broker.ask_again(&Request::List(filter)).await? {
        Reply::Jobs(rows) => Ok(rows),
        other => Err(unexpected(&other)),
    }
}

async fn stats(broker: &Broker) -> Result<Stats, Failure> {
    match broker.ask_again(&Request::Stats).await? {
        Reply::Stats(stats) => Ok(stats),
        other => Err(unexpected(&other)),
    }
}

fn stats_line(stats: &Stats) -> String {
    let [new, depend, priority, sched, run, cleanup, _] = stats.states;
    format!(
        "{} running, {} completed, {} failed, {} pending, {} inactive purged",
        run + cleanup,
        stats.successful,
        stats.failed,
        new + depend + priority + sched,
        stats.inactive_purged
    )
}

/// Finds jobs by name.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-pgrep",
    about = "search for matching jobs",
    no_binary_name = true,
    args_override_self = true
)]
pub(super) struct Pgrep {
    /// Jobs in all states
    #[arg(short)]
    all: bool,
    /// States or results, comma separated
    #[arg(short, long, value_name = "STATE|RESULT")]
    filter: Option<String>,
    /// What the name must contain
    #[arg(value_name = "NAME")]
    name: String,
}

/// `flux pgrep`; exit code 1 when nothing matches.
pub(super) async fn pgrep(pgrep: Pgrep) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-pgrep";
    let words = pgrep.filter.as_deref().unwrap_or(if pgrep.all { "" } else { "pending,running" });
    let (states, results) = phases(words).map_err(|text| Fail::error(PROGRAM, text))?;
    let userid = Some(nix::unistd::getuid().as_raw());
    let broker = Broker::open(PROGRAM).await?;
    let filter = Filter { states, results, userid, ..Filter::default() };
    let rows = list(&broker, filter).await.map_err(|failure| Fail::error(PROGRAM, failure))?;
    let found: Vec<&JobRow> = rows.iter().filter(|row| row.name.contains(&pgrep.name)).collect();
    for row in &found {
        say!("{}", ids::show(row.id));
    }
    Ok(Code::from(found.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::{
        fields::tests::{NOW, refused, running},
        *,
    };

    fn listed(name: &str, rows: &[JobRow], header: bool) -> String {
        table(format(name).unwrap(), rows, header, NOW)
    }

    #[test]
    fn the_default_table() {
        assert_eq!(
            listed("default", &[running(), refused()], true),
            "       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO\n    \
             ƒzYfp8HD root     two         R      2      1   11.12s vm\n   \
             ƒ21SL36p7 root     sleep       F     16      4        - \n"
        );
        assert_eq!(
            listed("default", &[], true),
            "       JOBID USER     NAME       ST NTASKS NNODES     TIME INFO\n"
        );
    }

    #[test]
    fn the_long_table() {
        let text = listed("long", &[running()], true);
        let (header, row) = text.split_once('\n').unwrap();
        assert_eq!(
            header,
            "       JOBID USER     NAME          STATUS NTASKS NNODES     T_SUBMIT  T_REMAINING     TIME INFO"
        );
        assert!(row.starts_with("    ƒzYfp8HD root     two              RUN      2      1  Nov2"), "{row}");
        assert!(row.ends_with("       59.81m   11.12s vm\n"), "{row}");
    }

    #[test]
    fn formats_of_other_programs() {
        let text = listed(
            "{id.f58} {id.dec} {name} {status_abbrev} {ntasks} {nnodes} {nodelist} {runtime!F} {expiration} {urgency} {username} {returncode} {result}",
            &[running(), refused()],
            false,
        );
        assert_eq!(
            text,
            "ƒzYfp8HD 2190701756416 two R 2 1 vm 11.12s 1795376869.0 16 root  \n\
             ƒ21SL36p7 2224608509952 sleep F 16 4  0s 0.0 16 root 1 FAILED\n"
        );
        let aiida =
            "{id}|{status_abbrev}|{username}|{nnodes}|{ncores}|{nodelist}|{queue}|{duration}|{t_run}|{name}";
        assert_eq!(listed(aiida, &[running()], false), "ƒzYfp8HD|R|root|1|2|vm||3600.0|1795373269.0|two\n");
        assert_eq!(
            listed("{id} {state} {exception.type} {exception.note}", &[refused()], false),
            "ƒ21SL36p7 INACTIVE alloc unsatisfiable request: need 4 node(s) with 4 cores each, only 0 eligible\n"
        );
    }

    #[test]
    fn errors() {
        let text = |fail: Fail| fail.to_string();
        assert_eq!(
            format("nope").map_err(text).unwrap_err(),
            "flux-jobs: ERROR: --format: No such format nope (Did you mean '{nope}'?)"
        );
        assert_eq!(phases("badfilter").unwrap_err(), "Invalid filter specified: badfilter");
    }

    #[test]
    fn filters() {
        let parse = |words: &[&str]| filter(&Jobs::try_parse_from(words).unwrap(), NOW).unwrap();
        assert_eq!(parse(&[]).states.len(), 6);
        assert_eq!(parse(&["-a"]).states, []);
        assert_eq!(parse(&["-f", "failed,run"]).results, [JobResult::Failed]);
        assert_eq!(parse(&["--since=-15m"]).since, Some(Timestamp(NOW.0 - 900_000_000)));
        assert_eq!(parse(&["ƒ21", "-c", "5"]).ids, [JobId::new(58)]);
    }

    #[test]
    fn statistics() {
        let stats = Stats { states: [0, 1, 0, 2, 3, 0, 9], successful: 60, failed: 21, ..Stats::default() };
        assert_eq!(stats_line(&stats), "3 running, 60 completed, 21 failed, 3 pending, 0 inactive purged");
    }
}
