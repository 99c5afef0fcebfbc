//! A bounds-checked cursor over received bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::short::ShortStr;

/// Why bytes are not what the specification says they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("the bytes end inside a field")]
    Truncated,
    /// A short string is not UTF-8.
    #[error("a short string is not UTF-8")]
    NotUtf8,
    /// A field table uses a type octet that nobody defined.
    #[error("a field table holds the unknown type {0:#04x}")]
    UnknownType(u8),
    /// Field tables nest deeper than this broker follows.
    #[error("field tables nest deeper than {0}")]
    TooDeep(usize),
    /// A method that the specification does not have.
    #[error("method {method} of class {class} does not exist")]
    UnknownMethod {
        /// The class id received.
        class: u16,
        /// The method id received.
        method: u16,
    },
    /// Content properties continue in a second flag word, which no property of `basic` needs.
    #[error("property flags continue beyond the properties of basic")]
    ContinuedFlags,
}

/// A cursor over one frame's payload. Every read is checked against its end.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    /// Reads all of `bytes`.
    pub fn new(bytes: &'a Bytes) -> Self {
        Self { bytes, at: 0, end: bytes.len() }
    }

    /// Reads `bytes[start..end]`, so that slices still share the one buffer.
    ///
    /// # Panics
    /// When the range lies outside `bytes`.
    pub fn within(bytes: &'a Bytes, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= bytes.len(), "the caller took the range from these bytes");
        Self { bytes, at: start, end }
    }

    /// Octets not yet read.
    pub fn remaining(&self) -> usize {
        self.end - self.at
    }

    /// The next `n` octets, borrowed.
    pub fn slice(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        if n > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let start = self.at;
        self.at += n;
        Ok(&self.bytes[start..self.at])
    }

    /// The next `n` octets, shared.
    pub fn take(&mut self, n: usize) -> Result<Bytes, DecodeError> {
        if n > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let start = self.at;
        self.at += n;
        Ok(self.bytes.slice(start..self.at))
    }

    /// Everything that is left, shared.
    pub fn rest(&mut self) -> Bytes {
        let start = self.at;
        self.at = self.end;
        self.bytes.slice(start..self.end)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let slice = self.slice(N)?;
        Ok(slice.try_into().expect("slice gave exactly N octets"))
    }

    /// A cursor over the next `n` octets, which are then read here.
    pub fn nested(&mut self, n: usize) -> Result<Reader<'a>, DecodeError> {
        if n > self.remaining() {
            return Err(DecodeError::Truncated);
        }
        let start = self.at;
        self.at += n;
        Ok(Reader { bytes: self.bytes, at: start, end: self.at })
    }
}

/// A type that methods and properties carry.
pub trait Wire: Sized {
    /// Reads one value.
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError>;
    /// Appends one value.
    fn put(&self, to: &mut BytesMut);
}

macro_rules! integers {
    ($($ty:ty, $put:ident;)*) => {$(
        impl Wire for $ty {
            fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
                from.array().map(<$ty>::from_be_bytes)
            }

            fn put(&self, to: &mut BytesMut) {
                to.$put(*self);
            }
        }
    )*};
}

integers! {
    u8, put_u8; u16, put_u16; u32, put_u32; u64, put_u64;
    i8, put_i8; i16, put_i16; i32, put_i32; i64, put_i64;
    f32, put_f32; f64, put_f64;
}

impl Wire for ShortStr {
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = usize::from(u8::get(from)?);
        ShortStr::from_wire(from.take(len)?).ok_or(DecodeError::NotUtf8)
    }

    fn put(&self, to: &mut BytesMut) {
        put_short(to, self.as_bytes());
    }
}

/// Long strings are opaque octets (specification 4.2.5.3).
impl Wire for Bytes {
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let len = u32::get(from)? as usize;
        from.take(len)
    }

    fn put(&self, to: &mut BytesMut) {
        to.put_u32(u32::try_from(self.len()).expect("a long string fits in a frame"));
        to.put_slice(self);
    }
}

/// Appends a short string given as octets that came from a [`ShortStr`].
pub(super) fn put_short(to: &mut BytesMut, text: &[u8]) {
    to.put_u8(u8::try_from(text.len()).expect("a ShortStr holds at most 255 octets"));
    to.put_slice(text);
}
