//! The one binary: command line, daemon assembly, and the names it answers to.
//!
//! Start reading at [`commands::run`] for what a person types, at [`node::run`] for what serves, and at [`wiring`] for how one service reaches another.

mod api;
mod cli;
mod commands;
mod flux;
mod fs;
mod lfs;
mod node;
mod paths;
mod pools;
mod settings;
mod supervisor;
mod table;
mod wiring;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, CommandFactory as _, FromArgMatches as _};

use crate::cli::Cli;

/// A program: what it does with its words, its own name not among them.
type Program = fn(Vec<OsString>) -> ExitCode;

/// Names that this file answers to, beside `kiln`.
const PROGRAMS: [(&str, Program); 2] = [("flux", flux::main), ("lfs", lfs::main)];

fn main() -> ExitCode {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let name = arguments.first().map(Path::new).and_then(Path::file_name).map(std::ffi::OsStr::to_owned);
    if let Some(program) = name.as_ref().and_then(|name| PROGRAMS.iter().find(|(known, _)| name == known)) {
        arguments.remove(0);
        return program.1(arguments);
    }
    let matches = command_line().get_matches_from(arguments);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    match setting_flags(&cli, &matches).and_then(|flags| commands::run(cli, flags)) {
        Ok(code) => code,
        Err(error) => commands::report(&error),
    }
}

/// The derived command line, and for `up` one flag for each key of kiln.toml.
fn command_line() -> clap::Command {
    let flags = kiln_config::sections().iter().flat_map(|s| s.settings).map(|setting| {
        Arg::new(setting.key())
            .long(setting.flag())
            .value_name("VALUE")
            .help(setting.doc.trim())
            .help_heading("Settings (kiln.toml)")
    });
    Cli::command().mut_subcommand("up", |up| up.args(flags))
}

/// Keys and values that were given to `up`, by flag or by `--set`.
fn setting_flags(cli: &Cli, matches: &clap::ArgMatches) -> anyhow::Result<settings::Flags> {
    let cli::Command::Up(up) = &cli.command else { return Ok(Vec::new()) };
    let (_, matches) = matches.subcommand().expect("`up` was parsed");
    let mut flags = Vec::new();
    for setting in kiln_config::sections().iter().flat_map(|s| s.settings) {
        if let Some(value) = matches.get_one::<String>(&setting.key()) {
            flags.push((setting.key(), value.clone()));
        }
    }
    for pair in &up.set {
        let (key, value) = pair.split_once('=').ok_or_else(|| {
            commands::Usage(format!(
                "--set {pair}: write it as KEY=VALUE, as in --set amqp.listen=127.0.0.1:5673"
            ))
        })?;
        flags.push((key.trim().to_owned(), value.trim().to_owned()));
    }
    Ok(flags)
}

/// Starts diagnostics on standard error, as the settings say.
fn log_to_stderr(config: &kiln_config::Config) {
    let format = match config.diagnostics.format {
        kiln_config::LogFormat::Human => kiln_telemetry::diagnostics::Format::Human,
        kiln_config::LogFormat::Json => kiln_telemetry::diagnostics::Format::Json,
    };
    let output = kiln_telemetry::diagnostics::Output::Stderr;
    if let Err(error) = kiln_telemetry::diagnostics::init(format, &config.diagnostics.level, &output) {
        eprintln!("kiln: {error}");
    }
}
