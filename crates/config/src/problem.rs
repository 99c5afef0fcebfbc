//! What is wrong with the settings, told so that a person can mend it.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// A line of the file. Line and column count from 1; the column counts characters.
    File {
        /// As it was given.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag of the command line, without the dashes.
    Flag(String),
}

impl Origin {
    /// Problems are told in the order of the file; what is not in it comes after.
    pub(crate) fn place_in_file(&self) -> (usize, usize) {
        match self {
            Self::File { line, column, .. } => (*line, *column),
            Self::Default | Self::Env(_) | Self::Flag(_) => (usize::MAX, 0),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was said.
    pub origin: Origin,
    /// The key as the file would spell it: `kafka.listen`, `flow.tasks.to`. Empty when the file as a whole cannot be read.
    pub key: String,
    /// The value that was given, as text, where one was.
    pub value: Option<String>,
    /// What is wrong with it.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        match (&self.key, &self.value) {
            (key, Some(value)) if !key.is_empty() => write!(f, "{key} = {value}: ")?,
            (key, None) if !key.is_empty() => write!(f, "{key}: ")?,
            _ => {}
        }
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

/// Every problem that was found, one per line. Never empty when it is returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
