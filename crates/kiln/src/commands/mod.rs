//! The verbs of the command line: arguments in, an exit code out.

mod amqp;
mod config;
mod demo;
mod flow;
mod group;
mod status;
mod tasks;
mod topic;
mod up;

use std::process::ExitCode;

use crate::api::client::NotRunning;
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

/// Runs one command.
pub(crate) fn run(cli: Cli, flags: crate::settings::Flags) -> anyhow::Result<ExitCode> {
    let data = paths::resolve(cli.data.as_deref())?;
    match cli.command {
        Command::Up(arguments) => up::up(&data, &arguments, flags),
        Command::Down { timeout } => up::down(&data, std::time::Duration::from_secs(timeout)),
        Command::Node { rank } => crate::node::run(&data, rank),
        Command::Flux { arguments } => Ok(crate::flux::main(arguments)),
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
                Command::Tasks(arguments) => tasks::run(&data, &arguments).await,
                _ => unreachable!("handled above"),
            }
        }),
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
    if error.is::<NotRunning>() {
        ExitCode::from(exit::NOT_RUNNING)
    } else if error.is::<kiln_config::Problems>() || error.is::<crate::wiring::flows::BadChain>() {
        ExitCode::from(exit::USAGE)
    } else {
        ExitCode::from(exit::FAILED)
    }
}
