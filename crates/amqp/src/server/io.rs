//! The loop of one connection: it alone reads and writes its socket, and everything it does in between is synchronous
//! but for changes of the topology.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use kiln_auth::sasl::Plain;
use kiln_net::Stream;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use crate::core::{Connection, ConnectionId, Event, Refusal, ReplyCode, login_refused};
use crate::server::broker::Broker;
use crate::server::listing::{Login, Peer};
use crate::server::routes::Place;
use crate::server::session::{OUT_BYTES_MAX, Session};
use crate::wire::{
    FrameBatch, FrameKind, Method, PROTOCOL_HEADER, Reader, ShortStr, Table, Value, Wire, complete_frames,
    encode_heartbeat,
};

/// Bytes read from a socket at a time.
const READ_BYTES: usize = 128 * 1024;
/// A connection that is idle shrinks its buffers to this, in bytes.
const IDLE_BUFFER_BYTES: usize = 4096;
/// Bytes that wait to be written beyond which nothing more is read: the client does not read its answers.
const UNREAD_BYTES_MAX: usize = 8 << 20;
/// The handshake must be done in this time.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// After our `connection.close`, its answer is awaited this long.
const CLOSE_MAX: Duration = Duration::from_secs(5);
/// Heartbeats missed before a silent client is given up.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// A client's socket.
pub(super) struct Socket {
    stream: TcpStream,
}

impl Socket {
    /// Writes everything; on an error it drops it, and the next read finds out.
    pub(super) async fn write_all(&self, out: &mut BytesMut) {
        while !out.is_empty() {
            if self.stream.writable().await.is_err() || self.try_write(out).is_err() {
                out.clear();
            }
        }
    }

    /// Writes what the kernel takes.
    fn try_write(&self, out: &mut BytesMut) -> io::Result<()> {
        while !out.is_empty() {
            match self.stream.try_write(out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => out.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Why a connection's loop ended.
enum End {
    /// Both sides said so, or the client hung up.
    Done,
    /// The socket failed.
    Socket(io::Error),
    /// The client was silent for too long.
    Silent,
}

/// Serves one client until it goes.
pub(super) async fn serve(broker: Broker, stream: Stream) {
    // The broker is given a TCP port.
    let Stream::Tcp(stream) = stream else { return };
    let Ok(address) = stream.peer_addr() else { return };
    let socket = Socket { stream };
    let mut input = BytesMut::with_capacity(IDLE_BUFFER_BYTES);
    let hello = tokio::time::timeout(HANDSHAKE_MAX, read_header(&socket, &mut input)).await;
    if !matches!(hello, Ok(Ok(true))) {
        return;
    }
    let peer = Arc::new(Peer::new(address));
    let id = ConnectionId(broker.next_id());
    broker.peers().insert(id, Arc::clone(&peer));
    let mut out = BytesMut::with_capacity(IDLE_BUFFER_BYTES);
    let conn = Connection::start(broker.settings().limits.clone(), server_properties(), &mut out);
    let mut session = Session::new(broker, id, peer, conn);
    session.out = out;
    let mut driver = Driver {
        session,
        socket,
        input,
        heard: Instant::now(),
        said: Instant::now(),
        closing_since: None,
        timer: Box::pin(tokio::time::sleep(HANDSHAKE_MAX)),
    };
    let end = driver.run().await;
    match end {
        End::Done => {}
        End::Socket(error) => tracing::debug!(%error, %address, "connection lost"),
        End::Silent => tracing::info!(%address, "connection closed: no heartbeat"),
    }
    driver.session.end().await;
}

/// Reads the protocol header; a wrong one is answered with the right one.
async fn read_header(socket: &Socket, input: &mut BytesMut) -> io::Result<bool> {
    while input.len() < PROTOCOL_HEADER.len() {
        socket.stream.readable().await?;
        match socket.stream.try_read_buf(input) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    let header = input.split_to(PROTOCOL_HEADER.len());
    // RabbitMQ also takes the headers that clients of the 0-8 days send.
    let known = [PROTOCOL_HEADER, *b"AMQP\x01\x01\x00\x09", *b"AMQP\x01\x01\x09\x01"];
    if known.iter().any(|known| header[..] == known[..]) {
        return Ok(true);
    }
    let mut answer = BytesMut::from(&PROTOCOL_HEADER[..]);
    socket.write_all(&mut answer).await;
    Ok(false)
}

fn server_properties() -> Table {
    let capabilities = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ];
    let capabilities = capabilities.into_iter().fold(Table::new(), |table, name| table.with(name, true));
    Table::new()
        .with("capabilities", capabilities)
        .with("product", "Kiln")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("platform", "Rust")
        .with("cluster_name", "kiln")
}

struct Driver {
    session: Session,
    socket: Socket,
    input: BytesMut,
    /// When bytes last came, and last went.
    heard: Instant,
    said: Instant,
    closing_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
}

impl Driver {
    async fn run(&mut self) -> End {
        loop {
            self.session.read_letters();
            self.session.flush_settled();
            if let Err(error) = self.write() {
                return End::Socket(error);
            }
            if self.session.ended && self.session.out.is_empty() {
                return End::Done;
            }
            if let Some(end) = self.wait().await {
                return end;
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.session.out.is_empty() {
            return Ok(());
        }
        let before = self.session.out.len();
        self.socket.try_write(&mut self.session.out)?;
        if self.session.out.len() < before {
            self.said = Instant::now();
        }
        Ok(())
    }

    /// Waits for whatever comes first and handles it.
    async fn wait(&mut self) -> Option<End> {
        let out_len = self.session.out.len();
        let reading = self.is_reading();
        let interest = match (reading, out_len > 0) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (true, false) => Interest::READABLE,
            (false, _) => Interest::WRITABLE,
        };
        let letters = out_len < OUT_BYTES_MAX;
        if letters && self.session.has_letters() {
            return None;
        }
        let retry_at = self.session.retry_at();
        tokio::select! {
            ready = self.socket.stream.ready(interest), if reading || out_len > 0 => match ready {
                Ok(ready) if reading && ready.is_readable() => self.read().await,
                Ok(_) => None,
                Err(error) => Some(End::Socket(error)),
            },
            () = self.session.mailbox.wait(), if letters => None,
            () = tokio::time::sleep_until(retry_at.unwrap_or(self.said)), if retry_at.is_some() => {
                self.session.flush();
                None
            }
            () = &mut self.timer => self.tick(),
        }
    }

    fn is_reading(&self) -> bool {
        let answers_read = self.session.out.len() < UNREAD_BYTES_MAX;
        answers_read && self.session.takes_more() && !self.session.ended
    }

    /// Reads once, and handles every whole frame.
    async fn read(&mut self) -> Option<End> {
        self.input.reserve(READ_BYTES);
        match self.socket.stream.try_read_buf(&mut self.input) {
            Ok(0) => return Some(End::Done),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Nothing came after all: an idle connection keeps no large buffer.
                if self.input.is_empty() {
                    self.input = BytesMut::with_capacity(IDLE_BUFFER_BYTES);
                }
                return None;
            }
            Err(error) => return Some(End::Socket(error)),
        }
        self.heard = Instant::now();
        let (whole, error) = complete_frames(&self.input, self.session.conn.frame_max());
        let frames = FrameBatch::new(self.input.split_to(whole).freeze());
        self.handle(frames).await;
        if let Some(error) = error
            && !self.session.ended
        {
            self.input.clear();
            if !self.session.conn.is_closing() {
                self.session.flush();
                let released = self.session.conn.refuse_bytes(&error, &mut self.session.out);
                self.session.release_all(released).await;
            }
            self.note_closing();
        }
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        None
    }

    async fn handle(&mut self, mut frames: FrameBatch) {
        while let Some(frame) = frames.next_frame() {
            if self.session.ended {
                return;
            }
            let channel = frame.channel;
            let is_content = frame.kind != FrameKind::Method;
            let outcome = match self.session.conn.on_frame(&frame, &mut self.session.out) {
                Ok(Event::None) => continue,
                Ok(Event::Publish { channel, content }) if is_content => {
                    match self.session.publish(channel, content) {
                        Ok(false) => continue,
                        Ok(true) => {
                            self.session.flush();
                            continue;
                        }
                        Err(refusal) => Err(refusal.blaming(crate::wire::BasicPublish::ID)),
                    }
                }
                Ok(event) => self.on_event(event).await,
                Err(refusal) => Err(refusal),
            };
            if let Err(refusal) = outcome {
                self.session.refuse(channel, &refusal).await;
                self.note_closing();
            }
        }
        self.session.flush();
        let open = self.session.conn.open_count() as u64;
        self.session.peer.channels.store(open, Ordering::Relaxed);
    }

    fn note_closing(&mut self) {
        if self.session.conn.is_closing() && self.closing_since.is_none() {
            self.closing_since = Some(Instant::now());
            self.timer.as_mut().reset(Instant::now() + CLOSE_MAX);
        }
    }

    async fn on_event(&mut self, event: Event) -> Result<(), Refusal> {
        match event {
            Event::None | Event::Publish { .. } => Ok(()),
            Event::Method { channel, method } => self.on_method(channel, method).await,
            Event::ChannelClose { channel } => {
                self.session.flush();
                if let Some(released) = self.session.conn.take_channel(channel, false) {
                    self.session.release_all(vec![(channel, released)]).await;
                }
                self.session.conn.channel_close_ok(channel, &mut self.session.out);
                Ok(())
            }
            Event::Login { mechanism, response, properties } => {
                self.login(&mechanism, &response, &properties).await
            }
            Event::Open { vhost } => self.open(vhost).await,
            Event::Closed => {
                self.session.flush();
                self.session.ended = true;
                Ok(())
            }
        }
    }

    async fn on_method(&mut self, channel: u16, method: Method) -> Result<(), Refusal> {
        if let Some(outcome) = self.session.acknowledge(channel, &method) {
            return outcome;
        }
        self.session.flush();
        self.session.method(channel, method).await
    }

    async fn login(
        &mut self,
        mechanism: &ShortStr,
        response: &bytes::Bytes,
        properties: &Table,
    ) -> Result<(), Refusal> {
        let (user, password) = credentials(mechanism, response).ok_or_else(|| login_refused(mechanism))?;
        let address = self.session.peer.address.ip();
        let login = self.session.broker.auth().login(&user, &password, Some(address)).await;
        let identity = match login {
            Ok(identity) => identity,
            Err(error) => {
                tracing::warn!(%error, peer = %self.session.peer.address, "login refused");
                if !self.session.conn.capabilities().authentication_failure_close {
                    // Such a client expects the socket to be closed (RabbitMQ waits a while against guessing).
                    self.session.ended = true;
                    return Ok(());
                }
                return Err(login_refused(mechanism));
            }
        };
        let client =
            ["connection_name", "product"].into_iter().find_map(|name| properties.get(name)?.as_text());
        let login = Login { user: identity.user, client: client.unwrap_or_default().to_owned() };
        // The state machine lets nobody log in twice.
        drop(self.session.peer.login.set(login));
        self.session.conn.tune(&mut self.session.out);
        Ok(())
    }

    async fn open(&mut self, name: ShortStr) -> Result<(), Refusal> {
        let session = &mut self.session;
        let user = session.peer.login.get().map(|login| Arc::clone(&login.user));
        let user = user.ok_or_else(|| Refusal::new(ReplyCode::NotAllowed, "not logged in"))?;
        let auth = session.broker.auth();
        if !auth.vhost_exists(&name) {
            return Err(no_vhost(&name));
        }
        if !auth.may_enter(&user, &name) {
            let detail = format!("access to vhost '{name}' refused for user '{user}'");
            return Err(Refusal::new(ReplyCode::NotAllowed, detail));
        }
        // Before the virtual host is looked for: when it is deleted meanwhile, this connection is told.
        drop(session.peer.vhost.set(name.to_string()));
        let vhost = session.broker.vhost(&name).await;
        let vhost = vhost.map_err(|error| Refusal::new(ReplyCode::InternalError, error.to_string()))?;
        let vhost = vhost.ok_or_else(|| no_vhost(&name))?;
        session.place = Some(Place { user, vhost });
        session.conn.open_ok(&mut session.out);
        self.arm_heartbeat();
        Ok(())
    }

    // ---- time

    fn half_heartbeat(&self) -> Option<Duration> {
        let seconds = self.session.conn.heartbeat();
        (seconds > 0).then(|| Duration::from_secs(seconds.into()) / 2)
    }

    fn arm_heartbeat(&mut self) {
        let pause = self.half_heartbeat().unwrap_or(Duration::from_hours(1));
        self.timer.as_mut().reset(Instant::now() + pause);
    }

    fn tick(&mut self) -> Option<End> {
        if self.closing_since.is_some() || !self.session.conn.is_running() {
            return Some(End::Silent);
        }
        if let Some(half) = self.half_heartbeat() {
            if !self.session.takes_more() {
                // What it sent meanwhile was not read.
                self.heard = Instant::now();
            }
            if self.heard.elapsed() >= half * 2 * HEARTBEATS_MISSED_MAX {
                return Some(End::Silent);
            }
            // A timer may fire a little early.
            if self.said.elapsed() + Duration::from_millis(50) >= half && self.session.out.is_empty() {
                encode_heartbeat(&mut self.session.out);
            }
        }
        self.arm_heartbeat();
        None
    }
}

fn no_vhost(name: &ShortStr) -> Refusal {
    Refusal::new(ReplyCode::NotAllowed, format!("vhost {name} not found"))
}

/// User and password of a SASL response.
fn credentials(mechanism: &ShortStr, response: &bytes::Bytes) -> Option<(String, String)> {
    if mechanism.as_str() == "PLAIN" {
        let plain = Plain::parse(response).ok()?;
        return Some((plain.user.to_owned(), plain.password.expose().to_owned()));
    }
    // AMQPLAIN: the entries of a field table without its length.
    let mut framed = BytesMut::with_capacity(response.len() + 4);
    response.put(&mut framed);
    let table = <Table as Wire>::get(&mut Reader::new(&framed.freeze())).ok()?;
    let text = |name| table.get(name).and_then(Value::as_text).map(str::to_owned);
    Some((text("LOGIN")?, text("PASSWORD")?))
}
