//! Golden bytes, and bytes that lie.

use kiln_types::Offset;
use proptest::prelude::*;

use super::{BadBatch, Builder, Codec, Header, Record, batches, records, verify};

/// One record at offset 0: key "k", value "v", header h=x. The checksum was computed by another program.
const GOLDEN: &str = "\
    0000000000000000 0000003e ffffffff 02 937ddad7 0000 00000000 00000000000003e8 00000000000003e9 \
    ffffffffffffffff ffff ffffffff 00000001 \
    18 00 02 00 02 6b 02 76 02 02 68 02 78";

fn golden() -> Vec<u8> {
    let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
    let text = String::from_utf8(digits).expect("ascii");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn sample() -> Vec<u8> {
    let mut builder = Builder::new(1000);
    let headers: &[(&str, &[u8])] = &[("h", b"x")];
    builder.push(&Record { key: Some(b"k"), value: Some(b"v"), headers, time_ms: 1001 });
    builder.finish()
}

#[test]
fn the_bytes_are_those_of_the_format() {
    assert_eq!(sample(), golden());
}

#[test]
fn every_header_field_is_where_the_format_has_it() {
    let header = verify(&golden()).expect("sound");
    assert_eq!(header.encode(), golden()[..61]);
    assert_eq!((header.bytes, header.records, header.base_time_ms, header.max_time_ms), (74, 1, 1000, 1001));
    assert_eq!((header.codec(), header.is_control(), header.is_transactional()), (Codec::None, false, false));
}

#[test]
fn a_record_comes_back_as_it_went_in() {
    let bytes = golden();
    let record = records(&bytes).next().expect("one").expect("sound");
    assert_eq!((record.offset, record.time_ms), (Offset(0), 1001));
    assert_eq!((record.key, record.value), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(record.headers.get("h"), Some(&b"x"[..]));
    assert_eq!(record.headers.get("i"), None);
}

#[test]
fn every_flipped_bit_of_the_checked_part_is_noticed() {
    let golden = golden();
    for at in 21..golden.len() {
        for bit in 0..8 {
            let mut bytes = golden.clone();
            bytes[at] ^= 1 << bit;
            assert!(verify(&bytes).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn offset_and_epoch_may_change_under_the_same_checksum() {
    let mut bytes = sample();
    super::patch_all(&mut bytes, Offset(41), 7);
    let header = verify(&bytes).expect("still sound");
    assert_eq!((header.base, header.last(), header.leader_epoch), (Offset(41), Offset(41), 7));
}

#[test]
fn what_is_wrong_is_named() {
    let sound = sample();
    assert_eq!(verify(&sound[..60]), Err(BadBatch::Short { have: 60, need: 61 }));
    assert_eq!(verify(&sound[..70]), Err(BadBatch::Short { have: 70, need: 74 }));
    let with = |at: usize, bytes: &[u8]| {
        let mut batch = sound.clone();
        batch[at..at + bytes.len()].copy_from_slice(bytes);
        verify(&batch).expect_err("unsound")
    };
    assert_eq!(with(16, &[1]), BadBatch::Magic(1));
    assert_eq!(with(8, &(-1_i32).to_be_bytes()), BadBatch::Length(-1));
    assert_eq!(with(57, &9_i32.to_be_bytes()), BadBatch::Count { records: 9, last_delta: 0 });
    let mut compressed = sound.clone();
    compressed[22] = 4;
    assert_eq!(records(&compressed).next(), Some(Err(BadBatch::Compressed(Codec::Zstd))));
}

#[test]
fn batches_end_at_the_first_that_is_cut_short() {
    let mut bytes = [sample(), sample()].concat();
    assert_eq!(batches(&bytes).count(), 2);
    bytes.pop();
    assert_eq!(batches(&bytes).count(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(verify(&bytes).is_err());
        let _ = records(&bytes).count();
    }

    /// The checksum is the sender's: records may be malformed under a sound one.
    #[test]
    fn malformed_records_end_in_an_error(at in 61_usize..74, byte in any::<u8>(), count in 1_i32..5) {
        let mut bytes = golden();
        bytes[at] = byte;
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        for record in records(&bytes).flatten() {
            prop_assert!(record.headers.count() <= 2);
        }
    }

    #[test]
    fn any_records_come_back(
        given in prop::collection::vec((any::<Option<Vec<u8>>>(), any::<Option<Vec<u8>>>(), 0_i64..1 << 40), 1..20)
    ) {
        let mut builder = Builder::new(given[0].2);
        for (key, value, time_ms) in &given {
            let (key, value) = (key.as_deref(), value.as_deref());
            builder.push(&Record { key, value, headers: &[], time_ms: *time_ms });
        }
        prop_assert_eq!(builder.len(), given.len());
        let bytes = builder.finish();
        let header = verify(&bytes).expect("sound");
        prop_assert_eq!(header, Header::parse(&bytes).expect("sound"));
        let found: Vec<_> = records(&bytes).map(|record| record.expect("sound")).collect();
        prop_assert_eq!(found.len(), given.len());
        for (at, (record, (key, value, time_ms))) in found.iter().zip(&given).enumerate() {
            prop_assert_eq!(record.offset, Offset(at as i64));
            prop_assert_eq!((record.key, record.value), (key.as_deref(), value.as_deref()));
            prop_assert_eq!(record.time_ms, *time_ms);
        }
    }
}
