//! Sending lines to a syslog listener: for the demo, for tests, and for trying a real log against a flow.

use crate::sinks::relp::{Acknowledgement, RelpSender};
use crate::syslog::with_timestamp;
use kiln_net::Shutdown;
use kiln_world::Clock;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

/// How lines travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One datagram each; may be lost.
    Udp,
    /// `LEN SP line`.
    TcpCounted,
    /// `line LF`.
    TcpLines,
    /// Acknowledged, and sent again after a lost connection.
    Relp,
}

/// How to replay.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `HOST:PORT`.
    pub address: String,
    /// How lines travel.
    pub transport: Transport,
    /// Lines a second; as fast as they are taken when absent.
    pub rate: Option<f64>,
    /// With RELP, lines on the way.
    pub window: usize,
    /// Write the time of sending into RFC 5424 lines.
    pub restamp: bool,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Lines handed to the transport.
    pub sent: u64,
    /// Lines that the receiver has safe; only RELP tells.
    pub acknowledged: u64,
}

/// Replays `lines`; calls `report` after each change. Ends early with `stop`.
pub async fn replay(
    lines: impl Iterator<Item = String>,
    settings: &Settings,
    clock: &dyn Clock,
    stop: Shutdown,
    report: &mut (dyn FnMut(Progress) + Send),
) -> io::Result<Progress> {
    let mut output = Output::connect(settings, stop.clone()).await?;
    let mut progress = Progress::default();
    let mut pace = Pace::new(settings.rate);
    for line in lines {
        if stop.is_fired() {
            break;
        }
        if pace.must_wait() {
            output.flush().await?;
            pace.wait().await;
        }
        let line = if settings.restamp { with_timestamp(&line, clock.now()).into_owned() } else { line };
        progress.acknowledged += output.send(line.into_bytes()).await?;
        progress.sent += 1;
        report(progress);
    }
    progress.acknowledged += output.finish().await?;
    report(progress);
    Ok(progress)
}

/// Keeps a rate on the average, without sleeping for every line of a fast one.
struct Pace {
    interval: Option<Duration>,
    due: Instant,
}

impl Pace {
    /// Sleeps shorter than this are not worth it.
    const SLACK: Duration = Duration::from_millis(2);

    fn new(rate: Option<f64>) -> Pace {
        let interval =
            rate.filter(|rate| *rate > 0.0).and_then(|rate| Duration::try_from_secs_f64(1.0 / rate).ok());
        Pace { interval, due: Instant::now() }
    }

    fn must_wait(&mut self) -> bool {
        let Some(interval) = self.interval else { return false };
        self.due += interval;
        self.due > Instant::now() + Self::SLACK
    }

    async fn wait(&self) {
        tokio::time::sleep_until(self.due).await;
    }
}

enum Output {
    Udp(UdpSocket),
    Tcp { stream: BufWriter<TcpStream>, counted: bool },
    Relp { sender: RelpSender, window: usize, waiting: VecDeque<Acknowledgement> },
}

impl Output {
    async fn connect(settings: &Settings, stop: Shutdown) -> io::Result<Output> {
        let address = &settings.address;
        Ok(match settings.transport {
            Transport::Udp => {
                let socket =
                    UdpSocket::bind(if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).await?;
                socket.connect(address).await?;
                Output::Udp(socket)
            }
            Transport::TcpCounted | Transport::TcpLines => {
                let stream = BufWriter::new(TcpStream::connect(address).await?);
                Output::Tcp { stream, counted: settings.transport == Transport::TcpCounted }
            }
            Transport::Relp => {
                let window = settings.window.max(1);
                let sender = RelpSender::start(address.clone(), window, stop);
                Output::Relp { sender, window, waiting: VecDeque::new() }
            }
        })
    }

    /// Sends a line; says how many were acknowledged meanwhile.
    async fn send(&mut self, line: Vec<u8>) -> io::Result<u64> {
        match self {
            Output::Udp(socket) => socket.send(&line).await.map(|_| 0),
            Output::Tcp { stream, counted } => {
                if *counted {
                    stream.write_all(format!("{} ", line.len()).as_bytes()).await?;
                }
                stream.write_all(&line).await?;
                if !*counted {
                    stream.write_all(b"\n").await?;
                }
                Ok(0)
            }
            Output::Relp { sender, window, waiting } => {
                waiting.push_back(sender.enqueue(line).await.map_err(io::Error::other)?);
                settle(waiting, *window).await
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Tcp { stream, .. } => stream.flush().await,
            Output::Udp(_) | Output::Relp { .. } => Ok(()),
        }
    }

    /// Waits until everything is sent, and acknowledged where the transport does that; says how many more were.
    async fn finish(self) -> io::Result<u64> {
        match self {
            Output::Udp(_) => Ok(0),
            Output::Tcp { mut stream, .. } => stream.shutdown().await.map(|()| 0),
            Output::Relp { mut waiting, .. } => settle(&mut waiting, 0).await,
        }
    }
}

/// Waits until no more than `left` lines are unacknowledged; says how many were acknowledged.
async fn settle(waiting: &mut VecDeque<Acknowledgement>, left: usize) -> io::Result<u64> {
    let mut acknowledged = 0;
    while waiting.len() > left
        && let Some(answer) = waiting.pop_front()
    {
        answer.wait().await.map_err(io::Error::other)?;
        acknowledged += 1;
    }
    Ok(acknowledged)
}
