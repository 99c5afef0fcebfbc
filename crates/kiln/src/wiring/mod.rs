//! How one service reaches another: the only place that knows two of them.
//!
//! Each module implements a small trait that the user of a thing has defined, over the service that provides it.

pub mod exchanges;
pub mod flows;
pub mod jobs;
pub mod queue;
pub mod settings;
pub mod topics;
