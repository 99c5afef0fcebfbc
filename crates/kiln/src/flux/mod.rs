//! The `flux` command line.
//!
//! - `options`, `request`, `environment`, `requires`: from words to a jobspec.
//! - `run`, `bulk`, `batch`: commands that submit; `attach`, `output`: following a job to its end.
//! - `jobs`, `fields`, `format`: lists; `job`, `events`, `cancel`: one job; `resource`, `misc`: the instance.
//! - `broker`: the instance inside a batch job.
//!
//! What is printed, and where, follows flux-core 0.88 to the byte where programs or people may rely on it. Where Flux
//! leaves its users alone with an error, a hint is added.

mod attach;
mod batch;
mod broker;
mod bulk;
mod cancel;
mod connect;
mod environment;
mod events;
mod fail;
mod fields;
mod format;
mod ids;
mod job;
mod jobs;
mod misc;
mod options;
mod output;
mod request;
mod requires;
mod resource;
mod run;
mod signals;
mod terminal;

use clap::{CommandFactory, FromArgMatches, Parser, error::ErrorKind};
use fail::{Code, Fail};
use std::{ffi::OsString, process::ExitCode};

const HELP: &str = "\
Usage: flux [OPTIONS] COMMAND ARGS
  -h, --help             Display this message.
  -V, --version          Display command and component versions

run and submit jobs, allocate resources
   submit             submit a job to a Flux instance
   run                run a Flux job interactively
   bulksubmit         submit jobs in bulk to a Flux instance
   alloc              run a command in a new Flux instance
   batch              submit a batch script to Flux

list and interact with jobs
   jobs               list jobs submitted to Flux
   cancel             cancel one or more jobs
   pgrep              search matching jobs
   job                get job status, info, etc (see: flux job --help)

get resource, queue and other instance information
   resource           list/manipulate Flux resource status
   queue              show, start and stop scheduling
   uptime             Tell how long Flux has been up and running

other useful commands
   version            Display flux version information
   getattr            Show a broker attribute (lsattr lists them)

See 'flux COMMAND --help' for more information about a specific command.
Without FLUX_URI, the instance that `kiln up` started is used.
";

/// Runs `flux` with these words, which do not include its own name.
pub(crate) fn main(arguments: Vec<OsString>) -> ExitCode {
    let words: Option<Vec<String>> = arguments.into_iter().map(|word| word.into_string().ok()).collect();
    let Some(words) = words else {
        eprintln!("flux: arguments must be UTF-8");
        return ExitCode::from(1);
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flux: {error}");
            return ExitCode::from(1);
        }
    };
    let code = match runtime.block_on(command(words)) {
        Ok(code) => code,
        Err(fail) => {
            eprintln!("{fail}");
            fail.code()
        }
    };
    // A thread may still wait for standard input; it ends with the process.
    runtime.shutdown_background();
    ExitCode::from(code)
}

async fn command(mut words: Vec<String>) -> Result<Code, Fail> {
    // The older spelling: `flux mini run` is `flux run`.
    if words.first().is_some_and(|word| word == "mini") && words.len() > 1 {
        words.remove(0);
    }
    let Some(name) = words.first().cloned() else { return Err(Fail::bare(HELP)) };
    let words = words.split_off(1);
    match name.as_str() {
        "-h" | "--help" | "help" => {
            terminal::text(HELP);
            Ok(0)
        }
        "version" | "-V" | "--version" => Ok(misc::version()),
        "run" => run::run(parse(words)?).await,
        "submit" => run::submit(parse(words)?).await,
        "bulksubmit" => bulk::bulksubmit(parse(words)?).await,
        "batch" => batch::batch(words.clone(), parse(words)?).await,
        "alloc" => batch::alloc(parse(words)?).await,
        "jobs" => jobs::jobs(parse(words)?).await,
        "pgrep" => jobs::pgrep(parse(words)?).await,
        "cancel" => cancel::cancel(parse(words)?).await,
        "job" => job::job(parse(words)?).await,
        "resource" => resource::resource(parse(words)?).await,
        "queue" => misc::queue(&words).await,
        "getattr" => misc::getattr(&words).await,
        "lsattr" => misc::lsattr(&words).await,
        "uptime" => misc::uptime().await,
        "broker" => broker::broker(&words).await,
        other => Err(not_a_command(other)),
    }
}

fn not_a_command(name: &str) -> Fail {
    Fail::bare(format!("flux: `{name}' is not a flux command.  See 'flux --help'"))
}

/// Reads a command's words; help is printed and ends the process, an error is in Flux's form with exit code 2.
fn parse<P: Parser + FromArgMatches + CommandFactory>(words: Vec<String>) -> Result<P, Fail> {
    P::try_parse_from(words).map_err(|error| {
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            error.exit();
        }
        usage_error(&mut P::command(), &error)
    })
}

/// `usage: ...` and `flux-jobs: error: unrecognized arguments: --nope`, as Python's argparse says it.
fn usage_error(command: &mut clap::Command, error: &clap::Error) -> Fail {
    use clap::error::{ContextKind, ContextValue};
    let name = command.get_name().to_owned();
    let usage = command.render_usage().to_string().replacen("Usage:", "usage:", 1);
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(" "),
        _ => String::new(),
    };
    if name == "flux-job" {
        return job_usage_error(command, error);
    }
    let argument = context(ContextKind::InvalidArg);
    let problem = match error.kind() {
        ErrorKind::UnknownArgument => format!("unrecognized arguments: {argument}"),
        ErrorKind::MissingRequiredArgument => format!("the following arguments are required: {argument}"),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            format!("argument {argument}: invalid value: '{}'", context(ContextKind::InvalidValue))
        }
        _ => {
            let text = error.render().to_string();
            text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
        }
    };
    Fail::usage(format!("{usage}\n{name}: error: {problem}"))
}

/// `flux job` is one of Flux's C tools: it shows how it is used and exits with 1.
fn job_usage_error(command: &mut clap::Command, error: &clap::Error) -> Fail {
    let text = match error.kind() {
        ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => {
            format!("Usage: flux-job [OPTIONS] COMMAND ARGS\n\n{}", command.render_help())
        }
        _ => error.render().to_string().replacen("error: ", "flux-job: ", 1),
    };
    Fail::bare(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(words: &[&str]) -> Fail {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(command(words.iter().map(|word| (*word).to_owned()).collect())).unwrap_err()
    }

    #[test]
    fn what_is_not_there_is_said_as_flux_says_it() {
        let fail = fails(&["nosuchcmd"]);
        assert_eq!(fail.to_string(), "flux: `nosuchcmd' is not a flux command.  See 'flux --help'");
        assert_eq!(fail.code(), 1);
        assert!(fails(&[]).to_string().starts_with("Usage: flux [OPTIONS] COMMAND ARGS\n"));
    }

    #[test]
    fn wrong_options_are_exit_code_2() {
        let fail = fails(&["jobs", "--list-fields"]);
        let text = fail.to_string();
        assert_eq!(fail.code(), 2);
        assert!(text.starts_with("usage: flux-jobs "), "{text}");
        assert!(text.ends_with("\nflux-jobs: error: unrecognized arguments: --list-fields"), "{text}");
        assert_eq!(fails(&["run", "-n", "x", "true"]).code(), 2);
    }

    #[test]
    fn flux_job_shows_its_usage_and_exits_with_1() {
        let fail = fails(&["job", "nosuch"]);
        assert!(fail.to_string().starts_with("Usage: flux-job [OPTIONS] COMMAND ARGS\n"), "{fail}");
        assert_eq!((fail.code(), fails(&["job"]).code(), fails(&["job", "raise"]).code()), (1, 1, 1));
    }

    #[test]
    fn the_older_spelling_is_the_same() {
        assert_eq!(fails(&["mini", "run"]), fails(&["run"]));
        assert_eq!(fails(&["run"]).to_string(), "flux-run: ERROR: job command and arguments are missing");
    }

    #[test]
    fn every_command_line_is_sound() {
        for mut command in [
            run::Run::command(),
            run::SubmitJobs::command(),
            batch::Batch::command(),
            batch::Alloc::command(),
            jobs::Jobs::command(),
            jobs::Pgrep::command(),
            cancel::Cancel::command(),
            job::Job::command(),
            resource::Resource::command(),
        ] {
            command.build();
            command.debug_assert();
        }
    }
}
