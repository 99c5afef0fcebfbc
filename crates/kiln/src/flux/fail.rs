//! What goes wrong in a command, with the text and the exit code that Flux's users know.

use std::fmt;

/// Exit code of a command, as scripts see it.
pub(super) type Code = u8;

/// Something went wrong; `text` is the whole message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fail {
    text: String,
    code: Code,
}

impl Fail {
    /// As Flux's Python tools say it: `flux-run: ERROR: ...`, exit code 1.
    pub(super) fn error(program: &str, text: impl fmt::Display) -> Self {
        Self { text: format!("{program}: ERROR: {text}"), code: 1 }
    }

    /// As Flux's C tools say it: `flux-job: ...`, exit code 1.
    pub(super) fn plain(program: &str, text: impl fmt::Display) -> Self {
        Self { text: format!("{program}: {text}"), code: 1 }
    }

    /// The text alone, exit code 1.
    pub(super) fn bare(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }

    /// A wrong command line: usage and problem, exit code 2.
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 2 }
    }

    /// The same with another exit code.
    pub(super) fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    pub(super) fn code(&self) -> Code {
        self.code
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}
