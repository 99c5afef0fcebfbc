//! `flux run`, `flux submit` and `flux bulksubmit`.

use super::{
    attach::{self, Stdin, View},
    bulk,
    connect::{Broker, unexpected},
    fail::{Code, Fail},
    ids,
    options::{Common, Tasks},
    request,
    terminal::say,
};
use clap::Parser;
use kiln_jobs::{
    proto::{Failure, FailureKind, Reply, Request, Submit},
    spec::json::spaced,
};
use kiln_types::{IdSet, JobId};
use std::{
    fs::File,
    io::{self, IsTerminal, Write},
    sync::Arc,
};
use tokio::{sync::Semaphore, task::JoinSet};

/// How many jobs are followed at the same time by one command.
const FOLLOWED_MAX: usize = 64;

/// Runs a job and shows its output.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "flux-run",
    about = "run a Flux job interactively",
    no_binary_name = true,
    args_override_self = true
)]
pub(super) struct Run {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    tasks: Tasks,
    /// Show the job's id, with -vv its events, with -vvv also those of its execution
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Send standard input to these tasks only
    #[arg(long, value_name = "RANKS")]
    stdin_ranks: Option<String>,
    /// Follow the job's events up to this one only; before finish, the exit code is 1
    #[arg(long, value_name = "NAME")]
    wait_event: Option<String>,
    /// Command and arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Submits jobs and prints their ids.
#[derive(Debug, Clone, Parser)]
#[command(name = "flux-submit", about = "enqueue a job", no_binary_name = true, args_override_self = true)]
pub(super) struct SubmitJobs {
    #[command(flatten)]
    pub(super) common: Common,
    #[command(flatten)]
    pub(super) tasks: Tasks,
    #[command(flatten)]
    pub(super) following: Following,
    /// Command and arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

/// What to do about jobs after their submission.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct Following {
    /// One job for each number; {cc} in the command and `FLUX_JOB_CC` tell them apart
    #[arg(long, value_name = "IDSET", conflicts_with = "bcc")]
    pub(super) cc: Option<String>,
    /// As --cc, without filling in {cc}
    #[arg(long, value_name = "IDSET")]
    pub(super) bcc: Option<String>,
    /// Wait for the jobs, and exit with the highest exit code
    #[arg(long)]
    pub(super) wait: bool,
    /// Wait for the jobs and show their output
    #[arg(long)]
    pub(super) watch: bool,
    /// Print no ids
    #[arg(long)]
    pub(super) quiet: bool,
    /// With --wait or --watch on a terminal, show how many jobs have ended
    #[arg(long)]
    pub(super) progress: bool,
    /// Write the jobs' ids to a file
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(super) log: Option<String>,
    /// Write what goes wrong to a file
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub(super) log_stderr: Option<String>,
}

/// `flux run`.
pub(super) async fn run(run: Run) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-run";
    let jobspec =
        request::jobspec(PROGRAM, &request::of_tasks(PROGRAM, &run.common, &run.tasks, &run.command)?)?;
    if run.common.dry_run {
        say!("{}", spaced(&jobspec));
        return Ok(0);
    }
    let submit = request::submit(PROGRAM, &run.common, &jobspec)?;
    let stdin = stdin(PROGRAM, run.stdin_ranks.as_deref(), run.common.input.is_some())?;
    let broker = Broker::open(PROGRAM).await?;
    let id = enqueue(&broker, submit).await.map_err(|failure| Fail::error(PROGRAM, failure))?;
    if run.verbose > 0 {
        eprintln!("jobid: {}", ids::show(id));
    }
    let label = run.common.label_io;
    let (events, exec) = (run.verbose > 1, run.verbose > 2);
    let view = View { label, events, exec, stdin, wait_event: run.wait_event, ..View::default() };
    attach::attach(&broker, id, &view).await
}

fn stdin(program: &str, ranks: Option<&str>, from_file: bool) -> Result<Option<Stdin>, Fail> {
    if from_file {
        return Ok(None);
    }
    match ranks {
        None | Some("all") => Ok(Some(Stdin::All)),
        Some("none") => Ok(None),
        Some(ranks) => {
            ranks.parse().map(|tasks| Some(Stdin::Tasks(tasks))).map_err(|bad| Fail::error(program, bad))
        }
    }
}

/// Puts a job in the queue.
pub(super) async fn enqueue(broker: &Broker, submit: Submit) -> Result<JobId, Failure> {
    match broker.ask(&Request::Submit(Box::new(submit))).await? {
        Reply::Submitted { id, .. } => Ok(id),
        other => Err(unexpected(&other)),
    }
}

/// One job to be of several.
pub(super) struct Copy {
    pub(super) submit: SubmitJobs,
    pub(super) number: Option<u32>,
}

/// `flux submit`.
pub(super) async fn submit(submit: SubmitJobs) -> Result<Code, Fail> {
    const PROGRAM: &str = "flux-submit";
    let copies = copies(PROGRAM, &submit)?;
    submit_all(PROGRAM, &submit.following, submit.common.dry_run, copies).await
}

/// The jobs that `--cc` and `--bcc` make of one.
pub(super) fn copies(program: &str, submit: &SubmitJobs) -> Result<Vec<Copy>, Fail> {
    let following = &submit.following;
    let Some(numbers) = following.cc.as_ref().or(following.bcc.as_ref()) else {
        return Ok(vec![Copy { submit: submit.clone(), number: None }]);
    };
    let numbers: IdSet = numbers.parse().map_err(|bad| Fail::error(program, bad))?;
    let copy = |number: u32| {
        let mut submit = submit.clone();
        if following.cc.is_some() {
            bulk::fill_all(&mut submit, &[("cc", &number.to_string())]);
        }
        Copy { submit, number: Some(number) }
    };
    Ok(numbers.iter().map(copy).collect())
}

/// Submits the copies in order, then waits for them as asked.
pub(super) async fn submit_all(
    program: &str,
    following: &Following,
    dry_run: bool,
    copies: Vec<Copy>,
) -> Result<Code, Fail> {
    let progress = following.progress && io::stdout().is_terminal();
    if following.progress && !progress {
        eprintln!("flux: WARNING: stdout is not a tty. Ignoring --progress option");
    }
    let mut requests = Vec::with_capacity(copies.len());
    for Copy { submit, number } in copies {
        let mut new = request::of_tasks(program, &submit.common, &submit.tasks, &submit.command)?;
        new.environment.extend(number.map(|number| ("FLUX_JOB_CC".to_owned(), number.to_string())));
        let jobspec = request::jobspec(program, &new)?;
        if dry_run {
            say!("{}", spaced(&jobspec));
        } else {
            let logs = Logs::open(program, &submit.following)?;
            requests.push((
                request::submit(program, &submit.common, &jobspec)?,
                submit.common.label_io,
                logs,
            ));
        }
    }
    if dry_run {
        return Ok(0);
    }
    let broker = Broker::open(program).await?;
    let mut followed = Followed { progress, ..Followed::default() };
    for (request, label, logs) in requests {
        match enqueue(&broker, request).await {
            Ok(id) => {
                if !following.quiet {
                    logs.say(id).map_err(|error| Fail::error(program, error))?;
                }
                followed.add(&broker, id, following, label);
            }
            Err(failure) => {
                logs.complain(&refused_text(&failure)).map_err(|error| Fail::error(program, error))?;
                followed.worst = followed.worst.max(1);
            }
        }
    }
    followed.end().await
}

/// `[Errno 22] dependency: ...`, as `flux submit` shows what the broker refuses.
fn refused_text(failure: &Failure) -> String {
    let number = match failure.kind {
        FailureKind::Permission => 1,
        FailureKind::NotFound => 2,
        FailureKind::Busy => 11,
        FailureKind::Invalid | FailureKind::State => 22,
        FailureKind::Unsupported => 38,
        FailureKind::NotWaitable => 10,
        FailureKind::Internal => 5,
    };
    format!("[Errno {number}] {failure}")
}

/// Where a submission's ids and errors go; without a file, to the usual places.
struct Logs {
    out: Option<File>,
    err: Option<File>,
}

impl Logs {
    fn open(program: &str, following: &Following) -> Result<Self, Fail> {
        let open = |path: &Option<String>| {
            let path = path.as_ref().map(|path| {
                File::options().create(true).append(true).open(path).map_err(|error| (path, error))
            });
            path.transpose().map_err(|(path, error)| Fail::error(program, format!("{path}: {error}")))
        };
        Ok(Self { out: open(&following.log)?, err: open(&following.log_stderr)? })
    }

    fn say(&self, id: JobId) -> io::Result<()> {
        if let Some(mut file) = self.out.as_ref() {
            return writeln!(file, "{}", ids::show(id));
        }
        say!("{}", ids::show(id));
        Ok(())
    }

    fn complain(&self, text: &str) -> io::Result<()> {
        match self.err.as_ref() {
            Some(mut file) => writeln!(file, "{text}"),
            None => writeln!(io::stderr(), "{text}"),
        }
    }
}

/// Submitted jobs that are waited for.
struct Followed {
    /// Whether to show how many ended.
    progress: bool,
    jobs: JoinSet<Result<Code, Fail>>,
    room: Arc<Semaphore>,
    worst: Code,
}

impl Default for Followed {
    fn default() -> Self {
        Self { progress: false, jobs: JoinSet::new(), room: Arc::new(Semaphore::new(FOLLOWED_MAX)), worst: 0 }
    }
}

impl Followed {
    fn add(&mut self, broker: &Broker, id: JobId, following: &Following, label: bool) {
        let (wait, watch) = (following.wait, following.watch);
        let (broker, room) = (broker.clone(), Arc::clone(&self.room));
        if wait || watch {
            self.jobs.spawn(async move {
                let _room = room.acquire_owned().await;
                if watch {
                    return attach::attach(&broker, id, &View { label, ..View::default() }).await;
                }
                attach::wait(&broker, id)
                    .await
                    .map(|(code, _)| code)
                    .map_err(|failure| Fail::bare(failure.text))
            });
        }
    }

    async fn end(mut self) -> Result<Code, Fail> {
        let (total, mut failed) = (self.jobs.len(), 0);
        while let Some(ended) = self.jobs.join_next().await {
            let code = match ended {
                Ok(Ok(code)) => code,
                Ok(Err(fail)) => {
                    eprintln!("{fail}");
                    fail.code()
                }
                Err(_) => 1,
            };
            self.worst = self.worst.max(code);
            failed += usize::from(code != 0);
            if self.progress {
                let line_end = if self.jobs.is_empty() { "\n" } else { "" };
                eprint!("\r{} of {total} jobs ended, {failed} failed{line_end}", total - self.jobs.len());
            }
        }
        Ok(self.worst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> SubmitJobs {
        SubmitJobs::try_parse_from(words).unwrap()
    }

    #[test]
    fn everything_after_the_command_belongs_to_it() {
        let run =
            Run::try_parse_from(["-n4", "-N2", "-vvv", "-t", "1h", "sh", "-c", "exit 3", "-n", "--help"])
                .unwrap();
        assert_eq!((run.tasks.ntasks, run.tasks.nodes, run.verbose), (Some(4), Some(2), 3));
        assert_eq!(run.command, ["sh", "-c", "exit 3", "-n", "--help"]);
    }

    #[test]
    fn the_last_of_an_option_counts() {
        assert_eq!(parse(&["-n1", "-n2", "true"]).tasks.ntasks, Some(2));
    }

    #[test]
    fn copies_are_numbered() {
        let copies =
            copies("flux-submit", &parse(&["--cc=1-3", "--output=o.{cc}", "echo", "{cc}"])).ok().unwrap();
        let seen: Vec<_> = copies.iter().map(|copy| (copy.number, copy.submit.command[1].as_str())).collect();
        assert_eq!(seen, [(Some(1), "1"), (Some(2), "2"), (Some(3), "3")]);
        assert_eq!(copies[2].submit.common.output.as_deref(), Some("o.3"));
    }

    #[test]
    fn refusals_carry_the_errno() {
        let failure =
            Failure::new(FailureKind::Invalid, "dependency: afterok: job ƒjgPdqno failed or was canceled");
        assert_eq!(
            refused_text(&failure),
            "[Errno 22] dependency: afterok: job ƒjgPdqno failed or was canceled"
        );
    }
}
