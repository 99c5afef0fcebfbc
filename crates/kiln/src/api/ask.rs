//! One request, taken apart, and how it may be refused.

use hyper::body::Bytes;
use hyper::{Method, StatusCode, Uri};
use serde::de::DeserializeOwned;

use super::server::Caller;

/// A request as the routes see it.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Who asks.
    pub caller: Caller,
    /// The verb.
    pub method: Method,
    /// Path and query.
    pub uri: Uri,
    /// The body, bounded.
    pub body: Bytes,
}

/// A refusal: the status, and a sentence for a person.
#[derive(Debug)]
pub(crate) struct Fault {
    /// HTTP's word for it.
    pub status: StatusCode,
    /// What was wrong and what to do.
    pub error: String,
}

/// What a refusal says, made of anything that can be shown.
#[derive(Debug)]
pub(crate) struct Reason(String);

impl<T: std::fmt::Display> From<T> for Reason {
    fn from(shown: T) -> Self {
        Self(shown.to_string())
    }
}

impl Fault {
    /// The request itself is wrong.
    pub(crate) fn bad(error: impl Into<Reason>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: error.into().0 }
    }

    /// What it names is not there.
    pub(crate) fn missing(error: impl Into<Reason>) -> Self {
        Self { status: StatusCode::NOT_FOUND, error: error.into().0 }
    }

    /// It is right and could not be done.
    pub(crate) fn failed(error: impl Into<Reason>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: error.into().0 }
    }
}

impl Ask {
    /// The path's segments, unescaped.
    pub(crate) fn segments(&self) -> Result<Vec<String>, Fault> {
        self.uri.path().split('/').filter(|s| !s.is_empty()).map(unescape).collect()
    }

    /// A value of the query, unescaped.
    pub(crate) fn query(&self, name: &str) -> Result<Option<String>, Fault> {
        let pairs = self.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| unescape(value)).next().transpose()
    }

    /// A value of the query that is a number or a word with a parser of its own.
    pub(crate) fn parsed<T: std::str::FromStr>(&self, name: &str, default: T) -> Result<T, Fault> {
        match self.query(name)? {
            None => Ok(default),
            Some(text) => {
                text.parse().map_err(|_| Fault::bad(format!("`{name}={text}` is not a value for {name}")))
            }
        }
    }

    /// The body as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        serde_json::from_slice(&self.body)
            .map_err(|e| Fault::bad(format!("the body is not what {} takes: {e}", self.uri.path())))
    }

    /// What this path names can be looked at and not be changed.
    pub(crate) fn question(&self) -> Result<(), Fault> {
        if self.method == Method::GET {
            return Ok(());
        }
        let error = format!("{} answers GET, not {}; see docs/api.md", self.uri.path(), self.method);
        Err(Fault { status: StatusCode::METHOD_NOT_ALLOWED, error })
    }

    /// Only the owner may change things.
    pub(crate) fn owner_only(&self) -> Result<(), Fault> {
        if self.caller == Caller::Owner {
            return Ok(());
        }
        let error = "this port only answers questions; use the `kiln` command, or curl --unix-socket on run/control.sock in the data directory";
        Err(Fault { status: StatusCode::FORBIDDEN, error: error.to_owned() })
    }
}

fn unescape(text: &str) -> Result<String, Fault> {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Fault::bad(format!("`{text}` is not escaped UTF-8")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(uri: &str, caller: Caller) -> Ask {
        Ask { caller, method: Method::GET, uri: uri.parse().unwrap(), body: Bytes::new() }
    }

    #[test]
    fn segments_and_query_are_unescaped() {
        let ask = ask("/api/amqp/queues/a%2Fb?vhost=%2F&max=7", Caller::Owner);
        assert_eq!(ask.segments().unwrap(), ["api", "amqp", "queues", "a/b"]);
        assert_eq!(ask.query("vhost").unwrap().as_deref(), Some("/"));
        assert_eq!(ask.parsed("max", 1_u32).unwrap(), 7);
        assert_eq!(ask.parsed("min", 1_u32).unwrap(), 1);
    }

    #[test]
    fn a_bad_number_is_named() {
        let fault = ask("/api/tasks?max=many", Caller::Owner).parsed("max", 1_u32).unwrap_err();
        assert_eq!(fault.error, "`max=many` is not a value for max");
    }

    #[test]
    fn a_question_is_not_answered_as_a_change() {
        let get = ask("/api/tasks", Caller::Owner);
        assert!(get.question().is_ok());
        let delete = Ask { method: Method::DELETE, ..get };
        assert_eq!(delete.question().unwrap_err().status, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[test]
    fn visitors_may_not_change_anything() {
        assert!(ask("/", Caller::Owner).owner_only().is_ok());
        assert_eq!(ask("/", Caller::Visitor).owner_only().unwrap_err().status, StatusCode::FORBIDDEN);
    }
}
