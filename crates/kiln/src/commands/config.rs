//! `kiln config`: check a file, show what is in force, print the commented default.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::{exit, say};
use crate::cli::Config;
use crate::paths::DataDir;
use crate::settings;

pub(super) fn run(data: &DataDir, verb: Config) -> anyhow::Result<ExitCode> {
    match verb {
        Config::Check { file } => check(data, file.as_deref()),
        Config::Show { config } => show(data, config.as_deref()),
        Config::Default => {
            std::io::stdout().write_all(kiln_config::shipped().as_bytes())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn check(data: &DataDir, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let Some(file) = settings::file(data, file)? else {
        let usual = data.root().join("kiln.toml");
        say(&format!("there is no {}; every setting has its default", usual.display()))?;
        return Ok(ExitCode::SUCCESS);
    };
    let checked = kiln_config::parse(&file.path, &file.text)
        .map_err(anyhow::Error::from)
        .and_then(|loaded| crate::wiring::flows::check(&loaded.config).map(|()| loaded));
    match checked {
        Ok(loaded) => {
            let config = &loaded.config;
            let (path, flows, tasks) = (file.path.display(), config.flow.len(), config.task.len());
            say(&format!("{path}: good; {flows} flows, {tasks} tasks"))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            eprintln!("{problems}");
            Ok(ExitCode::from(exit::USAGE))
        }
    }
}

fn show(data: &DataDir, file: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (loaded, _) = settings::load(data, file, Vec::new())?;
    let rows: Vec<Vec<String>> =
        loaded.effective().into_iter().map(|e| vec![e.key, e.value, e.origin.to_string()]).collect();
    crate::table::write(&mut std::io::stdout().lock(), &["KEY", "VALUE", "FROM"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
