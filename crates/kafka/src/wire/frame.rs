//! Frames and headers: a 32-bit length, then the request or response with its header.

use super::Api;
use super::primitive::{Reader, WireError, Writer};

/// Bytes before a request's body that say how long it is.
pub const LENGTH_BYTES: usize = 4;

/// Smallest request: key, version, correlation id.
const REQUEST_BYTES_MIN: usize = 8;

/// What stands before every request's body (request header versions 1 and 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// What is asked for.
    pub api: Api,
    /// In which version; not yet checked against [`Api::versions`].
    pub version: i16,
    /// Returned with the response.
    pub correlation: i32,
    /// What the client calls itself.
    pub client: Option<&'a str>,
    /// Where the body starts. For an `ApiVersions` of unknown version, the end of what could be read.
    pub body: usize,
}

/// The length that a frame claims, if it lies within `1..=bytes_max`.
pub fn frame_len(prefix: [u8; LENGTH_BYTES], bytes_max: usize) -> Result<usize, WireError> {
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(len) if (REQUEST_BYTES_MIN..=bytes_max).contains(&len) => Ok(len),
        _ => Err(WireError::Length { at: 0, length: i64::from(length) }),
    }
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a request. Its version may be one that is not served; then only an
    /// `ApiVersions` can be answered, because of no other the response's layout is known to both sides.
    pub fn parse(request: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(request, 0, false);
        let key = reader.i16()?;
        let api = Api::from_key(key).ok_or(WireError::UnknownApi(key))?;
        let version = reader.i16()?;
        let correlation = reader.i32()?;
        if !api.serves(version) {
            return Ok(Self { api, version, correlation, client: None, body: request.len() });
        }
        // The client's name keeps its 16-bit length in both header versions (KIP-482).
        let client = reader.nullable_string()?;
        let mut reader = Reader::new(request, reader.pos(), api.is_flexible(version));
        reader.tags()?;
        Ok(Self { api, version, correlation, client, body: reader.pos() })
    }
}

/// A response ready to be written: parts, in order, whose first begins with the frame's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    parts: Vec<Vec<u8>>,
}

impl Reply {
    /// Room for the length and the response header; the body is written behind it.
    pub fn start(api: Api, version: i16, correlation: i32, capacity: usize) -> Writer {
        let out = Vec::with_capacity(capacity + 16);
        let mut writer = Writer::new(out, api.is_flexible(version));
        writer.i32(0);
        writer.i32(correlation);
        if api.has_flexible_response_header(version) {
            writer.no_tags();
        }
        writer
    }

    /// A response in one piece, begun by [`Reply::start`].
    pub fn whole(head: Writer) -> Self {
        Self::in_parts(head.into_inner(), Vec::new())
    }

    /// A response that `head`, begun by [`Reply::start`], opens and `rest` continues.
    pub fn in_parts(head: Vec<u8>, rest: Vec<Vec<u8>>) -> Self {
        let mut parts = Vec::with_capacity(1 + rest.len());
        parts.push(head);
        parts.extend(rest);
        let total: usize = parts.iter().map(Vec::len).sum();
        parts[0][..LENGTH_BYTES].copy_from_slice(&((total - LENGTH_BYTES) as i32).to_be_bytes());
        Self { parts }
    }

    /// The parts, to be written one after the other.
    pub fn parts(&self) -> &[Vec<u8>] {
        &self.parts
    }

    /// Bytes on the wire.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum()
    }

    /// Never: each reply has its length and header.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_header_of_librdkafkas_first_request() {
        // ApiVersions version 3, correlation id 1, client "rdkafka", no tags.
        let bytes = b"\x00\x12\x00\x03\x00\x00\x00\x01\x00\x07rdkafka\x00rest";
        let header = RequestHeader::parse(bytes).unwrap();
        assert_eq!(
            header,
            RequestHeader {
                api: Api::ApiVersions,
                version: 3,
                correlation: 1,
                client: Some("rdkafka"),
                body: 18
            }
        );
    }

    #[test]
    fn a_version_from_the_future_still_yields_its_correlation_id() {
        let header = RequestHeader::parse(b"\x00\x12\x7f\xff\x00\x00\x00\x09\xff").unwrap();
        assert_eq!((header.version, header.correlation), (i16::MAX, 9));
        assert!(!header.api.serves(header.version));
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        assert_eq!(frame_len([0, 0, 1, 0], 256), Ok(256));
        for bad in [[0, 0, 1, 1], [0, 0, 0, 0], [0xff; 4], [0x7f, 0xff, 0xff, 0xff], *b"GET "] {
            assert!(frame_len(bad, 256).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_reply_in_parts_has_the_length_of_all() {
        let mut head = Reply::start(Api::Fetch, 12, 7, 0);
        head.i16(5);
        let reply = Reply::in_parts(head.into_inner(), vec![b"abc".to_vec()]);
        assert_eq!(reply.parts().concat(), b"\x00\x00\x00\x0a\x00\x00\x00\x07\x00\x00\x05abc");
    }
}
