//! The verbs of the command line: arguments in, an exit code out.

mod amqp;
mod config;
mod demo;
mod flow;
mod fs;
mod group;
mod pool;
mod status;
mod tasks;
mod topic;
mod up;

use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::api::client::{NotReady, NotRunning};
use crate::cli::{Cli, Command};
use crate::paths;

/// What the shell is told; docs/exit-codes.md lists these.
pub(crate) mod exit {
    /// Something failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line or the settings are wrong.
    pub(crate) const USAGE: u8 = 2;
    /// No instance runs there.
    pub(crate) const NOT_RUNNING: u8 = 3;
    /// It is there and not ready.
    pub(crate) const NOT_READY: u8 = 4;
}

/// The command line or the settings are wrong, and nothing was done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub String);

/// Asks for the name of what is about to be lost; whether it was given.
fn confirmed(does: &str, name: &str, what: &str) -> anyhow::Result<bool> {
    eprint!("This {does} {what}. Type its name to go on: ");
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("failed to read standard input")?;
    Ok(line.trim() == name)
}

/// Prints a line on standard output. Unlike `println!` it does not panic when nobody reads.
pub(crate) fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")
}

/// Whether standard output is a pipe that nobody reads any more: a command that waits for news would otherwise learn it from the next news only.
pub(crate) fn nobody_reads() -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let stdout = std::io::stdout();
    let mut asked = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    // POLLERR is what the writing end of a pipe without readers gives.
    poll(&mut asked, PollTimeout::ZERO).is_ok()
        && asked[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLERR))
}

/// Runs one command.
pub(crate) fn run(cli: Cli, flags: crate::settings::Flags) -> anyhow::Result<ExitCode> {
    let data = paths::resolve(cli.data.as_deref())?;
    match cli.command {
        Command::Up(arguments) => up::up(&data, &arguments, flags),
        Command::Down { timeout } => up::down(&data, std::time::Duration::from_secs(timeout)),
        Command::Node { rank } => crate::node::run(&data, rank),
        Command::Flux { arguments } => program("flux", crate::flux::main, cli.data.as_deref(), arguments),
        Command::Lfs { arguments } => program("lfs", crate::lfs::main, cli.data.as_deref(), arguments),
        Command::Fs(crate::cli::Fs::Mount(arguments)) => fs::mount(&data, &arguments),
        Command::Fs(crate::cli::Fs::Umount { dir, lazy }) => fs::umount(&data, &dir, lazy),
        Command::Config(verb) => config::run(&data, verb),
        Command::Flow(crate::cli::Flow::Test { rule, file, config, json, samples }) => {
            flow::test(&data, &rule, &file, config.as_deref(), json, samples)
        }
        asking => block_on(async move {
            match asking {
                Command::Status { json } => status::run(&data, json).await,
                Command::Demo(arguments) => demo::run(&arguments).await,
                Command::Topic(verb) => topic::run(&data, verb).await,
                Command::Group(verb) => group::run(&data, verb).await,
                Command::Amqp(verb) => amqp::run(&data, verb).await,
                Command::Flow(verb) => flow::run(&data, verb).await,
                Command::Fs(verb) => fs::run(&data, verb).await,
                Command::Pool(verb) => pool::run(&data, verb).await,
                Command::Tasks(arguments) => tasks::run(&data, &arguments).await,
                _ => unreachable!("handled above"),
            }
        }),
    }
}

/// `kiln flux ...` and `kiln lfs ...`. A `--data` before it goes before `FLUX_URI` and `KILN_DATA`, which these read by themselves.
fn program(
    name: &str,
    main: fn(Vec<OsString>) -> ExitCode,
    data: Option<&Path>,
    arguments: Vec<OsString>,
) -> anyhow::Result<ExitCode> {
    match data.filter(|dir| std::env::var_os("KILN_DATA").is_none_or(|inherited| inherited != *dir)) {
        None => Ok(main(arguments)),
        Some(dir) => {
            let mut command = std::process::Command::new("/proc/self/exe");
            command.arg0(name).args(arguments).env("KILN_DATA", dir).env_remove("FLUX_URI");
            Err(command.exec()).with_context(|| format!("failed to become {name}"))
        }
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Turns an error into a line on standard error and an exit code. A reader that has gone away is no error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|e| e.kind() == std::io::ErrorKind::BrokenPipe);
    if broken_pipe {
        return ExitCode::SUCCESS;
    }
    eprintln!("kiln: {error:#}");
    ExitCode::from(if error.is::<NotRunning>() {
        exit::NOT_RUNNING
    } else if error.is::<NotReady>() {
        exit::NOT_READY
    } else if error.is::<Usage>()
        || error.is::<kiln_config::Problems>()
        || error.is::<crate::wiring::flows::BadChain>()
    {
        exit::USAGE
    } else {
        exit::FAILED
    })
}
