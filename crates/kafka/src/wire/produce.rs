//! `Produce` (key 0), versions 0 to 11. Batches are named by their place in the request's buffer.

use super::frame::Reply;
use super::primitive::{Reader, WireError};
use super::{Api, ErrorCode, RequestHeader};
use std::ops::Range;

/// When a producer wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Never.
    None,
    /// When the leader has the batch, in its page cache.
    Leader,
    /// When the batch is durable.
    All,
}

/// What a producer asks to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceRequest {
    /// Whether a transactional id is given; this broker serves no transactions.
    pub transactional: bool,
    /// When to answer; none if the value is not allowed.
    pub acks: Option<Acks>,
    /// How long the client waits, in milliseconds.
    pub timeout_ms: i32,
    /// Batches by topic.
    pub topics: Vec<ProduceTopic>,
}

/// Batches of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProduceTopic {
    /// The topic's name.
    pub name: String,
    /// Batches by partition.
    pub partitions: Vec<ProducePartition>,
}

/// Batches of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducePartition {
    /// The partition's number.
    pub index: i32,
    /// Where in the request its batches stand; null counts as empty.
    pub records: Range<usize>,
}

/// Topics and partitions that one request may name.
const ELEMENTS_MAX: usize = 100_000;

/// Fewest bytes of a topic, and of a partition, in the flexible encoding.
const TOPIC_BYTES_MIN: usize = 3;
const PARTITION_BYTES_MIN: usize = 6;

impl ProduceRequest {
    /// Reads a request, whose header has been read, from its frame.
    pub fn parse(header: &RequestHeader<'_>, frame: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(frame, header.body, header.api.is_flexible(header.version));
        let transactional = header.version >= 3 && reader.nullable_string()?.is_some();
        let acks = match reader.i16()? {
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            -1 => Some(Acks::All),
            _ => None,
        };
        let timeout_ms = reader.i32()?;
        let mut topics = Vec::new();
        let mut budget = ELEMENTS_MAX;
        for _ in 0..reader.array_within(TOPIC_BYTES_MIN, &mut budget)? {
            topics.push(ProduceTopic::parse(&mut reader, &mut budget)?);
        }
        reader.tags()?;
        Ok(Self { transactional, acks, timeout_ms, topics })
    }
}

impl ProduceTopic {
    fn parse(reader: &mut Reader<'_>, budget: &mut usize) -> Result<Self, WireError> {
        let name = reader.string()?.to_owned();
        let mut partitions = Vec::new();
        for _ in 0..reader.array_within(PARTITION_BYTES_MIN, budget)? {
            let index = reader.i32()?;
            let records = reader.nullable_bytes()?.unwrap_or(0..0);
            reader.tags()?;
            partitions.push(ProducePartition { index, records });
        }
        reader.tags()?;
        Ok(Self { name, partitions })
    }
}

/// What became of the batches of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Produced {
    /// The partition's number.
    pub index: i32,
    /// How it went.
    pub error: ErrorCode,
    /// For people, when it went wrong.
    pub message: Option<String>,
    /// Offset of the first record, or -1.
    pub base_offset: i64,
    /// First offset of the partition, or -1.
    pub start_offset: i64,
}

impl Produced {
    /// A failure, told to the client with `message`.
    pub fn failed(index: i32, error: ErrorCode, message: Option<String>) -> Self {
        Self { index, error, message, base_offset: -1, start_offset: -1 }
    }
}

/// Writes the response to a `Produce`.
pub fn response(version: i16, correlation: i32, topics: &[(String, Vec<Produced>)]) -> Reply {
    let partitions: usize = topics.iter().map(|(_, partitions)| partitions.len()).sum();
    let mut out = Reply::start(Api::Produce, version, correlation, 32 + 64 * (topics.len() + partitions));
    out.array(topics.len());
    for (name, partitions) in topics {
        out.string(name);
        out.array(partitions.len());
        for partition in partitions {
            put_partition(&mut out, version, partition);
        }
        out.no_tags();
    }
    if version >= 1 {
        out.i32(0); // throttle time
    }
    out.no_tags();
    Reply::whole(out)
}

fn put_partition(out: &mut super::primitive::Writer, version: i16, partition: &Produced) {
    out.i32(partition.index);
    out.i16(partition.error.code());
    out.i64(partition.base_offset);
    if version >= 2 {
        out.i64(-1); // no append time: batches keep the time of their creation
    }
    if version >= 5 {
        out.i64(partition.start_offset);
    }
    if version >= 8 {
        out.array(0);
        out.nullable_string(partition.message.as_deref());
    }
    out.no_tags();
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::ProduceResponse;
    use kafka_protocol::protocol::Decodable;
    use proptest::prelude::*;

    /// Version 9: no transaction, acks -1, 1,500 ms, topic "t", partition 2, records "xyz".
    const GOLDEN: &[u8] = b"\x00\x00\x00\x09\x00\x00\x00\x05\x00\x01c\x00\
        \x00\xff\xff\x00\x00\x05\xdc\x02\x02t\x02\x00\x00\x00\x02\x04xyz\x00\x00\x00";

    #[test]
    fn golden_request() {
        let header = RequestHeader::parse(GOLDEN).unwrap();
        let request = ProduceRequest::parse(&header, GOLDEN).unwrap();
        assert_eq!((request.acks, request.timeout_ms, request.transactional), (Some(Acks::All), 1500, false));
        let partition = &request.topics[0].partitions[0];
        assert_eq!((request.topics[0].name.as_str(), partition.index), ("t", 2));
        assert_eq!(&GOLDEN[partition.records.clone()], b"xyz");
    }

    #[test]
    fn every_truncation_is_refused() {
        for end in 0..GOLDEN.len() {
            let frame = &GOLDEN[..end];
            let outcome =
                RequestHeader::parse(frame).and_then(|header| ProduceRequest::parse(&header, frame));
            assert!(outcome.is_err(), "cut at {end}");
        }
    }

    #[test]
    fn responses_are_read_by_an_independent_decoder_in_every_version() {
        let ok =
            Produced { index: 1, error: ErrorCode::None, message: None, base_offset: 42, start_offset: 7 };
        let bad = Produced::failed(2, ErrorCode::CorruptMessage, Some("checksum".into()));
        let topics = vec![("t".to_owned(), vec![ok, bad])];
        for version in 3..=11 {
            let reply = response(version, 1, &topics);
            let mut body = Bytes::from(reply.parts().concat());
            body.advance(if version >= 9 { 9 } else { 8 });
            let read = ProduceResponse::decode(&mut body, version).unwrap();
            assert!(body.is_empty(), "version {version}");
            let partitions = &read.responses[0].partition_responses;
            assert_eq!((partitions[0].index, partitions[0].base_offset), (1, 42));
            assert_eq!(partitions[1].error_code, 2);
            assert_eq!(partitions[0].log_start_offset, if version >= 5 { 7 } else { -1 });
        }
    }

    #[test]
    fn golden_response_of_version_0() {
        let topics =
            vec![("t".to_owned(), vec![Produced::failed(0, ErrorCode::UnsupportedForMessageFormat, None)])];
        let reply = response(0, 5, &topics);
        assert_eq!(
            reply.parts().concat(),
            b"\0\0\0\x1d\0\0\0\x05\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\0\x2b\xff\xff\xff\xff\xff\xff\xff\xff"
        );
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(version in 0_i16..=11, body: Vec<u8>) {
            let header = RequestHeader { api: Api::Produce, version, correlation: 0, client: None, body: 0 };
            let _ = ProduceRequest::parse(&header, &body);
        }
    }
}
