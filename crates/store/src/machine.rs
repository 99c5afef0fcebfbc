//! What a service brings: its commands and what they do. And the registry that finds a command's machine.

use std::any::Any;
use std::collections::BTreeMap;

use kiln_types::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::command::{Command, decode_all};
use crate::key::is_name;
use crate::tables::Tables;

/// The commands of one service, and what they do to its tables.
///
/// Commands and rows are stored in postcard's encoding, which does not carry names: add new enum variants at the
/// end, and give a struct that must grow a new variant or a new table.
pub trait Machine: Send + Sync + 'static {
    /// Its tables live under this name; never change it. No NUL.
    const NAME: &'static str;
    /// What it can be told.
    type Command: Serialize + DeserializeOwned + Send + 'static;
    /// What an applied command answers.
    type Reply: Send + 'static;
    /// A refusal. It must follow from tables, command and time alone, like the reply; nothing is changed.
    type Rejection: std::error::Error + Send + 'static;

    /// Carries out `command`, given at `at`; times never decrease from one command to the next.
    ///
    /// A pure function of its arguments: it is run again from the log after a crash, and on every copy of the
    /// state. On `Err` whatever it did to `tables` is dropped. It must not panic: the store stops if it does.
    fn apply(
        &self,
        tables: &mut Tables<'_>,
        command: Self::Command,
        at: Timestamp,
    ) -> Result<Self::Reply, Self::Rejection>;
}

/// What came of a command; `answer` is the machine's `Result<Reply, Rejection>`.
pub(crate) struct Outcome {
    pub(crate) accepted: bool,
    pub(crate) answer: Box<dyn Any + Send>,
}

/// Why a command has no outcome: it is not of this program's making.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unknown {
    #[error("there is no machine {0:?} in this Kiln: start it with the version that wrote the command")]
    Machine(String),
    #[error("machine {machine:?} does not know it ({why}): start the version of Kiln that wrote it")]
    Command { machine: &'static str, why: postcard::Error },
}

/// A [`Machine`] without its types.
trait Erased: Send + Sync {
    fn apply(&self, tables: &mut Tables<'_>, body: &[u8], at: Timestamp) -> Result<Outcome, Unknown>;
}

impl<M: Machine> Erased for M {
    fn apply(&self, tables: &mut Tables<'_>, body: &[u8], at: Timestamp) -> Result<Outcome, Unknown> {
        let command = decode_all(body).map_err(|why| Unknown::Command { machine: M::NAME, why })?;
        let answer = Machine::apply(self, tables, command, at);
        Ok(Outcome { accepted: answer.is_ok(), answer: Box::new(answer) })
    }
}

/// All machines of a store by name.
#[derive(Default)]
pub(crate) struct Registry {
    machines: BTreeMap<&'static str, Box<dyn Erased>>,
}

impl Registry {
    pub(crate) fn add<M: Machine>(&mut self, machine: M) {
        assert!(is_name(M::NAME), "{:?} is no machine name", M::NAME);
        let before = self.machines.insert(M::NAME, Box::new(machine));
        assert!(before.is_none(), "two machines are named {:?}", M::NAME);
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.machines.keys().copied()
    }

    pub(crate) fn apply(&self, tables: &mut Tables<'_>, command: &Command) -> Result<Outcome, Unknown> {
        let machine = self.machines.get(command.machine.as_str());
        let machine = machine.ok_or_else(|| Unknown::Machine(command.machine.clone()))?;
        machine.apply(tables, &command.body, command.at)
    }
}
