//! Field tables, with `RabbitMQ`'s types.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::reader::{DecodeError, Reader, Wire};
use super::short::ShortStr;

/// How deep tables and arrays may nest; deeper input is refused rather than followed.
const DEPTH_MAX: usize = 32;

/// One value of a field table. The names are those that `RabbitMQ` prints in its errors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `t`
    Bool(bool),
    /// `b`
    Byte(i8),
    /// `B`
    UnsignedByte(u8),
    /// `s`
    Short(i16),
    /// `u`
    UnsignedShort(u16),
    /// `I`
    SignedInt(i32),
    /// `i`
    UnsignedInt(u32),
    /// `l`, and `L` from clients that send it
    Long(i64),
    /// `f`
    Float(f32),
    /// `d`
    Double(f64),
    /// `D`: a scale (decimal digits) and an unscaled value
    Decimal(u8, u32),
    /// `S`
    LongStr(#[serde(with = "octets")] Bytes),
    /// `x`
    Binary(#[serde(with = "octets")] Bytes),
    /// `A`
    Array(Vec<Value>),
    /// `T`, seconds since the epoch
    Timestamp(u64),
    /// `F`
    Table(Table),
    /// `V`
    Void,
}

/// A field table: names and values in the order in which they were sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table(pub Vec<(ShortStr, Value)>);

impl Table {
    /// A table without entries.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of the first entry called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(key, _)| key.as_bytes() == name.as_bytes()).map(|(_, value)| value)
    }

    /// Sets `name`, in place when it is there, else at the end.
    pub fn set(&mut self, name: ShortStr, value: Value) {
        match self.0.iter_mut().find(|(key, _)| *key == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// The table with `name` set; for building literals.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(ShortStr::from_static(name), value.into());
        self
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn read(from: &mut Reader<'_>, depth: usize) -> Result<Self, DecodeError> {
        let len = u32::get(from)? as usize;
        let mut inner = from.nested(len)?;
        let mut entries = Vec::new();
        while inner.remaining() > 0 {
            entries.push((ShortStr::get(&mut inner)?, Value::read(&mut inner, depth)?));
        }
        Ok(Self(entries))
    }
}

impl Wire for Table {
    fn get(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read(from, 0)
    }

    fn put(&self, to: &mut BytesMut) {
        with_length(to, |to| {
            for (name, value) in &self.0 {
                name.put(to);
                value.put(to);
            }
        });
    }
}

/// Writes a 32-bit length, then what `fill` appends.
fn with_length(to: &mut BytesMut, fill: impl FnOnce(&mut BytesMut)) {
    let at = to.len();
    to.put_u32(0);
    fill(to);
    let len = u32::try_from(to.len() - at - 4).expect("a table fits in a frame");
    to[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

impl Value {
    fn read(from: &mut Reader<'_>, depth: usize) -> Result<Self, DecodeError> {
        if depth >= DEPTH_MAX {
            return Err(DecodeError::TooDeep(DEPTH_MAX));
        }
        Ok(match u8::get(from)? {
            b't' => Self::Bool(u8::get(from)? != 0),
            b'b' => Self::Byte(i8::get(from)?),
            b'B' => Self::UnsignedByte(u8::get(from)?),
            b's' => Self::Short(i16::get(from)?),
            b'u' => Self::UnsignedShort(u16::get(from)?),
            b'I' => Self::SignedInt(i32::get(from)?),
            b'i' => Self::UnsignedInt(u32::get(from)?),
            b'l' | b'L' => Self::Long(i64::get(from)?),
            b'f' => Self::Float(f32::get(from)?),
            b'd' => Self::Double(f64::get(from)?),
            b'D' => Self::Decimal(u8::get(from)?, u32::get(from)?),
            b'S' => Self::LongStr(Bytes::get(from)?),
            b'x' => Self::Binary(Bytes::get(from)?),
            b'A' => Self::read_array(from, depth + 1)?,
            b'T' => Self::Timestamp(u64::get(from)?),
            b'F' => Self::Table(Table::read(from, depth + 1)?),
            b'V' => Self::Void,
            other => return Err(DecodeError::UnknownType(other)),
        })
    }

    fn read_array(from: &mut Reader<'_>, depth: usize) -> Result<Self, DecodeError> {
        let len = u32::get(from)? as usize;
        let mut inner = from.nested(len)?;
        let mut items = Vec::new();
        while inner.remaining() > 0 {
            items.push(Self::read(&mut inner, depth)?);
        }
        Ok(Self::Array(items))
    }

    fn put(&self, to: &mut BytesMut) {
        to.put_u8(self.type_octet());
        match self {
            Self::Bool(v) => to.put_u8(u8::from(*v)),
            Self::Byte(v) => to.put_i8(*v),
            Self::UnsignedByte(v) => to.put_u8(*v),
            Self::Short(v) => to.put_i16(*v),
            Self::UnsignedShort(v) => to.put_u16(*v),
            Self::SignedInt(v) => to.put_i32(*v),
            Self::UnsignedInt(v) => to.put_u32(*v),
            Self::Long(v) => to.put_i64(*v),
            Self::Float(v) => to.put_f32(*v),
            Self::Double(v) => to.put_f64(*v),
            Self::Decimal(scale, v) => {
                to.put_u8(*scale);
                to.put_u32(*v);
            }
            Self::LongStr(v) | Self::Binary(v) => v.put(to),
            Self::Array(items) => with_length(to, |to| items.iter().for_each(|item| item.put(to))),
            Self::Timestamp(v) => to.put_u64(*v),
            Self::Table(v) => v.put(to),
            Self::Void => {}
        }
    }

    fn type_octet(&self) -> u8 {
        match self {
            Self::Bool(_) => b't',
            Self::Byte(_) => b'b',
            Self::UnsignedByte(_) => b'B',
            Self::Short(_) => b's',
            Self::UnsignedShort(_) => b'u',
            Self::SignedInt(_) => b'I',
            Self::UnsignedInt(_) => b'i',
            Self::Long(_) => b'l',
            Self::Float(_) => b'f',
            Self::Double(_) => b'd',
            Self::Decimal(..) => b'D',
            Self::LongStr(_) => b'S',
            Self::Binary(_) => b'x',
            Self::Array(_) => b'A',
            Self::Timestamp(_) => b'T',
            Self::Table(_) => b'F',
            Self::Void => b'V',
        }
    }

    /// The name of the type as `RabbitMQ` prints it in errors.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::Byte(_) => "byte",
            Self::UnsignedByte(_) => "unsignedbyte",
            Self::Short(_) => "short",
            Self::UnsignedShort(_) => "unsignedshort",
            Self::SignedInt(_) => "signedint",
            Self::UnsignedInt(_) => "unsignedint",
            Self::Long(_) => "long",
            Self::Float(_) => "float",
            Self::Double(_) => "double",
            Self::Decimal(..) => "decimal",
            Self::LongStr(_) => "longstr",
            Self::Binary(_) => "binary",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
        }
    }

    /// The value as an integer, whatever its width; `None` for other types.
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::Byte(v) => Some(v.into()),
            Self::UnsignedByte(v) => Some(v.into()),
            Self::Short(v) => Some(v.into()),
            Self::UnsignedShort(v) => Some(v.into()),
            Self::SignedInt(v) => Some(v.into()),
            Self::UnsignedInt(v) => Some(v.into()),
            Self::Long(v) => Some(v),
            _ => None,
        }
    }

    /// The value as text; `None` unless it is a long string of UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::LongStr(v) => std::str::from_utf8(v).ok(),
            _ => None,
        }
    }

    /// Whether two values mean the same although their types may differ in width: `1000` as `I` and as `l`.
    pub fn equivalent(&self, other: &Self) -> bool {
        match (self.as_integer(), other.as_integer()) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self == other,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(v) => write!(f, "{v}"),
            Self::Float(v) => write!(f, "{v}"),
            Self::Double(v) => write!(f, "{v}"),
            Self::Timestamp(v) => write!(f, "{v}"),
            Self::LongStr(v) | Self::Binary(v) => write!(f, "{}", String::from_utf8_lossy(v)),
            Self::Void => f.write_str("undefined"),
            other => match other.as_integer() {
                Some(v) => write!(f, "{v}"),
                None => f.write_str(other.type_name()),
            },
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::LongStr(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<&ShortStr> for Value {
    fn from(text: &ShortStr) -> Self {
        Self::LongStr(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<Bytes> for Value {
    fn from(octets: Bytes) -> Self {
        Self::LongStr(octets)
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::SignedInt(value)
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Long(value)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<Table> for Value {
    fn from(value: Table) -> Self {
        Self::Table(value)
    }
}

/// `Bytes` in the store's encoding, without the serde feature of the bytes crate.
mod octets {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        bytes.as_ref().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        Vec::<u8>::deserialize(from).map(Bytes::from)
    }
}
