//! Python clients, in the virtual environment that scripts/setup-test-deps.sh makes.

use std::path::PathBuf;
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
