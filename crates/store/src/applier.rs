//! The one thread that changes the state.
//!
//! It takes all that waits, up to a bound, and makes a round of it: one append and one flush of the log, then one
//! transaction over the tables. While it works, the next round gathers, so the more callers there are, the more of
//! them share a flush.

use std::io::Read;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;

use kiln_types::{Offset, Timestamp};
use kiln_world::Clock;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tracing::{debug, error, warn};

use crate::Settings;
use crate::command::Command;
use crate::error::{Failed, OpenError, TransferError};
use crate::machine::{Outcome, Registry};
use crate::sequence::{self, CommitError, Sequencer};
use crate::state::{ApplyError, Persist, Progress, Round, State};
use crate::store::Shared;
use crate::watch::Touched;

/// The most commands in one round.
const ROUND_COMMANDS_MAX: usize = 4096;

/// A round is closed when its commands reach this many bytes. The last may go over by
/// [`crate::COMMAND_BYTES_MAX`].
const ROUND_BYTES_MAX: usize = 8 << 20;

/// What a caller asks of the applier.
pub(crate) enum Order {
    Submit(Pending),
    Import(Box<dyn Read + Send>, oneshot::Sender<Result<(), TransferError>>),
    /// Ends the thread after all that came before; answered when the state is durable.
    Stop,
}

/// A command that waits for its place.
pub(crate) struct Pending {
    pub(crate) machine: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) answer: oneshot::Sender<Result<Outcome, Refused>>,
    /// Its share of [`crate::PENDING_BYTES_MAX`].
    pub(crate) _room: OwnedSemaphorePermit,
}

/// Why a command got no outcome.
#[derive(Debug, Clone)]
pub(crate) enum Refused {
    Full,
    Failed(Failed),
}

/// What was applied since the last checkpoint.
#[derive(Debug, Clone, Copy, Default)]
struct Unsaved {
    commands: usize,
    bytes: usize,
    rounds: usize,
}

impl Unsaved {
    fn with(self, commands: &[Command]) -> Unsaved {
        Unsaved {
            commands: self.commands + commands.len(),
            bytes: self.bytes + commands.iter().map(|command| command.body.len()).sum::<usize>(),
            rounds: self.rounds + 1,
        }
    }

    fn is_due(self, settings: &Settings) -> bool {
        self.commands >= settings.checkpoint_commands
            || self.bytes >= settings.checkpoint_bytes
            || self.rounds >= settings.checkpoint_rounds
    }
}

/// The order and the state that follows it.
pub(crate) struct Applier {
    registry: Registry,
    sequencer: Sequencer,
    state: State,
    clock: Arc<dyn Clock>,
    settings: Settings,
    unsaved: Unsaved,
}

impl Applier {
    /// Brings `state` to the end of the order.
    pub(crate) fn new(
        registry: Registry,
        sequencer: Sequencer,
        state: State,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Applier, OpenError> {
        let mut applier =
            Applier { registry, sequencer, state, clock, settings, unsaved: Unsaved::default() };
        applier.check_together()?;
        applier.replay()?;
        Ok(applier)
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// The log must hold everything that the state lacks, and reach as far as the state at least: else it would
    /// give new commands places that count as applied already.
    fn check_together(&self) -> Result<(), OpenError> {
        let (start, end) = (self.sequencer.start(), self.sequencer.end());
        let applied = self.progress().applied;
        if applied.next() < start || applied.next() > end {
            return Err(OpenError::Apart { applied, start, end });
        }
        Ok(())
    }

    fn replay(&mut self) -> Result<(), OpenError> {
        // A command that only the page cache holds must not get into a durable state before it is durable itself.
        self.sequencer.settle().map_err(|error| OpenError::Log(error.to_string()))?;
        let first = self.progress().applied.next();
        loop {
            let next = self.progress().applied.next();
            let commands = self.sequencer.read(next).map_err(open_error)?;
            if commands.is_empty() {
                break;
            }
            self.apply(next, &commands).map_err(replay_error)?;
        }
        let next = self.progress().applied.next();
        if next > first {
            debug!(from = first.0, to = next.0, "replayed the command log");
        }
        Ok(())
    }

    fn progress(&self) -> Progress {
        self.state.progress()
    }

    /// Applies `commands`, which have the places from `first` on, with a checkpoint when one is due.
    fn apply(&mut self, first: Offset, commands: &[Command]) -> Result<Round, ApplyError> {
        let unsaved = self.unsaved.with(commands);
        let persist = if unsaved.is_due(&self.settings) { Persist::Now } else { Persist::Later };
        let round = self.state.apply(&self.registry, first, commands, persist)?;
        match persist {
            Persist::Later => self.unsaved = unsaved,
            Persist::Now => self.saved(),
        }
        Ok(round)
    }

    fn checkpoint(&mut self) -> Result<(), ApplyError> {
        if self.unsaved.rounds > 0 {
            self.state.checkpoint()?;
            self.saved();
        }
        Ok(())
    }

    /// The state is durable: the log need not keep what it holds.
    fn saved(&mut self) {
        self.unsaved = Unsaved::default();
        if let Err(error) = self.sequencer.trim(self.progress().applied.next()) {
            // The log stays longer than needed; the next checkpoint tries again.
            warn!(%error, "the command log was not trimmed");
        }
    }

    /// Puts `bodies` in order and applies them.
    fn round(&mut self, pending: &mut [Pending]) -> Result<Round, Refused> {
        let at = self.time();
        let command = |pending: &mut Pending| Command {
            machine: pending.machine.to_owned(),
            at,
            body: std::mem::take(&mut pending.body),
        };
        let commands: Vec<Command> = pending.iter_mut().map(command).collect();
        let first = self.sequencer.commit(&commands).map_err(|error| match error {
            CommitError::Full => Refused::Full,
            CommitError::Failed(_) => Refused::Failed(Failed::new(error)),
        })?;
        self.apply(first, &commands).map_err(|error| Refused::Failed(Failed::new(error)))
    }

    /// Now, but never before the last command.
    fn time(&self) -> Timestamp {
        self.clock.now().max(self.progress().at)
    }
}

fn open_error(error: sequence::ReadError) -> OpenError {
    match error {
        sequence::ReadError::Command { at, why } => OpenError::Replay { at, why: why.to_string() },
        error => OpenError::Log(error.to_string()),
    }
}

fn replay_error(error: ApplyError) -> OpenError {
    match error {
        ApplyError::Unknown { at, why } => OpenError::Replay { at, why: why.to_string() },
        ApplyError::Rows { at, why } => OpenError::Replay { at, why: why.to_string() },
        error => OpenError::State(error.to_string()),
    }
}

/// The applier's thread: serves `inbox` until [`Order::Stop`], or until nobody is left to send.
pub(crate) fn run(applier: Applier, mut inbox: mpsc::UnboundedReceiver<Order>, shared: &Shared) {
    let mut server = Server { applier, shared, round: Vec::new(), round_bytes: 0 };
    let mut orders = Vec::new();
    while inbox.blocking_recv_many(&mut orders, ROUND_COMMANDS_MAX) > 0 {
        for order in orders.drain(..) {
            match order {
                Order::Submit(pending) => server.gather(pending),
                Order::Import(stream, answer) => server.import(stream, answer),
                Order::Stop => return server.stop(),
            }
        }
        server.finish_round();
    }
    server.stop();
}

/// The applier, and those who wait for it.
struct Server<'s> {
    applier: Applier,
    shared: &'s Shared,
    round: Vec<Pending>,
    round_bytes: usize,
}

impl Server<'_> {
    fn gather(&mut self, pending: Pending) {
        self.round_bytes += pending.body.len();
        self.round.push(pending);
        if self.round_bytes >= ROUND_BYTES_MAX {
            self.finish_round();
        }
    }

    fn finish_round(&mut self) {
        if self.round.is_empty() {
            return;
        }
        let mut pending = std::mem::take(&mut self.round);
        self.round_bytes = 0;
        let result = match self.shared.failed() {
            Some(failed) => Err(Refused::Failed(failed)),
            None => self.guarded_round(&mut pending),
        };
        match result {
            Ok(round) => self.answer(pending, round),
            Err(refused) => self.refuse(pending, &refused),
        }
    }

    /// A machine's panic stops the store, and the callers must hear of it rather than find nobody there.
    fn guarded_round(&mut self, pending: &mut [Pending]) -> Result<Round, Refused> {
        let applier = &mut self.applier;
        // After a panic nothing of `applier` is used again: the failure is latched before the next round.
        let round = panic::catch_unwind(AssertUnwindSafe(|| applier.round(pending)));
        round.unwrap_or_else(|payload| {
            let what = payload.downcast_ref::<&str>().copied();
            let what = what.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("?");
            Err(Refused::Failed(Failed::new(format!(
                "a command panicked, which is a bug in its machine: {what}"
            ))))
        })
    }

    /// Watches first: who has the reply may rely on them.
    fn answer(&self, pending: Vec<Pending>, round: Round) {
        self.shared.watches.tell(&round.touched, self.applier.progress().revision);
        for (pending, outcome) in pending.into_iter().zip(round.outcomes) {
            // A caller that went away does not want its answer.
            let _ = pending.answer.send(Ok(outcome));
        }
    }

    fn refuse(&self, pending: Vec<Pending>, refused: &Refused) {
        if let Refused::Failed(failed) = refused {
            self.fail(failed);
        }
        for pending in pending {
            let _ = pending.answer.send(Err(refused.clone()));
        }
    }

    fn import(
        &mut self,
        mut stream: Box<dyn Read + Send>,
        answer: oneshot::Sender<Result<(), TransferError>>,
    ) {
        self.finish_round();
        let result = match self.shared.failed() {
            Some(failed) => Err(failed.into()),
            None => self.applier.state.import(&mut *stream),
        };
        if result.is_ok() {
            self.applier.saved();
            self.shared.watches.tell(&Touched::Everything, self.applier.progress().revision);
        }
        let _ = answer.send(result);
    }

    fn stop(mut self) {
        self.finish_round();
        if self.shared.failed().is_none()
            && let Err(error) = self.applier.checkpoint()
        {
            self.fail(&Failed::new(error));
        }
    }

    fn fail(&self, failed: &Failed) {
        if self.shared.fail(failed) {
            error!(%failed, "no more commands are taken until the next start");
        }
    }
}
