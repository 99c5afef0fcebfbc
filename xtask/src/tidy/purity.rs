//! Folders named wire and core compute and nothing else: bytes, time and chance are arguments.

use super::{Finding, Tree, tree::code_of, tree::numbered};

/// What pure code does not name, with how to do without.
const FORBIDDEN: &[(&str, &str)] = &[
    ("tokio", "return what is to be done, and let server/ await it"),
    ("std::fs", "take bytes, or go through kiln_world::Disk outside of core"),
    ("std::net", "take bytes, or text for an address"),
    ("SystemTime", "take `now` as an argument"),
    ("Instant::now", "take `now` as an argument"),
    ("RealClock", "take `now` as an argument"),
    ("rand::", "take random bytes as an argument"),
    ("getrandom", "take random bytes as an argument"),
    ("std::thread", "leave threads to server/"),
];

pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let pure = tree.ending(".rs").filter(|(path, _)| is_pure(path));
    pure.flat_map(|(path, text)| numbered(text).flat_map(|(number, line)| in_line(path, number, line)))
        .collect()
}

/// Whether a path leads through a folder (or to the file of a module) named wire or core, inside of a crate.
fn is_pure(path: &str) -> bool {
    let inside =
        path.strip_prefix("crates/").and_then(|rest| rest.split_once("/src/")).map(|(_, inside)| inside);
    inside.is_some_and(|inside| {
        inside.split('/').any(|part| matches!(part, "wire" | "core" | "wire.rs" | "core.rs"))
    })
}

fn in_line<'a>(path: &'a str, number: usize, line: &'a str) -> impl Iterator<Item = Finding> + 'a {
    let code = code_of(line);
    let named = FORBIDDEN.iter().filter(move |(word, _)| names(code, word));
    named.map(move |(word, remedy)| Finding::error(path, number, format!("pure code names {word}"), remedy))
}

/// Whether `code` has `word` as a whole path: `operand::x` does not name `rand::`, and `use std::{fs, net}` names both.
fn names(code: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let starts = code.match_indices(word).map(|(at, _)| at);
    let whole = starts.into_iter().any(|at| {
        !code[..at].ends_with(is_part)
            && (word.ends_with(':') || !code[at + word.len()..].starts_with(is_part))
    });
    whole || word.strip_prefix("std::").is_some_and(|module| in_braces(code, module))
}

fn in_braces(code: &str, module: &str) -> bool {
    let list = code.split_once("std::{").map(|(_, rest)| rest.split('}').next().unwrap_or(rest));
    list.is_some_and(|list| list.split(',').any(|item| item.trim().split("::").next() == Some(module)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(&[(path, text)])).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn pure_folders_touch_nothing() {
        let text = "use tokio::x;\n// tokio\nlet at = Instant::now();\nuse std::{fs, io};\nuse std::net::TcpStream;\noperand::x();\nuse std::io;\n";
        assert_eq!(lines("crates/kafka/src/wire/frame.rs", text), [1, 3, 4, 5]);
        assert_eq!(lines("crates/jobs/src/core.rs", "tokio::spawn()"), [1]);
    }

    #[test]
    fn others_may() {
        assert_eq!(lines("crates/kafka/src/server/wire_log.rs", "use tokio::x;"), Vec::<usize>::new());
        assert_eq!(lines("tests/src/core/x.rs", "use tokio::x;"), Vec::<usize>::new());
    }
}
