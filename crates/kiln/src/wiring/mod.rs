//! How one service reaches another: the only place that knows two of them.
//!
//! Each module implements a small trait that the user of a thing has defined, over the service that provides it.

pub mod flows;
