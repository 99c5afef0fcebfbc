//! One channel: its content in the making, its deliveries, its confirms and its prefetch.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::core::{Confirms, Credit, Refusal, ReplyCode, Unacked};
use crate::wire::{BASIC_CLASS, BasicPublish, Frame, FrameKind, Reader, ShortStr, Wire};

/// A body of up to this size is reserved at once; a larger one grows as it arrives, so that an announced size alone
/// costs no memory.
const BODY_RESERVE_MAX: usize = 256 * 1024;

/// A message as it came off the wire.
#[derive(Debug)]
pub struct Content {
    /// How it was published.
    pub publish: BasicPublish,
    /// Property flags and list.
    pub properties: Bytes,
    /// The body.
    pub body: Bytes,
}

#[derive(Debug)]
enum Assembly {
    /// A method is due.
    Idle,
    /// `basic.publish` came; its content header is due.
    Header(BasicPublish),
    /// Body frames are due. Invariant: `parts.len() < size`.
    Body { publish: BasicPublish, properties: Bytes, size: usize, parts: BytesMut },
}

/// A channel. `D` is the server's record of a delivery.
#[derive(Debug)]
pub struct Channel<D> {
    /// Deliveries that wait for an acknowledgement.
    pub unacked: Unacked<D>,
    /// Present after `confirm.select`.
    pub confirms: Option<Confirms>,
    /// The channel-wide prefetch (`basic.qos` with `global`).
    pub credit: Arc<Credit>,
    /// The prefetch that the next consumer gets (`basic.qos` without `global`).
    pub prefetch: u32,
    /// What an empty queue name means.
    pub last_queue: Option<ShortStr>,
    /// `channel.close` was sent and its answer is awaited: everything else is dropped.
    pub(super) closing: bool,
    assembly: Assembly,
}

impl<D> Default for Channel<D> {
    fn default() -> Self {
        Self {
            unacked: Unacked::default(),
            confirms: None,
            credit: Arc::new(Credit::new(0, None)),
            prefetch: 0,
            last_queue: None,
            closing: false,
            assembly: Assembly::Idle,
        }
    }
}

impl<D> Channel<D> {
    /// What stands for a channel whose close was sent and not yet answered.
    pub(super) fn closing() -> Self {
        Self { closing: true, ..Self::default() }
    }

    /// Whether a method may come now; 505 while content is due.
    pub(super) fn expect_method(&self) -> Result<(), Refusal> {
        match self.assembly {
            Assembly::Idle => Ok(()),
            Assembly::Header(_) => {
                Err(unexpected("expected content header for class 60, got non content header frame instead"))
            }
            Assembly::Body { .. } => {
                Err(unexpected("expected content body, got non content body frame instead"))
            }
        }
    }

    pub(super) fn publish(&mut self, publish: BasicPublish) {
        self.assembly = Assembly::Header(publish);
    }

    /// Takes a content header or body frame; gives the message once it is whole.
    pub(super) fn content(&mut self, frame: &Frame<'_>, body_max: u64) -> Result<Option<Content>, Refusal> {
        match (std::mem::replace(&mut self.assembly, Assembly::Idle), frame.kind) {
            (Assembly::Header(publish), FrameKind::Header) => self.header(publish, frame, body_max),
            (Assembly::Body { publish, properties, size, parts }, FrameKind::Body) => {
                self.body((publish, properties), size, parts, frame)
            }
            (Assembly::Idle, _) => Err(unexpected("expected method frame, got non method frame instead")),
            (Assembly::Header(_), _) => {
                Err(unexpected("expected content header for class 60, got non content header frame instead"))
            }
            (Assembly::Body { .. }, _) => {
                Err(unexpected("expected content body, got non content body frame instead"))
            }
        }
    }

    fn header(
        &mut self,
        publish: BasicPublish,
        frame: &Frame<'_>,
        body_max: u64,
    ) -> Result<Option<Content>, Refusal> {
        let mut from = frame.reader();
        let (size, properties) = read_header(&mut from)?;
        // RabbitMQ takes the body first and refuses it after; here its size is enough to know.
        if size > body_max {
            let detail = format!("message size {size} is larger than configured max size {body_max}");
            return Err(Refusal::new(ReplyCode::FrameError, detail));
        }
        if size == 0 {
            return Ok(Some(Content { publish, properties, body: Bytes::new() }));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.assembly = Assembly::Body { publish, properties, size, parts: BytesMut::new() };
        Ok(None)
    }

    fn body(
        &mut self,
        (publish, properties): (BasicPublish, Bytes),
        size: usize,
        mut parts: BytesMut,
        frame: &Frame<'_>,
    ) -> Result<Option<Content>, Refusal> {
        let part = frame.octets();
        let have = parts.len() + part.len();
        if have > size {
            let detail = format!("content body of {have} octets is longer than the {size} announced");
            return Err(Refusal::new(ReplyCode::FrameError, detail));
        }
        if have == size && parts.is_empty() {
            return Ok(Some(Content { publish, properties, body: frame.payload() }));
        }
        if parts.is_empty() {
            parts.reserve(size.min(BODY_RESERVE_MAX));
        }
        parts.extend_from_slice(part);
        if have == size {
            return Ok(Some(Content { publish, properties, body: parts.freeze() }));
        }
        self.assembly = Assembly::Body { publish, properties, size, parts };
        Ok(None)
    }
}

/// Body size, and the properties as they stand.
fn read_header(from: &mut Reader<'_>) -> Result<(u64, Bytes), Refusal> {
    let fields = (|| Ok((u16::get(from)?, u16::get(from)?, u64::get(from)?)))();
    let (class, _weight, size) = fields.map_err(|_: crate::wire::DecodeError| {
        Refusal::new(ReplyCode::FrameError, "cannot decode the content header")
    })?;
    if class != BASIC_CLASS {
        let detail = format!("expected content header for class 60, got one for class {class} instead");
        return Err(unexpected(&detail));
    }
    Ok((size, from.rest()))
}

fn unexpected(detail: &str) -> Refusal {
    Refusal::new(ReplyCode::UnexpectedFrame, detail)
}
