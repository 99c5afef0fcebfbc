//! Who may do what in a virtual host: `RabbitMQ`'s three patterns.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// The longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 4096;

/// The largest compiled pattern, in bytes, roughly.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A kind of operation on a resource (an exchange, a queue).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Create, delete or change it.
    Configure,
    /// Put messages in, or bind it as a destination.
    Write,
    /// Take messages out, or bind it as a source.
    Read,
}

/// A user's permissions in one virtual host, one pattern for each [`Access`].
///
/// As in `RabbitMQ` a pattern is *searched* in the resource's name: `log` also allows `catalog`, so anchor what is
/// meant exactly. The empty pattern means `^$`, which allows only the empty name, that is, nothing that has one.
/// Patterns are those of the regex crate: no look-around and no back references.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// For [`Access::Configure`].
    pub configure: String,
    /// For [`Access::Write`].
    pub write: String,
    /// For [`Access::Read`].
    pub read: String,
}

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{access} pattern {pattern:?}: {why}")]
pub struct BadPattern {
    /// `configure`, `write` or `read`.
    pub access: &'static str,
    /// As it was given.
    pub pattern: String,
    /// What is wrong with it, and where.
    pub why: String,
}

impl Permissions {
    /// Everything.
    pub fn full() -> Permissions {
        Permissions { configure: ".*".to_owned(), write: ".*".to_owned(), read: ".*".to_owned() }
    }

    /// Whether all three patterns can be used.
    pub fn check(&self) -> Result<(), BadPattern> {
        Compiled::new(self).map(drop)
    }
}

/// [`Permissions`], ready to be asked.
#[derive(Debug)]
pub(crate) struct Compiled {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

impl Compiled {
    pub(crate) fn new(permissions: &Permissions) -> Result<Compiled, BadPattern> {
        Ok(Compiled {
            configure: Pattern::new("configure", &permissions.configure)?,
            write: Pattern::new("write", &permissions.write)?,
            read: Pattern::new("read", &permissions.read)?,
        })
    }

    pub(crate) fn allows(&self, access: Access, resource: &str) -> bool {
        match access {
            Access::Configure => self.configure.finds(resource),
            Access::Write => self.write.finds(resource),
            Access::Read => self.read.finds(resource),
        }
    }
}

/// One compiled pattern. Those that nearly everybody has need no engine.
#[derive(Debug)]
enum Pattern {
    /// `.*`
    Anything,
    /// `^$` and the empty pattern
    EmptyName,
    Search(Regex),
}

impl Pattern {
    fn new(access: &'static str, pattern: &str) -> Result<Pattern, BadPattern> {
        let bad = |why: String| BadPattern { access, pattern: pattern.to_owned(), why };
        match pattern {
            ".*" => Ok(Pattern::Anything),
            "" | "^$" => Ok(Pattern::EmptyName),
            _ if pattern.len() > PATTERN_BYTES_MAX => {
                let why = format!("{} bytes long, the limit is {PATTERN_BYTES_MAX}", pattern.len());
                Err(BadPattern { access, pattern: pattern.chars().take(32).collect(), why })
            }
            _ => {
                let compiled = RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
                compiled.map(Pattern::Search).map_err(|error| bad(error.to_string()))
            }
        }
    }

    fn finds(&self, name: &str) -> bool {
        match self {
            Pattern::Anything => true,
            Pattern::EmptyName => name.is_empty(),
            Pattern::Search(regex) => regex.is_match(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(pattern: &str, name: &str) -> bool {
        Pattern::new("read", pattern).unwrap().finds(name)
    }

    /// As `RabbitMQ`'s `re:run` without anchors.
    #[test]
    fn patterns_are_searched_not_matched() {
        assert!(finds("log", "catalog"));
        assert!(!finds("^log", "catalog"));
        assert!(finds("^(a|b)$", "b") && !finds("^(a|b)$", "bb"));
        assert!(finds(".*", "") && finds(".*", "x\ny"));
    }

    #[test]
    fn empty_patterns_allow_no_named_resource() {
        for pattern in ["", "^$"] {
            assert!(!finds(pattern, "q") && !finds(pattern, "amq.default") && finds(pattern, ""));
        }
    }

    #[test]
    fn each_access_has_its_own_pattern() {
        let permissions = Permissions { configure: "^c".into(), write: "^w".into(), read: "^r".into() };
        let compiled = Compiled::new(&permissions).unwrap();
        assert!(compiled.allows(Access::Configure, "c1") && !compiled.allows(Access::Configure, "w1"));
        assert!(compiled.allows(Access::Write, "w1") && !compiled.allows(Access::Write, "r1"));
        assert!(compiled.allows(Access::Read, "r1") && !compiled.allows(Access::Read, "c1"));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let permissions = Permissions { write: "(".into(), ..Permissions::full() };
        let error = permissions.check().unwrap_err();
        assert_eq!((error.access, error.pattern.as_str()), ("write", "("));
        assert!(error.to_string().contains("unclosed group"), "{error}");
        let long = Permissions { read: "a".repeat(PATTERN_BYTES_MAX + 1), ..Permissions::full() };
        assert!(long.check().is_err());
        let huge = Permissions { read: "(a{1000}){1000}".into(), ..Permissions::full() };
        assert!(huge.check().is_err());
    }
}
