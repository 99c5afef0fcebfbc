//! The layout that a command line asks for: `-c`, `-S`, `-i`, and `-E` that begins the next component.

use std::num::ParseIntError;

use kiln_fs::core::layout::{END, Part, PartKind, Stripes};
use kiln_fs::core::{OstIndex, Spread};
use kiln_types::ByteSize;

use super::Fail;

/// Stripes where neither the command line nor the default says how large they are.
const STRIPE_BYTES: u32 = 1 << 20;

/// What the words of `setstripe` or `migrate` say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Each component, as far as it was said.
    components: Vec<Component>,
    /// `-d`: the directory shall have no default of its own.
    pub delete: bool,
    /// The rest of the words.
    pub paths: Vec<String>,
}

/// One component, as far as it was said.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Component {
    end: Option<u64>,
    count: Count,
    stripe_bytes: Option<u32>,
    first: Option<OstIndex>,
    inline: bool,
}

/// How many stripes were asked for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Count {
    /// Nothing was said.
    #[default]
    Unsaid,
    /// One on each OST.
    All,
    /// So many.
    This(u16),
}

impl Wanted {
    /// Reads the words; values may follow their option as the next word, behind `=`, or without a blank (`-c2`).
    pub(super) fn parse(words: &[String]) -> Result<Wanted, Fail> {
        let mut wanted = Wanted::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some((option, glued)) = split(word) else {
                wanted.paths.push(word.clone());
                continue;
            };
            if matches!(option, "d" | "delete") {
                wanted.delete = true;
                continue;
            }
            let value = glued.map(str::to_owned).or_else(|| words.next().cloned());
            let value = value.ok_or_else(|| Fail::usage(format!("option '{word}' needs a value")))?;
            wanted.take(option, &value)?;
        }
        if wanted.paths.is_empty() {
            return Err(Fail::usage("a path is needed"));
        }
        Ok(wanted)
    }

    fn take(&mut self, option: &str, value: &str) -> Result<(), Fail> {
        let bad = |what: &str| Fail::usage(format!("invalid {what} '{value}'"));
        if matches!(option, "E" | "component-end" | "comp-end") {
            let end = end_of(value).ok_or_else(|| bad("component end"))?;
            // What was said before the first -E has no component to be for.
            if self.components.iter().any(|component| component.end.is_none()) {
                return Err(Fail::usage("-E comes before the options of its component"));
            }
            self.components.push(Component { end: Some(end), ..Component::default() });
            return Ok(());
        }
        if self.components.is_empty() {
            self.components.push(Component::default());
        }
        let component = self.components.last_mut().expect("one was just added");
        match option {
            "c" | "stripe-count" => component.count = count_of(value).ok_or_else(|| bad("stripe count"))?,
            "S" | "stripe-size" => {
                let size = value.parse::<ByteSize>().ok().and_then(|size| u32::try_from(size.0).ok());
                component.stripe_bytes = Some(size.ok_or_else(|| bad("stripe size"))?);
            }
            "i" | "stripe-index" => {
                component.first = first_of(value).map_err(|_| bad("OST index"))?;
            }
            "L" | "layout" => match value {
                "mdt" => component.inline = true,
                "raid0" => {}
                _ => return Err(bad("layout")),
            },
            _ => return Err(Fail::usage(format!("unrecognized option '-{option}'"))),
        }
        Ok(())
    }

    /// Whether any layout was asked for.
    pub(super) fn says_layout(&self) -> bool {
        !self.components.is_empty()
    }

    /// The layout; what was not said of a component is as in the one before it, and then as in `default`.
    pub(super) fn spread(&self, default: &Spread) -> Result<Spread, Fail> {
        let mut before = striped(default);
        let mut parts = Vec::new();
        for component in &self.components {
            let end = component.end.unwrap_or(END);
            if component.inline {
                parts.push(Part { end, kind: PartKind::Inline });
                continue;
            }
            let (size, stripes) = before;
            let stripe_bytes = component.stripe_bytes.filter(|bytes| *bytes > 0).unwrap_or(size);
            let stripes = Stripes { count: component.count.or(stripes.count), first: component.first };
            before = (stripe_bytes, stripes);
            parts.push(Part { end, kind: PartKind::Raid0 { stripe_bytes, stripes } });
        }
        let spread = Spread { parts };
        spread.check().map_err(Fail::failed)?;
        Ok(spread)
    }
}

/// The stripes of the last striped part.
fn striped(spread: &Spread) -> (u32, Stripes) {
    let found = spread.parts.iter().rev().find_map(|part| match part.kind {
        PartKind::Raid0 { stripe_bytes, stripes } => Some((stripe_bytes, stripes)),
        PartKind::Inline => None,
    });
    found.unwrap_or((STRIPE_BYTES, Stripes { count: Some(1), first: None }))
}

/// An option and the value that is glued to it; `None` for a word that is no option.
pub(super) fn split(word: &str) -> Option<(&str, Option<&str>)> {
    if let Some(long) = word.strip_prefix("--") {
        return Some(long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value))));
    }
    let short = word.strip_prefix('-').filter(|rest| !rest.is_empty())?;
    let end = short.char_indices().nth(1).map_or(short.len(), |(at, _)| at);
    let (option, value) = short.split_at(end);
    Some((option, (!value.is_empty()).then_some(value)))
}

/// `-1`, `EOF` and `eof` are the end of the file.
fn end_of(value: &str) -> Option<u64> {
    match value {
        "-1" | "EOF" | "eof" => Some(END),
        size => size.parse::<ByteSize>().ok().map(|size| size.0).filter(|end| *end > 0),
    }
}

impl Count {
    fn or(self, before: Option<u16>) -> Option<u16> {
        match self {
            Count::Unsaid => before,
            Count::All => None,
            Count::This(count) => Some(count),
        }
    }
}

/// `-1` is all OSTs, and 0 what the filesystem has as its default, which is all of them too.
fn count_of(value: &str) -> Option<Count> {
    match value {
        "-1" | "0" => Some(Count::All),
        count => count.parse().ok().map(Count::This),
    }
}

/// `-1` lets the MDS choose.
fn first_of(value: &str) -> Result<Option<OstIndex>, ParseIntError> {
    match value {
        "-1" => Ok(None),
        index => index.parse().map(|index| Some(OstIndex(index))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Wanted, Fail> {
        Wanted::parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    fn default() -> Spread {
        Spread::plain(65_536, 1 << 20, Stripes { count: None, first: None })
    }

    fn raid0(end: u64, stripe_bytes: u32, count: Option<u16>) -> Part {
        Part { end, kind: PartKind::Raid0 { stripe_bytes, stripes: Stripes { count, first: None } } }
    }

    #[test]
    fn a_plain_layout_takes_the_rest_from_the_default() {
        let wanted = parse("-c 2 -S 128K F").unwrap();
        assert_eq!(wanted.paths, ["F"]);
        assert_eq!(wanted.spread(&default()).unwrap().parts, [raid0(END, 128 << 10, Some(2))]);
        assert_eq!(parse("-c2 F").unwrap().spread(&default()).unwrap().parts, [raid0(END, 1 << 20, Some(2))]);
        let long = parse("--stripe-count=-1 --stripe-size 2M F").unwrap();
        assert_eq!(long.spread(&default()).unwrap().parts, [raid0(END, 2 << 20, None)]);
    }

    #[test]
    fn components_follow_each_other() {
        let parts =
            parse("-E 4M -c 1 -E 64M -c 4 -E -1 -c -1 -S 4M F").unwrap().spread(&default()).unwrap().parts;
        let expected =
            [raid0(4 << 20, 1 << 20, Some(1)), raid0(64 << 20, 1 << 20, Some(4)), raid0(END, 4 << 20, None)];
        assert_eq!(parts, expected);
        let inline = parse("-E 1M -L mdt -E -1 -c 2 F").unwrap().spread(&default()).unwrap().parts;
        assert_eq!(inline, [Part { end: 1 << 20, kind: PartKind::Inline }, raid0(END, 1 << 20, Some(2))]);
    }

    #[test]
    fn what_cannot_be_is_told() {
        for line in ["-c x F", "-S 1Q F", "-c 2", "-q 1 F", "-c 1 -E 1M F", "F -c"] {
            assert!(matches!(parse(line), Err(Fail::Usage(_))), "{line}");
        }
        for line in ["-S 100 F", "-E 4M -c 1 F", "-E 4M -E 2M -E -1 F"] {
            assert!(matches!(parse(line).unwrap().spread(&default()), Err(Fail::Failed(_))), "{line}");
        }
        assert!(!parse("F").unwrap().says_layout());
    }
}
