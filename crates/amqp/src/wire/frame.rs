//! Frames: a 7-octet head, a payload, one end octet (specification 2.3.5 and 4.2.3).

use bytes::{BufMut, Bytes, BytesMut};

use super::method::{BasicDeliver, BasicGetOk, BasicReturn, Method};
use super::reader::{Reader, put_short};
use super::short::ShortStr;
use super::{BASIC_CLASS, MethodId};

/// What a client sends first: `AMQP`, 0, 0, 9, 1.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The octet after every payload.
pub const FRAME_END: u8 = 0xCE;

/// Octets of a frame besides its payload: type, channel, size, end.
pub const FRAME_OVERHEAD: usize = 8;

const HEAD: usize = 7;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A method (type 1).
    Method,
    /// A content header (type 2).
    Header,
    /// A part of a content body (type 3).
    Body,
    /// A heartbeat (type 8).
    Heartbeat,
}

impl FrameKind {
    fn from_octet(octet: u8) -> Option<Self> {
        match octet {
            1 => Some(Self::Method),
            2 => Some(Self::Header),
            3 => Some(Self::Body),
            8 => Some(Self::Heartbeat),
            _ => None,
        }
    }
}

/// One received frame, a view into its batch.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// The channel; 0 is the connection itself.
    pub channel: u16,
    bytes: &'a Bytes,
    start: usize,
    end: usize,
}

impl<'a> Frame<'a> {
    /// A cursor over the payload.
    pub fn reader(&self) -> Reader<'a> {
        Reader::within(self.bytes, self.start, self.end)
    }

    /// The payload, sharing the batch's buffer.
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(self.start..self.end)
    }

    /// The payload, borrowed.
    pub fn octets(&self) -> &'a [u8] {
        &self.bytes[self.start..self.end]
    }
}

/// Bytes that are not a frame. The text is `RabbitMQ`'s, to be prefixed with `FRAME_ERROR - `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The octet after the payload is not [`FRAME_END`].
    #[error("type {kind}, {octets}: {{invalid_frame_end_marker,{found}}}")]
    End {
        /// The frame's type octet.
        kind: u8,
        /// The payload as Erlang prints it.
        octets: String,
        /// The octet found.
        found: u8,
    },
    /// A type octet that the specification does not have.
    #[error("type {kind}, {octets}: unknown_frame")]
    Kind {
        /// The frame's type octet.
        kind: u8,
        /// The payload as Erlang prints it.
        octets: String,
    },
    /// A payload larger than negotiated.
    #[error("type {kind}, {octets}: {{frame_too_large,{size},{max}}}")]
    TooLarge {
        /// The frame's type octet.
        kind: u8,
        /// The first octets of the payload as Erlang prints them.
        octets: String,
        /// Octets announced.
        size: u32,
        /// Octets allowed.
        max: u32,
    },
}

/// How many octets of `buffer` are whole frames, and the error that follows them, if any.
///
/// `frame_max` is the negotiated frame size with its overhead. Only the frames' heads and ends are looked at.
pub fn complete_frames(buffer: &[u8], frame_max: u32) -> (usize, Option<FrameError>) {
    let payload_max = frame_max - FRAME_OVERHEAD as u32;
    let mut at = 0;
    while let Some(head) = buffer.get(at..at + HEAD) {
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let rest = &buffer[at + HEAD..];
        if FrameKind::from_octet(head[0]).is_none() {
            let octets = erlang_octets(&rest[..rest.len().min(size as usize)]);
            return (at, Some(FrameError::Kind { kind: head[0], octets }));
        }
        if size > payload_max {
            let octets = erlang_octets(&rest[..rest.len().min(size as usize)]);
            return (at, Some(FrameError::TooLarge { kind: head[0], octets, size, max: payload_max }));
        }
        let Some(&end) = rest.get(size as usize) else { break };
        if end != FRAME_END {
            let octets = erlang_octets(&rest[..size as usize]);
            return (at, Some(FrameError::End { kind: head[0], octets, found: end }));
        }
        at += HEAD + size as usize + 1;
    }
    (at, None)
}

/// Octets as `RabbitMQ` shows them: all up to 16, else the first 16.
fn erlang_octets(octets: &[u8]) -> String {
    let which = if octets.len() > 16 { "first 16" } else { "all" };
    format!("{which} octets = {}", erlang_binary(&octets[..octets.len().min(16)]))
}

/// Octets as an Erlang binary: `<<0,20>>`.
pub(crate) fn erlang_binary(octets: &[u8]) -> String {
    let items: Vec<String> = octets.iter().map(u8::to_string).collect();
    format!("<<{}>>", items.join(","))
}

/// Whole frames, checked by [`complete_frames`], read one after the other.
#[derive(Debug)]
pub struct FrameBatch {
    bytes: Bytes,
    at: usize,
}

impl FrameBatch {
    /// `bytes` are exactly what [`complete_frames`] counted.
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next frame.
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        let head = self.bytes.get(self.at..self.at + HEAD)?;
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let kind = FrameKind::from_octet(head[0])?;
        let channel = u16::from_be_bytes([head[1], head[2]]);
        let start = self.at + HEAD;
        let end = start + size;
        if end >= self.bytes.len() {
            return None;
        }
        self.at = end + 1;
        Some(Frame { kind, channel, bytes: &self.bytes, start, end })
    }
}

/// Appends a frame whose payload `fill` writes.
fn frame(to: &mut BytesMut, kind: u8, channel: u16, fill: impl FnOnce(&mut BytesMut)) {
    to.put_u8(kind);
    to.put_u16(channel);
    let at = to.len();
    to.put_u32(0);
    fill(to);
    let size = u32::try_from(to.len() - at - 4).expect("a frame that we build is small");
    to[at..at + 4].copy_from_slice(&size.to_be_bytes());
    to.put_u8(FRAME_END);
}

/// Appends a method frame.
pub fn encode_method(to: &mut BytesMut, channel: u16, method: &Method) {
    frame(to, 1, channel, |to| method.put(to));
}

/// Appends a heartbeat frame.
pub fn encode_heartbeat(to: &mut BytesMut) {
    frame(to, 8, 0, |_| {});
}

/// Appends a content header frame; `properties` as [`super::Properties::encode`] makes them.
pub fn encode_header(to: &mut BytesMut, channel: u16, body_size: u64, properties: &[u8]) {
    frame(to, 2, channel, |to| {
        to.put_u16(BASIC_CLASS);
        to.put_u16(0);
        to.put_u64(body_size);
        to.put_slice(properties);
    });
}

/// Appends the body frames, cut to the receiver's `frame_max`; none for an empty body.
pub fn encode_body(to: &mut BytesMut, channel: u16, body: &[u8], frame_max: u32) {
    for part in body.chunks(frame_max as usize - FRAME_OVERHEAD) {
        frame(to, 3, channel, |to| to.put_slice(part));
    }
}

fn put_id(to: &mut BytesMut, id: MethodId) {
    to.put_u16(id.class);
    to.put_u16(id.method);
}

/// Appends `basic.deliver` without building a [`Method`] first: this runs once per message.
pub fn encode_deliver(
    to: &mut BytesMut,
    channel: u16,
    consumer_tag: &ShortStr,
    delivery_tag: u64,
    redelivered: bool,
    (exchange, routing_key): (&ShortStr, &ShortStr),
) {
    frame(to, 1, channel, |to| {
        put_id(to, BasicDeliver::ID);
        put_short(to, consumer_tag.as_bytes());
        to.put_u64(delivery_tag);
        to.put_u8(u8::from(redelivered));
        put_short(to, exchange.as_bytes());
        put_short(to, routing_key.as_bytes());
    });
}

/// Appends `basic.get-ok`.
pub fn encode_get_ok(
    to: &mut BytesMut,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    (exchange, routing_key): (&ShortStr, &ShortStr),
    message_count: u32,
) {
    frame(to, 1, channel, |to| {
        put_id(to, BasicGetOk::ID);
        to.put_u64(delivery_tag);
        to.put_u8(u8::from(redelivered));
        put_short(to, exchange.as_bytes());
        put_short(to, routing_key.as_bytes());
        to.put_u32(message_count);
    });
}

/// Appends `basic.return`.
pub fn encode_return(
    to: &mut BytesMut,
    channel: u16,
    (code, text): (u16, &'static str),
    (exchange, routing_key): (&ShortStr, &ShortStr),
) {
    frame(to, 1, channel, |to| {
        put_id(to, BasicReturn::ID);
        to.put_u16(code);
        put_short(to, text.as_bytes());
        put_short(to, exchange.as_bytes());
        put_short(to, routing_key.as_bytes());
    });
}
