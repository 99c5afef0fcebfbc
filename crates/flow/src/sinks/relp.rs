//! A RELP client that keeps at it: connects again, sends again what was not acknowledged.

use crate::backoff::{Backoff, Stopped};
use crate::syslog::relp::{self, Answer};
use kiln_net::Shutdown;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

const READ_BYTES: usize = 4096;
/// Largest answer that is kept.
const ANSWER_BYTES_MAX: usize = 4096;
/// A receiver that says nothing for this long while it owes an answer is given up; the next connection sends again.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Sends lines to one receiver. Cloning is cheap; the connection closes when all clones are gone.
#[derive(Clone, Debug)]
pub struct RelpSender {
    lines: mpsc::Sender<Line>,
}

/// Why a line was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The receiver refused it.
    #[error("the receiver refused the message")]
    Refused,
    /// The sender was stopped first; whether the line arrived is not known.
    #[error("the sender was stopped")]
    Stopped,
}

#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    done: oneshot::Sender<Result<(), SendError>>,
}

impl AsRef<[u8]> for Line {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl RelpSender {
    /// Starts a sender to `HOST:PORT` with at most `window` lines on the way. It ends with `stop`, or when all clones are gone and every line is
    /// acknowledged. Must be called within a tokio runtime.
    pub fn start(address: String, window: usize, stop: Shutdown) -> RelpSender {
        let (lines, waiting) = mpsc::channel(window.max(1));
        tokio::spawn(run(address, relp::Sender::new(window), waiting, stop));
        RelpSender { lines }
    }

    /// Sends a line; `Ok` when the receiver has it safe. Waits for as long as that takes.
    pub async fn send(&self, line: Vec<u8>) -> Result<(), SendError> {
        self.enqueue(line).await?.wait().await
    }

    /// Puts a line in its place in the order of sending; waits only while the window is full.
    pub async fn enqueue(&self, line: Vec<u8>) -> Result<Acknowledgement, SendError> {
        let (done, answer) = oneshot::channel();
        self.lines.send(Line { bytes: line, done }).await.map_err(|_| SendError::Stopped)?;
        Ok(Acknowledgement(answer))
    }
}

/// The answer to a line that is on its way.
#[derive(Debug)]
pub struct Acknowledgement(oneshot::Receiver<Result<(), SendError>>);

impl Acknowledgement {
    /// `Ok` when the receiver has the line safe.
    pub async fn wait(self) -> Result<(), SendError> {
        self.0.await.map_err(|_| SendError::Stopped)?
    }
}

/// Why a connection came to its end.
enum End {
    /// All lines are acknowledged, and no more will come.
    Finished,
    /// The connection is of no further use.
    Broken(String),
}

async fn run(
    address: String,
    mut session: relp::Sender<Line>,
    mut lines: mpsc::Receiver<Line>,
    mut stop: Shutdown,
) -> Result<(), Stopped> {
    let mut backoff = Backoff::new();
    let mut first = None;
    loop {
        // Nothing is connected while there is nothing to say.
        if first.is_none() && session.in_flight() == 0 {
            first = tokio::select! {
                () = stop.wait() => return Err(Stopped),
                line = lines.recv() => line,
            };
            if first.is_none() {
                return Ok(());
            }
        }
        let connection = Connection { session: &mut session, lines: &mut lines, backoff: &mut backoff };
        let end = tokio::select! {
            () = stop.wait() => return Err(Stopped),
            end = connection.serve(&address, &mut first) => end,
        };
        match end {
            End::Finished => return Ok(()),
            End::Broken(reason) => tracing::warn!(
                address,
                reason,
                unacknowledged = session.in_flight(),
                "RELP connection lost; trying again"
            ),
        }
        backoff.wait(&mut stop).await?;
    }
}

struct Connection<'a> {
    session: &'a mut relp::Sender<Line>,
    lines: &'a mut mpsc::Receiver<Line>,
    backoff: &'a mut Backoff,
}

impl Connection<'_> {
    async fn serve(self, address: &str, first: &mut Option<Line>) -> End {
        match self.exchange(address, first).await {
            Ok(end) => end,
            Err(error) => End::Broken(error.to_string()),
        }
    }

    async fn exchange(self, address: &str, first: &mut Option<Line>) -> std::io::Result<End> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut decoder = relp::Decoder::new(ANSWER_BYTES_MAX);
        let mut buffer = vec![0; READ_BYTES];
        let mut out = Vec::new();
        self.session.connected(&mut out);
        if let Some(line) = first.take_if(|_| self.session.has_room()) {
            self.session.send(line, &mut out);
        }
        let mut more = true;
        loop {
            stream.write_all(&out).await?;
            out.clear();
            if !more && self.session.in_flight() == 0 {
                self.session.close(&mut out);
                stream.write_all(&out).await?;
                return Ok(End::Finished);
            }
            let owed = self.session.in_flight() > 0;
            tokio::select! {
                read = stream.read(&mut buffer) => {
                    let count = read?;
                    if count == 0 {
                        return Ok(End::Broken("closed by the receiver".to_owned()));
                    }
                    if let Some(reason) = take_answers(self.session, &mut decoder, &buffer[..count]) {
                        return Ok(End::Broken(reason));
                    }
                    self.backoff.reset();
                }
                line = self.lines.recv(), if more && self.session.has_room() => {
                    match line {
                        Some(line) => self.session.send(line, &mut out),
                        None => more = false,
                    }
                    // Whatever else waits goes into the same write.
                    while self.session.has_room() && let Ok(line) = self.lines.try_recv() {
                        self.session.send(line, &mut out);
                    }
                }
                () = tokio::time::sleep(SILENCE_MAX), if owed => return Ok(End::Broken("no answer".to_owned())),
            }
        }
    }
}

/// Wakes the senders of acknowledged lines; gives the reason for which the connection is to be left, if there is one.
fn take_answers(
    session: &mut relp::Sender<Line>,
    decoder: &mut relp::Decoder,
    input: &[u8],
) -> Option<String> {
    let mut closing = false;
    let decoded = decoder.feed(input, &mut |frame| match session.answer(frame) {
        // A sender that no longer waits has no use for the answer.
        Answer::Acknowledged(line) => drop(line.done.send(Ok(()))),
        Answer::Refused(line) => drop(line.done.send(Err(SendError::Refused))),
        Answer::Closing => closing = true,
        Answer::Opened | Answer::Ignored => {}
    });
    match decoded {
        Err(error) => Some(error.to_string()),
        Ok(()) => closing.then(|| "the receiver is closing".to_owned()),
    }
}
