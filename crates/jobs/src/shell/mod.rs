//! Starts a job's tasks on one node and carries their streams.
//!
//! - [`options`]: what of a jobspec matters to a shell; [`template`]: `{{id}}` and its like; [`environment`]: the
//!   variables of a task. These are pure.
//! - [`launch`]: the thread that forks, and everything that happens between fork and exec.
//! - [`streams`]: pipes read in whole lines, files that several tasks write to, standard input.
//! - [`state`]: one job on this node: takes what happened, says what to do; [`outbox`]: what must be reported, numbered.
//! - [`leftovers`]: what a broker that was killed has left behind.
//!
//! A task is one fork and one exec of the broker itself. The forking thread lives as long as the broker, because
//! `PR_SET_PDEATHSIG` is tied to the thread that forked: so a task dies with its broker and not before.

pub(crate) mod environment;
pub(crate) mod launch;
pub(crate) mod leftovers;
pub(crate) mod options;
pub(crate) mod outbox;
pub(crate) mod state;
pub(crate) mod streams;
pub(crate) mod template;
