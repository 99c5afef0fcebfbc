//! Reads the single records of an uncompressed batch without copying.

use kiln_types::Offset;

use super::header::{Codec, HEADER_BYTES, Header};
use super::{BadBatch, varint};

/// A stored record; key, value and headers point into the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its position in the log.
    pub offset: Offset,
    /// Milliseconds since the epoch.
    pub time_ms: i64,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Named values beside it.
    pub headers: Headers<'a>,
}

/// The headers of a record: an iterator of name and value. A null value reads as empty.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    left: usize,
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// The value of the first header of that name.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.clone().find(|(other, _)| *other == name).map(|(_, value)| value)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        take_header(&mut self.rest)
    }
}

fn take_header<'a>(input: &mut &'a [u8]) -> Option<(&'a str, &'a [u8])> {
    let name = std::str::from_utf8(take_field(input)??).ok()?;
    Some((name, take_field(input)?.unwrap_or_default()))
}

/// The records of one batch. After an error it ends.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    header: Header,
    rest: &'a [u8],
    index: i32,
    failed: Option<BadBatch>,
}

/// The records in `batch`, which must be one whole batch. Compressed ones give [`BadBatch::Compressed`].
/// Checksums are not computed: see [`super::verify`].
pub fn records(batch: &[u8]) -> Records<'_> {
    let header = Header::parse(batch);
    let failed = match &header {
        Err(bad) => Some(bad.clone()),
        Ok(header) if header.codec() != Codec::None => Some(BadBatch::Compressed(header.codec())),
        Ok(header) if header.bytes > batch.len() => {
            Some(BadBatch::Short { have: batch.len(), need: header.bytes })
        }
        Ok(_) => None,
    };
    match (header, failed) {
        (Ok(header), None) => {
            Records { header, rest: &batch[HEADER_BYTES..header.bytes], index: 0, failed: None }
        }
        (_, failed) => Records { header: NO_RECORDS, rest: &[], index: 0, failed },
    }
}

const NO_RECORDS: Header = Header {
    base: Offset(0),
    bytes: HEADER_BYTES,
    leader_epoch: -1,
    crc: 0,
    attributes: 0,
    last_offset_delta: -1,
    base_time_ms: 0,
    max_time_ms: 0,
    producer_id: -1,
    producer_epoch: -1,
    base_sequence: -1,
    records: 0,
};

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, BadBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(bad) = self.failed.take() {
            return Some(Err(bad));
        }
        if self.index >= self.header.records {
            return None;
        }
        let index = self.index;
        let record = take_record(&mut self.rest, &self.header).ok_or(BadBatch::Record { index });
        self.index = if record.is_ok() { index + 1 } else { i32::MAX };
        Some(record)
    }
}

fn take_record<'a>(input: &mut &'a [u8], header: &Header) -> Option<RecordRef<'a>> {
    let length = usize::try_from(varint::take(input)?).ok()?;
    let (mut body, rest) = input.split_at_checked(length)?;
    *input = rest;
    let (_attributes, fields) = body.split_first()?;
    body = fields;
    let time_delta = varint::take(&mut body)?;
    let delta = varint::take(&mut body)?;
    if delta < 0 || delta > i64::from(header.last_offset_delta) {
        return None;
    }
    let key = take_field(&mut body)?;
    let value = take_field(&mut body)?;
    let headers = take_headers(&mut body)?;
    let created_ms = header.base_time_ms.checked_add(time_delta)?;
    let time_ms = if header.is_append_time() { header.max_time_ms } else { created_ms };
    Some(RecordRef { offset: Offset(header.base.0.checked_add(delta)?), time_ms, key, value, headers })
}

/// Takes the headers after walking them once, so that iterating them later cannot fail.
fn take_headers<'a>(input: &mut &'a [u8]) -> Option<Headers<'a>> {
    let left = usize::try_from(varint::take(input)?).ok()?;
    let headers = Headers { left, rest: input };
    for _ in 0..left {
        take_header(input)?; // a false count ends here, with the bytes
    }
    input.is_empty().then_some(headers)
}

/// A length and that many bytes; the length -1 is a null.
#[expect(clippy::option_option, reason = "outside: whether it could be read; inside: whether it is null")]
fn take_field<'a>(input: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take(input)?;
    if length == -1 {
        return Some(None);
    }
    let (field, rest) = input.split_at_checked(usize::try_from(length).ok()?)?;
    *input = rest;
    Some(Some(field))
}
