//! What the filesystem decides, without I/O, clock or chance.

pub mod attr;
pub mod changelog;
pub mod clean;
pub mod dirty;
pub mod errno;
pub mod grants;
pub mod ids;
pub mod jobs;
pub mod layout;
pub mod leases;
pub mod locks;
pub mod namespace;
pub mod placement;
pub mod quota;
pub mod ranges;
pub mod readahead;
pub mod segment;
pub mod split;
pub mod target;

pub use attr::{Attr, FileKind, SetAttr, SetTime, Time};
pub use errno::Errno;
pub use ids::{Fid, Ino, ObjectId, OstIndex, SessionId, Xid};
pub use layout::{Component, Extent, Layout, Pattern, Spread};
pub use target::Role;
