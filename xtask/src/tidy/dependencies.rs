//! Each dependency has its reason written down.

use std::collections::BTreeSet;

use super::{Finding, Tree, tree::numbered};

const PAGE: &str = "docs/decisions/0002-dependencies.md";
const MANIFEST: &str = "Cargo.toml";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let explained = explained(tree.get(PAGE).unwrap_or_default());
    let declared = declared(tree.get(MANIFEST).unwrap_or_default());
    let without_reason = declared.iter().filter(|(name, _)| !explained.contains(name)).map(|(name, line)| {
        Finding::error(
            MANIFEST,
            *line,
            format!("{name} has no reason"),
            "add its line to docs/decisions/0002-dependencies.md",
        )
    });
    let used: BTreeSet<_> = declared.iter().map(|(name, _)| *name).collect();
    let without_use = explained
        .iter()
        .filter(|name| !used.contains(*name))
        .map(|name| Finding::error(PAGE, 0, format!("{name} is explained and not used"), "remove its line"));
    without_reason.chain(without_use).collect()
}

/// Names in the first column of the page's table; a row may explain several.
fn explained(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| ")).filter_map(|line| line.split('|').nth(1));
    rows.flat_map(|names| names.split(',').map(str::trim)).filter(|name| *name != "crate").collect()
}

/// Dependencies of the workspace that are not its own crates, with their lines.
fn declared(manifest: &str) -> Vec<(&str, usize)> {
    let from = numbered(manifest).skip_while(|(_, line)| line.trim() != "[workspace.dependencies]").skip(1);
    from.take_while(|(_, line)| !line.starts_with('['))
        .filter_map(|(number, line)| line.split_once('=').map(|(name, rest)| (name.trim(), rest, number)))
        .filter(|(name, rest, _)| !name.starts_with('#') && !rest.contains("path ="))
        .map(|(name, _, number)| (name, number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_agree() {
        let manifest = "[workspace.dependencies]\nours = { path = \"x\" }\na = \"1\"\nb = \"1\"\n\n[profile.dev]\nc = 1\n";
        let page = "| crate | why |\n|---|---|\n| a, d | because |\n";
        let tree = Tree::of(&[(MANIFEST, manifest), (PAGE, page)]);
        let told: Vec<_> = check(&tree).iter().map(|finding| (finding.what.clone(), finding.line)).collect();
        assert_eq!(told, [("b has no reason".to_owned(), 4), ("d is explained and not used".to_owned(), 0)]);
    }
}
