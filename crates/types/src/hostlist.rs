//! Lists of hosts, written as `node[1-3,7],login` (Flux RFC 29).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The most hosts that one list may name, so that `n[0-999999999]` is refused and not expanded.
pub const HOSTS_MAX: usize = 1 << 17;

/// Host names in order; the same name may come more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Hostlist {
    hosts: Vec<String>,
}

/// Why a text is not a hostlist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHostlist {
    /// Brackets or ranges that do not parse.
    #[error("invalid hostlist '{0}', expected names and ranges like node[1-3,7]")]
    Malformed(String),
    /// More than [`HOSTS_MAX`] hosts.
    #[error("hostlist '{0}' names too many hosts, at most {HOSTS_MAX}")]
    TooMany(String),
}

impl Hostlist {
    /// The empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { hosts: Vec::new() }
    }

    /// How many hosts are listed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// Whether no host is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The names in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.hosts.iter().map(String::as_str)
    }

    /// The name at `at`.
    #[must_use]
    pub fn get(&self, at: usize) -> Option<&str> {
        self.hosts.get(at).map(String::as_str)
    }

    /// Whether `host` is listed.
    #[must_use]
    pub fn contains(&self, host: &str) -> bool {
        self.hosts.iter().any(|known| known == host)
    }

    /// Adds `host` at the end.
    pub fn push(&mut self, host: impl Into<String>) {
        self.hosts.push(host.into());
    }
}

impl<S: Into<String>> FromIterator<S> for Hostlist {
    fn from_iter<I: IntoIterator<Item = S>>(hosts: I) -> Self {
        Self { hosts: hosts.into_iter().map(Into::into).collect() }
    }
}

impl FromStr for Hostlist {
    type Err = BadHostlist;

    fn from_str(text: &str) -> Result<Self, BadHostlist> {
        let mut hosts = Vec::new();
        for term in terms(text).ok_or_else(|| BadHostlist::Malformed(text.to_owned()))? {
            expand(term, &mut hosts).map_err(|problem| match problem {
                Problem::Malformed => BadHostlist::Malformed(text.to_owned()),
                Problem::TooMany => BadHostlist::TooMany(text.to_owned()),
            })?;
        }
        Ok(Self { hosts })
    }
}

/// Splits at the commas that are outside of brackets; none when brackets do not pair up.
fn terms(text: &str) -> Option<Vec<&str>> {
    let (mut found, mut start, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' if inside => return None,
            ']' if !inside => return None,
            '[' => inside = true,
            ']' => inside = false,
            ',' if !inside => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    (!inside).then(|| found.into_iter().filter(|term| !term.is_empty()).collect())
}

enum Problem {
    Malformed,
    TooMany,
}

/// Appends the hosts of one term, whose brackets are known to pair up.
fn expand(term: &str, hosts: &mut Vec<String>) -> Result<(), Problem> {
    let mut names = vec![String::new()];
    let mut rest = term;
    while let Some((before, after)) = rest.split_once('[') {
        let (inside, behind) = after.split_once(']').ok_or(Problem::Malformed)?;
        let mut numbered = Vec::new();
        for name in &names {
            for part in inside.split(',') {
                number(&format!("{name}{before}"), part, &mut numbered)?;
            }
        }
        names = numbered;
        rest = behind;
    }
    if hosts.len() + names.len() > HOSTS_MAX {
        return Err(Problem::TooMany);
    }
    hosts.extend(names.into_iter().map(|name| name + rest));
    Ok(())
}

/// Appends `prefix` with each number of `part`, which is `7` or `08-11`; zeros in front are kept.
fn number(prefix: &str, part: &str, out: &mut Vec<String>) -> Result<(), Problem> {
    let (low, high) = part.split_once('-').unwrap_or((part, part));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(low) || !digits(high) {
        return Err(Problem::Malformed);
    }
    let (from, to): (u64, u64) = low.parse().ok().zip(high.parse().ok()).ok_or(Problem::Malformed)?;
    if from > to {
        return Err(Problem::Malformed);
    }
    if to - from >= (HOSTS_MAX - out.len().min(HOSTS_MAX)) as u64 {
        return Err(Problem::TooMany);
    }
    let width = low.len();
    out.extend((from..=to).map(|number| format!("{prefix}{number:0width$}")));
    Ok(())
}

impl fmt::Display for Hostlist {
    /// Neighbours that differ only in their last number share brackets: `node[1-3,7]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        let mut rest = self.hosts.as_slice();
        while let Some(first) = rest.first() {
            let (prefix, _) = split_number(first);
            let same = rest.iter().take_while(|host| shares_prefix(host, prefix)).count().max(1);
            let (group, behind) = rest.split_at(same);
            if !out.is_empty() {
                out.push(',');
            }
            write_group(&mut out, prefix, group);
            rest = behind;
        }
        f.pad(&out)
    }
}

fn shares_prefix(host: &str, prefix: &str) -> bool {
    let (own, digits) = split_number(host);
    own == prefix && !digits.is_empty()
}

/// `node07` is `node` and `07`; numbers beyond 18 digits stay part of the name.
fn split_number(host: &str) -> (&str, &str) {
    let digits = host.bytes().rev().take_while(u8::is_ascii_digit).count();
    host.split_at(if digits <= 18 { host.len() - digits } else { host.len() })
}

fn write_group(out: &mut String, prefix: &str, group: &[String]) {
    if let [only] = group {
        out.push_str(only);
        return;
    }
    out.push_str(prefix);
    out.push('[');
    let mut numbers = group.iter().map(|host| &host[prefix.len()..]).peekable();
    let mut first = true;
    while let Some(low) = numbers.next() {
        let mut high = low;
        while let Some(next) = numbers.next_if(|next| follows(low, high, next)) {
            high = next;
        }
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        out.push_str(low);
        if high != low {
            out.push('-');
            out.push_str(high);
        }
    }
    out.push(']');
}

/// Whether `next` is the number after `high`, written with the zeros that `low` asks for.
fn follows(low: &str, high: &str, next: &str) -> bool {
    let width = low.len();
    high.parse::<u64>().is_ok_and(|high| format!("{:0width$}", high + 1) == next)
}

impl From<Hostlist> for String {
    fn from(list: Hostlist) -> Self {
        list.to_string()
    }
}

impl TryFrom<String> for Hostlist {
    type Error = BadHostlist;

    fn try_from(text: String) -> Result<Self, BadHostlist> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn expands_and_compresses() {
        for (text, hosts, written) in [
            ("", vec![], ""),
            ("vm", vec!["vm"], "vm"),
            ("vm,vm", vec!["vm", "vm"], "vm,vm"),
            ("node[1-3]", vec!["node1", "node2", "node3"], "node[1-3]"),
            ("n[08-11,3]", vec!["n08", "n09", "n10", "n11", "n3"], "n[08-11,3]"),
            ("a1,a2,b,a3", vec!["a1", "a2", "b", "a3"], "a[1-2],b,a3"),
            ("a1,b1", vec!["a1", "b1"], "a1,b1"),
            ("9,10", vec!["9", "10"], "[9-10]"),
            ("r[1-2]n[0-1]", vec!["r1n0", "r1n1", "r2n0", "r2n1"], "r1n[0-1],r2n[0-1]"),
            ("n[1-2].lan", vec!["n1.lan", "n2.lan"], "n1.lan,n2.lan"),
        ] {
            let list: Hostlist = text.parse().unwrap();
            assert_eq!(list.iter().collect::<Vec<_>>(), hosts, "{text}");
            assert_eq!(list.to_string(), written);
        }
    }

    #[test]
    fn refuses_garbage_and_floods() {
        for text in ["a[", "a]", "a[1-]", "a[x]", "a[]", "a[3-1]", "a[[1]]", "a[1,]"] {
            assert!(matches!(text.parse::<Hostlist>(), Err(BadHostlist::Malformed(_))), "{text}");
        }
        for text in ["a[0-999999999]", "a[0-999][0-999]", "a[0-100000],b[0-100000]"] {
            assert!(matches!(text.parse::<Hostlist>(), Err(BadHostlist::TooMany(_))), "{text}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_back(hosts in proptest::collection::vec("[ab]{1,2}0{0,2}[0-9]{0,3}", 0..20)) {
            let list: Hostlist = hosts.into_iter().collect();
            prop_assert_eq!(list.to_string().parse::<Hostlist>(), Ok(list));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[-a0-9,\\[\\]]{0,20}") {
            drop(text.parse::<Hostlist>());
        }
    }
}
