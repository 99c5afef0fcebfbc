//! The AMQP 0-9-1 wire format: frames, methods, field tables and content properties.
//!
//! Everything here is a pure function of bytes. Decoding never panics and never allocates more than a constant
//! factor of the input it was given; strings and bodies are slices of the input (`Bytes`), not copies.
//!
//! The source is the AMQP 0-9-1 specification with `RabbitMQ`'s errata for the types of field values.

mod frame;
mod method;
mod properties;
mod reader;
mod short;
mod table;

pub(crate) use frame::erlang_binary;
pub use frame::{
    FRAME_END, FRAME_OVERHEAD, Frame, FrameBatch, FrameError, FrameKind, PROTOCOL_HEADER, complete_frames,
    encode_body, encode_deliver, encode_get_ok, encode_header, encode_heartbeat, encode_method,
    encode_return,
};
pub use method::*;
pub use properties::{Properties, Traits};
pub use reader::{DecodeError, Reader, Wire};
pub use short::{ShortStr, TooLong};
pub use table::{Table, Value};

/// The smallest frame size a peer may negotiate, in octets (specification 4.2.3, `frame-min-size`).
pub const FRAME_MIN_SIZE: u32 = 4096;

/// The class id of `basic`, the only class that carries content.
pub const BASIC_CLASS: u16 = 60;

#[cfg(test)]
mod tests;
