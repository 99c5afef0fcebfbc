//! Builds an uncompressed batch record by record.

use kiln_types::Offset;

use super::header::{HEADER_BYTES, Header, checksum};
use super::varint;

/// A record to be stored.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Named values beside it.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Milliseconds since the epoch.
    pub time_ms: i64,
}

/// Collects records into one uncompressed batch.
#[derive(Debug, Clone)]
pub struct Builder {
    out: Vec<u8>,
    header: Header,
}

impl Builder {
    /// An empty batch whose timestamps count from `base_time_ms`, milliseconds since the epoch.
    pub fn new(base_time_ms: i64) -> Builder {
        Builder::with_buffer(base_time_ms, Vec::new())
    }

    /// As [`Builder::new`], in the memory of `buffer`, whose content is thrown away.
    pub fn with_buffer(base_time_ms: i64, mut buffer: Vec<u8>) -> Builder {
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        let header = Header {
            base: Offset(0),
            bytes: HEADER_BYTES,
            leader_epoch: -1,
            crc: 0,
            attributes: 0,
            last_offset_delta: -1,
            base_time_ms,
            max_time_ms: i64::MIN,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            records: 0,
        };
        Builder { out: buffer, header }
    }

    /// Marks the batch as written by an idempotent producer.
    pub fn producer(&mut self, id: i64, epoch: i16, base_sequence: i32) -> &mut Builder {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    /// Sets the attribute bits; the codec bits must stay 0, since the builder does not compress.
    pub fn attributes(&mut self, attributes: i16) -> &mut Builder {
        debug_assert_eq!(attributes & 0b111, 0, "the builder does not compress");
        self.header.attributes = attributes;
        self
    }

    /// Appends a record.
    pub fn push(&mut self, record: &Record<'_>) -> &mut Builder {
        let delta = i64::from(self.header.records);
        let time_delta = record.time_ms - self.header.base_time_ms;
        let body = 1
            + varint::size(time_delta)
            + varint::size(delta)
            + field_size(record.key)
            + field_size(record.value)
            + headers_size(record.headers);
        varint::put(&mut self.out, body as i64);
        self.out.push(0); // record attributes: none are defined
        varint::put(&mut self.out, time_delta);
        varint::put(&mut self.out, delta);
        self.put_field(record.key);
        self.put_field(record.value);
        varint::put(&mut self.out, record.headers.len() as i64);
        for (name, value) in record.headers {
            self.put_field(Some(name.as_bytes()));
            self.put_field(Some(value));
        }
        self.header.records += 1;
        self.header.last_offset_delta += 1;
        self.header.max_time_ms = self.header.max_time_ms.max(record.time_ms);
        self
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.header.records as usize
    }

    /// Whether there is no record yet.
    pub fn is_empty(&self) -> bool {
        self.header.records == 0
    }

    /// Size of the batch so far, in bytes.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// The finished batch at base offset 0, to be patched by [`crate::Log::append`], which refuses an empty one.
    pub fn finish(self) -> Vec<u8> {
        let Builder { mut out, mut header } = self;
        header.bytes = out.len();
        header.max_time_ms = header.max_time_ms.max(header.base_time_ms);
        out[..HEADER_BYTES].copy_from_slice(&header.encode());
        let crc = checksum(&out);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn put_field(&mut self, bytes: Option<&[u8]>) {
        varint::put(&mut self.out, bytes.map_or(-1, |bytes| bytes.len() as i64));
        self.out.extend_from_slice(bytes.unwrap_or_default());
    }
}

fn field_size(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(varint::size(-1), |bytes| varint::size(bytes.len() as i64) + bytes.len())
}

fn headers_size(headers: &[(&str, &[u8])]) -> usize {
    let each = |(name, value): &(&str, &[u8])| field_size(Some(name.as_bytes())) + field_size(Some(value));
    varint::size(headers.len() as i64) + headers.iter().map(each).sum::<usize>()
}
