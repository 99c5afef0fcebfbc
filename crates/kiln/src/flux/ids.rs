//! Job ids on the command line and on the terminal.

use super::fail::Fail;
use kiln_types::JobId;
use std::env;

/// The id as it is shown to this user: with `ƒ`, or with `f` where the terminal is not UTF-8 (Flux RFC 19).
pub(super) fn show(id: JobId) -> String {
    if plain(|name| env::var(name).ok()) { id.to_f58_plain() } else { id.to_string() }
}

/// Whether ids must be ASCII: `FLUX_F58_FORCE_ASCII` is set, or the locale that counts is not UTF-8.
fn plain(variable: impl Fn(&str) -> Option<String>) -> bool {
    if variable("FLUX_F58_FORCE_ASCII").is_some() {
        return true;
    }
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG"));
    locale.is_some_and(|locale| {
        let locale = locale.to_ascii_lowercase();
        !locale.contains("utf-8") && !locale.contains("utf8")
    })
}

/// Reads an id as `flux job` does.
pub(super) fn parse(program: &str, text: &str) -> Result<JobId, Fail> {
    text.parse().map_err(|bad| Fail::plain(program, bad))
}

/// Reads an id as the Python tools do.
pub(super) fn parse_python(program: &str, text: &str) -> Result<JobId, Fail> {
    text.parse().map_err(|_| Fail::error(program, format!("{text} is not a valid Flux jobid")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_where_the_terminal_needs_it() {
        let with = |pairs: &'static [(&str, &str)]| {
            plain(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert!(!with(&[]), "nothing is said: UTF-8 is usual");
        assert!(!with(&[("LANG", "en_US.UTF-8")]));
        assert!(with(&[("LC_ALL", "C"), ("LANG", "en_US.UTF-8")]));
        assert!(!with(&[("LC_ALL", ""), ("LANG", "C.utf8")]));
        assert!(with(&[("FLUX_F58_FORCE_ASCII", "1"), ("LANG", "C.UTF-8")]));
    }
}
