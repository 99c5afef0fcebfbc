//! The PMI-1 wire: newline-terminated lines of `key=value` words, one request and one response at a time.
//!
//! Source: flux-framework RFC 13 and what MPICH 4, MPICH 5 and Flux's own libpmi send.

use std::fmt;

/// Longest name of a key-value space, in bytes with the terminating zero of C.
pub const KVSNAME_BYTES_MAX: usize = 64;
/// Longest key, in bytes with the terminating zero of C.
pub const KEY_BYTES_MAX: usize = 64;
/// Longest value, in bytes with the terminating zero of C.
pub const VALUE_BYTES_MAX: usize = 1024;
/// Longest line that either side reads, in bytes: a put with the longest key and value, and room for the words.
pub const LINE_BYTES_MAX: usize = 2048;

/// What a task asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Opens the conversation.
    Init {
        /// Protocol version the task speaks.
        version: u32,
        /// And its minor version.
        subversion: u32,
    },
    /// Asks for the longest name, key and value.
    GetMaxes,
    /// Asks for the application number.
    GetAppnum,
    /// Asks how many ranks there may ever be.
    GetUniverseSize,
    /// Asks for the name of the job's key-value space.
    GetMyKvsname,
    /// Publishes a pair; visible to all after the next barrier.
    Put {
        /// Key-value space.
        kvsname: String,
        /// Key.
        key: String,
        /// Value; may hold spaces.
        value: String,
    },
    /// Reads a pair.
    Get {
        /// Key-value space.
        kvsname: String,
        /// Key.
        key: String,
    },
    /// Waits until every rank has come here.
    BarrierIn,
    /// Ends the conversation.
    Finalize,
    /// Ends the job; has no response.
    Abort {
        /// Exit code that the program asks for.
        exitcode: i32,
    },
}

/// What the server answers. `rc` 0 is success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// To [`Request::Init`].
    Init {
        /// Result code.
        rc: i32,
    },
    /// To [`Request::GetMaxes`].
    Maxes,
    /// To [`Request::GetAppnum`].
    Appnum(u32),
    /// To [`Request::GetUniverseSize`].
    UniverseSize(u32),
    /// To [`Request::GetMyKvsname`].
    MyKvsname(String),
    /// To [`Request::Put`].
    PutResult {
        /// Result code.
        rc: i32,
    },
    /// To [`Request::Get`]; no value: no such key.
    GetResult(Option<String>),
    /// To [`Request::BarrierIn`], once all ranks are in.
    BarrierOut {
        /// Result code.
        rc: i32,
    },
    /// To [`Request::Finalize`].
    FinalizeAck,
}

/// Result code for a key that is not there (`PMI_ERR_INVALID_KEY`).
pub const RC_INVALID_KEY: i32 = 4;

/// A line that is no PMI-1 request or response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// The `cmd` word is missing or not known.
    Command(String),
    /// A word that the command needs is missing or is no number.
    Word(&'static str),
    /// A name, key or value is too long.
    TooLong(&'static str),
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Command(word) => write!(f, "unknown PMI command {word:?}"),
            WireError::Word(word) => write!(f, "PMI command lacks a proper {word:?}"),
            WireError::TooLong(what) => write!(f, "PMI {what} is over its limit"),
        }
    }
}

impl std::error::Error for WireError {}

/// The value of `key` in a line. `value` runs to the end of the line, since it may hold spaces.
fn word<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = line;
    loop {
        rest = rest.trim_start_matches(' ');
        let (name, after) = rest.split_once('=')?;
        if name == "value" {
            return (key == "value").then_some(after);
        }
        let end = after.find(' ').unwrap_or(after.len());
        if name == key {
            return Some(&after[..end]);
        }
        rest = &after[end..];
    }
}

fn number<T: std::str::FromStr>(line: &str, key: &'static str) -> Result<T, WireError> {
    word(line, key).and_then(|text| text.parse().ok()).ok_or(WireError::Word(key))
}

/// A bounded word. The bound counts the terminating zero of C, so the longest text is one byte shorter.
fn text(line: &str, key: &'static str, max: usize) -> Result<String, WireError> {
    let found = word(line, key).ok_or(WireError::Word(key))?;
    if found.len() >= max {
        return Err(WireError::TooLong(key));
    }
    Ok(found.to_owned())
}

impl Request {
    /// Reads a line, without its newline.
    pub fn parse(line: &str) -> Result<Request, WireError> {
        let command = word(line, "cmd").unwrap_or("");
        Ok(match command {
            "init" => Request::Init {
                version: number(line, "pmi_version")?,
                subversion: number(line, "pmi_subversion")?,
            },
            "get_maxes" => Request::GetMaxes,
            "get_appnum" => Request::GetAppnum,
            "get_universe_size" => Request::GetUniverseSize,
            "get_my_kvsname" => Request::GetMyKvsname,
            "put" => Request::Put {
                kvsname: text(line, "kvsname", KVSNAME_BYTES_MAX)?,
                key: text(line, "key", KEY_BYTES_MAX)?,
                value: text(line, "value", VALUE_BYTES_MAX)?,
            },
            "get" => Request::Get {
                kvsname: text(line, "kvsname", KVSNAME_BYTES_MAX)?,
                key: text(line, "key", KEY_BYTES_MAX)?,
            },
            "barrier_in" => Request::BarrierIn,
            "finalize" => Request::Finalize,
            "abort" => Request::Abort { exitcode: number(line, "exitcode").unwrap_or(1) },
            _ => return Err(WireError::Command(command.chars().take(KEY_BYTES_MAX).collect())),
        })
    }
}

/// The line, with its newline.
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Init { version, subversion } => {
                writeln!(f, "cmd=init pmi_version={version} pmi_subversion={subversion}")
            }
            Request::GetMaxes => writeln!(f, "cmd=get_maxes"),
            Request::GetAppnum => writeln!(f, "cmd=get_appnum"),
            Request::GetUniverseSize => writeln!(f, "cmd=get_universe_size"),
            Request::GetMyKvsname => writeln!(f, "cmd=get_my_kvsname"),
            Request::Put { kvsname, key, value } => {
                writeln!(f, "cmd=put kvsname={kvsname} key={key} value={value}")
            }
            Request::Get { kvsname, key } => writeln!(f, "cmd=get kvsname={kvsname} key={key}"),
            Request::BarrierIn => writeln!(f, "cmd=barrier_in"),
            Request::Finalize => writeln!(f, "cmd=finalize"),
            Request::Abort { exitcode } => writeln!(f, "cmd=abort exitcode={exitcode}"),
        }
    }
}

impl Response {
    /// Reads a line, without its newline.
    pub fn parse(line: &str) -> Result<Response, WireError> {
        let command = word(line, "cmd").unwrap_or("");
        Ok(match command {
            "response_to_init" => Response::Init { rc: number(line, "rc")? },
            "maxes" => Response::Maxes,
            "appnum" => Response::Appnum(number(line, "appnum")?),
            "universe_size" => Response::UniverseSize(number(line, "size")?),
            "my_kvsname" => Response::MyKvsname(text(line, "kvsname", KVSNAME_BYTES_MAX)?),
            "put_result" => Response::PutResult { rc: number(line, "rc")? },
            "get_result" => match number::<i32>(line, "rc")? {
                0 => Response::GetResult(Some(text(line, "value", VALUE_BYTES_MAX)?)),
                _ => Response::GetResult(None),
            },
            "barrier_out" => Response::BarrierOut { rc: number(line, "rc").unwrap_or(0) },
            "finalize_ack" => Response::FinalizeAck,
            _ => return Err(WireError::Command(command.chars().take(KEY_BYTES_MAX).collect())),
        })
    }
}

/// The line, with its newline.
impl fmt::Display for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Response::Init { rc } => {
                writeln!(f, "cmd=response_to_init rc={rc} pmi_version=1 pmi_subversion=1")
            }
            Response::Maxes => writeln!(
                f,
                "cmd=maxes rc=0 kvsname_max={KVSNAME_BYTES_MAX} keylen_max={KEY_BYTES_MAX} vallen_max={VALUE_BYTES_MAX}"
            ),
            Response::Appnum(appnum) => writeln!(f, "cmd=appnum rc=0 appnum={appnum}"),
            Response::UniverseSize(size) => writeln!(f, "cmd=universe_size rc=0 size={size}"),
            Response::MyKvsname(name) => writeln!(f, "cmd=my_kvsname rc=0 kvsname={name}"),
            Response::PutResult { rc } => writeln!(f, "cmd=put_result rc={rc}"),
            Response::GetResult(Some(value)) => writeln!(f, "cmd=get_result rc=0 value={value}"),
            Response::GetResult(None) => writeln!(f, "cmd=get_result rc={RC_INVALID_KEY}"),
            Response::BarrierOut { rc } => writeln!(f, "cmd=barrier_out rc={rc}"),
            Response::FinalizeAck => writeln!(f, "cmd=finalize_ack rc=0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_back_from_their_lines() {
        let put = Request::Put { kvsname: "f12".into(), key: "P0-bc".into(), value: "a b key=c".into() };
        assert_eq!(put.to_string(), "cmd=put kvsname=f12 key=P0-bc value=a b key=c\n");
        let all = [
            Request::Init { version: 1, subversion: 1 },
            Request::GetMaxes,
            Request::GetAppnum,
            Request::GetUniverseSize,
            Request::GetMyKvsname,
            put,
            Request::Get { kvsname: "f12".into(), key: "k".into() },
            Request::BarrierIn,
            Request::Finalize,
            Request::Abort { exitcode: 7 },
        ];
        for request in all {
            let line = request.to_string();
            assert_eq!(Request::parse(line.trim_end_matches('\n')), Ok(request), "{line}");
        }
    }

    #[test]
    fn responses_read_back_from_their_lines() {
        let all = [
            Response::Init { rc: 0 },
            Response::Maxes,
            Response::Appnum(0),
            Response::UniverseSize(4),
            Response::MyKvsname("f12".into()),
            Response::PutResult { rc: 5 },
            Response::GetResult(Some("x y".into())),
            Response::GetResult(None),
            Response::BarrierOut { rc: 0 },
            Response::FinalizeAck,
        ];
        for response in all {
            let line = response.to_string();
            assert_eq!(Response::parse(line.trim_end_matches('\n')), Ok(response), "{line}");
        }
    }

    #[test]
    fn lines_that_are_no_requests_are_refused() {
        for line in ["", "=", "cmd", "cmd=", "cmd=spawn", "value=cmd=init", "key=1 cmd =init"] {
            assert!(matches!(Request::parse(line), Err(WireError::Command(_))), "{line:?}");
        }
        assert_eq!(Request::parse("cmd=init pmi_version=x"), Err(WireError::Word("pmi_version")));
        let long = format!("cmd=put kvsname=a key=b value={}", "v".repeat(VALUE_BYTES_MAX));
        assert_eq!(Request::parse(&long), Err(WireError::TooLong("value")));
    }
}
