//! Writes the files that come from the table of settings: the shipped kiln.toml and the tables of docs/configuration.md.

use std::path::Path;

use anyhow::{Context, Result};

const PAGE: &str = "docs/configuration.md";
const SHIPPED: &str = "crates/config/kiln.toml";
const START: &str = "<!-- settings: written by `make settings` -->\n";
const END: &str = "<!-- end of settings -->";

/// Writes both files below `root`.
pub(crate) fn write(root: &Path) -> Result<()> {
    std::fs::write(root.join(SHIPPED), kiln_config::commented()).context(SHIPPED)?;
    let page = std::fs::read_to_string(root.join(PAGE)).context(PAGE)?;
    let (head, rest) = page.split_once(START).with_context(|| format!("{PAGE} has no line {START}"))?;
    let (_, tail) = rest.split_once(END).with_context(|| format!("{PAGE} has no line {END}"))?;
    let page = format!("{head}{START}\n{}\n{END}{tail}", kiln_config::reference());
    std::fs::write(root.join(PAGE), page).context(PAGE)
}
