//! Python clients, in the virtual environment that scripts/setup-test-deps.sh makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

/// The interpreter that has the clients.
pub fn interpreter() -> PathBuf {
    let venv = std::env::var_os("KILN_TEST_VENV").map_or_else(|| root().join("target/venv"), PathBuf::from);
    let python = venv.join("bin/python");
    assert!(python.exists(), "{} is not there; run: make test-deps", python.display());
    python
}

/// A command that runs `tests/python/SCRIPT`.
pub fn script(script: &str) -> Command {
    let mut command = Command::new(interpreter());
    command
        .arg(root().join("tests/python").join(script))
        .env("PYTHONUNBUFFERED", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// The scripts of `tests/python/FOLDER`, in order. Those whose name begins with `_` are modules of the others.
pub fn scripts(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(root().join("tests/python").join(folder)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut scripts: Vec<_> = names
        .filter(|name| {
            Path::new(name).extension().is_some_and(|extension| extension == "py") && !name.starts_with('_')
        })
        .map(|name| format!("{folder}/{name}"))
        .collect();
    scripts.sort_unstable();
    scripts
}
