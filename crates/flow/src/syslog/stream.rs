//! One TCP port for plain syslog and RELP: the first frame tells.

use super::framing;
use super::relp;

/// What came out of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A plain syslog frame.
    Syslog(framing::Frame<'a>),
    /// A RELP frame.
    Relp(relp::Frame<'a>),
}

/// Decodes a stream of either kind.
#[derive(Debug)]
pub struct Decoder {
    frame_bytes_max: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// What was read so far is a prefix of `DIGITS SP open SP`; at most that long.
    Undecided(Vec<u8>),
    Syslog(framing::Decoder),
    Relp(relp::Decoder),
}

/// Whether a stream that begins like this is RELP; `None` when more is needed to tell.
fn is_relp(start: &[u8]) -> Option<bool> {
    const DIGITS_MAX: usize = 9;
    const OPEN: &[u8] = b" open ";
    let digits = start.iter().take_while(|b| b.is_ascii_digit()).count();
    let rest = &start[digits..];
    if digits > DIGITS_MAX || (digits == 0 && !rest.is_empty()) {
        return Some(false);
    }
    if rest.len() >= OPEN.len() {
        return Some(rest.starts_with(OPEN));
    }
    if OPEN.starts_with(rest) { None } else { Some(false) }
}

impl Decoder {
    /// A decoder whose frames are cut at `frame_bytes_max` bytes.
    pub fn new(frame_bytes_max: usize) -> Decoder {
        Decoder { frame_bytes_max, kind: Kind::Undecided(Vec::new()) }
    }

    /// Takes what was read. An error (RELP only) means that the connection is to be closed.
    pub fn feed(&mut self, input: &[u8], emit: &mut dyn FnMut(Item<'_>)) -> Result<(), relp::Malformed> {
        match &mut self.kind {
            Kind::Syslog(decoder) => {
                decoder.feed(input, &mut |frame| emit(Item::Syslog(frame)));
                Ok(())
            }
            Kind::Relp(decoder) => decoder.feed(input, &mut |frame| emit(Item::Relp(frame))),
            Kind::Undecided(start) => {
                start.extend_from_slice(input);
                let Some(relp) = is_relp(start) else { return Ok(()) };
                let start = std::mem::take(start);
                self.decide(relp);
                self.feed(&start, emit)
            }
        }
    }

    /// The stream has ended.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Item<'_>)) {
        if let Kind::Undecided(start) = &mut self.kind {
            let start = std::mem::take(start);
            let mut decoder = framing::Decoder::new(self.frame_bytes_max);
            decoder.feed(&start, &mut |frame| emit(Item::Syslog(frame)));
            self.kind = Kind::Syslog(decoder);
        }
        if let Kind::Syslog(decoder) = &mut self.kind {
            decoder.finish(&mut |frame| emit(Item::Syslog(frame)));
        }
    }

    fn decide(&mut self, relp: bool) {
        self.kind = if relp {
            Kind::Relp(relp::Decoder::new(self.frame_bytes_max))
        } else {
            Kind::Syslog(framing::Decoder::new(self.frame_bytes_max))
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(chunks: &[&[u8]]) -> Vec<&'static str> {
        let mut decoder = Decoder::new(480);
        let mut kinds = Vec::new();
        let mut emit =
            |item: Item<'_>| kinds.push(if matches!(item, Item::Relp(_)) { "relp" } else { "plain" });
        for chunk in chunks {
            decoder.feed(chunk, &mut emit).unwrap();
        }
        decoder.finish(&mut emit);
        kinds
    }

    #[test]
    fn the_first_frame_tells() {
        assert_eq!(kinds(&[b"1 open 1 x\n2 syslog 1 y\n"]), ["relp", "relp"]);
        assert_eq!(kinds(&[b"1", b" op", b"en 1 x\n"]), ["relp"]);
        assert_eq!(kinds(&[b"5 <1>x5 <1>y"]), ["plain", "plain"]);
        assert_eq!(kinds(&[b"1 opening hours\n", b"<13>x\n"]), ["plain", "plain"]);
        assert_eq!(kinds(&[b"1 open"]), ["plain"]);
        assert_eq!(kinds(&[b"text\n"]), ["plain"]);
    }
}
