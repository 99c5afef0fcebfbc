//! What is left lying when work stops half way.

use super::{Finding, Tree, tree::numbered};

/// Each pattern with what to do. They are put together here so that this file does not find itself.
const LEFTOVERS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "write it, or return an error that says so"),
    (concat!("unimpl", "emented!("), "write it, or return an error that says so"),
    (concat!("db", "g!("), "remove it"),
    (concat!("FIX", "ME"), "mend it, or open an issue"),
    (concat!("XX", "X"), "mend it, or open an issue"),
    (concat!("#[al", "low("), "write #[expect(lint, reason = \"...\")]"),
    (concat!("#![al", "low("), "write #![expect(lint, reason = \"...\")]"),
    (concat!("#[ig", "nore]"), "write #[ignore = \"reason\"], or run it"),
];

/// Where people write code and prose.
const ENDINGS: &[&str] = &[".rs", ".md", ".sh", ".py", ".toml", ".c", "Makefile"];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let written = tree.files().filter(|(path, _)| ENDINGS.iter().any(|ending| path.ends_with(ending)));
    written
        .flat_map(|(path, text)| numbered(text).flat_map(|(number, line)| in_line(path, number, line)))
        .collect()
}

fn in_line<'a>(path: &'a str, number: usize, line: &'a str) -> impl Iterator<Item = Finding> + 'a {
    let found = LEFTOVERS.iter().filter(move |(pattern, _)| is_word(line, pattern));
    found.map(move |(pattern, remedy)| Finding::error(path, number, format!("a leftover: {pattern}"), remedy))
}

/// Whether `pattern` is there and not the tail or head of a longer word (mktemp's template of many X is none).
fn is_word(line: &str, pattern: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(pattern).any(|(at, _)| {
        let opens = pattern.ends_with(['(', ']']);
        !line[..at].ends_with(is_part) && (opens || !line[at + pattern.len()..].starts_with(is_part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_leftover_is_found() {
        for (pattern, _) in LEFTOVERS {
            let found = check(&Tree::of(&[("crates/x/src/a.rs", &format!("ok\n  {pattern}\n"))]));
            assert_eq!(found.len(), 1, "{pattern}");
            assert_eq!(found[0].line, 2);
        }
    }

    #[test]
    fn a_template_for_mktemp_is_none() {
        let text = format!("mktemp -d /tmp/kiln.{}\n", "X".repeat(6));
        assert_eq!(check(&Tree::of(&[("scripts/a.sh", &text)])), vec![]);
    }
}
