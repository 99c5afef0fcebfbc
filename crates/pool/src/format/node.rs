//! A node of a tree. It has no checksum and no version of its own: the pointer to it has the one, the uberblock the other.

use super::bytes::Reader;
use crate::core::tree::{ENTRY_HEAD_BYTES, Entries, Key, Node, VALUE_BYTES_MAX};

/// Level, a zero, the number of entries.
const HEAD_BYTES: usize = 4;

/// Bytes that are no node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a node that cannot be read")]
pub struct NodeError;

/// The bytes of a node.
///
/// # Panics
///
/// For more than 65,535 entries, or a value of more than [`VALUE_BYTES_MAX`] bytes.
pub fn encode_node(node: &Node) -> Vec<u8> {
    let count = u16::try_from(node.entries.len()).expect("a node is bounded in bytes");
    let mut out = Vec::with_capacity(HEAD_BYTES + node.entries.stored_bytes());
    out.extend([node.level, 0]);
    out.extend(count.to_be_bytes());
    for (key, value) in node.entries.iter() {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        out.extend(key.object.to_be_bytes());
        out.push(key.tag);
        out.extend(key.index.to_be_bytes());
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(value);
    }
    out
}

/// The node that these bytes are. Whether it is on the right level is for the tree to say.
pub fn decode_node(bytes: &[u8]) -> Result<Node, NodeError> {
    read(&mut Reader::new(bytes)).ok_or(NodeError)
}

fn read(reader: &mut Reader<'_>) -> Option<Node> {
    let level = reader.u8()?;
    if reader.u8()? != 0 {
        return None;
    }
    let count = reader.u16()?;
    let most = usize::from(count).min(reader.left() / ENTRY_HEAD_BYTES);
    let mut entries = Entries::with_room(most, reader.left());
    for _ in 0..count {
        let key = Key { object: reader.u64()?, tag: reader.u8()?, index: reader.u64()? };
        let len = usize::from(reader.u16()?);
        let value = reader.take(len).filter(|_| len <= VALUE_BYTES_MAX)?;
        entries.try_push(key, value).ok()?;
    }
    reader.is_empty().then_some(Node { level, entries })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node() -> Node {
        let mut entries = Entries::default();
        entries.push(Key { object: 5, tag: 3, index: 0x0102 }, b"ab");
        entries.push(Key { object: 6, tag: 3, index: 0x0102 }, b"");
        Node { level: 2, entries }
    }

    #[test]
    fn golden_bytes() {
        let mut golden = vec![2, 0, 0, 2];
        golden.extend([0, 0, 0, 0, 0, 0, 0, 5, 3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 2, b'a', b'b']);
        golden.extend([0, 0, 0, 0, 0, 0, 0, 6, 3, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(encode_node(&node()), golden);
    }

    #[test]
    fn what_is_cut_or_has_more_is_no_node() {
        let bytes = encode_node(&node());
        for end in 0..bytes.len() {
            assert_eq!(decode_node(&bytes[..end]), Err(NodeError), "cut at {end}");
        }
        assert_eq!(decode_node(&[&bytes[..], b"x"].concat()), Err(NodeError));
        assert_eq!(decode_node(&[0, 1, 0, 0]), Err(NodeError), "a byte that is to be zero");
        for key in [5, 4] {
            let mut bytes = bytes.clone();
            bytes[32] = key;
            assert_eq!(decode_node(&bytes), Err(NodeError), "{key} does not come behind 5");
        }
        let mut long = vec![0, 0, 0, 1];
        long.extend([0; 17]);
        long.extend((VALUE_BYTES_MAX as u16 + 1).to_be_bytes());
        long.extend([0; VALUE_BYTES_MAX + 1]);
        assert_eq!(decode_node(&long), Err(NodeError));
    }

    proptest! {
        #[test]
        fn it_comes_back(
            level in any::<u8>(),
            values in prop::collection::btree_map(
                (any::<u64>(), any::<u8>(), any::<u64>()),
                prop::collection::vec(any::<u8>(), 0..200),
                0..30,
            ),
        ) {
            let mut entries = Entries::default();
            for ((object, tag, index), value) in values {
                entries.push(Key { object, tag, index }, &value);
            }
            let node = Node { level, entries };
            prop_assert_eq!(decode_node(&encode_node(&node)), Ok(node));
        }

        #[test]
        fn any_bytes_are_a_node_of_one_form_or_none(bytes in prop::collection::vec(0..4_u8, 0..120)) {
            if let Ok(node) = decode_node(&bytes) {
                prop_assert_eq!(encode_node(&node), bytes);
            }
        }
    }
}
