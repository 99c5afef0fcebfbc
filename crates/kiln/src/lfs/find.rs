//! `lfs find`: the part of find(1) that users of Lustre type, and targets.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_fs::client::control;
use kiln_fs::core::{Layout, OstIndex};
use kiln_types::ByteSize;

use super::{Done, Fail, attribute, print};

const DAY_SECS: i64 = 24 * 60 * 60;

/// What a file must be like.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Kind(char),
    Name(String),
    Size(Bound),
    /// Days since the last change.
    Age(Bound),
    Owner(u32),
    Ost(u16),
}

/// A number, at least or at most so large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    sign: Option<char>,
    value: u64,
    /// What one of the value is worth; sizes are compared in these.
    unit: u64,
}

/// What the words say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Search {
    paths: Vec<String>,
    /// Each with whether it must hold.
    tests: Vec<(Test, bool)>,
    depth_max: Option<usize>,
    nul: bool,
}

pub(super) fn find(words: &[String]) -> Done {
    let search = Search::parse(words)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    for path in &search.paths {
        walk(Path::new(path), 0, &search, now)?;
    }
    Ok(())
}

/// Visits `path` and what is below. What goes away meanwhile is passed over.
fn walk(path: &Path, depth: usize, search: &Search, now: i64) -> Done {
    let stat = match path.symlink_metadata() {
        Ok(stat) => stat,
        Err(error) if depth > 0 && error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Fail::at(path, &error)),
    };
    if search.matches(path, &stat, now)? {
        let end = if search.nul { '\0' } else { '\n' };
        print(&format!("{}{end}", path.display()))?;
    }
    if !stat.is_dir() || search.depth_max.is_some_and(|max| depth >= max) {
        return Ok(());
    }
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            eprintln!("lfs find: '{}': {}", path.display(), super::plain(&error));
            return Ok(());
        }
    };
    for entry in entries {
        let entry = entry.map_err(|error| Fail::at(path, &error))?;
        walk(&entry.path(), depth + 1, search, now)?;
    }
    Ok(())
}

impl Search {
    fn parse(words: &[String]) -> Result<Search, Fail> {
        let mut search = Search::default();
        let mut words = words.iter();
        let mut holds = true;
        while let Some(word) = words.next() {
            if word == "!" {
                holds = false;
                continue;
            }
            let Some(option) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                search.paths.push(word.clone());
                continue;
            };
            if matches!(option, "print0" | "0" | "P") {
                search.nul = true;
                continue;
            }
            let value = words.next().ok_or_else(|| Fail::usage(format!("option '{word}' needs a value")))?;
            let bad = || Fail::usage(format!("invalid value '{value}' of '{word}'"));
            if matches!(option, "maxdepth" | "D") {
                search.depth_max = Some(value.parse().map_err(|_| bad())?);
                continue;
            }
            let test = test(option, value).ok_or_else(bad)?;
            search.tests.push((test, holds));
            holds = true;
        }
        if search.paths.is_empty() {
            return Err(Fail::usage("a path is needed"));
        }
        Ok(search)
    }

    fn matches(&self, path: &Path, stat: &Metadata, now: i64) -> Result<bool, Fail> {
        for (test, holds) in &self.tests {
            if test.matches(path, stat, now)? != *holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn test(option: &str, value: &str) -> Option<Test> {
    Some(match option {
        "type" | "t" => Test::Kind(value.chars().next().filter(|kind| "fdlpsbc".contains(*kind))?),
        "name" | "n" => Test::Name(value.to_owned()),
        "size" | "s" => Test::Size(Bound::size(value)?),
        "mtime" | "M" => Test::Age(Bound::number(value)?),
        "user" | "u" | "uid" | "U" => Test::Owner(uid(value)?),
        "ost" | "O" => Test::Ost(value.parse().ok()?),
        _ => return None,
    })
}

/// A user by name or by number.
fn uid(value: &str) -> Option<u32> {
    let named = nix::unistd::User::from_name(value).ok().flatten().map(|user| user.uid.as_raw());
    named.or_else(|| value.parse().ok())
}

impl Bound {
    fn number(text: &str) -> Option<Bound> {
        let (sign, digits) = sign(text);
        Some(Bound { sign, value: digits.parse().ok()?, unit: 1 })
    }

    /// Bytes, or in a unit: `+1M`.
    fn size(text: &str) -> Option<Bound> {
        let (sign, size) = sign(text);
        let value = size.parse::<ByteSize>().ok()?.0;
        let letters = size.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        let unit = format!("1{letters}").parse::<ByteSize>().map_or(1, |unit| unit.0);
        Some(Bound { sign, value, unit })
    }

    fn holds(self, value: u64) -> bool {
        match self.sign {
            Some('+') => value > self.value,
            Some(_) => value < self.value,
            // As in Lustre: up to the value, from a unit below.
            None => value <= self.value && value.saturating_add(self.unit) > self.value,
        }
    }
}

fn sign(text: &str) -> (Option<char>, &str) {
    let sign = text.chars().next().filter(|c| matches!(c, '+' | '-'));
    (sign, &text[sign.map_or(0, char::len_utf8)..])
}

impl Test {
    fn matches(&self, path: &Path, stat: &Metadata, now: i64) -> Result<bool, Fail> {
        Ok(match self {
            Test::Kind(kind) => *kind == letter(stat),
            Test::Name(pattern) => {
                path.file_name().is_some_and(|name| glob(pattern.as_bytes(), name.as_bytes()))
            }
            Test::Size(bound) => stat.is_file() && bound.holds(stat.len()),
            Test::Age(bound) => bound.holds((now - stat.mtime()).max(0).div_euclid(DAY_SECS) as u64),
            Test::Owner(uid) => stat.uid() == *uid,
            Test::Ost(index) => stat.is_file() && is_on(path, OstIndex(*index))?,
        })
    }
}

fn is_on(path: &Path, ost: OstIndex) -> Result<bool, Fail> {
    let layout: Layout = attribute::get(path, control::LAYOUT)?;
    Ok(layout.objects().any(|(on, _)| on == ost))
}

fn letter(stat: &Metadata) -> char {
    let kind = stat.file_type();
    match () {
        () if kind.is_dir() => 'd',
        () if kind.is_symlink() => 'l',
        () if kind.is_fifo() => 'p',
        () if kind.is_socket() => 's',
        () if kind.is_block_device() => 'b',
        () if kind.is_char_device() => 'c',
        () => 'f',
    }
}

/// Whether a shell pattern (`*`, `?`, `[a-z]`, `[!a]`, `\` before a character) matches the whole of a name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    // Where to go on when what follows the last star does not match here.
    let (mut p, mut n, mut retry) = (0, 0, None);
    loop {
        if pattern.get(p) == Some(&b'*') {
            retry = Some((p + 1, n));
            p += 1;
            continue;
        }
        match name.get(n).and_then(|byte| one(&pattern[p..], *byte)) {
            Some(used) => (p, n) = (p + used, n + 1),
            None if n == name.len() && p == pattern.len() => return true,
            None => match retry {
                Some((after, from)) if from < name.len() => {
                    (p, n, retry) = (after, from + 1, Some((after, from + 1)));
                }
                _ => return false,
            },
        }
    }
}

/// How much of the pattern the byte uses up, if it matches.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'[' => match set(&pattern[1..], byte) {
            Some((holds, used)) => holds.then_some(used + 1),
            // A bracket that is never closed stands for itself.
            None => (byte == b'[').then_some(1),
        },
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        plain => (plain == byte).then_some(1),
    }
}

/// Whether the set behind `[` has the byte, and its length with the `]`.
fn set(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    // A bracket at the start is a member.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|b| *b == b']')?;
    let (mut members, mut at) = (false, start);
    while at < end {
        let range = pattern.get(at + 1) == Some(&b'-') && at + 2 < end;
        let last = if range { pattern[at + 2] } else { pattern[at] };
        members |= (pattern[at]..=last).contains(&byte);
        at += if range { 3 } else { 1 };
    }
    Some((members != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("*.c", "a.c", true),
            ("*.c", "a.cc", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("[a-c]1", "b1", true),
            ("[!a-c]1", "b1", false),
            ("[]x]", "]", true),
            ("[a", "[a", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("", "", true),
            ("*", "", true),
            ("**", "abc", true),
        ];
        for (pattern, name, matches) in cases {
            assert_eq!(glob(pattern.as_bytes(), name.as_bytes()), matches, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let pattern = b"*a".repeat(50);
        assert!(!glob(&[&pattern[..], b"b"].concat(), &b"a".repeat(2000)));
    }

    #[test]
    fn bounds_are_in_their_unit() {
        let size = |text| Bound::size(text).unwrap();
        assert!(size("+1M").holds((1 << 20) + 1) && !size("+1M").holds(1 << 20));
        assert!(size("-1M").holds((1 << 20) - 1) && !size("-1M").holds(1 << 20));
        assert!(size("1M").holds(1 << 20) && size("1M").holds(1) && !size("1M").holds(0));
        assert!(size("100").holds(100) && !size("100").holds(99));
        assert!(Bound::number("+x").is_none());
    }

    #[test]
    fn a_search_is_read_word_by_word() {
        let words =
            "/m -type f ! -name *.o --maxdepth 2 -print0".split(' ').map(str::to_owned).collect::<Vec<_>>();
        let search = Search::parse(&words).unwrap();
        assert_eq!(search.tests, [(Test::Kind('f'), true), (Test::Name("*.o".into()), false)]);
        assert_eq!((search.depth_max, search.nul, search.paths), (Some(2), true, vec!["/m".to_owned()]));
        for bad in ["-type f", "/m -type x", "/m -size", "/m -nonsense 1"] {
            let words: Vec<_> = bad.split(' ').map(str::to_owned).collect();
            assert!(Search::parse(&words).is_err(), "{bad}");
        }
    }
}
