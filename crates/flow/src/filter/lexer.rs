//! From characters to tokens.

use super::error::{Error, Span};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    Name(String),
    Int(i64),
    Text(String),
    /// An operator or a bracket, as written.
    Symbol(&'static str),
    End,
}

/// Longest first, so that `<=` is not read as `<`.
const SYMBOLS: [&str; 20] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "(", ")", "[", "]", ",", ".", "?", ":", "=",
];

/// The tokens of `source` with their places; the last one is `End`.
pub(super) fn tokens(source: &str) -> Result<Vec<(Token, Span)>, Error> {
    let mut tokens = Vec::new();
    let mut at = 0;
    loop {
        at += source[at..].len() - source[at..].trim_start().len();
        let (token, length) = next(source, at)?;
        let span = Span { start: at, end: at + length };
        let ended = token == Token::End;
        tokens.push((token, span));
        if ended {
            return Ok(tokens);
        }
        at = span.end;
    }
}

fn next(source: &str, at: usize) -> Result<(Token, usize), Error> {
    let rest = &source[at..];
    let Some(first) = rest.chars().next() else { return Ok((Token::End, 0)) };
    match first {
        '"' | '\'' => text(source, at, 0),
        'r' if rest[1..].starts_with(['"', '\'']) => text(source, at, 1),
        '0'..='9' => int(source, at),
        'a'..='z' | 'A'..='Z' | '_' => {
            let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            Ok((Token::Name(rest[..length].to_owned()), length))
        }
        _ => symbol(source, at, first),
    }
}

fn symbol(source: &str, at: usize, first: char) -> Result<(Token, usize), Error> {
    let found = SYMBOLS.into_iter().find(|symbol| source[at..].starts_with(symbol));
    let span = Span { start: at, end: at + first.len_utf8() };
    match found {
        Some("=") => Err(Error::new(source, span, "`=` compares nothing", "write `==`")),
        Some(symbol) => Ok((Token::Symbol(symbol), symbol.len())),
        None => {
            let help = match first {
                '&' => "write `&&`",
                '|' => "write `||`",
                _ => "texts stand in quotes",
            };
            Err(Error::new(source, span, format!("unexpected character `{first}`"), help))
        }
    }
}

fn int(source: &str, at: usize) -> Result<(Token, usize), Error> {
    let rest = &source[at..];
    let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let value = rest[..length].parse().map_err(|_| {
        let span = Span { start: at, end: at + length };
        Error::new(
            source,
            span,
            "not a whole number of 64 bits",
            "decimal digits only; texts stand in quotes",
        )
    })?;
    Ok((Token::Int(value), length))
}

/// A text whose opening quote stands at `at + raw`; with a `prefix` of 1 it is raw (`r"..."`).
fn text(source: &str, at: usize, prefix: usize) -> Result<(Token, usize), Error> {
    let open = at + prefix;
    let quote = source.as_bytes()[open] as char;
    let mut value = String::new();
    let mut chars = source[open + 1..].char_indices();
    while let Some((offset, c)) = chars.next() {
        let here = open + 1 + offset;
        match c {
            _ if c == quote => return Ok((Token::Text(value), here + 1 - at)),
            '\\' if prefix == 0 => value.push(escape(source, here, chars.next().map(|(_, c)| c))?),
            _ => value.push(c),
        }
    }
    let span = Span { start: at, end: source.len() };
    Err(Error::new(source, span, "text without an end", format!("close it with {quote}")))
}

fn escape(source: &str, at: usize, escaped: Option<char>) -> Result<char, Error> {
    match escaped {
        Some(c @ ('\\' | '"' | '\'')) => Ok(c),
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('r') => Ok('\r'),
        other => {
            let end = at + 1 + other.map_or(0, char::len_utf8);
            let help = "write two backslashes, or a raw text r\"...\" (good for regular expressions)";
            Err(Error::new(source, Span { start: at, end }, "unknown escape in a text", help))
        }
    }
}
