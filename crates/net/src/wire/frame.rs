//! Frame header and decoder; see `docs/formats/rpc.md`.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// First four bytes of every frame.
pub const MAGIC: [u8; 4] = *b"KRPC";
/// Version of the framing; a peer with another one is refused.
pub const VERSION: u8 = 1;
/// Length of the fixed header in bytes.
pub const HEADER_BYTES: usize = 28;
/// Bytes (body and bulk) of a stream's items that may be on their way before the receiver has consumed some.
pub const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

/// What a frame says about its call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client to server: begin a call. `detail` is the deadline in milliseconds from now, 0 for none.
    Request = 1,
    /// Server to client: one element of the answer, more follow.
    Item = 2,
    /// Server to client: the last element; the call is over.
    Last = 3,
    /// Server to client: the call is over, no further element.
    End = 4,
    /// Server to client: the call failed. `detail` is a [`Status`], the body a text for people in UTF-8.
    Error = 5,
    /// Client to server: nobody waits for this call any more.
    Cancel = 6,
    /// Client to server: `detail` more bytes of the stream may be sent.
    Credit = 7,
    /// Client to server, on blocking unix sockets: the client lends `detail` bytes of memory.
    Lend = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Request,
            2 => Kind::Item,
            3 => Kind::Last,
            4 => Kind::End,
            5 => Kind::Error,
            6 => Kind::Cancel,
            7 => Kind::Credit,
            8 => Kind::Lend,
            _ => return None,
        })
    }
}

/// Why a call failed without an answer of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// The body is not what this service reads.
    BadRequest = 1,
    /// More calls in flight than the server takes from one connection.
    Busy = 2,
    /// The deadline that the request carried has passed.
    DeadlineExceeded = 3,
    /// The server is going down, or the peer that must answer is away.
    Unavailable = 4,
    /// The caller may not do this.
    Denied = 5,
    /// A fault of the server.
    Internal = 6,
}

impl Status {
    /// The status for a code from the wire; codes of a newer peer are faults of the server to us.
    pub fn from_code(code: u32) -> Status {
        match code {
            1 => Status::BadRequest,
            2 => Status::Busy,
            3 => Status::DeadlineExceeded,
            4 => Status::Unavailable,
            5 => Status::Denied,
            _ => Status::Internal,
        }
    }
}

/// The largest frame that a side reads.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest postcard body in bytes.
    pub body_bytes_max: u32,
    /// Longest bulk part in bytes.
    pub bulk_bytes_max: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { body_bytes_max: 64 << 20, bulk_bytes_max: 16 << 20 }
    }
}

/// The fixed part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is.
    pub kind: Kind,
    /// The call it belongs to; chosen by the client, never used twice on one connection.
    pub call: u64,
    /// Where the bulk part lies in lent memory, in pages from 1; 0 behind the body. Of a request without a bulk part: where that of its
    /// answer may be put.
    pub place: u16,
    /// Meaning depends on the kind.
    pub detail: u32,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Length of the bulk part in bytes.
    pub bulk_len: u32,
}

/// Bytes that are no frame; the connection cannot be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The first bytes are not [`MAGIC`].
    #[error("not a Kiln RPC frame: it begins with {0:02x?}")]
    Magic([u8; 4]),
    /// Another version of the framing.
    #[error("RPC framing version {0} is not {VERSION}")]
    Version(u8),
    /// An unknown kind of frame.
    #[error("unknown RPC frame kind {0}")]
    Kind(u8),
    /// A bulk part is said to lie where no memory was lent.
    #[error("an RPC bulk part lies at page {0} of lent memory, where there is none")]
    Place(u16),
    /// The body is longer than this side reads.
    #[error("RPC body of {len} bytes is over the limit of {max}")]
    Body {
        /// Claimed length in bytes.
        len: u32,
        /// Limit in bytes.
        max: u32,
    },
    /// The bulk part is longer than this side reads.
    #[error("RPC bulk part of {len} bytes is over the limit of {max}")]
    Bulk {
        /// Claimed length in bytes.
        len: u32,
        /// Limit in bytes.
        max: u32,
    },
}

impl Header {
    /// Appends the header's bytes.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&MAGIC);
        out.put_u8(VERSION);
        out.put_u8(self.kind as u8);
        out.put_u16(self.place);
        out.put_u64(self.call);
        out.put_u32(self.detail);
        out.put_u32(self.body_len);
        out.put_u32(self.bulk_len);
    }

    /// Reads a header and checks its lengths against `limits`.
    pub fn parse(bytes: &[u8; HEADER_BYTES], limits: &Limits) -> Result<Header, WireError> {
        let bytes = &mut bytes.as_slice();
        let mut magic = [0; 4];
        bytes.copy_to_slice(&mut magic);
        if magic != MAGIC {
            return Err(WireError::Magic(magic));
        }
        let version = bytes.get_u8();
        if version != VERSION {
            return Err(WireError::Version(version));
        }
        let kind = bytes.get_u8();
        let kind = Kind::from_byte(kind).ok_or(WireError::Kind(kind))?;
        let place = bytes.get_u16();
        let (call, detail, body_len, bulk_len) =
            (bytes.get_u64(), bytes.get_u32(), bytes.get_u32(), bytes.get_u32());
        if body_len > limits.body_bytes_max {
            return Err(WireError::Body { len: body_len, max: limits.body_bytes_max });
        }
        if bulk_len > limits.bulk_bytes_max {
            return Err(WireError::Bulk { len: bulk_len, max: limits.bulk_bytes_max });
        }
        Ok(Header { kind, call, place, detail, body_len, bulk_len })
    }
}

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the frame is.
    pub kind: Kind,
    /// The call it belongs to.
    pub call: u64,
    /// Meaning depends on the kind.
    pub detail: u32,
    /// The postcard body.
    pub body: Bytes,
    /// Bytes that are not encoded.
    pub bulk: Bytes,
}

impl Frame {
    /// A frame without body and bulk.
    pub fn bare(kind: Kind, call: u64, detail: u32) -> Frame {
        Frame { kind, call, detail, body: Bytes::new(), bulk: Bytes::new() }
    }

    /// The header that announces this frame.
    pub fn header(&self) -> Header {
        Header {
            kind: self.kind,
            call: self.call,
            place: 0,
            detail: self.detail,
            body_len: self.body.len() as u32,
            bulk_len: self.bulk.len() as u32,
        }
    }
}

/// Takes one frame off the front of `buffer`, or says how many bytes the buffer lacks at least. Here nobody lends memory.
pub fn decode(buffer: &mut BytesMut, limits: &Limits) -> Result<Result<Frame, usize>, WireError> {
    let Some(head) = buffer.first_chunk::<HEADER_BYTES>() else {
        return Ok(Err(HEADER_BYTES - buffer.len()));
    };
    let header = Header::parse(head, limits)?;
    if header.place != 0 {
        return Err(WireError::Place(header.place));
    }
    let total = HEADER_BYTES + header.body_len as usize + header.bulk_len as usize;
    if buffer.len() < total {
        return Ok(Err(total - buffer.len()));
    }
    buffer.advance(HEADER_BYTES);
    let body = buffer.split_to(header.body_len as usize).freeze();
    let bulk = buffer.split_to(header.bulk_len as usize).freeze();
    Ok(Ok(Frame { kind: header.kind, call: header.call, detail: header.detail, body, bulk }))
}

/// What an item costs of its stream's window, in bytes. An item larger than the window costs all of it, so that it can
/// be sent at all; an empty one still costs something, so that their number is bounded too.
pub fn window_cost(body_len: usize, bulk_len: usize) -> u32 {
    u32::try_from(HEADER_BYTES + body_len + bulk_len).unwrap_or(u32::MAX).min(STREAM_WINDOW_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Frame {
        Frame {
            kind: Kind::Request,
            call: 0x0102_0304_0506_0708,
            detail: 1500,
            body: Bytes::from_static(b"body"),
            bulk: Bytes::from_static(b"bulk!"),
        }
    }

    fn encoded(frame: &Frame) -> BytesMut {
        let mut out = BytesMut::new();
        frame.header().encode(&mut out);
        out.extend_from_slice(&frame.body);
        out.extend_from_slice(&frame.bulk);
        out
    }

    #[test]
    fn golden_bytes() {
        let expected =
            b"KRPC\x01\x01\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\0\x05\xdc\0\0\0\x04\0\0\0\x05bodybulk!";
        assert_eq!(&encoded(&sample())[..], expected);
    }

    #[test]
    fn every_cut_asks_for_more_and_the_whole_decodes() {
        let whole = encoded(&sample());
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            let lacking = decode(&mut part, &Limits::default()).expect("a prefix is no error");
            let lacking = lacking.expect_err("a prefix is no frame");
            assert!(lacking >= 1 && lacking <= whole.len() - cut, "cut {cut} lacks {lacking}");
        }
        let mut bytes = whole;
        assert_eq!(decode(&mut bytes, &Limits::default()), Ok(Ok(sample())));
        assert!(bytes.is_empty());
    }

    #[test]
    fn wrong_headers_are_named() {
        let cases: [(usize, u8, WireError); 4] = [
            (0, b'X', WireError::Magic(*b"XRPC")),
            (4, 9, WireError::Version(9)),
            (5, 77, WireError::Kind(77)),
            (7, 1, WireError::Place(1)),
        ];
        for (at, byte, error) in cases {
            let mut bytes = encoded(&sample());
            bytes[at] = byte;
            assert_eq!(decode(&mut bytes, &Limits::default()), Err(error));
        }
    }

    #[test]
    fn claimed_lengths_are_refused_before_their_bytes_arrive() {
        let limits = Limits { body_bytes_max: 3, bulk_bytes_max: 4 };
        let mut bytes = BytesMut::from(&encoded(&sample())[..HEADER_BYTES]);
        assert_eq!(decode(&mut bytes, &limits), Err(WireError::Body { len: 4, max: 3 }));
        let limits = Limits { body_bytes_max: 4, bulk_bytes_max: 4 };
        let mut bytes = BytesMut::from(&encoded(&sample())[..HEADER_BYTES]);
        assert_eq!(decode(&mut bytes, &limits), Err(WireError::Bulk { len: 5, max: 4 }));
    }

    #[test]
    fn window_cost_is_never_zero_nor_over_the_window() {
        assert_eq!(window_cost(0, 0) as usize, HEADER_BYTES);
        assert_eq!(window_cost(usize::MAX - HEADER_BYTES, 0), STREAM_WINDOW_BYTES);
    }
}
