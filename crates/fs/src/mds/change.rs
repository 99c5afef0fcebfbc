//! Changes: made when nobody else holds what they touch, answered when nothing can undo them.

use super::ask::opened;
use super::osts::Choice;
use super::serve::{Asker, Attempt, Server, Stop, WAIT_TICK};
use super::state::State;
use crate::core::grants::{self, Plan};
use crate::core::layout::{Place, Stripes};
use crate::core::leases::{OpenMode, Ticket};
use crate::core::namespace::{Command, Outcome, Todo, TodoId, Touch, What};
use crate::core::{Errno, FileKind, Ino, SessionId};
use crate::wire::mds::{Act, Answer, Ask, Change, Grant, Make, Reply};

/// What a change needs, as the MDT is now.
struct Needs {
    plan: Plan,
    /// A file that is there already, and is opened.
    opens: Option<Ino>,
    /// What loses its last name.
    victim: Option<Ino>,
}

impl Server {
    pub(super) fn change(&self, asker: &Asker<'_>, change: Change, bulk: &[u8]) -> Result<Reply, Stop> {
        let request = Request { session: asker.session, change, bulk };
        let (reply, cuts) = self.turn(asker, |state, ticket| self.try_change(state, &request, ticket))?;
        self.wait_for_cuts(asker, &cuts)?;
        Ok(reply)
    }

    /// As [`Server::change`], and waits for the disk.
    pub(super) fn change_durably(
        &self,
        asker: &Asker<'_>,
        change: Change,
        bulk: &[u8],
    ) -> Result<Reply, Stop> {
        let reply = self.change(asker, change, bulk)?;
        // Without the lock: it takes as long as the disk does.
        let syncing = self.lock().mdt.sync();
        syncing.wait()?;
        Ok(reply)
    }

    fn try_change(
        &self,
        state: &mut State,
        request: &Request<'_>,
        ticket: Option<Ticket>,
    ) -> Result<Attempt<(Reply, Vec<TodoId>)>, Stop> {
        let needs = needs_of(state, request.session, &request.change.act);
        let touches = needs.as_ref().map_or(&[][..], |needs| &needs.plan.touches);
        let conflicts = state.leases.conflicts(request.session, touches);
        let waits = state.sessions.is_recovering();
        if waits || needs.is_err() || !conflicts.is_empty() {
            if let Some(answer) = state.mdt.reply_to(request.session, request.change.xid)? {
                return Ok(Attempt::Done(repeated(state, request, answer)));
            }
            // Only now: nobody gives anything back for what was done before.
            if !waits {
                state.call(&conflicts, self.now());
            }
            return Ok(Attempt::Wait(needs?.plan.touches));
        }
        let needs = needs?;
        if moves_open_data(state, request.session, &request.change.act)
            && state.mdt.reply_to(request.session, request.change.xid)?.is_none()
        {
            return Err(Errno::EBUSY.into());
        }
        let osts = match self.choose_osts(state, &request.change.act) {
            Choice::Osts(osts) => osts,
            Choice::Full => return Err(Errno::ENOSPC.into()),
            Choice::Unknown => return Ok(Attempt::Wait(needs.plan.touches)),
        };
        let victim_open = needs.victim.is_some_and(|ino| state.leases.in_use(ino));
        let what =
            What::Change { session: request.session, change: request.change.clone(), osts, victim_open };
        let command = Command { now: self.time(), what };
        let outcome = self.apply(state, &command, request.bulk);
        if outcome.repeated {
            let answer = outcome.answer?;
            return Ok(Attempt::Done(repeated(state, request, answer)));
        }
        let cuts = cuts_of(&outcome);
        let reply = self.made(state, request, &needs, outcome, ticket)?;
        Ok(Attempt::Done((reply, cuts)))
    }

    /// What follows from a change that was made.
    fn made(
        &self,
        state: &mut State,
        request: &Request<'_>,
        needs: &Needs,
        outcome: Outcome,
        ticket: Option<Ticket>,
    ) -> Result<Reply, Stop> {
        let (session, act) = (request.session, &request.change.act);
        let mut answer = outcome.answer?;
        if let Some(ino) = outcome.unlinked {
            self.unlinked(state, ino);
        }
        if let Act::Link { ino, .. } = act {
            state.orphans.remove(ino);
        }
        let mut grants = open_made(state, session, needs, &mut answer, ticket)?;
        grants.extend(state.grant(session, &grants::kept_of_act(act, &answer), ticket));
        let dirs = dirs_of(state, session, act);
        Ok(Reply { dirs, ..state.reply(Ok(answer), grants) })
    }

    /// An inode has lost its last name: it is gone, or stays while somebody has it open.
    fn unlinked(&self, state: &mut State, ino: Ino) {
        if state.leases.in_use(ino) {
            state.orphans.insert(ino);
            // Others have said it already; this session was not asked.
            state.call(&state.leases.unsure(ino), self.now());
        } else {
            state.leases.forget(ino);
        }
    }

    /// Where the objects go that a change needs.
    fn choose_osts(&self, state: &State, act: &Act) -> Choice {
        match act {
            Act::Place { ino, offset } => match wanted(state, *ino, *offset) {
                Some(stripes) => self.osts.choose(stripes),
                // It has objects already, or is refused.
                None => Choice::Osts(Vec::new()),
            },
            _ => Choice::Osts(Vec::new()),
        }
    }

    /// What is written after the answer must not be cut off: the OSTs are waited for, as long as they take.
    fn wait_for_cuts(&self, asker: &Asker<'_>, cuts: &[TodoId]) -> Result<(), Stop> {
        let mut state = self.lock();
        while state.pending.has_cut(cuts) {
            let (again, stop) = self.wait(state, &self.changed, asker, WAIT_TICK);
            state = again;
            if let Some(stop) = stop {
                return Err(stop);
            }
        }
        Ok(())
    }
}

/// A change that is to be made.
struct Request<'a> {
    session: SessionId,
    change: Change,
    bulk: &'a [u8],
}

fn needs_of(state: &State, session: SessionId, act: &Act) -> Result<Needs, Errno> {
    let touches = state.mdt.touches(act)?;
    let victim = touches.iter().find_map(|touch| match touch {
        Touch::Unlinked(ino) => Some(*ino),
        _ => None,
    });
    let opens = opens(state, act);
    let mut plan = grants::of_act(act, touches);
    if let Some(ino) = opens {
        let open = grants::of_open(&state.leases, session, ino, true);
        plan.touches.extend(open.touches);
        plan.shared = open.shared;
    }
    Ok(Needs { plan, opens, victim })
}

/// The file that a change opens although it is there already.
fn opens(state: &State, act: &Act) -> Option<Ino> {
    let Act::Make { parent, name, what: Make::File { open: true, exclusive: false, .. }, .. } = act else {
        return None;
    };
    let found = find(state, *parent, name)?;
    (found.1 == FileKind::Regular).then_some(found.0)
}

/// Whether a change puts the data of a file elsewhere that another session has open, and so knows where it was.
fn moves_open_data(state: &State, session: SessionId, act: &Act) -> bool {
    let open = |ino: &Ino| state.leases.others(session, *ino).open;
    match act {
        Act::SetLayout { ino, .. } => open(ino),
        Act::SwapLayouts { one: (one, _), other: (other, _) } => open(one) || open(other),
        _ => false,
    }
}

fn find(state: &State, parent: Ino, name: &[u8]) -> Option<(Ino, FileKind)> {
    let asked = state.mdt.ask(&Ask::Lookup { parent, name: name.to_vec() }).ok()?;
    match asked.answer {
        Answer::Entry(attr) => Some((attr.ino, attr.kind)),
        _ => None,
    }
}

/// How a component is to be striped that has no objects yet.
fn wanted(state: &State, ino: Ino, offset: u64) -> Option<Stripes> {
    let Ok(Answer::Layout(layout)) = state.mdt.ask(&Ask::Layout { ino }).map(|asked| asked.answer) else {
        return None;
    };
    match layout.pieces(offset, 1).next()?.place {
        Place::Unplaced { component } => Some(layout.components[component].wanted),
        Place::Inline | Place::Object { .. } => None,
    }
}

/// The directories whose names were changed: their attributes changed with that, and a session that may keep them need not
/// ask again.
fn dirs_of(state: &State, session: SessionId, act: &Act) -> Vec<crate::core::Attr> {
    let dirs = match act {
        Act::Make { parent, .. }
        | Act::Link { parent, .. }
        | Act::Unlink { parent, .. }
        | Act::Rmdir { parent, .. } => [Some(*parent), None],
        Act::Rename { from, to, .. } => [Some(*from), (from != to).then_some(*to)],
        _ => [None, None],
    };
    let attr = |ino: Ino| match state.mdt.ask(&Ask::Getattr { ino }).ok()?.answer {
        Answer::Attr(attr) => Some(attr),
        _ => None,
    };
    let held = |ino: &Ino| state.leases.held(session, *ino).meta;
    dirs.into_iter().flatten().filter(held).filter_map(attr).collect()
}

fn cuts_of(outcome: &Outcome) -> Vec<TodoId> {
    let cuts = outcome.todo.iter().filter(|(_, todo)| matches!(todo, Todo::Cut { .. }));
    cuts.map(|(id, _)| *id).collect()
}

/// Of a change that opened a file: it is open, and its session gets what an open gets.
fn open_made(
    state: &mut State,
    session: SessionId,
    needs: &Needs,
    answer: &mut Answer,
    ticket: Option<Ticket>,
) -> Result<Vec<Grant>, Stop> {
    let Answer::Opened { attr, .. } = &*answer else { return Ok(Vec::new()) };
    let (ino, nlink) = (attr.ino, attr.nlink);
    debug_assert!(needs.opens.is_none_or(|opens| opens == ino), "what is there was found before");
    if nlink == 0 {
        state.orphans.insert(ino);
    }
    let plan = grants::of_open(&state.leases, session, ino, true);
    opened(state, session, (ino, true), &plan, ticket, answer)
}

/// The answer that a change got before, and the cuts to wait for. What it says may be old: nothing of it is kept. But what it
/// opened is open, also when the MDS was started anew meanwhile.
fn repeated(state: &mut State, request: &Request<'_>, mut answer: Answer) -> (Reply, Vec<TodoId>) {
    if let Answer::Opened { attr, shared, .. } = &mut answer {
        let ino = attr.ino;
        *shared = grants::of_open(&state.leases, request.session, ino, true).shared;
        if let Ok(Answer::Attr(now)) = state.mdt.ask(&Ask::Getattr { ino }).map(|asked| asked.answer) {
            if now.nlink == 0 {
                state.orphans.insert(ino);
            }
            // Not recorded only if the session has too many open, and then it was not open before either.
            let _ = state.leases.open(request.session, ino, OpenMode::Write);
        }
    }
    // It is not known which were its own.
    let cuts_file = matches!(&request.change.act, Act::Setattr { set, .. } if set.size.is_some());
    let cuts = if cuts_file { state.pending.cuts() } else { Vec::new() };
    (state.reply(Ok(answer), Vec::new()), cuts)
}
