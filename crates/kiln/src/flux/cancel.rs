//! `flux cancel`.

use super::{
    connect::Broker,
    fail::{Code, Fail},
    ids, jobs,
    terminal::say,
};
use clap::Parser;
use kiln_jobs::proto::{Filter, JobState, Request};
use kiln_types::JobId;

const PROGRAM: &str = "flux-cancel";

/// Cancels jobs.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-cancel",
    about = "cancel pending or running jobs",
    no_binary_name = true,
    args_override_self = true
)]
pub(super) struct Cancel {
    /// All of your jobs
    #[arg(long)]
    all: bool,
    /// With --all: jobs of this user, or all
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// With --all: jobs in these states
    #[arg(short = 'S', long, value_name = "STATES")]
    states: Option<String>,
    /// Say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Say nothing about success
    #[arg(short, long)]
    quiet: bool,
    /// Note for the job's eventlog
    #[arg(short, long, value_name = "NOTE")]
    message: Option<String>,
    /// These jobs
    #[arg(value_name = "JOBID")]
    jobids: Vec<String>,
}

/// `flux cancel`.
pub(super) async fn cancel(cancel: Cancel) -> Result<Code, Fail> {
    let many = cancel.all || cancel.user.is_some() || cancel.states.is_some();
    if !many && cancel.jobids.is_empty() {
        return Err(Fail::error(PROGRAM, "No target jobs were provided"));
    }
    let mut targets = Vec::new();
    for text in &cancel.jobids {
        targets.push(ids::parse_python(PROGRAM, text)?);
    }
    let broker = Broker::open(PROGRAM).await?;
    if many {
        targets.extend(matching(&broker, &cancel).await?);
    }
    if many && (targets.is_empty() || cancel.dry_run) {
        if !cancel.quiet {
            eprintln!("{PROGRAM}: Matched {}", counted(targets.len(), "job"));
        }
        return Ok(0);
    }
    if cancel.dry_run {
        for id in &targets {
            say!("would cancel {}", ids::show(*id));
        }
        return Ok(0);
    }
    let errors = raise_all(&broker, &targets, cancel.message.as_deref().unwrap_or_default()).await;
    if many && !cancel.quiet {
        eprintln!("{PROGRAM}: Canceled {} ({errors} errors)", counted(targets.len() - errors, "job"));
    }
    Ok(Code::from(errors > 0))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

async fn matching(broker: &Broker, cancel: &Cancel) -> Result<Vec<JobId>, Fail> {
    let error = |text: String| Fail::error(PROGRAM, text);
    let (states, _) = jobs::phases(cancel.states.as_deref().unwrap_or("active")).map_err(error)?;
    let states = states.into_iter().filter(|state| *state != JobState::Inactive).collect();
    let userid = match cancel.user.as_deref() {
        Some("all") => None,
        Some(user) => Some(jobs::userid(user).map_err(error)?),
        None => Some(nix::unistd::getuid().as_raw()),
    };
    let rows = jobs::list(broker, Filter { states, userid, ..Filter::default() }).await;
    Ok(rows.map_err(|failure| error(failure.text))?.into_iter().map(|row| row.id).collect())
}

/// Cancels each; says which cannot be, and tells how many.
async fn raise_all(broker: &Broker, targets: &[JobId], note: &str) -> usize {
    let mut errors = 0;
    for &id in targets {
        let request = Request::Raise { id, kind: "cancel".into(), severity: 0, note: note.to_owned() };
        if let Err(failure) = broker.ask(&request).await {
            eprintln!("{}", Fail::error(PROGRAM, format!("{}: {failure}", ids::show(id))));
            errors += 1;
        }
    }
    errors
}
