//! Relative links between pages lead somewhere.

use super::{Finding, Tree, tree::numbered};

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.ending(".md").flat_map(|(path, text)| in_page(tree, path, text)).collect()
}

fn in_page(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut in_code = false;
    for (number, line) in numbered(text) {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for target in targets(line).filter(|target| is_relative(target)) {
            let file = target.split('#').next().unwrap_or_default();
            if !file.is_empty() && !tree.has(&resolve(path, file)) {
                findings.push(Finding::error(
                    path,
                    number,
                    format!("a link to {target}, which is not there"),
                    "mend or remove it",
                ));
            }
        }
    }
    findings
}

/// The targets of `[text](target)`.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split(' ').next().unwrap_or(target))
}

fn is_relative(target: &str) -> bool {
    !target.contains("://") && !target.starts_with("mailto:") && !target.starts_with('<')
}

/// `target` as the page at `page` means it, from the root.
fn resolve(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_links_are_found_with_their_line() {
        let page = "[a](b.md) and\n[c](../x/y.md#part) [d](gone.md)\n```\n[e](gone.md)\n```\n[f](https://example.org) [g](#here) [h](sub/)\n";
        let tree = Tree::of(&[("docs/a.md", page), ("docs/b.md", ""), ("x/y.md", ""), ("docs/sub/z.md", "")]);
        let found: Vec<_> = check(&tree).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["docs/a.md:2: error: a link to gone.md, which is not there; mend or remove it"]);
    }
}
