//! The POSIX namespace of an MDT: functions over rows, without I/O, clock or chance.
//!
//! ```text
//! touches(rows, act)          what a change will touch, so that leases on it can be called back before
//! apply(rows, command, bulk)  what comes of a command, and the rows that it changes
//! ask(rows, ask)              questions that change nothing
//! ```
//!
//! Rows are bytes under bytes in one order ([`Rows`]; their keys and values: docs/formats/fs-mdt.md). What a command does
//! depends on the rows and the command alone, so a journal of commands makes the same rows again. **Invariant:** a command
//! that is refused changes no row. **Invariant:** permissions are not looked at here; the kernel of the client does that.
//!
//! - [`keys`], [`rows`]: where rows are, and how changes lie over them until they are kept.
//! - [`filesystem`], [`inode`], [`directory`], [`links`]: what there is, its names, and the ways back from an inode to them.
//! - [`make`], [`rename`], [`attributes`], [`xattr`], [`acl`], [`data`], [`striping`]: what acts do.
//! - [`moving`]: how objects leave an OST that drains.
//! - [`accounts`]: what users, groups and projects use, and their limits.
//! - [`replies`], [`todo`], [`log`]: what sessions were answered; what is to be done at the OSTs; what the changelog's
//!   readers have not got yet.

mod accounts;
mod acl;
mod ask;
mod attributes;
mod command;
mod data;
mod directory;
mod filesystem;
mod inode;
mod keys;
mod links;
mod log;
mod make;
mod moving;
mod rename;
mod replies;
mod rows;
mod striping;
#[cfg(test)]
mod tests;
mod todo;
mod touch;
mod transaction;
mod xattr;

pub use accounts::{recount, room};
pub use ask::{Asked, ask};
pub use command::{Command, Outcome, What};
pub use data::PAGE_BYTES;
pub use filesystem::{Usage, format, orphans, usage};
pub use inode::LINKS_MAX;
pub use log::{backlog, is_written_once, records};
pub use moving::{Located, Owned, held, located, owners};
pub use replies::{REPLIES_MAX, reply_to, sessions};
pub use rows::{Changes, Each, Over, Rows};
pub use todo::{Todo, TodoId, todo};
pub use touch::{Touch, touches};
pub use transaction::apply;
