//! Starts a job's tasks on one node and carries their streams.
//!
//! - [`options`]: what of a jobspec matters to a shell; [`template`]: `{{id}}` and its like; [`environment`]: the
//!   variables of a task. These are pure.
//! - [`launch`]: the thread that starts tasks; [`spawn`]: what happens between its clone and the program's exec.
//! - [`streams`]: pipes read in whole lines, files that several tasks write to, standard input.
//! - [`state`]: one job on this node: takes what happened, says what to do; [`outbox`]: what must be reported, numbered.
//! - [`leftovers`]: what a broker that was killed has left behind.
//!
//! A task is a child of the broker itself. The thread that starts it lives as long as the broker, because
//! `PR_SET_PDEATHSIG` is tied to that thread: so a task dies with its broker and not before.

pub(crate) mod environment;
pub(crate) mod launch;
pub(crate) mod leftovers;
pub(crate) mod options;
pub(crate) mod outbox;
mod spawn;
pub(crate) mod state;
pub(crate) mod streams;
pub(crate) mod template;
