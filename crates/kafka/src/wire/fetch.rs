//! `Fetch` (key 1), versions 4 to 17. Record batches are parts of the reply as they were read from the file.

use super::frame::Reply;
use super::primitive::{Reader, WireError, Writer};
use super::{Api, ErrorCode, RequestHeader};

/// First version that names topics by id (KIP-516).
const IDS_SINCE: i16 = 13;

/// How a request names a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    /// By name, up to version 12.
    Name(String),
    /// By id, from version 13 on.
    Id([u8; 16]),
}

/// What a consumer asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    /// How long to wait for `bytes_min`, in milliseconds.
    pub wait_ms: i32,
    /// Answer as soon as that many bytes are there.
    pub bytes_min: i32,
    /// Bytes of the whole answer; the first batch comes even when it is larger.
    pub bytes_max: i32,
    /// Fetch session (KIP-227): 0 if none.
    pub session: i32,
    /// What is to be read.
    pub topics: Vec<FetchTopic>,
}

/// Partitions of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchTopic {
    /// Which topic.
    pub topic: TopicRef,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
}

/// From where to read one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition's number.
    pub index: i32,
    /// Epoch of the leader as the client knows it, or -1.
    pub leader_epoch: i32,
    /// First offset wanted.
    pub offset: i64,
    /// Bytes of this partition; its first batch comes even when it is larger.
    pub bytes_max: i32,
}

/// Topics and partitions that one request may name.
const ELEMENTS_MAX: usize = 100_000;

/// Fewest bytes of a topic, and of a partition.
const TOPIC_BYTES_MIN: usize = 3;
const PARTITION_BYTES_MIN: usize = 16;

impl FetchRequest {
    /// Reads a request, whose header has been read, from its frame.
    pub fn parse(header: &RequestHeader<'_>, frame: &[u8]) -> Result<Self, WireError> {
        let version = header.version;
        let mut reader = Reader::new(frame, header.body, header.api.is_flexible(version));
        if version <= 14 {
            reader.i32()?; // replica id: only other brokers have one
        }
        let (wait_ms, bytes_min, bytes_max) = (reader.i32()?, reader.i32()?, reader.i32()?);
        reader.i8()?; // isolation level: without transactions both are the same
        let session = if version >= 7 { reader.i32()? } else { 0 };
        if version >= 7 {
            reader.i32()?; // session epoch
        }
        let mut topics = Vec::new();
        let mut budget = ELEMENTS_MAX;
        for _ in 0..reader.array_within(TOPIC_BYTES_MIN, &mut budget)? {
            topics.push(FetchTopic::parse(&mut reader, version, &mut budget)?);
        }
        if version >= 7 {
            skip_forgotten(&mut reader, version)?;
        }
        if version >= 11 {
            reader.nullable_string()?; // the client's rack
        }
        reader.tags()?;
        Ok(Self { wait_ms, bytes_min, bytes_max, session, topics })
    }
}

fn topic_ref(reader: &mut Reader<'_>, version: i16) -> Result<TopicRef, WireError> {
    if version >= IDS_SINCE {
        reader.uuid().map(TopicRef::Id)
    } else {
        reader.string().map(|name| TopicRef::Name(name.to_owned()))
    }
}

/// Topics that a session is to forget; there are no sessions here.
fn skip_forgotten(reader: &mut Reader<'_>, version: i16) -> Result<(), WireError> {
    for _ in 0..reader.array(TOPIC_BYTES_MIN)? {
        topic_ref(reader, version)?;
        let partitions = reader.array(4)?;
        reader.skip(4 * partitions)?;
        reader.tags()?;
    }
    Ok(())
}

impl FetchTopic {
    fn parse(reader: &mut Reader<'_>, version: i16, budget: &mut usize) -> Result<Self, WireError> {
        let topic = topic_ref(reader, version)?;
        let mut partitions = Vec::new();
        for _ in 0..reader.array_within(PARTITION_BYTES_MIN, budget)? {
            partitions.push(FetchPartition::parse(reader, version)?);
        }
        reader.tags()?;
        Ok(Self { topic, partitions })
    }
}

impl FetchPartition {
    fn parse(reader: &mut Reader<'_>, version: i16) -> Result<Self, WireError> {
        let index = reader.i32()?;
        let leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
        let offset = reader.i64()?;
        if version >= 12 {
            reader.i32()?; // epoch of the last fetched record
        }
        if version >= 5 {
            reader.i64()?; // log start of a follower
        }
        let bytes_max = reader.i32()?;
        reader.tags()?;
        Ok(Self { index, leader_epoch, offset, bytes_max })
    }
}

/// What was read of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The partition's number.
    pub index: i32,
    /// How it went.
    pub error: ErrorCode,
    /// The next offset that is not yet durable, or -1.
    pub high_watermark: i64,
    /// First offset of the partition, or -1.
    pub start_offset: i64,
    /// Whole batches, as stored.
    pub records: Vec<u8>,
}

impl Fetched {
    /// A failure.
    pub fn failed(index: i32, error: ErrorCode) -> Self {
        Self { index, error, high_watermark: -1, start_offset: -1, records: Vec::new() }
    }
}

/// Writes the response to a `Fetch`; the records move into the reply without being copied.
pub fn response(
    version: i16,
    correlation: i32,
    error: ErrorCode,
    topics: Vec<(TopicRef, Vec<Fetched>)>,
) -> Reply {
    let flexible = Api::Fetch.is_flexible(version);
    let mut parts = Vec::new();
    let mut out = Reply::start(Api::Fetch, version, correlation, 64 + 96 * topics.len());
    out.i32(0); // throttle time
    if version >= 7 {
        out.i16(error.code());
        out.i32(0); // session id 0: none was made, ask in full each time (KIP-227)
    }
    out.array(topics.len());
    for (topic, partitions) in topics {
        match topic {
            TopicRef::Name(name) => out.string(&name),
            TopicRef::Id(id) => out.raw(&id),
        }
        out.array(partitions.len());
        for partition in partitions {
            put_partition(&mut out, version, &partition);
            if !partition.records.is_empty() {
                let head = std::mem::replace(&mut out, Writer::new(Vec::with_capacity(128), flexible));
                parts.extend([head.into_inner(), partition.records]);
            }
            out.no_tags();
        }
        out.no_tags();
    }
    out.no_tags();
    parts.push(out.into_inner());
    let head = parts.remove(0);
    Reply::in_parts(head, parts)
}

/// Everything of a partition up to the length of its records.
fn put_partition(out: &mut Writer, version: i16, partition: &Fetched) {
    out.i32(partition.index);
    out.i16(partition.error.code());
    out.i64(partition.high_watermark);
    out.i64(partition.high_watermark); // last stable offset: no transactions
    if version >= 5 {
        out.i64(partition.start_offset);
    }
    out.array(0); // aborted transactions
    if version >= 11 {
        out.i32(-1); // preferred read replica
    }
    out.bytes_len(partition.records.len());
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Buf, Bytes};
    use kafka_protocol::messages::FetchResponse;
    use kafka_protocol::protocol::Decodable;
    use proptest::prelude::*;

    /// Version 12: wait 500 ms for 1 to 1,024 bytes, no session, topic "t", partition 3, offset 9, at most 256 bytes.
    const GOLDEN: &[u8] = b"\x00\x01\x00\x0c\x00\x00\x00\x05\x00\x01c\x00\
        \xff\xff\xff\xff\x00\x00\x01\xf4\x00\x00\x00\x01\x00\x00\x04\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\
        \x02\x02t\x02\x00\x00\x00\x03\xff\xff\xff\xff\x00\x00\x00\x00\x00\x00\x00\x09\xff\xff\xff\xff\
        \xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x01\x00\x00\x00\x01\x01\x00";

    #[test]
    fn golden_request() {
        let header = RequestHeader::parse(GOLDEN).unwrap();
        let request = FetchRequest::parse(&header, GOLDEN).unwrap();
        assert_eq!(
            (request.wait_ms, request.bytes_min, request.bytes_max, request.session),
            (500, 1, 1024, 0)
        );
        assert_eq!(request.topics[0].topic, TopicRef::Name("t".into()));
        let wanted = FetchPartition { index: 3, leader_epoch: -1, offset: 9, bytes_max: 256 };
        assert_eq!(request.topics[0].partitions, [wanted]);
    }

    #[test]
    fn every_truncation_is_refused() {
        for end in 0..GOLDEN.len() {
            let frame = &GOLDEN[..end];
            let outcome = RequestHeader::parse(frame).and_then(|header| FetchRequest::parse(&header, frame));
            assert!(outcome.is_err(), "cut at {end}");
        }
    }

    #[test]
    fn responses_are_read_by_an_independent_decoder_in_every_version() {
        for version in 4..=17 {
            let topic = if version >= 13 { TopicRef::Id([7; 16]) } else { TopicRef::Name("t".into()) };
            let full = Fetched {
                index: 0,
                error: ErrorCode::None,
                high_watermark: 11,
                start_offset: 2,
                records: b"abc".to_vec(),
            };
            let parts = vec![full, Fetched::failed(1, ErrorCode::OffsetOutOfRange)];
            let reply = response(version, 1, ErrorCode::None, vec![(topic, parts)]);
            assert_eq!(reply.parts()[1], b"abc");
            let mut body = Bytes::from(reply.parts().concat());
            body.advance(if version >= 12 { 9 } else { 8 });
            let read = FetchResponse::decode(&mut body, version).unwrap();
            assert!(body.is_empty(), "version {version}");
            let partitions = &read.responses[0].partitions;
            assert_eq!((partitions[0].high_watermark, partitions[0].last_stable_offset), (11, 11));
            assert_eq!(partitions[0].records.as_deref(), Some(&b"abc"[..]));
            assert_eq!((partitions[1].partition_index, partitions[1].error_code), (1, 1));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(version in 4_i16..=17, body: Vec<u8>) {
            let header = RequestHeader { api: Api::Fetch, version, correlation: 0, client: None, body: 0 };
            let _ = FetchRequest::parse(&header, &body);
        }
    }
}
