//! Frames on a blocking socket: one read for a small frame, one write for any.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;

use super::memory::Memory;
use super::part::Part;
use super::patience::{Look, Patience};
use super::socket::Socket;
use crate::wire::{HEADER_BYTES, Header, Kind, Limits, WireError};

/// Bytes read ahead on one connection. A small frame, with a bulk of 4 KiB too, comes in one read; of a larger one the rest
/// is read to where it belongs.
const READ_AHEAD_BYTES: usize = 8 << 10;
/// The step in which a buffer grows toward a large part, so that memory follows what arrived and not what was claimed.
const STEP_BYTES: usize = 1 << 20;
/// An outgoing head that grew larger than this is not kept for the next frame.
const KEPT_HEAD_BYTES: usize = 64 << 10;

/// Why a connection cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the connection ended inside a frame")]
    Truncated,
}

impl ReadError {
    /// Whether nothing came within the time that the socket was given.
    pub(crate) fn is_timeout(&self) -> bool {
        matches!(self, ReadError::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// What is read of a connection.
#[derive(Debug)]
pub(crate) struct Incoming {
    ahead: Box<[u8]>,
    /// What of `ahead` is not consumed. **Invariant:** `start <= end <= ahead.len()`.
    start: usize,
    end: usize,
    limits: Limits,
    patience: Patience,
}

impl Incoming {
    pub(crate) fn new(limits: Limits) -> Incoming {
        Incoming {
            ahead: vec![0; READ_AHEAD_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            limits,
            patience: Patience::default(),
        }
    }

    /// The next frame's header; `None` when the peer closed between frames. Its body and its bulk must be taken before
    /// the next one.
    pub(crate) fn header(&mut self, socket: &Socket) -> Result<Option<Header>, ReadError> {
        while self.end - self.start < HEADER_BYTES {
            self.ahead.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let into = &mut self.ahead[self.end..];
            let received = self.patience.wait(|look| match look {
                Look::Now => socket.receive_now(into),
                Look::Sleep => socket.receive(into),
            })?;
            if received == 0 {
                return if self.end == 0 { Ok(None) } else { Err(ReadError::Truncated) };
            }
            self.end += received;
        }
        self.parse().map(Some).map_err(ReadError::from)
    }

    /// A header that is here without waiting for it, if there is a whole one.
    pub(crate) fn header_now(&mut self, socket: &Socket) -> Option<Header> {
        self.end += socket.receive_now(&mut self.ahead[self.end..]).ok()?;
        if self.end - self.start < HEADER_BYTES { None } else { self.parse().ok() }
    }

    /// **Must hold:** a whole header was read ahead.
    fn parse(&mut self) -> Result<Header, WireError> {
        let mut head = [0; HEADER_BYTES];
        head.copy_from_slice(&self.ahead[self.start..self.start + HEADER_BYTES]);
        self.start += HEADER_BYTES;
        Header::parse(&head, &self.limits)
    }

    /// Up to `len` bytes of what was read ahead.
    fn take_ahead(&mut self, len: usize) -> &[u8] {
        let from = self.start;
        self.start += len.min(self.end - from);
        &self.ahead[from..self.start]
    }

    /// The next `len` bytes, a body or a bulk part.
    pub(crate) fn part(&mut self, socket: &Socket, len: u32) -> Result<Bytes, ReadError> {
        let len = len as usize;
        if len <= self.end - self.start {
            return Ok(Bytes::copy_from_slice(self.take_ahead(len)));
        }
        let mut part = Part::with_room(len.min(STEP_BYTES));
        part.bytes_mut().extend_from_slice(self.take_ahead(len));
        while part.len() < len {
            let lacking = len - part.len();
            let bytes = part.bytes_mut();
            if bytes.len() == bytes.capacity() {
                bytes.reserve_exact(STEP_BYTES.max(bytes.len()).min(lacking));
            }
            if socket.receive_append(bytes, lacking)? == 0 {
                return Err(ReadError::Truncated);
            }
        }
        Ok(part.finish())
    }

    /// The bulk part that a header announces: the next bytes, or what lies in the peer's memory, which is the peer's again when it is answered.
    pub(crate) fn bulk(
        &mut self,
        socket: &Socket,
        header: &Header,
        lent: Option<&Arc<Memory>>,
    ) -> Result<Bytes, ReadError> {
        if header.place == 0 || header.bulk_len == 0 {
            return self.part(socket, header.bulk_len);
        }
        let span = lent.and_then(|memory| memory.span(header.place, header.bulk_len as usize));
        span.map(Bytes::from_owner).ok_or_else(|| WireError::Place(header.place).into())
    }

    /// Whether more was read than what was taken.
    pub(crate) fn is_ahead(&self) -> bool {
        self.start < self.end
    }
}

/// Why a frame was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("the value cannot be encoded: {0}")]
    Encode(#[from] postcard::Error),
    #[error("{body} + {bulk} bytes are over the limit of a frame")]
    TooLong { body: usize, bulk: usize },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Where the bulk part of a frame is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bulk<'b> {
    /// Behind the body.
    Behind(&'b [&'b [u8]]),
    /// In lent memory, at a place, with this length in bytes.
    Lent(u16, usize),
}

impl Bulk<'_> {
    fn len(&self) -> usize {
        match self {
            Bulk::Behind(parts) => parts.iter().map(|part| part.len()).sum(),
            Bulk::Lent(_, len) => *len,
        }
    }
}

/// What is written to a connection.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Header and body of the frame that is being sent; kept for its memory.
    head: Vec<u8>,
    limits: Limits,
}

impl Outgoing {
    pub(crate) fn new(limits: Limits) -> Outgoing {
        Outgoing { head: Vec::new(), limits }
    }

    /// Sends a frame: `kind`, `call` and `detail` as they are, `body` encoded, `bulk` from where it is, or by its place.
    pub(crate) fn send<T: Serialize>(
        &mut self,
        socket: &Socket,
        (kind, call, detail): (Kind, u64, u32),
        body: &T,
        bulk: Bulk<'_>,
    ) -> Result<(), SendError> {
        self.begin();
        self.head = postcard::to_extend(body, std::mem::take(&mut self.head))?;
        self.finish(socket, (kind, call, detail), bulk)
    }

    /// As [`Outgoing::send`] for a body that is bytes already, or text.
    pub(crate) fn send_raw(
        &mut self,
        socket: &Socket,
        head: (Kind, u64, u32),
        body: &[u8],
    ) -> Result<(), SendError> {
        self.begin();
        self.head.extend_from_slice(body);
        self.finish(socket, head, Bulk::Behind(&[]))
    }

    fn begin(&mut self) {
        self.head.clear();
        self.head.shrink_to(KEPT_HEAD_BYTES);
        self.head.resize(HEADER_BYTES, 0);
    }

    fn finish(
        &mut self,
        socket: &Socket,
        (kind, call, detail): (Kind, u64, u32),
        bulk: Bulk<'_>,
    ) -> Result<(), SendError> {
        let body_len = self.head.len() - HEADER_BYTES;
        let bulk_len = bulk.len();
        if body_len > self.limits.body_bytes_max as usize || bulk_len > self.limits.bulk_bytes_max as usize {
            return Err(SendError::TooLong { body: body_len, bulk: bulk_len });
        }
        let (place, behind) = match bulk {
            Bulk::Behind(parts) if bulk_len > 0 => (0, parts),
            Bulk::Behind(_) => (0, &[][..]),
            Bulk::Lent(place, _) => (place, &[][..]),
        };
        let header =
            Header { kind, call, place, detail, body_len: body_len as u32, bulk_len: bulk_len as u32 };
        header.encode(&mut &mut self.head[..HEADER_BYTES]);
        let head = IoSlice::new(&self.head);
        match behind {
            [] => socket.send_all(&mut [head])?,
            [one] => socket.send_all(&mut [head, IoSlice::new(one)])?,
            many => {
                let parts = many.iter().map(|part| IoSlice::new(part));
                socket.send_all(&mut [head].into_iter().chain(parts).collect::<Vec<_>>())?;
            }
        }
        Ok(())
    }
}
