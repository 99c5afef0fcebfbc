//! The task of a connection: handshake, reading, writing, heartbeats.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::client::state::Shared;
use crate::client::{ClientError, Endpoint, Message};
use crate::wire::{
    BasicDeliver, ChannelCloseOk, ConnectionCloseOk, ConnectionOpen, ConnectionStartOk, ConnectionTuneOk,
    Frame, FrameBatch, FrameKind, Method, PROTOCOL_HEADER, ShortStr, Table, Wire, complete_frames,
    encode_heartbeat, encode_method,
};

const READ_BYTES: usize = 128 * 1024;
/// The largest frame this client takes, in octets.
const FRAME_MAX: u32 = 131_072;
/// Messages handed to a consumer at once are as many as one read brings; a larger body is taken up to this size.
const BODY_BYTES_MAX: u64 = 256 << 20;

/// Connects, logs in, and leaves a task behind that serves the connection.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Arc<Shared>, ClientError> {
    let stream = TcpStream::connect(&endpoint.address).await?;
    stream.set_nodelay(true)?;
    let mut link = Link { stream, input: BytesMut::new(), out: BytesMut::from(&PROTOCOL_HEADER[..]) };
    let Method::ConnectionStart(_) = link.next_method().await? else {
        return Err(not_due("connection.start"));
    };
    encode_method(&mut link.out, 0, &start_ok(endpoint).into());
    let Method::ConnectionTune(tune) = link.next_method().await? else {
        return Err(not_due("connection.tune"));
    };
    let frame_max = if tune.frame_max == 0 { FRAME_MAX } else { tune.frame_max.min(FRAME_MAX) };
    let heartbeat = if tune.heartbeat == 0 { 0 } else { endpoint.heartbeat.min(tune.heartbeat) };
    let tune_ok = ConnectionTuneOk { channel_max: tune.channel_max, frame_max, heartbeat };
    encode_method(&mut link.out, 0, &tune_ok.into());
    let vhost = ShortStr::try_from(endpoint.vhost.as_str())?;
    encode_method(&mut link.out, 0, &ConnectionOpen { vhost, ..ConnectionOpen::default() }.into());
    let Method::ConnectionOpenOk(_) = link.next_method().await? else {
        return Err(not_due("connection.open-ok"));
    };
    let shared = Arc::new(Shared::new(frame_max, tune.channel_max));
    let mut task = Task {
        link,
        shared: Arc::clone(&shared),
        heartbeat: Duration::from_secs(heartbeat.into()),
        heard: Instant::now(),
        said: Instant::now(),
        contents: Vec::new(),
        last: None,
    };
    tokio::spawn(async move {
        let error = task.run().await;
        task.shared.end(&error);
    });
    Ok(shared)
}

fn start_ok(endpoint: &Endpoint) -> ConnectionStartOk {
    let capabilities = Table::new()
        .with("authentication_failure_close", true)
        .with("consumer_cancel_notify", true)
        .with("basic.nack", true)
        .with("publisher_confirms", true);
    let client_properties = Table::new()
        .with("product", "Kiln")
        .with("connection_name", endpoint.name.as_str())
        .with("capabilities", capabilities);
    let response = format!("\0{}\0{}", endpoint.user, endpoint.password);
    ConnectionStartOk {
        client_properties,
        mechanism: ShortStr::from_static("PLAIN"),
        response: Bytes::from(response),
        locale: ShortStr::from_static("en_US"),
    }
}

fn not_due(what: &str) -> ClientError {
    ClientError::Protocol(format!("{what} was due").into())
}

fn hung_up() -> ClientError {
    ClientError::Lost("the broker hung up".into())
}

/// A socket with its buffers.
struct Link {
    stream: TcpStream,
    input: BytesMut,
    out: BytesMut,
}

impl Link {
    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => self.out.advance(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads once and gives the whole frames that are there.
    fn read(&mut self) -> Result<FrameBatch, ClientError> {
        self.input.reserve(READ_BYTES);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => return Err(hung_up()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let (whole, error) = complete_frames(&self.input, FRAME_MAX);
        match error {
            Some(error) if whole == 0 => Err(ClientError::Protocol(error.to_string().into())),
            _ => Ok(FrameBatch::new(self.input.split_to(whole).freeze())),
        }
    }

    /// The next method of the handshake.
    async fn next_method(&mut self) -> Result<Method, ClientError> {
        loop {
            self.write()?;
            let interest = if self.out.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            if !self.stream.ready(interest).await?.is_readable() {
                continue;
            }
            // The broker sends one method and waits for the answer.
            let mut frames = self.read()?;
            let Some(frame) = frames.next_frame() else { continue };
            return match decode(&frame)? {
                Method::ConnectionClose(close) => {
                    Err(ClientError::ConnectionClosed { code: close.code, text: close.text })
                }
                method => Ok(method),
            };
        }
    }
}

fn decode(frame: &Frame<'_>) -> Result<Method, ClientError> {
    Method::get(&mut frame.reader()).map_err(|error| ClientError::Protocol(error.to_string().into()))
}

/// A delivery whose content is still coming.
struct Content {
    channel: u16,
    deliver: BasicDeliver,
    header: Option<(u64, Bytes)>,
    body: BytesMut,
}

struct Task {
    link: Link,
    shared: Arc<Shared>,
    /// Zero is none.
    heartbeat: Duration,
    heard: Instant,
    said: Instant,
    /// At most one for each channel.
    contents: Vec<Content>,
    /// The consumer that got the last message.
    last: Option<(u16, ShortStr, mpsc::UnboundedSender<Message>)>,
}

impl Task {
    async fn run(&mut self) -> ClientError {
        loop {
            match self.step().await {
                Ok(()) => {}
                Err(error) => {
                    // What was answered last, as close-ok, still goes out if it can.
                    drop(self.link.write());
                    return error;
                }
            }
        }
    }

    async fn step(&mut self) -> Result<(), ClientError> {
        self.shared.take_out(&mut self.link.out);
        if !self.link.out.is_empty() {
            self.link.write()?;
            self.said = Instant::now();
        }
        let reading = !self.shared.lag().is_too_much();
        let interest = match (reading, self.link.out.is_empty()) {
            (true, true) => Interest::READABLE,
            (true, false) => Interest::READABLE | Interest::WRITABLE,
            (false, _) => Interest::WRITABLE,
        };
        let socket = reading || !self.link.out.is_empty();
        let pause = if self.heartbeat.is_zero() { Duration::from_hours(1) } else { self.heartbeat / 2 };
        let shared = Arc::clone(&self.shared);
        tokio::select! {
            ready = self.link.stream.ready(interest), if socket => {
                if ready?.is_readable() && reading {
                    self.read()?;
                }
            }
            () = shared.wake.notified(), if self.link.out.is_empty() => {}
            () = shared.lag().eased(), if !reading => {}
            () = tokio::time::sleep_until(self.said + pause) => self.tick(reading)?,
        }
        Ok(())
    }

    fn tick(&mut self, reading: bool) -> Result<(), ClientError> {
        self.said = Instant::now();
        if self.heartbeat.is_zero() {
            return Ok(());
        }
        if reading && self.heard.elapsed() > self.heartbeat * 3 {
            return Err(ClientError::Lost("no heartbeat from the broker".into()));
        }
        encode_heartbeat(&mut self.link.out);
        Ok(())
    }

    fn read(&mut self) -> Result<(), ClientError> {
        let mut frames = self.link.read()?;
        self.heard = Instant::now();
        while let Some(frame) = frames.next_frame() {
            match frame.kind {
                FrameKind::Heartbeat => {}
                FrameKind::Method => self.on_method(frame.channel, decode(&frame)?)?,
                FrameKind::Header | FrameKind::Body => self.on_content(&frame)?,
            }
        }
        Ok(())
    }

    fn on_method(&mut self, channel: u16, method: Method) -> Result<(), ClientError> {
        match method {
            Method::BasicDeliver(deliver) => {
                self.contents.push(Content { channel, deliver, header: None, body: BytesMut::new() });
            }
            Method::BasicAck(ack) => self.shared.confirmed(channel, ack.delivery_tag, ack.multiple, true),
            Method::BasicNack(nack) => {
                self.shared.confirmed(channel, nack.delivery_tag, nack.multiple, false);
            }
            Method::BasicCancel(cancel) => {
                self.last = None;
                self.shared.remove_consumer(channel, &cancel.consumer_tag);
            }
            Method::ChannelClose(close) => {
                self.last = None;
                encode_method(&mut self.link.out, channel, &ChannelCloseOk {}.into());
                let error = ClientError::ChannelClosed { code: close.code, text: close.text };
                self.shared.channel_closed(channel, &error);
            }
            Method::ConnectionClose(close) => {
                encode_method(&mut self.link.out, 0, &ConnectionCloseOk {}.into());
                return Err(ClientError::ConnectionClosed { code: close.code, text: close.text });
            }
            Method::ConnectionCloseOk(_) => {
                self.shared.reply(0, method);
                return Err(ClientError::Lost("it was closed".into()));
            }
            Method::ConnectionBlocked(_) | Method::ConnectionUnblocked(_) | Method::ChannelFlow(_) => {}
            method => {
                self.last = None;
                self.shared.reply(channel, method);
            }
        }
        Ok(())
    }

    fn on_content(&mut self, frame: &Frame<'_>) -> Result<(), ClientError> {
        let Some(at) = self.contents.iter().position(|content| content.channel == frame.channel) else {
            return Err(not_due("a method"));
        };
        let content = &mut self.contents[at];
        let size = match &content.header {
            None => {
                let mut from = frame.reader();
                let read =
                    (|| Ok::<_, crate::wire::DecodeError>((u32::get(&mut from)?, u64::get(&mut from)?)))();
                let (_, size) = read.map_err(|error| ClientError::Protocol(error.to_string().into()))?;
                if size > BODY_BYTES_MAX {
                    return Err(ClientError::Protocol("a message is too large".into()));
                }
                content.header = Some((size, from.rest()));
                if size > 0 {
                    return Ok(());
                }
                0
            }
            Some((size, _)) => *size,
        };
        let whole =
            frame.kind == FrameKind::Body && content.body.is_empty() && frame.octets().len() as u64 == size;
        if frame.kind == FrameKind::Body && !whole {
            content.body.extend_from_slice(frame.octets());
            if (content.body.len() as u64) < size {
                return Ok(());
            }
        }
        let content = self.contents.swap_remove(at);
        let body = if whole { frame.payload() } else { content.body.freeze() };
        self.hand_over(content.channel, content.deliver, content.header, body);
        Ok(())
    }

    fn hand_over(&mut self, channel: u16, deliver: BasicDeliver, header: Option<(u64, Bytes)>, body: Bytes) {
        let is_last =
            |(number, tag, _): &(u16, ShortStr, _)| *number == channel && *tag == deliver.consumer_tag;
        if !self.last.as_ref().is_some_and(is_last) {
            let found = self.shared.consumer(channel, &deliver.consumer_tag);
            self.last = found.map(|to| (channel, deliver.consumer_tag.detached(), to));
        }
        let Some((_, _, to)) = &self.last else { return };
        let message = Message {
            delivery_tag: deliver.delivery_tag,
            redelivered: deliver.redelivered,
            exchange: deliver.exchange,
            routing_key: deliver.routing_key,
            raw_properties: header.map(|(_, raw)| raw).unwrap_or_default(),
            body,
        };
        let size = message.body.len();
        // A consumer that was dropped leaves its messages to the channel's end.
        self.shared.lag().came(size);
        if to.send(message).is_err() {
            self.shared.lag().took(1, size);
        }
    }
}
