//! A connection without I/O: frames in, events out.
//!
//! It knows the handshake, which channels are open, and which frame may follow which. What a method does is for the
//! server to carry out; its answer is written with [`crate::wire::encode_method`].

use bytes::{Bytes, BytesMut};

use crate::core::channel::{Channel, Content};
use crate::core::{Refusal, ReplyCode, Scope};
use crate::wire::{
    BasicPublish, ChannelClose, ChannelCloseOk, ChannelOpen, ChannelOpenOk, ConnectionClose,
    ConnectionCloseOk, ConnectionOpenOk, ConnectionStart, ConnectionStartOk, ConnectionTune, DecodeError,
    FRAME_MIN_SIZE, Frame, FrameError, FrameKind, Method, MethodId, ShortStr, Table, Value, encode_method,
    erlang_binary,
};

/// What the broker offers in `connection.tune`, and other bounds.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The highest channel number.
    pub channel_max: u16,
    /// The largest frame in octets.
    pub frame_max: u32,
    /// Seconds between heartbeats; 0 is none.
    pub heartbeat: u16,
    /// The largest message body in octets.
    pub body_bytes_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { channel_max: 2047, frame_max: 131_072, heartbeat: 60, body_bytes_max: 128 * 1024 * 1024 }
    }
}

/// What the client said it can take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `connection.close` with 403 after a wrong password.
    pub authentication_failure_close: bool,
    /// `connection.blocked` and `connection.unblocked`.
    pub connection_blocked: bool,
    /// `basic.cancel` from the server when a queue goes.
    pub consumer_cancel_notify: bool,
}

impl Capabilities {
    fn read(client_properties: &Table) -> Self {
        let Some(Value::Table(table)) = client_properties.get("capabilities") else { return Self::default() };
        let has = |name| table.get(name) == Some(&Value::Bool(true));
        Self {
            authentication_failure_close: has("authentication_failure_close"),
            connection_blocked: has("connection.blocked"),
            consumer_cancel_notify: has("consumer_cancel_notify"),
        }
    }
}

/// Where the connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// `connection.start` was sent.
    StartOk,
    /// `connection.tune` was sent.
    TuneOk,
    /// `connection.tune-ok` came.
    Open,
    /// `connection.open` came and is being looked at, or was answered: methods on channels are served.
    Running,
    /// `connection.close` was sent; only its answer is looked at.
    Closing,
}

/// What a frame asks for.
#[derive(Debug)]
pub enum Event {
    /// Nothing that the server needs to know of.
    None,
    /// Check these credentials, then call [`Connection::tune`] or [`Connection::refuse`].
    Login {
        /// `PLAIN` or `AMQPLAIN`; others are refused before.
        mechanism: ShortStr,
        /// The mechanism's response.
        response: Bytes,
        /// `client_properties`.
        properties: Table,
    },
    /// Check this virtual host, then call [`Connection::open_ok`] or [`Connection::refuse`].
    Open {
        /// Its name.
        vhost: ShortStr,
    },
    /// A method for the server to carry out and answer.
    Method {
        /// The channel, open.
        channel: u16,
        /// The method.
        method: Method,
    },
    /// A whole message.
    Publish {
        /// The channel, open.
        channel: u16,
        /// The message.
        content: Content,
    },
    /// Finish what the channel asked for, release it, then call [`Connection::channel_close_ok`].
    ChannelClose {
        /// The channel.
        channel: u16,
    },
    /// The client said `connection.close`; it was answered. Write what is left and close.
    Closed,
}

/// What a closed channel leaves behind.
pub type Release<D> = Box<Channel<D>>;

/// A connection. `D` is the server's record of a delivery.
#[derive(Debug)]
pub struct Connection<D> {
    phase: Phase,
    limits: Limits,
    frame_max: u32,
    heartbeat: u16,
    capabilities: Capabilities,
    /// Indexed by channel number. Bounded by `limits.channel_max`; grown as far as channels are opened.
    channels: Vec<Option<Box<Channel<D>>>>,
    /// How many of them are open.
    open_count: usize,
    /// The method being handled; errors blame it.
    current: MethodId,
}

impl<D> Connection<D> {
    /// A connection whose protocol header was right; appends `connection.start`.
    pub fn start(limits: Limits, server_properties: Table, out: &mut BytesMut) -> Self {
        let start = ConnectionStart {
            version_major: 0,
            version_minor: 9,
            server_properties,
            mechanisms: Bytes::from_static(b"PLAIN AMQPLAIN"),
            locales: Bytes::from_static(b"en_US"),
        };
        encode_method(out, 0, &start.into());
        Self {
            phase: Phase::StartOk,
            frame_max: limits.frame_max,
            heartbeat: limits.heartbeat,
            limits,
            capabilities: Capabilities::default(),
            channels: Vec::new(),
            open_count: 0,
            current: MethodId::NONE,
        }
    }

    /// The negotiated frame size in octets.
    pub fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// The negotiated heartbeat in seconds; 0 is none.
    pub fn heartbeat(&self) -> u16 {
        self.heartbeat
    }

    /// What the client said it can take.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Whether `connection.close` was sent.
    pub fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    /// Whether the client was let in.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// An open channel.
    pub fn channel(&mut self, number: u16) -> Option<&mut Channel<D>> {
        let channel = self.channels.get_mut(usize::from(number))?.as_deref_mut()?;
        (!channel.closing).then_some(channel)
    }

    /// How many channels are open.
    pub fn open_count(&self) -> usize {
        self.open_count
    }

    /// The numbers of all open channels.
    pub fn open_channels(&self) -> impl Iterator<Item = u16> + '_ {
        let open =
            self.channels.iter().enumerate().filter(|(_, slot)| slot.as_ref().is_some_and(|c| !c.closing));
        open.map(|(number, _)| number as u16)
    }

    /// Takes one frame.
    pub fn on_frame(&mut self, frame: &Frame<'_>, out: &mut BytesMut) -> Result<Event, Refusal> {
        if self.phase == Phase::Closing {
            return Ok(while_closing(frame));
        }
        match (frame.kind, frame.channel) {
            (FrameKind::Heartbeat, 0) => Ok(Event::None),
            (FrameKind::Heartbeat, _) => Err(unexpected("heartbeat frame on a channel other than 0")),
            (FrameKind::Method, 0) => self.on_connection_method(frame, out),
            (_, 0) => Err(unexpected("content frame on channel 0")),
            _ if self.phase != Phase::Running => {
                let detail = "unexpected frame before the connection is open";
                Err(Refusal::new(ReplyCode::ChannelError, detail))
            }
            (FrameKind::Method, number) => self.on_channel_method(number, frame, out),
            (_, number) => self.on_content(number, frame),
        }
    }

    fn decode(&mut self, frame: &Frame<'_>) -> Result<Method, Refusal> {
        self.current = MethodId::NONE;
        let octets = frame.octets();
        if let [c0, c1, m0, m1, ..] = *octets {
            let (class, method) = (u16::from_be_bytes([c0, c1]), u16::from_be_bytes([m0, m1]));
            self.current = MethodId { class, method };
        }
        Method::get(&mut frame.reader()).map_err(|error| {
            if let DecodeError::UnknownMethod { class, method } = error {
                // RabbitMQ resets the TCP connection here; a close with a reason is kinder.
                return Refusal::new(ReplyCode::CommandInvalid, format!("unknown method ({class},{method})"));
            }
            let arguments = octets.get(4..).unwrap_or_default();
            let shown = erlang_binary(&arguments[..arguments.len().min(32)]);
            Refusal::new(ReplyCode::FrameError, format!("cannot decode {shown}"))
        })
    }

    fn on_connection_method(&mut self, frame: &Frame<'_>, out: &mut BytesMut) -> Result<Event, Refusal> {
        match (self.phase, self.decode(frame)?) {
            (Phase::StartOk, Method::ConnectionStartOk(start)) => self.on_start_ok(start),
            (Phase::TuneOk, Method::ConnectionTuneOk(tune)) => {
                self.on_tune_ok(tune.channel_max, tune.frame_max, tune.heartbeat)?;
                Ok(Event::None)
            }
            (Phase::Open, Method::ConnectionOpen(open)) => Ok(Event::Open { vhost: open.vhost.detached() }),
            (_, Method::ConnectionClose(_)) => {
                encode_method(out, 0, &ConnectionCloseOk {}.into());
                Ok(Event::Closed)
            }
            (Phase::Running, Method::ConnectionUpdateSecret(_)) => {
                Err(Refusal::new(ReplyCode::NotImplemented, "connection.update-secret"))
            }
            (phase, _) => {
                let state = match phase {
                    Phase::StartOk => "starting",
                    Phase::TuneOk => "tuning",
                    Phase::Open => "opening",
                    Phase::Running | Phase::Closing => "running",
                };
                let detail = format!("unexpected method in connection state {state}");
                Err(Refusal::new(ReplyCode::ChannelError, detail))
            }
        }
    }

    fn on_start_ok(&mut self, start: ConnectionStartOk) -> Result<Event, Refusal> {
        self.capabilities = Capabilities::read(&start.client_properties);
        if !matches!(start.mechanism.as_str(), "PLAIN" | "AMQPLAIN") {
            return Err(login_refused(&start.mechanism));
        }
        Ok(Event::Login {
            mechanism: start.mechanism,
            response: start.response,
            properties: start.client_properties,
        })
    }

    /// The credentials were right: appends `connection.tune`.
    pub fn tune(&mut self, out: &mut BytesMut) {
        let Limits { channel_max, frame_max, heartbeat, .. } = self.limits;
        encode_method(out, 0, &ConnectionTune { channel_max, frame_max, heartbeat }.into());
        self.phase = Phase::TuneOk;
    }

    fn on_tune_ok(&mut self, channel_max: u16, frame_max: u32, heartbeat: u16) -> Result<(), Refusal> {
        // 0 means "no limit of mine" for both; the offer then stands (specification 4.2.2).
        let offered = self.limits.frame_max;
        let frame_max = if frame_max == 0 { offered } else { frame_max };
        if !(FRAME_MIN_SIZE..=offered).contains(&frame_max) {
            let detail =
                format!("negotiated frame_max = {frame_max} is not within {FRAME_MIN_SIZE} and {offered}");
            return Err(Refusal::new(ReplyCode::NotAllowed, detail));
        }
        if channel_max > self.limits.channel_max {
            let highest = self.limits.channel_max;
            let detail = format!(
                "negotiated channel_max = {channel_max} is higher than the maximum allowed {highest}"
            );
            return Err(Refusal::new(ReplyCode::NotAllowed, detail));
        }
        self.frame_max = frame_max;
        self.heartbeat = heartbeat;
        self.phase = Phase::Open;
        Ok(())
    }

    /// The virtual host is there and allowed: appends `connection.open-ok`.
    pub fn open_ok(&mut self, out: &mut BytesMut) {
        encode_method(out, 0, &ConnectionOpenOk::default().into());
        self.phase = Phase::Running;
    }

    fn on_channel_method(
        &mut self,
        number: u16,
        frame: &Frame<'_>,
        out: &mut BytesMut,
    ) -> Result<Event, Refusal> {
        let limit = self.limits.channel_max;
        let Some(channel) = self.channels.get_mut(usize::from(number)).and_then(Option::as_deref_mut) else {
            return self.on_unopened(number, frame, out);
        };
        if channel.closing {
            return Ok(self.while_channel_closing(number, frame, out));
        }
        channel.expect_method()?;
        let method = self.decode(frame)?;
        match method {
            Method::BasicPublish(publish) => {
                self.on_publish(number, publish)?;
                Ok(Event::None)
            }
            Method::ChannelOpen(_) => {
                Err(Refusal::new(ReplyCode::ChannelError, "second 'channel.open' seen"))
            }
            Method::ChannelClose(_) => Ok(Event::ChannelClose { channel: number }),
            Method::ChannelCloseOk(_) => Ok(Event::None),
            method if method.id().class == 10 => {
                Err(Refusal::new(ReplyCode::CommandInvalid, "unimplemented method"))
            }
            method => {
                debug_assert!(number <= limit, "only channels up to the limit are opened");
                Ok(Event::Method { channel: number, method })
            }
        }
    }

    fn on_publish(&mut self, number: u16, publish: BasicPublish) -> Result<(), Refusal> {
        if publish.immediate {
            return Err(Refusal::new(ReplyCode::NotImplemented, "immediate=true"));
        }
        if let Some(channel) = self.channel(number) {
            channel.publish(publish);
        }
        Ok(())
    }

    fn on_unopened(&mut self, number: u16, frame: &Frame<'_>, out: &mut BytesMut) -> Result<Event, Refusal> {
        let method = self.decode(frame)?;
        match method {
            Method::ChannelOpen(_) if number <= self.limits.channel_max => {
                let index = usize::from(number);
                if self.channels.len() <= index {
                    self.channels.resize_with(index + 1, || None);
                }
                self.channels[index] = Some(Box::default());
                self.open_count += 1;
                encode_method(out, number, &ChannelOpenOk::default().into());
                Ok(Event::None)
            }
            Method::ChannelOpen(_) => {
                let detail =
                    format!("channel {number} is above the highest channel {}", self.limits.channel_max);
                Err(Refusal::new(ReplyCode::NotAllowed, detail).blaming(ChannelOpen::ID))
            }
            // The answer to a close that we sent may cross the client's own close.
            Method::ChannelCloseOk(_) => Ok(Event::None),
            method if method.id().class == 10 => {
                Err(Refusal::new(ReplyCode::CommandInvalid, "unimplemented method"))
            }
            _ => Err(Refusal::new(ReplyCode::ChannelError, "expected 'channel.open'")),
        }
    }

    fn while_channel_closing(&mut self, number: u16, frame: &Frame<'_>, out: &mut BytesMut) -> Event {
        match Method::get(&mut frame.reader()) {
            Ok(Method::ChannelCloseOk(_)) => self.channels[usize::from(number)] = None,
            Ok(Method::ChannelClose(_)) => {
                encode_method(out, number, &ChannelCloseOk {}.into());
                self.channels[usize::from(number)] = None;
            }
            _ => {}
        }
        Event::None
    }

    fn on_content(&mut self, number: u16, frame: &Frame<'_>) -> Result<Event, Refusal> {
        let body_max = self.limits.body_bytes_max;
        self.current = BasicPublish::ID;
        let Some(channel) = self.channels.get_mut(usize::from(number)).and_then(Option::as_deref_mut) else {
            return Err(Refusal::new(ReplyCode::ChannelError, "expected 'channel.open'"));
        };
        if channel.closing {
            return Ok(Event::None);
        }
        let content = channel.content(frame, body_max)?;
        Ok(content.map_or(Event::None, |content| Event::Publish { channel: number, content }))
    }

    /// Closes channel or connection as a refusal demands, and gives back the channels that are gone.
    pub fn refuse(&mut self, channel: u16, refusal: &Refusal, out: &mut BytesMut) -> Vec<(u16, Release<D>)> {
        let MethodId { class, method } = refusal.blame.unwrap_or(self.current);
        let (code, text) = (refusal.code.number(), refusal.text());
        if refusal.scope == Scope::Channel && channel != 0 && self.phase == Phase::Running {
            encode_method(out, channel, &ChannelClose { code, text, class, method }.into());
            return self.take_channel(channel, true).map(|gone| (channel, gone)).into_iter().collect();
        }
        encode_method(out, 0, &ConnectionClose { code, text, class, method }.into());
        self.phase = Phase::Closing;
        self.take_channels()
    }

    /// Bytes that are no frame.
    pub fn refuse_bytes(&mut self, error: &FrameError, out: &mut BytesMut) -> Vec<(u16, Release<D>)> {
        let refusal = Refusal::new(ReplyCode::FrameError, error.to_string()).blaming(MethodId::NONE);
        self.refuse(0, &refusal, out)
    }

    /// The client's `channel.close` is done: gives back what the channel held, and appends the answer.
    pub fn channel_close_ok(&mut self, number: u16, out: &mut BytesMut) {
        encode_method(out, number, &ChannelCloseOk {}.into());
    }

    /// Takes an open channel out; with `closing`, its number stays taken until the client answers.
    pub fn take_channel(&mut self, number: u16, closing: bool) -> Option<Release<D>> {
        let slot = self.channels.get_mut(usize::from(number))?;
        if slot.as_ref().is_none_or(|channel| channel.closing) {
            return None;
        }
        self.open_count -= 1;
        let stub = closing.then(|| Box::new(Channel::closing()));
        std::mem::replace(slot, stub)
    }

    /// Takes every open channel out: the connection ends.
    pub fn take_channels(&mut self) -> Vec<(u16, Release<D>)> {
        let numbers: Vec<u16> = self.open_channels().collect();
        numbers.into_iter().filter_map(|number| Some((number, self.take_channel(number, false)?))).collect()
    }
}

/// 403 as `RabbitMQ` words it, for wrong credentials.
pub fn login_refused(mechanism: &str) -> Refusal {
    let detail = format!(
        "Login was refused using authentication mechanism {mechanism}. For details see the broker logfile."
    );
    Refusal::access(detail).of_connection().blaming(MethodId::NONE)
}

/// After our `connection.close` only the end is looked at.
fn while_closing(frame: &Frame<'_>) -> Event {
    if frame.kind != FrameKind::Method || frame.channel != 0 {
        return Event::None;
    }
    match Method::get(&mut frame.reader()) {
        Ok(Method::ConnectionCloseOk(_) | Method::ConnectionClose(_)) => Event::Closed,
        _ => Event::None,
    }
}

fn unexpected(detail: &str) -> Refusal {
    Refusal::new(ReplyCode::UnexpectedFrame, detail)
}
