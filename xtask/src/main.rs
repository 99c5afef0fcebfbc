//! Helpers of the project: `cargo run -p xtask -- tidy` and `... -- settings`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};

mod settings;
mod tidy;

const USAGE: &str = "\
usage: cargo run -p xtask -- COMMAND
  tidy      layering, licences, leftovers, links: each finding with its line and what to do
  settings  write kiln.toml and docs/configuration.md from the table of settings";

fn main() -> Result<ExitCode> {
    let command = std::env::args().nth(1);
    match command.as_deref() {
        Some("tidy") => tidy_up(),
        Some("settings") => settings::write(root()?).map(|()| ExitCode::SUCCESS),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn tidy_up() -> Result<ExitCode> {
    let findings = tidy::check(root()?)?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    eprintln!("{errors} to mend, {} to look at", findings.len() - errors);
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The project's root: this package lies one level below it.
fn root() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the project's root")
}
