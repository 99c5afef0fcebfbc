//! Where diagnostics go and which of them: one call at the start of a process.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal; in colour when it is one.
    Human,
    /// One JSON object per line.
    Json,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// This file, appended to.
    File(PathBuf),
}

/// Why diagnostics could not be started.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is none.
    #[error("read the filter {filter:?}: {reason}; write a level such as info, or info,kiln_kafka=debug")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file cannot be written.
    #[error("open {}: {source}; choose a file that can be written", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was called before in this process.
    #[error("start diagnostics a second time in one process")]
    Twice,
}

/// The filter in force: `KILN_LOG`, else `RUST_LOG`, else `level`. Empty variables count as unset.
pub fn filter_text(level: &str, variable: impl Fn(&str) -> Option<String>) -> String {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    set("KILN_LOG").or_else(|| set("RUST_LOG")).unwrap_or_else(|| level.to_owned())
}

/// Starts diagnostics for this process. `level` is a level or a filter (`info,kiln_kafka=debug`); `KILN_LOG` and `RUST_LOG` go before it.
pub fn init(format: Format, level: &str, output: &Output) -> Result<(), InitError> {
    let text = filter_text(level, |name| std::env::var(name).ok());
    let filter = parse_filter(&text)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer(output)?)
        .with_ansi(*output == Output::Stderr && io::stderr().is_terminal());
    let started = match format {
        Format::Human => builder.with_target(true).try_init(),
        Format::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
    };
    started.map_err(|_| InitError::Twice)
}

fn parse_filter(text: &str) -> Result<EnvFilter, InitError> {
    text.parse().map_err(|error: tracing_subscriber::filter::ParseError| InitError::Filter {
        filter: text.to_owned(),
        reason: error.to_string(),
    })
}

fn writer(output: &Output) -> Result<BoxMakeWriter, InitError> {
    match output {
        Output::Stderr => Ok(BoxMakeWriter::new(io::stderr)),
        Output::File(path) => Ok(BoxMakeWriter::new(open(path)?)),
    }
}

/// Each line is one write to a file opened for appending, so that processes may share it.
fn open(path: &Path) -> Result<Mutex<File>, InitError> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    file.map(Mutex::new).map_err(|source| InitError::Open { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kilns_own_variable_goes_first() {
        let both = |name: &str| (name == "KILN_LOG" || name == "RUST_LOG").then(|| name.to_lowercase());
        assert_eq!(filter_text("info", both), "kiln_log");
        assert_eq!(filter_text("info", |name| (name == "RUST_LOG").then(|| "trace".to_owned())), "trace");
        assert_eq!(filter_text("info", |_| Some(String::new())), "info");
        assert_eq!(filter_text("info", |_| None), "info");
    }

    #[test]
    fn a_filter_that_is_none_is_told_with_a_right_one() {
        assert!(parse_filter("info,kiln_kafka=debug").is_ok());
        let error = parse_filter("kiln=loud").expect_err("no level").to_string();
        assert!(error.contains("kiln=loud") && error.contains("info"), "{error}");
    }

    #[test]
    fn diagnostics_go_to_the_file_as_json_and_start_once() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        init(Format::Json, "info", &Output::File(path.clone())).expect("the first time");
        tracing::info!(lines = 3, "replayed");
        let text = std::fs::read_to_string(&path).expect("the file");
        assert!(text.contains("\"lines\":3"), "{text}");
        assert!(matches!(init(Format::Human, "info", &Output::Stderr), Err(InitError::Twice)));
        let missing = Output::File(dir.path().join("no/such/dir"));
        assert!(matches!(init(Format::Human, "info", &missing), Err(InitError::Open { .. })));
    }
}
