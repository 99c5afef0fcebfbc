//! RELP, the syslog transport with acknowledgements (librelp's `doc/relp.html`): `TXNR SP COMMAND SP LENGTH [SP DATA] LF`.
//!
//! Here are frames, the receiver's answers, and the sender's window; sockets are elsewhere. A receiver answers `200 OK` only when the message is
//! safe; a sender keeps every message until then, and after a lost connection sends those again under new numbers.

use std::collections::VecDeque;

const NUMBER_DIGITS_MAX: usize = 9;
const COMMAND_BYTES_MAX: usize = 32;
/// Longest `TXNR SP COMMAND SP LENGTH SP`.
const HEADER_BYTES_MAX: usize = NUMBER_DIGITS_MAX * 2 + COMMAND_BYTES_MAX + 3;
const TXNR_MAX: u32 = 999_999_999;
const OFFER: &str =
    concat!("relp_version=0\nrelp_software=kiln,", env!("CARGO_PKG_VERSION"), "\ncommands=syslog");

/// A transaction number; 0 is for hints without an answer, and sessions count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Txnr(pub u32);

impl Txnr {
    fn next(self) -> Txnr {
        Txnr(if self.0 >= TXNR_MAX { 1 } else { self.0 + 1 })
    }
}

/// A frame, borrowed from the input or from the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its transaction.
    pub txnr: Txnr,
    /// `open`, `syslog`, `close`, `rsp` or a hint.
    pub command: &'a str,
    /// At most `frame_bytes_max` long.
    pub data: &'a [u8],
    /// More data was sent than that.
    pub truncated: bool,
}

/// The peer does not speak RELP: the connection is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The header does not follow the grammar.
    #[error("malformed RELP header")]
    Header,
    /// No LF after the announced data.
    #[error("RELP frame does not end where its length says")]
    Trailer,
}

/// Cuts a RELP stream into frames. Holds at most `frame_bytes_max` and a header.
#[derive(Debug)]
pub struct Decoder {
    frame_bytes_max: usize,
    header: Vec<u8>,
    /// Spaces in `header`.
    spaces: u8,
    data: Vec<u8>,
    /// Set while data is awaited.
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    txnr: Txnr,
    command: String,
    length: usize,
    /// Bytes of data still to come; at 0 the LF is awaited.
    left: usize,
}

impl Decoder {
    /// A decoder that keeps at most `frame_bytes_max` bytes of a frame's data.
    pub fn new(frame_bytes_max: usize) -> Decoder {
        Decoder { frame_bytes_max, header: Vec::new(), spaces: 0, data: Vec::new(), pending: None }
    }

    /// Takes what was read and gives every frame that is complete with it. After an error the stream is of no further use.
    pub fn feed(&mut self, mut input: &[u8], emit: &mut dyn FnMut(Frame<'_>)) -> Result<(), Malformed> {
        while !input.is_empty() {
            let taken =
                if self.pending.is_some() { self.feed_data(input, emit)? } else { self.feed_header(input)? };
            input = &input[taken..];
        }
        Ok(())
    }

    fn feed_header(&mut self, input: &[u8]) -> Result<usize, Malformed> {
        for (at, byte) in input.iter().enumerate() {
            // The third separator ends the header: a space before data, or the LF of a frame without any.
            if self.spaces == 2 && (*byte == b' ' || *byte == b'\n') {
                let pending = parse_header(&self.header).ok_or(Malformed::Header)?;
                let lacks_data = *byte == b'\n' && pending.length > 0;
                self.header.clear();
                self.spaces = 0;
                self.pending = Some(pending);
                return if lacks_data { Err(Malformed::Header) } else { Ok(at + usize::from(*byte == b' ')) };
            }
            if *byte == b'\n' || self.header.len() >= HEADER_BYTES_MAX {
                return Err(Malformed::Header);
            }
            self.spaces += u8::from(*byte == b' ');
            self.header.push(*byte);
        }
        Ok(input.len())
    }

    fn feed_data(&mut self, input: &[u8], emit: &mut dyn FnMut(Frame<'_>)) -> Result<usize, Malformed> {
        let Some(pending) = &mut self.pending else { return Ok(0) };
        let taken = pending.left.min(input.len());
        pending.left -= taken;
        // A frame that lies in the input whole is given without a copy.
        let copied = if input.len() > taken && self.data.is_empty() && taken == pending.length {
            None
        } else {
            let room = self.frame_bytes_max.saturating_sub(self.data.len());
            self.data.extend_from_slice(&input[..taken.min(room)]);
            Some(&self.data)
        };
        let Some(end) = input.get(taken) else { return Ok(taken) };
        if *end != b'\n' {
            return Err(Malformed::Trailer);
        }
        let data = copied.map_or(&input[..taken.min(self.frame_bytes_max)], |data| data);
        let truncated = data.len() < pending.length;
        emit(Frame { txnr: pending.txnr, command: &pending.command, data, truncated });
        self.data.clear();
        self.pending = None;
        Ok(taken + 1)
    }
}

fn parse_header(header: &[u8]) -> Option<Pending> {
    let mut fields = std::str::from_utf8(header).ok()?.split(' ');
    let (txnr, command, length) = (number(fields.next()?)?, fields.next()?, number(fields.next()?)?);
    let named = (1..=COMMAND_BYTES_MAX).contains(&command.len())
        && command.bytes().all(|b| b.is_ascii_alphanumeric());
    let length = length as usize;
    named.then(|| Pending { txnr: Txnr(txnr), command: command.to_owned(), length, left: length })
}

fn number(text: &str) -> Option<u32> {
    let valid = (1..=NUMBER_DIGITS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| text.parse().ok())?
}

/// Appends a frame to `out`.
pub fn encode(txnr: Txnr, command: &str, data: &[u8], out: &mut Vec<u8>) {
    let space = if data.is_empty() { "" } else { " " };
    out.extend_from_slice(format!("{} {command} {}{space}", txnr.0, data.len()).as_bytes());
    out.extend_from_slice(data);
    out.push(b'\n');
}

/// Appends `200 OK` for a message that is safe.
pub fn acknowledge(txnr: Txnr, out: &mut Vec<u8>) {
    encode(txnr, "rsp", b"200 OK", out);
}

/// What a receiver does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Answer with the offer that was appended.
    Open,
    /// A message: acknowledge it once it is safe.
    Syslog(Frame<'a>),
    /// The answer was appended: the peer leaves; send and close.
    Close,
    /// Not our command: the refusal was appended.
    Refused,
    /// A hint or an answer; nothing to do.
    Ignored,
}

/// Classifies a frame as a receiver, appending the answer to everything but a message.
pub fn receive<'a>(frame: Frame<'a>, out: &mut Vec<u8>) -> Request<'a> {
    match frame.command {
        "syslog" => Request::Syslog(frame),
        "open" => {
            encode(frame.txnr, "rsp", format!("200 OK\n{OFFER}").as_bytes(), out);
            Request::Open
        }
        "close" => {
            encode(frame.txnr, "rsp", b"", out);
            encode(Txnr(0), "serverclose", b"", out);
            Request::Close
        }
        "rsp" | "serverclose" => Request::Ignored,
        _ => {
            encode(frame.txnr, "rsp", b"500 unknown command", out);
            Request::Refused
        }
    }
}

/// The sender's side: numbers messages, keeps them until acknowledged, sends them again on a new connection.
#[derive(Debug)]
pub struct Sender<T> {
    window: usize,
    next: Txnr,
    opened: Option<Txnr>,
    /// In the order of sending; at most `window`.
    unacknowledged: VecDeque<(Txnr, T)>,
}

/// What an answer means to the sender.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// The session is open.
    Opened,
    /// This message is safe.
    Acknowledged(T),
    /// The receiver refused this message for good.
    Refused(T),
    /// The receiver leaves: connect again.
    Closing,
    /// Nothing of ours.
    Ignored,
}

impl<T: AsRef<[u8]>> Sender<T> {
    /// A sender with at most `window` messages on the way; at least 1.
    pub fn new(window: usize) -> Sender<T> {
        Sender { window: window.max(1), next: Txnr(1), opened: None, unacknowledged: VecDeque::new() }
    }

    /// A connection was made: appends `open`, and every unacknowledged message under a new number.
    pub fn connected(&mut self, out: &mut Vec<u8>) {
        self.next = Txnr(2);
        self.opened = Some(Txnr(1));
        encode(Txnr(1), "open", OFFER.as_bytes(), out);
        for (txnr, message) in &mut self.unacknowledged {
            *txnr = self.next;
            self.next = self.next.next();
            encode(*txnr, "syslog", message.as_ref(), out);
        }
    }

    /// Another message may be sent.
    pub fn has_room(&self) -> bool {
        self.unacknowledged.len() < self.window
    }

    /// Messages on the way.
    pub fn in_flight(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Appends a message and keeps it. The caller asked [`Sender::has_room`].
    pub fn send(&mut self, message: T, out: &mut Vec<u8>) {
        debug_assert!(self.has_room(), "the window bounds what is kept");
        encode(self.next, "syslog", message.as_ref(), out);
        self.unacknowledged.push_back((self.next, message));
        self.next = self.next.next();
    }

    /// Appends `close`.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        encode(self.next, "close", b"", out);
        self.next = self.next.next();
    }

    /// Takes an answer.
    pub fn answer(&mut self, frame: Frame<'_>) -> Answer<T> {
        match frame.command {
            "serverclose" => return Answer::Closing,
            "rsp" => {}
            _ => return Answer::Ignored,
        }
        let accepted = frame.data.starts_with(b"200");
        if self.opened == Some(frame.txnr) {
            self.opened = None;
            return if accepted { Answer::Opened } else { Answer::Closing };
        }
        let Some(at) = self.unacknowledged.iter().position(|(txnr, _)| *txnr == frame.txnr) else {
            return Answer::Ignored;
        };
        match self.unacknowledged.remove(at) {
            Some((_, message)) if accepted => Answer::Acknowledged(message),
            Some((_, message)) => Answer::Refused(message),
            None => Answer::Ignored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Seen = (u32, String, Vec<u8>, bool);

    fn decode(chunks: &[&[u8]], max: usize) -> (Vec<Seen>, Result<(), Malformed>) {
        let mut decoder = Decoder::new(max);
        let mut seen = Vec::new();
        let mut emit =
            |f: Frame<'_>| seen.push((f.txnr.0, f.command.to_owned(), f.data.to_vec(), f.truncated));
        let result = chunks.iter().try_for_each(|chunk| decoder.feed(chunk, &mut emit));
        (seen, result)
    }

    fn frame<'a>(txnr: u32, command: &'a str, data: &'a [u8]) -> Frame<'a> {
        Frame { txnr: Txnr(txnr), command, data, truncated: false }
    }

    #[test]
    fn a_session_as_librelp_writes_it() {
        let input = b"1 open 14 relp_version=0\n2 syslog 7 <13>a\nb\n3 close 0\n4 close 0 \n";
        let (seen, result) = decode(&[input], 480);
        assert_eq!(result, Ok(()));
        let heads: Vec<_> = seen.iter().map(|(n, c, d, _)| (*n, c.as_str(), d.len())).collect();
        assert_eq!(heads, [(1, "open", 14), (2, "syslog", 7), (3, "close", 0), (4, "close", 0)]);
        assert_eq!(seen[1].2, b"<13>a\nb");
    }

    #[test]
    fn wrong_frames_end_the_stream() {
        for (input, error) in [
            (&b"x syslog 1 a\n"[..], Malformed::Header),
            (b"1 syslog\n", Malformed::Header),
            (b"1 syslog 5\n", Malformed::Header),
            (b"1 syslog 1234567890 a", Malformed::Header),
            (b"1 sys/log 1 a\n", Malformed::Header),
            (b"1 syslog 1 ab\n", Malformed::Trailer),
            (b"1111111111111111111111111111111111111111111111111111111111111111111111", Malformed::Header),
        ] {
            assert_eq!(decode(&[input], 480).1, Err(error), "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn the_receiver_answers_all_but_messages() {
        let mut out = Vec::new();
        assert_eq!(receive(frame(1, "open", b"relp_version=0"), &mut out), Request::Open);
        assert!(
            out.starts_with(b"1 rsp ") && String::from_utf8_lossy(&out).contains(" 200 OK\nrelp_version=0\n")
        );
        out.clear();
        assert_eq!(receive(frame(3, "close", b""), &mut out), Request::Close);
        assert_eq!(out, b"3 rsp 0\n0 serverclose 0\n");
        out.clear();
        assert_eq!(receive(frame(4, "starttls", b""), &mut out), Request::Refused);
        assert!(matches!(receive(frame(5, "syslog", b"x"), &mut Vec::new()), Request::Syslog(_)));
        acknowledge(Txnr(7), &mut out);
        assert!(out.ends_with(b"7 rsp 6 200 OK\n"));
    }

    #[test]
    fn a_new_connection_repeats_what_was_not_acknowledged() {
        let mut sender = Sender::new(2);
        let mut out = Vec::new();
        sender.connected(&mut out);
        assert_eq!(sender.answer(frame(1, "rsp", b"200 OK\n")), Answer::Opened);
        sender.send("a", &mut out);
        sender.send("b", &mut out);
        assert!(!sender.has_room());
        assert_eq!(sender.answer(frame(2, "rsp", b"200 OK")), Answer::Acknowledged("a"));
        assert_eq!(sender.answer(frame(2, "rsp", b"200 OK")), Answer::Ignored);
        out.clear();
        sender.connected(&mut out);
        assert!(out.ends_with(b"2 syslog 1 b\n"), "{}", String::from_utf8_lossy(&out));
        assert_eq!(sender.answer(frame(1, "rsp", b"200 OK")), Answer::Opened);
        assert_eq!(sender.answer(frame(2, "rsp", b"500 no")), Answer::Refused("b"));
        assert_eq!(sender.answer(frame(0, "serverclose", b"")), Answer::Closing);
        assert_eq!(sender.in_flight(), 0);
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(
            frames in prop::collection::vec((1u32..999, prop::collection::vec(any::<u8>(), 0..40)), 1..12),
            junk in prop::option::of("[0-9a-z \n]{1,12}"),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut input = Vec::new();
            for (txnr, data) in &frames {
                encode(Txnr(*txnr), "syslog", data, &mut input);
            }
            input.extend_from_slice(junk.as_deref().unwrap_or("").as_bytes());
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            at.extend([0, input.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &input[w[0]..w[1]]).collect();
            let expected = decode(&[&input], 16);
            prop_assert!(expected.0.len() >= frames.len());
            prop_assert_eq!(&decode(&chunks, 16), &expected);
            prop_assert_eq!(&decode(&input.chunks(1).collect::<Vec<_>>(), 16), &expected);
        }
    }
}
