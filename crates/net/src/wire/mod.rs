//! The bytes of a frame. Pure: no sockets, no clock.

mod frame;

pub use frame::{
    Frame, HEADER_BYTES, Header, Kind, Limits, MAGIC, STREAM_WINDOW_BYTES, Status, VERSION, WireError,
    decode, window_cost,
};
