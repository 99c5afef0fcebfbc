//! Sockets of both families, and the few system calls that the RPC makes on them.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{self, MsgFlags, Shutdown, setsockopt, sockopt};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::listen::Peer;

/// Bytes that may wait in a unix socket, where the system allows it: an answer of a mebibyte goes out without a context
/// switch for every quarter of it.
const UNIX_SEND_BUFFER_BYTES: usize = 1 << 20;
/// Silence on a TCP connection after which the kernel asks whether the peer is still there, in seconds.
const KEEPALIVE_IDLE_SECS: u32 = 30;
/// Pause between two such questions, in seconds.
const KEEPALIVE_PAUSE_SECS: u32 = 10;
/// Questions without an answer after which the connection is gone.
const KEEPALIVE_PROBES: u32 = 3;
/// How long bytes that were sent may go unacknowledged before the connection is gone, in milliseconds.
const UNACKNOWLEDGED_MILLIS: u32 = 60_000;
/// Slices of one `sendmsg` (`IOV_MAX` of Linux).
const SLICES_MAX: usize = 1024;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// A unix socket.
    Unix(UnixStream),
    /// A TCP connection.
    Tcp(TcpStream),
}

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// A unix socket.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
        }
    }
}

impl Socket {
    pub(crate) fn over_unix(stream: UnixStream) -> Socket {
        // Less is only slower.
        let _ = setsockopt(&stream, sockopt::SndBuf, &UNIX_SEND_BUFFER_BYTES);
        Socket::Unix(stream)
    }

    /// A peer whose machine is gone would otherwise never be missed.
    pub(crate) fn over_tcp(stream: TcpStream) -> io::Result<Socket> {
        stream.set_nodelay(true)?;
        setsockopt(&stream, sockopt::KeepAlive, &true)?;
        setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECS)?;
        setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE_PAUSE_SECS)?;
        setsockopt(&stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
        setsockopt(&stream, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MILLIS)?;
        Ok(Socket::Tcp(stream))
    }

    fn raw(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    pub(crate) fn try_clone(&self) -> io::Result<Socket> {
        Ok(match self {
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
        })
    }

    /// How long [`Socket::receive`] waits; it then fails with `WouldBlock`.
    pub(crate) fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_read_timeout(timeout),
            Socket::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// Reads what is there, at least a byte; 0 when the peer has closed.
    pub(crate) fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        self.receive_flags(into, MsgFlags::empty())
    }

    /// As [`Socket::receive`], and fails with `WouldBlock` when nothing is there.
    pub(crate) fn receive_now(&self, into: &mut [u8]) -> io::Result<usize> {
        self.receive_flags(into, MsgFlags::MSG_DONTWAIT)
    }

    fn receive_flags(&self, into: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        loop {
            match socket::recv(self.raw(), into, flags) {
                Err(Errno::EINTR) => {}
                received => return received.map_err(io::Error::from),
            }
        }
    }

    /// Appends at most `most` bytes, and not more than there is room for, to `into`; at least one, 0 when the peer has
    /// closed. Large parts are read so, because a buffer that had to be zeroed first would cost a quarter of the time.
    #[expect(unsafe_code, reason = "recv(2) into the spare room of a Vec")]
    pub(crate) fn receive_append(&self, into: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        loop {
            let spare = into.spare_capacity_mut();
            let room = spare.len().min(most);
            // SAFETY: the pointer and the length are those of the spare room of `into`, which nobody else has.
            let received = unsafe { libc::recv(self.raw(), spare.as_mut_ptr().cast(), room, 0) };
            if let Ok(received) = usize::try_from(received) {
                // SAFETY: recv has written that many bytes behind the old length, and not more than there is room for.
                unsafe { into.set_len(into.len() + received) };
                return Ok(received);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    /// Sends all of `parts`, one after the other.
    pub(crate) fn send_all(&self, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let now = &parts[..parts.len().min(SLICES_MAX)];
            // A peer that is gone is an error of this connection, not a signal to the process.
            let flags = MsgFlags::MSG_NOSIGNAL;
            let sent = match now {
                [one] => socket::send(self.raw(), one, flags),
                many => socket::sendmsg::<()>(self.raw(), many, &[], flags, None),
            };
            match sent {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => IoSlice::advance_slices(&mut parts, sent),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Sends a descriptor, with a byte that it is tied to.
    pub(crate) fn send_descriptor(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let descriptors = [descriptor];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        sendmsg(self, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The descriptor that the peer sends next; `None` when it sent something else.
    pub(crate) fn receive_descriptor(&self) -> io::Result<Option<OwnedFd>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(self, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        Ok(control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        }))
    }

    /// Reads fail from here on, as if the peer had closed; what is being answered still goes out.
    pub(crate) fn close_reading(&self) {
        let _ = socket::shutdown(self.raw(), Shutdown::Read);
    }

    /// Whatever waits on the socket, on both sides, is told that it is over.
    pub(crate) fn close(&self) {
        let _ = socket::shutdown(self.raw(), Shutdown::Both);
    }

    /// Whether the peer has closed, or this side was closed by another thread.
    pub(crate) fn is_closed(&self) -> bool {
        let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        match self.receive_flags(&mut [0], peek) {
            Ok(received) => received == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

impl Listener {
    /// Binds a unix socket, replacing a socket file that no process listens on any more.
    pub fn bind_unix(path: &Path) -> io::Result<Listener> {
        match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if UnixStream::connect(path).is_ok() {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path).map(Listener::Unix)
            }
            bound => bound.map(Listener::Unix),
        }
    }

    pub(crate) fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let credentials = socket::getsockopt(&stream, sockopt::PeerCredentials)?;
                let peer = Peer::Local { uid: credentials.uid(), pid: credentials.pid() };
                Ok((Socket::over_unix(stream), peer))
            }
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Socket::over_tcp(stream)?, Peer::Remote(address)))
            }
        }
    }

    /// An accept that waits, and every one that comes, fails.
    pub(crate) fn close(&self) {
        let raw = match self {
            Listener::Unix(listener) => listener.as_raw_fd(),
            Listener::Tcp(listener) => listener.as_raw_fd(),
        };
        let _ = socket::shutdown(raw, Shutdown::Both);
    }
}
