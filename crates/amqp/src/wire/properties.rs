//! Content properties of class `basic`: kept as received, read only where the broker needs them.

use bytes::{BufMut, Bytes, BytesMut};

use super::reader::{DecodeError, Reader, Wire};
use super::short::ShortStr;
use super::table::Table;

const CONTENT_TYPE: u16 = 1 << 15;
const CONTENT_ENCODING: u16 = 1 << 14;
const HEADERS: u16 = 1 << 13;
const DELIVERY_MODE: u16 = 1 << 12;
const PRIORITY: u16 = 1 << 11;
const CORRELATION_ID: u16 = 1 << 10;
const REPLY_TO: u16 = 1 << 9;
const EXPIRATION: u16 = 1 << 8;
const MESSAGE_ID: u16 = 1 << 7;
const TIMESTAMP: u16 = 1 << 6;
const KIND: u16 = 1 << 5;
const USER_ID: u16 = 1 << 4;
const APP_ID: u16 = 1 << 3;
const CLUSTER_ID: u16 = 1 << 2;
const CONTINUED: u16 = 1;

/// All properties, decoded. The broker itself uses [`Traits`] on its hot path.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Properties {
    /// MIME type of the body.
    pub content_type: Option<ShortStr>,
    /// MIME encoding of the body.
    pub content_encoding: Option<ShortStr>,
    /// Application headers; what a headers exchange matches.
    pub headers: Option<Table>,
    /// 1 = transient, 2 = persistent.
    pub delivery_mode: Option<u8>,
    /// 0 to 255, cut to the queue's `x-max-priority`.
    pub priority: Option<u8>,
    /// Ties a reply to its request.
    pub correlation_id: Option<ShortStr>,
    /// Where a reply goes.
    pub reply_to: Option<ShortStr>,
    /// Time to live in milliseconds, as decimal text.
    pub expiration: Option<ShortStr>,
    /// The application's id of the message.
    pub message_id: Option<ShortStr>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// The application's name for the kind of message (`type` in the specification).
    pub kind: Option<ShortStr>,
    /// Must equal the connection's user when present.
    pub user_id: Option<ShortStr>,
    /// The application that made the message.
    pub app_id: Option<ShortStr>,
    /// Reserved by the specification.
    pub cluster_id: Option<ShortStr>,
}

impl Properties {
    /// Properties with `delivery_mode` 2: the message survives a restart in a durable queue.
    pub fn persistent() -> Self {
        Self { delivery_mode: Some(2), ..Self::default() }
    }

    /// Decodes flags and property list.
    pub fn decode(raw: &Bytes) -> Result<Self, DecodeError> {
        let from = &mut Reader::new(raw);
        let flags = read_flags(from)?;
        Ok(Self {
            content_type: optional(from, flags, CONTENT_TYPE)?,
            content_encoding: optional(from, flags, CONTENT_ENCODING)?,
            headers: optional(from, flags, HEADERS)?,
            delivery_mode: optional(from, flags, DELIVERY_MODE)?,
            priority: optional(from, flags, PRIORITY)?,
            correlation_id: optional(from, flags, CORRELATION_ID)?,
            reply_to: optional(from, flags, REPLY_TO)?,
            expiration: optional(from, flags, EXPIRATION)?,
            message_id: optional(from, flags, MESSAGE_ID)?,
            timestamp: optional(from, flags, TIMESTAMP)?,
            kind: optional(from, flags, KIND)?,
            user_id: optional(from, flags, USER_ID)?,
            app_id: optional(from, flags, APP_ID)?,
            cluster_id: optional(from, flags, CLUSTER_ID)?,
        })
    }

    /// Encodes flags and property list, as they stand in a content header after the body size.
    pub fn encode(&self) -> Bytes {
        let mut to = BytesMut::with_capacity(32);
        to.put_u16(0);
        let mut flags = 0;
        put(&mut to, &mut flags, CONTENT_TYPE, self.content_type.as_ref());
        put(&mut to, &mut flags, CONTENT_ENCODING, self.content_encoding.as_ref());
        put(&mut to, &mut flags, HEADERS, self.headers.as_ref());
        put(&mut to, &mut flags, DELIVERY_MODE, self.delivery_mode.as_ref());
        put(&mut to, &mut flags, PRIORITY, self.priority.as_ref());
        put(&mut to, &mut flags, CORRELATION_ID, self.correlation_id.as_ref());
        put(&mut to, &mut flags, REPLY_TO, self.reply_to.as_ref());
        put(&mut to, &mut flags, EXPIRATION, self.expiration.as_ref());
        put(&mut to, &mut flags, MESSAGE_ID, self.message_id.as_ref());
        put(&mut to, &mut flags, TIMESTAMP, self.timestamp.as_ref());
        put(&mut to, &mut flags, KIND, self.kind.as_ref());
        put(&mut to, &mut flags, USER_ID, self.user_id.as_ref());
        put(&mut to, &mut flags, APP_ID, self.app_id.as_ref());
        put(&mut to, &mut flags, CLUSTER_ID, self.cluster_id.as_ref());
        to[..2].copy_from_slice(&flags.to_be_bytes());
        to.freeze()
    }
}

/// What the broker needs of a message's properties, found in one pass without allocation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Traits {
    /// Whether `delivery_mode` is 2.
    pub persistent: bool,
    /// `priority`, 0 when absent.
    pub priority: u8,
    /// Whether there is a header table. Its values are not looked at.
    pub headers: bool,
    /// `reply_to`.
    pub reply_to: Option<ShortStr>,
    /// `expiration`, not yet parsed.
    pub expiration: Option<ShortStr>,
    /// `user_id`.
    pub user_id: Option<ShortStr>,
}

impl Traits {
    /// Walks over flags and property list.
    pub fn scan(raw: &Bytes) -> Result<Self, DecodeError> {
        let from = &mut Reader::new(raw);
        let flags = read_flags(from)?;
        skip_short(from, flags, CONTENT_TYPE)?;
        skip_short(from, flags, CONTENT_ENCODING)?;
        let headers = flags & HEADERS != 0;
        if headers {
            let len = u32::get(from)? as usize;
            from.slice(len)?;
        }
        let persistent = optional(from, flags, DELIVERY_MODE)? == Some(2u8);
        let priority = optional(from, flags, PRIORITY)?.unwrap_or(0u8);
        skip_short(from, flags, CORRELATION_ID)?;
        let reply_to = optional(from, flags, REPLY_TO)?;
        let expiration = optional(from, flags, EXPIRATION)?;
        skip_short(from, flags, MESSAGE_ID)?;
        optional::<u64>(from, flags, TIMESTAMP)?;
        skip_short(from, flags, KIND)?;
        let user_id = optional(from, flags, USER_ID)?;
        skip_short(from, flags, APP_ID)?;
        skip_short(from, flags, CLUSTER_ID)?;
        Ok(Self { persistent, priority, headers, reply_to, expiration, user_id })
    }

    /// The header table alone.
    pub fn header_table(raw: &Bytes) -> Result<Table, DecodeError> {
        let from = &mut Reader::new(raw);
        let flags = read_flags(from)?;
        skip_short(from, flags, CONTENT_TYPE)?;
        skip_short(from, flags, CONTENT_ENCODING)?;
        Ok(optional(from, flags, HEADERS)?.unwrap_or_default())
    }
}

fn read_flags(from: &mut Reader<'_>) -> Result<u16, DecodeError> {
    let flags = u16::get(from)?;
    if flags & CONTINUED != 0 {
        return Err(DecodeError::ContinuedFlags);
    }
    Ok(flags)
}

fn optional<T: Wire>(from: &mut Reader<'_>, flags: u16, bit: u16) -> Result<Option<T>, DecodeError> {
    if flags & bit == 0 { Ok(None) } else { T::get(from).map(Some) }
}

fn skip_short(from: &mut Reader<'_>, flags: u16, bit: u16) -> Result<(), DecodeError> {
    if flags & bit != 0 {
        let len = usize::from(u8::get(from)?);
        from.slice(len)?;
    }
    Ok(())
}

fn put<T: Wire>(to: &mut BytesMut, flags: &mut u16, bit: u16, value: Option<&T>) {
    if let Some(value) = value {
        *flags |= bit;
        value.put(to);
    }
}
