//! A command as it stands in the log. The layout is in `docs/formats/store.md`.

use kiln_types::Timestamp;
use serde::{Deserialize, Serialize};

/// First byte of every logged command; a number not known here was written by a newer Kiln.
const VERSION: u8 = 1;

/// One command in its place in the order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The [`crate::Machine::NAME`] that applies it.
    pub(crate) machine: String,
    /// When it was put in order; never decreases along the order.
    pub(crate) at: Timestamp,
    /// The machine's own encoding (postcard).
    pub(crate) body: Vec<u8>,
}

/// Why bytes of the log are no command.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum BadCommand {
    #[error("it is empty")]
    Empty,
    #[error("it has layout {0}, which only a newer Kiln knows")]
    Version(u8),
    #[error("it does not decode: {0}")]
    Decode(#[from] postcard::Error),
}

impl Command {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let mut out = Vec::with_capacity(self.body.len() + self.machine.len() + 24);
        out.push(VERSION);
        postcard::to_extend(self, out)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Command, BadCommand> {
        match bytes.split_first() {
            None => Err(BadCommand::Empty),
            Some((&VERSION, rest)) => Ok(decode_all(rest)?),
            Some((&version, _)) => Err(BadCommand::Version(version)),
        }
    }
}

/// Decodes a postcard value that must fill `bytes` exactly: left-over bytes mean that it was another type.
pub(crate) fn decode_all<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Golden bytes: this layout is on disks.
    const GOLDEN: &[u8] = &[1, 4, b'a', b'u', b't', b'h', 0x80, 0x01, 2, 0xAA, 0xBB];

    #[test]
    fn layout_is_as_documented() {
        let command = Command { machine: "auth".into(), at: Timestamp(64), body: vec![0xAA, 0xBB] };
        assert_eq!(command.encode().unwrap(), GOLDEN);
        assert_eq!(Command::decode(GOLDEN).unwrap(), command);
    }

    #[test]
    fn strange_bytes_are_told_apart() {
        assert!(matches!(Command::decode(&[]), Err(BadCommand::Empty)));
        assert!(matches!(Command::decode(&[9, 1, 2]), Err(BadCommand::Version(9))));
        assert!(matches!(Command::decode(&GOLDEN[..8]), Err(BadCommand::Decode(_))));
        let long = [GOLDEN, &[0]].concat();
        assert!(matches!(Command::decode(&long), Err(BadCommand::Decode(_))));
    }
}
