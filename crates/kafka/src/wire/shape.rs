//! The shapes of control requests: just enough of each message definition to check that every length that a
//! peer claims is backed by bytes, before the decoder reserves memory for it.

use super::Api;
use super::primitive::{Reader, WireError};
use Kind::{Blob, Each, Fixed, Structs, Text};

/// What a field is made of.
#[derive(Debug)]
pub(crate) enum Kind {
    /// That many bytes.
    Fixed(usize),
    /// A string, null or not.
    Text,
    /// A byte string, null or not.
    Blob,
    /// An array of structures.
    Structs(&'static [Field]),
    /// An array of primitive values.
    Each(&'static Kind),
}

/// A field and the versions that have it.
#[derive(Debug)]
pub(crate) struct Field {
    first: i16,
    last: i16,
    kind: Kind,
}

const fn all(kind: Kind) -> Field {
    between(0, i16::MAX, kind)
}
const fn since(first: i16, kind: Kind) -> Field {
    between(first, i16::MAX, kind)
}
const fn until(last: i16, kind: Kind) -> Field {
    between(0, last, kind)
}
const fn between(first: i16, last: i16, kind: Kind) -> Field {
    Field { first, last, kind }
}

const BOOL: Kind = Fixed(1);
const I8: Kind = Fixed(1);
const I16: Kind = Fixed(2);
const I32: Kind = Fixed(4);
const I64: Kind = Fixed(8);
const UUID: Kind = Fixed(16);

/// The fields of a control request, in the order of the wire.
fn fields(api: Api) -> &'static [Field] {
    match api {
        // Decoded by hand, with their own checks.
        Api::Produce | Api::Fetch => const { &[] },
        Api::ApiVersions => const { &[since(3, Text), since(3, Text)] },
        Api::Metadata => {
            const TOPIC: &[Field] = &[since(10, UUID), all(Text)];
            const { &[all(Structs(TOPIC)), since(4, BOOL), between(8, 10, BOOL), since(8, BOOL)] }
        }
        Api::ListOffsets => {
            const PARTITION: &[Field] = &[all(I32), since(4, I32), all(I64)];
            const TOPIC: &[Field] = &[all(Text), all(Structs(PARTITION))];
            const { &[all(I32), since(2, I8), all(Structs(TOPIC))] }
        }
        Api::FindCoordinator => const { &[until(3, Text), since(1, I8), since(4, Each(&Text))] },
        Api::JoinGroup => {
            const PROTOCOL: &[Field] = &[all(Text), all(Blob)];
            const {
                &[
                    all(Text),
                    all(I32),
                    since(1, I32),
                    all(Text),
                    since(5, Text),
                    all(Text),
                    all(Structs(PROTOCOL)),
                    since(8, Text),
                ]
            }
        }
        Api::SyncGroup => {
            const ASSIGNMENT: &[Field] = &[all(Text), all(Blob)];
            const {
                &[
                    all(Text),
                    all(I32),
                    all(Text),
                    since(3, Text),
                    since(5, Text),
                    since(5, Text),
                    all(Structs(ASSIGNMENT)),
                ]
            }
        }
        Api::Heartbeat => const { &[all(Text), all(I32), all(Text), since(3, Text)] },
        Api::LeaveGroup => {
            const MEMBER: &[Field] = &[all(Text), all(Text), since(5, Text)];
            const { &[all(Text), until(2, Text), since(3, Structs(MEMBER))] }
        }
        Api::OffsetCommit => {
            const PARTITION: &[Field] = &[all(I32), all(I64), since(6, I32), all(Text)];
            const TOPIC: &[Field] = &[all(Text), all(Structs(PARTITION))];
            const { &[all(Text), all(I32), all(Text), since(7, Text), between(2, 4, I64), all(Structs(TOPIC))] }
        }
        Api::OffsetFetch => {
            const TOPIC: &[Field] = &[all(Text), all(Each(&I32))];
            const GROUP: &[Field] = &[all(Text), since(9, Text), since(9, I32), all(Structs(TOPIC))];
            const { &[until(7, Text), until(7, Structs(TOPIC)), since(8, Structs(GROUP)), since(7, BOOL)] }
        }
        Api::InitProducerId => const { &[all(Text), all(I32), since(3, I64), since(3, I16)] },
        Api::CreateTopics => {
            const ASSIGNMENT: &[Field] = &[all(I32), all(Each(&I32))];
            const CONFIG: &[Field] = &[all(Text), all(Text)];
            const TOPIC: &[Field] =
                &[all(Text), all(I32), all(I16), all(Structs(ASSIGNMENT)), all(Structs(CONFIG))];
            const { &[all(Structs(TOPIC)), all(I32), all(BOOL)] }
        }
        Api::DeleteTopics => {
            const TOPIC: &[Field] = &[all(Text), all(UUID)];
            const { &[since(6, Structs(TOPIC)), until(5, Each(&Text)), all(I32)] }
        }
        Api::DeleteRecords => {
            const PARTITION: &[Field] = &[all(I32), all(I64)];
            const TOPIC: &[Field] = &[all(Text), all(Structs(PARTITION))];
            const { &[all(Structs(TOPIC)), all(I32)] }
        }
        Api::OffsetForLeaderEpoch => {
            const PARTITION: &[Field] = &[all(I32), all(I32), all(I32)];
            const TOPIC: &[Field] = &[all(Text), all(Structs(PARTITION))];
            const { &[since(3, I32), all(Structs(TOPIC))] }
        }
        Api::DescribeConfigs => {
            const RESOURCE: &[Field] = &[all(I8), all(Text), all(Each(&Text))];
            const { &[all(Structs(RESOURCE)), all(BOOL), since(3, BOOL)] }
        }
        Api::AlterConfigs => {
            const CONFIG: &[Field] = &[all(Text), all(Text)];
            const RESOURCE: &[Field] = &[all(I8), all(Text), all(Structs(CONFIG))];
            const { &[all(Structs(RESOURCE)), all(BOOL)] }
        }
        Api::IncrementalAlterConfigs => {
            const CONFIG: &[Field] = &[all(Text), all(I8), all(Text)];
            const RESOURCE: &[Field] = &[all(I8), all(Text), all(Structs(CONFIG))];
            const { &[all(Structs(RESOURCE)), all(BOOL)] }
        }
        Api::CreatePartitions => {
            const ASSIGNMENT: &[Field] = &[all(Each(&I32))];
            const TOPIC: &[Field] = &[all(Text), all(I32), all(Structs(ASSIGNMENT))];
            const { &[all(Structs(TOPIC)), all(I32), all(BOOL)] }
        }
        Api::DescribeGroups => const { &[all(Each(&Text)), since(3, BOOL)] },
        Api::ListGroups => const { &[since(4, Each(&Text)), since(5, Each(&Text))] },
        Api::DeleteGroups => const { &[all(Each(&Text))] },
        Api::DescribeCluster => const { &[all(BOOL), since(1, I8)] },
        Api::SaslHandshake => const { &[all(Text)] },
        Api::SaslAuthenticate => const { &[all(Blob)] },
    }
}

/// Checks a control request's body: every length is backed by bytes, and every string is UTF-8.
pub(crate) fn check(api: Api, version: i16, body: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(body, 0, api.is_flexible(version));
    structure(&mut reader, fields(api), version)
}

fn structure(reader: &mut Reader<'_>, fields: &[Field], version: i16) -> Result<(), WireError> {
    for field in present(fields, version) {
        value(reader, &field.kind, version)?;
    }
    reader.tags()
}

fn present(fields: &[Field], version: i16) -> impl Iterator<Item = &Field> {
    fields.iter().filter(move |field| (field.first..=field.last).contains(&version))
}

fn value(reader: &mut Reader<'_>, kind: &Kind, version: i16) -> Result<(), WireError> {
    match kind {
        Fixed(len) => reader.skip(*len).map(drop),
        Text => reader.nullable_string().map(drop),
        Blob => reader.nullable_bytes().map(drop),
        Structs(fields) => {
            for _ in 0..reader.array(bytes_min(fields, version))? {
                structure(reader, fields, version)?;
            }
            Ok(())
        }
        Each(kind) => {
            let bytes_min = if let Fixed(len) = kind { *len } else { 1 };
            for _ in 0..reader.array(bytes_min)? {
                value(reader, kind, version)?;
            }
            Ok(())
        }
    }
}

/// The fewest bytes that a structure can take; lengths count as one byte, as in the flexible encoding.
fn bytes_min(fields: &[Field], version: i16) -> usize {
    present(fields, version).map(|field| if let Fixed(len) = field.kind { len } else { 1 }).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A body of this shape with `n` elements in each array.
    fn sample(fields: &[Field], version: i16, flexible: bool, n: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for field in present(fields, version) {
            put(&mut out, &field.kind, version, flexible, n);
        }
        if flexible {
            out.push(0);
        }
        out
    }

    fn put(out: &mut Vec<u8>, kind: &Kind, version: i16, flexible: bool, n: usize) {
        let mut length = |short: bool, len: usize| match (flexible, short) {
            (true, _) => out.push(len as u8 + 1),
            (false, true) => out.extend((len as i16).to_be_bytes()),
            (false, false) => out.extend((len as i32).to_be_bytes()),
        };
        match kind {
            Fixed(len) => out.extend(vec![1; *len]),
            Text => {
                length(true, 2);
                out.extend(b"ab");
            }
            Blob => {
                length(false, 3);
                out.extend(b"abc");
            }
            Structs(fields) => {
                length(false, n);
                (0..n).for_each(|_| out.extend(sample(fields, version, flexible, n)));
            }
            Each(kind) => {
                length(false, n);
                (0..n).for_each(|_| put(out, kind, version, flexible, n));
            }
        }
    }

    /// The shape is the message's own: the decoder reads a body built from it to its last byte.
    #[test]
    fn every_shape_in_every_version_is_what_the_decoder_reads() {
        for api in Api::all().filter(|api| !matches!(api, Api::Produce | Api::Fetch)) {
            let (first, last) = api.versions();
            for version in first..=last {
                for n in [0, 1, 2] {
                    let body = sample(fields(api), version, api.is_flexible(version), n);
                    check(api, version, &body).unwrap();
                    let rest = crate::wire::control::decode_any(api, version, &body);
                    assert_eq!(rest, Some(0), "{api:?} version {version}, {n} elements");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn random_bytes_neither_panic_nor_reserve(key in 0_usize..27, version in 0_i16..12, body: Vec<u8>) {
            let api = Api::all().nth(key).unwrap();
            if api.serves(version) {
                crate::wire::control::decode_any(api, version, &body);
            }
        }

        #[test]
        fn truncated_and_flipped_requests_are_refused_or_read(
            key in 2_usize..27, version in 0_i16..12, cut in 0_usize..200, flip in 0_usize..200, to: u8,
        ) {
            let api = Api::all().nth(key).unwrap();
            if api.serves(version) {
                let mut body = sample(fields(api), version, api.is_flexible(version), 2);
                body.truncate(body.len().saturating_sub(cut));
                if let Some(byte) = body.get_mut(flip) {
                    *byte = to;
                }
                crate::wire::control::decode_any(api, version, &body);
            }
        }
    }
}
