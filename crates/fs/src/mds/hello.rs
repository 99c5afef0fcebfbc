//! Sessions begin, go on after a break, and end.

use super::serve::{Server, Stop};
use super::sessions::Standing;
use super::state::State;
use crate::core::namespace::{Command, What};
use crate::core::{Errno, SessionId};
use crate::wire::VERSION;
use crate::wire::mds::{Answer, Hello, Reply, Welcome};

impl Server {
    pub(super) fn hello(&self, session: SessionId, hello: &Hello) -> Result<Reply, Stop> {
        if hello.version != VERSION || session == super::MDS_SESSION {
            return Err(Errno::EPROTO.into());
        }
        let mut state = self.lock();
        let resumed = match state.sessions.standing(session) {
            Standing::Live => self.resume(&mut state, session, hello),
            Standing::Expected => {
                state.leases.join(session);
                state.sessions.enter(session, hello.host.clone(), self.now());
                self.resume(&mut state, session, hello)
            }
            Standing::Unknown => {
                self.begin(&mut state, session, hello)?;
                false
            }
        };
        // The last one that was waited for may be back.
        self.changed.notify_all();
        let session_secs = self.settings.session_limit.as_secs_f64().ceil() as u32;
        let welcome = Welcome { resumed, session_secs, mdt: self.mdt };
        Ok(state.reply(Ok(Answer::Welcome(welcome)), Vec::new()))
    }

    /// A new session. One that was evicted is not let in again: the OSTs do not serve it, so it comes as another one.
    fn begin(&self, state: &mut State, session: SessionId, hello: &Hello) -> Result<(), Stop> {
        if state.sessions.was_evicted(session) {
            return Ok(());
        }
        if state.sessions.is_full() {
            return Err(Errno::EBUSY.into());
        }
        let what = What::Begin { session, host: hello.host.clone() };
        self.apply(state, &Command { now: self.time(), what }, &[]).answer?;
        state.leases.join(session);
        state.sessions.enter(session, hello.host.clone(), self.now());
        tracing::info!(session = session.0, host = %hello.host, "session began");
        Ok(())
    }

    /// Gives a session again what it says it holds. What cannot be means that one of both is wrong about the other, and then
    /// nothing that it keeps can be trusted.
    fn resume(&self, state: &mut State, session: SessionId, hello: &Hello) -> bool {
        let claimed = state.leases.claim(session, &hello.held)
            && hello.locks.iter().all(|held| state.locks.claim(session, held).is_ok());
        if !claimed {
            self.evict(state, session, "it claims what it cannot hold");
        }
        claimed
    }

    pub(super) fn bye(&self, session: SessionId) -> Reply {
        let mut state = self.lock();
        if state.sessions.standing(session) != Standing::Unknown {
            state.sessions.leave(session);
            self.end(&mut state, session, What::End { session });
        }
        state.reply(Ok(Answer::Done), Vec::new())
    }
}
