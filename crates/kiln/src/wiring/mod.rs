//! How one service reaches another: the only place that knows two of them.
//!
//! Each module implements a small trait that the user of a thing has defined, over the service that provides it.

pub(crate) mod changelogs;
pub(crate) mod exchanges;
pub(crate) mod flows;
pub(crate) mod jobs;
pub(crate) mod queue;
pub(crate) mod settings;
pub(crate) mod topics;
