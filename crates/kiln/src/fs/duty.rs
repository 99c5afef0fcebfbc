//! A thread that follows what the MGS says this node has to serve.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use kiln_fs::wire;
use kiln_fs::wire::mgs::{Duty, Reply, Request, Target};
use kiln_net::CallError;
use kiln_net::blocking::{Closer, Connection};

use super::mgs::Mgs;
use super::targets::Targets;

/// Pause before an MGS that did not answer is asked again.
const RETRY: Duration = Duration::from_millis(100);
/// An MGS that says nothing for so long is asked anew, on another connection. It holds questions for less.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How a node reaches the MGS.
#[derive(Clone)]
pub(super) enum Source {
    /// In this process.
    Here(Arc<Mgs>),
    /// At the leader's socket.
    At(PathBuf),
}

/// Why the MGS did not say what to do.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("cannot reach the leader: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the leader did not answer: {0}")]
    Call(#[from] CallError),
    #[error("the MGS: {0}")]
    Refused(String),
    #[error("the MGS answered another question")]
    OtherAnswer,
}

/// The running thread.
pub(super) struct Follower {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    /// Ends the question that is under way.
    closer: Option<Closer>,
}

impl Follower {
    /// Follows the MGS at `source` for the node of `rank`.
    pub(super) fn start(rank: u32, source: Source, targets: Arc<Targets>) -> std::io::Result<Follower> {
        let shared = Arc::new(Shared::default());
        let asker = Asker { rank, source, connection: None, shared: Arc::clone(&shared) };
        let body = move || asker.follow(&targets);
        let thread = thread::Builder::new().name("fs-duty".to_owned()).spawn(body)?;
        Ok(Follower { shared, thread })
    }

    /// Ends the thread, after what it is doing to a target. The MGS, if it is here, must have been stopped.
    pub(super) fn stop(self) {
        self.shared.stop();
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows the MGS panicked");
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        if let Some(closer) = state.closer.take() {
            closer.close();
        }
        self.stopped.notify_all();
    }

    fn stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Waits, unless it is to stop.
    fn pause(&self, pause: Duration) {
        let waited = self.stopped.wait_timeout_while(self.lock(), pause, |state| !state.stopping);
        drop(waited);
    }
}

struct Asker {
    rank: u32,
    source: Source,
    connection: Option<Connection>,
    shared: Arc<Shared>,
}

impl Asker {
    fn follow(mut self, targets: &Targets) {
        let mut version = None;
        let mut told = String::new();
        while !self.shared.stopping() {
            match self.duty(version) {
                Ok(duty) => {
                    told.clear();
                    version = Some(duty.version);
                    for target in targets.follow(&duty) {
                        self.tell(Request::Made(target));
                    }
                    self.remove(targets, duty.remove);
                }
                Err(error) => {
                    self.connection = None;
                    let said = error.to_string();
                    if said != told && !self.shared.stopping() {
                        tracing::debug!(error = said, "what this node has to serve is not known yet");
                        told = said;
                    }
                    self.shared.pause(RETRY);
                }
            }
        }
    }

    /// Removes the targets of filesystems that are no more. One that cannot be removed now is looked at again with the next duty.
    fn remove(&mut self, targets: &Targets, doomed: Vec<Target>) {
        for target in doomed {
            if targets.remove(&target) && self.tell(Request::Removed(target.clone())) {
                targets.forget(&target);
            }
        }
    }

    /// Tells the MGS something. Where that fails, the next duty says the same as this one, and it is told again.
    fn tell(&mut self, request: Request) -> bool {
        match self.ask(request) {
            Ok(Reply::Done) => return true,
            Ok(other) => tracing::warn!(?other, "the MGS did not take note of a target"),
            Err(error) => {
                self.connection = None;
                tracing::debug!(%error, "the MGS was not told of a target");
            }
        }
        false
    }

    fn duty(&mut self, newer_than: Option<u64>) -> Result<Duty, AskError> {
        match self.ask(Request::Duty { rank: self.rank, newer_than })? {
            Reply::Duty(duty) => Ok(duty),
            Reply::Failed(why) => Err(AskError::Refused(why)),
            _ => Err(AskError::OtherAnswer),
        }
    }

    fn ask(&mut self, request: Request) -> Result<Reply, AskError> {
        let socket = match &self.source {
            Source::Here(mgs) => return Ok(mgs.answer(request)),
            Source::At(socket) => socket,
        };
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let mut fresh = Connection::connect_unix(socket)?;
                fresh.set_timeout(Some(SILENCE_MAX))?;
                let closer = fresh.shutdown_handle()?;
                let mut state = self.shared.lock();
                if state.stopping {
                    closer.close();
                }
                state.closer = Some(closer);
                none.insert(fresh)
            }
        };
        let (reply, _) = connection.call::<_, Reply>(&wire::Request::Mgs(request), &[])?;
        Ok(reply)
    }
}
