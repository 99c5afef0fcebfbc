//! The project's rules that no compiler checks. Each rule is a function from the project's files to findings, so that its own test can show it failing.

mod dependencies;
mod layering;
mod leftovers;
mod length;
mod licences;
mod links;
mod places;
mod purity;
mod settings_used;
mod tree;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use tree::Tree;

/// Something to mend, or only to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weight {
    Error,
    Warning,
}

/// One place where a rule does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    /// From 1; 0 for the file as a whole.
    line: usize,
    weight: Weight,
    what: String,
    remedy: &'static str,
}

impl Finding {
    fn error(path: &str, line: usize, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { path: path.to_owned(), line, weight: Weight::Error, what: what.into(), remedy }
    }

    fn warning(path: &str, line: usize, what: impl Into<String>, remedy: &'static str) -> Self {
        Self { weight: Weight::Warning, ..Self::error(path, line, what, remedy) }
    }

    /// Whether the project must not be handed on like this.
    pub(crate) fn is_error(&self) -> bool {
        self.weight == Weight::Error
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.is_error() { "error" } else { "look" };
        write!(f, "{}:{}: {weight}: {}; {}", self.path, self.line.max(1), self.what, self.remedy)
    }
}

/// Every finding in the project below `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>> {
    let tree = Tree::of_project(root)?;
    let mut findings = licences::check(root)?;
    let rules: [fn(&Tree) -> Vec<Finding>; 8] = [
        layering::check,
        purity::check,
        leftovers::check,
        links::check,
        length::check,
        dependencies::check,
        places::check,
        settings_used::check,
    ];
    findings.extend(rules.iter().flat_map(|rule| rule(&tree)));
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_tidy() {
        let findings = check(crate::root().expect("a root")).expect("the rules run");
        let errors: Vec<_> =
            findings.iter().filter(|finding| finding.is_error()).map(ToString::to_string).collect();
        assert!(errors.is_empty(), "\n{}\nreproduce with: cargo run -p xtask -- tidy", errors.join("\n"));
    }
}
