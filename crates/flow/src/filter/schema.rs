//! Which names an event has.

use crate::syslog::{FACILITIES, SEVERITIES};

/// The kind of events that a filter is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// A syslog message.
    Syslog,
    /// A record of a topic.
    Record,
}

/// A text of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextVariable {
    /// Syslog: program.
    Appname,
    /// Syslog: host.
    Hostname,
    /// Syslog: process.
    Procid,
    /// Syslog: kind of message.
    Msgid,
    /// Syslog: free text.
    Message,
    /// Syslog: the whole line.
    Raw,
    /// Record: its key.
    Key,
    /// Record: its value.
    Value,
    /// Record: the topic that it was read from.
    Topic,
}

/// A number of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntVariable {
    /// Syslog: 0 to 23.
    Facility,
    /// Syslog: 0 (worst) to 7.
    Severity,
}

/// Texts of an event under keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapVariable {
    /// Syslog: structured data, `sd["id"]["name"]`.
    Structured,
    /// Record: a value that is a JSON object, `json["a"]["b"]`.
    Json,
    /// Record: `headers["name"]`.
    Headers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    Text(TextVariable),
    Int(IntVariable),
    Map(MapVariable),
    Time,
}

impl Schema {
    pub(super) fn names(self) -> &'static [(&'static str, Name)] {
        match self {
            Schema::Syslog => &[
                ("appname", Name::Text(TextVariable::Appname)),
                ("hostname", Name::Text(TextVariable::Hostname)),
                ("procid", Name::Text(TextVariable::Procid)),
                ("msgid", Name::Text(TextVariable::Msgid)),
                ("message", Name::Text(TextVariable::Message)),
                ("raw", Name::Text(TextVariable::Raw)),
                ("facility", Name::Int(IntVariable::Facility)),
                ("severity", Name::Int(IntVariable::Severity)),
                ("timestamp", Name::Time),
                ("sd", Name::Map(MapVariable::Structured)),
            ],
            Schema::Record => &[
                ("key", Name::Text(TextVariable::Key)),
                ("value", Name::Text(TextVariable::Value)),
                ("topic", Name::Text(TextVariable::Topic)),
                ("timestamp", Name::Time),
                ("json", Name::Map(MapVariable::Json)),
                ("headers", Name::Map(MapVariable::Headers)),
            ],
        }
    }

    /// Severities and facilities by name, as numbers; no variable has one of these names.
    pub(super) fn constant(self, name: &str) -> Option<i64> {
        if self != Schema::Syslog {
            return None;
        }
        let position = |names: &[&str]| names.iter().position(|known| *known == name).map(|at| at as i64);
        position(&SEVERITIES).or_else(|| position(&FACILITIES))
    }

    /// The variable closest to a mistyped name.
    pub(super) fn nearest(self, name: &str) -> Option<&'static str> {
        const DISTANCE_MAX: usize = 3;
        let distance = |known: &str| strsim::damerau_levenshtein(known, name);
        let best = self.names().iter().map(|(known, _)| *known).min_by_key(|known| distance(known))?;
        (distance(best) <= DISTANCE_MAX.min(best.len() / 2)).then_some(best)
    }
}

impl MapVariable {
    /// How many keys lead to a text: exactly, or at least for JSON.
    pub(super) fn keys(self) -> usize {
        match self {
            MapVariable::Structured => 2,
            MapVariable::Json | MapVariable::Headers => 1,
        }
    }

    pub(super) fn accepts(self, keys: usize) -> bool {
        if self == MapVariable::Json { keys >= 1 } else { keys == self.keys() }
    }

    pub(super) fn usage(self) -> &'static str {
        match self {
            MapVariable::Structured => "write sd[\"id\"][\"name\"]",
            MapVariable::Json => "write json[\"name\"], or json[\"outer\"][\"inner\"]",
            MapVariable::Headers => "write headers[\"name\"]",
        }
    }
}
