//! Kafka's primitive types, read from and written to byte slices.
//!
//! A request version has either the old encoding (16-bit string lengths, 32-bit array lengths) or the flexible one of
//! KIP-482 (unsigned varints holding the length plus one, and tagged fields after each structure).

use std::ops::Range;

/// Why bytes from a peer are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field reaches past the end of the frame.
    #[error("the request ends within a field, at byte {at}")]
    Truncated {
        /// Position in the request.
        at: usize,
    },
    /// A length is negative where none may be, or cannot fit what is left of the frame.
    #[error("length {length} at byte {at} does not fit the request")]
    Length {
        /// Position in the request.
        at: usize,
        /// The length as claimed.
        length: i64,
    },
    /// A string is not UTF-8.
    #[error("the string at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Position in the request.
        at: usize,
    },
    /// The message cannot be read, or a reply cannot be written, as this version defines it.
    #[error("message does not follow its definition")]
    Malformed,
    /// The key is not served.
    #[error("request key {0} is not served")]
    UnknownApi(i16),
}

/// Reads a request's fields in order. Never allocates.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    buf: &'a [u8],
    pos: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// Reads `buf` from `pos` on, in the flexible encoding or the old one.
    pub fn new(buf: &'a [u8], pos: usize, flexible: bool) -> Self {
        Self { buf, pos: pos.min(buf.len()), flexible }
    }

    /// Position of the next byte.
    pub fn pos(&self) -> usize {
        self.pos
    }

    /// Bytes left.
    pub fn remaining(&self) -> usize {
        self.buf.len() - self.pos
    }

    /// The next `len` bytes, as positions in the buffer.
    pub fn skip(&mut self, len: usize) -> Result<Range<usize>, WireError> {
        if len > self.remaining() {
            return Err(WireError::Truncated { at: self.pos });
        }
        let start = self.pos;
        self.pos += len;
        Ok(start..self.pos)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let range = self.skip(N)?;
        let mut out = [0; N];
        out.copy_from_slice(&self.buf[range]);
        Ok(out)
    }

    /// A signed byte.
    pub fn i8(&mut self) -> Result<i8, WireError> {
        self.fixed().map(i8::from_be_bytes)
    }

    /// A 16-bit integer.
    pub fn i16(&mut self) -> Result<i16, WireError> {
        self.fixed().map(i16::from_be_bytes)
    }

    /// A 32-bit integer.
    pub fn i32(&mut self) -> Result<i32, WireError> {
        self.fixed().map(i32::from_be_bytes)
    }

    /// A 64-bit integer.
    pub fn i64(&mut self) -> Result<i64, WireError> {
        self.fixed().map(i64::from_be_bytes)
    }

    /// A UUID's 16 bytes.
    pub fn uuid(&mut self) -> Result<[u8; 16], WireError> {
        self.fixed()
    }

    /// An unsigned varint of at most 32 bits.
    pub fn uvarint(&mut self) -> Result<u32, WireError> {
        let at = self.pos;
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.fixed()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return u32::try_from(value).map_err(|_| WireError::Length { at, length: value as i64 });
            }
        }
        Err(WireError::Length { at, length: value as i64 })
    }

    /// A length: -1 (old encoding) or 0 (flexible) says null.
    fn length(&mut self, short: bool) -> Result<Option<usize>, WireError> {
        let at = self.pos;
        let length = match (self.flexible, short) {
            (true, _) => i64::from(self.uvarint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        match length {
            -1 => Ok(None),
            0.. => Ok(Some(length as usize)),
            _ => Err(WireError::Length { at, length }),
        }
    }

    /// A string that may be null.
    pub fn nullable_string(&mut self) -> Result<Option<&'a str>, WireError> {
        let Some(len) = self.length(true)? else { return Ok(None) };
        let at = self.pos;
        let range = self.skip(len)?;
        let text = std::str::from_utf8(&self.buf[range]).map_err(|_| WireError::NotUtf8 { at })?;
        Ok(Some(text))
    }

    /// A string.
    pub fn string(&mut self) -> Result<&'a str, WireError> {
        let at = self.pos;
        self.nullable_string()?.ok_or(WireError::Length { at, length: -1 })
    }

    /// Positions of a byte string that may be null.
    pub fn nullable_bytes(&mut self) -> Result<Option<Range<usize>>, WireError> {
        match self.length(false)? {
            None => Ok(None),
            Some(len) => self.skip(len).map(Some),
        }
    }

    /// Number of elements of an array of which each takes at least `element_bytes_min` bytes; null counts as none.
    ///
    /// The bytes for that many elements are known to be there, so it is safe to reserve for them.
    pub fn array(&mut self, element_bytes_min: usize) -> Result<usize, WireError> {
        let at = self.pos;
        let count = self.length(false)?.unwrap_or(0);
        if count > self.remaining() / element_bytes_min.max(1) {
            return Err(WireError::Length { at, length: count as i64 });
        }
        Ok(count)
    }

    /// As [`Reader::array`], and takes the elements from a budget that all arrays of a request share.
    pub fn array_within(&mut self, element_bytes_min: usize, budget: &mut usize) -> Result<usize, WireError> {
        let at = self.pos;
        let count = self.array(element_bytes_min)?;
        *budget = budget.checked_sub(count).ok_or(WireError::Length { at, length: count as i64 })?;
        Ok(count)
    }

    /// Steps over the tagged fields of a structure; nothing in the old encoding.
    pub fn tags(&mut self) -> Result<(), WireError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            self.uvarint()?;
            let len = self.uvarint()? as usize;
            self.skip(len)?;
        }
        Ok(())
    }
}

/// Writes a response's fields in order.
#[derive(Debug)]
pub struct Writer {
    out: Vec<u8>,
    flexible: bool,
}

impl Writer {
    /// Appends to `out`, in the flexible encoding or the old one.
    pub fn new(out: Vec<u8>, flexible: bool) -> Self {
        Self { out, flexible }
    }

    /// What has been written.
    pub fn into_inner(self) -> Vec<u8> {
        self.out
    }

    /// A signed byte.
    pub fn i8(&mut self, value: i8) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A 16-bit integer.
    pub fn i16(&mut self, value: i16) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A 32-bit integer.
    pub fn i32(&mut self, value: i32) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// A 64-bit integer.
    pub fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_be_bytes());
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// An unsigned varint.
    pub fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.out.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    /// The length of an array, which follows.
    pub fn array(&mut self, len: usize) {
        self.length(len as u32);
    }

    /// The length of a byte string, which follows.
    pub fn bytes_len(&mut self, len: usize) {
        self.length(len as u32);
    }

    fn length(&mut self, len: u32) {
        if self.flexible {
            self.uvarint(len + 1);
        } else {
            self.i32(len as i32);
        }
    }

    /// A string that may be null; cut at 32 KiB - 1, the longest that the old encoding can carry.
    pub fn nullable_string(&mut self, text: Option<&str>) {
        let Some(text) = text else {
            return if self.flexible { self.uvarint(0) } else { self.i16(-1) };
        };
        let text = &text[..text.floor_char_boundary(i16::MAX as usize)];
        if self.flexible {
            self.uvarint(text.len() as u32 + 1);
        } else {
            self.i16(text.len() as i16);
        }
        self.raw(text.as_bytes());
    }

    /// A string.
    pub fn string(&mut self, text: &str) {
        self.nullable_string(Some(text));
    }

    /// No tagged fields; nothing in the old encoding.
    pub fn no_tags(&mut self) {
        if self.flexible {
            self.out.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn varints_have_kafkas_bytes() {
        for (value, bytes) in [
            (0, &[0][..]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u32::MAX, &[255, 255, 255, 255, 15]),
        ] {
            let mut writer = Writer::new(Vec::new(), true);
            writer.uvarint(value);
            let written = writer.into_inner();
            assert_eq!(written, bytes);
            assert_eq!(Reader::new(&written, 0, true).uvarint(), Ok(value));
        }
        assert!(Reader::new(&[255; 6], 0, true).uvarint().is_err());
    }

    #[test]
    fn a_claimed_length_beyond_the_frame_is_refused_before_anything_is_reserved() {
        let huge = i32::MAX.to_be_bytes();
        assert!(matches!(Reader::new(&huge, 0, false).array(1), Err(WireError::Length { .. })));
        assert!(Reader::new(&huge, 0, false).nullable_bytes().is_err());
        assert_eq!(Reader::new(&(-1_i32).to_be_bytes(), 0, false).array(1), Ok(0));
        assert!(Reader::new(&(-2_i32).to_be_bytes(), 0, false).array(1).is_err());
    }

    proptest! {
        #[test]
        fn strings_come_back(text in "\\PC{0,300}", flexible: bool) {
            let mut writer = Writer::new(Vec::new(), flexible);
            writer.string(&text);
            writer.nullable_string(None);
            writer.no_tags();
            let bytes = writer.into_inner();
            let mut reader = Reader::new(&bytes, 0, flexible);
            prop_assert_eq!(reader.string(), Ok(text.as_str()));
            prop_assert_eq!(reader.nullable_string(), Ok(None));
            prop_assert_eq!(reader.tags(), Ok(()));
            prop_assert_eq!(reader.remaining(), 0);
        }
    }
}
