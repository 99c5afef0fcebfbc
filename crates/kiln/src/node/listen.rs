//! Binding the listeners, so that a leader that is started again is found where it was.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use kiln_config::Listen;
use kiln_flow::SyslogListeners;
use tokio::net::{TcpListener, UdpSocket};

use crate::paths::DataDir;
use crate::supervisor::{Listeners, OFF, Picture};

/// How often, and how many times, a port that the dead predecessor may still hold is tried again.
const RETRY: (Duration, u32) = (Duration::from_millis(50), 40);

/// Ports tried where any will do and one is needed for two protocols.
const PORT_TRIES: u32 = 20;

/// The addresses that this instance's clients already know, if it has run before under this supervisor.
pub(super) fn known(data: &DataDir) -> Listeners {
    Picture::load(data).ok().flatten().and_then(|p| p.listeners).unwrap_or_default()
}

/// Binds `[section] listen`. A port 0 becomes the port of before where there was one. `None` when it is off.
pub(super) async fn tcp(section: &str, listen: &Listen, before: &str) -> anyhow::Result<Option<TcpListener>> {
    let Some(wanted) = listen.addr() else { return Ok(None) };
    let wanted = if wanted.port() == 0 { before.parse().unwrap_or(wanted) } else { wanted };
    let listener = match bind(wanted).await {
        Err(_) if listen.addr().is_some_and(|a| a.port() == 0) => TcpListener::bind((wanted.ip(), 0)).await,
        other => other,
    };
    let listener = listener.with_context(|| {
        let key = format!("{section}.listen");
        let variable = format!("KILN_{}_LISTEN", section.to_uppercase());
        format!("failed to listen on {wanted}; choose another address with {key} or {variable}, port 0 for any free one")
    })?;
    Ok(Some(listener))
}

/// As [`tcp`], and the UDP port of the same number. Where any port will do, one is looked for that is free for both.
pub(super) async fn tcp_and_udp(
    section: &str,
    listen: &Listen,
    before: &str,
) -> anyhow::Result<SyslogListeners> {
    let any = listen.addr().is_some_and(|a| a.port() == 0);
    let (mut before, mut left) = (before, PORT_TRIES);
    loop {
        let Some(tcp) = tcp(section, listen, before).await? else { return Ok(SyslogListeners::default()) };
        let address = tcp.local_addr()?;
        match UdpSocket::bind(address).await {
            Ok(udp) => return Ok(SyslogListeners { udp: Some(udp), tcp: Some(tcp) }),
            Err(_) if any && left > 0 => (before, left) = ("", left - 1),
            Err(error) => {
                let what = format!("failed to listen on UDP {address}; choose another {section}.listen");
                return Err(error).context(what);
            }
        }
    }
}

async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let (pause, mut left) = RETRY;
    loop {
        match TcpListener::bind(address).await {
            Err(e) if e.kind() == ErrorKind::AddrInUse && left > 0 => left -= 1,
            other => return other,
        }
        tokio::time::sleep(pause).await;
    }
}

/// What a listener is told as in `kiln status`: its address, or "off".
pub(super) fn shown(listener: Option<&TcpListener>) -> anyhow::Result<String> {
    Ok(match listener {
        Some(listener) => listener.local_addr()?.to_string(),
        None => OFF.to_owned(),
    })
}
