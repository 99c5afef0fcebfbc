//! The calling side: one call at a time.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::frames::{Bulk, Incoming, Outgoing, ReadError, SendError};
use super::memory::{Lent, Piece, is_shared};
use super::socket::Socket;
use crate::client::CallError;
use crate::wire::{Header, Kind, Limits, Status, WireError};

/// The call of an error frame that is about the whole connection.
pub(crate) const CONNECTION: u64 = 0;

/// What the server owes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: a request may be sent.
    Idle,
    /// Answers to the call.
    Waiting,
    /// The last answer of a stream was handed out; its end was not yet.
    Over,
    /// Nothing can come any more, or nobody knows what comes.
    Broken,
}

/// A connection on which calls are made, one after the other. Closed when it is dropped.
///
/// After [`CallError::Closed`] or [`CallError::Deadline`] whether the server acted is not known, and the connection is of no
/// use any more; other errors leave it as it was.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    incoming: Incoming,
    outgoing: Outgoing,
    /// The number of the last call that was sent.
    call: u64,
    state: State,
    timeout: Option<Duration>,
    /// Memory that the server has too.
    lent: Option<Lent>,
    /// Where the answer that is waited for may put its bulk part.
    piece: Option<Piece>,
    /// The last one did.
    came_lent: bool,
}

/// Closes a connection from another thread: whoever waits for an answer there is told [`CallError::Closed`].
#[derive(Debug)]
pub struct Closer(Socket);

impl Closer {
    /// Closes the connection; it may be closed already.
    pub fn close(&self) {
        self.0.close();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // A Closer may still hold the socket open.
        self.socket.close();
    }
}

impl Connection {
    /// Connects to a unix socket.
    pub fn connect_unix(path: &Path) -> io::Result<Connection> {
        Ok(Connection::over(Socket::over_unix(UnixStream::connect(path)?)))
    }

    /// Connects over TCP to `host:port`; each address of the host is tried for up to `timeout`.
    pub fn connect_tcp(address: &str, timeout: Duration) -> io::Result<Connection> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{address} has no address"));
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return Ok(Connection::over(Socket::over_tcp(stream)?)),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    #[cfg(test)]
    pub(crate) fn over_pair(stream: UnixStream) -> Connection {
        Connection::over(Socket::over_unix(stream))
    }

    fn over(socket: Socket) -> Connection {
        let limits = Limits::default();
        Connection {
            socket,
            incoming: Incoming::new(limits),
            outgoing: Outgoing::new(limits),
            call: 0,
            state: State::Idle,
            timeout: None,
            lent: None,
            piece: None,
            came_lent: false,
        }
    }

    /// Lends the server memory, so that long bulk parts need not be copied into the socket and out of it. Without effect where that is not
    /// possible: over TCP, or when the server does not want it.
    pub fn lend(&mut self) -> Result<(), CallError> {
        if self.lent.is_some() || matches!(self.socket, Socket::Tcp(_)) {
            return Ok(());
        }
        self.ready()?;
        match self.offer() {
            Err(CallError::Refused { text, .. }) => {
                tracing::debug!("the RPC server does not take memory: {text}");
                Ok(())
            }
            offered => offered,
        }
    }

    fn offer(&mut self) -> Result<(), CallError> {
        let (lent, file) = match Lent::make() {
            Ok(made) => made,
            Err(error) => {
                tracing::debug!(%error, "no memory to lend to the RPC server");
                return Ok(());
            }
        };
        self.put_out((Kind::Lend, lent.len() as u32), &(), Bulk::Behind(&[]))?;
        if self.receive_item::<()>()?.is_none() {
            return Err(self.broken(format_args!("no word on memory that is lent")));
        }
        // The server waits for it now, and for nothing else.
        if let Err(error) = self.socket.send_descriptor(file.as_fd()) {
            return Err(self.lost(error.into()));
        }
        self.receive::<()>()?;
        self.lent = Some(lent);
        Ok(())
    }

    /// Whether a request's bulk part of this length goes through lent memory: then nothing can happen to it on the way.
    pub fn lends(&self, bulk_len: usize) -> bool {
        self.lent.is_some() && is_shared(bulk_len)
    }

    /// Whether the bulk part of the last answer came through lent memory.
    pub fn came_lent(&self) -> bool {
        self.came_lent
    }

    /// How long to wait for each part of an answer; `None`, as it is at first, waits as long as it takes.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_timeout(timeout)?;
        self.timeout = timeout;
        Ok(())
    }

    /// A handle by which another thread closes this connection.
    pub fn shutdown_handle(&self) -> io::Result<Closer> {
        self.socket.try_clone().map(Closer)
    }

    /// Whether the connection is of no use any more, as far as is known without a call.
    pub fn is_closed(&self) -> bool {
        self.state == State::Broken || self.socket.is_closed()
    }

    /// One request, one answer.
    pub fn call<Q: Serialize, R: DeserializeOwned>(
        &mut self,
        request: &Q,
        bulk: &[&[u8]],
    ) -> Result<(R, Bytes), CallError> {
        self.send(request, bulk)?;
        self.receive()
    }

    /// Sends a request. The answer to the one before must have been received.
    pub fn send<Q: Serialize>(&mut self, request: &Q, bulk: &[&[u8]]) -> Result<(), CallError> {
        self.ready()?;
        let len = bulk.iter().map(|part| part.len()).sum();
        match self.lent.as_mut().filter(|_| is_shared(len)) {
            Some(lent) => {
                let place = lent.put(bulk).place();
                self.put_out((Kind::Request, 0), request, Bulk::Lent(place, len))
            }
            None => self.put_out((Kind::Request, 0), request, Bulk::Behind(bulk)),
        }
    }

    /// Sends a request that is answered with up to `bulk_len` bytes of bulk, which lent memory may have room for.
    pub fn send_asking<Q: Serialize>(&mut self, request: &Q, bulk_len: usize) -> Result<(), CallError> {
        self.ready()?;
        self.piece = self.lent.as_ref().and_then(|lent| lent.piece(bulk_len));
        let place = self.piece.as_ref().map_or(0, |piece| piece.span().place());
        self.put_out((Kind::Request, 0), request, Bulk::Lent(place, 0))
    }

    /// Whether a request may be sent.
    fn ready(&self) -> Result<(), CallError> {
        match self.state {
            State::Idle => Ok(()),
            State::Broken => Err(CallError::Closed),
            State::Waiting | State::Over => {
                Err(CallError::Encode("the answer to the call before was not received".to_owned()))
            }
        }
    }

    /// **Must hold:** the connection is [ready](Connection::ready).
    fn put_out<Q: Serialize>(
        &mut self,
        (kind, detail): (Kind, u32),
        body: &Q,
        bulk: Bulk<'_>,
    ) -> Result<(), CallError> {
        match self.outgoing.send(&self.socket, (kind, self.call + 1, detail), body, bulk) {
            Ok(()) => {
                self.call += 1;
                self.state = State::Waiting;
                Ok(())
            }
            Err(SendError::Io(error)) => {
                tracing::debug!(%error, "RPC request not sent");
                Err(self.refusal_or_closed())
            }
            Err(error @ (SendError::Encode(_) | SendError::TooLong { .. })) => {
                Err(CallError::Encode(error.to_string()))
            }
        }
    }

    /// The answer to the request that was sent.
    pub fn receive<R: DeserializeOwned>(&mut self) -> Result<(R, Bytes), CallError> {
        let header = self.answer()?;
        let body = self.part(header.body_len)?;
        let bulk = self.bulk(&header)?;
        self.state = State::Idle;
        Ok((decode(&body)?, bulk))
    }

    /// The next answer of a stream; `None` once at its end, after which the next request may be sent.
    pub fn receive_item<R: DeserializeOwned>(&mut self) -> Result<Option<(R, Bytes)>, CallError> {
        if self.state == State::Over {
            self.state = State::Idle;
            return Ok(None);
        }
        let header = self.header()?;
        let body = self.part(header.body_len)?;
        let bulk = self.bulk(&header)?;
        match header.kind {
            Kind::Item => {}
            Kind::Last => self.state = State::Over,
            _ => {
                self.state = State::Idle;
                return Ok(None);
            }
        }
        Ok(Some((decode(&body)?, bulk)))
    }

    /// The header of the only answer of a call.
    fn answer(&mut self) -> Result<Header, CallError> {
        let header = self.header()?;
        match header.kind {
            Kind::Last => Ok(header),
            Kind::End => {
                self.state = State::Idle;
                Err(CallError::Empty)
            }
            _ => Err(self.broken(format_args!("many answers to a call that has one"))),
        }
    }

    /// The header of an answer ([`Kind::Item`], [`Kind::Last`] or [`Kind::End`]) to the call that was sent.
    fn header(&mut self) -> Result<Header, CallError> {
        match self.state {
            State::Waiting => {}
            State::Broken => return Err(CallError::Closed),
            State::Idle | State::Over => {
                return Err(CallError::Encode("no call waits for an answer".to_owned()));
            }
        }
        let header = match self.incoming.header(&self.socket) {
            Ok(Some(header)) => header,
            Ok(None) => {
                self.state = State::Broken;
                return Err(CallError::Closed);
            }
            Err(error) => return Err(self.lost(error)),
        };
        match header.kind {
            Kind::Error if header.call == self.call || header.call == CONNECTION => Err(self.refused(header)),
            Kind::Item | Kind::Last | Kind::End if header.call == self.call => Ok(header),
            _ => Err(self.broken(format_args!("{:?} of call {}", header.kind, header.call))),
        }
    }

    /// **Must hold:** `header` is of an error frame.
    fn refused(&mut self, header: Header) -> CallError {
        let text = self.part(header.body_len);
        let rest = self.part(header.bulk_len);
        match text.and_then(|text| rest.map(|_| text)) {
            Ok(text) => {
                self.state = if header.call == CONNECTION { State::Broken } else { State::Idle };
                let text = String::from_utf8_lossy(&text).into_owned();
                CallError::Refused { status: Status::from_code(header.detail), text }
            }
            Err(error) => error,
        }
    }

    /// A server that takes no more connections says so and closes; its words may be here though the request could not be
    /// sent any more.
    fn refusal_or_closed(&mut self) -> CallError {
        let refusal = match self.incoming.header_now(&self.socket) {
            Some(header) if header.kind == Kind::Error && header.call == CONNECTION => self.refused(header),
            _ => CallError::Closed,
        };
        self.state = State::Broken;
        refusal
    }

    /// The bulk part that is behind the body, or in the piece that the server was given for it.
    fn bulk(&mut self, header: &Header) -> Result<Bytes, CallError> {
        let piece = self.piece.take();
        self.came_lent = header.place != 0;
        if header.place == 0 {
            return self.part(header.bulk_len);
        }
        let len = header.bulk_len as usize;
        match piece.filter(|piece| piece.span().place() == header.place && len <= piece.span().len()) {
            Some(piece) => Ok(Bytes::from_owner(piece.cut(len))),
            None => Err(self.lost(WireError::Place(header.place).into())),
        }
    }

    fn part(&mut self, len: u32) -> Result<Bytes, CallError> {
        let part = self.incoming.part(&self.socket, len);
        part.map_err(|error| self.lost(error))
    }

    fn broken(&mut self, how: std::fmt::Arguments<'_>) -> CallError {
        tracing::warn!("the RPC server broke the protocol: {how}");
        self.state = State::Broken;
        self.socket.close();
        CallError::Closed
    }

    fn lost(&mut self, error: ReadError) -> CallError {
        self.state = State::Broken;
        self.socket.close();
        if error.is_timeout() {
            return CallError::Deadline(self.timeout.unwrap_or_default());
        }
        match error {
            ReadError::Wire(error) => tracing::warn!(%error, "the RPC server broke the protocol"),
            error => tracing::debug!(%error, "RPC connection ended"),
        }
        CallError::Closed
    }
}

fn decode<R: DeserializeOwned>(body: &[u8]) -> Result<R, CallError> {
    postcard::from_bytes(body).map_err(CallError::Decode)
}
