//! The Kafka protocol on the wire, without any I/O.
//!
//! `Produce` and `Fetch` are decoded and encoded here by hand, so that record batches stay opaque bytes
//! between socket and file. Every other message goes through the `kafka-protocol` crate, behind
//! [`control`], which first checks the claimed lengths against the bytes that are there ([`shape`]): that
//! crate reserves memory for whatever length a peer claims.
//!
//! Source of the layouts: the message definitions of Apache Kafka 3.9
//! (`clients/src/main/resources/common/message`).

pub mod api;
pub(crate) mod control;
pub mod error;
pub mod fetch;
pub mod frame;
pub mod primitive;
pub mod produce;
pub(crate) mod shape;

pub use api::Api;
pub use error::ErrorCode;
pub use frame::{Reply, RequestHeader};
pub use primitive::WireError;
