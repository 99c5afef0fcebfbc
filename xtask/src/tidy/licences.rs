//! Each package that is linked in has a licence that lets people take Kiln anywhere.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Finding;

/// Licences without conditions on what they are linked with.
const ALLOWED: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "Unlicense",
    "Zlib",
    "Unicode-3.0",
    "CC0-1.0",
    "BSL-1.0",
    "0BSD",
];
const LOCK: &str = "Cargo.lock";

/// Asks cargo, which asks nobody: `--offline`.
pub(super) fn check(root: &Path) -> Result<Vec<Finding>> {
    let metadata = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--offline", "--locked", "--format-version", "1", "--filter-platform", HOST])
        .current_dir(root)
        .output()
        .context("failed to run cargo metadata")?;
    ensure!(
        metadata.status.success(),
        "cargo metadata failed: {}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let metadata: Value =
        serde_json::from_slice(&metadata.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata printed no packages")?;
    Ok(packages.iter().filter_map(of_package).collect())
}

/// Only what is built here has been fetched.
const HOST: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

fn of_package(package: &Value) -> Option<Finding> {
    let licence = package["license"].as_str().unwrap_or("none");
    if is_allowed(licence) {
        return None;
    }
    let what = format!("{} {} is licensed {licence}", package["name"], package["version"]);
    Some(Finding::error(
        LOCK,
        0,
        what,
        "use another crate, or argue for the licence in docs/decisions/0002-dependencies.md",
    ))
}

/// Whether an SPDX expression can be met by allowed licences alone. `/` is an old way to write OR.
fn is_allowed(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().peekable();
    either(&mut tokens) && tokens.next().is_none()
}

type Tokens<'a, 'i> = &'a mut std::iter::Peekable<std::str::SplitWhitespace<'i>>;

/// `a OR b`: all of it is read, one is enough.
fn either(tokens: Tokens<'_, '_>) -> bool {
    let mut met = both(tokens);
    while tokens.next_if_eq(&"OR").is_some() {
        met |= both(tokens);
    }
    met
}

/// `a AND b`
fn both(tokens: Tokens<'_, '_>) -> bool {
    let mut met = one(tokens);
    while tokens.next_if_eq(&"AND").is_some() {
        met &= one(tokens);
    }
    met
}

/// A licence, with an exception perhaps (which only ever allows more), or an expression in parentheses.
fn one(tokens: Tokens<'_, '_>) -> bool {
    let Some(token) = tokens.next() else { return false };
    if token == "(" {
        return either(tokens) && tokens.next() == Some(")");
    }
    if tokens.next_if_eq(&"WITH").is_some() {
        tokens.next();
    }
    ALLOWED.contains(&token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        for allowed in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "Apache-2.0 WITH LLVM-exception",
        ] {
            assert!(is_allowed(allowed), "{allowed}");
        }
        for refused in
            ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND AGPL-3.0", "", "none", "(MIT", "MIT MIT"]
        {
            assert!(!is_allowed(refused), "{refused}");
        }
    }
}
