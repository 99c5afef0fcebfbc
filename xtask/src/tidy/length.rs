//! A file tells one story.

use super::{Finding, Tree};

/// From here on, look for the second noun.
const LINES_LOOK: usize = 800;
/// Nobody reads this.
const LINES_MAX: usize = 1200;
const GENERATED: &str = "@generated";

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.ending(".rs")
        .filter(|(_, text)| !text.lines().take(3).any(|line| line.contains(GENERATED)))
        .filter_map(of_file)
        .collect()
}

fn of_file((path, text): (&str, &str)) -> Option<Finding> {
    let lines = text.lines().count();
    let what = format!("{lines} lines");
    if lines > LINES_MAX {
        return Some(Finding::error(path, 0, what, "split it by its nouns; files end at 1,200 lines"));
    }
    (lines > LINES_LOOK).then(|| Finding::warning(path, 0, what, "is there a second noun in it?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_told() {
        let weight = |lines: usize| {
            check(&Tree::of(&[("a.rs", &"x\n".repeat(lines))])).pop().map(|finding| finding.weight)
        };
        assert_eq!(weight(800), None);
        assert_eq!(weight(801), Some(super::super::Weight::Warning));
        assert_eq!(weight(1201), Some(super::super::Weight::Error));
        assert_eq!(check(&Tree::of(&[("a.rs", &format!("// @generated\n{}", "x\n".repeat(2000)))])), vec![]);
    }
}
