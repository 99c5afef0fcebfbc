//! Frames of a TCP stream (RFC 6587), decided anew for each frame.
//!
//! `LEN SP <...` with LEN of at most seven digits is octet-counted; anything else ends at LF or NUL. That is what senders do: rsyslog in both
//! framings, `logger` with and without `--octet-count`, Python's `SysLogHandler` with its NUL. A text line that begins with a number is not
//! taken for a count, because a counted message begins with `<`.

/// Default bound of a frame; rsyslog's `maxFrameSize`.
pub const FRAME_BYTES_MAX: usize = 200_000;
const LENGTH_DIGITS_MAX: usize = 7;

/// One frame, borrowed from the input or from the decoder. Never empty, without its terminator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The message; at most `frame_bytes_max` long.
    pub bytes: &'a [u8],
    /// The sender wrote more than that, or hung up in the middle of a counted frame.
    pub truncated: bool,
}

/// Cuts a stream into frames, however it was split into reads. Holds at most `frame_bytes_max` bytes.
#[derive(Debug)]
pub struct Decoder {
    frame_bytes_max: usize,
    /// What came of the current frame so far; its undecided head in `Head`.
    carry: Vec<u8>,
    state: State,
    truncated: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Between frames, or `carry` holds a prefix of `LEN SP <`.
    Head,
    /// `left` bytes of a counted frame are still to come; at least one.
    Counted { left: usize },
    /// Until LF or NUL.
    Line,
}

#[derive(Debug, PartialEq, Eq)]
enum Head {
    Undecided,
    Counted { length: usize, header: usize },
    Line,
}

/// What the first bytes of a frame say about it.
fn head(bytes: &[u8]) -> Head {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > LENGTH_DIGITS_MAX || (digits == 0 && !bytes.is_empty()) || bytes.first() == Some(&b'0') {
        return Head::Line;
    }
    match bytes[digits..] {
        [] | [b' '] => Head::Undecided,
        [b' ', b'<', ..] => {
            let length = bytes[..digits].iter().fold(0, |n, b| n * 10 + usize::from(b - b'0'));
            Head::Counted { length, header: digits + 1 }
        }
        _ => Head::Line,
    }
}

fn is_end(byte: u8) -> bool {
    byte == b'\n' || byte == 0
}

impl Decoder {
    /// A decoder whose frames are cut at `frame_bytes_max` bytes, at least 480 (RFC 5424, 6.1).
    pub fn new(frame_bytes_max: usize) -> Decoder {
        Decoder {
            frame_bytes_max: frame_bytes_max.max(480),
            carry: Vec::new(),
            state: State::Head,
            truncated: false,
        }
    }

    /// Takes what was read and gives every frame that is complete with it.
    pub fn feed(&mut self, mut input: &[u8], emit: &mut dyn FnMut(Frame<'_>)) {
        while !input.is_empty() {
            let taken = match self.state {
                State::Head => self.feed_head(input),
                State::Counted { left } => self.feed_counted(left, input, emit),
                State::Line => self.feed_line(input, emit),
            };
            input = &input[taken..];
        }
    }

    /// The stream has ended: what is left is the last line without its newline, or a torn counted frame.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Frame<'_>)) {
        self.truncated |= matches!(self.state, State::Counted { .. });
        self.emit_carry(emit);
    }

    fn feed_head(&mut self, input: &[u8]) -> usize {
        if self.carry.is_empty() && is_end(input[0]) {
            return 1; // an empty line, or the newline that some senders put after a counted frame
        }
        let had = self.carry.len();
        for (at, byte) in input.iter().enumerate() {
            self.carry.push(*byte);
            match head(&self.carry) {
                Head::Undecided => {}
                Head::Counted { length, header } => {
                    self.carry.clear();
                    self.state = State::Counted { left: length };
                    return header - had; // `<` is the first byte of the message
                }
                Head::Line => {
                    self.carry.truncate(had);
                    self.carry.extend_from_slice(&input[..at]);
                    self.state = State::Line;
                    return at; // the deciding byte may be the terminator
                }
            }
        }
        input.len()
    }

    fn feed_counted(&mut self, left: usize, input: &[u8], emit: &mut dyn FnMut(Frame<'_>)) -> usize {
        let taken = left.min(input.len());
        if taken < left {
            self.keep(&input[..taken]);
            self.state = State::Counted { left: left - taken };
        } else {
            self.complete(&input[..taken], emit);
        }
        taken
    }

    fn feed_line(&mut self, input: &[u8], emit: &mut dyn FnMut(Frame<'_>)) -> usize {
        let Some(end) = input.iter().position(|b| is_end(*b)) else {
            self.keep(input);
            return input.len();
        };
        self.complete(&input[..end], emit);
        end + 1
    }

    /// The current frame ends with `tail`. Without a carry it is given without a copy.
    fn complete(&mut self, tail: &[u8], emit: &mut dyn FnMut(Frame<'_>)) {
        if self.carry.is_empty() {
            let cut = &tail[..tail.len().min(self.frame_bytes_max)];
            emit_frame(cut, cut.len() < tail.len(), emit);
            self.state = State::Head;
        } else {
            self.keep(tail);
            self.emit_carry(emit);
        }
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = self.frame_bytes_max.saturating_sub(self.carry.len());
        self.truncated |= bytes.len() > room;
        self.carry.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn emit_carry(&mut self, emit: &mut dyn FnMut(Frame<'_>)) {
        emit_frame(&self.carry, self.truncated, emit);
        self.carry.clear();
        self.truncated = false;
        self.state = State::Head;
    }
}

/// Gives the frame without the CR of a CRLF, or the newline that some senders count; unless nothing is left.
fn emit_frame(bytes: &[u8], truncated: bool, emit: &mut dyn FnMut(Frame<'_>)) {
    let length = bytes.iter().rposition(|b| !matches!(b, b'\r' | b'\n' | 0)).map_or(0, |last| last + 1);
    let bytes = &bytes[..length];
    if !bytes.is_empty() {
        emit(Frame { bytes, truncated });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]], max: usize) -> Vec<(String, bool)> {
        let mut decoder = Decoder::new(max);
        let mut frames = Vec::new();
        let mut emit =
            |f: Frame<'_>| frames.push((String::from_utf8_lossy(f.bytes).into_owned(), f.truncated));
        for chunk in chunks {
            decoder.feed(chunk, &mut emit);
        }
        decoder.finish(&mut emit);
        frames
    }

    fn whole(input: &[u8]) -> Vec<String> {
        decode(&[input], FRAME_BYTES_MAX).into_iter().map(|(text, _)| text).collect()
    }

    #[test]
    fn framings_may_change_from_frame_to_frame() {
        let input = b"<13>one\n11 <13>two\nbis<13>three\0\r\n\n6 <13>z\n\n<13>last";
        assert_eq!(whole(input), ["<13>one", "<13>two\nbis", "<13>three", "<13>z", "<13>last"]);
    }

    #[test]
    fn a_line_that_begins_with_a_number_is_a_line() {
        let input = b"134681 node-246 unix.hw\r\n12345678 <13>x\n0 <13>y\n12<13>\n7\n";
        assert_eq!(whole(input), ["134681 node-246 unix.hw", "12345678 <13>x", "0 <13>y", "12<13>", "7"]);
    }

    #[test]
    fn overlong_frames_are_cut_and_the_next_is_whole() {
        let long = "x".repeat(600);
        let input = format!("{long}\n<1>a\n{} <1>{long}<1>b\n", long.len() + 3);
        let frames = decode(&[input.as_bytes()], 480);
        assert_eq!(
            frames.iter().map(|(t, cut)| (t.len(), *cut)).collect::<Vec<_>>(),
            [(480, true), (4, false), (480, true), (4, false)]
        );
    }

    #[test]
    fn a_torn_counted_frame_is_given_as_truncated() {
        assert_eq!(decode(&[b"20 <13>half"], 480), [("<13>half".to_owned(), true)]);
    }

    proptest! {
        #[test]
        fn splitting_changes_nothing(
            parts in prop::collection::vec("(<13>[a-z ]{0,8}(\n|\0|\r\n))|([1-9][0-9]{0,2} <)|[0-9]{1,9}|\n|x{300}", 1..30),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let input = parts.concat().into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
            at.extend([0, input.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|w| &input[w[0]..w[1]]).collect();
            let bytewise: Vec<&[u8]> = input.chunks(1).collect();
            let expected = decode(&[&input], 480);
            prop_assert_eq!(&decode(&chunks, 480), &expected);
            prop_assert_eq!(&decode(&bytewise, 480), &expected);
        }

        #[test]
        fn counted_frames_come_back(texts in prop::collection::vec("<[\\PC\n]{0,40}[a-z]", 1..20)) {
            let frames: Vec<String> = texts.iter().map(|t| format!("{} {t}", t.len())).collect();
            prop_assert_eq!(whole(frames.concat().as_bytes()), texts);
        }
    }
}
