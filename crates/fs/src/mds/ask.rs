//! Questions, and what may be kept of their answers.

use super::serve::{Answered, Asker, Attempt, Server, Stop, without_bulk};
use super::state::State;
use crate::core::grants::{self, META, Plan};
use crate::core::leases::{OpenMode, Ticket, Touch};
use crate::core::namespace::What;
use crate::core::{Errno, Ino, SessionId};
use crate::wire::mds::{Answer, Ask, DataLease, Grant, Leases, Name};

impl Server {
    pub(super) fn ask(&self, asker: &Asker<'_>, ask: &Ask) -> Result<Answered, Stop> {
        match ask {
            Ask::Open { ino, write, .. } => self.open(asker, ask, *ino, *write),
            Ask::Lease { ino, want } => self.lease(asker, *ino, *want),
            Ask::Readdir { ino, .. } => self.readdir(asker, ask, *ino),
            Ask::Close { inos } => self.close(asker, inos),
            Ask::Release { leases } => self.release(asker, leases),
            Ask::Sync => self.sync(asker),
            Ask::Statfs => self.statfs(asker),
            _ => self.look(asker, ask),
        }
    }

    /// What the MDT alone can tell.
    fn look(&self, asker: &Asker<'_>, ask: &Ask) -> Result<Answered, Stop> {
        self.turn(asker, |state, ticket| {
            if state.sessions.is_recovering() {
                return Ok(Attempt::Wait(Vec::new()));
            }
            let asked = state.mdt.ask(ask);
            let answer = match &asked {
                Ok(asked) => Some(&asked.answer),
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(Stop::Refused(*errno)),
            };
            let plan = grants::of_ask(ask, answer);
            if !state.clear(asker.session, &plan.touches, self.now()) {
                return Ok(Attempt::Wait(plan.touches));
            }
            let grants = state.grant(asker.session, &plan.wants, ticket);
            let (outcome, bulk) = match asked {
                Ok(asked) => (Ok(asked.answer), asked.bulk),
                Err(errno) => (Err(errno), Vec::new()),
            };
            Ok(Attempt::Done((state.reply(outcome, grants), bulk)))
        })
    }

    fn open(&self, asker: &Asker<'_>, ask: &Ask, ino: Ino, write: bool) -> Result<Answered, Stop> {
        self.turn(asker, |state, ticket| {
            if state.sessions.is_recovering() {
                return Ok(Attempt::Wait(Vec::new()));
            }
            let mut asked = state.mdt.ask(ask)?;
            let plan = grants::of_open(&state.leases, asker.session, ino, write);
            if !state.clear(asker.session, &plan.touches, self.now()) {
                return Ok(Attempt::Wait(plan.touches));
            }
            let grants = opened(state, asker.session, (ino, write), &plan, ticket, &mut asked.answer)?;
            Ok(Attempt::Done((state.reply(Ok(asked.answer), grants), asked.bulk)))
        })
    }

    /// A data lease is waited for, also behind those who asked before.
    fn lease(&self, asker: &Asker<'_>, ino: Ino, want: DataLease) -> Result<Answered, Stop> {
        self.turn(asker, |state, ticket| {
            if state.sessions.is_recovering() {
                return Ok(Attempt::Wait(Vec::new()));
            }
            let answer = state.mdt.ask(&Ask::Lease { ino, want })?.answer;
            let plan = grants::of_lease(&state.leases, asker.session, ino, want);
            let wanted = Leases { data: want, ..Leases::default() };
            let is_clear = state.clear(asker.session, &plan.touches, self.now());
            if !is_clear || state.is_gated(ino) || !state.leases.grants(asker.session, ino, wanted, ticket) {
                return Ok(Attempt::Wait(plan.touches));
            }
            let grants = state.grant(asker.session, &plan.wants, ticket);
            Ok(Attempt::Done(without_bulk(state.reply(Ok(answer), grants))))
        })
    }

    fn readdir(&self, asker: &Asker<'_>, ask: &Ask, ino: Ino) -> Result<Answered, Stop> {
        self.turn(asker, |state, ticket| {
            if state.sessions.is_recovering() {
                return Ok(Attempt::Wait(Vec::new()));
            }
            let mut answer = state.mdt.ask(ask)?.answer;
            let mut grants = Vec::new();
            if let Answer::Names { names, .. } = &mut answer {
                let known = names.iter().map(|name| name.name.as_slice());
                grants.extend(state.leases.grant_names(asker.session, ino, &known, ticket));
                for name in names {
                    grants.extend(grant_listed(state, asker.session, name, ticket));
                }
            }
            Ok(Attempt::Done(without_bulk(state.reply(Ok(answer), grants))))
        })
    }

    fn close(&self, asker: &Asker<'_>, inos: &[Ino]) -> Result<Answered, Stop> {
        self.turn(asker, |state, _| {
            let mut written = Vec::new();
            for ino in inos {
                if state.orphans.contains(ino) {
                    // Without a name it cannot be opened again.
                    state.leases.release(asker.session, *ino, META);
                }
                if state.leases.close(asker.session, *ino) == Some(OpenMode::Write) {
                    written.push(*ino);
                }
            }
            if self.records_changes && !written.is_empty() {
                self.apply_own(state, What::Closed { session: asker.session, inos: written });
            }
            self.bury(state, inos.iter().copied());
            Ok(Attempt::Done(without_bulk(state.reply(Ok(Answer::Done), Vec::new()))))
        })
    }

    fn release(&self, asker: &Asker<'_>, leases: &[(Ino, Leases)]) -> Result<Answered, Stop> {
        self.turn(asker, |state, _| {
            for (ino, leases) in leases {
                state.leases.release(asker.session, *ino, *leases);
            }
            self.changed.notify_all();
            Ok(Attempt::Done(without_bulk(state.reply(Ok(Answer::Done), Vec::new()))))
        })
    }

    fn sync(&self, asker: &Asker<'_>) -> Result<Answered, Stop> {
        let syncing = self.turn(asker, |state, _| Ok(Attempt::Done(state.mdt.sync())))?;
        // Without the lock: it takes as long as the disk does.
        syncing.wait()?;
        Ok(without_bulk(self.lock().reply(Ok(Answer::Done), Vec::new())))
    }

    fn statfs(&self, asker: &Asker<'_>) -> Result<Answered, Stop> {
        let osts = self.osts.space();
        self.turn(asker, |state, _| {
            let answer = Answer::Space { mdt: state.mdt.space()?, osts: osts.clone() };
            Ok(Attempt::Done(without_bulk(state.reply(Ok(answer), Vec::new()))))
        })
    }
}

/// The session has the file open now; completes the answer, and grants what may be kept.
pub(super) fn opened(
    state: &mut State,
    session: SessionId,
    (ino, write): (Ino, bool),
    plan: &Plan,
    ticket: Option<Ticket>,
    answer: &mut Answer,
) -> Result<Vec<Grant>, Stop> {
    let mode = if write { OpenMode::Write } else { OpenMode::Read };
    state.leases.open(session, ino, mode).map_err(|_| Errno::ENFILE)?;
    if let Answer::Opened { shared, .. } = answer {
        *shared = plan.shared;
    }
    Ok(state.grant(session, &plan.wants, ticket))
}

/// A name that was listed: its attributes are told only if they are true, and nobody is asked for them. The client looks it
/// up when it needs them.
fn grant_listed(
    state: &mut State,
    session: SessionId,
    name: &mut Name,
    ticket: Option<Ticket>,
) -> Option<Grant> {
    name.attr.as_ref()?;
    if !state.leases.conflicts(session, &[(name.ino, Touch::Size)]).is_empty() {
        name.attr = None;
        return None;
    }
    state.leases.grant(session, name.ino, META, ticket)
}
