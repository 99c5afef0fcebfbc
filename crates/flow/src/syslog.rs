//! Syslog as it is met on the wire: RFC 5424 as written, RFC 3164 as observed, the stream framings of RFC 6587, and RELP. Pure.
//!
//! Parsing never fails: a line that follows no standard is a message with the default priority. Everything borrows from the line.

pub mod framing;
mod parse;
mod priority;
pub mod relp;
pub mod stream;
mod structured;
mod write;

pub use parse::{Form, Message, Received, parse, rfc3339 as parse_time};
pub use priority::{FACILITIES, Priority, SEVERITIES};
pub use structured::{Element, StructuredData};
pub use write::{Element as OutgoingElement, Line, format_time, with_timestamp};
