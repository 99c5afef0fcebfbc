//! Lines forwarded to another syslog receiver.

use super::relp::{RelpSender, SendError};
use crate::core::{Records, SinkAddress};
use crate::ports::PortError;
use kiln_net::Shutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Mutex;

/// Messages that may be on the way unacknowledged.
const WINDOW: usize = 128;

/// One receiver, connected when it is first needed.
pub(super) struct SyslogSink {
    address: SinkAddress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    tcp: Option<TcpStream>,
    udp: Option<UdpSocket>,
    relp: Option<RelpSender>,
}

impl SyslogSink {
    pub(super) fn new(address: SinkAddress) -> SyslogSink {
        SyslogSink { address, state: Mutex::default() }
    }

    /// Sends all records. Only RELP tells whether they arrived; with TCP those in flight when a connection breaks may be lost or repeated, with UDP
    /// any may be lost.
    pub(super) async fn send(&self, records: &Records, stop: &Shutdown) -> Result<(), PortError> {
        // Held across awaits on purpose: one writer at a time keeps the stream's frames whole.
        let mut state = self.state.lock().await;
        match &self.address {
            SinkAddress::Udp(address) => send_udp(&mut state.udp, address, records).await,
            SinkAddress::Tcp(address) => send_tcp(&mut state.tcp, address, records).await,
            SinkAddress::Relp(address) => {
                let sender = state
                    .relp
                    .get_or_insert_with(|| RelpSender::start(address.clone(), WINDOW, stop.clone()));
                send_relp(sender, records).await
            }
        }
    }
}

async fn send_udp(socket: &mut Option<UdpSocket>, address: &str, records: &Records) -> Result<(), PortError> {
    let unavailable =
        |error: std::io::Error| PortError::Unavailable(format!("send to udp://{address}: {error}"));
    if socket.is_none() {
        let local = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
        let fresh = UdpSocket::bind(local).await.map_err(unavailable)?;
        fresh.connect(address).await.map_err(unavailable)?;
        *socket = Some(fresh);
    }
    let Some(socket) = socket else { return Ok(()) };
    for record in records.iter() {
        send_datagram(socket, record.value).await.map_err(unavailable)?;
    }
    Ok(())
}

/// That nobody listens is told of an earlier datagram, and this one was not sent then. UDP promises no more than a try.
async fn send_datagram(socket: &UdpSocket, bytes: &[u8]) -> std::io::Result<()> {
    let refused = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionRefused;
    match socket.send(bytes).await {
        Err(error) if refused(&error) => match socket.send(bytes).await {
            Err(error) if !refused(&error) => Err(error),
            _ => Ok(()),
        },
        sent => sent.map(|_| ()),
    }
}

async fn send_tcp(stream: &mut Option<TcpStream>, address: &str, records: &Records) -> Result<(), PortError> {
    let mut frames = Vec::with_capacity(records.bytes() + 8 * records.len());
    for record in records.iter() {
        frames.extend_from_slice(format!("{} ", record.value.len()).as_bytes());
        frames.extend_from_slice(record.value);
    }
    let written = async {
        if stream.is_none() {
            *stream = Some(TcpStream::connect(address).await?);
        }
        match stream {
            Some(stream) => stream.write_all(&frames).await,
            None => Ok(()),
        }
    };
    let outcome = written.await;
    outcome.map_err(|error| {
        *stream = None;
        PortError::Unavailable(format!("send to tcp://{address}: {error}"))
    })
}

async fn send_relp(sender: &RelpSender, records: &Records) -> Result<(), PortError> {
    let failed = |error| match error {
        SendError::Refused => PortError::Refused("the receiver refused the message".to_owned()),
        SendError::Stopped => PortError::Unavailable("the sender has stopped".to_owned()),
    };
    let mut answers = Vec::with_capacity(records.len());
    for record in records.iter() {
        answers.push(sender.enqueue(record.value.to_vec()).await.map_err(failed)?);
    }
    for answer in answers {
        answer.wait().await.map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_datagram_to_nobody_does_not_hold_back_the_next() {
        let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = nobody.local_addr().unwrap();
        drop(nobody);
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect(address).await.unwrap();
        for _ in 0..10 {
            send_datagram(&socket, b"x").await.unwrap();
        }
    }
}
