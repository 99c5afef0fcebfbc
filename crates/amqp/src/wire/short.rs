//! Short strings: at most 255 octets of UTF-8, shared without copying.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An AMQP short string (specification 4.2.5.3): at most 255 octets, checked to be UTF-8.
///
/// Cloning shares the bytes. A `ShortStr` that came off the wire keeps its read buffer alive; call
/// [`ShortStr::detached`] before storing it for long.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShortStr(Bytes);

/// A string of more than 255 octets where a short string is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("use a name of {0} octets: the protocol allows 255")]
pub struct TooLong(pub usize);

impl ShortStr {
    /// A short string known when the program is built.
    ///
    /// # Panics
    /// When it is longer than 255 octets, which is an error of the program.
    pub const fn from_static(text: &'static str) -> Self {
        assert!(text.len() <= 255, "a static short string fits");
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Takes bytes off the wire; `None` unless they are UTF-8 and at most 255 octets.
    pub fn from_wire(bytes: Bytes) -> Option<Self> {
        (bytes.len() <= 255 && std::str::from_utf8(&bytes).is_ok()).then_some(Self(bytes))
    }

    /// A copy that owns its bytes alone, so that it does not keep a read buffer alive.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked when it was made, so the default never comes up.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there are no octets.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of octets.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl TryFrom<&str> for ShortStr {
    type Error = TooLong;

    fn try_from(text: &str) -> Result<Self, TooLong> {
        if text.len() > 255 {
            return Err(TooLong(text.len()));
        }
        Ok(Self(Bytes::copy_from_slice(text.as_bytes())))
    }
}

impl TryFrom<String> for ShortStr {
    type Error = TooLong;

    fn try_from(text: String) -> Result<Self, TooLong> {
        if text.len() > 255 {
            return Err(TooLong(text.len()));
        }
        Ok(Self(Bytes::from(text)))
    }
}

impl Deref for ShortStr {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

// Consistent with `Hash for [u8]`, so that maps can be asked with octets straight from a frame.
impl Borrow<[u8]> for ShortStr {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl Hash for ShortStr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ref().hash(state);
    }
}

impl fmt::Display for ShortStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ShortStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for ShortStr {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ShortStr {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Self::try_from(text).map_err(serde::de::Error::custom)
    }
}
