//! The syntax of `--requires` (Flux RFC 35): `hosts:n[1-2] and not ranks:3 | gpu`.

use serde_json::{Value, json};

/// The constraint (RFC 31) that all of the texts together ask for.
pub(super) fn parse(texts: &[String]) -> Result<Option<Value>, String> {
    let mut all = Vec::new();
    for text in texts {
        let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('|', " or ").replace('&', " and ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = words.as_slice();
        all.push(either(&mut rest).map_err(|what| format!("--requires: {what} in '{text}'"))?);
        if let Some(left) = rest.first() {
            return Err(format!("--requires: unexpected '{left}' in '{text}'"));
        }
    }
    Ok(join("and", all))
}

fn join(operator: &str, mut parts: Vec<Value>) -> Option<Value> {
    if parts.len() > 1 { Some(json!({operator: parts})) } else { parts.pop() }
}

type Words<'a, 'b> = &'a mut &'b [&'b str];

fn take<'b>(words: Words<'_, 'b>) -> Option<&'b str> {
    let (first, rest) = words.split_first()?;
    *words = rest;
    Some(first)
}

fn either(words: Words<'_, '_>) -> Result<Value, String> {
    let mut parts = vec![both(words)?];
    while words.first() == Some(&"or") {
        take(words);
        parts.push(both(words)?);
    }
    join("or", parts).ok_or_else(|| "nothing".to_owned())
}

fn both(words: Words<'_, '_>) -> Result<Value, String> {
    let mut parts = vec![term(words)?];
    while let Some(&next) = words.first().filter(|word| !matches!(**word, "or" | ")")) {
        if next == "and" {
            take(words);
        }
        parts.push(term(words)?);
    }
    join("and", parts).ok_or_else(|| "nothing".to_owned())
}

fn term(words: Words<'_, '_>) -> Result<Value, String> {
    match take(words).ok_or("a term is missing")? {
        "not" => Ok(json!({"not": [term(words)?]})),
        "(" => {
            let inner = either(words)?;
            if take(words) == Some(")") { Ok(inner) } else { Err("a parenthesis is not closed".to_owned()) }
        }
        word @ (")" | "and" | "or") => Err(format!("unexpected '{word}'")),
        word => match word.strip_prefix('-') {
            Some(negated) => Ok(json!({"not": [simple(negated)]})),
            None => Ok(simple(word)),
        },
    }
}

fn simple(word: &str) -> Value {
    match word.split_once(':') {
        Some(("hosts" | "host" | "hostlist", hosts)) => json!({"hostlist": [hosts]}),
        Some(("ranks" | "rank", ranks)) => json!({"ranks": [ranks]}),
        Some((operator, value)) => json!({operator: [value]}),
        None => json!({"properties": [word]}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Option<Value>, String> {
        parse(&[text.to_owned()])
    }

    #[test]
    fn terms_and_operators() {
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(one("hosts:vm"), Ok(Some(json!({"hostlist": ["vm"]}))));
        assert_eq!(one("nosuchprop"), Ok(Some(json!({"properties": ["nosuchprop"]}))));
        assert_eq!(one("-ranks:0"), Ok(Some(json!({"not": [{"ranks": ["0"]}]}))));
        assert_eq!(
            one("a (b|not c)"),
            Ok(Some(
                json!({"and": [{"properties": ["a"]}, {"or": [{"properties": ["b"]}, {"not": [{"properties": ["c"]}]}]}]})
            ))
        );
        assert_eq!(
            parse(&["a".into(), "b".into()]),
            Ok(Some(json!({"and": [{"properties": ["a"]}, {"properties": ["b"]}]})))
        );
    }

    #[test]
    fn errors_show_the_text() {
        for text in ["", "(a", "a)", "and", "not"] {
            let error = one(text).unwrap_err();
            assert!(error.starts_with("--requires: ") && error.contains(text), "{error}");
        }
    }
}
