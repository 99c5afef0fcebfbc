//! Golden bytes, and properties of the decoder.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

fn short(text: &'static str) -> ShortStr {
    ShortStr::from_static(text)
}

fn encoded(channel: u16, method: impl Into<Method>) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode_method(&mut out, channel, &method.into());
    out.to_vec()
}

#[test]
fn golden_queue_declare() {
    let arguments = Table::new().with("x-max-priority", 10);
    let declare = QueueDeclare {
        queue: short("q"),
        durable: true,
        no_wait: true,
        arguments,
        ..QueueDeclare::default()
    };
    let golden = b"\x01\x00\x01\x00\x00\x00\x21\x00\x32\x00\x0a\x00\x00\x01q\x12\
                   \x00\x00\x00\x14\x0ex-max-priorityI\x00\x00\x00\x0a\xce";
    assert_eq!(encoded(1, declare), golden);
}

#[test]
fn golden_delivery() {
    let mut out = BytesMut::new();
    encode_deliver(&mut out, 2, &short("ct"), 258, true, (&short(""), &short("key")));
    encode_header(&mut out, 2, 5, &Properties::persistent().encode());
    encode_body(&mut out, 2, b"hello", FRAME_MIN_SIZE);
    let golden = b"\x01\x00\x02\x00\x00\x00\x15\x00\x3c\x00\x3c\x02ct\x00\x00\x00\x00\x00\x00\x01\x02\x01\x00\x03key\xce\
                   \x02\x00\x02\x00\x00\x00\x0f\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x10\x00\x02\xce\
                   \x03\x00\x02\x00\x00\x00\x05hello\xce";
    assert_eq!(out.as_ref(), golden);
}

#[test]
fn bodies_are_cut_for_the_receiver() {
    let mut out = BytesMut::new();
    encode_body(&mut out, 1, &vec![0; 300_000], FRAME_MIN_SIZE);
    let (whole, error) = complete_frames(&out, FRAME_MIN_SIZE);
    assert_eq!((whole, error), (out.len(), None));
    let mut frames = FrameBatch::new(out.freeze());
    let mut sizes = Vec::new();
    while let Some(frame) = frames.next_frame() {
        sizes.push(frame.octets().len());
    }
    assert_eq!((sizes.len(), sizes[0], sizes[73]), (74, 4088, 1576));
}

#[test]
fn deep_tables_are_refused() {
    let mut value = Value::Void;
    for _ in 0..100 {
        value = Value::Array(vec![value]);
    }
    let mut out = BytesMut::new();
    Table::new().with("deep", value).put(&mut out);
    let bytes = out.freeze();
    let read = <Table as Wire>::get(&mut Reader::new(&bytes));
    assert!(matches!(read, Err(DecodeError::TooDeep(_))), "{read:?}");
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i8>().prop_map(Value::Byte),
        any::<u8>().prop_map(Value::UnsignedByte),
        any::<i16>().prop_map(Value::Short),
        any::<u16>().prop_map(Value::UnsignedShort),
        any::<i32>().prop_map(Value::SignedInt),
        any::<u32>().prop_map(Value::UnsignedInt),
        any::<i64>().prop_map(Value::Long),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| Value::Decimal(scale, value)),
        any::<u64>().prop_map(Value::Timestamp),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|octets| Value::LongStr(octets.into())),
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(|octets| Value::Binary(octets.into())),
        Just(Value::Void),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((any_name(), inner), 0..4)
                .prop_map(|entries| Value::Table(Table(entries))),
        ]
    })
}

fn any_name() -> impl Strategy<Value = ShortStr> {
    "[a-z.-]{0,12}".prop_map(|text| ShortStr::try_from(text).unwrap())
}

fn any_table() -> impl Strategy<Value = Table> {
    proptest::collection::vec((any_name(), any_value()), 0..5).prop_map(Table)
}

proptest! {
    #[test]
    fn methods_come_back_as_they_were(
        queue in any_name(), durable: bool, exclusive: bool, no_wait: bool, arguments in any_table(),
    ) {
        let declare = QueueDeclare { queue, durable, exclusive, no_wait, arguments, ..QueueDeclare::default() };
        let method = Method::from(declare);
        let mut out = BytesMut::new();
        method.put(&mut out);
        prop_assert_eq!(Method::get(&mut Reader::new(&out.freeze())), Ok(method));
    }

    #[test]
    fn properties_come_back_and_their_traits_agree(
        headers in proptest::option::of(any_table()),
        delivery_mode in proptest::option::of(any::<u8>()),
        priority in proptest::option::of(any::<u8>()),
        expiration in proptest::option::of(any_name()),
        reply_to in proptest::option::of(any_name()),
        timestamp in proptest::option::of(any::<u64>()),
        user_id in proptest::option::of(any_name()),
    ) {
        let properties = Properties {
            headers, delivery_mode, priority, expiration, reply_to, timestamp, user_id,
            message_id: Some(short("id")), ..Properties::default()
        };
        let raw = properties.encode();
        let traits = Traits::scan(&raw).unwrap();
        prop_assert_eq!(Properties::decode(&raw), Ok(properties.clone()));
        prop_assert_eq!(traits.persistent, properties.delivery_mode == Some(2));
        prop_assert_eq!(traits.priority, properties.priority.unwrap_or(0));
        prop_assert_eq!(traits.expiration, properties.expiration);
        prop_assert_eq!(traits.user_id, properties.user_id);
        prop_assert_eq!(Traits::header_table(&raw), Ok(properties.headers.unwrap_or_default()));
    }

    /// Whatever comes from the network: no panic, and no frame longer than what came.
    #[test]
    fn any_bytes_are_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (whole, _) = complete_frames(&bytes, FRAME_MIN_SIZE);
        prop_assert!(whole <= bytes.len());
        let bytes = Bytes::from(bytes);
        let mut frames = FrameBatch::new(bytes.slice(..whole));
        while let Some(frame) = frames.next_frame() {
            drop(Method::get(&mut frame.reader()));
        }
        drop(Method::get(&mut Reader::new(&bytes)));
        drop(Properties::decode(&bytes));
        drop(Traits::scan(&bytes));
        drop(<Table as Wire>::get(&mut Reader::new(&bytes)));
    }

    /// A method cut anywhere is refused, and a byte changed in it never panics.
    #[test]
    fn cut_and_damaged_methods(arguments in any_table(), cut: prop::sample::Index, at: prop::sample::Index, to: u8) {
        let method = Method::from(BasicConsume { arguments, ..BasicConsume::default() });
        let mut out = BytesMut::new();
        method.put(&mut out);
        let whole = out.to_vec();
        let cut = Bytes::copy_from_slice(&whole[..cut.index(whole.len())]);
        prop_assert!(Method::get(&mut Reader::new(&cut)).is_err());
        let mut damaged = whole;
        let at = at.index(damaged.len());
        damaged[at] = to;
        drop(Method::get(&mut Reader::new(&Bytes::from(damaged))));
    }
}
