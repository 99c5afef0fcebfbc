//! Errors that point at the column.

use std::fmt;

/// A range of bytes of the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From the start of `self` to the end of `other`.
    pub(super) fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end }
    }
}

/// Why a filter does not compile. Displays as the message, the line of the source, and a caret line with what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What is wrong, as a lowercase fragment.
    pub message: String,
    /// What to do about it; may be empty.
    pub help: String,
    /// Line of the source, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    text: String,
    width: usize,
}

impl Error {
    pub(super) fn new(
        source: &str,
        span: Span,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Error {
        let start = floor(source, span.start);
        let line_start = source[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = source[start..].find('\n').map_or(source.len(), |at| start + at);
        let marked = &source[start..floor(source, span.end).clamp(start, line_end)];
        Error {
            message: message.into(),
            help: help.into(),
            line: source[..start].matches('\n').count() + 1,
            column: source[line_start..start].chars().count() + 1,
            text: source[line_start..line_end].to_owned(),
            width: marked.chars().count().max(1),
        }
    }
}

fn floor(source: &str, at: usize) -> usize {
    source.floor_char_boundary(at)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = " ".repeat(self.column - 1);
        writeln!(f, "{} (line {}, column {})", self.message, self.line, self.column)?;
        writeln!(f, "  | {}", self.text)?;
        write!(f, "  | {indent}{} {}", "^".repeat(self.width), self.help)
    }
}

impl std::error::Error for Error {}
