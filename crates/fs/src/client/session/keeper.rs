//! Keeps the session: connects, says hello, hears callbacks, and does it again when the link is lost.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kiln_net::CallError;
use kiln_world::Rng;

use super::link::Line;
use super::{Session, is_refusal};
use crate::core::{Errno, SessionId};
use crate::wire::mds::{Answer, Callback, Held, HeldLock, Hello, Op, Reply, Welcome};

/// The first pause after a failed attempt to connect; it doubles each time.
const PAUSE_FIRST: Duration = Duration::from_millis(20);
/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the MDS has to answer a hello; one that has just restarted waits for all its clients.
const HELLO: Duration = Duration::from_secs(120);

/// What has leases, locks and open files.
pub(crate) trait Holder: Send + Sync + 'static {
    /// What is held now. Nothing that an answer of an earlier epoch granted is added later.
    fn held(&self) -> (Vec<Held>, Vec<HeldLock>);
    /// The MDS wants something back. Returns at once; a callback that takes time is served elsewhere.
    fn called(&self, callback: Callback);
    /// The session was evicted; `next` is the one that begins. Drops everything before it returns.
    fn evicted(&self, next: SessionId);
}

/// What came of a hello.
enum Heard {
    /// The session is open.
    Welcome(Welcome),
    /// What the session had is gone.
    Evicted,
    /// The MDS does not take this client.
    Refused(Errno),
    /// Nobody answered.
    Nobody,
}

/// See the module.
pub(crate) struct Keeper {
    session: Arc<Session>,
    holder: Arc<dyn Holder>,
    host: String,
    rng: Arc<dyn Rng>,
    /// The session has been open: from now on it is to be resumed.
    known: bool,
}

impl Keeper {
    /// Starts the thread that keeps the session. It ends when the session does ([`Session::end`]).
    pub(crate) fn start(
        session: Arc<Session>,
        holder: Arc<dyn Holder>,
        host: String,
        rng: Arc<dyn Rng>,
    ) -> std::io::Result<JoinHandle<()>> {
        let mut keeper = Keeper { session, holder, host, rng, known: false };
        thread::Builder::new().name("fs-session".to_owned()).spawn(move || keeper.run())
    }

    fn run(&mut self) {
        let mut pause = PAUSE_FIRST;
        while !self.session.link.has_ended() {
            if let Ok(mut line) = self.session.link.dial() {
                match self.hello(&mut line) {
                    Heard::Welcome(welcome) => {
                        pause = PAUSE_FIRST;
                        self.known = true;
                        self.listen(line, &welcome);
                        continue;
                    }
                    Heard::Evicted => {
                        // The MDS may have begun a session under the old name, which nobody can use.
                        let bye = self.session.request(line.session, Op::Bye);
                        let _ = line.connection.call::<_, Reply>(&bye, &[]);
                        self.renew();
                        continue;
                    }
                    Heard::Refused(errno) => {
                        tracing::warn!(%errno, "the MDS does not take this client; trying again")
                    }
                    Heard::Nobody => {}
                }
                self.session.link.drop_line(&line);
            }
            self.session.link.pause(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn hello(&self, line: &mut Line) -> Heard {
        let (held, locks) = if self.known { self.holder.held() } else { Default::default() };
        let hello = Hello { version: crate::wire::VERSION, host: self.host.clone(), held, locks };
        let request = self.session.request(line.session, Op::Hello(hello));
        if line.connection.set_timeout(Some(HELLO)).is_err() {
            return Heard::Nobody;
        }
        match line.connection.call::<_, Reply>(&request, &[]).map(|(reply, _)| reply.outcome) {
            Ok(Ok(Answer::Welcome(welcome))) if welcome.resumed || !self.known => Heard::Welcome(welcome),
            Ok(Ok(_) | Err(Errno::ESTALE)) => Heard::Evicted,
            Ok(Err(Errno::ENODEV)) => Heard::Nobody,
            Ok(Err(errno)) => Heard::Refused(errno),
            Err(error) if is_refusal(&error) => Heard::Refused(Errno::EPROTO),
            Err(_) => Heard::Nobody,
        }
    }

    /// Opens the session for calls and hears callbacks until the link is lost.
    fn listen(&mut self, mut line: Line, welcome: &Welcome) {
        let epoch = line.epoch;
        let asked = self.session.request(line.session, Op::Callbacks);
        if line.connection.set_timeout(None).is_ok() && line.connection.send(&asked, &[]).is_ok() {
            self.session.link.up(epoch, Duration::from_secs(u64::from(welcome.session_secs)));
            tracing::info!(resumed = welcome.resumed, "the session with the MDS is open");
            let ended = loop {
                match line.connection.receive_item::<Callback>() {
                    Ok(Some((callback, _))) => self.holder.called(callback),
                    Ok(None) => break CallError::Empty,
                    Err(error) => break error,
                }
            };
            if !self.session.link.has_ended() {
                tracing::warn!(error = %ended, "the MDS is away; programs wait until it is back");
            }
        }
        self.session.link.lost(epoch);
    }

    /// Drops what the evicted session had; the next hello begins a new one.
    fn renew(&mut self) {
        let next = new_id(&*self.rng);
        tracing::warn!(
            "the MDS has evicted this mount: data that was not written back is lost, and programs that have such files \
             open get EIO; check the network, and the clients' load, if that happens again"
        );
        self.session.link.evicted(next);
        self.holder.evicted(next);
        self.known = false;
        self.session.link.renewed();
    }
}

/// A session of its own.
pub(crate) fn new_id(rng: &dyn Rng) -> SessionId {
    let mut bytes = [0; 16];
    rng.fill(&mut bytes);
    SessionId(u128::from_le_bytes(bytes))
}
